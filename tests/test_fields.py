"""Values in a row by dotted names, and the texts in messages, parts of contents and lists of one."""

import json
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.config import InputError
from east_ray.reading.fields import (
    MISSING,
    answer_text,
    field,
    names_in,
    optional,
    printed_length,
    prompt_text,
    response_text,
)

ROW: dict[str, Any] = {
    "doc": {"question": "2 + 2?", "choices": ["3", "4"], "none": None},
    "meta.info": {"finish_reason": {"type": "length"}},
    "meta": {"info": {"seed": 7}},
    "outputs": [{"text": "a"}, {"text": "b"}],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("doc.question", "2 + 2?"),
        ("doc.choices.1", "4"),
        ("outputs.1.text", "b"),
        ("meta.info.finish_reason.type", "length"),  # the key that has the dots itself comes first
        ("meta.info.seed", 7),  # and where it leads nowhere, the others are tried
        ("doc.none.deeper.0", None),
    ],
)
def test_dots_and_indices_lead_into_a_row(name: str, value: Any) -> None:
    assert field(ROW, name) == optional(ROW, name) == value


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("doc.quesion", r"field 'doc.quesion' is missing; found 'doc', 'meta', .*; did you mean doc.question\?"),
        ("question", r"column 'question' is missing; .*; did you mean doc.question\?"),
        ("doc.choices.2", r"field 'doc.choices.2' is missing"),
        ("outputs.text", r"did you mean outputs.0.text\?"),
        ("output", r"did you mean outputs\?"),
        ("zzzz", r"found 'doc', 'meta', 'meta.info', 'outputs'$"),
    ],
)
def test_a_missing_name_is_said_with_the_nearest(name: str, message: str) -> None:
    assert optional(ROW, name) is MISSING
    with pytest.raises(InputError, match=message):
        field(ROW, name)


def test_names_inside_a_list_or_in_other_letters_are_hinted_at() -> None:
    with pytest.raises(InputError, match="; results is a list of 2 objects that have 'question'"):
        field({"v": 1, "results": [{"question": "1"}, {"question": "2"}]}, "question")
    with pytest.raises(InputError, match=r"; did you mean ' ID '\?"):
        field({" ID ": 1}, "id")


def test_a_failed_request_has_nothing() -> None:
    failed = {"custom_id": "q1", "response": {"body": {"error": {"code": 429}}}}
    assert field(failed, "response.body.choices") is None
    assert optional(failed, "response.body.choices") is MISSING
    with pytest.raises(InputError, match="is missing"):
        field({"response": {"body": {"error": None}}}, "response.body.choices")


@given(
    st.recursive(
        st.none() | st.integers(),
        lambda inner: st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=3) | st.lists(inner),
        max_leaves=20,
    )
)
def test_every_name_of_a_row_leads_to_its_value(value: Any) -> None:
    for name in names_in({"top": value}):
        assert optional({"top": value}, name) is not MISSING


USER, ASSISTANT = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "\\boxed{4}"}
SHARED = [
    {"from": "system", "value": "s"},
    {"from": "human", "value": "2 + 2?"},
    {"from": "gpt", "value": "\\boxed{4}"},
]
PARTS = [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]


@pytest.mark.parametrize(
    "value",
    [
        "2 + 2?", ["2 + 2?"], [["2 + 2?"]], [USER], [USER, ASSISTANT], USER, [[USER]], SHARED, PARTS,
        [{"role": "system", "content": "s"}, {"role": "user", "content": "no"}, ASSISTANT, USER],
        json.dumps([USER, ASSISTANT]), json.dumps(SHARED, indent=2), [json.dumps([USER])],
        [{"role": "user", "content": PARTS}], [{"role": "User", "content": [{"type": "input_text", "text": "2 + 2?"}]}],
    ],
)  # fmt: skip
def test_the_question_of_a_prompt_is_the_users_last_turn(value: Any) -> None:
    assert prompt_text(value) == "2 + 2?"


