"""`east-ray weigh FILE` without a YAML file: what is written, what is asked, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from east_ray import cli
from east_ray.config import InputError
from east_ray.config.files import load
from east_ray.first_use import responses as first_use
from east_ray.first_use.responses import config_of
from east_ray.records import DISCARDED, EXAMPLES
from east_ray.storage import Folder, locate


def row(number: int = 2, **changes: Any) -> dict[str, Any]:
    texts = [f"It is \\boxed{{{2 * number}}}.", f"\\boxed{{{2 * number + 1}}}"]
    found = {"problem": f"{number} + {number}?", "gold": 2 * number, "outputs": texts} | changes
    return {name: value for name, value in found.items() if value is not ...}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of responses in the working directory."""
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "out.v2.jsonl", [row(1), row(2)])


def begun(source: str, *overrides: str, ask: Callable[[str], str] | None = None) -> tuple[str, list[str]]:
    """The YAML file, and what was said."""
    said: list[str] = []
    return config_of(source, overrides, said.append, ask), said


def test_a_file_of_responses_gets_a_yaml_file_beside_its_run(file: str) -> None:
    path, said = begun(file, "weighting.exponent=2", "selection.all_correct=drop")
    assert path == "runs/out.yaml"
    config = load(path)
    assert (config.run_dir, config.weighting.exponent, config.selection.all_correct) == ("runs/out", 2, "drop")
    assert config.samples is not None
    assert config.samples.model_dump(exclude_unset=True) == {
        "path": file, "question_column": "problem", "reference_answer_column": "gold", "responses_column": "outputs",
    }  # fmt: skip
    assert "  question_column: problem is the question, e.g. 1 + 1?" in said
    text = Path(path).read_text(encoding="utf-8")
    assert "#   reference_answer_column: gold is the reference answer, e.g. 2\n" in text


