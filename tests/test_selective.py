"""Whether entropy tells wrong majority answers from right ones: risk-coverage curve, AUROC and their intervals."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_records import checked

from east_ray.answers.graders import MathGrader
from east_ray.evaluation.abstention import COVERAGES, majority_answers, selective_prediction
from east_ray.evaluation.metrics import judge_responses
from east_ray.records import SAMPLED_ANSWERS, Question, StudyPage
from east_ray.report.studies.shares import selective_page
from east_ray.serving.solving import ServedResponse, Solving

QUESTIONS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.3, 0.3 + 1e-16, 0.7, 1.1]), st.booleans()), min_size=1, max_size=7
)


def arrays(questions: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([entropy for entropy, _ in questions]), np.array([wrong for _, wrong in questions])


def answered(*texts: str, reference: str = "1", model: str = "base", name: str = "q") -> dict[str, object]:
    responses = [{"text": text, "finish_reason": "stop"} for text in texts]
    sample = {"model": model, "question_id": name, "question": "?", "level": None, "subject": None}
    return judge_responses(sample | {"reference_answer": reference, "responses": responses}, MathGrader())


def test_by_hand() -> None:
    # By rising entropy: right | right, wrong | wrong. Of the surest half one is sure, and the other is wrong with 1/2.
    found = selective_prediction(
        *arrays([(0.0, False), (0.5, False), (0.5, True), (1.0, True)]), coverages=[0.25, 0.5, 1]
    )
    assert found.risks == pytest.approx((0, 0.25, 0.5))
    assert found.auroc == (1 + 1 + 1 + 0.5) / 4  # pairs of a right and a wrong one: all in order but one, which is even
    assert (found.num_questions, found.num_wrong) == (4, 2)


@given(QUESTIONS)
def test_risks_are_means_over_all_orders_of_equal_entropies(questions: list[tuple[float, bool]]) -> None:
    orders = [
        order
        for order in itertools.permutations(questions)
        if all(round(a[0], 12) <= round(b[0], 12) for a, b in itertools.pairwise(order))
    ]
    size = len(questions)
    coverages = [m / size for m in range(1, size + 1)]
    expected = [np.mean([[wrong for _, wrong in order[:m]] for order in orders]) for m in range(1, size + 1)]
    found = selective_prediction(*arrays(questions), coverages=coverages, num_resamples=10)
    assert found.risks == pytest.approx(expected)


@given(QUESTIONS)
def test_auroc_is_the_share_of_pairs_in_order(questions: list[tuple[float, bool]]) -> None:
    right = [round(entropy, 12) for entropy, wrong in questions if not wrong]
    wrong = [round(entropy, 12) for entropy, wrong in questions if wrong]
    found = selective_prediction(*arrays(questions), num_resamples=50)
    if not (right and wrong):
        assert found.auroc is found.auroc_low is found.auroc_high is None
        return
    pairs = [float(b > a) + (a == b) / 2 for a in right for b in wrong]
    assert found.auroc == pytest.approx(np.mean(pairs))
    mirrored = selective_prediction(
        *arrays([(-entropy, is_wrong) for entropy, is_wrong in questions]), num_resamples=50
    )
    assert mirrored.auroc == pytest.approx(1 - np.mean(pairs))


def test_intervals_cover_as_they_say() -> None:
    # Entropies of wrong answers are those of right ones and one more, of five values: AUROC by summing over pairs.
    right, wrong = np.array([0.4, 0.3, 0.2, 0.1, 0]), np.array([0, 0.1, 0.2, 0.3, 0.4])
    truth = sum(right[a] * wrong[b] * ((b > a) + (a == b) / 2) for a in range(5) for b in range(5))
    rng, hits = np.random.default_rng(3), 0
    for trial in range(200):
        is_wrong = rng.random(200) < 0.3
        entropies = np.where(is_wrong, rng.choice(5, 200, p=wrong), rng.choice(5, 200, p=right)).astype(float)
        found = selective_prediction(entropies, is_wrong, seed=trial, num_resamples=300)
        assert found.auroc_low is not None and found.auroc_high is not None
        hits += found.auroc_low <= truth <= found.auroc_high
    assert 0.89 <= hits / 200 <= 0.99


def test_everything_answered_is_the_error_rate_with_its_interval() -> None:
    found = selective_prediction(np.zeros(400), np.arange(400) < 100)
    assert found.coverages == COVERAGES and found.coverages[-1] == 1
    assert found.risks == pytest.approx([0.25] * len(COVERAGES))  # entropy says nothing, so the curve is flat
    assert found.auroc == 0.5
    assert found.risks_low[-1] == pytest.approx(0.25 - 1.96 * np.sqrt(0.25 * 0.75 / 400), abs=0.01)


@pytest.mark.parametrize(
    ("entropies", "is_wrong", "coverages", "said"),
    [([], [], [1], "at least one"), ([0.0], [True, False], [1], "equally long"), ([0.0], [True], [0], "above 0")],
)
def test_what_cannot_be_computed_is_refused(
    entropies: list[float], is_wrong: list[bool], coverages: list[float], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        selective_prediction(np.array(entropies), np.array(is_wrong, dtype=bool), coverages=coverages)


@given(st.lists(st.sampled_from([r"\boxed{1}", r"\boxed{2}", r"\boxed{1.0}", "no idea"]), min_size=1, max_size=8))
def test_the_majority_and_its_entropy_are_those_that_are_served(texts: list[str]) -> None:
    (entropy,), (is_wrong,) = majority_answers(pa.Table.from_pylist([answered(*texts)], schema=SAMPLED_ANSWERS))
    solving = Solving(Question("", "?"), MathGrader())
    solving.add([ServedResponse(text, 1) for text in texts])
    served = solving.solution()
    assert entropy == served.entropy
    assert is_wrong == (served.answer not in ("1", "1.0"))


def test_a_page_for_the_report() -> None:
    rows = [
        answered(*[r"\boxed{1}"] * (4 - wrong), *[rf"\boxed{{{7 + wrong}}}"] * wrong, model=model, name=f"q{wrong}")
        for model in ("trained", "base")
        for wrong in range(5)
    ]
    page = selective_page(pa.Table.from_pylist(rows, schema=SAMPLED_ANSWERS), "cluster", seed=0)
    page = checked(StudyPage, json.dumps(page))
    (table,), (curve,) = page["tables"], page["curves"]
    assert [row[0] for row in table["rows"]] == [series["label"] for series in curve["series"]] == ["base", "trained"]
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert all(len(series[key]) == len(COVERAGES) for series in curve["series"] for key in ("x", "y", "low", "high"))


def test_no_error_among_the_surest_is_no_certainty() -> None:
    """0 of 200: Wilson's upper bound is z^2 / (n + z^2); a bootstrap's would be 0."""
    entropies = np.arange(400.0)
    found = selective_prediction(entropies, entropies >= 300, coverages=(0.5, 1.0))
    assert found.risks == (0.0, 0.25) and found.risks_low[0] == pytest.approx(0, abs=1e-12)
    assert found.risks_high[0] == pytest.approx(1.96**2 / (200 + 1.96**2), rel=1e-3)
