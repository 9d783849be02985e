"""``questions/`` of a round, from a file or a data set of the hub; what cannot be asked is set aside."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.fs
import pyarrow.parquet

from east_ray import answers
from east_ray.config import Config, InputError, QuestionsConfig
from east_ray.questions import formats
from east_ray.questions.prompts import load_tokenizer, prompts_within, style_of
from east_ray.records import QUESTIONS, SET_ASIDE, SetAside
from east_ray.storage import counts_by, local_copy, locate, resolve_model
from east_ray.storage.rounds import Round, is_done, listed

#: Questions that are Python objects at the same time: there may be millions.
_ROWS_AT_ONCE = 4096

#: Whether a grader can compare responses with this reference answer.
CanUse = Callable[[str | None], bool]

#: The most tokens that a prompt for a model may have, by its backend (`sampling.stage.max_prompt_tokens`); None: any.
MaxPromptTokens = Callable[[Config, str], int | None]


def ask_questions(
    round_: Round, max_prompt_tokens: MaxPromptTokens, can_use: CanUse = answers.is_parsable_reference
) -> None:
    """``questions/`` and ``set_aside/``: what is asked in this round, and what cannot be, with the reason."""
    config, stages = round_.config, round_.stages
    assert config.questions is not None
    if is_done(round_, stages, "questions", "questions"):
        return
    source = config.questions
    if config.questions_per_round == "fresh":  # as many as `max_questions`, after those of the rounds before
        source = source.model_copy(update={"skip": source.skip + round_.number * (source.max_questions or 0)})
    with stages.recording("questions") as record, round_.progress.stage("questions", None, "questions") as line:
        questions, aside, style = askable_questions(round_, source, round_.sampled_model, max_prompt_tokens, can_use)
        (stages / "questions").replace(questions)
        (stages / "set_aside").replace(aside)
        if questions.num_rows == 0:
            raise InputError(f"no question can be asked: {listed(counts_by(aside, 'reason'))}")
        record.counts = {"asked": questions.num_rows, "set_aside": counts_by(aside, "reason"), "prompt_style": style}
        notes = [f"{aside.num_rows:,} set aside"] if aside.num_rows else []
        notes += ["prompts of text"] if style == "text" else []
        line.update(questions.num_rows, " · ".join(notes))


class Askable(NamedTuple):
    """Questions that can be asked (records.QUESTIONS), those that cannot (records.SET_ASIDE), and how they are put."""

    questions: pa.Table
    aside: pa.Table
    style: str | None  # "chat" or "text"; None: whoever is asked decides, as with an endpoint


def askable_questions(
    round_: Round, source: QuestionsConfig, model: str, max_prompt_tokens: MaxPromptTokens, can_use: CanUse
) -> Askable:
    """The questions of a source whose prompts leave room for a response, and those set aside."""
    config, model = round_.config, resolve_model(model)
    questions, aside = load_questions(source, can_use)
    if (most := max_prompt_tokens(config, model)) is None:
        return Askable(questions, aside, None if config.prompt.style == "auto" else config.prompt.style)
    tokenizer = load_tokenizer(local_copy(model))
    questions, too_long = prompts_within(questions, tokenizer, config.prompt, most)
    return Askable(questions, pa.concat_tables([aside, too_long]), style_of(tokenizer, config.prompt))


def load_questions(
    config: QuestionsConfig, can_use: CanUse = answers.is_parsable_reference
) -> tuple[pa.Table, pa.Table]:
    """The questions to ask (records.QUESTIONS), and those set aside (records.SET_ASIDE).

    A question is set aside if it has no text, or a reference answer that `can_use` refuses. Raises InputError for a
    missing, empty or malformed file (naming the line), a missing column, a question_id that occurs twice, and a result
    of a user's format that is no question.
    """
    found = _questions(config, can_use)
    asked, aside = [QUESTIONS.empty_table()], [SET_ASIDE.empty_table()]
    while some := list(itertools.islice(found, _ROWS_AT_ONCE)):
        asked.append(pa.Table.from_pylist([one for one in some if one["reason"] is None], QUESTIONS))
        aside.append(pa.Table.from_pylist([one for one in some if one["reason"] is not None], SET_ASIDE))
    return pa.concat_tables(asked).combine_chunks(), pa.concat_tables(aside).combine_chunks()


def _questions(config: QuestionsConfig, can_use: CanUse) -> Iterator[dict[str, Any]]:
    """The questions of a source, each with the reason why it is set aside, or None."""
    source = config.path or f"{config.hub} ({config.split})"
    read = formats.load(config)
    stem = PurePosixPath(config.path or str(config.hub)).stem + ("" if config.path else f"-{config.split}")
    num_rows, seen = 0, dict[str, int]()
    stop = math.inf if config.max_questions is None else config.skip + config.max_questions
    for number, row in _hub_rows(config) if config.hub else _file_rows(config):
        num_rows += 1
        if not config.skip < num_rows <= stop:
            continue
        where = f"{source}, row {number}"
        try:
            question: dict[str, Any] = {**formats.normalized(read, row, config)}
            extra = {column: formats.cell(row, column) for column in config.extra_columns}
            given_id = question["question_id"] if config.id_column is None else formats.cell(row, config.id_column)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error.__cause__
        question_id = f"{stem}-{number:06d}" if given_id is None else str(given_id)
        if question_id in seen:
            raise InputError(
                f"{where}: question_id {question_id!r} occurs already in {source}, row {seen[question_id]}"
            )
        seen[question_id] = number
        question |= {"question_id": question_id, "extra": json.dumps(extra, default=str) if extra else None}
        yield question | {"reason": set_aside_reason(question, can_use)}
    if not num_rows:
        raise InputError(f"{source}: the file is empty; expected at least one question")
    if not seen:
        raise InputError(f"{source}: no question is left after skip {config.skip} of {num_rows}")


def set_aside_reason(question: Mapping[str, Any], can_use: CanUse) -> SetAside | None:
    """Why a question cannot be asked; None if it can. `can_use` takes the reference answer."""
    if not (question["question"] or "").strip():
        return SetAside.EMPTY_QUESTION
    return None if can_use(question["reference_answer"]) else SetAside.UNPARSABLE_REFERENCE


def _file_rows(config: QuestionsConfig) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(row number from 1, row) of a JSONL, JSON, CSV or Parquet file."""
    path = str(config.path)
    filesystem, inner = locate(path)
    info = filesystem.get_file_info(inner)
    if info.type != pa.fs.FileType.File:
        found = "is a folder" if info.type == pa.fs.FileType.Directory else "does not exist"
        raise InputError(f"questions file {path} {found}; expected a .jsonl, .json, .csv or .parquet file")
    suffix = PurePosixPath(inner).suffix
    if suffix not in (".jsonl", ".json", ".csv", ".parquet"):
        raise InputError(f"questions file {path}: expected .jsonl, .json, .csv or .parquet, found {suffix!r}")
    with filesystem.open_input_file(inner) as file:
        if suffix.startswith(".json"):
            yield from _json_rows(file.read(), path, lines=suffix == ".jsonl")
            return
        try:
            table = pa.parquet.read_table(file) if suffix == ".parquet" else pa.csv.read_csv(file)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path}: cannot be read as {suffix[1:]}: {str(error).splitlines()[0]}") from error
        rows = (row for batch in table.to_batches(_ROWS_AT_ONCE) for row in batch.to_pylist())
        yield from enumerate(rows, start=1)


def _json_rows(content: bytes, path: str, *, lines: bool) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 text") from error
    if lines:
        numbered = enumerate(text.split("\n"), start=1)
        parsed = ((number, _parse_json(line, f"{path}, line {number}")) for number, line in numbered if line.strip())
    else:
        values = _parse_json(text, path) if text.strip() else []
        if not isinstance(values, list):
            raise InputError(f"{path}: expected a JSON list of questions, found {type(values).__name__}")
        parsed = ((number, value) for number, value in enumerate(values, start=1))
    for number, row in parsed:
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}")
        if re.search("[\ud800-\udfff]", "".join(value for value in row.values() if isinstance(value, str))):
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
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"questions.hub: cannot load {config.hub!r}, split {config.split!r}: {message}") from error
    yield from enumerate((dict(row) for row in loaded), start=1)
