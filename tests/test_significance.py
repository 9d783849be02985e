"""Arms compared over seeds and questions: intervals that cover, and no winner that chance alone would name."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.evaluation.significance import (
    compare,
    crossed_difference,
    crossed_mean,
    detectable_by_one_pair,
    expected_precision,
    holm,
    measured_spread,
    minimal_detectable_difference,
    power_of,
)


def trainings(
    rng: np.random.Generator, num_arms: int, num_seeds: int, num_questions: int, seed_spread: float
) -> list[np.ndarray]:
    """Equally good arms, as (S, Q) correctness: the log odds are 1 + question + seed + what a training changes."""
    log_odds = 1 + 2 * rng.standard_normal(num_questions)
    changed = rng.standard_normal((num_arms, num_seeds, num_questions))
    log_odds = log_odds + seed_spread * rng.standard_normal((num_arms, num_seeds, 1)) + changed
    return list(rng.random(log_odds.shape) < 1 / (1 + np.exp(-log_odds)))


def expected_accuracy(seed_spread: float) -> float:
    """The mean of the logistic function over a normal distribution, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    log_odds = 1 + np.sqrt(2**2 + 1 + seed_spread**2) * nodes
    return float(weights @ (1 / (1 + np.exp(-log_odds))) / weights.sum())


@pytest.mark.parametrize("seed_spread", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_the_interval_of_an_accuracy_covers_as_it_says(seed_spread: float) -> None:
    rng, truth = np.random.default_rng(0), expected_accuracy(seed_spread)
    results = [crossed_mean(trainings(rng, 1, 5, 500, seed_spread)[0]) for _ in range(1500)]
    coverage = np.mean([result.low <= truth <= result.high for result in results])
    assert 0.93 <= coverage <= 0.97


@pytest.mark.parametrize(
    ("seed_spread", "least", "most"),
    # Where seeds change little, five of them cannot tell that they do: the price is an interval that is too wide.
    [(0.0, 0.95, 1.0), (0.05, 0.95, 1.0), (0.1, 0.93, 0.99), (0.2, 0.93, 0.97), (0.4, 0.93, 0.97)],
)
def test_the_interval_of_a_difference_covers_at_least_as_it_says(seed_spread: float, least: float, most: float) -> None:
    rng = np.random.default_rng(1)
    pairs = [trainings(rng, 2, 5, 500, seed_spread) for _ in range(1500)]
    results = [crossed_mean(first.astype(float) - second) for first, second in pairs]
    assert least <= np.mean([result.low <= 0 <= result.high for result in results]) <= most


@pytest.mark.parametrize("seed_spread", [0.0, 0.1, 0.3])
def test_equal_arms_are_rarely_told_apart(seed_spread: float) -> None:
    rng, num_trials = np.random.default_rng(2), 600
    false = 0
    for _ in range(num_trials):
        arms = dict(zip("abcd", trainings(rng, 4, 5, 300, seed_spread), strict=True))
        false += any(
            result.verdict in ("better", "worse") for result in compare(arms, dict.fromkeys(arms, "a") | {"a": None})
        )
    # Two standard errors of the simulation above 5 %.
    assert false / num_trials <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / num_trials)


def test_a_crossed_mean_by_hand() -> None:
    # Rows 2 and 4, columns 1.5, 2.5 and 5: MS_seeds = 3 (1 + 1) / 1 = 6, MS_questions = 2 (2.25 + 0.25 + 4) / 2 = 6.5,
    # residuals (0.5, 0.5, -1) and their opposites: MS_residual = 3 / 2.
    result = crossed_mean(np.array([[1.0, 2, 3], [2, 3, 7]]))
    assert result.mean == 3
    assert result.standard_error == pytest.approx(np.sqrt((6 + 6.5 - 1.5) / 6))
    assert result.degrees_of_freedom == pytest.approx(11**2 / (6**2 / 1 + 6.5**2 / 2 + 1.5**2 / 2))


