"""The files of another sampler -> ``samples/``, ``questions/`` and ``set_aside/`` of a round.

Files may be larger than memory: each task reads a piece of one, writes its questions as parts, and hands on only
numbers. Where several rows may be of one question, tasks deal their rows into buckets first (`grouping`). A row that
cannot be used is set aside with its reason.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from east_ray.config import InputError, SamplesConfig
from east_ray.questions import stage as questions
from east_ray.reading.files import Found, find_files
from east_ray.reading.rows import counts_lines, num_lines, pieces_of
from east_ray.records import QUESTIONS
from east_ray.sampling.given import grouping
from east_ray.sampling.given.rows import (
    given_sample,
    group_of,
    is_wanted,
    optional_names,
)
from east_ray.sampling.given.tasks import Counts, FilePiece, Work, deal, gather, named_by_setting, readable, take
from east_ray.sampling.given.wording import first_rows, names_there, why_none_is_wanted
from east_ray.storage import Stages
from east_ray.storage.tasks import run_tasks

#: Counts by which names in the configuration are checked, and which nobody else needs.
_ONLY_CHECKED = ("num_wanted", "num_finish_reasons", "num_num_tokens")
_WRITTEN = ("samples", "questions", "set_aside", "grouping")


def stamp(config: SamplesConfig) -> list[list[Any]]:
    """Name, size and time of each file, which differ once a file has changed. Raises InputError as `find_files`."""
    files = find_files(config.path, "samples.path").stamp()
    if config.questions is not None and config.questions.path is not None:
        files += find_files(config.questions.path, "samples.questions.path").stamp()
    return files


def check_columns(config: SamplesConfig) -> None:
    """Raises InputError unless one of the first rows can be read: a wrong name would set every row aside.

    What is commonest of what is wrong with them is said.
    """
    problems, first_row_with, is_empty = Counter[str](), dict[str, str](), True
    for where, row in first_rows(config):
        is_empty = False
        if isinstance(row, str) or is_wanted(row, config.where):
            try:
                group_of(readable(row), given_sample(readable(row), config, ""), config)
            except InputError as error:
                problems[str(error)] += 1
                first_row_with.setdefault(str(error), where)
            else:
                return
    if is_empty:
        raise InputError(f"samples.path: {config.path} is empty; expected questions with responses")
    for problem, _ in problems.most_common(1):
        raise InputError(f"samples.path: {first_row_with[problem]}: {problem}")


# ---------------------------------------------------------------------------------------------------------- the stage


def write_samples(
    config: SamplesConfig, stages: Stages, can_use: questions.CanUse = questions.HAS_REFERENCE
) -> Iterator[Counts]:
    """Write ``samples/``, ``questions/`` and ``set_aside/`` of a round from given files.

    Yields the numbers of each task: num_questions, num_responses, num_truncated, num_dropped (responses that are none),
    num_unwanted (rows that `samples.where` leaves out), num_repeated (questions that are there several times); and
    set_aside, a count by reason. Raises InputError if a file cannot be read, two questions have the same name, or a
    name in the configuration is in no row.
    """
    found = find_files(config.path, "samples.path")
    for name, file in itertools.product(_WRITTEN, found.files):
        if f"{file.path}/".startswith(f"{(stages / name).path}/"):
            raise InputError(f"samples.path: {file.path} lies in the run directory itself; choose another run_dir")
    asked = questions_elsewhere(config, can_use)
    work = Work(config, can_use, asked, filesystem=found.filesystem, stages=stages)
    pieces = _pieces(found, config)
    _clear(stages)
    totals = Counter[str]()
    for counts in _grouped(work, pieces, found) if config.groups else _run(take, work, [vars(one) for one in pieces]):
        totals.update({name: number for name, number in counts.items() if isinstance(number, int)})
        yield {name: number for name, number in counts.items() if name not in _ONLY_CHECKED}
    (stages / "grouping").clear()
    for problem in _problems(config, stages, totals):
        _clear(stages)  # so that the configuration may still be changed
        raise InputError(problem)
    yield {"num_repeated": _num_repeated(stages), "set_aside": {}}


def questions_elsewhere(config: SamplesConfig, can_use: questions.CanUse) -> pa.Table | None:
    """records.QUESTIONS of `samples.questions`; None: the rows have their questions. Raises InputError."""
    if config.questions is None:
        return None
    try:
        usable, unusable = questions.load_questions(config.questions, can_use)
    except InputError as error:
        message = str(error).removeprefix("questions.")
        raise InputError(f"samples.questions{': ' if message == str(error) else '.'}{message}") from error
    unusable = unusable.select(["question_id", "question", "reference_answer"])  # a reason is found again
    return pa.concat_tables([usable, unusable], promote_options="permissive")


def _pieces(found: Found, config: SamplesConfig) -> list[FilePiece]:
    """The pieces of all files with their first rows. To know them, tasks count the lines of files of several pieces."""
    prefixes, filesystem = found.prefixes(), found.filesystem
    with named_by_setting():
        pieces = [
            FilePiece(**vars(piece), prefix=prefixes[file.path], file=number)
            for number, file in enumerate(found.files)
            for piece in pieces_of(filesystem, file, config.encoding)
        ]

    def count(piece: dict[str, Any]) -> Counts:
        return piece | {"num_lines": num_lines(filesystem, FilePiece(**piece))}

    num_pieces = Counter(piece.path for piece in pieces)
    uncounted = [vars(piece) for piece in pieces if counts_lines(piece) and num_pieces[piece.path] > 1]
    counted = {(row["path"], row["start"]): row["num_lines"] for row in run_tasks(count, uncounted)}
    numbered, lines_before = list[FilePiece](), Counter[str]()
    for piece in pieces:
        numbered.append(replace(piece, first_row=piece.first_row + lines_before[piece.path]))
        lines_before[piece.path] += counted.get((piece.path, piece.start), 0)
    return numbered


def _grouped(work: Work, pieces: Sequence[FilePiece], found: Found) -> Iterator[Counts]:
    """Deal the rows of all pieces into buckets, and then put those of each question together."""
    compressed = {piece.path for piece in pieces if piece.compression or piece.kind in ("parquet", "arrow")}
    sizes = Counter[bool]()
    for file in found.files:
        sizes[file.path in compressed] += file.size
    work = replace(work, num_buckets=grouping.number_of_buckets(sizes[False], sizes[True]))
    bucket_bytes = np.zeros(work.num_buckets, np.int64)
    for counts in _run(deal, work, [vars(piece) for piece in pieces]):
        bucket_bytes += np.array(counts.pop("bucket_bytes"))
        yield counts
    groups = grouping.bucket_groups(bucket_bytes.tolist())
    yield from _run(gather, work, [{"start": start, "stop": stop} for start, stop in groups])


def _run(task: Callable[..., Counts], work: Work, arguments: Sequence[Mapping[str, Any]]) -> Iterator[Counts]:
    rows = run_tasks(lambda keywords: {"counts": json.dumps(task(work, **keywords))}, list(arguments))
    yield from (json.loads(row["counts"]) for row in rows)


def _problems(config: SamplesConfig, stages: Stages, totals: Mapping[str, int]) -> Iterator[str]:
    """What is wrong with the configuration, as all rows together show, a sentence each."""
    if totals.get("num_unwanted") and not totals.get("num_wanted"):
        yield why_none_is_wanted(config)
    if totals.get("num_responses"):
        for setting, name, found in optional_names(config):
            if not totals.get(found):
                where = names_there(config, name)
                yield f"samples.{setting}: no row has {name!r}{where}"
    if config.id_column is not None:
        counted = (stages / "questions").read(QUESTIONS, ["question_id"])["question_id"].value_counts()
        for repeated in counted.filter(pc.greater(counted.field("counts"), 1)).to_pylist()[:1]:
            yield (
                f"samples.id_column: {repeated['counts']} questions have the name {repeated['values']!r}; expected a "
                f"name of its own for each, or samples.group_by: {config.id_column} to put their rows together, or no "
                "id_column"
            )


def _num_repeated(stages: Stages) -> int:
    """The number of questions whose text is there several times."""
    hashes = [
        np.array([_hash(text) for text in batch["question"].to_pylist()], np.uint64)
        for batch in (stages / "questions").batches(["question"], max_rows=1 << 16)
    ]
    counts = np.unique(np.concatenate([*hashes, np.array([], np.uint64)]), return_counts=True)[1]
    return int((counts > 1).sum())


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _clear(stages: Stages) -> None:
    for name in _WRITTEN:
        (stages / name).clear()
