"""The backend `scripted`: answers from a table, in milliseconds and without a model. For tests.

    sampling:
      backend: scripted
      backend_args:
        table: answers.jsonl                   # a row for each question, see below
        default: {responses: ["No idea."]}     # for questions that are not in the table; else these are refused
        delay_s: 0.1                           # seconds that each request takes; requests are served one after another
        start_s: 2.0                           # seconds that the engine takes to start, half of them to compile
        state: deaths/                         # a folder in which deaths are counted, for rows with `times`

A row of the table says what one question gets. It is the one of the longest `question` that occurs, character by
character, in the last user message. Its `responses` are texts, or objects with text, finish_reason and num_tokens.
Response number i of a question is the i-th of them, beginning again after the last; at temperature 0 every response is
the first. So a run is deterministic, whatever its seed and its model. A response ends before a string of
`sampling.stop`; `sampling.params` change nothing.

    {"question": "1 + 1?", "responses": ["\\\\boxed{2}", "\\\\boxed{3}", {"text": "Well, ", "finish_reason": "length"}]}

With `drawn_tokens: 200` each response begins with 1 to 200 words, a token each. How many is drawn by a hash of the
question and of the response's number, and its logarithm is uniform: most are short, as a model's responses are.

A row may also provoke a fault:

    {"question": "2 + 2?", "refuses": "too hard"}          the request is refused, with this reason
    {"question": "3 + 3?", "dies": "engine"}               the engine fails with this request, and all others in flight
    {"question": "4 + 4?", "dies": "process", "times": 1, "responses": ["8"]}
                                                           the actor's process is killed, once; later it answers

Models share a pool: nothing depends on them. The length of prompts is not checked.
"""

import hashlib
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError

from east_ray.config import EnginePoolConfig, InputError
from east_ray.config.base import Section, sentences, validated
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
from east_ray.storage import Folder, locate, resolve_path


class ScriptedResponse(Section):
    """A response of which more than its text is said."""

    text: str
    finish_reason: str = "stop"
    num_tokens: int | None = None


class Script(Section):
    """What a question gets."""

    responses: Sequence[str | ScriptedResponse] = ()
    refuses: str | None = None
    dies: Literal["engine", "process"] | None = None
    times: int | None = Field(default=None, ge=1)
    drawn_tokens: int | None = Field(default=None, ge=1)


class ScriptedQuestion(Script):
    """A row of the table."""

    question: str = Field(min_length=1)


class Args(Section):
    """`sampling.backend_args`."""

    table: str
    default: Script | None = None
    delay_s: float = Field(default=0.0, ge=0)
    start_s: float = Field(default=0.0, ge=0)
    state: str | None = None


