"""Files as other tools leave them: which settings read them, and that the entropies are those of what is in them."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from east_ray.answers import graders
from east_ray.answers.grading import clustered, entropy, measured
from east_ray.config import AnswersConfig, InputError, SamplesConfig
from east_ray.records import SAMPLES, SET_ASIDE, Question, SetAside
from east_ray.sampling.given import check_columns, warnings, write_samples
from east_ray.storage import Folder, Stages, locate

GIVEN = Path(__file__).parent.parent.parent / "shared" / "data" / "given"

#: Settings, by the names of the folders.
PLAIN = {"reference_answer_column": "answer"}
PROBLEM = {"question_column": "problem"}
EXPECTED_ANSWER = PROBLEM | {"reference_answer_column": "expected_answer"}
GOLD_CHOICES = {"reference_answer_column": "gold", "responses_column": "choices", "text_field": "message.content"}
AS_THEY_ARE = (
    "bom_crlf", "decimal", "dollar_ref", "dot_json_array", "dot_json_lines", "dot_ndjson", "first_row_bad",
    "fixed_list", "generic", "gz", "hive", "jl_other", "json_string", "jsonlines_ext", "large_types",
    "last_number_only", "list_ref", "mixed", "mixed_gz", "noext", "numeric_float", "numeric_int", "plain", "pq_ext",
    "pq_other", "save_to_disk", "string_view", "subfolders", "upper_ext", "zst",
)  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = dict.fromkeys(AS_THEY_ARE, PLAIN) | {
    "content_parts": GOLD_CHOICES,
    "cp1252": PLAIN | {"encoding": "cp1252"},
    "csv": PLAIN | {"response_column": "response"},
    "distilabel_flat": PLAIN | {"question_column": "instruction", "response_column": "generation"},
    "distilabel_grouped": PLAIN | {"question_column": "instruction", "responses_column": "generation"},
    "evalchemy": EXPECTED_ANSWER | {"responses_column": "model_outputs"},
    "evalchemy_converted": EXPECTED_ANSWER | {"responses_column": "model_outputs", "id_column": "id"},
    "inspect": {
        "question_column": "input", "reference_answer_column": "target", "response_column": "output.choices.0",
        "text_field": "message.content", "finish_reason_field": "stop_reason", "group_by": "id",
    },
    "lm_eval": {
        "question_column": "doc.question", "reference_answer_column": "target", "responses_column": "resps",
        "where": {"filter": "maj@64"}, "id_column": "doc_id",
    },
    "lm_eval_converted": {
        "reference_answer_column": "target", "responses_column": "resps", "where": {"filter": "score-first"},
    },
    "messages_prompt_only": PLAIN | {"question_column": "prompt"},
    "nemo_converted": EXPECTED_ANSWER | {"responses_column": "generations"},
    "nemo_skills": EXPECTED_ANSWER | {"response_column": "generation", "num_tokens_field": "num_generated_tokens"},
    "openmathinstruct2": EXPECTED_ANSWER | {"response_column": "generated_solution"},
    "openr1_math_220k": PLAIN | PROBLEM | {
        "responses_column": "generations", "finish_reasons_column": "finish_reasons", "id_column": "uuid",
    },
    "qwen_math": {"reference_answer_column": "gt", "responses_column": "code"},
    "qwen_math_seeds": {"reference_answer_column": "gt", "responses_column": "code", "group_by": "idx"},
    "skythought_converted": PLAIN | PROBLEM | {"text_field": "content"},
    "solution_ref": PROBLEM | {"reference_answer_column": "solution", "responses_column": "generations"},
    "solution_ref_nobox": PROBLEM | {"reference_answer_column": "solution", "responses_column": "generations"},
    "split_rows": PLAIN | {"group_by": "id"},
    "utf16": PLAIN | {"encoding": "utf-16"},
    "verl_converted": {"question_column": "input", "reference_answer_column": "gts", "responses_column": "output"},
    "verl_generation": {"question_column": "prompt", "reference_answer_column": "reward_model.ground_truth"},
    "verl_rollout": {"question_column": "input", "reference_answer_column": "gts", "response_column": "output"},
    "vllm_outputs": {
        "question_column": "prompt", "reference_answer_column": "ground_truth", "responses_column": "outputs",
    },
}  # fmt: skip
#: Folders whose responses are others than expected.jsonl's: settings, and the answers instead of the eight there.
OTHERS: dict[str, tuple[dict[str, Any], Any]] = {
    # A failed response is no response.
    "errors": ({"reference_answer_column": "gold"}, lambda eight, n: eight if n == 0 else eight[:1] + eight[2:]),
    # The last response was cut off before its answer.
    "open_r1_generate": (
        PLAIN | PROBLEM | {"responses_column": "generations", "finish_reasons_column": "finish_reasons"},
        lambda eight, n: [*eight[:7], None],
    ),
    # Of the fourth there is only thinking, which says \boxed{1}.
    "reasoning_content": (GOLD_CHOICES, lambda eight, n: [*eight[:3], "1", *eight[4:]]),
    "numbered_columns": (
        {"reference_answer_column": "final_answer", "responses_column": [f"r1_solution_{i}" for i in (1, 2, 3)]},
        lambda eight, n: eight[:3],
    ),
    "openthoughts": (
        PROBLEM | {"reference_answer_column": "solution", "response_column": "conversations"},
        lambda eight, n: eight[:1],
    ),
}
#: Folders that are refused: settings, and what is said.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "binary": (PLAIN, r"row 1: question: expected text or messages, found bytes; answer: expected text or a number"),
    "bool_ref": (PLAIN, "row 1: answer: expected text or a number, found bool"),
    "cp1252": (PLAIN, r"out.jsonl: .*it seems to be cp1252, which `encoding: cp1252` reads"),
    "utf16": (PLAIN, r"samples.path: .*out.jsonl: .*it seems to be utf-16"),
    "metamath": ({"question_column": "query", "response_column": "response"}, "'reference_answer' is missing; found "),
    "openrlhf": ({"question_column": "input", "response_column": "output"}, "name it by samples.questions"),
    "trl_completions": ({"question_column": "prompt", "response_column": "completion"}, "name it by samples.questions"),
}
#: Rows that are set aside, by reason.
ASIDE = {"jl_other": 1, "pq_other": 1, "first_row_bad": 1, "qwen_math": 1}

pytestmark = pytest.mark.usefixtures("local_ray")


def stages(path: Path) -> Stages:
    return Stages(Folder(*locate(str(path))))


def taken(path: Path, out: Path, **columns: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Counter[str]]:
    """Rows of samples/ and of set_aside/, by name, and the summed counts."""
    config, sums = SamplesConfig(path=str(path), **columns), Counter[str]()
    check_columns(config)
    for counts in write_samples(config, stages(out)):
        counts.pop("set_aside")
        sums.update(counts)
    rows = [(stages(out) / name).read(schema) for name, schema in (("samples", SAMPLES), ("set_aside", SET_ASIDE))]
    assert not (stages(out) / "grouping").exists
    samples, aside = (table.sort_by("question_id").to_pylist() for table in rows)
    return samples, aside, sums


def measures(sample: dict[str, Any], **settings: Any) -> tuple[float, float]:
    """Entropy in nats and pass rate of a question with its responses."""
    texts = [response["text"] for response in sample["responses"]]
    graded = clustered(texts, Question.of(sample), graders.load(AnswersConfig(**settings)))
    found = measured(sample["question_id"], graded.clusters)
    return found.entropy, found.pass_rate


def expected() -> list[dict[str, Any]]:
    path = GIVEN / "expected.jsonl"
    if not path.exists():
        pytest.skip(f"the labelled data is not there: {path}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def in_expected_order(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples of expected.jsonl's questions, in its order; of some tools a prompt contains the question."""
    texts = [one["question"].replace("é", "") for one in samples]  # of cp1252
    found = [
        [one for one, text in zip(samples, texts, strict=True) if asked["question"] in text] for asked in expected()
    ]
    assert [len(some) for some in found] == [1] * len(found), "not every question is there once"
    return [some[0] for some in found]


