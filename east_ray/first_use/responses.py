"""``east-ray weigh FILE`` without a YAML file: look at the first rows, say what is taken for what, write the YAML file.

Nothing is guessed silently. What the file holds is said with an example of each, and stands as a comment in the YAML
file. What no column seems to be is asked for on a terminal; elsewhere the command ends with the settings to give.
"""

import itertools
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from east_ray import answers
from east_ray.config import Config, InputError, SamplesConfig
from east_ray.config import files as config_file
from east_ray.config.base import flatten, hint, set_dotted, validated
from east_ray.reading.fields import only, optional
from east_ray.reading.files import Found, find_files
from east_ray.reading.recognised import (
    Recognised,
    Row,
    Taken,
    recognised,
    recognised_question,
    rows_inside,
    with_responses,
)
from east_ray.reading.rendered import user_turn
from east_ray.reading.rows import pieces_of, rows_of
from east_ray.sampling.given import given_sample, group_of, is_wanted
from east_ray.storage import Folder, locate

#: What makes a path a pattern of several.
_PATTERN = re.compile(r"[*?\[]")
#: Files that are looked at, rows of each, and characters in all: a row may have 128 long responses. More files than
#: one, because each may hold some responses of a question, or those to other questions. Of the files after them up to
#: the last, only the first row.
_FILES, _ROWS, _LAST_FILE, MAX_CHARS = 8, 20, 100, 64 << 20
#: Characters of an example in a message, and names in one.
_EXAMPLE, _NAMES = 60, 40
#: What is missing and not named by a column: another file, and a field of the responses, whose names the question has.
_NOT_IN_ROWS = ("questions.path", "questions.id_column", "text_field", "where.filter")
#: What else may hold what is missing.
_OR_ELSE = {
    "samples.reference_answer_column": " (if it is in another file: samples.questions.path=…, "
    "samples.questions.id_column=… and samples.id_column=…; if there is none: labels.source=majority)",
    "samples.questions.path": ", and samples.questions.id_column=… for the column that has their names",
    "samples.responses_column": " (if a row is one response: samples.response_column=…)",
    "questions.reference_answer_column": " (if there is none: labels.source=majority)",
}


@dataclass(frozen=True)
class Placed:
    """A row and where it is: the path of its file, and its number there, from 1."""

    file: str
    number: int
    row: Row


Say = Callable[[str], None]
#: Asks the user for a line; None where nobody would answer.
Ask = Callable[[str], str] | None


def config_of(source: str, overrides: Sequence[str], say: Say, ask: Ask) -> str:
    """The YAML file or run directory to weigh: `source`, or for a file of responses the YAML file beside its run.

    Raises InputError if the rows cannot be used, or if it is not known which column is what and `ask` is None.
    """
    if _is_run(source):
        return source
    given = config_file.merge({"samples": {}}, overrides)
    if not isinstance(given["samples"], dict) or "path" in given["samples"]:
        raise InputError(
            f"samples: expected single settings such as samples.question_column=NAME; {source} is the path"
        )
    run_dir = given.setdefault("run_dir", f"runs/{_name_of(source)}")
    is_local = "://" not in str(run_dir)
    path = Path(f"{str(run_dir).rstrip('/') if is_local else f'runs/{_name_of(source)}'}.yaml")
    if path.exists():
        _check_same_source(path, source)
        say(f"{path} says what is what in {source}; change it there")
        if settings := [one for one in overrides if not one.startswith("run_dir=")]:
            command = shlex.join(["east-ray", "weigh", str(path), *settings, "run_dir=runs/other"])
            say(f"if its run is done, other settings need another run: `{command}`")
        return str(path)
    text = written(source, given, say, ask)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another run_dir") from error
    say(f"written to {path}; if something is taken for the wrong thing, change it there and weigh {path}")
    return str(path)


def _is_run(source: str) -> bool:
    """Whether a path is of a run: a YAML file, or a directory with its config.yaml."""
    if source.endswith((".yaml", ".yml")):
        return True
    folder = Folder(*locate(source.rstrip("/")))
    if not folder.exists and not _PATTERN.search(source):
        raise InputError(
            f"{source} does not exist; expected a run's YAML file or directory, or responses, e.g. a .jsonl"
        )
    return (folder / "config.yaml").exists


