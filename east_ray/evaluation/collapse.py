"""Whether a run that learns from its own majority answers is collapsing. Pure functions on the numbers of its rounds.

Without references a model learns what most of its responses say, right or wrong. What is commonest becomes commoner, so
the answers grow alike from round to round. That is no fault by itself: a run that learns loses entropy too, as its
answers become right. It has collapsed if they become alike without becoming right. Two rules say so:

* **fall**: the newest model answers fewer held-out questions than the best one before it: by McNemar's exact test,
  one-sided, at 1 % over all earlier models (Bonferroni), and by at least 2 points.
* **loss**: the entropy of the answers is at most half of round 0's, and it and the number of distinct answers are
  clearly lower (one-sided, at 1 %, paired by question), while the newest model is not shown to answer more held-out
  questions than the one before training (the same test, at 5 %), nor answers 2 points more of them.

Two points are about what another seed of a training changes, which no test on one training's questions sees. A gain
that is too small to be shown on few questions is no collapse. After a round, the newest model is the one that it has
trained. A loss to a tenth leaves nothing to learn from: it is judged before the training, by the model that was asked.

Without held-out questions nothing tells a healthy loss from a collapse. Then a loss to a quarter is a warning alone.

In a simulation (tests/test_collapse.py: three rounds of 200 questions with 16 responses, 500 held-out questions) an
alarm was raised in 0.5 % of 200 healthy runs, whose entropy falls to a third while accuracy rises from 50 to 65 %; in
1 % of them with 100 held-out questions; in 3 % of 200 runs that neither learn nor lose anything. It was raised in all
of 100 collapses to 20 % accuracy and of 100 to 45 %, and in 97 % of those whose answers grow alike at 50 % throughout.

Axes in shapes: Q questions, R responses.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from east_ray.answers.grading import entropy

#: Level of the tests that something fell, and of the one that accuracy rose; the first as a normal quantile too.
FALL_LEVEL, RISE_LEVEL = 0.01, 0.05
_FALL_QUANTILE = 2.326
#: Least difference of two accuracies that may be more than another seed would make.
LEAST_DIFFERENCE = 0.02
#: Share of the entropy of round 0 that is left at most after a loss: one that is judged after the round, or before its
#: training, and one that nothing can be held against.
LOST_AT, NOTHING_LEFT_AT, LOST_UNCHECKED_AT = 0.5, 0.1, 0.25

#: Held-out questions, by id, with whether a model answers them correctly.
Correct = Mapping[str, bool]


@dataclass(frozen=True)
class Change:
    """The mean over questions of a quantity in round 0, and now; the standard error is that of their difference."""

    before: float
    now: float
    standard_error: float

    @property
    def is_clear_fall(self) -> bool:
        """Whether the mean fell, by a one-sided test at 1 %."""
        return self.now - self.before + _FALL_QUANTILE * self.standard_error < 0


@dataclass(frozen=True)
class Spread:
    """How the answers to the questions of a round spread, beside those of round 0."""

    entropy: Change
    """Nats."""
    num_answers: Change
    """Distinct answers."""


@dataclass(frozen=True)
class Alarm:
    """What has happened, in a part of a sentence."""

    said: str
    rule: Literal["fall", "loss", "unchecked loss"]
    """An unchecked loss is a warning."""
    best: int | None = None
    """The model with the greatest accuracy: 0 before training, k + 1 of round k. None: nothing was held out."""


# --------------------------------------------------------------------------------------------- how the answers spread


def spread(
    before: Mapping[str, NDArray[np.int64]],
    now: Mapping[str, NDArray[np.int64]],
    no_answer: Literal["cluster", "exclude"] = "cluster",
) -> Spread:
    """Questions, by id, with the cluster (R,) of each response, -1 for no answer; in round 0 and now -> their spread.

    Only questions of both rounds are compared, paired, and of each as many responses as it has in both: more responses
    have more answers. If the rounds asked other questions, all are compared, unpaired. No answer is no distinct answer;
    with ``no_answer: cluster`` the entropy counts it as one. Raises ValueError if a round has no questions.
    """
    if not before or not now:
        raise ValueError("the spread of the answers needs questions in both rounds")
    shared = sorted(before.keys() & now.keys())
    if not shared:
        pair = [np.array([_measured(one, no_answer) for one in round_.values()]) for round_ in (before, now)]
        return Spread(*(_change(*(values[:, column] for values in pair), is_paired=False) for column in (0, 1)))
    rows = []
    for question in shared:
        num_responses = min(len(before[question]), len(now[question]))
        rows.append([_measured(one[question][:num_responses], no_answer) for one in (before, now)])
    table = np.array(rows)
    return Spread(*(_change(table[:, 0, column], table[:, 1, column], is_paired=True) for column in (0, 1)))


def _measured(clusters: NDArray[np.int64], no_answer: str) -> tuple[float, int]:
    """(R,) clusters of a question's responses -> entropy and number of distinct answers."""
    counts = np.bincount(clusters + 1)
    return entropy(counts[0 if no_answer == "cluster" else 1 :].tolist()), int(np.count_nonzero(counts[1:]))


