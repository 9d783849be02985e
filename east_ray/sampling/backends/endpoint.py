"""The backend `endpoint`: a server that speaks OpenAI's protocol samples, and this process only asks it.

One event loop in a thread of its own has all requests in flight. A request that fails for no fault of its own is sent
again. When its retries are used up, the server is asked something trivial. If it does not answer that, the run ends;
the same command goes on when the server does. If it does, the question is to blame and is set aside; but if the server
had too much to do or could not be reached, the request begins anew.
"""

import asyncio
import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from east_ray.config import EndpointConfig, EnginePoolConfig, InputError, PromptConfig
from east_ray.questions.prompts import load_tokenizer, messages, render_prompt, style_of, tokenize_prompt
from east_ray.sampling.backends import Alone, Backend, Decoding, Prompt, RequestRefusedError, Response
from east_ray.sampling.backends.openai_protocol import OWN_FIELDS, NotTheProtocolError, read_responses, said_in
from east_ray.sampling.backends.server import Answer, Server, Turns
from east_ray.storage import local_copy, model_fingerprint

#: What a server is asked to find out what it understands, and whether it answers at all.
_TRIVIAL = "1 + 1 = ?"
#: How often a server is asked it before it counts as gone.
_PROBES = 3
#: So many answers with fewer responses than asked show how many a server gives at once.
_TO_LEARN = 2
#: How often all retries of a request are begun while the server answers the trivial question.
_ROUNDS = 3


class _BadRequestError(RequestRefusedError):
    """The server refuses what the request says."""


