"""A user's own question format, and what is said of one that returns something else."""

from pathlib import Path
from typing import Any

import pytest

from east_ray.config import InputError, QuestionsConfig
from east_ray.questions import formats
from east_ray.questions.stage import load_questions

OWN = """
def read(row, settings):
    return {"question": row["ask"], "reference_answer": row["key"], "level": row["stars"], "question_id": row["n"]}

def bad(row, settings):
    return eval(row["ask"])

constant = 3
"""
ROWS = (
    '{"ask": "1 + 1?", "key": "2", "stars": 3, "n": "a", "unit": "m", "seen": [1]}\n'
    '{"ask": "2 + 2?", "key": null, "stars": 1, "n": "b", "unit": null, "seen": []}\n'
)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of questions, with a module of formats in the working directory."""
    (tmp_path / "own_format.py").write_text(OWN)
    (tmp_path / "q.jsonl").write_text(ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "q.jsonl"


def test_a_format_of_the_users_own_reads_a_file(own: Path) -> None:
    settings = QuestionsConfig(path=str(own), format="own_format:read", extra_columns=["unit", "seen"])
    asked, aside = load_questions(settings)
    assert asked.to_pylist() == [
        {"question_id": "a", "question": "1 + 1?", "reference_answer": "2", "reference_solution": None, "level": "3",
         "subject": None, "extra": '{"unit": "m", "seen": [1]}'}
    ]  # fmt: skip
    assert aside["question_id"].to_pylist() == ["b"] and aside["reason"].to_pylist() == ["unparsable_reference"]
    asked, aside = load_questions(settings, can_use=lambda reference: True)
    assert asked["question_id"].to_pylist() == ["a", "b"] and not aside.num_rows


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            "[1]",
            "row 1: own_format:bad returned a value of type list; expected a mapping of question, reference_answer",
        ),
        ("None", "row 1: own_format:bad returned None; expected a mapping of question,"),
        ("{'question': 'a?'}", "row 1: own_format:bad returned no 'reference_answer'; found 'question'"),
        ("{'reference_answer': '1'}", "row 1: own_format:bad returned no 'question'; found 'reference_answer'"),
        (
            "{'question': 3, 'reference_answer': '1'}",
            "row 1: own_format:bad returned a value of type int as 'question'; expected text",
        ),
        (
            "{'question': 'a?', 'reference_answer': 1.5}",
            "returned a value of type float as 'reference_answer'; expected text",
        ),
        (
            "{'question': 'a?', 'reference_answer': '1', 'level': [2]}",
            "returned a value of type list as 'level'; expected text or a number",
        ),
        (
            "{'question': 'a?', 'reference_answer': '1', 'refernce_solution': 'x'}",
            "returned the unknown key 'refernce_solution'; did you mean reference_solution?",
        ),
        ("1 / 0", "row 1: own_format:bad failed with ZeroDivisionError: division by zero"),
    ],
)
def test_a_result_that_is_no_question_is_one_sentence(own: Path, returned: str, message: str) -> None:
    own.write_text(f'{{"ask": "{returned}"}}\n')
    with pytest.raises(InputError) as error:
        load_questions(QuestionsConfig(path=str(own), format="own_format:bad"))
    assert message in str(error.value) and str(own) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"format": "own_format:constant"},
            "own_format:constant is of type int; expected a function of a row and the",
        ),
        ({"format": "own_format:none"}, "own_format:none cannot be loaded"),
        ({"extra_columns": ["units"]}, "q.jsonl, row 1: column 'units' is missing; found 'ask', 'key'"),
    ],
)
def test_a_format_that_does_not_fit_is_one_sentence(own: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        load_questions(QuestionsConfig(path=str(own), **{"format": "own_format:read"} | changes))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_settings_and_table_name_the_same_formats() -> None:
    (part,) = [mark for mark in QuestionsConfig.model_fields["format"].metadata if hasattr(mark, "names")]
    assert set(part.names) == set(formats.FORMATS)
    for name in formats.FORMATS:
        assert callable(formats.load(QuestionsConfig(path="q.jsonl", format=name)))
