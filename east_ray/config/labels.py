"""The section `labels`: which answer counts as a question's right one, where its reference may be wrong or missing."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from east_ray.config.base import ANY_TIME, MayChange, Section

_Share = Annotated[float, Field(gt=0, le=1)]
#: Which questions are asked depends on it.
_UNTIL_WEIGHED = MayChange(until=("examples",), remakes=("questions", "sampling", "answers"))


class LabelsConfig(Section):
    """Which answer to a question counts as right. A reference is contradicted if another answer has `min_share` of the
    responses, is commoner than every other outcome by `min_margin`, and meets `stable_rounds` and `max_slope`."""

    source: Annotated[Literal["reference", "majority"], _UNTIL_WEIGHED] = "reference"
    """reference: the reference answer; majority: no reference is needed, and the commonest answer stands in where it
    has `min_share` of the responses and `min_margin`. Questions without such an answer are discarded."""
    policy: Literal["keep", "drop", "relabel", "downweight"] = "keep"
    """What becomes of a question whose reference is contradicted. keep: nothing; drop: it is discarded; relabel: the
    commonest answer becomes its reference; downweight: its weight is multiplied by `factor`."""
    min_share: _Share = 0.5
    """Least share of the responses that the commonest answer has, to contradict a reference or to stand in for one.
    The audit lists questions by it, whatever the policy."""
    min_margin: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Least difference between its share and that of the next commonest outcome, the reference and no answer too."""
    stable_rounds: Annotated[int, Field(ge=1)] = 1
    """It was the commonest in so many last rounds, this one included, as far as the question was asked in them. Before
    so many rounds nothing is contradicted."""
    max_slope: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The pass rate grows by at most this a round (least squares over the rounds in which the question was asked; with
    one alone nothing is contradicted). By default it is not asked."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of the policy downweight: the weight of a contradicted question is multiplied by this before normalizing. In
    place of 0 there is the policy drop."""
    trusted: str | None = None
    """A file of questions whose answers you have checked (`question_id` or `question`, and `reference_answer`; one
    whose id is not in the run is found by its text). Where one of them is asked, this answer counts in place of the
    given reference, which may be missing, and no policy touches it. They say how many references are wrong; from 30 of
    them on, they choose `min_share` and `min_margin`, if others are shown to be better than those that are set here. A
    run of one round in which none of them is asked ends with an error."""
    collapse: Annotated[Literal["stop", "warn", "ignore"], ANY_TIME] = "stop"
    """Of several rounds with source: majority, when the answers grow alike without growing right, or fewer held-out
    questions are answered than before. stop: the run ends, and says which model was the best; warn: it says so and goes
    on; ignore: it goes on. Give `evaluation.questions`: without any it can only warn."""

    @property
    def decides(self) -> bool:
        """Whether another answer than the given reference may count as right."""
        return self.source == "majority" or self.policy != "keep" or self.trusted is not None

    def _problems(self) -> Iterator[str]:
        if self.source == "majority" and self.policy != "keep":
            yield f"policy: {self.policy} needs references; with source: majority it must be keep"

    def problems_of_rounds(self, rounds: int) -> Iterator[str]:
        """What asks for more rounds than a run has."""
        if self.policy == "keep":
            return
        had = f"and rounds is {rounds}, so no reference would be contradicted"
        if rounds < self.stable_rounds:
            yield f"labels.stable_rounds: {self.stable_rounds} needs as many rounds, {had}"
        if self.max_slope is not None and rounds == 1:
            yield f"labels.max_slope: {self.max_slope:g} needs two rounds at least, {had}"