class Endpoint(Backend):
    """Asks the server of `engines.endpoint`; `args` are the `backends.endpoint_args` of it."""

    may_die_of_questions = False

    def __init__(self, model: str, settings: EnginePoolConfig, args: Mapping[str, Any]) -> None:
        """Find out what the server understands. Raises InputError if nothing can be asked of it."""
        super().__init__(model, settings, args)
        self._endpoint = endpoint = _endpoint(settings)
        self.tokenizer = endpoint.tokenizer
        # How many responses the last answer had that had fewer than asked, and the most that one can have.
        self._last_short, self._most_at_once = 0, 1 << 30
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="endpoint").start()
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result()
        self.prompt_form = self._dialect.prompt_form

    async def _connect(self) -> None:
        self._server = _server(self.model, self._endpoint, self.args)
        self._turns = Turns(self._endpoint.max_in_flight)
        self._dialect = await self._server.dialect()

    def close(self) -> None:
        """Cancel all requests in flight and close their connections, as the end of the process does."""

        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._server.close()

        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def ask(
        self, model: str, prompt: Prompt, decoding: Decoding, first: int = 0, alone: Alone | None = None
    ) -> "Future[list[Response]]":
        """As `Backend.ask`; the future also fails with InputError, if the server answers nothing any more.

        `alone` is not minded: others may ask the server too. Cancelling the future cancels its requests.
        """
        asked = self._responses(prompt, decoding, first, decoding.responses_per_question)
        return asyncio.run_coroutine_threadsafe(asked, self._loop)

    async def _responses(self, prompt: Prompt, decoding: Decoding, first: int, count: int) -> list[Response]:
        """So many responses to a prompt, from several requests where the server does not give all of them in one."""
        found: list[Response] = []
        num_short, most_short = 0, max(self._endpoint.max_retries, _TO_LEARN)
        while (left := count - len(found)) > 0:
            begin = first + len(found)
            if left > self._most_at_once:
                return found + await self._in_parts(prompt, decoding, begin, left)
            try:
                more, is_whole = await self._request(prompt, decoding, begin, left)
            except _BadRequestError:
                if left == 1:
                    raise
                half = left // 2  # perhaps so many are more than the server gives
                found += await self._responses(prompt, decoding, begin, half)
                self._most_at_once = min(self._most_at_once, half)
                continue
            found += more
            if len(more) < left:
                num_short += 1
                if num_short > most_short:
                    raise RequestRefusedError(f"the server gave {len(found)} of {count} responses")
                if not is_whole:  # the seeds of those that are left are not the next ones
                    decoding = replace(decoding, seed=None)
                    continue
                if len(more) == self._last_short:  # twice the same number: it gives no more at once
                    self._most_at_once = min(self._most_at_once, len(more))
                self._last_short = len(more)
        return found

    async def _in_parts(self, prompt: Prompt, decoding: Decoding, first: int, count: int) -> list[Response]:
        """So many responses to a prompt, at once, from requests for the most that the server gives."""
        end, size = first + count, self._most_at_once
        try:
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(self._responses(prompt, decoding, begin, min(size, end - begin)))
                    for begin in range(first, end, size)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [response for part in asked for response in part.result()]

    async def _request(self, prompt: Prompt, decoding: Decoding, first: int, count: int) -> tuple[list[Response], bool]:
        """At least one and at most `count` responses, and whether the answer had no others, which were dropped."""
        for _ in range(_ROUNDS):
            answer, found, problem = await self._attempts(prompt, decoding, first, count)
            if found is not None:
                return found
            if not await self._answers_at_all():
                raise InputError(f"{self.args['where']}: the server at {self._server.url} answers no more: {problem}")
            if answer.may_be_of_the_question or not answer.is_transient:
                raise RequestRefusedError(problem)
        raise InputError(
            f"{self.args['where']}: the server at {self._server.url} answers a trivial question, but not the run's: "
            f"{problem}"
        )

    async def _attempts(
        self, prompt: Prompt, decoding: Decoding, first: int, count: int
    ) -> tuple[Answer, tuple[list[Response], bool] | None, str]:
        """The last answer to a request that is sent again where that may help, what is in it, or what is wrong."""
        most, timeout_s = self._endpoint.max_retries, self._endpoint.timeout_s
        for num_failures in range(1 + most):
            async with self._turns.turn():
                answer, _ = await self._server.ask(self._dialect, prompt, decoding, first, count, timeout_s)
                problem = str(answer)
                if answer.is_too_much or answer.is_late:
                    self._turns.narrow(answer.wait_s(num_failures))
            if answer.is_bad_request:
                raise _BadRequestError(said_in(answer.content))
            if answer.is_good:
                try:
                    responses, unusual = read_responses(answer.content)
                except NotTheProtocolError as error:
                    problem = str(error)
                else:
                    self._turns.widen()
                    if responses:
                        return answer, (responses[:count], not unusual), ""
                    problem = f"the server ended each response with {', '.join(sorted(unusual)) or 'nothing'}"
            elif not answer.is_transient:
                break
            if num_failures < most:
                await asyncio.sleep(answer.wait_s(num_failures))
        return answer, None, problem

    async def _answers_at_all(self) -> bool:
        """Whether the server answers the trivial question."""
        for num_failures in range(_PROBES):
            answer, _ = await self._server.probe(self._dialect)
            if answer.is_good or not answer.is_transient:
                return answer.is_good
            await asyncio.sleep(answer.wait_s(num_failures))
        return False

    @classmethod
    def checked_args(cls, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """None: its own are `engines.endpoint`. Raises InputError if there are some."""
        if args:
            raise InputError(
                f"sampling.backend_args: endpoint has none, found {', '.join(args)}; its own are engines.endpoint"
            )
        return args

    @classmethod
    def checked_params(cls, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Any that are no part of the protocol itself: the server is asked whether it knows them."""
        for name in params:
            if name in OWN_FIELDS:
                raise InputError(
                    f"sampling.params: {name} is no parameter of decoding, but of the request; leave it out"
                )
        return params

    @classmethod
    def check(cls, model: str, settings: EnginePoolConfig, args: Mapping[str, Any]) -> None:
        """Raises InputError if there is no server, it speaks another protocol, lacks the model or refuses the key."""

        async def ask() -> None:
            server = _server(model, _endpoint(settings), args)
            try:
                await server.dialect()
            finally:
                await server.close()

        asyncio.run(ask())

    @classmethod
    def identity(cls, model: str, args: Mapping[str, Any]) -> str:
        """The model's name at the server and the fingerprint that the user gives, wherever the server is.

        With `is_served`, the server is to have the model of this folder, whose fingerprint then is a part too.
        """
        local = local_copy(model) if args["is_served"] else ""
        of_folder = model_fingerprint(local) if local and Path(local).is_dir() else ""
        # Of an endpoint that samples, these two are as fixed as the run's other settings.
        rendered = [args["api"], args["tokenizer"]] if args["is_served"] else []
        return json.dumps(["endpoint", args["model"], args["fingerprint"], of_folder, *rendered])

    @classmethod
    def groups(cls, models: Mapping[str, str]) -> list[dict[str, str]]:
        """One pool serves them all."""
        return [dict(models)]

    @classmethod
    def responses_at_once(cls, settings: EnginePoolConfig, per_question: int) -> int:
        """A quarter of those in flight: a pool hands out eight times as many, so that some wait for their turn."""
        return max(1, _endpoint(settings).max_in_flight * per_question // 4)


def _endpoint(settings: EnginePoolConfig) -> EndpointConfig:
    assert settings.endpoint is not None, "the configuration has checked this"
    return settings.endpoint


def _server(model: str, endpoint: EndpointConfig, args: Mapping[str, Any]) -> Server:
    """The server, and the trivial question in every form that can be rendered.

    Raises InputError if `api` is completions and there is no tokenizer.
    """
    prompt: PromptConfig = args["prompt"]
    if prompt.style == "text" and endpoint.api == "chat":
        raise InputError(f"{args['where']}.api: chat takes messages, and prompt.style is text; set it to completions")
    prompts: dict[str, Prompt] = {} if prompt.style == "text" else {"messages": messages(_TRIVIAL, prompt)}
    try:
        if endpoint.api != "chat":
            tokenizer = load_tokenizer(local_copy(endpoint.tokenizer or model))
            text = render_prompt(tokenizer, _TRIVIAL, prompt)
            prompts |= {"text": text, "ids": tokenize_prompt(tokenizer, text, prompt)}
            if style_of(tokenizer, prompt) == "text":
                prompts.pop("messages", None)
    except InputError:
        if endpoint.api == "completions" or endpoint.tokenizer is not None:
            raise
    return Server(endpoint, args["where"], prompts, prompt.template_variables, args["decoding"])
