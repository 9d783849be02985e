r"""Responses to one question -> clusters of their answers, entropy, and the majority answer or an abstention.

Clusters and entropy are computed as in training, but without a reference answer. Pure.

>>> from east_ray.answers import graders
>>> from east_ray.config import AnswersConfig
>>> solving = Solving(Question("", "What is 1/2?"), graders.load(AnswersConfig()))
>>> solving.add([ServedResponse(r"\boxed{1/2}", 5), ServedResponse(r"\boxed{0.5}", 4), ServedResponse(r"\boxed{3}", 4)])
>>> solution = solving.solution()
>>> solution.answer, round(solution.share, 3), round(solution.entropy, 3), len(solution.clusters)
('1/2', 0.667, 0.637, 2)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from east_ray.answers.grading import Grader, Tally, measured
from east_ray.records import Question


@dataclass(frozen=True)
class ServedResponse:
    """A finished response of the model."""

    text: str
    num_tokens: int
    is_truncated: bool = False
    """The response was cut at the length limit, so its answer may be missing."""


@dataclass(frozen=True)
class ServedCluster:
    """Responses with equal answers."""

    answer: str | None
    """The answer as the first response of the cluster writes it; None: no answer was found."""
    num_responses: int
    share: float
    """Share of all responses."""
    response: str | None
    """The text of the first response; None in a stream until all responses are in."""


@dataclass(frozen=True)
class Solution:
    """The result of all responses to a question together."""

    answer: str | None
    """The majority answer, or the first of equally frequent ones. None if no response has one, or if `abstained`."""
    share: float
    """Share of the responses that give the majority answer, also when it is withheld; 0 if there is none."""
    entropy: float
    """Entropy of the answers in nats: 0 if all agree, at most ln(number of clusters)."""
    abstained: bool
    """There is a majority answer, but the entropy is above the request's bound."""
    num_responses: int
    num_answerless: int
    num_truncated: int
    num_tokens: int
    """Number of tokens of all responses."""
    clusters: list[ServedCluster]
    """Largest first; of equal size, the one whose first response came first."""


class Solving:
    """The responses to one question as they arrive, and the solution so far. Each response is read once."""

    def __init__(
        self,
        question: Question,
        grader: Grader,
        *,
        no_answer: Literal["cluster", "exclude"] = "cluster",
        abstain_above: float | None = None,
    ) -> None:
        """With `no_answer: exclude` the entropy leaves out responses without an answer.

        `abstain_above` is the largest entropy, in nats, with which an answer is given; None: always.
        """
        self._tally = Tally(question, grader)
        self._no_answer, self._abstain_above = no_answer, abstain_above
        self._responses: list[ServedResponse] = []

    def add(self, responses: Sequence[ServedResponse]) -> None:
        """Add responses in the order in which they came."""
        self._tally.add([response.text for response in responses])
        self._responses += responses

    def solution(self) -> Solution:
        """The solution by all responses so far; without responses, no answer and entropy 0."""
        graded, num_responses = self._tally.graded(), len(self._responses)
        answered = [cluster for cluster in graded.clusters if cluster.answer is not None]
        entropy = measured("", graded.clusters, self._no_answer).entropy
        majority = answered[0] if answered else None
        abstained = majority is not None and self._abstain_above is not None and entropy > self._abstain_above
        first: dict[int, int] = {}
        for index, place in enumerate(graded.cluster):
            first.setdefault(place, index)
        return Solution(
            answer=majority.answer if majority and not abstained else None,
            share=majority.num_responses / num_responses if majority else 0.0,
            entropy=entropy,
            abstained=abstained,
            num_responses=num_responses,
            num_answerless=graded.answers.count(None),
            num_truncated=sum(response.is_truncated for response in self._responses),
            num_tokens=sum(response.num_tokens for response in self._responses),
            clusters=[
                ServedCluster(
                    cluster.answer,
                    cluster.num_responses,
                    cluster.num_responses / num_responses,
                    self._responses[first[place]].text,
                )
                for place, cluster in enumerate(graded.clusters)
            ],
        )
