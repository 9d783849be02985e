"""From one question's responses to an example or the reason why there is none."""

import dataclasses
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray import selection, weighting
from east_ray.answers.graders import MathGrader
from east_ray.answers.grading import clustered
from east_ray.config import InputError
from east_ray.records import CHOSEN, GradedQuestion, Question, Reason
from east_ray.selection import SelectionRules

RULES = SelectionRules(needs_rejected=False)


def boxed(*answers: object, finish_reason: str = "stop") -> list[dict[str, Any]]:
    return [
        {"text": "no idea" if a is None else f"So \\boxed{{{a}}}", "num_tokens": 3, "finish_reason": finish_reason}
        for a in answers
    ]


def sample(responses: list[dict[str, Any]], reference: str | None = "72", question_id: str = "q") -> dict[str, Any]:
    return {"question_id": question_id, "question": "?", "reference_answer": reference, "responses": responses}


def judge(
    row: dict[str, Any], rules: SelectionRules, signal: Any = weighting.entropy_signal, **grader: Any
) -> dict[str, Any]:
    responses = row["responses"]
    texts = [response["text"] for response in responses]
    graded = clustered(texts, Question.of(row), MathGrader(**grader))
    reasons = [response["finish_reason"] for response in responses]
    chosen = [{name: response.get(name) for name in CHOSEN.names} for response in responses]
    return selection.judge(row, graded, reasons, chosen.__getitem__, rules, signal)


def test_rates_entropy_and_clusters_by_hand() -> None:
    # Clusters 72 (4: two of them written otherwise), 71 (2), 5 (1), none (1) of 8.
    row = judge(sample(boxed(71, 72, "72.0", None, 72, 71, "\\frac{144}{2}", 5)), RULES)
    assert row["reason"] is None
    assert (row["pass_rate"], row["rejected_rate"], row["num_responses"]) == (4 / 8, 2 / 8, 8)
    # - (1/2 ln 1/2 + 1/4 ln 1/4 + 2 * 1/8 ln 1/8) = 1.75 ln 2
    assert row["entropy"] == pytest.approx(1.75 * math.log(2), abs=1e-15)
    assert row["signal"] == row["entropy"]
    assert row["clusters"] == [
        {"answer": "72", "num_responses": 4, "is_correct": True},
        {"answer": "71", "num_responses": 2, "is_correct": False},
        {"answer": None, "num_responses": 1, "is_correct": False},
        {"answer": "5", "num_responses": 1, "is_correct": False},
    ]
    assert row["chosen"] in {"So \\boxed{72}", "So \\boxed{72.0}", "So \\boxed{\\frac{144}{2}}"}
    assert row["rejected"] == "So \\boxed{71}"


@pytest.mark.parametrize(
    ("responses", "reference", "changes", "reason"),
    [
        (boxed(1, 2, None), "72", {}, Reason.ALL_WRONG),
        (boxed(None, None), "72", {}, Reason.ALL_WRONG),
        (boxed(72, 1), None, {}, Reason.UNPARSABLE_REFERENCE),
        (boxed(72, 1), " ", {}, Reason.UNPARSABLE_REFERENCE),
        ([{"text": "The answer is 72.", "num_tokens": 4, "finish_reason": "stop"}], "72", {}, Reason.NO_BOXED_CORRECT),
        (boxed(72, 72), "72", {}, None),
        (boxed(72, 72), "72", {"all_correct": "drop"}, Reason.ALL_CORRECT),
        (boxed(72, 71), "72", {"all_correct": "drop"}, None),
        (boxed(72, 72), "72", {"needs_rejected": True}, Reason.NO_WRONG_ANSWER),
        # No answer is no wrong answer: there would be nothing to reject but a cut or empty text.
        (boxed(72, None), "72", {"needs_rejected": True}, Reason.NO_WRONG_ANSWER),
        (boxed(72, 71), "72", {"needs_rejected": True}, None),
        (boxed(72, "\\frac{144}{2}"), "72", {"equivalence": "string", "needs_rejected": True}, None),
    ],
)  # fmt: skip
def test_reasons(
    responses: list[dict[str, Any]], reference: str | None, changes: dict[str, Any], reason: Reason | None
) -> None:
    grader = {name: changes.pop(name) for name in ("equivalence",) if name in changes}
    assert judge(sample(responses, reference), dataclasses.replace(RULES, **changes), **grader)["reason"] == reason


def test_a_box_is_required_or_only_preferred() -> None:
    stated = [{"text": f"The answer is {a}.", "num_tokens": 4, "finish_reason": "stop"} for a in (72, 72, 1)]
    rules = dataclasses.replace(RULES, require_boxed=False)
    assert judge(sample(stated), RULES)["reason"] == Reason.NO_BOXED_CORRECT
    assert judge(sample(stated), rules)["chosen"] == "The answer is 72."
    assert judge(sample([*stated, *boxed(72)]), rules)["chosen"] == "So \\boxed{72}"


