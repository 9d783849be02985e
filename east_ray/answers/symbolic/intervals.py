"""Sets of real numbers that consist of intervals and points: union, intersection, difference and canonical keys.

A set is the sorted tuple of its pieces. No piece touches another: [1, 2] with [2, 3] is [1, 3], and R without 2 is two
half-lines. Ends are compared by their values, which are exact or have the 25 digits of a key.
"""

from collections.abc import Callable, Hashable, Iterable
from fractions import Fraction
from typing import NamedTuple

Key = Hashable

INFINITY: Key = ("infinity", 1)
MINUS_INFINITY: Key = ("infinity", -1)


class End(NamedTuple):
    """A place just before (side -1), at (0) or just after (1) a value; `infinite`: the sign of an infinity, else 0."""

    infinite: int
    value: Fraction
    side: int


class Piece(NamedTuple):
    """An interval or a point, with the keys of its two ends. A closed end lies just outside its number."""

    low: End
    high: End
    low_key: Key
    high_key: Key


RealSet = tuple[Piece, ...]


def interval_key(opening: str, lower: Key, upper: Key, closing: str) -> Key:
    """The key of an interval, which is also the key of a pair in these brackets."""
    return ("sequence", opening, closing, (lower, upper))


ALL_REALS = interval_key("(", MINUS_INFINITY, INFINITY, ")")


def real_set(key: Key, numeric: Callable[[Key], Fraction]) -> RealSet | None:
    """The set that the key of an interval, a number, a set of numbers or a union stands for; None for other keys."""
    if not isinstance(key, tuple):
        return None
    match key:
        case ("number", *_):
            return _pieces([_point(key, numeric)])
        case ("set", frozenset() as members) if all(_is_number(member) for member in members):
            return _pieces([_point(member, numeric) for member in members])
        case ("sequence", str() as opening, str() as closing, (lower, upper)) if opening in "([" and closing in ")]":
            low = _end(lower, numeric, -1, closed=opening == "[")
            high = _end(upper, numeric, 1, closed=closing == "]")
            return None if low is None or high is None or low >= high else (Piece(low, high, lower, upper),)
        case ("union", frozenset() as members):
            sets = [real_set(member, numeric) for member in members]
            return None if None in sets else union(one for one in sets if one is not None)
    return None


def _is_number(key: Key) -> bool:
    return isinstance(key, tuple) and key[:1] == ("number",)


def _end(key: Key, numeric: Callable[[Key], Fraction], outer_side: int, closed: bool) -> End | None:
    """The end of an interval. None if the key is neither a number nor an infinity at an open end."""
    if key in (INFINITY, MINUS_INFINITY):
        return None if closed else End(1 if key == INFINITY else -1, Fraction(0), 0)
    return End(0, numeric(key), outer_side if closed else -outer_side) if _is_number(key) else None


def _point(key: Key, numeric: Callable[[Key], Fraction]) -> Piece:
    value = numeric(key)
    return Piece(End(0, value, -1), End(0, value, 1), key, key)


def _pieces(pieces: Iterable[Piece]) -> RealSet:
    """The pieces in order, joined where they touch."""
    joined: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.low, piece.high)):
        if joined and piece.low <= joined[-1].high:
            if piece.high > joined[-1].high:
                joined[-1] = joined[-1]._replace(high=piece.high, high_key=piece.high_key)
        else:
            joined.append(piece)
    return tuple(joined)


def union(sets: Iterable[RealSet]) -> RealSet:
    """The numbers that are in any of the sets."""
    return _pieces(piece for one in sets for piece in one)


def intersection(one: RealSet, other: RealSet) -> RealSet:
    """The numbers that are in both sets."""
    found = []
    for a in one:
        for b in other:
            low, high = max(a, b, key=lambda piece: piece.low), min(a, b, key=lambda piece: piece.high)
            if low.low < high.high:
                found.append(Piece(low.low, high.high, low.low_key, high.high_key))
    return _pieces(found)


def difference(one: RealSet, removed: RealSet) -> RealSet:
    """The numbers that are in the first set and not in the second."""
    everything = Piece(End(-1, Fraction(0), 0), End(1, Fraction(0), 0), MINUS_INFINITY, INFINITY)
    rest: list[Piece] = [everything]
    for piece in removed:
        last = rest.pop()
        rest.append(last._replace(high=piece.low, high_key=piece.low_key))
        rest.append(last._replace(low=piece.high, low_key=piece.high_key))
    return intersection(one, tuple(piece for piece in rest if piece.low < piece.high))


def key_of(pieces: RealSet) -> Key:
    """The key of a set: that of a number, a set of numbers, an interval, or a union of these."""
    keys = [_piece_key(piece) for piece in pieces]
    if len(keys) == 1:
        return keys[0]
    return ("set" if all(map(_is_number, keys)) else "union", frozenset(keys))


def _piece_key(piece: Piece) -> Key:
    if piece.low_key == piece.high_key:
        return piece.low_key
    opening, closing = "[" if piece.low.side < 0 else "(", "]" if piece.high.side > 0 else ")"
    return interval_key(opening, piece.low_key, piece.high_key, closing)
