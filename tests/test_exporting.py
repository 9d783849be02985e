"""Examples for other trainers: every shape is written, loaded again and compared; resampling; the hub; bad input."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hub_server import TOKEN, Hub, hub_server
from hypothesis import example, given
from hypothesis import strategies as st
from rounds import sample, write_round
from run_directories import write_run

from east_ray.config import InputError, PromptConfig
from east_ray.config.files import resolve
from east_ray.export.command import Wanted, export
from east_ray.export.files import source_of, write
from east_ray.export.shapes import Form, Shape, drawn
from east_ray.records import EXAMPLES
from east_ray.selection import SelectionRules
from east_ray.storage import Folder, RunDirectory, locate

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """50 examples of a run, with hostile text in questions and responses, and a variant."""
    return write_run(tmp_path_factory.mktemp("run") / "run")


def examples_of(run: RunDirectory) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (run.round(0) / "examples").read(EXAMPLES).to_pylist()
    return rows


def exported(run: RunDirectory, shape: str, *overrides: str, **options: Any) -> list[str]:
    return list(export(run.uri, overrides, Wanted(shape, **options)))


def loaded(path: Path, cache: Path) -> list[dict[str, Any]]:
    """The rows of a file as the library `datasets` reads them."""
    import datasets

    kind = {".jsonl": "json", ".parquet": "parquet"}[path.suffix]
    found = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(cache))
    rows: list[dict[str, Any]] = found.to_list()
    return rows


def expected(shape: Shape, row: dict[str, Any], *, as_text: bool) -> list[dict[str, Any]]:
    """The rows of an example, written out for each shape."""

    def said(text: str, role: str = "assistant") -> Any:
        return text if as_text else [{"role": role, "content": text}]

    asked, chosen, rejected = said(row["question"], "user"), said(row["chosen"]), said(row["rejected"])
    about = {name: row[name] for name in ("question_id", "weight", "entropy", "pass_rate")}
    one = about | {"finish_reason": "stop"}
    match shape:
        case Shape.MESSAGES:
            return [one | {"text" if as_text else "messages": asked + chosen}]
        case Shape.PROMPT_COMPLETION:
            return [one | {"prompt": asked, "completion": chosen}]
        case Shape.PREFERENCE:
            both = {"chosen_finish_reason": "stop", "rejected_finish_reason": "stop"}
            return [about | both | {"prompt": asked, "chosen": chosen, "rejected": rejected}]
        case Shape.UNPAIRED:
            pairs = [(chosen, True), (rejected, False)]
            return [one | {"prompt": asked, "completion": text, "label": label} for text, label in pairs]


@pytest.mark.parametrize("as_text", [False, True], ids=["chat", "text"])
@pytest.mark.parametrize("shape", Shape)
def test_each_shape_is_loaded_as_it_was_written_weight_by_weight(
    run: RunDirectory, shape: Shape, as_text: bool, tmp_path: Path
) -> None:
    rows = [
        dict(sorted(one.items()))
        for row in examples_of(run)
        for one in expected(shape, row | {"rejected_finish_reason": "stop"}, as_text=as_text)
    ]
    for suffix in (".jsonl", ".parquet"):
        path = tmp_path / f"out{suffix}"
        form = Form(shape, PromptConfig(), as_text)
        with_ends(run)
        written = write(source_of(run, 0, None), form, str(path))
        assert written.num_rows == len(rows)
        assert [dict(sorted(one.items())) for one in loaded(path, tmp_path)] == rows


def with_ends(run: RunDirectory) -> None:
    """The rejected responses of the examples have ended by themselves."""
    folder = run.round(0) / "examples"
    rows = [row | {"rejected_finish_reason": "stop"} for row in folder.read(EXAMPLES).to_pylist()]
    folder.replace(pa.Table.from_pylist(rows, EXAMPLES))


@pytest.mark.parametrize("as_text", [False, True], ids=["chat", "text"])
@pytest.mark.parametrize("shape", Shape)
def test_the_entry_for_llamafactory_names_columns_as_its_documentation_wants_them(
    run: RunDirectory, shape: Shape, as_text: bool, tmp_path: Path
) -> None:
    (tmp_path / "dataset_info.json").write_text('{"identity": {"file_name": "identity.json"}}')
    form = Form(shape, PromptConfig(system="Be brief."), as_text)
    write(source_of(run, 0, None), form, str(tmp_path / "mine.jsonl"))
    entries = json.loads((tmp_path / "dataset_info.json").read_text())
    assert entries.pop("identity") == {"file_name": "identity.json"}
    if shape is not Shape.MESSAGES and not as_text:
        assert entries == {}
        return
    entry = entries["mine"]
    row = json.loads((tmp_path / entry["file_name"]).read_text().splitlines()[0])
    columns = {name: row[column] for name, column in entry["columns"].items()}
    if not as_text:
        tags = entry["tags"]
        turns = [(turn[tags["role_tag"]], turn[tags["content_tag"]]) for turn in columns.pop("messages")]
        assert [role for role, _ in turns] == [tags[f"{name}_tag"] for name in ("system", "user", "assistant")]
        assert (entry["formatting"], columns) == ("sharegpt", {})
        return
    assert entry["formatting"] == "alpaca" and columns.pop("system") == "Be brief."
    assert bool(entry.get("ranking")) == (shape is Shape.PREFERENCE)
    assert (columns.pop("kto_tag", None) is True) == (shape is Shape.UNPAIRED)
    names = {"response"} if shape in (Shape.PROMPT_COMPLETION, Shape.UNPAIRED) else set()
    assert columns.keys() == {"prompt", *names, *(("chosen", "rejected") if shape is Shape.PREFERENCE else ())}
    assert all(isinstance(value, str) for value in columns.values())


def test_other_trainers_find_the_fields_of_their_documentation(run: RunDirectory, tmp_path: Path) -> None:
    import pandas as pd

    def first(shape: str, **options: Any) -> Any:
        path = tmp_path / f"{shape}.{options.pop('suffix', 'jsonl')}"
        exported(run, shape, "prompt.system=Be brief.", output=str(path), **options)
        if path.suffix == ".parquet":
            return pd.read_parquet(path).iloc[0].to_dict()
        return json.loads(path.read_text().splitlines()[0])

    # verl's MultiTurnSFTDataset: Parquet with messages; Axolotl's chat_template: the same.
    roles = [turn["role"] for turn in first("messages", suffix="parquet")["messages"]]
    assert roles == ["system", "user", "assistant"]
    # OpenRLHF with --data.apply_chat_template joins the lists of --data.input_key and --data.output_key, and those of
    # --data.prompt_key with --data.chosen_key and --data.rejected_key.
    row = first("prompt-completion")
    assert [turn["role"] for turn in row["prompt"] + row["completion"]] == ["system", "user", "assistant"]
    row = first("preference")
    for name in ("chosen", "rejected"):
        assert [turn["role"] for turn in row["prompt"] + row[name]] == ["system", "user", "assistant"]
    # Hosted fine-tuning: no other key than messages, no other than role and content in these.
    row = first("messages", bare=True)
    assert row.keys() == {"messages"} and {frozenset(turn) for turn in row["messages"]} == {
        frozenset(("role", "content"))
    }


def test_prompts_are_put_as_in_training(run: RunDirectory, tmp_path: Path) -> None:
    worked = [{"question": "1 + 1?", "solution": " 2"}]
    prompt = PromptConfig.model_validate(
        {"template": "Q: {question}\nA:", "examples": {"questions": worked}, "template_variables": {"thinking": False}}
    )
    row = {"question": "2 + 2?", "question_id": "q", "weight": 0.5, "entropy": None, "pass_rate": None}
    row |= {"chosen": " 4", "rejected": None, "chosen_finish_reason": "stop", "rejected_finish_reason": None}
    (chat,) = Form(Shape.PROMPT_COMPLETION, prompt).rows(row)
    assert [turn["content"] for turn in chat["prompt"]] == ["Q: 1 + 1?\nA:", " 2", "Q: 2 + 2?\nA:"]
    assert chat["chat_template_kwargs"] == {"thinking": False} and chat["entropy"] is None
    (text,) = Form(Shape.PROMPT_COMPLETION, prompt, as_text=True).rows(row)
    assert text["prompt"] + text["completion"] == "Q: 1 + 1?\nA: 2\n\nQ: 2 + 2?\nA: 4"
    (only,) = Form(Shape.UNPAIRED, prompt).rows(row)  # without a wrong response
    assert only["label"] is True


def test_a_run_that_is_asked_with_text_is_exported_as_text(tmp_path: Path) -> None:
    run = RunDirectory(resolve({"model": "m", "run_dir": str(tmp_path / "run"), "questions": {"path": "q.jsonl"}}))
    write_round(tmp_path / "run" / "round_0", [sample("a", ["4", "3"])])
    with run.round(0).recording("examples"):
        pass
    assert not source_of(run, 0, None).form(Shape.MESSAGES, [], as_text=None, bare=False).as_text
    with run.round(0).recording("questions") as record:
        record.counts = {"prompt_style": "text"}
    source = source_of(run, 0, None)
    assert source.form(Shape.MESSAGES, [], as_text=None, bare=False).as_text
    assert not source.form(Shape.MESSAGES, [], as_text=False, bare=False).as_text
    assert not source.form(Shape.MESSAGES, ["prompt.style=chat"], as_text=None, bare=False).as_text


def weighed(path: Path, samples: list[dict[str, Any]], **rules: Any) -> RunDirectory:
    """A run of given samples that was weighed by these rules."""
    run = RunDirectory(resolve({"run_dir": str(path), "samples": {"path": "s.jsonl"}}))
    write_round(path / "round_0", samples, rules=SelectionRules(**rules))
    with run.round(0).recording("examples"):
        pass
    return run


def test_responses_that_share_a_weight_have_the_shares_that_are_trained_with(tmp_path: Path) -> None:
    samples = [sample("a", ["4", "4.0", "4.00", "3"]), sample("b", ["4", "3", "2", "1"])]
    run = weighed(tmp_path / "run", samples, responses_per_question_trained=3)
    by_id = {row["question_id"]: row["weight"] for row in examples_of(run)}
    exported(run, "messages", output=str(tmp_path / "out.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    # Two questions with four responses: each has its question's weight, times 4 / 2, shared by its 3 or 1.
    shares = [by_id["a"] * 2 / 3] * 3 + [by_id["b"] * 2]
    assert sorted(row["question_id"] for row in rows) == ["a", "a#1", "a#2", "b"]
    assert sorted(row["weight"] for row in rows) == pytest.approx(sorted(shares), rel=1e-15)
    assert np.mean([row["weight"] for row in rows]) == pytest.approx(1)
    assert len({row["messages"][-1]["content"] for row in rows if row["question_id"].startswith("a")}) == 3


def test_what_should_be_known_of_the_rows_is_said(tmp_path: Path) -> None:
    cut = sample("c", ["4", "3"])
    cut["responses"][1]["finish_reason"] = "length"
    run = weighed(tmp_path / "run", [sample("a", ["4", "4"]), sample("b", ["4", "3"]), cut])
    said = exported(run, "preference", "prompt.system=Be brief.", as_text=True)
    assert said[0] == f"2 rows: {tmp_path}/run/round_0/export/preference.jsonl"
    assert [line.partition(":")[0] for line in said[1:]] == ["note"] * 4
    assert "without a wrong response, and left out: 1 example;" in said[1]
    assert "cut off (finish_reason length): 1 response;" in said[2]
    assert "nothing separates question and answer" in said[3] and "the system message is a column" in said[4]
    template = r'prompt.template="Question: {question}\nAnswer: "'
    assert f"add e.g. '{template}'" in said[3]
    assert "separates" not in "".join(exported(run, "preference", template, as_text=True))
    said = exported(run, "messages")
    assert len(said) == 2 and "of weight 0: 1 example;" in said[1]
    assert len(exported(run, "messages", resample=5)) == 1
    assert "the rows have no weights" in exported(run, "messages", bare=True)[-1]
    assert "only as text" in exported(run, "unpaired")[-1]
    thinking = [row | {"chosen": f"<think>2</think> {row['chosen']}"} for row in examples_of(run)]
    (run.round(0) / "examples").replace(pa.Table.from_pylist(thinking, EXAMPLES))
    assert "with </think>: 3 examples;" in exported(run, "messages")[-1]
    assert "</think>" not in "".join(exported(run, "messages", as_text=True))


def test_a_bare_file_has_the_columns_of_its_shape_and_no_others(run: RunDirectory, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    asked = ["prompt.system=Be brief.", "prompt.template_variables={thinking: false}"]
    said = exported(run, "messages", *asked, bare=True, resample=3, output=str(path))
    assert json.loads(path.read_text().splitlines()[0]).keys() == {"messages"}
    assert said[1:] == [
        "note: the variables of the chat template are left out: give them to the trainer, or leave --bare out"
    ]
    said = exported(run, "prompt-completion", asked[0], as_text=True, bare=True, resample=3, output=str(path))
    assert json.loads(path.read_text().splitlines()[0]).keys() == {"prompt", "completion"}
    assert "system" not in json.loads((tmp_path / "dataset_info.json").read_text())["out"]["columns"]
    assert "the system message is left out" in said[-1]


def test_where_examples_of_weight_0_are_skipped_the_shares_are_those_of_training(tmp_path: Path) -> None:
    settings = {
        "run_dir": str(tmp_path / "run"),
        "samples": {"path": "s.jsonl"},
        "training": {"skip_zero_weight": True},
    }
    run = RunDirectory(resolve(settings))
    samples = [sample("a", ["4", "4.0", "3"]), sample("b", ["4", "4.0", "4.00"])]
    write_round(tmp_path / "run" / "round_0", samples, rules=SelectionRules(responses_per_question_trained=3))
    with run.round(0).recording("examples"):
        pass
    exported(run, "messages", output=str(tmp_path / "out.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    # The one question that is trained on has weight 2 and two responses.
    assert [row["weight"] for row in rows if row["weight"]] == [2.0, 2.0]


# ----------------------------------------------------------------------------------------------------------- resampling


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e9)), min_size=1, max_size=50).filter(any),
    st.integers(1, 5000),
    st.integers(0, 2**32),
)
@example([1e-9, 1e9], 5000, 0)
def test_each_count_is_within_one_of_its_expectation(weights: list[float], num: int, seed: int) -> None:
    counts = drawn(weights, num, seed)
    assert counts.sum() == num and len(counts) == len(weights)
    expectations = np.array(weights) / np.sum(weights) * num
    assert np.all(np.abs(counts - expectations) < 1 + 1e-9 * num)
    assert np.all(counts[np.array(weights) == 0] == 0)
    assert np.array_equal(counts, drawn(weights, num, seed))


def test_more_may_be_drawn_than_fit_into_memory() -> None:
    counts = drawn([1.0, 0.0, 3.0, 0.0], 10**14 + 1, seed=1)
    assert counts.sum() == 10**14 + 1 and abs(counts[0] - (10**14 + 1) / 4) < 1 and not counts[[1, 3]].any()


def test_draws_are_right_on_average_over_seeds() -> None:
    weights, num = [0.3, 0.0, 1.1, 2.6], 3
    mean = np.mean([drawn(weights, num, seed) for seed in range(4000)], axis=0)
    assert mean == pytest.approx(np.array(weights) / 4 * num, abs=0.03)


def test_a_resampled_file_has_each_example_as_often_as_its_weight_says(run: RunDirectory, tmp_path: Path) -> None:
    path, again, other = (tmp_path / f"{name}.jsonl" for name in ("one", "again", "other"))
    exported(run, "prompt-completion", output=str(path), resample=200)
    exported(run, "prompt-completion", output=str(again), resample=200, seed=run.config.seed)
    exported(run, "prompt-completion", output=str(other), resample=200, seed=3)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert path.read_text() == again.read_text() != other.read_text()
    assert len(rows) == 200 and {row["weight"] for row in rows} == {1.0}  # a trainer with weights counts none twice
    counts, weights = Counter(row["question_id"] for row in rows), examples_of(run)
    total = sum(row["weight"] for row in weights)
    for row in weights:
        assert abs(counts[row["question_id"]] - 200 * row["weight"] / total) < 1


# -------------------------------------------------------------------------------------------------------------- the hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    import huggingface_hub.constants

    with hub_server() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.endpoint)  # it has read HF_ENDPOINT already
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_data_goes_to_the_hub_with_its_card(hub: Hub, run: RunDirectory, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    said = exported(run, "messages", output=str(path), push_to_hub="me/weighted")
    assert said[-1] == f"data set: {hub.endpoint}/datasets/me/weighted"
    assert hub.visibility == {"datasets/me/weighted": "private"}
    assert hub.files.keys() == {"datasets/me/weighted/README.md", "datasets/me/weighted/out.jsonl"}
    assert hub.files["datasets/me/weighted/out.jsonl"] == path.read_bytes()
    import yaml

    _, head, text = hub.files["datasets/me/weighted/README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(head)["configs"][0]["data_files"] == [{"split": "train", "path": "out.jsonl"}]
    assert "50 rows of the shape `messages`" in text and "| `weight` | `double` |" in text


def test_a_remote_file_is_written_and_goes_to_the_hub(hub: Hub, run: RunDirectory) -> None:
    from object_store import counted_store

    with counted_store() as store:
        address = store.address("folder/out.jsonl")
        said = exported(run, "messages", output=address, push_to_hub="me/remote", bare=True)
        folder = Folder(*locate(store.address("folder")))
        assert said[0] == f"50 rows: {address}" and folder.names() == ["dataset_info.json", "out.jsonl"]
        assert hub.files["datasets/me/remote/out.jsonl"].decode() == folder.read_text("out.jsonl")


def test_a_model_goes_to_the_hub_with_its_card(hub: Hub, run: RunDirectory) -> None:
    files = {"README.md": "# Card", "config.json": "{}", "model.safetensors": "0123"}
    for name, text in files.items():
        (run.round(0) / "model").write_text(name, text)
    assert exported(run, "model", push_to_hub="me/m", public=True) == [f"model: {hub.endpoint}/me/m"]
    assert hub.files == {f"models/me/m/{name}": text.encode() for name, text in files.items()}
    assert hub.visibility == {"models/me/m": "public"}


def test_what_is_there_and_public_gets_no_private_data(hub: Hub, run: RunDirectory, tmp_path: Path) -> None:
    hub.visibility["datasets/me/open"] = "public"
    options = {"output": str(tmp_path / "out.jsonl"), "push_to_hub": "me/open"}
    with pytest.raises(InputError, match="--push-to-hub me/open: it is there and is public; add --public, or choose"):
        exported(run, "messages", **options)
    assert hub.files == {}
    assert exported(run, "messages", public=True, **options)[-1].endswith("/datasets/me/open")
    exported(run, "messages", **options | {"push_to_hub": "me/closed"})
    exported(run, "preference", **options | {"push_to_hub": "me/closed"})  # again
    assert (
        hub.visibility["datasets/me/closed"] == "private"
        and b"`preference`" in hub.files["datasets/me/closed/README.md"]
    )


def test_a_hub_that_cannot_be_reached_is_one_sentence(
    hub: Hub, run: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import socket

    import huggingface_hub.constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(
            InputError, match=r"--push-to-hub me/data: the hub at .* has not taken it .*refused"
        ) as error:
            exported(run, "messages", output=str(tmp_path / "out.jsonl"), push_to_hub="me/data")
    assert "\n" not in str(error.value)


def test_a_card_tells_strangers_no_secrets_and_no_more_columns_than_there_are(hub: Hub, tmp_path: Path) -> None:
    values = {
        "run_dir": str(tmp_path / "run"),
        "model": "/home/ann/models/mine",
        "samples": {"path": "s3://KEY:SECRET@bucket/folder/s.jsonl?endpoint_override=internal:9000"},
        "prompt": {"template": "/no_think {question}", "template_variables": {"tools": "https://u:p@x.org/t?key=k"}},
        "answers": {"grader": "choice"},
        "labels": {"trusted": "/home/ann/checked.jsonl"},
    }
    run = RunDirectory(resolve(values))
    write_round(tmp_path / "run" / "round_0", [sample("a", ["4", "3"])])
    with run.round(0).recording("examples"):
        pass
    exported(run, "messages", push_to_hub="me/bare", bare=True, resample=2)
    import yaml

    card = hub.files["datasets/me/bare/README.md"].decode()
    assert not [word for word in ("KEY", "SECRET", "internal", "/home", "key=k", "u:p", str(tmp_path)) if word in card]
    assert "responses of\n`mine` to s3://bucket/folder/s.jsonl, weighted" in card
    assert "`weight`" not in card and "`entropy`" not in card
    shown = yaml.safe_load(card.partition("```yaml\n")[2].partition("```")[0])
    assert shown.keys() == {"prompt", "answers", "labels", "selection", "weighting", "training"}
    assert shown["prompt"]["template"] == "/no_think {question}" and shown["training"] == {"objective": "sft"}
    assert shown["prompt"]["template_variables"] == {"tools": "https://x.org/t"}


def test_what_the_hub_refuses_is_one_sentence_without_the_token(
    hub: Hub, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str) -> str:
        with pytest.raises(InputError) as error:
            exported(run, "messages", push_to_hub=name)
        assert "\n" not in str(error.value) and TOKEN not in str(error.value)
        return str(error.value)

    assert "You have no rights in the namespace nobody" in refused("nobody/weighted")
    before = sorted(path.name for path in Path(run.uri).rglob("*"))
    assert refused("not a name!").startswith("--push-to-hub not a name!: ")
    assert sorted(path.name for path in Path(run.uri).rglob("*")) == before
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "Invalid username or password" in refused("me/weighted")
    monkeypatch.delenv("HF_TOKEN")
    assert refused("me/weighted") == "--push-to-hub: the environment variable HF_TOKEN has no token of the hub"
    assert hub.files == {}


def test_the_command_exports_and_uploads(run: RunDirectory, tmp_path: Path) -> None:
    """As users call it: the address of the hub and the token are in the environment."""
    path = tmp_path / "pairs.parquet"
    with hub_server() as server:
        command = [sys.executable, "-m", "east_ray", "export", run.uri, "--as", "preference", "--output", str(path)]
        environment = os.environ | {"HF_ENDPOINT": server.endpoint, "HF_TOKEN": TOKEN}
        ended = subprocess.run(
            [*command, "--push-to-hub", "me/pairs", "prompt.system=Be brief."],
            capture_output=True, text=True, check=False, env=environment, cwd=ROOT,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"50 rows: {path}\nnote: ")
    assert server.files["datasets/me/pairs/pairs.parquet"] == path.read_bytes()


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("shape", "overrides", "options", "said"),
    [
        ("mesages", [], {}, "--as mesages: expected messages, prompt-completion, preference, unpaired, model; did you "
         "mean messages?"),
        ("messages", [], {"output": "out.csv"}, "--output out.csv: expected a file that ends in .jsonl or .parquet"),
        ("messages", [], {"training": "uniforn"}, "--training uniforn: there is no such training: .* trained, uniform"),
        ("messages", [], {"number": 1}, "round 1 of .* has no examples yet: run `east-ray weigh` first"),
        ("messages", ["weighting.exponent=2"], {}, "weighting.exponent=2: an export changes nothing of a run"),
        ("messages", ["prompt.tempalte=x"], {}, "prompt.tempalte.*did you mean"),
        ("messages", ["prompt.template=x"], {}, r"template must contain \{question\}"),
        ("messages", ["prompt.examples=none.jsonl"], {}, "none.jsonl"),
        ("messages", [], {"seed": 1}, "--seed: only --resample draws anything"),
        ("messages", [], {"public": True}, "--public: only with --push-to-hub"),
        ("messages", [], {"output": "/proc/none/out.jsonl"}, "--output /proc/none/out.jsonl: cannot write there"),
        ("messages", [], {"output": ""}, "--output : expected a file that ends in .jsonl or .parquet"),
        ("messages", [], {"output": "none://x/out.jsonl"}, "none://x/out.jsonl: no file system for this address"),
        ("messages", ["prompt.template_variables={a: [1, b]}"], {}, "prompt.template_variables: no column can hold"),
        ("messages", ["prompt.template_variables={a: 2024-07-26}"], {}, "prompt.template_variables: no column"),
        ("messages", ["prompt.template_variables={a: 99999999999999999999}"], {}, "prompt.template_variables: no col"),
        ("messages", [], {"resample": 10**30}, "--resample 1.*: expected at most 9007199254740992"),
        ("model", [], {}, "--as model: needs --push-to-hub NAME"),
        ("model", [], {"push_to_hub": "me/m", "resample": 5}, "--resample: belongs to examples, not to --as model"),
    ],
)  # fmt: skip
def test_bad_input_is_said_in_a_sentence(
    run: RunDirectory, shape: str, overrides: list[str], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        exported(run, shape, *overrides, **options)
    assert "\n" not in str(error.value)


def test_which_of_several_trainings_is_asked_for(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", num_seeds=2)
    with pytest.raises(InputError, match=r"name the training: .* has sft-uniform-seed-0, "):
        exported(run, "messages")
    said = exported(run, "messages", training="sft-uniform-seed-1")
    assert said[0] == f"50 rows: {tmp_path}/run/round_0/variants/sft-uniform-seed-1/export/messages.jsonl"


def test_files_of_others_stay_and_nothing_is_left_half_written(tmp_path: Path) -> None:
    run = weighed(tmp_path / "run", [sample("a", ["4", "4"]), sample("b", ["4", "3"])])
    folder = run.round(0) / "examples"
    folder.replace(pa.Table.from_pylist([row for row in examples_of(run) if not row["weight"]], EXAMPLES))
    with pytest.raises(InputError, match="has no example with a wrong response"):
        exported(run, "preference", output=str(tmp_path / "out" / "pairs.jsonl"))
    with pytest.raises(InputError, match=r"--resample 3: no example of .* has a weight above 0"):
        exported(run, "messages", output=str(tmp_path / "out" / "some.jsonl"), resample=3)
    assert list((tmp_path / "out").iterdir()) == []
    of_datasets = tmp_path / "out" / "dataset_info.json"  # as save_to_disk writes it
    of_datasets.write_text('{"description": "", "features": {}}')
    with pytest.raises(InputError, match=r"dataset_info.json is there and is not LlamaFactory's"):
        exported(run, "messages", output=str(tmp_path / "out" / "messages.jsonl"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dataset_info.json"]


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    run = weighed(tmp_path / "run", [sample("a", ["4", "3"])])
    folder = run.round(0) / "examples"
    rows = [row | {"weight": float("nan")} for row in folder.read(EXAMPLES).to_pylist()]
    folder.replace(pa.Table.from_pylist(rows, EXAMPLES))
    with pytest.raises(InputError, match=r"examples: the weight of a is nan; expected a finite number of at least 0"):
        exported(run, "messages")


def test_neither_what_the_run_reads_nor_its_own_files_are_overwritten(tmp_path: Path) -> None:
    given, other = tmp_path / "given", tmp_path / "link.jsonl"
    given.mkdir()
    for name in ("samples.jsonl", "questions.jsonl", "worked.jsonl", "folder.jsonl"):
        (given / name).write_text("{}\n")
    other.symlink_to(given / "questions.jsonl")
    values = {
        "run_dir": str(tmp_path / "run"),
        "samples": {
            "path": str(given / "samp*.jsonl"),
            "id_column": "id",
            "questions": {"path": str(given / "questions.jsonl"), "id_column": "id"},
        },
        "evaluation": {"questions": {"path": str(given / "folder.jsonl")}},
        "model": "m",
    }
    run = RunDirectory(resolve(values))
    write_round(tmp_path / "run" / "round_0", [sample("a", ["4", "3"])])
    with run.round(0).recording("examples"):
        pass
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for path in (given / "samples.jsonl", given / "questions.jsonl", given / "folder.jsonl", other):
        with pytest.raises(InputError, match=rf"--output {path}: the run reads .*; choose another file"):
            exported(run, "messages", output=str(path))
    for name in ("config.jsonl", "round_0/examples/part-0.parquet", "round_0/out.jsonl", "round_0/export/../x.jsonl"):
        with pytest.raises(InputError, match=r"nothing but .*/run/round_0/export is for exports"):
            exported(run, "messages", output=str(tmp_path / "run" / name))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    for path in (given / "mine.jsonl", tmp_path / "run/round_0/export/mine.jsonl"):
        assert exported(run, "messages", output=str(path))[0] == f"1 row: {path}"


def test_a_folder_is_no_file_and_a_damaged_part_is_named(tmp_path: Path) -> None:
    run = weighed(tmp_path / "run", [sample("a", ["4", "3"])])
    (tmp_path / "out" / "folder.jsonl").mkdir(parents=True)
    with pytest.raises(InputError, match=r"--output .*folder.jsonl: this is a folder; expected a file"):
        exported(run, "messages", output=str(tmp_path / "out" / "folder.jsonl"))
    with pytest.raises(OSError), Folder(*locate(str(tmp_path / "out"))).writing("folder.jsonl") as stream:
        stream.write(b"")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["folder.jsonl"]
    (part,) = (tmp_path / "run" / "round_0" / "examples").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(InputError, match=rf"{part}: cannot be read "):
        exported(run, "messages", output=str(tmp_path / "out" / "a.jsonl"))


def test_a_file_of_rows_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "2 + 2?"}\n{"question": "3?"}\n')
    with pytest.raises(InputError, match=r"rows.jsonl: expected a run directory, or the YAML file of a run$"):
        list(export(str(tmp_path / "rows.jsonl"), [], Wanted("messages")))
