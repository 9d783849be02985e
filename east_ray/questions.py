"""Benchmark file or hub data set -> questions; question -> prompt.

GSM8K's and MATH's own files are read as they are; any JSONL, CSV or Parquet file with its columns named in the
configuration; and data sets of the Hugging Face hub.
"""

import functools
import json
import re
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet

from east_ray import answers
from east_ray.config import InputError, PromptConfig, QuestionsConfig
from east_ray.records import QUESTIONS, SET_ASIDE, SetAside
from east_ray.storage import locate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
    return _table(asked, QUESTIONS), _table(aside, SET_ASIDE)


#: transformers finds its names as they are asked for, which is not made for threads: one sees the half of another's.
_importing = threading.Lock()


def load_tokenizer(model: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model; raises InputError if there is none or it has no chat template."""
    with _importing:
        from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = pretrained(AutoTokenizer, model)
    if tokenizer.chat_template is None:
        raise InputError(f"model: the tokenizer of {model!r} has no chat template, so no question can be put to it")
    return tokenizer


def pretrained(auto_class: Any, model: str) -> Any:
    """`auto_class.from_pretrained(model)`; raises InputError if the model is neither a folder nor on the hub."""
    try:
        return auto_class.from_pretrained(model, local_files_only=not _hub_answers())
    except (OSError, ValueError) as error:
        raise InputError(
            f"model: {model!r} is neither a folder with a Hugging Face model nor a hub model that can be reached"
        ) from error


@functools.cache
def _hub_answers() -> bool:
    """Whether the hub has an address here. Without one, asking it would take a minute of retries to fail."""
    from huggingface_hub import constants

    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def render_prompt(tokenizer: "PreTrainedTokenizerBase", question: str, prompt: PromptConfig) -> str:
    """A question as the model reads it, up to where its response begins.

    The chat template writes the beginning-of-sequence token itself, so the text is tokenized without special tokens.
    """
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    user = {"role": "user", "content": prompt.template.replace("{question}", question)}
    rendered = tokenizer.apply_chat_template(
        [*system, user], add_generation_prompt=True, tokenize=False, **prompt.template_variables
    )
    assert isinstance(rendered, str)
    return rendered


def tokenize(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of rendered text: special tokens in it count as such, and none is added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@functools.lru_cache(maxsize=8)
def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The token with which a model ends its response, as its chat template writes it; empty if it has none.

    Not always the end-of-sequence token: Gemma ends a turn with <end_of_turn> and a text with <eos>.
    """
    mark = "east ray was here"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False)
    assert isinstance(rendered, str)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    after = [token for token in tokenize(tokenizer, rendered.rpartition(mark)[2]) if token in special]
    eos: int | None = tokenizer.eos_token_id
    return after[:1] or ([] if eos is None else [eos])


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


def _table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def prompts_within(
    questions: pa.Table, tokenizer: "PreTrainedTokenizerBase", prompt: PromptConfig, max_prompt_tokens: int
) -> tuple[pa.Table, pa.Table]:
    """Split questions into those whose prompt has at most this many tokens and records.SET_ASIDE of the others."""
    aside: list[dict[str, Any]] = []
    fits: list[bool] = []
    for row in _rows(questions):
        num_tokens = len(tokenize(tokenizer, render_prompt(tokenizer, row["question"], prompt)))
        fits.append(num_tokens <= max_prompt_tokens)
        if not fits[-1]:
            detail = f"{num_tokens} prompt tokens, room for {max_prompt_tokens}"
            aside.append(row | {"reason": SetAside.PROMPT_TOO_LONG, "detail": detail})
    return questions.filter(pa.array(fits, pa.bool_())), _table(aside, SET_ASIDE)


def _rows(table: pa.Table) -> Iterable[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()
