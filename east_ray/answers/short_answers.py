r"""The built-in graders for tasks with short answers that are no mathematics: a choice, words, a number.

>>> from east_ray.records import Question
>>> capitals = Question("q1", "The capital of France?", extra={"options": ["Lyon", "Paris"]})
>>> ChoiceGrader().keys(["(B)", "b. Paris", "paris", "A"], capitals)
['B', 'B', 'B', 'A']
>>> TextGrader().keys(["The Eiffel Tower.", "eiffel tower", "3.5 m", "35 m"], capitals)
['eiffel tower', 'eiffel tower', '3.5 m', '35 m']
>>> NumberGrader(digits=2).keys(["3.14159", "314/100", "1e-3", "0"], capitals)
[Fraction(157, 50), Fraction(157, 50), Fraction(1, 1000), Fraction(0, 1)]
"""

import re
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from east_ray.answers.announcements import places
from east_ray.answers.equality import canonical
from east_ray.answers.extraction import hashed
from east_ray.answers.graders import MarkedAnswers
from east_ray.answers.grading import Reading
from east_ray.answers.thinking import without_thinking
from east_ray.records import Question

_MAX_LINE_CHARS = 200  # a longer response of one line is an explanation, not an answer

# --------------------------------------------------------------------------------------------------------------- words

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|emph)\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_IN_NUMBER = re.compile(r"(?<=\d)[^\w\s](?=\d)|(?<=\w)\^(?=\w)|(?<![\w)])[-.](?=\.?\d)|(?<=\d)%|(?<=\w)[+#]+(?!\w)")
_DASHES = str.maketrans("‐‑‒–—−", "------")


def words(text: str) -> str:
    """A text as SQuAD's evaluation compares it: lower case, without articles and punctuation, single spaces.

    Other than there, marks that make another number or name are kept (3.5, 1/2, -5, 10 %, 2^3, C++), except commas
    between thousands, and a text that has nothing else remains as it is: the answer "A" is not empty.
    """
    plain = unicodedata.normalize("NFKC", _COMMAND.sub(r"\1", text)).translate(_DASHES).casefold()
    plain = _THOUSANDS.sub("", re.sub(r"(?<=\d)\s+%", "%", plain))
    kept = {place for match in _IN_NUMBER.finditer(plain) for place in range(match.start(), match.end())}
    signs = "".join(c for place, c in enumerate(plain) if place in kept or not _is_punctuation(c))
    return " ".join(_ARTICLES.sub(" ", signs).split()) or " ".join(plain.split())


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P" or character in "$+<=>^`|~"


# ------------------------------------------------------------------------------------------------------------- graders


class TextGrader(MarkedAnswers):
    """Answers in words, equal by `words`. A response of one line that marks no answer is one itself."""

    def read(self, response: str, question: Question) -> Reading:
        """The box, "#### …" or tags as in mathematics, else all that is announced, else the line."""
        found = super().read(response, question)
        if found.rule == "hashes" and (marked := hashed(self._said(response)) or hashed(response)):
            return replace(found, answer=marked[1].strip("*_` "))  # all of it: a value in mathematics may be shorter
        if found.is_boxed or self._pattern or (found.answer is not None and _DELIMITED.search(response)):
            return found
        said = self._said(response)
        if (announced := _announced(said, self._announcements)) is not None:
            return Reading(announced, rule="words")
        line, is_of_thinking = said.strip(), said != response
        if (found.answer is None or is_of_thinking) and line and "\n" not in line and len(line) <= _MAX_LINE_CHARS:
            return Reading(line, rule="line")
        return found

    def keys(self, answers: Sequence[str], question: Question) -> Sequence[Hashable]:
        """The words of each answer."""
        return [words(answer) for answer in answers]

    def _said(self, response: str) -> str:
        """The response without its thinking, or all of it if there is nothing else."""
        parts = without_thinking(response)
        is_excluded = parts.is_cut_off and self._unclosed_thinking == "exclude"
        return parts.said if parts.said.strip() or is_excluded else response


