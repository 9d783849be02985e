"""An answer's story: keys in words, why answers are equal or not, and `east-ray explain`."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray import cli
from east_ray.answers import canonical, equivalent
from east_ray.answers.explanation import answer_in_words, comparison, readings
from east_ray.answers.symbolic import words
from east_ray.config import InputError

WORDS = [
    (r"\frac{5}{2}", "the number 5/2"),
    (r"\sqrt2", "the number 1.414213562373095…"),
    ("2004!", "the number about 10^5748.7"),
    ("-0.000000012345", "the decimal -0.000000012345, equal to every value that it rounds"),
    ("3+4i", "the complex number 3 + 4i"),
    (r"-\frac{i}{2}", "the complex number (-1/2)i"),
    (r"-\infty", "minus infinity"),
    ("x^2 + y", "an expression in x, y: equal to every expression with the same values"),
    ("x^2 + y^2 = 1", "an equation: equal to every multiple of it"),
    ("x^2 > y", "an inequality with <: equal to every positive multiple of it"),
    ("no solution", "the empty set: no solution"),
    (r"\text{Acute triangle}", "the words acute triangle"),
    ("(B)", "the letter b, in either case"),
    ("4:30 p.m.", "the time of day 16:30"),
    ("0b1011", "the number 1011 in base 2"),
    (r"x \foo y", r"kept as written, token by token: x \foo y, because \foo is not known"),
    ("1 + 2 +", "kept as written, token by token: 1 + 2 +"),
    (r"\frac{1}{0}", "kept as written, sign by sign, because no value can be computed"),
    ("", "no words at all"),
    ("(0, 1]", "the interval (0, 1]"),
    ("x > 1", "the interval (1, ∞)"),
    ("(1, 2)", "the interval or pair (1, 2)"),
    ("(2, 1)", "the tuple (2, 1)"),
    ("3, 2 and 1", "the set {1, 2, 3}"),
    (", ".join(map(str, range(20))), "the set {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 8 more}"),
    (r"x \neq 5", "the set (-∞, 5) ∪ (5, ∞)"),
    (r"A \cap B", "the set A ∩ B"),
    (r"A \setminus B", "the set A ∖ B"),
    ("1:2:3", "the ratio 1 : 2 : 3"),
    (r"A \land B", "the proposition A ∧ B, in this order"),
    (r"B \lor A", "the proposition A ∨ B, in any order"),
    (r"\begin{cases} x & x > 0 \\ 0 & x < 0\end{cases}",
     "values with their conditions, in any order: [0, (-∞, 0)]; [x, (0, ∞)]"),
    (r"\begin{pmatrix}1&2\\3&x\end{pmatrix}", "the matrix [[1, 2], [3, x]]"),
    (r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", "the determinant |[1, 2], [3, 4]|"),
    ("x = 2, y = 1", "values of several unknowns: x = 2, y = 1"),
    ("x < 1, y < 2", "values of several unknowns: x: (-∞, 1), y: (-∞, 2)"),
    ("f(x) = 3, f(y) = 2", "values of several unknowns: f(x) = 3, f(y) = 2"),
    (r"A \subset B", "a relation that is not computed: A ⊂ B"),
    (r"b \parallel a", "a relation that is not computed: a ∥ b"),
    (r"k\pi, k \in \mathbb{Z}", "an expression with a letter in ℤ, whatever it is called"),
]  # fmt: skip

NOT_EQUAL = [
    ("2", "3", "2 is not 3"),
    ("5", "-5", "5 is not -5: the signs differ"),
    ("0.333", "1/3", "333/1000 is not 1/3: a decimal stands for other values only from 8 places on"),
    ("50%", "0.5", "50 is not 1/2: a percent sign is dropped, so 50% is 50 and not 0.5"),
    ("1.41421357", r"\sqrt2", "1.41421357 is not 1.414213562373095…: the last digits differ"),
    ("2004!", "2004!+1", "both are near about 10^5748.7, but not the same number"),
    ("1, 2", "(1, 2)", "the elements are the same, but a tuple has an order and a bare list has none"),
    ("(2, 1)", "(1, 2)", "the elements are the same in another order, which counts here"),
    ("(1, 2)", "[1, 2]", "the brackets differ: ( ) and [ ]"),
    ("(1, 2)", "(1, 2, 3)", "the first has 2 elements, the second 3"),
    ("(1, 2)", "(1, 3)", "element 2 differs: 2 is not 3"),
    ("1, 2, 3", "1, 2", "only the first has 3"),
    ("1, 2, 3", "1, 4, 5", "only the first has 2, 3; only the second has 4, 5"),
    ("1, 2", "1, 3", "they differ in one member: 2 is not 3"),
    ("x + 1", "x + 2", "the expressions have different values for the same values of the letters"),
    ("x + 1", "y + 1", "the letters differ: x and y"),
    ("x^2+y^2 = 1", "x^2+y^2 = 2", "neither equation is a multiple of the other"),
    ("x = 2, y = 1", "x = 1, y = 2", "x = 2, y = 1 is not {1, 2}: which value is that of which unknown counts"),
    (r"A \subset B", r"A \subseteq B", "the signs differ: ⊂ and ⊆"),
    (r"A \subset B", r"B \subset A", "the sides are the same in another order, which counts here"),
    ("yes", "no", '"yes" is not "no"'),
    ("5", "no", "the first is a number, the second words"),
    (r"\foo x", "5", "the first is kept as written, the second a number"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1&3\end{pmatrix}",
     "row 1 differs: entry 2 differs: 2 is not 3"),
    (r"k\pi, k \in \mathbb{Z}", r"k\pi, k \in \mathbb{N}", "the domains of the letters differ"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "said"), WORDS)
def test_how_an_answer_is_read(answer: str, said: str) -> None:
    assert answer_in_words(answer) == said


@pytest.mark.parametrize(("one", "other", "why"), NOT_EQUAL)
def test_why_two_answers_are_not_equal(one: str, other: str, why: str) -> None:
    assert comparison(one, other) == (False, why)
    assert comparison(other, one)[0] is False


def test_why_two_answers_are_equal() -> None:
    assert comparison("0.5", "1/2") == (True, "both are the number 1/2")
    rounding = "1.41421356 is a rounding of 1.414213562373095…"
    assert comparison("1.41421356", r"\sqrt2") == comparison(r"\sqrt2", "1.41421356") == (True, rounding)


KINDS = """
    number complex infinity expression equation inequality text written sequence set union intersection difference ratio
    cases matrix determinant system relation over ∧ ∨
