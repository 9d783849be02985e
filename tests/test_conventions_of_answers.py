"""Each convention in the docstrings of equality.py and extraction.py has a row here that shows all that it says."""

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from east_ray.answers import equality, equivalent, extract, extraction
from east_ray.config.base import compiled_pattern

#: The left column of the docstring of equality.py; then lines of answers that are equal (===) or not (=/=).
EQUALITY = r"""
exact values
    1.41421356 === \sqrt{2} === 1.414213562
    1.41421357 =/= \sqrt2
    0.333 =/= 1/3
    0.5 === 1/2
percent, units,
currency
    50% === 50
    50\% =/= 0.5
    12 cm^2 === 12
    9.8 m/s^2 === 9.8
    12元 === 12
    $5 === 5
    3 million === 3000000
    3 million =/= 3
    5万 === 50000
    5 m =/= 5
    2 hours 30 minutes =/= 2
    2 hours 30 minutes =/= 2.5
x = 5, f(x) = 5
    x = 5 === 5 === f(x) = 5
    x \in (0, 1) === (0, 1)
    \sin A = 3/5 === 3/5
    \sin x = 1 =/= 1
    \sin A = c =/= c
    x^2 \in (0, 1) =/= (0, 1)
    x + y = 5 === 2x + 2y = 10
    x + y = 5 =/= x + y = 6
x = 2, y = 1
    x = 2, y = 1 === y = 1, x = 2
    x = 2, y = 1 =/= x = 1, y = 2
    1, 2 === 2, 1 === x = 1, y = 2
    2, 1 =/= x = 2, y = 1
    x_1 = 3, x_2 = 1 === 1, 3
    5 boys, 3 girls === 3 girls, 5 boys
    5 boys, 3 girls =/= 3 boys, 5 girls
P(X = 3) = 1/2
    P(X = 3) = 1/2 === 1/2
    \max f(x) = 7 === 7
    \int_0^1 f(x) dx = 2 === 2
    \lim_{x \to 0} f(x) = 3 === 3
    \frac{dy}{dx} = 4 === 4
    A^{-1} = \begin{pmatrix}1&2\\3&4\end{pmatrix} === \begin{pmatrix}1&2\\3&4\end{pmatrix}
    \text{Area} = 84 === 84
    m + n = 293 === 293
    x + y = 5 =/= 5
    m + n = 256 + 37 = 293 === 293
x - 3 = 0
    x - 3 = 0 === 3
    2x = 7 === 3.5
    x^2 - 9 = 0 =/= 3
the area is 5
    the area is 5 === 5
    Tom is the winner =/= Tom is the loser
5, as required
    \sqrt2 === \sqrt2 (1.414)
    6 === 6 (six) === 6 (cm)
    5, as required === 5
    5, since x > 0 === 5
    5 because it is odd === 5
    72 in total === 72
    2 (mod 20) === 2
(a) 5, (b) 6
    (a) 5, (b) 6 === 5, 6
    (a) 2, (b) 1 =/= (a) 1, (b) 2
for all real x
    x^2 for all real x === x^2
    x^2 + c for any constant c === x^2 + c
    k\pi, k \in \mathbb{Z} === n\pi, n \in \mathbb{Z}
    k\pi, k \in \mathbb{Z} =/= k\pi
    \sum_{k=1}^{n} k === \sum_{j=1}^{n} j
    \int_0^1 t^3 dt === \int_0^1 x^3 dx
for x > 0
    x^2 for x > 0 === x^2, x > 0
    x^2 for x > 0 =/= x^2
C. x = 42, (B) 12
    C. x = 42 === C
    (B) 12 === B
    (B) 12 =/= 12
no real solution
    no real solution === \emptyset === no solution
    no real solution =/= 0
even, odd
    even, odd === odd, even
    even, odd =/= even
    \begin{cases} x & x>0 \\ 1 & x<0\end{cases} === \begin{cases} 1 & x<0 \\ x & x>0\end{cases}
0.(3), 0.333...
    0.(3) === 0.333... === 1/3 === 0.\overline{3}
    0.1818... === 2/11
    0.33... =/= 1/3
    0.133... =/= 2/15
3{,}5
    3{,}5 === 3.5
    3{,}500 === 3500
    1'234'567 === 1234567 === 1.234.567
]0, 1[
    ]0, 1[ === (0, 1)
    ]0, 1] =/= (0, 1)
C_{10}^3
    C_{10}^3 === 120 === \binom{10}{3}
    C_2^3 =/= 3
17 mod 5
    17 mod 5 === 2 === 17 \bmod 5
    17 (mod 5) === 17
1, 2 or 2 and 1
    1, 2 === 2 and 1 === 2 or 1 === \{1, 2\}
    \{3\} === 3
    1, 2 =/= 1
(1, 2), [1, 2]
    (1, 2) =/= (2, 1)
    (1, 2) =/= [1, 2]
    (1, 2) =/= 1, 2
x < 5
    x > 1, x < 3 === (1, 3)
    x < 5 === (-\infty, 5)
    x \ne 5 === (-\infty, 5) \cup (5, \infty)
    x > 1 and x < 3 === \{x | 1 < x < 3\} === (1, 3)
    [1, 2] \cup [2, 3] === [1, 3]
    x < 5 =/= x \le 5
1 +- x
    1 \pm x === 1 + x, 1 - x
    1 \pm x =/= 1 + x
\text{(C)}
    \text{(C)} === C === c
    \text{No Solution!} === no solution
    \text{twelve} === 12
    seven =/= 8
A, a
    B, D === BD
    A, C, D === ACD
    A === a === (A)
    x = X === X
    B, C === c, b
    (n, N) =/= (N, n)
    A \subset B =/= a \subset b
5 March
    5 March === March 5
    17 R 3 === 17 remainder 3
3:4
    3:4 === 3 to 4
    3:4 === 3/4
    12:00 =/= 12
    4:30 === 4:30 p.m. === 16:30
    04:30 === 4:30 a.m.
    04:30 =/= 4:30
1011_2, 0b1011
    1011_2 === 0b1011
    1011_2 =/= 11
    0x2A === 2A_{16}
    0x2A =/= 42
A \subset B
    A \subset B =/= B \subset A
    A \subset B === B \supset A
    a \parallel b === b \parallel a
    a \perp b === b \perp a
    a \cong b === b \cong a
    a \sim b === b \sim a
    \foo a b =/= \foo b a
    \foo a b =/= \bar a b
p \land q
    p \land q =/= q \land p
    p \lor q === q \lor p
    p \land q =/= p \lor q
    x > 1 \land x < 3 === (1, 3)
    x < 1 \lor x > 3 === x < 1 or x > 3
\vec{v}, \hat{v}
    \vec{v} === v === \hat{v} === \mathbf{v}
    \overline{AB} === AB
    \vec{AB} =/= AB
    \bar{z} =/= z
    \dot{x} =/= x
n!!, x2, dy/dx
    5!! === 15
    3!! =/= (3!)!
    x2 === x_2
    x2 =/= 2x
    dy/dx === \frac{dy}{dx}
    dy/dx =/= y/x
Known limits
    81,256 === 81256
    81, 256 =/= 81256
    x < -2 and x > 5 === x < -2 or x > 5
    |v| === ||v||
    5 dozen === 5
"""