def _name_of(source: str) -> str:
    """A name for the run of a file: its own without endings; of a pattern, the folder's."""
    parts = PurePosixPath(source.partition("?")[0] if "://" in source else locate(source)[1]).parts
    plain = next((part for part in reversed(parts) if not _PATTERN.search(part)), "")
    return re.sub(r"[^A-Za-z0-9_-]+", "-", plain.partition(".")[0]).strip("-") or "weighed"


def _check_same_source(path: Path, source: str) -> None:
    samples = config_file.load(path).samples
    there = None if samples is None else samples.path
    if there is None or locate(there)[1] != locate(source)[1]:
        raise InputError(f"{path} is of a run on {there}; choose another run_dir for {source}, e.g. run_dir=runs/other")


def written(source: str, given: Mapping[str, Any], say: Say, ask: Ask) -> str:
    """The text of the YAML file for a file of responses. `given` are the settings of the command line."""
    samples = given.get("samples", {})
    found = find_files(source, "samples.path")
    placed = first_rows(found, str(samples.get("encoding", "utf-8")), "samples.path")
    rows = [one.row for one in placed]
    if dict(flatten(given)).get("labels.source") == "majority":
        samples = without_reference(rows, samples)
    named = completed(rows, samples, source, ask)
    settings = validated(SamplesConfig, {"path": source} | named.settings, "samples.")
    texts, unreadable = _texts(placed, settings)
    config = dict(given) | {"samples": settings.model_dump(exclude_unset=True)}
    adapted = _adapted(config, texts)
    validated(Config, config)
    told = [f"{source}, by its first {len(rows)} rows{_shape(named)}"]
    told += map(said_of, named.taken)
    told += [f"  {line}" for line in adapted]
    if settings.questions is None and any(_is_rendered(optional(row, settings.question_column)) for row in rows):
        said = "a chat template has rendered it; the question is the user's last turn, without what the system says"
        told.append(f"  {settings.question_column}: {said}")
    told += [f"  {unread} beside them: not read"] if (unread := found.unread_said()) else []
    told += unreadable
    for line in told:
        say(line)
    comments = "".join(f"# {_printable(line)}\n" for line in [f"Written by `east-ray weigh {source}`.", *told])
    return comments + yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)


def said_of(taken: Taken) -> str:
    """A line that says what is taken for what."""
    return f"  {taken.setting}: {_short(taken.name)} is {taken.what}{_example(taken.example)}"


def _look(section: str) -> Callable[[Sequence[Row], Mapping[str, Any]], Recognised]:
    """What looks at the rows of a section: `samples`, or one of questions alone."""
    return recognised if section == "samples" else recognised_question


def without_reference(rows: Sequence[Row], given: Mapping[str, Any], section: str = "samples") -> Mapping[str, Any]:
    """The settings of a section where no reference is needed: null for its column, unless the rows have one."""
    is_missing = "reference_answer_column" in _look(section)(rows, given).missing
    return {**given, "reference_answer_column": None} if is_missing else given


def first_rows(found: Found, encoding: str, setting: str) -> list[Placed]:
    """The first rows of the first files, without those that cannot be read.

    Raises InputError, with the name of the setting of the path, if there is none.
    """
    rows, unread, room = list[Placed](), list[str](), MAX_CHARS
    for place, file in enumerate(found.files[:_LAST_FILE]):
        try:
            pieces = pieces_of(found.filesystem, file, encoding)
            every = itertools.chain.from_iterable(rows_of(found.filesystem, piece) for piece in pieces)
            for number, row in itertools.islice(every, _ROWS if place < _FILES else 1):
                if isinstance(row, str):
                    unread.append(f"{file.path}, row {number}: {row}")
                    continue
                rows.append(Placed(file.path, number, row))
                if (room := room - _num_chars(row)) <= 0:
                    return rows
        except InputError as error:
            as_typed = f"`{setting.removesuffix('path')}encoding="  # here settings are given on the command line
            raise InputError(f"{setting}: {error}".replace("`encoding: ", as_typed)) from None
    if not rows:
        raise InputError(f"{setting}: {unread[0] if unread else f'{found.files[0].path} is empty; expected rows'}")
    return rows


def _num_chars(value: Any) -> int:
    """Characters of the texts in a value."""
    if isinstance(value, Mapping | list):
        return sum(map(_num_chars, value.values() if isinstance(value, Mapping) else value))
    return len(value) if isinstance(value, str | bytes) else 0


