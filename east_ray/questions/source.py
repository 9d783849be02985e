"""Benchmark file or hub data set -> questions; question -> prompt.

GSM8K's and MATH's own files are read as they are; any JSONL, CSV or Parquet file with its columns named in the
configuration; and data sets of the Hugging Face hub.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet

from east_ray import answers
from east_ray.config import InputError, QuestionsConfig
from east_ray.records import QUESTIONS, SET_ASIDE, SetAside
from east_ray.storage import locate

_SURROGATE = re.compile("[\ud800-\udfff]")
#: GSM8K's calculator annotations, <<48/2=24>>, which no model should learn to write.
_CALCULATOR = re.compile(r"<<[^<>]*>>")


def load_questions(config: QuestionsConfig) -> tuple[pa.Table, pa.Table]:
    """The questions to ask (records.QUESTIONS) and those set aside (records.SET_ASIDE): no text, no usable reference.

    Raises InputError for a missing, empty or malformed file (naming the line), a missing column or a question_id that
    occurs twice.
    """
    source = config.path or f"{config.hub} ({config.split})"
    rows = list(_hub_rows(config) if config.hub else _file_rows(config))
    if not rows:
        raise InputError(f"{source}: the file is empty; expected at least one question")
    layout = _layout(rows[0][1], source) if config.format == "auto" else config.format
    stem = PurePosixPath(config.path or str(config.hub)).stem + ("" if config.path else f"-{config.split}")

    asked: list[dict[str, Any]] = []
    aside: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    stop = None if config.max_questions is None else config.skip + config.max_questions
    for number, row in rows[config.skip : stop]:
        where = f"{source}, row {number}"
        question = _normalized(row, layout, config, where) | {
            "level": _label(row.get("level")),
            "subject": _label(row.get("subject", row.get("type"))),
        }
        given_id = _question_id(row, layout, config, where)
        question_id = f"{stem}-{number:06d}" if given_id is None else str(given_id)
        if question_id in seen:
            raise InputError(f"{where}: question_id {question_id!r} occurs already in {seen[question_id]}")
        seen[question_id] = where
        question["question_id"] = question_id
        reason = _set_aside_reason(question)
        (asked if reason is None else aside).append(question | {"reason": reason})
    if not seen:
        raise InputError(f"{source}: no question is left after skip {config.skip} of {len(rows)}")
    return table_of(asked, QUESTIONS), table_of(aside, SET_ASIDE)


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
    except Exception as error:  # the library raises errors of many kinds, of the network's own too
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"questions.hub: cannot load {config.hub!r}, split {config.split!r}: {message}") from error
    yield from enumerate((dict(row) for row in loaded), start=1)


def _layout(row: Mapping[str, Any], source: str) -> Literal["gsm8k", "math", "columns"]:
    if {"problem", "solution"} <= row.keys():
        return "math"
    if {"question", "answer"} <= row.keys() and "####" in str(row["answer"]):
        return "gsm8k"
    if {"question", "reference_answer"} <= row.keys():
        return "columns"
    raise InputError(
        f"{source}: the columns {sorted(row)} are neither GSM8K's (question, answer with ####) nor MATH's (problem, "
        "solution); set questions.format: columns and name them"
    )


def _cell(row: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise InputError(f"{where}: column {column!r} is missing; found {', '.join(map(repr, sorted(row)))}")
    return row[column]


def _text(row: Mapping[str, Any], column: str, where: str) -> str | None:
    value = _cell(row, column, where)
    return None if value is None else str(value).strip()


def _label(value: Any) -> str | None:
    """A level or subject as text, whatever the source has (MATH-500's levels are numbers)."""
    return None if value is None else str(value)


def _normalized(
    row: Mapping[str, Any], layout: Literal["gsm8k", "math", "columns"], config: QuestionsConfig, where: str
) -> dict[str, str | None]:
    """question, reference_answer and reference_solution of a row of any layout."""
    if layout == "gsm8k":
        question = _text(row, "question", where)
        solution, marker, answer = (_text(row, "answer", where) or "").rpartition("####")
        reference: str | None = answer.strip() if marker else None
        return {
            "question": question,
            "reference_answer": reference,
            "reference_solution": _boxed_solution(_CALCULATOR.sub("", solution).strip(), reference),
        }
    if layout == "math":
        solution = _text(row, "solution", where) or ""
        given = row.get("answer")
        return {
            "question": _text(row, "problem", where),
            "reference_answer": str(given) if given is not None else answers.extract_answer(solution),
            "reference_solution": solution or None,
        }
    reference = _text(row, config.reference_answer_column, where)
    column = config.reference_solution_column
    return {
        "question": _text(row, config.question_column, where),
        "reference_answer": reference,
        "reference_solution": _boxed_solution(_text(row, column, where) or "", reference) if column else None,
    }


def _boxed_solution(solution: str, reference: str | None) -> str | None:
    """The worked solution, ending in the reference answer in a box, as the prompt asks of a response."""
    if not solution or "\\boxed" in solution or reference is None:
        return solution or None
    return f"{solution}\nThe answer is \\boxed{{{reference}}}."


def _question_id(row: Mapping[str, Any], layout: str, config: QuestionsConfig, where: str) -> Any:
    if config.id_column is not None:
        return _cell(row, config.id_column, where)
    return row.get("unique_id") if layout == "math" else None


def _set_aside_reason(question: Mapping[str, str | None]) -> SetAside | None:
    if not question["question"]:
        return SetAside.EMPTY_QUESTION
    reference = question["reference_answer"]
    if not answers.is_parsable_reference(reference):
        return SetAside.UNPARSABLE_REFERENCE
    return None


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of this schema: other keys are left out, missing ones are null."""
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def rows_of(table: pa.Table) -> Iterable[dict[str, Any]]:
    """The rows of a table, some at a time."""
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()
