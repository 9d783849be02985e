"""A vLLM engine that any number of threads may ask at once: stepped by its own thread, always full.

One request per question asks for all its responses, so that they share the prompt's prefill. Requests of many tasks are
in flight together, and a finished one leaves at once: the engine never waits for the slowest response of a batch.
"""

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from east_ray.storage import local_copy

#: Seconds that a request served alone has for what it has brought to be settled.
_SETTLE_S = 120.0


class EngineDiedError(RuntimeError):
    """The engine has failed as a whole, with its first error; nothing asked of it is answered any more."""


class RequestRefusedError(ValueError):
    """vLLM does not serve this one request, with its reason; the engine goes on."""


@dataclass
class Alone:
    """Has a request served with no other in flight, as suits one that engines have died of.

    `begin` is called just before the engine gets it, and no other request follows until `settled`: so who dies of the
    next one cannot be mistaken.
    """

    begin: Callable[[], None]
    settled: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Request:
    name: str
    model: str
    prompt_token_ids: list[int]
    params: Any  # vllm.SamplingParams
    alone: Alone | None
    future: "Future[Any]" = field(default_factory=Future)


class Engine:
    """Requests name a model. The engine serves them in order and, when the next one is of another model of the same
    architecture, finishes those in flight and takes over that model's parameters in place.
    """

    def __init__(self, model: str, engine_args: Mapping[str, Any]) -> None:
        """Load the model, a path or hub name, with vLLM's engine arguments. Raises what vLLM raises."""
        from vllm import EngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine

        self._engine = LLMEngine.from_engine_args(
            EngineArgs(model=local_copy(model), **{"disable_log_stats": True, **engine_args}),
            usage_context=UsageContext.LLM_CLASS,  # its batches are as large as those of `vllm.LLM`
        )
        self._model = model
        self._waiting: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._in_flight: dict[str, _Request] = {}
        self._num_requests = 0
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        threading.Thread(target=self._run, daemon=True, name="engine").start()

    @property
    def has_failed(self) -> bool:
        """Whether it answers nothing any more."""
        return self._failure is not None

    def ask(self, model: str, prompt_token_ids: list[int], params: Any, alone: Alone | None = None) -> "Future[Any]":
        """A future of the finished vllm.RequestOutput for vllm.SamplingParams.

        It fails with RequestRefusedError or EngineDiedError.
        """
        with self._lock:
            self._num_requests += 1
            request = _Request(f"request-{self._num_requests}", model, prompt_token_ids, params, alone)
            if self._failure is None:
                self._waiting.put(request)
            else:
                request.future.set_exception(EngineDiedError(_said(self._failure)))
        return request.future

    def _run(self) -> None:
        try:
            held = None  # a request that waits until those in flight are finished
            while True:
                held = self._admit(held)
                for output in self._engine.step():
                    if output.finished:
                        self._finish(self._in_flight.pop(_outer_id(output.request_id)), output)
        except BaseException as error:  # whatever ends the thread must reach those who wait for it
            with self._lock:
                self._failure = error
                unserved = [*self._in_flight.values(), *([held] if held else [])]
                while not self._waiting.empty():
                    unserved.append(self._waiting.get())
            for request in unserved:
                if not request.future.done():
                    request.future.set_exception(EngineDiedError(_said(error)))

    def _admit(self, held: _Request | None) -> _Request | None:
        """Hand waiting requests to the engine; blocks while there is nothing at all to do."""
        while held is not None or not self._waiting.empty() or not self._in_flight:
            request = held or self._waiting.get()
            held = None
            some_alone = any(one.alone for one in (request, *self._in_flight.values()))
            if self._in_flight and (request.model != self._model or some_alone):
                return request
            self._in_flight[request.name] = request
            if request.model != self._model:
                self._take_over(request.model)
            if request.alone:
                request.alone.begin()
            try:
                self._engine.add_request(request.name, {"prompt_token_ids": request.prompt_token_ids}, request.params)
            except ValueError as error:
                del self._in_flight[request.name]
                request.future.set_exception(RequestRefusedError(_said(error)))
        return None

    def _finish(self, request: _Request, output: Any) -> None:
        unusual = {str(response.finish_reason) for response in output.outputs} & {"abort", "error"}
        if unusual:
            request.future.set_exception(RequestRefusedError(f"vLLM ended a response with {unusual.pop()!r}"))
        else:
            request.future.set_result(output)
        if request.alone:
            request.alone.settled.wait(_SETTLE_S)

    def _take_over(self, model: str) -> None:
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": local_copy(model)})
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM has kept prefixes of the model before")
        self._model = model


def _said(error: BaseException) -> str:
    """An error as one line, with its type where the message alone says little."""
    message = (str(error).strip() or "no message").splitlines()[0]
    return message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}"


def _outer_id(request_id: str) -> str:
    """vLLM may add its own suffix to a request's name; ours ends before it."""
    return "-".join(request_id.split("-")[:2])
