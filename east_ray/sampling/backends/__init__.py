"""What answers prompts: the interface of a backend, the built-in ones, and the door for a user's own.

A backend is made in each actor of the pool (`sampling/stage.py`), which asks it from many threads. To add one, derive
a class from `Backend`, and name it in `BACKENDS` or in a configuration (`sampling.backend: my_module:MyBackend`):

    class Server(Backend):
        prompt_form = "messages"

        def ask(self, model, prompt, decoding, first=0, alone=None):
            return self.threads.submit(complete, prompt, decoding)      # a Future of a list of Response
"""

import hashlib
import inspect
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from east_ray import doors
from east_ray.config import EndpointConfig, EnginePoolConfig, InputError, PromptConfig, SamplingConfig
from east_ray.storage import local_copy, model_fingerprint

#: The built-in backends: `module:name` of a class.
BACKENDS = {
    "vllm": f"{__name__}.vllm:VLLM",
    "endpoint": f"{__name__}.endpoint:Endpoint",
    "scripted": f"{__name__}.scripted:Scripted",
}

#: What servers call the two ways in which a response ends.
FINISH_REASONS = dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "completed"), "stop") | (
    dict.fromkeys(("length", "max_tokens", "max_length"), "length")
)

#: A prompt in the form that a backend takes: chat messages, text as rendered (with the beginning-of-sequence token, so
#: that a tokenizer must add none), or its token ids.
Prompt = list[dict[str, str]] | str | list[int]


@dataclass(frozen=True)
class Decoding:
    """How responses are drawn from the model's distribution. Temperature 0 is greedy; seed None is not reproducible."""

    responses_per_question: int
    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: Sequence[str] = field(default_factory=list)
    """Strings that end a response; they are no part of its text."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of vLLM's SamplingParams, as far as the backend takes them."""
    logprobs: bool = False
    """Whether the responses are wanted with their log-probabilities, which changes nothing else about them."""

    def told(self) -> dict[str, Any]:
        """What responses depend on, for the keys of samples."""
        return {name: value for name, value in asdict(self).items() if name != "logprobs"}

    def seed_of(self, question_id: str) -> int | None:
        """The seed of one question's request: the same whatever the order of questions and the number of engines."""
        if self.seed is None or self.temperature == 0:
            return None
        return int.from_bytes(hashlib.blake2b(f"{self.seed}:{question_id}".encode(), digest_size=4).digest()) >> 1


class EngineDiedError(RuntimeError):
    """The engine has failed as a whole, with its first error. It answers no request any more."""


class RequestRefusedError(ValueError):
    """The backend does not serve this one request, for the reason in the message; others are served."""


@dataclass(frozen=True, slots=True)
class Response:
    """One response to a prompt."""

    text: str
    finish_reason: str
    """stop: it ended by itself; length: it was cut at max_tokens."""
    num_tokens: int | None = None
    """The end-of-turn token included; None: unknown, as the next two may be."""
    logprob: float | None = None
    """Natural logarithm of its probability, summed over its tokens."""
    token_ids: Sequence[int] | None = None
    """As sampled, by the tokenizer of the model: with the token that ended the response, or with a stop string that its
    text lacks. Training uses them as far as they spell the text."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What an engine is doing. Responses and tokens are counted from the start of its process."""

    num_running: int = 0
    """Responses that have a token and are not finished."""
    num_waiting: int = 0
    """Responses that are asked for and have no token yet."""
    num_finished: int = 0
    num_tokens: int = 0
    """Generated tokens, with those of responses that are not finished."""


