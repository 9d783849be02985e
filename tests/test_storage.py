"""The run directory: parts that are whole or absent, stages that are done or not, and runs that are told apart."""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from east_ray.config import Config, InputError
from east_ray.config.files import resolve
from east_ray.storage import Folder, RunDirectory, counts_by, local_copy, locate

SCHEMA = pa.schema([pa.field("a", pa.int64()), pa.field("b", pa.string())])


def config(run_dir: object, *overrides: str) -> Config:
    return resolve({"model": "m", "run_dir": str(run_dir), "questions": {"path": "q.jsonl"}}, overrides)


def test_parts_make_one_table_and_unfinished_ones_do_not_count(tmp_path: Path) -> None:
    folder = Folder(*locate(str(tmp_path / "table")))
    assert folder.read(SCHEMA).num_rows == 0 and folder.parts() == []
    folder.write_part(pa.table({"a": [1], "b": ["x"]}), "part-1.parquet")
    folder.write_part(pa.table({"a": [2], "b": ["y"]}), "part-2.parquet")
    folder.write_part(pa.table({"a": [3], "b": ["z"]}), "part-2.parquet")  # a task that ran twice
    (tmp_path / "table" / ".part-3.parquet.123").write_bytes(b"killed while writing")
    assert folder.read(SCHEMA).to_pylist() == [{"a": 1, "b": "x"}, {"a": 3, "b": "z"}]
    assert folder.read(SCHEMA, ["b"]).column_names == ["b"]
    folder.replace(pa.table({"a": [4], "b": [None]}, schema=SCHEMA))
    assert folder.read(SCHEMA)["a"].to_pylist() == [4]
    assert counts_by(pa.table({"r": ["x", "y", "x"]}), "r") == {"x": 2, "y": 1}


def test_a_stage_that_fails_is_not_done(tmp_path: Path) -> None:
    stages = RunDirectory(config(tmp_path / "run")).round(0)
    with pytest.raises(ZeroDivisionError), stages.recording("sampling"):
        _ = 1 / 0
    assert stages.record("sampling") is None
    with stages.recording("sampling") as record:
        record.counts["questions"] = 3
    done = stages.record("sampling")
    assert done is not None and done.counts == {"questions": 3} and done.seconds >= 0


def test_the_configuration_is_written_first_and_guards_the_directory(tmp_path: Path) -> None:
    RunDirectory(config(tmp_path / "run", "weighting.exponent=3.0"))
    assert (tmp_path / "run" / "config.yaml").read_text().startswith("run_dir:")
    # Until something has been done there, a mistake may be mended.
    directory = RunDirectory(config(tmp_path / "run", "weighting.exponent=1.5"))
    assert directory.config.weighting.exponent == 1.5
    with directory.round(0).recording("questions"):
        pass
    RunDirectory(config(tmp_path / "run", "weighting.exponent=1.5", "training.num_workers=4"))
    with pytest.raises(InputError, match=r"another configuration \(sampling.top_p: 1.0 there, 0.9 now\)"):
        RunDirectory(config(tmp_path / "run", "weighting.exponent=1.5", "sampling.top_p=0.9"))
    # What is to be made of the samples may be mended until something has been made of them.
    assert RunDirectory(config(tmp_path / "run", "weighting.exponent=2.5")).config.weighting.exponent == 2.5
    with directory.round(0).recording("examples"):
        pass
    with pytest.raises(InputError, match=r"\(weighting.exponent: 2.5 there, 2.0 now\); .* run_dir=runs/other"):
        RunDirectory(config(tmp_path / "run", "weighting.exponent=2.0"))
    (tmp_path / "run" / "config.yaml").write_text("zzz: 1\n")
    with pytest.raises(InputError, match="holds a run that this version cannot read"):
        RunDirectory(config(tmp_path / "run"))


