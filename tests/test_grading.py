"""Responses -> clusters: the one grading function, graders of a user's own, and answers/ beside samples/."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.answers import graders
from east_ray.answers.graders import MathGrader
from east_ray.answers.grading import Graded, Reading, Tally, clustered, measured, reference_check
from east_ray.answers.stage import answers_table, graded_rows, paired, write_answers
from east_ray.config import AnswersConfig, InputError
from east_ray.records import ANSWERS, SAMPLES, Cluster, Question
from east_ray.storage import Folder, locate

QUESTION = Question("q", "What is one half?", "0.5")
#: Two spellings of each answer, none, and an answer outside a box.
TEXTS = st.lists(
    st.sampled_from([r"\boxed{1/2}", r"So \boxed{0.5}.", r"\boxed{3}", "The answer is 3.", r"\boxed{9/3}", "?"]),
    max_size=20,
)


def test_the_cluster_of_the_reference_is_correct_and_the_largest_comes_first() -> None:
    texts = [r"\boxed{3}", r"\boxed{1/2}", "?", r"\boxed{0.5}", "It is 3 so the answer is 3."]
    graded = clustered([*texts, r"\boxed{5}"], QUESTION, MathGrader())
    assert graded.answers == ["3", "1/2", None, "0.5", "3", "5"]
    assert graded.is_boxed == [True, True, False, True, False, True]
    assert graded.cluster == [0, 1, 2, 1, 0, 3]
    assert graded.clusters == [
        Cluster("3", 2, False), Cluster("1/2", 2, True), Cluster(None, 1, False), Cluster("5", 1, False),
    ]  # fmt: skip
    assert graded.can_use_reference


def test_without_a_usable_reference_nothing_is_correct() -> None:
    for reference in (None, " ", "..."):
        graded = clustered([r"\boxed{3}", "?"], Question("q", "?", reference), MathGrader())
        assert not graded.can_use_reference and not any(one.is_correct for one in graded.clusters)


def test_equivalence_and_the_last_number_are_settings_of_the_mathematical_grader() -> None:
    texts = [r"\boxed{1/2}", r"\boxed{0.5}", "Janet makes 18 dollars."]
    assert clustered(texts, QUESTION, MathGrader()).cluster == [0, 0, 1]
    assert clustered(texts, QUESTION, MathGrader(equivalence="string")).cluster == [0, 1, 2]
    assert clustered(texts, QUESTION, MathGrader(last_number=True)).answers[2] == "18"
    assert [MathGrader(last_number=True).read(text, QUESTION).rule for text in (*texts, "So the answer is 4.")] == [
        "box", "box", "last_number", "words",
    ]  # fmt: skip


def test_the_settings_of_answers_reach_the_built_in_grader_and_its_arguments_come_first() -> None:
    texts = [r"\boxed{1/2}", "Janet makes 0.5 dollars."]
    as_set = graders.load(AnswersConfig(equivalence="string", last_number=True))
    assert clustered(texts, QUESTION, as_set).cluster == [0, 1]
    assert clustered(texts, QUESTION, as_set).answers == ["1/2", "0.5"]
    assert clustered(texts, QUESTION, graders.load(AnswersConfig())).answers == ["1/2", None]
    arguments = AnswersConfig(equivalence="string", grader_args={"equivalence": "math", "last_number": True})
    assert clustered(texts, QUESTION, graders.load(arguments)).cluster == [0, 0]


def test_a_key_may_be_none_and_an_answer_with_it_is_not_a_missing_answer() -> None:
    class Unsure(MathGrader):
        def keys(self, answers: Sequence[str], question: Question) -> list[None]:
            return [None for _ in answers]

    assert clustered(["?", r"\boxed{3}", r"\boxed{4}"], QUESTION, Unsure()).cluster == [1, 0, 0]


@given(TEXTS, st.integers(0, 20))
def test_the_first_responses_alone_are_graded_as_if_there_were_no_others(texts: list[str], size: int) -> None:
    graded = clustered(texts, QUESTION, MathGrader())
    assert graded.first(size) == clustered(texts[:size], QUESTION, MathGrader())
    assert graded.first(None) == graded


@given(TEXTS, st.lists(st.integers(1, 5), max_size=20))
def test_responses_that_arrive_in_pieces_are_graded_as_one_list(texts: list[str], pieces: list[int]) -> None:
    tally, begin = Tally(QUESTION, MathGrader()), 0
    for size in [*pieces, len(texts)]:
        tally.add(texts[begin : begin + size])
        tally.graded()
        begin += size
    assert tally.graded() == clustered(texts, QUESTION, MathGrader())


@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_responses_changes_no_size(texts: list[str], random: Any) -> None:
    shuffled = list(texts)
    random.shuffle(shuffled)
    sizes = [
        sorted((one.num_responses, one.is_correct) for one in clustered(some, QUESTION, MathGrader()).clusters)
        for some in (texts, shuffled)
    ]
    assert sizes[0] == sizes[1]


def test_every_distinct_response_is_read_once_and_keys_are_made_only_for_new_answers() -> None:
    class Counting(MathGrader):
        reads, compared = 0, 0

        def read(self, response: str, question: Question) -> Reading:
            self.reads += 1
            return super().read(response, question)

        def keys(self, answers: Sequence[str], question: Question) -> Any:
            self.compared += 1
            return super().keys(answers, question)

    grader = Counting()
    tally = Tally(QUESTION, grader)
    for number in range(128):
        tally.add([f"\\boxed{{{number % 4}}}"])
        tally.graded()
    assert (grader.reads, grader.compared) == (4, 4)


def test_a_signal_sees_rates_of_all_responses_and_no_answer_counts_or_not() -> None:
    clusters = [Cluster(None, 4, False), Cluster("1", 2, True), Cluster("2", 2, False)]
    assert measured("q", clusters).entropy == pytest.approx(1.5 * 0.6931471805599453)
    alone = measured("q", clusters, "exclude")
    assert alone.entropy == pytest.approx(0.6931471805599453)
    assert (alone.pass_rate, alone.rejected_rate, alone.num_responses) == (0.25, 0.25, 8)


class FirstWord:
    """A grader as a user writes one: no base class, no boxes, its own reading of what is equal."""

    def __init__(self, lower: bool = False) -> None:
        self._lower = lower

    def read(self, response: str, question: Question) -> str | None:
        return next(iter(response.split()), None)

    def keys(self, answers: Sequence[str], question: Question) -> list[str]:
        return [answer.lower() if self._lower else answer for answer in answers]


def test_a_grader_of_a_user_s_own() -> None:
    texts, question = ["Yes it is", "yes", "no", ""], Question("q", "?", "YES")
    assert [one.is_correct for one in clustered(texts, question, FirstWord(lower=True)).clusters] == [
        True,
        False,
        False,
    ]
    assert clustered(texts, question, FirstWord()).cluster == [0, 1, 2, 3]
    assert clustered(texts, Question("q", "?", None), FirstWord()).can_use_reference is False


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"read": lambda self, response, question: 1 / 0}, "Broken.read raised ZeroDivisionError"),
        (
            {"read": lambda self, response, question: 42},
            "Broken.read returned int; expected a string, None or a Reading",
        ),
        ({"keys": lambda self, answers, question: []}, "Broken.keys returned 0 keys for 2 answers"),
        ({"keys": lambda self, answers, question: [[] for _ in answers]}, "Broken.keys raised TypeError"),
    ],
)
def test_where_a_grader_fails_there_is_no_answer_and_the_first_error_is_named(
    methods: dict[str, Any], message: str
) -> None:
    grader = type("Broken", (FirstWord,), methods)()
    graded = clustered(["yes", "yes"], Question("q7", "?", "no"), grader)
    assert graded.clusters == [Cluster(None, 2, False)] and graded.num_failed == 2
    assert graded.error is not None and message in graded.error and graded.error.endswith("(question q7)")


def test_other_responses_keep_their_answers() -> None:
    class Picky(FirstWord):
        def read(self, response: str, question: Question) -> str | None:
            if response == "bad":
                raise ValueError("a bad one\nand more")
            return super().read(response, question)

    graded = clustered(["yes", "bad", "", "yes", "bad"], Question("q", "?", "yes"), Picky())
    assert graded.clusters == [Cluster(None, 3, False), Cluster("yes", 2, True)]
    assert (graded.num_failed, graded.error) == (2, "Picky.read raised ValueError: a bad one (question q)")
    assert reference_check(type("Broken", (Picky,), {"can_use": lambda self, answer: 1 / 0})())("yes")


def test_a_grader_is_made_with_its_arguments_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_graders.py").write_text(
        "class Loud:\n    def __init__(self, mark='!'):\n        self.mark = mark\n"
        "    def read(self, response, question):\n        return response if response.endswith(self.mark) else None\n"
        "    def keys(self, answers, question):\n        return answers\n"
        "class Mute:\n    def read(self, response, question):\n        return None\n"
        "class Locked(Loud):\n    def __init__(self):\n        import threading\n        self.lock = threading.Lock()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    grader = graders.load(AnswersConfig(grader="my_graders:Loud", grader_args={"mark": "?"}))
    assert clustered(["a?", "a!"], Question("q", "?", "a?"), grader).answers == ["a?", None]
    for values, message in [
        (
            {"grader": "my_graders:Loud", "grader_args": {"size": 1}},
            "grader_args: my_graders:Loud cannot be made",
        ),
        ({"grader": "my_graders:Mute"}, "my_graders:Mute has no method keys; expected read and keys, or a function"),
        ({"grader": "my_graders:Locked"}, "my_graders:Locked cannot be pickled"),
        ({"grader": "my_graders:Soft"}, "my_graders:Soft"),
        ({"grader": "no_such_module:Soft"}, "no_such_module"),
    ]:
        with pytest.raises(InputError, match=message):
            graders.load(AnswersConfig.model_validate(values))


# ------------------------------------------------------------------------------------------------------------ answers/


def sampled(question_id: str, texts: Sequence[str], reference: str | None = "0.5") -> dict[str, Any]:
    responses = [{"text": text, "num_tokens": 3, "finish_reason": "stop", "logprob": None} for text in texts]
    row = {"question_id": question_id, "question": "?", "reference_answer": reference, "model": "base"}
    return dict.fromkeys(SAMPLES.names) | row | {"responses": responses}


@given(st.lists(TEXTS, max_size=5))
def test_a_table_of_answers_gives_back_what_was_graded(questions: list[list[str]]) -> None:
    asked = [Question(f"q{number}", "?", "0.5") for number in range(len(questions))]
    graded = [clustered(*pair, MathGrader()) for pair in zip(questions, asked, strict=True)]
    table = answers_table(asked, graded)
    assert table.schema.equals(ANSWERS) and graded_rows(table) == graded
    assert graded_rows(table.slice(1)) == graded[1:]


def test_answers_lie_beside_the_samples_part_for_part(tmp_path: Path, local_ray: None) -> None:
    folder = Folder(*locate(str(tmp_path)))
    rows = [sampled(f"q{number}", [r"\boxed{0.5}", r"\boxed{1/2}", f"\\boxed{{{number}}}", "?"]) for number in range(9)]
    for number in range(3):
        (folder / "samples").write_part(pa.Table.from_pylist(rows[number::3], SAMPLES), f"part-{number}.parquet")
    (counts,) = write_answers(folder / "samples", folder / "answers", MathGrader())
    assert counts == {"num_questions": 9, "num_responses": 36, "num_answerless": 9, "num_failed": 0, "error": ""}
    assert (folder / "answers").names() == (folder / "samples").names()
    columns = ["question_id", "responses.list.element.text"]
    found = {
        question_id: graded
        for batch, some in paired(folder / "samples", folder / "answers", None, columns, max_rows=2)
        for question_id, graded in zip(batch["question_id"].to_pylist(), some, strict=True)
    }
    assert set(found) == {row["question_id"] for row in rows}
    for row in rows:
        texts = [response["text"] for response in row["responses"]]
        expected: Graded = clustered(texts, Question.of(row), MathGrader())
        assert found[row["question_id"]] == expected
        assert expected.clusters[0] == Cluster("0.5", 2, True)


def test_samples_without_answers_are_refused_with_the_verb_that_makes_them(tmp_path: Path) -> None:
    folder = Folder(*locate(str(tmp_path)))
    (folder / "samples").write_part(pa.Table.from_pylist([sampled("q", ["?"])], SAMPLES), "part-0.parquet")
    with pytest.raises(InputError, match="run `east-ray weigh`"):
        list(paired(folder / "samples", folder / "answers", None, ["question_id"], max_rows=2))
