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
from east_ray.sampling.given import check_columns, write_samples
from east_ray.storage import Folder, Stages, locate

GIVEN = Path(__file__).parent.parent.parent / "shared" / "data" / "given"

#: Settings, by the names of the folders.
PLAIN = {"reference_answer_column": "answer"}
PROBLEM = {"question_column": "problem"}
EXPECTED_ANSWER = PROBLEM | {"reference_answer_column": "expected_answer"}
GOLD_CHOICES = {"reference_answer_column": "gold", "responses_column": "choices", "text_field": "message.content"}
SETTINGS: dict[str, dict[str, Any]] = dict.fromkeys(
    ["bom_crlf", "decimal", "dollar_ref", "dot_json_array", "dot_json_lines", "dot_ndjson", "first_row_bad", "fixed_list", "generic", "gz", "hive", "jl_other", "json_string", "jsonlines_ext", "large_types", "last_number_only", "list_ref", "mixed", "mixed_gz", "noext", "numeric_float", "numeric_int", "plain", "pq_ext", "pq_other", "save_to_disk", "string_view", "subfolders", "upper_ext", "zst"],
    PLAIN,
) | {
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
    found = [[one for one in samples if asked["question"] in one["question"]] for asked in expected()]
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


def test_every_folder_is_tried() -> None:
    expected()
    tried = {*SETTINGS, *OTHERS, *REFUSED, "nulls", "numeric_float_big"}
    assert {path.name for path in GIVEN.iterdir() if path.is_dir()} == tried
