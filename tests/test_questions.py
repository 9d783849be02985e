"""Loaders on the benchmarks' own files and on bad input; prompts with exactly one beginning-of-sequence token."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from east_ray.config import InputError, PromptConfig, QuestionsConfig
from east_ray.questions.formats import reference_answer
from east_ray.questions.prompts import end_of_turn, load_tokenizer, prompts_within, render_prompt, tokenize
from east_ray.questions.stage import load_questions, none_can_be_asked
from east_ray.records import QUESTIONS, SET_ASIDE

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
MODEL = str(ROOT / "jobs" / "quickstart" / "model")

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="GSM8K and MATH are not part of the repository")


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@needs_data
@pytest.mark.parametrize(
    ("file", "count", "empty"),
    [
        ("gsm8k/train.jsonl", 7473, []),
        ("gsm8k/test.jsonl", 1319, []),
        # Two solutions end in "\\boxed{}": the benchmark itself lost their answer, which was 0.
        ("math/train.jsonl", 7500, ["train/number_theory/7115.json", "train/number_theory/7117.json"]),
        ("math/test.jsonl", 5000, []),
    ],
)
def test_every_benchmark_question_loads_with_its_reference_answer(file: str, count: int, empty: list[str]) -> None:
    questions, aside = load_questions(QuestionsConfig(path=str(DATA / file)))
    assert questions.num_rows + aside.num_rows == count
    assert aside["question_id"].to_pylist() == empty
    assert questions["reference_answer"].null_count == 0
    assert all("\\boxed" in solution for solution in questions["reference_solution"].to_pylist())
    assert len(set(questions["question_id"].to_pylist())) == count - len(empty)


def test_gsm8k_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl",
        {"question": "Clips?", "answer": "She sold 48/2 = <<48/2=24>>24.\nIn all <<48+24=72>>72.\n#### 72"},
        {"question": "Cost?", "answer": "It is \\boxed{1,000}.\n#### 1,000", "reference_is_wrong": True},
    )
    questions, _ = load_questions(QuestionsConfig(path=path))
    assert questions.to_pylist()[0] == {
        "question_id": "train-000001",
        "question": "Clips?",
        "reference_answer": "72",
        "reference_solution": "She sold 48/2 = 24.\nIn all 72.\nThe answer is \\boxed{72}.",
        "level": None,
        "subject": None,
        "extra": None,
    }
    # A solution that has its box keeps it; a field that nobody asked for is not read.
    assert questions.to_pylist()[1]["reference_solution"] == "It is \\boxed{1,000}."
    assert questions.schema == QUESTIONS


def test_math_rows(tmp_path: Path) -> None:
    row = {"problem": "x?", "solution": "So $x=\\boxed{\\frac{1}{2}}$.", "level": "Level 5", "subject": "Algebra"}
    path = write(tmp_path / "m.jsonl", row | {"unique_id": "a/1"}, row | {"unique_id": "a/2", "answer": "0.5"})
    questions, _ = load_questions(QuestionsConfig(path=path))
    assert questions["question_id"].to_pylist() == ["a/1", "a/2"]
    assert questions["reference_answer"].to_pylist() == ["\\frac{1}{2}", "0.5"]
    assert questions["level"].to_pylist() == ["Level 5", "Level 5"]
    numbered, _ = load_questions(QuestionsConfig(path=write(tmp_path / "n.jsonl", row | {"level": 2})))
    assert numbered["level"].to_pylist() == ["2"]  # MATH-500 has numbers


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".json", ".jsonl"])
def test_any_file_with_mapped_columns(tmp_path: Path, suffix: str) -> None:
    rows = [{"name": f"q{i}", "prompt": f"{i}+1?", "final": i + 1, "why": f"it is {i + 1}"} for i in range(3)]
    path = tmp_path / f"own{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".csv":
        path.write_text("name,prompt,final,why\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows))
    else:
        path.write_text(json.dumps(rows) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    settings = QuestionsConfig(
        path=str(path), format="columns", question_column="prompt", reference_answer_column="final",
        reference_solution_column="why", id_column="name", skip=1, max_questions=1,
    )  # fmt: skip
    questions, _ = load_questions(settings)
    (row,) = questions.to_pylist()
    assert (row["question_id"], row["question"], row["reference_answer"]) == ("q1", "1+1?", "2")
    assert row["reference_solution"] == "it is 2\nThe answer is \\boxed{2}."


def test_rows_without_a_usable_reference_are_set_aside_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl",
        {"question": "good?", "reference_answer": "1"},
        {"question": "null?", "reference_answer": None},
        {"question": "empty?", "reference_answer": "  "},
        {"question": "", "reference_answer": "3"},
        {"question": "dots?", "reference_answer": "..."},
    )
    questions, aside = load_questions(QuestionsConfig(path=path))
    assert questions["question_id"].to_pylist() == ["q-000001"]
    unparsable = "unparsable_reference"
    assert aside["reason"].to_pylist() == [unparsable, unparsable, "empty_question", unparsable]
    assert aside["question_id"].to_pylist() == ["q-000002", "q-000003", "q-000004", "q-000005"]
    assert [detail.removeprefix(path) for detail in aside["detail"].to_pylist()] == [
        ", row 2: the reference answer is null or missing",
        ", row 3: the reference answer '' is no answer",
        ", row 4",
        ", row 5: the reference answer '...' is no answer",
    ]


GOOD = {"question": "a?", "answer": "#### 1"}


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("none.jsonl", None, {}, "does not exist"),
        ("folder.jsonl", "folder", {}, "is an empty folder; expected files with rows"),
        ("empty.jsonl", "", {}, "is empty"),
        ("empty.json", "", {}, "is empty"),
        ("blank.jsonl", "\n\n", {}, "the file is empty"),
        ("bad.jsonl", "{'question': 1}\n", {}, "bad.jsonl, row 1: not valid JSON"),
        ("list.jsonl", "[1]\n", {}, "list.jsonl, row 1: expected a JSON object, found list"),
        (
            "bytes.jsonl",
            '{"question": "café?"}\n'.encode("cp1252"),
            {},
            "it seems to be cp1252, which `encoding: cp1252`",
        ),
        ("other.txt", "x", {}, "found 1 .txt file; expected .jsonl, .ndjson, "),
        ("broken.parquet", "x", {}, "cannot be read as parquet"),
        ("odd.jsonl", '{"q": 1}\n', {}, "set questions.format: columns and name them"),
        ("empty_object.json", "{}", {}, "the file is empty; expected at least one question"),
        (
            "gone.jsonl",
            '\n{"question": "b?"}\n',
            {"format": "gsm8k"},
            "row 2: column 'answer' is missing; found 'question'",
        ),
        (
            "near.jsonl",
            '{"doc": {"query": "b?"}, "reward_model": {"ground_truth": 1}}\n',
            {"format": "columns", "question_column": "doc.query", "reference_answer_column": "reward.ground_truth"},
            "row 1: field 'reward.ground_truth' is missing; found 'doc', 'reward_model'; did you mean "
            "reward_model.ground_truth?",
        ),
        ("skip.jsonl", json.dumps(GOOD) + "\n", {"skip": 5}, "no question is left after skip 5 of 1"),
        (
            "twice.jsonl",
            '{"i": 7, "question": "a?", "reference_answer": "1"}\n{"i": 7, "question": "", "reference_answer": ""}\n',
            {"format": "columns", "id_column": "i"},
            "row 2: question_id '7' occurs already in",
        ),
    ],
)
def test_bad_files_are_one_sentence(
    tmp_path: Path, name: str, content: str | bytes | None, settings: dict[str, object], message: str
) -> None:
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        load_questions(QuestionsConfig(path=str(path), **settings))  # type: ignore[arg-type]
    assert message in str(error.value)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        ("{'question': 1}", "not valid JSON"),
        ('{"question": "b', "not valid JSON"),
        ("[1]", "expected a JSON object, found list"),
        ('{"question": "b?"}', "column 'answer' is missing; found 'question'"),
        ('{"question": "b?", "answer": true}', "answer: expected text or a number, found bool"),
        ('{"question": "b?", "answer": {"value": 3}}', "found dict with 'value'; a dotted name leads into it"),
        ('{"question": "b?", "answer": [1, 2]}', "answer: expected text or a number, found list"),
        ('{"question": ["b?", "c?"], "answer": 1}', "question: expected text or messages, found list"),
        ('{"question": {"stem": "b?"}, "answer": 1}', "question: expected text or messages, found dict with 'stem'"),
        ('{"question": 5, "answer": 1}', "question: expected text or messages, found int"),
        (
            '{"question": [{"role": "system", "content": "b?"}], "answer": 1}',
            "turn of the user, found turns of 'system'",
        ),
        ('{"question": "\\ud800", "answer": 1}', "half of a surrogate pair"),
    ],
)
def test_a_bad_row_is_set_aside_with_what_is_wrong_unless_all_are(tmp_path: Path, bad: str, detail: str) -> None:
    path, settings = tmp_path / "q.jsonl", {"format": "columns", "reference_answer_column": "answer"}
    good = json.dumps({"question": "a?", "answer": 1})
    path.write_text(f"{good}\n\n{bad}\n{good}\n")
    asked, aside = load_questions(QuestionsConfig(path=str(path), **settings))  # type: ignore[arg-type]
    assert asked["question_id"].to_pylist() == ["q-000001", "q-000004"]
    ((row),) = aside.to_pylist()
    assert (row["question_id"], row["reason"]) == ("q-000003", "malformed_row")
    assert row["detail"].startswith(f"{path}, row 3: ") and detail in row["detail"]
    path.write_text(f"{bad}\n")
    with pytest.raises(InputError) as error:
        load_questions(QuestionsConfig(path=str(path), **settings))  # type: ignore[arg-type]
    assert detail in str(error.value) and "\n" not in str(error.value)


def test_bytes_are_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": [b"a?"], "answer": ["1"]}), tmp_path / "q.parquet")
    with pytest.raises(InputError, match=r"q.parquet, row 1: question: expected text or messages, found bytes"):
        load_questions(QuestionsConfig(path=str(tmp_path / "q.parquet")))


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("72", "72"), (" 72 ", "72"), (72, "72"), (72.0, "72"), (0.5, "0.5"), ([72], "72"), ([["1/2"]], "1/2"),
        ("3 * 24 = 72\n#### 72", "72"), ("So \\(x = 2\\), $\\boxed{\\frac12}$.", "\\frac12"),
        ("We add them up. The final answer is 72.", "72"),
        ("none of the parts marks it", "none of the parts marks it"),
        ("#### ", None), (None, None), (float("nan"), None), ("x = 5", "x = 5"),
    ],
)  # fmt: skip
def test_a_reference_is_an_answer_or_a_worked_solution_that_marks_it(value: Any, answer: str | None) -> None:
    assert reference_answer(value) == answer


def test_words_that_stand_for_no_answer_are_set_aside(tmp_path: Path) -> None:
    said = ["proof", "NotFound", " nan", "1", "proof of concept", "Not Found", "N/A", "null", "None", "\\text{none}"]
    path = write(tmp_path / "q.jsonl", *({"question": "a?", "reference_answer": one} for one in said))
    asked, aside = load_questions(QuestionsConfig(path=path))
    assert asked["reference_answer"].to_pylist() == ["1", "proof of concept", "\\text{none}"]
    assert set(aside["reason"].to_pylist()) == {"unparsable_reference"} and aside.num_rows == 7


def test_a_folder_of_files_with_dotted_names(tmp_path: Path) -> None:
    for split, number in (("a", 1), ("b", 2)):
        row = {"prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": f"{number}?"}]}
        row |= {"extra_info": {"index": number, "tags": ["x", split]}, "reward_model": {"ground_truth": [str(number)]}}
        (tmp_path / split).mkdir()
        write(tmp_path / split / "1.json", row)
    (tmp_path / "README.md").write_text("x")
    settings = QuestionsConfig(
        path=f"{tmp_path}/*", format="columns", question_column="prompt",
        reference_answer_column="reward_model.ground_truth", extra_columns=["extra_info.tags.1"],
    )  # fmt: skip
    asked, _ = load_questions(settings)
    assert asked["question_id"].to_pylist() == ["a/1-000001", "b/1-000001"]
    assert asked["question"].to_pylist() == ["1?", "2?"]
    assert asked["reference_answer"].to_pylist() == ["1", "2"]
    assert json.loads(asked["extra"][1].as_py()) == {"extra_info.tags.1": "b"}
    named, _ = load_questions(settings.model_copy(update={"id_column": "extra_info.index"}))
    assert named["question_id"].to_pylist() == ["1", "2"]


GIVEN = DATA / "given_questions"
_NUMBERS = [str(23 + 2 * i) for i in range(12)]
_COLUMNS = {"format": "columns"}
#: Of each file: the settings it needs, if any; and its references, or the sentence with which it is refused. None: its
#: row is set aside.
_QUESTIONS: dict[str, tuple[dict[str, Any], list[str | None] | str]] = {
    "aime24_h4": ({}, [f"0{number}" for number in _NUMBERS]),
    "aime24_mj": (_COLUMNS | {"question_column": "Problem", "reference_answer_column": "Answer"}, _NUMBERS),
    "bool_answer": ({}, "row 1: answer: expected text or a number, found bool"),
    "dapo17k": (
        _COLUMNS | {"question_column": "prompt", "reference_answer_column": "reward_model.ground_truth"},
        _NUMBERS,
    ),
    "deepmath": (_COLUMNS | {"reference_answer_column": "final_answer"}, _NUMBERS),
    "dict_answer": ({}, "row 1: answer: expected text or a number, found dict with 'value'"),
    "dup_ids": (
        _COLUMNS | {"reference_answer_column": "answer", "id_column": "id"},
        "row 2: question_id '1' occurs already in",
    ),
    "MATH_single": ({}, ["23"]),
    "metamath": (_COLUMNS | {"question_column": "query", "reference_answer_column": "response"}, _NUMBERS),
    "mixed_fmt": ({}, ["23", None]),
    "numina15": ({}, [None, None, *_NUMBERS[2:]]),
    "svamp": (_COLUMNS | {"question_column": "Body", "reference_answer_column": "Answer"}, _NUMBERS),
    "q_bool.csv": ({}, ["true", "false", "true"]),
    "q_cp1252.csv": ({"encoding": "cp1252"}, _NUMBERS),
    "q_dates.csv": ({}, ["12:30", "04:15", "09:00"]),
    "q_floats.csv": ({}, ["72", "0.5", "3", "1000000"]),
    "q_frac.csv": (
        {},
        ["1/2", "007", "1e3", "12:30", "2024-01-05", "true", "50%", "3.10", None, "1_000", None, None],
    ),
    "q_leading0.csv": ({}, ["007", "025", "113"]),
}


@pytest.mark.skipif(not GIVEN.exists(), reason=f"the labelled data is not there: {GIVEN}")
@pytest.mark.parametrize("name", sorted(path.name for path in GIVEN.iterdir()) if GIVEN.exists() else ["none"])
def test_files_of_questions_of_many_data_sets(name: str) -> None:
    settings, expected = _QUESTIONS.get(name, ({}, _NUMBERS))
    config = QuestionsConfig(path=str(GIVEN / name), **settings)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=re.escape(expected)):
            load_questions(config)
        return
    asked, aside = load_questions(config)
    assert asked.num_rows + aside.num_rows == len(expected)
    if name == "numina_cot":  # a third of its solutions mark no answer
        assert aside["reason"].to_pylist() == ["unparsable_reference"] * 3
        assert set(asked["reference_answer"].to_pylist()) < set(_NUMBERS)
    elif name == "MATH":  # its files are read by name
        assert sorted(asked["reference_answer"].to_pylist()) == _NUMBERS
    else:
        assert asked["reference_answer"].to_pylist() == [one for one in expected if one is not None]
    assert all("jar has" in question for question in asked["question"].to_pylist())


def test_a_hub_data_set_is_loaded_through_the_datasets_library(tmp_path: Path) -> None:
    # The library reads a local folder by the same call as a hub name.
    write(tmp_path / "train.jsonl", GOOD, GOOD | {"question": "b?"})
    questions, _ = load_questions(QuestionsConfig(hub=str(tmp_path)))
    assert questions["question"].to_pylist() == ["a?", "b?"]


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"questions.hub: cannot load 'openai/gsm8k', split 'train'") as error:
        load_questions(QuestionsConfig(hub="openai/gsm8k", hub_config="main"))
    assert "\n" not in str(error.value)


def test_a_prompt_has_one_beginning_token_and_ends_where_the_response_begins() -> None:
    tokenizer = load_tokenizer(MODEL)
    prompt = render_prompt(tokenizer, "What is 1+1?", PromptConfig(system="Think.", template="Q: {question}"))
    ids = tokenize(tokenizer, prompt)
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    assert "Q: What is 1+1?" in prompt and "Think." in prompt
    whole = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "Think."},
            {"role": "user", "content": "Q: What is 1+1?"},
            {"role": "assistant", "content": "2"},
        ],
        tokenize=False,
    )
    assert str(whole).startswith(prompt + "2")


def test_the_chat_template_gets_its_variables() -> None:
    tokenizer = load_tokenizer(MODEL)
    tokenizer.chat_template = "{{ date_string }}|{{ messages[0]['content'] }}"
    dated = PromptConfig(template_variables={"date_string": "26 Jul 2024"})
    assert render_prompt(tokenizer, "1+1?", dated) == "26 Jul 2024|1+1?"


def test_prompts_that_leave_no_room_are_set_aside_with_their_length() -> None:
    questions = pa.table(
        {"question_id": ["a", "b"], "question": ["1?", "1+" * 50 + "1?"], "reference_answer": ["1", "51"]}
    )
    fits, aside = prompts_within(questions, load_tokenizer(MODEL), PromptConfig(), 60)
    assert fits["question_id"].to_pylist() == ["a"]
    (row,) = aside.to_pylist()
    assert (row["question_id"], row["reason"]) == ("b", "prompt_too_long")
    assert row["detail"].endswith("prompt tokens, room for 60")


def test_an_error_about_questions_that_cannot_be_asked_ends_with_what_to_mend() -> None:
    one = {"question_id": "q1", "reason": "prompt_too_long", "detail": "12 prompt tokens, room for 8"}
    aside = pa.Table.from_pylist([one, one, {"question_id": "q3", "reason": "empty_question"}], SET_ASIDE)
    found = "no question can be asked: 1 empty_question, 2 prompt_too_long, e.g. q1: 12 prompt tokens, room for 8; "
    mended = "mend evaluation.questions, prompt or evaluation.max_tokens"
    assert str(none_can_be_asked(aside, "evaluation.questions", "evaluation.max_tokens")) == found + mended
    found = "no question can be asked: 1 empty_question, e.g. q3; mend questions, prompt or sampling.max_tokens"
    assert str(none_can_be_asked(aside[2:], "questions", "sampling.max_tokens")) == found


@pytest.mark.parametrize("model", ["no/such-folder-or-model", str(Path(__file__).parent)])
def test_an_unknown_model_is_one_sentence(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"model: .* is neither a folder with a Hugging Face model nor a hub model"):
        load_tokenizer(model)


@pytest.mark.parametrize(
    ("suffix", "token"),
    [
        ("<|end|>\n", "<|end|>"),
        ("\n<|end|><|pad|>", "<|end|>"),
        ("{{ eos_token }}", "<eos>"),
        ("\n", "<eos>"),
        ("", "<eos>"),
    ],
)
def test_a_turn_ends_as_the_chat_template_has_it(quickstart: Path, suffix: str, token: str) -> None:
    tokenizer = load_tokenizer(str(quickstart / "model"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>", "<|pad|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|" + "{{ m['role'] }}|>{{ m['content'] }}" + suffix + "{% endfor %}"
    )
    expected = tokenizer.eos_token_id if token == "<eos>" else tokenizer.convert_tokens_to_ids(token)
    assert end_of_turn(tokenizer, PromptConfig()) == [expected]