def test_one_seed_is_the_t_interval_of_the_questions() -> None:
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(0).standard_normal((1, 50)) + 0.3
    result, expected = crossed_mean(values), ttest_1samp(values[0], 0)
    assert result.p_value == pytest.approx(expected.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_what_does_not_vary_is_certain() -> None:
    nothing, always = crossed_mean(np.zeros((3, 4))), crossed_mean(np.ones((3, 4)))
    assert (nothing.low, nothing.high, nothing.p_value) == (0, 0, 1)
    assert (always.low, always.high, always.p_value) == (1, 1, 0)


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 30), st.floats(0, 1))
def test_invariants_of_a_crossed_mean(seed: int, num_seeds: int, num_questions: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 2, size=(num_seeds, num_questions)).astype(float)
    result = crossed_mean(values)
    # Neither seeds nor questions alone leave more room.
    seeds_alone, questions_alone = values.mean(axis=1), values.mean(axis=0)
    alone = [part.std(ddof=1) / np.sqrt(part.size) for part in (seeds_alone, questions_alone)]
    assert result.standard_error >= max(alone) * (1 - 1e-9)
    # The interval excludes 0 just where p < 0.05; rounding apart.
    if abs(result.p_value - 0.05) > 1e-9:
        assert (result.p_value < 0.05) == (result.low > 0 or result.high < 0)
    moved = crossed_mean(rng.permutation(rng.permutation(values, axis=0), axis=1) + shift)
    assert moved.mean == pytest.approx(result.mean + shift)
    assert moved.standard_error == pytest.approx(result.standard_error, abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert adjusted[int(np.argmin(p_values))] == min(1, len(p_values) * min(p_values))
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1, len(p_values) * p)
    for (p, q), (other_p, other_q) in zip(zip(p_values, adjusted), zip(p_values[1:], adjusted[1:])):  # noqa: B905
        assert q <= other_q if p <= other_p else q >= other_q


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04, and no value below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@pytest.mark.parametrize("degrees_of_freedom", [4, 8, 50, 1000])
def test_the_minimal_detectable_difference_is_detected_in_four_of_five_cases(degrees_of_freedom: int) -> None:
    from scipy.stats import nct, t

    shift = minimal_detectable_difference(2.0, degrees_of_freedom) / 2.0
    power = nct.sf(t.ppf(0.975, degrees_of_freedom), degrees_of_freedom, shift)
    assert power == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("level", [0.05, 0.05 / 8])
@pytest.mark.parametrize("degrees_of_freedom", [1.5, 4, 8, 50, 1000])
def test_the_power_is_that_of_the_noncentral_t_distribution(degrees_of_freedom: float, level: float) -> None:
    from scipy.stats import nct, t

    assert power_of(0, 2.0, degrees_of_freedom, level) == pytest.approx(level, abs=1e-4)
    reach = t.ppf(1 - level / 2, degrees_of_freedom)
    for shift in (0.5, 2, 5):
        expected = nct.sf(reach, degrees_of_freedom, shift) + nct.sf(reach, degrees_of_freedom, -shift)
        for difference in (2 * shift, -2 * shift):
            assert power_of(difference, 2.0, degrees_of_freedom, level) == pytest.approx(expected, abs=1e-4)


def test_the_power_without_any_spread_is_certain() -> None:
    assert (power_of(0.0, 0.0, 10), power_of(0.01, 0.0, 10)) == (0, 1)


