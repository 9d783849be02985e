"""``questions/`` of a round, from a file or a data set of the hub; what cannot be asked is set aside."""

import itertools
import json
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from east_ray import answers
from east_ray.config import Config, InputError, QuestionsConfig
from east_ray.questions import formats
from east_ray.questions.prompts import load_tokenizer, prompts_within, style_of
from east_ray.reading.fields import answer_text, field
from east_ray.reading.files import find_files
from east_ray.reading.rows import rows_of_file
from east_ray.records import QUESTIONS, SET_ASIDE, SetAside
from east_ray.storage import counts_by, local_copy, resolve_model
from east_ray.storage.rounds import Round, is_done, listed

#: Questions that are Python objects at the same time: there may be millions.
_ROWS_AT_ONCE = 4096

#: Whether responses to a question, a row of records.QUESTIONS, can be compared with an answer that counts as right.
CanUse = Callable[[Mapping[str, Any]], bool]

#: The most tokens that a prompt for a model may have, by its backend (`sampling.stage.max_prompt_tokens`); None: any.
MaxPromptTokens = Callable[[Config, str], int | None]


def by_reference(is_usable: Callable[[str | None], bool]) -> CanUse:
    """Whether responses can be compared with the reference answer of a question."""
    return lambda question: is_usable(question["reference_answer"])


#: The same, for the built-in grader.
HAS_REFERENCE = by_reference(answers.is_parsable_reference)


def ask_questions(round_: Round, max_prompt_tokens: MaxPromptTokens, can_use: CanUse = HAS_REFERENCE) -> None:
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
            raise none_can_be_asked(aside, "questions", "sampling.max_tokens")
        record.counts = {"asked": questions.num_rows, "set_aside": counts_by(aside, "reason"), "prompt_style": style}
        notes = [f"{aside.num_rows:,} set aside"] if aside.num_rows else []
        notes += ["prompts of text"] if style == "text" else []
        unread = find_files(source.path, "questions.path").unread_said() if source.path else ""
        notes += [f"not read: {unread}"] if unread else []
        line.update(questions.num_rows, " · ".join(notes))


def none_can_be_asked(aside: pa.Table, questions: str, max_tokens: str) -> InputError:
    """The error where no question can be asked: why not (`aside` is as records.SET_ASIDE), and the settings to mend."""
    first = ": ".join(filter(None, (aside["question_id"][0].as_py(), aside["detail"][0].as_py())))
    said = f"no question can be asked: {listed(counts_by(aside, 'reason'))}, e.g. {first}"
    return InputError(f"{said}; mend {questions}, prompt or {max_tokens}")


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


def load_questions(config: QuestionsConfig, can_use: CanUse = HAS_REFERENCE) -> tuple[pa.Table, pa.Table]:
    """The questions to ask (records.QUESTIONS), and those set aside (records.SET_ASIDE).

    A question is set aside if its row cannot be read, or it has no text, or `can_use` refuses it.
    Raises InputError if there is no file, one cannot be read or is in another encoding; if no row can be read, with
    what is wrong with the first, such as a missing column; and if a question_id occurs twice.
    """
    found = _questions(config, can_use)
    asked, aside = [QUESTIONS.empty_table()], [SET_ASIDE.empty_table()]
    while some := list(itertools.islice(found, _ROWS_AT_ONCE)):
        asked.append(pa.Table.from_pylist([one for one in some if one["reason"] is None], QUESTIONS))
        aside.append(pa.Table.from_pylist([one for one in some if one["reason"] is not None], SET_ASIDE))
    return pa.concat_tables(asked).combine_chunks(), pa.concat_tables(aside).combine_chunks()


def _questions(config: QuestionsConfig, can_use: CanUse) -> Iterator[dict[str, Any]]:
    """The questions of a source, each with the reason why it is set aside, or None."""
    read = formats.load(config)
    num_rows, num_read, seen = 0, 0, dict[str, str]()
    first_problem: str | None = None
    stop = math.inf if config.max_questions is None else config.skip + config.max_questions
    for where, default_id, row in _hub_rows(config) if config.hub else _file_rows(config):
        num_rows += 1
        if not config.skip < num_rows <= stop:
            continue
        try:
            question = _question(row, read, config, default_id)
        except InputError as error:
            first_problem = first_problem or f"{where}: {error}"
            detail = f"{where}: {error}"
            yield {"question_id": default_id, "reason": SetAside.MALFORMED_ROW, "detail": detail}
            continue
        num_read += 1
        question_id = question["question_id"]
        if question_id in seen:
            raise InputError(f"{where}: question_id {question_id!r} occurs already in {seen[question_id]}")
        seen[question_id] = where
        reason = set_aside_reason(question, can_use)
        yield question | {"reason": reason, "detail": None if reason is None else f"{where}{problem(question, reason)}"}
    if not num_rows:
        raise InputError(f"{config.path or config.hub}: the file is empty; expected at least one question")
    if first_problem is not None and not num_read:
        raise InputError(first_problem)
    if not num_read:
        said = f"no question is left after skip {config.skip} of {num_rows}"
        raise InputError(f"{config.path or config.hub}: {said}")


def _question(
    row: Mapping[str, Any] | str, read: formats.Format, config: QuestionsConfig, default_id: str
) -> dict[str, Any]:
    """A row of records.QUESTIONS. Raises InputError, which says what is wrong with the row."""
    if isinstance(row, str):
        raise InputError(row)
    question: dict[str, Any] = {**formats.normalized(read, row, config)}
    extra = {column: field(row, column) for column in config.extra_columns}
    given_id = question["question_id"] if config.id_column is None else answer_text(field(row, config.id_column))
    question["question_id"] = default_id if given_id is None else given_id
    return question | {"extra": json.dumps(extra, default=str) if extra else None}


def set_aside_reason(question: Mapping[str, Any], can_use: CanUse) -> SetAside | None:
    """Why a question cannot be asked; None if it can."""
    if not (question["question"] or "").strip():
        return SetAside.EMPTY_QUESTION
    return None if can_use(question) else SetAside.UNPARSABLE_REFERENCE


def problem(question: Mapping[str, Any], reason: SetAside) -> str:
    """What is wrong with the reference answer of a question that is set aside for it, as the end of a sentence."""
    if reason != SetAside.UNPARSABLE_REFERENCE:
        return ""
    reference = question["reference_answer"]
    if reference is None:
        return ": the reference answer is null or missing"
    return f": the reference answer {textwrap.shorten(repr(reference), 80, placeholder=' …')} is no answer"


def _file_rows(config: QuestionsConfig) -> Iterator[tuple[str, str, Mapping[str, Any] | str]]:
    """(file and row, name of the question if it has none of its own, row or what is wrong with it) of all files."""
    found = find_files(str(config.path), "questions.path")
    prefixes = found.prefixes()
    for file in found.files:
        for number, row in rows_of_file(found.filesystem, file, config.encoding):
            yield f"{file.path}, row {number}", f"{prefixes[file.path]}-{number:06d}", row


def _hub_rows(config: QuestionsConfig) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """As `_file_rows`, of a data set of the hub."""
    import datasets

    try:
        loaded = datasets.load_dataset(str(config.hub), config.hub_config, split=config.split)
    except Exception as error:  # the library raises errors of many kinds, those of the network library among them
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"questions.hub: cannot load {config.hub!r}, split {config.split!r}: {message}") from error
    prefix = f"{PurePosixPath(str(config.hub)).stem}-{config.split}"
    for number, row in enumerate(loaded, start=1):
        yield f"{config.hub} ({config.split}), row {number}", f"{prefix}-{number:06d}", dict(row)