def test_a_run_keeps_its_seeds_and_an_older_run_has_those_that_it_began_with(tmp_path: Path) -> None:
    gpu, written = "engines.num_gpus_per_engine=1", tmp_path / "run" / "config.yaml"
    directory = RunDirectory(config(tmp_path / "run"))
    assert directory.config.sampling.seeded is True
    assert RunDirectory(config(tmp_path / "run", gpu)).config.sampling.seeded is False  # nothing has been asked yet
    with directory.round(0).recording("questions"):
        pass
    assert RunDirectory(config(tmp_path / "run")).config.sampling.seeded is False
    # As a version wrote it that did not know the settings of this one.
    text = written.read_text().replace("  seeded: false\n", "  seeded: true\n").replace("  logprobs: false\n", "")
    written.write_text(text)
    directory = RunDirectory(config(tmp_path / "run", gpu))
    assert directory.config.sampling.seeded is True
    with pytest.raises(InputError, match=r"another configuration \(sampling.seeded: True there, False now\)"):
        RunDirectory(config(tmp_path / "run", "sampling.seeded=false"))


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="run_dir: cannot write to"):
        RunDirectory(config(tmp_path / "file" / "run"))
    with pytest.raises(InputError, match="no file system for this address"):
        locate("nosuch://bucket/run")


def test_any_address_of_fsspec_serves_as_run_directory() -> None:
    directory = RunDirectory(config("memory://bucket/run"))
    stages = directory.round(0)
    (stages / "questions").write_part(pa.table({"a": [1], "b": ["x"]}))
    assert (stages / "questions").read(SCHEMA).num_rows == 1
    assert directory.address(stages / "model") == "memory://bucket/run/round_0/model"
    directory.uri = "s3://bucket/run?endpoint_override=127.0.0.1:9000"
    expected = "s3://bucket/run/round_0/model?endpoint_override=127.0.0.1:9000"
    assert directory.address(stages / "model") == expected
    with stages.recording("questions"):
        pass
    assert stages.record("questions") is not None


def test_a_remote_model_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    filesystem, path = locate("memory://bucket/model")
    for name in ("config.json", "deep/model.safetensors"):
        filesystem.create_dir(str(Path(path, name).parent), recursive=True)
        with filesystem.open_output_stream(f"{path}/{name}") as stream:
            stream.write(json.dumps(name).encode())
    copy = Path(local_copy("memory://bucket/model"))
    assert json.loads((copy / "deep" / "model.safetensors").read_text()) == "deep/model.safetensors"
    (copy / "mark").touch()
    assert (Path(local_copy("memory://bucket/model")) / "mark").exists()
    assert local_copy("a/hub-name") == "a/hub-name"
    os.utime(copy, (0, 0))  # not used for long
    with filesystem.open_output_stream(f"{path}/another.json") as stream:
        stream.write(b"{}")
    assert Path(local_copy("memory://bucket/model")) != copy
    assert not copy.exists(), "models that nobody uses any more fill the disk"


@pytest.mark.parametrize("remote", [False, True])
def test_a_text_file_grows_while_it_is_written(remote: bool, tmp_path: Path) -> None:
    folder = Folder(*locate("memory://bucket/lines" if remote else str(tmp_path / "lines")))
    with folder.lines("log.jsonl") as add:
        add("one")
        assert remote or folder.read_text("log.jsonl") == "one\n"
        add("two")
    assert folder.read_text("log.jsonl") == "one\ntwo\n"


def test_half_a_file_is_never_put_in_place(tmp_path: Path) -> None:
    class Truncating(pafs.LocalFileSystem):
        @contextmanager
        def open_output_stream(self, path: str) -> Iterator[io.BytesIO]:
            yield (content := io.BytesIO())
            Path(path).write_bytes(content.getvalue()[:-1])

    folder = Folder(Truncating(), str(tmp_path))
    with pytest.raises(OSError, match="4 of 5 bytes were written"):
        folder.write_text("a.txt", "whole")
    assert folder.read_text("a.txt") is None


def test_a_remote_file_system_is_given_another_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("east_ray.storage.folders.PATIENCE_S", (0.0, 0.0))
    folder = Folder(*locate("memory://bucket/patient"))
    folder.write_part(pa.table({"a": [1]}), "part-0.parquet")
    calls = 0
    original = Folder.part_sizes

    def failing(self: Folder) -> dict[str, int]:
        nonlocal calls
        calls += 1
        if calls % 3:
            raise OSError("503 Slow Down")
        return original(self)

    monkeypatch.setattr(Folder, "part_sizes", failing)
    assert folder.read(pa.schema([("a", pa.int64())])).num_rows == 1 and calls == 3
    with pytest.raises(OSError, match="503"):
        folder.parts()  # not one of the patient operations itself
    assert not folder.has("part-1.parquet") and folder.read_text("none") is None
