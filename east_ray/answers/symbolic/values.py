"""The value of an expression tree at fixed points of its variables: exact if it is rational.

Every step is bounded: exact integers have at most MAX_BITS bits, powers are estimated before they are computed, sums
have at most MAX_TERMS terms. An expression that exceeds a bound has no value.
"""

import hashlib
import threading
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, gcd, isqrt, lcm, prod
from typing import Any

import mpmath  # type: ignore[import-untyped]

from east_ray.answers.symbolic.tree import Apply, Node, Number, Relation, Symbol, is_constant, substitute, variables

PRECISION_BITS = 240  # of the arithmetic
KEY_BITS = 83  # of a value in a key: 25 digits
ZERO_BITS = -140  # a result below 2^-140, about 1e-42, is rounding error
MAX_BITS = 20_000  # of an exact numerator or denominator; 2004! has 19,053
MAX_EXACT_ROOT = 64  # degree of a root that is tried exactly
MAX_MAGNITUDE = 16_384  # of the binary exponent of any value
MAX_ARGUMENT_BITS = 64  # of the argument of a sine and of an irrational exponent
MAX_TERMS = 1000  # of a sum or product
MAX_FACTORIAL = 2100
_PARITY_TRIALS = 12
MAX_COST = 10_000  # of an answer, in additions: below a second, with all evaluations of an inequality

CONTEXT = mpmath.MPContext()
CONTEXT.prec = PRECISION_BITS
LOCK = threading.RLock()  # held while CONTEXT is used: mpmath's cached constants are not safe to compute in two threads


class UndefinedError(ArithmeticError):
    """The expression has no value here: a pole, an infinity, a tuple in a sum, or more than a bound allows."""


class OffDomainError(ArithmeticError):
    """An even root or a logarithm of a negative number at a point with negative variables."""


Value = Any  # Fraction | mpf | mpc; mpmath has no type hints

_CONSTANTS: dict[str, Value] = {"π": +CONTEXT.pi, "e": +CONTEXT.e, "i": CONTEXT.mpc(0, 1)}

NUM_POINTS = 4
FIRST_SIGNED_POINT = 2  # at this point and the next, some variables are negative
CONSTANT = -1  # instead of the number of a point: variables have no value