def completed(
    rows: Sequence[Row], given: Mapping[str, Any], source: str, ask: Ask, section: str = "samples"
) -> Recognised:
    """What the rows are, with the user's word for what they do not say. Raises InputError if nobody can be asked.

    `given` are the settings of the section that the user has named; a section of questions has no responses.
    """
    look = _look(section)
    try:
        named = look(rows, given)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    columns = ", ".join(named.columns[:_NAMES])
    if named.missing and ask is None:
        wanted = "; ".join(
            f"{section}.{setting}=… for {what}{_OR_ELSE.get(f'{section}.{setting}', '')}"
            for setting, what in named.missing.items()
        )
        inside = rows_inside(rows) if {"question_column", "reference_answer_column"} <= named.missing.keys() else None
        said = f"; {inside[0]} is a list of {inside[1]:,} objects: write them to a file of their own" if inside else ""
        names = f"Names in these rows: {columns}{said}"
        raise InputError(f"{source}{_shape(named)}: not everything is recognised; give {wanted}. {names}")
    note = ""
    while named.missing:
        assert ask is not None
        setting, what = next(iter(named.missing.items()))
        name = ask(f"{note}Which is {what}? Names in these rows: {columns}").strip()
        if setting not in _NOT_IN_ROWS and name not in named.columns:
            note = f"{name!r} is not in these rows{hint(name, named.columns) or '.'} "
            continue
        note, given = "", dict(given) | _meant(rows, setting, name, given)
        named = look(rows, given)
    return named


def _meant(rows: Sequence[Row], setting: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The user's answer as a setting."""
    if setting.startswith("questions."):
        return {"questions": {**given.get("questions", {}), setting.removeprefix("questions."): name}}
    if setting.startswith("where."):
        return {"where": {setting.removeprefix("where."): name}}
    return with_responses(rows, name) if setting == "responses_column" else {setting: name}


def _texts(rows: Sequence[Placed], settings: SamplesConfig) -> tuple[list[str], list[str]]:
    """The responses in some rows, of those that can be read; and a warning for each file of which none can be.

    Raises InputError, the first reason, if none at all can be.
    """
    texts, readable, first = list[str](), set[str](), dict[str, str]()
    for one in rows:
        if not is_wanted(one.row, settings.where):
            continue
        try:
            sample = given_sample(one.row, settings, "")
            group_of(one.row, sample, settings)
            texts += [response["text"] for response in sample["responses"]]
            readable.add(one.file)
        except InputError as error:
            first.setdefault(one.file, f"row {one.number}: {error}")
    if first and not readable:
        file, problem = next(iter(first.items()))
        raise InputError(f"samples.path: {file}, {problem}")
    return texts, [
        f"warning: no row of {file} can be read as those of the others, so weigh it alone if it is meant; {problem}"
        for file, problem in first.items()
        if file not in readable
    ]


def _is_rendered(value: Any) -> bool:
    return isinstance(text := only(value), str) and user_turn(text) != text


def _adapted(config: dict[str, Any], texts: Sequence[str]) -> list[str]:
    """Add the settings that these responses need where none is given, and say why: no boxes, no announced answers."""
    given = dict(flatten(config))
    if not texts or given.get("answers.grader", "math") != "math":
        return []
    found = [answers.extract(text, last_number=True) for text in texts]
    said = []
    if "selection.require_boxed" not in given and not any("\\boxed" in text for text in texts):
        set_dotted(config, "selection.require_boxed", False)
        said.append("selection.require_boxed: false, because no response has an answer in \\boxed{}")
    has_none = not any(one.explicit for one in found) and any(one.answer for one in found)
    if "answers.last_number" not in given and has_none:
        set_dotted(config, "answers.last_number", True)
        said.append("answers.last_number: true, because no response announces an answer")
    return said


def _shape(named: Recognised) -> str:
    return f", in the shape of {named.tool}" if named.tool else ""


def _short(value: Any) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _EXAMPLE else f"{text[:_EXAMPLE]}…"


def _printable(text: str) -> str:
    """A text without the characters that no comment of YAML may have."""
    return "".join(one if one.isprintable() else " " for one in text)


def _example(value: Any) -> str:
    return "" if value is None else f", e.g. {_short(value)}"
