"""Responses that another sampler made -> ``samples/``, to be clustered, weighted and trained on like our own.

Files may be larger than memory: each task reads a piece of one (lines of JSONL, row groups of Parquet), writes its
questions as a part of ``samples/`` and hands on only numbers. A row that cannot be used is set aside with its reason.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from east_ray import answers
from east_ray.config import InputError, SamplesConfig
from east_ray.questions import stage as questions
from east_ray.questions.formats import cell, level_and_subject
from east_ray.reading.files import find_files
from east_ray.reading.rows import Piece, Row, counts_lines, num_lines, pieces_of, rows_of
from east_ray.records import QUESTIONS, SAMPLES, SET_ASIDE, SetAside
from east_ray.sampling.backends import FINISH_REASONS
from east_ray.storage import Stages
from east_ray.storage.tasks import run_tasks

#: Bytes of responses that a task holds in memory before it writes them as a part.
_PART_BYTES = 16 << 20
#: Rows of a file that are in memory as Python objects.
_ROWS_AT_ONCE = 64
_WRITTEN = ("samples", "questions", "set_aside")


def given_sample(row: Row, columns: SamplesConfig, question_id: str) -> dict[str, Any]:
    """A row of a file, with the columns that the configuration names -> a row of records.SAMPLES.

    A null response has no text. Raises InputError, which says what was expected, if the row cannot be read.
    """
    named = (columns.question_column, columns.reference_answer_column, columns.responses_column)
    question, reference, responses = (cell(row, name) for name in named)
    if question is not None and not isinstance(question, str):
        raise InputError(f"{columns.question_column}: expected text, found {_kind(question)}")
    if responses is not None and not isinstance(responses, list):
        raise InputError(f"{columns.responses_column}: expected a list of responses, found {_kind(responses)}")
    if columns.id_column is not None:
        given_id = cell(row, columns.id_column)
        if given_id is None or isinstance(given_id, dict | list):
            raise InputError(f"{columns.id_column}: expected a name, found {_kind(given_id)}")
        question_id = str(given_id)
    asked = {
        "question_id": question_id,
        "question": (question or "").strip(),
        "reference_answer": _reference_answer(reference),
        **level_and_subject(row),
    }
    found = [_response(value, columns, number) for number, value in enumerate(responses or [], start=1)]
    texts = [*asked.values(), *(response[name] for response in found for name in ("text", "finish_reason"))]
    try:
        "".join(filter(None, texts)).encode()
    except UnicodeEncodeError:
        raise InputError("half of a surrogate pair, which is not text") from None
    kept = {name: cell(row, name) for name in columns.extra_columns}
    extra = json.dumps(kept, default=str) if kept else _extra(row.get("extra"))
    return asked | {"extra": extra, "model": "given", "responses": found, "num_responses": len(found)}


def why_set_aside(sample: Row, can_use: questions.CanUse = answers.is_parsable_reference) -> SetAside | None:
    """Why the responses to a question cannot be graded; None if they can. `can_use` takes the reference answer."""
    return questions.set_aside_reason(sample, can_use) or (None if sample["responses"] else SetAside.NO_RESPONSES)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _extra(value: Any) -> str | None:
    """The column `extra` of samples that a run of ours made: a JSON object. Anything else is another's, and is left."""
    try:
        return value if isinstance(value, str) and isinstance(json.loads(value), dict) else None
    except ValueError:
        return None


def _reference_answer(value: Any) -> str | None:
    if value is None or value != value:  # noqa: PLR0124 - NaN, as pandas writes what is missing
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise InputError(f"reference answer: expected text or a number, found {_kind(value)}")
    text = str(value).strip()
    return answers.extract_answer(text) if "####" in text or "\\boxed" in text else text


