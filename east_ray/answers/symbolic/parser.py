r"""From tokens to an expression tree.

The tree says what is written; values are computed in `east_ray.answers.symbolic.values`. No input is evaluated as code,
and the time for every input is bounded, because texts, numbers and nesting have limits.

Grammar, loosest binding first::

    answer   = item { ("," | ";" | "and" | "or" | "∧" | "∨") item }   a bare list; inequalities with "and" hold together
    item     = union { ("=" | "≈" | "∈" | "<" | "≤" | ">" | "≥" | "≠" | kept relation) union }   or tokens as written
    union    = ratio { ("∪" | "∩" | "∖" | kept operator) ratio }
    ratio    = sum { ":" sum }
    sum      = ["+" | "-" | "±" | "∓"] product { ("+" | "-" | "±" | "∓") product }
    product  = power { ("*" | "/" | nothing) power }
    power    = atom { "!" | "!!" | "°" | "%" | "'" } ["^" argument]

An item with a command that is not known is no expression: its tokens are kept as they are written.

Known limits: ``1/2x`` is (1/2)x; ``log`` is to base 10; a function name without brackets takes the factors up to the
next operator or function (``\sin 2x \cos x`` is sin(2x) cos x); matrices are added, transposed and
scaled, but not multiplied; integrals, limits and derivatives are compared as text.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from east_ray.answers.symbolic.cleaning import clean
from east_ray.answers.symbolic.commands import FIGURES, KEPT_OPERATORS, KEPT_RELATIONS
from east_ray.answers.symbolic.literals import derivative_name, in_base
from east_ray.answers.symbolic.names import is_function, is_plain_name, names_a_quantity
from east_ray.answers.symbolic.prose import (
    SCALES,
    as_written,
    choice,
    date_or_division,
    is_prose,
    prose,
    quantity_of_several_units,
)
from east_ray.answers.symbolic.quantities import without_quantity
from east_ray.answers.symbolic.remarks import plain, set_in_words, values_said, without_label, without_remarks
from east_ray.answers.symbolic.tokenizing import tokenize
from east_ray.answers.symbolic.tokens import (
    AND,
    MAX_DIGITS,
    NotMathematicsError,
    Token,
)
from east_ray.answers.symbolic.tree import (
    Apply,
    Node,
    Number,
    Relation,
    Symbol,
    Text,
    is_constant,
    is_literal,
    num_nested_series,
    substitute,
    variables,
)
from east_ray.answers.symbolic.units import SCALE_LETTERS, end_of_unit

MAX_CHARS = 2000  # longer answers are not read as mathematics; the longest reference answer of MATH has 159
MAX_DEPTH = 40  # of nested brackets, fractions, roots; each level takes about eight Python frames


_RELATIONS = frozenset("=≈∈<≤>≥≠") | KEPT_RELATIONS
_LOGIC = frozenset("∧∨")
_SEPARATORS = frozenset((",", ";", "\\\\", AND, *_LOGIC))
_INEQUALITIES = frozenset("<≤>≥≠")
_LISTS = frozenset(("cases", "dcases", "aligned", "align", "alignedat", "gathered", "gather", "split", "eqnarray"))
_MATRICES = frozenset(("matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix"))
_CASE_WORDS = frozenset(("if", "for", "when", "where"))
_OTHER_CASE_WORDS = frozenset(("otherwise", "else"))
_OTHERWISE = "otherwise"
_CLOSERS = {"(": ")]", "[": "])", "⦃": "⦄", "{": "}", "⟨": "⟩", "⌊": "⌋", "⌈": "⌉", "|": "|"}
_OPENERS = frozenset("([⦃{⟨⌊⌈√∑∏") | {"frac", "binom"}
_ENVIRONMENTS = _LISTS | _MATRICES | {"array"}
_OR = re.compile(r"\bor\b|\\(?:lor|vee|cup)(?![A-Za-z])|[∨∪]", re.IGNORECASE)
_CALLABLE = frozenset("fghFGHζσφχψτΓΘΛΞΦΨΩ")  # f(x) is a value of f; x(y) is a product


class _Parser:
    def __init__(self, tokens: Sequence[Token], says_or: bool = False) -> None:
        """`says_or`: the answer has a word or sign for "or"."""
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.says_or = says_or
        self.open_bars = 0
        self.open_functions = 0
        self.separators: set[str] = set()  # between the items read last
        self.unit = ""  # of the item read last
        self.units: list[str] = []  # of the items read last
        self.has_opaque = any(token.kind == "opaque" for token in tokens)

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

    def at_end(self, closers: str) -> bool:
        """Whether no token is left, or the next one is one of `closers`."""
        mark = self.mark()
        return self.position >= len(self.tokens) or (mark is not None and mark in closers)

    def expect(self, marks: str) -> str:
        mark = self.mark()
        if mark is None or mark not in marks:
            raise NotMathematicsError(f"expected one of {marks}")
        self.position += 1
        return mark

    # -- lists and relations

    def answer(self) -> Node:
        if self.at_set_builder():
            node = self.set_builder("")
        else:
            items = self.items("")
            if not items:
                raise NotMathematicsError("nothing")
            items = _with_units(items, self.units)
            node = items[0] if len(items) == 1 else Apply(self.kind_of_list(items), tuple(items))
        return node

    def kind_of_list(self, items: Sequence[Node]) -> str:
        """Conditions with "and" between them hold together; with commas alone they may."""
        if not all(map(_is_condition, items)):
            return "list"
        if self.separators == {AND}:
            return "all"
        return "conditions" if self.separators == {","} and not self.says_or else "list"

    def at_set_builder(self) -> bool:
        r"""Whether ``x | x > 2`` or ``x \in R : x > 2`` comes next, as inside the braces of a set."""
        ahead = self.tokens[self.position : self.position + 4]
        if not ahead or ahead[0].kind != "letter":
            return False
        if [token.text for token in ahead[1:3]] == ["∈", "ℝ"]:
            ahead = [ahead[0], *ahead[3:]]
        bar = len(ahead) > 1 and ahead[1] in (Token("mark", "|"), Token("mark", ":"))
        return bar and any(token.kind == "mark" and token.text in _INEQUALITIES for token in self.tokens)

    def set_builder(self, closers: str) -> Node:
        """The conditions of a set, which hold together."""
        letter = self.tokens[self.position].text
        while self.mark() not in ("|", ":"):
            self.position += 1
        self.position += 1
        bars, self.open_bars = self.open_bars, 0
        conditions = self.items(closers)
        self.open_bars = bars
        of_letter = all(variables(condition) == {letter} for condition in conditions)
        if not conditions or not of_letter or not all(map(_is_condition, conditions)):
            raise NotMathematicsError("a set by other conditions than inequalities")
        return conditions[0] if len(conditions) == 1 else Apply("all", tuple(conditions))

    def items(self, closers: str) -> list[Node]:
        """Items up to the end or to one of `closers`, which is not consumed. Empty items are dropped."""
        found: list[Node] = []
        units: list[str] = []
        separators: set[str] = set()
        while True:
            while (separator := self.mark()) in _SEPARATORS:
                separators.add(str(separator))
                self.position += 1
            if self.at_end(closers):
                self.units = units
                if _LOGIC.isdisjoint(separators):
                    self.separators = separators
                    return found
                return self.logical(found, separators)
            self.unit = ""
            found.append(self.item())
            units.append(self.unit)
            if self.mark() not in _SEPARATORS and not self.at_end(closers):
                raise NotMathematicsError(f"unexpected {self.tokens[self.position].text}")

    def logical(self, items: list[Node], separators: set[str]) -> list[Node]:
        """Conditions joined by signs of logic are a list, as with words; propositions are one expression."""
        self.separators = {AND if separator == "∧" else separator for separator in separators}
        if all(isinstance(item, Relation) or is_constant(item) for item in items):
            return items
        if len(separators) > 1 or len(items) < 2:
            raise NotMathematicsError("signs of logic without brackets")
        return [Apply(separators.pop(), tuple(items))]

    def item(self) -> Node:
        if self.mark() in ("=", "≈"):  # "≈ 8.24"
            self.position += 1
        if self.has_opaque and (item := self.opaque_item()) is not None:
            return item
        signs: list[str] = []
        sides: list[Node] = []
        named: list[bool] = []
        while True:
            start = self.position
            sides.append(self.union())
            named.append(names_a_quantity(self.tokens[start : self.position], sides[-1]))
            mark = self.mark()
            if mark not in _RELATIONS:
                break
            assert mark is not None
            signs.append(mark)
            self.position += 1
        if signs and named[0] and not is_constant(sides[-1]) and is_function(sides[0]):
            named[0] = False  # sin A = c is an equation
        return Relation(tuple(signs), tuple(sides), tuple(named)) if signs else sides[0]

    def opaque_item(self) -> Node | None:
        """The item that comes next, as written, if it has a command that is not known; only x = is dropped."""
        start, end, depth = self.position, self.position, 0
        equals: list[int] = []
        while end < len(self.tokens):
            kind, text = self.tokens[end]
            if kind == "mark" and depth == 0 and (text in _SEPARATORS or text in ")]}⦄⟩"):
                break
            depth += (kind == "begin" or (kind == "mark" and text in "([{⦃⟨")) - (
                kind == "end" or (kind == "mark" and text in ")]}⦄⟩")
            )
            if kind == "mark" and depth == 0 and text in _RELATIONS:
                equals.append(end)
            end += 1
        if not any(token.kind == "opaque" for token in self.tokens[start:end]):
            return None
        if len(equals) == 1 and self.tokens[equals[0]].text == "=" and is_plain_name(self.tokens[start : equals[0]]):
            start = equals[0] + 1
        self.position = end
        return as_written(self.tokens[start:end])

    def union(self) -> Node:
        start = self.position
        node = self.ratio()
        if self.mark() in KEPT_OPERATORS:
            return self.kept_operation(node, start)
        num_operators = 0
        while (mark := self.mark()) in ("∪", "∩", "∖"):
            self.position += 1
            num_operators += 1
            if num_operators > MAX_DEPTH:
                raise NotMathematicsError("too many sets")
            node = Apply(str(mark), (node, self.ratio()))
        return node

    def kept_operation(self, node: Node, start: int) -> Node:
        """Operators that are not computed. How strongly they bind is not known: sums beside them need brackets."""
        operator = str(self.mark())
        for _ in range(MAX_DEPTH):
            if self.has_sum(start):
                raise NotMathematicsError(f"a sum beside {operator}")
            if not self.take(operator):
                break
            start = self.position
            right = self.ratio()
            by_number = operator == "×" and (is_constant(node) or is_constant(right))
            node = Apply("*", (node, right)) if by_number else Apply("call", (Symbol(operator), node, right))
        if self.mark() in KEPT_OPERATORS or self.mark() in ("∪", "∩", "∖"):
            raise NotMathematicsError("operators without brackets")
        return node

    def has_sum(self, start: int) -> bool:
        """Whether a sum outside brackets was read since `start`."""
        depth = 0
        for kind, text in self.tokens[start : self.position]:
            if kind == "mark":
                depth += (text in _OPENERS and text not in ("√", "∑", "∏", "frac", "binom")) - (text in ")]}⦄⟩⌋⌉")
                if depth == 0 and text in "+-±∓:":
                    return True
        return False

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
        """A product after a sign; it may have signs of its own, as in 3 + -2."""
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
            if self.mark() == "/" and self.unit_end(_product_of(factors)) is not None:
                return _product_of(factors)
            if self.take("*"):
                factors.append(self.signed_power())
            elif self.take("/"):
                num_divisions += 1
                if num_divisions > MAX_DEPTH:
                    raise NotMathematicsError("too many divisions")
                factors = [Apply("/", (_product_of(factors), self.signed_power()))]
            elif self.take("mod"):
                factors = [Apply("mod", (_product_of(factors), self.signed_power()))]
            elif self.starts_factor(factors[-1] if len(factors) == 1 else _product_of(factors)):
                self.juxtaposed(factors)
            else:
                return _product_of(factors)

    def juxtaposed(self, factors: list[Node]) -> None:
        """Append a factor that has no sign before it. 2\\frac12 is a mixed number."""
        before = self.tokens[self.position - 1]
        follows_literal = before.kind == "number" and isinstance(factors[-1], Number)
        is_fraction = self.at_fraction()
        factor = self.power()
        follows_letter = before.kind == "letter" and before.text.isascii()
        if (follows_literal or follows_letter) and isinstance(factor, Number):
            raise NotMathematicsError("two numbers in a row")
        if follows_literal and is_fraction and before.text.isdecimal() and _is_literal_fraction(factor):
            factors[-1] = Apply("+", (factors[-1], factor))
        else:
            factors.append(factor)

    def at_fraction(self) -> bool:
        r"""Whether ``\frac12``, ``{\frac12}`` or ``{1 \over 2}`` comes next."""
        start = self.position
        while start < len(self.tokens) and self.tokens[start] == ("mark", "{"):
            start += 1
        texts = [token.text for token in self.tokens[start : start + 2]]
        return texts[:1] == ["frac"] or (start > self.position and texts[1:] == ["over"])

    def signed_power(self) -> Node:
        if self.take("-"):
            return Apply("-", (self.power(),))
        self.take("+")
        return self.power()

    def starts_factor(self, left: Node) -> bool:
        if self.position >= len(self.tokens):
            return False
        kind, text = self.tokens[self.position]
        if kind in ("word", "text", "letter"):
            return kind != "text" and self.unit_end(left) is None
        if kind == "mark":
            return (text in _OPENERS and self.unit_end(left) is None) or (text == "|" and not self.open_bars)
        return kind != "end"

    def power(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotMathematicsError("nested too deeply")
        node = self.atom()
        begin = self.position
        while True:
            mark = self.mark()
            if mark in ("!", "°") and self.position - begin > MAX_DEPTH:
                raise NotMathematicsError("too many signs after a value")
            if mark == "^":
                self.position += 1
                node = self.exponentiation(node)
            elif mark == "!":
                node = self.factorial(node)
            elif mark == "°":
                self.position += 1
                node = self.degrees(node)
            elif mark == "%":
                self.position += 1
            elif mark == "_" and isinstance(node, Symbol) and self.tokens[self.position - 1].text == "}":
                node = self.symbol(node.name)  # {g}_{k}
            elif mark == "_" and isinstance(node, Number) and self.tokens[self.position - 1].text == ")":
                self.position += 1
                node = Symbol(in_base(str(node.value), self.script()))
            else:
                self.depth -= 1
                return node

    def factorial(self, node: Node) -> Node:
        """n! or n!!, the product of every second number; n!!! is not known."""
        num_signs = 0
        while self.take("!"):
            num_signs += 1
        if num_signs > 2:
            raise NotMathematicsError("factorial")
        return Apply("!" * num_signs, (node,))

    def exponentiation(self, base: Node) -> Node:
        after = [token.text for token in self.tokens[self.position : self.position + 3]]
        if after[:1] in (["∘"], ["°"]):
            self.position += 1
            return self.degrees(base)
        if after in (["{", "∘", "}"], ["{", "°", "}"]):
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
        if isinstance(base, Symbol) and base.name in _CALLABLE and self.take("("):  # f^{-1}(x)
            return self.call(f"{base.name}^{exponent}")
        return Apply("^", (base, exponent))

    def degrees(self, node: Node) -> Node:
        """The node in degrees: times pi/180 inside a function; elsewhere the unit (also °C and °F) is dropped."""
        if self.position < len(self.tokens) and self.tokens[self.position] in (("letter", "C"), ("letter", "F")):
            self.position += 1
        return Apply("*", (node, Apply("/", (Symbol("π"), Number(Fraction(180)))))) if self.open_functions else node

    def argument(self, whole_number: bool = False) -> Node:
        r"""The argument of a command: a group or one token. ``\frac12`` takes single digits."""
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
            "literal": Symbol,
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
        r"""Text that names a quantity: ``\text{Area}`` in ``\text{Area} = 5``."""
        if self.mark() not in _RELATIONS:
            raise NotMathematicsError("text among mathematics")
        return Text(text.casefold())

    def composite(self, mark: str) -> Node:
        match mark:
            case "(" | "[" | "{" | "⦃" | "⟨":
                return self.bracket(mark)
            case "frac" if (derivative := self.derivative()) is not None:
                return derivative
            case "frac" | "binom":
                self.depth += 1  # fractions in fractions nest without brackets
                if self.depth > MAX_DEPTH:
                    raise NotMathematicsError("nested too deeply")
                top = self.argument()
                node = Apply("/" if mark == "frac" else "binom", (top, self.argument()))
                self.depth -= 1
                return node
            case "√":
                return self.root()
            case "|" | "⌊" | "⌈":
                return self.enclosed(mark)
            case "∑" | "∏":
                return self.series(mark)
        raise NotMathematicsError(f"unexpected {mark}")

    def derivative(self) -> Symbol | None:
        r"""``\frac{dy}{dx}`` is a name, not a quotient. The operator ``\frac{d}{dx}`` is not known."""
        start = self.position
        groups: list[list[str]] = []
        for _ in range(2):
            if [token.text for token in self.tokens[self.position : self.position + 2]] == ["{", "d"]:
                groups.append(self.script_tokens())
        if len(groups) < 2 or not groups[1][1:2] or not groups[1][1].isalpha():
            self.position = start
            return None
        if not groups[0][-1].isalpha() or len(groups[0]) == 1:
            raise NotMathematicsError("derivative")
        return Symbol(derivative_name(*map("".join, groups)))

    def number(self, text: str) -> Node:
        text = text.rstrip(".")
        if text.isdecimal() and len(text) <= MAX_DIGITS and self.mark() != "_":
            return Number(Fraction(int(text) * self.scale()))
        if len(text) > MAX_DIGITS or abs(int(re.split("[eE]", text + "e0")[1])) > MAX_DIGITS:
            raise NotMathematicsError("number too long")
        if re.fullmatch(r"[\d.]+", text) and self.take("_"):
            return Symbol(in_base(text, self.script()))
        scale = self.scale()
        mantissa, _, exponent = text.lower().partition("e")
        places = len(mantissa.partition(".")[2]) - int(exponent or 0)
        return Number(Fraction(text) * scale, max(places, 0) if scale == 1 else 0)

    def scale(self) -> int:
        """The factor of a word such as million, if such a word comes next, else 1."""
        if self.position >= len(self.tokens) or self.tokens[self.position].kind not in ("word", "text", "letter"):
            return 1
        if (factor := SCALE_LETTERS.get(self.tokens[self.position].text, 1)) > 1:
            self.position += 1
            return factor
        first, _, rest = self.tokens[self.position].text.strip().partition(" ")
        factor = SCALES.get(first.casefold(), 1)
        if factor > 1 and rest:  # 3 \text{ million dollars}
            self.tokens = [*self.tokens[: self.position], Token("text", rest), *self.tokens[self.position + 1 :]]
        elif factor > 1:
            self.position += 1
        return factor

    def symbol(self, name: str) -> Node:
        while (mark := self.mark()) in ("_", "'"):
            self.position += 1
            name += "'" if mark == "'" else "_" + self.script()
        if name in FIGURES:
            name += self.corners()
        if name.rstrip("'") in _CALLABLE and self.take("("):
            return self.call(name)
        if name == "¬":
            return Apply("call", (Symbol(name), self.power()))
        return Symbol(name)

    def call(self, name: str) -> Node:
        """A value of an unknown function, after the opening bracket."""
        arguments = self.items(")")
        self.expect(")")
        return Apply("call", (Symbol(name), *arguments))

    def corners(self) -> str:
        """The letters of a figure, in order: ABC in the angle ABC."""
        letters = ""
        in_braces = self.take("{")
        while self.position < len(self.tokens) and self.tokens[self.position].kind in ("letter", "word"):
            letters += self.tokens[self.position].text
            self.position += 1
            while self.mark() in ("_", "'"):
                self.position += 1
                letters += "'" if self.tokens[self.position - 1].text == "'" else f"_{self.script()}"
        if in_braces:
            self.expect("}")
        return letters

    def script(self) -> str:
        """A subscript or a unit's exponent as text: the tokens of the next group, or the next token."""
        return "".join(self.script_tokens())

    def script_tokens(self) -> list[str]:
        parts: list[str] = []
        depth = 0
        while self.position < len(self.tokens):
            text = self.tokens[self.position].text
            self.position += 1
            depth += (text == "{") - (text == "}")
            if text not in "{}":
                parts.append(text)
            if depth <= 0:
                return parts
        raise NotMathematicsError("subscript without an end")

    def function(self, name: str) -> Node:
        base: Node | None = None
        exponent: Node | None = None
        while self.mark() in ("_", "^"):
            if self.take("_"):
                if not name.startswith("l"):
                    raise NotMathematicsError(f"{name} with a subscript")
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
        if self.take("[") and not self.take("]"):
            degree = self.sum()
            self.expect("]")
        return Apply("^", (self.argument(whole_number=True), Apply("/", (Number(Fraction(1)), degree))))

    def series(self, operator: str) -> Node:
        r"""``\sum_{k=1}^{n} body``. The body ends at the next + or -."""
        self.expect("_")
        self.expect("{")
        lower = self.item()
        self.expect("}")
        self.expect("^")
        upper = self.argument(whole_number=True)
        if not (isinstance(lower, Relation) and lower.signs == ("=",) and isinstance(lower.sides[0], Symbol)):
            raise NotMathematicsError("series without a running index")
        body = self.product()
        index = Symbol(f"index {num_nested_series(body)}")  # the letter of the index does not matter
        return Apply(operator, (index, lower.sides[1], upper, substitute(body, lower.sides[0], index)))

    def bracket(self, opening: str) -> Node:
        if opening in "⦃{" and self.at_set_builder():
            node = self.set_builder(_CLOSERS[opening])
            self.expect(_CLOSERS[opening])
            return node
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
                return _environment_of(name, rows)
            if self.take("\\\\"):
                if cells:
                    rows.append(Apply("row", tuple(cells)))
                cells = []
            elif not self.take("&"):
                cells.append(self.cell(name))
                self.take(",", ";")
        raise NotMathematicsError("environment without an end")

    def cell(self, name: str) -> Node:
        """An item of an environment. In cases, a condition in words, such as "n is even", is text."""
        start, depth = self.position, self.depth
        try:
            node = self.item_of_cell()
            if (
                name in _MATRICES
                or self.at_end("&,;")
                or self.mark() == "\\\\"
                or self.tokens[self.position].kind == "end"
            ):
                return node
        except NotMathematicsError:
            if name in _MATRICES:
                raise
        self.position, self.depth, self.open_bars, self.open_functions = start, depth, 0, 0
        while not (self.at_end("&") or self.mark() == "\\\\" or self.tokens[self.position].kind in ("begin", "end")):
            self.position += 1
        if self.position in (start, len(self.tokens)) or self.tokens[self.position].kind == "begin":
            raise NotMathematicsError("unfinished cell")
        words = " ".join(token.text.strip() for token in self.tokens[start : self.position])
        return Text(words.casefold().strip(" ,.").removeprefix("if "))

    def item_of_cell(self) -> Node:
        r"""``\text{if } x > 0`` is x > 0, and ``\text{otherwise}`` stays text."""
        said = ""
        while self.position < len(self.tokens) and self.tokens[self.position].kind in ("word", "text", "letter"):
            word = self.tokens[self.position].text.strip(" ,.:").casefold()
            ahead = "".join(token.text for token in self.tokens[self.position : self.position + 2])
            if word in _CASE_WORDS:
                self.position += 1
            elif ahead == "if":
                self.position += 2
            elif word in _OTHER_CASE_WORDS:
                self.position += 1
                said = _OTHERWISE
            else:
                break
        if said and self.mark() in (",", "&", "\\\\", None):
            return Text(said)
        items = [self.item()]
        while self.mark() == AND:
            self.position += 1
            items.append(self.item())
        return items[0] if len(items) == 1 else Apply("all", tuple(items))

    # -- units

    def unit_end(self, left: Node) -> int | None:
        """The end of the unit that comes next. Units stand only after constants: 10weeks, 10 \\text{ m}."""
        if not (is_constant(left) or is_literal(left)):
            return None
        return end_of_unit(self.tokens, self.position)

    def skip_unit(self, left: Node) -> None:
        """Move to the end of the unit, if one comes next."""
        if (end := self.unit_end(left)) is not None:
            self.unit = " ".join(token.text for token in self.tokens[self.position : end]).casefold().strip()
            self.position = end