CHATML = "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
LLAMA = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"


@pytest.mark.parametrize(
    "rendered",
    [
        CHATML, f"{CHATML}<think>\n", CHATML.removesuffix("\n"),
        CHATML.replace("2 + 2?", "no") + "4<|im_end|>\n" + CHATML,
        "<|begin_of_text|>" + LLAMA.format("system", "Be brief.") + LLAMA.format("user", "2 + 2?"),
        "<bos><start_of_turn>user\n2 + 2?<end_of_turn>\n<start_of_turn>model\n",
        "<|system|>\nBe brief.<|end|>\n<|user|>\n2 + 2?<|end|>\n<|assistant|>\n",
        "<|user|>\n2 + 2?</s>\n<|assistant|>\n",
        "<s>[INST] 2 + 2? [/INST]", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2 + 2? [/INST]",
        "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]2 + 2?[/INST]",
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜>2 + 2?<｜Assistant｜><think>\n",
        "user\n2 + 2?\nassistant\n", "system\nYou help\nusers.\nuser\n2 + 2?\nassistant\n<think>\n",
        "user\nno\nassistant\n4\nuser\n2 + 2?\nassistant\n", ["user\n2 + 2?\nassistant"],
    ],
)  # fmt: skip
def test_the_question_of_a_rendered_prompt_is_the_users_last_turn(rendered: Any) -> None:
    assert prompt_text(rendered) == "2 + 2?"


@pytest.mark.parametrize(
    "text",
    [
        "What does <|im_start|>user\n mean?", "<|im_start|>user\nnever closed", "user\nassistant\n", "user\n2 + 2?",
        "2 + 2?\nassistant\n", "The user\nasks.\nassistant\n", "[INSTALL] 2?", "system\nof two equations\n", "",
    ],
)  # fmt: skip
def test_a_text_that_no_template_has_rendered_is_itself(text: str) -> None:
    assert prompt_text(text) == text


