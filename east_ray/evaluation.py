"""Accuracy of models on held-out questions, with intervals, and the paired difference of two models.

Pure functions of answers and arrays; the responses come from the sampling stage (temperature 0).

Axes in names: Q questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray import answers


@dataclass(frozen=True)
class Accuracy:
    """Share of correct answers with its 95 % Wilson interval."""

    num_questions: int
    accuracy: float
    low: float
    high: float
    num_unanswered: int
    num_truncated: int


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of one model minus that of another on the same questions.

    `low` and `high` bound the 95 % paired bootstrap interval; `p_value` is McNemar's exact test, two-sided. Both speak
    of the questions drawn, not of the seed of a training.
    """

    difference: float
    low: float
    high: float
    p_value: float
    num_only_first: int
    num_only_second: int


def judge_response(
    sample: Mapping[str, Any], equivalence: Literal["math", "string"], last_number: bool
) -> dict[str, Any]:
    """A row of samples with one response -> a row of records.ANSWERS."""
    (response,) = sample["responses"]
    answer = answers.extract(response["text"], last_number=last_number).answer
    reference = sample["reference_answer"]
    numbers = answers.cluster([reference, answer], equivalence=equivalence)
    return {
        "model": sample["model"],
        "question_id": sample["question_id"],
        "reference_answer": reference,
        "response": response["text"],
        "finish_reason": response["finish_reason"],
        "answer": answer,
        "is_correct": answer is not None and numbers[0] == numbers[1],
    }


def wilson_interval(num_correct: int, num_questions: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson, 1927): it stays in [0, 1] and holds near its ends."""
    from scipy.stats import binomtest

    interval = binomtest(num_correct, num_questions).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy(is_correct: NDArray[np.bool_], num_unanswered: int, num_truncated: int) -> Accuracy:
    """(Q,) correctness of one model -> its accuracy. Raises ValueError without questions."""
    if is_correct.size == 0:
        raise ValueError("accuracy needs at least one question")
    low, high = wilson_interval(int(is_correct.sum()), is_correct.size)
    return Accuracy(is_correct.size, float(is_correct.mean()), low, high, num_unanswered, num_truncated)


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], *, seed: int = 0, num_resamples: int = 10_000
) -> PairedDifference:
    """(Q,) correctness of two models on the same questions, in the same order -> first minus second.

    A resample of Q questions depends only on how many of them each model alone has right, so it is drawn from the
    multinomial of those counts: the exact bootstrap distribution, at a cost that does not grow with Q.
    """
    from scipy.stats import binomtest

    if first.shape != second.shape or first.size == 0:
        raise ValueError(
            f"expected two equally long arrays of at least one question, got {first.shape}, {second.shape}"
        )
    size = first.size
    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(second & ~first))
    shares = np.array([only_first, only_second, size - only_first - only_second]) / size
    draws = np.random.default_rng(seed).multinomial(size, shares, size=num_resamples)
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / size, [2.5, 97.5])
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return PairedDifference(
        (only_first - only_second) / size, float(low), float(high), p_value, only_first, only_second
    )


def metrics(table: pa.Table, models: Sequence[str], seed: int) -> dict[str, Any]:
    """records.ANSWERS of several models on the same questions -> accuracy of each and all paired differences.

    The rows of each model must be in the same order of questions. Differences are of each later model minus each
    earlier one, by the order of `models`.
    """
    by_model = {name: table.filter(pc.equal(table["model"], name)) for name in models}
    correct = {name: rows["is_correct"].to_numpy(zero_copy_only=False) for name, rows in by_model.items()}
    ids = {name: rows["question_id"].to_pylist() for name, rows in by_model.items()}
    assert all(ids[name] == ids[models[0]] for name in models), "the models answered different questions"
    return {
        "accuracy": {
            name: asdict(
                accuracy(
                    correct[name],
                    num_unanswered=rows["answer"].null_count,
                    num_truncated=pc.sum(pc.equal(rows["finish_reason"], "length")).as_py(),
                )
            )
            for name, rows in by_model.items()
        },
        "differences": [
            {"first": later, "second": earlier} | asdict(paired_difference(correct[later], correct[earlier], seed=seed))
            for index, later in enumerate(models)
            for earlier in models[:index]
        ],
    }