@lru_cache(maxsize=4096)
def _coordinates(name: str) -> tuple[int, ...]:
    """The value of a variable at each point, in units of 2^-62."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    draws = [int.from_bytes(digest[8 * k : 8 * k + 8], "big") >> 2 for k in range(NUM_POINTS)]  # 62 bits each
    unit = 1 << 62
    # Neighbours in the alphabet differ in sign, so that x and y, or a and b, are never both negative.
    sign = 1 if (ord(name[0]) + len(name)) % 2 else -1
    small = unit // 4 + draws[0] // 2  # 0.25 .. 0.75
    large = unit + draws[1]  # 1 .. 2
    return small, large, sign * (unit // 2 + draws[2]), -sign * (unit // 2 + draws[3])


# ------------------------------------------------------------------------------------------------------- arithmetic


def _checked(value: Value) -> Value:
    """The value itself. Raises UndefinedError if it is not finite or exceeds a bound."""
    if isinstance(value, Fraction):
        if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
            raise UndefinedError("too large")
        return value
    if not CONTEXT.isfinite(value) or (value and abs(CONTEXT.mag(value)) > MAX_MAGNITUDE):
        raise UndefinedError("not finite")
    return value


def inexact(value: Value) -> Value:
    """A fraction as a floating-point number of PRECISION_BITS; other values are unchanged."""
    if isinstance(value, Fraction):
        return CONTEXT.mpf(value.numerator) / value.denominator
    return value


def _add(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return _checked(left + right)
    return _checked(inexact(left) + inexact(right))


def _multiply(left: Value, right: Value) -> Value:
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return _checked(left * right)
    return _checked(inexact(left) * inexact(right))


def _divide(left: Value, right: Value) -> Value:
    if is_zero(right):
        raise UndefinedError("division by zero")
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return _checked(left / right)
    return _checked(inexact(left) / inexact(right))


def is_zero(value: Value) -> bool:
    """Whether the value is zero up to rounding error."""
    return not value or (not isinstance(value, Fraction) and CONTEXT.mag(value) < ZERO_BITS)


def is_complex(value: Value) -> bool:
    """Whether the value has an imaginary part, which may be zero."""
    return isinstance(value, CONTEXT.mpc)


def is_real(value: Value) -> bool:
    """Whether the imaginary part is zero up to rounding error."""
    return not is_complex(value) or is_zero(value.imag)


def real(value: Value) -> Value:
    """The real part of a value whose imaginary part is only rounding error.

    Raises:
        UndefinedError: the value is not real.
    """
    if not is_real(value):
        raise UndefinedError("not real")
    return value if isinstance(value, Fraction) else CONTEXT.mpf(value.real)


def _integer_root(value: int, degree: int) -> int | None:
    """The exact root of value >= 0, or None."""
    if degree == 2:
        root = isqrt(value)
    elif value < 2:
        root = value
    else:
        root = 1 << -(-value.bit_length() // degree)  # Newton's iteration from above
        while (better := ((degree - 1) * root + value // root ** (degree - 1)) // degree) < root:
            root = better
    return root if root**degree == value else None


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    """base^exponent if it is rational, for base > 0 or a whole exponent; else None."""
    if exponent.denominator > 1:
        if base < 0 or exponent.denominator > MAX_EXACT_ROOT:
            return None
        numerator = _integer_root(base.numerator, exponent.denominator)
        denominator = _integer_root(base.denominator, exponent.denominator)
        if numerator is None or denominator is None:
            return None
        base = Fraction(numerator, denominator)
    if abs(base) == 1:
        return base if exponent.numerator % 2 else Fraction(1)
    if abs(exponent.numerator) * max(base.numerator.bit_length(), base.denominator.bit_length()) > MAX_BITS:
        raise UndefinedError("too large")
    return Fraction(base**exponent.numerator)


def _is_negative(value: Value) -> bool:
    return is_real(value) and bool(real(value) < 0)


def _power(base: Value, exponent: Value, point: int) -> Value:
    if is_zero(base):
        if is_real(exponent) and real(exponent) > 0:
            return Fraction(0)
        raise UndefinedError("0 to a power that is not positive")
    if not isinstance(exponent, Fraction):
        return _irrational_power(base, exponent, point)
    if isinstance(base, Fraction) and (exact := _exact_power(base, exponent)) is not None:
        return exact
    if exponent.denominator > 1 and _is_negative(base):
        if exponent.denominator % 2:  # the real root: (-8)^{1/3} = -2
            root = _power(-real(base), exponent, point)
            return -root if exponent.numerator % 2 else root
        if point >= FIRST_SIGNED_POINT:
            raise OffDomainError
    base = _bounded_base(base, exponent)
    if exponent.denominator == 1:
        power = base ** int(exponent)
    elif exponent == Fraction(1, 2):
        power = CONTEXT.sqrt(base)
    else:
        power = CONTEXT.exp(CONTEXT.ln(base) * exponent.numerator / exponent.denominator)
    return _checked(power)


def _irrational_power(base: Value, exponent: Value, point: int) -> Value:
    if point >= FIRST_SIGNED_POINT and _is_negative(base):
        raise OffDomainError
    return _checked(CONTEXT.power(_bounded_base(base, exponent), exponent))


def _bounded_base(base: Value, exponent: Value) -> Value:
    """The base as an inexact number. Raises UndefinedError if its power would exceed the bounds."""
    base = inexact(base)
    if CONTEXT.mag(inexact(exponent)) > MAX_ARGUMENT_BITS:
        raise UndefinedError("exponent too large")  # also for a base near 1
    if abs(CONTEXT.mag(base)) * abs(float(CONTEXT.re(inexact(exponent)))) > MAX_MAGNITUDE:
        raise UndefinedError("too large")
    return base


def _factorial(value: Value) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1:
        if not 0 <= value <= MAX_FACTORIAL:
            raise UndefinedError("factorial")
        return _checked(Fraction(factorial(int(value))))
    if isinstance(value, Fraction) or abs(value) > MAX_FACTORIAL:
        raise UndefinedError("factorial")
    try:
        return _checked(CONTEXT.gamma(value + 1))
    except ValueError as error:
        raise UndefinedError("pole") from error


def _binomial(top: Value, bottom: Value) -> Value:
    if isinstance(top, Fraction) and isinstance(bottom, Fraction) and top.denominator == bottom.denominator == 1:
        if not 0 <= bottom <= top <= 4 * MAX_TERMS:
            raise UndefinedError("binomial")
        return _checked(Fraction(comb(int(top), int(bottom))))
    one = Fraction(1)
    return _divide(_factorial(top), _multiply(_factorial(bottom), _factorial(_add(top, _multiply(-one, bottom)))))


def _logarithm(value: Value, point: int) -> Value:
    if is_zero(value):
        raise UndefinedError("logarithm of zero")
    if point >= FIRST_SIGNED_POINT and is_real(value) and real(value) < 0:
        raise OffDomainError
    return Fraction(0) if value == 1 else CONTEXT.ln(inexact(value))


def _rounded(value: Value, upwards: bool) -> Fraction:
    value = real(value)
    if isinstance(value, Fraction):
        return Fraction(-((-value) // 1) if upwards else value // 1)
    nearest = CONTEXT.nint(value)
    if is_zero(value - nearest):
        return Fraction(int(nearest))
    return Fraction(int(CONTEXT.ceil(value) if upwards else CONTEXT.floor(value)))


_ELEMENTARY_NAMES = """
    sin cos tan sec csc cot sinh cosh tanh sech csch coth arcsin arccos arctan asin acos atan arcsec arccsc arccot
    arcsinh arccosh arctanh
