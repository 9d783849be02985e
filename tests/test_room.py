"""Full disks: one sentence that names the folder and the room there, and nothing is tried again for it."""

import errno
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec.implementations.memory
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from killed_runs import ROOT, command

from east_ray.config import InputError
from east_ray.storage import Folder, locate
from east_ray.storage.room import full_disk_as_input_error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk may not be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_file_without_room_is_a_sentence_and_leaves_nothing(small_disk: Path) -> None:
    folder = Folder(*locate(str(small_disk / "run" / "samples")))
    folder.write_text("small", "x" * 100)
    said = r"^no room for 8.0 MiB in .*/disk/run/samples: the disk is full; 6.0 MiB were free before, 6.0 MiB are now"
    with pytest.raises(InputError, match=said):
        folder.write_text("large", "x" * (8 << 20))
    assert [file.name for file in Path(folder.path).iterdir()] == ["small"]
    folder.write_text("other", "x" * (2 << 20))
    with pytest.raises(InputError, match=r"no room in .*: the disk is full"), folder.lines("log.jsonl") as write:
        for _ in range(100):
            write("x" * (1 << 20))


def test_libraries_that_write_by_themselves_are_understood(small_disk: Path) -> None:
    import torch
    from safetensors.torch import save_file

    def torch_saves() -> None:
        with (small_disk / "state.pt").open("wb") as file:
            torch.save(torch.zeros(1 << 21), file)

    def safetensors_saves() -> None:
        save_file({"a": torch.zeros(1 << 21)}, small_disk / "model.safetensors")

    def arrow_copies() -> None:
        (small_disk.parent / "large").write_bytes(b"x" * (8 << 20))
        pafs.copy_files(str(small_disk.parent / "large"), str(small_disk / "copy"))

    for write in (torch_saves, safetensors_saves, arrow_copies):
        with (
            pytest.raises(InputError, match=r"no room in .*: the disk is full; 6.0 MiB were free before"),
            full_disk_as_input_error(str(small_disk)),
        ):
            write()
        for file in small_disk.iterdir():
            file.unlink()


class UsedUp(fsspec.implementations.memory.MemoryFileSystem):  # type: ignore[misc]
    """A file system whose quota is used up, which is no reason to try again."""

    num_tries = 0

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "rb":
            return super()._open(path, mode, **options)
        UsedUp.num_tries += 1
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def test_a_quota_that_is_used_up_is_said_at_once() -> None:
    folder = Folder(pafs.PyFileSystem(pafs.FSSpecHandler(UsedUp())), "/bucket/run")
    with pytest.raises(
        InputError, match=r"^no room for \d+ bytes in /bucket/run: the quota is used up; make room there"
    ):
        folder.write_part(pa.table({"a": [1]}))
    assert UsedUp.num_tries == 1


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), full_disk_as_input_error(str(tmp_path)):
        _ = 1 / 0
    with pytest.raises(OSError, match="not permitted"), full_disk_as_input_error(str(tmp_path)):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.drill
def test_a_training_is_not_tried_again_for_a_full_disk(quickstart: Path, small_disk: Path, tmp_path: Path) -> None:
    """The checkpoint of its first step, some 12 MB, finds no room in the folder for temporary files."""
    with (tmp_path / "samples.jsonl").open("w") as file:
        for i in range(8):
            texts = [f"The answer is \\boxed{{{value}}}." for value in (2 * i, i + 7)]
            row = {"question": f"Tom has {i} pens and gets {i} more. How many has he?", "reference_answer": str(2 * i)}
            file.write(json.dumps(row | {"responses": texts}) + "\n")
    settings = {
        "model": str(quickstart / "model"), "run_dir": str(tmp_path / "run"),
        "samples": {"path": str(tmp_path / "samples.jsonl")}, "cluster": {"address": "local", "num_cpus": 2},
        "training": {"num_cpus_per_worker": 0.5, "precision": "float32", "examples_per_step": 2,
                     "checkpoint_every_steps": 1},
    }  # fmt: skip
    (tmp_path / "job.yaml").write_text(json.dumps(settings))
    result = subprocess.run(
        command("run", str(tmp_path / "job.yaml")), cwd=ROOT, capture_output=True, text=True, check=False, timeout=500,
        env=os.environ | {"TMPDIR": str(small_disk), "RAY_TMPDIR": "/tmp"},
    )  # fmt: skip
    assert result.returncode == 1
    said = rf"error: no room in {small_disk}: the disk is full; \d\S* \w+ were free before, 0 bytes are now; make .*\n"
    assert re.fullmatch(said, result.stderr), result.stdout + result.stderr
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/round_0/training.jsonl").read_text().splitlines()]
    assert steps == [1], "it was tried again"
