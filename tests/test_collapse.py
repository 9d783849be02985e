"""The alarm for runs that learn from their own majority answers: its rules, on planted numbers and in a simulation."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from east_ray.evaluation.collapse import Alarm, Correct, Spread, fall, loss, spread

NUM_QUESTIONS, NUM_RESPONSES, NUM_ANSWERS = 200, 16, 20


def correct(*runs: tuple[int, bool]) -> dict[str, bool]:
    """Held-out questions in runs of (number of them, whether they are answered correctly)."""
    answers = [is_correct for number, is_correct in runs for _ in range(number)]
    return {f"q{place}": is_correct for place, is_correct in enumerate(answers)}


def clusters(*questions: Sequence[int]) -> dict[str, NDArray[np.int64]]:
    return {f"q{place}": np.array(one) for place, one in enumerate(questions)}


# ------------------------------------------------------------------------------------------------------- by arithmetic


def test_a_fall_is_from_the_best_earlier_model_and_names_it() -> None:
    base, first = correct((40, True), (60, False)), correct((60, True), (40, False))
    second = correct((45, True), (55, False))
    assert fall([base]) is None and fall([base, first]) is None
    found = fall([base, first, second])
    # 15 questions only the best answered, none the other way: p = 2 * 2 ** -15, for two earlier models.
    assert found == Alarm(
        "accuracy on 100 held-out questions fell from 60.0 % (the model of round 0) to 45.0 % (the model of round 1), "
        "p = 6e-05",
        "fall",
        best=1,
    )


def test_only_questions_that_every_model_was_asked_count() -> None:
    base, first = correct((10, True)), correct((10, False))
    assert fall([base, first]) is not None
    del base["q0"], first["q1"], first["q2"], first["q3"], first["q4"]
    assert fall([base, first]) is None  # five of them: 2 ** -5 is more than 1 %
    assert fall([base, correct((0, True))]) is None


def test_a_fall_by_less_than_two_points_is_none_however_many_questions_there_are() -> None:
    base = correct((6000, True), (4000, False))
    assert fall([base, correct((5810, True), (4190, False))]) is None
    assert fall([base, correct((5800, True), (4200, False))]) is not None


def test_the_spread_is_paired_by_question_over_as_many_responses_as_both_rounds_have() -> None:
    before = clusters([0, 1, 2, -1], [0, 0, 0, 0], [0, 1, 0, 1]) | {"gone": np.array([0, 1])}
    now = clusters([0, 0, 0, 0], [0, 0, 0, 0, 1, 2, 3, 4], [0, 0, 0, 1])
    found = spread(before, now)
    # 4 equal clusters, 1, 2 -> 1, 1, shares of 3/4 and 1/4.
    before_nats = np.array([np.log(4), 0, np.log(2)])
    now_nats = np.array([0, 0, -0.75 * np.log(0.75) - 0.25 * np.log(0.25)])
    assert found.entropy.before == pytest.approx(before_nats.mean())
    assert found.entropy.now == pytest.approx(now_nats.mean())
    assert found.entropy.standard_error == pytest.approx(np.std(now_nats - before_nats, ddof=1) / np.sqrt(3))
    assert (found.num_answers.before, found.num_answers.now) == (pytest.approx(2), pytest.approx(4 / 3))
    without = spread(before, now, "exclude")
    assert without.entropy.before == pytest.approx((np.log(3) + np.log(2)) / 3)
    assert without.num_answers == found.num_answers


def test_rounds_of_other_questions_are_compared_unpaired() -> None:
    before = {"a": np.array([0, 1]), "b": np.array([0, 0])}
    now = {"c": np.array([0, 0]), "d": np.array([0, 0, 0])}
    found = spread(before, now).entropy
    assert (found.before, found.now) == (pytest.approx(np.log(2) / 2), 0)
    assert found.standard_error == pytest.approx(np.std([np.log(2), 0], ddof=1) / np.sqrt(2))
    with pytest.raises(ValueError, match="questions in both rounds"):
        spread(before, {})


def test_one_question_shows_nothing() -> None:
    assert not spread(clusters([0, 1, 2, 3]), clusters([0, 0, 0, 0])).entropy.is_clear_fall


@given(st.lists(st.lists(st.integers(-1, 5), min_size=1, max_size=8), min_size=2, max_size=6), st.randoms())
def test_the_spread_does_not_depend_on_the_order_of_questions_or_the_names_of_clusters(
    questions: list[list[int]], rng: "np.random.Generator"
) -> None:
    before, now = clusters(*questions), clusters(*questions[::-1])
    renamed = {name: np.where(one < 0, -1, 5 - one) for name, one in reversed(now.items())}
    one, other = spread(before, now), spread(before, renamed)
    for first, second in ((one.entropy, other.entropy), (one.num_answers, other.num_answers)):
        assert vars(first) == pytest.approx(vars(second))
    unchanged = spread(before, before)
    assert unchanged.entropy.standard_error == unchanged.num_answers.standard_error == 0


def alike(left: float) -> Spread:
    """The spread of 100 questions of which this share keeps its four answers, while the others have one from now on."""
    kept = round(100 * left)
    return spread(clusters(*[[0, 1, 2, 3]] * 100), clusters(*[[0, 1, 2, 3]] * kept, *[[0, 0, 0, 0]] * (100 - kept)))


def test_a_loss_is_one_where_accuracy_has_not_risen() -> None:
    base, risen = correct((40, True), (60, False)), correct((50, True), (50, False))
    found = loss(alike(0.4), 2, [base, base, base])
    assert found == Alarm(
        "from round 0 to round 2 the entropy of the answers to a question fell from 1.39 to 0.55 nats, and the "
        "number of distinct ones from 4.0 to 2.2, while accuracy on 100 held-out questions has not risen: 40.0 % (the "
        "model before training), 40.0 % (the model of round 1)",
        "loss",
        best=0,
    )
    assert loss(alike(0.6), 2, [base, base, base]) is None
    assert loss(alike(0.1), 2, [base, base, risen]) is None


def test_without_held_out_questions_a_greater_loss_is_a_warning() -> None:
    assert loss(alike(0.4), 1, []) is None
    found = loss(alike(0.1), 1, [])
    assert found is not None and (found.rule, found.best) == ("unchecked loss", None)
    assert found.said.endswith("and no held-out questions tell whether they became right or only alike")


# ------------------------------------------------------------------------------------------------------ by simulation


def run(accuracies: Sequence[float], sharpness: Sequence[float], num_held_out: int, seed: int) -> list[Alarm]:
    """The alarms of a simulated run: the accuracy of each model, and how sharp the answers of each round are.

    A question has a softmax over its possible answers, with normal logits times the sharpness of the round. A held-out
    question is answered correctly where its difficulty, with a little noise of each model, is below a threshold.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(NUM_QUESTIONS, NUM_ANSWERS))
    difficulty = rng.normal(size=num_held_out)
    models: list[Correct] = []
    for accuracy in accuracies:
        felt = difficulty + rng.normal(scale=0.5, size=num_held_out)
        threshold = np.sqrt(1.25) * NORMAL_QUANTILES[accuracy]
        models.append({f"h{place}": bool(one) for place, one in enumerate(felt < threshold)})
    alarms, rounds = [], []
    for number, factor in enumerate(sharpness):
        chances = np.exp(factor * logits)
        chances /= chances.sum(axis=1, keepdims=True)
        drawn = (rng.random((NUM_QUESTIONS, NUM_RESPONSES, 1)) > chances.cumsum(axis=1)[:, None, :]).sum(axis=2)
        rounds.append(clusters(*drawn))
        answers, asked, trained = spread(rounds[0], rounds[-1]), models[: number + 1], models[: number + 2]
        alarms += [loss(answers, number, asked, before_training=True), loss(answers, number, trained), fall(trained)]
    return [one for one in alarms if one]