def _change(before: NDArray[np.float64], now: NDArray[np.float64], *, is_paired: bool) -> Change:
    """(Q,) values of each round. A single question shows nothing: its standard error is infinite."""
    samples = [now - before] if is_paired else [before, now]
    variance = sum(values.var(ddof=1) / values.size if values.size > 1 else math.inf for values in samples)
    return Change(float(before.mean()), float(now.mean()), math.sqrt(variance))


# ---------------------------------------------------------------------------------------------------------- the rules


def fall(models: Sequence[Correct]) -> Alarm | None:
    """The first rule. `models`: the one before training and that of each round, the newest last."""
    models = _on_the_same(models)
    if len(models) < 2 or not models[0]:
        return None
    best, newest = _best(models[:-1]), len(models) - 1
    p_value = min(1.0, newest * _p_of_more(models[best], models[newest]))
    before, now = _accuracy(models[best]), _accuracy(models[newest])
    if p_value >= FALL_LEVEL or before - now < LEAST_DIFFERENCE:
        return None
    said = f"accuracy on {len(models[0]):,} held-out questions fell from {100 * before:.1f} % ({named(best)}) to "
    said += f"{100 * now:.1f} % ({named(newest)}), p = {p_value:.1g}"
    return Alarm(said, "fall", best)


def loss(answers: Spread, number: int, models: Sequence[Correct], *, before_training: bool = False) -> Alarm | None:
    """The second rule, of the answers of round `number`. `models` as in `fall`; empty where nothing was held out."""
    left = answers.entropy.now / answers.entropy.before if answers.entropy.before else 1.0
    if not (answers.entropy.is_clear_fall and answers.num_answers.is_clear_fall):
        return None
    said = f"from round 0 to round {number} the entropy of the answers to a question fell from "
    said += f"{answers.entropy.before:.2f} to {answers.entropy.now:.2f} nats, and the number of distinct ones from "
    said += f"{answers.num_answers.before:.1f} to {answers.num_answers.now:.1f}"
    models = _on_the_same(models)
    if len(models) < 2 or not models[0]:
        said += ", and no held-out questions tell whether they became right or only alike"
        return Alarm(said, "unchecked loss") if left <= LOST_UNCHECKED_AT else None
    first, newest = models[0], models[-1]
    before, now = _accuracy(first), _accuracy(newest)
    has_risen = now - before >= LEAST_DIFFERENCE or _p_of_more(newest, first) < RISE_LEVEL
    if has_risen or left > (NOTHING_LEFT_AT if before_training else LOST_AT):
        return None
    said += f", while accuracy on {len(first):,} held-out questions has not risen: {100 * before:.1f} % ({named(0)}), "
    said += f"{100 * now:.1f} % ({named(len(models) - 1)})"
    return Alarm(said, "loss", _best(models))


def named(model: int) -> str:
    """A model by its place among those of a run.

    >>> named(0), named(2)
    ('the model before training', 'the model of round 1')
    """
    return f"the model of round {model - 1}" if model else "the model before training"


def _on_the_same(models: Sequence[Correct]) -> list[dict[str, bool]]:
    """The models on those questions that every one of them was asked."""
    shared = set(models[0]).intersection(*models[1:]) if models else set[str]()
    return [{question: model[question] for question in sorted(shared)} for model in models]


def _best(models: Sequence[Correct]) -> int:
    """The first of the models with the greatest accuracy."""
    return max(range(len(models)), key=lambda place: _accuracy(models[place]))


def _accuracy(model: Correct) -> float:
    return sum(model.values()) / len(model)


def _p_of_more(first: Correct, second: Correct) -> float:
    """McNemar's exact test that the first model answers more questions correctly than the second: one-sided."""
    from scipy.stats import binomtest

    pairs = list(zip(first.values(), second.values(), strict=True))
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5, alternative="greater").pvalue) if discordant else 1.0
