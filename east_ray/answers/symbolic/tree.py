"""The expression tree: what is written in an answer, before any value is computed."""

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


def substitute(node: Node, symbol: Node, value: Node) -> Node:
    """The expression with the value in place of the symbol."""
    if node == symbol:
        return value
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
