"""What the first rows of a file of responses are taken for, whichever tool has written them."""

from decimal import Decimal
from typing import Any

import pytest

from east_ray.config import InputError
from east_ray.reading.recognised import TOOLS, recognised, with_responses

QUESTION, TEXTS = "2 + 2?", ["It is \\boxed{4}.", "\\boxed{5}"]
USER, ASSISTANT = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": TEXTS[0]}
PLAIN = {"question_column": "question", "reference_answer_column": "answer", "responses_column": "responses"}


def row(**changes: Any) -> dict[str, Any]:
    given = {"question": QUESTION, "answer": "4", "responses": TEXTS} | changes
    return {name: value for name, value in given.items() if value is not ...}


def settings(question: str, reference: str, responses: Any, **more: Any) -> dict[str, Any]:
    return {"question_column": question, "reference_answer_column": reference, "responses_column": responses} | more


#: Rows, and what they are taken for.
SHAPES: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    ([row()], PLAIN),
    ([row(answer=4)], PLAIN),
    ([row(answer=4.0)], PLAIN),
    ([row(answer=Decimal("4.00"))], PLAIN),
    ([row(answer=["4"])], PLAIN),
    ([row(responses=["a"])], PLAIN),
    ([row(responses=[None, "a"])], PLAIN),
    ([row(responses=[]), row(question="3 + 3?")], PLAIN),
    ([row(question=None, responses="timeout"), row(), row(question="3 + 3?")], PLAIN),
    ([row(), {"metric": 1.0}], PLAIN),
    ([row(responses=[{"text": "a"}, {"error": "timeout"}])], PLAIN | {"text_field": "text"}),
    ([row(responses=[{"content": "a", "score": 1.0}])], PLAIN | {"text_field": "content"}),
    ([row(responses=[ASSISTANT, ASSISTANT])], PLAIN),
    ([row(responses='["a", "b"]')], PLAIN),
    # What is in every row comes before what is in few, whatever its name and kind.
    ([row(), row(question="3 + 3?"), row(gold="4", question="5 + 5?")], PLAIN),
    ([row(), row(question="3 + 3?"), row(outputs=["a"], prompt="q", question="5 + 5?", answer="6")], PLAIN),
    ([{"question": "q", "answer": "4", "output": "a"}] * 2 + [row(generations=["a"], output="b", responses=...)],
     {"question_column": "question", "reference_answer_column": "answer", "response_column": "output"}),
    ([row(gold="4"), row(gold="4", question="3 + 3?"), row(question="5 + 5?")],
     PLAIN | {"reference_answer_column": "gold"}),
    ([row(responses=[{"text": "a", "content": "b"}, {"content": "b"}, {"content": "b"}])],
     PLAIN | {"text_field": "content"}),
    # A row is one response.
    (
        [{"problem": QUESTION, "expected_answer": 4, "generation": "a", "finish_reason": "stop", "num_tokens": 3}],
        {"question_column": "problem", "reference_answer_column": "expected_answer", "response_column": "generation",
         "finish_reason_field": "finish_reason", "num_tokens_field": "num_tokens"},
    ),
    (
        [{"prompt": [USER], "completion": [ASSISTANT], "answer": "4"}],
        {"question_column": "prompt", "reference_answer_column": "answer", "response_column": "completion"},
    ),
    (
        [{"messages": [USER, ASSISTANT], "ground_truth": "4"}],
        {"question_column": "messages", "reference_answer_column": "ground_truth", "response_column": "messages"},
    ),
    # Names in other cases and places.
    ([{"Question": "q", "Gold-Answer": "4", "Outputs": TEXTS}], settings("Question", "Gold-Answer", "Outputs")),
    ([{"Problem": "q", "TARGET": "4", "model outputs": TEXTS}], settings("Problem", "TARGET", "model outputs")),
    (
        [{"meta": {"problem": "q", "target": "4"}, "out": {"samples": TEXTS}}],
        settings("meta.problem", "meta.target", "out.samples"),
    ),
    (
        [{"question": "q", "solution": "2 + 2 = 4", "answer": "4", "generations": TEXTS}],
        settings("question", "answer", "generations"),
    ),
    (
        [{"problem": "q", "solution": "So \\boxed{4}.", "generations": TEXTS}],
        settings("problem", "solution", "generations"),
    ),
    # Objects, with what stands beside their texts.
    (
        [row(choices=[{"message": ASSISTANT, "finish_reason": "stop"}], responses=...)],
        settings("question", "answer", "choices", text_field="message.content", finish_reason_field="finish_reason"),
    ),
    (
        [row(outputs=[{"text": "a", "meta_info": {"finish_reason": {"type": "stop"}, "completion_tokens": 3}}],
             responses=...)],
        settings("question", "answer", "outputs", finish_reason_field="meta_info.finish_reason.type",
                 num_tokens_field="meta_info.completion_tokens"),
    ),
    ([row(finish_reasons=["stop", "length"])], PLAIN | {"finish_reasons_column": "finish_reasons"}),
    ([row(finish_reasons=["stop"])], PLAIN),  # of another length
    ([row(finish_reasons=None)], PLAIN),
    # Lists in lists, columns with numbers, the same question in several rows.
    (
        [{"doc": {"question": "q"}, "target": "#### 4", "resps": [TEXTS], "filter": "strict", "filtered_resps": ["4"]}],
        settings("doc.question", "target", "resps", where={"filter": "strict"}),
    ),
    (
        [{"question": "q", "final_answer": "4"} | {f"r1_solution_{i}": "a" for i in (10, 2, 1)}],
        settings("question", "final_answer", ["r1_solution_1", "r1_solution_2", "r1_solution_10"]),
    ),
    (
        [{"question": "q", "option 1": "4", "option 2": "5", "answer": "4", "Output 1": "a", "Output 2": "b"}],
        settings("question", "answer", ["Output 1", "Output 2"]),
    ),
    ([row(responses=["a"]), row(responses=["b"])], PLAIN | {"group_by": ["question", "answer"]}),
    (
        [{"prompt": [USER], "answer": "4", "idx": 7, "outputs": ["a"]}] * 2,
        settings("prompt", "answer", "outputs", group_by=["idx"]),
    ),
    (
        [{"question_id": "a-1", "question": "q", "reference_answer": "4", "responses": [{"text": "a"}]}],
        settings("question", "reference_answer", "responses", id_column="question_id"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "expected"), SHAPES)