@pytest.mark.parametrize("difference", [0.0, 0.01, 0.02])
@pytest.mark.parametrize(
    ("num_seeds", "num_questions", "seed_spread", "repeated"),
    [(5, 1000, 0.005, 0.2), (5, 300, 0.01, 0.5), (3, 1000, 0.005, 0.2), (8, 300, 0.0, 0.2), (1, 500, 0.0, 0.0)],
)
def test_the_power_is_predicted_from_what_the_arms_are_like(
    num_seeds: int, num_questions: int, seed_spread: float, repeated: float, difference: float
) -> None:
    """The crossed model itself, again and again: how often is the difference shown, and how often predicted?"""
    disagreement, rng, num_trials = 0.08, np.random.default_rng(3), 1000
    shown = 0
    for _ in range(num_trials):
        values = difference + seed_spread * rng.standard_normal((num_seeds, 1))
        values = values + np.sqrt(disagreement * repeated) * rng.standard_normal(num_questions)
        residual = rng.standard_normal((num_seeds, num_questions))
        shown += crossed_mean(values + np.sqrt(disagreement * (1 - repeated)) * residual).p_value < 0.05
    precision = expected_precision(
        num_seeds, num_questions, disagreement=disagreement, seed_spread=seed_spread, repeated=repeated
    )
    # Two standard errors of the simulation are up to 3 points; with few seeds the test is a little too careful.
    assert shown / num_trials == pytest.approx(power_of(difference, *precision), abs=0.06)


def test_the_spread_of_a_comparison_predicts_the_precision_of_the_next() -> None:
    rng = np.random.default_rng(4)
    first, second = (arm.astype(float) for arm in trainings(rng, 2, 40, 2000, 0.1))
    spread = measured_spread(first, second)
    assert spread.disagreement == np.mean(first != second)
    assert spread.seed_spread is not None and spread.repeated is not None
    # log odds of 0.1 are about 0.1 * 0.13 in accuracy; of each of two arms
    assert spread.seed_spread == pytest.approx(0.1 * 0.13 * np.sqrt(2), rel=0.35)
    assert 0 <= spread.repeated < 0.1  # what a training changes is drawn anew for each of them
    found = [crossed_mean(one.astype(float) - two) for one, two in (trainings(rng, 2, 5, 500, 0.1) for _ in range(300))]
    error, _ = expected_precision(5, 500, **asdict(spread))
    assert np.sqrt(np.mean([result.standard_error**2 for result in found])) == pytest.approx(error, rel=0.1)
    assert measured_spread(first[:1], second[:1]).seed_spread is None


@given(st.integers(2, 20), st.integers(50, 3000), st.floats(0.001, 0.5), st.floats(0, 0.03), st.floats(0, 1))
def test_more_seeds_and_questions_show_smaller_differences(
    num_seeds: int, num_questions: int, disagreement: float, seed_spread: float, repeated: float
) -> None:
    told = {"disagreement": disagreement, "seed_spread": seed_spread, "repeated": repeated}
    error, df = expected_precision(num_seeds, num_questions, **told)
    assert error**2 == pytest.approx(
        seed_spread**2 / num_seeds
        + disagreement * repeated / num_questions
        + disagreement * (1 - repeated) / (num_seeds * num_questions)
    )
    seed_df, question_df = num_seeds - 1, num_questions - 1
    assert df * (1 + 1e-9) >= 1 / (1 / seed_df + 1 / question_df + 1 / (seed_df * question_df))
    assert expected_precision(num_seeds + 1, num_questions, **told)[0] <= error * (1 + 1e-12)
    assert expected_precision(num_seeds, 2 * num_questions, **told)[0] <= error * (1 + 1e-12)
    half, one = (power_of(difference, error, df) for difference in (0.005, 0.01))
    assert 0.05 - 1e-3 <= half <= one <= 1
    assert power_of(0.01, error, df, 0.05 / 8) <= one


