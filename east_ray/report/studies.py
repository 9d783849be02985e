"""What the rows of a run say about the method itself: the questions that a reader of its results asks.

    disagreements, errors_by_entropy        does entropy see something that the pass rate does not?
    measure_prefixes, fewer_responses       how many responses per question are enough?
    weights_over_rounds                     do the weights settle, round after round?
    steps_by_entropy                        how often are right answers reached by wrong steps, and where?

All results are dataclasses of numbers and texts: `dataclasses.asdict` makes JSON of them. Intervals are 95 % Wilson
intervals; None stands where a quantity does not exist, such as the correlation with a constant.

Axes in names: Q questions, S sizes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray import answers, weighting
from east_ray.evaluation.estimators import wilson_interval
from east_ray.examples import part_groups, spread
from east_ray.records import Reason
from east_ray.report.audit import fetch_responses
from east_ray.selection import SelectionRules, reason_to_discard
from east_ray.storage import Folder

_QUESTIONS_AT_ONCE = 1024
_SAMPLES_AT_ONCE = 64  # with all their responses

# ------------------------------------------------------------------------------------------------ shares by entropy


@dataclass(frozen=True)
class Share:
    """The share of some questions that something is true of."""

    num_questions: int
    num_true: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Quartile:
    """The share among the questions whose entropy, in nats, lies between these two, both included."""

    min_entropy: float
    max_entropy: float
    share: Share


@dataclass(frozen=True)
class ByEntropy:
    """A share among all questions (None if there is none) and by quartile of their entropies."""

    overall: Share | None
    quartiles: list[Quartile]


def by_entropy(entropies: NDArray[np.float64], is_true: NDArray[np.bool_]) -> ByEntropy:
    """(Q,) entropies in nats, and of which of the questions something is true -> shares.

    Equal entropies stay in one quartile, so quartiles differ in size where many are equal, and there may be fewer.
    """
    if entropies.size == 0:
        return ByEntropy(None, [])
    quartile = np.searchsorted(np.quantile(entropies, [0.25, 0.5, 0.75]), entropies)
    groups = [quartile == number for number in np.unique(quartile)]
    return ByEntropy(
        _share(is_true),
        [Quartile(float(entropies[g].min()), float(entropies[g].max()), _share(is_true[g])) for g in groups],
    )


def _share(is_true: NDArray[np.bool_]) -> Share:
    num_true = int(is_true.sum())
    low, high = wilson_interval(num_true, is_true.size)
    return Share(is_true.size, num_true, num_true / is_true.size, low, high)


def _share_of_any(is_true: NDArray[np.bool_]) -> Share | None:
    return _share(is_true) if is_true.size else None


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Spearman's; None if either is constant."""
    from scipy.stats import spearmanr

    if first.size < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)


# -------------------------------------------------------------------------------------------- entropy and pass rate

Errors = Literal["none", "few", "stubborn", "diverse"]


def errors(clusters: Iterable[Mapping[str, Any]], min_wrong: int = 5) -> Errors:
    """How the wrong answers of a question (records.CLUSTER) are spread.

    none: no answer is wrong. few: fewer than `min_wrong` are, too few to tell. stubborn: at least half of the wrong
    answers are one and the same. diverse: no wrong answer is that common. No answer at all is not a wrong answer.
    """
    wrong = [c["num_responses"] for c in clusters if not c["is_correct"] and c["answer"] is not None]
    if not wrong:
        return "none"
    if sum(wrong) < min_wrong:
        return "few"
    return "stubborn" if 2 * max(wrong) >= sum(wrong) else "diverse"


@dataclass(frozen=True)
class ErrorStudy:
    """Kinds of `errors` of all sampled questions, kept or discarded, and the stubborn among stubborn and diverse."""

    num_questions: dict[Errors, int]
    stubborn: ByEntropy


