"""Sides of a relation that only name the other side: the answers x = 5, f(x) = 5 and the area = 5 equal 5."""

from collections.abc import Sequence

from east_ray.answers.symbolic.commands import FIGURES, FUNCTIONS, KEPT_OPERATORS
from east_ray.answers.symbolic.prose import is_english
from east_ray.answers.symbolic.tokens import Token
from east_ray.answers.symbolic.tree import Apply, Node, Symbol, Text, is_constant, is_literal

_OPERATORS = KEPT_OPERATORS.union("¬") - {"∘"}  # f ∘ g is the name of a function
_OF_NAMES = frozenset(("\\", *FIGURES))


def names_a_quantity(tokens: Sequence[Token], node: Node) -> bool:
    """Whether a side of a relation only names the other side: x, a_3, f(x), f^{-1}(x), AB, NO/BO, A:B, (p, q).

    A product of small letters does not: xy = 1 is an equation, while AB = 1 is the length of a segment.
    """
    kinds = {token.kind for token in tokens}
    if isinstance(node, Symbol):
        return not is_constant(node) and node.name not in ("ℝ", "∅") and not is_literal(node)
    if isinstance(node, Text) or (kinds <= {"text", "word", "letter"} and any(map(is_english, tokens))):
        return True  # the area = 5
    if not isinstance(node, Apply) or _is_call(tokens):
        return _is_call(tokens)
    return _names(node)


def _names(node: Apply) -> bool:
    if node.operator in ("()", ":", "/", "abs"):
        return all(names_a_quantity((), argument) for argument in node.arguments)
    if node.operator == "*":
        factors = _flat_product(node)
        if isinstance(factors[0], Apply) and factors[0].operator == "call":  # (f ∘ g)(x)
            function = factors[0].arguments[0]
            is_composed = isinstance(function, Symbol) and function.name == "∘"
            return is_composed and all(isinstance(factor, Symbol) for factor in factors[1:])
        return all(isinstance(f, Symbol) and (f.name[0].isupper() or f.name[0] in _OF_NAMES) for f in factors)
    if node.operator == "call":
        return isinstance(node.arguments[0], Symbol) and node.arguments[0].name not in _OPERATORS
    return node.operator in FUNCTIONS and not is_constant(node) and not any(map(_is_unknown, _symbols(node)))


def is_function(node: Node) -> bool:
    """Whether the node is a value of a known function."""
    return isinstance(node, Apply) and node.operator in FUNCTIONS - {"abs"}


def _symbols(node: Node) -> list[Symbol]:
    if isinstance(node, Apply):
        return [symbol for argument in node.arguments for symbol in _symbols(argument)]
    return [node] if isinstance(node, Symbol) else []


def _is_unknown(symbol: Symbol) -> bool:
    """Whether a letter stands for an unknown number, as x in sin x = 1, and not for an angle, as A in sin A = 1."""
    return symbol.name[0].islower() and symbol.name[0].isascii() and not is_constant(symbol)


def is_plain_name(tokens: Sequence[Token]) -> bool:
    """Whether the tokens are x, a_3 or f(x)."""
    texts = [token.text for token in tokens]
    return len(tokens) > 0 and tokens[0].kind == "letter" and (len(texts) == 1 or texts[1] == "_" or _is_call(tokens))


def _flat_product(node: Node) -> list[Node]:
    if isinstance(node, Apply) and node.operator == "*":
        return [factor for argument in node.arguments for factor in _flat_product(argument)]
    return [node]


def _is_call(tokens: Sequence[Token]) -> bool:
    """Whether the tokens are a letter and then, in brackets, only letters and numbers: P(x), f^{-1}(x), a(n)."""
    texts = [token.text for token in tokens]
    if len(texts) < 4 or tokens[0].kind != "letter" or "(" not in texts or texts[-1] != ")":
        return False
    opening = texts.index("(")
    head, inside = texts[1:opening], tokens[opening + 1 : -1]
    is_plain_head = "".join(head) in ("", "'", "''", "^{-1}", "^-1") or head[:1] == ["_"]
    return is_plain_head and all(token.kind in ("letter", "number") or token.text == "," for token in inside)
