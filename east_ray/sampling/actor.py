"""The actor of the pool: asks its backend, and writes what it answers."""

import concurrent.futures
import functools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from east_ray.config import EnginePoolConfig, PromptConfig
from east_ray.questions.prompts import load_tokenizer, messages, render_prompt, tokenize
from east_ray.records import RESPONSE, SET_ASIDE, SetAside
from east_ray.sampling.backends import Alone, Backend, EngineDiedError, Prompt, RequestRefusedError, Response
from east_ray.sampling.decoding import Decoding
from east_ray.sampling.journal import TaskJournal
from east_ray.storage import Folder, local_copy

#: What is known of an engine that died without an error.
_NO_ERROR = "its process was killed"
#: Seconds: questions of a task that finish within this time of one another are written together.
_GATHER_S = 1.0
#: If engines have died of more questions of a task than this, and it has no response, the questions are not to blame.
_MAX_POISONOUS = 2

_RESPONSE_FIELDS = [field.name for field in RESPONSE]


@dataclass(frozen=True)
class PoolSettings:
    """What a pool needs to know beside the questions and the models."""

    backend: type[Backend]
    args: Mapping[str, Any]
    """As `Backend.checked_args` returned them."""
    engines: EnginePoolConfig
    prompt: PromptConfig
    decoding: Decoding