def _with_units(items: list[Node], units: Sequence[str]) -> list[Node]:
    """Numbers of several kinds of things are like the values of several unknowns: 5 boys, 3 girls."""
    kinds = {unit.removesuffix("s") for unit in units}
    if len(kinds) < 2 or "" in kinds or len(units) != len(items) or not all(map(is_constant, items)):
        return items
    names = [Text(unit.removesuffix("s")) for unit in units]
    return [Relation(("=",), (name, item), (True, False)) for name, item in zip(names, items, strict=True)]


def _environment_of(name: str, rows: Sequence[Apply]) -> Node:
    """A matrix, a list of lines, or the cases of a function: values with their conditions, in any order."""
    if name == "vmatrix":
        return Apply("determinant", tuple(rows))
    if name not in _ENVIRONMENTS:
        raise NotMathematicsError(f"environment {name}")
    if rows and all(len(row.arguments) == 2 and _is_case(row) for row in rows) and name not in _MATRICES:
        return Apply("cases", tuple(rows))
    lines = tuple(cell for row in rows for cell in row.arguments)
    if name in _LISTS or (name not in _MATRICES and lines and all(isinstance(line, Relation) for line in lines)):
        return lines[0] if len(lines) == 1 else Apply("list", lines)
    return Apply("matrix", tuple(rows))


