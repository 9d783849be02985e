"""What models can do on held-out questions, with intervals, and the paired difference of two models.

    accuracy    share of questions answered correctly at temperature 0
    pass@k      chance that at least one of k sampled responses is correct (Chen et al., 2021, arXiv 2107.03374)
    maj@k       chance that the commonest answer of k sampled responses is correct (Wang et al., 2022, arXiv 2203.11171)

Pure functions of answers and arrays; the responses come from the sampling stage. All intervals speak of the questions
drawn, for the models as they are; what another training would have given is the subject of comparison.py.

Axes in shapes: Q questions, V values of a question, K values of k.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

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


# ------------------------------------------------------------------------------------------------------- one question


def judge_response(sample: Mapping[str, Any], equivalence: answers.Equivalence, last_number: bool) -> dict[str, Any]:
    """A row of samples with one response -> a row of records.GREEDY_ANSWERS."""
    (response,) = sample["responses"]
    answer = answers.extract(response["text"], last_number=last_number).answer
    reference = sample["reference_answer"]

    def is_correct(equivalence: answers.Equivalence) -> bool:
        numbers = answers.cluster([reference, answer], equivalence=equivalence)
        return answer is not None and numbers[0] == numbers[1]

    return {
        "model": sample["model"],
        "question_id": sample["question_id"],
        "level": sample["level"],
        "subject": sample["subject"],
        "reference_answer": reference,
        "response": response["text"],
        "finish_reason": response["finish_reason"],
        "answer": answer,
        "is_correct": is_correct(equivalence),
        "is_correct_by_string": is_correct("string"),
    }


def judge_responses(sample: Mapping[str, Any], equivalence: answers.Equivalence, last_number: bool) -> dict[str, Any]:
    """A row of samples with several responses -> a row of records.SAMPLED_ANSWERS; clusters as selection.judge has."""
    responses, reference = sample["responses"], sample["reference_answer"]
    by_text = {text: answers.extract(text, last_number=last_number).answer for text in {r["text"] for r in responses}}
    found = [by_text[response["text"]] for response in responses]
    parsable = answers.is_parsable_reference(reference)
    # The reference goes first, so that its cluster has number 0 and holds exactly the correct responses.
    numbers = answers.cluster([reference if parsable else None, *found], equivalence=equivalence)[1:]
    first_answer = dict(zip(reversed(numbers), reversed(found), strict=True))
    clusters = [
        {"answer": first_answer[number], "num_responses": size, "is_correct": parsable and number == 0}
        for number, size in Counter(numbers).most_common()  # of equal size, the one that came first
    ]
    return {
        "model": sample["model"],
        "question_id": sample["question_id"],
        "level": sample["level"],
        "subject": sample["subject"],
        "num_responses": len(responses),
        "num_correct": sum(cluster["num_responses"] for cluster in clusters if cluster["is_correct"]),
        "num_answerless": found.count(None),
        "num_truncated": sum(response["finish_reason"] == "length" for response in responses),
        "clusters": clusters,
    }


def pass_at_k(num_responses: NDArray[np.int64], num_correct: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """(Q,) responses n and correct ones c -> (Q,) unbiased estimates of pass@k.

    1 - C(n - c, k) / C(n, k): the share of all draws of k from the n responses that hold a correct one (Chen et al.,
    2021, arXiv 2107.03374, equation 1), as a product of k factors of at most 1, which neither overflows nor cancels.
    Raises ValueError if k is not between 1 and every n.

    >>> pass_at_k(np.array([4, 4]), np.array([1, 3]), k=2)
    array([0.5, 1. ])
    """
    if not 1 <= k <= np.min(num_responses):
        raise ValueError(f"pass@{k}: k must be from 1 to the number of responses, {np.min(num_responses)}")
    all_wrong = np.ones(len(num_responses))
    num_wrong = num_responses - num_correct
    for drawn in range(k):
        all_wrong *= np.maximum(num_wrong - drawn, 0) / (num_responses - drawn)
    return 1.0 - all_wrong


#: Beyond this many responses 2**-n leaves floating point.
MAX_RESPONSES_VOTING = 1000


@lru_cache(maxsize=4)
def _binomials(num_responses: int) -> NDArray[np.float64]:
    """C(s, i) / 2**s in row s, column i, for s up to `num_responses`: binomial coefficients that do not overflow."""
    rows = np.zeros((num_responses + 1, num_responses + 1))
    rows[0, 0] = 1.0
    for size in range(1, num_responses + 1):
        rows[size] = rows[size - 1] / 2
        rows[size, 1:] += rows[size - 1, :-1] / 2
    return rows


def maj_at_k(
    num_responses_per_cluster: Sequence[int],
    correct_cluster_index: int | None,
    k: Sequence[int],
    num_answerless: int = 0,
) -> NDArray[np.float64]:
    """Clusters of one question's n answers -> (K,) estimates of maj@k, one for each k.

    The chance that the majority vote of k responses, drawn without replacement from the n, is correct: each draw of k
    counts 1 if the correct cluster alone has the most votes and 1 / num_tied if it shares them. Responses without an
    answer (`num_answerless`, in no cluster) may be drawn and do not vote. Without a correct cluster all is 0. As a mean
    over all draws it is an unbiased estimate of the vote of k fresh responses; k = 1 gives the pass rate, k = n the
    vote of all responses.

    The result is exact up to rounding (below 1e-12), for all k in one pass: with v votes for the correct cluster, the
    number of ways in which each rival has at most v, by responses drawn and rivals tied, is a product of polynomials;
    clusters of fewer than v responses are no rivals and count as one with the answerless (Vandermonde). All terms are
    positive, so nothing cancels. Raises ValueError if a k is not from 1 to n, or n is over MAX_RESPONSES_VOTING.

    >>> maj_at_k([2, 1, 1], 0, k=[1, 2, 4])
    array([0.5, 0.5, 1. ])
    """
    total = sum(num_responses_per_cluster) + num_answerless
    if not all(1 <= drawn <= total for drawn in k):
        raise ValueError(f"maj@k: each k must be from 1 to the number of responses, {total}; found {list(k)}")
    if total > MAX_RESPONSES_VOTING:
        raise ValueError(f"maj@k: at most {MAX_RESPONSES_VOTING} responses per question can vote, found {total}")
    if correct_cluster_index is None:
        return np.zeros(len(k))
    wrong = list(num_responses_per_cluster)
    correct = wrong.pop(correct_cluster_index)
    binomials = _binomials(total)
    won = np.zeros(total + 1)  # by responses drawn
    for votes in range(1, min(correct, max(k)) + 1):
        rivals = [size for size in wrong if size >= votes]
        others = total - correct - sum(rivals)
        # Rows: rivals tied; columns: responses drawn, total + 1 of them. Flat, a product with a polynomial is one
        # convolution, and no row runs into the next, since the sizes of all clusters add up to no more than `total`.
        ways = np.zeros((len(rivals) + 1) * (total + 1))
        ways[votes : votes + others + 1] = binomials[correct, votes] * binomials[others, : others + 1]
        tie = total + 1 + votes  # one row down, `votes` columns on
        for size in rivals:
            tied = binomials[size, votes] * ways[:-tie]
            ways[:] = np.convolve(ways, binomials[size, :votes])[: ways.size]
            ways[tie:] += tied
        won += np.sum(ways.reshape(-1, total + 1) / np.arange(1, len(rivals) + 2)[:, None], axis=0)
    return np.asarray(won[list(k)] / binomials[total, list(k)])


# ---------------------------------------------------------------------------------------------------- many questions


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


def mean_interval(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(Q, V) values in [0, 1] of questions -> (2, V) low and high ends of the 95 % intervals of their means.

    Wilson's interval for as many questions as would tell as much if each value were 0 or 1: Q p (1 - p) / variance, the
    effective sample size of survey statistics (Kish, 1965). For values of 0 and 1 it is `wilson_interval`. Near 0 and
    1, where pass@k often is, it covers better than the percentile bootstrap, and it does not shrink to a point where
    all questions are solved. Known limit: it is too narrow where a few questions, which may be missing from the sample,
    make all of the difference from 0 or 1 (86 % in a simulation of pass@8 = 0.994 with 200 questions).
    """
    z = 1.959963984540054  # the 97.5 % quantile of the normal distribution
    mean = values.mean(axis=0)
    binary_variance = mean * (1 - mean)
    told = binary_variance > 1e-9
    variance_ratio = np.divide(values.var(axis=0), binary_variance, out=np.ones_like(mean), where=told)
    room = z**2 * variance_ratio / len(values)
    half_width = np.sqrt(room * (binary_variance + room / 4))
    centre = mean + room / 2
    return np.asarray(np.clip(np.stack([centre - half_width, centre + half_width]) / (1 + room), 0, 1))


