r"""Response -> final answer: the text that the response marks as its answer, or the reason why there is none.

The first of these that a response has is its answer. Of several of one kind the last counts:

    \boxed{5}          and \fbox, \framebox[3cm], \bbox[5px], \boxed$5$, boxed{5}, a box drawn as ┌─┐│5│└─┘. Several
                       boxes are one answer if the words between them say so: \boxed{2} and \boxed{3}, (a) \boxed{2} (b)
                       \boxed{3}. An empty \boxed{}, \boxed{your answer} or "\boxed notation" is none
    #### 5             a value; an equation or a word only in the last line. "#### 2. Double them" is a heading.
                       A last line "### 5" counts too
    <answer>5</answer> and <final_answer>, <final>, [ANSWER], final_answer(5)
    The answer is 5    and "**Answer** 5", "Final result: 5", "Respuesta: 5", "答案是 5": the words of announcements.py,
                       in some 50 languages, and those of `answers.announcements`; the field of {"answer": 5, "unit":
                       "cm"}. Before what cannot be an answer they announce none: "the answer is actually very simple",
                       "12 is part of it"

Further conventions:

    a box, then words  a statement that begins a line ("Final Answer: 6") counts before the boxes above it
    thinking           in tags of any model is read only if nothing outside it has an answer; thinking that is never
                       closed is read unless `answers.unclosed_thinking` is "exclude"
    5, not 6           what follows the value is cut; a chain gives its end (m+n = 256+37 = 293)
    \frac{1}{2         LaTeX that the end of the response cuts off is no answer, but a box before it is one
    Question: ...      the response ends where the model begins to invent the next question
    `answers.pattern`  decides alone: its group in the last match, in the last 20,000 characters

Each character is read a bounded number of times. Known limits: a decimal comma is understood only in a response that
uses words of a language that writes it; if the last box is cut off, the box of an earlier, rejected attempt counts.
"""

import functools
import itertools
import re
from dataclasses import dataclass, replace
from typing import Literal

from east_ray.answers.announcements import lower_case, places, writes_decimal_comma
from east_ray.answers.boxes import boxed_answer, drawn_box
from east_ray.answers.sentences import (
    MAX_TAIL_CHARS,
    VALUE_START,
    announced,
    begins_with_value,
    is_cut_off,
    is_placeholder,
    is_unfinished,
    last_in,
    last_value,
)
from east_ray.answers.thinking import UnclosedThinking, without_thinking

