"""Accuracy, its intervals, and what may be said of two models on the same questions."""

import numpy as np
import pyarrow as pa
import pytest

from east_ray.evaluation import accuracy, judge_response, metrics, paired_difference, wilson_interval
from east_ray.records import ANSWERS


def test_wilson_interval_by_hand() -> None:
    # Wilson (1927) for 8 of 10 at 95 %: centre (0.8 + z^2/20) / (1 + z^2/10), z = 1.959964
    assert wilson_interval(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    low, high = wilson_interval(10, 10)
    assert 0.7 < low < 0.75 and high == pytest.approx(1)


def test_wilson_interval_covers_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth, size = 0.83, 400
    hits = [
        low <= truth <= high for low, high in (wilson_interval(int(k), size) for k in rng.binomial(size, truth, 2000))
    ]
    assert 0.93 <= np.mean(hits) <= 0.97


def test_paired_interval_covers_as_it_says() -> None:
    rng = np.random.default_rng(1)
    # Probabilities that only the first, only the second, both, or neither model is right.
    shares, size = np.array([0.09, 0.05, 0.7, 0.16]), 500
    hits = []
    for trial in range(600):
        kind = rng.choice(4, size=size, p=shares)
        result = paired_difference(np.isin(kind, [0, 2]), np.isin(kind, [1, 2]), seed=trial, num_resamples=2000)
        hits.append(result.low <= 0.04 <= result.high)
    assert 0.93 <= np.mean(hits) <= 0.97


def test_paired_difference_by_hand() -> None:
    first = np.array([True] * 9 + [False] * 1 + [True] * 90)
    second = np.array([False] * 9 + [True] * 1 + [True] * 90)
    result = paired_difference(first, second)
    assert (result.num_only_first, result.num_only_second) == (9, 1)
    assert result.difference == pytest.approx(0.08)
    # Exact binomial, two-sided: 2 * (1 + 10) / 2**10
    assert result.p_value == pytest.approx(22 / 1024)
    assert 0 < result.low < 0.08 < result.high
    same = paired_difference(first, first)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="equally long"):
        paired_difference(first, second[:5])
    with pytest.raises(ValueError, match="at least one"):
        accuracy(np.array([], dtype=bool), 0, 0)


def test_a_response_is_judged_by_equivalence() -> None:
    row = {
        "model": "base",
        "question_id": "q",
        "reference_answer": "0.5",
        "responses": [{"text": "So \\boxed{\\frac12}.", "finish_reason": "stop", "num_tokens": 3, "logprob": -1.0}],
    }
    assert judge_response(row, "math", False)["is_correct"]
    assert not judge_response(row, "string", False)["is_correct"]
    none = row | {"responses": [{"text": "dunno", "finish_reason": "length"}]}
    judged = judge_response(none, "math", False)
    assert (judged["answer"], judged["is_correct"]) == (None, False)


def test_metrics_of_models_on_the_same_questions() -> None:
    rows = [
        {"model": model, "question_id": str(i), "reference_answer": "1", "response": "r", "finish_reason": reason,
         "answer": answer, "is_correct": answer == "1"}
        for model, answers in {"base": ["1", "2", None, "2"], "trained": ["1", "1", "1", None]}.items()
        for i, (answer, reason) in enumerate(zip(answers, ["stop", "stop", "length", "stop"], strict=True))
    ]  # fmt: skip
    result = metrics(pa.Table.from_pylist(rows, schema=ANSWERS), ["base", "trained"], seed=0)
    assert result["accuracy"]["base"]["accuracy"] == 0.25
    assert result["accuracy"]["trained"]["accuracy"] == 0.75
    assert result["accuracy"]["base"]["num_unanswered"] == result["accuracy"]["base"]["num_truncated"] == 1
    (difference,) = result["differences"]
    assert (difference["first"], difference["second"], difference["difference"]) == ("trained", "base", 0.5)
