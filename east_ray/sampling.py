"""Questions -> responses: a Ray Data actor pool of vLLM engines.

Every engine has the questions of many tasks in flight at once (engine.py). A task writes each question to storage
within a second of its last response and hands on only numbers, so what is finished is durable whatever dies next
(journal.py), and only what was in flight is asked again.

Axes in names: Q questions, R responses.
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from east_ray.config import EnginePoolConfig, PromptConfig
from east_ray.engine import Alone, Engine, EngineDiedError, RequestRefusedError
from east_ray.journal import TaskJournal, adopt, sample_key, sampled_keys, set_aside_keys
from east_ray.questions import load_tokenizer, pretrained, render_prompt, tokenize
from east_ray.records import SAMPLES, SET_ASIDE, SetAside
from east_ray.storage import Folder, local_copy, model_fingerprint

_NO_ERROR = "its process was killed"
#: What finishes within this time of another question of the task is written with it.
_GATHER_S = 1.0
#: Responses that an engine holds, running, waiting or finished, over those that it computes at once. A task lasts as
#: long as its longest response, so by Little's law the engine stays full if this is above longest over mean length.
_FILLS = 8
#: Responses that an engine without and with a GPU computes at once, if its arguments do not say otherwise.
_MAX_NUM_SEQS, _MAX_NUM_SEQS_GPU = 256, 1024

#: In the engine's process unless the configuration says otherwise: an engine inside its actor dies with it (nothing is
#: orphaned), starts faster, and is stepped by our own thread. Logs: warnings and worse.
_ENGINE_ENV = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}


@dataclass(frozen=True)
class Decoding:
    """How responses are drawn from the model's distribution. Temperature 0 is greedy; seed None is not reproducible."""

    responses_per_question: int
    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    def seed_of(self, question_id: str) -> int | None:
        """The seed of one question's request: the same whatever the order of questions and the number of engines."""
        if self.seed is None or self.temperature == 0:
            return None
        return int.from_bytes(hashlib.blake2b(f"{self.seed}:{question_id}".encode(), digest_size=4).digest()) >> 1

    def params(self, question_id: str) -> Any:
        """vllm.SamplingParams of one question's request, for all its responses."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=self.responses_per_question,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            seed=self.seed_of(question_id),
            logprobs=0,  # of the sampled token alone: what the sum over the response needs
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def context_length(model: str, engine_args: Mapping[str, Any]) -> int:
    """Tokens that a prompt and its response may have together. Raises InputError if the model cannot be read."""
    import transformers

    if "max_model_len" in engine_args:
        return int(engine_args["max_model_len"])
    config = pretrained(transformers.AutoConfig, local_copy(model))
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31)


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


def requests(questions: pa.Table, models: Mapping[str, str], prompt: PromptConfig, decoding: Decoding) -> pa.Table:
    """What is to be asked: every question of every model (name -> path), with the key of its samples."""
    settings = asdict(decoding) | prompt.model_dump()
    tables = []
    for name, path in models.items():
        fingerprint = model_fingerprint(local_copy(path))
        rows = questions.select(_KEYED).to_pylist()
        keys = [sample_key(name, fingerprint, settings, row) for row in rows]
        table = questions.append_column(SAMPLES.field("model"), pa.array([name] * len(keys), pa.string()))
        tables.append(table.append_column(SAMPLES.field("key"), pa.array(keys, pa.string())))
    return pa.concat_tables(tables)


_KEYED = ["question_id", "question"]


def by_architecture(models: Mapping[str, str]) -> list[dict[str, str]]:
    """Models (name -> path) in groups that one engine can serve: of equal configuration, vocabulary and template."""
    groups: dict[str, dict[str, str]] = {}
    for name, path in models.items():
        groups.setdefault(_architecture(local_copy(path)), {})[name] = path
    return list(groups.values())


def _architecture(model: str) -> str:
    import transformers

    config = pretrained(transformers.AutoConfig, model).to_dict()
    told = {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}
    tokenizer = load_tokenizer(model)
    return json.dumps([told, tokenizer.get_vocab(), tokenizer.chat_template], sort_keys=True, default=str)


#: What a model's configuration says beside the shapes of its parameters and what is computed with them.
_NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")


def sample(
    asked: pa.Table,
    models: Mapping[str, str],
    folder: Folder,
    set_aside: Folder,
    *,
    engines: EnginePoolConfig,
    prompt: PromptConfig,
    decoding: Decoding,
) -> Iterator[dict[str, int]]:
    """Ask `requests` and write the rows (records.SAMPLES) as parts of `folder`; `journal.tidy` then brings it to rest.

    What is there already under its key is not asked again. Questions that engines refuse or die of go to `set_aside`.
    Yields the numbers of each task as it becomes durable: num_questions, num_set_aside, num_responses, num_tokens. The
    models (name -> path) share an architecture; one pool serves them. Raises what an engine raises that cannot start.
    """
    import ray.data

    adopt(folder)
    done = sampled_keys(folder) | set_aside_keys(set_aside)
    unfinished = asked.filter(pa.array([key not in done for key in asked["key"].to_pylist()], pa.bool_()))
    default = _MAX_NUM_SEQS_GPU if engines.num_gpus_per_engine else _MAX_NUM_SEQS
    max_num_seqs = int(engines.engine_args.get("max_num_seqs", default))
    per_task = max(engines.questions_per_task, max_num_seqs // (4 * decoding.responses_per_question))
    tasks_per_engine = max(2, -(-_FILLS * max_num_seqs // (per_task * decoding.responses_per_question)))
    blocks = [unfinished.slice(begin, per_task) for begin in range(0, unfinished.num_rows, per_task)]
    if not blocks:
        return
    results = ray.data.from_arrow(blocks).map_batches(
        Sampler,
        batch_size=per_task,
        batch_format="pyarrow",
        fn_constructor_args=(dict(models), engines, prompt, decoding, folder, set_aside),
        compute=ray.data.ActorPoolStrategy(
            min_size=engines.min_engines,
            max_size=min(engines.max_engines, max(engines.min_engines, len(blocks))),
            max_tasks_in_flight_per_actor=tasks_per_engine,
            max_concurrent_calls_per_actor=tasks_per_engine,
            enable_true_multi_threading=True,
        ),
        num_cpus=engines.num_cpus_per_engine,
        num_gpus=engines.num_gpus_per_engine or None,
        resources=engines.resources or None,
        runtime_env={"env_vars": _ENGINE_ENV | engines.env},
    )
    yield from results.iter_rows()
