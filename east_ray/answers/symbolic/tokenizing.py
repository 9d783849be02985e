"""The tokens of an answer: those that form one sign, number or bracket only together are joined."""

import re

from east_ray.answers.symbolic.literals import in_base
from east_ray.answers.symbolic.tokens import AND, Token, Tokenizer

_DIGITS_OR_CAPITALS = re.compile("[0-9A-Z]+")
_MIN_BASE_WITH_LETTERS, _MAX_BASE = 11, 36


def _join_negations(tokens: list[Token]) -> None:
    r"""``\not`` and the sign after it become one sign."""
    for place in range(len(tokens) - 2, -1, -1):
        if tokens[place] == ("mark", "\\not"):
            negated = tokens.pop(place + 1)
            sign = "≠" if negated.text == "=" else f"not{negated.text}"
            tokens[place] = Token("mark" if negated.kind == "mark" else "opaque", sign)


def _join_digits(tokens: list[Token]) -> None:
    """Digits with a base above ten, such as 2A3 with the subscript 16, become one token."""
    place = 1
    while (place := _place_of_subscript(tokens, place + 1)) > 0:
        after = [token.text for token in tokens[place + 1 : place + 4]]
        base = after[1] if after[0:1] == ["{"] and after[2:] == ["}"] else "".join(after[:1])
        start = place
        while start > 0 and _DIGITS_OR_CAPITALS.fullmatch(tokens[start - 1].text):
            start -= 1
        digits = "".join(token.text for token in tokens[start:place])
        is_number = base.isdecimal() and len(base) == 2 and _MIN_BASE_WITH_LETTERS <= int(base) <= _MAX_BASE
        if is_number and place - start >= 2 and all(int(digit, 36) < int(base) for digit in digits):
            tokens[start : place + (4 if after[0] == "{" else 2)] = [Token("literal", in_base(digits, base))]
            place = start


def _place_of_subscript(tokens: list[Token], start: int) -> int:
    """The index of the next subscript, or -1."""
    return next((place for place in range(start, len(tokens)) if tokens[place] == ("mark", "_")), -1)


_RELATION_SIGNS = frozenset("=≈∈<≤>≥≠")


def _without_alignment(tokens: list[Token]) -> list[Token]:
    """The tokens without each & beside a relation sign."""
    kept: list[Token] = []
    for place, token in enumerate(tokens):
        beside = (kept[-1:] or [token])[0].text, tokens[min(place + 1, len(tokens) - 1)].text
        if token != ("mark", "&") or _RELATION_SIGNS.isdisjoint(beside):
            kept.append(token)
    return kept


def _is_left_brace(token: Token, after: Token | None) -> bool:
    return token == ("mark", "⦃") and after is not None and after.kind == "begin"


def _turn_brackets(tokens: list[Token]) -> None:
    """The intervals ]0, 1[ and [0, 1[ get the brackets (0, 1) and [0, 1)."""
    opened: int | None = None
    for place, (kind, text) in enumerate(tokens):
        if kind != "mark":
            continue
        if text == "]" and opened is None:
            before = tokens[place - 1].text if place else "∪"
            if before not in _BEFORE_INTERVAL:
                return
            tokens[place], opened = Token("mark", "("), place
        elif text == "[" and opened is not None and tokens[place - 1].text != ",":
            after = tokens[place + 1].text if place + 1 < len(tokens) else "∪"
            if after not in _AFTER_INTERVAL:
                return
            tokens[place], opened = Token("mark", ")"), None
        elif text in "([":
            opened = place if text == "[" else opened
        elif text == "]":
            opened = None


_BEFORE_INTERVAL = frozenset(("∪", "∩", "∖", "∈", "=", ",", AND, "⦃", "{"))
_AFTER_INTERVAL = frozenset(("∪", "∩", "∖", ",", AND, "⦄", "}", "."))


def tokenize(text: str) -> list[Token]:
    """The tokens of a cleaned answer.

    Raises:
        NotMathematicsError: a command or a number is broken.
    """
    tokens = Tokenizer(text).run()
    if r"\not" in text:
        _join_negations(tokens)
    if "_" in text:
        _join_digits(tokens)
    if r"\begin" in text and Token("mark", "⦄") not in tokens:  # \left\{ \begin{array} … \end{array} \right.
        tokens = [
            token for token, after in zip(tokens, [*tokens[1:], None], strict=True) if not _is_left_brace(token, after)
        ]
    if "&" in text:
        tokens = _without_alignment(tokens)
    if "]" in text or "[" in text:
        _turn_brackets(tokens)
    for index in range(1, len(tokens) - 1):  # (1, 2) U (3, 4); R - {2}
        before, token, after = tokens[index - 1 : index + 2]
        if token == ("letter", "U") and before.text in (")", "]") and after.text in ("(", "["):
            tokens[index] = Token("mark", "∪")
        elif token == ("mark", "-") and before == ("letter", "ℝ") and after.text == "⦃":
            tokens[index] = Token("mark", "∖")
    return tokens
