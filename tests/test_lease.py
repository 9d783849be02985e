"""Two commands on one run directory: who owns it, when an owner counts as dead, and what the second one is told."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from east_ray.config import InputError
from east_ray.storage import Folder, lease, locate
from east_ray.storage.lease import CLAIMS, Claim, owning

#: A process that owns a run directory until it is killed.
HOLDING = """
import sys, time
from east_ray.storage.lease import owning
with owning(sys.argv[1], "run", print):
    print("owns", flush=True)
    time.sleep(600)
"""
ELSEWHERE = Claim("train", "node-7", "another boot of another machine", 4711, "99", "2026-11-26 09:00:00+00:00", beat=1)


def claims(run: object) -> Folder:
    return Folder(*locate(str(run))) / CLAIMS


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats of this process in tenths of seconds."""
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    monkeypatch.setattr(lease, "DEAD_AFTER_S", 1.5)


@contextmanager
def beating(run: object, every_s: float) -> Iterator[None]:
    """An owner on another machine, whose clock is a day ahead."""
    ended, number = threading.Event(), 1

    def beat() -> None:
        nonlocal number
        while not ended.is_set():
            number += 1
            claims(run).write_text("a.json", json.dumps(asdict(replace(ELSEWHERE, beat=number))))
            ended.wait(every_s)
        claims(run).remove([f"{claims(run)}/a.json"])

    thread = threading.Thread(target=beat)
    thread.start()
    while not claims(run).has("a.json"):
        time.sleep(0.01)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_the_second_command_is_told_who_works_there_and_owns_it_afterwards(tmp_path: Path) -> None:
    with owning(str(tmp_path / "run"), "sample", print):
        with pytest.raises(InputError) as refused, owning(str(tmp_path / "run"), "run", print):
            pass
        with owning(str(tmp_path / "other"), "run", print):
            pass
    who = rf"`east-ray sample` \(process {os.getpid()} on host \S+, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\S+\)"
    assert re.match(
        f"run_dir: {who} works in " + re.escape(f"{tmp_path}/run; --wait waits for its end, or choose"),
        str(refused.value),
    )
    with owning(str(tmp_path / "run"), "run", print):
        assert len(claims(tmp_path / "run").names()) == 1
    assert claims(tmp_path / "run").names() == []


def test_a_command_that_waits_begins_when_the_other_ends(tmp_path: Path) -> None:
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with owning(str(tmp_path), "train", said.append, wait=True):
            order.append("second")

    with owning(str(tmp_path), "sample", print):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(2.5)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
    assert len(said) == 1 and said[0].startswith("`east-ray sample` (process ") and "waiting for its end" in said[0]


def test_what_a_killed_process_owned_is_free_at_once(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "owns\n"
        with pytest.raises(InputError, match=rf"process {process.pid} on host"), owning(str(tmp_path), "run", print):
            pass
        os.kill(process.pid, signal.SIGKILL)  # and nobody has asked for its end yet, so it is still in the table
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        said: list[str] = []
        begin = time.monotonic()
        with owning(str(tmp_path), "run", said.append):
            assert time.monotonic() - begin < lease.DEAD_AFTER_S / 2 and said == []
            assert len(claims(tmp_path).names()) == 1


def test_another_process_with_the_number_of_a_dead_one_is_not_the_owner(tmp_path: Path) -> None:
    with owning(str(tmp_path), "run", print):
        (name,) = claims(tmp_path).names()
        mine = json.loads(claims(tmp_path).read_text(name) or "")
    claims(tmp_path).write_text("a.json", json.dumps(mine | {"started": "1"}))
    with owning(str(tmp_path), "run", print):
        pass
    assert claims(tmp_path).names() == []


@pytest.mark.parametrize("address", ["{}/run", "memory://lease/run"])
def test_an_owner_on_another_host_lives_as_long_as_its_number_changes(
    address: str, tmp_path: Path, quick: None
) -> None:
    run, said = address.format(tmp_path), list[str]()
    told = r"`east-ray train` \(process 4711 on host node-7, since"
    with beating(run, 0.3), pytest.raises(InputError, match=told), owning(run, "run", said.append):
        pass
    assert len(said) == 1 and said[0].endswith("looking for 2 s whether it is alive")
    claims(run).write_text("a.json", json.dumps(asdict(ELSEWHERE)))  # the host has died
    begin = time.monotonic()
    with owning(run, "run", said.append):
        assert 1.5 <= time.monotonic() - begin < 10 and len(said) == 2
        assert len(claims(run).names()) == 1
    assert claims(run).names() == []


def test_an_owner_that_was_taken_for_dead_ends_with_a_sentence(tmp_path: Path, quick: None) -> None:
    lost: list[str] = []
    with owning(str(tmp_path), "run", print, lost=lost.append):
        (mine,) = claims(tmp_path).names()
        time.sleep(0.5)
        assert not lost
        heir = replace(ELSEWHERE, replaces=(mine,))
        claims(tmp_path).write_text("z.json", json.dumps(asdict(heir)))
        deadline = time.monotonic() + 10
        while not lost and time.monotonic() < deadline:
            time.sleep(0.05)
    assert len(lost) == 1 and "`east-ray train` (process 4711 on host node-7" in lost[0]
    assert claims(tmp_path).names() == ["z.json"], "the heir's claim stays"


def test_a_process_that_has_lost_its_claim_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "owns\n"
        claims(tmp_path).clear()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said.startswith("error: run_dir: somebody has removed ")


@pytest.mark.parametrize("address", ["{}/run", "memory://contended/run"])
def test_of_commands_that_begin_at_the_same_time_exactly_one_owns(address: str, tmp_path: Path) -> None:
    draw = random.Random(0)
    for _ in range(8):
        assert len(compete(address.format(tmp_path), [draw.choice([0.0, 0.0, 0.01]) for _ in range(5)])) == 1


def compete(run: str, pauses: Sequence[float]) -> list[int]:
    """Which of some commands own a directory; none ends before all have tried."""
    together, tried = threading.Barrier(len(pauses)), threading.Barrier(len(pauses))
    owners: list[int] = []

    def one(number: int) -> None:
        together.wait()
        time.sleep(pauses[number])
        try:
            with owning(run, "run", print):
                owners.append(number)
                tried.wait(30)
        except InputError:
            tried.wait(30)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(pauses))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return owners


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="run_dir: cannot write to"), owning(str(tmp_path / "file"), "run", print):
        pass