class Scripted(Backend):
    """Serves one request after the other, and generates its tokens evenly over its delay."""

    prompt_form = "messages"
    _compiles: ClassVar[bool] = False

    def __init__(self, model: str, settings: EnginePoolConfig, args: Mapping[str, Any]) -> None:
        super().__init__(model, settings, args)
        self._args = Args.model_validate(args)
        self._scripts = _read(self._args)
        self._failure = ""
        self._alone_before: Alone | None = None
        self._thread = ThreadPoolExecutor(1)
        self._lock, self._waiting, self._settled = threading.Lock(), 0, EngineStatus()
        self._served: tuple[float, int, int] | None = None  # what is being served: since when, responses, tokens
        time.sleep(self._args.start_s / 2)
        type(self)._compiles = True
        time.sleep(self._args.start_s / 2)
        type(self)._compiles = False

    def ask(
        self, model: str, prompt: Prompt, decoding: Decoding, first: int = 0, alone: Alone | None = None
    ) -> "Future[list[Response]]":
        """As `Backend.ask`, of chat messages."""
        asked = next(one["content"] for one in reversed(prompt) if isinstance(one, dict) and one["role"] == "user")
        with self._lock:
            self._waiting += decoding.responses_per_question
        return self._thread.submit(self._serve, asked, decoding, first, alone)

    def status(self) -> EngineStatus:
        """As `Backend.status`."""
        with self._lock:
            settled, waiting, served = self._settled, self._waiting, self._served
        if served is None:
            return replace(settled, num_waiting=waiting)
        begin, num_responses, num_tokens = served
        share = min(1.0, (time.monotonic() - begin) / max(self._args.delay_s, 1e-9))
        num_tokens = settled.num_tokens + int(share * num_tokens)
        return replace(settled, num_running=num_responses, num_waiting=waiting, num_tokens=num_tokens)

    @classmethod
    def is_compiling(cls) -> bool:
        """As `Backend.is_compiling`: in the second half of `start_s`."""
        return cls._compiles

    def _serve(self, asked: str, decoding: Decoding, first: int, alone: Alone | None) -> list[Response]:
        if self._alone_before:
            self._alone_before.wait()
        self._alone_before = alone
        if self.has_failed:
            raise EngineDiedError(self._failure)
        if alone:
            alone.begin()
        name = max((name for name in self._scripts if name in asked), key=len, default=None)
        script = self._scripts[name] if name is not None else Script(refuses="the question is not in the table")
        with self._generating(asked, script, decoding, first) as responses:
            time.sleep(self._args.delay_s)
            if name is not None and script.dies and self._is_to_die(name, script):
                if script.dies == "process":
                    os.kill(os.getpid(), signal.SIGKILL)
                self._failure, self.has_failed = f"the table makes it die of {asked!r}", True
                raise EngineDiedError(self._failure)
            if script.refuses or not script.responses:
                raise RequestRefusedError(script.refuses or "the table has no response")
        return responses

    @contextmanager
    def _generating(self, asked: str, script: Script, decoding: Decoding, first: int) -> Iterator[list[Response]]:
        """The responses of a script, which the status counts as running in the block and as finished after it."""
        count, texts = decoding.responses_per_question, script.responses
        numbers = [number if decoding.temperature else 0 for number in range(first, first + count)] if texts else []
        chosen = [texts[number % len(texts)] for number in numbers]
        told = [Response(one, "stop") if isinstance(one, str) else Response(**one.model_dump()) for one in chosen]
        if (most := script.drawn_tokens) is not None:
            told = [_lengthened(one, most, f"{asked} {number}") for one, number in zip(told, numbers, strict=True)]
        responses = [_ended_by(decoding.stop, response) for response in told]
        num_tokens = sum(response.num_tokens or 0 for response in responses)
        with self._lock:
            self._waiting -= count
            self._served = time.monotonic(), len(responses), num_tokens
        num_finished = 0
        try:
            yield responses
            num_finished = len(responses)
        finally:
            with self._lock:
                self._served, before = None, self._settled
                self._settled = EngineStatus(
                    num_finished=before.num_finished + num_finished,
                    num_tokens=before.num_tokens + (num_tokens if num_finished else 0),
                )

    def _is_to_die(self, name: str, script: Script) -> bool:
        """Whether the engine is to die of this question once more; if so, counts this death."""
        if script.times is None:
            return True
        deaths = Folder(*locate(str(self._args.state))) / hashlib.sha256(name.encode()).hexdigest()[:16]
        if len(deaths.names()) >= script.times:
            return False
        deaths.write_text(uuid.uuid4().hex, "")
        return True

    @classmethod
    def checked_args(cls, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments with absolute paths. Raises InputError naming the key, or the line of the table."""
        checked = validated(Args, args, "sampling.backend_args.")
        _read(checked)
        state = checked.state and resolve_path(checked.state, is_output=True)
        return checked.model_copy(update={"table": resolve_path(checked.table), "state": state}).model_dump()

    @classmethod
    def identity(cls, model: str, args: Mapping[str, Any]) -> str:
        """A hash of the table's responses, whatever the model."""
        scripts = {"": Script()} | _read(Args.model_validate(args))
        told = {name: script.model_dump(include={"responses"}) for name, script in scripts.items()}
        for name, script in scripts.items():
            told[name] |= {"drawn_tokens": script.drawn_tokens} if script.drawn_tokens else {}
        return "scripted " + hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @classmethod
    def groups(cls, models: Mapping[str, str]) -> list[dict[str, str]]:
        """One pool serves them all."""
        return [dict(models)]


def _lengthened(response: Response, most: int, drawn_by: str) -> Response:
    """The response after 1 to `most` words, a token each."""
    share = int.from_bytes(hashlib.blake2b(drawn_by.encode(), digest_size=4).digest()) / 2**32
    num_words = int((most + 1) ** share)
    return replace(
        response, text="word " * num_words + response.text, num_tokens=num_words + (response.num_tokens or 0)
    )


def _ended_by(stop: Sequence[str], response: Response) -> Response:
    """The response up to the first of these strings, as an engine would have ended it there."""
    begins = [begin for begin in map(response.text.find, stop) if begin >= 0]
    return replace(response, text=response.text[: min(begins)], finish_reason="stop") if begins else response


def _read(args: Args) -> dict[str, Script]:
    """The rows of the table, by question, and the default, by the empty text. Raises InputError naming the line."""
    filesystem, path = locate(args.table)
    try:
        with filesystem.open_input_stream(path) as stream:
            lines = bytes(stream.read()).decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"sampling.backend_args.table: cannot read {args.table} ({error})") from error
    rows = {"": args.default} if args.default else {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = ScriptedQuestion.model_validate_json(line)
            except ValidationError as error:
                raise InputError(f"{args.table}, line {number}: {next(sentences(error, ScriptedQuestion))}") from None
            rows[row.question] = row
    if args.state is None and any(script.times for script in rows.values()):
        raise InputError("sampling.backend_args.state: missing; rows with `times` need a folder to count deaths in")
    return rows
