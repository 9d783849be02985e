r"""Different answers stay apart: what the parser does not know is kept, in order, as it is written.

The properties replace one unknown command, relation, letter or digit of an answer by another. The key must change,
unless a convention that is listed here says why not.
"""

import itertools
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.answers import canonical, cluster, equivalent
from east_ray.answers.symbolic.commands import IGNORED

APART = [
    # letters of sets
    (r"\mathbb{Z}", r"\mathbb{N}"),
    (r"\mathbb Q", r"\mathbb Z"),
    (r"\mathbb{R}", "R"),
    (r"\mathbb{Z}\setminus\{0\}", r"\mathbb{Q}\setminus\{0\}"),
    (r"\mathbb{R}\times\mathbb{Z}", r"\mathbb{Z}\times\mathbb{R}"),
    (r"\mathcal{A}", r"\mathcal{B}"),
    (r"\mathfrak{g}", "g"),
    # relations and operators have a left and a right side
    (r"A \subset B", r"B \subset A"),
    (r"A \subset B", r"A \subseteq B"),
    (r"A \subset B", r"a \subset b"),
    (r"A \notin B", r"B \notin A"),
    (r"x \notin A", r"x \in A"),
    (r"A\not\subset B", r"A\subset B"),
    (r"x \not= 3", "x = 3"),
    (r"x^2 \in [1,2]", r"x \in [1,2]"),
    (r"a \ll b", r"a \gg b"),
    (r"a \vdash b", r"a \vDash b"),
    (r"x \mapsto x^2", r"x^2 \mapsto x"),
    (r"\triangle ABC \sim \triangle DEF", r"\triangle ABC \cong \triangle DEF"),
    (r"\triangle ABC \sim \triangle DEF", r"\triangle ABC \sim \triangle FED"),
    (r"AB \parallel CD", r"AB \perp CD"),
    (r"f \circ g", r"g \circ f"),
    (r"f \circ g + h", r"f \circ (g+h)"),
    (r"a \otimes b", r"a \oplus b"),
    (r"\vec a \times \vec b", r"\vec b \times \vec a"),
    (r"\nabla \cdot F", r"\nabla \times F"),
    (r"A \xrightarrow{f} B", r"B \xrightarrow{f} A"),
    (r"a \unknown b", r"b \unknown a"),
    (r"a \unknown b", r"a \different b"),
    (r"\unknown{AB}", r"\unknown{BA}"),
    # logic
    (r"p\land q", r"p\lor q"),
    ("p ∧ q", "p ∨ q"),
    (r"p\lor q", "p, q"),
    (r"\neg p \lor q", r"p \lor \neg q"),
    (r"\lnot(p \land q)", r"\lnot p \land q"),
    (r"p \to q", r"q \to p"),
    ("~p", "p"),
    (r"\sim p", "p"),
    (r"p \lor ~q", r"p \lor q"),
    (r"p \Rightarrow q", r"p \Leftrightarrow q"),
    (r"\forall x \in A", r"\exists x \in A"),
    # marks over letters, and the order of letters
    (r"\overrightarrow{AB}", r"\overrightarrow{BA}"),
    (r"\vec{AB}", "AB"),
    (r"\bar{z}", "z"),
    (r"\overline{A\cup B}", r"A\cup B"),
    (r"\overline{ab}", r"\overline{ba}"),
    (r"\dot{x}", r"\ddot{x}"),
    (r"\tilde{x}", "x"),
    (r"\angle ABC", r"\angle BAC"),
    # factorials
    ("3!!", "(3!)!"),
    ("3!!", "720"),
    ("n!!", "(n!)!"),
    ("n!!", "n!"),
    ("n!!!", "n!!"),
    ("(2n)!!", "(2n-1)!!"),
    # functions
    (r"\sin(x) = c", r"\cos(x) = c"),
    (r"\sin x = \frac12", r"\cos x = \frac12"),
    (r"\tan x = 1", "1"),
    (r"\sin\theta = c", r"\cos\theta = c"),
    (r"\max(x,y) = 5", r"\min(x,y) = 5"),
    (r"\gcd(a,b) = 6", r"\operatorname{lcm}(a,b) = 6"),
    (r"\Re z = 1", r"\Im z = 1"),
    (r"\lfloor x\rfloor = 3", r"\lceil x\rceil = 3"),
    ("|x|+1 = 6", "x = 5"),
    (r"\ln x = 3", r"\log x = 3"),
    (r"\det(A+B)", r"\det A + \det B"),
    (r"\dim V", r"\ker V"),
    (r"\Gamma(n+1)", r"\Gamma n + \Gamma"),
    (r"\zeta(2)", r"2\zeta"),
    ("f'(2x)", "2f'(x)"),
    ("f^{-1}(2x)", "2f^{-1}(x)"),
    (r"\frac{dy}{dx}", r"\frac{y}{x}"),
    ("dy/dx", "xy"),
    (r"\frac{\partial f}{\partial x}", r"\frac{f}{x}"),
    (r"\int_0^1 f", r"\int_1^0 f"),
    (r"\sum_{k=1}^{3} a_k", "3a_k"),
    (r"\sum_{k=1}^{n} a_k", r"\sum_{j=1}^{n} a_k"),
    # numbers
    (r"3{\frac{1}{2}}", "3/2"),
    ("0x2A", "0"),
    ("0x2A", "0x2B"),
    ("0b1011", "0b1010"),
    ("0b1011", "1011"),
    ("0o17", "0"),
    ("0b17", "0"),
    ("2AB3_{16}", "2BA3_{16}"),
    ("FF_{16}", "FE_{16}"),
    ("x2", "2x"),
    ("3:00 AM", "3:00 PM"),
    ("3 a.m.", "3 p.m."),
    (r"3\text{ AM}", r"3\text{ PM}"),
    ("12:00 AM", "12:00 PM"),
    ("8:00 in the morning", "8:00 in the evening"),
    ("09:00", "21:00"),
    ("2024-05-06", "2024-06-05"),
    ("IV", "VI"),
    ("7 r 2", "14r"),
    # which value is that of which unknown
    ("x=1, y=2", "x=2, y=1"),
    ("x = 1 and y = 2", "x = 2 and y = 1"),
    (r"\begin{cases}x=1\\y=2\end{cases}", r"\begin{cases}x=2\\y=1\end{cases}"),
    ("x=3, y=2", "3, 2"),
    ("x_1=1, x_2=2", "x_1=1, x_2=3"),
    ("x_1=1, y_2=2", "x_1=2, y_2=1"),
    ("x=3, y=2", "a=3, b=2"),
    ("x>1, y<2", "y>1, x<2"),
    ("5 boys, 3 girls", "3 boys, 5 girls"),
    (r"5 \text{ apples}, 3 \text{ pears}", r"3 \text{ apples}, 5 \text{ pears}"),
    ("1<x<3, 2<y<4", "1<y<3, 2<x<4"),
    ("AB=5, BC=6", "AB=6, BC=5"),
    (r"\text{Area}=5, \text{Perimeter}=6", r"\text{Area}=6, \text{Perimeter}=5"),
    ("x=1, x=2, y=3", "x=1, y=2, y=3"),
    ("p=5,q=2;p=7,q=3", "p=5,q=3;p=7,q=2"),
    # letters in both cases are no choices
    ("(n, N)", "(N, n)"),
    ("n, N", "n"),
    (r"A\cup B", r"a\cup b"),
    # structures
    (r"\begin{Vmatrix}1&2\\3&4\end{Vmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    (r"\begin{unknown}1\end{unknown}", r"\begin{different}1\end{different}"),
    (r"\{\emptyset\}", r"\emptyset"),
    (r"\{\{1\}\}", r"\{1\}"),
    (r"\{1,\{1\}\}", r"\{1\}"),
    (r"\max_{x} f(x)", r"\min_{x} f(x)"),
    (r"\max_2 8", "3"),
    (r"\frac{d^{2}y}{dx^{2}}", r"\frac{d^{3}y}{dx^{3}}"),
    (r"\{x \mid x \ge 2\}", r"\{x \mid y \ge 2\}"),
    ("the set A ∪ B", "the set A ∩ B"),
    ("all points in [0,1]", "all points in (0,1)"),
    ("for n! ways", "for n ways"),
    (r"5\heartsuit", r"5\spadesuit"),
]

TOGETHER = [
    (r"\mathbb{Z}", "ℤ"),
    (r"\mathbb Z", r"\Z"),
    (r"\Bbb{Z}", r"\mathbb{Z}"),
    (r"A \subset B", r"B \supset A"),
    (r"A \subset B", "A ⊂ B"),
    (r"A \subseteq B \subseteq C", r"C \supseteq B \supseteq A"),
    (r"\frac12 \prec x", r"0.5 \prec x"),
    (r"AB \parallel CD", r"CD \parallel AB"),
    (r"a \leqq b", r"a \le b"),
    ("x ∉ A", r"x \not\in A"),
    ("x ≠ 3", r"x \not= 3"),
    (r"p\land q", r"p \wedge q"),
    (r"p\lor q", r"q \vee p"),
    ("¬p", r"\lnot p"),
    (r"p \to q", r"p \Rightarrow q"),
    ("p ∧ (~q)", r"p \land \neg q"),
    (r"\frac12 \circ x", r"0.5 \circ x"),
    (r"2(f \circ g)", r"(f ∘ g) \cdot 2"),
    (r"(f\circ g)(x)=x^2", "x^2"),
    (r"x>1 \land x<3", "(1,3)"),
    (r"x=2 \lor x=3", "2,3"),
    (r"\vec{v}", r"\mathbf{v}"),
    (r"2\hat{i}+3\hat{j}", r"2\mathbf{i}+3\mathbf{j}"),
    (r"\overrightarrow{AB}", r"\vec{AB}"),
    (r"2\overrightarrow{AB}", r"\overrightarrow{AB}\cdot 2"),
    (r"\overrightarrow{AB}=(1,2)", "(1,2)"),
    (r"x = \unknown 3", r"\unknown 3"),
    (r"1/2, \unknown", r"\unknown, 0.5"),
    ("5!!", "15"),
    ("6!!", "48"),
    ("0!!", "1"),
    (r"7!!", r"7\cdot5\cdot3"),
    ("(2n-1)!!", r"\frac{(2n)!}{2^n n!}"),
    ("(2n)!!", "2^n n!"),
    ("(2k+1)!!", "(2k+1)(2k-1)!!"),
    (r"3{\frac{1}{2}}", "7/2"),
    (r"3\left(\frac12\right)", "1.5"),
    ("0x2A", "2A_{16}"),
    ("0x2a", r"2\text{A}_{16}"),
    ("0b1011", "1011_2"),
    ("0o17", "17_8"),
    ("3 PM", "3:00 p.m."),
    (r"3\text{ p.m.}", "3:00"),
    ("20:34", "8:34 PM"),
    ("8:00 in the evening", "8 p.m."),
    ("3 girls, 5 boys", "5 boys and 3 girls"),
    ("20:34:00", "08:34 P.M."),
    ("x=1, y=2", "y=2, x=1"),
    ("x=1, y=2, z=3", "1, 2, 3"),
    (r"x = -5,\ p = \frac{14}{3}", r"-5, \frac{14}{3}"),
    (r"x=1 \quady=2", r"y=2, \quad x=1"),
    ("x=3 and y=2", r"\begin{cases}y=2\\x=3\end{cases}"),
    ("p=5,q=2;p=7,q=2", "p=7,q=2 or p=5,q=2"),
    (r"\frac{dy}{dx}=2x", "2x"),
    ("dy/dx", r"\frac{dy}{dx}"),
    (r"\coth x", r"\frac{\cosh x}{\sinh x}"),
    ("x1 + x2", "x_1+x_2"),
    (r"\sin A = \frac35", "3/5"),
    (r"\cos\theta = \frac12", "1/2"),
    (r"\sum_{k=1}^{3} a_k", "a_1+a_2+a_3"),
]


@pytest.mark.parametrize(("a", "b"), APART)
def test_apart(a: str, b: str) -> None:
    assert not equivalent(a, b) and not equivalent(b, a)
    assert cluster([a, b]) == [0, 1]


@pytest.mark.parametrize(("a", "b"), TOGETHER)
def test_together(a: str, b: str) -> None:
    assert equivalent(a, b) and equivalent(b, a)
    assert cluster([a, b]) == [0, 0]


# ---------------------------------------------------------------------------------------------------------- properties

#: Where one part of an answer stands. @ is the part that is replaced.
PLACES = [
    "@", "2 @", "@ + 1", "-@", "(@, 1)", "[@, 9)", r"\{@, 3\}", "1, @", r"1 \text{ or } @", r"\frac{@}{7}",
    r"\frac{3}{@}", r"\sqrt{@}", r"\sqrt[3]{@}", "2^{@}", "|@| + 1", r"x = @", r"f(x) = @", r"y < @",
    r"(-\infty, @) \cup (20, \infty)",
    r"\begin{pmatrix} @ \\ 5 \end{pmatrix}", "g(@)", r"\vec{u} \cdot @", r"3 \otimes @", r"A \subset @", r"p \land @",
    r"\unknown @", r"\unknown{@}", r"@ \unknown b", r"\overrightarrow{A@}", r"\overline{a@}", r"\angle A@C", r"a_{@}",
    r"@ \text{ and } 3", r"\frac{@}{2} \pm 1", r"\text{the set } @", r"\det @", r"\int_0^{@} f\,du", r"x = 3, y = @",
    r"\mathbb{@}", "t \\equiv @",
]  # fmt: skip
LETTERS = "ABCDKMNPQRSTUVWXYZabcdklmnpqrstuvw"
#: Convention: a letter alone, or in a list, is that of a choice, so that x = X.
WITHOUT_CASE = ("@", "1, @", r"1 \text{ or } @", r"x = @", r"f(x) = @", r"@ \text{ and } 3", r"\{@, 3\}", "t \\equiv @",
                r"\text{the set } @")  # fmt: skip
UNKNOWN = [
    r"\unknown",
    r"\different",
    r"\heartsuit",
    r"\circledast",
    r"\lightning",
    r"\blacklozenge",
    r"\nabla",
    r"\forall",
]


@pytest.mark.parametrize("place", PLACES)
def test_another_letter_is_another_answer(place: str) -> None:
    answers = [place.replace("@", letter) for letter in LETTERS]
    if place in WITHOUT_CASE:
        answers = [answer for answer, letter in zip(answers, LETTERS, strict=True) if letter.isupper()]
    numbers = cluster(answers)
    assert len(set(numbers)) == len(answers), list(zip(answers, numbers, strict=True))


@pytest.mark.parametrize("place", [place for place in PLACES if place not in (r"\mathbb{@}", r"\angle A@C")])
def test_another_digit_is_another_answer(place: str) -> None:
    answers = [place.replace("@", digit) for digit in "2345678"]
    numbers = cluster(answers)
    assert len(set(numbers)) == len(answers), list(zip(answers, numbers, strict=True))


@pytest.mark.parametrize("place", [place for place in PLACES if place != r"\mathbb{@}"])
def test_another_unknown_command_is_another_answer(place: str) -> None:
    answers = [place.replace("@", f"{command} ") for command in (*UNKNOWN, "")]
    numbers = cluster(answers)
    assert len(set(numbers)) == len(answers), list(zip(answers, numbers, strict=True))


RELATIONS = r"""
    \subset \subseteq \subsetneq \prec \preceq \ll \propto \vdash \models \mapsto \to \iff \parallel \perp \cong \sim
    \asymp \in \notin \not\subset \not\sim \circ \oplus \ominus \otimes \oslash \odot \star \bullet \uplus \sqcap \sqcup
    \land \lor \cup \cap \setminus \unknown \triangleright \bowtie \mid \nmid = \ne < \le + - \cdot / ^ _
    """.split()  # noqa: SIM905
SYMMETRIC = frozenset(r"\iff \parallel \perp \cong \sim \asymp \not\sim \lor \cup \cap = \ne + \cdot".split())  # noqa: SIM905
TURNED = {r"\supset": r"\subset", r"\supseteq": r"\subseteq", r"\succ": r"\prec", r"\gg": r"\ll", r"\gets": r"\to"}


@pytest.mark.parametrize(("left", "right"), [("P", "Q"), ("p", "q"), (r"\frac{x}{2}", "3"), ("2A", r"\sqrt{B}")])
def test_signs_between_two_sides_differ(left: str, right: str) -> None:
    answers = [f"{left} {sign} {right}" for sign in RELATIONS]
    assert not [{a, b} for a, b in itertools.combinations(answers, 2) if equivalent(a, b)]


@pytest.mark.parametrize("sign", RELATIONS)
def test_the_sides_of_a_relation_are_not_exchanged(sign: str) -> None:
    assert equivalent(f"2p {sign} 3q", f"3q {sign} 2p") == (sign in SYMMETRIC)


@pytest.mark.parametrize(("sign", "turned"), TURNED.items())
def test_a_turned_sign_exchanges_the_sides(sign: str, turned: str) -> None:
    assert equivalent(f"2p {sign} 3q", f"3q {turned} 2p") and not equivalent(f"2p {sign} 3q", f"2p {turned} 3q")


COMMANDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8).map("\\zq{}".format)
FORMS = st.sampled_from(
    ["{} x", "x {} y", "{}{{AB}}", "x^{{{}}}", r"\frac{{{}}}{{2}}", "2{}_1", "({}, 1)", "{}", "{} + 1 = y"]
)