def errors_by_entropy(examples: Folder, discarded: Folder, min_wrong: int = 5) -> ErrorStudy:
    """Stubborn against diverse errors: at equal pass rates, entropy is what tells them apart.

    Questions without a usable reference answer, or without samples, are left out.
    """
    kinds: dict[Errors, int] = {"none": 0, "few": 0, "stubborn": 0, "diverse": 0}
    entropies: list[float] = []
    is_stubborn: list[bool] = []
    for folder in (examples, discarded):
        # examples/ has no column `reason`; a column that is not there is not read
        for batch in folder.batches(["entropy", "clusters", "reason"], max_rows=_QUESTIONS_AT_ONCE):
            for row in batch.to_pylist():
                if row["clusters"] is None or row.get("reason") == Reason.UNPARSABLE_REFERENCE:
                    continue
                kind = errors(row["clusters"], min_wrong)
                kinds[kind] += 1
                if kind in ("stubborn", "diverse"):
                    entropies.append(row["entropy"])
                    is_stubborn.append(kind == "stubborn")
    return ErrorStudy(kinds, by_entropy(np.array(entropies, np.float64), np.array(is_stubborn, np.bool_)))


@dataclass(frozen=True)
class ShownCluster:
    """A cluster with one of its responses; answer None: no answer was found."""

    answer: str | None
    num_responses: int
    is_correct: bool
    response: str | None


@dataclass(frozen=True)
class Disagreement:
    """A question that the two signals weight differently. Both weights have exponent 1 and mean 1."""

    question_id: str
    question: str
    reference_answer: str | None
    entropy: float
    pass_rate: float
    entropy_weight: float
    accuracy_weight: float
    errors: Errors
    clusters: list[ShownCluster]
    """The largest ones, and that of the reference answer, largest first."""


@dataclass(frozen=True)
class Disagreements:
    """The kept questions that differ most, in both directions, and how far the two weightings agree on all."""

    num_questions: int
    rank_correlation: float | None
    mean_difference: float
    """Mean over the questions of the absolute difference of the two weights."""
    heavier_by_entropy: list[Disagreement]
    heavier_by_accuracy: list[Disagreement]


def disagreements(
    examples: Folder, samples: Folder, rules: SelectionRules, *, max_questions: int = 50, max_clusters: int = 4
) -> Disagreements:
    """Where entropy and 1 - pass rate weight the kept questions of a round most differently.

    Args:
        max_questions: shown for each direction.
        max_clusters: shown for each question, besides that of the reference answer.

    Raises:
        ValueError: as `weighting.weights`, if the questions have no weights, e.g. because all entropies are 0.
    """
    columns = list(_columns(examples, ["entropy", "pass_rate"]))
    entropies, pass_rates = (np.concatenate([np.empty(0), *(c[i] for c in columns)]) for i in (0, 1))
    entropy_weights = weighting.weights(entropies.tolist(), 1)
    accuracy_weights = weighting.weights((1.0 - pass_rates).tolist(), 1)
    difference = entropy_weights - accuracy_weights
    order = np.argsort(-difference, kind="stable")
    heavier = [int(i) for i in order[:max_questions] if difference[i] > 0]
    lighter = [int(i) for i in order[::-1][:max_questions] if difference[i] < 0]

    rows = _rows_at(examples, {*heavier, *lighter}, max_clusters)
    wanted = {row["question_id"]: [cluster["answer"] for cluster in row["clusters"]] for row in rows.values()}
    responses = fetch_responses(samples, wanted, rules)

    def shown(position: int) -> Disagreement:
        row = rows[position]
        texts = responses.get(row["question_id"], [None] * len(row["clusters"]))
        return Disagreement(
            **{name: row[name] for name in ("question_id", "question", "reference_answer", "entropy", "pass_rate")},
            entropy_weight=float(entropy_weights[position]),
            accuracy_weight=float(accuracy_weights[position]),
            errors=row["errors"],
            clusters=[
                ShownCluster(**cluster, response=text) for cluster, text in zip(row["clusters"], texts, strict=True)
            ],
        )

    return Disagreements(
        entropies.size,
        _rank_correlation(entropy_weights, accuracy_weights),
        float(np.abs(difference).mean()),
        [shown(position) for position in heavier],
        [shown(position) for position in lighter],
    )


