"""The actor of the pool: asks its engine, writes what it answers.."""

import concurrent.futures
import functools
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from east_ray.config import EnginePoolConfig, PromptConfig
from east_ray.questions.prompts import load_tokenizer, render_prompt, tokenize
from east_ray.records import SET_ASIDE, SetAside
from east_ray.sampling.backends.vllm import Alone, Engine, EngineDiedError, RequestRefusedError
from east_ray.sampling.decoding import Decoding
from east_ray.sampling.journal import TaskJournal
from east_ray.storage import Folder, local_copy

_NO_ERROR = "its process was killed"


#: What finishes within this time of another question of the task is written with it.
_GATHER_S = 1.0


class Sampler:
    """The actor of the pool: asks its engine a task's questions, writes their responses, hands on the numbers."""

    def __init__(
        self,
        models: Mapping[str, str],
        engines: EnginePoolConfig,
        prompt: PromptConfig,
        decoding: Decoding,
        folder: Folder,
        set_aside: Folder,
    ) -> None:
        first = next(iter(models.values()))
        engine_args: Mapping[str, Any] = engines.engine_args
        if decoding.seed is not None and not _has_gpu():
            # A seeded request whose prompt is read in two steps fails on a CPU ("CPU Generator does not use offset").
            engine_args = {"enable_chunked_prefill": False} | dict(engine_args)
        self._models, self._prompt, self._decoding = models, prompt, decoding
        self._folder, self._set_aside, self._max_deaths = folder, set_aside, engines.max_deaths_per_question
        self._tokenizer = load_tokenizer(local_copy(first))
        self._engine = Engine(first, engine_args)
        self._asking = threading.Lock()
        self._lock = threading.Lock()
        self._num_tasks = 0

    def __call__(self, questions: pa.Table) -> pa.Table:
        """Questions with their key and the name of the model to ask -> one row of numbers, once all is durable.

        Raises RuntimeError if engines have died of several of these questions, each on its own: then it is not they.
        """
        with self._end_of_process_if_the_engine_dies():
            answered, aside = self._work(questions.to_pylist())
        responses = [response for row in answered for response in row["responses"]]
        return pa.table(
            {
                "num_questions": [len(answered)],
                "num_set_aside": [len(aside)],
                "num_responses": [len(responses)],
                "num_tokens": [sum(response["num_tokens"] for response in responses)],
            }
        )

    @contextmanager
    def _end_of_process_if_the_engine_dies(self) -> Iterator[None]:
        """A failed engine cannot be mended in its process: once every task has noted what it must, the process ends.

        Ray starts the actor again, here or elsewhere, and gives it its tasks again.
        """
        with self._lock:
            self._num_tasks += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_tasks -= 1
                is_last = self._num_tasks == 0
            if self._engine.has_failed:
                if is_last:
                    os._exit(1)
                threading.Event().wait()  # for the last one

    def _work(self, rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of SAMPLES and of SET_ASIDE of a task."""
        journal = TaskJournal(self._folder, self._set_aside, [row["key"] for row in rows])
        is_finished, answered, aside = journal.open()
        if is_finished:
            return answered, aside
        found = {row["key"] for row in answered}
        together, alone = [], []
        for row in rows:
            alone_deaths, error = journal.deaths_alone[row["key"]], journal.errors.get(row["key"])
            if row["key"] in found:
                continue
            if alone_deaths >= self._max_deaths:
                detail = f"{alone_deaths} times with no other beside it; {error or _NO_ERROR}"
                aside.append(_aside(row, SetAside.ENGINE_DIED, detail))
            elif alone_deaths or journal.deaths[row["key"]] > 1:
                # Two attempts have ended in a death, of an engine, its process or its node: with nothing beside it,
                # there is no doubt of whom the next one dies.
                alone.append(row)
            else:
                together.append(row)
        # Those that are above suspicion first: once they have been answered, it is not the engine's fault.
        alone.sort(key=lambda row: journal.deaths_alone[row["key"]])
        if len(aside) > 2 and not answered:
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

    def _ask(
        self, rows: Sequence[dict[str, Any]], journal: TaskJournal, *, alone: bool
    ) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
        """Rows of SAMPLES as questions finish, at most a second later, and rows of SET_ASIDE."""
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
                    finished.append(sample_row(row, future.result(), self._decoding.responses_per_question))
                except RequestRefusedError as error:
                    refused.append(_aside(row, SetAside.ENGINE_REFUSED, str(error)))
                except EngineDiedError as error:
                    death = error
            yield finished, refused
            if lonely:
                lonely.settled.set()
            if death:  # only after what it had finished is safe
                raise death

    def _request(self, row: dict[str, Any], alone: Alone | None) -> "Future[Any]":
        row["prompt"] = render_prompt(self._tokenizer, row["question"], self._prompt)
        token_ids = tokenize(self._tokenizer, row["prompt"])
        params = self._decoding.params(row["question_id"])
        return self._engine.ask(self._models[row["model"]], token_ids, params, alone)


def _aside(row: Mapping[str, Any], reason: SetAside, detail: str) -> dict[str, Any]:
    return {name: row.get(name) for name in SET_ASIDE.names} | {"reason": reason, "detail": detail}


def sample_row(row: Mapping[str, Any], output: Any, responses_per_question: int) -> dict[str, Any]:
    """A question with its prompt and vLLM's finished output -> a row of records.SAMPLES."""
    assert len(output.outputs) == responses_per_question, (len(output.outputs), responses_per_question)
    return {
        **row,
        "num_prompt_tokens": len(output.prompt_token_ids),
        "responses": [
            {
                "text": response.text,
                "num_tokens": len(response.token_ids),
                "finish_reason": str(response.finish_reason),
                "logprob": response.cumulative_logprob,
            }
            for response in sorted(output.outputs, key=lambda response: response.index)
        ],
    }


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
