"""The file of questions whose answers the user has checked, and which questions of a run they are."""

import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from east_ray.answers.grading import Graded, Grader, GraderError, can_use, compared, reference_check
from east_ray.config import InputError
from east_ray.config.base import hint
from east_ray.labels.deciding import Checked
from east_ray.questions.formats import reference_answer
from east_ray.reading.fields import answer_text, is_missing, prompt_text
from east_ray.reading.files import find_files
from east_ray.reading.rows import Row, rows_of_file
from east_ray.records import Question


@dataclass(frozen=True)
class TrustedRow:
    """A row of the file."""

    where: str
    """File and row, for messages."""
    question_id: str | None
    question: str | None
    answer: str
    is_drawn: bool
    """It does not come from ``labels/changes.jsonl``, whose rows say in `action` what was changed."""


def read_trusted(path: str, grader: Grader) -> list[TrustedRow]:
    """The rows of the file, folder or pattern in `labels.trusted`.

    Raises InputError if there is no file, a row has no answer, one that the grader cannot compare responses with, or
    neither question nor question_id, or if two rows are of one question.
    """
    found = find_files(path, "labels.trusted")
    rows = [
        _row(f"labels.trusted: {file.path}, row {number}", row)
        for file in found.files
        for number, row in rows_of_file(found.filesystem, file)
    ]
    for row in rows:
        _refuse_unusable(row, grader)
    if not rows:
        raise InputError(f"labels.trusted: {path} is empty; expected questions with their checked answers")
    _refuse_repeated(rows, lambda row: row.question_id)
    _refuse_repeated(rows, lambda row: row.question if row.question_id is None else None)
    return rows


def _refuse_unusable(row: TrustedRow, grader: Grader) -> None:
    try:
        is_usable = can_use(grader, row.answer)
    except GraderError as error:
        raise InputError(f"{row.where}: the grader failed on this answer: {error}") from error
    if not is_usable:
        raise InputError(f"{row.where}: responses cannot be compared with the answer {row.answer!r}")


def can_be_labelled(source: str, rows: Iterable[TrustedRow], grader: Grader) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a question may have an answer that counts as right.

    With `source` majority any may. Otherwise it has a reference that the grader can use, or one of these rows.
    """
    if source == "majority":
        return lambda question: True
    is_usable, names = reference_check(grader), {(row.question_id, row.question) for row in rows}
    ids, texts = {name for name, _ in names}, {text for _, text in names}

    def check(question: Mapping[str, Any]) -> bool:
        is_trusted = question["question_id"] in ids or question["question"].strip() in texts
        return is_trusted or is_usable(question["reference_answer"])

    return check


def _row(where: str, row: Row | str) -> TrustedRow:
    if isinstance(row, str):
        raise InputError(f"{where}: {row}")

    def read(name: str, value_of: Any) -> Any:
        value = row.get(name)
        try:
            return None if _is_empty(value) else value_of(value)
        except InputError as error:
            raise InputError(f"{where}: {name}: {error}") from None

    question_id, question = read("question_id", answer_text), read("question", prompt_text)
    answer = read("reference_answer", reference_answer)
    names = ("question_id", "question", "reference_answer")
    if question_id is None and question is None:
        near = next((said for one in names[:2] if (said := hint(one, list(row)))), "")
        raise InputError(f"{where}: has neither question_id nor question{near}")
    if answer is None:
        raise InputError(f"{where}: has no reference_answer, the answer that you have checked")
    is_drawn = _is_empty(row.get("action"))
    return TrustedRow(where, question_id, question and question.strip(), answer, is_drawn)


def _is_empty(value: Any) -> bool:
    """Whether a value is missing, in JSON as in CSV, where an empty text is none."""
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def matched(rows: Sequence[TrustedRow], questions: Iterable[Question]) -> dict[str, tuple[TrustedRow, Question]]:
    """question_id -> the row of the trusted file, of each question of a run that has one.

    A row is found by its question_id. One without an id, or with an id that is not in the run, is found by its
    question: a run over given samples may name them in another way. Raises InputError if two rows are of one question,
    or if a row has the id of one question and the text of another.
    """
    by_id, by_text = {row.question_id: row for row in rows}, defaultdict[str | None, list[TrustedRow]](list)
    for row in rows:
        by_text[row.question].append(row)
    known, candidates = set[str | None](), list[tuple[Question, list[TrustedRow]]]()
    for question in questions:
        text = question.question.strip()
        some = by_text.get(text, [])
        if (named := by_id.get(question.question_id)) is not None:
            if named.question not in (None, text):
                said = f"in this run {named.question_id} is another question; leave out question_id"
                raise InputError(f"{named.where}: {said}")
            known.add(named.question_id)
            some = [named, *(other for other in some if other is not named)]
        candidates += [(question, some)] if some else []
    found = {}
    for question, some in candidates:
        mine = [row for row in some if row.question_id == question.question_id or row.question_id not in known]
        _refuse_repeated(mine, lambda _: "one question")
        if mine:
            found[question.question_id] = (mine[0], question)
    return found


def found_words(rows: Sequence[TrustedRow], found: Mapping[str, tuple[TrustedRow, Question]]) -> str:
    """How many rows of the trusted file are of questions of the round, and which is the first that is not."""
    there = {row.where for row, _ in found.values()}
    said = f"{len(there):,} of its {len(rows):,} questions are in this round"
    if missing := [row for row in rows if row.where not in there]:
        first = missing[0]
        name = first.question_id if first.question is None else textwrap.shorten(first.question, 80, placeholder=" …")
        where = first.where.removeprefix("labels.trusted: ")
        said += f"; not found: {len(missing):,}, the first in {where} ({name!r})"
    return said


def _refuse_repeated(rows: Iterable[TrustedRow], name_of: Callable[[TrustedRow], str | None]) -> None:
    """Raises InputError if two rows have the same name, and it is not None."""
    seen = dict[str | None, TrustedRow]()
    for row in rows:
        name = name_of(row)
        if name is not None and (before := seen.setdefault(name, row)) is not row:
            raise InputError(f"{row.where}: is of the same question as {before.where}; expected one row a question")


def check(row: TrustedRow, question: Question, graded: Graded, grader: Grader) -> Checked:
    """What the trusted answer makes of a question; `graded` is of all its responses.

    Raises InputError if the grader fails.
    """
    try:
        given = question.reference_answer if graded.can_use_reference else None
        of_clusters = [one.answer for one in graded.clusters]
        texts = list(dict.fromkeys(text for text in (row.answer, given, *of_clusters) if text is not None))
        asked = replace(question, reference_answer=row.answer)
        keys: Mapping[Any, Any] = dict(zip(texts, compared(grader, texts, asked), strict=True))
    except GraderError as error:
        raise InputError(f"{row.where}: the grader failed on this question: {error}") from error
    right = keys[row.answer]
    places = (place for place, text in enumerate(of_clusters) if text is not None and keys[text] == right)
    agrees = None if given is None else keys[given] == right
    return Checked(row.answer, agrees, next(places, None), row.is_drawn)
