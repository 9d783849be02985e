"""The documentation is true: generated parts are current, links lead somewhere, the examples of CONTRIBUTING run.

``python tests/test_docs.py`` renews the generated parts of east_ray/README.md.
"""

import ast
import functools
import http.server
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
import yaml
from rich.console import Console
from settings_tables import settings_tables
from typer.core import TyperOption

from east_ray import cli, pipeline, records
from east_ray.answers import equality, extraction
from east_ray.config.files import MODULE_FOLDERS
from east_ray.console import Progress
from east_ray.records import EXAMPLES
from east_ray.serving.settings import ServingConfig
from east_ray.serving.solving import SolveRequest
from east_ray.storage import RunDirectory, load_run
from east_ray.training import objectives

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "east_ray" / "README.md"
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"{folder}/README.md" for folder in
             ("jobs", "cluster_configs", "east_ray", "tests/benchmarks"))]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ generated parts


def generated() -> dict[str, str]:
    """Name -> text of each part of east_ray/README.md that stands between <!-- NAME --> and <!-- /NAME -->."""
    return {
        "extraction": as_text(extraction),
        "equality": as_text(equality),
        "verbs": verbs_table(),
        "records": "\n".join(folder_table(*one) for one in documented_schemas()),
        "settings": settings_tables(),
        "serving": settings_tables(ServingConfig),
        "request": settings_tables(SolveRequest).replace("| setting |", "| field |", 1),
    }


def verbs_table() -> str:
    """Markdown: every verb with what `--help` says of it."""
    group: Any = typer.main.get_command(cli.app)
    rows = []
    for name, command in group.commands.items():
        options = ", ".join(f"`{one.opts[0]}`" for one in command.params if isinstance(one, TyperOption))
        rows.append(f"| `{name}` | {' '.join(command.help.split())} | {options} |")
    return "\n".join(["| verb | does | options |", "|---|---|---|", *rows])


def as_text(module: ModuleType) -> str:
    """Markdown: what the docstring of a module says."""
    return f"```text\n{(module.__doc__ or '').strip()}\n```"


def documented_schemas() -> Iterator[tuple[str, str, pa.Schema]]:
    """(folder, description, schema) of each schema in records.py that has a line ``#: ``folder/``: description``."""
    source = Path(records.__file__).read_text(encoding="utf-8")
    for folder, description, name in re.findall(r"#: ``([\w/]+/)``: (.+)\n([A-Z_]+) = pa\.schema", source):
        yield folder, description, getattr(records, name)


def folder_table(folder: str, description: str, schema: pa.Schema) -> str:
    """Markdown: the columns of a folder, with what the comments in records.py say of them."""
    rows = [f"| `{path}` | {kind} | {meaning} |" for path, kind, meaning in columns(list(schema), comments(schema))]
    title = f"#### {folder}\n\n{description[0].upper()}{description[1:]}\n".replace("``", "`")
    return "\n".join([title, "| column | type | meaning |", "|---|---|---|", *rows, ""])


