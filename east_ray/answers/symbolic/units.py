r"""Units after a number, in words or letters of any script: 10 cm^2, 9.8 \mathrm{m\,s^{-2}}, 12元, 42 square metres."""

import re
import unicodedata
from collections.abc import Sequence

from east_ray.answers.symbolic.commands import KEPT_RELATIONS, SHORT_UNITS
from east_ray.answers.symbolic.tokenizing import tokenize
from east_ray.answers.symbolic.tokens import NotMathematicsError, Token

_UNIT_NAMES_IN_BRACKETS = """
    m g s h l L N J W V K A cent cents dollar dollars degree degrees unit units square cubic meter meters metre metres
    foot feet inch inches mile miles hour hours minute minutes second seconds day days week weeks month months year
    years people percent
"""
_UNITS_IN_BRACKETS = frozenset(_UNIT_NAMES_IN_BRACKETS.split())
_UNIT_MARKS = frozenset("./-'\"()")
_AFTER_UNIT = KEPT_RELATIONS.union(("and", "\\\\"), "=≈∈<≤>≥≠,;∧∨)]⦄}⟩&:")
#: Words after a number that are no unit: anywhere, as the first word, or as any word but the last.
_NO_UNIT_NAMES = """
    plus minus divided multiplied choose remainder factorial half halves tenths hundredths than
    if when unless otherwise else not lakh lakhs crore crores
    millionen millones milliarden mille mil tausend milhões
"""
_NO_UNITS = frozenset(_NO_UNIT_NAMES.split())
_NO_UNITS_FIRST = frozenset(("squared", "cubed"))
_NO_UNITS_BEFORE_MORE = frozenset(["times", "over", "point", "out", "base", "mod", "and", "or"])
#: What changes a number, or is no unit, in other scripts: or more, less than, and a half, or, and, parts of, powers.
_NO_UNIT_NAMES_ELSEWHERE = """
    以上 以下 未满 未満 超 余 多 半 几 或 和 及 と 分の 分之 次方 乗 乘 加 减 減 除 个半 이상 이하 미만 또는 그리고 반
    или больше меньше более менее тыс млн млрд миллион миллиард полов 万 萬 亿 億 兆 만 억 조 लाख करोड़ ألف مليون
"""
_NO_UNIT_PARTS = _NO_UNIT_NAMES_ELSEWHERE.split()
#: Words for powers of ten that stand directly after a number.
SCALE_LETTERS = {"万": 10**4, "萬": 10**4, "만": 10**4, "亿": 10**8, "億": 10**8, "억": 10**8}
_HUNDREDS = re.compile("[千百十](?![米克瓦卡升分])")  # 5千 is 5000, and 5千米 is 5 km
_POWER_OR_SPACE = re.compile(r"\^\s*\{?\s*[-+]?\d+\s*\}?|\\(?:[,;: ]|cdot|frac|d?frac|mathrm|text)|[{}]")
_POWER_OF_VARIABLE = re.compile(r"[iknxyz]\s*\^.*")
_SCRIPT_NAMES = "LATIN GREEK MATHEMATICAL DOUBLE-STRUCK SCRIPT BLACK-LETTER ALEF COMBINING"
_SCRIPTS_OF_MATHEMATICS = frozenset(_SCRIPT_NAMES.split())
_MICRO = frozenset("μµ")
_AFTER_MICRO = frozenset("sFLAWV")  # but 2 mu g may be a product


def is_of_another_script(text: str) -> bool:
    """Whether the text is a letter, or a mark on one, that is neither Latin, Greek nor a sign of mathematics."""
    if text.isascii() or len(text) != 1 or unicodedata.category(text)[0] not in "LM":
        return False
    script = unicodedata.name(text, "").partition(" ")[0]
    return script not in _SCRIPTS_OF_MATHEMATICS


def end_of_unit(tokens: Sequence[Token], start: int) -> int | None:
    """The index after the unit that starts there. None: no unit starts there, as in 3 out of 5."""
    position = _start(tokens, start)
    if position is None:
        return None
    words = [word for kind, text in tokens[start:position] if kind in ("word", "text") for word in _words(text)]
    letters = ""
    while position < len(tokens):
        kind, text = tokens[position]
        if kind == "mark" and text in _AFTER_UNIT:
            break
        if text == "^":
            position = _end_of_power(tokens, position + 1)
            continue
        is_product = text == "*" and position + 1 < len(tokens) and _can_be_factor(tokens[position + 1])
        if kind not in ("word", "text", "letter") and not (kind == "mark" and (text in _UNIT_MARKS or is_product)):
            return None
        if kind == "text" and _POWER_OF_VARIABLE.fullmatch(text):
            return None
        letters += " " if text.isascii() else "".join(c if is_of_another_script(c) else " " for c in text)
        words += _words(text)
        position += 1
    if any(word in _NO_UNITS or word.isdecimal() for word in words) or _NO_UNITS_FIRST.intersection(words[:1]):
        return None
    if _HUNDREDS.search(letters) or any(part in letters for part in _NO_UNIT_PARTS):
        return None
    return None if _NO_UNITS_BEFORE_MORE.intersection(words[:-1]) else position


