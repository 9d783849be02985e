"""Questions -> responses: a Ray Data actor pool of backends.

Every backend has the questions of many tasks in flight at once. A task writes each question to storage within a second
of its last response and hands on only numbers. So what is finished is durable whatever fails next (journal.py), and
only what was in flight is asked again.
"""

import concurrent.futures
import functools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from east_ray.config import Config, EnginePoolConfig, InputError, PromptConfig
from east_ray.config.devices import cpus
from east_ray.questions.prompts import load_tokenizer, messages, render_prompt, tokenize_prompt
from east_ray.ray_cluster import most_cores
from east_ray.records import RESPONSE, SAMPLES, SetAside
from east_ray.sampling import backends
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
from east_ray.sampling.journal import Row, TaskJournal, sample_keys
from east_ray.sampling.watch import COMPILING, LOADING, READY, PoolStatus, Reporter, TaskProgress, make_board, shown
from east_ray.storage import Folder, local_copy, resolve_model

#: Responses that a backend holds over those that it computes at once. A task lasts as long as its longest response, so
#: by Little's law the engine stays full if this is above longest over mean length.
_FILLS = 8


#: The tasks of a run are no larger than leaves so many to each engine.
_TASKS_OF_AN_ENGINE = 8


#: What is known of an engine that died without an error.
_NO_ERROR = "its process was killed"


#: Questions that are Python objects at the same time, where there may be millions.
_ROWS_AT_ONCE = 4096


#: Seconds: questions of a task that finish within this time of one another are written together.
_GATHER_S = 1.0


#: If engines have died of more questions of a task than this, and it has no response, the questions are not to blame.
_MAX_POISONOUS = 2


#: What these settings are where they change no response. They are then no part of a key, so that a run that was begun
#: without them goes on. The model's fingerprint says whether it has a chat template.
_LATER: Mapping[str, Sequence[Any]] = {"stop": ([],), "params": ({},), "style": ("auto", "chat"), "examples": (None,)}


@dataclass(frozen=True)
class PoolSettings:
    """What a pool needs to know beside the questions and the models."""

    backend: type[Backend]
    args: Mapping[str, Any]  # as `Backend.checked_args` returned them
    engines: EnginePoolConfig
    prompt: PromptConfig
    decoding: Decoding
    keep_token_ids: bool = False


def pool_settings(
    config: Config, decoding: Decoding, *, keep_token_ids: bool = False, evaluated: str | None = None
) -> PoolSettings:
    """The settings of a pool from those of a run: of `sampling.backend`, or of the endpoint of an evaluated model.

    Raises InputError if the backend cannot be loaded.
    """
    engines, sampling = config.engines, config.sampling
    endpoint = engines.endpoint if evaluated is None else config.evaluation.endpoints[evaluated]
    if endpoint is not None:
        where = "engines.endpoint" if evaluated is None else f"evaluation.endpoints.{evaluated}"
        if endpoint.tokenizer is not None:
            endpoint = endpoint.model_copy(update={"tokenizer": resolve_model(endpoint.tokenizer)})
        engines = engines.of_endpoint(endpoint)
        sampling = sampling.model_copy(update={"backend": "endpoint", "backend_args": {}})
    backend = backends.load(sampling)
    args = backend.checked_args(sampling.backend_args)
    if endpoint is not None:
        is_served = evaluated is not None
        args = backends.endpoint_args(endpoint, where, config.prompt, decoding, is_served=is_served)
    return PoolSettings(backend, args, engines, config.prompt, decoding, keep_token_ids)


def requests(questions: pa.Table, models: Mapping[str, str], settings: PoolSettings) -> pa.Table:
    """What is to be asked: every question of every model (name -> path), with the key of its samples."""
    told = settings.decoding.told() | settings.prompt.model_dump()
    told = {name: value for name, value in told.items() if name not in _LATER or value not in _LATER[name]}
    batches = questions.select(["question_id", "question"]).to_batches(max_chunksize=_ROWS_AT_ONCE)
    tables = []
    for name, path in models.items():
        identity = settings.backend.identity(path, settings.args)
        keys = [pa.array(sample_keys(name, identity, told, batch.to_pylist()), pa.string()) for batch in batches]
        table = questions.append_column(SAMPLES.field("model"), pa.repeat(name, questions.num_rows))
        tables.append(table.append_column(SAMPLES.field("key"), pa.chunked_array(keys, pa.string())))
    return pa.concat_tables(tables)


