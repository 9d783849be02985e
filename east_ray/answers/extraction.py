"""Response -> final answer: the text that the response marks as its answer, or the reason why there is none.

A box counts before "#### 42", which counts before <answer> tags and words such as "the answer is". Each character is
read a bounded number of times.

Known limits: a decimal comma is understood only in a response that uses words of a language that writes it; if the last
box is cut off, the box of an earlier, rejected attempt counts.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MAX_ANSWER_CHARS = 2000
_MAX_ANNOUNCEMENTS = 20  # so many of "the answer is" are tried, from the last
_MAX_TAIL_CHARS = 2000  # so much of a response is searched for an answer in prose
_MAX_CHARS_BETWEEN_BOXES = 80  # of boxes that form a list
NoAnswer = Literal["truncated", "none", "too_long", "empty"]


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


def extract(response: str, *, last_number: bool = False) -> Extraction:
    """The final answer of a response, or the reason why it has none.

    Args:
        last_number: if no answer is marked, take the last number or formula of the last sentence (not explicit).
    """
    if not response.strip():
        return Extraction(None, "empty")
    # An answer after the thinking counts; an answer inside the thinking counts only if none follows.
    _, closing_tag, conclusion = response.rpartition("</think>")
    if closing_tag and (found := _extract_marked(conclusion)).answer is not None:
        return found
    found = _extract_marked(response)
    if found.answer is None and found.reason == "none" and last_number:
        return _last_value(conclusion if closing_tag else response)
    return found


def _extract_marked(text: str) -> Extraction:
    """The answer of the first part that has one; run-on questions divide the text into parts."""
    without_answer: Extraction | None = None
    for start, end in itertools.pairwise([0, *(match.start() for match in _RUN_ON.finditer(text)), None]):
        part = text[start:end]
        found = _boxed(part) or _after_hashes(part) or _in_tags(part) or _after_words(part)
        if found is not None and found.answer is not None:
            return found
        without_answer = without_answer or found
    return without_answer or Extraction(None, "none")


def _explicit(answer: str, boxed: bool = False) -> Extraction:
    """The extraction of a marked answer, unless it is empty or too long."""
    answer = answer.strip()
    if len(answer) > MAX_ANSWER_CHARS:
        return Extraction(None, "too_long")
    return Extraction(answer, boxed=boxed, explicit=True) if answer else Extraction(None, "empty")


# ---------------------------------------------------------------------------------------------------------------- box

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_UNBRACED = re.compile(r"[^\s${}\\,]+|\\[A-Za-z]+(?:\{[^{}]*\})*")
_SPACING = r"(?:[ \t\n$]|\\[()\[\],;: ]|\\q?quad|\\text\{\s*\})*"
_CONJUNCTION = r"(?:[,;&]|\\(?:text|mbox)\{\s*,?\s*(?:and|or)\s*\}|(?:,\s*)?(?:[a-z]+[ ]+)?(?:and|or)\b)"
_NAME_OF_NEXT = r"(?:[A-Za-z](?:_\{?\w{1,3}\}?)?\s*=\s*)?"
_BETWEEN_BOXES = re.compile(rf"{_SPACING}{_CONJUNCTION}{_SPACING}{_NAME_OF_NEXT}{_SPACING}|[ \t$]*|\\q?quad ?")
"""What may stand between two boxes that form a list: a comma, "and", "or", or nothing."""


def _boxed(text: str) -> Extraction | None:
    """The last box that is closed and not empty, with the boxes before it that form a list with it; None: no box."""
    openings = list(_BOX.finditer(text))
    if not openings:
        return None
    boxes = _complete_boxes(text, openings)
    if not boxes:
        return Extraction(None, "truncated")
    contents = [(start, end, content) for start, end, content in boxes if content.strip()]
    if not contents:
        return Extraction(None, "empty")
    joined = [contents[-1]]
    for previous in reversed(contents[:-1]):
        between = text[previous[1] : joined[0][0]]
        if len(between) > _MAX_CHARS_BETWEEN_BOXES or not _BETWEEN_BOXES.fullmatch(between):
            break
        joined.insert(0, previous)
    answer = _with_decimal_point(", ".join(content.strip() for _, _, content in joined), text)
    return _explicit(answer, boxed=True)


def _complete_boxes(text: str, openings: Sequence[re.Match[str]]) -> list[tuple[int, int, str]]:
    """(start, end, content) of the outermost closed boxes, in order. The braces are read once."""
    closing: dict[int, int] = {}
    open_braces: list[int] = []
    for match in _BRACE.finditer(text, openings[0].start()):
        if match[0] == "{":
            open_braces.append(match.start())
        elif match[0] == "}" and open_braces:
            closing[open_braces.pop()] = match.start()
    boxes: list[tuple[int, int, str]] = []
    inside_until = 0
    for opening in openings:
        start = opening.end()
        if opening.start() < inside_until:
            continue
        if text[start : start + 1] == "{":
            if (end := closing.get(start)) is None:
                continue
            boxes.append((opening.start(), end + 1, text[start + 1 : end]))
        elif bare := _UNBRACED.match(text, start):
            boxes.append((opening.start(), bare.end(), bare[0].rstrip(".")))
        else:
            continue
        inside_until = boxes[-1][1]
    return boxes


_COMMA_LANGUAGE = re.compile(
    r"\b(?:réponse|donc|respuesta|Antwort|Lösung|risposta|resposta|ответ|решение)\b", re.IGNORECASE
)
_DECIMAL_COMMA = re.compile(r"([-+]?\d+),(\d{1,2}|\d{4,})")


def _with_decimal_point(answer: str, text: str) -> str:
    """3,5 becomes 3.5 if the language of the response writes a decimal comma."""
    match = _DECIMAL_COMMA.fullmatch(answer.strip())
    return f"{match[1]}.{match[2]}" if match and _COMMA_LANGUAGE.search(text) else answer


# ------------------------------------------------------------------------------------------------- hashes, tags, words

_HASHES = re.compile(r"^[ \t]*####[ \t]*([^\n]*)", re.MULTILINE)
_VALUE_START = re.compile(r"[-+−$£€(\[{.\\|√π½]|\d")
_ANSWER_WORDS = re.compile(
    r"(?:answers?(?:\s(?:to|for|of|in)\s[^.\n:=$]{1,60}?)?|result|(?:correct|right)\s{1,4}(?:option|choice))"
    r"[*_]{0,4}\s{1,4}(?:is|are|was|would\s+be|should\s+be|must\s+be|equals|comes\s+(?:out\s+)?to)\b\s*[:=]?"
    r"|(?:answers?|\bans\.?)[*_]{0,4}\s{0,4}(?:->|=>|→|[:=：])[*_]{0,4}|answers?[*_]{0,4}\s{0,4}[-–]\s"
    r"|answer[*_]*\s*(?=\$|\\\(|\\\[)"
    r"|final\s+answer[*_]*\s*\n"
    r"|答案\s*(?:是|为)?\s*[:：]?|(?:réponse|respuesta|risposta|resposta)\s+(?:est|es|è|é)\b\s*:?"
    r"|Antwort\s+(?:ist|lautet)\b\s*:?|ответ\s*[:—-]"
    r"|^[ \t]*A:",
    re.IGNORECASE | re.MULTILINE,
)
_IS_THE_ANSWER = re.compile(r"\bis\s+(?:our|the|my)\s+(?:final\s+|correct\s+)?answer", re.IGNORECASE)
_CHOICE_IS_RIGHT = re.compile(r"\b(?:option|choice)\s+\(?([A-E])\)?\s+is\s+(?:the\s+)?(?:correct|right)", re.IGNORECASE)
_CALCULATOR = re.compile(r"(?<=\d)\s<<[^<>\n=]{0,60}=([\d.,]{1,30})>>\1(?!\d|\.\d)|<<[^<>\n]{0,100}>>")
_HEDGE = re.compile(
    r"(?:(?:definitely|probably|simply|just|clearly|therefore|thus|for\s+sure|indeed|exactly|equal\s+to|given\s+by|"
    r"approximately|about|that|option|choice)\b|[\s:*_`]+)+",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.?](?=\s|\*|$)|!(?=\s|\*|$)(?!\s*[-=+/^])|。|\n|<(?=[|/]|[a-z]{1,10}>)")
_CHOICES = re.compile(r"\(?[A-H]\)?(?:(?:\s?,\s?(?:and\s)?|\sand\s)\(?[A-H]\)?)+(?=[\s,.;:]|$)")
_ARTICLE = re.compile(r"A\s(?!because\b|since\b|as\b|is\b|and\b|or\b)[a-z]")
_SEVERAL_UNITS = re.compile(r"\d[\d.,]*\s?[A-Za-z]+(?:,?\s(?:and\s)?\d[\d.,]*\s?[A-Za-z]+)+")
_MATH_SPAN = re.compile(
    r"\$\$(.+?)\$\$|(?<![\\$])\$(?!\$)([^$\n]+?)(?<!\\)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]|(\\begin\{.+\\end\{\w+\})",
    re.DOTALL,
)
_NUMBER_IN_PROSE = re.compile(
    r"(?<![\w.])[-−]?\s?[$£€]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|(?:(?<![\w.)])[-−])?\d+(?:[.,]\d+)?(?:/\d+)?|(?<!\d)\.\d+"
)
_FORMULA_IN_PROSE = re.compile(
    r"(?:[-+−]?\\?\$?\d[\d,]*(?:\.\d+)?%?|(?:sqrt|pi|sin|cos|tan|ln|log|inf|oo|infinity)(?![A-Za-z])"
    r"|[A-Za-z](?![A-Za-z'’])|\\[A-Za-z]+|[-−+*/^=<>≤≥≠±()\[\]{}|!,_√π°∞∪·×÷ ]|\.(?=\d)"
    r"|(?:or|and)(?=\s+[A-Za-z]\s*[=<>≤≥]))+"
)
"""Numbers, single letters and signs up to the first word: "2 * 3 = 6" in "2 * 3 = 6 apples"."""
_COMPUTES = re.compile(r"[\w)\]}]\s*[-−+*/^=<>≤≥≠±·×÷]\s*[\\$\w(\[{√π∞.+−-]|\d\s*(?:sqrt|pi)\b")
_REMARK = re.compile(
    r"\s+\((?=[^()]*[A-Za-z]{2})[^()]*\)\s*$"
    r"|,?\s+(?:which|so|since|because|when|where|for|if|with)\b.*$|\s+i\.e.*$|\s+of\s+(?:them|the|an?|these|all|it)\b.*$",
    re.DOTALL,
)
"""A remark that may follow the value in a sentence: "5 (five)", "5, which is odd", "3/4 of a cup"."""
_BETWEEN_SPANS = re.compile(r"\s*(?:,\s*(?:and|or)?|and|or)\s+")
_CHOICE = re.compile(r"\(?([A-HJ-Z])\)?(?=[\s,.;:)]|$)(?!\s*[=<>])")
_WORDS = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,} +[A-Za-z]")
"""Words between two dollar signs, as in "$3 and she spends $", show that these mark no formula."""


def _after_hashes(text: str) -> Extraction | None:
    """The last "#### 42", as GSM8K marks answers. A heading with four hashes is not an answer."""
    lines = [match[1].strip() for match in _HASHES.finditer(text)]
    answers = [line for line in lines if _VALUE_START.match(line)]
    return _explicit(answers[-1]) if answers else None


def _in_tags(text: str) -> Extraction | None:
    """The content of the last <answer>…</answer>, or the answer that its words announce."""
    lower = text.lower()
    end = lower.rfind("</answer>")
    begin = lower.rfind("<answer>", 0, max(end, 0))
    if begin < 0:
        return None
    content = text[begin + len("<answer>") : end]
    announced = _after_words(content) if len(content) <= _MAX_TAIL_CHARS else None
    return announced or _explicit(content.strip().strip("*_`"))


def _after_words(text: str) -> Extraction | None:
    """The answer that the last "the answer is", "Answer:" or "… is our answer" announces."""
    for match in reversed(list(_ANSWER_WORDS.finditer(text))[-_MAX_ANNOUNCEMENTS:]):
        tail = text[match.end() : match.end() + _MAX_TAIL_CHARS]
        if (answer := _announced(tail)) is not None:
            return _explicit(_with_decimal_point(answer, text))
    for match in list(_IS_THE_ANSWER.finditer(text))[-1:]:
        head = text[max(0, match.start() - _MAX_TAIL_CHARS) : match.start()]
        if (answer := _last_in(head)) is not None:
            return _explicit(answer)
    for choice in _CHOICE_IS_RIGHT.findall(text)[-1:]:
        return _explicit(choice)
    return None


def _announced(tail: str) -> str | None:
    """The value at the start of the text, or the last value of its first sentence."""
    tail = _CALCULATOR.sub("", tail)
    if hedge := _HEDGE.match(tail):
        tail = tail[hedge.end() :]
    if span := _MATH_SPAN.match(tail):
        spans = [_span_content(span)]
        while (gap := _BETWEEN_SPANS.match(tail, span.end())) and (following := _MATH_SPAN.match(tail, gap.end())):
            spans.append(_span_content(following))
            span = following
        return ", ".join(filter(None, spans)) or None
    end = _SENTENCE_END.search(tail)
    return _stated((tail[: end.start()] if end else tail).strip().strip("*_`"))


def _stated(sentence: str) -> str | None:
    """The value at the start of a sentence, or else the last value in it."""
    if whole := _CHOICES.match(sentence) or _SEVERAL_UNITS.match(sentence):
        return whole[0]
    if (choice := _CHOICE.match(sentence)) and not _ARTICLE.match(sentence):
        return choice[1]
    if formula := _FORMULA_IN_PROSE.match(sentence):
        content = formula[0].strip(" ,").rstrip("=+*/^<>-− ,(")
        if _COMPUTES.search(content):
            return content
    begins_with_value = _VALUE_START.match(sentence) is not None
    if begins_with_value:
        sentence = _REMARK.sub("", sentence)
    words = sentence.split()
    if begins_with_value and (len(words) <= 4 or not re.search(r"[a-z]{3}", sentence)):
        return sentence
    if 0 < len(words) <= 3 and words[0].lower() not in ("not", "no", "the", "to", "a", "in", "as", "wrong", "unclear"):
        return sentence
    number = _NUMBER_IN_PROSE.match(sentence) if begins_with_value else None
    return _plain_number(number[0]) if number else _last_in(sentence)


def _span_content(span: re.Match[str]) -> str:
    return next(group for group in span.groups() if group is not None).strip()


def _plain_number(number: str) -> str:
    """The number without currency and digit grouping. A comma that groups no digits, as in 2,74, is a decimal comma."""
    number = re.sub(r"[\s$£€]", "", number)
    grouped = re.fullmatch(r"[-−]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", number)
    return number.replace(",", "" if grouped else ".")


def _last_in(text: str) -> str | None:
    """The last formula or number in a text, whichever ends later."""
    found: tuple[int, str] | None = None
    for span in _MATH_SPAN.finditer(text):
        content = _span_content(span)
        if content and not _WORDS.search(content):
            found = (span.end(), content)
    for number in _NUMBER_IN_PROSE.finditer(text, found[0] if found else 0):
        found = (number.end(), _plain_number(number[0]))
    return found[1] if found else None


# -------------------------------------------------------------------------------------------------------- last number

_STEP_LABEL = re.compile(r"^\s*(?:\**\s*Step\s+\d+\s*\**\s*[:.]|\d+[.)]\s|[-*]\s)", re.IGNORECASE)
_SENTENCE_BREAK = re.compile(r"(?<=[.!?。])\s+|\n+")
_CLOSING_PHRASE = re.compile(r"I hope (?:it|this) is correct\.?\s*$", re.IGNORECASE)


def _last_value(response: str) -> Extraction:
    """The last formula or number of the last sentence. A response that ends inside a formula has none."""
    run_on = next((m for m in _RUN_ON.finditer(response) if response[: m.start()].strip()), None)
    tail = response[: run_on.start() if run_on else None][-_MAX_TAIL_CHARS:].rstrip()
    tail = _CLOSING_PHRASE.sub("", tail).rstrip()
    if any(tail.count(opening) > tail.count(closing) for opening, closing in ((r"\[", r"\]"), (r"\(", r"\)"))):
        return Extraction(None, "truncated")
    display = [span for span in _MATH_SPAN.finditer(tail) if span.end() >= len(tail) - 1]
    if display and (content := _span_content(display[-1])):
        return Extraction(content)
    sentences = [sentence for sentence in _SENTENCE_BREAK.split(tail) if sentence.strip()]
    answer = _last_in(_STEP_LABEL.sub("", sentences[-1])) if sentences else None
    return Extraction(answer) if answer else Extraction(None, "none")
