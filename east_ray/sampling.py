"""Questions -> responses: a Ray Data actor pool of vLLM engines.

One request per question asks for all its responses, so that they share the prompt's prefill. Every engine is stepped by
a thread of its own and has the questions of many tasks in flight at once: no engine waits for the slowest response of
a batch. A task writes its questions to storage as soon as they are finished and hands on only numbers, so what is
finished is durable, and a restart asks only the rest.

Axes in names: Q questions, R responses.
"""

import hashlib
import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from east_ray.config import EnginePoolConfig, PromptConfig
from east_ray.questions import load_tokenizer, pretrained, render_prompt, tokenize
from east_ray.records import SAMPLES
from east_ray.storage import Folder, local_copy

#: vLLM's own default; together with n it tells how many questions fill an engine.
_DEFAULT_MAX_NUM_SEQS = 256

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


def finished_questions(folder: Folder) -> set[tuple[str, str]]:
    """(model, question_id) of all rows that are already in a folder of samples."""
    table = folder.read(SAMPLES, ["model", "question_id"])
    return set(zip(table["model"].to_pylist(), table["question_id"].to_pylist(), strict=True))


def context_length(model: str, engine_args: Mapping[str, Any]) -> int:
    """Tokens that a prompt and its response may have together. Raises InputError if the model cannot be read."""
    import transformers

    if "max_model_len" in engine_args:
        return int(engine_args["max_model_len"])
    config = pretrained(transformers.AutoConfig, local_copy(model))
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31)


class Engine:
    """A vLLM engine stepped by its own thread; any number of threads may ask it at once.

    Requests name a model. The engine serves them in order and, when the next one is of another model of the same
    architecture, finishes those in flight and takes over that model's parameters in place.
    """

    def __init__(self, model: str, engine_args: Mapping[str, Any]) -> None:
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self._engine = LLMEngine.from_engine_args(
            EngineArgs(model=local_copy(model), **{"disable_log_stats": True, **engine_args})
        )
        self._model = model
        self._waiting: queue.SimpleQueue[tuple[str, str, list[int], Any, Future[Any]]] = queue.SimpleQueue()
        self._in_flight: dict[str, Future[Any]] = {}
        self._num_requests = 0
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        threading.Thread(target=self._run, daemon=True, name="engine").start()

    def ask(self, model: str, prompt_token_ids: list[int], decoding: Decoding, seed: int | None) -> "Future[Any]":
        """A future of the finished vllm.RequestOutput. A request that vLLM refuses fails with vLLM's error."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            n=decoding.responses_per_question,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            top_k=decoding.top_k,
            max_tokens=decoding.max_tokens,
            seed=seed,
            logprobs=0,  # of the sampled token alone: what the sum over the response needs
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        future: Future[Any] = Future()
        with self._lock:
            if self._failure is not None:
                raise RuntimeError("the engine has failed") from self._failure
            self._num_requests += 1
            self._waiting.put((f"request-{self._num_requests}", model, prompt_token_ids, params, future))
        return future

    def _run(self) -> None:
        try:
            held = None  # a request of another model, which waits until those in flight are finished
            while True:
                held = self._admit(held)
                for output in self._engine.step():
                    if output.finished:
                        self._in_flight.pop(_outer_id(output.request_id)).set_result(output)
        except BaseException as error:  # whatever ends the thread must reach those who wait for it
            with self._lock:
                self._failure = error
                unserved = list(self._in_flight.values())
                while not self._waiting.empty():
                    unserved.append(self._waiting.get()[-1])
            for future in unserved:
                future.set_exception(error)

    def _admit(self, held: Any) -> Any:
        """Hand waiting requests to the engine; blocks while there is nothing at all to do."""
        while held is not None or not self._waiting.empty() or not self._in_flight:
            request_id, model, token_ids, params, future = held or self._waiting.get()
            if model != self._model and self._in_flight:
                return request_id, model, token_ids, params, future
            held = None
            try:
                if model != self._model:
                    self._take_over(model)
                self._engine.add_request(request_id, {"prompt_token_ids": token_ids}, params)
            except ValueError as error:
                future.set_exception(error)
            except BaseException as error:  # it is in neither list any more, so nobody else would tell who waits
                future.set_exception(error)
                raise
            else:
                self._in_flight[request_id] = future
        return None

    def _take_over(self, model: str) -> None:
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": local_copy(model)})
        self._engine.reset_prefix_cache()
        self._model = model


def _outer_id(request_id: str) -> str:
    """vLLM may add its own suffix to a request's name; ours ends before it."""
    return "-".join(request_id.split("-")[:2])


