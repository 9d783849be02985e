"""The backend `vllm`: an engine in the actor's process that any number of threads may ask at once.

A thread of its own steps the engine. One request per question asks for all its responses, which share the prompt's
prefill. Each request leaves as soon as it is finished: the engine never waits for the slowest response of a batch.
"""

import functools
import itertools
import json
import queue
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, ClassVar

from east_ray.config import EnginePoolConfig, InputError
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
    #: The engine runs in the actor's process unless the configuration says otherwise: it dies with its actor, starts
    #: faster, and is stepped by our own thread.
    environment: ClassVar = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
    }

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
            except ValueError as error:
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
    def identity(cls, model: str, args: Mapping[str, Any]) -> str:
        """The model's fingerprint."""
        return model_fingerprint(local_copy(model))

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
    def responses_at_once(cls, settings: EnginePoolConfig) -> int:
        """The engine argument `max_num_seqs`, or its default here."""
        return int(settings.engine_args.get("max_num_seqs", 1024 if settings.num_gpus_per_engine else 256))

    @classmethod
    def settings_for(cls, settings: EnginePoolConfig, decoding: Decoding) -> EnginePoolConfig:
        """On a CPU without chunked prefill for seeded requests, which fails ("CPU Generator does not use offset")."""
        import torch

        if decoding.seed is None or torch.cuda.is_available():
            return settings
        return settings.model_copy(update={"engine_args": {"enable_chunked_prefill": False} | settings.engine_args})


def sampling_params(decoding: Decoding, first: int = 0) -> Any:
    """vllm.SamplingParams of a request for the responses from `first` on; vLLM gives response i of it its seed + i."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=decoding.responses_per_question,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        max_tokens=decoding.max_tokens,
        seed=None if decoding.seed is None else decoding.seed + first,
        logprobs=0,  # of the sampled token alone: what the sum over the response needs
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


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
