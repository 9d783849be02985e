"""The backend `vllm`: an engine of the actor's own that any number of threads may ask at once.

A thread of its own steps the engine. One request per question asks for all its responses, which share the prompt's
prefill. Each request leaves as soon as it is finished: the engine never waits for the slowest response of a batch.
"""

import ast
import functools
import importlib.util
import itertools
import json
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from east_ray.config import EnginePoolConfig, InputError
from east_ray.config.base import hint
from east_ray.config.devices import threads, use_gpus
from east_ray.questions.prompts import load_tokenizer, pretrained
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
from east_ray.storage import local_copy, model_fingerprint

#: Arguments of SamplingParams that are objects of vLLM's own: they are made of mappings.
_SECTIONS_OF_PARAMS = {
    "structured_outputs": "StructuredOutputsParams",
    "repetition_detection": "RepetitionDetectionParams",
}
#: Functions of vLLM that compile the model, run it to see how much memory is left, and warm it up.
_COMPILING = {"determine_available_memory", "compile_or_warm_up_model"}


@dataclass
class _Request:
    name: str
    model: str
    token_ids: Prompt
    params: Any  # vllm.SamplingParams
    alone: Alone | None
    future: "Future[list[Response]]" = field(default_factory=Future)


class VLLM(Backend):
    """Serves requests in order. Before one for another model of the same architecture, the engine finishes those in
    flight and loads that model's parameters in place.
    """

    prompt_form = "ids"

    def __init__(self, model: str, settings: EnginePoolConfig, args: Mapping[str, Any]) -> None:
        """Load the model, a path or hub name, with vLLM's engine arguments. Raises what vLLM raises."""
        from vllm import EngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        super().__init__(model, settings, args)
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(model=local_copy(model), **{"disable_log_stats": True, **settings.engine_args}),
            usage_context=UsageContext.LLM_CLASS,  # its batches are as large as those of `vllm.LLM`
        )
        self._watch = _end_with_this_process(multiprocessing.active_children())
        self._loaded = model
        self._waiting: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._in_flight: dict[str, _Request] = {}
        self._numbers = itertools.count(1)
        self._counting, self._num_left = threading.Lock(), 0
        self._settled = self._told = EngineStatus()  # of requests that are settled; what `status` has said last
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        threading.Thread(target=self._run, daemon=True, name="engine").start()

    def ask(
        self, model: str, prompt: Prompt, decoding: Decoding, first: int = 0, alone: Alone | None = None
    ) -> "Future[list[Response]]":
        """As `Backend.ask`, of the prompt's token ids."""
        params = sampling_params(decoding, first)
        request = _Request(f"request-{next(self._numbers)}", model, prompt, params, alone)
        with self._counting:
            self._num_left += params.n
        request.future.add_done_callback(functools.partial(self._settle, params.n))
        with self._lock:
            if self._failure is None:
                self._waiting.put(request)
            else:
                request.future.set_exception(EngineDiedError(_first_line(self._failure)))
        return request.future

    def status(self) -> EngineStatus:
        """As `Backend.status`, from what vLLM keeps of each response: its steps make no statistics."""
        with self._counting:
            settled, num_left = self._settled, self._num_left
        states = list(self._engine.output_processor.request_states.values())
        parents = {id(state.parent_req): state.parent_req for state in states if state.parent_req is not None}
        finished = [one for parent in parents.values() for one in parent.output_aggregator if one is not None]
        lengths = [state.detokenizer.num_output_tokens() for state in states if state.detokenizer is not None]
        num_running = sum(length > 0 for length in lengths)
        # For a moment, a request that has just finished is in neither of the two.
        num_tokens = settled.num_tokens + sum(lengths) + sum(len(one.token_ids) for one in finished)
        self._told = EngineStatus(
            num_running=num_running,
            num_waiting=max(0, num_left - num_running - len(finished)),
            num_finished=max(self._told.num_finished, settled.num_finished + len(finished)),
            num_tokens=max(self._told.num_tokens, num_tokens),
        )
        return self._told

    @classmethod
    def is_compiling(cls) -> bool:
        """As `Backend.is_compiling`, of an engine in this process: whether a thread is in such a function of vLLM's."""
        frames = list(sys._current_frames().values())
        while frames:
            if any(frame.f_code.co_name in _COMPILING for frame in frames):
                return True
            frames = [outer for frame in frames if (outer := frame.f_back) is not None]
        return False

    def _settle(self, num_responses: int, future: "Future[list[Response]]") -> None:
        """Count what a request has come to."""
        responses = [] if future.exception() else future.result()
        num_tokens = sum(response.num_tokens or 0 for response in responses)
        with self._counting:
            before, self._num_left = self._settled, self._num_left - num_responses
            self._settled = EngineStatus(
                num_finished=before.num_finished + len(responses), num_tokens=before.num_tokens + num_tokens
            )

    def _run(self) -> None:
        try:
            held = None  # a request that waits until those in flight are finished
            while True:
                held = self._admit(held)
                for output in self._engine.step():
                    if output.finished:
                        name = "-".join(output.request_id.split("-")[:2])  # vLLM may have added a suffix
                        self._finish(self._in_flight.pop(name), output)
        except BaseException as error:  # whatever ends the thread must reach those who wait for it
            with self._lock:
                self._failure, self.has_failed = error, True
                unserved = [*self._in_flight.values(), *([held] if held else [])]
                while not self._waiting.empty():
                    unserved.append(self._waiting.get())
            for request in unserved:
                if not request.future.done():
                    request.future.set_exception(EngineDiedError(_first_line(error)))

    def _admit(self, held: _Request | None) -> _Request | None:
        """Hand waiting requests to the engine; blocks while there is nothing to do. Returns one that must wait."""
        from vllm.exceptions import VLLMClientError

        while held is not None or not self._waiting.empty() or not self._in_flight:
            request = held or self._waiting.get()
            held = None
            some_alone = any(one.alone for one in (request, *self._in_flight.values()))
            if self._in_flight and (request.model != self._loaded or some_alone):
                return request
            self._in_flight[request.name] = request
            if request.model != self._loaded:
                self._take_over(request.model)
            if request.alone:
                request.alone.begin()
            try:
                self._engine.add_request(request.name, {"prompt_token_ids": request.token_ids}, request.params)
            except (ValueError, VLLMClientError) as error:
                del self._in_flight[request.name]
                request.future.set_exception(RequestRefusedError(_first_line(error)))
        return None

    def _finish(self, request: _Request, output: Any) -> None:
        unusual = {str(response.finish_reason) for response in output.outputs} & {"abort", "error"}
        if unusual:
            request.future.set_exception(RequestRefusedError(f"vLLM ended a response with {unusual.pop()!r}"))
        else:
            responses = [
                Response(one.text, str(one.finish_reason), len(one.token_ids), one.cumulative_logprob, one.token_ids)
                for one in sorted(output.outputs, key=lambda one: one.index)
            ]
            request.future.set_result(responses)
        if request.alone:
            request.alone.wait()

    def _take_over(self, model: str) -> None:
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": local_copy(model)})
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM has kept prefixes of the model before")
        self._loaded = model

    @classmethod
    def checked_args(cls, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """None: vLLM's arguments are `engines.engine_args`. Raises InputError if there are some."""
        if args:
            raise InputError(
                f"sampling.backend_args: vllm has none, found {', '.join(args)}; its own are engines.engine_args"
            )
        return args

    @classmethod
    def checked_params(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same. Raises InputError if one is no argument of SamplingParams; an engine checks the values."""
        known = _fields("sampling_params.py", "SamplingParams") if params else []
        for name in params if known else ():
            if name not in known:
                raise InputError(f"sampling.params: vLLM's SamplingParams has no argument {name!r}{hint(name, known)}")
        return params

    @classmethod
    def check_engines(cls, settings: EnginePoolConfig) -> None:
        """Raises InputError if one of `engine_args` is no argument of vLLM's engine."""
        check_engine_args("engines.engine_args", settings.engine_args)

    @classmethod
    def identity(cls, model: str, args: Mapping[str, Any]) -> str:
        """The model's fingerprint."""
        return model_fingerprint(local_copy(model))

    @classmethod
    def environment(cls, settings: EnginePoolConfig) -> Mapping[str, str]:
        """On a CPU the engine's core runs in the actor's process, where it starts faster, with the actor's CPUs.

        On a GPU it has a process of its own, as is vLLM's default: it schedules and computes while this process makes
        text of tokens and writes it.
        """
        quiet = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
        if use_gpus(settings):
            return quiet
        num_threads = threads(settings, len(os.sched_getaffinity(0)))
        return quiet | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": str(num_threads)}

    @classmethod
    def context_length(cls, model: str, engine_args: Mapping[str, Any]) -> int:
        """As the engine's arguments or the model's configuration say. Raises InputError if it cannot be read."""
        import transformers

        if "max_model_len" in engine_args:
            return int(engine_args["max_model_len"])
        config = pretrained(transformers.AutoConfig, local_copy(model))
        return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31)  # or no limit

    @classmethod
    def groups(cls, models: Mapping[str, str]) -> list[dict[str, str]]:
        """Models of equal configuration, vocabulary and chat template share an engine."""
        found: dict[str, dict[str, str]] = {}
        for name, path in models.items():
            found.setdefault(_architecture(local_copy(path)), {})[name] = path
        return list(found.values())

    @classmethod
    def responses_at_once(cls, settings: EnginePoolConfig, per_question: int) -> int:
        """The engine argument `max_num_seqs`, or its default here."""
        return int(settings.engine_args.get("max_num_seqs", 1024 if settings.num_gpus_per_engine else 256))

    @classmethod
    def settings_for(cls, settings: EnginePoolConfig, decoding: Decoding) -> EnginePoolConfig:
        """On a CPU without chunked prefill for seeded requests, which fails ("CPU Generator does not use offset").

        Raises InputError if vLLM refuses `sampling.params`, before an engine starts.
        """
        import torch

        sampling_params(decoding)
        if decoding.seed is None or torch.cuda.is_available():
            return settings
        return settings.model_copy(update={"engine_args": {"enable_chunked_prefill": False} | settings.engine_args})


def sampling_params(decoding: Decoding, first: int = 0) -> Any:
    """vllm.SamplingParams of a request for the responses from `first` on; vLLM gives response i of it its seed + i.

    Raises InputError if vLLM refuses `sampling.params`.
    """
    from vllm import SamplingParams, sampling_params

    further = dict(decoding.params)
    for name, kind in _SECTIONS_OF_PARAMS.items():
        if isinstance(given := further.get(name), Mapping):
            further[name] = _made(getattr(sampling_params, kind), given)
    return _made(
        SamplingParams,
        further,
        n=decoding.responses_per_question,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        max_tokens=decoding.max_tokens,
        seed=None if decoding.seed is None else decoding.seed + first,
        stop=list(decoding.stop),
        logprobs=0 if decoding.logprobs else None,  # 0: of the sampled token alone, which the sum needs
        output_kind=sampling_params.RequestOutputKind.FINAL_ONLY,
    )


def _made(kind: Any, given: Mapping[str, Any], **own: Any) -> Any:
    """An object of vLLM's with arguments that a user has given, and with our own."""
    from vllm.exceptions import VLLMError

    try:
        return kind(**given, **own)
    except (TypeError, ValueError, VLLMError) as error:
        raise InputError(f"sampling.params: vLLM refuses the decoding ({str(error).splitlines()[0]})") from error


def check_engine_args(key: str, args: Mapping[str, Any]) -> None:
    """Raises InputError if one is no argument of vLLM's engine. `key` is the setting that they are from.

    An engine checks the values; a wrong name should not wait until one starts.
    """
    known = _fields("engine/arg_utils.py", "EngineArgs", "AsyncEngineArgs") if args else []
    for name in args if known else ():
        if name not in known:
            raise InputError(f"{key}: vLLM's engine has no argument {name!r}{hint(name, known)}")


def _fields(file: str, *classes: str) -> list[str]:
    """The fields of dataclasses in a file of the vLLM that is installed here; none if there is no vLLM.

    They are read from the source: importing it would take seconds of every command that only checks its settings.
    """
    found = importlib.util.find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        return []
    source = Path(found.submodule_search_locations[0], file).read_text(encoding="utf-8")
    bodies = [node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name in classes]
    fields = [one for body in bodies for one in body if isinstance(one, ast.AnnAssign)]
    return [one.target.id for one in fields if isinstance(one.target, ast.Name)]


def _end_with_this_process(cores: Sequence[BaseProcess]) -> "subprocess.Popen[bytes] | None":
    """See that the engine's core and its workers end when this process ends or drops what is returned.

    Ray ends them too when an actor is killed, but not where Ray's own process on the node has gone; then a core would
    keep its GPU's memory. A shell waits for the end of a pipe that only this process holds.
    """
    import psutil

    roots = [psutil.Process(core.pid) for core in cores]
    started = [str(one.pid) for root in roots for one in (root, *root.children(recursive=True))]
    if not started:
        return None
    command = ["/bin/sh", "-c", 'read -r _; kill -KILL "$@" 2> /dev/null', "sh", *started]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603


def _architecture(model: str) -> str:
    import transformers

    config = pretrained(transformers.AutoConfig, model).to_dict()
    for key in ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"):
        config.pop(key, None)  # neither the shape of a parameter nor what is computed with it
    tokenizer = load_tokenizer(model)
    return json.dumps([config, tokenizer.get_vocab(), tokenizer.chat_template], sort_keys=True, default=str)


def _first_line(error: BaseException) -> str:
    """An error as one line, with its type where the message alone says little."""
    message = (str(error).strip() or "no message").splitlines()[0]
    return message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}"