def test_more_correct_responses_may_be_trained_on() -> None:
    responses = [{"text": f"{i} \\boxed{{72}}", "num_tokens": 3, "finish_reason": "stop"} for i in range(5)]
    alone = judge(sample([*responses, *boxed(71)]), RULES)
    rules = dataclasses.replace(RULES, responses_per_question_trained=3)
    three = judge(sample([*responses, *boxed(71)]), rules)
    assert alone["more_chosen"] is None
    assert (three["chosen"], three["rejected"]) == (alone["chosen"], alone["rejected"])
    texts = {three["chosen"], *(more["text"] for more in three["more_chosen"])}
    assert len(texts) == 3 and texts <= {response["text"] for response in responses}
    assert len(judge(sample([*responses[:2], *boxed(71)]), rules)["more_chosen"]) == 1


def test_responses_without_an_answer_can_be_left_out_of_the_entropy() -> None:
    responses = boxed(72, 72, 71, 71, None, None, None, None)
    with_cluster = judge(sample(responses), RULES)
    without = judge(sample(responses), dataclasses.replace(RULES, no_answer="exclude"))
    assert with_cluster["entropy"] == pytest.approx(1.5 * math.log(2))
    assert without["entropy"] == pytest.approx(math.log(2))
    assert without["pass_rate"] == with_cluster["pass_rate"] == 0.25
    assert without["clusters"] == with_cluster["clusters"]


def test_a_response_that_ended_by_itself_is_chosen_before_one_that_was_cut() -> None:
    responses = [*boxed(*[72] * 9, finish_reason="length"), *boxed(72)]
    row = judge(sample(responses), RULES)
    assert (row["chosen_finish_reason"], row["num_truncated"]) == ("stop", 9)
    only_cut = judge(sample(boxed(72, 1, finish_reason="length")), RULES)
    assert (only_cut["reason"], only_cut["chosen_finish_reason"]) == (None, "length")


def test_the_choice_is_fixed_by_seed_and_question_and_spreads_over_the_candidates() -> None:
    responses = [{"text": f"{i} \\boxed{{72}}", "num_tokens": 3, "finish_reason": "stop"} for i in range(8)]
    chosen = [judge(sample(responses, question_id=f"q{i}"), RULES)["chosen"] for i in range(200)]
    assert chosen == [judge(sample(responses, question_id=f"q{i}"), RULES)["chosen"] for i in range(200)]
    assert len(set(chosen)) == 8
    other = dataclasses.replace(RULES, seed=1)
    assert chosen != [judge(sample(responses, question_id=f"q{i}"), other)["chosen"] for i in range(200)]


@pytest.mark.parametrize(
    ("signal", "value"),
    [
        (weighting.accuracy_signal, 0.75),
        (weighting.rejection_signal, 0.5),
        (weighting.uniform_signal, 1.0),
        (lambda question: len(question.clusters), 3.0),
    ],
)
def test_other_signals(signal: Any, value: float) -> None:
    assert judge(sample(boxed(72, 71, 71, 5)), RULES, signal)["signal"] == value


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (lambda question: -1, "gave -1.0 for question q; expected a finite number of at least 0"),
        (lambda question: math.nan, "gave nan"),
        (lambda question: "much", "raised ValueError"),
        (lambda question: question.margin, "raised AttributeError: 'GradedQuestion' object has no attribute 'margin'"),
    ],
)
def test_a_signal_that_is_no_number_is_refused_with_the_question(signal: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        judge(sample(boxed(72, 71)), RULES, signal)


def test_only_the_first_responses_count_if_the_settings_say_so() -> None:
    responses = boxed(71, 72, 72, 5, 72, 72)
    three = judge(sample(responses), dataclasses.replace(RULES, num_responses=3))
    assert three == judge(sample(responses[:3]), RULES)
    assert (three["num_responses"], three["pass_rate"]) == (3, 2 / 3)
    assert judge(sample(responses), dataclasses.replace(RULES, num_responses=100)) == judge(sample(responses), RULES)


def test_a_signal_sees_the_question_as_graded() -> None:
    seen: list[GradedQuestion] = []
    judge(sample(boxed(72, 72, 71, None)), RULES, lambda question: seen.append(question) or 1)
    (question,) = seen
    assert (question.question_id, question.num_responses) == ("q", 4)
    assert (question.pass_rate, question.rejected_rate) == (0.5, 0.25)
    assert [one.answer for one in question.clusters] == ["72", "71", None]


answers = st.lists(st.sampled_from(["72", "72.0", "71", "1/2", "0.5", None]), min_size=1, max_size=30)


@given(answers, st.permutations(range(30)))
def test_the_order_of_responses_changes_nothing_but_the_choice(
    given_answers: list[str | None], order: list[int]
) -> None:
    shuffled = [given_answers[i] for i in order if i < len(given_answers)]
    one, two = (judge(sample(boxed(*answers_)), RULES) for answers_ in (given_answers, shuffled))
    for name in ("entropy", "pass_rate", "rejected_rate", "reason", "num_responses"):
        assert one[name] == two[name]
    assert sum(cluster["num_responses"] for cluster in one["clusters"]) == len(given_answers)
    sizes = [cluster["num_responses"] for cluster in one["clusters"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(cluster["is_correct"] for cluster in one["clusters"]) <= 1