def _sampled(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of questions that were sampled."""
    return batch.filter(pc.is_valid(batch["entropy"]))


def _columns(examples: Folder, names: Sequence[str]) -> Iterable[list[NDArray[np.float64]]]:
    for batch in examples.batches(names, max_rows=_QUESTIONS_AT_ONCE):
        sampled = _sampled(batch)
        yield [sampled[name].to_numpy() for name in names]


def _rows_at(examples: Folder, positions: set[int], max_clusters: int) -> dict[int, dict[str, Any]]:
    """The rows at these positions among the sampled questions, with the clusters to show and the kind of errors."""
    names = ["question_id", "question", "reference_answer", "entropy", "pass_rate", "clusters"]
    rows: dict[int, dict[str, Any]] = {}
    begin = 0
    for batch in examples.batches(names, max_rows=_QUESTIONS_AT_ONCE):
        sampled = _sampled(batch)
        inside = sorted(position for position in positions if begin <= position < begin + sampled.num_rows)
        for position, row in zip(inside, sampled.take(pa.array([p - begin for p in inside], pa.int64())).to_pylist(),
                                 strict=True):  # fmt: skip
            clusters = [c for rank, c in enumerate(row["clusters"]) if rank < max_clusters or c["is_correct"]]
            rows[position] = row | {"errors": errors(row["clusters"]), "clusters": clusters}
        begin += sampled.num_rows
    return rows


# ------------------------------------------------------------------------------------------------- fewer responses


def corrected_entropy(counts: Sequence[int]) -> float:
    """An estimate, in nats, of the entropy of the distribution that clusters of these sizes were drawn from.

    The entropy of the shares themselves is too low on average, by about (clusters - 1) / 2n and more where answers
    have not been seen yet, and that is what few responses of an unsure model look like. Chao, Wang and Jost (2013,
    Methods in Ecology and Evolution 4, 1091-1100) estimate the unseen part from the answers seen once and twice. Unlike
    Miller and Madow's, their correction does not stop at 1/n, and it is 0 for one cluster. It may exceed ln(clusters).
    """
    from scipy.special import digamma

    sizes = np.array([count for count in counts if count > 0], dtype=np.float64)
    n = float(sizes.sum())
    if n < 2:
        return 0.0
    # sum_{k=x}^{n-1} 1/k = digamma(n) - digamma(x)
    seen = float(np.sum(sizes / n * (digamma(n) - digamma(sizes))))
    once, twice = int(np.sum(sizes == 1)), int(np.sum(sizes == 2))
    if once == 0 or (once == 1 and twice == 0):
        return seen  # a = 1: nothing unseen is estimated
    a = 2 * twice / ((n - 1) * once + 2 * twice) if twice else 2 / ((n - 1) * (once - 1) + 2)
    # The paper's (1-a)^(1-n) (-ln a - sum_{r<n} (1-a)^r / r) is sum_{j>=1} (1-a)^j / (n+j-1). The first form loses all
    # digits where (1-a)^n is tiny, the second needs about 40 / a terms; so each has its place, with O(n) terms.
    if n * a < 10:
        r = np.arange(1, n)
        tail = (1 - a) ** (1 - n) * (-np.log(a) - np.sum((1 - a) ** r / r))
    else:
        j = np.arange(1, 40 / a)
        tail = np.sum((1 - a) ** j / (n + j - 1))
    return seen + once / n * float(tail)


class Prefix(NamedTuple):
    """What the first so many responses of a question would have given. Entropies in nats."""

    entropy: float
    corrected_entropy: float
    pass_rate: float
    is_kept: bool
    num_tokens: float
    """Of all these responses; NaN if whoever sampled did not say."""


def entropies_of_first(sample: Mapping[str, Any], sizes: Sequence[int], rules: SelectionRules) -> list[Prefix]:
    """A row of ``samples/`` -> for each size what `selection.judge` would give for that many first responses.

    All responses up to the largest size are clustered once, so rounded decimals may meet through a later response.
    Raises ValueError if there are fewer responses than the largest size.
    """
    responses: Sequence[Mapping[str, Any]] = sample["responses"][: max(sizes)]
    if len(responses) < max(sizes):
        raise ValueError(f"{sample['question_id']}: expected {max(sizes)} responses, found {len(responses)}")
    reference = sample["reference_answer"]
    parsable = answers.is_parsable_reference(reference)
    texts = [response["text"] for response in responses]
    by_text = {text: answers.extract(text, last_number=rules.last_number) for text in dict.fromkeys(texts)}
    found = [by_text[text] for text in texts]
    # As in `judge`: the reference goes first, so that cluster 0 holds exactly the correct responses.
    numbers = answers.cluster(
        [reference if parsable else None, *(one.answer for one in found)], equivalence=rules.equivalence
    )[1:]
    is_correct = [parsable and number == 0 for number in numbers]
    tokens = [np.nan if response["num_tokens"] is None else float(response["num_tokens"]) for response in responses]

    def prefix(size: int) -> Prefix:
        counted = Counter(
            number
            for number, one in zip(numbers[:size], found[:size], strict=True)
            if rules.no_answer == "cluster" or one.answer is not None
        )
        num_correct = sum(is_correct[:size])
        boxed = any(right and one.boxed for right, one in zip(is_correct[:size], found[:size], strict=True))
        reason = reason_to_discard(
            rules,
            parsable,
            any_correct=num_correct > 0,
            any_chosen=boxed or (num_correct > 0 and not rules.require_boxed),
            any_wrong=any(
                not right and one.answer is not None for right, one in zip(is_correct[:size], found[:size], strict=True)
            ),
            all_correct=num_correct == size,
        )
        counts = list(counted.values())
        return Prefix(
            weighting.entropy(counts), corrected_entropy(counts), num_correct / size, reason is None, sum(tokens[:size])
        )

    return [prefix(size) for size in sizes]


@dataclass(frozen=True)
class Prefixes:
    """`entropies_of_first` of a round's questions, those with enough responses."""

    sizes: list[int]
    values: NDArray[np.float64]
    """(Q, S, fields of Prefix)"""
    num_too_few: int
    """Questions with fewer responses than the largest size: not among the Q."""


def measure_prefixes(samples: Folder, sizes: Sequence[int], rules: SelectionRules) -> Prefixes:
    """`entropies_of_first` of all questions, as tasks over the cluster; only numbers travel, 40 bytes a size.

    `sizes` grow, and the last is the number of responses to compare with. Raises ValueError if they do not grow.
    """
    if not sizes or any(size < 1 for size in sizes) or sorted(set(sizes)) != list(sizes):
        raise ValueError(f"sizes: expected growing numbers of responses, found {list(sizes)}")
    columns = ["question_id", "reference_answer",
               *(f"responses.list.element.{name}" for name in ("text", "num_tokens"))]  # fmt: skip

    def work(task: pa.Table) -> pa.Table:
        (group,) = task.to_pylist()
        values: list[float] = []
        num_too_few = 0
        for batch in samples.batches(columns, group["parts"], max_rows=_SAMPLES_AT_ONCE):
            for row in batch.to_pylist():
                if len(row["responses"]) < sizes[-1]:
                    num_too_few += 1
                    continue
                values += [float(value) for prefix in entropies_of_first(row, sizes, rules) for value in prefix]
        return pa.table({"values": pa.array([values], pa.list_(pa.float64())), "num_too_few": [num_too_few]})

    rows = list(spread(work, part_groups(samples)))
    values = np.concatenate([np.empty(0), *(np.asarray(row["values"], np.float64) for row in rows)])
    return Prefixes(
        list(sizes),
        values.reshape(-1, len(sizes), len(Prefix._fields)),
        sum(int(row["num_too_few"]) for row in rows),
    )


@dataclass(frozen=True)
class SizeSummary:
    """What so many responses per question would have come to, against the largest number. Entropies in nats."""

    num_responses: int
    mean_entropy: float
    mean_corrected_entropy: float
    rank_correlation: float | None
    """Spearman's, of the entropies with those of the largest number."""
    num_kept_at_both: int
    mean_weight_difference: float | None
    """Mean absolute difference of the weights (entropy, exponent 1, mean 1 over the questions kept at both)."""
    decision_changes: Share
    """Questions that the largest number keeps and this one discards, or the other way round."""
    num_tokens: int | None
    """Tokens of these responses of all questions; None if not all are known."""


def fewer_responses(measured: Prefixes) -> list[SizeSummary]:
    """A summary for each size. Raises ValueError if no question has enough responses."""
    if measured.values.shape[0] == 0:
        raise ValueError(f"no question has {measured.sizes[-1]} responses, so fewer cannot be compared with them")
    entropies, corrected, _, kept, tokens = (measured.values[:, :, field] for field in range(len(Prefix._fields)))
    is_kept = kept > 0
    summaries = []
    for index, size in enumerate(measured.sizes):
        both = is_kept[:, index] & is_kept[:, -1]
        here, full = entropies[both, index], entropies[both, -1]
        # Without a positive entropy there are no weights to compare.
        comparable = bool(np.any(here > 0) and np.any(full > 0))
        num_tokens = float(tokens[:, index].sum())
        summaries.append(
            SizeSummary(
                size,
                float(entropies[:, index].mean()),
                float(corrected[:, index].mean()),
                _rank_correlation(entropies[:, index], entropies[:, -1]),
                int(both.sum()),
                float(np.abs(here / here.mean() - full / full.mean()).mean()) if comparable else None,
                _share(is_kept[:, index] != is_kept[:, -1]),
                None if np.isnan(num_tokens) else int(num_tokens),
            )
        )
    return summaries


# ------------------------------------------------------------------------------------------------------------ rounds


@dataclass(frozen=True)
class Since:
    """What became of the questions that the round before kept."""

    num_kept_in_both: int
    num_gone: int
    """Kept in the round before and not in this one: discarded, or not asked again."""
    rank_correlation: float | None
    """Spearman's, of the weights of the questions kept in both."""
    became_zero: Share | None
    """Of the questions kept in both whose weight was positive: those whose weight is 0 now. With the entropy as the
    signal the model has become sure of them, and right."""


@dataclass(frozen=True)
class RoundWeights:
    """The weights of one round's examples."""

    num_questions: int
    quantiles: list[float]
    """Minimum, quartiles and maximum; empty without questions."""
    is_zero: Share | None
    since_previous: Since | None
    """None in the first round."""


def weights_over_rounds(rounds: Sequence[pa.Table]) -> list[RoundWeights]:
    """The columns question_id and weight of each round's ``examples/``, in order -> how the weights move."""
    studied = []
    for number, table in enumerate(rounds):
        weights = table["weight"].to_numpy()
        studied.append(
            RoundWeights(
                weights.size,
                [float(value) for value in np.quantile(weights, [0, 0.25, 0.5, 0.75, 1])] if weights.size else [],
                _share_of_any(weights == 0),
                _since(rounds[number - 1], table) if number else None,
            )
        )
    return studied


def _since(before: pa.Table, now: pa.Table) -> Since:
    position = pc.index_in(before["question_id"], value_set=now["question_id"].combine_chunks())
    is_in_both = pc.is_valid(position)
    old = before["weight"].filter(is_in_both).to_numpy()
    new = now["weight"].take(position.filter(is_in_both)).to_numpy()
    return Since(old.size, before.num_rows - old.size, _rank_correlation(old, new), _share_of_any((new == 0)[old > 0]))


# ------------------------------------------------------------------------------------------------------------- steps


def steps_by_entropy(examples: Folder, steps_are_right: Callable[[Mapping[str, Any]], bool | None]) -> ByEntropy:
    """Among the chosen responses, which have the right answer, the share of those that reach it by wrong steps.

    Args:
        examples: rows of records.EXAMPLES; those without samples are left out.
        steps_are_right: of a row's question_id, question, reference_answer and chosen; None if it cannot be told, e.g.
            because the reference answer is known to be wrong: such rows are not counted.
    """
    columns = ["question_id", "question", "reference_answer", "entropy", "chosen"]
    entropies: list[float] = []
    is_wrong: list[bool] = []
    for batch in examples.batches(columns, max_rows=_QUESTIONS_AT_ONCE):
        for row in _sampled(batch).to_pylist():
            is_right = steps_are_right(row)
            if is_right is not None:
                entropies.append(row["entropy"])
                is_wrong.append(not is_right)
    return by_entropy(np.array(entropies, np.float64), np.array(is_wrong, np.bool_))
