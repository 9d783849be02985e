"""OpenAI's protocol as pure functions: bodies of requests, responses in answers, and what errors say.

Servers agree on little of it. A `Dialect` is what one of them was found to understand.
"""

import email.utils
import json
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from east_ray.sampling.backends import FINISH_REASONS, Decoding, Prompt, Response

#: Fields that servers may not know. The values of the first three are those of plain sampling: without them, vLLM takes
#: the defaults of the model's generation_config.json, and llama.cpp its own (top_k 40, min_p 0.05).
_NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
_OPTIONAL = (*_NEUTRAL, "return_token_ids", "add_special_tokens", "seed", "logprobs")
#: Fields that are no parameters of decoding: what a request is, and what comes back.
OWN_FIELDS = frozenset(
    {"model", "prompt", "messages", "stream", "stream_options", "echo", "suffix", "best_of", "max_completion_tokens"}
    | {"return_token_ids", "add_special_tokens", "chat_template_kwargs", "tools", "top_logprobs", "response_format"}
)
#: The longest part of what a server says of an error that is kept.
_MAX_SAID = 300


@dataclass(frozen=True)
class Dialect:
    """What a server understands."""

    path: Literal["/completions", "/chat/completions"]
    prompt_form: Literal["ids", "text", "messages"]
    omitted: frozenset[str] = frozenset()
    """Optional fields that it refuses."""
    length_field: str = "max_tokens"

    def without(self, said: str, body: Mapping[str, Any], wanted: Collection[str] = ()) -> "Dialect | None":
        """The dialect to try after a server has refused this body with these words; None if there is none left.

        Refused are the optional fields that it names, or, if it names none, all of them; but none that is `wanted`.
        """
        if self.length_field == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, length_field="max_completion_tokens")
        sent = [name for name in _OPTIONAL if name in body and name not in wanted]
        refused = [name for name in sent if re.search(rf"\b{name}\b", said)] or sent
        return replace(self, omitted=self.omitted | set(refused)) if refused else None


class NotTheProtocolError(ValueError):
    """An answer that is none of OpenAI's protocol, or that was cut off."""


def wanted_fields(decoding: Decoding) -> set[str]:
    """Fields that a run asks for. A request without them would be another one."""
    given = {"top_k": decoding.top_k, "logprobs": decoding.logprobs, "seed": decoding.seed is not None}
    return set(decoding.params) | {name for name, is_given in given.items() if is_given}


def request_body(
    model: str,
    prompt: Prompt,
    decoding: Decoding,
    first: int,
    count: int,
    dialect: Dialect,
    template_variables: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a request for the responses `first` to `first` + `count` - 1 of a question.

    A server that honours `n` and `seed` as vLLM does gives response i of a request the seed `seed` + i.
    """
    body: dict[str, Any] = {
        "model": model,
        ("messages" if dialect.prompt_form == "messages" else "prompt"): prompt,
        **({"n": count} if count > 1 else {}),
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        dialect.length_field: decoding.max_tokens,
        **_NEUTRAL,
        "return_token_ids": True,
    }
    if decoding.top_k:
        body["top_k"] = decoding.top_k
    if decoding.stop:
        body["stop"] = list(decoding.stop)
    if decoding.logprobs:  # of the sampled tokens alone; chat has a field of its own for the number of others
        body["logprobs"] = True if dialect.prompt_form == "messages" else 0
    if dialect.prompt_form == "text":  # the prompt has them already
        body["add_special_tokens"] = False
    if dialect.prompt_form == "messages" and template_variables:
        body["chat_template_kwargs"] = dict(template_variables)
    if decoding.seed is not None:
        body["seed"] = decoding.seed + first
    body |= decoding.params
    return {name: value for name, value in body.items() if name not in dialect.omitted}


def read_responses(answer: bytes) -> tuple[list[Response], set[str]]:
    """The responses in an answer, in order, and the reasons for which others in it ended otherwise: none of these is
    given back, as one that a filter has ended.

    A response has as many tokens as ids; the only one of an answer, as many as the answer. Raises NotTheProtocolError.
    """
    try:
        told = json.loads(answer)
        choices = sorted(told["choices"], key=lambda choice: choice.get("index") or 0)
        usage, responses, unusual = told.get("usage") or {}, [], set[str]()
        for choice in choices:
            text = choice["message"].get("content") if "message" in choice else choice["text"]
            reason = str(choice.get("finish_reason") or "stop").casefold()
            if reason not in FINISH_REASONS:
                unusual.add(reason)
                continue
            ids = _integers(choice.get("token_ids"))
            alone = usage.get("completion_tokens") if len(choices) == 1 else None
            num_tokens = len(ids) if ids else alone if isinstance(alone, int) else None
            response = Response(_text(text), FINISH_REASONS[reason], num_tokens, _logprob(choice), ids)
            responses.append(response)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        begin = answer[:60].decode(errors="replace").strip()
        raise NotTheProtocolError(f"no answer of OpenAI's protocol ({begin!r} …)") from error
    return responses, unusual


def num_prompt_tokens(answer: bytes) -> int | None:
    """How many tokens the prompt of an answer had, if it says so."""
    usage = json.loads(answer).get("usage")
    found = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return found if isinstance(found, int) else None


def _text(value: Any) -> str:
    if not isinstance(value, str | None):
        raise TypeError("a response's text is no text")
    # Half of a surrogate pair is valid JSON, but no text that can be written.
    return (value or "").encode(errors="replace").decode()


def _integers(value: Any) -> list[int] | None:
    is_list = isinstance(value, list) and bool(value) and all(isinstance(one, int) for one in value)
    return value if is_list else None


def _logprob(choice: Mapping[str, Any]) -> float | None:
    """The sum over the response's tokens, of a server that gives them: in `content` with chat, else in a list."""
    told = choice.get("logprobs")
    if not isinstance(told, dict):
        return None
    content = told.get("content")
    each = [one["logprob"] for one in content] if isinstance(content, list) else told.get("token_logprobs")
    return float(sum(each)) if each and all(isinstance(one, int | float) for one in each) else None


def said_in(answer: bytes) -> str:
    """What an answer with an error says, in one line: its message, or the beginning of its text."""
    text = answer.decode(errors="replace")
    try:
        told: Any = json.loads(text)
    except ValueError:
        told = None
    for name in ("error", "message", "detail", "msg"):  # {"error": {"message": …}}, {"detail": [{"msg": …}]}
        if isinstance(told, list) and told:
            told = told[0]
        if isinstance(told, dict) and name in told:
            told = told[name]
    found = told if isinstance(told, str) else re.sub(r"<[^>]*>", " ", text)
    return " ".join(found.split())[:_MAX_SAID] or "no message"


#: A server that asks for a longer wait than this many seconds is asked again nonetheless.
_LONGEST_WAIT_S = 3600.0


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds after which a server wants to be asked again: given as seconds or as a date. None: it does not say."""
    said = headers.get("retry-after", "").strip()
    try:
        return min(max(0.0, float(said)), _LONGEST_WAIT_S)
    except ValueError:
        pass
    try:
        wait = email.utils.parsedate_to_datetime(said).timestamp() - time.time()
        return min(max(0.0, wait), _LONGEST_WAIT_S)
    except ValueError:
        return None


def models_of(answer: bytes) -> dict[str, int | None]:
    """Name -> tokens of its context, if it is said, of each model in an answer to GET /models; or none."""
    try:
        listed = {str(one["id"]): one.get("max_model_len") for one in json.loads(answer)["data"]}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
    return {name: context if isinstance(context, int) else None for name, context in listed.items()}
