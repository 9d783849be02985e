r"""Which final answers are equal, and the clusters of equal ones.

Two answers are equal if a teacher who knows the question would count both right or both wrong. Where that is a matter
of convention, the conventions are:

    exact values       equal only exactly. A decimal is exact too, except that a decimal with 8 places or more equals
                       every value that it cuts or rounds (1.41421356 = sqrt 2, 0.333 != 1/3)
    percent, units,    dropped after a number: 50% = 50 (not 0.5), 12 cm^2 = 12, 9.8 m/s^2 = 9.8, 12元 = 12, $5 = 5;
    currency           but 3 million and 5万 are numbers, 5 m is a product, 2 hours 30 minutes is neither 2 nor 2.5
    x = 5, f(x) = 5    the name is dropped, also in x in (0, 1) and sin A = 3/5, but not in sin x = 1, sin A = c and
                       x^2 in (0, 1); other equations are equal up to a constant factor
    x = 2, y = 1       which value is that of which unknown counts, not their order. A bare list has no order, so 1, 2
                       and 2, 1 are read as x = 1, y = 2. 5 boys, 3 girls is alike; x_1 = 3, x_2 = 1 are the two
                       solutions 1 and 3 of one unknown
    P(X = 3) = 1/2     so is the name of a quantity: a probability, an extremum, an integral or a limit, a derivative,
                       A^{-1}, words; so is a sum of letters other than x, y, z: m + n = 293 is 293 (a whole number),
                       but x + y = 5 is a line. A chain gives its end: m + n = 256 + 37 = 293
    x - 3 = 0          its solution, if it is linear in its only unknown
    the area is 5      what a sentence says, if that is mathematics, or if its subject is the answer
    5, as required     remarks and reasons are dropped: since, because, as required, in total, (mod 20); so is a bracket
                       that says the value again or has its unit: sqrt 2 (1.414), 6 (six), 6 (cm)
    (a) 5, (b) 6       the values of the parts of a question, alike: which is that of which part counts
    for all real x     a domain that says nothing new is dropped: real, constant, arbitrary. Other domains are kept,
                       and their letters do not matter: k pi, k in Z = n pi, n in Z; nor do those of sums and integrals
    for x > 0          a condition is an item of the list: x^2, x > 0
    C. x = 42, (B) 12  the letter. A grader reads them as the option's text where the reference answer is no letter
    no real solution   the empty set
    even, odd          lists of words are sets, too; the cases of a function have no order
    0.(3), 0.333...    1/3: a period must be seen three times, or twice if there is nothing else
    3{,}5              3.5, but 3{,}500 = 3500; 1'234'567 and 1.234.567 are whole numbers
    ]0, 1[             (0, 1)
    C_{10}^3           the binomial coefficient, if both are numbers and the lower is not the smaller
    17 mod 5           2, but the answer of 17 (mod 5) is 17
    1, 2 or 2 and 1    a bare list is the set {1, 2}; a list of one is its element
    (1, 2), [1, 2]     tuples and intervals: ordered, and the kind of bracket counts
    x < 5              the interval of its solutions; x != 5 is the union of two; x > 1 and x < 3, {x | 1 < x < 3} and
                       (1, 3) are equal, and so is x > 1, x < 3, since their union says nothing. Intervals that touch
                       are joined: [1, 2] with [2, 3] is [1, 3]
    1 +- x             two values
    \text{(C)}         words are compared without markup, punctuation and case; number words are numbers
    A, a               a letter alone, or letters of one case in a list, are those of choices: x = X. In (n, N) and in
                       A \subset B the case counts. BD and ACD are lists of choices
    5 March            March 5, and 17 R 3 is 17 remainder 3
    3:4                3/4, as is 3 to 4; 12:00 and 4:30 are times of day: 4:30 is 4:30 p.m. or 16:30, while 04:30 is
                       a.m.
    1011_2, 0b1011     the base is kept; 0x2A is 2A_{16}
    A \subset B        relations and operators that are not computed, and commands that are not known, are kept, with
                       both sides in order. A \subset B is B \supset A; \parallel, \perp, \cong, \sim have no order
    p \land q          keeps its order (it may be u \wedge v), p \lor q does not; between conditions they mean and, or
    \vec{v}, \hat{v}   a mark or a font over one letter is dropped, and the line of \overline{AB}; \vec{AB}, \bar{z} and
                       \dot{x} are names of their own
    n!!, x2, dy/dx     a double factorial, x_2, and the name of a derivative

Answers are compared by canonical keys (`east_ray.answers.symbolic`). Clusters therefore depend neither on the order of
the responses nor on the machine, the time of a comparison is bounded, and no answer is executed as code. Rounded
decimals are the one exception: `equivalent` compares two answers alone, while `cluster` also joins 1.41421356 with
1.4142135623 if the square root of 2 is among the answers. Clusters are always transitive.

Known limits: "81,256" is one number and "81, 256" a list; "x < -2 and x > 5", which has no solution, is read as "or";
|v| is the norm ||v||; "dozen" is a unit; irrational numbers are compared to 25 digits.
"""

import re
from collections.abc import Hashable, Sequence
from fractions import Fraction
from typing import Literal

from east_ray.answers.extraction import MAX_ANSWER_CHARS
from east_ray.answers.symbolic import clean, is_rounding_of, joined_roundings, key, text_of_choice

