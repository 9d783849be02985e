r"""The canonical key of an answer, which is the same for equal answers.

Two expressions are equal if they have the same values, so the key of an expression consists of values:

* without variables, its value: an exact fraction if it is rational, else a complex number to 25 digits;
* with variables, its values at four fixed points. The points depend on the names of the variables alone (SHA-256), not
  on the process, the machine or the other answers. Two points are positive. In each of the other two, half of the
  variables are negative, which tells |x| from x; there, an even root or a logarithm of a negative number counts as
  undefined, so that sqrt(x^3) equals x sqrt(x) but sqrt(x^2) does not equal x.

Equality of keys is therefore an equivalence relation, the cost is linear in the number of answers, and no pair needs a
search for a proof that might not end. By the Schwartz-Zippel lemma, different polynomials agree at a random point with
probability below degree / 2^62. Arithmetic has 70 digits, so differences down to 1e-40 are seen.

The key also has the structure of the answer: the kind of bracket, the order of a tuple, the set of a bare list, the
solution set of an inequality, an equation up to a constant factor.

Every step is bounded: exact integers have at most MAX_BITS bits, powers are estimated before they are computed, sums
have at most MAX_TERMS terms. An answer that exceeds a bound, or is undefined, has its tokens as its key and equals only
itself. No step depends on a clock, so clusters are the same on a fast and on a slow machine.

Known limits: no integrals, limits, derivatives or unknown functions; x = 3y + 1 is the expression 3y + 1, but
x - 3y = 1 is the line y = (x - 1)/3; n is any real number, so (-1)^{2n} is not 1.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import lru_cache, reduce

from east_ray.answers.symbolic import intervals
from east_ray.answers.symbolic.cleaning import clean
from east_ray.answers.symbolic.commands import FLIPPED_RELATIONS, KEPT_RELATIONS, SYMMETRIC_RELATIONS
from east_ray.answers.symbolic.intervals import Key, interval_key
from east_ray.answers.symbolic.matrices import as_matrix
from east_ray.answers.symbolic.parser import parse
from east_ray.answers.symbolic.prose import as_written
from east_ray.answers.symbolic.tokenizing import tokenize
from east_ray.answers.symbolic.tokens import MAX_DIGITS
from east_ray.answers.symbolic.tree import (
    Apply,
    Node,
    Number,
    Relation,
    Symbol,
    Text,
    is_constant,
    is_literal,
    substitute,
    variables,
)
from east_ray.answers.symbolic.units import is_unit
from east_ray.answers.symbolic.values import (
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
    values_at_points,
)

MIN_DECIMALS = 8  # a decimal with as many places stands for every value that it rounds
MIN_DECIMALS_WITHOUT_ZEROS = 6  # of such a decimal; 12.00000000 is just 12
MAX_SNAPPED_DENOMINATOR = 10**12


# ------------------------------------------------------------------------------------------------------ scalar keys


def _real_key(value: Value) -> Key:
    """The exact fraction if the value is a fraction up to rounding error, else the leading digits."""
    if isinstance(value, Fraction):
        return value
    if is_zero(value):
        return Fraction(0)
    sign, mantissa, exponent, _ = value._mpf_
    exact = Fraction(-mantissa if sign else mantissa) * Fraction(2) ** exponent
    near: Fraction = exact.limit_denominator(MAX_SNAPPED_DENOMINATOR)
    error = abs(exact - near)
    # Every number has fractions within 1 / denominator^2; a fraction 10^12 times closer than that is no coincidence.
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
    if (rounded := _rounded_literal(node)) is not None:
        return rounded
    if node in (Symbol("∞"), Apply("+", (Symbol("∞"),))):
        return ("infinity", 1)
    if node == Apply("-", (Symbol("∞"),)):
        return ("infinity", -1)
    if is_constant(node):
        return _number_key(evaluate(node, CONSTANT))
    return _expression_key(node)


def _rounded_literal(node: Node) -> Key | None:
    """A decimal written with MIN_DECIMALS places or more: ("number", value, places)."""
    value, places = _decimal(node)
    if places < MIN_DECIMALS or (value * 10 ** (MIN_DECIMALS_WITHOUT_ZEROS - 1)).denominator == 1:
        return None
    return ("number", value, places)


def _decimal(node: Node) -> tuple[Fraction, int]:
    """The value and the places of a decimal, signed or in scientific notation. Other nodes have 0 places."""
    match node:
        case Number(value, places):
            return value, places
        case Apply("-" | "+" as sign, (inner,)):
            value, places = _decimal(inner)
            return (-value if sign == "-" else value), places
        case Apply("*", (Number(value, places), Apply("^", (Number(Fraction(numerator=10, denominator=1)), power)))):
            exponent = _decimal(power)[0]
            if exponent.denominator == 1 and abs(exponent) <= MAX_DIGITS:
                return value * Fraction(10) ** int(exponent), places - int(exponent)
    return Fraction(0), 0


# --------------------------------------------------------------------------------------------------- structured keys


def _set_key(keys: Iterable[Key]) -> Key:
    """The key of a set. A set of one element has the key of the element, since a single answer is a list of one."""
    members = frozenset(keys)
    return next(iter(members)) if len(members) == 1 else ("set", members)


def _real_set(key: Key) -> intervals.RealSet | None:
    return intervals.real_set(key, numeric)


def _joined(keys: Iterable[Key]) -> Key:
    """The union of sets. Sets of real numbers are joined: [1, 2] with [2, 3] has the key of [1, 3]."""
    members: set[Key] = set()
    for key in keys:
        members |= key[1] if isinstance(key, tuple) and key[0] == "union" else {key}
    sets = [_real_set(member) for member in members]
    if None not in sets:
        return intervals.key_of(intervals.union(one for one in sets if one is not None))
    if all(isinstance(member, tuple) and member[0] in ("set", "number", "complex") for member in members):
        return _set_key(value for member in members for value in _elements(member))
    return next(iter(members)) if len(members) == 1 else ("union", frozenset(members))


def _elements(key: Key) -> Iterable[Key]:
    return key[1] if isinstance(key, tuple) and key[0] == "set" else (key,)


def _common(keys: Sequence[Key]) -> Key:
    """The intersection of sets."""
    sets = [_real_set(key) for key in keys]
    if None not in sets:
        return intervals.key_of(reduce(intervals.intersection, (one for one in sets if one is not None)))
    return ("intersection", frozenset(keys))


def _variants(node: Node) -> list[Node]:
    """3 ± x stands for 3 + x and 3 - x. All ± of an expression have the same sign, and all ∓ the other sign."""

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


def _difference_key(left: Node, right: Node) -> Key:
    """A difference of sets: R without finitely many numbers is the union of the intervals between them."""
    whole, removed = _key(left), _key(right)
    sets = _real_set(whole), _real_set(removed)
    if sets[0] is None or sets[1] is None:
        return ("difference", whole, removed)
    return intervals.key_of(intervals.difference(sets[0], sets[1]))


def _ratio_key(terms: tuple[Node, ...]) -> Key:
    """A ratio: 3:4 equals 3/4, and 2:4:6 equals 1:2:3."""
    if len(terms) == 2:
        return _scalar_key(Apply("/", terms))
    return ("ratio", tuple(_scalar_key(Apply("/", (term, terms[0]))) for term in terms))


def _operands_key(node: Apply) -> Key:
    """Propositions joined by "or" may be exchanged. Those joined by "and" keep their order: dx and dy in dx ∧ dy."""
    keys = map(_key, node.arguments)
    return (node.operator, frozenset(keys) if node.operator == "∨" else tuple(keys))


def _sequence_key(node: Apply) -> Key:
    """A tuple or an interval. The operator is its brackets: "()", "(]", "[)" or "[]"."""
    return ("sequence", node.operator[0], node.operator[1], tuple(map(_key, node.arguments)))


def _parts_key(node: Apply) -> Key:
    return (node.operator, tuple(map(_key, node.arguments)))


def _list_key(node: Apply) -> Key:
    if (special := _special_list_key(node)) is not None:
        return special
    items = node.arguments
    alone = _key if _differ_in_case(items) else _choice_key
    keys = [alone(variant) for item in items for variant in _variants(item)]
    if len(keys) > 1 and all(isinstance(item, Relation) and _is_inequality(item) for item in items):
        return _joined(keys)  # x < -1 or x > 3
    if any(isinstance(key, tuple) and key[0] == "sequence" and not _ENDLESS.isdisjoint(key[3]) for key in keys):
        return _joined(keys)  # (-oo, -1) or (2, oo)
    return _set_key(keys)


def _conditions_key(node: Apply) -> Key:
    """Inequalities with commas between them hold together if each of them alone says something: x > 1, x < 3."""
    joined = _list_key(Apply("list", node.arguments))
    return _all_key(node) if joined == intervals.ALL_REALS else joined


def _special_list_key(node: Apply) -> Key | None:
    """The key of a list that is more than the set of its items."""
    items = node.arguments
    domains = [item for item in items if isinstance(item, Relation) and _is_domain(item)]
    if domains and len(domains) < len(items):
        return _key_over_domains([item for item in items if item not in domains], domains)
    if len(items) > 1 and isinstance(items[0], Relation) and items[0].signs == ("≠",):  # x ≠ 1, 3 means x ≠ 1, x ≠ 3
        left, right = items[0].sides[0], items[1:]
        others = [one if isinstance(one, Relation) else Relation(("≠",), (left, one), (True, False)) for one in right]
        if all(other.signs == ("≠",) for other in others):
            return _all_key(Apply("all", (items[0], *others)))
    if node.operator == "set" and any(map(_is_set, items)):
        return ("set", frozenset(map(_inner_set_key, items)))
    return _system_key(items)


def _is_set(node: Node) -> bool:
    return node == Symbol("∅") or (isinstance(node, Apply) and node.operator == "set")


def _inner_set_key(node: Node) -> Key:
    """The key of a member of a set of sets. There, a set of one element differs from its element."""
    if isinstance(node, Apply) and node.operator == "set":
        return ("set", frozenset(map(_inner_set_key, node.arguments)))
    return _key(node)


def _is_domain(relation: Relation) -> bool:
    """Whether the relation says of a letter that it is an integer, a real number or the like."""
    letter, domain = relation.sides[0], relation.sides[-1]
    if relation.signs != ("∈",) or not isinstance(letter, Symbol) or not isinstance(domain, Symbol):
        return False
    return domain.name[0] in "ℕℤℚℝℂ"


def _key_over_domains(items: Sequence[Node], domains: Sequence[Relation]) -> Key:
    """k pi, k in Z is n pi, n in Z: the letter does not matter. Letters that are real are as without a domain."""
    names: dict[str, list[str]] = {}
    for letter, domain in sorted((repr(one.sides[0]), repr(one.sides[1])) for one in set(domains)):
        if domain != repr(Symbol("ℝ")):
            names.setdefault(domain, []).append(letter)
    for domain, letters in names.items():
        for number, letter in enumerate(letters):
            symbol = next(one.sides[0] for one in domains if repr(one.sides[0]) == letter)
            items = [substitute(item, symbol, Symbol(f"{domain} {number}")) for item in items]
    value = _key(items[0]) if len(items) == 1 else _list_key(Apply("list", tuple(items)))
    counts = frozenset((domain, len(letters)) for domain, letters in names.items())
    return ("over", value, counts) if counts else value


def _differ_in_case(items: Sequence[Node]) -> bool:
    """Whether single letters are written in both cases, as n and N: then they are no choices."""
    letters = [item.name for item in items if isinstance(item, Symbol) and len(item.name) == 1]
    return len(letters) > 1 and any(letter.isupper() != letters[0].isupper() for letter in letters)


_FIRST_UNKNOWNS = frozenset(repr(Symbol(name)) for name in "xyz")
_NUMBER_OF_NAME = re.compile(r"_\d+(?='\)$)")


def _system_key(items: Sequence[Node]) -> Key | None:
    """Values of several unknowns: which is that of which counts. None: there are not two unknowns with names.

    One letter with several numbers, x_1 and x_2, counts as one unknown with several solutions.
    """
    pairs: list[tuple[str, Node]] = []
    for item in items:
        name = _name_of(item) if isinstance(item, Relation) else pairs[-1][0] if pairs else None
        if name is None:
            return None
        pairs.append((name, item))
    names = {name for name, _ in pairs}
    if len(names) < 2 or len({_NUMBER_OF_NAME.sub("", name) for name in names}) == 1:
        return None
    solutions: list[dict[str, Key]] = [{}]
    for name, item in pairs:
        if name in solutions[-1]:
            solutions.append({})
        solutions[-1][name] = _key(item)
    if any(one.keys() != solutions[0].keys() for one in solutions):  # x = 1, x = 2, y = 3
        return ("system", frozenset((name, _key(item)) for name, item in pairs))
    if len(solutions) == 1:
        # Parameters come after x, y and z, as they do in a list that is written down.
        order = sorted(solutions[0], key=lambda name: (name not in _FIRST_UNKNOWNS, name))
        values = [solutions[0][name] for name in order]
        if all(isinstance(value, tuple) and value[0] == "number" for value in values):
            numbers = list(map(numeric, values))
            if all(lower < upper for lower, upper in itertools.pairwise(numbers)):
                return _set_key(values)  # a bare list has no order: 1, 2 and 2, 1 are x = 1, y = 2
    return ("system", frozenset(frozenset(one.items()) for one in solutions))


def _name_of(relation: Relation) -> str | None:
    """The unknown whose value or range a relation gives. None: it is not that of one unknown."""
    if not KEPT_RELATIONS.isdisjoint(relation.signs):
        return None
    if _is_inequality(relation):
        names = variables(relation)
        return next(iter(names)) if len(names) == 1 else None
    if relation.named[0]:
        return repr(relation.sides[0])
    return repr(relation.sides[1]) if len(relation.sides) == 2 and relation.named[1] else None


def _all_key(node: Apply) -> Key:
    """Inequalities that hold together. With two variables, or without a common solution, they form a bare list."""
    if len(frozenset().union(*map(variables, node.arguments))) == 1:
        common = _common(tuple(map(_key, node.arguments)))
        if common != _EMPTY:
            return common
    return _list_key(Apply("list", node.arguments)) if _are_solved(node) else _set_key(map(_key, node.arguments))


def _are_solved(node: Apply) -> bool:
    return any(isinstance(item, Relation) and item.signs != ("≠",) for item in node.arguments)


_EMPTY: Key = ("set", frozenset())
_ENDLESS = frozenset((intervals.INFINITY, intervals.MINUS_INFINITY))
_STRUCTURES: dict[str, Callable[[Apply], Key]] = {
    "list": _list_key,
    "set": _list_key,
    "all": _all_key,
    "conditions": _conditions_key,
    "∪": lambda node: _joined(map(_key, node.arguments)),
    "∩": lambda node: _common(tuple(map(_key, node.arguments))),
    "∖": lambda node: _difference_key(*node.arguments),
    ":": lambda node: _ratio_key(node.arguments),
    **dict.fromkeys(("∧", "∨"), _operands_key),
    **dict.fromkeys(("()", "(]", "[)", "[]"), _sequence_key),
    "cases": lambda node: ("cases", frozenset(map(_key, node.arguments))),
    **dict.fromkeys(("matrix", "determinant", "row"), _parts_key),
}


def _key(node: Node) -> Key:
    if isinstance(node, Text):
        return ("text", node.words)
    if isinstance(node, Apply) and node.operator in ("list", "set"):
        return _list_key(node)
    if len(variants := _variants(node)) > 1:
        is_excluded = isinstance(node, Relation) and node.signs == ("≠",)  # x ≠ ±1
        return _all_key(Apply("all", tuple(variants))) if is_excluded else _set_key(map(_key, variants))
    if isinstance(node, Relation):
        return _relation_key(node)
    if isinstance(node, Apply):
        return _apply_key(node)
    return _symbol_key(node) if isinstance(node, Symbol) else _scalar_key(node)


def _apply_key(node: Apply) -> Key:
    if (structure := _STRUCTURES.get(node.operator)) is not None:
        return structure(node)
    matrix = as_matrix(node)
    return _scalar_key(node) if matrix is None else _key(matrix)


def _symbol_key(symbol: Symbol) -> Key:
    if symbol.name == "ℝ":
        return intervals.ALL_REALS
    if symbol.name == "∅":
        return _EMPTY
    return ("text", symbol.name) if is_literal(symbol) else _scalar_key(symbol)


_CHOICES = frozenset(map(Symbol, "ABCDEFGH"))
_ROMAN_DIGITS = frozenset(map(Symbol, "IVX"))


def _are_choices(factors: Sequence[Node]) -> bool:
    return len(set(factors)) == len(factors) and all(map(_CHOICES.__contains__, factors))


def _choice_key(node: Node) -> Key:
    """The key of an answer or of a member of a list. A letter alone, as n in x = n, is that of a choice."""
    while isinstance(node, Relation) and node.signs == ("=",) and node.named[0]:
        node = node.sides[1]
    if isinstance(node, Symbol) and len(node.name) == 1 and node.name.isascii() and node.name not in "ei":
        return ("text", node.name.casefold())
    if isinstance(node, Apply) and node.operator == "*" and all(map(_ROMAN_DIGITS.__contains__, node.arguments)):
        return ("text", "".join(digit.name for digit in node.arguments if isinstance(digit, Symbol)))  # IV
    if isinstance(node, Apply) and node.operator == "*" and _are_choices(node.arguments):
        return _set_key(map(_choice_key, node.arguments))  # BD
    return _key(node)


# --------------------------------------------------------------------------------------------------------- relations

_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}


def _is_inequality(relation: Relation) -> bool:
    return any(sign in _FLIPPED or sign == "≠" for sign in relation.signs)


def _relation_key(relation: Relation) -> Key:
    signs, sides, named = relation
    if not KEPT_RELATIONS.isdisjoint(signs):
        return _kept_relation_key(relation)
    if _is_inequality(relation):
        return _inequality_key(relation)
    if named[-1] and not any(named[:-1]) and len(sides) == 2 and signs == ("=",):  # 3 = x
        sides, named = sides[::-1], named[::-1]
    first = 0
    while first < len(sides) - 1 and named[first]:
        first += 1
    rest, rest_signs = sides[first:], signs[first:]
    if "≈" in rest_signs:  # sqrt(2) ≈ 1.41: the side before the sign is exact
        rest, rest_signs = rest[: rest_signs.index("≈") + 1], rest_signs[: rest_signs.index("≈")]
    if len(rest) == 1:
        return _key(rest[0])
    if "∈" in rest_signs:  # x^2 in [1, 2]
        return _kept_relation_key(Relation(rest_signs, rest, named[first:]))
    if any(_begins_again(side, name) for side in rest[:-1] for name in sides[:first]):
        raise UndefinedError("two relations in one")
    if first or all(is_constant(side) for side in rest[len(rest) > 2 :]):  # A = 2 * 3 = 6, m + n = 25 + 7 = 32
        return _key(rest[-1])
    return _equation_key(rest[0], rest[-1])


def _begins_again(side: Node, name: Node) -> bool:
    """Whether a side is a number and then the name that it is the value of, as in x = 2 (some word) x = 3."""
    if not isinstance(side, Apply) or side.operator != "*" or not isinstance(name, Symbol) or len(name.name) > 1:
        return False
    return side.arguments[-1] == name and is_constant(side.arguments[0])


def _kept_relation_key(relation: Relation) -> Key:
    """A relation that is not computed: its signs and its sides, from left to right."""
    signs, sides, _ = relation
    keys = tuple(map(_key, sides))
    if signs[0] in SYMMETRIC_RELATIONS and len(set(signs)) == 1:
        return ("relation", signs, frozenset(keys))
    if all(sign.removeprefix("not") in FLIPPED_RELATIONS for sign in signs):
        turned = tuple(re.sub(r"[^not]", lambda sign: FLIPPED_RELATIONS[sign[0]], sign) for sign in reversed(signs))
        return ("relation", turned, keys[::-1])
    return ("relation", signs, keys)


def _difference(left: Node, right: Node) -> Node:
    return Apply("+", (left, Apply("-", (right,))))


def _equation_key(left: Node, right: Node) -> Key:
    """A line or another graph y = E(x) has the key of E; any other equation is compared up to a constant factor."""
    difference = _difference(left, right)
    symbols = variables(difference)
    if len(symbols) == 1 and _is_linear(difference, symbol := Symbol(next(iter(symbols)))):  # x - 3 = 0
        return _scalar_key(_solved_for(difference, symbol))
    if "y" in symbols and len(symbols) == 2 and _is_linear(difference, Symbol("y")):
        return _scalar_key(_solved_for(difference, Symbol("y")))
    return ("equation", _up_to_factor(difference, keep_sign=False))


def _up_to_factor(node: Node, keep_sign: bool) -> Key:
    values = values_at_points(node)
    scale = values[0]
    if scale is None or is_zero(scale):
        raise UndefinedError("no scale")
    if keep_sign:
        scale = abs(scale)
    return tuple(None if value is None else complex_digits(value / scale) for value in values)


def _at(node: Node, symbol: Symbol, value: int | Fraction) -> Node:
    return substitute(node, symbol, Number(Fraction(value)))


def _is_linear(node: Node, symbol: Symbol) -> bool:
    """Whether the values for symbol = 0, 1, -2 and 7/2 lie, at every point, on a line that is not horizontal."""
    at_0, at_1, at_negative, at_half = (values_at_points(_at(node, symbol, k)) for k in (0, 1, -2, Fraction(7, 2)))
    for v0, v1, v_negative, v_half in zip(at_0, at_1, at_negative, at_half, strict=True):
        if v0 is None or v1 is None or v_negative is None or v_half is None:
            return False
        slope = v1 - v0
        if is_zero(slope) or not is_zero(v_negative - v0 + 2 * slope) or not is_zero(2 * (v_half - v0) - 7 * slope):
            return False
    return True


def _solved_for(node: Node, symbol: Symbol) -> Node:
    """The root of F, a node that is linear in the symbol: -F(0) / (F(1) - F(0))."""
    at_0, at_1 = _at(node, symbol, 0), _at(node, symbol, 1)
    return Apply("/", (Apply("-", (at_0,)), _difference(at_1, at_0)))


def _inequality_key(relation: Relation) -> Key:
    """The solution set if the only variable is linear or stands as |x|, else the inequality up to a positive factor."""
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
        return _joined((_half_line_key(inner, _FLIPPED[sign], minus), _half_line_key(inner, sign, right)))
    bound = _linear_bound(left, right)
    if bound is None:
        difference = _difference(left, right)
        if sign in ">≥":
            difference, sign = Apply("-", (difference,)), _FLIPPED[sign]
        return ("inequality", sign, _up_to_factor(difference, keep_sign=sign != "≠"))
    end, rises = bound
    if sign == "≠":
        below = interval_key("(", intervals.MINUS_INFINITY, end, ")")
        return _joined((below, interval_key("(", end, intervals.INFINITY, ")")))
    if not rises:
        sign = _FLIPPED[sign]
    if sign in "<≤":
        return interval_key("(", intervals.MINUS_INFINITY, end, "]" if sign == "≤" else ")")
    return interval_key("[" if sign == "≥" else "(", end, intervals.INFINITY, ")")


def _between_key(lower: Node, low_sign: str, middle: Node, high_sign: str, upper: Node) -> Key:
    opening, closing = "[" if low_sign == "≤" else "(", "]" if high_sign == "≤" else ")"
    if inner := _inside_abs(middle):
        minus_lower, minus_upper = Apply("-", (lower,)), Apply("-", (upper,))
        negative = _between_key(minus_upper, high_sign, inner, low_sign, minus_lower)
        return _joined((negative, _between_key(lower, low_sign, inner, high_sign, upper)))
    low, high = _linear_bound(middle, lower), _linear_bound(middle, upper)
    if low is None or high is None:
        parts = (_half_line_key(middle, _FLIPPED[low_sign], lower), _half_line_key(middle, high_sign, upper))
        return _common(parts)
    if low[1]:
        return interval_key(opening, low[0], high[0], closing)
    return interval_key("[" if closing == "]" else "(", high[0], low[0], "]" if opening == "[" else ")")


def _inside_abs(node: Node) -> Node | None:
    if isinstance(node, Apply) and node.operator == "abs" and isinstance(node.arguments[0], Symbol):
        return node.arguments[0]
    return None


def _linear_bound(left: Node, right: Node) -> tuple[Key, bool] | None:
    """The root of left - right and whether this difference rises. None if it is not linear in its only variable."""
    if isinstance(left, Apply) and left.operator == "call":
        left = Symbol(repr(left))  # 0 < f(x) < 1 bounds the value of f
    if isinstance(left, Symbol) and _scalar_key(right) in (intervals.INFINITY, intervals.MINUS_INFINITY):
        return _scalar_key(right), True
    difference = _difference(left, right)
    symbols = variables(difference)
    if len(symbols) != 1:
        return None
    symbol = Symbol(next(iter(symbols)))
    if not _is_linear(difference, symbol):
        return None
    slope = evaluate(_difference(_at(difference, symbol, 1), _at(difference, symbol, 0)), CONSTANT)
    return _scalar_key(_solved_for(difference, symbol)), bool(real(slope) > 0)


# ------------------------------------------------------------------------------------------------ the key of an answer


_PLAIN_NUMBER = re.compile(r"(?:\\?\$)?(\d{1,3}(?:,\d{3}){1,5}|\d{1,18})(?:\.(\d{1,7}))?\.?", re.ASCII)


_BEFORE_BRACKET = frozenset(" \t\n~{,;:d")
#: sqrt 2 (1.414), six (6), 1/2 (50%), 6 (cm)
_SAID_AGAIN = re.compile(
    r"(?P<before>\S.{0,300}?)(?:[\s~]|\\[ ,;:]|\\q?quad|\\(?:text\w*|mathrm)\s*\{\s*)+"
    r"(?P<bracket>[(\[])(?P<inside>[^()\[\]]{1,40})[)\]]\s*\}?\s*",
    re.DOTALL,
)


@lru_cache(maxsize=1 << 15)
def key(answer: str) -> Key:
    r"""The canonical key of an answer: hashable, the same for equal answers and in every process.

    >>> key("0.5") == key(r"\frac{1}{2}")
    True
    >>> key("(1, 2)") == key("(2, 1)")
    False
    """
    if plain := _PLAIN_NUMBER.fullmatch(answer):  # most answers to word problems
        whole, decimals = plain[1].replace(",", ""), plain[2] or ""
        return ("number", Fraction(int(whole + decimals), 10 ** len(decimals)))
    if (value := _without_value_in_brackets(answer)) is not None:
        return value
    node = parse(answer)
    try:
        if cost(node) > MAX_COST:
            raise UndefinedError("too long to evaluate")
        with LOCK:
            return _choice_key(node)
    except (UndefinedError, OffDomainError):
        return ("written", repr(node))
    except RecursionError:  # deep nesting and a deep caller
        return _key(as_written(tokenize(clean(answer))))


def _without_value_in_brackets(answer: str) -> Key | None:
    """The key of what stands before a bracket that says it again, rounded, in words or in percent, or has its unit."""
    opening = max(answer.rfind("("), answer.rfind("["))
    said = _SAID_AGAIN.fullmatch(answer) if opening > 0 and answer[opening - 1] in _BEFORE_BRACKET else None
    if said is None or said["before"].strip() == said["inside"].strip():
        return None
    inside = said["inside"]
    if is_unit(inside):
        return key(said["before"])
    value, again = key(said["before"]), key(inside)
    if said["bracket"] == "[" or not all(isinstance(one, tuple) and one[0] == "number" for one in (value, again)):
        return None
    difference = abs(numeric(value) - numeric(again) / (100 if "%" in inside else 1))
    decimals = re.fullmatch(r"[-+\d,]*\.(\d+)\s*(?:\\?%)?", inside.strip())
    return value if difference == 0 or (decimals and difference < Fraction(1, 10 ** len(decimals[1]))) else None


def symbol_key(name: str) -> Key:
    """The key of a letter in an expression."""
    with LOCK:
        return _key(Symbol(name))


def numeric(number_key: Key) -> Fraction:
    """The value in a ("number", ...) key, exact or to 25 digits."""
    assert isinstance(number_key, tuple)
    value = number_key[1]
    if isinstance(value, Fraction):
        return value
    assert isinstance(value, tuple)
    _, integer, exponent = value
    return Fraction(integer * Fraction(2) ** exponent)
