"""Samples that another sampler made: which rows are taken, which are set aside and why, and what becomes of them."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from east_ray import cli
from east_ray.config import InputError, SamplesConfig
from east_ray.reading import rows
from east_ray.records import DISCARDED, EXAMPLES, QUESTIONS, SAMPLES, SET_ASIDE, Reason, SetAside
from east_ray.sampling.given import check_columns, given_sample, is_wanted, why_set_aside, write_samples
from east_ray.storage import Folder, Stages, locate

ROOT = Path(__file__).parent.parent
OUTPUTS = ROOT.parent / "shared" / "data" / "outputs"
PLAIN = SamplesConfig(path="s.jsonl")


def row(**changes: Any) -> dict[str, Any]:
    given = {"question": "2 + 2?", "reference_answer": "4", "responses": ["\\boxed{4}", "\\boxed{5}"]}
    return given | changes


# ------------------------------------------------------------------------------------------------------------ one row


def test_responses_may_be_texts_or_objects_or_what_an_openai_server_returned() -> None:
    texts = given_sample(row(), PLAIN, "q")
    assert [response["text"] for response in texts["responses"]] == ["\\boxed{4}", "\\boxed{5}"]
    assert {(r["finish_reason"], r["num_tokens"]) for r in texts["responses"]} == {("stop", None)}
    own = [
        {"text": "a", "num_tokens": 7, "finish_reason": "length", "logprob": -1.0},
        {"text": None, "finish_reason": "length"},
    ]
    objects = given_sample(row(responses=own), PLAIN, "q")["responses"]
    assert objects[0] == {"text": "a", "num_tokens": 7, "finish_reason": "length", "logprob": None}
    assert objects[1] == {"text": "", "num_tokens": None, "finish_reason": "length", "logprob": None}
    choices = [{"message": {"content": "\\boxed{4}"}, "finish_reason": "length"}]
    columns = SamplesConfig(path="s.jsonl", responses_column="choices", text_field="message.content")
    (response,) = given_sample(row(choices=choices), columns, "q")["responses"]
    assert (response["text"], response["finish_reason"]) == ("\\boxed{4}", "length")


def test_fields_have_the_names_that_the_configuration_gives_them() -> None:
    response = {"out": "a", "why": "max_tokens", "count": 3, "finish_reason": "stop", "num_tokens": 9}
    columns = SamplesConfig(path="s.jsonl", text_field="out", finish_reason_field="why", num_tokens_field="count")
    (found,) = given_sample(row(responses=[response]), columns, "q")["responses"]
    assert found == {"text": "a", "num_tokens": 3, "finish_reason": "length", "logprob": None}


@pytest.mark.parametrize(
    ("extra", "kept"),
    [('{"unit": "m"}', '{"unit": "m"}'), ("not ours", None), ("[1]", None), (3, None), (None, None)],
)
def test_the_extra_columns_of_another_run_are_kept(extra: Any, kept: str | None) -> None:
    assert given_sample(row(extra=extra), PLAIN, "q")["extra"] == kept


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("72", "72"),
        (72, "72"),
        (2.5, "2.5"),
        ("3 + 4 = 7\n#### 7", "7"),
        ("So \\boxed{\\frac12}.", "\\frac12"),
        (None, None),
    ],
)
def test_a_reference_may_be_an_answer_or_end_a_worked_solution(reference: Any, answer: str | None) -> None:
    assert given_sample(row(reference_answer=reference), PLAIN, "q")["reference_answer"] == answer


def test_what_other_servers_say_of_the_end_is_understood() -> None:
    said = ["STOP", "eos_token", "MAX_TOKENS", "length", "content_filter", None]
    responses = [{"text": "a", "finish_reason": reason} for reason in said]
    found = [response["finish_reason"] for response in given_sample(row(responses=responses), PLAIN, "q")["responses"]]
    assert found == ["stop", "stop", "length", "length", "content_filter", "stop"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference_answer": {"value": "4"}}, "reference_answer: expected text or a number, found dict"),
        ({"reference_answer": True}, "reference_answer: expected text or a number, found bool"),
        ({"question": 3}, "question: expected text or messages, found int"),
        (
            {"responses": "\\boxed{4}"},
            "responses: expected a list of responses; if a row is one response, .*, found str",
        ),
        (
            {"responses": "['a', 'b']"},
            "^responses: expected a list of responses, found a list as Python prints it; write it as JSON$",
        ),
        ({"responses": ["a", 4]}, "responses, response 2: expected text, found int"),
        ({"responses": [{"content": "a"}]}, "responses, response 1: column 'text' is missing; found 'content'"),
        ({"responses": ["half \ud800"]}, "half of a surrogate pair"),
    ],
)
def test_what_is_no_row_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        given_sample(row(**changes), PLAIN, "q")


def test_a_missing_column_names_those_there_are() -> None:
    with pytest.raises(InputError, match="column 'gold' is missing; found 'question', 'reference_answer', 'resp"):
        given_sample(row(), SamplesConfig(path="s.jsonl", reference_answer_column="gold"), "q")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"question": "  "}, SetAside.EMPTY_QUESTION),
        ({"question": None}, SetAside.EMPTY_QUESTION),
        ({"reference_answer": None}, SetAside.UNPARSABLE_REFERENCE),
        ({"reference_answer": "no #### here"}, SetAside.UNPARSABLE_REFERENCE),
        ({"responses": []}, SetAside.NO_RESPONSES),
        ({"responses": None}, SetAside.NO_RESPONSES),
    ],
)
def test_what_cannot_be_judged_has_a_reason(changes: dict[str, Any], reason: SetAside | None) -> None:
    sample = given_sample(row(**changes), PLAIN, "q")
    assert why_set_aside(sample) == reason
    if reason == SetAside.UNPARSABLE_REFERENCE:
        assert why_set_aside(sample, can_use=lambda reference: True) is None


def texts(given: dict[str, Any], **columns: Any) -> list[str]:
    return [one["text"] for one in given_sample(given, SamplesConfig(path="s", **columns), "q")["responses"]]


def test_a_list_may_be_nested_in_one_in_json_or_in_several_columns() -> None:
    assert texts(row(responses=[["a", "b"]])) == texts(row(responses='["a", "b"]')) == ["a", "b"]
    assert texts(row(responses=[[["a"], ["b"]]])) == texts(row(responses=[{"text": "a"}, "b"])) == ["a", "b"]
    assert texts(row(out={"one": "a", "two": ["b"]}), responses_column=["out.one", "out.two"]) == ["a", "b"]
    said = {"role": "assistant", "content": "a"}
    user = {"role": "user", "content": "2 + 2?"}
    assert texts(row(responses=[said, said])) == texts(row(responses=[[user, said], [user, said]])) == ["a", "a"]
    assert texts(row(responses=[[user, said]])) == ["a"] == texts(row(chat=[user, said]), response_column="chat")
    for conversation in ([user, said], [{"role": "system", "content": "s"}, said], [[user], [said]][:1]):
        with pytest.raises(InputError, match=r"found a conversation; response_column takes|with a turn of the assist"):
            texts(row(responses=conversation))
    with pytest.raises(InputError, match="expected a list of responses; if a row is one response, name it by respo"):
        texts(row(responses="[not a list"))


@pytest.mark.parametrize(
    ("responses", "kept", "num_dropped"),
    [
        (["a", None, "b"], ["a", "b"], 1),
        ([{"text": "a"}, {"error": "timeout"}, {"text": None, "error": {"code": 429}}], ["a"], 2),
        ([{"text": "a", "error": None}, {"text": "", "error": "cut"}, {"text": ""}], ["a", ""], 1),
        ([{"text": "a"}, {"status": 500, "detail": "overloaded"}], ["a"], 1),
        ([{"text": None}, {"text": None, "finish_reason": "length"}], [""], 1),
        ([{"error": "timeout"}, None], [], 2),
    ],
)
def test_a_failed_response_is_dropped_and_not_its_question(responses: Any, kept: list[str], num_dropped: int) -> None:
    sample = given_sample(row(responses=responses), PLAIN, "q")
    assert [one["text"] for one in sample["responses"]] == kept
    assert sample["num_dropped"] == num_dropped and sample["num_responses"] == len(kept)


@pytest.mark.parametrize(
    ("columns", "changes", "reasons"),
    [
        ({}, {"responses": [{"text": "a", "stop_reason": "max_tokens"}, {"text": "a"}]}, ["length", "stop"]),
        ({}, {"responses": [{"text": "a", "finish_reason": "length", "stop_reason": 128001}]}, ["length"]),
        ({}, {"responses": [{"text": "a", "stop_reason": 128001}]}, ["stop"]),
        (
            {"finish_reason_field": "meta_info.finish_reason.type"},
            {"responses": [{"text": "a", "meta_info": {"finish_reason": {"type": "length", "length": 9}}}]},
            ["length"],
        ),
        ({"finish_reasons_column": "ends"}, {"responses": ["a", "b"], "ends": ["length", None]}, ["length", "stop"]),
        (
            {"finish_reasons_column": "ends"},
            {"responses": ["a", "b"], "ends": [["stop", "length"]]},
            ["stop", "length"],
        ),
        ({"finish_reasons_column": "ends"}, {"responses": ["a", "b"], "ends": None}, ["stop", "stop"]),
        (
            {"finish_reasons_column": ["e1", "e2"], "responses_column": ["r1", "r2"]},
            {"r1": "a", "r2": "b", "e1": "length", "e2": "stop"},
            ["length", "stop"],
        ),
        ({"response_column": "out"}, {"out": "a", "finish_reason": "length"}, ["length"]),
        ({"response_column": "out"}, {"out": {"text": "a"}, "stop_reason": "max_tokens"}, ["length"]),
        ({"response_column": "out", "finish_reasons_column": "end"}, {"out": ["a"], "end": "length"}, ["length"]),
    ],
)
def test_a_finish_reason_is_found_where_tools_put_it(
    columns: dict[str, Any], changes: dict[str, Any], reasons: list[str]
) -> None:
    sample = given_sample(row(**changes), SamplesConfig(path="s", **columns), "q")
    assert [one["finish_reason"] for one in sample["responses"]] == reasons


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        ({"finish_reasons_column": "ends"}, {"ends": ["stop"]}, "ends: 1 finish reasons for 2 responses"),
        ({"finish_reasons_column": "ends"}, {}, "column 'ends' is missing"),
        (
            {"finish_reason_field": "why"},
            {"responses": [{"text": "a", "why": {"type": "stop"}}]},
            "response 1, finish reason: expected text such as stop or length, found dict with 'type'; a dotted name",
        ),
        (
            {"question_column": "q", "reference_answer_column": "answr", "responses_column": "r"},
            {"answer": "4"},
            r"'q' is missing.*'answr' is missing.*did you mean answer\?.*samples.questions; .*; column 'r' is missing",
        ),
        ({"id_column": "id"}, {"id": None}, "id: expected a name, found null"),
        ({"id_column": "id"}, {"id": {"a": 1}}, "id: expected a name, found dict"),
    ],
)
def test_all_that_is_wrong_with_a_row_is_said_at_once(
    columns: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        given_sample(row(**changes), SamplesConfig(path="s", **columns), "q")


@pytest.mark.parametrize(
    ("where", "is_there"),
    [
        ({"filter": "strict"}, True), ({"filter": "flexible"}, False), ({"doc.epoch": 1}, True),
        ({"filter": ["none", "strict"]}, True), ({"filter": ["none"]}, False), ({"doc.epoch": [0, "1"]}, True),
        ({"doc.epoch": "1"}, True), ({"doc.epoch": 1.0}, True), ({"is_right": True}, True), ({"is_right": 1}, False),
        ({"text": True}, True), ({"none": None}, True), ({"missing": None}, False), ({"filter": None}, False),
        ({"filter": "strict", "doc.epoch": 2}, False), ({"none": "None"}, False), ({}, True),
    ],
)  # fmt: skip
def test_a_row_is_wanted_by_the_values_of_its_columns(where: dict[str, Any], is_there: bool) -> None:
    given = {"filter": "strict", "doc": {"epoch": 1}, "is_right": True, "text": "true", "none": None}
    assert is_wanted(given, where) is is_there


@pytest.mark.parametrize(
    "columns",
    [
        {"response_column": "a", "responses_column": "b"},
        {"finish_reasons_column": "a", "finish_reason_field": "b"},
        {"questions": {"path": "q.jsonl"}},
        {"where": {"a": [[1]]}},
        {"where": {"a": []}},
        {"encoding": "klingon"},
        {"encoding": "base64"},
        {"responses_column": []},
        {"group_by": []},
    ],
)
def test_settings_that_do_not_fit_together_are_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not both|needs id_column|expected a text|no encoding of text|at least 1"):
        SamplesConfig.model_validate({"path": "s", **columns})


# ---------------------------------------------------------------------------------------------------------- the stage


def folder(path: Path) -> Folder:
    return Folder(*locate(str(path)))


def taken(path: Path, out: Path, **columns: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Counter[str]]:
    """Rows of samples/ and set_aside/, by name, and the summed counts."""
    stages, sums = Stages(folder(out)), Counter[str]()
    for counts in write_samples(SamplesConfig(path=str(path), **columns), stages):
        sums.update({name: count for name, count in counts.items() if name != "set_aside"})
        sums.update(counts["set_aside"])
    rows = (stages / "samples").read(SAMPLES).sort_by("question_id")
    questions = (stages / "questions").read(QUESTIONS).sort_by("question_id")
    assert questions.equals(rows.select(QUESTIONS.names))
    return rows.to_pylist(), (stages / "set_aside").read(SET_ASIDE).sort_by("question_id").to_pylist(), sums


def test_bad_rows_are_set_aside_with_their_reason_and_the_rest_is_taken(tmp_path: Path, local_ray: None) -> None:
    lines = [
        json.dumps(row()),
        "",
        '{"question": "cut',
        "[1, 2]",
        json.dumps(row(responses=[])),
        json.dumps(row(reference_answer=None)),
        "[" * 100_000,
        '{"question": ' + "9" * 10_000 + "}",
        json.dumps(row(responses=["\ud800"])),
        json.dumps(row(level=3, type="Algebra", responses=[{"text": "x", "finish_reason": "length"}])),
    ]
    (tmp_path / "s.jsonl").write_bytes("\ufeff".encode() + "\r\n".join(lines).encode() + b"\r\n\xff\xfe")
    rows, aside, sums = taken(tmp_path / "s.jsonl", tmp_path / "round")
    assert [one["question_id"] for one in rows] == ["s-000001", "s-000010"]
    assert (rows[1]["level"], rows[1]["subject"], rows[1]["model"]) == ("3", "Algebra", "given")
    malformed = SetAside.MALFORMED_ROW
    assert [(one["question_id"], one["reason"]) for one in aside] == [
        ("s-000003", malformed), ("s-000004", malformed), ("s-000005", SetAside.NO_RESPONSES),
        ("s-000006", SetAside.UNPARSABLE_REFERENCE), ("s-000007", malformed), ("s-000008", malformed),
        ("s-000009", malformed), ("s-000011", malformed),
    ]  # fmt: skip
    assert aside[1]["detail"] == "row 4: expected a JSON object, found list"
    assert aside[2]["detail"] == "row 5" and aside[3]["detail"] == "row 6: the reference answer is null or missing"
    assert (sums["num_questions"], sums["num_responses"], sums["num_truncated"], sums["malformed_row"]) == (2, 3, 1, 6)


def test_pieces_of_a_file_give_the_rows_of_the_whole(
    tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(row(question="q" * (7 * i % 50 + 1))) + "\n" for i in range(200)))
    whole = taken(path, tmp_path / "whole")[0]
    assert len(whole) == 200
    monkeypatch.setattr(rows, "PIECE_BYTES", 4096)
    assert taken(path, tmp_path / "pieces")[0] == whole  # their lines counted


def test_parquet_in_row_groups_and_a_folder_of_files(tmp_path: Path, local_ray: None) -> None:
    (tmp_path / "in").mkdir()
    rows = [row(question=f"{i}?", name=f"n{i:03}", unused=i) for i in range(150)]
    pq.write_table(pa.Table.from_pylist(rows[:140]), tmp_path / "in" / "a.parquet", row_group_size=40)
    (tmp_path / "in" / "b.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows[140:]))
    (tmp_path / "in" / "_SUCCESS").write_text("")
    found, aside, _ = taken(tmp_path / "in", tmp_path / "round")
    assert [one["question_id"] for one in found[138:142]] == ["a-000139", "a-000140", "b-000001", "b-000002"]
    assert [one["question"] for one in found] == [one["question"] for one in rows] and not aside
    named, _, _ = taken(tmp_path / "in", tmp_path / "named", id_column="name")
    assert [one["question_id"] for one in named] == [one["name"] for one in rows]
    with pytest.raises(InputError, match=r"150 questions have the name 'x'"):
        (tmp_path / "in" / "b.jsonl").write_text("")
        pq.write_table(pa.Table.from_pylist([one | {"name": "x"} for one in rows]), tmp_path / "in" / "a.parquet")
        taken(tmp_path / "in", tmp_path / "twice", id_column="name")


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (None, {}, "does not exist; expected a file"),
        ("", {}, "is empty; expected rows"),
        ("\n\n", {}, "is empty; expected questions with responses"),
        (
            json.dumps(row()),
            {"responses_column": "outputs"},
            "row 1: column 'outputs' is missing; found 'question', 'ref",
        ),
        ("\n{nonsense", {}, "not valid JSON"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    tmp_path: Path, content: str | None, columns: dict[str, str], message: str
) -> None:
    if content is not None:
        (tmp_path / "s.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        check_columns(SamplesConfig(path=str(tmp_path / "s.jsonl"), **columns))


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "s.eval").write_text("question\n")
    with pytest.raises(InputError, match=r"s.eval: found 1 .eval file; expected .jsonl, "):
        check_columns(SamplesConfig(path=str(tmp_path / "s.eval")))
    (tmp_path / "s.parquet").write_text("no parquet at all")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        check_columns(SamplesConfig(path=str(tmp_path / "s.parquet")))


# ------------------------------------------------------------------------------------------- the command, end to end


def weigh(run_dir: Path, path: Path, *overrides: str) -> None:
    """The verb in this process, on the Ray of the tests."""
    config = run_dir.with_suffix(".yaml")
    config.write_text(json.dumps({"run_dir": str(run_dir), "samples": {"path": str(path)}}))
    cli.app(["weigh", str(config), *overrides], standalone_mode=False)


def weigh_alone(run_dir: Path, path: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    config = run_dir.with_suffix(".yaml")
    config.write_text(json.dumps({"run_dir": str(run_dir), "samples": {"path": str(path)}}))
    command = [sys.executable, "-m", "east_ray", "weigh", str(config), *overrides]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def read(run_dir: Path, name: str, schema: pa.Schema) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = folder(run_dir / "round_0" / name).read(schema).to_pylist()
    return rows


def test_weigh_needs_neither_model_nor_engine_and_leaves_a_run_that_can_go_on(
    tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [[4, 4, 4, 4], [4, 4, 5, 6], [4, 5, 5, 5], [1, 2, 3, 3]]
    rows = [row(question=f"{i}?", responses=[f"\\boxed{{{a}}}" for a in found]) for i, found in enumerate(answers)]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*rows, row(responses=[])]))
    result = weigh_alone(tmp_path / "run", tmp_path / "s.jsonl")
    assert result.returncode == 0, result.stderr
    assert "kept as examples" in result.stdout and "set aside: no_responses" in result.stdout
    assert f"1 no_responses: s-000005: row 5; all of them: {tmp_path}/run/round_0/set_aside" in result.stdout
    *_, where, following = result.stdout.splitlines()
    assert where == f"examples: {tmp_path}/run/round_0/examples"
    assert following.startswith(
        f"Next: `east-ray export {tmp_path}/run --as messages` writes these examples with their"
    )
    assert f"`east-ray report {tmp_path}/run` shows the questions, and `east-ray audit {tmp_path}/run`" in following
    examples = {one["question_id"]: one for one in read(tmp_path / "run", "examples", EXAMPLES)}
    assert sorted(examples) == ["s-000001", "s-000002", "s-000003"]
    assert sum(one["weight"] for one in examples.values()) == pytest.approx(3)
    assert examples["s-000001"]["weight"] == 0 < examples["s-000003"]["weight"] < examples["s-000002"]["weight"]
    (discarded,) = read(tmp_path / "run", "discarded", DISCARDED)
    assert (discarded["question_id"], discarded["reason"]) == ("s-000004", Reason.ALL_WRONG)
    assert not (tmp_path / "run" / "round_0" / "judged").exists()
    weigh(tmp_path / "run", tmp_path / "s.jsonl")
    assert capsys.readouterr().out.count("done before, in") == 3
    for verb, message in (("train", "model: missing; name"), ("sample", "nothing to sample; run `east-ray weigh`")):
        with pytest.raises(InputError, match=message):
            cli.app([verb, str(tmp_path / "run.yaml")], standalone_mode=False)


def test_a_mistake_in_the_configuration_can_be_mended(tmp_path: Path, local_ray: None) -> None:
    rows = [row(name="twice", responses=["\\boxed{4}"] * 2), row(name="twice", responses=["\\boxed{4}", "\\boxed{5}"])]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    arguments = tmp_path / "run", tmp_path / "s.jsonl"
    with pytest.raises(InputError, match="2 questions have the name 'twice'; expected a name of its own"):
        weigh(*arguments, "samples.id_column=name")
    with pytest.raises(InputError, match="exponent -1 is not defined for the 1 of 2 kept questions"):
        weigh(*arguments, "weighting.exponent=-1")
    weigh(*arguments, "weighting.exponent=2")
    # Once weighed it stays; but a model may be named to train on it, and then the files may not have changed.
    with pytest.raises(InputError, match=r"weighting.exponent: 2.0 there, 1.0 now"):
        weigh(*arguments, "weighting.exponent=1")
    with_model = ["weighting.exponent=2", f"model={ROOT / 'jobs/quickstart/model'}"]
    weigh(*arguments, *with_model)
    (tmp_path / "s.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(InputError, match="has changed since it was read"):
        weigh(*arguments, *with_model)
    (tmp_path / "s.jsonl").unlink()
    weigh(*arguments, *with_model)


def test_what_breaks_in_a_task_is_said_in_one_sentence(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row(question="q" * 5000 + str(i)) for i in range(300)])
    pq.write_table(table, tmp_path / "s.parquet", compression="snappy", use_dictionary=False, row_group_size=100)
    content = bytearray((tmp_path / "s.parquet").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    (tmp_path / "s.parquet").write_bytes(content)
    result = weigh_alone(tmp_path / "run", tmp_path / "s.parquet")
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert "s.parquet: cannot be read as parquet (" in result.stderr


def test_an_input_inside_the_run_directory_is_not_removed(tmp_path: Path, local_ray: None) -> None:
    inside = tmp_path / "run" / "round_0" / "samples"
    inside.mkdir(parents=True)
    (inside / "mine.jsonl").write_text(json.dumps(row()) + "\n")
    with pytest.raises(InputError, match="lies in the run directory itself; choose another run_dir"):
        weigh(tmp_path / "run", inside / "mine.jsonl")
    assert (inside / "mine.jsonl").exists()


def test_a_folder_may_begin_with_a_file_without_rows(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([row()]).slice(0, 0), tmp_path / "part-0.parquet")
    pq.write_table(pa.Table.from_pylist([row()]), tmp_path / "part-1.parquet")
    check_columns(SamplesConfig(path=str(tmp_path)))
    with pytest.raises(
        InputError, match=r"column 'gold' is missing; found 'question', 'reference_answer', 'responses'"
    ):
        check_columns(SamplesConfig(path=str(tmp_path), reference_answer_column="gold"))


def labelled(name: str) -> list[dict[str, Any]]:
    path = OUTPUTS / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"the labelled outputs are not there: {path}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


#: Of each file: overrides, and the questions on which our number of correct responses is not the labels', as looked at.
#: math: the label of 3 has a broken reference (4:30p..), that of 72 compared 10{,}000 with 10000 as text.
#: gsm8k, taking the last number where no answer is marked, as the labels do. More: they refused "5 bags", "50 dollars"
#: and "30 - 16 = 14" for 5, 50 and 14. Fewer: they took 75 for 7500 and 0.02 for 2, a factor of 100; and the output
#: of a program where the response then says "Two people accept" or "16 people think that horse #12 will win".
DIFFERENCES: dict[str, tuple[list[str], dict[int, int]]] = {
    "math100x8_qwen": ([], {3: +8, 72: +1}),
    "gsm8k_mit": (
        ["selection.require_boxed=false", "answers.last_number=true"],
        {16: +1, 53: +1, 76: +1, 138: +1, 405: +1, 509: +1, 607: +1, 669: +1, 692: +1, 844: +1, 908: +1,
         199: -1, 328: -1, 413: -2, 466: -1, 586: -1, 594: -1, 951: -1, 1067: -1, 1182: -1,
         98: -1, 118: -1, 288: -1, 630: -1, 718: -2, 760: -1, 1144: -1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENCES)
def test_correctness_differs_from_others_labels_only_where_they_are_wrong(
    tmp_path: Path, name: str, local_ray: None
) -> None:
    rows = labelled(name)
    overrides, expected = DIFFERENCES[name]
    columns = ["reference_answer_column=gold", "responses_column=samples", "text_field=response"]
    weigh(tmp_path / "run", OUTPUTS / f"{name}.jsonl", *(f"samples.{one}" for one in columns), *overrides)
    judged = [*read(tmp_path / "run", "examples", EXAMPLES), *read(tmp_path / "run", "discarded", DISCARDED)]
    assert len(judged) == len(rows)
    differences = {}
    for one in judged:
        given = rows[int(one["question_id"].rpartition("-")[2]) - 1]
        more = round(one["pass_rate"] * one["num_responses"]) - sum(
            response["correct"] for response in given["samples"]
        )
        if more:
            differences[given["idx"]] = more
    assert differences == expected
