"""Answers in words: numbers in words, choices, days and names, and quantities of several units."""

import re
from collections.abc import Sequence
from fractions import Fraction

from east_ray.answers.symbolic.commands import IGNORED, TEXT_COMMANDS, value_of_each_name
from east_ray.answers.symbolic.literals import date_in_words
from east_ray.answers.symbolic.tokens import AND, Token
from east_ray.answers.symbolic.tree import Apply, Node, Number, Symbol, Text

SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_BELOW_TWENTY = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {word: value for value, word in enumerate(_BELOW_TWENTY.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), start=2)
}
_MAX_NUMBER_WORDS = 12

_COMMAND_NAME = re.compile(r"\\([A-Za-z]+)")
_BETWEEN_WORDS = re.compile(r"(?:[\s.,;:?'\"(){}$\\&~`_#“”‘’«»，。；：？！（）]|(?<=[a-z]{2})!)+")
_PUNCTUATION = frozenset((*",;'.?!-()\"", AND))
_CHOICE = re.compile(r"\(?([A-Ea-e])\)")
_TEXT_OPENING = r"(?:\\(?:text\w*|mathrm|mathbf|mbox)\s*\{\s*)?"
_END_OF_LABEL = r"(?:\s|~|\\[ ,;:]|\\q?quad\b|\}|(?=\\text))\s*"
_SEVERAL_CHOICES = re.compile(r"(?:\\text\w*\s*\{\s*)?([A-H]{3,6})\s*\}?")  # AB may be a segment
_WITH_REMAINDER = re.compile(
    r"(\d{1,18}),? ?(?:r|rem\.?|(?:with )?(?:an? )?remainder(?: of)?:?) ?(\d{1,18})", re.IGNORECASE
)
_CHOICE_WITH_TEXT = re.compile(
    rf"{_TEXT_OPENING}(?:[Oo]ption |[Cc]hoice )?"
    rf"(?:\(([A-J])\)[:.]?{_END_OF_LABEL}|([A-J])\)\.?{_END_OF_LABEL}|([A-E])[.:]{_END_OF_LABEL})+"
    r"(?P<text>(?![-+*/=<>^_|&!]\s|[=<>^_|&]|\\(?:cup|cap|cdot|times|in|leq?|geq?|to|subset)\b|[A-Z]\s*[=:)]).+)",
    re.DOTALL,
)
_ANOTHER_LABEL = re.compile(r"(?<![A-Za-z])\(?[A-J]\)|(?<![A-Za-z0-9])[A-J][.:]\s")
_NEGATIVE = re.compile(r"(?:negative|minus) (.+)")
_ARTICLE = re.compile(r"^(?:an?|the) (?=\w{2})")
#: A "second" is an ordinal or a unit.
_UP_TO_TENTH = "half third fourth fifth sixth seventh eighth ninth tenth"
_DENOMINATORS = {name: value for value, name in enumerate(_UP_TO_TENTH.split(), start=2)} | {
    "quarter": 4,
    "twelfth": 12,
    "twentieth": 20,
    "hundredth": 100,
    "thousandth": 1000,
}
_HEDGES = re.compile(r"(?:approximately|about|around|nearly|exactly|roughly|answer|total|option|choice) (?=\S+$)")
_BETWEEN_ITEMS = re.compile(r"[,;]|\b(?:and|or)\b")
_SAID_OTHERWISE = {"dne": "does not exist"} | dict.fromkeys(
    ("infinitely many solutions", "infinite solutions", "infinite number of solutions"), "infinitely many"
)
_NO_SOLUTION = re.compile(
    r"(?:there (?:is|are|exists?) |(?:it )?(?:has|have) )?no (?:real |valid )?(?:solution|root)s?(?: exists?)?"
    r"|(?:the )?empty set|(?:real )?solutions? (?:does|do) not exist"
    r"|无解|無解|해가 없다|해 없음|нет решений|решений нет|sin solución|keine lösung"
)
_ALL_REALS = frozenset(("real numbers", "every real number", "for all real x"))
_PLAIN_NUMBER = re.compile(r"\d{1,30}(?:[./]\d{1,30})?\.?", re.ASCII)
_UNIT_SERIES = (
    ("week", "day", "hour", "minute", "second"),
    ("year", "month", "week", "day"),
    ("yard", "foot", "inch"),
    ("pound", "ounce"),
    ("gallon", "quart", "pint", "cup"),
    ("dollar", "quarter", "dime", "nickel", "cent"),
    ("degree", "minute", "second"),
    ("kilometer", "meter", "centimeter", "millimeter"),
    ("kilogram", "gram"),
)
_UNIT_OF_NAME = value_of_each_name(
    """
    hour hr hrs h;  minute min mins;  second sec secs;  foot feet ft;  inch inches in;  pound lb lbs;  ounce oz;
    yard yd;  kilometer km;  centimeter cm;  millimeter mm;  kilogram kg;  cent pennies
    """
)


