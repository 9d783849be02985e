"""``samples/`` of a round: responses to its questions, given, or sampled by a Ray Data actor pool of backends.

Every backend has the questions of many tasks in flight at once. A task writes each question to storage within a second
of its last response and hands on only numbers. So what is finished is durable whatever fails next (journal.py), and
only what was in flight is asked again.
"""

import concurrent.futures
import functools
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.config import BASE, TRAINED, Config, EnginePoolConfig, InputError, PromptConfig, SamplesConfig
from east_ray.questions.prompts import load_tokenizer, messages, render_prompt, tokenize
from east_ray.questions.stage import CanUse
from east_ray.records import QUESTIONS, RESPONSE, SAMPLES, SET_ASIDE, SetAside
from east_ray.sampling import backends, given
from east_ray.sampling.backends import Alone, Backend, Decoding, EngineDiedError, Prompt, RequestRefusedError, Response
from east_ray.sampling.journal import Row, TaskJournal, adopt, distinct, keys_by_part, sample_key, tidy
from east_ray.storage import Folder, counts_by, local_copy
from east_ray.storage.rounds import Round, is_done, listed

#: The seeds of two rounds differ by this, so that no round repeats the random numbers of another round, even where the
#: seeds of runs are neighbours. A prime.
_ROUND_SEEDS_APART = 1_000_003
#: Responses that a backend holds over those that it computes at once. A task lasts as long as its longest response, so
#: by Little's law the engine stays full if this is above longest over mean length.
_FILLS = 8
#: What is known of an engine that died without an error.
_NO_ERROR = "its process was killed"
#: Seconds: questions of a task that finish within this time of one another are written together.
_GATHER_S = 1.0
#: If engines have died of more questions of a task than this, and it has no response, the questions are not to blame.
_MAX_POISONOUS = 2


def max_prompt_tokens(config: Config, model: str) -> int | None:
    """The most tokens that a prompt may have: one of the context is kept for the response. None: unknown."""
    length = backends.load(config.sampling).context_length(model, config.engines.engine_args)
    return None if length is None else length - 1


def take_samples(round_: Round, can_use: CanUse) -> None:
    """``samples/``, ``questions/`` and ``set_aside/`` from another sampler's; `can_use` takes a reference answer."""
    config, stages = round_.config, round_.stages
    assert config.samples is not None
    if (record := stages.record("sampling")) is not None:
        _check_same_files(config.samples, record.counts["files"])
    if is_done(round_, stages, "sampling", "samples"):
        return
    sums, aside = Counter(num_questions=0, num_responses=0, num_truncated=0), Counter[str]()
    with (
        stages.recording("sampling") as sampling,
        stages.recording("questions") as questions,
        round_.progress.stage("samples", None, "questions") as line,
    ):
        for part in given.write_samples(config.samples, stages, can_use):
            aside.update(part.pop("set_aside"))
            sums.update(part)
            note = f"{sums['num_responses']:,} responses" + (f" · {aside.total():,} set aside" if aside else "")
            line.advance(part["num_questions"], note)
        if not sums["num_questions"]:
            raise InputError(f"samples.path: no question can be used: {listed(aside)}")
        sampling.counts = {**sums, "files": given.stamp(config.samples)}
        questions.counts = {"asked": sums["num_questions"], "set_aside": dict(sorted(aside.items()))}


def _check_same_files(source: SamplesConfig, taken: list[list[Any]]) -> None:
    """Raises InputError if the given samples have changed since they were taken."""
    try:
        differ = given.stamp(source) != taken
    except InputError:  # the files are gone; what was taken of them is in the run directory
        return
    if differ:
        raise InputError(
            f"samples.path: {source.path} has changed since it was read; choose another run_dir, or remove that one"
        )


def sample_responses(round_: Round) -> None:
    """``samples/``: every question with all its responses. Only questions that have none yet are sampled."""
    config, stages = round_.config, round_.stages
    if config.samples is not None or is_done(round_, stages, "sampling", "sampling"):
        return
    questions = (stages / "questions").read(QUESTIONS)
    named = config.sampling.model_dump(include={one.name for one in fields(Decoding)})
    seed = config.seed + _ROUND_SEEDS_APART * round_.number if config.sampling.seeded else None
    decoding = Decoding(**named, seed=seed)
    models = {TRAINED if round_.number else BASE: round_.sampled_model}
    with stages.recording("sampling") as record:
        ask_models(round_, "sampling", questions, models, "samples", "set_aside", decoding, record.counts)
        if not record.counts["num_questions"]:
            raise InputError(f"no question could be sampled: {listed(record.counts['set_aside'])}")