def _response(value: Any, columns: SamplesConfig, number: int) -> dict[str, Any]:
    where = f"{columns.responses_column}, response {number}"
    num_tokens = finish_reason = None
    if isinstance(value, dict):
        num_tokens, finish_reason = value.get(columns.num_tokens_field), value.get(columns.finish_reason_field)
        value = _field(value, columns.text_field, where)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: expected text, found {_kind(value)}")
    if not isinstance(num_tokens, int) or isinstance(num_tokens, bool) or not 0 <= num_tokens < 1 << 31:
        num_tokens = None
    reason = finish_reason if isinstance(finish_reason, str) else "stop"
    reason = FINISH_REASONS.get(reason.casefold(), reason)
    return {"text": value or "", "num_tokens": num_tokens, "finish_reason": reason, "logprob": None}


def _field(response: Row, path: str, where: str) -> Any:
    """The value at a dotted path; None where the way there is null, as in a request that failed."""
    value: Any = response
    for name in path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or name not in value:
            there = ", ".join(map(repr, sorted(value))) if isinstance(value, dict) else _kind(value)
            raise InputError(f"{where}: field {path!r} is missing; found {there}")
        value = value[name]
    return value


# ---------------------------------------------------------------------------------------------------------- the files


@dataclass(frozen=True)
class FilePiece(Piece):
    """What one task reads, and what the names of its questions begin with."""

    prefix: str


def stamp(config: SamplesConfig) -> list[list[Any]]:
    """Name, size and time of each file, which differ once a file has changed. Raises InputError as `find_files`."""
    return find_files(config.path, "samples.path").stamp()


def check_columns(config: SamplesConfig) -> None:
    """Raises InputError unless the first row can be read: a wrong name would set every row aside."""
    found = find_files(config.path, "samples.path")
    for piece in itertools.chain.from_iterable(pieces_of(found.filesystem, file) for file in found.files):
        for number, row in _rows(found.filesystem, piece, config):
            try:
                given_sample(_readable(row), config, "")
            except InputError as error:
                raise InputError(f"samples.path: {piece.path}, row {number}: {error}") from None
            return
    raise InputError(f"samples.path: {config.path} is empty; expected questions with responses")


def _rows(filesystem: pa.fs.FileSystem, piece: Piece, columns: SamplesConfig) -> Iterator[tuple[int, Row | str]]:
    required = (columns.question_column, columns.reference_answer_column, columns.responses_column)
    further = {*columns.extra_columns, columns.id_column or "", "level", "subject", "type", "extra"}
    try:
        yield from rows_of(filesystem, piece, {*required, *further}, required)
    except InputError as error:
        raise InputError(f"samples.path: {error}") from None


def _readable(row: Row | str) -> Row:
    if isinstance(row, str):
        raise InputError(row)
    return row


# ---------------------------------------------------------------------------------------------------------- the tasks


def write_samples(
    config: SamplesConfig, stages: Stages, can_use: questions.CanUse = answers.is_parsable_reference
) -> Iterator[dict[str, Any]]:
    """Write ``samples/``, ``questions/`` and ``set_aside/`` of a round from given files.

    Yields the numbers of each piece: num_questions, num_responses, num_truncated, and set_aside, a count by reason.
    Raises InputError if a file cannot be read or two questions have the same name.
    """
    found = find_files(config.path, "samples.path")
    filesystem, prefixes = found.filesystem, found.prefixes()
    pieces = [
        FilePiece(**vars(piece), prefix=prefixes[file.path])
        for file in found.files
        for piece in pieces_of(filesystem, file)
    ]
    pieces = _numbered(pieces, filesystem)
    for name, file in itertools.product(_WRITTEN, found.files):
        if f"{file.path}/".startswith(f"{(stages / name).path}/"):
            raise InputError(f"samples.path: {file.path} lies in the run directory itself; choose another run_dir")
    _clear(stages)

    def take(piece: dict[str, Any]) -> dict[str, str]:
        return {"counts": json.dumps(_take_piece(FilePiece(**piece), filesystem, config, stages, can_use))}

    for row in run_tasks(take, [vars(piece) for piece in pieces]):
        yield json.loads(row["counts"])
    if config.id_column is not None:
        counted = (stages / "questions").read(QUESTIONS, ["question_id"])["question_id"].value_counts()
        for repeated in counted.filter(pc.greater(counted.field("counts"), 1)).to_pylist()[:1]:
            _clear(stages)  # so that the configuration may still be changed
            raise InputError(
                f"samples.id_column: {repeated['counts']} questions have the name {repeated['values']!r}; "
                "expected a name of its own for each, or no id_column"
            )


