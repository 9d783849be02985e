"""Accuracy, pass@k and maj@k, their intervals, and what may be said of two models on the same questions."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_records import checked

from east_ray.answers.graders import MathGrader
from east_ray.evaluation.estimators import (
    accuracy,
    bootstrap_means,
    effective_examples,
    maj_at_k,
    mean_interval,
    paired_difference,
    pass_at_k,
    percentile_interval,
    top_share,
    weight_spread,
    wilson_interval,
)
from east_ray.evaluation.metrics import judge_response, judge_responses, metrics, model_differences
from east_ray.records import GREEDY_ANSWERS, SAMPLED_ANSWERS, EvaluationMetrics

SAMPLE = {"model": "base", "question_id": "q", "question": "?", "reference_answer": "0.5", "level": "Level 5",
          "subject": None}  # fmt: skip


def test_wilson_interval_by_hand() -> None:
    # Wilson (1927) for 8 of 10 at 95 %: centre (0.8 + z^2/20) / (1 + z^2/10), z = 1.959964
    assert wilson_interval(8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    low, high = wilson_interval(10, 10)
    assert 0.7 < low < 0.75 and high == pytest.approx(1)


@pytest.mark.parametrize(("truth", "size"), [(0.83, 400), (0.46, 1319), (0.285, 500), (0.96, 500), (0.1, 100)])
def test_wilson_interval_covers_as_it_says(truth: float, size: int) -> None:
    from scipy.stats import binom

    # Exactly: the probability of all outcomes whose interval holds the truth.
    chances = binom.pmf(np.arange(size + 1), size, truth)
    likely = np.flatnonzero(chances > 1e-9)
    intervals = [wilson_interval(int(num_correct), size) for num_correct in likely]
    covered = sum(chances[k] for k, (low, high) in zip(likely, intervals, strict=True) if low <= truth <= high)
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(
    ("shares", "size"),  # probabilities that only the first, only the second, both, or neither model is right
    [([0.09, 0.05, 0.7, 0.16], 500), ([0.04, 0.03, 0.4, 0.53], 1319)],
)
def test_paired_interval_covers_as_it_says(shares: list[float], size: int) -> None:
    rng = np.random.default_rng(1)
    hits = []
    for trial in range(1000):
        kind = rng.choice(4, size=size, p=shares)
        result = paired_difference(np.isin(kind, [0, 2]), np.isin(kind, [1, 2]), seed=trial, num_resamples=2000)
        hits.append(result["low"] <= shares[0] - shares[1] <= result["high"])
    assert 0.93 <= np.mean(hits) <= 0.97


def test_paired_difference_by_hand() -> None:
    first = np.array([True] * 9 + [False] * 1 + [True] * 90)
    second = np.array([False] * 9 + [True] * 1 + [True] * 90)
    result = paired_difference(first, second)
    assert (result["num_only_first"], result["num_only_second"]) == (9, 1)
    assert result["difference"] == pytest.approx(0.08)
    # Exact binomial, two-sided: 2 * (1 + 10) / 2**10
    assert result["p_value"] == pytest.approx(22 / 1024)
    assert 0 < result["low"] < 0.08 < result["high"]
    same = paired_difference(first, first.copy())
    assert (same["difference"], same["low"], same["high"], same["p_value"]) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="equally long"):
        paired_difference(first, second[:5])
    with pytest.raises(ValueError, match="at least one"):
        accuracy(np.array([], dtype=bool), 0, 0)


@pytest.mark.parametrize(
    ("weights", "expected"),
    # Kish (1965): (sum w)^2 / sum w^2, e.g. (3 + 1)^2 / (9 + 1) = 1.6
    [([1.0] * 4, 4), ([2.0, 2.0, 0.0, 0.0], 2), ([3.0, 1.0, 0.0, 0.0], 1.6), ([0.1] * 7, 7)],
)
def test_unequal_weights_leave_fewer_effective_examples(weights: list[float], expected: float) -> None:
    assert effective_examples(np.array(weights)) == pytest.approx(expected)


def test_the_share_of_the_weight_on_the_heaviest_percentile_by_hand() -> None:
    weights = np.array([5.0] * 3 + [1.0] * 285 + [0.0] * 12)  # 300 examples, three of which have 15 of 300
    assert top_share(weights) == pytest.approx(0.05)
    assert top_share(weights[::-1], 0.02) == pytest.approx((15 + 3) / 300)
    # One percent of 50 examples is half of one.
    assert top_share(np.array([9.0] + [1.0] * 49)) == pytest.approx(4.5 / 58)
    assert weight_spread(weights) == {"num_examples": 300, "effective_examples": 250.0, "top_share": top_share(weights)}


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=300), st.integers(2, 5))
def test_the_share_on_the_heaviest_percentile_depends_on_the_distribution_alone(weights: list[float], k: int) -> None:
    values = np.array(weights)
    assert 0.01 - 1e-12 <= top_share(values) <= 1
    assert top_share(np.repeat(values, k)) == pytest.approx(top_share(values))
    assert top_share(values * k) == pytest.approx(top_share(values))
    assert top_share(np.full(len(values), 0.3)) == pytest.approx(0.01)


# --------------------------------------------------------------------------------------------------- pass@k and maj@k


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_with_a_correct_response(case: tuple[int, int, int]) -> None:
    num_responses, num_correct, k = case
    draws = itertools.combinations([True] * num_correct + [False] * (num_responses - num_correct), k)
    expected = np.mean([any(draw) for draw in draws])
    assert pass_at_k(np.array([num_responses]), np.array([num_correct]), k) == pytest.approx([expected], abs=1e-15)


def test_pass_at_k_is_stable_and_bounded() -> None:
    num_correct = np.arange(1025)
    for k in (1, 32, 1024):
        values = pass_at_k(np.full(1025, 1024), num_correct, k)
        assert values[0] == 0 and values[-1] == 1 and np.all(np.diff(values) >= 0)
    for k in (0, 1025):
        with pytest.raises(ValueError, match=f"pass@{k}"):
            pass_at_k(np.array([1024]), np.array([3]), k)


def vote_by_hand(sizes: list[int], correct: int | None, k: int, num_answerless: int) -> float:
    """The mean credit over every draw of k responses."""
    responses = [cluster for cluster, size in enumerate(sizes) for _ in range(size)] + [None] * num_answerless
    credits = []
    for drawn in itertools.combinations(responses, k):
        votes = Counter(cluster for cluster in drawn if cluster is not None)
        first = [cluster for cluster, num in votes.items() if num == max(votes.values())]
        credits.append(1 / len(first) if correct is not None and correct in first else 0.0)
    return float(np.mean(credits))


clusters = st.lists(st.integers(1, 5), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) <= 9)


@given(clusters, st.integers(0, 3), st.booleans())
def test_maj_at_k_is_the_mean_over_all_draws(sizes: list[int], num_answerless: int, any_correct: bool) -> None:
    correct = len(sizes) // 2 if any_correct else None
    k = range(1, sum(sizes) + num_answerless + 1)
    expected = [vote_by_hand(sizes, correct, drawn, num_answerless) for drawn in k]
    assert maj_at_k(sizes, correct, k, num_answerless) == pytest.approx(expected, abs=1e-12)


large_clusters = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@settings(max_examples=50)
@given(large_clusters, st.integers(0, 30), st.randoms(use_true_random=False))
def test_maj_at_k_at_its_ends(sizes: list[int], num_answerless: int, random: object) -> None:
    total = sum(sizes) + num_answerless
    first, every = maj_at_k(sizes, 0, [1, total], num_answerless)
    assert first == sizes[0] / total  # the pass rate, to the last digit
    assert every == (1 / sizes.count(sizes[0]) if sizes[0] == max(sizes) else 0)
    shuffled = sizes[1:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    k = sorted({1, min(2, total), total // 2 + 1, total})
    here, there = (
        maj_at_k(sizes, 0, k, num_answerless),
        maj_at_k([*shuffled, sizes[0]], len(shuffled), k, num_answerless),
    )
    assert there == pytest.approx(here, abs=1e-12)
    # The chances of the clusters to win add up to one draw, less the draws without any answer.
    silent = [math.comb(num_answerless, drawn) / math.comb(total, drawn) for drawn in k]
    won = sum(maj_at_k(sizes, index, k, num_answerless) for index in range(len(sizes)))
    assert won == pytest.approx([1 - share for share in silent], abs=1e-12)


def test_maj_at_k_is_stable_for_as_many_responses_as_may_vote() -> None:
    # Two clusters and an odd k: the chance that more than half of the drawn are correct, of the hypergeometric law.
    from scipy.stats import hypergeom

    k = [1, 15, 501, 999]
    expected = [hypergeom.sf(drawn // 2, 1000, 520, drawn) for drawn in k]
    assert maj_at_k([480, 520], 1, k) == pytest.approx(expected, rel=1e-9)


def test_what_cannot_vote_is_refused() -> None:
    assert maj_at_k([], None, [1, 4], num_answerless=4).tolist() == [0, 0]
    with pytest.raises(ValueError, match="from 1 to the number of responses, 4"):
        maj_at_k([3], 0, [1, 5], num_answerless=1)
    with pytest.raises(ValueError, match="at most 1000"):
        maj_at_k([1001], 0, [1])


# ------------------------------------------------------------------------------------------- intervals of pass and maj


def test_bootstrap_means_do_not_depend_on_the_parts_and_pair_their_columns() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(3000)
    means = bootstrap_means(np.stack([first, 1 - first], axis=1), num_resamples=2000)  # two parts
    assert means.shape == (2000, 2) and means.sum(axis=1) == pytest.approx(1)
    assert means[:, 0].std() == pytest.approx(first.std() / math.sqrt(3000), rel=0.1)
    assert len(np.unique(means[:, 0])) == 2000  # no part repeats another


def test_intervals_of_pass_and_maj_and_of_their_differences_cover_as_they_say() -> None:
    # 60 kinds of question, each with its chances of the correct, two wrong and no answer; the second model moves a
    # tenth of what it had wrong. Expectations are exact, so what is counted is the interval and nothing else.
    from scipy.stats import multinomial

    rng = np.random.default_rng(0)
    num_responses, num_questions, num_trials = 8, 500, 800
    base = rng.dirichlet([0.9, 0.5, 0.3, 0.1], size=60)
    trained = 0.9 * base + 0.1 * np.eye(4)[0]
    profiles = np.array([p for p in itertools.product(range(9), repeat=4) if sum(p) == num_responses])
    k = [1, 4, 8]
    value_of = np.zeros((9, 9, 9, 6))  # by correct, first and second wrong responses
    for correct, *wrong, num_answerless in profiles.tolist():
        sizes = [size for size in (correct, *wrong) if size]
        majority = maj_at_k(sizes, 0 if correct else None, k, num_answerless)
        passed = [pass_at_k(np.array([num_responses]), np.array([correct]), drawn)[0] for drawn in k]
        value_of[correct, wrong[0], wrong[1]] = [*passed, *majority]
    values_of_profiles = value_of[tuple(profiles[:, :3].T)]

    def truth(chances: np.ndarray) -> np.ndarray:
        return np.mean(
            [multinomial.pmf(profiles, num_responses, kind) @ values_of_profiles for kind in chances], axis=0
        )

    kinds = rng.integers(60, size=(num_questions, num_trials))
    base_values, trained_values = (
        value_of[tuple(np.moveaxis(rng.multinomial(num_responses, chances[kinds])[..., :3], -1, 0))]
        for chances in (base, trained)
    )
    bootstrapped = bootstrap_means((trained_values - base_values).reshape(num_questions, -1), num_resamples=1000)
    for interval, expected in (
        (mean_interval(base_values.reshape(num_questions, -1)), truth(base)),
        (mean_interval(trained_values.reshape(num_questions, -1)), truth(trained)),
        (percentile_interval(bootstrapped), truth(trained) - truth(base)),
    ):
        low, high = interval.reshape(2, num_trials, 6)
        coverage = np.mean((low <= expected) & (expected <= high), axis=0)
        assert np.all(coverage >= 0.93) and np.all(coverage <= 0.97), coverage


@pytest.mark.parametrize(("a", "b", "num_questions"), [(2, 2, 100), (2, 2, 1319), (0.3, 0.5, 100), (9, 0.2, 500)])
def test_the_interval_of_a_mean_covers_for_pass_rates_of_many_shapes(a: float, b: float, num_questions: int) -> None:
    rng, num_responses = np.random.default_rng(0), 16
    rates = rng.beta(a, b, size=(num_questions, 1500))
    low, high = mean_interval(rng.binomial(num_responses, rates) / num_responses)
    assert 0.93 <= np.mean((low <= a / (a + b)) & (a / (a + b) <= high)) <= 0.97


@given(st.integers(0, 50), st.integers(0, 50).filter(bool))
def test_the_interval_of_the_mean_of_zeros_and_ones_is_wilsons(num_wrong: int, num_correct: int) -> None:
    values = np.array([[0.0]] * num_wrong + [[1.0]] * num_correct)
    expected = wilson_interval(num_correct, num_wrong + num_correct)
    assert mean_interval(values)[:, 0] == pytest.approx(expected, abs=1e-9)


# -------------------------------------------------------------------------------------------------- rows and tables


MATH, STRING = MathGrader(), MathGrader("string")


def test_a_response_is_judged_by_equivalence() -> None:
    response = {"text": "So \\boxed{\\frac12}.", "finish_reason": "stop", "num_tokens": 3, "logprob": -1.0}
    row = SAMPLE | {"responses": [response]}
    judged = judge_response(row, MATH, STRING)
    assert (judged["is_correct"], judged["is_correct_by_string"], judged["level"]) == (True, False, "Level 5")
    assert not judge_response(row, STRING, STRING)["is_correct"]
    same = judge_response(SAMPLE | {"responses": [response | {"text": "\\boxed{0.5}"}]}, MATH, STRING)
    assert same["is_correct"] and same["is_correct_by_string"]
    none = judge_response(SAMPLE | {"responses": [{"text": "dunno", "finish_reason": "length"}]}, MATH, STRING)
    assert (none["answer"], none["is_correct"], none["is_correct_by_string"]) == (None, False, False)


def test_clusters_and_counts_of_sampled_responses() -> None:
    texts = ["dunno", r"\boxed{2}", r"\boxed{\frac12}", "", r"\boxed{0.5}", r"\boxed{1/2}"]
    responses = [{"text": text, "finish_reason": "stop" if text else "length"} for text in texts]
    judged = judge_responses(SAMPLE | {"responses": responses}, MATH)
    assert judged["clusters"] == [
        {"answer": r"\frac12", "num_responses": 3, "is_correct": True},
        {"answer": None, "num_responses": 2, "is_correct": False},
        {"answer": "2", "num_responses": 1, "is_correct": False},
    ]
    counts = ("num_responses", "num_correct", "num_answerless", "num_truncated")
    assert [judged[name] for name in counts] == [6, 3, 2, 1]


def answer_rows(**by_model: list[str | None]) -> pa.Table:
    rows = [
        {"model": model, "question_id": str(i), "level": None if i == 3 else f"Level {i % 2}", "subject": None,
         "reference_answer": "1", "response": "r", "finish_reason": "stop" if answer else "length", "answer": answer,
         "is_correct": answer in ("1", "1.0"), "is_correct_by_string": answer == "1"}
        for model, answers in by_model.items()
        for i, answer in enumerate(answers)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=GREEDY_ANSWERS)


def test_metrics_of_models_on_the_same_questions() -> None:
    table = answer_rows(base=["1.0", "2", None, "2"], trained=["1", "1.0", "1", None])
    result = metrics(table, ["base", "trained"], seed=0)
    assert result["accuracy"]["base"]["accuracy"] == 0.25
    assert result["accuracy"]["trained"]["accuracy"] == 0.75
    assert result["accuracy"]["base"]["num_unanswered"] == result["accuracy"]["base"]["num_truncated"] == 1
    assert [result["accuracy"][name]["accuracy_by_string"] for name in ("base", "trained")] == [0, 0.5]
    (difference,) = result["differences"]
    assert (difference["first"], difference["second"], difference["difference"]) == ("trained", "base", 0.5)
    # Questions 0 and 2 are of level 0, question 1 of level 1, question 3 of none; no question has a subject.
    found = [
        (row["model"], row["column"], row["group"], row["num_questions"], row["accuracy"]) for row in result["groups"]
    ]
    assert found == [
        ("base", "level", "Level 0", 2, 0.5),
        ("base", "level", "Level 1", 1, 0.0),
        ("trained", "level", "Level 0", 2, 1.0),
        ("trained", "level", "Level 1", 1, 1.0),
    ]
    assert (result["groups"][0]["low"], result["groups"][0]["high"]) == wilson_interval(1, 2)
    assert checked(EvaluationMetrics, json.dumps(result)) == result and "sampled" not in result
    assert model_differences(table, ["base", "trained"], seed=0) == result["differences"]


def sampled_row(model: str, index: int, texts: list[str]) -> dict[str, object]:
    responses = [{"text": text, "finish_reason": "stop" if text else "length"} for text in texts]
    row = SAMPLE | {"model": model, "question_id": str(index), "reference_answer": "1", "responses": responses}
    return judge_responses(row, MathGrader(last_number=True))


def test_metrics_of_sampled_responses() -> None:
    rows = [
        sampled_row("base", 0, ["1", "2", "2", "2", "", ""]),
        sampled_row("base", 1, ["1", "1", "1", "1", "1", "3"]),
        sampled_row("trained", 0, ["1", "1", "1", "2", "2", ""]),
        sampled_row("trained", 1, ["1"] * 6),
    ]
    sampled = pa.Table.from_pylist(rows, schema=SAMPLED_ANSWERS)
    result = metrics(answer_rows(base=["1", "2"], trained=["1", "1"]), ["base", "trained"], seed=0, sampled=sampled)
    assert checked(EvaluationMetrics, json.dumps(result)) == result
    base, trained = result["sampled"]["base"], result["sampled"]["trained"]
    assert [row["k"] for row in base["pass_at"]] == [row["k"] for row in base["maj_at"]] == [1, 2, 4, 6]
    assert (base["num_responses"], base["truncated_share"], base["answerless_share"]) == (6, 2 / 12, 2 / 12)
    assert base["pass_at"][0]["value"] == base["maj_at"][0]["value"] == pytest.approx((1 / 6 + 5 / 6) / 2)
    assert base["pass_at"][3]["value"] == 1 and base["maj_at"][3]["value"] == 0.5
    assert base["pass_at"][1]["value"] == pytest.approx((1 / 3 + 1) / 2)  # 1 - C(5, 2) / C(6, 2) = 1/3; and 1
    assert (base["maj_at"][3]["low"], base["maj_at"][3]["high"]) == pytest.approx(wilson_interval(1, 2))
    assert trained["maj_at"][3]["value"] == 1
    by_metric = {row["metric"]: row for row in result["sampled_differences"]}
    assert list(by_metric) == [f"{metric}@{k}" for metric in ("pass", "maj") for k in (1, 2, 4, 6)]
    last = by_metric["maj@6"]
    assert (last["first"], last["second"], last["difference"]) == ("trained", "base", 0.5)
    assert (last["low"], last["high"]) == (0, 1)  # one question changed, the other did not
    for row in (*base["pass_at"], *base["maj_at"]):
        assert row["low"] <= row["value"] <= row["high"]
