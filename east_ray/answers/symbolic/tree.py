"""The expression tree: what is written in an answer, before any value is computed."""

import re
from fractions import Fraction
from typing import NamedTuple


class Number(NamedTuple):
    """A decimal, an integer or a mixed number, exactly."""

    value: Fraction
    places: int = 0
    """Decimal places as written, with trailing zeros. A number with many places may be a rounded value."""


class Symbol(NamedTuple):
    """A variable with its subscripts and primes, a constant, or a literal (see `is_literal`)."""

    name: str


class Text(NamedTuple):
    r"""Prose as case-folded words: ``\text{No solution.}`` is ``no solution``."""

    words: str


class Apply(NamedTuple):
    """An operator or a kind of bracket, with its arguments."""

    operator: str
    arguments: tuple["Node", ...]


class Relation(NamedTuple):
    r"""``sides[0] signs[0] sides[1] ...``. ``named[k]``: side k only names a quantity, as f(x) or ``\angle A`` do."""

    signs: tuple[str, ...]
    sides: tuple["Node", ...]
    named: tuple[bool, ...]


Node = Number | Symbol | Text | Apply | Relation


def is_constant(node: Node) -> bool:
    """Whether the expression has no variable."""
    if isinstance(node, Symbol):
        return node.name in ("π", "e", "i", "∞")
    if isinstance(node, Apply):
        return all(is_constant(argument) for argument in node.arguments)
    return isinstance(node, Number)


def is_literal(node: Node) -> bool:
    """Whether the node is a time of day or a number with a base, which is exact but takes no part in arithmetic."""
    return isinstance(node, Symbol) and (node.name[0].isdecimal() or " in base " in node.name)


def variables(node: Node) -> frozenset[str]:
    """The names of the variables; a value of an unknown function counts as one."""
    if isinstance(node, Symbol):
        return frozenset() if is_constant(node) else frozenset((node.name,))
    if isinstance(node, Apply):
        if node.operator == "call":
            return frozenset((repr(node),))
        return frozenset().union(*map(variables, node.arguments))
    if isinstance(node, Relation):
        return frozenset().union(*map(variables, node.sides))
    return frozenset()


def substitute(node: Node, symbol: Node, value: Node) -> Node:
    """The expression with the value in place of the symbol, also in subscripts: a_k becomes a_1."""
    if node == symbol:
        return value
    if isinstance(node, Symbol) and "_" in node.name and isinstance(symbol, Symbol):
        base, _, script = node.name.partition("_")
        letter = rf"(?<![A-Za-z]){re.escape(symbol.name)}(?![A-Za-z])"
        written = str(value.value) if isinstance(value, Number) else value.name if isinstance(value, Symbol) else "?"
        return Symbol(f"{base}_{re.sub(letter, lambda _: written, script)}")
    if isinstance(node, Apply):
        return Apply(node.operator, tuple(substitute(argument, symbol, value) for argument in node.arguments))
    if isinstance(node, Relation):
        return Relation(node.signs, tuple(substitute(side, symbol, value) for side in node.sides), node.named)
    return node


def num_nested_series(node: Node) -> int:
    """The number of sums and products over an index that stand in one another."""
    if not isinstance(node, Apply):
        return 0
    return max(map(num_nested_series, node.arguments), default=0) + (node.operator in ("∑", "∏"))
