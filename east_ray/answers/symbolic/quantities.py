r"""Names of quantities before an equals sign that are more than a letter: P(X = 3) = 1/2, \int_0^1 f = 3, m + n = 293.

They are found in the text, since what they consist of need not be mathematics that the parser reads.
"""

import re

from east_ray.answers.symbolic.remarks import plain

_GROUP = r"(?:\s*\{[^{}]*\}|\s*\\?\w)"
_SCRIPTS = rf"(?:\s*[_^]{_GROUP})*"
_FUNCTIONAL = re.compile(
    rf"\\(?:max|min|sup|inf|lim|limsup|liminf|i{{0,2}}int|oint|det|dim|deg|ker|rank|tr|sum|prod)(?![A-Za-z])"
    rf"(?:\\limits)?{_SCRIPTS}(?P<rest>.*)",
    re.DOTALL,
)
_EXTREMUM = re.compile(r"\\(?:max|min|sup|inf|gcd|lcm|operatorname\{lcm\})(?![A-Za-z])")
_OF_UNKNOWNS = re.compile(
    r"(?:max|min|sup|inf|gcd|lcm)\}?\s*(?:\\left)?\s*\(\s*[a-z](?:\s*,\s*[a-z])*\s*(?:\\right)?\s*\)$"
)
_OF_CHANCE = re.compile(
    r"(?:\\(?:mathbb|mathrm|mathbf|operatorname|text)\s*\{?\s*)?\\?(?:P|E|Pr|Var|Cov|Corr|det|rank|tr|dim|deg|lcm|gcd)\s*\}?"
    rf"{_SCRIPTS}\s*(?:\\left|\\[bB]igg?l?)?\s*(?P<bracket>[(\[{{].*)",
    re.DOTALL,
)
_DERIVATIVE = re.compile(
    r"\\[dt]?frac\s*\{\s*(?:d|\\partial|\\mathrm\s*\{\s*d\s*\})(?![a-z]{2})[^{}]*(?:\{\d\}[^{}]*)?\}\s*"
    r"\{\s*(?:d|\\partial|\\mathrm\s*\{\s*d\s*\})\s*[a-z][^{}]*(?:\{\d\}[^{}]*)?\}(?P<rest>[^=+]*)"
)
_OF_MATRIX = re.compile(r"\(?[A-Z]{1,3}\)?\s*\^\s*(?:\{\s*(?:-\s*1|T|\\top|\\mathrm\s*\{\s*T\s*\})\s*\}|T|\\top|\*)")
_POWER_OF_MATRIX = re.compile(rf"[A-Z]{{1,2}}\s*\^{_GROUP}")
_MATRIX = re.compile(r"\s*(?:-?\s*(?:\d+|\\frac\{\d+\}\{\d+\}))?\s*\\begin\s*\{[pbB]?matrix\}")
_COEFFICIENT = r"(?:\d{1,6}\s*(?:\\cdot\s*)?)?"
_SUM_OF_LETTERS = re.compile(rf"{_COEFFICIENT}[a-dkm-npqrs](?:\s*\+\s*{_COEFFICIENT}[a-dkm-npqrs])+")
_NAMED_TERM = (
    r"(?:[A-Z]{2,3}|[fghpPq]\s*\(\s*-?\w+\s*\)|\|\s*\\?[a-z]\w*\s*\||\\overline\s*\{[A-Z]{2}\}|\\angle\s*[A-Z]{1,3})"
)
_SUM_OF_NAMES = re.compile(rf"{_COEFFICIENT}{_NAMED_TERM}(?:\s*\+\s*{_COEFFICIENT}{_NAMED_TERM})+")
_WHOLE_NUMBER = re.compile(r"\s*[1-9][\d,]*\s*")
_CONSTANT = re.compile(
    r"(?:[^A-Za-z\\]|\\(?:frac|sqrt|pi|cdot|times|left|right|circ|text\s*\{[^{}]*\}|[ ,;!])(?![A-Za-z]))+"
)
_WORDS = re.compile(r"[A-Za-z0-9_' -]+")
_ENGLISH_WORD = re.compile(r"(?<![A-Za-z])(?=[A-Za-z]*[aeiou])[A-Za-z][a-z]{2,}(?![A-Za-z])")
_NEXT_ITEM = re.compile(r"[,;]|\\\\|\band\b|\bor\b")
_NO_RELATION = re.compile(r"[<>!:=≤≥≠]$")


def without_quantity(text: str) -> str:
    r"""What follows the name of a quantity and "="; any other text is unchanged.

    >>> without_quantity(r"P(X=3) = \frac12"), without_quantity("m + n = 293"), without_quantity("x + y = 5")
    ('\\frac12', '293', 'x + y = 5')
    """
    place = _first_equals(text)
    if place <= 0 or text[place + 1 : place + 2] in ("=", ">"):
        return text
    name, value = text[:place].strip(), text[place + 1 :].strip()
    if "=" in value and _NEXT_ITEM.search(value):  # the values of several quantities: which is which counts
        return text
    return value if value and not _NO_RELATION.search(name) and _is_name(name, value) else text


def _first_equals(text: str) -> int:
    """The place of the first "=" outside all brackets, or -1."""
    depth = 0
    for place, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "=" and depth == 0:
            return place
    return -1


def _is_name(name: str, value: str) -> bool:
    if _EXTREMUM.match(name) and (_OF_UNKNOWNS.search(name) or not _CONSTANT.fullmatch(value)):
        return False
    if match := _FUNCTIONAL.fullmatch(name):
        return name.startswith(r"\lim") or re.search(r"d\s*[a-zʋ]$", name) is not None or "+" not in match["rest"]
    if match := _OF_CHANCE.fullmatch(name):
        return _is_one_bracket(match["bracket"])
    return _is_operation(name, value) or _is_in_words(name)


def _is_operation(name: str, value: str) -> bool:
    if _DERIVATIVE.fullmatch(name) or _OF_MATRIX.fullmatch(name):
        return True
    if _POWER_OF_MATRIX.fullmatch(name):
        return _MATRIX.match(value) is not None
    if _SUM_OF_LETTERS.fullmatch(name):
        return _WHOLE_NUMBER.fullmatch(value) is not None
    return _SUM_OF_NAMES.fullmatch(name) is not None and _CONSTANT.fullmatch(value) is not None


def _is_in_words(name: str) -> bool:
    words = plain(name) if r"\text" in name or " " in name else ""
    return _WORDS.fullmatch(words) is not None and _ENGLISH_WORD.search(words) is not None


def _is_one_bracket(text: str) -> bool:
    """Whether the bracket that opens at the start closes at the end."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return place == len(text) - 1
    return False
