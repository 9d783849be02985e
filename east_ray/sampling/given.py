"""Responses that another sampler made -> samples/, so that they are clustered, weighted and trained on as our own.

Files may be larger than memory: each task reads a piece of one (lines of JSONL, row groups of Parquet), writes its
questions as a part of ``samples/`` and hands on only numbers. A row that cannot be used is set aside with its reason.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from east_ray import answers
from east_ray.config import InputError, SamplesConfig
from east_ray.records import QUESTIONS, SAMPLES, SET_ASIDE, SetAside
from east_ray.sampling.given_files import (
    PART_BYTES,
    MalformedRowError,
    Piece,
    Row,
    find_files,
    kind_of,
    lines_of,
    parsed_line,
    pieces_of,
)
from east_ray.storage import Stages

#: The column ``model`` of given samples.
GIVEN = "given"
_ROWS_AT_ONCE = 64
_MAX_NUM_TOKENS = 2**31 - 1

# ------------------------------------------------------------------------------------------------------------ one row


def given_sample(row: Row, columns: SamplesConfig, question_id: str) -> dict[str, Any]:
    """A row of a file, its columns named by the configuration -> a row of records.SAMPLES.

    A response that is null has no text; numbers of tokens that are missing stay null. Raises MalformedRowError.
    """
    question = _cell(row, columns.question_column)
    reference = _cell(row, columns.reference_answer_column)
    responses = _cell(row, columns.responses_column)
    if question is not None and not isinstance(question, str):
        raise MalformedRowError(f"{columns.question_column}: expected text, found {kind_of(question)}")
    if responses is not None and not isinstance(responses, list):
        raise MalformedRowError(f"{columns.responses_column}: expected a list of responses, found {kind_of(responses)}")
    if columns.id_column is not None:
        given_id = _cell(row, columns.id_column)
        if given_id is None or isinstance(given_id, dict | list):
            raise MalformedRowError(f"{columns.id_column}: expected a name, found {kind_of(given_id)}")
        question_id = str(given_id)
    sample = {
        "question_id": question_id,
        "question": (question or "").strip(),
        "reference_answer": _reference_answer(reference),
        "reference_solution": None,
        "level": _label(row.get("level")),
        "subject": _label(row.get("subject", row.get("type"))),
        "model": GIVEN,
        "prompt": None,
        "num_prompt_tokens": None,
        "responses": [_response(value, columns, number) for number, value in enumerate(responses or [], start=1)],
    }
    _check_text(sample)
    return sample


def set_aside_reason(sample: Row) -> SetAside | None:
    """Why a question with responses cannot be judged; None if it can."""
    if not sample["question"]:
        return SetAside.EMPTY_QUESTION
    if not answers.is_parsable_reference(sample["reference_answer"]):
        return SetAside.UNPARSABLE_REFERENCE
    return None if sample["responses"] else SetAside.NO_RESPONSES


def _cell(row: Row, column: str) -> Any:
    if column not in row:
        raise MalformedRowError(f"column {column!r} is missing; found {', '.join(map(repr, sorted(row)))}")
    return row[column]


def _label(value: Any) -> str | None:
    return None if value is None else str(value)


def _reference_answer(value: Any) -> str | None:
    if value is None or value != value:  # noqa: PLR0124 - NaN, as pandas writes what is missing
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise MalformedRowError(f"reference answer: expected text or a number, found {kind_of(value)}")
    text = str(value).strip()
    return answers.extract_answer(text) if "####" in text or "\\boxed" in text else text


def _response(value: Any, columns: SamplesConfig, number: int) -> dict[str, Any]:
    where = f"{columns.responses_column}, response {number}"
    num_tokens = finish_reason = None
    if isinstance(value, dict):
        num_tokens, finish_reason = value.get(columns.num_tokens_field), value.get(columns.finish_reason_field)
        value = _field(value, columns.text_field, where)
    if value is not None and not isinstance(value, str):
        raise MalformedRowError(f"{where}: expected text, found {kind_of(value)}")
    known = isinstance(num_tokens, int) and not isinstance(num_tokens, bool) and 0 <= num_tokens <= _MAX_NUM_TOKENS
    return {
        "text": value or "",
        "num_tokens": num_tokens if known else None,
        "finish_reason": _FINISH_REASONS.get(finish_reason.casefold(), finish_reason)
        if isinstance(finish_reason, str)
        else "stop",
        "logprob": None,
    }


#: What other servers call the two ways in which a response ends.
_FINISH_REASONS = dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "completed"), "stop") | (
    dict.fromkeys(("length", "max_tokens", "max_length"), "length")
)


def _field(response: Row, path: str, where: str) -> Any:
    """The value at a dotted path; None where the way there is null, as in a request that failed."""
    value: Any = response
    for name in path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or name not in value:
            there = ", ".join(map(repr, sorted(value))) if isinstance(value, dict) else kind_of(value)
            raise MalformedRowError(f"{where}: field {path!r} is missing; found {there}")
        value = value[name]
    return value


def _check_text(sample: Row) -> None:
    texts = [sample[name] or "" for name in ("question_id", "question", "reference_answer", "level", "subject")]
    try:
        "".join(texts + [response[name] for response in sample["responses"] for name in ("text", "finish_reason")]
                ).encode()  # fmt: skip
    except UnicodeEncodeError:
        raise MalformedRowError("half of a surrogate pair, which is not text") from None


# --------------------------------------------------------------------------------------------------- pieces of files


def check_columns(config: SamplesConfig) -> None:
    """Raises InputError unless the first row can be read: one wrong name should not set a million rows aside."""
    filesystem, files = find_files(config)
    for file in files:
        for piece in pieces_of(filesystem, file, ""):
            for number, row in _piece_rows(filesystem, piece, config):
                try:
                    given_sample(_sound(row), config, "")
                except MalformedRowError as error:
                    raise InputError(f"samples.path: {file.path}, row {number}: {error}") from None
                return
    raise InputError(f"samples.path: {config.path} is empty; expected questions with responses")


def _piece_rows(
    filesystem: pyarrow.fs.FileSystem, piece: Piece, columns: SamplesConfig
) -> Iterator[tuple[int, Row | MalformedRowError]]:
    """(number, row) of a piece, with an error in place of a line that is no row; empty lines are passed over."""
    if not piece.is_parquet:
        for number, line in enumerate(lines_of(filesystem, piece), start=piece.first_row):
            if line is None or line.strip():
                yield number, parsed_line(line)
        return
    wanted = {columns.question_column, columns.reference_answer_column, columns.responses_column, columns.id_column,
              "level", "subject", "type"}  # fmt: skip
    number = piece.first_row
    groups = list(range(piece.start, piece.stop))
    try:
        with filesystem.open_input_file(piece.path) as file:
            # Buffered, a row group is read page by page; many writers put a whole file into one.
            parquet = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            found = parquet.schema_arrow.names
            for column in (columns.question_column, columns.reference_answer_column, columns.responses_column):
                if column not in found:
                    _cell(dict.fromkeys(found), column)
            names = [name for name in found if name in wanted]
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, groups, columns=names):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except MalformedRowError as error:
        raise InputError(f"samples.path: {piece.path}: {error}") from None
    except (pa.ArrowException, OSError) as error:
        message = str(error).splitlines()[0]
        raise InputError(
            f"samples.path: {piece.path}, row groups from {piece.start}: cannot be read ({message})"
        ) from None


def _sound(row: Row | MalformedRowError) -> Row:
    if isinstance(row, MalformedRowError):
        raise row
    return row


# ---------------------------------------------------------------------------------------------------------- the stage


def take_samples(config: SamplesConfig, stages: Stages) -> Iterator[dict[str, Any]]:
    """Write ``samples/``, ``questions/`` and ``set_aside/`` of a round from given files.

    Yields the numbers of each piece: num_questions, num_responses, num_truncated, and set_aside, a count by reason.
    Raises InputError if a file cannot be read or two questions have the same name.
    """
    import ray.data

    filesystem, files = find_files(config)
    stems = Counter(PurePosixPath(file.path).stem for file in files)
    prefixes = [PurePosixPath(file.path) for file in files]
    pieces = [
        piece
        for file, path in zip(files, prefixes, strict=True)
        for piece in pieces_of(filesystem, file, path.stem if stems[path.stem] == 1 else path.name)
    ]
    pieces = _numbered(pieces, filesystem)
    for name in ("samples", "questions", "set_aside"):
        for file in files:
            if f"{file.path}/".startswith(f"{(stages / name).path}/"):
                raise InputError(f"samples.path: {file.path} lies in the run directory itself; choose another run_dir")
        (stages / name).clear()

    def take(batch: pa.Table) -> pa.Table:
        counts = [_take_piece(Piece(**row), filesystem, config, stages) for row in batch.to_pylist()]
        return pa.table({"counts": [json.dumps(count) for count in counts]})

    tasks = ray.data.from_items([vars(piece) for piece in pieces], override_num_blocks=len(pieces))
    for row in tasks.map_batches(take, batch_size=1, batch_format="pyarrow").iter_rows():
        yield json.loads(row["counts"])
    if config.id_column is not None:
        _check_unique(stages)


def _numbered(pieces: list[Piece], filesystem: pyarrow.fs.FileSystem) -> list[Piece]:
    """The pieces with their first rows, for which the lines of JSONL files of several pieces are counted."""
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
    piece: Piece, filesystem: pyarrow.fs.FileSystem, config: SamplesConfig, stages: Stages
) -> dict[str, Any]:
    name = hashlib.blake2b(f"{piece.path}:{piece.start}".encode(), digest_size=16).hexdigest()
    counts: dict[str, Any] = {"num_questions": 0, "num_responses": 0, "num_truncated": 0}
    reasons: Counter[str] = Counter()
    rows = _piece_rows(filesystem, piece, config)
    held: list[pa.Table] = []
    num_parts = 0

    def write() -> None:
        nonlocal num_parts
        table = pa.concat_tables(held)
        (stages / "samples").write_part(table, f"part-{name}-{num_parts:04d}.parquet")
        (stages / "questions").write_part(table.select(QUESTIONS.names), f"part-{name}-{num_parts:04d}.parquet")
        num_parts += 1
        held.clear()

    aside: list[dict[str, Any]] = []
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        taken, refused = _split(some, piece, config)
        aside += refused
        if taken:
            held.append(pa.Table.from_pylist(taken, schema=SAMPLES))
            responses = [response for row in taken for response in row["responses"]]
            counts["num_questions"] += len(taken)
            counts["num_responses"] += len(responses)
            counts["num_truncated"] += sum(response["finish_reason"] == "length" for response in responses)
        if sum(table.nbytes for table in held) >= PART_BYTES:
            write()
    if held:
        write()
    if aside:
        reasons.update(str(row["reason"]) for row in aside)
        (stages / "set_aside").write_part(pa.Table.from_pylist(aside, schema=SET_ASIDE), f"part-{name}.parquet")
    return counts | {"set_aside": dict(reasons)}


def _split(
    rows: Sequence[tuple[int, Row | MalformedRowError]], piece: Piece, config: SamplesConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of records.SAMPLES, and rows of records.SET_ASIDE."""
    taken: list[dict[str, Any]] = []
    aside: list[dict[str, Any]] = []
    for number, row in rows:
        question_id = f"{piece.prefix}-{number:06d}"
        refused: dict[str, Any] = {"question_id": question_id, "question": None, "reference_answer": None}
        try:
            sample = given_sample(_sound(row), config, question_id)
        except MalformedRowError as error:
            aside.append(refused | {"reason": SetAside.MALFORMED_ROW, "detail": f"row {number}: {error}"})
            continue
        reason = set_aside_reason(sample)
        if reason is None:
            taken.append(sample)
        else:
            aside.append({key: sample[key] for key in refused} | {"reason": reason, "detail": f"row {number}"})
    return taken, aside


def _check_unique(stages: Stages) -> None:
    names = (stages / "questions").read(QUESTIONS, ["question_id"])["question_id"]
    if pc.count_distinct(names).as_py() < len(names):
        counted = names.value_counts()
        repeated = counted.filter(pc.greater(counted.field("counts"), 1))[0].as_py()
        for name in ("samples", "questions", "set_aside"):  # so that the configuration may be mended
            (stages / name).clear()
        raise InputError(
            f"samples.id_column: {repeated['counts']} questions have the name {repeated['values']!r}; "
            "expected a name of its own for each, or no id_column"
        )
