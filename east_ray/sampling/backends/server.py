"""A server that speaks OpenAI's protocol, as one event loop asks it: connections, what it understands, when to wait."""

import asyncio
import os
import random
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from east_ray.config import EndpointConfig, InputError
from east_ray.sampling.backends import Decoding, Prompt
from east_ray.sampling.backends.openai_protocol import (
    Dialect,
    NotTheProtocolError,
    models_of,
    num_prompt_tokens,
    read_responses,
    request_body,
    retry_after_s,
    said_in,
    wanted_fields,
)

#: Seconds before a first and at most before a later retry, where the server does not say.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
#: Seconds that a connection, and an answer to the trivial question, may take.
_CONNECT_S, _PROBE_S = 20.0, 60.0
#: How the trivial question is asked, besides as the run asks. Models that think refuse a length of a single token.
_PROBE_TOKENS = 16
#: As plain as can be.
_PLAIN = Decoding(responses_per_question=1, temperature=1.0, max_tokens=_PROBE_TOKENS)
_OK, _FAILED = 200, 500
#: Statuses of a server that has too much to do, and of others that another attempt may not get.
_TOO_MUCH, _TRANSIENT = (429, 503, 529), (408, 409, 425)
#: Statuses with which a server refuses what is in a request, and the key.
_BAD_REQUEST, _KEY_REFUSED = (400, 413, 422), (401, 403)


@dataclass(frozen=True)
class Answer:
    """What came of one request. Status 0: the exchange failed, and the content says how."""

    status: int
    content: bytes
    headers: Mapping[str, str]
    is_late: bool = False
    """Whether it failed because the time was over."""

    def __str__(self) -> str:
        said = said_in(self.content)
        return f"{self.status} ({said})" if self.status else said

    @property
    def is_good(self) -> bool:
        """Whether it may have responses."""
        return self.status == _OK

    @property
    def is_too_much(self) -> bool:
        """Whether the server has too much to do."""
        return self.status in _TOO_MUCH

    @property
    def may_be_of_the_question(self) -> bool:
        """Whether it may have failed for what was asked, and not for the state that the server was in."""
        return self.is_good or self.is_late or (self.status >= _FAILED and not self.is_too_much)

    @property
    def is_bad_request(self) -> bool:
        """Whether the server refuses what the request says."""
        return self.status in _BAD_REQUEST

    @property
    def is_transient(self) -> bool:
        """Whether the same request may get another answer."""
        return self.is_too_much or self.status in _TRANSIENT or self.status == 0 or self.status >= _FAILED

    def wait_s(self, num_failures: int) -> float:
        """Seconds to wait before the next attempt: as the server says, or twice as long each time, less by chance.

        Without the chance, all requests that have failed together would come again together.
        """
        said = retry_after_s(self.headers)
        longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**num_failures)
        return longest * random.uniform(0.5, 1) if said is None else said + random.uniform(0, 0.1 * said)


