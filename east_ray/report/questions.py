"""Questions of a round to look at in the report, and the text of one response for each wanted cluster of a question.

Which cluster a response belongs to stands in ``answers/``; nothing is read or compared again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray.answers.explanation import readings
from east_ray.records import DISCARDED, EXAMPLES, SAMPLES
from east_ray.report.plots import Dot, Figure, linked_dots
from east_ray.report.summary import TrainingResults
from east_ray.storage import Folder

#: Clusters of a question of which a response is shown, the largest ones.
_SHOWN_CLUSTERS = 4
#: Compressed bytes of samples that are read for examples of responses. Of questions beyond it, only the chosen and the
#: rejected response are shown, which are in ``examples/`` too.
_MAX_SAMPLES_BYTES = 1 << 28
_RESPONSES = ["question_id", "responses.list.element.text", "responses.list.element.finish_reason"]
_CLUSTERS = ["question_id", "responses.list.element.cluster"]
#: Questions in memory at a time, with all their responses and without.
_SAMPLES_AT_ONCE, _QUESTIONS_AT_ONCE = 16, 1024
#: Parts read at a time: a round on an object store has thousands of them.
_NUM_READERS = 16

#: A row of ``examples/`` or ``discarded/`` as the page shows it: `weight` is None if the question was discarded,
#: `reason` if it was kept; `responses` are pairs: what a response is an example of, and its text; `readings` are pairs:
#: an answer, the reference answer first, and what it is read as.
ShownQuestion = dict[str, Any]


def shown_questions(
    training: TrainingResults,
    samples: Folder,
    answers: Folder,
    *,
    num_responses: int | None,
    is_mathematical: bool = True,
    max_questions: int = 200,
) -> list[ShownQuestion]:
    """Questions to look at: of those kept the extremes of entropy and a spread between them, and discarded ones.

    The same questions each time, greatest entropy first. The texts of these questions alone are read, part by part.
    `num_responses` is `answers.responses` of the training; `is_mathematical`: it compares answers mathematically,
    so that how they are read can be told.
    """
    num_discarded = int(0.3 * max_questions)
    columns = ["question_id", "question", "reference_answer", "entropy", "pass_rate", "clusters"]
    of_examples, of_discarded = [*columns, "weight", "chosen", "rejected"], [*columns, "reason"]
    rows: list[dict[str, Any]] = []
    for folder, schema, names, num in (
        (training.stages / "examples", EXAMPLES, of_examples, max_questions - num_discarded),
        (training.stages / "discarded", DISCARDED, of_discarded, num_discarded),
    ):
        entropies = folder.read(schema, ["entropy"])["entropy"].to_numpy()  # null -> NaN
        rows += rows_at(folder, schema, names, positions_across(entropies.astype(np.float64), num))
    wanted = {row["question_id"]: range(len((row["clusters"] or [])[:_SHOWN_CLUSTERS])) for row in rows}
    responses = fetch_responses(samples, answers, wanted, num_responses=num_responses, max_bytes=_MAX_SAMPLES_BYTES)
    shown = [
        {
            "weight": None,
            "reason": None,
            **row,
            "responses": _labelled(row, responses.get(row["question_id"], [])),
            "readings": _readings(row) if is_mathematical else [],
        }
        for row in rows
    ]
    return sorted(shown, key=lambda question: (-question["entropy"], question["question_id"]))


def rows_at(
    folder: Folder, schema: pa.Schema, columns: Sequence[str], positions: NDArray[np.intp]
) -> Iterator[dict[str, Any]]:
    """The rows of ``examples/`` or ``discarded/`` at these rising positions; one part is in memory at a time."""
    begin = 0
    for part in folder.parts():
        num_rows = folder.read(schema, ["entropy"], [part]).num_rows
        inside = positions[(positions >= begin) & (positions < begin + num_rows)] - begin
        begin += num_rows
        if inside.size:
            yield from folder.read(schema, columns, [part]).take(inside).to_pylist()


def positions_across(values: NDArray[np.float64], num: int) -> NDArray[np.intp]:
    """Positions, in order, of about `num` of (N,) values: some least and greatest, the rest in between; none is NaN.

    >>> positions_across(np.array([5.0, 1.0, np.nan, 3.0, 4.0, 2.0]), 3)
    array([0, 1, 3])
    """
    order = np.argsort(values, kind="stable")[: int(np.sum(~np.isnan(values)))]
    if order.size <= num:
        return np.sort(order)
    at_each_end = num // 7
    between = np.linspace(at_each_end, order.size - at_each_end - 1, num - 2 * at_each_end).round().astype(np.intp)
    ends = np.arange(at_each_end)
    return np.unique(order[np.concatenate([ends, between, order.size - 1 - ends])])


def question_dots(name: str, questions: Sequence[ShownQuestion]) -> Figure:
    """Entropy against pass rate of these questions, as dots that lead to ``{name}-{index}``."""
    groups: dict[str, list[Dot]] = {}
    for index, row in enumerate(questions):
        reference = "none" if row["reference_answer"] is None else row["reference_answer"]
        words = "\n".join(
            [
                _cut(row["question"], 200),
                f"reference answer: {_cut(reference, 60)}",
                *(f"commonest answer: {_cut(cluster_words(cluster), 60)}" for cluster in (row["clusters"] or [])[:1]),
                f"entropy {row['entropy']:.2f}, pass rate {row['pass_rate']:.2f}",
            ]
        )
        dot = Dot(row["pass_rate"], row["entropy"], f"{name}-{index}", words)
        groups.setdefault("discarded" if row["reason"] else "kept", []).append(dot)
    ordered = dict(sorted(groups.items(), reverse=True))  # kept ones first
    return linked_dots("These questions", ordered, "pass rate", "entropy (nats)")


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def _labelled(row: Mapping[str, Any], of_clusters: Sequence[str | None]) -> list[tuple[str, str]]:
    """The chosen and the rejected response and one of each of the largest clusters, each text once with all it is."""
    labels: dict[str, list[str]] = {}
    for role in ("chosen", "rejected"):
        if row.get(role):
            labels.setdefault(row[role], []).append(role)
    for cluster, text in zip(row["clusters"] or [], of_clusters, strict=False):
        if text is not None:
            labels.setdefault(text, []).append(cluster_words(cluster))
    return [(", ".join(words), text) for text, words in labels.items()]


def _readings(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The reference answer and those of the largest clusters, each with what it is read as."""
    answers = [cluster["answer"] for cluster in (row["clusters"] or [])[:_SHOWN_CLUSTERS]]
    return readings(row["reference_answer"], [answer for answer in answers if answer is not None])


