"""A trusted set -> how many references are wrong, and from which share of the responses on the majority is right."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

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
    """Whether the thresholds below hold; with few questions they are those that were set."""
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
    """The thresholds with the fewest label errors on a trusted set; of equally good ones the largest.

    Candidates are the shares and margins of the trusted questions and the thresholds as set. To act on no question at
    all is chosen only if it has fewer errors than each of them.
    """
    pairs = list(found)
    outcomes = [one for one, _ in pairs if one is not None]
    untouched = sum(is_wrong for _, is_wrong in pairs)
    shares, margins = (np.array([getattr(one.lead, name) for one in outcomes]) for name in ("share", "margin"))
    gains = np.array([int(one.is_wrong_acted) - int(one.is_wrong_left) for one in outcomes], dtype=np.int64)

    def errors(share: float, margin: float) -> int:
        return untouched + int(gains[(shares >= share) & (margins >= margin)].sum())

    as_set = errors(rules.min_share, rules.min_margin)
    share, margin, fewest = rules.min_share, rules.min_margin, as_set
    if is_applied := len(pairs) >= MIN_QUESTIONS:
        candidates = [
            (-errors(one, other), one, other)
            for one in {*shares.tolist(), rules.min_share}
            for other in {*margins.tolist(), rules.min_margin}
        ]
        negative, share, margin = max(candidates)
        fewest = -negative
        if untouched < fewest:
            share, fewest = math.inf, untouched
    applied = replace(rules, min_share=share, min_margin=margin)
    acted = [one for one in outcomes if is_enough(one.lead, applied)]
    rightly = sum(one.is_right_to_act for one in acted)
    known_share = None if math.isinf(share) else share
    return Calibration(len(pairs), is_applied, known_share, margin, fewest, as_set, untouched, len(acted), rightly)


def applied(calibration: Calibration, rules: LabelRules) -> LabelRules:
    """The rules with the thresholds that the trusted set gives."""
    share = math.inf if calibration.min_share is None else calibration.min_share
    return replace(rules, min_share=share, min_margin=calibration.min_margin)


def estimate(trusted: Mapping[str, Checked]) -> dict[str, int]:
    """Trusted questions of the run that were drawn and have a usable reference, and those of them whose is wrong."""
    drawn = [one.agrees for one in trusted.values() if one.is_drawn and one.agrees is not None]
    return {"num_questions": len(drawn), "num_wrong": drawn.count(False)}