def questions_per_task(engines: EnginePoolConfig, num_responses: int, at_once: int, num_questions: int) -> int:
    """How many questions a task has: many in a large run, since each task costs files, requests and the driver's time.

    Never more than a quarter of what an engine is handed at a time, so that its engine stays full, and so few that each
    engine gets eight tasks or more.

    >>> [questions_per_task(EnginePoolConfig(max_engines=64), 8, 256, count) for count in (100, 10_000, 1_000_000)]
    [8, 19, 64]
    """
    most, share = _FILLS * at_once // (4 * num_responses), num_questions // (_TASKS_OF_AN_ENGINE * engines.max_engines)
    return max(engines.questions_per_task, at_once // (4 * num_responses), min(most, share))


def sample(
    asked: pa.Table,
    models: Mapping[str, str],
    folder: Folder,
    set_aside: Folder,
    settings: PoolSettings,
    show: Callable[[PoolStatus], None] = lambda status: None,
) -> Iterator[dict[str, int]]:
    """Ask `requests` and write the rows (records.SAMPLES) as parts of `folder`; `journal.tidy` then brings it to rest.

    Questions that the backend refuses or dies of go to `set_aside`. Yields the numbers of each task as it becomes
    durable: num_questions, num_set_aside, num_responses, num_tokens. `show` gets the status of the pool every second,
    from another thread, and once more at the end. The models (name -> path) are one of the backend's groups, so that
    one pool serves them. Raises what a backend raises that cannot start.
    """
    import ray.data

    engines, num_responses = settings.engines, settings.decoding.responses_per_question
    at_once = settings.backend.responses_at_once(engines, num_responses)
    per_task = questions_per_task(engines, num_responses, at_once, asked.num_rows)
    tasks_per_engine = max(2, -(-_FILLS * at_once // (per_task * num_responses)))
    blocks = [asked.slice(begin, per_task) for begin in range(0, asked.num_rows, per_task)]
    if not blocks:
        return
    num_cpus = cpus(engines, most_cores(engines.resources))
    environment = settings.backend.environment(engines.model_copy(update={"num_cpus_per_engine": num_cpus}))
    pool = ray.data.ActorPoolStrategy(
        min_size=engines.min_engines,
        max_size=min(engines.max_engines, max(engines.min_engines, len(blocks))),
        max_tasks_in_flight_per_actor=tasks_per_engine,
        max_concurrent_calls_per_actor=tasks_per_engine,
        enable_true_multi_threading=True,
    )
    board = make_board(engines.min_engines)
    results = ray.data.from_arrow(blocks).map_batches(
        Sampler,
        batch_size=per_task,
        batch_format="pyarrow",
        fn_constructor_args=(dict(models), settings, folder, set_aside, board),
        compute=pool,
        num_cpus=num_cpus,
        num_gpus=engines.num_gpus_per_engine or None,
        resources=engines.resources or None,
        runtime_env={"env_vars": {**environment, **engines.env}},
    )
    with shown(board, show):
        yield from results.iter_rows()


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

    def _tell(self, journal: TaskJournal, answered: Sequence[Row], num_new: int, aside: Sequence[Row] = ()) -> None:
        """Tell how much of a task is durable now; of its responses, `num_new` are by this process and not told yet."""
        progress = TaskProgress(
            num_questions=dict(Counter(row["model"] for row in (*answered, *aside))),
            num_responses=sum(len(row["responses"]) for row in answered),
        )
        self._reporter.durable(journal.task, progress, num_new)

    def __call__(self, questions: pa.Table) -> pa.Table:
        """Questions with their key and the name of the model to ask -> one row of numbers, once all is durable.

        Raises RuntimeError if engines have died of several of these, each asked alone: then the engine is at fault.
        """
        with self._end_of_process_if_the_engine_dies():
            answered, aside = self._work(questions.to_pylist())
        num_tokens = [response["num_tokens"] or 0 for row in answered for response in row["responses"]]
        numbers = {"num_questions": len(answered), "num_set_aside": len(aside)}
        return pa.Table.from_pylist([numbers | {"num_responses": len(num_tokens), "num_tokens": sum(num_tokens)}])

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

    def _work(self, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """Rows of SAMPLES and of SET_ASIDE of a task."""
        journal = TaskJournal(self._folder, self._set_aside, [row["key"] for row in rows])
        is_finished, answered, aside = journal.open()
        self._tell(journal, answered, 0, aside)
        if is_finished:
            return answered, aside
        found = {row["key"] for row in answered}
        together, alone, deadly = self._sorted_by_deaths([row for row in rows if row["key"] not in found], journal)
        aside += deadly
        if len(aside) > _MAX_POISONOUS and not answered:
            raise RuntimeError(f"engines die of every question: {next(iter(journal.errors.values()), _NO_ERROR)}")
        left, num_new = len(together) + len(alone), 0
        for group in filter(None, [together, *([row] for row in alone)]):
            settled: set[str] = set()
            try:
                for finished, refused in self._ask(group, journal, alone=group is not together):
                    settled |= {row["key"] for row in (*finished, *refused)}
                    left -= len(finished) + len(refused)
                    answered += finished
                    aside += refused
                    num_new += sum(len(row["responses"]) for row in finished)
                    if finished and (left or group is not together):
                        journal.add(finished)
                        self._tell(journal, answered, num_new)
                        num_new = 0
            except EngineDiedError as error:
                journal.died([row["key"] for row in group if row["key"] not in settled], str(error))
                raise
        journal.close(answered, aside)
        self._tell(journal, answered, num_new, aside)
        self._reporter.tell()  # the driver may get the task's result at once
        return answered, aside

    def _sorted_by_deaths(self, rows: Sequence[Row], journal: TaskJournal) -> tuple[list[Row], list[Row], list[Row]]:
        """Rows to ask together, rows to ask alone, and rows of SET_ASIDE of those that engines have died of.

        After two attempts that ended in a death (of an engine, its process or its node), a question is asked alone,
        so that there is no doubt which question the next death is due to.
        """
        if not self._backend.may_die_of_questions:
            return list(rows), [], []
        together, alone, deadly = [], [], []
        for row in rows:
            num_alone, error = journal.deaths_alone[row["key"]], journal.errors.get(row["key"])
            if num_alone >= self._settings.engines.max_deaths_per_question:
                detail = f"{num_alone} times with no other beside it; {error or _NO_ERROR}"
                deadly.append(row | {"reason": SetAside.ENGINE_DIED, "detail": detail})
            elif num_alone or journal.deaths[row["key"]] > 1:
                alone.append(row)
            else:
                together.append(row)
        # Questions without a recorded death alone run first: once one is answered, the engine is known to work.
        return together, sorted(alone, key=lambda row: journal.deaths_alone[row["key"]]), deadly

    def _ask(self, rows: Sequence[Row], journal: TaskJournal, *, alone: bool) -> Iterator[tuple[list[Row], list[Row]]]:
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
            finished, refused = [], []
            death: EngineDiedError | InputError | None = None
            for future in done:
                row = waiting.pop(future)
                try:
                    finished.append(row | {"responses": self._told(future.result())})
                except RequestRefusedError as error:
                    refused.append(row | {"reason": SetAside.ENGINE_REFUSED, "detail": str(error)})
                except (EngineDiedError, InputError) as error:
                    death = error
            yield finished, refused
            if lonely:
                lonely.settled.set()
            if death:  # raised only now, when what had finished before it is durable
                raise death

    def _request(self, row: Row, alone: Alone | None) -> "Future[list[Response]]":
        """Ask a question; puts its rendered prompt and the number of tokens in its row, where they are known."""
        told, form = self._settings.prompt, self._backend.prompt_form
        prompt: Prompt = messages(row["question"], told) if form == "messages" else []
        if self._tokenizer is not None:
            text = render_prompt(self._tokenizer, row["question"], told)
            ids = tokenize_prompt(self._tokenizer, text, told)
            row |= {"prompt": text, "num_prompt_tokens": len(ids)}
            prompt = prompt or (ids if form == "ids" else text)
        decoding = self._settings.decoding
        decoding = replace(decoding, seed=decoding.seed_of(row["question_id"]))
        num_responses = decoding.responses_per_question
        self._count(num_responses)
        future = self._backend.ask(self._models[row["model"]], prompt, decoding, alone=alone)
        future.add_done_callback(lambda done: self._count(-num_responses, () if done.exception() else done.result()))
        return future

    def _told(self, responses: Sequence[Response]) -> list[Row]:
        """Responses as rows of records.RESPONSE."""
        wanted = self._settings.decoding.responses_per_question
        if len(responses) != wanted:
            raise RuntimeError(f"the backend gave {len(responses)} responses in place of {wanted}")
        told = [{field.name: getattr(response, field.name) for field in RESPONSE} for response in responses]
        for row in told:
            ids = row["token_ids"] if self._settings.keep_token_ids else None
            row["token_ids"] = None if ids is None else np.asarray(ids, dtype=np.int32)
        return told