def _clear(stages: Stages) -> None:
    for name in _WRITTEN:
        (stages / name).clear()


def _numbered(pieces: list[FilePiece], filesystem: pa.fs.FileSystem) -> list[FilePiece]:
    """The pieces with their first rows. To know them, tasks count the lines of JSONL files of several pieces."""

    def count(piece: dict[str, Any]) -> dict[str, Any]:
        return piece | {"num_lines": num_lines(filesystem, FilePiece(**piece))}

    num_pieces = Counter(piece.path for piece in pieces)
    uncounted = [vars(piece) for piece in pieces if counts_lines(piece) and num_pieces[piece.path] > 1]
    counted = {(row["path"], row["start"]): row["num_lines"] for row in run_tasks(count, uncounted)}
    numbered, lines_before = [], Counter[str]()
    for piece in pieces:
        numbered.append(replace(piece, first_row=piece.first_row + lines_before[piece.path]))
        lines_before[piece.path] += counted.get((piece.path, piece.start), 0)
    return numbered


def _take_piece(
    piece: FilePiece, filesystem: pa.fs.FileSystem, config: SamplesConfig, stages: Stages, can_use: questions.CanUse
) -> dict[str, Any]:
    """Write the parts of a piece, and return its numbers."""
    name = hashlib.blake2b(f"{piece.path}:{piece.start}".encode(), digest_size=16).hexdigest()
    counts, part_numbers = Counter(num_questions=0, num_responses=0, num_truncated=0), itertools.count()
    aside: list[dict[str, Any]] = []
    held = SAMPLES.empty_table()
    rows, is_last = _rows(filesystem, piece, config), False
    while not is_last:
        some = list(itertools.islice(rows, _ROWS_AT_ONCE))
        is_last = len(some) < _ROWS_AT_ONCE
        samples = [_taken(row, number, piece, config, can_use) for number, row in some]
        aside += [sample for sample in samples if "reason" in sample]
        taken = [sample for sample in samples if "reason" not in sample]
        finish_reasons = [response["finish_reason"] for sample in taken for response in sample["responses"]]
        counts["num_questions"] += len(taken)
        counts["num_responses"] += len(finish_reasons)
        counts["num_truncated"] += finish_reasons.count("length")
        held = pa.concat_tables([held, pa.Table.from_pylist(taken, schema=SAMPLES)])
        if held.num_rows and (held.nbytes >= _PART_BYTES or is_last):
            part = f"part-{name}-{next(part_numbers):04d}.parquet"
            (stages / "samples").write_part(held, part)
            (stages / "questions").write_part(held.select(QUESTIONS.names), part)
            held = SAMPLES.empty_table()
    if aside:
        (stages / "set_aside").write_part(pa.Table.from_pylist(aside, schema=SET_ASIDE), f"part-{name}.parquet")
    return {**counts, "set_aside": Counter(str(row["reason"]) for row in aside)}


def _taken(
    row: Row | str, number: int, piece: FilePiece, config: SamplesConfig, can_use: questions.CanUse
) -> dict[str, Any]:
    """A row of records.SAMPLES; or, if it cannot be used, of records.SET_ASIDE, with the key `reason`."""
    question_id, detail = f"{piece.prefix}-{number:06d}", f"row {number}"
    try:
        sample = given_sample(_readable(row), config, question_id)
    except InputError as error:
        return {"question_id": question_id, "reason": SetAside.MALFORMED_ROW, "detail": f"{detail}: {error}"}
    reason = why_set_aside(sample, can_use)
    return sample if reason is None else sample | {"reason": reason, "detail": detail}
