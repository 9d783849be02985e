"""The responses to a question -> which answer counts as right. Pure functions on one graded question.

The majority's answer is that of the largest cluster. It must be commoner than every other outcome, having no answer
included, so a tie has none, and the order of the responses does not matter. A reference is *contradicted* if the
majority's answer is another one, has at least `min_share` of the responses and at least `min_margin` more than the next
commonest outcome, was the majority's in the last `stable_rounds` rounds too, as far as the question was asked in them,
and if the pass rate grows by at most `max_slope` a round. A reference that responses cannot be compared with is not
contradicted.

Known limit: a model with a systematic misconception contradicts right references in the same way. Only a trusted set
tells the two apart.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from east_ray.answers.grading import Graded
from east_ray.config import LabelsConfig


class Lead(NamedTuple):
    """The largest cluster, where it has an answer and is larger than every other. Shares are of all responses."""

    place: int
    share: float
    margin: float
    """Its share minus that of the next largest cluster."""


@dataclass(frozen=True)
class Past:
    """A question in an earlier round."""

    number: int
    majority: str | None
    """The answer, as a cluster of this round has it, that was the majority's then; None: none of this round was."""
    pass_rate: float


@dataclass(frozen=True)
class Checked:
    """A question of the trusted set."""

    answer: str
    agrees: bool | None
    """Whether it equals the given reference; None: there is none that responses can be compared with."""
    cluster: int | None
    """The place of its cluster among those of all responses; None: no response has it."""
    is_drawn: bool = True
    """It is no change that was looked up, so that the trusted set is drawn without regard to what was changed."""


@dataclass(frozen=True)
class LabelRules:
    """See the settings of the same names in the section `labels`."""

    source: Literal["reference", "majority"] = "reference"
    policy: Literal["keep", "drop", "relabel", "downweight"] = "keep"
    min_share: float = 0.5
    """Above 1, no answer is common enough."""
    min_margin: float = 0.0
    stable_rounds: int = 1
    max_slope: float | None = None
    factor: float = 0.5

    @property
    def needs_past(self) -> bool:
        """Whether they ask what earlier rounds gave."""
        return self.policy != "keep" and (self.stable_rounds > 1 or self.max_slope is not None)


def label_rules(settings: LabelsConfig) -> LabelRules:
    """The rules that a section `labels` gives."""
    return LabelRules(**settings.model_dump(exclude={"trusted", "collapse"}))


@dataclass(frozen=True)
class Labels:
    """All that the labels of a training depend on, beside the responses."""

    rules: LabelRules = LabelRules()
    number: int = 0
    """Of the round."""
    trusted: Mapping[str, Checked] = field(default_factory=dict)
    """By question_id."""
    past: Mapping[str, Sequence[Past]] = field(default_factory=dict)
    """By question_id, of the questions that are contradicted by this round alone, if the rules ask."""

    @property
    def keep_all(self) -> bool:
        """Whether every given reference counts as it is."""
        return self.rules.source == "reference" and self.rules.policy == "keep" and not self.trusted


@dataclass(frozen=True)
class Label:
    """A row of records.LABEL."""

    action: Literal["relabel", "drop", "downweight", "majority", "trusted"]
    answer: str
    original_reference: str | None
    agrees: bool | None
    reference_cluster: int | None
    share: float | None
    margin: float | None
    slope: float | None = None
    factor: float = 1.0

    @property
    def replaces_reference(self) -> bool:
        """Whether its answer is what counts as right."""
        return self.action in ("relabel", "majority", "trusted")


def lead_of(graded: Graded) -> Lead | None:
    """The majority's answer to a question; None if there is none."""
    if not graded.clusters or graded.clusters[0].answer is None:
        return None
    sizes = [one.num_responses for one in graded.clusters[:2]] + [0]
    num_responses = len(graded.cluster)
    return Lead(0, sizes[0] / num_responses, (sizes[0] - sizes[1]) / num_responses) if sizes[0] > sizes[1] else None


def is_enough(lead: Lead, rules: LabelRules) -> bool:
    """Whether an answer is common enough to be relied on."""
    return lead.share >= rules.min_share and lead.margin >= rules.min_margin


def contradiction(graded: Graded, past: Sequence[Past], number: int, rules: LabelRules) -> Lead | None:
    """The majority's answer if it contradicts the reference; `past` are the earlier rounds with this question."""
    lead = lead_of(graded)
    if lead is None or not graded.can_use_reference or graded.correct_cluster == lead.place:
        return None
    return lead if is_enough(lead, rules) and _is_settled(graded, lead, past, number, rules) else None