def test_what_stands_in_a_rendered_turn_stays_in_it() -> None:
    said = "Sort:\nuser\nname\nage"
    assert prompt_text(f"user\n{said}\nassistant\n") == said


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "expected text or messages, found int"),
        (str([USER]), "found messages as Python prints them; write them as JSON"),
        (True, "found bool"),
        (b"2", "found bytes"),
        ({"text": "2 + 2?"}, "found dict with 'text'; a dotted name leads into it"),
        (["a", "b"], "found list"),
        ([], "found list"),
        ([ASSISTANT], "expected a conversation with a turn of the user, found turns of 'assistant'"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}], "found one of type 'image_url'"),
        ([{"role": "user", "content": [{"type": "image_url"}, *PARTS]}], "found one of type 'image_url'"),
        ([{"role": "user", "content": 5}], "expected text, found int"),
    ],
)
def test_what_is_no_question_is_said(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prompt_text(value)


@pytest.mark.parametrize(
    "value",
    [
        "\\boxed{4}", ["\\boxed{4}"], [["\\boxed{4}"]], ASSISTANT, [ASSISTANT], [USER, ASSISTANT], SHARED,
        {"text": "\\boxed{4}"}, [{"text": "\\boxed{4}"}], {"text": ["\\boxed{4}"]}, {"text": ASSISTANT},
        {"text": [{"type": "output_text", "text": "\\boxed"}, {"type": "output_text", "text": "{4}"}]},
        [USER, ASSISTANT, USER], json.dumps([USER, ASSISTANT]), {"text": json.dumps([ASSISTANT])},
    ],
)  # fmt: skip
def test_the_text_of_a_response_is_the_assistants_last_turn(value: Any) -> None:
    assert response_text(value) == "\\boxed{4}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"message": {"content": "4", "reasoning_content": " hm\n"}}, "<think>\nhm\n</think>\n\n4"),
        ({"message": {"content": None, "reasoning_content": "hm"}}, "<think>\nhm\n"),
        ({"message": {"content": "", "reasoning_content": "hm"}}, "<think>\nhm\n</think>\n\n"),
        ({"message": {"content": "4", "reasoning_content": None}}, "4"),
        ({"message": {"content": "4", "reasoning": "a judge's words"}}, "4"),
        ({"message": {"role": "assistant", "content": "4", "reasoning": "hm"}}, "<think>\nhm\n</think>\n\n4"),
        (
            {"message": {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4"}]}},
            "<think>\nhm\n</think>\n\n4",
        ),
        (
            {"message": {"content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "4"}]}},
            "4",
        ),
        ({"message": None}, None),
        ({"message": {"content": None}}, None),
        ({"error": "timeout"}, None),
    ],
)
def test_thinking_that_stands_beside_the_content_comes_before_it(value: Any, text: str | None) -> None:
    assert response_text(value, "message.content") == text


@pytest.mark.parametrize("text", ["[{1, 2}, {3}]", "[{}]", '[{"role": "user"}]', '[{"a": 1', "[1, 2]"])
def test_a_text_that_is_no_conversation_is_itself(text: str) -> None:
    assert prompt_text(text) == response_text(text) == text


@given(st.lists(st.text(), min_size=1))
def test_every_list_of_texts_that_python_prints_is_known_and_none_in_json(texts: list[str]) -> None:
    assert printed_length(repr(texts)) == printed_length(f" {repr(texts)[:-1]} None\n]") - 1 == len(texts)
    assert printed_length(json.dumps(texts)) == 0
    assert printed_length(f"{texts!r} is the list.") == printed_length(f"So {texts!r}") == 0


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("['a'\n 'it\\'s'\n \"b's\"]", 3), ("['a' 'b' ... 'c']", 3), ("['a', None]", 2), ("['a'] ", 1), ("['a", 0),
        ("[{'text': 'a', 'stop': None}, {'text': 'b'}]", 2), ("[{'text': 'a'}, {", 0), ("[{1, 2}]", 0), ("[]", 0),
        ('["a", "b"]', 0), ("[1, 2]", 0), ("['a'" * 50_000, 0), ("['" + "\\'" * 50_000, 0),
        (["a"], 0), (None, 0),
    ],
)  # fmt: skip
def test_a_printed_list_is_known_by_its_quotes(text: Any, length: int) -> None:
    assert printed_length(text) == length


@pytest.mark.parametrize("value", [None, float("nan"), Decimal("nan"), Decimal("sNaN"), pd.NA, pd.NaT, [pd.NA]])
def test_what_is_missing_is_no_text(value: Any) -> None:
    assert prompt_text(value) is response_text(value) is response_text({"text": value}) is answer_text(value) is None
    assert response_text([{"role": "assistant", "content": value}]) is None


@pytest.mark.parametrize("value", [4, True, b"4", {"other": "4"}, ["a", "b"], [], {"text": 4}, {"text": {"x": 1}}])
def test_what_is_no_response_is_refused(value: Any) -> None:
    with pytest.raises(InputError):
        response_text(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (72, "72"), (72.0, "72"), (1e16, "10000000000000000"), (1.5e-7, "0.00000015"), (0.1, "0.1"), (-0.5, "-0.5"),
        (Decimal("35.00"), "35"), (Decimal("0.250"), "0.250"), (Decimal("1E+3"), "1000"), (float("nan"), None),
        (float("inf"), "inf"), (" 7 ", "7"), (["7"], "7"), ([[7]], "7"), (None, None), (10**30, "1" + "0" * 30),
    ],
)  # fmt: skip
def test_a_reference_is_a_text_or_a_number_without_exponent(value: Any, text: str | None) -> None:
    assert answer_text(value) == text


@pytest.mark.parametrize("value", [True, [], ["1", "2"], {"answer": 1}, b"7"])
def test_what_is_no_reference_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="expected text or a number, found "):
        answer_text(value)
