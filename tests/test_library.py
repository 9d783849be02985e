"""``import east_ray``: what it weighs equals what the stages weigh, row by row, from rows in any form, without Ray."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_directories import write_run

import east_ray
from east_ray import pipeline
from east_ray.config import InputError, PromptConfig
from east_ray.console import Progress
from east_ray.export.files import source_of, write
from east_ray.export.shapes import Form, Shape
from east_ray.library.rows import dictionaries
from east_ray.records import ANSWERS, DISCARDED, EXAMPLES, SAMPLES, SET_ASIDE
from east_ray.storage import RunDirectory, load_run

ROOT = Path(__file__).parent.parent
GIVEN = ROOT.parent / "shared" / "data" / "given"
SCHEMAS = {"samples": SAMPLES, "answers": ANSWERS, "examples": EXAMPLES, "discarded": DISCARDED, "set_aside": SET_ASIDE}


def row(answers: str, reference: Any = "4", **more: Any) -> dict[str, Any]:
    texts = [f"\\boxed{{{answer}}}" if answer != "-" else "I do not know." for answer in answers]
    return {"question": f"2 + 2? {answers}", "reference_answer": reference, "responses": texts, **more}


#: Of every kind: kept, sure, all wrong, without a box, rows that are set aside.
ROWS = [
    row("4456-"),
    row("4444"),
    row("5567"),
    row("44"),
    {"question": "Half?", "reference_answer": 0.5, "responses": ["The answer is 1/2.", r"\boxed{\frac12}", "1"]},
    {"question": "No box?", "reference_answer": "4", "responses": ["The answer is 4.", "The answer is 5."]},
    row("4", reference="no #### here"),
    row("", level="Level 5", type="Algebra"),
    row("4", question=["a", "list"]),
    row("45", reference="So it is #### 4"),
]


def texts_as_objects(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    reasons = ["stop", "length", "eos"]
    return [
        one | {"responses": [{"out": {"text": text}, "finish_reason": reasons[i % 3], "num_tokens": i}
                             for i, text in enumerate(one["responses"])]}
        for one in rows
    ]  # fmt: skip


def single_responses(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each response, those of the questions mixed; and a row of another kind, an error, a contradiction."""
    found = [
        {"question": one["question"], "reference_answer": one["reference_answer"], "kind": "train",
         "doc": {"name": f"q{number}", "out": text, "end": "stop" if turn else "length"}}
        for turn in range(5) for number, one in enumerate(rows) for text in one["responses"][turn : turn + 1]
    ]  # fmt: skip
    other = found[2] | {"reference_answer": "5"}
    error = found[3] | {"doc": found[3]["doc"] | {"out": None, "end": None}}
    return [*found, found[0] | {"kind": "test"}, other, error, {"kind": "train", "doc": {}}]