def number_in_words(words: str) -> int | None:
    """The number of words such as eighteen, twenty one, three hundred and five. None: not one number, as one two."""
    total = current = 0
    parts = [word for word in words.split() if word != "and"]
    if not parts or len(parts) > _MAX_NUMBER_WORDS:
        return None
    for word in parts:
        if (value := _NUMBER_WORDS.get(word)) is not None:
            follows_tens = current % 100 >= 20 and current % 10 == 0 and 0 < value < 10
            if current % 100 and not follows_tens:
                return None
            current += value
        elif word == "hundred":
            current = max(current, 1) * 100
        elif word in SCALES:
            total += max(current, 1) * SCALES[word]
            current = 0
        else:
            return None
    return total + current


def words_of(text: str) -> str:
    """Prose as its case-folded words, without markup and punctuation."""

    def unmarked(command: re.Match[str]) -> str:
        return " " if command[1] in TEXT_COMMANDS | IGNORED else f" {command[1]} "

    return " ".join(_BETWEEN_WORDS.sub(" ", _COMMAND_NAME.sub(unmarked, text).casefold()).split())


def prose(text: str) -> Node:
    """The number that the words name, a known set, a list of words, or else the words."""
    node = _phrase(text)
    if isinstance(node, Text) and len(parts := [part for part in _BETWEEN_ITEMS.split(text) if words_of(part)]) > 1:
        return Apply("list", tuple(map(_phrase, parts)))
    return node


def _phrase(text: str) -> Node:
    words = _HEDGES.sub("", words_of(text))
    if _NO_SOLUTION.fullmatch(words):
        return Symbol("∅")
    if words in _ALL_REALS:
        return Symbol("ℝ")
    if re.fullmatch(r"[0-9]{1,18}", words):
        return Number(Fraction(words))
    sign, said = (-1, match[1]) if (match := _NEGATIVE.match(words)) else (1, words)
    if (value := _fraction_in_words(said.replace("-", " "))) is not None:
        return Number(sign * value)
    words = _ARTICLE.sub("", words)
    return Text(_SAID_OTHERWISE.get(words, words))


def _fraction_in_words(words: str) -> Fraction | None:
    """Two thirds, one half, two and a half, or a whole number. None: not one number, as twenty fifth."""
    if (whole := number_in_words(words)) is not None:
        return Fraction(whole)
    before, _, part = words.rpartition(" and ")
    numerator, _, denominator = part.rpartition(" ")
    is_one = numerator in ("a", "an", "one")
    below = _DENOMINATORS.get(
        denominator if is_one else {"halves": "half"}.get(denominator, denominator.removesuffix("s"))
    )
    above = 1 if is_one else number_in_words(numerator)
    if below is None or above is None or (not is_one and not denominator.endswith("s")):
        return None
    whole = number_in_words(before) if before else 0
    return None if whole is None else whole + Fraction(above, below)