#: The left column of the docstring of extraction.py; then responses (⏎ for a line break) and their answers after ==>;
#: nothing: there is none.
EXTRACTION = r"""
\boxed{5}
    So \boxed{4}. Wait, \boxed{5}. ==> 5
    \fbox{5} ==> 5
    \framebox[3cm]{5} ==> 5
    \bbox[5px]{5} ==> 5
    \boxed$5$ ==> 5
    It is boxed{5} ==> 5
    ┌───┐⏎│ 5 │⏎└───┘ ==> 5
    \boxed{2} and \boxed{3} ==> 2, 3
    (a) It is \boxed{2} (b) It is \boxed{3} ==> 2, 3
    \boxed{} ==>
    \boxed{your answer} ==>
    Use \boxed notation. ==>
    \boxed{7} and #### 8 ==> 7
#### 5
    That is 5.⏎#### 5 ==> 5
    #### 5⏎Thus ends it. ==> 5
    So it is.⏎#### x = 5 ==> x = 5
    #### x = 5⏎Thus ends it. ==>
    #### 2. Double them⏎We do so. ==>
    #### 5⏎The answer is 6 ==> 5
<answer>5</answer>
    <answer>5</answer> ==> 5
    <final_answer>5</final_answer> ==> 5
    [ANSWER]5[/ANSWER] ==> 5
    <answer>5</answer> The answer is 6 ==> 5
The answer is 5
    The answer is 5. ==> 5
    **Answer** 5 ==> 5
    Final result: 5 ==> 5
    Respuesta: 5 ==> 5
    答案是 5 ==> 5
    The answer is 4. Then the answer is 5. ==> 5
    The answer is actually very simple. ==>
    The answer 12 is part of it. ==>
a box, then words
    \boxed{5}⏎Final Answer: 6 ==> 6
    Final Answer: 6⏎\boxed{5} ==> 5
thinking
    <think>\boxed{4}</think> The answer is 5. ==> 5
    <reasoning>\boxed{4}</reasoning> Done. ==> 4
    <think>It is \boxed{4} ==> 4
5, not 6
    The answer is 5, not 6. ==> 5
    The answer is m+n = 256+37 = 293. ==> 293
\frac{1}{2
    The answer is \frac{1}{2 ==>
    \boxed{3} and then \boxed{\frac{1}{2 ==> 3
Question: ...
    The answer is 5.⏎Question: What is 2 + 2?⏎The answer is 4. ==> 5
`answers.pattern`
    Output: 5 \boxed{6} ==> 5
    \boxed{6} ==>
Known limits
    La respuesta es 3,5 ==> 3.5
    Take 3,5 and x.⏎The answer is 3,5 ==> 3,5
    First \boxed{4}, which is wrong. So \boxed{\frac{1}{ ==> 4
"""


