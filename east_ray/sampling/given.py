"""Responses that another sampler made -> ``samples/``, to be clustered, weighted and trained on like our own.

Files may be larger than memory: each task reads a piece of one (lines of JSONL, row groups of Parquet), writes its
questions as a part of ``samples/`` and hands on only numbers. A row that cannot be used is set aside with its reason.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from east_ray import answers
from east_ray.config import InputError, SamplesConfig
from east_ray.records import QUESTIONS, SAMPLES, SET_ASIDE, SetAside
from east_ray.sampling.given_files import ROWS_AT_ONCE, Piece, find_files, lines_of, piece_rows, pieces_of, sound
from east_ray.sampling.given_rows import MalformedRowError, Row, given_sample, set_aside_reason
from east_ray.storage import Stages

#: Bytes of responses that a task holds in memory before it writes them as a part.
_PART_BYTES = 16 << 20
_WRITTEN = ("samples", "questions", "set_aside")


def take_samples(
    config: SamplesConfig, stages: Stages, can_use: Callable[[str | None], bool] = answers.is_parsable_reference
) -> Iterator[dict[str, Any]]:
    """Write ``samples/``, ``questions/`` and ``set_aside/`` of a round from given files.

    Yields the numbers of each piece: num_questions, num_responses, num_truncated, and set_aside, a count by reason.
    Raises InputError if a file cannot be read or two questions have the same name.
    """
    import ray.data

    filesystem, files = find_files(config)
    pieces = _numbered([piece for file in files for piece in _pieces(filesystem, file, files)], filesystem)
    for name in _WRITTEN:
        for file in files:
            if f"{file.path}/".startswith(f"{(stages / name).path}/"):
                raise InputError(f"samples.path: {file.path} lies in the run directory itself; choose another run_dir")
        (stages / name).clear()

    def take(batch: pa.Table) -> pa.Table:
        counts = [_take_piece(Piece(**row), filesystem, config, stages, can_use) for row in batch.to_pylist()]
        return pa.table({"counts": [json.dumps(count) for count in counts]})

    tasks = ray.data.from_items([vars(piece) for piece in pieces], override_num_blocks=len(pieces))
    for row in tasks.map_batches(take, batch_size=1, batch_format="pyarrow").iter_rows():
        yield json.loads(row["counts"])
    if config.id_column is not None:
        _check_unique(stages)


def _pieces(
    filesystem: pyarrow.fs.FileSystem, file: pyarrow.fs.FileInfo, files: Sequence[pyarrow.fs.FileInfo]
) -> Iterator[Piece]:
    """The pieces of a file. Its questions are named after its stem, or, if another file has the same, its name."""
    path = PurePosixPath(file.path)
    is_only = sum(PurePosixPath(other.path).stem == path.stem for other in files) == 1
    return pieces_of(filesystem, file, path.stem if is_only else path.name)


def _numbered(pieces: list[Piece], filesystem: pyarrow.fs.FileSystem) -> list[Piece]:
    """The pieces with their first rows. To know them, tasks count the lines of JSONL files of several pieces."""
    import ray.data

    num_pieces = Counter(piece.path for piece in pieces)
    uncounted = [piece for piece in pieces if not piece.is_parquet and num_pieces[piece.path] > 1]
    if not uncounted:
        return pieces

    def count(batch: pa.Table) -> pa.Table:
        numbers = [sum(1 for _ in lines_of(filesystem, Piece(**row))) for row in batch.to_pylist()]
        return batch.select(["path", "start"]).append_column("num_lines", pa.array(numbers, pa.int64()))

    tasks = ray.data.from_items([vars(piece) for piece in uncounted], override_num_blocks=len(uncounted))
    counted = {
        (row["path"], row["start"]): row["num_lines"]
        for row in tasks.map_batches(count, batch_size=1, batch_format="pyarrow").iter_rows()
    }
    numbered, next_row = [], dict.fromkeys(num_pieces, 1)
    for piece in pieces:
        if (piece.path, piece.start) in counted:
            numbered.append(replace(piece, first_row=next_row[piece.path]))
            next_row[piece.path] += counted[piece.path, piece.start]
        else:
            numbered.append(piece)
    return numbered


def _take_piece(
    piece: Piece,
    filesystem: pyarrow.fs.FileSystem,
    config: SamplesConfig,
    stages: Stages,
    can_use: Callable[[str | None], bool],
) -> dict[str, Any]:
    """Write the parts of a piece, and return its numbers."""
    name = hashlib.blake2b(f"{piece.path}:{piece.start}".encode(), digest_size=16).hexdigest()
    counts = Counter(num_questions=0, num_responses=0, num_truncated=0)
    aside: list[dict[str, Any]] = []
    held: list[pa.Table] = []
    num_parts = 0

    def write() -> None:
        nonlocal num_parts
        table = pa.concat_tables(held)
        (stages / "samples").write_part(table, f"part-{name}-{num_parts:04d}.parquet")
        (stages / "questions").write_part(table.select(QUESTIONS.names), f"part-{name}-{num_parts:04d}.parquet")
        num_parts += 1
        held.clear()

    rows = piece_rows(filesystem, piece, config)
    while some := list(islice(rows, ROWS_AT_ONCE)):
        taken: list[dict[str, Any]] = []
        for number, row in some:
            sample, refused = _taken(row, number, piece, config, can_use)
            (taken if refused is None else aside).append(sample if refused is None else refused)
        if taken:
            held.append(pa.Table.from_pylist(taken, schema=SAMPLES))
            finish_reasons = [response["finish_reason"] for row in taken for response in row["responses"]]
            counts["num_questions"] += len(taken)
            counts["num_responses"] += len(finish_reasons)
            counts["num_truncated"] += finish_reasons.count("length")
        if sum(table.nbytes for table in held) >= _PART_BYTES:
            write()
    if held:
        write()
    if aside:
        (stages / "set_aside").write_part(pa.Table.from_pylist(aside, schema=SET_ASIDE), f"part-{name}.parquet")
    return {**counts, "set_aside": Counter(str(row["reason"]) for row in aside)}


def _taken(
    row: Row | MalformedRowError,
    number: int,
    piece: Piece,
    config: SamplesConfig,
    can_use: Callable[[str | None], bool],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """A row of records.SAMPLES; and, if it cannot be used, a row of records.SET_ASIDE."""
    sample: dict[str, Any] = {"question_id": f"{piece.prefix}-{number:06d}"}
    try:
        sample = given_sample(sound(row), config, sample["question_id"])
        reason, detail = set_aside_reason(sample, can_use), f"row {number}"
    except MalformedRowError as error:
        reason, detail = SetAside.MALFORMED_ROW, f"row {number}: {error}"
    if reason is None:
        return sample, None
    return sample, {name: sample.get(name) for name in SET_ASIDE.names} | {"reason": reason, "detail": detail}


def _check_unique(stages: Stages) -> None:
    names = (stages / "questions").read(QUESTIONS, ["question_id"])["question_id"]
    if pc.count_distinct(names).as_py() < len(names):
        counted = names.value_counts()
        repeated = counted.filter(pc.greater(counted.field("counts"), 1))[0].as_py()
        for name in _WRITTEN:  # so that the configuration may still be changed
            (stages / name).clear()
        raise InputError(
            f"samples.id_column: {repeated['counts']} questions have the name {repeated['values']!r}; "
            "expected a name of its own for each, or no id_column"
        )
