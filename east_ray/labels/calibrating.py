"""A trusted set -> how many references are wrong, and from which share of the responses on the majority is right."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from east_ray.answers.grading import Graded
from east_ray.labels.deciding import (
    Checked,
    LabelRules,
    Labels,
    Lead,
    Past,
    contradiction,
    is_enough,
    lead_of,
    with_correct,
)

#: With fewer trusted questions than this, the thresholds stay as they are set.
MIN_QUESTIONS = 30
#: Of the one-sided test that others are better.
LEVEL = 0.1


@dataclass(frozen=True)
class Outcome:
    """A trusted question that the rules may act on: whether the label is wrong if they do, and if they do not."""

    lead: Lead
    is_wrong_acted: bool
    is_wrong_left: bool
    is_right_to_act: bool


@dataclass(frozen=True)
class Calibration:
    """What a trusted set says of the rules. Errors are wrong labels kept or made, and right ones lost."""

    num_questions: int
    """Trusted questions with responses, without those that were looked up because they were changed."""
    is_applied: bool
    """Whether the thresholds below were chosen on the trusted set; otherwise they are those that are set."""
    min_share: float | None
    """None: it is best to act on no question."""
    min_margin: float
    num_errors: int
    """With these thresholds."""
    num_errors_as_set: int
    num_errors_untouched: int
    """If the rules act on no question."""
    num_acted: int
    """Trusted questions that the rules act on with these thresholds."""
    num_acted_rightly: int
    num_better: int
    """Trusted questions that the best thresholds treat rightly and those that are set wrongly, chosen or not."""
    num_worse: int
    """The other way."""


def outcome(
    checked: Checked, graded: Graded, num_responses: int | None, past: Sequence[Past], labels: Labels
) -> tuple[Outcome | None, bool]:
    """What acting on a trusted question would give, whatever the thresholds, and whether its label is wrong otherwise.

    None: no threshold makes the rules act on it, or acting changes nothing. `graded` is of all responses, by the given
    reference; the first `num_responses` count. Acting is relabelling, dropping or downweighting a contradicted
    reference; with ``source: majority``, taking the majority's answer, without which the question is lost. A question
    with a reference that no response gives is not trained on if it is left as it is, so its label does no harm then.
    """
    right = with_correct(graded, checked.cluster).first(num_responses).correct_cluster
    graded = graded.first(num_responses)
    rules = replace(labels.rules, min_share=0.0, min_margin=0.0)
    if rules.source == "majority":
        if (lead := lead_of(graded)) is None:
            return None, False
        is_right = lead.place == right
        return Outcome(lead, not is_right, is_right, is_right), is_right
    is_trained = graded.correct_cluster is not None
    is_wrong = checked.agrees is False and is_trained
    if (lead := contradiction(graded, past, labels.number, rules)) is None:
        return None, is_wrong
    if rules.policy == "relabel":
        is_right = lead.place == right
        return Outcome(lead, not is_right, is_wrong, is_right), is_wrong
    if not is_trained:
        return None, False
    return Outcome(lead, not is_wrong, is_wrong, is_wrong), is_wrong


def calibrated(found: Iterable[tuple[Outcome | None, bool]], rules: LabelRules) -> Calibration:
    """The thresholds with the fewest label errors on a trusted set, where it shows that they beat those that are set.

    Candidates are the shares and margins of the trusted questions and the thresholds as set; of equally good ones the
    largest is the best. To act on no question at all is best only if it has fewer errors than each of them. The best of
    many candidates does well on the questions that chose it, by chance too. So it takes the place of the thresholds as
    set only by a one-sided sign test at `LEVEL`, over the questions that only one of the two treats rightly: four to
    none at least.
    """
    pairs = list(found)
    outcomes = [one for one, _ in pairs if one is not None]
    untouched = sum(is_wrong for _, is_wrong in pairs)
    added = np.array([int(one.is_wrong_acted) - int(one.is_wrong_left) for one in outcomes], dtype=np.int64)
    best = _best(outcomes, added, rules)
    acts_as_set, acts_as_best = (np.array([is_enough(one.lead, by) for one in outcomes], bool) for by in (rules, best))
    changes = added * (acts_as_best.astype(np.int64) - acts_as_set)
    num_better, num_worse = int(np.sum(changes < 0)), int(np.sum(changes > 0))
    is_applied = len(pairs) >= MIN_QUESTIONS and _p_of_more(num_better, num_worse) <= LEVEL
    holds, acts = (best, acts_as_best) if is_applied else (rules, acts_as_set)
    return Calibration(
        num_questions=len(pairs),
        is_applied=is_applied,
        min_share=None if math.isinf(holds.min_share) else holds.min_share,
        min_margin=holds.min_margin,
        num_errors=untouched + int(added[acts].sum()),
        num_errors_as_set=untouched + int(added[acts_as_set].sum()),
        num_errors_untouched=untouched,
        num_acted=int(acts.sum()),
        num_acted_rightly=sum(one.is_right_to_act for one in itertools.compress(outcomes, acts)),
        num_better=num_better,
        num_worse=num_worse,
    )


def _best(outcomes: Sequence[Outcome], added: NDArray[np.int64], rules: LabelRules) -> LabelRules:
    """The rules with the thresholds that leave the fewest errors; `added` (Q,) are those that acting on each adds.

    The errors of all pairs of a share and a margin are sums over the questions beyond both: from the largest share on,
    a row of them at a time.
    """
    shares, share_of = np.unique([*(one.lead.share for one in outcomes), rules.min_share], return_inverse=True)
    margins, margin_of = np.unique([*(one.lead.margin for one in outcomes), rules.min_margin], return_inverse=True)
    added = np.append(added, 0)  # of the thresholds as set, a candidate that is no question
    by_margin, fewest, best = np.zeros(len(margins), np.int64), None, rules
    for place in reversed(range(len(shares))):
        mine = share_of == place
        np.add.at(by_margin, margin_of[mine], added[mine])
        errors = np.cumsum(by_margin[::-1])
        at = int(np.argmin(errors))
        if fewest is None or errors[at] < fewest:
            fewest, margin = int(errors[at]), float(margins[::-1][at])
            best = replace(rules, min_share=float(shares[place]), min_margin=margin)
    return best if fewest is None or fewest <= 0 else replace(rules, min_share=math.inf)


def _p_of_more(num_more: int, num_fewer: int) -> float:
    """The one-sided sign test that the first happens more often than the second."""
    from scipy.stats import binomtest

    num = num_more + num_fewer
    return float(binomtest(num_more, num, 0.5, alternative="greater").pvalue) if num else 1.0


def in_a_sentence(one: Calibration, rules: LabelRules) -> str:
    """Which thresholds hold and why; `rules` are those that are set."""
    share, margin, of = f"{rules.min_share:g}", f"{rules.min_margin:g}", f"{one.num_questions:,} trusted questions"
    as_set = f"labels.min_share ({share}) and labels.min_margin ({margin}) are as set"
    if one.num_questions < MIN_QUESTIONS:
        return f"{as_set}: {of} are too few to choose them, {MIN_QUESTIONS} are needed"
    told = f"{one.num_better:,} of the {of} rightly that those that are set treat wrongly"
    told += f", and {one.num_worse:,} the other way"
    if not one.is_applied:
        said = f"no others are shown to be better on the {of}"
        return f"{as_set}: {said}; the best treat {told}" if one.num_better else f"{as_set}: {said}"
    if one.min_share is None:
        return f"the labels act on no question: that treats {told}"
    return f"labels.min_share is {one.min_share:g} and labels.min_margin {one.min_margin:g}: these treat {told}"


def applied(calibration: Calibration, rules: LabelRules) -> LabelRules:
    """The rules with the thresholds that the trusted set gives."""
    share = math.inf if calibration.min_share is None else calibration.min_share
    return replace(rules, min_share=share, min_margin=calibration.min_margin)


def estimate(trusted: Mapping[str, Checked]) -> dict[str, int]:
    """Trusted questions of the run that were drawn and have a usable reference, and those of them whose is wrong."""
    drawn = [one.agrees for one in trusted.values() if one.is_drawn and one.agrees is not None]
    return {"num_questions": len(drawn), "num_wrong": drawn.count(False)}
