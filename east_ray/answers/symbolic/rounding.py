"""Decimals that stand for a value that they round, and the keys that they join."""

import math
from collections.abc import Sequence
from fractions import Fraction

from east_ray.answers.symbolic.intervals import Key
from east_ray.answers.symbolic.keys import MIN_DECIMALS, numeric

MIN_SIGNIFICANT = 6  # digits of such a decimal, without leading zeros
MAX_COMPARED = 20  # digits; a key has 25
MAX_ROUNDED_SET = 12  # members of a larger set are not compared as roundings
_NEAR = 1.1 * 10.0**-MIN_DECIMALS  # a rounding and its value differ by less, apart from
_FLOAT_ERROR = 1e-14  # the relative error of a double


def _is_rounded_number(decimal: Fraction, places: int, value: Fraction, is_exact: bool) -> bool:
    """Whether the decimal is the value, cut or rounded after its own last place. Inexact values have 25 digits."""
    if abs(decimal.numerator) * 10**places < 10 ** (MIN_SIGNIFICANT - 1) * decimal.denominator:
        return False
    # value - decimal = excess / unit, not in lowest terms: to find these takes long for long fractions
    excess = value.numerator * decimal.denominator - decimal.numerator * value.denominator
    excess = excess if decimal > 0 else -excess
    unit = decimal.denominator * value.denominator
    if -unit <= 2 * excess * 10**places and excess * 10**places < unit:
        return True
    return not is_exact and abs(excess) * 10**MAX_COMPARED < abs(decimal.numerator) * value.denominator


def is_rounding_of(decimal: Key, precise: Key) -> bool:
    r"""Whether `decimal` is `precise` with its numbers cut or rounded after MIN_DECIMALS places or more.

    >>> from east_ray.answers.symbolic.keys import key
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
    if not (isinstance(decimal, tuple) and isinstance(precise, tuple)):
        return False
    if decimal[:1] == ("number",) == precise[:1]:
        is_exact = isinstance(precise[1], Fraction)
        return len(decimal) == 3 and _is_rounded_number(decimal[1], decimal[2], numeric(precise), is_exact)
    return len(decimal) == len(precise) and all(_is_rounding(d, p) for d, p in zip(decimal, precise, strict=True))


def _magnitudes(part: Key) -> tuple[float, ...]:
    """The numbers in a key, those of a set in order of size. With them, most pairs can be told apart quickly."""
    if isinstance(part, frozenset):
        return tuple(sorted(number for member in part for number in _magnitudes(member)))
    if not isinstance(part, tuple):
        return ()
    if part[:1] == ("number",):
        value = numeric(part)
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
    """Whether the key has a number with MIN_DECIMALS places or more, as `is_rounding_of` needs."""
    if isinstance(part, frozenset):
        return any(map(_has_long_decimal, part))
    if not isinstance(part, tuple):
        return False
    if part[:1] == ("number",):
        return len(part) == 3
    return any(map(_has_long_decimal, part))


def joined_roundings(keys: Sequence[Key]) -> list[int]:
    """(K,) distinct keys -> (K,) numbers, equal for keys that `is_rounding_of` connects directly or through others."""
    decimals = [index for index, value in enumerate(keys) if _has_long_decimal(value)]
    parent = list(range(len(keys)))  # of each key, in a union-find forest
    if not decimals:
        return parent

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    magnitudes = [_magnitudes(value) for value in keys]
    for decimal in decimals:
        for precise, value in enumerate(keys):
            near = _are_near(magnitudes[decimal], magnitudes[precise])
            if near and root(decimal) != root(precise) and _is_rounding(keys[decimal], value):
                parent[root(decimal)] = root(precise)
    return [root(index) for index in range(len(keys))]
