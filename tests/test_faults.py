"""Sampling on a real cluster while actors, engines, nodes, the driver and the head are killed with SIGKILL.

The seeds are off, so a question that is asked twice gets other responses: what is durable and unchanged in the end was
not sampled again.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import LocalCluster, kill_tree, local_cluster, processes

from east_ray.records import SAMPLES, SET_ASIDE
from east_ray.storage import Folder, locate

ROOT = Path(__file__).parent.parent
NUM_QUESTIONS, NUM_RESPONSES = 240, 32
SAMPLER, ENGINE = "MapBatches(Sampler)", "EngineCore"


class Run:
    """`east-ray sample` on a cluster, and what it has made durable so far."""

    def __init__(
        self, cluster: LocalCluster, folder: Path, model: Path, *, num_responses: int = NUM_RESPONSES, **engines: Any
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
            "sampling": {"responses_per_question": num_responses, "max_tokens": 64, "seeded": False},
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
        """Texts of the responses of all questions that are on disk now, by key."""
        found: dict[str, list[str]] = {}
        for _ in range(20):
            parts = self.samples.parts() + (self.samples / "tasks").parts()
            for task in (self.samples / "pending").names():
                parts += (self.samples / "pending" / task).parts()
            try:
                rows = self.samples.read(SAMPLES, ["key", "responses"], parts).to_pylist()
            except FileNotFoundError:  # a task has just come to its end
                continue
            found |= {row["key"]: [response["text"] for response in row["responses"]] for row in rows}
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
        assert not (self.samples / "pending").exists and not (self.samples / "tasks").exists
        rows = self.samples.read(SAMPLES).to_pylist()
        assert len({row["question_id"] for row in rows}) == len(rows) == NUM_QUESTIONS
        assert all(len(row["responses"]) == self._num_responses for row in rows)
        last = {row["key"]: [response["text"] for response in row["responses"]] for row in rows}
        for snapshot in snapshots:
            assert snapshot and all(last[key] == texts for key, texts in snapshot.items())


@pytest.mark.drill
def test_whatever_is_killed_nothing_is_lost_and_nothing_finished_is_sampled_again(
    quickstart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report: list[dict[str, Any]] = []
    snapshots: list[dict[str, list[str]]] = []
    home = tmp_path / "home"

    def strike(what: str, kill: Callable[[], None], again: Callable[[], None] | None = None) -> None:
        """Kill something once more questions are durable; wait until new ones are."""
        already = len(snapshots[-1]) if snapshots else 0
        run.wait_until(lambda: len(run.durable()) >= already + 16)
        snapshot = run.durable()
        snapshots.append(snapshot)
        num_in_flight = run.in_flight(snapshot)
        kill()
        begin = time.monotonic()
        if again:
            again()
        after = len(run.durable())
        run.wait_until(lambda: len(run.durable()) > after + 4)
        report.append({"killed": what, "durable": len(snapshot), "in_flight": num_in_flight,
                       "seconds_to_recover": round(time.monotonic() - begin, 1)})  # fmt: skip

    def one(word: str) -> psutil.Process:
        return next(found for node in reversed(cluster.nodes) for found in processes(node.pid, [word]))

    with local_cluster(home) as cluster:
        cluster.start_head(1)
        node = cluster.start_node(1)
        run = Run(cluster, tmp_path, quickstart / "model", min_engines=1, max_engines=2)
        run.begin(VLLM_ENABLE_V1_MULTIPROCESSING="1")
        strike("sampler actor", lambda: one(SAMPLER).kill())
        strike("engine process", lambda: one(ENGINE).kill())
        strike("node", lambda: kill_tree(node.pid), lambda: cluster.start_node(1) and None)

        def kill_driver() -> None:
            assert run.process is not None
            run.process.kill()
            run.process.wait()

        strike("driver", kill_driver, run.begin)
        assert not processes(cluster.nodes[0].pid, [ENGINE]), "an engine has outlived its actor"

        def kill_head() -> None:
            for node in cluster.nodes:
                kill_tree(node.pid)
            assert run.process is not None
            out, err = run.process.communicate(timeout=200)
            assert run.process.returncode != 0
            report.append({"said": (out + err)[-300:]})

        def restart() -> None:
            cluster.start_head(2)
            run.begin()

        strike("head and all nodes", kill_head, restart)
        assert "sampling" in run.finish()
        run.check(*snapshots)
    with capsys.disabled():
        print("\n" + "\n".join(json.dumps(line) for line in report))


#: Loaded by every interpreter that has it on its path: kills the process when it is asked a poisonous prompt.
FAULT = """
import importlib.machinery, os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "vllm.v1.engine.llm_engine":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            add = module.LLMEngine.add_request
            def deadly(self, name, prompt, *more, **others):
                if str(prompt["prompt_token_ids"]) in open(os.environ["POISON"]).read().splitlines():
                    os.kill(os.getpid(), signal.SIGKILL)
                return add(self, name, prompt, *more, **others)
            module.LLMEngine.add_request = deadly
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.drill
def test_a_question_that_engines_die_of_is_set_aside_and_no_other(quickstart: Path, tmp_path: Path) -> None:
    """The fault: an engine process that is killed whenever it is asked one of two questions."""
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "sitecustomize.py").write_text(FAULT)
    from east_ray.config import PromptConfig
    from east_ray.questions.prompts import load_tokenizer, render_prompt, tokenize

    tokenizer = load_tokenizer(str(quickstart / "model"))
    questions = [f"Tom has {i} pens. He gets {i % 7} more. How many pens has he?" for i in (17, 100)]
    ids = [tokenize(tokenizer, render_prompt(tokenizer, question, PromptConfig())) for question in questions]
    (tmp_path / "poison").write_text("\n".join(map(str, ids)))
    with local_cluster(tmp_path / "home") as cluster:
        cluster.start_head(2)
        run = Run(cluster, tmp_path, quickstart / "model")
        path = f"{tmp_path / 'faults'}{os.pathsep}{ROOT}"
        run.begin(PYTHONPATH=path, POISON=str(tmp_path / "poison"))
        out = run.finish()
    rows = run.samples.read(SAMPLES).to_pylist()
    assert len(rows) == NUM_QUESTIONS - 2
    aside = Folder(*locate(str(tmp_path / "run" / "round_0" / "set_aside"))).read(SET_ASIDE).to_pylist()
    assert sorted(row["question"] for row in aside) == sorted(questions)
    assert {(row["reason"], row["detail"]) for row in aside} == {
        ("engine_died", "2 times with no other beside it; its process was killed")
    }
    assert "2 set aside" in out