def choice(text: str) -> Node | None:
    """The letter of the choice in (A), A) or "C. x = 42", the letters of several in ACD, else None."""
    if (several := _SEVERAL_CHOICES.fullmatch(text)) and list(several[1]) == sorted(set(several[1])):
        return Apply("list", tuple(map(Symbol, several[1])))
    if match := _CHOICE.fullmatch(text):
        return Text(match[1].casefold())
    if match := _choice_with_text(text):
        return Text(next(letter for letter in match.groups() if letter).casefold())
    return None


def date_or_division(text: str) -> Text | None:
    """A date in words, or a whole quotient with its remainder, in one spelling: 5 March, 17 R 3."""
    if division := _WITH_REMAINDER.fullmatch(text):
        return Text(f"{division[1]} remainder {division[2]}")
    date = date_in_words(text)
    return None if date is None else Text(date)


def text_of_choice(text: str) -> str | None:
    """What stands after the letter of a choice, as 12 in (B) 12. None: no choice, or a letter alone."""
    match = _choice_with_text(text)
    return match["text"] if match else None


def _choice_with_text(text: str) -> re.Match[str] | None:
    if "." not in text and ":" not in text and ")" not in text:
        return None
    match = _CHOICE_WITH_TEXT.fullmatch(text)
    return None if match is None or _ANOTHER_LABEL.search(match["text"]) else match


def is_english(token: Token) -> bool:
    """Whether a token is a word of a language, not a product such as xyz."""
    return token.kind == "text" or (
        token.kind == "word" and not (token.text.islower() and set("aeiou").isdisjoint(token.text))
    )


def is_prose(tokens: Sequence[Token]) -> bool:
    """Whether an answer is words alone, or begins with two words and is no equation, as "area of ABC = 5" is."""
    if not any(is_english(token) for token in tokens):
        return "".join(token.text for token in tokens).lower() == "no"
    computes = any(
        kind in ("number", "literal", "function", "begin", "opaque")
        or (kind == "mark" and text not in _PUNCTUATION)
        or (kind == "letter" and text in "π∞∠△□")
        for kind, text in tokens
    )
    if not computes:
        return True
    if [token.kind for token in tokens] in (["word", "number"], ["text", "number"]) and is_english(tokens[0]):
        return True  # June 5
    words = ("word", "text", "letter")
    return is_english(tokens[0]) and tokens[1].kind in words and Token("mark", "=") not in tokens


def quantity_of_several_units(tokens: Sequence[Token]) -> Text | None:
    """Numbers with units of one series, each unit smaller than the one before: 2 hours and 30 minutes, 5 ft 6 in."""
    parts: list[tuple[str, str]] = []
    number = ""
    for token in tokens:
        if token.kind == "number" and not number and _PLAIN_NUMBER.fullmatch(token.text):
            number = token.text
        elif number and (token.kind in ("word", "text") or token == ("letter", "h")):
            unit = token.text.casefold().removesuffix(" and").strip(" .,")
            parts.append((number, _UNIT_OF_NAME.get(unit) or unit.removesuffix("s")))
            number = ""
        elif number or token.text not in (",", AND):
            return None
    units = [unit for _, unit in parts]
    if number or len(parts) < 2:
        return None
    for series in _UNIT_SERIES:
        places = [series.index(unit) for unit in units if unit in series]
        if len(places) == len(units) and places == sorted(set(places)):
            return Text(" ".join(f"{Fraction(amount.rstrip('.'))} {unit}" for amount, unit in parts))
    return None


def as_written(tokens: Sequence[Token]) -> Text:
    """The tokens of mathematics that cannot be read or computed. Spacing and the kind of \\frac do not matter."""
    return Text(" ".join(map(_as_written, tokens)))


def _as_written(token: Token) -> str:
    if token.text == AND:
        return ","
    return token.text.casefold() if token.kind in ("text", "word") else token.text
