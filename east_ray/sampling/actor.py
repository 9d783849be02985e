"""The actor of the pool: asks its backend the questions of many tasks, and makes durable what it has got.

A question of an adaptive run gets its next responses as soon as those before are there, from the same engine, which
then shares the prompt's prefix. It stays full with other questions meanwhile.
"""

import concurrent.futures
import functools
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from east_ray.config import EnginePoolConfig, InputError, PromptConfig
from east_ray.questions.prompts import load_tokenizer, messages, render_prompt, tokenize_prompt
from east_ray.records import RESPONSE, SetAside
from east_ray.sampling.adaptive import Step
from east_ray.sampling.backends import (
    Alone,
    Backend,
    Decoding,
    EngineDiedError,
    EngineStatus,
    Prompt,
    RequestRefusedError,
    Response,
)
from east_ray.sampling.deciding import Adaptive, next_step
from east_ray.sampling.journal import Row, TaskJournal
from east_ray.sampling.watch import COMPILING, LOADING, READY, Reporter, TaskProgress
from east_ray.storage import Folder, local_copy

#: What is known of an engine that died without an error.
_NO_ERROR = "its process was killed"


#: Seconds: questions of a task that finish within this time of one another are written together.
_GATHER_S = 1.0
_FIRST = concurrent.futures.FIRST_COMPLETED


#: If engines have died of more questions of a task than this, and it has no response, the questions are not to blame.
_MAX_POISONOUS = 2


@dataclass(frozen=True)
class PoolSettings:
    """What a pool needs to know beside the questions and the models."""

    backend: type[Backend]
    args: Mapping[str, Any]  # as `Backend.checked_args` returned them
    engines: EnginePoolConfig
    prompt: PromptConfig
    decoding: Decoding
    keep_token_ids: bool = False
    adaptive: Adaptive | None = None


@dataclass
class _Got:
    """What questions of a task have got within a moment."""

    rows: dict[str, Row] = field(default_factory=dict)
    """By key, with all responses so far; `stopped_because` is None where more were asked for."""
    refused: list[tuple[Row, str]] = field(default_factory=list)
    """Rows whose request was refused, with the reason."""
    alone: list[Alone] = field(default_factory=list)
    """To be told when all this is durable."""
    death: EngineDiedError | InputError | None = None

    @property
    def settled(self) -> set[str]:
        """Keys of the questions for which nothing more is asked."""
        ended = {key for key, row in self.rows.items() if row["stopped_because"] is not None}
        return ended | {row["key"] for row, _ in self.refused}


class _Progress:
    """What the questions of a task have so far."""

    def __init__(self, asked: Sequence[Row]) -> None:
        #: Of questions that were begun before this pool: how many responses they have from then, and in which part.
        self.had: dict[str, int] = {row["key"]: row.get("num_had") or 0 for row in asked}
        self.begun_in: dict[str, str] = {row["key"]: part for row in asked if (part := row.get("begun_in"))}
        self.answered: list[Row] = []
        self.aside: list[Row] = []
        self._has = dict(self.had)

    @property
    def num_joined(self) -> int:
        """Responses beyond those from before this pool."""
        return sum(self._has.values()) - sum(self.had.values())

    def add(self, rows: Sequence[Row]) -> int:
        """Take rows with all their responses so far, and keep those that have ended; returns how many have joined."""
        before = self.num_joined
        self._has |= {row["key"]: len(row["responses"]) for row in rows}
        self.answered += [row for row in rows if row["stopped_because"] is not None]
        return self.num_joined - before

    def give_up(self, row: Row, reason: SetAside, detail: str) -> None:
        """End a question that cannot be asked for more: set it aside, or keep the responses that it has."""
        if row["responses"]:
            self.answered.append(row | {"stopped_because": str(reason)})
        else:
            self.aside.append(row | {"reason": reason, "detail": detail})


def _asked_as(row: Row) -> str:
    """What tells the tasks of a question apart: its key and, in a wave of a budget, how many responses it then has."""
    return f"{row['key']} {row['num_wanted']}" if "num_wanted" in row else str(row["key"])


