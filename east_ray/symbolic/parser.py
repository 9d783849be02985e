r"""From tokens to an expression tree.

The tree says what is written, not what it is worth: that is the business of `east_ray.symbolic.values`. Nothing is ever
evaluated as code, and every input ends in bounded time: texts, numbers and nesting have limits.

Grammar, loosest binding first::

    answer   = item { ("," | ";" | "and" | "or") item }          a bare list
    item     = union { ("=" | "≈" | "∈" | "<" | "≤" | ">" | "≥" | "≠") union }
    union    = ratio { ("∪" | "∩" | "∖") ratio }
    ratio    = sum { ":" sum }
    sum      = ["+" | "-" | "±" | "∓"] product { ("+" | "-" | "±" | "∓") product }
    product  = power { ("*" | "/" | nothing) power }
    power    = atom { "!" | "°" | "%" | "'" } ["^" argument]

Known limits: ``1/2x`` is (1/2)x; ``log`` is to base 10; a function name without brackets takes the factors up to the
next operator or function (``\sin 2x \cos x`` is sin(2x) cos x); a matrix takes part in no arithmetic but with a number;
integrals, limits and derivatives are compared as text.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from east_ray.symbolic.tokens import (
    FUNCTIONS,
    MAX_DIGITS,
    SHORT_UNITS,
    NotMathematicsError,
    Token,
    clean,
    number_in_words,
    tokenize,
    words_of,
)
from east_ray.symbolic.tree import Apply, Node, Number, Relation, Symbol, Text, is_constant, is_literal

MAX_CHARS = 2000  # longest answer that is read as mathematics; the longest reference answer of MATH has 159
MAX_DEPTH = 40  # of nested brackets, fractions, roots; each costs some eight Python frames


_RELATIONS = frozenset("=≈∈<≤>≥≠")
_SEPARATORS = frozenset((",", ";", "\\\\"))
_CLOSERS = {"(": ")]", "[": "])", "⦃": "⦄", "{": "}", "⟨": "⟩", "⌊": "⌋", "⌈": "⌉", "|": "|"}
_OPENERS = frozenset("([⦃{⟨⌊⌈√∑∏") | {"frac", "binom"}
_CALLABLE = frozenset("fghFGH")  # f(x) is a value of f; x(y) is a product


class _Parser:
    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.open_bars = 0
        self.open_functions = 0

    # -- tokens

    def mark(self) -> str | None:
        """The next token if it is a mark, else None."""
        if self.position < len(self.tokens):
            kind, text = self.tokens[self.position]
            return text if kind == "mark" else None
        return None

    def take(self, *marks: str) -> bool:
        if self.mark() in marks:
            self.position += 1
            return True
        return False

    def expect(self, marks: str) -> str:
        mark = self.mark()
        if mark is None or mark not in marks:
            raise NotMathematicsError(f"expected one of {marks}")
        self.position += 1
        return mark

    # -- lists and relations

    def answer(self) -> Node:
        items = self.items("")
        if self.position < len(self.tokens):
            raise NotMathematicsError("text after the answer")
        if not items:
            raise NotMathematicsError("nothing")
        return items[0] if len(items) == 1 else Apply("list", tuple(items))

    def items(self, closers: str) -> list[Node]:
        """Items up to the end or to one of `closers`, which is not consumed; empty items are dropped."""
        found: list[Node] = []
        while True:
            while self.mark() in _SEPARATORS:
                self.position += 1
            mark = self.mark()
            if self.position >= len(self.tokens) or (mark is not None and mark in closers):
                return found
            found.append(self.item())
            mark = self.mark()
            if (
                mark not in _SEPARATORS
                and not (mark is not None and mark in closers)
                and self.position < len(self.tokens)
            ):
                raise NotMathematicsError(f"unexpected {self.tokens[self.position].text}")

    def item(self) -> Node:
        if self.mark() in ("=", "≈"):  # "≈ 8.24"
            self.position += 1
        signs: list[str] = []
        sides: list[Node] = []
        named: list[bool] = []
        while True:
            start = self.position
            sides.append(self.union())
            named.append(_names_a_quantity(self.tokens[start : self.position], sides[-1]))
            mark = self.mark()
            if mark not in _RELATIONS:
                break
            assert mark is not None
            signs.append(mark)
            self.position += 1
        return Relation(tuple(signs), tuple(sides), tuple(named)) if signs else sides[0]

    def union(self) -> Node:
        node = self.ratio()
        while (mark := self.mark()) in ("∪", "∩", "∖"):
            self.position += 1
            node = Apply(str(mark), (node, self.ratio()))
        return node

    def ratio(self) -> Node:
        terms = [self.sum()]
        while self.take(":"):
            terms.append(self.sum())
        if self.take("choose", "over"):  # {5 \\choose 2}
            operator = "binom" if self.tokens[self.position - 1].text == "choose" else "/"
            return Apply(operator, (terms[0], self.sum()))
        return terms[0] if len(terms) == 1 else Apply(":", tuple(terms))

    # -- arithmetic

    def sum(self) -> Node:
        terms: list[Node] = []
        while not terms or self.mark() in ("+", "-", "±", "∓"):
            sign = self.mark()
            if sign in ("+", "-", "±", "∓"):
                self.position += 1
                term = self.sum_sign_chain()
                terms.append(term if sign == "+" else Apply(str(sign), (term,)))
            else:
                terms.append(self.product())
        node = terms[0] if len(terms) == 1 else Apply("+", tuple(terms))
        self.skip_unit(node)
        return node

    def sum_sign_chain(self) -> Node:
        """A product after a sign, itself perhaps signed: 3 + -2."""
        negative = False
        while self.mark() in ("+", "-"):
            negative ^= self.mark() == "-"
            self.position += 1
        node = self.product()
        return Apply("-", (node,)) if negative else node

    def product(self) -> Node:
        factors = [self.power()]
        num_divisions = 0
        while True:
            if self.take("*"):
                factors.append(self.signed_power())
            elif self.take("/"):
                num_divisions += 1
                if num_divisions > MAX_DEPTH:
                    raise NotMathematicsError("too many divisions")
                factors = [Apply("/", (_product_of(factors), self.signed_power()))]
            elif self.starts_factor(factors[-1] if len(factors) == 1 else _product_of(factors)):
                self.juxtaposed(factors)
            else:
                return _product_of(factors)

    def juxtaposed(self, factors: list[Node]) -> None:
        """Appends a factor without a sign before it; 2\\frac12 is a mixed number."""
        before = self.tokens[self.position - 1]
        follows_literal = before.kind == "number" and isinstance(factors[-1], Number)
        is_fraction = self.mark() == "frac"
        factor = self.power()
        if follows_literal and isinstance(factor, Number):
            raise NotMathematicsError("two numbers in a row")
        if follows_literal and is_fraction and before.text.isdecimal() and _is_literal_fraction(factor):
            factors[-1] = Apply("+", (factors[-1], factor))
        else:
            factors.append(factor)

    def signed_power(self) -> Node:
        if self.take("-"):
            return Apply("-", (self.power(),))
        self.take("+")
        return self.power()

    def starts_factor(self, left: Node) -> bool:
        if self.position >= len(self.tokens):
            return False
        kind, text = self.tokens[self.position]
        if kind in ("word", "text"):
            return kind == "word" and not self.at_unit(left)
        if kind == "mark":
            return text in _OPENERS or (text == "|" and not self.open_bars)
        return kind != "end"

    def power(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotMathematicsError("nested too deeply")
        node = self.atom()
        while True:
            mark = self.mark()
            if mark == "^":
                self.position += 1
                node = self.exponentiation(node)
            elif mark == "!":
                self.position += 1
                node = Apply("!", (node,))
            elif mark == "°":
                self.position += 1
                node = self.degrees(node)
            elif mark == "%":
                self.position += 1
            else:
                self.depth -= 1
                return node

    def exponentiation(self, base: Node) -> Node:
        after = [token.text for token in self.tokens[self.position : self.position + 3]]
        if after[:1] in (["\\circ"], ["°"]):
            self.position += 1
            return self.degrees(base)
        if after in (["{", "\\circ", "}"], ["{", "°", "}"]):
            self.position += 3
            return self.degrees(base)
        if self.take("-"):
            return Apply("^", (base, Apply("-", (self.argument(whole_number=True),))))
        self.take("+")
        exponent = self.argument(whole_number=True)
        if self.take("^"):  # right-associative: 2^3^2 = 2^9
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise NotMathematicsError("nested too deeply")
            exponent = self.exponentiation(exponent)
        return Apply("^", (base, exponent))

    def degrees(self, node: Node) -> Node:
        """An angle: pi/180 inside a function, a unit to drop elsewhere, with the C or F of a temperature."""
        if self.position < len(self.tokens) and self.tokens[self.position] in (("letter", "C"), ("letter", "F")):
            self.position += 1
        return Apply("*", (node, Apply("/", (Symbol("π"), Number(Fraction(180)))))) if self.open_functions else node

    def argument(self, whole_number: bool = False) -> Node:
        r"""What a command applies to: a group, or one token; ``\frac12`` takes single digits."""
        if self.position < len(self.tokens):
            kind, text = self.tokens[self.position]
            if kind == "number" and not whole_number and text.isdecimal() and len(text) > 1:
                digit, rest = Token("number", text[0]), Token("number", text[1:])
                self.tokens = [*self.tokens[: self.position], digit, rest, *self.tokens[self.position + 1 :]]
            if kind == "function" or text in ("√", "frac"):
                return self.power()
        return self.atom()

    # -- atoms

    def atom(self) -> Node:
        if self.position >= len(self.tokens):
            raise NotMathematicsError("unfinished")
        kind, text = self.tokens[self.position]
        self.position += 1
        reader = {
            "number": self.number,
            "clock": Symbol,
            "letter": self.symbol,
            "word": _letters_of,
            "text": self.label,
            "function": self.function,
            "begin": self.environment,
            "mark": self.composite,
        }.get(kind)
        if reader is None:
            raise NotMathematicsError(f"unexpected {text}")
        return reader(text)

    def label(self, text: str) -> Node:
        r"""``\text{Area}`` in ``\text{Area} = 5``."""
        if self.mark() not in _RELATIONS:
            raise NotMathematicsError("text among mathematics")
        return Text(text.casefold())

    def composite(self, mark: str) -> Node:
        match mark:
            case "(" | "[" | "{" | "⦃" | "⟨":
                return self.bracket(mark)
            case "frac" | "binom":
                top = self.argument()
                return Apply("/" if mark == "frac" else "binom", (top, self.argument()))
            case "√":
                return self.root()
            case "|" | "⌊" | "⌈":
                return self.enclosed(mark)
            case "∑" | "∏":
                return self.series(mark)
        raise NotMathematicsError(f"unexpected {mark}")

    def number(self, text: str) -> Node:
        text = text.rstrip(".")
        if len(text) > MAX_DIGITS or abs(int(re.split("[eE]", text + "e0")[1])) > MAX_DIGITS:
            raise NotMathematicsError("number too long")
        if text.isdecimal() and self.take("_"):
            return Symbol(f"{int(text)} in base {self.script()}")
        return Number(Fraction(text))

    def symbol(self, name: str) -> Node:
        while (mark := self.mark()) in ("_", "'"):
            self.position += 1
            name += "'" if mark == "'" else "_" + self.script()
        if name in _CALLABLE and self.mark() == "(":
            self.position += 1
            arguments = self.items(")")
            self.expect(")")
            return Apply("call", (Symbol(name), *arguments))
        return Symbol(name)

    def script(self) -> str:
        """A subscript, as text: the tokens of the next group, or the next token."""
        parts: list[str] = []
        depth = 0
        while self.position < len(self.tokens):
            text = self.tokens[self.position].text
            self.position += 1
            depth += (text == "{") - (text == "}")
            if text not in "{}":
                parts.append(text)
            if depth <= 0:
                return "".join(parts)
        raise NotMathematicsError("subscript without an end")

    def function(self, name: str) -> Node:
        base: Node | None = None
        exponent: Node | None = None
        while self.mark() in ("_", "^"):
            if self.take("_"):
                base = self.argument(whole_number=True)
            elif self.take("^"):
                exponent = Apply("-", (self.argument(),)) if self.take("-") else self.argument(whole_number=True)
        self.open_functions += 1
        argument = self.function_argument()
        self.open_functions -= 1
        if exponent == Apply("-", (Number(Fraction(1)),)) and not name.startswith(("ln", "log")):
            return Apply("arc" + name, argument)
        node = Apply(name, argument) if base is None else Apply("log_base", (base, *argument))
        return node if exponent is None else Apply("^", (node, exponent))

    def function_argument(self) -> tuple[Node, ...]:
        if self.take("("):
            arguments = self.items(")")
            self.expect(")")
            return tuple(arguments)
        factors = [self.power()]
        while self.starts_factor(factors[-1]) and self.tokens[self.position].kind != "function":
            factors.append(self.power())
        return (factors[0] if len(factors) == 1 else Apply("*", tuple(factors)),)

    def root(self) -> Node:
        degree: Node = Number(Fraction(2))
        if self.take("["):
            degree = self.sum()
            self.expect("]")
        return Apply("^", (self.argument(whole_number=True), Apply("/", (Number(Fraction(1)), degree))))

    def series(self, operator: str) -> Node:
        r"""``\sum_{k=1}^{n} body``; the body reaches to the next + or -."""
        self.expect("_")
        self.expect("{")
        lower = self.item()
        self.expect("}")
        self.expect("^")
        upper = self.argument(whole_number=True)
        if not (isinstance(lower, Relation) and lower.signs == ("=",) and isinstance(lower.sides[0], Symbol)):
            raise NotMathematicsError("series without a running index")
        return Apply(operator, (lower.sides[0], lower.sides[1], upper, self.product()))

    def bracket(self, opening: str) -> Node:
        bars, self.open_bars = self.open_bars, 0
        items = self.items(_CLOSERS[opening])
        closing = self.expect(_CLOSERS[opening])
        self.open_bars = bars
        if opening == "⦃":
            return Apply("set", tuple(items))
        if len(items) == 1:
            return items[0] if opening + closing in ("()", "[]", "{}") else Apply(opening + closing, tuple(items))
        if opening == "{":
            return Apply("set", tuple(items))
        return Apply("()" if opening == "⟨" else opening + closing, tuple(items))

    def enclosed(self, opening: str) -> Node:
        self.open_bars += opening == "|"
        node = self.sum()
        self.expect(_CLOSERS[opening])
        self.open_bars -= opening == "|"
        return Apply({"|": "abs", "⌊": "floor", "⌈": "ceil"}[opening], (node,))

    def environment(self, name: str) -> Node:
        rows: list[Apply] = []
        cells: list[Node] = []
        while self.position < len(self.tokens):
            if self.tokens[self.position].kind == "end":
                self.position += 1
                if cells:
                    rows.append(Apply("row", tuple(cells)))
                if name in ("cases", "aligned", "align", "gathered"):
                    return Apply("list", tuple(cell for row in rows for cell in row.arguments))
                return Apply("determinant" if name == "vmatrix" else "matrix", tuple(rows))
            if self.take("\\\\"):
                if cells:
                    rows.append(Apply("row", tuple(cells)))
                cells = []
            elif not self.take("&"):
                cells.append(self.item())
                if self.mark() == ",":
                    self.position += 1
        raise NotMathematicsError("environment without an end")

    # -- units

    def at_unit(self, left: Node) -> bool:
        """Whether the next word or text is a unit: only after a plain number, as in 10weeks, 10 cm, 10 \\text{ m}."""
        if self.position >= len(self.tokens) or not (is_constant(left) or is_literal(left)):
            return False
        kind, text = self.tokens[self.position]
        return kind == "text" or (kind == "word" and (text in SHORT_UNITS or len(text) > 3))

    def skip_unit(self, left: Node) -> None:
        """Moves to the end of the unit, if there is one: 10 cm^2, 42 square metres of grass."""
        if not self.at_unit(left):
            return
        while self.position < len(self.tokens):
            kind, text = self.tokens[self.position]
            if kind == "mark" and (text in _RELATIONS or text in _SEPARATORS or text in ")]⦄}⟩&:"):
                return
            if kind == "mark" and text in ("^", "{") and self.take("^"):
                self.script()
                continue
            self.position += 1


def _letters_of(word: str) -> Node:
    """A product, as in 2abc, or the corners of a figure, as in ABCD."""
    return Apply("*", tuple(map(Symbol, word)))


def _product_of(factors: Sequence[Node]) -> Node:
    return factors[0] if len(factors) == 1 else Apply("*", tuple(factors))


def _is_literal_fraction(node: Node) -> bool:
    return isinstance(node, Apply) and node.operator == "/" and all(isinstance(part, Number) for part in node.arguments)


def _names_a_quantity(tokens: Sequence[Token], node: Node) -> bool:
    """Whether one side of a relation is only a name for the other: x, a_3, f(x), f^{-1}(x), AB, NO/BO, A:B, (p, q).

    A product of small letters is not: xy = 1 is an equation, AB = 1 the length of a segment.
    """
    kinds = {token.kind for token in tokens}
    if isinstance(node, Symbol):
        return not is_constant(node) and node.name not in ("ℝ", "∅") and not is_literal(node)
    if isinstance(node, Text) or (kinds <= {"text", "word", "letter"} and any(map(_is_english, tokens))):
        return True  # the area = 5
    if not isinstance(node, Apply) or _is_call(tokens):
        return _is_call(tokens)
    if node.operator in ("()", ":", "/", "abs"):
        return all(_names_a_quantity((), argument) for argument in node.arguments)
    if node.operator == "*":
        factors = _flat_product(node)
        return all(isinstance(f, Symbol) and (f.name[0].isupper() or f.name[0] == "\\") for f in factors)
    return node.operator == "call" or (node.operator in FUNCTIONS and not is_constant(node))


def _flat_product(node: Node) -> list[Node]:
    if isinstance(node, Apply) and node.operator == "*":
        return [factor for argument in node.arguments for factor in _flat_product(argument)]
    return [node]


def _is_call(tokens: Sequence[Token]) -> bool:
    """P(x), f^{-1}(x), a(n): a letter and, in brackets to the end, nothing but letters and numbers."""
    texts = [token.text for token in tokens]
    if len(texts) < 4 or tokens[0].kind != "letter" or "(" not in texts or texts[-1] != ")":
        return False
    opening = texts.index("(")
    head, inside = texts[1:opening], tokens[opening + 1 : -1]
    is_plain_head = "".join(head) in ("", "'", "''", "^{-1}", "^-1") or head[:1] == ["_"]
    return is_plain_head and all(token.kind in ("letter", "number") or token.text == "," for token in inside)


def _is_english(token: Token) -> bool:
    """Whether a word is one of a language, and not a product such as xyz."""
    return token.kind == "text" or (
        token.kind == "word" and not (token.text.islower() and set("aeiou").isdisjoint(token.text))
    )


def _is_prose(tokens: Sequence[Token]) -> bool:
    """Words and nothing that computes; or an answer that begins with two words and is no "area of ABC = 5"."""
    if not any(_is_english(token) for token in tokens):
        return "".join(token.text for token in tokens).lower() == "no"
    computes = any(
        kind in ("number", "clock", "function", "begin") or (kind == "mark" and text not in ",;'.?!-()\"")
        for kind, text in tokens
    )
    if not computes:
        return True
    words = ("word", "text", "letter")
    return _is_english(tokens[0]) and tokens[1].kind in words and Token("mark", "=") not in tokens


def _prose(text: str) -> Node:
    words = words_of(text)
    value = number_in_words(words.replace("-", " "))
    return Text(words) if value is None else Number(Fraction(value))


def as_written(tokens: Sequence[Token]) -> Text:
    """Mathematics that cannot be read or computed: its tokens, so that spacing and the kind of \\frac do not matter."""
    return Text(" ".join(token.text for token in tokens).casefold())


def parse(answer: str) -> Node:
    r"""The expression tree of an answer; prose, and whatever is no mathematics, becomes `Text`.

    >>> parse("1/2") == parse(r"\frac{1}{2}")
    True
    >>> parse(r"\text{No solution.}")
    Text(words='no solution')
    """
    text = clean(answer)
    if len(text) > MAX_CHARS:
        return Text(text)
    try:
        tokens = tokenize(text)
    except NotMathematicsError:
        return _prose(text)
    if _is_prose(tokens):
        return _prose(text)
    try:
        node = _Parser(tokens).answer()
    except NotMathematicsError:
        return as_written(tokens)
    if isinstance(node, Symbol) and len(node.name) == 1 and node.name.isascii() and node.name != "i":
        return Text(node.name.casefold())  # the letter of a choice: (A), \text{A}, a
    return node