#: Of the normal distribution, at the accuracies of the simulated models.
NORMAL_QUANTILES = {
    0.2: -0.8416, 0.35: -0.3853, 0.45: -0.1257, 0.5: 0.0, 0.56: 0.1510, 0.6: 0.2533, 0.62: 0.3055, 0.65: 0.3853
}  # fmt: skip


#: Answers that grow alike as a run learns: 2.0, 1.0 and 0.7 nats; and answers that are nearly all alike: 0.3 nats.
LEARNS, ALIKE = (1.0, 3.0, 4.5), (1.0, 5.0, 10.0)


def share_with_alarm(
    accuracies: Sequence[float], sharpness: Sequence[float], num_runs: int, num_held_out: int = 500
) -> float:
    return sum(bool(run(accuracies, sharpness, num_held_out, seed)) for seed in range(num_runs)) / num_runs


@pytest.mark.parametrize("num_held_out", [100, 500])
def test_healthy_runs_raise_no_alarm(num_held_out: int) -> None:
    assert share_with_alarm((0.5, 0.56, 0.62, 0.65), LEARNS, 200, num_held_out) < 0.02


def test_runs_that_learn_nothing_and_lose_nothing_seldom_raise_one() -> None:
    assert share_with_alarm((0.5,) * 4, (1.0,) * 3, 200) <= 0.03  # 1 % a round at most


def test_planted_collapses_raise_one() -> None:
    assert share_with_alarm((0.5, 0.56, 0.35, 0.2), ALIKE, 100) == 1  # ever more wrong
    assert share_with_alarm((0.5, 0.5, 0.45, 0.45), ALIKE, 100) > 0.95  # alike, and a little more wrong
    assert share_with_alarm((0.5,) * 4, ALIKE, 100) > 0.85  # alike, and no better
