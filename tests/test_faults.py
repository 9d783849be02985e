"""Engines, actors, nodes and drivers that die while they sample, and requests that are refused.

The scripted backend dies on demand, which takes seconds. One drill kills parts of a real cluster with SIGKILL.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import kill_tree, local_cluster, processes
from sampling_runs import ENGINE, SAMPLER, Run, ask, questions, scripted, settings

from east_ray.records import SAMPLES
from east_ray.sampling.backends import Decoding
from east_ray.storage import Folder, locate

DECODING = Decoding(responses_per_question=2, temperature=1.0, max_tokens=8)
NUM_FEW = 12


def question(number: int) -> str:
    text: str = questions(number + 1)["question"].to_pylist()[number]
    return text


def outcome(tmp_path: Path, *rows: dict[str, Any], **args: Any) -> tuple[set[str], dict[str, tuple[str, str]]]:
    """Which questions got their responses, and (reason, detail) of those set aside."""
    config = settings(tmp_path, **scripted(tmp_path / "script", *rows, **args))
    folder = Folder(*locate(str(tmp_path / "samples")))
    samples, aside, _ = ask(folder, {"base": "m"}, questions(NUM_FEW), config, DECODING)
    assert all(len(row["responses"]) == 2 for row in samples)
    return {row["question_id"] for row in samples}, {
        row["question_id"]: (row["reason"], row["detail"]) for row in aside
    }


def all_but(*numbers: int) -> set[str]:
    return {f"q{i}" for i in range(NUM_FEW) if i not in numbers}


def deaths(tmp_path: Path) -> int:
    return sum(1 for file in (tmp_path / "script" / "deaths").rglob("*") if file.is_file())


def test_a_question_that_processes_die_of_is_set_aside_and_no_other(tmp_path: Path, local_ray: None) -> None:
    sampled, aside = outcome(tmp_path, {"question": question(3), "dies": "process"})
    assert sampled == all_but(3)
    assert aside == {"q3": ("engine_died", "2 times with no other beside it; its process was killed")}


def test_a_question_that_engines_die_of_is_set_aside_with_their_error(tmp_path: Path, local_ray: None) -> None:
    sampled, aside = outcome(tmp_path, {"question": question(9), "dies": "engine"})
    assert sampled == all_but(9)
    (reason, detail) = aside["q9"]
    assert reason == "engine_died" and detail.startswith("2 times with no other beside it; the table makes it die")


def test_an_engine_that_dies_once_is_begun_again_and_nothing_is_lost(tmp_path: Path, local_ray: None) -> None:
    rows = [{"question": question(i), "dies": dies, "times": 1, "responses": ["x"]}
            for i, dies in ((1, "engine"), (10, "process"))]  # fmt: skip
    sampled, aside = outcome(tmp_path, *rows)
    assert (sampled, aside) == (all_but(), {}) and deaths(tmp_path) == 2


def test_a_refused_request_is_set_aside_with_its_reason(tmp_path: Path, local_ray: None) -> None:
    sampled, aside = outcome(tmp_path, {"question": question(0), "refuses": "the prompt is too odd"})
    assert (sampled, aside) == (all_but(0), {"q0": ("engine_refused", "the prompt is too odd")})


def sample(tmp_path: Path, number: int, **sections: Any) -> list[str]:
    """The command that samples some questions, as one process."""
    rows = questions(number).select(["question", "reference_answer"]).to_pylist()
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"model": "m", "run_dir": str(tmp_path / "run"), "questions": {"path": str(tmp_path / "q.jsonl")}}
    config |= {"cluster": {"address": "local", "num_cpus": 2}}
    (tmp_path / "run.yaml").write_text(json.dumps(config | sections))
    return [sys.executable, "-m", "east_ray", "sample", str(tmp_path / "run.yaml")]


def test_a_backend_that_dies_of_every_question_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    """The engine is at fault then, not the questions: none is set aside."""
    sections = scripted(tmp_path / "script", default={"dies": "engine"})
    sections["engines"] |= {"max_deaths_per_question": 1}
    result = subprocess.run(sample(tmp_path, 3, **sections), capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 1, result.stderr
    assert "engines die of every question: the table makes it die of 'Tom has" in result.stderr
    assert not list((tmp_path / "run" / "round_0" / "set_aside").glob("part-[!0]*"))


#: A user's own backend, whose answers are never the same twice.
OWN = """
import time, uuid
from concurrent.futures import ThreadPoolExecutor
from east_ray.sampling.backends import Backend, Response

class Own(Backend):
    prompt_form = "messages"

    def __init__(self, model, settings, args):
        super().__init__(model, settings, args)
        self.thread = ThreadPoolExecutor(1)

    def ask(self, model, prompt, decoding, first=0, alone=None):
        return self.thread.submit(self.answers, decoding.responses_per_question)

    def answers(self, number):
        time.sleep(self.args["seconds"])
        return [Response(uuid.uuid4().hex, "stop") for _ in range(number)]
"""


def test_a_killed_driver_with_a_backend_of_the_users_own_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    sampling = {"backend": "own:Own", "backend_args": {"seconds": 0.4}, "responses_per_question": 2}
    command = sample(tmp_path, 16, sampling=sampling)
    samples = Folder(*locate(str(tmp_path / "run" / "round_0" / "samples")))

    def durable() -> dict[str, list[str]]:
        parts = samples.parts()
        for task in (samples / "pending").names():
            parts += (samples / "pending" / task).parts()
        rows = samples.read(SAMPLES, parts=parts).to_pylist()
        return {row["question_id"]: [response["text"] for response in row["responses"]] for row in rows}

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 240
    while not durable():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = durable()
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    after = durable()
    assert len(after) == 16 > len(before) and after | before == after
    assert len(samples.read(SAMPLES)) == 16 and samples.names() == [Path(part).name for part in samples.parts()]


#: An engine whose core has a process of its own, in a process that no Ray looks after.
CORE_OF_ITS_OWN = """
import sys, time, psutil
from east_ray.config import EnginePoolConfig
from east_ray.sampling.backends.vllm import VLLM

if __name__ == "__main__":
    engine_args = {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 4, "max_model_len": 64}
    engine = VLLM(sys.argv[1], EnginePoolConfig(engine_args=engine_args), {})
    started = psutil.Process().children(recursive=True)
    print("started", *(one.pid for one in started if "VLLM" in one.name()), flush=True)
    time.sleep(600)
"""


@pytest.mark.drill
def test_no_core_of_an_engine_outlives_its_process(quickstart: Path, tmp_path: Path) -> None:
    """As when Ray's own process on a node is killed with an actor on it, so that nobody is left to end the core."""
    (tmp_path / "engine.py").write_text(CORE_OF_ITS_OWN)
    env = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "engine.py"), str(quickstart / "model")]
    process = subprocess.Popen(command, env=os.environ | env, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = next((line for line in process.stdout if line.startswith("started")), "")
    started = [psutil.Process(int(pid)) for pid in said.split()[1:]]
    assert any("EngineCore" in one.name() for one in started), said
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(started, timeout=20)
    assert not left


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
        run.wait_until(lambda: len(run.durable()) >= already + 8)
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
        """The process that has run for longest, so none that is starting: a failed start rightly ends the run."""
        found = [process for node in cluster.nodes for process in processes(node.pid, [word])]
        return min(found, key=lambda process: process.create_time())

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
