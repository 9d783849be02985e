"""Which fields a chat request may use, and the bounds of their values. vLLM checks the rest.

vLLM trusts its clients. Some fields of its protocol can kill an engine and with it all its requests (e.g. more biases
than its kernels hold), name files and addresses to fetch, or are meant for operators. Nothing bounds the time that the
grammar of a structured output takes (vllm#54003). Pure.
"""

from collections.abc import Collection, Mapping
from typing import Any

from east_ray.serving.settings import LimitsConfig

_EXCHANGE = ("messages", "model", "user", "stream", "stream_options", "logprobs", "top_logprobs", "skip_special_tokens")
_SAMPLING = ("n", "seed", "temperature", "top_p", "top_k", "min_p", "logit_bias")
_PENALTIES = ("frequency_penalty", "presence_penalty", "repetition_penalty")
_LENGTH = ("max_tokens", "max_completion_tokens", "min_tokens", "ignore_eos")
_STOP = ("stop", "stop_token_ids", "include_stop_str_in_output")
#: OpenAI's parameters, and those of vLLM's that cannot harm an engine.
SERVED = frozenset((*_EXCHANGE, *_SAMPLING, *_PENALTIES, *_LENGTH, *_STOP))
#: Served only with `limits.structured_outputs`.
STRUCTURED = frozenset(("response_format", "structured_outputs"))
#: Served always: the value of a structured field that asks for nothing.
_UNSTRUCTURED = ("response_format", {"type": "text"})
#: Largest number of items by field.
_MAX_ITEMS = {"logit_bias": 300, "stop_token_ids": 64, "stop": 16, "messages": 1024}
_MAX_INTEGER = 2**31 - 1
_MAX_DEPTH = 32


def problem(body: Any, known: Collection[str], limits: LimitsConfig) -> str | None:
    """Why the body of a chat request is refused, or None. `known` are vLLM's fields; vLLM ignores all others.

    >>> problem({"messages": [], "priority": 1}, {"messages", "priority"}, LimitsConfig())
    'priority: not served'
    """
    if not isinstance(body, dict):
        return None
    served = SERVED | STRUCTURED if limits.structured_outputs else SERVED
    for name, value in body.items():
        if name in known and name not in served and value is not None and (name, value) != _UNSTRUCTURED:
            return f"{name}: not served"
        limit = _MAX_ITEMS.get(name)
        if limit is not None and isinstance(value, list | dict) and len(value) > limit:
            return f"{name}: {len(value)} items, but this server allows at most {limit}"
        if not _can_be_sent(value):
            return f"{name}: a number is out of range, a text is not valid Unicode, or the nesting is too deep"
    return _problem_of_messages(body.get("messages"), limits)


def _problem_of_messages(messages: Any, limits: LimitsConfig) -> str | None:
    parts = [part for message in (messages if isinstance(messages, list) else []) for part in _parts(message)]
    if any(isinstance(part, dict) and part.get("type", "text") != "text" for part in parts):
        return "messages: only text is served"
    num_chars = sum(len(part if isinstance(part, str) else str(part.get("text", ""))) for part in parts)
    if num_chars > limits.max_prompt_chars:
        return f"messages: {num_chars} characters, but this server allows at most {limits.max_prompt_chars}"
    return None


def _can_be_sent(value: Any, depth: int = _MAX_DEPTH) -> bool:
    """Whether a value can be sent to the engine's process: bounded integers and nesting, texts that can be encoded."""
    if depth == 0:
        return False
    if isinstance(value, Mapping):
        return all(_can_be_sent(key, depth - 1) and _can_be_sent(one, depth - 1) for key, one in value.items())
    if isinstance(value, list):
        return all(_can_be_sent(one, depth - 1) for one in value)
    if isinstance(value, int):
        return abs(value) <= _MAX_INTEGER
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    return True


def _parts(message: Any) -> list[Any]:
    """The content of a message as a list of texts and parts."""
    content = message.get("content") if isinstance(message, dict) else None
    return [part for part in (content if isinstance(content, list) else [content]) if isinstance(part, str | dict)]