def test_columns_are_taken_for_what_their_names_and_values_say(
    rows: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    found = recognised(rows)
    # A default that the rows confirm may be there or not.
    assert {"text_field": "text"} | found.settings == {"text_field": "text"} | expected
    assert found.missing == {}


@pytest.mark.parametrize(
    ("rows", "missing"),
    [
        ([row(answer=True)], {"reference_answer_column": "the reference answer (answer holds bool)"}),
        ([row(answer=...)], {"reference_answer_column": "the reference answer"}),
        ([row(answer=["4", "5"])], {"reference_answer_column": "the reference answer (answer holds a list of texts)"}),
        ([row(answer={"value": 4})], {"reference_answer_column": "the reference answer (answer holds dict)"}),
        ([row(question=b"2 + 2?")], {"question_column": "the question (question holds bytes)"}),
        ([row(responses=[USER, ASSISTANT])],
         {"responses_column": "the list of responses (responses holds a list of objects)"}),
        ([row(responses=[])], {"responses_column": "the list of responses"}),
        ([row(responses=[["a", "b"], ["c"]])],
         {"responses_column": "the list of responses (responses holds a list of lists)"}),
        ([row(responses=[1, 2.5])], {"responses_column": "the list of responses (responses holds a list of numbers)"}),
        ([row(answer=..., label=n) for n in (1, 0)],
         {"reference_answer_column": "the reference answer (label holds only 0 and 1)"}),
        ([row(answer=..., label=n) for n in ("1", "0", "2")], {}),
        ([row(answer=n) for n in (1, 0)], {}),
        ([row(label=n, solution="\\boxed{4}", answer=...) for n in (1.0, 0.0)], {}),
        ([row(responses=None)], {"responses_column": "the list of responses"}),
        ([row(responses=[{"score": 1, "said": "a"}])],
         {"text_field": "the text in a response (score, said is there)"}),
        ([{"a": "x", "b": 1}], {"question_column": "the question", "reference_answer_column": "the reference answer",
                                "responses_column": "the list of responses"}),
        ([{"custom_id": "1", "response": {"body": {"choices": [{"message": ASSISTANT}]}}}],
         {"questions.path": "the file of the questions and reference answers, which are not here"}),
    ],
)  # fmt: skip
def test_what_no_column_seems_to_be_is_missing(rows: list[dict[str, Any]], missing: dict[str, str]) -> None:
    assert recognised(rows).missing == missing


@pytest.mark.parametrize("printed", [repr(TEXTS), "['a'\n 'b']", "[{'text': 'a'}, {'text': 'b'}]", "['a']"])
def test_responses_that_python_has_printed_are_no_response(printed: str) -> None:
    with pytest.raises(InputError, match=r"^responses: found a list as Python prints it; write it as JSON$"):
        recognised([row(responses=printed), row(responses=printed), row(responses="a")])
    assert recognised([row(responses=printed, output="a")]).settings["response_column"] == "output"


def test_what_the_user_has_named_is_not_searched() -> None:
    rows = [row(said=[{"out": "a", "text": "b"}], gold="5")]
    given = {"reference_answer_column": "gold", "responses_column": "said", "text_field": "out"}
    assert recognised(rows, given).settings == {"question_column": "question"} | given
    assert recognised(rows, {"responses_column": "said"}).settings["reference_answer_column"] == "gold"
    assert recognised([row(answer=...)], {"reference_answer_column": "nowhere"}).missing == {}


def test_a_column_that_the_user_has_named_is_taken_for_nothing_else() -> None:
    rows = [{"prompt": QUESTION, "completion": "4", "rollout_texts": TEXTS}]
    found = recognised(rows, {"reference_answer_column": "completion"})
    assert found.missing == {"responses_column": "the list of responses"}
    rows = [{"text": QUESTION, "label": "4", "sampled": TEXTS}]
    assert recognised(rows, {"question_column": "text"}).missing == {"responses_column": "the list of responses"}
    several = {"question_column": "q", "responses_column": ["answer", "solution"]}
    assert list(recognised([{"q": QUESTION, "answer": "a", "solution": "b"}], several).missing) == [
        "reference_answer_column"
    ]
    conversation = [{"messages": [USER, ASSISTANT], "answer": "4"}]
    found = recognised(conversation, {"question_column": "messages"})
    assert found.settings["response_column"] == "messages"


def test_questions_of_another_file_are_joined_by_a_name() -> None:
    given = {"questions": {"path": "q.jsonl", "id_column": "id"}}
    batch = [{"custom_id": "1", "id": "batch-1", "response": {"body": {"choices": [{"message": ASSISTANT}]}}}]
    assert recognised(batch, given).settings == given | {
        "id_column": "custom_id", "responses_column": "response.body.choices", "text_field": "message.content",
    }  # fmt: skip
    assert recognised([{"name": "a", "responses": TEXTS}], given).missing == {
        "id_column": "the question's name in the file of questions"
    }
    assert list(recognised(batch, {"questions": {"path": "q.jsonl"}}).missing) == ["questions.id_column"]


def test_responses_that_the_user_names_are_a_list_or_one_a_row() -> None:
    rows = [{"said": "a", "all": ["a", "b"]}, {"said": None, "all": None}]
    assert with_responses(rows, "said") == {"response_column": "said"}
    assert with_responses(rows, "all") == {"responses_column": "all"}


def logged(question: int, name: str) -> dict[str, Any]:
    return {"doc": {"question": f"{question}?"}, "doc_id": question, "target": "4", "resps": [TEXTS], "filter": name}


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ([logged(1, "strict"), logged(2, "strict"), logged(1, "flexible"), logged(2, "flexible")], "strict"),
        ([logged(1, "strict"), logged(1, "flexible"), logged(2, "flexible")], "flexible"),
        ([logged(1, "strict"), logged(2, "strict"), logged(1, "flexible")], "strict"),
        ([logged(1, "strict"), logged(1, "flexible"), logged(3, "none"), logged(4, "none")], ["strict", "none"]),
    ],
)
def test_each_question_of_several_tasks_is_read_with_one_filter(rows: list[dict[str, Any]], chosen: Any) -> None:
    found = recognised(rows)
    assert found.settings["where"] == {"filter": chosen}
    (taken,) = [one for one in found.taken if one.setting == "where"]
    assert taken.what == "what rows must have; others repeat them"
    (taken,) = [one for one in recognised([logged(1, "none")]).taken if one.setting == "where"]
    assert taken.what == "what rows must have"


def test_filters_that_would_read_a_question_twice_are_asked_for() -> None:
    rows = [logged(1, "strict"), logged(1, "flexible"), logged(2, "flexible"), logged(3, "none")]
    assert recognised(rows).missing == {
        "where.filter": "the filter whose rows are read, because no question may have two: "
        "strict in 1 rows, flexible in 2 rows, none in 1 rows"
    }
    assert not recognised(rows, {"where": {"filter": "none"}}).missing


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_are_told_apart_by_their_columns(tool: str) -> None:
    """The most telling come first: none stands behind one whose columns it has too."""
    names = list(TOOLS)
    earlier = [one for one in names[: names.index(tool)] if set(TOOLS[one]) <= set(TOOLS[tool])]
    assert earlier == []