def _is_settled(graded: Graded, lead: Lead, past: Sequence[Past], number: int, rules: LabelRules) -> bool:
    """Whether the earlier rounds say the same, as far as the rules ask."""
    if number + 1 < rules.stable_rounds:
        return False
    answer = graded.clusters[lead.place].answer
    if any(one.majority != answer for one in past if one.number > number - rules.stable_rounds):
        return False
    if rules.max_slope is None:
        return True
    slope = slope_of(graded, past, number)
    return slope is not None and slope <= rules.max_slope


def slope_of(graded: Graded, past: Sequence[Past], number: int) -> float | None:
    """By how much the pass rate has grown a round, by least squares; None if the question was not asked before."""
    if not past:
        return None
    rates = [*(one.pass_rate for one in past), pass_rate(graded)]
    return statistics.linear_regression([*(one.number for one in past), number], rates).slope


def pass_rate(graded: Graded) -> float:
    """Share of correct responses; 0 without responses."""
    correct = graded.correct_cluster
    return 0.0 if correct is None else graded.clusters[correct].num_responses / len(graded.cluster)


def with_correct(graded: Graded, place: int | None) -> Graded:
    """The same responses, with the cluster at this place as the correct one; None: no response is correct."""
    clusters = [replace(one, is_correct=at == place) for at, one in enumerate(graded.clusters)]
    return replace(graded, clusters=clusters, can_use_reference=True)


def labelled(
    question_id: str, reference_answer: str | None, graded: Graded, num_responses: int | None, labels: Labels
) -> tuple[Graded, Label | None]:
    """The first `num_responses` responses to a question (None: all) with what counts as right, and what decided it.

    `graded` is of all responses, by the given reference. Without a label, that reference counts, or with
    ``source: majority`` no answer at all.
    """
    first = graded.first(num_responses)
    if labels.keep_all:
        return first, None
    lead, rules = lead_of(first), labels.rules
    share, margin = (None, None) if lead is None else (lead.share, lead.margin)
    label = Label("trusted", "", reference_answer, None, first.correct_cluster, share, margin)
    if (checked := labels.trusted.get(question_id)) is not None:
        right = with_correct(graded, checked.cluster).first(num_responses)
        return right, replace(label, answer=checked.answer, agrees=checked.agrees)
    if rules.source == "majority":
        if lead is None or not is_enough(lead, rules):
            return with_correct(first, None), None
        agrees = first.correct_cluster == lead.place if first.can_use_reference else None
        label = replace(label, action="majority", answer=_answer(first, lead), agrees=agrees)
        return with_correct(first, lead.place), label
    past = labels.past.get(question_id, ())
    if rules.policy == "keep" or (found := contradiction(first, past, labels.number, rules)) is None:
        return first, None
    label = replace(label, action=rules.policy, answer=_answer(first, found), agrees=False)
    if rules.max_slope is not None:
        label = replace(label, slope=slope_of(first, past, labels.number))
    if rules.policy == "downweight":
        label = replace(label, factor=rules.factor)
    return (with_correct(first, found.place) if rules.policy == "relabel" else first), label


def _answer(graded: Graded, lead: Lead) -> str:
    answer = graded.clusters[lead.place].answer
    assert answer is not None, "a majority has an answer"
    return answer


# ---------------------------------------------------------------------------------------------------- what was changed

_SAID = {
    "relabel": "the majority's answer became the reference",
    "drop": "the question was discarded",
    "downweight": "its weight was multiplied by {factor:g}",
    "trusted": "the checked answer became the reference",
}


def is_decided(row: Mapping[str, Any]) -> bool:
    """Whether a label decided about a row of examples/ or discarded/: the factor of a discarded question does not."""
    label = row["label"]
    return label is not None and (label["action"] != "downweight" or row.get("reason") is None)


def change_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row of examples/ or discarded/ -> its row of ``labels/changes.jsonl``; None if nothing was changed.

    That is where the reference counts as given, and with its weight: a question that is discarded has none to multiply.

    The row has the given reference as `reference_answer`, so that it undoes the change as a row of `labels.trusted`.
    """
    label = row["label"]
    if not is_decided(row) or label["agrees"] is not False or label["action"] not in _SAID:
        return None
    clusters, num_responses, place = row["clusters"], row["num_responses"], label["reference_cluster"]
    num_reference = 0 if place is None else clusters[place]["num_responses"]
    done = _SAID[label["action"]].format(factor=label["factor"])
    if label["action"] == "trusted":
        why = f"the trusted set says {label['answer']}, not {label['original_reference']}; {done}"
    else:
        num_majority = round(label["share"] * num_responses)
        why = f"{num_majority} of {num_responses} responses say {label['answer']}, and {num_reference} the reference"
        why += f" {label['original_reference']}; {done}"
    told = {name: label[name] for name in ("action", "share", "margin", "slope", "factor")}
    return {
        "question_id": row["question_id"],
        "question": row["question"],
        "reference_answer": label["original_reference"],
        "new_answer": label["answer"],
        "reference_share": num_reference / num_responses,
        **told,
        "why": why,
    }