def ask_models(
    round_: Round,
    stage: str,
    questions: pa.Table,
    models: Mapping[str, str],
    folder: str,
    set_aside: str,
    decoding: Decoding,
    counts: dict[str, Any],
) -> None:
    """Ask every model every question, with a progress line; puts the sums over the whole stage into `counts`.

    Questions whose samples are in the folder are not asked again. Each group of models has a pool of its own.
    """
    samples_folder, aside_folder = round_.stages / folder, round_.stages / set_aside
    settings = pool_settings(round_.config, decoding)
    asked = requests(questions, models, settings)
    wanted = set(asked["key"].to_pylist())
    with round_.progress.stage(stage, asked.num_rows, "questions") as line:
        adopt(samples_folder)
        done = wanted & (distinct(keys_by_part(samples_folder)) | distinct(keys_by_part(aside_folder)))
        line.go_on(len(done))
        unfinished = asked.filter(pc.invert(pc.is_in(asked["key"], pa.array(done, pa.string()))))
        sums = Counter[str]()
        for group in settings.backend.groups(models):
            of_group = unfinished.filter(pc.is_in(unfinished["model"], pa.array(list(group))))
            for part in sample(of_group, group, samples_folder, aside_folder, settings):
                sums.update(part)
                note = f"{sums['num_responses']:,} responses · {sums['num_tokens'] / line.seconds:,.0f} tokens/s"
                line.advance(part["num_questions"] + part["num_set_aside"], note)
        seconds = line.seconds
        whole, aside = _bring_to_rest(samples_folder, aside_folder, wanted)
        notes = [f"{whole['num_responses']:,} responses"]
        if sums["num_tokens"]:
            notes.append(f"{sums['num_tokens'] / seconds:,.0f} tokens/s")
        if aside.num_rows:
            notes.append(f"{aside.num_rows:,} set aside")
        if whole["num_dropped"]:
            notes.append(f"{whole['num_dropped']:,} rows of another model or settings dropped")
        line.update(asked.num_rows, " · ".join(notes))
    counts.update({name: whole[name] for name in ("num_questions", "num_responses", "num_tokens", "num_truncated")})
    counts["set_aside"] = counts_by(aside, "reason")


def _bring_to_rest(folder: Folder, set_aside: Folder, wanted: set[str]) -> tuple[Counter[str], pa.Table]:
    """The sums over all samples of the stage, tidied, and the rows of SET_ASIDE of questions that have none.

    Raises InputError if a question has neither samples nor a reason.
    """
    found = keys_by_part(folder)
    sums = Counter[str]()
    for part in tidy(folder, wanted, found):
        sums.update(part)
    missing, aside = wanted - distinct(found), set_aside.read(SET_ASIDE)
    aside = aside.filter(pc.is_in(aside["key"], pa.array(missing, pa.string())))
    if missing - set(aside["key"].to_pylist()) or sums["num_questions"] != len(wanted - missing):
        raise InputError(f"{folder}: samples have gone while they were written; run the same command again")
    return sums, aside


@dataclass(frozen=True)
class PoolSettings:
    """What a pool needs to know beside the questions and the models."""

    backend: type[Backend]
    args: Mapping[str, Any]  # as `Backend.checked_args` returned them
    engines: EnginePoolConfig
    prompt: PromptConfig
    decoding: Decoding


def pool_settings(config: Config, decoding: Decoding) -> PoolSettings:
    """The settings of a pool from those of a run. Raises InputError if the backend cannot be loaded."""
    backend = backends.load(config.sampling)
    args = backend.checked_args(config.sampling.backend_args)
    return PoolSettings(backend, args, config.engines, config.prompt, decoding)


def requests(questions: pa.Table, models: Mapping[str, str], settings: PoolSettings) -> pa.Table:
    """What is to be asked: every question of every model (name -> path), with the key of its samples."""
    told = asdict(settings.decoding) | settings.prompt.model_dump()
    rows = questions.select(["question_id", "question"]).to_pylist()
    tables = []
    for name, path in models.items():
        identity = settings.backend.identity(path, settings.args)
        keys = [sample_key(name, identity, told, row) for row in rows]
        table = questions.append_column(SAMPLES.field("model"), pa.array([name] * len(keys), pa.string()))
        tables.append(table.append_column(SAMPLES.field("key"), pa.array(keys, pa.string())))
    return pa.concat_tables(tables)