def bootstrap_means(values: NDArray[np.float64], *, seed: int = 0, num_resamples: int = 2000) -> NDArray[np.float64]:
    """(Q, V) values of questions -> (num_resamples, V) means over Q questions drawn with replacement.

    All columns share the draws, so that the difference of two columns is that of a paired bootstrap. A resample is a
    row of counts, and all of them are one matrix product, in parts of bounded memory.
    """
    size = len(values)
    rng = np.random.default_rng(seed)
    parts = []
    rows_per_part = max(1, 2**22 // size)
    for start in range(0, num_resamples, rows_per_part):
        rows = min(rows_per_part, num_resamples - start)
        drawn = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        parts.append(counts @ values / size)
    return np.concatenate(parts)


def percentile_interval(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """(num_resamples, V) bootstrap means -> (2, V) low and high ends of the 95 % percentile intervals."""
    return np.asarray(np.percentile(means, [2.5, 97.5], axis=0))


# ------------------------------------------------------------------------------------------------------------- tables


def metrics(table: pa.Table, models: Sequence[str], seed: int, sampled: pa.Table | None = None) -> dict[str, Any]:
    """records.GREEDY_ANSWERS of several models on the same questions, and SAMPLED_ANSWERS if there are -> metrics.json.

    accuracy             {model: Accuracy and accuracy_by_string}
    differences          paired, of each later model minus each earlier one, by the order of `models`
    groups               accuracy of each model on each level and subject, with Wilson intervals
    sampled, sampled_differences    see `sampled_metrics`; only with `sampled`

    The rows of each model must be in the same order of questions.
    """
    by_model = _by_model(table, models)
    correct = {name: rows["is_correct"].to_numpy(zero_copy_only=False) for name, rows in by_model.items()}
    return {
        "accuracy": {
            name: asdict(
                accuracy(
                    correct[name],
                    num_unanswered=rows["answer"].null_count,
                    num_truncated=pc.sum(pc.equal(rows["finish_reason"], "length")).as_py(),
                )
            )
            | {"accuracy_by_string": pc.mean(rows["is_correct_by_string"]).as_py()}
            for name, rows in by_model.items()
        },
        "differences": [
            {"first": later, "second": earlier} | asdict(paired_difference(correct[later], correct[earlier], seed=seed))
            for later, earlier in _pairs(models)
        ],
        "groups": [group for name, rows in by_model.items() for group in _groups(name, rows)],
    } | ({} if sampled is None else sampled_metrics(sampled, models, seed))


def sampled_metrics(table: pa.Table, models: Sequence[str], seed: int) -> dict[str, Any]:
    """records.SAMPLED_ANSWERS of several models on the same questions -> pass@k and maj@k of each, and differences.

    k is 1, 2, 4, … and n, the least number of responses to a question. `low` and `high` bound 95 % intervals: of each
    model by `mean_interval`, of the differences, each later model minus each earlier one, by the paired percentile
    bootstrap. What other responses would have changed is in them too, since each question brings its own.
    """
    by_model = _by_model(table, models)
    num_responses = pc.min(table["num_responses"]).as_py()
    k = [*(2**power for power in range(num_responses.bit_length()) if 2**power < num_responses), num_responses]
    names = [f"{metric}@{drawn}" for metric in ("pass", "maj") for drawn in k]
    values = {name: np.hstack([_pass_at(rows, k), _maj_at(rows, k)]) for name, rows in by_model.items()}
    pairs = _pairs(models)
    means = {}
    if pairs:
        resampled = bootstrap_means(np.hstack(list(values.values())), seed=seed)
        means = dict(zip(models, np.hsplit(resampled, len(models)), strict=True))

    def of_model(name: str, rows: pa.Table) -> dict[str, Any]:
        low, high = mean_interval(values[name])
        at = [
            {"k": drawn, "value": float(value), "low": float(bottom), "high": float(top)}
            for drawn, value, bottom, top in zip(k * 2, values[name].mean(axis=0), low, high, strict=True)
        ]
        asked = pc.sum(rows["num_responses"]).as_py()
        return {
            "num_responses": num_responses,
            "truncated_share": pc.sum(rows["num_truncated"]).as_py() / asked,
            "answerless_share": pc.sum(rows["num_answerless"]).as_py() / asked,
            "pass_at": at[: len(k)],
            "maj_at": at[len(k) :],
        }

    def of_pair(later: str, earlier: str) -> list[dict[str, Any]]:
        low, high = percentile_interval(means[later] - means[earlier])
        difference = (values[later] - values[earlier]).mean(axis=0)
        return [
            {"first": later, "second": earlier, "metric": name}
            | {"difference": float(value), "low": float(bottom), "high": float(top)}
            for name, value, bottom, top in zip(names, difference, low, high, strict=True)
        ]

    return {
        "sampled": {name: of_model(name, rows) for name, rows in by_model.items()},
        "sampled_differences": [row for later, earlier in pairs for row in of_pair(later, earlier)],
    }


def _by_model(table: pa.Table, models: Sequence[str]) -> dict[str, pa.Table]:
    by_model = {name: table.filter(pc.equal(table["model"], name)) for name in models}
    ids = by_model[models[0]]["question_id"].to_pylist()
    same = all(rows["question_id"].to_pylist() == ids for rows in by_model.values())
    assert same, "the models answered different questions"
    return by_model


def _pairs(models: Sequence[str]) -> list[tuple[str, str]]:
    """Each later model with each earlier one."""
    return [(later, earlier) for index, later in enumerate(models) for earlier in models[:index]]


def _groups(name: str, rows: pa.Table) -> list[dict[str, Any]]:
    """Accuracy of a model on the questions of each level and each subject, where the source has them."""
    groups = []
    for column in ("level", "subject"):
        counted = rows.filter(pc.is_valid(rows[column])).group_by(column)
        counted = counted.aggregate([("is_correct", "sum"), ("is_correct", "count")]).sort_by(column)
        for row in counted.to_pylist():
            num_correct, num_questions = row["is_correct_sum"], row["is_correct_count"]
            low, high = wilson_interval(num_correct, num_questions)
            groups.append(
                {"model": name, "column": column, "group": row[column], "num_questions": num_questions}
                | {"accuracy": num_correct / num_questions, "low": low, "high": high}
            )
    return groups


def _pass_at(rows: pa.Table, k: Sequence[int]) -> NDArray[np.float64]:
    """records.SAMPLED_ANSWERS of one model -> (Q, K) pass@k."""
    num_responses, num_correct = (rows[name].to_numpy() for name in ("num_responses", "num_correct"))
    return np.stack([pass_at_k(num_responses, num_correct, drawn) for drawn in k], axis=1)


def _maj_at(rows: pa.Table, k: Sequence[int]) -> NDArray[np.float64]:
    """records.SAMPLED_ANSWERS of one model -> (Q, K) maj@k, computed once for questions whose clusters are alike."""
    ends = np.cumsum(pc.list_value_length(rows["clusters"]).to_numpy())[:-1]
    clusters = pc.list_flatten(rows["clusters"])
    sizes = np.split(pc.struct_field(clusters, "num_responses").to_numpy(), ends)
    answered = np.split(pc.struct_field(clusters, "answer").is_valid().to_numpy(zero_copy_only=False), ends)
    is_correct = np.split(pc.struct_field(clusters, "is_correct").to_numpy(zero_copy_only=False), ends)
    known: dict[tuple[tuple[int, ...], int | None, int], NDArray[np.float64]] = {}
    values = []
    for index, num_answerless in enumerate(rows["num_answerless"].to_pylist()):
        voting = tuple(sizes[index][answered[index]].tolist())
        correct = np.flatnonzero(is_correct[index][answered[index]]).tolist()
        profile = (voting, correct[0] if correct else None, num_answerless)
        if profile not in known:
            known[profile] = maj_at_k(*profile[:2], k, num_answerless)
        values.append(known[profile])
    return np.stack(values)
