"""Responses to show: the text of one response for each wanted cluster of a question.

Which cluster a response belongs to stands in ``answers/``; nothing is read or compared again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.records import SAMPLES
from east_ray.storage import Folder

_RESPONSES = ["question_id", "responses.list.element.text", "responses.list.element.finish_reason"]
_CLUSTERS = ["question_id", "responses.list.element.cluster"]
#: Questions in memory at a time, with all their responses and without.
_SAMPLES_AT_ONCE, _QUESTIONS_AT_ONCE = 16, 1024
#: Parts read at a time: a round on an object store has thousands of them.
_NUM_READERS = 16


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

    Args:
        responses: of one question, each with text and finish_reason.
        clusters: the number of each response's cluster.
        wanted: places of clusters by size, the first of equal ones first. None gives None.
    """
    numbers = [number for number, _ in Counter(clusters).most_common()]

    def first(number: int) -> str:
        members = [one for one, of_one in zip(responses, clusters, strict=True) if of_one == number]
        ended = (one for one in members if one["finish_reason"] == "stop")
        return str(next(ended, members[0])["text"])

    return [None if place is None else first(numbers[place]) for place in wanted]


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