_DELIMITED = re.compile(r"####|</(?:final[_-]?)?answer>", re.IGNORECASE)
_END = re.compile(
    r"(?:(?<=\w{4})(?<!prof)(?<!capt)|(?<=[\d)\"'”*]))[.!]\s|[.!]?\s*(?:\n|$)|[。！<]|,\s(?=(?:who|which|because|since)\b)",
    re.IGNORECASE,
)
"""The end of a sentence, but not an abbreviation: "J. R. R. Tolkien", "Dr. No"."""
_EMPTY_START = re.compile(r"^[\s:*_]*")


def _announced(text: str, further: tuple[str, ...]) -> str | None:
    """What follows the last "The answer is", up to the end of the sentence or line."""
    for place in places(text, further):
        tail = _EMPTY_START.sub("", text[place.end : place.end + 2 * _MAX_LINE_CHARS], count=1)
        end = _END.search(tail)
        answer = tail[: end.start() if end else None].strip().strip('*_`"“”$').strip()
        if 0 < len(answer) <= _MAX_LINE_CHARS:
            return answer
    return None


class NumberGrader(TextGrader):
    """Numbers, equal if they are when rounded; what is no number is no answer.

    A number is what it is in mathematics (equality.py): 1,234, 1.5e-3, 3/4, 1 3/4, 5 apples = 5, 50% = 50.

    Args:
        digits: places after the decimal point; None compares exact values. What would be rounded to 0 stays exact.
        how_read: see `MarkedAnswers`.
    """

    def __init__(self, digits: int | None = 6, **how_read: Any) -> None:
        super().__init__(**how_read)
        if digits is not None and not (isinstance(digits, int) and 0 <= digits <= 1000):
            raise ValueError(f"digits: {digits!r} is no whole number from 0 to 1000")
        self._digits = digits

    def read(self, response: str, question: Question) -> Reading:
        """The marked answer as in mathematics, else as `TextGrader` reads it, if it is a number."""
        found = MarkedAnswers.read(self, response, question)
        if found.answer is None and not self._pattern:
            found = super().read(response, question)
        return found if found.answer is not None and _value(found.answer) is not None else Reading(None)

    def keys(self, answers: Sequence[str], question: Question) -> Sequence[Hashable]:
        """The rounded number; of a reference answer that is none, the words."""
        return [words(answer) if (value := _value(answer)) is None else self._rounded(value) for answer in answers]

    def can_use(self, reference_answer: str | None) -> bool:
        """Whether the reference answer is a number."""
        return reference_answer is not None and _value(reference_answer) is not None

    def _rounded(self, value: Fraction) -> Fraction:
        return value if self._digits is None else round(value, self._digits) or value


def _value(answer: str) -> Fraction | None:
    key = canonical(answer)
    match key:
        case ("number", Fraction() as value, *_):
            return value
        case ("number", ("real", int(mantissa), int(exponent))):
            return mantissa * Fraction(2) ** exponent
    return None


class ChoiceGrader(TextGrader):
    """Multiple choice: the letter of an option, in any form: B, (b), B., \\text{B}, option B, B) Paris, Paris.

    The options are in the column `options` of the questions, if there is one: a list (A, B, …), a mapping from letter
    to text, or {label: […], text: […]}. Then an option's text means its letter, and a letter with the text of another
    option means neither. Several letters ("A and C", "C, A") and other words are answers of their own.

    Args:
        options: the name of the column, which `questions.extra_columns` must keep.
        how_read: see `MarkedAnswers`.
    """

    def __init__(self, options: str = "options", **how_read: Any) -> None:
        super().__init__(**how_read)
        self._announcements = (*self._announcements, *_ANNOUNCEMENTS)
        self._column = options

    def read(self, response: str, question: Question) -> Reading:
        """The letter if the marked answer is an option, else that answer."""
        options = _options(question.extra.get(self._column))
        found = super().read(response, question)
        if found.answer is None and not self._pattern:  # an explanation may end with a line that is only the choice
            last = _bare(self._said(response).strip().rpartition("\n")[2])
            choice = _CHOICE.fullmatch(last)
            if _LETTER.fullmatch(last) or words(choice[3] if choice else last) in options.values():
                found = Reading(last, rule="line")
        letter = _letter(found.answer or "", options)
        if letter is None and found.rule in _STATED and not _CHOICE.match(_bare(found.answer or "")):
            found = MarkedAnswers.read(self, response, question)  # it knows what may follow a letter
            letter = _letter(found.answer or "", options)
        if letter is None and found.rule == "line":
            return Reading(None)
        return replace(found, answer=letter or found.answer)

    def keys(self, answers: Sequence[str], question: Question) -> Sequence[Hashable]:
        """The letter, or the words of what is no option."""
        options = _options(question.extra.get(self._column))
        return [_letter(answer, options) or ("words", *_bare(answer).casefold().split()) for answer in answers]