def columns(fields: Sequence[pa.Field], said: Mapping[str, str], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, type, meaning) of each column, and of each field of an object or of a list's objects.

    They are called e.g. ``label.action`` and ``responses[].text``.
    """
    for column in fields:
        is_list = pa.types.is_list(column.type)
        inner = column.type.value_type if is_list else column.type
        kind = "list" if is_list else "object" if pa.types.is_struct(inner) else str(inner)
        path = prefix + column.name
        yield path, kind + (" or null" if column.nullable else ""), said.get(column.name, "")
        if pa.types.is_struct(inner):
            named = next((one for one in vars(records).values() if one == inner), None)
            own = said if named is None else comments(named)
            yield from columns(list(inner), own, f"{path}[]." if is_list else f"{path}.")


def comments(owner: object) -> dict[str, str]:
    """Column -> the comment behind it or above it in records.py, of a schema, struct or list of fields."""
    source = Path(records.__file__).read_text(encoding="utf-8")
    lines, found = source.splitlines(), dict[str, str]()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(records, ast.unparse(node.targets[0])) is owner:
            for part in ast.walk(node):
                if isinstance(part, ast.Starred):  # the columns of another one
                    found = comments(getattr(records, ast.unparse(part.value))) | found
                elif isinstance(part, ast.Call) and ast.unparse(part.func) == "pa.field":
                    behind = re.search(r"\),? +# (.+)$", lines[part.lineno - 1])
                    above = re.fullmatch(r" +# (.+?)[:.]?", lines[part.lineno - 2])
                    said = (behind or above or [""] * 2)[1]
                    found[ast.literal_eval(part.args[0])] = said.replace("``", "`").replace("|", "\\|")
    return found


def with_generated(text: str) -> str:
    """The text with its generated parts made anew."""
    for name, part in generated().items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        assert text.count(begin) == text.count(end) == 1, f"{REFERENCE} lacks {begin} or {end}"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{part.strip()}\n\n{end}{rest.partition(end)[2]}"
    return text


def test_generated_documentation_is_current() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    assert with_generated(text) == text, (
        "east_ray/README.md is out of date: run `python tests/test_docs.py` to renew it"
    )


def test_a_field_of_one_object_is_told_from_those_of_a_list() -> None:
    inner = pa.struct([pa.field("x", pa.int32(), nullable=False)])
    fields = [pa.field("one", inner), pa.field("many", pa.list_(inner), nullable=False)]
    assert [(path, kind) for path, kind, _ in columns(fields, {})] == [
        ("one", "object or null"), ("one.x", "int32"), ("many", "list"), ("many[].x", "int32"),
    ]  # fmt: skip


def test_the_examples_of_public_names_are_right() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for line in code.splitlines():
        expression, _, result = line.partition("  # ")
        if result:
            assert repr(eval(expression, names)) == result.strip(), line
        else:
            exec(line, names)


def test_every_room_is_described() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    rooms = {path.name + "/" * path.is_dir() for path in REFERENCE.parent.iterdir() if not path.name.startswith("__")}
    described = set(re.findall(r"^\| `([\w./]+)` \|", text.partition("## Verbs")[0], flags=re.MULTILINE))
    assert described == {room for room in rooms if room.endswith((".py", "/"))}


# ------------------------------------------------------------------------------------------------------------ pointers


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings(document: str) -> None:
    source = ROOT / document
    text = re.sub(r"```.*?```", "", source.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = source.parent / path if path else source
        assert file.exists(), f"{document}: {target} leads nowhere"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in anchors, f"{document}: {target} has no such heading"


def test_every_job_is_in_the_list_of_jobs() -> None:
    linked = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "jobs" / "README.md").read_text(encoding="utf-8"))
    names = {path.name for path in (ROOT / "jobs").iterdir()} - {"README.md", "__pycache__"}
    assert not names - set(linked), "jobs/README.md lacks these"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_and_files_that_are_named_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:east_ray|jobs|tests|cluster_configs)/[\w/.]*\w\.(?:py|yaml|sh|md)\b", text):
        assert (ROOT / path).exists(), f"{document} names {path}"
    for dotted in re.findall(r"\beast_ray(?:\.[A-Za-z_]\w*)+", text):
        assert is_importable(dotted), f"{document} names {dotted}"


def is_importable(dotted: str) -> bool:
    """Whether it is a module, or something in one."""
    parent, _, name = dotted.rpartition(".")
    try:
        if importlib.util.find_spec(dotted) is not None:
            return True
    except ModuleNotFoundError:
        pass
    return hasattr(importlib.import_module(parent), name)


def commands(document: str) -> list[tuple[str, str]]:
    """The commands of a document's blocks of a console, each with what it is said to print."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n\$ ([^\n]+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert text.count("```console") == len(blocks) > 0
    return blocks


def test_the_readme_has_every_verb() -> None:
    group: Any = typer.main.get_command(cli.app)
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The verbs")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([a-z]+)`", re.sub(r"(?m)^(\|[^|]*\|).*$", r"\1", text))) >= set(group.commands)


@pytest.mark.parametrize(("command", "printed"), [*commands("jobs/README.md"), *commands("east_ray/README.md")])
def test_commands_print_what_is_said(command: str, printed: str) -> None:
    line = command.replace("east-ray ", f"{shlex.quote(sys.executable)} -m east_ray ")
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    assert result.stdout == printed


# ---------------------------------------------------------------------------------------------- CONTRIBUTING's examples