@given(FORMS, COMMANDS, COMMANDS)
def test_unknown_commands_are_kept(form: str, command: str, other: str) -> None:
    one = form.format(command)
    assert canonical(one) == canonical(f" {one} ") == canonical(one.replace(" ", "  "))
    assert equivalent(one, form.format(other)) == (command == other)
    assert not equivalent(one, form.format(""))


@pytest.mark.parametrize("name", sorted(filter(str.isalpha, IGNORED)))
def test_what_is_dropped_is_on_a_list(name: str) -> None:
    assert equivalent(rf"2\{name} x", "2x") and not equivalent(rf"2\{name}unknown x", "2x")


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=4, unique=True), st.randoms(use_true_random=False))
def test_a_system_is_the_values_of_its_unknowns_in_any_order(values: list[int], random) -> None:  # type: ignore[no-untyped-def]
    equations = [f"{name} = {value}" for name, value in zip("wxyz", values, strict=False)]
    shuffled = random.sample(equations, len(equations))
    assert equivalent(", ".join(equations), " and ".join(shuffled))
    exchanged = [f"{name} = {value}" for name, value in zip("wxyz", values[::-1], strict=False)]
    assert equivalent(", ".join(equations), ", ".join(exchanged)) == (values == values[::-1])


@given(st.integers(0, 60))
def test_a_double_factorial_is_a_product(n: int) -> None:
    assert equivalent(f"{n}!!", r" \cdot ".join(map(str, range(n, 0, -2))) or "1")
    assert equivalent(f"{n}!!", f"({n}!)!") == (n <= 2)