"""


def test_every_kind_of_key_has_its_words() -> None:
    assert {words.kind_of(canonical(answer)) for answer, _ in WORDS} == set(KINDS.split())


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_answer_has_a_short_story(one: str, other: str) -> None:
    assert 0 < len(answer_in_words(one)) < 2 * words.MAX_CHARS
    is_equal, why = comparison(one, other)
    assert is_equal == equivalent(one, other) and 0 < len(why) <= words.MAX_CHARS + 20


def test_an_option_is_read_as_its_text_where_the_reference_is_no_letter() -> None:
    assert readings("12", ["(B) 12"]) == [("12", "the number 12"), ("(B) 12", "the number 12")]
    assert readings(None, ["(B) 12"]) == [("(B) 12", "the letter b, in either case")]


# -------------------------------------------------------------------------------------------------------- the command


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    cli.app(["explain", *arguments], standalone_mode=False)
    return capsys.readouterr().out.splitlines()


def test_answers_are_compared_with_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, "x=5", "-5", "five") == [
        "answer 1: x=5",
        "  read as the number 5",
        "answer 2: -5",
        "  read as the number -5",
        "answer 3: five",
        "  read as the number 5",
        "answer 1 and answer 2 are not equal",
        "  5 is not -5: the signs differ",
        "answer 1 and answer 3 are equal",
        "  both are the number 5",
    ]


@pytest.mark.parametrize("answer", [r"-\frac{h}{2}", "--5", "-h/2", "-5"])
def test_a_sign_makes_no_option(answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, answer)[0] == f"answer: {answer}"


NOTHING = "the response has no answer: nothing marks an answer; answers.last_number=true takes the last number"
UNCLOSED = "the response has no answer: a box, a formula or the thinking is not closed"
LAST_NUMBER = "the response's answer is found as the last number: nothing marks an answer"


@pytest.mark.parametrize(
    ("response", "settings", "said"),
    [
        (r"So \boxed{5}", [], ["the response's answer is found in a box", "  rule box; boxed", r"  … So \boxed{5} …"]),
        ("####\n5", [], ['the response\'s answer is found after "####"']),
        ("<answer>5</answer>", [], ["the response's answer is found in tags"]),
        ("The answer is 5.", [], ["the response's answer is found after words that announce it"]),
        ("5 is our answer.", [], ['the response\'s answer is found before words such as "is our answer"']),
        ("Option B is correct.", [], ['the response\'s answer is found in words such as "option B is correct"']),
        ("┌─┐\n│5│\n└─┘", [], ["the response's answer is found in a box drawn of characters, or marked by tokens"]),
        ("R: 5", [r"answers.pattern='R: (\d)'"], ["the response's answer is found by answers.pattern"]),
        ("It is 5", ["answers.last_number=true"], [LAST_NUMBER]),
        (r"<think>\boxed{5}", [], ["the response's answer is found in a box, in thinking; there is none outside it"]),
        ("It is 5", [], [NOTHING]),
        (r"\boxed{5", [], [UNCLOSED]),
        (r"<think>\boxed{5}", ["answers.unclosed_thinking=exclude"], [UNCLOSED]),
    ],
)  # fmt: skip
def test_a_response_says_where_its_answer_is(
    response: str, settings: list[str], said: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "response.txt").write_text(response)
    assert explain(capsys, "--response", str(tmp_path / "response.txt"), *settings)[: len(said)] == list(said)


def test_the_reference_comes_first_and_says_what_an_option_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, "(B) 12", "--reference", "12")[2:] == [
        "answer: (B) 12",
        "  read as the option's text, 12: the number 12",
        "reference and answer are equal",
        "  both are the number 12",
    ]
    assert "cannot be compared" in explain(capsys, "5", "--reference", "...")[0]


def test_a_run_decides_how_answers_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run.yaml"
    run.write_text(json.dumps({"run_dir": "r", "samples": {"path": "s.jsonl"}, "answers": {"equivalence": "string"}}))
    assert explain(capsys, "0.5", "1/2", "--run", str(run)) == [
        "answer 1: 0.5",
        "  read as the key '0.5'",
        "answer 2: 1/2",
        "  read as the key '1/2'",
        "answer 1 and answer 2 are not equal",
        "  the grader gives them different keys",
    ]


def test_a_grader_of_ones_own_tells_its_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "parity.py").write_text(
        "from east_ray.answers.grading import Reading\n"
        "class Parity:\n"
        "    def read(self, response, question):\n"
        "        return Reading(response.split()[-1], rule='last word')\n"
        "    def keys(self, answers, question):\n"
        "        return [int(answer) % 2 for answer in answers]\n"
    )
    run, response = tmp_path / "run.yaml", tmp_path / "response.txt"
    run.write_text(json.dumps({"run_dir": "r", "samples": {"path": "s.jsonl"}, "answers": {"grader": "parity:Parity"}}))
    response.write_text("It is 7")
    said = explain(capsys, "3", "--run", str(run), "--response", str(response))
    assert [line for line in said if not line.startswith("  read as the key ")] == [
        "the grader finds the response's answer by its rule last word; not boxed",
        "response: 7",
        "answer: 3",
        "response and answer are equal",
        "  the grader gives them the same key",
    ]
    with pytest.raises(InputError, match=r"answers\.grader"):
        explain(capsys, "no number", "--run", str(run))


def test_what_a_terminal_would_obey_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, "\x1b[31m5")[0] == "answer: \N{REPLACEMENT CHARACTER}[31m5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name at least one answer, or a file with a response: --response FILE"),
        (["5", "answers.last_number=maybe"], "answers.last_number: 'maybe' given, expected boolean"),
        (["5", "answers.last_numbr=true"], "answers.last_numbr: unknown key; did you mean last_number?"),
        (["--response", "nowhere.txt"], "nowhere.txt: cannot read the response (No such file or directory)"),
        (
            ["5", "--run", "nowhere.yaml"],
            "nowhere.yaml does not exist; expected a run directory or the YAML file of a run",
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError) as raised:
        explain(capsys, *arguments)
    assert str(raised.value) == message


def test_a_response_that_is_no_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "response").write_bytes(b"\xff5")
    with pytest.raises(InputError, match="not UTF-8"):
        explain(capsys, "--response", str(tmp_path / "response"))


def test_the_command_reads_the_input_and_starts_nothing() -> None:
    script = (
        "import sys; from east_ray import cli\n"
        "sys.argv = ['east-ray', 'explain', '--response', '-', '--reference', '5']\n"
        "try: cli.main()\n"
        "except SystemExit as end: print(end.code, sorted({'ray', 'torch', 'vllm'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], input=r"So \boxed{5}", capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.splitlines()[-1] == "0 []" and "  both are the number 5" in result.stdout