MAX_ANSWER_CHARS = 2000
_MAX_ANNOUNCEMENTS = 20  # so many of "the answer is" are tried, from the last
_MAX_PATTERN_CHARS = 20_000  # of a response are searched for `answers.pattern`: many matches take quadratic time
_CHARS_BEFORE, _CHARS_AFTER, _MAX_PLACE_CHARS = 40, 20, 240  # of the response around an answer, in `Extraction.place`
NoAnswer = Literal["truncated", "none", "too_long", "empty"]
Rule = Literal["", "box", "drawn_box", "hashes", "tags", "words", "subject", "option", "pattern", "last_number"]
"""What found an answer. subject: "5 is our answer"; option: "option B is correct"; "": nothing did."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """The final answer of a response, or why there is none."""

    answer: str | None
    reason: NoAnswer | None = None
    """None if there is an answer. "truncated": a box or formula is not closed; "empty": the box or the response is
    empty; "too_long": the answer has more than MAX_ANSWER_CHARS characters; "none": no answer is marked."""
    boxed: bool = False
    """The answer stood in \\boxed, \\fbox or \\framebox."""
    explicit: bool = False
    """The response marks the answer by a box, "####", tags or words. False: it is merely the last number."""
    rule: Rule = ""
    """What found the answer."""
    place: str = ""
    """A few words of the response around the answer."""
    in_thinking: bool = False
    """The answer stood in thinking. Outside it there was none."""


_RUN_ON = re.compile(
    r"<\|(?:im_start|im_end|endoftext|end_of_text|begin_of_text|eot_id|start_header_id)\|>|</s>"
    r"|^[#* \t]*(?:problem|question|exercise|user|human|instruction|q)[ \t]{0,4}\d{0,6}[ \t]{0,4}\*{0,3}[ \t]{0,4}:"
    r"|^#+[ \t]*(?:problem|question|exercise)[ \t]{1,4}\d{1,6}\b",
    re.IGNORECASE | re.MULTILINE,
)
"""The place where a model that does not stop begins to invent the next question."""


def extract_answer(response: str) -> str | None:
    r"""The final answer that the response marks, or None.

    >>> extract_answer(r"First \boxed{3}, but no: \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    >>> extract_answer("Janet makes $18 every day.") is None
    True
    """
    return extract(response).answer


def extract(
    response: str,
    *,
    last_number: bool = False,
    unclosed_thinking: UnclosedThinking = "count",
    announcements: tuple[str, ...] = (),
    pattern: re.Pattern[str] | None = None,
) -> Extraction:
    """The final answer of a response, or the reason why it has none.

    Args:
        last_number: if no answer is marked, take the last number or formula of the last sentence (not explicit).
        unclosed_thinking: "exclude" takes no answer from thinking that is never closed.
        announcements: further words that announce an answer.
        pattern: its one group finds the answer instead of all other rules. No pattern that `compiled_pattern` of
            config.base made can hang.
    """
    if not response.strip():
        return Extraction(None, "empty")
    response = _with_lost_backslashes(response)
    said, is_thinking = without_thinking(response)
    find = (
        functools.partial(_matched, pattern=pattern) if pattern else functools.partial(_marked, further=announcements)
    )
    # An answer outside the thinking counts; an answer inside the thinking counts only if there is no other.
    found = find(said)
    if is_thinking and unclosed_thinking == "exclude":
        return found if found.answer is not None else Extraction(None, "truncated")
    if found.answer is None and said != response:
        found = find(response)
        found = replace(found, in_thinking=found.answer is not None)
    if found.answer is None and found.reason == "none" and last_number and not pattern:
        return _last_value(response if is_thinking else said)
    return found


_LOST_TAB = re.compile(r"\t(?=ext\{|extbf\{|imes\b|heta\b|frac\b|riangle\b)")


def _with_lost_backslashes(response: str) -> str:
    r"""With \b and \f where a response went through JSON and \boxed, \frac became a backspace or form feed."""
    if "\x08" in response or "\x0c" in response:
        response = response.replace("\x08", "\\b").replace("\x0c", "\\f")
    return _LOST_TAB.sub(r"\\t", response) if "\t" in response else response


def _marked(text: str, further: tuple[str, ...]) -> Extraction:
    """The answer of the first part that has one; run-on questions divide the text into parts."""
    without_answer: Extraction | None = None
    for start, end in itertools.pairwise([0, *(match.start() for match in _RUN_ON.finditer(text)), None]):
        part = text[start:end]
        found = _in_box(part, further)
        if found is None or found.reason == "empty":
            drawn = drawn_box(part)
            found = (
                (_explicit(drawn, "drawn_box", part, part.rfind(drawn)) if drawn else None)
                or _by_marks_or_words(part, further)
                or found
            )
        if found is not None and found.answer is not None:
            return found
        without_answer = without_answer or found
    return without_answer or Extraction(None, "none")


def _by_marks_or_words(part: str, further: tuple[str, ...]) -> Extraction | None:
    """The answer after hashes, in tags, or after words that announce it. None: nothing marks one."""
    return _after_hashes(part) or _in_tags(part, further) or _after_words(part, further) or _before_words(part)


def _explicit(answer: str, rule: Rule, text: str, start: int, end: int = 0) -> Extraction:
    """The extraction of a marked answer, unless it is empty or too long.

    Args:
        text: where the answer was found; it also tells how decimals are written.
        start, end: where in the text the answer and its mark stand.
    """
    answer = answer.strip()
    if len(answer) > MAX_ANSWER_CHARS:
        return Extraction(None, "too_long")
    if not answer:
        return Extraction(None, "empty")
    if rule != "pattern":
        answer = _with_decimal_point(answer, text)
    return Extraction(answer, None, rule == "box", True, rule, _place(text, start, max(end, start + len(answer))))


def _place(text: str, start: int, end: int) -> str:
    """The text from `start` to `end` with a few characters around it."""
    return text[max(0, start - _CHARS_BEFORE) : min(end + _CHARS_AFTER, start + _MAX_PLACE_CHARS)]


_DECIMAL_COMMA = re.compile(
    r"([-+−]?\d{1,15}|[-+−]?\d{1,3}(?:[. \u00a0\u202f]\d{3}){1,5}),(\d{1,2}|\d{4,})(?!\d)(?=[^\d,]{0,20}$)"
)


def _with_decimal_point(answer: str, text: str) -> str:
    """3,5 becomes 3.5 if the language of the response writes a decimal comma."""
    match = _DECIMAL_COMMA.match(answer) if "," in answer else None
    if not match or not writes_decimal_comma(text):
        return answer
    whole = re.sub(r"[.\s]", "", match[1])
    return f"{whole}.{match[2]}{answer[match.end() :]}"


# ------------------------------------------------------------------------------------------------------ box and pattern


_WORD = re.compile(r"[^\W_]")
_LONG_WORD = re.compile(r"[A-Za-z]{3,}")
_IS_VALUE = re.compile(r"\d|\\|^[A-Z]$")


def _in_box(part: str, further: tuple[str, ...]) -> Extraction | None:
    """The answer of the boxes, or that of a final statement after them. None: there is no box."""
    boxes = boxed_answer(part)
    if boxes is None:
        return None
    if boxes.answer is None:
        return Extraction(None, "truncated" if boxes.reason == "truncated" else "empty")
    is_last = not _WORD.search(part, boxes.end)
    stated = None if is_last else _after_words(part, further, after_box=boxes.end)
    statement = (stated.answer if stated else None) or ""
    if stated and _IS_VALUE.search(statement) and _characters(statement) != _characters(boxes.answer):
        return stated
    return _explicit(boxes.answer, "box", part, boxes.start, boxes.end)


def _characters(answer: str) -> str:
    r"""The digits and names without words, by which "10,455 apples" after \boxed{10{,}455} says the same."""
    return "".join(c for c in _LONG_WORD.sub("", answer) if c.isalnum()) or answer


def _matched(text: str, pattern: re.Pattern[str]) -> Extraction:
    """The group of the last match of the user's pattern that is not empty."""
    text = text[-_MAX_PATTERN_CHARS:].encode("utf-8", "replace").decode("utf-8")
    last: re.Match[str] | None = None
    for match in pattern.finditer(text):
        last = match if match[1] and match[1].strip() else last
    return Extraction(None, "none") if last is None else _explicit(last[1], "pattern", text, *last.span())


# ------------------------------------------------------------------------------------------------- hashes, tags, words

_HASHES = re.compile(r"(?:^|(?<=\s))####(?!#)[ \t]*(?:\n[ \t]*)?([^\n]*)", re.MULTILINE)
_LAST_HASHES = re.compile(r"^\s{0,3}#{2,3}[ \t]*([^\n#][^\n]*)", re.MULTILINE)
_HEADING = re.compile(r"[*_]*(?:\d{1,2}|[A-Za-z])[.):][*_]*\s+\S*[^\W\d_]{2}|(?:step|part|case)\b", re.IGNORECASE)
"""A numbered heading: "2. Double them"."""
_PLAIN_VALUE = re.compile(
    r"[*_$]*[-+−]?[$£€¥₹]?\s?\.?\d[\d,.{}\\!]*\s?(?:/\s?\d+)?\s?\\?%?[*_$.]*(?:\s[a-z]+){0,4}\.?"
    r"|\$[^$=]+\$\.?|\\\([^=]+\\\)\.?|\\[dt]?frac\{[^{}]*\}\{[^{}]*\}"
)
_SHORT = re.compile(r"(?:[^\s=]+\s+){0,3}[^\s=]+|[^\s=]{1,12}\s*=.*")
_NOT_WORDS = re.compile(
    r"(?:final\s+)?(?:answer|result|solution|conclusion|step|explanation|verification|check)\b", re.IGNORECASE
)
_TAGS = ("answer", "final_answer", "finalanswer", "final-answer", "final")
_CALL = re.compile(r"\bfinal_?answer\((?:answer\s?=\s?)?(?:([\"'])([^\n\"']{1,200})\1|(-?[\d.]{1,30}))\)")
_RIGHT = r"(?:(?:final|correct|right|required|desired|best|exact|numerical)\s+)?"
_IS_THE_ANSWER = re.compile(rf"\b(?:is|as)\s+(?:our|the|my|your)\s+{_RIGHT}(?:answer|option\b|choice\b)", re.IGNORECASE)
_CHOICE_IS_RIGHT = re.compile(
    r"(?i:^|[.,:;*\n]\s{0,3}|\b(?:option|choice|answer|letter|so|thus|hence|therefore|that)\s+)[*(]{0,3}([A-H])[*).]{0,4}"
    r"(?i:\s+(?:is|must\s+be)\s+(?:therefore\s+|thus\s+)?(?:(?:the\s+|our\s+|my\s+)?(?:correct|right|best)"
    r"(?:\s+(?:answer|option|choice)\b|(?=[*_)]{0,3}\s*(?:[.,;:!]|$|\n)|\s+(?:because|since)\b))|(?:the|our|my)\s+(?:final\s+)?(?:answer|option|choice)\b))"
    r"|\b(?i:(?:I|we)(?:\s+(?:will|would|must|should|can)|['’](?:ll|d))?\s+(?:choose|chose|pick|select|go\s+with)\s+"
    r"(?:(?:the\s+)?(?:option|choice|answer)\s+)?)[*(]{0,3}([A-H])(?=[*)]{0,3}\s*(?:[.,;:!]|$|\n|because\b|since\b))"
    r"|(?:选|選)(?:择|擇)?(?:选项|選項|答案)?\s?[*(（]{0,3}([A-H])(?=[*)）]{0,3}\s*(?:[.,;。．，；]|$))",
    re.MULTILINE,
)
"""Words that choose one of several answers: "(B) is correct", "I choose B", "选B"."""
_NAMES_THE_CHOICE = re.compile(r"\b(?:option|choice|answer)\b", re.IGNORECASE)
_REASON = re.compile(r"[*_)]{0,3},?\s+(?:because|since)\b(?:[^.!?。\n]|\.(?=\d))*|")
_HAS_VALUE = re.compile(r"[\d$\\]")


def hashed(text: str) -> re.Match[str] | None:
    """The last "#### 42" of a text, as GSM8K marks answers; group 1 is the rest of the line. A heading is none."""
    for line in reversed(list(_HASHES.finditer(text))) if "####" in text else ():
        content = line[1].strip()
        if not content or _HEADING.match(content) or is_placeholder(content) or _NOT_WORDS.match(content):
            continue
        is_last = not text[line.end() :].strip()
        if _PLAIN_VALUE.fullmatch(content) or (is_last and (VALUE_START.match(content) or _SHORT.fullmatch(content))):
            return line
    last = _LAST_HASHES.search(text, max(0, text.rstrip().rfind("\n")))
    return last if last and _PLAIN_VALUE.fullmatch(last[1].strip()) else None


def _after_hashes(text: str) -> Extraction | None:
    line = hashed(text)
    if line is None:
        return None
    content = line[1].strip()
    if is_cut_off(content) and not text[line.end() :].strip():
        return Extraction(None, "truncated")
    stated = announced(content) if len(content) <= MAX_TAIL_CHARS else None
    return _explicit(stated or content, "hashes", text, *line.span())


def _in_tags(text: str, further: tuple[str, ...]) -> Extraction | None:
    """The content of the last <answer>…</answer>, or the answer that its words announce."""
    lower = lower_case(text)
    if calls := [*_CALL.finditer(text)] if "answer(" in text else []:
        return _explicit(calls[-1][2] or calls[-1][3], "tags", text, *calls[-1].span())
    if "/" not in lower:
        return None
    for name, (opening, closing) in itertools.product(_TAGS, (("<", ">"), ("[", "]"))):
        end = lower.rfind(f"{opening}/{name}{closing}")
        begin = lower.rfind(f"{opening}{name}{closing}", 0, max(end, 0))
        if begin < 0:
            continue
        content = text[begin + len(name) + 2 : end]
        is_short = len(content) <= MAX_TAIL_CHARS
        stated = _after_words(content, further) or _before_words(content) if is_short else None
        if stated or not is_placeholder(content):
            return stated or _explicit(content.strip().strip("*_`"), "tags", text, begin, end)
    return None


def _after_words(text: str, further: tuple[str, ...], after_box: int = 0) -> Extraction | None:
    """The answer that the last "the answer is" or "Answer:" announces.

    Args:
        after_box: the end of the last box. After it, only an announcement that begins a line or says "final" counts.
    """
    for place in places(text, further, after_box)[:_MAX_ANNOUNCEMENTS]:
        if after_box and not place.opens_line and not text[: place.start].rstrip().lower().endswith("final"):
            continue
        tail = text[place.end : place.end + MAX_TAIL_CHARS]
        if "|" in text[place.start : place.end]:
            tail = _REST_OF_ROW.sub("", tail)
        if (field := _field(text[place.start : place.end], tail)) is not None:
            if is_placeholder(field):
                continue
            return _explicit(announced(field) or field, "words", text, place.start, place.end)
        if after_box and not begins_with_value(tail):
            continue
        if place.end + MAX_TAIL_CHARS >= len(text) and is_unfinished(tail):
            return Extraction(None, "truncated")
        if (answer := announced(tail)) is not None and not is_placeholder(answer):
            return _explicit(answer, "words", text, place.start, place.end + len(answer))
    return None


def _before_words(text: str) -> Extraction | None:
    """The answer before the last "… is our answer" or "option … is correct"."""
    chosen = [match for match in [*_CHOICE_IS_RIGHT.finditer(text)][-1:] if _is_final(match)]
    for match in [*_IS_THE_ANSWER.finditer(text)][-1:]:
        head = text[max(0, match.start() - MAX_TAIL_CHARS) : match.start()]
        if not (chosen and chosen[0].end() > match.start()) and (answer := last_in(head)) is not None:
            return _explicit(answer, "subject", text, *match.span())
    for match in chosen:
        return _explicit(next(filter(None, match.groups())), "option", text, *match.span())
    return None


def _is_final(choice: re.Match[str]) -> bool:
    """Whether words that choose belong to no working: "We choose A. So there are 12 ways" goes on with a value."""
    if choice[1] and _NAMES_THE_CHOICE.search(choice[0]):
        return True
    reason = _REASON.match(choice.string, choice.end())
    return not _HAS_VALUE.search(choice.string, reason.end() if reason else choice.end())


_REST_OF_ROW = re.compile(r"\|(?:\s.*)?\Z", re.DOTALL)
"""What stands behind the cell of a table."""
_NAME_OF_FIELD = re.compile(r"\w{1,40}[\"']\s?[:：]")
_FIELD = re.compile(
    r"\s*(?:\{\s*[\"']\w{1,20}[\"']\s*:\s*)?(?:\"((?:[^\"\\\n]|\\.)*)\"|'((?:[^'\\\n]|\\.)*)'|(\[[^\[\]{}]*\])"
    r"|(?:null|None)\b|([-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|[\w.][\w.+/-]*)))(?=\s*(?:[,}\]]|\n|$))"
)
_ESCAPED = re.compile(r"\\(?:([\\\"'/])|u([0-9a-fA-F]{4}))")


def _field(announcement: str, tail: str) -> str | None:
    r"""The value of a field of JSON or Python, 5 of {"answer": "5", "unit": "cm"}. None: it is no field."""
    field = _FIELD.match(tail) if _NAME_OF_FIELD.fullmatch(announcement) else None
    if not field:
        return None
    double, single, listed, bare = field.groups("")
    return (
        _ESCAPED.sub(lambda escape: escape[1] or chr(int(escape[2], 16)), double or single)
        or re.sub(r"[\"']", "", listed)
        or bare
    )


def _last_value(response: str) -> Extraction:
    """The last formula or number of the last sentence. A response that ends inside a formula has none."""
    run_on = next((m for m in _RUN_ON.finditer(response) if response[: m.start()].strip()), None)
    text = response[: run_on.start() if run_on else None].rstrip()
    if is_cut_off(text):
        return Extraction(None, "truncated")
    answer = last_value(text)
    if not answer:
        return Extraction(None, "none")
    at = max(0, text.rfind(answer))
    return Extraction(answer, rule="last_number", place=_place(text, at, len(text)))