def is_unit(text: str) -> bool:
    """Whether a text is a unit alone, in short or in words: cm, \\text{square metres}."""
    try:
        tokens = tokenize(text.strip())
    except NotMathematicsError:
        return False
    are_words = bool(tokens) and all(token.kind in ("word", "text") for token in tokens)
    return are_words and tokens[0].text in SHORT_UNITS | _UNITS_IN_BRACKETS and end_of_unit(tokens, 0) == len(tokens)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", _POWER_OR_SPACE.sub(" ", text).casefold())


def _start(tokens: Sequence[Token], start: int) -> int | None:
    """Where the words of the unit are read from: after a unit written as a fraction. None: no unit."""
    if start >= len(tokens):
        return None
    kind, text = tokens[start]
    if kind == "word":
        return start if _is_word_of_unit(tokens, start) else None
    if kind == "text":
        return start
    if text == "/" and start + 1 < len(tokens) and tokens[start + 1].kind in ("word", "text"):  # 70 / hour
        return start if tokens[start + 1].kind == "text" or _is_word_of_unit(tokens, start + 1) else None
    if kind == "letter":
        return start if _is_letter_of_unit(tokens, start) else None
    return _end_of_fraction(tokens, start) if text == "frac" else None


def _is_word_of_unit(tokens: Sequence[Token], start: int) -> bool:
    """Whether a word begins a unit. One of three letters may be a product: 2abc, but 10 red marbles."""
    text = tokens[start].text
    if text in SHORT_UNITS or len(text) > 3 or not text.isascii():
        return True
    is_followed = start + 1 < len(tokens) and tokens[start + 1].kind == "word" and len(tokens[start + 1].text) > 3
    return is_followed and text.islower() and not set("aeiou").isdisjoint(text)


def _is_letter_of_unit(tokens: Sequence[Token], start: int) -> bool:
    r"""Whether a letter begins a unit: 元, ``\mu\text{m}`` and m/s. Any other letter is a variable."""
    text = tokens[start].text
    if is_of_another_script(text):
        return True
    after = [token.text for token in tokens[start + 1 : start + 3]]
    if text in _MICRO:
        is_last = start + 2 == len(tokens) and after[0] in _AFTER_MICRO
        return bool(after) and (tokens[start + 1].kind in ("text", "word") or is_last)
    if text == "Ω":
        return start + 1 == len(tokens)
    return text in "mgsNJWL" and after[:1] == ["/"] and (after[1:] == ["s"] or after[-1] in SHORT_UNITS)


def _end_of_fraction(tokens: Sequence[Token], start: int) -> int | None:
    r"""The end of ``\frac{\text{m}}{\text{s}^2}``: two groups of words and powers."""
    position = start + 1
    for letters in ("mNJ", "s"):  # m/s^2 also as letters
        if position >= len(tokens) or tokens[position].text != "{":
            return None
        position += 1
        is_letter = position < len(tokens) and tokens[position].text in letters
        if position >= len(tokens) or not (tokens[position].kind in ("text", "word") or is_letter):
            return None
        while position < len(tokens) and tokens[position].text != "}":
            kind, text = tokens[position]
            if text == "^":
                position = _end_of_power(tokens, position + 1)
            elif kind in ("text", "word") or text in ("*", "/") or _can_be_factor(tokens[position]):
                position += 1
            else:
                return None
        position += 1
    return position if position <= len(tokens) else None


def _end_of_power(tokens: Sequence[Token], position: int) -> int:
    """The index after the exponent: a group, or a number with its sign."""
    if position < len(tokens) and tokens[position].text == "{":
        while position < len(tokens) and tokens[position].text != "}":
            position += 1
    elif position < len(tokens) and tokens[position].text == "-":
        position += 1
    return position + 1


def _can_be_factor(token: Token) -> bool:
    return token.kind in ("word", "text") or token.text in "msgNJK"