def rows(table: str) -> Iterator[tuple[str, list[str]]]:
    """The left column of each convention, with its examples."""
    for block in re.split(r"\n(?=\S)", table.strip()):
        name, *examples = block.split("\n")
        yield name, [example[4:] for example in examples]


def conventions(module: ModuleType) -> set[str]:
    """The left columns of the tables in the docstring of a module; some have two lines."""
    found = re.findall(r"^    (\S(?:.{0,17}?\S)?)(?: {2,}| (?=and <))\S", module.__doc__ or "", flags=re.MULTILINE)
    return {*found, "Known limits"}


@pytest.mark.parametrize(("module", "table"), [(equality, EQUALITY), (extraction, EXTRACTION)])
def test_every_convention_is_tested(module: ModuleType, table: str) -> None:
    assert {name for name, _ in rows(table)} == conventions(module)


@pytest.mark.parametrize(
    ("convention", "example"), [(name, one) for name, examples in rows(EQUALITY) for one in examples]
)
def test_conventions_of_equality(convention: str, example: str) -> None:
    if " =/= " in example:
        one, other = example.split(" =/= ")
        assert not equivalent(one, other), convention
    else:
        first, *others = example.split(" === ")
        assert [other for other in others if not equivalent(first, other)] == [], convention


@pytest.mark.parametrize(
    ("convention", "example"), [(name, one) for name, examples in rows(EXTRACTION) for one in examples]
)
def test_conventions_of_extraction(convention: str, example: str) -> None:
    response, _, expected = example.replace("⏎", "\n").partition(" ==>")
    how: dict[str, Any] = {"pattern": compiled_pattern(r"Output: (\d)")} if convention == "`answers.pattern`" else {}
    assert extract(response, **how).answer == (expected.strip() or None), convention
