"""Sampling in tests: a pool on the local Ray, of real or scripted engines, and the command on a cluster."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from clusters import LocalCluster

from east_ray.config import Config
from east_ray.config.files import resolve
from east_ray.records import QUESTIONS, SAMPLES, SET_ASIDE
from east_ray.sampling.backends import Decoding
from east_ray.sampling.journal import stored_keys, tidy
from east_ray.sampling.pool import pool_settings, requests, sample
from east_ray.storage import Folder, locate

ROOT = Path(__file__).parent.parent
NUM_QUESTIONS, NUM_RESPONSES = 240, 32
#: In the titles of processes: the actor of the pool, and vLLM's engine where it is a process of its own.
SAMPLER, ENGINE = "MapBatches(Sampler)", "EngineCore"

#: The section `engines` for the shipped model.
ENGINES: dict[str, Any] = {
    "num_cpus_per_engine": 0.5,
    "engine_args": {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 64, "max_model_len": 256},
    "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"},
}


def questions(count: int) -> pa.Table:
    """Word problems for the shipped model."""
    rows = [
        {"question_id": f"q{i}", "question": f"Tom has {i + 2} pens. He gets 3 more. How many pens has he?",
         "reference_answer": str(i + 5)}
        for i in range(count)
    ]  # fmt: skip
    return pa.Table.from_pylist([{name: row.get(name) for name in QUESTIONS.names} for row in rows], QUESTIONS)


def settings(folder: Path, **sections: Any) -> Config:
    """A run's settings; without `sampling`, of the real engine."""
    values = {"model": "m", "run_dir": str(folder), "questions": {"path": "q.jsonl"}, "engines": ENGINES}
    return resolve(values | sections)


def scripted(folder: Path, *rows: Mapping[str, Any], **args: Any) -> dict[str, Any]:
    """The sections of a run with a table of answers; the answer to questions that are not in it is \\boxed{1}."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = {"default": {"responses": ["\\boxed{1}"]}, "state": str(folder / "deaths")} | args
    engines = {"num_cpus_per_engine": 0.5, "questions_per_task": 8}
    sampling = {"backend": "scripted", "backend_args": {"table": str(folder / "table.jsonl"), **args}}
    return {"sampling": sampling, "engines": engines}


def ask(
    folder: Folder, models: Mapping[str, str], asked: pa.Table, config: Config, decoding: Decoding, **pool: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """Ask what is not there yet: all rows of the folder, at rest, those set aside, and how many have joined."""
    settings_of_pool = pool_settings(config, decoding, **pool)
    asked = requests(asked, models, settings_of_pool)
    left = asked.filter(pc.invert(pc.is_in(asked["key"], stored_keys(folder)["key"].unique())))
    parts = list(sample(left, models, folder, folder / "set_aside", settings_of_pool))
    list(tidy(folder, asked["key"]))
    aside = (folder / "set_aside").read(SET_ASIDE).to_pylist()
    return folder.read(SAMPLES).to_pylist(), aside, sum(part["num_questions"] for part in parts)


class Run:
    """`east-ray sample` on a cluster with real engines, and what it has made durable so far.

    The seeds are off, so a question that is asked twice gets other responses: what is durable and in the end the same
    was not sampled again. `sampling` has further settings of that section.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        folder: Path,
        model: Path,
        *,
        num_responses: int = NUM_RESPONSES,
        sampling: Mapping[str, Any] | None = None,
        **engines: Any,
    ) -> None:
        self._cluster, self.folder, self._num_responses = cluster, folder, num_responses
        self._engines = engines
        folder.mkdir(exist_ok=True)
        with (folder / "questions.jsonl").open("w") as file:
            for i in range(NUM_QUESTIONS):
                question = f"Tom has {i} pens. He gets {i % 7} more. How many pens has he?"
                file.write(json.dumps({"question": question, "reference_answer": str(i + i % 7)}) + "\n")
        self.samples = Folder(*locate(str(folder / "run" / "round_0" / "samples")))
        self._config = {
            "model": str(model),
            "run_dir": str(folder / "run"),
            "questions": {"path": str(folder / "questions.jsonl")},
            "sampling": {"responses_per_question": num_responses, "max_tokens": 64, "seeded": False}
            | dict(sampling or {}),
        }
        self.process: subprocess.Popen[str] | None = None

    def begin(self, *, via: Sequence[str] = (), **env: str) -> None:
        """Begin the command, or begin it again, with the command `via` in front of it."""
        engines = {
            "num_cpus_per_engine": 1,
            "engine_args": {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 64, "max_model_len": 256},
            "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"} | env,
        } | self._engines  # fmt: skip
        config = self._config | {"engines": engines, "cluster": {"address": self._cluster.address}}
        (self.folder / "job.yaml").write_text(json.dumps(config))
        self.process = subprocess.Popen(
            [*via, sys.executable, "-m", "east_ray", "sample", str(self.folder / "job.yaml")],
            cwd=ROOT, env=self._cluster.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def durable(self) -> dict[str, list[str]]:
        """Texts of the responses of all questions that are on disk now, by key: the most that there are of each."""
        found: dict[str, list[str]] = {}
        for _ in range(20):
            parts = self.samples.parts() + (self.samples / "tasks").parts()
            for task in (self.samples / "pending").names():
                parts += (self.samples / "pending" / task).parts()
            try:
                rows = self.samples.read(SAMPLES, ["key", "responses"], parts).to_pylist()
            except FileNotFoundError:  # a task has just come to its end
                continue
            for row in sorted(rows, key=lambda row: len(row["responses"])):
                found[row["key"]] = [response["text"] for response in row["responses"]]
            return found
        raise AssertionError("the parts change too fast to be read")

    def in_flight(self, durable: dict[str, Any]) -> int:
        """How many questions an attempt has asked and not finished, by the notes of the tasks."""
        asked: set[str] = set()
        for task in (self.samples / "pending").names():
            for name in (self.samples / "pending" / task).names():
                if name.startswith("asked-"):
                    asked |= set(json.loads((self.samples / "pending" / task).read_text(name) or "{}").get("asked", []))
        return len(asked - set(durable))

    def wait_until(self, condition: Callable[[], bool], seconds: float = 240) -> float:
        """Seconds until it holds."""
        assert self.process is not None
        begin = time.monotonic()
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() - begin < seconds
            time.sleep(0.1)
        return time.monotonic() - begin

    def finish(self) -> str:
        assert self.process is not None
        out, err = self.process.communicate(timeout=400)
        assert self.process.returncode == 0, out + err
        assert err == ""
        return out

    def check(self, *snapshots: dict[str, list[str]]) -> None:
        """Every question is there once, whole, and what was durable at any time has not been sampled again."""
        rows = self.rows()
        assert all(len(row["responses"]) == self._num_responses for row in rows.values())
        self.check_kept(*snapshots)

    def check_kept(self, *snapshots: dict[str, list[str]]) -> None:
        """What was durable at any time is there in the end, at the beginning of what its question has."""
        last = {row["key"]: [response["text"] for response in row["responses"]] for row in self.rows().values()}
        for snapshot in snapshots:
            assert snapshot and all(last[key][: len(texts)] == texts for key, texts in snapshot.items())

    def rows(self) -> dict[str, dict[str, Any]]:
        """The samples at rest, by question_id: every question is there once."""
        assert not (self.samples / "pending").exists and not (self.samples / "tasks").exists
        rows = self.samples.read(SAMPLES).to_pylist()
        by_id = {row["question_id"]: row for row in rows}
        assert len(by_id) == len(rows) == NUM_QUESTIONS
        return by_id