def cluster_words(cluster: Mapping[str, Any]) -> str:
    """A cluster in a few words, e.g. ``64 × 72, correct``: the answer, and how many responses give it."""
    answer = "no answer" if cluster["answer"] is None else cluster["answer"]
    return f"{answer} × {cluster['num_responses']}" + (", correct" if cluster["is_correct"] else "")


# --------------------------------------------------------------------------------------------------------- responses


def fetch_responses(
    samples: Folder,
    answers: Folder,
    wanted: Mapping[str, Sequence[int | None]],
    *,
    num_responses: int | None = None,
    max_bytes: int | None = None,
) -> dict[str, list[str | None]]:
    """question_id -> the first response of each wanted cluster, as `first_responses` has it.

    A question is left out if it has no samples, or if its responses have no answers yet.

    Args:
        wanted: question_id -> places among the clusters of a question, as ``examples/`` and ``discarded/`` list them.
        num_responses: only the first so many responses of a question count (`answers.responses`).
        max_bytes: compressed bytes of samples that may be read; questions beyond are left out.
    """
    ids = pa.array(list(wanted), pa.string())
    found: dict[str, list[str | None]] = {}
    for part, graded_part in _parts_with(samples, answers, ids, max_bytes):
        graded = _rows_of(answers, graded_part, _CLUSTERS, ids, _QUESTIONS_AT_ONCE)
        clusters = {row["question_id"]: row["responses"] for row in graded}
        for row in _rows_of(samples, part, _RESPONSES, ids, _SAMPLES_AT_ONCE):
            name = row["question_id"]
            numbers = [response["cluster"] for response in clusters[name][:num_responses]]
            found[name] = first_responses(row["responses"][:num_responses], numbers, wanted[name])
    return found


def first_responses(
    responses: Sequence[Mapping[str, Any]], clusters: Sequence[int], wanted: Sequence[int | None]
) -> list[str | None]:
    """The text of the first response in each wanted cluster, of those that ended by themselves if there are any.

    `clusters` has the number of each response's cluster; `wanted` are places of clusters by size, the first of equal
    ones first. None gives None.
    """
    members: dict[int, list[Mapping[str, Any]]] = {number: [] for number, _ in Counter(clusters).most_common()}
    for response, number in zip(responses, clusters, strict=True):
        members[number].append(response)
    by_size = [min(found, key=lambda one: one["finish_reason"] != "stop")["text"] for found in members.values()]
    return [None if place is None else by_size[place] for place in wanted]


def _parts_with(samples: Folder, answers: Folder, ids: pa.Array, max_bytes: int | None) -> Iterator[tuple[str, str]]:
    """Parts of the samples that hold one of these questions, each with its part of the answers."""
    graded = {part.rpartition("/")[2]: part for part in answers.parts()}
    sizes = {part: size for part, size in samples.part_sizes().items() if part.rpartition("/")[2] in graded}

    def is_needed(part: str) -> bool:
        in_part = samples.read(SAMPLES, ["question_id"], [part])["question_id"]
        return bool(pc.any(pc.is_in(in_part, ids)).as_py())

    parts = list(sizes) if len(ids) else []
    with ThreadPoolExecutor(_NUM_READERS) as pool:
        needed = [part for part, is_one in zip(parts, pool.map(is_needed, parts), strict=True) if is_one]
    for part in needed:
        if max_bytes is not None:
            if sizes[part] > max_bytes:
                continue
            max_bytes -= sizes[part]
        yield part, graded[part.rpartition("/")[2]]


def _rows_of(
    folder: Folder, part: str, columns: Sequence[str], ids: pa.Array, at_once: int
) -> Iterator[dict[str, Any]]:
    for batch in folder.batches(columns, [part], max_rows=at_once):
        yield from batch.filter(pc.is_in(batch["question_id"], ids)).to_pylist()
