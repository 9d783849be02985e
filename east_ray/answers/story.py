"""What ``east-ray explain`` says: what a response's answer is, by which rule, how answers are read, which are equal."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from east_ray.answers import explanation, graders
from east_ray.answers.equality import as_options_text
from east_ray.answers.extraction import MAX_ANSWER_CHARS, NoAnswer, Rule
from east_ray.answers.grading import Grader, GraderError, Reading, compared, read, reference_check
from east_ray.config import AnswersConfig, InputError
from east_ray.config.base import validated
from east_ray.config.files import merge
from east_ray.records import Question
from east_ray.storage import load_run

_SETTING = re.compile(r"answers\.[a-z_.]+=")
_MAX_SHOWN_CHARS = 400
_RULES: Mapping[Rule, str] = {
    "box": "in a box",
    "drawn_box": "in a box drawn of characters, or marked by tokens",
    "hashes": 'after "####"',
    "tags": "in tags",
    "words": "after words that announce it",
    "subject": 'before words such as "is our answer"',
    "option": 'in words such as "option B is correct"',
    "pattern": "by answers.pattern",
    "last_number": "as the last number: nothing marks an answer",
}
_REASONS: Mapping[NoAnswer, str] = {
    "truncated": "a box, a formula or the thinking is not closed",
    "none": "nothing marks an answer; answers.last_number=true takes the last number",
    "too_long": f"what is marked has more than {MAX_ANSWER_CHARS:,} characters",
    "empty": "the box or the response is empty",
}


def from_command_line(
    arguments: Sequence[str], *, response: str | None, reference: str | None, run: str | None
) -> Iterator[str]:
    """The lines of the story. Raises InputError.

    Args:
        arguments: answers, and settings as ``answers.key=value``.
        response: the file of a response, "-" for the standard input.
        run: the YAML file or the directory of a run whose settings count.
    """
    overrides = [argument for argument in arguments if _SETTING.match(argument)]
    answers = [argument for argument in arguments if argument not in overrides]
    if run is not None:
        settings = load_run(run, overrides).answers
    else:
        settings = validated(AnswersConfig, merge({}, overrides).get("answers", {}), "answers.")
    if response is None and reference is None and not answers:
        raise InputError("name at least one answer, or a file with a response: --response FILE")
    try:
        yield from told(settings, answers, None if response is None else _text_of(response), reference)
    except GraderError as error:
        raise InputError(f"answers.grader: {error}") from error


def _text_of(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot read the response ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: the response is not UTF-8 text") from error


def told(
    settings: AnswersConfig, answers: Sequence[str], response: str | None = None, reference: str | None = None
) -> Iterator[str]:
    """The story of the answer of a response and of other answers; each is compared with the first.

    The reference answer is the first one, then comes that of the response. Raises GraderError if the grader fails.
    """
    grader, question = graders.load(settings), Question("explained", "", reference)
    named: dict[str, str] = {}
    if reference is not None:
        named["reference"] = reference
        if not reference_check(grader)(reference):
            yield "the reference answer cannot be compared with responses: none of them counts as correct"
    if response is not None:
        reading, lines = _reading(grader, response, question)
        yield from lines
        if reading.answer is not None:
            named["response"] = reading.answer
    named |= {f"answer {number}" if len(answers) > 1 else "answer": one for number, one in enumerate(answers, start=1)}
    texts = list(named.values())
    keys = compared(grader, texts, question)
    is_mathematical = settings.grader == "math" and settings.equivalence == "math"
    if is_mathematical and reference is not None:
        texts = as_options_text(texts, reference)
    for (name, answer), text, one in zip(named.items(), texts, keys, strict=True):
        option = f"the option's text, {_shown(text)}: " if text != answer else ""
        yield f"{name}: {_shown(answer)}"
        words = explanation.answer_in_words(text) if is_mathematical else f"the key {_shown(repr(one))}"
        yield f"  read as {option}{words}"
    names = list(named)
    for place in range(1, len(names)):
        is_equal = keys[place] == keys[0]
        yield f"{names[0]} and {names[place]} are {'equal' if is_equal else 'not equal'}"
        yield f"  {_why(texts[0], texts[place], is_equal) if is_mathematical else _why_by_key(is_equal)}"


def _why(a: str, b: str, is_equal: bool) -> str:
    """Why the grader for mathematics takes two answers for equal or not."""
    alone, why = explanation.comparison(a, b)
    return why if alone == is_equal else "both are roundings of another answer here"


def _why_by_key(is_equal: bool) -> str:
    return "the grader gives them the same key" if is_equal else "the grader gives them different keys"


def _reading(grader: Grader, response: str, question: Question) -> tuple[Reading, list[str]]:
    """What the grader reads in a response, and what to say of it."""
    if (found_by := getattr(grader, "found", None)) is not None:
        found = found_by(response)
        if found.answer is None:
            return Reading(None), [f"the response has no answer: {_REASONS[found.reason]}"]
        thinking = ", in thinking; there is none outside it" if found.in_thinking else ""
        boxed = "boxed" if found.boxed else "not boxed: selection.require_boxed does not choose such a response"
        lines = [
            f"the response's answer is found {_RULES[found.rule]}{thinking}",
            f"  rule {found.rule}; {boxed}",
            f"  … {_shown(found.place)} …",
        ]
        return Reading(found.answer, found.boxed, found.rule), lines
    reading = read(grader, response, question)
    if reading.answer is None:
        return reading, ["the response has no answer: the grader finds none"]
    rule = f" by its rule {_shown(reading.rule)}" if reading.rule else ""
    return reading, [f"the grader finds the response's answer{rule}; {'boxed' if reading.is_boxed else 'not boxed'}"]


def _shown(text: str) -> str:
    """The text on one line, without characters that a terminal would obey."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return line if len(line) <= _MAX_SHOWN_CHARS else line[: _MAX_SHOWN_CHARS - 1] + "…"
