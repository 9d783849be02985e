"""What a chat request may ask of an engine: which fields are served, and how much of each. vLLM checks the rest.

vLLM trusts whoever can reach it. Some fields of its protocol can end an engine and with it every request there (more
biases than its kernels hold), name files and addresses to fetch, or are for its own operators; and there is no bound to
the time that the grammar of a structured output can take (vllm#54003). Pure.
"""

from collections.abc import Collection, Mapping
from typing import Any

from east_ray.serving.settings import LimitsConfig

#: OpenAI's sampling parameters, and those of vLLM's that an engine can bear.
SERVED = frozenset(
    ["messages", "model", "n", "seed", "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens",
     "min_tokens", "stop", "stop_token_ids", "frequency_penalty", "presence_penalty", "repetition_penalty",
     "logit_bias", "logprobs", "top_logprobs", "stream", "stream_options", "user", "ignore_eos", "skip_special_tokens",
     "include_stop_str_in_output"]
)  # fmt: skip
#: Served if `limits.structured_outputs` allows it.
STRUCTURED = frozenset(["response_format", "structured_outputs"])
#: Longest lists.
_MOST = {"logit_bias": 300, "stop_token_ids": 64, "stop": 16, "messages": 1024}
_LARGEST_INTEGER = 2**31 - 1


def problem(body: Any, known: Collection[str], limits: LimitsConfig) -> str | None:
    """Why the body of a chat request is refused, or None; `known` are the fields of vLLM's protocol: it ignores others.

    >>> problem({"messages": [], "priority": 1}, {"messages", "priority"}, LimitsConfig())
    'priority: not served'
    """
    if not isinstance(body, dict):
        return None
    served = SERVED | STRUCTURED if limits.structured_outputs else SERVED
    for name, value in body.items():
        if name in known and name not in served and value is not None and (name, value) != _PLAIN:
            return f"{name}: not served"
        most = _MOST.get(name)
        if most is not None and isinstance(value, list | dict) and len(value) > most:
            return f"{name}: {len(value)} given, and this server allows {most}"
        if not _is_fit(value):
            return f"{name}: a number is out of range, a text is no Unicode, or it is nested too deep"
    return _problem_of_messages(body.get("messages"), limits)


def _problem_of_messages(messages: Any, limits: LimitsConfig) -> str | None:
    parts = [part for message in (messages if isinstance(messages, list) else []) for part in _parts(message)]
    if any(isinstance(part, dict) and part.get("type", "text") != "text" for part in parts):
        return "messages: only text is served"
    num_chars = sum(len(part if isinstance(part, str) else str(part.get("text", ""))) for part in parts)
    if num_chars > limits.max_prompt_chars:
        return f"messages: {num_chars} characters, and this server allows {limits.max_prompt_chars}"
    return None


_PLAIN = ("response_format", {"type": "text"})


def _is_fit(value: Any, depth: int = 32) -> bool:
    """Whether the engine's process can be sent a value: integers of its size, texts that can be encoded."""
    if depth == 0:
        return False
    if isinstance(value, Mapping):
        return all(_is_fit(key, depth - 1) and _is_fit(one, depth - 1) for key, one in value.items())
    if isinstance(value, list):
        return all(_is_fit(one, depth - 1) for one in value)
    if isinstance(value, int):
        return abs(value) <= _LARGEST_INTEGER
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    return True


def _parts(message: Any) -> list[Any]:
    """The texts and parts of a message: its content, or each part of it."""
    content = message.get("content") if isinstance(message, dict) else None
    return [part for part in (content if isinstance(content, list) else [content]) if isinstance(part, str | dict)]