@pytest.fixture
def example(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """The settings of a section of CONTRIBUTING, whose file is written into an empty working directory."""
    monkeypatch.chdir(tmp_path)
    MODULE_FOLDERS.clear()
    sections = re.split(r"^##+ ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = (one for one in sections if one.startswith(f"To add {request.param}, write this one file\n"))
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (settings,) = re.findall(r"```yaml\n(.*)\n```", section)
    Path(re.match(r"# (\w+\.py)\n", code)[1]).write_text(code)  # type: ignore[index]
    yield yaml.safe_load(settings)
    MODULE_FOLDERS.clear()


of = functools.partial(pytest.mark.parametrize, "example", indirect=True)


def weighed(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of examples/ that `east-ray weigh` makes, of questions that are asked or of given samples."""
    Path("run.yaml").write_text(json.dumps({"run_dir": "run", **values}))
    config = load_run("run.yaml")
    directory = RunDirectory(config)
    pipeline.check_inputs(config, directory)
    round_ = pipeline.open_round(config, directory, 0, Progress(Console(quiet=True)), only_weigh=True)
    pipeline.prepare(round_)
    pipeline.weigh(round_)
    rows: list[dict[str, Any]] = (directory.round(0) / "examples").read(EXAMPLES).sort_by("question_id").to_pylist()
    return rows


def given(*questions: list[str], reference: str = "1") -> dict[str, Any]:
    """Settings for samples of another sampler, which are written into the working directory."""
    rows = [
        {"question": f"Question {n}", "reference_answer": reference, "responses": r} for n, r in enumerate(questions)
    ]
    Path("given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"samples": {"path": "given.jsonl"}}


def boxed(answers: str) -> list[str]:
    return [f"\\boxed{{{answer}}}" for answer in answers]


@of(["a signal"])
def test_the_signal_of_contributing(example: dict[str, Any], local_ray: None) -> None:
    rows = weighed(given(boxed("1123"), boxed("1111"), boxed("1222")) | example)
    # 1 - (2² + 1 + 1) / 4², 0, 1 - (1 + 3²) / 4²
    assert [row["signal"] for row in rows] == [0.625, 0, 0.375]
    assert [row["weight"] for row in rows] == pytest.approx([0.625 * 3, 0, 0.375 * 3])  # over the mean, 1 / 3


@of(["a mapping"])
def test_the_mapping_of_contributing(example: dict[str, Any], local_ray: None) -> None:
    rows = weighed(given(boxed("1123"), boxed("1111"), boxed("1222"), boxed("1234")) | example)
    signals = np.array([row["signal"] for row in rows])
    mapped = np.minimum(signals, np.quantile(signals, 0.9))
    assert mapped.max() < signals.max()
    np.testing.assert_allclose([row["weight"] for row in rows], mapped / mapped.mean())


@of(["an objective"])
def test_the_objective_of_contributing(example: dict[str, Any]) -> None:
    import torch

    values = {"run_dir": "run", "model": "m", "questions": {"path": "q.jsonl"}, "training": example["training"]}
    values["training"] |= {"beta": 0.5}
    Path("run.yaml").write_text(json.dumps(values))
    objective = objectives.load(load_run("run.yaml").training)
    batch = objectives.MicroBatch(
        logprobs={"chosen": torch.tensor([-3.0, -1.0]), "rejected": torch.tensor([-6.0, -2.0])},
        references={"chosen": torch.tensor([-4.0, -1.0]), "rejected": torch.tensor([-5.0, -2.0])},
        num_tokens={},
        weights=torch.tensor([0.5, 2.0]),
        num_step_examples=4,
        num_step_tokens={},
    )
    # margins (-3 + 4) - (-6 + 5) = 2 and 0, to be 1 / (2 * 0.5) = 1: (0.5 * 1² + 2 * 1²) / 4
    assert objective.loss(batch).item() == pytest.approx(0.625)
    assert objective.required_responses == ("chosen", "rejected")


@of(["a question format"])
def test_the_format_of_contributing(example: dict[str, Any], local_ray: None) -> None:
    Path("quiz.jsonl").write_text('{"stem": "2 + 2?", "options": ["3", "4"], "key": "B"}\n')
    Path("table.jsonl").write_text(json.dumps({"question": "2 + 2?\n(A) 3\n(B) 4", "responses": boxed("BA")}) + "\n")
    (row,) = weighed({"model": "m", "sampling": scripted("table.jsonl"), **example})
    assert row["question"] == "2 + 2?\n(A) 3\n(B) 4" and row["reference_answer"] == "B" and row["pass_rate"] == 0.5


@of(["a grader"])
def test_the_grader_of_contributing(example: dict[str, Any], local_ray: None) -> None:
    texts = ["(A) is wrong, so (B).", "It is (b).", "(e)", "No idea.", "(F)", "B"]
    (row,) = weighed(given(texts, reference="B") | example)
    clusters = [(one["answer"], one["num_responses"], one["is_correct"]) for one in row["clusters"]]
    assert clusters == [(None, 3, False), ("B", 2, True), ("e", 1, False)]
    assert row["chosen"] in texts[:2]


@of(["a backend"])
def test_the_backend_of_contributing(example: dict[str, Any], local_ray: None) -> None:
    Path("questions.jsonl").write_text('{"question": "Once more?", "reference_answer": "1"}\n')
    asked: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            choices = [
                {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                for index, text in enumerate(boxed("1123"))
            ]
            reply = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply.encode())

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = {"base_url": f"http://127.0.0.1:{server.server_port}/v1"}
        sampling = example["sampling"] | {"backend_args": address, "responses_per_question": 4, "max_tokens": 9}
        values = {"model": "served", "questions": {"path": "questions.jsonl"}, "sampling": sampling}
        (row,) = weighed({**values, "engines": {"num_cpus_per_engine": 0.5, "env": {"OPENAI_API_KEY": "none"}}})
        server.shutdown()
    assert example["sampling"]["backend_args"].keys() == address.keys()
    assert row["pass_rate"] == 0.5 and len(row["clusters"]) == 3
    (request,) = asked
    assert request["messages"] == [{"role": "user", "content": "Once more?"}]
    assert (request["model"], request["n"], request["max_tokens"]) == ("served", 4, 9) and request["seed"] >= 0


def scripted(table: str) -> dict[str, Any]:
    return {"backend": "scripted", "backend_args": {"table": table}, "responses_per_question": 4}


if __name__ == "__main__":
    REFERENCE.write_text(with_generated(REFERENCE.read_text(encoding="utf-8")), encoding="utf-8")