class Server:
    """An endpoint. Made and used in one event loop."""

    def __init__(
        self,
        endpoint: EndpointConfig,
        where: str,
        prompts: Mapping[str, Prompt],
        template_variables: Mapping[str, Any],
        decoding: Decoding,
    ) -> None:
        """`where` is the endpoint's key in the configuration; `prompts` are a trivial question's, by their form;
        `decoding` is that of the run.

        Raises InputError if the API key is not in the environment.
        """
        self.endpoint, self.where, self.url = endpoint, where, endpoint.url.rstrip("/")
        self._prompts, self._template_variables = prompts, template_variables
        self._trivial = replace(decoding, responses_per_question=1, max_tokens=_PROBE_TOKENS)
        self._key = _api_key(endpoint, where)
        self._context: int | None = None
        host = urlsplit(self.url).hostname or ""
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx.Timeout(None, connect=_CONNECT_S),  # that of the whole exchange is in `_exchange`
            limits=httpx.Limits(max_connections=endpoint.max_in_flight + 1, max_keepalive_connections=None),
            # No proxy leads to this machine, even where NO_PROXY does not say so.
            trust_env=host != "localhost" and not re.fullmatch(r"127\.[\d.]+|::1", host),
        )

    async def close(self) -> None:
        """Close the connections, with the requests on them."""
        await self._client.aclose()

    async def ask(
        self, dialect: Dialect, prompt: Prompt, decoding: Decoding, first: int, count: int, timeout_s: float
    ) -> tuple[Answer, Mapping[str, Any]]:
        """The answer to one request for the responses from `first` on, and the body that was sent."""
        if self._context is not None and dialect.prompt_form == "ids" and len(prompt) < self._context:
            # As our engines do; servers refuse a length that the context has no room for.
            decoding = replace(decoding, max_tokens=min(decoding.max_tokens, self._context - len(prompt)))
        variables = self._template_variables
        body = request_body(self.endpoint.model, prompt, decoding, first, count, dialect, variables)
        return await self._exchange(self._client.post(self.url + dialect.path, json=body), timeout_s), body

    async def probe(self, dialect: Dialect) -> tuple[Answer, Mapping[str, Any]]:
        """The answer to the trivial question, and the body that was sent."""
        prompt, timeout_s = self._prompts[dialect.prompt_form], min(_PROBE_S, self.endpoint.timeout_s)
        return await self.ask(dialect, prompt, self._trivial, 0, 1, timeout_s)

    async def _exchange(self, request: Awaitable[httpx.Response], timeout_s: float) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                answer = await request
        except TimeoutError:
            return Answer(0, f"no answer within {timeout_s:g} s".encode(), {}, is_late=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return Answer(0, self._without_key(told.encode()), {})
        is_good = answer.status_code == _OK
        return Answer(
            answer.status_code, answer.content if is_good else self._without_key(answer.content), answer.headers
        )

    def _without_key(self, told: bytes) -> bytes:
        """Some servers repeat the key that they refuse."""
        return told.replace(self._key.encode(), b"...") if self._key else told

    async def dialect(self) -> Dialect:
        """What the server understands. Raises InputError if nothing can be asked of it."""
        listing = self._client.get(f"{self.url}/models")
        last = listed = await self._exchange(listing, min(_CONNECT_S, self.endpoint.timeout_s))
        self._require_answer(listed)
        models, model, name = models_of(listed.content), self.endpoint.model, self.endpoint.api_key_env
        self._context = models.get(model)
        for dialect in self._to_try():
            understood, last = await self._understood(dialect)
            if not understood and last.is_bad_request and await self._understands_plainly(dialect):
                raise InputError(f"sampling: the server at {self.url} refuses what the run asks for: {last}")
            if (
                understood
                and dialect.prompt_form == "ids"
                and self.endpoint.api == "auto"
                and "messages" in self._prompts
            ):
                return await self._with_its_own_template(understood)
            if understood:
                return understood
        if last.status in _KEY_REFUSED:
            how = f"refuses the key in {name}" if name else "asks for a key"
            raise InputError(f"{self.where}.api_key_env: the server at {self.url} {how}: {last}")
        if models and model not in models:
            known = ", ".join(list(models)[:5]) + (", …" if len(models) > 5 else "")
            raise InputError(f"{self.where}.model: the server at {self.url} has no model {model!r}; it has {known}")
        raise InputError(
            f"{self.where}: the server at {self.url} does not speak OpenAI's protocol, or not for {model!r}: {last}"
        )

    async def _understands_plainly(self, dialect: Dialect) -> bool:
        """Whether a dialect is understood without what the run asks for beside a response."""
        asked, self._trivial = self._trivial, _PLAIN
        try:
            return (await self._understood(dialect))[0] is not None
        finally:
            self._trivial = asked

    def _to_try(self) -> Sequence[Dialect]:
        """Dialects, in the order in which they are tried; none for whose prompts there is no tokenizer."""
        ids, text = Dialect("/completions", "ids"), Dialect("/completions", "text")
        chat = Dialect("/chat/completions", "messages")
        otherwise = chat if "messages" in self._prompts else text  # a prompt of text is no conversation
        every = {"auto": (ids, otherwise), "completions": (ids, text), "chat": (chat,)}[self.endpoint.api]
        return [dialect for dialect in every if dialect.prompt_form in self._prompts]

    async def _understood(self, dialect: Dialect) -> tuple[Dialect | None, Answer]:
        """The dialect, without what the server refuses of it, and its last answer; None if it refuses all."""
        num_failures = 0
        while True:
            answer, body = await self.probe(dialect)
            self._require_answer(answer)
            if answer.is_good:
                try:
                    read_responses(answer.content)
                except NotTheProtocolError as error:
                    return None, replace(answer, content=str(error).encode())
                return dialect, answer
            patience = min(2, self.endpoint.max_retries) if answer.status == _FAILED else self.endpoint.max_retries
            if answer.is_transient and num_failures < patience:
                await asyncio.sleep(answer.wait_s(num_failures))
                num_failures += 1
                continue
            simpler = None
            if answer.is_bad_request:
                simpler = dialect.without(said_in(answer.content), body, wanted_fields(self._trivial))
            if simpler is None:
                return None, answer
            dialect = simpler

    async def _with_its_own_template(self, ids: Dialect) -> Dialect:
        """Chat, if the server renders the trivial question to another number of tokens than we do, else ids.

        Then it has another model than that of our tokenizer, and our token ids would mean other words to it.
        """
        chat, answer = await self._understood(Dialect("/chat/completions", "messages"))
        theirs, ours = num_prompt_tokens(answer.content) if chat else None, self._prompts["ids"]
        return ids if chat is None or theirs is None or theirs == len(ours) else chat

    def _require_answer(self, answer: Answer) -> None:
        """Raises InputError if an exchange has failed."""
        if answer.status == 0:
            raise InputError(f"{self.where}.url: no server answers at {self.url} ({answer})")


class Turns:
    """Lets a number of requests go at once: half as many after an answer that says too many, one more after each round
    of good answers.
    """

    def __init__(self, most: int) -> None:
        self._most, self._limit, self._num_in_flight, self._closed_until = most, float(most), 0, 0.0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a place, and while none may go."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._num_in_flight < int(self._limit))
            self._num_in_flight += 1
        try:
            while (left := self._closed_until - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(left)
            yield
        finally:
            self._num_in_flight -= 1
            async with self._changed:
                self._changed.notify(2)  # one for this place, one for a place that the limit may have gained

    def widen(self) -> None:
        """After a good answer."""
        self._limit = min(self._most, self._limit + 1 / self._limit)

    def narrow(self, wait_s: float) -> None:
        """After an answer that says too many: none goes for so many seconds.

        While none goes, answers to requests of before say nothing new.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._closed_until:
            self._limit = max(1.0, self._limit / 2)
        self._closed_until = max(self._closed_until, now + wait_s)


def _api_key(endpoint: EndpointConfig, where: str) -> str | None:
    name = endpoint.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise InputError(
            f"{where}.api_key_env: the environment variable {name} is not set on {socket.gethostname()}; the command "
            "and the cluster's nodes need it"
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{where}.api_key_env: the environment variable {name} has characters that no key has")
    return key