Equivalence = Literal["math", "string"]
_MAY_BE_OPTION = re.compile(r"[A-J][).:]")
_NO_ANSWERS = frozenset({"proof", "notfound", "not_found", "nan", "n/a", "<na>", "null", "none"})
_LETTER_KEY = re.compile(r"\('text', '[a-j]'\)")
_MAX_READABLE = 10**1000  # a fraction with a larger numerator or denominator is not written out


def canonical(answer: str) -> Hashable:
    """A key that is the same for equal answers, in every process.

    Known limit: rounded decimals. For `equivalent` and `cluster`, 1.41421356 equals the square root of 2; the keys of
    the two differ.
    """
    return key(answer)


def canonical_answer(answer: str) -> str:
    r"""The answer in readable form: a rational number in lowest terms, any other answer without surrounding markup.

    >>> canonical_answer(r"\frac{10}{4}\text{ cm}")
    '5/2'
    >>> canonical_answer("$x^2$.")
    'x^2'
    """
    value = key(answer)
    number = value[1] if isinstance(value, tuple) and value[0] == "number" else None
    if isinstance(number, Fraction) and max(abs(number.numerator), number.denominator) < _MAX_READABLE:
        return str(number)
    return " ".join(clean(answer).split()).encode("utf-8", "replace").decode("utf-8")


def equivalent(a: str, b: str) -> bool:
    r"""Whether the two answers are equal.

    >>> equivalent(r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt3}{3}")
    True
    >>> equivalent("50%", "0.5")
    False
    """
    key_a, key_b = key(a), key(b)
    return key_a == key_b or is_rounding_of(key_a, key_b) or is_rounding_of(key_b, key_a)


def as_options_text(answers: Sequence[str], reference: str) -> list[str]:
    r"""The answers to a question whose reference answer is no letter: "(B) 12" is the option's text, 12.

    >>> as_options_text(["(B) 12", "12"], "12"), as_options_text(["(B) 12", "B"], "B")
    (['12', '12'], ['(B) 12', 'B'])
    """
    if not any(_MAY_BE_OPTION.search(answer) for answer in answers) or _LETTER_KEY.fullmatch(str(key(reference))):
        return list(answers)
    return [text_of_choice(clean(answer)) or answer for answer in answers]


def is_parsable_reference(answer: str | None) -> bool:
    """Whether responses can be compared with this reference answer: not None, not too long, not only punctuation.

    Nor one of the words that stand for no answer: NuminaMath has `proof` and `notfound`, programs write `nan`, `N/A`,
    `null` and `None`. In markup, as in \\text{None}, such a word is an answer.
    """
    if answer is None or len(answer) > MAX_ANSWER_CHARS or not clean(answer):
        return False
    if "".join(answer.split()).casefold() in _NO_ANSWERS:
        return False
    value = key(answer)
    return any(c.isalnum() for c in answer) or not (isinstance(value, tuple) and value[0] == "text")


# ----------------------------------------------------------------------------------------------------------- clusters


def answer_keys(answers: Sequence[str], equivalence: Equivalence = "math") -> list[Hashable]:
    """A key for each answer. Answers that are equal have the same key, a rounded decimal that of the value it rounds.

    With "string", answers are equal if their characters are equal after the light stripping of the EAST authors'
    pipeline. Raises ValueError for an unknown equivalence.
    """
    if equivalence == "string":
        return [_stripped(answer) for answer in answers]
    if equivalence != "math":
        raise ValueError(f"equivalence: {equivalence!r} is neither 'math' nor 'string'")
    places: dict[Hashable, int] = {}
    keys = [places.setdefault(key(answer), len(places)) for answer in answers]  # hashing a fraction takes long: once
    joined = joined_roundings(list(places))
    return [joined[place] for place in keys]


def cluster(answers: Sequence[str | None], *, equivalence: Equivalence = "math") -> list[int]:
    """The cluster of each answer. Clusters are numbered by first appearance, and all None form one cluster.

    >>> cluster(["1/2", "3", None, "0.5", None])
    [0, 1, 2, 0, 2]
    """
    distinct = list(dict.fromkeys(answer for answer in answers if answer is not None))
    keys = dict(zip(distinct, answer_keys(distinct, equivalence), strict=True))
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(None if answer is None else (keys[answer],), len(numbers)) for answer in answers]


_STRIPPED_COMMANDS = re.compile(r"\\(?:left|right|!|,|;|\$|%|text\{\s*\}|displaystyle)|\^\{?\\circ\}?|[$%]")
_TEXT_UNIT = re.compile(r"(?<=.)\\(?:text|mbox|textbf|mathrm)\{[^{}]*\}\s*$")
_TEXT = re.compile(r"\\(?:text|mbox|textbf|mathrm)\{([^{}]*)\}")


def _stripped(answer: str) -> str:
    r"""The answer without spaces, LaTeX spacing, unit, percent and degree sign; \dfrac and \tfrac become \frac."""
    text = answer.strip().rstrip(".").replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    text = _TEXT.sub(r"\1", _TEXT_UNIT.sub("", _STRIPPED_COMMANDS.sub("", text)))
    head, equals, tail = text.partition("=")
    if equals and len(head.strip()) <= 2:
        text = tail
    text = re.sub(r"\s+", "", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", text))
    text = re.sub(r"(?<!\d)\.(?=\d)", "0.", text)
    return re.sub(r"(\d)\.0+$", r"\1", text)