#: The rules of an answer that is marked, but neither boxed nor found by the pattern.
_STATED = ("drawn_box", "hashes", "tags", "words", "subject", "option")
_ANNOUNCEMENTS = ("correct choice", "best choice", "best option", "my choice")
_LETTER = re.compile(r"(?:(?:option|choice|answer)\s+)?[(\[]?([a-z]|\d{1,2})[)\]]?[.:]?", re.IGNORECASE)
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:[(\[]([a-z]|\d{1,2})[)\]][.:,]?|([a-z]|\d{1,2})(?:[.)\]:,]|\s+-)(?=\s))\s*(.+)",
    re.IGNORECASE | re.DOTALL,
)
"""A choice with what follows it: "B) Paris"."""


def _bare(answer: str) -> str:
    return _COMMAND.sub(r"\1", answer).replace("*", "").translate(_DASHES).strip().strip("_`$\"“”'").strip()


def _options(column: Any) -> dict[str, str]:
    """Letter -> words of an option. Empty: the options are not known."""
    if isinstance(column, Mapping):
        if isinstance(texts := column.get("text"), list) and isinstance(labels := column.get("label"), list):
            column = dict(zip(labels, texts, strict=False))
        return {str(letter).strip().upper(): words(str(text)) for letter, text in column.items()}
    if isinstance(column, list):
        own = [re.match(r"\(?([A-Z])[.):]\s+(.+)", str(text), re.DOTALL) for text in column]
        letters = [chr(ord("A") + place) for place in range(min(26, len(column)))]
        if [match[1] for match in own if match] == letters:  # the texts have their letters
            return {match[1]: words(match[2]) for match in own if match}
        return {letter: words(str(text)) for letter, text in zip(letters, column, strict=False)}
    return {}


def _letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer names; None if it names none, or more than one."""
    text = _bare(answer)
    if (alone := _LETTER.fullmatch(text)) and _is_known(letter := alone[1].upper(), options):
        return letter
    if _SEVERAL.fullmatch(text):
        several = sorted(set(_UPPER.findall(text)))
        return ", ".join(several) if all(_is_known(one, options) for one in several) else None
    named = [letter for letter, option in options.items() if option == words(text)]
    if len(named) == 1:
        return named[0]
    if (choice := _CHOICE.fullmatch(text)) and _is_known(letter := (choice[1] or choice[2]).upper(), options):
        rest = words(choice[3])
        is_another = rest != options.get(letter) and rest in options.values()
        return None if is_another or _FURTHER_LETTER.match(choice[3]) else letter
    return None


_UPPER = re.compile(r"[A-Z]")
_SEVERAL = re.compile(r"\(?[A-Z]\)?(?:(?:\s*[,;&]\s*|\s+)(?:and\s+)?\(?[A-Z]\)?)+")
_FURTHER_LETTER = re.compile(r"(?:[,&]\s*|(?:and|or)\s+)*[(\[]?[A-Z][)\]]?(?:[.,]|\s*$)")


def _is_known(letter: str, options: Mapping[str, str]) -> bool:
    return letter in options if options else letter.isalpha()