"""
_ELEMENTARY = {name: name.replace("arc", "a") for name in _ELEMENTARY_NAMES.split()}  # the names in mpmath


def _elementary(name: str, value: Value) -> Value:
    if value and abs(CONTEXT.mag(inexact(value))) > MAX_ARGUMENT_BITS:
        raise UndefinedError("argument too large")
    try:
        result = getattr(CONTEXT, _ELEMENTARY[name])(inexact(value))
    except (ZeroDivisionError, ValueError) as error:
        raise UndefinedError("pole") from error
    if result and CONTEXT.mag(result) > -ZERO_BITS:
        raise UndefinedError("pole")  # tan(pi/2), computed with a rounded pi
    return _checked(result)


def evaluate(node: Node, point: int) -> Value:
    """The value of the expression at the point.

    Raises:
        UndefinedError: the expression has no value.
        OffDomainError: it has no value at this point, where some variables are negative, but may have one elsewhere.
    """
    if isinstance(node, Number):
        return _checked(node.value)
    if isinstance(node, Symbol):
        return _symbol(node.name, point)
    if not isinstance(node, Apply):
        raise UndefinedError("not a number")
    if (operator := _OPERATORS.get(node.operator)) is not None:
        return operator(node.arguments, point)
    values = [evaluate(argument, point) for argument in node.arguments]
    if node.operator in _ELEMENTARY and len(values) == 1:
        return _elementary(node.operator, values[0])
    function, num_arguments = _FUNCTIONS.get(node.operator, (None, 0))
    if function is None or num_arguments not in (len(values), ANY_NUMBER) or not values:
        raise UndefinedError(node.operator)
    return function(values, point)


def _symbol(name: str, point: int) -> Value:
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    if point == CONSTANT or name in ("∞", "ℝ", "∅"):
        raise UndefinedError(name)
    return CONTEXT.ldexp(CONTEXT.mpf(_coordinates(name)[point]), -62)


Arguments = tuple[Node, ...]


def _sum(arguments: Arguments, point: int) -> Value:
    total = evaluate(arguments[0], point)
    for argument in arguments[1:]:
        total = _add(total, evaluate(argument, point))
    return total


def _product(arguments: Arguments, point: int) -> Value:
    product = evaluate(arguments[0], point)
    for argument in arguments[1:]:
        product = _multiply(product, evaluate(argument, point))
    return product


def _negative(arguments: Arguments, point: int) -> Value:
    return -evaluate(arguments[0], point)


def _quotient(arguments: Arguments, point: int) -> Value:
    if len(arguments) != 2:
        raise UndefinedError("ratio of more than two")
    return _divide(evaluate(arguments[0], point), evaluate(arguments[1], point))


def _power_of(arguments: Arguments, point: int) -> Value:
    base, exponent = arguments
    if base == Symbol("e"):
        return _exponential(evaluate(exponent, point))
    return _power(evaluate(base, point), evaluate(exponent, point), point)


def _call(arguments: Arguments, point: int) -> Value:
    """The value of an unknown function: a new unknown, which depends on the values of the arguments."""
    name, *values = arguments
    return _symbol(repr((name, *map(fingerprint, values))), point)


def _exponential(exponent: Value) -> Value:
    if exponent and CONTEXT.mag(inexact(exponent)) > MAX_MAGNITUDE.bit_length() - 2:
        raise UndefinedError("too large")
    return Fraction(1) if exponent == 0 else _checked(CONTEXT.exp(inexact(exponent)))


def _cis(angle: Value) -> Value:
    return _add(_elementary("cos", angle), _multiply(_CONSTANTS["i"], _elementary("sin", angle)))


def _extremum(values: list[Value], greatest: bool) -> Value:
    reals = [real(value) for value in values]
    return max(reals, key=inexact) if greatest else min(reals, key=inexact)


def _remainder(value: int, modulus: int) -> int:
    if modulus == 0:
        raise UndefinedError("modulus 0")
    return value % modulus


def _of_integers(values: list[Value], function: Callable[..., int]) -> Fraction:
    if not all(isinstance(value, Fraction) and value.denominator == 1 for value in values):
        raise UndefinedError("not integers")
    return Fraction(function(*map(int, values)))


def _series(arguments: Arguments, point: int, neutral: int, combine: Callable[[Value, Value], Value]) -> Value:
    """A sum or a product over a running index."""
    index, lower, upper, body = arguments
    if not (is_constant(lower) and is_constant(upper)):
        # With variable bounds, the series is a new unknown, which depends on the values of its parts.
        return _symbol(repr((neutral, *map(fingerprint, (lower, upper, body)))), point)
    first, last = evaluate(lower, CONSTANT), evaluate(upper, CONSTANT)
    if not all(isinstance(bound, Fraction) and bound.denominator == 1 for bound in (first, last)):
        raise UndefinedError("bounds")
    if last - first >= MAX_TERMS:
        raise UndefinedError("too many terms")
    total: Value = Fraction(neutral)
    for k in range(int(first), int(last) + 1):
        total = combine(total, evaluate(substitute(body, index, Number(Fraction(k))), point))
    return total


def _double_factorial(arguments: Arguments, point: int) -> Value:
    """5!! = 5 * 3 * 1. With variables, the values of odd and of even arguments have a formula each."""
    value = evaluate(arguments[0], point)
    if isinstance(value, Fraction):
        if value.denominator > 1 or not -1 <= value <= MAX_FACTORIAL:
            raise UndefinedError("double factorial")
        return _checked(Fraction(prod(range(int(value), 0, -2))))
    parity = _parity(arguments[0])
    if parity is None:
        return _symbol(repr(("!!", fingerprint(arguments[0]))), point)
    half = _factorial(value / 2)
    power = _power(Fraction(2), value / 2, point)
    return _checked(half * power * (CONTEXT.sqrt(2 / CONTEXT.pi) if parity else 1))


def _parity(node: Node) -> int | None:
    """1 if the node is odd for whole numbers in place of the variables, 0 if it is even, None if it is neither."""
    names = sorted(variables(node))
    parities: set[int | None] = set()
    for trial in range(_PARITY_TRIALS):
        values = hashlib.sha256(f"{trial}".encode()).digest()
        whole = node
        for name, value in zip(names, values, strict=False):
            whole = substitute(whole, Symbol(name), Number(Fraction(value % 8)))
        try:
            result = evaluate(whole, CONSTANT)
        except (UndefinedError, OffDomainError):
            result = None
        is_whole = isinstance(result, Fraction) and result.denominator == 1
        parities.add(int(result) % 2 if is_whole else None)
    return parities.pop() if len(parities) == 1 else None


_OPERATORS: dict[str, Callable[[Arguments, int], Value]] = {
    "+": _sum,
    "*": _product,
    "-": _negative,
    "/": _quotient,
    ":": _quotient,
    "^": _power_of,
    "call": _call,
    "!!": _double_factorial,
    "∑": lambda arguments, point: _series(arguments, point, 0, _add),
    "∏": lambda arguments, point: _series(arguments, point, 1, _multiply),
}

ANY_NUMBER = -1
_FUNCTIONS: dict[str, tuple[Callable[[list[Value], int], Value], int]] = {  # with their numbers of arguments
    "abs": (lambda values, _: abs(values[0]), 1),
    "floor": (lambda values, _: _rounded(values[0], upwards=False), 1),
    "ceil": (lambda values, _: _rounded(values[0], upwards=True), 1),
    "ln": (lambda values, point: _logarithm(values[0], point), 1),
    "log": (lambda values, point: _divide(_logarithm(values[0], point), CONTEXT.ln(10)), 1),
    "lg": (lambda values, point: _divide(_logarithm(values[0], point), CONTEXT.ln(10)), 1),
    "log_base": (lambda values, point: _divide(_logarithm(values[1], point), _logarithm(values[0], point)), 2),
    "exp": (lambda values, _: _exponential(values[0]), 1),
    "conj": (lambda values, _: CONTEXT.conj(values[0]) if is_complex(values[0]) else values[0], 1),
    "cis": (lambda values, _: _cis(values[0]), 1),
    "!": (lambda values, _: _factorial(values[0]), 1),
    "binom": (lambda values, _: _binomial(values[0], values[1]), 2),
    "max": (lambda values, _: _extremum(values, greatest=True), ANY_NUMBER),
    "min": (lambda values, _: _extremum(values, greatest=False), ANY_NUMBER),
    "gcd": (lambda values, _: _of_integers(values, gcd), ANY_NUMBER),
    "mod": (lambda values, _: _of_integers(values, _remainder), 2),
    "lcm": (lambda values, _: _of_integers(values, lcm), ANY_NUMBER),
}


_COSTS = {"!": 50, "!!": 50 * _PARITY_TRIALS, "binom": 100, "^": 5, "/": 2} | dict.fromkeys(
    (*_ELEMENTARY, "ln", "log", "exp", "log_base"), 20
)


def cost(node: Node) -> int:
    """An estimate, in additions, of the time to evaluate the node at one point."""
    if not isinstance(node, Apply | Relation):
        return 1
    if isinstance(node, Relation):
        return sum(map(cost, node.sides))
    repetitions = 1
    if node.operator in ("∑", "∏") and all(isinstance(bound, Number) for bound in node.arguments[1:3]):
        lower, upper = (bound.value for bound in node.arguments[1:3] if isinstance(bound, Number))
        repetitions = max(1, min(MAX_TERMS, int(upper - lower) + 1))
    elif node.operator in ("∑", "∏") and is_constant(node.arguments[2]):
        repetitions = MAX_TERMS
    return _COSTS.get(node.operator, 1) + repetitions * sum(map(cost, node.arguments))


# ------------------------------------------------------------------------------------------------- at all points


def digits(value: Value) -> tuple[int, int]:
    """A real value to KEY_BITS bits, as (odd integer, binary exponent)."""
    if is_zero(value):
        return 0, 0
    shift = KEY_BITS - CONTEXT.mag(value)
    integer = int(CONTEXT.nint(CONTEXT.ldexp(value, shift)))
    trailing = (integer & -integer).bit_length() - 1
    return integer >> trailing, trailing - shift


def complex_digits(value: Value) -> tuple[tuple[int, int], tuple[int, int]]:
    """The digits of the real and of the imaginary part."""
    if is_complex(value):
        return digits(value.real), digits(value.imag)
    return digits(value), (0, 0)


def values_at_points(node: Node) -> list[Value | None]:
    """The inexact value at each point; None where the node is outside its domain."""
    values: list[Value | None] = []
    for point in range(NUM_POINTS):
        try:
            values.append(inexact(evaluate(node, point)))
        except OffDomainError:
            values.append(None)
    return values


@lru_cache(maxsize=1024)  # without it, each level of f(f(f(x))) would multiply the evaluations by NUM_POINTS
def fingerprint(node: Node) -> tuple[tuple[tuple[int, int], tuple[int, int]] | None, ...]:
    """The digits of the value at each point."""
    return tuple(None if value is None else complex_digits(value) for value in values_at_points(node))