def test_no_reference_is_looked_for_where_the_majority_labels(file: str, tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.jsonl", [row(1, gold=...), row(2, gold=...)])
    with pytest.raises(InputError, match=r"if there is none: labels\.source=majority"):
        begun(bare)
    samples = load(begun(bare, "labels.source=majority")[0]).samples
    assert samples is not None and (samples.question_column, samples.reference_answer_column) == ("problem", None)
    samples = load(begun(file, "labels.source=majority")[0]).samples
    assert samples is not None and samples.reference_answer_column == "gold"


def test_what_is_a_run_is_left_as_it_is(file: str, tmp_path: Path) -> None:
    path, _ = begun(file)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    for source in (path, str(tmp_path / "run"), "nowhere.yml"):
        assert begun(source) == (source, [])


def test_the_second_time_the_yaml_file_stands(file: str, tmp_path: Path) -> None:
    path, _ = begun(file)
    mended = Path(path).read_text(encoding="utf-8") + "description: mended by hand\n"
    Path(path).write_text(mended, encoding="utf-8")
    again, (said,) = begun("out.v2.jsonl")  # the same file by another name
    assert (again, Path(path).read_text(encoding="utf-8")) == (path, mended)
    assert said == "runs/out.yaml says what is what in out.v2.jsonl; change it there"
    _, (_, said) = begun(file, "labels.source=majority")
    command = "east-ray weigh runs/out.yaml labels.source=majority run_dir=runs/other"
    assert said == f"if its run is done, other settings need another run: `{command}`"
    assert load(path, command.split()[3:]).run_dir == "runs/other"
    other = write(tmp_path / "other" / "out.jsonl", [row()])
    with pytest.raises(InputError, match=r"runs/out.yaml is of a run on .*out.v2.jsonl; choose another run_dir for"):
        begun(other)
    assert begun(other, "run_dir=elsewhere/run")[0] == "elsewhere/run.yaml"


def test_that_a_chat_template_has_rendered_the_questions_is_said(file: str) -> None:
    write(Path(file), [row(number, problem=f"user\n{number} + {number}?\nassistant\n") for number in (1, 2)])
    _, said = begun(file)
    assert "  question_column: problem is the question, e.g. 1 + 1?" in said
    (rendered,) = [line for line in said if "chat template" in line]
    assert rendered == (
        "  problem: a chat template has rendered it; the question is the user's last turn, without what the system says"
    )
    write(Path(file), [row(1)])
    assert not [line for line in begun(file, "run_dir=r")[1] if "chat template" in line]


def test_a_column_whose_name_is_digits_is_named_by_them(file: str) -> None:
    write(Path(file), [{"0": f"{n}?", "1": str(n), "2": [f"\\boxed{{{n}}}", "\\boxed{9}"], "3": n} for n in (1, 2)])
    named = [f"samples.{name}_column={n}" for n, name in enumerate(("question", "reference_answer", "responses", "id"))]
    samples = load(begun(file, *named)[0]).samples
    assert samples is not None
    assert (samples.question_column, samples.reference_answer_column, samples.responses_column) == ("0", "1", "2")
    several = load(
        begun(file, *named[:2], "samples.responses_column=[0, 1]", "samples.where.1=2", "run_dir=r")[0]
    ).samples
    assert several is not None and (several.responses_column, several.where) == (["0", "1"], {"1": 2})
    with pytest.raises(InputError, match=r"samples.question_column: True given, expected string"):
        begun(file, "samples.question_column=true", *named[1:], "run_dir=s")


def test_what_hides_behind_equal_answers_is_said(file: str, local_ray: None) -> None:
    lines = [json.dumps(row(number, outputs=[f"\\boxed{{{2 * number}}}"] * 2)) for number in (1, 2)]
    Path(file).write_text("\n".join([*lines, lines[0] + ","]))
    with pytest.raises(
        InputError, match=r"is 0, .*; rows are set aside, e.g. out.v2-000003: row 3: not valid JSON \(Extra"
    ):
        cli.app(["weigh", file], standalone_mode=False)
    write(Path(file), [row(number, outputs=[f"\\boxed{{{2 * number}}}"]) for number in (1, 2)])
    with pytest.raises(InputError, match=r"; each question has one response: samples.response_column .* e.g. problem$"):
        cli.app(["weigh", file], standalone_mode=False)


def test_what_is_not_recognised_is_named_where_nobody_can_be_asked(file: str, tmp_path: Path) -> None:
    write(Path(file), [{"a": "2 + 2?", "b": 4, "c": ["4"]}])
    with pytest.raises(InputError) as refused:
        begun(file)
    assert str(refused.value) == (
        f"{file}: not everything is recognised; give samples.question_column=… for the question; "
        "samples.reference_answer_column=… for the reference answer (if it is in another file: "
        "samples.questions.path=…, samples.questions.id_column=… and samples.id_column=…; if there is none: "
        "labels.source=majority); samples.responses_column=… for the list of "
        "responses (if a row is one response: samples.response_column=…). Names in these rows: a, b, c"
    )
    assert not (tmp_path / "runs").exists()
    given = [f"samples.{one}" for one in ("question_column=a", "reference_answer_column=b", "responses_column=c")]
    path, _ = begun(file, *given)
    samples = load(path).samples
    assert samples is not None and (samples.question_column, samples.responses_column) == ("a", "c")


def test_a_file_of_which_no_row_can_be_read_is_told_of_with_its_first_row(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "a.jsonl", [row(1), row(2), row(3)])
    write(folder / "b.jsonl", [{"metric": 1}, row(problem=...)])
    _, said = begun(str(folder))
    (warning,) = [line for line in said if line.startswith("warning: ")]
    assert warning.startswith(
        f"warning: no row of {folder}/b.jsonl can be read as those of the others, so weigh it alone"
    )
    assert "row 1: column 'problem' is missing; found 'metric'; " in warning
    for number in range(3, 12):  # of which only the first row is looked at
        write(folder / f"{number:02}.jsonl", [row(number, truth=number), row(number)])
    write(folder / "z.jsonl", [{"metric": 2}])
    _, said = begun(str(folder), "run_dir=r")
    assert [line for line in said if "z.jsonl can be read" in line and "row 1: " in line]
    with pytest.raises(InputError, match=r"samples.path: .*in/03.jsonl, row 1: column 'gold' is missing"):
        begun(str(write_without(folder, "gold")), "samples.reference_answer_column=gold", "run_dir=s")


def write_without(folder: Path, name: str) -> Path:
    """A folder with the same files, whose rows lack a column."""
    for path in folder.iterdir():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write(
            folder.parent / "without" / "in" / path.name, [{k: v for k, v in one.items() if k != name} for one in rows]
        )
    return folder.parent / "without"


def test_a_filter_that_is_asked_for_is_answered(file: str) -> None:
    rows = [
        {"doc": {"question": f"{n}?"}, "target": 2, "resps": [["\\boxed{2}", "\\boxed{3}"]], "filter": name}
        for n, name in ((1, "strict"), (1, "loose"), (2, "loose"), (3, "none"))
    ]
    write(Path(file), rows)
    with pytest.raises(
        InputError, match=r"give samples.where.filter=… for the filter whose rows are read, .* none in 1"
    ):
        begun(file)
    samples = load(begun(file, ask=lambda question: "loose")[0]).samples
    assert samples is not None and samples.where == {"filter": "loose"}
    samples = load(begun(file, "samples.where.filter=[loose, none]", "run_dir=r")[0]).samples
    assert samples is not None and samples.where == {"filter": ["loose", "none"]}


def test_what_is_not_recognised_is_asked_for_on_a_terminal(file: str) -> None:
    write(Path(file), [{"question": "2 + 2?", "keys": 4, "said": "\\boxed{4}"}])
    asked: list[str] = []
    answers = iter(["key", "keys", "said"])

    def ask(text: str) -> str:
        asked.append(text)
        return next(answers)

    path, _ = begun(file, ask=ask)
    samples = load(path).samples
    assert samples is not None
    assert (samples.reference_answer_column, samples.response_column) == ("keys", "said")
    assert asked[0] == "Which is the reference answer? Names in these rows: question, keys, said"
    assert asked[1].startswith("'key' is not in these rows; did you mean keys? Which is the reference answer?")


@pytest.mark.parametrize(
    ("texts", "changes"),
    [
        (["The answer is 4.", "The answer is 5."], {"require_boxed": False, "last_number": False}),
        (["There are 4 pens.", "There are 5 pens."], {"require_boxed": False, "last_number": True}),
        (["There are 4 pens.", "\\boxed{5}"], {"require_boxed": True, "last_number": False}),
        (["I do not know.", "Nor do I."], {"require_boxed": False, "last_number": False}),
    ],
)
def test_settings_follow_from_how_the_responses_give_their_answers(
    texts: list[str], changes: dict[str, bool], file: str
) -> None:
    write(Path(file), [row(outputs=texts)])
    config = load(begun(file)[0])
    assert {"require_boxed": config.selection.require_boxed, "last_number": config.answers.last_number} == changes
    kept = load(begun(file, "run_dir=r", "selection.require_boxed=true", "answers.last_number=false")[0])
    assert (kept.selection.require_boxed, kept.answers.last_number) == (True, False)


def test_every_wrong_name_is_told_before_anything_is_written(file: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"column 'probelm' is missing.*did you mean problem.*column 'golf' is missing"
    ):
        begun(file, "samples.question_column=probelm", "samples.reference_answer_column=golf")
    with pytest.raises(InputError, match=r"samples.question_colum: unknown key; did you mean question_column"):
        begun(file, "samples.question_colum=problem")
    with pytest.raises(InputError, match=r"samples: expected single settings such as samples.question_column=NAME"):
        begun(file, "samples=5")
    with pytest.raises(InputError, match=r"weighting.exponant: unknown key"):
        begun(file, "weighting.exponant=2")
    assert not (tmp_path / "runs").exists()


def test_what_rows_hold_cannot_break_the_yaml_file(file: str) -> None:
    problem = "a\n# b: 'c'\x00\x85\ud800\ufeff: {" + "x" * 500
    path, _ = begun(write(Path(file).with_name("a\nb: c.jsonl"), [row(problem=problem), row(3)]))
    assert load(path).run_dir == "runs/a-b-c"


def test_a_folder_that_cannot_be_written_is_said(file: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"taken/run.yaml: cannot be written \(.*; choose another run_dir"):
        begun(file, "run_dir=taken/run")


def test_only_as_many_rows_are_held_as_fit_into_memory(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path(file), [row(problem="p" * 300), row(3, problem="p" * 300), row(4), row(5)])
    monkeypatch.setattr(first_use, "MAX_CHARS", 500)
    assert begun(file)[1][0] == f"{file}, by its first 2 rows"


def test_without_a_terminal_the_command_waits_for_no_answer(file: str) -> None:
    write(Path(file), [row(gold=...)])
    command = [sys.executable, "-m", "east_ray", "weigh", file]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert "give samples.reference_answer_column=… for the reference answer (if it is in another file: " in ended.stderr


@pytest.mark.parametrize("content", ["", "\n", "{nonsense\n"])
def test_a_file_without_rows_is_refused(content: str, file: str, tmp_path: Path) -> None:
    Path(file).write_text(content)
    with pytest.raises(InputError, match=r"samples.path"):
        begun(file)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", ["[]", "{}", " [ ]\n", "{ }\n", "[\n]"])
def test_an_empty_document_is_called_so(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out.json").write_text(content)
    with pytest.raises(InputError, match=r"^samples.path: .*out.json is empty; expected rows$"):
        begun("out.json")


def read(run_dir: Path, name: str, schema: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = Folder(*locate(str(run_dir / "round_0" / name))).read(schema).to_pylist()
    return rows


def test_a_weighing_that_keeps_nothing_shows_one_question_and_can_be_mended(
    file: str, tmp_path: Path, local_ray: None
) -> None:
    """`solution` is a better reference here than what its name says: nobody could know."""
    write(Path(file), [row(number, gold=-number, truth=2 * number) for number in range(1, 4)])
    with pytest.raises(InputError) as nothing:
        cli.app(["weigh", file], standalone_mode=False)
    assert str(nothing.value).startswith(
        "no question was kept, so there is nothing to train on: of 3 questions 3 all_wrong; one of them, '1 + 1?', has "
        "the reference answer '-1', and the commonest answer to it is '2' (1 of 2 responses); mend samples, answers, "
    )
    # The file may be mended too, as long as nothing of it is weighed.
    write(Path(file), [row(number, gold=-number, truth=2 * number, outputs=["none"]) for number in range(1, 4)])
    with pytest.raises(InputError, match=r"the commonest answer to it is none \(1 of 1 responses\): `answers.last_num"):
        cli.app(["weigh", file], standalone_mode=False)
    write(Path(file), [row(number, gold=-number, truth=2 * number) for number in range(1, 4)])
    cli.app(["weigh", file, "samples.reference_answer_column=truth"], standalone_mode=False)
    examples = read(tmp_path / "runs/out", "examples", EXAMPLES)
    assert [one["reference_answer"] for one in examples] == ["2", "4", "6"]
    assert not read(tmp_path / "runs/out", "discarded", DISCARDED)
    with pytest.raises(InputError, match=r"samples.reference_answer_column: 'truth' there, 'gold' now"):
        cli.app(["weigh", file], standalone_mode=False)
