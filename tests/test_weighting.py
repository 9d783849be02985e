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
from east_ray.records import Cluster, GradedQuestion
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


@given(signals, exponents, st.sampled_from(["power", "sigmoid"]))
def test_weights_are_finite_not_negative_and_have_mean_one(values: list[float], exponent: float, mapping: str) -> None:
    assume(mapping == "sigmoid" or exponent >= 0 or min(values) > 0)
    assume(mapping == "sigmoid" or exponent <= 0 or max(values) > 0)
    result = weights(values, exponent, mapping)  # type: ignore[arg-type]
    assert np.all(np.isfinite(result)) and np.all(result >= 0)
    assert result.mean() == pytest.approx(1, abs=1e-9)


@given(signals, positive_exponents, st.sampled_from(["power", "sigmoid"]))
def test_a_larger_signal_never_gets_a_smaller_weight(values: list[float], exponent: float, mapping: str) -> None:
    assume(max(values) > 0)
    by_signal = weights(sorted(values), exponent, mapping)  # type: ignore[arg-type]
    assert np.all(np.diff(by_signal) >= -1e-12)


@given(signals, positive_exponents, st.floats(0.1, 10))
def test_the_base_of_the_logarithm_cancels(values: list[float], exponent: float, factor: float) -> None:
    assume(max(values) > 0)
    scaled = [value * factor for value in values]
    np.testing.assert_allclose(weights(scaled, exponent), weights(values, exponent), rtol=1e-9)


@given(signals, exponents, st.sampled_from(["power", "sigmoid"]), st.randoms(use_true_random=False), st.integers(0, 60))
def test_any_split_and_order_of_the_stream_gives_the_same_weights(
    values: list[float], exponent: float, mapping: str, random: object, cut: int
) -> None:
    assume(mapping == "sigmoid" or exponent >= 0 or min(values) > 0)
    assume(mapping == "sigmoid" or exponent <= 0 or max(values) > 0)
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


def test_the_four_signals() -> None:
    question = GradedQuestion("q", [], 8, entropy=1.25, pass_rate=0.75, rejected_rate=0.125, counted=[6, 2])
    found = {name: load_signal(WeightingConfig(signal=name))(question) for name in SIGNALS}  # type: ignore[arg-type]
    assert found == {"entropy": 1.25, "accuracy": 0.25, "rejection": 0.125, "uniform": 1.0}


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
