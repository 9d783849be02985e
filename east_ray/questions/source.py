"""A file of questions, or a data set of the Hugging Face hub -> the questions to ask, and those set aside.

Reads JSONL, JSON, CSV and Parquet; `formats.py` makes a question of a row.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet

from east_ray import answers
from east_ray.config import InputError, QuestionsConfig
from east_ray.questions import formats
from east_ray.records import QUESTIONS, SET_ASIDE, SetAside
from east_ray.storage import locate

#: Whether a grader can compare responses with this reference answer.
CanUse = Callable[[str | None], bool]

_SURROGATE = re.compile("[\ud800-\udfff]")


def load_questions(
    config: QuestionsConfig, can_use: CanUse = answers.is_parsable_reference
) -> tuple[pa.Table, pa.Table]:
    """The questions to ask (records.QUESTIONS), and those set aside (records.SET_ASIDE).

    A question is set aside if it has no text, or a reference answer that `can_use` refuses. Raises InputError for a
    missing, empty or malformed file (naming the line), a missing column, a question_id that occurs twice, and a result
    of a user's format that is no question.
    """
    source = config.path or f"{config.hub} ({config.split})"
    read = formats.load(config)
    rows = list(_hub_rows(config) if config.hub else _file_rows(config))
    if not rows:
        raise InputError(f"{source}: the file is empty; expected at least one question")
    stem = PurePosixPath(config.path or str(config.hub)).stem + ("" if config.path else f"-{config.split}")

    asked: list[dict[str, Any]] = []
    aside: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    stop = None if config.max_questions is None else config.skip + config.max_questions
    for number, row in rows[config.skip : stop]:
        where = f"{source}, row {number}"
        try:
            question: dict[str, Any] = formats.normalized(read, row, config) | {"extra": _extra(row, config)}
            given_id = question["question_id"] if config.id_column is None else formats.cell(row, config.id_column)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error.__cause__
        question["question_id"] = question_id = f"{stem}-{number:06d}" if given_id is None else str(given_id)
        if question_id in seen:
            raise InputError(f"{where}: question_id {question_id!r} occurs already in {seen[question_id]}")
        seen[question_id] = where
        reason = _set_aside_reason(question, can_use)
        (asked if reason is None else aside).append(question | {"reason": reason})
    if not seen:
        raise InputError(f"{source}: no question is left after skip {config.skip} of {len(rows)}")
    return table_of(asked, QUESTIONS), table_of(aside, SET_ASIDE)


def _extra(row: Mapping[str, Any], config: QuestionsConfig) -> str | None:
    """The columns of `questions.extra_columns` as a JSON object; None without such columns."""
    if not config.extra_columns:
        return None
    return json.dumps({column: formats.cell(row, column) for column in config.extra_columns}, default=str)


def _set_aside_reason(question: Mapping[str, str | None], can_use: CanUse) -> SetAside | None:
    if not (question["question"] or "").strip():
        return SetAside.EMPTY_QUESTION
    return None if can_use(question["reference_answer"]) else SetAside.UNPARSABLE_REFERENCE


# ------------------------------------------------------------------------------------------------------ rows of files


def _file_rows(config: QuestionsConfig) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(row number from 1, row) of a JSONL, JSON, CSV or Parquet file."""
    path = str(config.path)
    filesystem, inner = locate(path)
    info = filesystem.get_file_info(inner)
    if info.type != pa.fs.FileType.File:
        found = "is a folder" if info.type == pa.fs.FileType.Directory else "does not exist"
        raise InputError(f"questions file {path} {found}; expected a .jsonl, .json, .csv or .parquet file")
    suffix = PurePosixPath(inner).suffix
    with filesystem.open_input_file(inner) as file:
        match suffix:
            case ".parquet" | ".csv":
                try:
                    table = pa.parquet.read_table(file) if suffix == ".parquet" else pa.csv.read_csv(file)
                except (pa.ArrowInvalid, OSError) as error:
                    message = str(error).splitlines()[0]
                    raise InputError(f"{path}: cannot be read as {suffix[1:]}: {message}") from error
                yield from enumerate(table.to_pylist(), start=1)
            case ".jsonl" | ".json":
                yield from _json_rows(file.read(), path, lines=suffix == ".jsonl")
            case _:
                raise InputError(f"questions file {path}: expected .jsonl, .json, .csv or .parquet, found {suffix!r}")


def _json_rows(content: bytes, path: str, *, lines: bool) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text") from error
    if lines:
        parsed = [
            (number, _parse_json(line, f"{path}, line {number}"))
            for number, line in enumerate(text.split("\n"), start=1)
            if line.strip()
        ]
    else:
        values = _parse_json(text, path) if text.strip() else []
        if not isinstance(values, list):
            raise InputError(f"{path}: expected a JSON list of questions, found {type(values).__name__}")
        parsed = list(enumerate(values, start=1))
    for number, row in parsed:
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}")
        if _SURROGATE.search("".join(value for value in row.values() if isinstance(value, str))):
            raise InputError(f"{path}, line {number}: half of a surrogate pair, which is not text")
        yield number, row


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error})") from error


def _hub_rows(config: QuestionsConfig) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import datasets

    try:
        loaded = datasets.load_dataset(str(config.hub), config.hub_config, split=config.split)
    except Exception as error:  # the library raises errors of many kinds, those of the network library among them
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"questions.hub: cannot load {config.hub!r}, split {config.split!r}: {message}") from error
    yield from enumerate((dict(row) for row in loaded), start=1)


# ------------------------------------------------------------------------------------------------------------- tables


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of this schema: other keys are left out, missing ones are null."""
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def rows_of(table: pa.Table) -> Iterable[dict[str, Any]]:
    """The rows of a table, converted a thousand at a time."""
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()