@dataclass
class Alone:
    """Asks that a request be served while no other is in flight, because engines have died while it was.

    The backend calls `begin` just before it serves the request, and `wait` before another: a death between is its own.
    """

    begin: Callable[[], None]
    settled: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Return once the responses are durable, or after two minutes."""
        self.settled.wait(120)


class Backend(ABC):
    """Answers prompts. It is made in the process of an actor; whatever its constructor raises ends the run."""

    prompt_form: Literal["messages", "text", "ids"] = "text"
    """What `ask` gets as its prompt. Only messages need no tokenizer, and so no folder of the model. A backend that
    knows it only when it is made may set it then."""
    tokenizer: str | None = None
    """Folder or hub name of the tokenizer that renders prompts; None: the model's own."""
    may_die_of_questions: ClassVar[bool] = True
    """Whether questions that were in flight when a process died are asked alone, in case that one was the cause."""
    has_failed: bool = False
    """Whether the engine has failed as a whole; the actor's process then ends, and Ray starts it again."""

    def __init__(self, model: str, settings: EnginePoolConfig, args: Mapping[str, Any]) -> None:
        """`model` is a path or hub name, `settings` the section `engines`, `args` what `checked_args` returned."""
        self.model, self.settings, self.args = model, settings, args

    @abstractmethod
    def ask(
        self, model: str, prompt: Prompt, decoding: Decoding, first: int = 0, alone: Alone | None = None
    ) -> "Future[list[Response]]":
        """A future of `decoding.responses_per_question` responses, in order; `ask` itself does not wait for them.

        The responses are numbers `first`, `first` + 1, … of this question: response i depends on `decoding.seed` + i,
        so that 32 responses and, later, 96 with `first` = 32 are the 128 that one request would give. The seed is the
        question's own. `model` is one of the models of `groups`. The future fails with RequestRefusedError or
        EngineDiedError.
        """

    def status(self) -> EngineStatus | None:
        """What the engine is doing, asked once a second from a thread of its own. None: the backend does not know.

        Then the responses that it is asked for count as running until their request is finished.
        """
        return None

    @classmethod
    def is_compiling(cls) -> bool:
        """Whether the constructor, at work in another thread, has loaded the model and compiles it or warms it up."""
        return False

    @classmethod
    def checked_args(cls, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """`sampling.backend_args` as the actors get them. Called where the command runs; raises InputError."""
        return args

    @classmethod  # noqa: B027 - most have nothing to check
    def check(cls, model: str, settings: EnginePoolConfig, args: Mapping[str, Any]) -> None:
        """Raises InputError if nothing could be asked. Called where the command runs, before anything is."""

    @classmethod
    def checked_params(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """`sampling.params`, as this backend takes them. Called where the command runs; raises InputError."""
        return params

    @classmethod  # noqa: B027 - most have nothing to check
    def check_engines(cls, settings: EnginePoolConfig) -> None:
        """Raises InputError if the section `engines` does not fit. Called where the command runs, as `check` is."""

    @classmethod
    def environment(cls, settings: EnginePoolConfig) -> Mapping[str, str]:
        """Environment variables of the actor's process, beneath those of `engines.env`."""
        return {}

    @classmethod
    def identity(cls, model: str, args: Mapping[str, Any]) -> str:
        """What the responses depend on beside the prompt and the decoding: part of each question's key.

        A resumed run whose backend says another identity asks again. By default: the class, its arguments, and the
        model's files, or its name if the backend takes messages and the model is no folder.
        """
        local = local_copy(model)
        is_name = cls.prompt_form == "messages" and not Path(local).is_dir()
        told = [cls.__module__, cls.__qualname__, dict(args), model if is_name else model_fingerprint(local)]
        return json.dumps(told, sort_keys=True)

    @classmethod
    def context_length(cls, model: str, engine_args: Mapping[str, Any]) -> int | None:
        """Tokens that a prompt and its response may have together; None: unknown, and prompts are not checked."""
        return None

    @classmethod
    def groups(cls, models: Mapping[str, str]) -> list[dict[str, str]]:
        """The models (name -> path) in groups that one pool can serve; each group has a pool, one after the other."""
        return [{name: path} for name, path in models.items()]

    @classmethod
    def responses_at_once(cls, settings: EnginePoolConfig, per_question: int) -> int:
        """Responses that an engine computes at once: a pool hands each engine eight times as many."""
        return 256

    @classmethod
    def settings_for(cls, settings: EnginePoolConfig, decoding: Decoding) -> EnginePoolConfig:
        """The settings for engines that get requests of this decoding. Called in the actor."""
        return settings


def load(settings: SamplingConfig) -> type[Backend]:
    """The backend that `sampling.backend` names. Raises InputError if it, its arguments or `params`, do not fit."""
    found = doors.load("sampling.backend", settings.backend, BACKENDS)
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise InputError(f"sampling.backend: {settings.backend} is no class derived from {__name__}.Backend")
    if inspect.isabstract(found):
        raise InputError(f"sampling.backend: {settings.backend} lacks {', '.join(sorted(found.__abstractmethods__))}")
    found.checked_args(settings.backend_args)
    found.checked_params(settings.params)
    return found


def endpoint_args(
    endpoint: EndpointConfig, where: str, prompt: PromptConfig, decoding: Decoding, *, is_served: bool
) -> Mapping[str, Any]:
    """The arguments of the backend `endpoint`, for one whose key in the configuration is `where`.

    `decoding` is that of all its requests. `is_served`: the endpoint is to have the very model that it is asked for.
    """
    told = endpoint.model_dump(include={"model", "fingerprint", "api", "tokenizer"})
    return {**told, "where": where, "prompt": prompt, "decoding": decoding, "is_served": is_served}