def _is_case(row: Apply) -> bool:
    value, condition = row.arguments
    if isinstance(condition, Apply) and condition.operator == "all":
        return True
    return not isinstance(value, Relation | Text) and isinstance(condition, Relation | Text)


def _is_condition(node: Node) -> bool:
    """Whether the node is a relation of inequalities alone, as the conditions of a set are."""
    return isinstance(node, Relation) and all(sign in _INEQUALITIES for sign in node.signs)


def _letters_of(word: str) -> Node:
    """The letters of a product, as in 2abc, or of the corners of a figure, as in ABCD."""
    return Apply("*", tuple(map(Symbol, word)))


def _product_of(factors: Sequence[Node]) -> Node:
    return factors[0] if len(factors) == 1 else Apply("*", tuple(factors))


def _is_literal_fraction(node: Node) -> bool:
    return isinstance(node, Apply) and node.operator == "/" and all(isinstance(part, Number) for part in node.arguments)


def parse(answer: str) -> Node:
    r"""The expression tree of an answer. Prose, and anything else that is not mathematics, becomes `Text`.

    >>> parse("1/2") == parse(r"\frac{1}{2}")
    True
    >>> parse(r"\text{Acute triangle.}")
    Text(words='acute triangle')
    """
    text = clean(answer)
    return Text(text) if len(text) > MAX_CHARS else _read(without_label(text))


def _read(text: str, is_said: bool = False) -> Node:
    """The tree of a cleaned answer. `is_said`: it is what a sentence says, so that it is no sentence itself."""
    text = set_in_words(without_remarks(text))
    text = without_quantity(text) if "=" in text else text
    if (whole := choice(text) or date_or_division(plain(text))) is not None:
        return whole
    try:
        tokens = tokenize(text)
    except NotMathematicsError:
        return prose(text)
    if is_prose(tokens):
        return (None if is_said else _said(text)) or prose(text)
    try:
        return quantity_of_several_units(tokens) or _Parser(tokens, _OR.search(text) is not None).answer()
    except NotMathematicsError:
        return (None if is_said else _said(text)) or as_written(tokens)


def _said(text: str) -> Node | None:
    """The tree of the value that a sentence states: what follows its verb, if that is mathematics or the answer."""
    for value, is_answer in values_said(text):
        node = _read(clean(value), is_said=True)
        if is_answer or not isinstance(node, Text):
            return node
    return None