class Sampler:
    """The actor of the pool: asks its backend a task's questions, writes their responses, hands on the numbers."""

    def __init__(self, models: Mapping[str, str], settings: PoolSettings, folder: Folder, set_aside: Folder) -> None:
        first = next(iter(models.values()))
        kind, decoding = settings.backend, settings.decoding
        self._models, self._prompt, self._decoding = models, settings.prompt, decoding
        self._folder, self._set_aside = folder, set_aside
        self._max_deaths = settings.engines.max_deaths_per_question
        self._tokenizer = None if kind.prompt_form == "messages" else load_tokenizer(local_copy(first))
        self._backend = kind(first, kind.settings_for(settings.engines, decoding), settings.args)
        self._asking = threading.Lock()
        self._lock = threading.Lock()
        self._num_tasks = 0

    def __call__(self, questions: pa.Table) -> pa.Table:
        """Questions with their key and the name of the model to ask -> one row of numbers, once all is durable.

        Raises RuntimeError if engines have died of several of these questions, each asked alone: then the engine is at
        fault, not the questions.
        """
        with self._end_of_process_if_the_engine_dies():
            answered, aside = self._work(questions.to_pylist())
        responses = [response for row in answered for response in row["responses"]]
        return pa.table(
            {
                "num_questions": [len(answered)],
                "num_set_aside": [len(aside)],
                "num_responses": [len(responses)],
                "num_tokens": [sum(response["num_tokens"] or 0 for response in responses)],
            }
        )

    @contextmanager
    def _end_of_process_if_the_engine_dies(self) -> Iterator[None]:
        """A failed engine cannot be repaired in its process: the process ends once every task has written its notes.

        Ray then starts the actor again, on this node or another, and gives it its tasks again.
        """
        with self._lock:
            self._num_tasks += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_tasks -= 1
                is_last = self._num_tasks == 0
            if self._backend.has_failed:
                if is_last:
                    os._exit(1)
                threading.Event().wait()  # until the last task ends the process

    def _work(self, rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of SAMPLES and of SET_ASIDE of a task."""
        journal = TaskJournal(self._folder, self._set_aside, [row["key"] for row in rows])
        is_finished, answered, aside = journal.open()
        if is_finished:
            return answered, aside
        found = {row["key"] for row in answered}
        together, alone, deadly = self._sorted_by_deaths([row for row in rows if row["key"] not in found], journal)
        aside += deadly
        if len(aside) > _MAX_POISONOUS and not answered:
            raise RuntimeError(f"engines die of every question: {next(iter(journal.errors.values()), _NO_ERROR)}")
        left = len(together) + len(alone)
        for group in [*([together] if together else []), *([row] for row in alone)]:
            settled: set[str] = set()
            try:
                for finished, refused in self._ask(group, journal, alone=group is not together):
                    settled |= {row["key"] for row in (*finished, *refused)}
                    left -= len(finished) + len(refused)
                    answered += finished
                    aside += refused
                    if finished and (left or group is not together):
                        journal.add(finished)
            except EngineDiedError as error:
                journal.died([row["key"] for row in group if row["key"] not in settled], str(error))
                raise
        journal.close(answered, aside)
        return answered, aside

    def _sorted_by_deaths(
        self, rows: Sequence[dict[str, Any]], journal: TaskJournal
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows to ask together, rows to ask alone, and rows of SET_ASIDE of those that engines have died of.

        After two attempts that ended in a death (of an engine, its process or its node), a question is asked alone,
        so that there is no doubt which question the next death is due to.
        """
        together, alone, deadly = [], [], []
        for row in rows:
            num_alone, error = journal.deaths_alone[row["key"]], journal.errors.get(row["key"])
            if num_alone >= self._max_deaths:
                detail = f"{num_alone} times with no other beside it; {error or _NO_ERROR}"
                deadly.append(_aside(row, SetAside.ENGINE_DIED, detail))
            elif num_alone or journal.deaths[row["key"]] > 1:
                alone.append(row)
            else:
                together.append(row)
        # Questions without a recorded death alone run first: once one is answered, the engine is known to work.
        alone.sort(key=lambda row: journal.deaths_alone[row["key"]])
        return together, alone, deadly

    def _ask(
        self, rows: Sequence[dict[str, Any]], journal: TaskJournal, *, alone: bool
    ) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
        """Rows of SAMPLES as questions finish, at most `_GATHER_S` later, and rows of SET_ASIDE."""
        keys = [row["key"] for row in rows]
        if not alone:
            journal.ask(keys)
        lonely = Alone(functools.partial(journal.ask, keys, alone=True)) if alone else None
        with self._asking:  # tasks of two models must not alternate row by row: each change empties the engine
            waiting = {self._request(row, lonely): row for row in rows}
        while waiting:
            concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            done, _ = concurrent.futures.wait(waiting, timeout=_GATHER_S)
            finished, refused, death = [], [], None
            for future in done:
                row = waiting.pop(future)
                try:
                    finished.append(self._sample_row(row, future.result()))
                except RequestRefusedError as error:
                    refused.append(_aside(row, SetAside.ENGINE_REFUSED, str(error)))
                except EngineDiedError as error:
                    death = error
            yield finished, refused
            if lonely:
                lonely.settled.set()
            if death:  # raised only now, when what had finished before it is durable
                raise death

    def _request(self, row: dict[str, Any], alone: Alone | None) -> "Future[list[Response]]":
        """Ask a question; puts its rendered prompt and the number of tokens in its row, where they are known."""
        prompt: Prompt
        if self._tokenizer is None:
            prompt = messages(row["question"], self._prompt)
        else:
            text = render_prompt(self._tokenizer, row["question"], self._prompt)
            ids = tokenize(self._tokenizer, text)
            row |= {"prompt": text, "num_prompt_tokens": len(ids)}
            prompt = ids if self._backend.prompt_form == "ids" else text
        decoding = self._decoding.of_question(row["question_id"])
        return self._backend.ask(self._models[row["model"]], prompt, decoding, alone=alone)

    def _sample_row(self, row: Mapping[str, Any], responses: Sequence[Response]) -> dict[str, Any]:
        """A question with its responses -> a row of records.SAMPLES."""
        wanted = self._decoding.responses_per_question
        if len(responses) != wanted:
            raise RuntimeError(f"the backend gave {len(responses)} responses in place of {wanted}")
        told = [{name: getattr(response, name) for name in _RESPONSE_FIELDS} for response in responses]
        return {**row, "responses": told}


def _aside(row: Mapping[str, Any], reason: SetAside, detail: str) -> dict[str, Any]:
    return {name: row.get(name) for name in SET_ASIDE.names} | {"reason": reason, "detail": detail}
