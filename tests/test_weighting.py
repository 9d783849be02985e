"""The invariants of entropy and weights, as properties, and the degenerate cases, one by one."""

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from east_ray.answers.grading import measured
from east_ray.config import WeightingConfig
from east_ray.records import Cluster
from east_ray.weighting import (
    SIGNALS,
    UNSEEN,
    corrected_entropy,
    entropy,
    load_signal,
    mapped,
    normalizer,
    smoothed_entropy,
    weights,
)

counts = st.lists(st.integers(0, 128), min_size=1, max_size=40).filter(sum)
# Signals as they occur: zero, or entropies and rates of up to thousands of responses.
signals = st.lists(st.one_of(st.just(0.0), st.floats(1e-4, 10.0)), min_size=1, max_size=60)
exponents = st.floats(-4, 4)
positive_exponents = st.floats(0.05, 4)


@given(counts)
def test_entropy_lies_between_zero_and_log_of_the_number_of_clusters(sizes: list[int]) -> None:
    clusters = sum(size > 0 for size in sizes)
    assert 0 <= entropy(sizes) <= math.log(clusters) + 1e-12
    assert (entropy(sizes) == 0) == (clusters == 1)


@given(counts, st.randoms(use_true_random=False))
def test_entropy_does_not_depend_on_the_order(sizes: list[int], random: object) -> None:
    shuffled = list(sizes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert entropy(shuffled) == entropy(sizes)


@given(counts, st.integers(1, 9))
def test_repeating_every_response_changes_nothing(sizes: list[int], times: int) -> None:
    assert entropy([size * times for size in sizes]) == pytest.approx(entropy(sizes), abs=1e-12)


def test_entropy_of_equal_clusters_is_the_logarithm_of_their_number() -> None:
    assert entropy([4] * 8) == pytest.approx(math.log(8), abs=1e-15)
    # 64 of one answer, 64 of another: ln 2 = 0.693147…
    assert entropy([64, 64]) == pytest.approx(0.6931471805599453, abs=1e-15)
    assert entropy([]) == entropy([0, 0]) == 0.0
    assert math.copysign(1, entropy([128])) == 1  # 0.0, not -0.0
    with pytest.raises(ValueError, match="negative"):
        entropy([3, -1])


@given(signals, exponents, st.sampled_from(["power", "sigmoid", "rank"]))
def test_weights_are_finite_not_negative_and_have_mean_one(values: list[float], exponent: float, mapping: str) -> None:
    assume(mapping != "power" or exponent >= 0 or min(values) > 0)
    assume(mapping != "power" or exponent <= 0 or max(values) > 0)
    result = weights(values, exponent, mapping)  # type: ignore[arg-type]
    assert np.all(np.isfinite(result)) and np.all(result >= 0)
    assert result.mean() == pytest.approx(1, abs=1e-9)


@given(signals, positive_exponents, st.sampled_from(["power", "sigmoid", "rank"]))
def test_a_larger_signal_never_gets_a_smaller_weight(values: list[float], exponent: float, mapping: str) -> None:
    assume(max(values) > 0)
    by_signal = weights(sorted(values), exponent, mapping)  # type: ignore[arg-type]
    assert np.all(np.diff(by_signal) >= -1e-12)


@given(signals, positive_exponents, st.floats(0.1, 10))
def test_the_base_of_the_logarithm_cancels(values: list[float], exponent: float, factor: float) -> None:
    assume(max(values) > 0)
    scaled = [value * factor for value in values]
    np.testing.assert_allclose(weights(scaled, exponent), weights(values, exponent), rtol=1e-9)


@given(
    signals,
    exponents,
    st.sampled_from(["power", "sigmoid", "rank"]),
    st.randoms(use_true_random=False),
    st.integers(0, 60),
)
def test_any_split_and_order_of_the_stream_gives_the_same_weights(
    values: list[float], exponent: float, mapping: str, random: object, cut: int
) -> None:
    assume(mapping != "power" or exponent >= 0 or min(values) > 0)
    assume(mapping != "power" or exponent <= 0 or max(values) > 0)
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    settings = WeightingConfig(exponent=exponent, mapping=mapping)
    of_values, of_shuffled = mapped(values, settings), mapped(shuffled, settings)
    assert normalizer(of_values) == normalizer(of_shuffled)
    by_signal = dict(zip(shuffled, of_shuffled / normalizer(of_shuffled), strict=True))
    np.testing.assert_array_equal([by_signal[value] for value in values], weights(values, exponent, mapping))
    parts = np.split(of_values, [min(cut, len(values))])
    np.testing.assert_array_equal(
        np.concatenate([part / normalizer(of_values) for part in parts]), weights(values, exponent, mapping)
    )


@given(signals)
def test_exponent_zero_is_uniform_even_where_the_signal_is_zero(values: list[float]) -> None:
    np.testing.assert_array_equal(weights(values, 0), np.ones(len(values)))


def test_power_weights_by_hand() -> None:
    # 1, 4, 9 with mean 14 / 3
    np.testing.assert_allclose(weights([1, 2, 3], 2), [3 / 14, 12 / 14, 27 / 14], rtol=1e-15)
    # 1, 1/2, 1/4 with mean 7 / 12
    np.testing.assert_allclose(weights([1, 2, 4], -1), [12 / 7, 6 / 7, 3 / 7], rtol=1e-15)


def test_sigmoid_weights_by_hand() -> None:
    # mean 1, population standard deviation 1: sigmoid(-2) = 0.1192, sigmoid(2) = 0.8808, their mean 0.5
    low, high = weights([0, 2], 2, "sigmoid")
    assert low == pytest.approx(2 / (1 + math.exp(2))) and high == pytest.approx(2 / (1 + math.exp(-2)))
    np.testing.assert_array_equal(weights([0.3, 0.3, 0.3], 5, "sigmoid"), [1, 1, 1])


@pytest.mark.parametrize(
    ("values", "exponent", "message"),
    [
        ([], 1, "no kept question"),
        ([0.0, 0.0], 1.5, "the signal of all 2 kept questions is 0"),
        ([0.0, 1.0, 2.0], -1, "not defined for the 1 of 3 kept questions whose signal is 0"),
        ([1.0, math.nan], 1, "finite"),
        ([1.0, math.inf], 1, "finite"),
        ([1.0, -0.5], 1, "at least 0"),
        ([1e-300, 1.0], -3, "beyond floating point"),
    ],
)
def test_what_has_no_weights_is_a_clear_error(values: list[float], exponent: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weights(values, exponent)


@given(signals, exponents)
def test_ranks_depend_on_the_order_of_the_signals_alone(values: list[float], exponent: float) -> None:
    np.testing.assert_allclose(
        weights([value**3 for value in values], exponent, "rank"), weights(values, exponent, "rank")
    )
    assume(exponent > 0)
    by_signal = weights(sorted(values), exponent, "rank")
    assert np.all(np.diff(by_signal) >= 0) and by_signal[-1] <= len(values)


def test_rank_weights_by_hand() -> None:
    # ranks 1.5, 1.5, 3, 4 of 4, squared: 2.25, 2.25, 9, 16 with mean 7.375
    np.testing.assert_allclose(weights([0, 0, 5, 9], 2, "rank"), np.array([2.25, 2.25, 9, 16]) / 7.375)
    np.testing.assert_array_equal(weights([0, 0, 0], 3, "rank"), [1, 1, 1])
    # A negative exponent has weights for a signal of 0 too: 1/1 and 1/2 with mean 3 / 4
    np.testing.assert_allclose(weights([0, 5], -1, "rank"), [4 / 3, 2 / 3])


def clipped(values: list[float], exponent: float, max_weight: float) -> np.ndarray:
    return mapped(values, WeightingConfig(mapping="clip", exponent=exponent, max_weight=max_weight))


@given(signals, exponents, st.floats(1, 8), st.randoms(use_true_random=False))
def test_clipped_weights(values: list[float], exponent: float, max_weight: float, random: object) -> None:
    assume(min(values) > 0 or (exponent > 0 and max(values) > 0))
    num_positive = np.count_nonzero(values)
    assume(max_weight * num_positive >= len(values))
    result, unbounded = clipped(values, exponent, max_weight), weights(values, exponent)
    assert result.mean() == pytest.approx(1, rel=1e-12)
    assert result.max() <= max_weight and result.min() >= 0
    # Below the bound the weights are those of the power mapping times one factor, of at least 1.
    below = (result < max_weight * (1 - 1e-9)) & (unbounded > 0)
    if below.any():
        factors = result[below] / unbounded[below]
        assert factors.min() >= 1 - 1e-9 and factors.max() == pytest.approx(factors.min(), rel=1e-9)
        assert np.all(unbounded[~below & (unbounded > 0)] * factors.max() >= max_weight * (1 - 1e-6))
    if unbounded.max() <= max_weight:
        np.testing.assert_allclose(result, unbounded, rtol=1e-12)
    order = np.argsort(unbounded)
    assert np.all(np.diff(result[order]) >= 0)
    shuffled = list(range(len(values)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    of_shuffled = clipped([values[place] for place in shuffled], exponent, max_weight)
    np.testing.assert_array_equal(of_shuffled, result[shuffled])


def test_clipped_weights_by_hand() -> None:
    # 1, 2, 3, 14 have the mean 5: 0.2, 0.4, 0.6, 2.8. Bounded by 2, two are left for a sum of 6: 1/3, 2/3, 1, 2.
    np.testing.assert_allclose(clipped([1, 2, 3, 14], 1, 2), [1 / 3, 2 / 3, 1, 2])
    # By 1.5: 14 at the bound leaves 2.5 for 6, of which 3 gets 1.25.
    np.testing.assert_allclose(clipped([1, 2, 3, 14], 1, 1.5), [2.5 / 6, 5 / 6, 7.5 / 6, 1.5])
    # By 1.3: 14 at the bound leaves 2.7 for 6, 1.35 for 3, too much; so 3 is there too, and 1.4 is left for 3.
    np.testing.assert_allclose(clipped([1, 2, 3, 14], 1, 1.3), [1.4 / 3, 2.8 / 3, 1.3, 1.3])
    np.testing.assert_allclose(clipped([1, 2, 3, 14], 1, 1), [1, 1, 1, 1])
    # The two above 0 must carry all of the weight.
    np.testing.assert_allclose(clipped([0, 0, 1, 9], 1, 2), [0, 0, 2, 2])
    with pytest.raises(
        ValueError, match=r"max_weight 2 is too small: 1 of 3 .* set weighting.max_weight to at least 3.00"
    ):
        clipped([0, 0, 1], 1, 2)


@pytest.mark.parametrize("max_weight", [0.99, float("inf")])
def test_a_bound_below_the_mean_is_refused(max_weight: float) -> None:
    with pytest.raises(ValueError, match="max_weight"):
        WeightingConfig(mapping="clip", max_weight=max_weight)


def signals_of(clusters: list[Cluster], no_answer: Any = "cluster") -> dict[str, float]:
    question = measured("q", clusters, no_answer)
    return {name: load_signal(WeightingConfig(signal=name))(question) for name in SIGNALS}


def test_the_signals_by_hand() -> None:
    # Of 16 responses 8 are correct, 4 give one wrong answer, 2 another, 2 none.
    clusters = [Cluster("4", 8, True), Cluster("5", 4, False), Cluster("6", 2, False), Cluster(None, 2, False)]
    assert signals_of(clusters) == {
        "entropy": pytest.approx(1.75 * math.log(2)),  # 1/2 of 1 bit, 1/4 of 2, twice 1/8 of 3
        "accuracy": 0.5,
        "rejection": 0.25,
        "variance": 0.25,
        "margin": 0.25,
        "wrong_entropy": pytest.approx(1.5 * math.log(2)),  # 1/2, 1/4, 1/4
        "disagreement": 0.5,
        "uniform": 1.0,
    }
    excluded = signals_of(clusters, "exclude")
    assert excluded["margin"] == pytest.approx(4 / 14) and excluded["disagreement"] == pytest.approx(6 / 14)
    assert excluded["wrong_entropy"] == entropy([4, 2])
    assert excluded["variance"] == 0.25  # rates are of all responses


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(0, 11), st.booleans())
def test_what_the_signals_say_of_a_question(sizes: list[int], place: int, has_none: bool) -> None:
    sizes = sorted(sizes, reverse=True)
    clusters = [
        Cluster(
            None if has_none and number == (place + 1) % len(sizes) != place else str(number), size, number == place
        )
        for number, size in enumerate(sizes)
    ]
    found = signals_of(clusters)
    assert found["margin"] + found["disagreement"] == pytest.approx(1 - (sizes[1] if sizes[1:] else 0) / sum(sizes))
    assert found["wrong_entropy"] == entropy([size for number, size in enumerate(sizes) if number != place])
    assert 0 <= found["variance"] <= 0.25
    assert (len(sizes) == 1) == (found["margin"] == 1) == (found["disagreement"] == 0)


@pytest.mark.parametrize(("no_answer", "sizes"), [("cluster", [5, 2, 1]), ("exclude", [5, 1])])
def test_the_estimator_decides_about_the_signal_entropy_alone(no_answer: Any, sizes: list[int]) -> None:
    clusters = [Cluster("4", 5, True), Cluster(None, 2, False), Cluster("7", 1, False)]
    question = measured("q", clusters, no_answer)
    found = {
        estimator: load_signal(WeightingConfig(entropy_estimator=estimator))(question)  # type: ignore[arg-type]
        for estimator in ("plug_in", "chao_wang_jost", "smoothed")
    }
    assert found == {
        "plug_in": entropy(sizes),
        "chao_wang_jost": corrected_entropy(sizes),
        "smoothed": smoothed_entropy(sizes),
    }
    assert question.entropy == entropy(sizes)
    other = WeightingConfig(signal="accuracy", entropy_estimator="smoothed")
    assert load_signal(other)(question) == 1 - 5 / 8


def test_the_smoothed_entropy_by_hand() -> None:
    p, q = 8 / (8 + UNSEEN), UNSEEN / (8 + UNSEEN)
    assert smoothed_entropy([8]) == pytest.approx(-p * math.log(p) - q * math.log(q))


@given(st.lists(st.integers(0, 60), min_size=1, max_size=20).filter(any), st.randoms())
def test_the_smoothed_entropy_adds_less_the_more_responses_there_are(counts: list[int], rng: random.Random) -> None:
    added = smoothed_entropy(counts) - entropy(counts)
    assert smoothed_entropy(rng.sample(counts, len(counts))) == smoothed_entropy(counts)
    more = [100 * count for count in counts]
    assert 0 < smoothed_entropy(more) - entropy(more) < added


def test_the_normalizer_is_the_mean_of_the_mapped_signals() -> None:
    values = mapped([1.0, 3.0], WeightingConfig(exponent=2.0))
    assert values[1] / values[0] == pytest.approx(9)
    assert normalizer(values) == pytest.approx((values[0] + values[1]) / 2)


@given(st.integers(1, 200), st.data())
def test_the_variance_is_the_same_to_the_last_digit_for_as_many_right_as_wrong_responses(num: int, data: Any) -> None:
    def variance(num_correct: int, times: int = 1) -> float:
        sizes = {True: num_correct * times, False: (num - num_correct) * times}
        return signals_of([Cluster("4" if right else "5", size, right) for right, size in sizes.items()])["variance"]

    num_correct = data.draw(st.integers(0, num))
    assert variance(num_correct) == variance(num - num_correct) == variance(num_correct, times=3)


def test_equal_variances_share_their_rank() -> None:
    found = [
        signals_of([Cluster("4", right, True), Cluster("5", 10 - right, False)])["variance"]
        for right in (1, 9, 2, 8, 3, 7, 5)
    ]
    expected = [1.5 / 4, 1.5 / 4, 3.5 / 4, 3.5 / 4, 5.5 / 4, 5.5 / 4, 7 / 4]
    assert weights(found, 1, mapping="rank").tolist() == pytest.approx(expected)
