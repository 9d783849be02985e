"""What is said of given samples: their counts, what is wrong with a name, and what was done that may not be meant."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping

from east_ray.config import SamplesConfig
from east_ray.config.base import hint
from east_ray.reading import fields
from east_ray.reading.files import find_files
from east_ray.reading.rows import rows_of_file
from east_ray.reading.text import Row
from east_ray.sampling.given.rows import one_of
from east_ray.sampling.given.tasks import named_by_setting
from east_ray.storage import Stages

#: Rows of a file that are looked at before the work begins, of as many files.
_ROWS_LOOKED_AT, _FILES_LOOKED_AT = 100, 100


def said_of(sums: Mapping[str, int], aside: Counter[str]) -> str:
    """The note of the stage's line."""
    said = [f"{sums['num_responses']:,} responses"]
    for name, words in (("num_dropped", "failed responses dropped"), ("num_unwanted", "rows left out by where")):
        said += [f"{sums[name]:,} {words}"] if sums.get(name) else []
    return " · ".join([*said, f"{aside.total():,} set aside"] if aside else said)


def one_set_aside(stages: Stages) -> str:
    """The detail of one row that is set aside, as an example; empty if there is none."""
    for batch in (stages / "set_aside").batches(["question_id", "detail"], max_rows=1):
        (row,) = batch.to_pylist()
        return f"; e.g. {row['question_id']}: {row['detail']}"
    return ""


def why_all_agree(config: SamplesConfig, num_questions: int, num_responses: int, example: str) -> str:
    """What may be behind equal answers to every question: rows that are set aside, or one response to each question.

    `example` is one of a row that is set aside, as `one_set_aside` gives it.
    """
    said = f"; rows are set aside, {example.removeprefix('; ')}" if example else ""
    if num_responses > num_questions:
        return said
    said += "; each question has one response: samples.response_column names it if it is one of several in several rows"
    return f"{said}, and samples.group_by what is the same in all rows of a question, e.g. {config.question_column}"


def warnings(config: SamplesConfig, sums: Mapping[str, int]) -> Iterator[str]:
    """What was done with the files that may not be meant, a sentence each."""
    found = find_files(config.path, "samples.path")
    if found.unread:
        yield f"samples.path: not read: {found.unread_said()}"
    if (repeated := sums.get("num_repeated")) and config.groups:
        yield (
            f"warning: {repeated:,} questions are there several times, each with a weight of its own, because "
            f"{_group(config)} differs; samples.group_by: {config.question_column} puts all their responses together"
        )
    elif repeated:
        yield (
            f"warning: {repeated:,} questions are in several rows, and each row has a weight of its own; "
            f"samples.group_by: {config.id_column or config.question_column} puts their responses together, and "
            "samples.where chooses among the rows"
        )


def _group(config: SamplesConfig) -> str:
    """What tells the questions apart, in words."""
    by = config.group_by or config.id_column or "the reference answer"
    return by if isinstance(by, str) else " or ".join(by)


def first_rows(config: SamplesConfig) -> Iterator[tuple[str, Row | str]]:
    """The first rows of the first files, each with its place in words."""
    found = find_files(config.path, "samples.path")
    with named_by_setting():
        for file in found.files[:_FILES_LOOKED_AT]:
            rows = rows_of_file(found.filesystem, file, config.encoding)
            for number, row in itertools.islice(rows, _ROWS_LOOKED_AT):
                yield f"{file.path}, row {number}", row


def why_none_is_wanted(config: SamplesConfig) -> str:
    """Why `samples.where` may have left out every row."""
    rows = [row for _, row in first_rows(config) if not isinstance(row, str)]
    for name, value in config.where.items():
        found = [one for row in rows if (one := fields.optional(row, name)) is not fields.MISSING]
        if rows and not found:
            return f"samples.where: no row has {name!r}{names_there(config, name)}"
        seen = list(dict.fromkeys(str(one)[:50] for one in found))
        wanted = [str(one) for one in one_of(value)]
        if not {*wanted} & {*seen}:
            others = ", ".join(map(repr, seen[:5]))
            return f"samples.where: no row has {value!r} in {name!r}; found {others}{hint(wanted[0], seen)}"
    return f"samples.where: no row has all of {', '.join(f'{name}: {value}' for name, value in config.where.items())}"


def names_there(config: SamplesConfig, name: str) -> str:
    """The names there are in the first row, and the nearest of them."""
    for _, row in first_rows(config):
        if not isinstance(row, str):
            names = list(itertools.islice(fields.names_in(row), 200))
            inside = {last: one for one in names if not (last := one.rpartition(".")[2]).isdecimal()}
            return f"; found {', '.join(map(repr, sorted(inside)[:40]))}{hint(name.rpartition('.')[2], list(inside))}"
    return ""
