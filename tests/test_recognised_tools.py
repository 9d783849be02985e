"""Files in the shapes that other tools leave (../shared/data/given): recognised without a word, they give the truth."""

import json
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

from east_ray.answers.graders import MathGrader
from east_ray.answers.grading import clustered
from east_ray.config import Config, InputError, SamplesConfig
from east_ray.config.files import parse
from east_ray.first_use.responses import written
from east_ray.reading.files import find_files
from east_ray.reading.rows import pieces_of, rows_of
from east_ray.records import Question
from east_ray.sampling.given import given_sample, group_of, is_wanted
from east_ray.weighting import entropy

GIVEN = Path(__file__).parent.parent.parent / "shared" / "data" / "given"
FOLDERS = sorted(path.name for path in GIVEN.iterdir() if path.is_dir()) if GIVEN.exists() else []

#: What cannot be weighed as it is, and what is said.
REFUSED = {
    "binary": "the question (question holds bytes)",
    "bool_ref": "the reference answer (answer holds bool)",
    "cp1252": "it seems to be cp1252, which `samples.encoding=cp1252` reads",
    "utf16": "it seems to be utf-16, which `samples.encoding=utf-16` reads",
    "metamath": "metamath, in the shape of MetaMathQA: not everything is recognised; give samples.reference_answer",
    "openrlhf": "give samples.reference_answer_column=… for the reference answer (if it is in another file",
    "trl_completions": "give samples.reference_answer_column=… for the reference answer (if it is in another file",
}
#: What holds other responses than the table, whose values tests/test_samples.py states: how many a question has.
OTHER_RESPONSES: dict[str, set[int]] = {
    "numbered_columns": {3}, "openthoughts": {1}, "errors": {7, 8}, "nulls": {0, 7, 8}, "numeric_float_big": {4},
    "open_r1_generate": {8}, "reasoning_content": {8},
}  # fmt: skip


@cache
def truth() -> dict[str, float]:
    lines = (GIVEN / "expected.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["question"]: row["entropy"] for row in map(json.loads, lines)}


def responses_of(samples: SamplesConfig) -> dict[str, list[str]]:
    """The texts of the responses to each question, as the stage puts them together, without Ray."""
    found = find_files(samples.path, "samples.path")
    texts, questions = defaultdict[str, list[str]](list), {}
    for piece in (piece for file in found.files for piece in pieces_of(found.filesystem, file, samples.encoding)):
        for number, row in rows_of(found.filesystem, piece):
            try:
                assert isinstance(row, dict)
                if not is_wanted(row, samples.where):
                    continue
                sample = given_sample(row, samples, f"{piece.path}-{number}")
            except (AssertionError, InputError):
                continue  # the stage sets it aside
            group = group_of(row, sample, samples) if samples.groups else sample["question_id"]
            questions[group] = sample["question"]
            texts[group] += [response["text"] for response in sample["responses"]]
    assert max(Counter(questions.values()).values()) == 1, "a question is in several groups"
    return {questions[group]: found for group, found in texts.items()}


def entropy_of(texts: list[str], config: Config) -> float:
    grader = MathGrader(last_number=config.answers.last_number)
    graded = clustered(texts, Question.of({"question_id": "q", "question": "", "reference_answer": "0"}), grader)
    return entropy([cluster.num_responses for cluster in graded.clusters])


@pytest.mark.skipif(not FOLDERS, reason="the labelled outputs are not there")
@pytest.mark.parametrize("name", FOLDERS)
def test_the_shape_of_a_tool_is_recognised_and_gives_the_entropies(name: str) -> None:
    def yaml_text() -> str:
        return written(str(GIVEN / name), {"run_dir": "r"}, lambda line: None, None)

    if name in REFUSED:
        with pytest.raises(InputError) as refused:
            yaml_text()
        assert REFUSED[name] in str(refused.value)
        return
    config = parse(yaml_text(), name)
    assert config.samples is not None
    found = responses_of(config.samples)
    assert {len(texts) for texts in found.values()} <= OTHER_RESPONSES.get(name, {8})
    if name not in OTHER_RESPONSES:
        assert len(found) == len(truth())
        for question, texts in found.items():
            asked = next(one for one in truth() if one in question)  # a prompt may be around it
            assert entropy_of(texts, config) == pytest.approx(truth()[asked], abs=1e-12)