@given(st.integers(0, 23), st.integers(0, 59))
def test_a_time_of_day_is_one_of_24_hours(hour: int, minute: int) -> None:
    half = "a.m." if hour < 12 else "p.m."
    twelve = f"{(hour - 1) % 12 + 1}:{minute:02}"
    assert equivalent(f"{twelve} {half}", rf"{twelve}\text{{ {half.upper()} }}")
    assert not equivalent(f"{twelve} a.m.", f"{twelve} p.m.")
    if hour > 12 and minute % 2 == 0 == hour % 2:  # otherwise 15:31 may be a ratio
        assert equivalent(f"{twelve} {half}", f"{hour}:{minute:02}")


HOSTILE = [
    r"\begin{cases}" * 2, r"\begin{cases}" * 150,
    r"\vec" * 600, r"\vec{" * 300, r"\unknown{" * 200, r"\not" * 400, "x!" * 600, "x" + "!!" * 900, r"a\circ " * 300,
    r"p\land " * 300, r"A\subset " * 300, r"\neg" * 400, "0x" + "F" * 1900, "F" * 1000 + "_{16}", "_{16}" * 400,
    r"\angle" * 300, "x=1," * 400, "(2n)!!" * 200, "((n)!!)!!" * 100, r"\mathbb" * 250, r"f^{-1}(" * 200, "3 PM" * 400,
    r"\frac{dy}{dx}" * 140, r"\unknown," * 200, "A1" * 900 + "_{16}", "n!!" + "+n!!" * 300, "(" * 900 + r"\unknown",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_input_is_answered_at_once(text: str) -> None:
    start = time.process_time()
    assert not equivalent(text, "42") and equivalent(text, f"{text} ")
    assert not equivalent(text, text + r"\different")
    assert time.process_time() - start < 2


def test_the_tables_have_no_pair_twice() -> None:
    pairs = [frozenset(pair) for pair in (*APART, *TOGETHER)]
    assert len(pairs) == len(set(pairs)) and not re.search("@", "".join("".join(pair) for pair in pairs))