class Sampler:
    """The actor of the pool: asks its engine a task's questions, writes their responses, hands on the numbers."""

    def __init__(
        self,
        models: Mapping[str, str],
        engine_args: Mapping[str, Any],
        prompt: PromptConfig,
        decoding: Decoding,
        folder: Folder,
    ) -> None:
        first = next(iter(models.values()))
        if decoding.seed is not None and not _has_gpu():
            # A seeded request whose prompt is read in two steps fails on a CPU ("CPU Generator does not use offset").
            engine_args = {"enable_chunked_prefill": False} | dict(engine_args)
        self._models, self._prompt, self._decoding, self._folder = models, prompt, decoding, folder
        self._tokenizer = load_tokenizer(local_copy(first))
        self._engine = Engine(first, engine_args)
        self._asking = threading.Lock()

    def __call__(self, questions: pa.Table) -> pa.Table:
        """Questions with the name of the model to ask -> one row of numbers, once their samples are durable."""
        rows = questions.to_pylist()
        with self._asking:  # tasks of two models must not alternate row by row: each change empties the engine
            asked = [self._ask(row) for row in rows]
        answered = [
            sample_row(row, prompt, future.result(), self._decoding.responses_per_question)
            for row, (prompt, future) in zip(rows, asked, strict=True)
        ]
        # Named after its questions: a task that Ray runs again replaces its part instead of adding a second one.
        key = "\n".join(f"{row['model']}\t{row['question_id']}" for row in rows)
        name = f"part-{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.parquet"
        self._folder.write_part(pa.Table.from_pylist(answered, schema=SAMPLES), name)
        responses = [response for row in answered for response in row["responses"]]
        return pa.table(
            {
                "num_questions": [len(answered)],
                "num_responses": [len(responses)],
                "num_tokens": [sum(response["num_tokens"] for response in responses)],
                "num_truncated": [sum(response["finish_reason"] == "length" for response in responses)],
            }
        )

    def _ask(self, row: Mapping[str, Any]) -> "tuple[str, Future[Any]]":
        prompt = render_prompt(self._tokenizer, row["question"], self._prompt)
        seed = self._decoding.seed_of(row["question_id"])
        token_ids = tokenize(self._tokenizer, prompt)
        return prompt, self._engine.ask(self._models[row["model"]], token_ids, self._decoding, seed)


def sample_row(row: Mapping[str, Any], prompt: str, output: Any, responses_per_question: int) -> dict[str, Any]:
    """A question and vLLM's finished output -> a row of records.SAMPLES."""
    assert len(output.outputs) == responses_per_question, (len(output.outputs), responses_per_question)
    return {
        **row,
        "prompt": prompt,
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


def _unfinished(questions: pa.Table, model: str, done: set[tuple[str, str]]) -> pa.Table:
    waiting = [(model, question_id) not in done for question_id in questions["question_id"].to_pylist()]
    rows = questions.filter(pa.array(waiting, pa.bool_()))
    return rows.append_column(SAMPLES.field("model"), pa.array([model] * rows.num_rows, pa.string()))


def sample(
    questions: pa.Table,
    models: Mapping[str, str],
    folder: Folder,
    *,
    engines: EnginePoolConfig,
    prompt: PromptConfig,
    decoding: Decoding,
) -> Iterator[dict[str, int]]:
    """Ask every model (name -> path) every question and write the rows (records.SAMPLES) as parts of `folder`.

    Questions that are already there are not asked again. Yields the numbers of each part as it becomes durable:
    num_questions, num_responses, num_tokens, num_truncated. The models share an architecture; one pool serves them.
    """
    import ray.data

    done = finished_questions(folder)
    unfinished = [_unfinished(questions, name, done) for name in models]
    max_num_seqs = int(engines.engine_args.get("max_num_seqs", _DEFAULT_MAX_NUM_SEQS))
    per_task = max(engines.questions_per_write, max_num_seqs // (4 * decoding.responses_per_question))
    # Twice what fills the engine: while one half is sampled the other waits inside it, ready.
    tasks_per_engine = max(2, -(-2 * max_num_seqs // (per_task * decoding.responses_per_question)))
    blocks = [table.slice(i, per_task) for table in unfinished for i in range(0, table.num_rows, per_task)]
    if not blocks:
        return
    results = ray.data.from_arrow(blocks).map_batches(
        Sampler,
        batch_size=per_task,
        batch_format="pyarrow",
        fn_constructor_args=(dict(models), engines.engine_args, prompt, decoding, folder),
        compute=ray.data.ActorPoolStrategy(
            min_size=engines.min_engines,
            max_size=min(engines.max_engines, max(engines.min_engines, len(blocks))),
            max_tasks_in_flight_per_actor=tasks_per_engine,
            max_concurrent_calls_per_actor=tasks_per_engine,
            enable_true_multi_threading=True,
        ),
        num_cpus=engines.num_cpus_per_engine,
        num_gpus=engines.num_gpus_per_engine or None,
        runtime_env={"env_vars": _ENGINE_ENV | engines.env},
    )
    yield from results.iter_rows()
