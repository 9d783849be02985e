r"""What an answer is worth: a canonical key, equal for equal answers.

Two expressions are equal if they have the same values, so an expression *is* the list of its values at fixed points:

* without variables, its value: an exact fraction if it is rational, else a complex number to 25 digits;
* with variables, its values at four points. The points depend on the names of the variables alone (SHA-256), never on a
  process, a machine or the other answers. Two points are positive. In each of the other two, half of the variables are
  negative, which tells |x| from x; an even root or a logarithm of a negative number counts there as undefined, so
  that sqrt(x^3) equals x sqrt(x) but sqrt(x^2) does not equal x.

Hence equality of keys is an equivalence relation by construction, the cost is linear in the number of answers, and no
pair needs a search for a proof that might not end. By the Schwartz-Zippel lemma different polynomials agree at a random
point with probability below degree / 2^62; arithmetic runs at 70 digits, so differences down to 1e-40 are seen.

Around the values stands the shape: kind of bracket, order of a tuple, set of a bare list, the solution set of an
inequality, an equation up to a constant factor.

Every step is bounded: exact integers have at most MAX_BITS bits, powers are estimated before they are computed, sums
have at most MAX_TERMS terms. What exceeds a bound, or is undefined, has its tokens as key and equals only itself.
Nothing here depends on a clock, so the same answers fall into the same clusters on a fast and on a slow machine.

Known limits: no integrals, limits, derivatives or unknown functions; x = 3y + 1 is the expression 3y + 1, but
x - 3y = 1 is the line y = (x - 1)/3; n is any real number, so (-1)^{2n} is not 1.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from east_ray.symbolic.parser import as_written, parse
from east_ray.symbolic.tokens import clean, tokenize
from east_ray.symbolic.tree import Apply, Node, Number, Relation, Symbol, Text, is_constant, is_literal
from east_ray.symbolic.values import (
    CONSTANT,
    LOCK,
    MAX_COST,
    ZERO_BITS,
    OffDomainError,
    UndefinedError,
    Value,
    complex_digits,
    cost,
    digits,
    evaluate,
    is_complex,
    is_zero,
    real,
    substitute,
    values_at_points,
)

Key = Hashable

MIN_DECIMALS = 8  # from here on a decimal stands for any value it is a rounding of
MIN_SIGNIFICANT = 6  # digits of such a decimal, leading zeros not counted
MAX_COMPARED = 20  # digits: a key holds 25
MAX_SNAPPED_DENOMINATOR = 10**12
MAX_ROUNDED_SET = 12  # size of the largest set whose members are compared as roundings
_NEAR = 1.1 * 10.0**-MIN_DECIMALS  # a rounding and its value are closer than this, apart from
_FLOAT_ERROR = 1e-14  # the error of a double, relative


# ------------------------------------------------------------------------------------------------------ scalar keys


def _real_key(value: Value) -> Key:
    """The exact fraction, if the value is one up to rounding error; else its leading digits."""
    if isinstance(value, Fraction):
        return value
    if is_zero(value):
        return Fraction(0)
    sign, mantissa, exponent, _ = value._mpf_
    exact = Fraction(-mantissa if sign else mantissa) * Fraction(2) ** exponent
    near: Fraction = exact.limit_denominator(MAX_SNAPPED_DENOMINATOR)
    error = abs(exact - near)
    # Any number has fractions within 1 / denominator^2 of it; one that is 10^12 times closer is no coincidence.
    if error <= abs(near) * Fraction(2) ** ZERO_BITS and error * near.denominator**2 * 10**12 < 1:
        return near
    return ("real", *digits(value))


def _number_key(value: Value) -> Key:
    if isinstance(value, Fraction):
        return ("number", value)
    if not is_complex(value):
        return ("number", _real_key(value))
    imaginary = _real_key(value.imag)
    if imaginary == 0:
        return ("number", _real_key(value.real))
    return ("complex", _real_key(value.real), imaginary)


def _expression_key(node: Node) -> Key:
    values = values_at_points(node)
    fingerprint = tuple(None if value is None else complex_digits(value) for value in values)
    if len({part for part in fingerprint if part is not None}) == 1:  # sin^2 x + cos^2 x
        return _number_key(next(value for value in values if value is not None))
    return ("expression", fingerprint)


def _scalar_key(node: Node) -> Key:
    if node in (Symbol("∞"), Apply("+", (Symbol("∞"),))):
        return ("infinity", 1)
    if node == Apply("-", (Symbol("∞"),)):
        return ("infinity", -1)
    if is_constant(node):
        return _number_key(evaluate(node, CONSTANT))
    return _expression_key(node)


# --------------------------------------------------------------------------------------------------- structured keys


def _set_key(keys: Iterable[Key]) -> Key:
    """A set; of one element: the element, since a bare list is a set and one answer a list of one."""
    members = frozenset(keys)
    return next(iter(members)) if len(members) == 1 else ("set", members)


def _interval_or_tuple(opening: str, members: tuple[Key, ...], closing: str) -> Key:
    return ("sequence", opening, closing, members)


def _interval(opening: str, lower: Key, upper: Key, closing: str) -> Key:
    return _interval_or_tuple(opening, (lower, upper), closing)


_INFINITY: Key = ("infinity", 1)
_MINUS_INFINITY: Key = ("infinity", -1)
_ALL_REALS = _interval("(", _MINUS_INFINITY, _INFINITY, ")")


def _variants(node: Node) -> list[Node]:
    """3 ± x is 3 + x and 3 - x; all signs of one expression go together, with ∓ the other way."""

    def signed(part: Node, positive: bool) -> Node:
        if isinstance(part, Apply):
            inner = tuple(signed(argument, positive) for argument in part.arguments)
            if part.operator in ("±", "∓"):
                return Apply("+", inner) if positive == (part.operator == "±") else Apply("-", inner)
            return Apply(part.operator, inner)
        if isinstance(part, Relation):
            return Relation(part.signs, tuple(signed(side, positive) for side in part.sides), part.named)
        return part

    plus, minus = signed(node, True), signed(node, False)
    return [plus] if plus == minus else [plus, minus]


def _union_key(node: Apply) -> Key:
    keys: set[Key] = set()
    for argument in node.arguments:
        key = _key(argument)
        keys |= key[1] if isinstance(key, tuple) and key[0] == "union" else {key}
    return next(iter(keys)) if len(keys) == 1 else ("union", frozenset(keys))


def _difference_key(left: Node, right: Node) -> Key:
    """R without finitely many numbers is the union of the intervals between them."""
    whole, removed = _key(left), _key(right)
    members = removed[1] if isinstance(removed, tuple) and removed[0] == "set" else frozenset([removed])
    if whole != _ALL_REALS or not all(isinstance(m, tuple) and m[0] == "number" for m in members):
        return ("difference", whole, removed)
    ends = [_MINUS_INFINITY, *sorted(members, key=_numeric), _INFINITY]
    return ("union", frozenset(_interval("(", low, high, ")") for low, high in pairwise(ends)))


def _ratio_key(terms: tuple[Node, ...]) -> Key:
    """3:4 is 3/4; 2:4:6 is (1, 2, 3) up to a factor."""
    if len(terms) == 2:
        return _scalar_key(Apply("/", terms))
    return ("ratio", tuple(_scalar_key(Apply("/", (term, terms[0]))) for term in terms))


def _scaled_matrix(node: Apply) -> Node | None:
    """A number times, or divided into, a matrix: the factor moves into the cells."""
    matrices = [part for part in node.arguments if isinstance(part, Apply) and part.operator == "matrix"]
    if node.operator not in ("*", "/", "-") or len(matrices) != 1:
        return None
    if node.operator == "/" and node.arguments[0] != matrices[0]:
        return None

    def scaled(cell: Node) -> Node:
        return Apply(node.operator, tuple(cell if part is matrices[0] else part for part in node.arguments))

    rows = (row for row in matrices[0].arguments if isinstance(row, Apply))
    return Apply("matrix", tuple(Apply("row", tuple(map(scaled, row.arguments))) for row in rows))


def _sequence_key(node: Apply) -> Key:
    """A tuple or an interval: "()", "(]", "[)", "[]"."""
    return _interval_or_tuple(node.operator[0], tuple(map(_key, node.arguments)), node.operator[1])


def _parts_key(node: Apply) -> Key:
    return (node.operator, tuple(map(_key, node.arguments)))


def _list_key(node: Apply) -> Key:
    keys = [_key(variant) for item in node.arguments for variant in _variants(item)]
    if len(keys) > 1 and all(isinstance(item, Relation) and _is_inequality(item) for item in node.arguments):
        return ("union", frozenset(keys))  # x < -1 or x > 3
    return _set_key(keys)


_STRUCTURES: dict[str, Callable[[Apply], Key]] = {
    "list": _list_key,
    "set": _list_key,
    "∪": _union_key,
    "∩": lambda node: ("intersection", frozenset(map(_key, node.arguments))),
    "∖": lambda node: _difference_key(*node.arguments),
    ":": lambda node: _ratio_key(node.arguments),
    **dict.fromkeys(("()", "(]", "[)", "[]"), _sequence_key),
    **dict.fromkeys(("matrix", "determinant", "row"), _parts_key),
}


def _key(node: Node) -> Key:
    if isinstance(node, Text):
        return ("text", node.words)
    if isinstance(node, Apply) and node.operator in ("list", "set"):
        return _list_key(node)
    if len(variants := _variants(node)) > 1:
        return _set_key(map(_key, variants))
    if isinstance(node, Relation):
        return _relation_key(node)
    if isinstance(node, Apply):
        return _apply_key(node)
    return _symbol_key(node) if isinstance(node, Symbol) else _scalar_key(node)


def _apply_key(node: Apply) -> Key:
    if (structure := _STRUCTURES.get(node.operator)) is not None:
        return structure(node)
    scaled = _scaled_matrix(node)
    return _scalar_key(node) if scaled is None else _key(scaled)


def _symbol_key(symbol: Symbol) -> Key:
    if symbol.name == "ℝ":
        return _ALL_REALS
    if symbol.name == "∅":
        return ("set", frozenset())
    return ("text", symbol.name) if is_literal(symbol) else _scalar_key(symbol)


# --------------------------------------------------------------------------------------------------------- relations

_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}


def _is_inequality(relation: Relation) -> bool:
    return any(sign in _FLIPPED or sign == "≠" for sign in relation.signs)


def _relation_key(relation: Relation) -> Key:
    signs, sides, named = relation
    if _is_inequality(relation):
        return _inequality_key(relation)
    if named[-1] and not any(named[:-1]) and len(sides) == 2 and signs == ("=",):  # 3 = x
        sides, named = sides[::-1], named[::-1]
    first = 0
    while first < len(sides) - 1 and named[first]:
        first += 1
    rest, rest_signs = sides[first:], signs[first:]
    if "≈" in rest_signs:  # sqrt(2) ≈ 1.41: what stands before is exact
        rest, rest_signs = rest[: rest_signs.index("≈") + 1], rest_signs[: rest_signs.index("≈")]
    if len(rest) == 1:
        return _key(rest[0])
    if "∈" in rest_signs:
        return _key(rest[-1])
    if first or all(is_constant(side) for side in rest):  # A = 2 * 3 = 6
        return _key(rest[-1])
    return _equation_key(rest[0], rest[-1])


def _difference(left: Node, right: Node) -> Node:
    return Apply("+", (left, Apply("-", (right,))))


def _equation_key(left: Node, right: Node) -> Key:
    """A line or another graph y = E(x), as the expression E; any other equation, up to a constant factor."""
    difference = _difference(left, right)
    symbols = _variables(difference)
    if "y" in symbols and len(symbols) == 2 and _is_linear(difference, Symbol("y")):
        return _scalar_key(_solved_for(difference, Symbol("y")))
    return ("equation", _up_to_factor(difference, keep_sign=False))


def _variables(node: Node) -> frozenset[str]:
    if isinstance(node, Symbol):
        return frozenset() if is_constant(node) else frozenset((node.name,))
    if isinstance(node, Apply):
        if node.operator == "call":
            return frozenset((repr(node),))
        return frozenset().union(*(_variables(argument) for argument in node.arguments))
    return frozenset()


def _up_to_factor(node: Node, keep_sign: bool) -> Key:
    values = values_at_points(node)
    scale = values[0]
    if scale is None or is_zero(scale):
        raise UndefinedError("no scale")
    if keep_sign:
        scale = abs(scale)
    return tuple(None if value is None else complex_digits(value / scale) for value in values)


def _at(node: Node, symbol: Symbol, value: int) -> Node:
    return substitute(node, symbol, Number(Fraction(value)))


def _is_linear(node: Node, symbol: Symbol) -> bool:
    """Whether its values at 0, 1, 2 and 5 of the symbol lie on a line that is not level, at every point."""
    at_0, at_1, at_2, at_5 = (values_at_points(_at(node, symbol, k)) for k in (0, 1, 2, 5))
    for v0, v1, v2, v5 in zip(at_0, at_1, at_2, at_5, strict=True):
        if v0 is None or v1 is None or v2 is None or v5 is None:
            return False
        if not is_zero(v2 - 2 * v1 + v0) or not is_zero(v5 - 5 * v1 + 4 * v0) or is_zero(v1 - v0):
            return False
    return True


def _solved_for(node: Node, symbol: Symbol) -> Node:
    """The root of a linear node: -F(0) / (F(1) - F(0))."""
    at_0, at_1 = _at(node, symbol, 0), _at(node, symbol, 1)
    return Apply("/", (Apply("-", (at_0,)), _difference(at_1, at_0)))


def _inequality_key(relation: Relation) -> Key:
    """The solution set, if one variable is linear or stands as |x|; else the inequality up to a positive factor."""
    signs, sides, _ = relation
    if len(sides) == 3 and (set(signs) <= {"<", "≤"} or set(signs) <= {">", "≥"}):
        if signs[0] in ">≥":
            sides, signs = sides[::-1], tuple(_FLIPPED[sign] for sign in reversed(signs))
        lower, middle, upper = sides
        return _between_key(lower, signs[0], middle, signs[1], upper)
    if len(sides) != 2 or signs[0] not in ("≠", *_FLIPPED):
        raise UndefinedError("chain of relations")
    left, right = sides
    sign = signs[0]
    if is_constant(left) and not is_constant(right):
        left, right, sign = right, left, _FLIPPED.get(sign, sign)
    return _half_line_key(left, sign, right)


def _half_line_key(left: Node, sign: str, right: Node) -> Key:
    if (inner := _inside_abs(left)) and is_constant(right) and sign in _FLIPPED:
        minus = Apply("-", (right,))
        if sign in "<≤":
            return _between_key(minus, sign, inner, sign, right)
        return ("union", frozenset((_half_line_key(inner, _FLIPPED[sign], minus), _half_line_key(inner, sign, right))))
    bound = _linear_bound(left, right)
    if bound is None:
        difference = _difference(left, right)
        if sign in ">≥":
            difference, sign = Apply("-", (difference,)), _FLIPPED[sign]
        return ("inequality", sign, _up_to_factor(difference, keep_sign=sign != "≠"))
    end, rises = bound
    if sign == "≠":
        return ("union", frozenset((_interval("(", _MINUS_INFINITY, end, ")"), _interval("(", end, _INFINITY, ")"))))
    if not rises:
        sign = _FLIPPED[sign]
    if sign in "<≤":
        return _interval("(", _MINUS_INFINITY, end, "]" if sign == "≤" else ")")
    return _interval("[" if sign == "≥" else "(", end, _INFINITY, ")")


def _between_key(lower: Node, low_sign: str, middle: Node, high_sign: str, upper: Node) -> Key:
    opening, closing = "[" if low_sign == "≤" else "(", "]" if high_sign == "≤" else ")"
    if inner := _inside_abs(middle):
        minus_lower, minus_upper = Apply("-", (lower,)), Apply("-", (upper,))
        return ("union", frozenset((
            _between_key(minus_upper, high_sign, inner, low_sign, minus_lower),
            _between_key(lower, low_sign, inner, high_sign, upper),
        )))  # fmt: skip
    low, high = _linear_bound(middle, lower), _linear_bound(middle, upper)
    if low is None or high is None:
        parts = (_half_line_key(middle, _FLIPPED[low_sign], lower), _half_line_key(middle, high_sign, upper))
        return ("intersection", frozenset(parts))
    if low[1]:
        return _interval(opening, low[0], high[0], closing)
    return _interval("[" if closing == "]" else "(", high[0], low[0], "]" if opening == "[" else ")")


def _inside_abs(node: Node) -> Node | None:
    if isinstance(node, Apply) and node.operator == "abs" and isinstance(node.arguments[0], Symbol):
        return node.arguments[0]
    return None


def _linear_bound(left: Node, right: Node) -> tuple[Key, bool] | None:
    """Where left - right, linear in its only variable, is zero, and whether it rises; None if it is not linear."""
    if isinstance(left, Apply) and left.operator == "call":
        left = Symbol(repr(left))  # 0 < f(x) < 1 bounds the value of f
    if isinstance(left, Symbol) and _scalar_key(right) in (_INFINITY, _MINUS_INFINITY):
        return _scalar_key(right), True
    difference = _difference(left, right)
    symbols = _variables(difference)
    if len(symbols) != 1:
        return None
    symbol = Symbol(next(iter(symbols)))
    if not _is_linear(difference, symbol):
        return None
    slope = evaluate(_difference(_at(difference, symbol, 1), _at(difference, symbol, 0)), CONSTANT)
    return _scalar_key(_solved_for(difference, symbol)), bool(real(slope) > 0)


# -------------------------------------------------------------------------------------------------------- public face


@lru_cache(maxsize=1 << 15)
def key(answer: str) -> Key:
    r"""The canonical key of an answer: hashable, equal for equal answers, the same in every process.

    >>> key("0.5") == key(r"\frac{1}{2}")
    True
    >>> key("(1, 2)") == key("(2, 1)")
    False
    """
    node = parse(answer)
    try:
        if cost(node) > MAX_COST:
            raise UndefinedError("too long to evaluate")
        with LOCK:
            return _key(node)
    except (UndefinedError, OffDomainError):
        return _key(as_written(tokenize(clean(answer))))


def _numeric(number_key: Key) -> Fraction:
    """The value of a ("number", ...) key, exact or to 25 digits."""
    assert isinstance(number_key, tuple)
    value = number_key[1]
    if isinstance(value, Fraction):
        return value
    _, integer, exponent = value
    return Fraction(integer * Fraction(2) ** exponent)


@lru_cache(maxsize=1024)
def _num_decimals(value: Fraction) -> int | None:
    """The number of places after which the decimal expansion ends; None if it does not end."""
    denominator, twos, fives = value.denominator, 0, 0
    while denominator % 2 == 0:
        denominator, twos = denominator // 2, twos + 1
    while denominator % 5 == 0:
        denominator, fives = denominator // 5, fives + 1
    return max(twos, fives) if denominator == 1 else None


def _is_rounded_number(rounded: Fraction, value: Fraction) -> bool:
    """Whether they differ by less than one unit in the last place of the first, which has enough places and digits."""
    decimals = _num_decimals(rounded)
    if decimals is None or decimals < MIN_DECIMALS:
        return False
    last_place: int = 10**decimals
    if abs(rounded.numerator) * last_place < 10 ** (MIN_SIGNIFICANT - 1) * rounded.denominator:
        return False
    # |rounded - value| < 10^-decimals, without the common denominator that makes long fractions slow
    difference = abs(rounded.numerator * value.denominator - value.numerator * rounded.denominator)
    is_last_place = difference * last_place < rounded.denominator * value.denominator
    return is_last_place or difference * 10**MAX_COMPARED < abs(rounded.numerator) * value.denominator


def is_rounding_of(decimal: Key, precise: Key) -> bool:
    r"""Whether `decimal` is `precise`, with numbers cut or rounded after MIN_DECIMALS places or more.

    >>> is_rounding_of(key("1.41421356"), key(r"\sqrt{2}"))
    True
    >>> is_rounding_of(key("1.4142"), key(r"\sqrt{2}"))
    False
    """
    return _are_near(_magnitudes(decimal), _magnitudes(precise)) and _is_rounding(decimal, precise)


def _is_rounding(decimal: Key, precise: Key) -> bool:
    if decimal == precise:
        return True
    if isinstance(decimal, frozenset) and isinstance(precise, frozenset):
        if len(decimal) > MAX_ROUNDED_SET or len(decimal) != len(precise):
            return False
        return all(any(_is_rounding(d, p) for p in precise) for d in decimal)
    if not (isinstance(decimal, tuple) and isinstance(precise, tuple)) or len(decimal) != len(precise):
        return False
    if decimal[:1] == ("number",) == precise[:1]:
        return _is_rounded_number(_numeric(decimal), _numeric(precise))
    return all(_is_rounding(d, p) for d, p in zip(decimal, precise, strict=True))


def _magnitudes(part: Key) -> tuple[float, ...]:
    """The numbers in a key, those of a set in order of size: a sketch of it, to pass over most pairs quickly."""
    if isinstance(part, frozenset):
        return tuple(sorted(number for member in part for number in _magnitudes(member)))
    if not isinstance(part, tuple):
        return ()
    if part[:1] == ("number",):
        value = _numeric(part)
        try:
            return (float(value),)
        except OverflowError:
            return (math.inf if value > 0 else -math.inf,)
    return tuple(number for member in part for number in _magnitudes(member))


def _are_near(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether keys with these magnitudes can be roundings of one another."""
    return len(one) == len(other) and all(
        a == b or abs(a - b) <= _NEAR + _FLOAT_ERROR * abs(a) for a, b in zip(one, other, strict=True)
    )


def _has_long_decimal(part: Key) -> bool:
    """Whether a number with MIN_DECIMALS places or more stands in the key, so that `is_rounding_of` can hold."""
    if isinstance(part, frozenset):
        return any(map(_has_long_decimal, part))
    if not isinstance(part, tuple):
        return False
    if part[:1] == ("number",):
        value = part[1]
        return isinstance(value, Fraction) and value.denominator > 1 and (_num_decimals(value) or 0) >= MIN_DECIMALS
    return any(map(_has_long_decimal, part))


def joined_roundings(keys: Sequence[Key]) -> list[int]:
    """(K,) distinct keys -> (K,) equal numbers for keys that `is_rounding_of` connects, also by way of others."""
    decimals = [index for index, value in enumerate(keys) if _has_long_decimal(value)]
    parent = list(range(len(keys)))  # a union-find forest
    if not decimals:
        return parent

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    sketches = [_magnitudes(value) for value in keys]
    for decimal in decimals:
        for precise, value in enumerate(keys):
            near = _are_near(sketches[decimal], sketches[precise])
            if near and root(decimal) != root(precise) and _is_rounding(keys[decimal], value):
                parent[root(decimal)] = root(precise)
    return [root(index) for index in range(len(keys))]
