"""Canonical keys in plain words and in the notation of mathematics, for people who ask how an answer is read.

Each kind of key that `keys` makes has a line in the two tables.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_DOWN, Context, Decimal
from fractions import Fraction
from typing import Any

from east_ray.answers.symbolic.intervals import Key, real_set
from east_ray.answers.symbolic.keys import numeric

MAX_CHARS = 300  # of a key in words
AS_WRITTEN = "kept as written, token by token: "
_MAX_MEMBERS = 12  # of a set, a tuple or the rows of a matrix are written
_MAX_WRITTEN_BITS = 200  # of a numerator or denominator
_SHOWN_DIGITS = Context(prec=16, rounding=ROUND_DOWN)

Names = Mapping[Key, str]
"""The keys of the letters in an answer, by which an expression that is a letter alone is called by its name."""


def key_in_words(value: Key, names: Names | None = None) -> str:
    """A canonical key in words, at most MAX_CHARS characters."""
    say = _IN_WORDS.get(kind_of(value), short)
    return cut(say(value, names or {}), MAX_CHARS)


def cut(text: str, max_chars: int = 100) -> str:
    """The beginning of a text."""
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def kind_of(value: Key) -> str:
    """The kind of a key, such as number; "" for a key without one."""
    return value[0] if isinstance(value, tuple) and value and isinstance(value[0], str) else ""


# ------------------------------------------------------------------------------------------------------------ numbers


def _number(value: Any) -> str:
    """A real number of a key: a fraction, or the leading digits as ("real", integer, exponent)."""
    exact = value if isinstance(value, Fraction) else numeric(("number", value))
    size = max(exact.numerator.bit_length(), exact.denominator.bit_length())
    if isinstance(value, Fraction) and size <= _MAX_WRITTEN_BITS:
        return str(value)
    if size > 3000:
        power = math.log10(abs(exact.numerator)) - math.log10(exact.denominator)
        return f"about {'-' if exact < 0 else ''}10^{power:.1f}"
    digits = _SHOWN_DIGITS.divide(Decimal(exact.numerator), Decimal(exact.denominator))
    return f"{digits}…" if not isinstance(value, Fraction) else f"about {digits}"


def _decimal(value: Fraction, places: int) -> str:
    """A decimal as it was written."""
    units = abs(value) * 10**places
    if units.denominator > 1 or units.numerator.bit_length() > _MAX_WRITTEN_BITS or places > 60:
        return _number(value)
    digits = str(units.numerator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[: len(digits) - places]}.{digits[len(digits) - places :]}"


def short_number(value: Any, names: Names) -> str:
    """A real number in digits."""
    return _decimal(value[1], value[2]) if len(value) == 3 else _number(value[1])


def _short_complex(value: Any, names: Names) -> str:
    imaginary = _number(value[2])
    times_i = f"{imaginary}i" if imaginary.isdecimal() else f"({imaginary})i"
    return f"{_number(value[1])} + {times_i}" if value[1] else times_i


# -------------------------------------------------------------------------------------------- the short form of a key


def short(value: Key, names: Names) -> str:
    """The key in the notation of mathematics where it has one."""
    if value in names:
        return names[value]
    write = _SHORT.get(kind_of(value))
    return write(value, names) if write else cut(repr(value))


def several(values: Iterable[Key], names: Names, between: str = ", ", is_ordered: bool = True) -> str:
    """Keys in their short forms. Those without an order of their own are sorted, numbers first."""
    keys = list(values)
    if not is_ordered:
        keys.sort(
            key=lambda one: (
                kind_of(one) != "number",
                numeric(one) if kind_of(one) == "number" else 0,
                short(one, names),
            )
        )
    more = [f"{len(keys) - _MAX_MEMBERS} more"] if len(keys) > _MAX_MEMBERS else []
    return between.join([*(short(one, names) for one in keys[:_MAX_MEMBERS]), *more])


def _short_sequence(value: Any, names: Names) -> str:
    return f"{value[1]}{several(value[3], names)}{value[2]}"


def _short_set(value: Any, names: Names) -> str:
    return f"{{{several(value[1], names, is_ordered=False)}}}" if value[1] else "∅"


def _short_system(value: Any, names: Names) -> str:
    """Values of unknowns: one solution, several, or for each unknown some values."""
    solutions = [one for one in value[1] if isinstance(one, frozenset)] or [value[1]]
    written = [
        ", ".join(
            sorted(
                f"{_name(name)}: {short(one, names)}" if _is_range(one) else f"{_name(name)} = {short(one, names)}"
                for name, one in solution
            )
        )
        for solution in solutions
    ]
    return " or ".join(sorted(written)[:_MAX_MEMBERS])


def _is_range(value: Key) -> bool:
    return kind_of(value) in ("sequence", "union")


def _name(written: str) -> str:
    """The name of an unknown in a key: x of Symbol(name='x'), f(x) of the value of a function."""
    found = re.findall(r"(?:name|words)='([^']*)'", written) or [written]
    if "operator='call'" in written and len(found) > 1:
        return f"{found[0]}({', '.join(found[1:])})"
    return cut(" ".join(found), 30)


def _short_relation(value: Any, names: Names) -> str:
    """Sides with the signs between them."""
    _, signs, sides = value
    written = (
        sorted(short(side, names) for side in sides)
        if isinstance(sides, frozenset)
        else [short(side, names) for side in sides]
    )
    if len(written) == 1:  # both sides of a relation without order are the same
        written *= 2
    return written[0] + "".join(f" {sign} {side}" for sign, side in zip(signs, written[1:], strict=False))


def _short_over(value: Any, names: Names) -> str:
    domains = [f"{'a letter' if count == 1 else f'{count} letters'} in {_name(domain)}" for domain, count in value[2]]
    return f"{short(value[1], names)} with {' and '.join(sorted(domains))}"


def _short_text(value: Any, names: Names) -> str:
    return f'"{cut(value[1])}"'


_SHORT: dict[str, Callable[[Any, Names], str]] = {
    "number": short_number,
    "complex": _short_complex,
    "infinity": lambda value, names: "∞" if value[1] > 0 else "-∞",
    "expression": lambda value, names: "an expression",
    "equation": lambda value, names: "an equation",
    "inequality": lambda value, names: f"an inequality with {value[1]}",
    "text": _short_text,
    "written": _short_text,
    "sequence": _short_sequence,
    "set": _short_set,
    "union": lambda value, names: several(value[1], names, " ∪ ", is_ordered=False),
    "intersection": lambda value, names: several(value[1], names, " ∩ ", is_ordered=False),
    "difference": lambda value, names: f"{short(value[1], names)} ∖ {short(value[2], names)}",
    "ratio": lambda value, names: several(value[1], names, " : "),
    "∧": lambda value, names: several(value[1], names, " ∧ "),
    "∨": lambda value, names: several(value[1], names, " ∨ ", is_ordered=False),
    "cases": lambda value, names: several(value[1], names, "; ", is_ordered=False),
    "row": lambda value, names: f"[{several(value[1], names)}]",
    "matrix": lambda value, names: f"[{several(value[1], names)}]",
    "determinant": lambda value, names: f"|{several(value[1], names)}|",
    "system": _short_system,
    "relation": _short_relation,
    "over": _short_over,
}


# -------------------------------------------------------------------------------------------------- the key in words

_TIME = re.compile(r"\d{1,2}:\d\d(?::\d\d)?")


def _number_in_words(value: Any, names: Names) -> str:
    number = short_number(value, names)
    return f"the number {number}" if len(value) == 2 else f"the decimal {number}, equal to every value that it rounds"


def _expression_in_words(value: Any, names: Names) -> str:
    if value in names:
        return f"the letter {names[value]}"
    letters = f" in {', '.join(names.values())}" if names else ""
    return f"an expression{letters}: equal to every expression with the same values"


def _text_in_words(value: Any, names: Names) -> str:
    words = value[1]
    if not words:
        return "no words at all"
    if len(words) == 1 and words.isalpha():
        return f"the letter {words}, in either case"
    if _TIME.fullmatch(words):
        return f"the time of day {words}"
    if " in base " in words:
        return f"the number {words}"
    if all(character.isalnum() or character in " -'" for character in words):
        return f"the words {words}"
    return AS_WRITTEN + cut(words, 200)


def _sequence_in_words(value: Any, names: Names) -> str:
    brackets, elements = value[1] + value[2], value[3]
    is_pair = len(elements) == 2
    if is_pair and (brackets in ("(]", "[)") or any(kind_of(end) == "infinity" for end in elements)):
        kind = "interval"
    elif is_pair and real_set(value, numeric) is not None:
        kind = "interval or pair"
    else:
        kind = "tuple"
    return f"the {kind} {short(value, names)}"


_IN_WORDS: dict[str, Callable[[Any, Names], str]] = {
    "number": _number_in_words,
    "complex": lambda value, names: f"the complex number {short(value, names)}",
    "infinity": lambda value, names: "infinity" if value[1] > 0 else "minus infinity",
    "expression": _expression_in_words,
    "equation": lambda value, names: "an equation: equal to every multiple of it",
    "inequality": lambda value, names: f"an inequality with {value[1]}: equal to every positive multiple of it",
    "text": _text_in_words,
    "written": lambda value, names: "kept as written, sign by sign, because no value can be computed",
    "sequence": _sequence_in_words,
    "set": lambda value, names: f"the set {short(value, names)}" if value[1] else "the empty set: no solution",
    "union": lambda value, names: f"the set {short(value, names)}",
    "intersection": lambda value, names: f"the set {short(value, names)}",
    "difference": lambda value, names: f"the set {short(value, names)}",
    "ratio": lambda value, names: f"the ratio {short(value, names)}",
    "∧": lambda value, names: f"the proposition {short(value, names)}, in this order",
    "∨": lambda value, names: f"the proposition {short(value, names)}, in any order",
    "cases": lambda value, names: f"values with their conditions, in any order: {short(value, names)}",
    "row": lambda value, names: f"the row {short(value, names)}",
    "matrix": lambda value, names: f"the matrix {short(value, names)}",
    "determinant": lambda value, names: f"the determinant {short(value, names)}",
    "system": lambda value, names: f"values of several unknowns: {short(value, names)}",
    "relation": lambda value, names: f"a relation that is not computed: {short(value, names)}",
    "over": lambda value, names: f"{short(value, names)}, whatever it is called",
}
