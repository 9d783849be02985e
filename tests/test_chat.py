"""What a chat request may ask for."""

from typing import Any

import pytest

from east_ray.serving.application import chat_problem
from east_ray.serving.settings import LimitsConfig

KNOWN = {"messages", "logit_bias", "stop_token_ids", "top_k", "user"}
KNOWN |= {"priority", "chat_template", "tools", "response_format", "structured_outputs"}
UNFIT = "a number is out of range, a text is not valid Unicode, or the nesting is too deep"
HELLO = [{"role": "user", "content": "Hello"}]


def nested(depth: int) -> Any:
    return [] if depth == 0 else [nested(depth - 1)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": HELLO}, None),
        ({"messages": HELLO, "unheard_of": nested(9), "priority": None}, None),  # vLLM ignores these
        ({"messages": HELLO, "response_format": {"type": "text"}}, None),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]}, None),
        ([], None),
        ({"messages": 5, "logit_bias": 5}, None),  # vLLM says what is wrong
        ({"priority": 1}, "priority: not served"),
        ({"chat_template": "{{x}}"}, "chat_template: not served"),
        ({"tools": []}, "tools: not served"),
        ({"response_format": {"type": "json_object"}}, "response_format: not served"),
        ({"logit_bias": {str(i): 1 for i in range(301)}}, "logit_bias: 301 items, but this server allows at most 300"),
        ({"stop_token_ids": [1] * 65}, "stop_token_ids: 65 items, but this server allows at most 64"),
        ({"top_k": 1 << 70}, f"top_k: {UNFIT}"),
        ({"user": "\ud800"}, f"user: {UNFIT}"),
        ({"user": nested(40)}, f"user: {UNFIT}"),
        ({"messages": [{"content": [{"type": "image_url", "image_url": "x"}]}]}, "messages: only text is served"),
        (
            {"messages": [{"content": "xxxxxx"}, {"content": ["xxx", {"text": "xx"}]}]},
            "messages: 11 characters, but this server allows at most 10",
        ),
    ],
)
def test_what_is_served(body: Any, said: str | None) -> None:
    assert chat_problem(body, KNOWN, LimitsConfig(max_prompt_chars=10)) == said


def test_structured_outputs_are_served_where_they_are_allowed() -> None:
    asked = {"messages": HELLO, "structured_outputs": {"json": {}}}
    assert chat_problem(asked, KNOWN, LimitsConfig(structured_outputs=True)) is None