def by_the_stages(folder: Path, rows: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, pa.Table]:
    """The folders that `east-ray weigh` writes of a file of these rows."""
    (folder / "file.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    samples = {"path": str(folder / "file.jsonl"), **settings.get("samples", {})}
    (folder / "run.yaml").write_text(json.dumps({"run_dir": str(folder / "run"), **settings, "samples": samples}))
    config = load_run(str(folder / "run.yaml"))
    directory = RunDirectory(config)
    round_ = pipeline.open_round(config, directory, 0, Progress(pipeline_console()), only_weigh=True)
    pipeline.prepare(round_)
    pipeline.weigh(round_)
    stages = directory.round(0)
    for shape in Shape:
        form = Form(shape, PromptConfig(system="Be brief."), as_text=shape is Shape.UNPAIRED)
        write(source_of(directory, 0, None), form, f"{shape}.parquet")
    return {name: (stages / name).read(schema) for name, schema in SCHEMAS.items()}


def pipeline_console() -> Any:
    from rich.console import Console

    return Console(quiet=True)


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (ROWS, {}),
        (
            texts_as_objects([one | {"id": f"n{i}"} for i, one in enumerate(ROWS)]),
            {
                "samples": {"text_field": "out.text", "id_column": "id", "extra_columns": ["id"]},
                "answers": {"no_answer": "exclude", "last_number": True},
                "selection": {"require_boxed": False, "responses_per_question_trained": 2},
                "weighting": {"exponent": 1.5, "mapping": "sigmoid", "entropy_estimator": "smoothed"},
                "training": {"objective": "dpo"},
                "seed": 3,
            },
        ),
        (
            single_responses(ROWS),
            {
                "samples": {
                    "response_column": "doc.out",
                    "group_by": ["doc.name"],
                    "where": {"kind": "train"},
                    "finish_reason_field": "doc.end",
                },
                "weighting": {"signal": "accuracy"},
            },
        ),
        (
            [{"id": f"{i:03}", "responses": one["responses"]} for i, one in enumerate(ROWS)],
            {
                "samples": {
                    "questions": {"path": "questions.jsonl", "id_column": "id", "format": "columns"},
                    "id_column": "id",
                }
            },
        ),
    ],
    ids=["defaults", "settings", "a row is a response", "questions elsewhere"],
)
@pytest.mark.filterwarnings("ignore:set aside", "ignore:1 failed responses")
def test_the_result_is_that_of_the_stages(
    tmp_path: Path,
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[dict[str, Any]],
    settings: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    questions = [{"id": f"{i:03}", **one} for i, one in enumerate(ROWS[:-1]) if isinstance(one["question"], str)]
    Path("questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    expected = by_the_stages(tmp_path, rows, settings)
    sections = {name: settings[name] for name in ("samples", "answers", "selection", "weighting") if name in settings}
    objective, seed = settings.get("training", {}).get("objective", "sft"), settings.get("seed", 0)
    weighed = east_ray.weigh(rows, **sections, objective=objective, seed=seed, name="file")
    assert expected["examples"].num_rows > 1 and expected["discarded"].num_rows
    assert expected["set_aside"].num_rows > 1
    for name, table in expected.items():
        mine = getattr(weighed, name)
        assert mine.schema.equals(table.schema), name
        # The stage writes rows that it cannot read before the others.
        both = [one.sort_by("question_id") if name == "set_aside" else one for one in (mine, table)]
        assert both[0].to_pylist() == both[1].to_pylist(), name
    for shape in Shape:
        exported = weighed.exported(shape, as_text=shape is Shape.UNPAIRED, system="Be brief.")
        assert exported.equals(pq.read_table(f"{shape}.parquet"))


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """Rows that every form can hold."""
    rows = [row("4456-", reference="4"), row("4444"), row("45", level="Level 5")]
    return {
        "list": [{"level": None} | one for one in rows],
        "columns": pa.Table.from_pylist([{"level": None} | one for one in rows]),
    }


FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "generator": lambda given: (one for one in given["list"]),
    "Arrow": lambda given: given["columns"],
    "Arrow in chunks": lambda given: pa.concat_tables([given["columns"].slice(i, 1) for i in range(3)]),
    "a reader": lambda given: given["columns"].to_reader(),
    "DataFrame": lambda given: pd.DataFrame(given["list"]),
    "DataFrame of Arrow": lambda given: given["columns"].to_pandas(),
    "Dataset": lambda given: datasets.Dataset.from_list(given["list"]),
    "Dataset with indices": lambda given: datasets.Dataset.from_list(given["list"][::-1]).select([2, 1, 0]),
    "Dataset of numpy": lambda given: datasets.Dataset.from_list(given["list"]).with_format("numpy"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_rows_gives_the_same(form: str, tables: dict[str, Any]) -> None:
    assert list(dictionaries(FORMS[form](tables))) == tables["list"]
    weighed, expected = east_ray.weigh(FORMS[form](tables)), east_ray.weigh(tables["list"])
    assert weighed.questions.equals(expected.questions) and weighed.samples.equals(expected.samples)


def test_values_of_pandas_and_numpy_are_plain_ones() -> None:
    frame = pd.DataFrame(
        {"i": [1, 2], "x": [0.5, np.nan], "s": ["a", None], "o": [{"t": np.array(["b"])}, pd.NA], "m": [1, "a"]}
    )
    assert list(dictionaries(frame)) == [
        {"i": 1, "x": 0.5, "s": "a", "o": {"t": ["b"]}, "m": 1},
        {"i": 2, "x": None, "s": None, "o": None, "m": "a"},
    ]
    (one,) = dictionaries([{"a": np.float64(0.5), "b": (np.int32(1), np.array([[1], [2]]))}])
    assert one == {"a": 0.5, "b": [1, [[1], [2]]]} and type(one["a"]) is float
    assert [type(value) for value in next(dictionaries(frame)).values()] == [int, float, str, dict, int]
    assert list(dictionaries([{"a": np.float32(0.1), "b": np.array([0.1], np.float16), "c": np.array(2)}])) == [
        {"a": 0.1, "b": [0.1], "c": 2}
    ]
    short = pd.DataFrame({"a": np.array([0.1, np.nan], np.float32)})
    assert list(dictionaries(short)) == [{"a": 0.1}, {"a": None}]
    assert next(dictionaries(pa.table({"a": pa.array([0.1], pa.float32())}))) == {"a": 0.1}
    nested = pa.table({"responses": [[{"text": "a"}, None]]}).to_pandas()
    assert list(dictionaries(nested)) == [{"responses": [{"text": "a"}, None]}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("file.jsonl", r"rows: found the path 'file.jsonl'; expected rows; `east-ray weigh` reads files"),
        (Path("file.jsonl"), r"rows: found the path 'file.jsonl'"),
        (
            {"question": ["2 + 2?"], "responses": [["4"]]},
            r"rows: found a dict of 'question', 'responses'; expected rows: a list of dictionaries",
        ),
        (datasets.DatasetDict(train=datasets.Dataset.from_list([row("4")])), "rows: found a DatasetDict of 'train'"),
        (3, "rows: found int; expected rows: a list of dictionaries"),
        ([row("4"), "text"], "rows: row 2 is str; expected a dictionary"),
        ([], "rows: no question can be used: there is no row"),
        (pd.DataFrame([row("4")]).set_axis(["a", "b", "b"], axis=1), "rows: two columns are called 'b'"),
        ([{"prompt": "2 + 2?"}], "no question can be used: 1 malformed_row; row 1: column 'question' is missing"),
        ([row("")], "rows: no question can be used: 1 no_responses; row 1"),
    ],
)  # fmt: skip
def test_what_is_no_rows_is_refused(rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        east_ray.weigh(rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weighting": {"exponnent": 2}}, "weighting.exponnent: unknown key; did you mean exponent"),
        ({"weighting": {"exponent": "2"}}, "weighting.exponent: '2' given, expected number"),
        ({"samples": {"path": "file.jsonl"}}, "samples.path: the rows are given, so there is no path"),
        ({"samples": {"id_column": "level"}}, "samples.id_column: 2 questions have the name 'one'"),
        ({"objective": "spo"}, "training.objective: 'spo' given, expected sft, dpo, kto or module:name; did you mean"),
        ({"weighting": {"exponent": -1}}, "weighting: exponent -1 is not defined for the 1 of 2 kept questions"),
        ({"answers": 3}, "answers: 3 given, expected"),
        ({"samples": {"where": {"level": "two"}}}, "samples.where: no row has level: 'two'"),
        (
            {"samples": {"finish_reason_field": "levl"}},
            "samples.finish_reason_field: no row has 'levl'; did you mean level",
        ),
        ({"samples": {"question_column": "qestion"}}, "row 1: column 'qestion' is missing; .*did you mean question"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        east_ray.weigh([row("4444", level="one"), row("45", level="one")], **settings)


def test_equal_answers_are_said_with_what_may_be_behind_them() -> None:
    with pytest.raises(
        InputError, match=r"is 0, .*; rows are set aside, e.g. row-000002: row 2: column 'ref"
    ) as all_agree:
        east_ray.weigh([row("44"), {"question": "3?", "responses": ["a"]}])
    assert "one response" not in str(all_agree.value)
    with pytest.raises(
        InputError, match=r"each question has one response: .*samples.group_by .*, e.g. question$"
    ) as alone:
        east_ray.weigh([row("4"), row("4", question="3?")])
    assert "set aside" not in str(alone.value)
    with pytest.raises(InputError, match=r"sample more responses per question$"):
        east_ray.weigh([row("44")])


def test_what_is_not_used_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"set aside: 1 malformed_row, 1 no_responses; the first is row 2: ") as said:
        weighed = east_ray.weigh([row("45"), row("4", question=3), row("")])
    assert said[0].filename == __file__
    assert repr(weighed) == (
        "<Weighed: 3 questions, 2 responses; 1 kept as examples; set aside: 1 malformed_row, 1 no_responses>"
    )
    outcomes = [(one["question_id"], one["weight"], one["reason"]) for one in weighed.questions.to_pylist()]
    assert outcomes == [
        ("row-000001", 1.0, None), ("row-000002", None, "malformed_row"), ("row-000003", None, "no_responses"),
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="1 questions are in several rows, and each row has a weight of its own"):
        east_ray.weigh([row("45"), row("45")])
    with pytest.warns(UserWarning, match="1 failed responses are dropped"):
        east_ray.weigh(
            [{"question": "2 + 2?", "reference_answer": "4", "responses": ["#### 5", {"error": "429"}, "\\boxed{4}"]}]
        )
    with pytest.warns(UserWarning, match="no question is kept: 1 all_wrong; see `discarded`"):
        weighed = east_ray.weigh([row("56")])
    assert weighed.examples.schema.equals(EXAMPLES) and not weighed.examples.num_rows
    assert weighed.clusters("row-000001")["answer"].to_pylist() == ["5", "6"]


def test_a_grader_of_ones_own_that_fails_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strict.py").write_text(
        "def last(response, question):\n    return {'5}': '5', '4}': '4'}[response[-2:]]\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=r"the grader failed on 1 of 3 responses, .*KeyError") as said:
        weighed = east_ray.weigh([row("457")], answers={"grader": "strict:last"})
    assert said[0].filename == __file__
    assert weighed.clusters("row-000001")["answer"].to_pylist() == ["4", "5", None]


def test_clusters_have_the_texts_of_their_responses() -> None:
    weighed = east_ray.weigh([row("4"), row("5454-6")])
    clusters = weighed.clusters("row-000002").to_pylist()
    assert [(one["answer"], one["num_responses"], one["is_correct"]) for one in clusters] == [
        ("5", 2, False), ("4", 2, True), (None, 1, False), ("6", 1, False),
    ]  # fmt: skip
    assert [one["share"] for one in clusters] == pytest.approx([1 / 3, 1 / 3, 1 / 6, 1 / 6])
    assert clusters[2]["responses"] == ["I do not know."] and clusters[1]["responses"] == [r"\boxed{4}"] * 2
    with pytest.raises(InputError, match="no samples have the question_id 'row-2'; did you mean row-000002"):
        weighed.clusters("row-2")
    with pytest.raises(InputError, match=r"shape: 'mesages' given, expected messages, .*; did you mean messages"):
        weighed.exported("mesages")


@pytest.mark.skipif(not GIVEN.is_dir(), reason="the labelled data is not there")
@pytest.mark.parametrize(
    "rows_as", [list, pd.DataFrame, datasets.Dataset.from_list], ids=["list", "pandas", "datasets"]
)
def test_entropies_of_a_file_of_another_tool(rows_as: Callable[[list[dict[str, Any]]], Any]) -> None:
    expected = [json.loads(line) for line in (GIVEN / "expected.jsonl").read_text().splitlines()]
    rows = [
        {
            "question": one["question"],
            "gold": one["reference_answer"],
            "outputs": [{"text": f"#### {a}"} for a in one["answers"]],
        }
        for one in expected
    ]
    columns = {"reference_answer_column": "gold", "responses_column": "outputs"}
    weighed = east_ray.weigh(rows_as(rows), samples=columns, selection={"require_boxed": False})
    np.testing.assert_allclose(weighed.questions["entropy"], [one["entropy"] for one in expected], rtol=0, atol=1e-12)
    np.testing.assert_allclose(weighed.questions["pass_rate"], [one["pass_rate"] for one in expected])


# ------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of one round."""
    path = tmp_path_factory.mktemp("finished") / "run"
    write_run(path)
    return path


def test_a_run_is_read_as_tables(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run", rounds=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    run = east_ray.read_run(str(tmp_path / "run"))
    assert (run.rounds, run.trainings) == ([0, 1], ["trained", "uniform"])
    for training in run.trainings:
        for number in (0, 1):
            stages = directory.round(number).learner(training)
            assert run.examples(number, training=training).equals((stages / "examples").read(EXAMPLES))
            assert run.discarded(number, training=training).equals((stages / "discarded").read(DISCARDED))
    assert run.examples().equals(run.examples(1, training="trained"))
    assert run.samples(0, training="uniform").num_rows == run.answers(0).num_rows == 60
    assert run.set_aside().num_rows == 0
    metrics = run.metrics.to_pandas()
    assert set(metrics["metric"]) == {"accuracy", *(f"{kind}@{k}" for kind in ("pass", "maj") for k in (1, 2, 4, 8))}
    whole = metrics[(metrics["round"] == 1) & (metrics["metric"] == "accuracy") & metrics["group"].isna()]
    stored = json.loads((tmp_path / "run/round_1/evaluation/metrics.json").read_text())
    assert dict(zip(whole["model"], whole["value"], strict=True)) == {
        name: one["accuracy"] for name, one in stored["accuracy"].items()
    }
    of_level = metrics[(metrics["column"] == "level") & (metrics["group"] == "Level 2")]
    assert list(zip(of_level["round"], of_level["model"], strict=True)) == [
        (0, "base"), (0, "trained"), (1, "base"), (1, "trained"),
    ]  # fmt: skip
    assert run.differences.num_rows == 2 * 4 and run.differences["p_value"].null_count == 2
    assert run.comparison.num_rows == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_comparison_is_read_as_a_table(tmp_path: Path) -> None:
    write_run(tmp_path / "run", num_seeds=2)
    run = east_ray.read_run(str(tmp_path / "run"))
    stored = json.loads((tmp_path / "run/round_0/comparison.json").read_text())
    assert run.comparison.to_pylist() == [{"round": 0, **arm} for arm in stored["arms"]]
    assert run.examples(training=run.trainings[-1]).num_rows == 50 and run.metrics.num_rows == 0


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda run: run.examples(1), r"has no round 1; it has \[0\]"),
        (lambda run: run.examples(training="unifrom"), "has no training 'unifrom'; did you mean uniform"),
        (lambda run: run.answers(training="other"), "has no training 'other'; it has trained, uniform"),
    ],
)
def test_what_a_run_does_not_have_is_said(finished: Path, read: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(east_ray.read_run(str(finished)))


def test_an_unfinished_stage_is_not_given_as_finished(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    run = east_ray.read_run(tmp_path / "run")  # a path of pathlib
    assert run.examples().num_rows == 50
    (directory.round(0).folder / "stages").remove([str(tmp_path / "run/round_0/stages/examples.json")])
    for read in (run.examples, run.discarded):
        with pytest.raises(InputError, match="has no examples yet"):
            read()
    assert run.examples(training="uniform").num_rows == 50
    with pytest.raises(TypeError):
        run.examples(0, "uniform")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: east_ray.weights([0, 0], 1), "the signal of all 2 kept questions is 0"),
        (lambda: east_ray.weights([], 1), "there is no kept question to weight"),
        (lambda: east_ray.weights([1, np.nan], 1), "a signal must be a finite number of at least 0, found nan"),
        (lambda: east_ray.weights([1, 2], np.inf), "exponent: inf given"),
        (lambda: east_ray.weights(["a"], 1), "signals must be numbers"),
        (lambda: east_ray.entropy([-1, 2]), "cluster sizes must be finite and not negative"),
        (lambda: east_ray.entropy([np.nan, 2]), "cluster sizes must be finite and not negative"),
        (lambda: east_ray.weigh([row("45")], samples="x"), "samples: 'x' given, expected settings"),
        (lambda: east_ray.weigh([row("45")]).exported(system=3), "system: 3 given, expected string"),
        (lambda: east_ray.weigh([row("45")]).exported(None), "shape: None given, expected messages"),
        (lambda: east_ray.weigh([row("45")]).clusters(1), "no samples have the question_id 1"),
        (lambda: east_ray.read_run(3), "path: 3 given, expected the path of a run"),
    ],
)
def test_values_that_cannot_be_used_are_refused_in_a_sentence(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_where_no_run_has_begun_nothing_is_made(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps({"run_dir": str(tmp_path / "run"), "model": "m", "questions": {"path": "q.jsonl"}}))
    for place, message in ((path, "no run has begun there"), (tmp_path / "none", "none does not exist")):
        with pytest.raises(InputError, match=message):
            east_ray.read_run(str(place))
    assert [one.name for one in tmp_path.iterdir()] == ["run.yaml"]


# ----------------------------------------------------------------------------------------------------------- imports


def test_the_public_names_are_there_and_listed() -> None:
    for name in east_ray.__all__:
        assert getattr(east_ray, name).__doc__, name
    assert set(east_ray.__all__) <= set(dir(east_ray))
    with pytest.raises(AttributeError, match="module 'east_ray' has no attribute 'wiegh'"):
        _ = east_ray.wiegh


def test_weighing_needs_no_heavy_package(finished: Path) -> None:
    script = f"""
import sys
sys.modules.update(dict.fromkeys(["ray", "torch", "vllm", "transformers", "deepspeed", "datasets"]))
import east_ray
assert "pyarrow" not in sys.modules  # each name is imported when it is used
weighed = east_ray.weigh([{row("45")!r}], objective="dpo")
print(weighed.questions["entropy"][0], east_ray.read_run({str(finished)!r}).examples().num_rows)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [str(np.log(2)), "50"]