def test_a_difference_that_is_there_is_named() -> None:
    rng = np.random.default_rng(0)
    log_odds = 1 + 2 * rng.standard_normal((1, 1000)) + 0.1 * rng.standard_normal((5, 1))
    gains = {"uniform": 0.0, "entropy": 1.0, "rejection": -1.0, "accuracy": 0.02}
    arms = {arm: rng.random((5, 1000)) < 1 / (1 + np.exp(-log_odds - gain)) for arm, gain in gains.items()}
    results = compare(arms, dict.fromkeys(arms, "uniform") | {"uniform": None})
    assert [(result.arm, result.verdict) for result in results] == [
        ("uniform", None), ("entropy", "better"), ("rejection", "worse"), ("accuracy", "not shown")
    ]  # fmt: skip
    baseline, entropy, _, accuracy = results
    assert baseline.difference is None and baseline.adjusted_p_value is None
    assert entropy.accuracy_per_seed == pytest.approx(arms["entropy"].mean(axis=1))
    assert entropy.difference is not None and accuracy.difference is not None
    assert entropy.difference.mean == pytest.approx(entropy.accuracy.mean - baseline.accuracy.mean)
    # Pairing by seed and question leaves out what both arms share.
    assert entropy.difference.standard_error < entropy.accuracy.standard_error
    assert accuracy.minimal_detectable_difference is not None
    assert accuracy.minimal_detectable_difference > accuracy.difference.high - accuracy.difference.mean
    rows = [asdict(result) for result in results]
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_arms_that_agreed_everywhere_do_not_measure_without_any_error(num_seeds: int) -> None:
    def shown(num_questions: int) -> tuple[float, float]:
        arm = np.ones((num_seeds, num_questions), dtype=bool)
        _, entropy = compare({"uniform": arm, "entropy": arm}, {"uniform": None, "entropy": "uniform"})
        assert entropy.minimal_detectable_difference is not None and entropy.power_of_one_point is not None
        return entropy.minimal_detectable_difference, entropy.power_of_one_point

    (few, little), (many, much) = shown(20), shown(2000)
    assert 1 >= few > 20 * many > 0
    assert 0 < little < 0.5 < much < 1
    assert shown(2)[0] == 1
    if num_seeds == 1:
        assert few == pytest.approx(detectable_by_one_pair(20, 0))


@pytest.mark.parametrize("num_seeds", [1, 3])
@pytest.mark.parametrize("num_questions", [2, 3, 5])
def test_few_questions_show_no_difference_even_if_one_arm_answers_all_and_the_other_none(
    num_questions: int, num_seeds: int
) -> None:
    arm = np.ones((num_seeds, num_questions), dtype=bool)
    for right, other in ((arm, ~arm), (~arm, arm)):
        _, found = compare({"uniform": other, "entropy": right}, {"uniform": None, "entropy": "uniform"})
        assert found.difference is not None and abs(found.difference.mean) == 1
        assert (found.verdict, found.difference.low < 0 < found.difference.high) == ("not shown", True)
        assert 0.05 < found.difference.p_value < 0.5


def test_enough_questions_show_it() -> None:
    arm = np.ones((1, 8), dtype=bool)
    _, found = compare({"uniform": ~arm, "entropy": arm}, {"uniform": None, "entropy": "uniform"})
    assert found.verdict == "better" and found.adjusted_p_value is not None
    assert found.adjusted_p_value > 2 / 2**8  # the sign test, which is exact


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 30))
def test_the_error_of_a_difference_is_at_least_what_the_difference_implies(
    seed: int, num_seeds: int, num_questions: int
) -> None:
    rng = np.random.default_rng(seed)
    arm, baseline = rng.random((2, num_seeds, num_questions)) < np.array([0.9, 0.2])[:, None, None]
    found, plain = (
        crossed_difference(arm.astype(float), baseline.astype(float)), crossed_mean(arm.astype(float) - baseline)
    )  # fmt: skip
    least = np.sqrt(abs(found.mean) / arm.size)
    assert found.standard_error >= max(least, plain.standard_error)
    if plain.standard_error >= least:
        assert found == plain
    assert (found.mean, found.degrees_of_freedom) == (plain.mean, plain.degrees_of_freedom)


def test_what_cannot_be_compared_is_refused() -> None:
    arm = np.ones((2, 3), dtype=bool)
    with pytest.raises(ValueError, match="'uniform' is none of the arms entropy"):
        compare({"entropy": arm}, {"entropy": "uniform"})
    with pytest.raises(ValueError, match="same seeds and questions"):
        compare({"entropy": arm, "uniform": arm[:1]}, {"entropy": "uniform", "uniform": None})
    for shape in ((0, 5), (3, 1), (5,)):
        with pytest.raises(ValueError, match="at least 1 seed and 2 questions"):
            crossed_mean(np.zeros(shape))