def sample(
    asked: pa.Table, models: Mapping[str, str], folder: Folder, set_aside: Folder, settings: PoolSettings
) -> Iterator[dict[str, int]]:
    """Ask `requests` and write the rows (records.SAMPLES) as parts of `folder`; `journal.tidy` then brings it to rest.

    Questions that the backend refuses or dies of go to `set_aside`. Yields the numbers of each task as it becomes
    durable: num_questions, num_set_aside, num_responses, num_tokens. The models (name -> path) are one of the backend's
    groups, so that one pool serves them. Raises what a backend raises that cannot start.
    """
    import ray.data

    engines, num_responses = settings.engines, settings.decoding.responses_per_question
    at_once = settings.backend.responses_at_once(engines)
    per_task = max(engines.questions_per_task, at_once // (4 * num_responses))
    tasks_per_engine = max(2, -(-_FILLS * at_once // (per_task * num_responses)))
    blocks = [asked.slice(begin, per_task) for begin in range(0, asked.num_rows, per_task)]
    if not blocks:
        return
    pool = ray.data.ActorPoolStrategy(
        min_size=engines.min_engines,
        max_size=min(engines.max_engines, max(engines.min_engines, len(blocks))),
        max_tasks_in_flight_per_actor=tasks_per_engine,
        max_concurrent_calls_per_actor=tasks_per_engine,
        enable_true_multi_threading=True,
    )
    results = ray.data.from_arrow(blocks).map_batches(
        Sampler,
        batch_size=per_task,
        batch_format="pyarrow",
        fn_constructor_args=(dict(models), settings, folder, set_aside),
        compute=pool,
        num_cpus=engines.num_cpus_per_engine,
        num_gpus=engines.num_gpus_per_engine or None,
        resources=engines.resources or None,
        runtime_env={"env_vars": {**settings.backend.environment, **engines.env}},
    )
    yield from results.iter_rows()


class Sampler:
    """The actor of the pool: asks its backend a task's questions, writes their responses, hands on the numbers."""

    def __init__(self, models: Mapping[str, str], settings: PoolSettings, folder: Folder, set_aside: Folder) -> None:
        first, kind = next(iter(models.values())), settings.backend
        self._models, self._settings, self._folder, self._set_aside = models, settings, folder, set_aside
        self._tokenizer = None if kind.prompt_form == "messages" else load_tokenizer(local_copy(first))
        self._backend = kind(first, kind.settings_for(settings.engines, settings.decoding), settings.args)
        self._asking, self._lock, self._num_tasks = threading.Lock(), threading.Lock(), 0

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
        if is_finished:
            return answered, aside
        found = {row["key"] for row in answered}
        together, alone, deadly = self._sorted_by_deaths([row for row in rows if row["key"] not in found], journal)
        aside += deadly
        if len(aside) > _MAX_POISONOUS and not answered:
            raise RuntimeError(f"engines die of every question: {next(iter(journal.errors.values()), _NO_ERROR)}")
        left = len(together) + len(alone)
        for group in filter(None, [together, *([row] for row in alone)]):
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

    def _sorted_by_deaths(self, rows: Sequence[Row], journal: TaskJournal) -> tuple[list[Row], list[Row], list[Row]]:
        """Rows to ask together, rows to ask alone, and rows of SET_ASIDE of those that engines have died of.

        After two attempts that ended in a death (of an engine, its process or its node), a question is asked alone,
        so that there is no doubt which question the next death is due to.
        """
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
            finished, refused, death = [], [], None
            for future in done:
                row = waiting.pop(future)
                try:
                    finished.append(row | {"responses": self._told(future.result())})
                except RequestRefusedError as error:
                    refused.append(row | {"reason": SetAside.ENGINE_REFUSED, "detail": str(error)})
                except EngineDiedError as error:
                    death = error
            yield finished, refused
            if lonely:
                lonely.settled.set()
            if death:  # raised only now, when what had finished before it is durable
                raise death

    def _request(self, row: Row, alone: Alone | None) -> "Future[list[Response]]":
        """Ask a question; puts its rendered prompt and the number of tokens in its row, where they are known."""
        prompt: Prompt = messages(row["question"], self._settings.prompt)
        if self._tokenizer is not None:
            text = render_prompt(self._tokenizer, row["question"], self._settings.prompt)
            ids = tokenize(self._tokenizer, text)
            row |= {"prompt": text, "num_prompt_tokens": len(ids)}
            prompt = ids if self._backend.prompt_form == "ids" else text
        decoding = self._settings.decoding
        decoding = replace(decoding, seed=decoding.seed_of(row["question_id"]))
        return self._backend.ask(self._models[row["model"]], prompt, decoding, alone=alone)

    def _told(self, responses: Sequence[Response]) -> list[Row]:
        """Responses as rows of records.RESPONSE."""
        wanted = self._settings.decoding.responses_per_question
        if len(responses) != wanted:
            raise RuntimeError(f"the backend gave {len(responses)} responses in place of {wanted}")
        return [{field.name: getattr(response, field.name) for field in RESPONSE} for response in responses]
