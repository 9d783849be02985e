"""The graders choice, text and number: how an answer is found, and which answers are equal."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.answers import graders
from east_ray.answers.grading import clustered
from east_ray.answers.short_answers import ChoiceGrader, NumberGrader, TextGrader, words
from east_ray.config import AnswersConfig, InputError
from east_ray.records import Question

OPTIONS = ["Lyon", "Paris", "The Hague", "12"]
KNOWN, UNKNOWN = Question("q", "?", extra={"options": OPTIONS}), Question("q", "?")


# -------------------------------------------------------------------------------------------------------------- choice


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        *(
            (form, "B")
            for form in ("B", "b", "(B)", "[B]", "B.", "B)", "**B**", "**(B)**", "$B$", "Option B", "B:", '"B"')
        ),
        *((form, "B") for form in (r"\boxed{B}", r"\boxed{\text{B}}", r"\boxed{\text{(B)}}", r"\boxed{(B)}", "#### B")),
        *(
            (f"{words} B", "B")
            for words in ("Answer:", "The answer is", "Final answer:", "The best choice is", "答案是")
        ),
        ("The correct answer is (C) because it is small.", "C"),
        ("The best choice is C, since it is small.", "C"),
        ("So the correct option is D.", "D"),
        ("Let us see.\n\n(d)", "D"),
        ("Let us see.\n\n**D)**", "D"),
        ("A: no. B: yes.\n<answer>B</answer>", "B"),
        ("<think>A or B? The answer is A.</think>\nThe answer is B.", "B"),
        ("Answer: A and C", "A, C"),
        ("Answer: C, A", "A, C"),
        ("I do not know.", None),
        ("A good question. Let me think.", None),
        ("I would say so", None),
        ("", None),
    ],
)
def test_a_letter_in_any_form(response: str, letter: str | None) -> None:
    for question in (KNOWN, UNKNOWN):
        assert ChoiceGrader().read(response, question).answer == letter


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("Paris", "B"),
        ("paris.", "B"),
        ("The answer is Paris.", "B"),
        ("The answer is the Hague.", "C"),
        (r"\boxed{12}", "D"),
        (r"\textbf{(D)} 12", "D"),
        ("Answer: B) Paris", "B"),
        ("**Answer: B. Paris**", "B"),
        ("B. Paris", "B"),
        ("Long.\n**B)** Paris", "B"),
        ("Answer: B. Paris, which is the capital.", "B"),
        (r"\boxed{B. Paris}", "B"),
        ("(B) because it is the capital", "B"),
        ("Lyon is not it.", None),
        ("Rome", None),
    ],
)
def test_an_option_s_text_means_its_letter(response: str, letter: str | None) -> None:
    assert ChoiceGrader().read(response, KNOWN).answer == letter


@pytest.mark.parametrize(
    "answer", ["E", "B) Lyon", "(B) 12", "A or B", "B, or A", "none of them", "Rome", "Paris or Lyon"]
)
def test_what_names_no_option_equals_none(answer: str) -> None:
    keys = ChoiceGrader().keys([*"ABCD", answer], KNOWN)
    assert len(set(keys)) == 5


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        ["A. Lyon", "B. Paris", "C. The Hague", "D. 12"],
        {"A": "Lyon", "B": "Paris", "C": "The Hague", "D": "12"},
        {"text": OPTIONS, "label": ["A", "B", "C", "D"]},
    ],
)
def test_the_columns_in_which_options_are_known(options: Any) -> None:
    question = Question("q", "?", "paris", extra={"choices": options})
    graded = clustered(["(b)", "Paris", "B) Paris", "A"], question, ChoiceGrader(options="choices"))
    assert graded.answers == ["B", "B", "B", "A"] and graded.clusters[0].is_correct
    numbered = Question("q", "?", "2", extra={"options": {"1": "Lyon", "2": "Paris"}})
    assert ChoiceGrader().keys(["2", "(2)", "Paris", "1"], numbered) == ["2", "2", "2", "1"]


# ---------------------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("The Eiffel Tower.", "eiffel tower"),
        ("an apple", "Apple!"),
        ("U.S.A.", "USA"),
        ("Don't", "dont"),
        ("well-known", "wellknown"),
        ("1,000 men", "1000 men"),
        ("$5", "5"),
        ("5 %", "5%"),
        ("1939–1945", "1939-1945"),
        ("STRASSE", "Straße"),
        ("Ｐａｒｉｓ", "paris"),
        ("“Hamlet”", "Hamlet"),
        (r"\text{New York}", "new  york"),
        ("北京。", "北京"),
    ],
)
def test_equal_words(a: str, b: str) -> None:
    assert words(a) == words(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("3.5", "35"), ("-5", "5"), ("1/2", "12"), ("10%", "10"), ("3:00", "300"), ("1939-1945", "19391945"),
        ("1,2", "12"), ("C++", "C"), ("C#", "C"), ("five", "5"), ("A", "The"), ("+", "-"), ("José", "Jose"),
        ("an", "a"), ("new york", "newyork"), ("", "a"), (".5", "5"), ("2^3", "23"), ("x^2", "x2"), ("2+3", "23"),
    ],
)  # fmt: skip
def test_different_words(a: str, b: str) -> None:
    assert words(a) != words(b)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Paris", "Paris"),
        ("The answer is William Shakespeare, who wrote Hamlet.", "William Shakespeare"),
        ("Answer: the Eiffel Tower", "the Eiffel Tower"),
        ("the answer is a dog. It barks.", "a dog. It barks"),
        ("The answer is Rome. It is old.", "Rome"),
        ("Answer: J. R. R. Tolkien", "J. R. R. Tolkien"),
        ("Answer: Dr. No", "Dr. No"),
        ("Answer: 12 Angry Men", "12 Angry Men"),
        ("Answer: in 3.5 hours. Bye", "in 3.5 hours"),
        ("**Final answer:** *Paris*\nBye", "Paris"),
        ("Answer:\n\nParis", "Paris"),
        (r"So \boxed{\text{Paris}}.", r"\text{Paris}"),
        ("I look.\n#### New York", "New York"),
        ("<answer>mount everest</answer>", "mount everest"),
        ("La respuesta es Madrid.", "Madrid"),
        ("答案是：北京。", "北京"),
        ("<think>The answer is Rome</think>\nParis", "Paris"),
        ("First.\nSecond.", None),
        ("x" * 201, None),
        ("", None),
    ],
)
def test_the_text_of_an_answer(response: str, answer: str | None) -> None:
    assert TextGrader().read(response, UNKNOWN).answer == answer


@given(st.text(max_size=30))
def test_words_are_those_of_their_words(text: str) -> None:
    assert words(f" The {text} ") in (words(text), words(f"the {text}"))
    assert words(text.upper()) == words(text.upper().lower())


# -------------------------------------------------------------------------------------------------------------- number


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("42", 42), ("-5", -5), ("−5", -5), ("3.50", 3.5), (".5", 0.5), ("1,234,567", 1234567), ("1.5e-3", 0.0015),
        (r"1.5 \times 10^{-3}", 0.0015), ("1.2E+05", 120000), ("3/4", 0.75), (r"\frac{3}{4}", 0.75), ("1 3/4", 1.75),
        ("45%", 45), ("$5", 5), ("5 apples", 5), ("3 million", 3000000), ("x = 5", 5), (r"\sqrt{2}", 1.414214),
        ("1/3", 0.333333),
    ],
)  # fmt: skip
def test_numbers(answer: str, value: float) -> None:
    assert NumberGrader().keys([answer], UNKNOWN) == [Fraction(str(value))]
    assert NumberGrader().can_use(answer) and NumberGrader().read(answer, UNKNOWN).answer == answer


@pytest.mark.parametrize("answer", ["Paris", "x", "", "1, 2", "1e999999999", "5 or 6", "two Parises"])
def test_what_is_no_number_is_no_answer(answer: str) -> None:
    assert not NumberGrader().can_use(answer)
    assert NumberGrader().read(f"Answer: {answer}", UNKNOWN).answer is None


def test_numbers_are_equal_when_rounded() -> None:
    question = Question("q", "?", "3.14")
    texts = [r"\boxed{3.14159}", "The answer is 3.1410", "3.15", "Answer: 22/7", "1e-9", "2e-9", "0"]
    assert clustered(texts, question, NumberGrader(digits=2)).cluster == [0, 0, 1, 0, 2, 3, 4]
    assert clustered(texts, question, NumberGrader(digits=None)).cluster == list(range(7))
    assert clustered(["1/3", "0.33333333"], question, NumberGrader()).cluster == [0, 0]


# ------------------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize("name", ["choice", "text", "number"])
def test_the_settings_of_reading_reach_every_grader(name: str) -> None:
    response = "I say: <<3>>\nErgebnis: 4\nThe answer is 5."

    def read(response: str = response, **values: Any) -> str | None:
        found = graders.load(AnswersConfig(grader=name, **values)).read(response, UNKNOWN)
        return getattr(found, "answer", None)

    if name != "choice":
        assert read() == "5"
        assert read(pattern="<<(.+?)>>") == "3"
        assert read("Mein Fazit: 4", announcements=["Fazit"]) == "4"
        assert read("<think>The answer is 4.", unclosed_thinking="exclude") is None
    assert read("Nothing\nat all", pattern="<<(.+?)>>") is None
    with pytest.raises(InputError, match="grader_args"):
        graders.load(AnswersConfig(grader=name, grader_args={"digit": 3}))


def test_digits_are_a_number_of_places() -> None:
    with pytest.raises(InputError, match="digits: -1 is no whole number"):
        graders.load(AnswersConfig(grader="number", grader_args={"digits": -1}))


def test_the_line_after_hashes_is_the_answer_and_a_heading_is_none() -> None:
    texts = ["#### A Dr. Who", "#### 12 km\n\n#### 2. Check the sum"]
    found = [TextGrader().read(text, Question("q", "?")) for text in texts]
    assert [(one.answer, one.rule) for one in found] == [("A Dr. Who", "hashes"), ("12 km", "hashes")]
