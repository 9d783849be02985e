r"""The answer in \boxed{} or a box like it, and the boxes that are parts of one answer.

Several boxes are one answer, a list, if the words between them say so:

    joined      \boxed{2} and \boxed{3};  \boxed{2}, \boxed{3};  \boxed{1} papers and \boxed{2} bins;
                $x=\boxed{2}$ and the other root is \boxed{3};  (a) … \boxed{2} (b) … \boxed{3};  Part A: … Part B: …
                (1) … \boxed{2}; (2) … \boxed{3};  \boxed{2}，\boxed{3};  \boxed{2} oder \boxed{3}
                x = \boxed{2} and on the next line y = \boxed{3}, another letter of one family
    replaced    \boxed{2}. Wait, \boxed{3};  \boxed{2} and so \boxed{3};  two boxes on lines of their own
    exact       of \boxed{\frac{1}{3}} \approx \boxed{0.333} the one that is no decimal counts
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from east_ray.answers.announcements import JOINS
from east_ray.answers.sentences import is_placeholder
from east_ray.answers.symbolic.notation import number_of_part

_MAX_CHARS_BETWEEN_BOXES = 80  # of boxes that form a list without labels

_OPTIONS = r"\s*(?:\[[^\[\]{}\n]{0,40}\]\s*){0,2}"
_BOX = re.compile(
    r"\\(?:(?:begin)?(?:[bB]oxed|box)|[bcf]box|framebox|(?:oval|shadow|double)box|tcbox(?:math)?"
    r"|enclose\{(?:rounded)?box\}|colorbox\{[^{}]{1,20}\}|fcolorbox\{[^{}]{1,20}\}\s*\{[^{}]{1,20}\})"
    rf"(?![A-Za-z]){_OPTIONS}"
)
"""A command that draws a box."""
_BOX_WITHOUT_BACKSLASH = re.compile(r"(?<![A-Za-z\\])[bB]?oxed\s?(?=\{)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_FLAT = re.compile(r"\{([^{}\\]*)\}")
"""A box without braces and commands in it, as most are."""
_UNBRACED = re.compile(
    r"\$([^$\n]{1,200})\$|\\\((.{1,200}?)\\\)|\\\{([^{}\n]{1,200})\\\}"
    r"|([^\s${}\\,]+|\\(?:frac|[dt]frac)\s?(?:\d|\{[^{}]*\}){2}|\\[A-Za-z]+(?:\{[^{}]*\})*)"
)
_WORD = re.compile(r"[*_`'\"(]*(?:[A-Za-z]{2,}+(?![({])|[Ia]\s+[a-z])|[^\w\\$√π∞∅½]{1,9}(?:\s|$)")
"""A bare \\boxed before a word, as in "use \\boxed notation", is no box."""
_SPACING = r"(?:[ \t\n$]|\\[()\[\],;: ]|\\q?quad|\\text\{\s*\})*+"
_CONJUNCTION = r"(?:[,;&]|\\(?:text|mbox)\{\s*,?\s*(?:and|or)\s*\}|(?:,\s*)?\b(?:and|or)\b|,?\s*\\(?:lor|vee|cup)\b)"
_WORDS_BETWEEN = r"(?:[^\W\d]{1,15}[ ]+){0,%d}"
_NAME = r"(?:\\?[A-Za-z]{1,8}(?:_\{?\w{1,3}\}?)?(?:\([A-Za-z]\))?\s*=\s*)?"
_BETWEEN = re.compile(
    rf"{_SPACING}(?:{_WORDS_BETWEEN % 2})?{_CONJUNCTION}[ ]*(?:{_WORDS_BETWEEN % 6})?{_SPACING}{_NAME}{_SPACING}"
    rf"|{_SPACING}(?:[，、；]\s?)?(?:(?:\\text\{{ )?(?:{JOINS})(?: \}})?|(?<=[，、；])){_SPACING}{_NAME}{_SPACING}"
    rf"|[ \t$]*|\\q?quad ?|[ \t$.,;]*\n[ \t]*[-*•][ \t]+[$]*{_NAME}",
    re.IGNORECASE,
)
"""What may stand between two boxes that form a list: a comma, "and", "or", nothing, or a bullet."""
_OTHER_ONE = re.compile(
    r"[^\n]{0,40}\b(?:(?:other|second|third|remaining)\s+(?:root|solution|value|zero|number|one|part|answer)|respectively)\b[^.\n]*"
)
_REPLACES = re.compile(
    r"\b(?:so|then|thus|hence|therefore|wait|actually|no|not|but|now|instead|correct(?:ed|ion)?|wrong|incorrect|mistake"
    r"|finally|final|answer|result|gives?|get|becomes?|yields?|equals?|checks?|verify|is wrong|was|where|because|since"
    r"|simplif\w+|better|rather|oops|hmm)\b|[!?]",
    re.IGNORECASE,
)
"""Words between two boxes after which the second is the answer."""
_UNKNOWN = re.compile(
    r"(\\[A-Za-z]{1,8}|(?<![A-Za-z\\])[A-Za-z](?:_\{?\w{1,3}\}?|'|\([A-Za-z]\))?)\s{0,3}&?=[\s$]{0,3}\Z"
)
_EQUATION = re.compile(r"\\[A-Za-z]{3,12}\{\s{0,3}(\\[A-Za-z]{1,8}|[A-Za-z](?:_\{?\w{1,3}\}?)?)\s{0,3}=")
r"""A box with the value of an unknown, \boxed{x = 5}."""
_FAMILIES = (*map(frozenset, ("xyz", "abc", "uvw", "pqrs")), frozenset((r"\alpha", r"\beta", r"\gamma")))
_AFTER_LETTER = re.compile(r"[_'(].*")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_ENDS_DISPLAY = re.compile(r"[\s.,]{0,3}(?:\$\$|\\\])")
_ONLY_SPACE = re.compile(r"(?:[\s$.,;，。；&]|\\[()\[\],;:\\ ]|\\q?quad)*+")
_APPROXIMATELY = re.compile(
    rf"{_SPACING}[(]?{_SPACING}(?:\\approx|\\simeq|\\sim|≈|≃|\\doteq|,?\s*(?:or|which is|i\.e\.,?)?\s*"
    rf"(?:approximately|about|roughly|numerically)(?:\s+equal to)?){_SPACING}",
    re.IGNORECASE,
)
_IS_APPROXIMATE = re.compile(r"\s*(?:\\approx|\\simeq|≈|≃)")
_LABEL = re.compile(
    r"(?:^|[\s*$>])(?:\(|\\text\{\()([a-h]|i{1,3}|iv|v)\)|\b(?:part|question)\s+\(?([a-h]|[1-9])\b"
    r"|^[^\w\n]{0,9}([a-h])[.)]\s|(?:^[^\w\n]{0,9}|[.;。；，]\s?)[(（]([1-9])[)）]"
    r"|(?:^[^\w\n]{0,9}([1-9])[.)]|(?<!\w)(?<!\w[ ])[(（]([1-9])[)）])(?:[ $*]|\\[(\[]){0,9}\Z",
    re.IGNORECASE | re.MULTILINE,
)
"""The label of a part of an answer: (a), (2), (iii), Part B, "c." at the beginning of a line, "1." before a box."""

_DRAWN_BOX = re.compile(
    r"[┌╔╭┏][─═━]{1,80}[┐╗╮┓][ \t]{0,9}\n[ \t]{0,9}[│║┃|]([^\n│║┃|]{1,300})[│║┃|][ \t]{0,9}\n[ \t]{0,9}[└╚╰┗]"
)
_MARKED_BOX = re.compile(r"<\|begin_of_box\|>([^|]{1,2000})<\|end_of_box\|>")
_INTRODUCED = re.compile(
    r"\s*(?:\\(?:text|textbf|mathrm|mbox|mathbf)\s*\{)?\s*(?:the\s+)?(?:final\s+|correct\s+)?answers?\s*"
    r"(?:(?:is|are|[:=])\s*)*(?P<closes>\}?)\s*(?:(?:is|are|[:=])\s*)*(?P<rest>.+)",
    re.IGNORECASE | re.DOTALL,
)


class Box(NamedTuple):
    """A closed box in a text."""

    start: int
    end: int
    content: str


class Boxes(NamedTuple):
    """What a text has in boxes."""

    answer: str | None
    """None: no box is closed and filled."""
    start: int
    end: int
    """Where the first box of the answer begins and the last one ends."""
    reason: str = ""
    """Without an answer: "truncated" or "empty"."""


def boxed_answer(text: str) -> Boxes | None:
    """The content of the last filled box, with those that are parts of the same answer. None: there is no box."""
    openings = list(_BOX.finditer(text)) if "ox" in text else []
    if not openings and "oxed" in text:
        openings = list(_BOX_WITHOUT_BACKSLASH.finditer(text))
    if not openings:
        return None
    boxes, is_cut_off = _complete_boxes(text, openings)
    filled = [box for box in boxes if not is_placeholder(box.content)]
    if not filled:
        return Boxes(None, 0, 0, "truncated" if is_cut_off else "empty") if boxes or is_cut_off else None
    chosen = _of_one_answer(text, filled)
    contents = dict.fromkeys(_without_introduction(box.content) for box in chosen)
    return Boxes(", ".join(contents), chosen[0].start, chosen[-1].end)


def drawn_box(text: str) -> str | None:
    """The last answer between <|begin_of_box|> and <|end_of_box|>, or in a box of characters ┌──┐│5│└──┘."""
    found = [*_DRAWN_BOX.finditer(text)] if any(corner in text for corner in "┌╔╭┏") else []
    found += [*_MARKED_BOX.finditer(text)] if "_box|>" in text else []
    return found[-1][1].strip() or None if found else None


def _complete_boxes(text: str, openings: Sequence[re.Match[str]]) -> tuple[list[Box], bool]:
    """The outermost closed boxes, in order, and whether one is never closed. The braces are read once."""
    closing: dict[int, int] | None = None
    boxes: list[Box] = []
    inside_until, is_cut_off = 0, False
    for opening in openings:
        start = opening.end()
        if opening.start() < inside_until:
            continue
        if flat := _FLAT.match(text, start):
            boxes.append(Box(opening.start(), flat.end(), flat[1]))
        elif text[start : start + 1] == "{":
            closing = _closing_braces(text, start) if closing is None else closing
            if (end := closing.get(start)) is None:
                is_cut_off = True
                continue
            boxes.append(Box(opening.start(), end + 1, text[start + 1 : end]))
        elif not _WORD.match(text, start) and (bare := _UNBRACED.match(text, start)):
            content = next(group for group in bare.groups() if group is not None)
            boxes.append(Box(opening.start(), bare.end(), content.rstrip(".")))
        else:
            continue
        inside_until = boxes[-1].end
    return boxes, is_cut_off


def _closing_braces(text: str, begin: int) -> dict[int, int]:
    """The places of the braces that open after `begin` -> the places where they are closed."""
    closing: dict[int, int] = {}
    open_braces: list[int] = []
    for match in _BRACE.finditer(text, begin):
        if match[0] == "{":
            open_braces.append(match.start())
        elif match[0] == "}" and open_braces:
            closing[open_braces.pop()] = match.start()
    return closing


def _of_one_answer(text: str, filled: list[Box]) -> list[Box]:
    """The last box and those before it that are parts of the same answer, in order."""
    chosen = [filled[-1]]
    if len(filled) == 1:
        return chosen
    label = _label(text, filled[-2].end, filled[-1].start)
    for at in range(len(filled) - 2, -1, -1):
        box, between = filled[at], text[filled[at].end : chosen[-1].start]
        earlier = _label(text, filled[at - 1].end if at else 0, box.start)
        is_near = len(between) <= _MAX_CHARS_BETWEEN_BOXES
        if is_near and len(chosen) == 1 and "\n" not in between and _is_rounded(between, chosen[-1]):
            chosen = chosen if _is_decimal(box) and not _is_decimal(chosen[-1]) else [box]
        elif (label is not None and label - 1 == earlier) or (
            is_near and (_joins(between) or _name_different_unknowns(text, box, chosen[-1]))
        ):
            chosen.append(box)
        else:
            break
        label = earlier
    return chosen[::-1]


def _is_rounded(between: str, box: Box) -> bool:
    """Whether a box has a rounding of what stands in the box before it."""
    return (_APPROXIMATELY.fullmatch(between) or _IS_APPROXIMATE.match(box.content)) is not None


def _is_decimal(box: Box) -> bool:
    return re.fullmatch(r"[^\\]*\d*\.\d+[^\\\w]*", box.content) is not None


def _name_different_unknowns(text: str, box: Box, following: Box) -> bool:
    """Whether only space stands between two boxes, and another letter of one family before each: x = 5, y = 7."""
    first, second = (
        _UNKNOWN.search(text, max(0, each.start - 30), each.start) or _EQUATION.match(text, each.start)
        for each in (box, following)
    )
    if first is None or second is None or not _are_of_one_family(first[1], second[1]):
        return False
    between = text[box.end : min(second.start(1), following.start)]
    is_apart = _BLANK_LINE.search(between) and not _ENDS_DISPLAY.match(between)
    return not is_apart and _ONLY_SPACE.fullmatch(between) is not None


def _are_of_one_family(first: str, second: str) -> bool:
    """Whether two names differ and are letters of one problem's unknowns: x and y, x_1 and x_2, but not r and A."""
    letters = {_AFTER_LETTER.sub("", name) for name in (first, second)}
    return first != second and any(letters <= family for family in _FAMILIES)


def _joins(between: str) -> bool:
    """Whether the words between two boxes make them a list."""
    if _REPLACES.search(between):
        return False
    return _BETWEEN.fullmatch(between) is not None or _OTHER_ONE.match(between) is not None


def _label(text: str, begin: int, end: int) -> int | None:
    """The number of the part, 1 for (a), that the last label of the text from `begin` to `end` gives."""
    found = None
    for match in _LABEL.finditer(text, max(begin, end - 2000), end):
        found = next(filter(None, match.groups())).lower()
    if found is None:
        return None
    return number_of_part(found)


def _without_introduction(content: str) -> str:
    r"""The content of a box without its own announcement: \text{The answer is } 42 gives 42."""
    content = content.strip()
    introduced = _INTRODUCED.fullmatch(content)
    if not introduced:
        return content
    rest = introduced["rest"].strip()
    has_open_text = content.startswith("\\") and not introduced["closes"]
    return rest.removesuffix("}").strip() if has_open_text else rest
