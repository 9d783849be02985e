"""What follows for a question, from the responses that it has: how many more, or why it ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from east_ray.answers import graders
from east_ray.answers.grading import Grader, clustered
from east_ray.config import Config
from east_ray.config.adaptive import AdaptiveConfig
from east_ray.records import Question, Stopped
from east_ray.sampling.adaptive import Step, local_rule


@dataclass(frozen=True)
class Adaptive:
    """An adaptive number of responses: the settings of its rule, and the grader that tells answers apart."""

    settings: AdaptiveConfig
    grader: Grader


def adaptive_of(config: Config) -> Adaptive | None:
    """That of a run; None: every question gets the same number. Raises InputError as `graders.load` does."""
    settings = config.sampling.adaptive
    return None if settings is None else Adaptive(settings, graders.load(config.answers))


def cluster_sizes(row: Mapping[str, Any], grader: Grader) -> list[int]:
    """The sizes of the clusters that ``answers/`` would have of the responses so far, those without an answer included.

    The latter are a cluster here even where `answers.no_answer` keeps them out of the entropy: then more is asked, not
    less. The grader sees the reference answer as it does there: it may tell how an answer is written, e.g. as an
    option. What is correct goes no further.
    """
    texts = [response["text"] for response in row["responses"]]
    return [cluster.num_responses for cluster in clustered(texts, Question.of(row), grader).clusters]


def next_step(row: Mapping[str, Any], adaptive: Adaptive | None, most: int) -> Step:
    """What follows for a row of SAMPLES whose `responses` may still be none.

    In a wave of a budget it has `num_wanted`, the responses that it gets now; more may follow in the next wave. Once a
    row says why it ended, only a budget gives it more.
    """
    num_responses, stopped = len(row["responses"]), row.get("stopped_because")
    if stopped is not None and stopped != Stopped.BUDGET:
        return Step(0, stopped)
    if num_responses >= most:
        return Step(0, Stopped.ALL)
    if adaptive is None:
        return Step(most - num_responses, None)
    if adaptive.settings.budget is not None:
        num_more = row["num_wanted"] - num_responses
        return Step(num_more, None) if num_more > 0 else Step(0, Stopped.BUDGET)
    rule = local_rule(adaptive.settings, most)
    assert rule is not None
    if num_responses < rule.first:
        return Step(rule.first - num_responses, None)
    return rule.next_step(cluster_sizes(row, adaptive.grader))