@pytest.mark.parametrize("name", SETTINGS)
def test_entropies_are_those_of_the_table(name: str, tmp_path: Path) -> None:
    wanted = expected()
    samples, aside, sums = taken(GIVEN / name, tmp_path, **SETTINGS[name])
    assert len(aside) == ASIDE.get(name, 0) and sums["num_responses"] == 96 and not sums["num_dropped"]
    for sample, truth in zip(in_expected_order(samples), wanted, strict=True):
        found = measures(sample, last_number=name == "last_number_only")
        assert found == pytest.approx((truth["entropy"], truth["pass_rate"]), abs=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_entropies_are_those_of_the_answers_that_are_there(name: str, tmp_path: Path) -> None:
    settings, answers_of = OTHERS[name]
    wanted = expected()
    samples, _, _ = taken(GIVEN / name, tmp_path, **settings)
    for number, (sample, truth) in enumerate(zip(in_expected_order(samples), wanted, strict=True)):
        answers = answers_of(truth["answers"], number)
        share = answers.count(truth["reference_answer"]) / len(answers)
        assert measures(sample) == pytest.approx((entropy(list(Counter(answers).values())), share), abs=1e-12)


def test_nulls_are_no_responses(tmp_path: Path) -> None:
    wanted = expected()
    samples, aside, sums = taken(GIVEN / "nulls", tmp_path, **PLAIN)
    reasons = Counter(one["reason"] for one in aside)
    assert reasons == {SetAside.NO_RESPONSES: 2, SetAside.UNPARSABLE_REFERENCE: 1, SetAside.EMPTY_QUESTION: 1}
    assert (sums["num_questions"], sums["num_dropped"]) == (8, 4)
    truths = {truth["question"]: truth for truth in wanted}
    for sample in samples:
        answers = truths[sample["question"]]["answers"]
        kept = answers if sample["num_responses"] == 8 else answers[:1] + answers[2:]
        assert measures(sample)[0] == pytest.approx(entropy(list(Counter(kept).values())), abs=1e-12)


def test_large_and_small_floats_are_references(tmp_path: Path) -> None:
    expected()
    samples, _, _ = taken(GIVEN / "numeric_float_big", tmp_path, **PLAIN)
    assert len(samples) == 5
    for sample in samples:
        assert measures(sample) == pytest.approx((1.5 * math.log(2), 0.5), abs=1e-12)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    settings, message = REFUSED[name]
    expected()
    with pytest.raises(InputError, match=message):
        taken(GIVEN / name, tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def response(number: int, answer: int, **changes: Any) -> dict[str, Any]:
    return {"question": f"{number}?", "reference_answer": "4", "response": f"\\boxed{{{answer}}}"} | changes


def texts_of(samples: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The answers of each question, in their order."""
    return {
        one["question"]: " ".join(response["text"][7:-1] for response in one["responses"])
        for one in sorted(samples, key=lambda one: str(one["question"]))
    }


def test_responses_of_a_question_are_put_together_over_files_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "b" / "out.jsonl", [response(1, 9), response(0, 8)])
    write(
        folder / "a.jsonl", [response(0, 1), response(1, 2), {"cut": 1}, response(0, 3), response(2, 7, response=None)]
    )
    samples, aside, sums = taken(folder, tmp_path / "round", response_column="response")
    assert texts_of(samples) == {"0?": "1 3 8", "1?": "2 9"}
    assert {one["question_id"] for one in samples} == {"a-000001", "a-000002"}
    assert {one["reason"]: one["question_id"] for one in aside} == {
        SetAside.MALFORMED_ROW: "a-000003", SetAside.NO_RESPONSES: "a-000005"
    }  # fmt: skip
    assert (sums["num_questions"], sums["num_responses"], sums["num_dropped"], sums["num_repeated"]) == (2, 5, 1, 0)


@pytest.mark.parametrize(
    ("columns", "answers", "num_contradicting"),
    [
        ({}, ["1 2 4"], 0),  # by question and reference; the third has no question
        ({"group_by": "set.seed"}, ["2 3"], 1),
        ({"group_by": ["set.name", "set.seed"]}, ["1", "2 3", "4"], 0),
        ({"id_column": "set.seed"}, ["2 3"], 1),
        ({"id_column": "name", "group_by": "name"}, ["1", "2 3", "4"], 0),
    ],
)
def test_rows_are_of_one_question_by_the_columns_that_are_named(
    columns: dict[str, Any], answers: list[str], num_contradicting: int, tmp_path: Path
) -> None:
    sets = [{"name": "a", "seed": 0}, {"name": "b", "seed": 1}, {"name": "b", "seed": 1.0}, {"name": "c", "seed": 0}]
    rows = [response(0, n, set=one, name=one["name"]) for n, one in enumerate(sets, start=1)]
    rows[2]["question"] = None
    if columns:
        rows[3]["question"] = "another?"
    path = write(tmp_path / "s.jsonl", rows)
    samples, aside, _ = taken(path, tmp_path / "round", response_column="response", **columns)
    found = [" ".join(response["text"][7:-1] for response in one["responses"]) for one in samples]
    assert sorted(found) == answers
    told = [one["detail"] for one in aside if one["reason"] == SetAside.CONTRADICTING_ROWS]
    assert [one.partition(", which ")[0] for one in told] == ["row 1 and others of its group"] * num_contradicting
    assert all(one.endswith("names: question is '0?' and 'another?'") for one in told)
    assert len(aside) == (num_contradicting if columns else 1)


def test_rows_that_contradict_each_other_are_said_with_the_column_and_two_values(tmp_path: Path) -> None:
    rows = [response(1, 4, id=0, gold=gold) for gold in (None, "7", "7", "8", "9")]
    rows += [response(2, 4, id=1, gold="7"), response(3, 4, id=2, gold="7"), {**response(4, 4), "id": 2, "gold": "7"}]
    rows[-1]["question"] = "4" * 100
    path = write(tmp_path / "s.jsonl", rows)
    columns = {"response_column": "response", "id_column": "id", "reference_answer_column": "gold"}
    samples, aside, _ = taken(path, tmp_path / "round", **columns)
    assert texts_of(samples) == {"2?": "4"}
    assert {one["question_id"]: one["detail"].partition("names: ")[2] for one in aside} == {
        "0": "gold is '7' and '8'", "2": f"question is '3?' and '{'4' * 60}…'"
    }  # fmt: skip


@pytest.mark.parametrize("grouped", [True, False])
def test_questions_and_references_may_be_in_another_file(grouped: bool, tmp_path: Path) -> None:
    questions = [
        {"id": f"q{n}", "question": f"{n}?", "answer": "#### 4", "level": 3, "unit": "m"} for n in range(3)
    ] + [{"id": "q3", "question": "3?", "answer": "proof #### ", "unit": "m"}]  # fmt: skip
    write(tmp_path / "q.jsonl", questions)

    def choices(name: str, *answers: int) -> dict[str, Any]:
        found = [{"message": {"content": f"\\boxed{{{answer}}}"}, "finish_reason": "length"} for answer in answers]
        return {"custom_id": name, "error": None, "response": {"status_code": 200, "body": {"choices": found}}}

    rows = [choices("q0", 4, 5), choices("q1", 4), choices("q3", 4), choices("q9", 4)]
    rows += [{"custom_id": "q2", "error": {"code": 500}, "response": None}] + [choices("q1", 7)] * grouped
    samples, aside, sums = taken(
        write(tmp_path / "batch.jsonl", rows), tmp_path / "round", responses_column="response.body.choices",
        text_field="message.content", id_column="custom_id", group_by="custom_id" if grouped else None,
        questions={"path": str(tmp_path / "q.jsonl"), "format": "gsm8k", "id_column": "id", "extra_columns": ["unit"]}
        if not grouped else {"path": str(tmp_path / "q.jsonl"), "id_column": "id"},
    )  # fmt: skip
    assert texts_of(samples) == {"0?": "4 5", "1?": "4 7" if grouped else "4"}
    assert [(one["reference_answer"], one["level"]) for one in samples] == [("4", "3")] * 2
    assert grouped or [one["extra"] for one in samples] == ['{"unit": "m"}'] * 2
    assert {one["question_id"]: one["reason"] for one in aside} == {
        "q2": SetAside.NO_RESPONSES, "q3": SetAside.UNPARSABLE_REFERENCE, "q9": SetAside.UNKNOWN_QUESTION
    }  # fmt: skip
    assert sums["num_truncated"] == sums["num_responses"] == 3 + grouped


def test_the_other_file_has_to_name_its_questions(tmp_path: Path) -> None:
    there = write(tmp_path / "q.jsonl", [{"id": "a-1", "question": "1?", "answer": "4"}])
    path = write(tmp_path / "s.jsonl", [response(1, 4, name="1")])
    columns = {"response_column": "response", "id_column": "name"}
    with pytest.raises(ValueError, match=r"samples.questions.id_column"):
        taken(path, tmp_path / "round", **columns, questions={"path": str(there)})
    with pytest.raises(InputError, match=r"^samples.questions: .*q.jsonl, row 1: column 'nr' is missing"):
        taken(path, tmp_path / "round", **columns, questions={"path": str(there), "id_column": "nr"})
    _, (aside,), _ = taken(path, tmp_path / "round", **columns, questions={"path": str(there), "id_column": "id"})
    assert "'1'; the questions have names such as 'a-1'" in aside["detail"] and "number" not in aside["detail"]
    numbered = write(tmp_path / "numbered.jsonl", [response(1, 4, name=f"a-1{mark}0") for mark in "-_:#"])
    _, several, _ = taken(
        numbered, tmp_path / "n", **columns, questions={"path": str(there), "id_column": "id"}
    )  # fmt: skip
    for one in several:
        assert "; 'a-1' is there, to which a number is added here: write such names without the number" in one["detail"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"where": {"filter": "strict"}},
            r"samples.where: no row has 'strict' in 'filter'; found 'strict-match', 'fle",
        ),
        (
            {"where": {"filter": ["strict", "none"]}},
            r"no row has \['strict', 'none'\] in 'filter'; .*mean strict-match\?",
        ),
        ({"where": {"fliter": "strict-match"}}, r"no row has 'fliter'; found 'filter', .*; did you mean filter\?"),
        ({"where": {"filter": "strict-match", "question": "1?"}}, "no row has all of filter: strict-match, question"),
        (
            {"finish_reason_field": "finish"},
            r"finish_reason_field: no row has 'finish'; found .*did you mean finish_re",
        ),
        ({"num_tokens_field": "tokens"}, r"samples.num_tokens_field: no row has 'tokens'; found 'filter'"),
        (
            {"id_column": "same"},
            r"2 questions have the name 's'; .* or samples.group_by: same to put their rows togeth",
        ),
    ],
)
def test_a_name_or_value_that_is_in_no_row_is_refused_and_leaves_nothing(
    columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    kinds = ["strict-match", "flexible-match"]
    rows = [
        {
            "question": f"{n}?", "reference_answer": "4", "filter": kind, "same": "s",
            "responses": [{"text": "\\boxed{4}", "finish_reason": "stop", "num_tokens": 3}],
        }
        for n, kind in enumerate(kinds)
    ]  # fmt: skip
    with pytest.raises(InputError, match=message):
        taken(write(tmp_path / "s.jsonl", rows), tmp_path / "round", **columns)
    assert not any((stages(tmp_path / "round") / name).exists for name in ("samples", "questions", "set_aside"))
    samples, _, sums = taken(tmp_path / "s.jsonl", tmp_path / "again", where={"filter": "strict-match"})
    assert texts_of(samples) == {"0?": "4"} and sums["num_unwanted"] == 1


FAILED: list[dict[str, Any]] = [
    {"response": "", "error": "timeout", "finish_reason": None},
    {"response": "", "error": {"code": 500, "message": "overloaded"}},
    {"response": "Half of \\boxed{5", "error": "timeout", "finish_reason": "stop"},
    {"response": "", "finish_reason": "error"},
    {"response": None, "error": ""},
    {"response": float("nan")},
]


@pytest.mark.parametrize("failed", FAILED)
def test_a_failed_row_is_no_response(failed: dict[str, Any], tmp_path: Path) -> None:
    fine = {"error": {"code": None}, "finish_reason": "stop"}
    path = write(tmp_path / "s.jsonl", [response(1, 4, **fine), response(1, 5, **failed), response(1, 5)])
    samples, _, sums = taken(path, tmp_path / "round", response_column="response")
    assert (texts_of(samples), sums["num_dropped"]) == ({"1?": "4 5"}, 1)


@pytest.mark.parametrize(
    ("changes", "columns", "message"),
    [
        ({"id": None}, {"id_column": "id"}, "row 1: id_column: id: expected a name, found null"),
        ({}, {"id_column": "ids"}, "row 1: id_column: column 'ids' is missing"),
        ({"ends": ["stop"]}, {"finish_reason_field": "ends"}, "found list; finish_reasons_column names a list"),
        (
            {"response": {"message": {"content": "4"}}},
            {},
            r"'text' is missing.*; text_field says where",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_setting_that_mends_it(
    changes: dict[str, Any], columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "s.jsonl", [response(1, 4, **changes)])
    with pytest.raises(InputError, match=message):
        taken(path, tmp_path / "round", response_column="response", **columns)


@pytest.mark.parametrize("several", [["4", "5"], [{"text": "4"}, {"text": "5"}]])
def test_a_list_in_json_is_not_one_response(several: list[Any], tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", [response(1, 4, response=json.dumps(several))])
    with pytest.raises(InputError, match=r"found a list of 2 (texts|objects) in JSON; name it by responses_column"):
        taken(path, tmp_path / "round", response_column="response")


def test_a_list_that_python_has_printed_is_not_one_response(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", [response(1, 4, response="['\\\\boxed{4}'\n '\\\\boxed{5}']")])
    with pytest.raises(InputError, match="response: expected one response, found a list as Python prints it; write"):
        taken(path, tmp_path / "round", response_column="response")


def test_missing_values_of_json_are_none(tmp_path: Path) -> None:
    rows = [{"question": "1?", "reference_answer": "4", "responses": [math.nan, "\\boxed{4}"], "level": math.nan}]
    rows += [{"question": "2?", "reference_answer": "4", "responses": math.nan}]
    samples, aside, sums = taken(write(tmp_path / "s.jsonl", rows), tmp_path / "round")
    assert (texts_of(samples), samples[0]["level"], sums["num_dropped"]) == ({"1?": "4"}, None, 1)
    assert [one["reason"] for one in aside] == [SetAside.NO_RESPONSES]


def test_a_question_in_several_rows_is_warned_of(tmp_path: Path) -> None:
    rows = [{"question": f"{n % 3}?", "reference_answer": "4", "responses": ["\\boxed{4}"]} for n in range(5)]
    path = write(tmp_path / "s.jsonl", rows)
    samples, _, sums = taken(path, tmp_path / "round")
    assert (len(samples), sums["num_repeated"]) == (5, 2)
    (warning,) = warnings(SamplesConfig(path=str(path)), sums)
    assert warning.startswith("warning: 2 questions are in several rows") and "samples.group_by: question" in warning
    samples, _, sums = taken(path, tmp_path / "grouped", group_by="question")
    assert texts_of(samples) == {"0?": "4 4", "1?": "4 4", "2?": "4"} and not list(
        warnings(SamplesConfig(path=str(path)), sums)
    )


def test_a_question_with_several_references_is_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", [response(1, 4), response(1, 4, reference_answer="04"), response(2, 4)])
    samples, _, sums = taken(path, tmp_path / "round", response_column="response")
    assert (len(samples), sums["num_repeated"]) == (3, 1)
    (warning,) = warnings(SamplesConfig(path=str(path), response_column="response"), sums)
    assert "1 questions are there several times" in warning and "the reference answer differs" in warning


def test_every_folder_is_tried() -> None:
    expected()
    tried = {*SETTINGS, *OTHERS, *REFUSED, "nulls", "numeric_float_big"}
    assert {path.name for path in GIVEN.iterdir() if path.is_dir()} == tried
