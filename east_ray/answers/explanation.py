r"""Canonical keys in plain words: how an answer is read, and why two answers are equal or not.

>>> print(answer_in_words(r"\frac{10}{4}\text{ cm}"))
the number 5/2
>>> comparison("0.333", r"\frac{1}{3}")
(False, '333/1000 is not 1/3: a decimal stands for other values only from 8 places on')

Each kind of key of `east_ray.answers.symbolic` has a line in the tables at the end of this module.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from east_ray.answers.equality import as_options_text
from east_ray.answers.symbolic import clean, is_rounding_of, key
from east_ray.answers.symbolic.intervals import Key
from east_ray.answers.symbolic.keys import MIN_DECIMALS, numeric, symbol_key
from east_ray.answers.symbolic.parser import parse
from east_ray.answers.symbolic.tokenizing import tokenize
from east_ray.answers.symbolic.tokens import NotMathematicsError
from east_ray.answers.symbolic.tree import variables
from east_ray.answers.symbolic.words import (
    AS_WRITTEN,
    MAX_CHARS,
    Names,
    cut,
    key_in_words,
    kind_of,
    several,
    short,
    short_number,
)

_MAX_NAMES = 6  # of an expression's letters
_NEAR = Fraction(1, 50)  # numbers whose relative difference is smaller may be meant as roundings


def answer_in_words(answer: str) -> str:
    r"""What the answer is read as.

    >>> print(answer_in_words(r"x \in (0, 1]"), answer_in_words("3 or 2"), sep="; ")
    the interval (0, 1]; the set {2, 3}
    """
    value = key(answer)
    words = key_in_words(value, _names_in(answer))
    if words.startswith(AS_WRITTEN) and (unknown := _unknown_commands(answer)):
        words += f", because {unknown} is not known"
    return words


def readings(reference: str | None, answers: Iterable[str]) -> list[tuple[str, str]]:
    """Each answer, the reference answer first, with what it is read as and how it differs from the reference.

    >>> readings("1/2", ["0.5", "2"])
    [('1/2', 'the number 1/2'), ('0.5', 'the number 1/2'), ('2', 'the number 2; 1/2 is not 2')]
    """
    texts = [*([] if reference is None else [reference]), *answers]
    read = texts if reference is None else as_options_text(texts, reference)
    found = []
    for text, part in zip(texts, read, strict=True):
        is_equal, why = (True, "") if reference is None or part is read[0] else comparison(read[0], part)
        found.append((text, answer_in_words(part) + (f"; {why}" if not is_equal else "")))
    return found


def comparison(a: str, b: str) -> tuple[bool, str]:
    """Whether two answers are equal as `east_ray.answers.equivalent` has it, and why."""
    key_a, key_b = key(a), key(b)
    if key_a == key_b:
        return True, f"both are {key_in_words(key_a, _names_in(a))}"
    for decimal, precise in ((key_a, key_b), (key_b, key_a)):
        if is_rounding_of(decimal, precise):
            return True, f"{cut(short(decimal, {}))} is a rounding of {cut(short(precise, {}))}"
    return False, cut(_difference(key_a, key_b, _names_in(a), _names_in(b)), MAX_CHARS)


def _names_in(answer: str) -> Names:
    return {symbol_key(name): name for name in sorted(variables(parse(answer)))[:_MAX_NAMES] if len(name) < 40}


def _unknown_commands(answer: str) -> str:
    try:
        return ", ".join(dict.fromkeys(token.text for token in tokenize(clean(answer)) if token.kind == "opaque"))
    except NotMathematicsError:
        return ""


# ---------------------------------------------------------------------------------------------------- what is unequal

_KINDS = {
    "number": "a number",
    "complex": "a complex number",
    "infinity": "infinite",
    "expression": "an expression with letters",
    "equation": "an equation",
    "inequality": "an inequality",
    "text": "words",
    "written": "kept as written",
    "sequence": "in brackets",
    "set": "a set or list",
    "union": "a set of intervals",
    "intersection": "a set",
    "difference": "a set",
    "ratio": "a ratio",
    "∧": "a proposition",
    "∨": "a proposition",
    "cases": "a list of cases",
    "row": "a row",
    "matrix": "a matrix",
    "determinant": "a determinant",
    "system": "a list of values of unknowns",
    "relation": "a relation",
    "over": "over a domain of letters",
}


def _difference(a: Key, b: Key, names_a: Names, names_b: Names) -> str:
    """In which part two different keys differ."""
    kinds = kind_of(a), kind_of(b)
    if kinds == ("number", "number"):
        return _number_difference(a, b)
    if "set" in kinds and "sequence" in kinds:
        bare, ordered = (a, b) if kinds[0] == "set" else (b, a)
        if isinstance(bare, tuple) and isinstance(ordered, tuple) and bare[1] == frozenset(ordered[3]):
            return "the elements are the same, but a tuple has an order and a bare list has none"
    if "set" in kinds and set(kinds) <= {"set", "number", "complex", "text", "expression"}:
        return _member_difference(_members(a), _members(b), names_a, names_b)
    if {"set", "system"} == set(kinds):
        return _system_difference(a, b, names_a, names_b)
    if kinds[0] != kinds[1]:
        return f"the first is {_kind_in_words(a)}, the second {_kind_in_words(b)}"
    compare = _DIFFERENCES.get(kinds[0])
    return compare(a, b, names_a, names_b) if compare else "they differ"


def _kind_in_words(value: Key) -> str:
    words = key_in_words(value)
    return "kept as written" if words.startswith(AS_WRITTEN) else _KINDS.get(kind_of(value), "another thing")


def _number_difference(a: Any, b: Any) -> str:
    value_a, value_b = numeric(a), numeric(b)
    shown_a, shown_b = short_number(a, {}), short_number(b, {})
    if shown_a == shown_b:
        return f"both are near {shown_a}, but not the same number"
    unequal = f"{shown_a} is not {shown_b}"
    if value_a == -value_b:
        return f"{unequal}: the signs differ"
    if value_a == 100 * value_b or value_b == 100 * value_a:
        return f"{unequal}: a percent sign is dropped, so 50% is 50 and not 0.5"
    if abs(value_a - value_b) > _NEAR * max(abs(value_a), abs(value_b)) or _are_whole(value_a, value_b):
        return unequal
    if len(a) == len(b) == 2 and (_is_decimal(value_a) or _is_decimal(value_b)):
        return f"{unequal}: a decimal stands for other values only from {MIN_DECIMALS} places on"
    return f"{unequal}: the last digits differ"


def _are_whole(*values: Fraction) -> bool:
    return all(value.denominator == 1 for value in values)


def _is_decimal(value: Fraction) -> bool:
    return value.denominator > 1 and (value * 10 ** (MIN_DECIMALS - 1)).denominator == 1


def _members(value: Key) -> frozenset[Key]:
    return value[1] if isinstance(value, tuple) and value[0] in ("set", "union") else frozenset((value,))


def _member_difference(a: frozenset[Key], b: frozenset[Key], names_a: Names, names_b: Names) -> str:
    if len(a - b) == len(b - a) == 1:
        ((one,), (other,)) = a - b, b - a
        common = " in one member" if a & b else ""
        return f"they differ{common}: {_difference(one, other, names_a, names_b)}"
    only = [
        f"only the {place} has {several(members, names, is_ordered=False)}"
        for place, members, names in (("first", a - b, names_a), ("second", b - a, names_b))
        if members
    ]
    return "; ".join(only)


def _sequence_difference(a: Any, b: Any, names_a: Names, names_b: Names) -> str:
    if a[3] == b[3]:
        return f"the brackets differ: {a[1]} {a[2]} and {b[1]} {b[2]}"
    return _part_difference(a[3], b[3], "element", names_a, names_b)


def _part_difference(a: tuple[Key, ...], b: tuple[Key, ...], word: str, names_a: Names, names_b: Names) -> str:
    if len(a) != len(b):
        return f"the first has {len(a)} {word}s, the second {len(b)}"
    places = [place for place, (one, other) in enumerate(zip(a, b, strict=True)) if one != other]
    if not places:
        return "they differ"
    if Counter(a) == Counter(b):
        return f"the {word}s are the same in another order, which counts here"
    first = places[0]
    return f"{word} {first + 1} differs: {_difference(a[first], b[first], names_a, names_b)}"


def _expression_difference(a: Key, b: Key, names_a: Names, names_b: Names) -> str:
    letters_a, letters_b = set(names_a.values()), set(names_b.values())
    if letters_a != letters_b and letters_a and letters_b:
        return f"the letters differ: {', '.join(sorted(letters_a))} and {', '.join(sorted(letters_b))}"
    return "the expressions have different values for the same values of the letters"


def _relation_difference(a: Any, b: Any, names_a: Names, names_b: Names) -> str:
    if a[1] != b[1]:
        return f"the signs differ: {' '.join(a[1])} and {' '.join(b[1])}"
    if isinstance(a[2], tuple) and isinstance(b[2], tuple):
        return _part_difference(a[2], b[2], "side", names_a, names_b)
    return _member_difference(frozenset(a[2]), frozenset(b[2]), names_a, names_b)


def _system_difference(a: Any, b: Any, names_a: Names, names_b: Names) -> str:
    return f"{short(a, names_a)} is not {short(b, names_b)}: which value is that of which unknown counts"


def _over_difference(a: Any, b: Any, names_a: Names, names_b: Names) -> str:
    if a[2] != b[2]:
        return "the domains of the letters differ"
    return _difference(a[1], b[1], names_a, names_b)


_DIFFERENCES: dict[str, Callable[[Any, Any, Names, Names], str]] = {
    "complex": lambda a, b, names_a, names_b: f"{short(a, {})} is not {short(b, {})}",
    "infinity": lambda a, b, names_a, names_b: "the signs differ",
    "expression": _expression_difference,
    "equation": lambda a, b, names_a, names_b: "neither equation is a multiple of the other",
    "inequality": lambda a, b, names_a, names_b: "neither inequality is a positive multiple of the other",
    "text": lambda a, b, names_a, names_b: f"{short(a, {})} is not {short(b, {})}",
    "written": lambda a, b, names_a, names_b: "they are written with different signs",
    "sequence": _sequence_difference,
    "set": lambda a, b, names_a, names_b: _member_difference(a[1], b[1], names_a, names_b),
    "union": lambda a, b, names_a, names_b: _member_difference(a[1], b[1], names_a, names_b),
    "intersection": lambda a, b, names_a, names_b: _member_difference(a[1], b[1], names_a, names_b),
    "difference": lambda a, b, names_a, names_b: _part_difference(a[1:], b[1:], "part", names_a, names_b),
    "ratio": lambda a, b, names_a, names_b: f"{short(a, names_a)} is not {short(b, names_b)}",
    "∧": lambda a, b, names_a, names_b: _part_difference(a[1], b[1], "part", names_a, names_b),
    "∨": lambda a, b, names_a, names_b: _member_difference(a[1], b[1], names_a, names_b),
    "cases": lambda a, b, names_a, names_b: _member_difference(a[1], b[1], names_a, names_b),
    **dict.fromkeys(
        ("matrix", "determinant"),
        lambda a, b, names_a, names_b: _part_difference(a[1], b[1], "row", names_a, names_b),
    ),
    "row": lambda a, b, names_a, names_b: _part_difference(a[1], b[1], "entry", names_a, names_b),
    "system": _system_difference,
    "relation": _relation_difference,
    "over": _over_difference,
}
