r"""Responses to one question -> clusters of their answers, entropy, and the majority answer or an abstention.

The same clusters and the same entropy as training has them (selection.py), without a reference answer. Pure.

>>> solution = solve([Response(r"\boxed{1/2}", 5), Response(r"\boxed{0.5}", 4), Response(r"\boxed{3}", 4)])
>>> solution.answer, round(solution.share, 3), round(solution.entropy, 3), len(solution.clusters)
('1/2', 0.667, 0.637, 2)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from east_ray import answers, weighting
from east_ray.config import AnswersConfig


@dataclass(frozen=True)
class Response:
    """A finished response of the model."""

    text: str
    num_tokens: int
    is_truncated: bool = False
    """Cut at the longest allowed length, so that its answer may be missing."""


@dataclass(frozen=True)
class Cluster:
    """Responses whose answers are mathematically equal."""

    answer: str | None
    """As the first of them writes it; None: no answer was found."""
    num_responses: int
    share: float
    """Of all responses."""
    response: str
    """The first of them."""


@dataclass(frozen=True)
class Solution:
    """What the responses to a question say together."""

    answer: str | None
    """The majority answer, the first to appear among equals; None if no response has one, or `abstained`."""
    share: float
    """Share of the responses that give the majority answer, withheld or not; 0 if there is none."""
    entropy: float
    """Of the answers, in nats: 0 if all agree, at most ln(number of clusters)."""
    abstained: bool
    """An answer there is, but the entropy is above what the request allows."""
    num_responses: int
    num_answerless: int
    num_truncated: int
    num_tokens: int
    """Of all responses."""
    clusters: list[Cluster]
    """Largest first; of equal size, the one that came first."""


def solve(
    responses: Sequence[Response], rules: AnswersConfig | None = None, abstain_above: float | None = None
) -> Solution:
    """Cluster the answers of the responses; answer with the largest cluster unless the entropy is above the bound.

    Args:
        responses: In the order in which they came; none of them have entropy 0 and no answer.
        rules: How answers are found and compared; `no_answer: exclude` leaves responses without one out of the entropy.
        abstain_above: Nats; None never abstains.
    """
    rules = rules or AnswersConfig()
    texts = dict.fromkeys(response.text for response in responses)
    by_text = {text: answers.extract(text, last_number=rules.last_number).answer for text in texts}
    found = [by_text[response.text] for response in responses]
    members: dict[int, list[int]] = {}
    for index, number in enumerate(answers.cluster(found, equivalence=rules.equivalence)):
        members.setdefault(number, []).append(index)
    groups = sorted(members.values(), key=lambda group: (-len(group), group[0]))
    answered = [group for group in groups if found[group[0]] is not None]
    counted = groups if rules.no_answer == "cluster" else answered
    entropy = weighting.entropy([len(group) for group in counted])
    majority = answered[0] if answered else []
    abstained = bool(majority) and abstain_above is not None and entropy > abstain_above
    return Solution(
        answer=found[majority[0]] if majority and not abstained else None,
        share=len(majority) / max(1, len(responses)),
        entropy=entropy,
        abstained=abstained,
        num_responses=len(responses),
        num_answerless=found.count(None),
        num_truncated=sum(response.is_truncated for response in responses),
        num_tokens=sum(response.num_tokens for response in responses),
        clusters=[
            Cluster(found[group[0]], len(group), len(group) / len(responses), responses[group[0]].text)
            for group in groups
        ],
    )