class Sampler:
    """The actor of the pool: asks its backend a task's questions, writes their responses, hands on the numbers."""

    def __init__(
        self, models: Mapping[str, str], settings: PoolSettings, folder: Folder, set_aside: Folder, board: Any
    ) -> None:
        self._lock, self._counted = threading.Lock(), EngineStatus()
        self._is_ready = False
        first, kind = next(iter(models.values())), settings.backend
        self._models, self._settings, self._folder, self._set_aside = models, settings, folder, set_aside
        self._reporter = Reporter(board, self._phase, self._status)
        self._backend = kind(first, kind.settings_for(settings.engines, settings.decoding), settings.args)
        self._tokenizer = None
        if self._backend.prompt_form != "messages":
            self._tokenizer = load_tokenizer(local_copy(self._backend.tokenizer or first))
        self._asking, self._num_tasks = threading.Lock(), 0
        self._is_ready = True
        self._reporter.tell()

    def _phase(self) -> str:
        if self._is_ready:
            return READY
        return COMPILING if self._settings.backend.is_compiling() else LOADING

    def _status(self) -> EngineStatus:
        told = self._backend.status() if self._is_ready else None
        return told or self._counted

    def _count(self, num_running: int, responses: Sequence[Response] = ()) -> None:
        """What the backend is asked and answers, for one that does not say what it is doing."""
        num_tokens = sum(response.num_tokens or 0 for response in responses)
        with self._lock:
            before = self._counted
            self._counted = EngineStatus(
                num_running=before.num_running + num_running,
                num_finished=before.num_finished + len(responses),
                num_tokens=before.num_tokens + num_tokens,
            )

    def _tell(self, journal: TaskJournal, task: "_Progress", num_new: int) -> None:
        """Tell how much of a task is durable now; of its responses, `num_new` are by this process and not told yet."""
        ended = Counter(row["model"] for row in (*task.answered, *task.aside))
        self._reporter.durable(journal.task, TaskProgress(dict(ended), task.num_joined), num_new)

    def __call__(self, questions: pa.Table) -> pa.Table:
        """Questions with their key and the name of the model to ask -> one row of numbers, once all is durable.

        Raises RuntimeError if engines have died of several of these, each asked alone: then the engine is at fault.
        """
        with self._end_of_process_if_the_engine_dies():
            task = self._work(questions.to_pylist())
        joined = [one for row in task.answered for one in row["responses"][task.had.get(row["key"], 0) :]]
        numbers = {"num_questions": len(task.answered), "num_set_aside": len(task.aside), "num_responses": len(joined)}
        return pa.Table.from_pylist([numbers | {"num_tokens": sum(one["num_tokens"] or 0 for one in joined)}])

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

    def _work(self, rows: Sequence[Row]) -> "_Progress":
        """All rows of SAMPLES and of SET_ASIDE of a task, which is durable then."""
        journal, task = TaskJournal(self._folder, self._set_aside, list(map(_asked_as, rows))), _Progress(rows)
        is_finished, found, task.aside = journal.open(task.begun_in)
        if is_finished:
            task.add(found)
            self._tell(journal, task, 0)
            return task
        left = self._left(rows, found, task)
        self._tell(journal, task, 0)
        together, alone, deadly = self._sorted_by_deaths(left, journal)
        if len(deadly) > _MAX_POISONOUS and not task.num_joined:
            raise RuntimeError(f"engines die of every question: {next(iter(journal.errors.values()), _NO_ERROR)}")
        for row, detail in deadly:
            task.give_up(row, SetAside.ENGINE_DIED, detail)
        num_left, num_new = len(together) + len(alone), 0
        for group in filter(None, [together, *([row] for row in alone)]):
            settled: set[str] = set()
            try:
                for got in self._ask(group, journal, alone=group is not together):
                    settled |= got.settled
                    num_left -= len(got.settled)
                    num_new += task.add(list(got.rows.values()))
                    for row, detail in got.refused:
                        task.give_up(row, SetAside.ENGINE_REFUSED, detail)
                    if got.rows and (num_left or group is not together):
                        journal.add(list(got.rows.values()))
                        self._tell(journal, task, num_new)
                        num_new = 0
            except EngineDiedError as error:
                journal.died([row["key"] for row in group if row["key"] not in settled], str(error))
                raise
        journal.close(task.answered, task.aside)
        self._tell(journal, task, num_new)
        self._reporter.tell()  # the driver may get the task's result at once
        return task

    def _left(self, rows: Sequence[Row], found: Sequence[Row], task: "_Progress") -> list[Row]:
        """The rows that get more responses, with those that they have; what has ended joins the task."""
        stored, left = {row["key"]: row for row in found}, list[Row]()
        for row in rows:
            has: Row = {"responses": [], "stopped_because": None} | row | stored.get(row["key"], {})
            has["num_responses"], step = len(has["responses"]), self._step(has)
            task.add([has | {"stopped_because": step.stopped_because}])
            if step.num_more:
                left.append(has | {"num_more": step.num_more})
        return left

    def _step(self, row: Row) -> Step:
        return next_step(row, self._settings.adaptive, self._settings.decoding.responses_per_question)

    def _sorted_by_deaths(
        self, rows: Sequence[Row], journal: TaskJournal
    ) -> tuple[list[Row], list[Row], list[tuple[Row, str]]]:
        """Rows to ask together, rows to ask alone, and those that engines have died of, with what is known of it.

        After two attempts that ended in a death (of an engine, its process or its node), a question is asked alone,
        so that there is no doubt which question the next death is due to.
        """
        if not self._backend.may_die_of_questions:
            return list(rows), [], []
        together, alone, deadly = [], [], []
        for row in rows:
            num_alone, error = journal.deaths_alone[row["key"]], journal.errors.get(row["key"])
            if num_alone >= self._settings.engines.max_deaths_per_question:
                deadly.append((row, f"{num_alone} times with no other beside it; {error or _NO_ERROR}"))
            elif num_alone or journal.deaths[row["key"]] > 1:
                alone.append(row)
            else:
                together.append(row)
        # Questions without a recorded death alone run first: once one is answered, the engine is known to work.
        return together, sorted(alone, key=lambda row: journal.deaths_alone[row["key"]]), deadly

    def _ask(self, rows: Sequence[Row], journal: TaskJournal, *, alone: bool) -> Iterator["_Got"]:
        """What questions get, at most `_GATHER_S` later; those that get more are asked again at once."""
        keys = [row["key"] for row in rows]
        if not alone:
            journal.ask(keys)
        lonely = Alone(functools.partial(journal.ask, keys, alone=True)) if alone else None
        with self._asking:  # tasks of two models must not alternate row by row: each change empties the engine
            waiting = {self._request(row, lonely): (row, lonely) for row in rows}
        wake = concurrent.futures.ALL_COMPLETED if self._settings.adaptive is None else _FIRST
        while waiting:
            got, (done, _) = _Got(), concurrent.futures.wait(waiting, return_when=_FIRST)
            end = time.monotonic() + _GATHER_S
            while done and got.death is None:
                for future in done:
                    if (again := self._taken(future, *waiting.pop(future), got)) is not None:
                        with self._asking:
                            waiting[self._request(*again)] = again
                done, _ = concurrent.futures.wait(waiting, max(0.0, end - time.monotonic()), return_when=wake)
                if time.monotonic() > end:
                    break
            yield got
            for one in got.alone:
                one.settled.set()
            if got.death:  # raised only now, when what had finished before it is durable
                raise got.death

    def _taken(
        self, future: "Future[list[Response]]", row: Row, alone: Alone | None, got: "_Got"
    ) -> tuple[Row, Alone | None] | None:
        """Put what a question gets with what the others got; returns what is to be asked next, if it gets more."""
        if alone:
            got.alone.append(alone)
        try:
            told = self._told(future.result(), row["num_more"])
        except RequestRefusedError as error:
            got.refused.append((row, str(error)))
            return None
        except (EngineDiedError, InputError) as error:
            got.death = error
            return None
        responses = [*row["responses"], *told]
        step = self._step(row := row | {"responses": responses, "num_responses": len(responses)})
        got.rows[row["key"]] = row | {"stopped_because": step.stopped_because}
        # Alone again, but it is noted once: what kills the engine now is a second death only for the next attempt.
        again = alone and Alone(lambda: None)
        return (row | {"num_more": step.num_more}, again) if step.num_more else None

    def _request(self, row: Row, alone: Alone | None) -> "Future[list[Response]]":
        """Ask a question for `num_more` responses, after those that it has; puts its rendered prompt and the number of
        tokens in its row, where they are known.
        """
        told, form = self._settings.prompt, self._backend.prompt_form
        prompt: Prompt = messages(row["question"], told) if form == "messages" else []
        if self._tokenizer is not None:
            text = render_prompt(self._tokenizer, row["question"], told)
            ids = tokenize_prompt(self._tokenizer, text, told)
            row |= {"prompt": text, "num_prompt_tokens": len(ids)}
            prompt = prompt or (ids if form == "ids" else text)
        decoding, num_more = self._settings.decoding, row["num_more"]
        decoding = replace(decoding, responses_per_question=num_more, seed=decoding.seed_of(row["question_id"]))
        self._count(num_more)
        first = len(row["responses"])
        future = self._backend.ask(self._models[row["model"]], prompt, decoding, first=first, alone=alone)
        future.add_done_callback(lambda done: self._count(-num_more, () if done.exception() else done.result()))
        return future

    def _told(self, responses: Sequence[Response], wanted: int) -> list[Row]:
        """Responses as rows of records.RESPONSE."""
        if len(responses) != wanted:
            raise RuntimeError(f"the backend gave {len(responses)} responses in place of {wanted}")
        told = [{field.name: getattr(response, field.name) for field in RESPONSE} for response in responses]
        for row in told:
            ids = row["token_ids"] if self._settings.keep_token_ids else None
            row["token_ids"] = None if ids is None else np.asarray(ids, dtype=np.int32)
        return told
