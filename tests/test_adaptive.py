"""The rules of `sampling.adaptive`: how many responses a question gets, and what a study says of them."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.config import InputError
from east_ray.config.adaptive import AdaptiveConfig, BudgetConfig
from east_ray.config.files import resolve
from east_ray.report.studies.adaptive import (
    Draw,
    Outcome,
    Truth,
    budget,
    entropies,
    equal_number,
    fixed,
    local,
    outcomes,
    smoothed,
)
from east_ray.sampling.adaptive import (
    Precision,
    Step,
    Unanimous,
    allocate,
    check_budget,
    deviations,
    local_rule,
    shared_out,
    standard_error,
)
from east_ray.weighting import entropy, smoothed_entropy

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)
POOL = st.lists(SIZES, min_size=1, max_size=12)

# -------------------------------------------------------------------------------------------------------- local rules


@pytest.mark.parametrize(
    ("rule", "sizes", "step"),
    [
        ({"unanimous": {"first": 8}}, [8], Step(0, "unanimous")),
        ({"unanimous": {"first": 8}}, [7, 1], Step(24, None)),
        ({"unanimous": {"first": 8}}, [20, 12], Step(0, "all")),
        ({"unanimous": {"first": 32}}, [32], Step(0, "all")),
        # The responses are doubled, as far as the most allows.
        ({"precision": {"first": 8, "standard_error": 0.1}}, [5, 3], Step(8, None)),
        ({"precision": {"first": 8, "standard_error": 0.06}}, [15, 9], Step(8, None)),
        ({"precision": {"first": 8, "standard_error": 0.2}}, [8], Step(0, "precise")),
        ({"precision": {"first": 8, "standard_error": 0.1}}, [8], Step(8, None)),  # 8 that agree do not say enough
        ({"precision": {"first": 8, "standard_error": 0.1}}, [16, 16], Step(0, "all")),
    ],
)
def test_what_follows_for_a_question(rule: dict[str, Any], sizes: list[int], step: Step) -> None:
    decide = local_rule(AdaptiveConfig.model_validate(rule), 32)
    assert decide is not None and decide.next_step(sizes) == step


def test_a_budget_is_no_rule_of_single_questions() -> None:
    assert local_rule(AdaptiveConfig.model_validate({"budget": {"total": 100}}), 32) is None


@given(SIZES, st.sampled_from([Unanimous(8, 32), Precision(8, 32, 0.1), Precision(2, 200, 0.02)]))
def test_a_local_rule_ends_with_a_reason_and_never_exceeds_the_most(sizes: list[int], rule: Any) -> None:
    step = rule.next_step(sizes)
    assert (step.num_more == 0) == (step.stopped_because is not None)
    assert sum(sizes) >= rule.most or sum(sizes) + step.num_more <= rule.most
    assert rule.next_step(list(reversed(sizes))) == step


def test_the_standard_error_by_hand() -> None:
    # 8 that agree and 0.05 with another answer.
    p, q = 8 / 8.05, 0.05 / 8.05
    assert deviations([[8]]) == pytest.approx(math.sqrt(p * q) * math.log(p / q))
    assert standard_error([8]) == pytest.approx(deviations([[8]])[0] / math.sqrt(8))
    with pytest.raises(ValueError, match="a question has no responses"):
        deviations([[8], []])
    assert deviations([]).size == 0


def test_the_standard_error_is_that_of_the_entropy() -> None:
    shares = [0.6, 0.3, 0.1]
    draws = np.random.default_rng(0).multinomial(400, shares, size=4000)
    spread = np.std([entropy(one) for one in draws.tolist()])
    assert standard_error([240, 120, 40]) == pytest.approx(spread, rel=0.05)


# -------------------------------------------------------------------------------------------------------------- budget


@given(POOL, st.integers(0, 2000), st.integers(1, 300))
def test_a_wave_spends_no_more_than_is_left_and_gives_no_question_more_than_the_most(
    sizes: list[list[int]], num_left: int, most: int
) -> None:
    num_responses = np.array(list(map(sum, sizes)))
    most = max(most, int(num_responses.max()))
    more = allocate(sizes, num_left, most)
    room = int((most - num_responses).sum())
    assert more.shape == (len(sizes),) and more.min() >= 0
    assert (num_responses + more).max() <= most
    assert more.sum() <= num_left
    assert more.any() == (num_left > 0 and room > 0)


@given(POOL, st.integers(0, 2000), st.integers(1, 300))
def test_the_waves_spend_all_that_the_most_allows(sizes: list[list[int]], num_left: int, most: int) -> None:
    most = max([most, *map(sum, sizes)])
    expected = min(num_left, sum(most - sum(one) for one in sizes))
    spent = waves = 0
    while (more := allocate(sizes, num_left - spent, most)).any():
        spent += int(more.sum())
        waves += 1
        sizes = [[one[0] + extra, *one[1:]] for one, extra in zip(sizes, more.tolist(), strict=True)]
    assert spent == expected
    assert waves <= 12


@given(POOL, st.integers(0, 500), st.randoms())
def test_the_order_of_questions_and_of_clusters_does_not_matter(
    sizes: list[list[int]], num_left: int, rng: Any
) -> None:
    def numbers(pool: list[list[int]]) -> list[tuple[list[int], int]]:
        return sorted(
            (sorted(one), more) for one, more in zip(pool, allocate(pool, num_left, 64 * 6).tolist(), strict=True)
        )

    shuffled = [rng.sample(one, len(one)) for one in rng.sample(sizes, len(sizes))]
    assert numbers(sizes) == numbers(shuffled)


@given(
    st.lists(st.floats(0.01, 3), min_size=1, max_size=5),
    st.lists(st.integers(1, 9), min_size=5, max_size=5),
    st.integers(0, 12),
)
def test_no_other_whole_numbers_reduce_the_squared_error_more(
    found: list[float], numbers: list[int], total: int
) -> None:
    sigma, n = np.array(found), np.array(numbers[: len(found)])

    def worth(index: int) -> float:
        return sigma[index] ** 2 / (n[index] * (n[index] + 1))

    expected = n.copy()
    more = shared_out(total, sigma, n.copy(), 10)
    for _ in range(min(total, int((10 - n).sum()))):  # one response after the other
        best = max((index for index in range(len(n)) if n[index] < 10), key=worth)
        n[best] += 1
    assert float(np.sum(sigma**2 / (expected + more))) == pytest.approx(float(np.sum(sigma**2 / n)), rel=1e-9)


def test_more_goes_where_the_answers_differ_more() -> None:
    unanimous, nearly, split, diverse = allocate([[16], [15, 1], [10, 6], [6, 4, 3, 2, 1]], 64, 256).tolist()
    assert unanimous < split < diverse and unanimous < nearly


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("adaptive", "message"),
    [
        ({"unanimous": {"first": 200}}, "adaptive.unanimous.first 200 is greater than responses_per_question 128"),
        ({"precision": {"first": 200, "standard_error": 0.1}}, "adaptive.precision.first 200 is greater than"),
        ({"precision": {"standard_error": 0.0}}, "sampling.adaptive.precision.standard_error: "),
        ({"precision": {}}, "sampling.adaptive.precision.standard_error: missing"),
        ({"budget": {"pilot": 8}}, "sampling.adaptive.budget.total: missing"),
        ({"budget": {"total": 100, "pilot": 300}}, "pilot 300 is greater than max 256"),
        ({}, "give exactly one of unanimous, precision and budget"),
        ({"unanimous": {}, "budget": {"total": 100}}, "give exactly one of"),
    ],
)
def test_settings_that_cannot_be(adaptive: dict[str, Any], message: str) -> None:
    values = {"model": "m", "run_dir": "r", "questions": {"path": "q.jsonl"}, "sampling": {"adaptive": adaptive}}
    with pytest.raises(InputError) as error:
        resolve(values, [])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_budget_that_is_not_enough_for_the_pilot() -> None:
    check_budget(BudgetConfig(total=1600, pilot=16), 100)
    with pytest.raises(InputError, match=r"sampling\.adaptive\.budget\.total: 1,599 .* give at least 1,600"):
        check_budget(BudgetConfig(total=1599, pilot=16), 100)


# --------------------------------------------------------------------------------------------------------------- study

TRUTH = Truth.of([[32], [24, 8], [8] * 4, [30, 1, 1], [20, 12]], [True, True, True, True, False])


def test_a_draw_has_the_shares_of_the_truth_and_begins_alike() -> None:
    draw = Draw(TRUTH, 4000, np.random.default_rng(0))
    every, first = draw.sizes(np.full(5, 4000)), draw.sizes(np.array([1, 2, 3, 4, 0]))
    np.testing.assert_allclose(every / 4000, TRUTH.shares, atol=0.03)
    assert every[:, -1].sum() == 0  # answers that were not seen
    assert first.sum(axis=1).tolist() == [1, 2, 3, 4, 0]
    assert np.all(draw.sizes(np.array([2, 3, 4, 5, 1])) >= first)


def test_entropies_are_those_of_the_weights() -> None:
    sizes = np.array([[32, 0, 0], [16, 16, 0], [5, 2, 1]])
    assert entropies(sizes) == pytest.approx([entropy(one) for one in sizes.tolist()], abs=1e-12)
    assert smoothed(sizes) == pytest.approx([smoothed_entropy(one) for one in sizes.tolist()], abs=1e-12)


def test_the_error_falls_with_the_number_and_is_that_of_the_weights() -> None:
    found = outcomes(TRUTH, {"8": fixed(8), "128": fixed(128), "all": fixed(4000)}, 4000, 5, seed=1)["plug_in"]
    assert found["8"].error > found["128"].error > found["all"].error
    assert found["all"].error < 0.02 and found["8"].num_responses == 8
    draw = Draw(TRUTH, 4000, np.random.default_rng(1))
    right = np.array([entropy(one) for one in ([32], [24, 8], [8] * 4, [30, 1, 1])])
    seen = np.array([entropy(one) for one in draw.sizes(np.full(5, 8)).tolist()[:4]])
    one = outcomes(TRUTH, {"8": fixed(8)}, 4000, 1, seed=1)["plug_in"]["8"].error
    assert one == pytest.approx(np.abs(seen / seen.mean() - right / right.mean()).mean())


def test_rules_are_those_of_sampling() -> None:
    draw = Draw(TRUTH, 64, np.random.default_rng(0))
    assert local(Unanimous(8, 64))(draw).tolist() == [
        8 if max(sizes) == 8 else 64 for sizes in draw.sizes(np.full(5, 8)).tolist()
    ]
    given_ = budget(24, 8, 64)(draw)
    assert given_.sum() == 24 * 5 and given_.min() >= 8 and given_.max() <= 64
    assert given_[2] > given_[0]


def test_the_fixed_number_that_is_as_good() -> None:
    same = [Outcome(16, 0.4, 0), Outcome(64, 0.2, 0), Outcome(256, 0.1, 0)]
    assert equal_number(same, 0.2) == pytest.approx(64)
    assert equal_number(same, 0.2 * math.sqrt(2)) == pytest.approx(32)
    assert equal_number(same, 0.05) is None and equal_number(same, 0.5) is None


def test_without_a_second_answer_there_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="no kept question has two answers"):
        Truth.of([[8], [4, 4]], [True, False])


def test_the_truth_may_have_answers_that_were_not_seen() -> None:
    truth = Truth.of([[8], [4, 4]], [True, True], unseen=0.5)
    np.testing.assert_allclose(truth.shares, [[8 / 8.5, 0, 0.5 / 8.5], [4 / 8.5, 4 / 8.5, 0.5 / 8.5]])
