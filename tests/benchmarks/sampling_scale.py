r"""The sampling stage against the number of questions: ``python tests/benchmarks/sampling_scale.py 10000 100000``.

For each number, `east-ray sample` asks so many questions, 8 responses each, of 64 engines: actors of a local Ray, each
with a fraction of a CPU. They are of the backend `scripted`, which answers at once, and draws the lengths of responses.
Reported is what grows with the number of questions, whatever the engines:

    driver_cpu_s        CPU seconds of the command's process, all of it: reading the questions, sampling, coming to rest
    driver_gib          the peak of its resident memory; `driver_unique_gib`: of the memory that it shares with nobody,
                        looked at every two seconds. `questions_gib` of it is there after reading the questions
    files_per_1000      the most files in `samples/` while the stage worked, and `files_at_rest` after it
    engine_gib          memory that the process of one engine shares with nobody
    resume_s            of a run that was killed after 90 %, from the beginning of the command until its first engine is
                        ready and gets a question. It is resumed in a copy of the folders as they were when 90 % was
                        durable, and ended then. `decided_s` of it is over when the engines begin to start
    requests_per_question   of up to 10,000 questions into an S3-compatible server on this machine, over the whole
                        command, with `requests` by kind

The last line is a JSON object of these, by the number of questions.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from object_store import counted_store

ROOT = Path(__file__).resolve().parents[2]
#: Of each question; the share after which the run is resumed; and the most questions for the object store.
NUM_RESPONSES, RESUMED_AT, MOST_STORED = 8, 0.9, 10_000
#: Logical CPUs for tasks, and for all engines together.
TASK_CPUS, ENGINE_CPUS = 3, 1


@dataclass
class Watched:
    """What was seen of a command's process while it ran."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    peak_unique_bytes: int = 0
    lines: list[tuple[float, float, int, str]] = field(default_factory=list)
    """Of each line that it printed: seconds, CPU seconds and bytes of resident memory until then, and its text."""

    def at(self, words: str) -> tuple[float, float, int, str]:
        """The first line with these words."""
        return next(line for line in self.lines if words in line[-1])


def watch(
    command: list[str], look: Callable[[psutil.Process], None] = lambda process: None, until: str | None = None
) -> Watched:
    """Run a command to its end, or until it prints these words. `look` is called several times a second meanwhile."""
    seen, begin = Watched(), time.monotonic()
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=errors)
        watched = psutil.Process(process.pid)

        def read() -> None:
            for line in process.stdout or ():
                times = watched.cpu_times()
                told = time.monotonic() - begin, times.user + times.system, watched.memory_info().rss, line.rstrip()
                seen.lines.append(told)
                print(f"    {told[0]:7.1f} s {told[1]:7.1f} CPU s {told[2] / 2**30:6.3f} GiB  {told[3]}", flush=True)
                if until is not None and until in line:
                    process.terminate()

        reader = threading.Thread(target=read)
        reader.start()
        looked = 0.0
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                times = watched.cpu_times()
                if time.monotonic() - looked > 2.0:
                    looked = time.monotonic()
                    seen.peak_unique_bytes = max(seen.peak_unique_bytes, watched.memory_full_info().uss)
            except (psutil.Error, OSError):  # it has ended
                break
            seen.cpu_s = times.user + times.system
            if "VmHWM" in status:
                seen.peak_bytes = int(status.partition("VmHWM:")[2].split()[0]) << 10
            look(watched)
            time.sleep(0.1)
        reader.join()
        seen.seconds = time.monotonic() - begin
        if process.wait() and until is None:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}: {errors.read()[-3000:]}")
    return seen


def files(folder: Path) -> Iterator[Path]:
    """The files below a folder that may change meanwhile, without hidden ones."""
    try:
        found = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for one in found:
        if one.is_dir():
            yield from files(Path(one.path))
        elif not one.name.startswith("."):
            yield Path(one.path)


def copy(run: Path, to: Path) -> None:
    """A run directory as a driver leaves it that is killed now; its files are the same ones, under a second name."""
    for folder in ("questions", "set_aside", "stages", "samples"):
        for file in files(run / "round_0" / folder):
            other = to / file.relative_to(run)
            other.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, other)
            except FileNotFoundError:  # its task has just ended
                continue
    shutil.copy(run / "config.yaml", to / "config.yaml")


class Scale:
    """A run of so many questions on a cluster of so many engines, in a folder of its own."""

    def __init__(self, folder: Path, num_questions: int, options: argparse.Namespace) -> None:
        self._folder, self._num_questions, self._options = folder, num_questions, options
        self._run, self._killed = folder / "run", folder / "killed"
        self._num_files, self._engine_bytes = 0, 0
        numbers = pa.array(range(num_questions)).cast(pa.string())
        text = pa.array(["A ship has a number of decks, cabins on each, and a bed for every passenger. Case "])
        questions = pa.compute.binary_join_element_wise(text[0], numbers, "")
        pq.write_table(pa.table({"question": questions, "reference_answer": numbers}), folder / "questions.parquet")
        (folder / "table.jsonl").write_text("")

    def command(self, run_dir: str) -> list[str]:
        """`east-ray sample` into this run directory."""
        default = {"responses": [f"\\boxed{{{answer}}}" for answer in range(NUM_RESPONSES)], "drawn_tokens": 100}
        count = self._options.engines
        engines = {"min_engines": count, "max_engines": count, "num_cpus_per_engine": ENGINE_CPUS / count}
        engines |= {} if self._options.per_task is None else {"questions_per_task": self._options.per_task}
        settings = {
            "model": "scripted", "run_dir": run_dir, "engines": engines,
            "questions": {"path": str(self._folder / "questions.parquet")},
            "sampling": {"backend": "scripted", "responses_per_question": NUM_RESPONSES, "max_tokens": 128,
                         "backend_args": {"table": str(self._folder / "table.jsonl"), "default": default}},
            "cluster": {"num_cpus": TASK_CPUS + ENGINE_CPUS},
        }  # fmt: skip
        (self._folder / "job.yaml").write_text(yaml.safe_dump(settings))
        return [sys.executable, "-m", "east_ray", "sample", str(self._folder / "job.yaml")]

    def measure(self) -> dict[str, Any]:
        """The whole on local disk, and a resume of it."""
        whole = watch(self.command(str(self._run)), self._look)
        joined = whole.at("questions ")[2]
        record = json.loads((self._run / "round_0" / "stages" / "sampling.json").read_text())
        if record["counts"]["num_responses"] != NUM_RESPONSES * self._num_questions:
            raise SystemExit(f"responses are missing: {record}")
        per_thousand = self._num_questions / 1000
        measured = {
            "driver_cpu_s": round(whole.cpu_s, 1),
            "driver_cpu_s_per_100k": round(whole.cpu_s * 1e5 / self._num_questions, 1),
            "driver_gib": round(whole.peak_bytes / 2**30, 3),
            "driver_unique_gib": round(whole.peak_unique_bytes / 2**30, 3),
            "questions_gib": round(joined / 2**30, 3),
            "seconds": round(whole.seconds, 1),
            "files_per_1000": round(self._num_files / per_thousand, 1),
            "engine_gib": round(self._engine_bytes / 2**30, 3),
            "files_at_rest": sum(1 for _ in files(self._run / "round_0" / "samples")),
        }
        shutil.rmtree(self._run)
        resumed = watch(self.command(str(self._killed)), until=" ready ")
        found = re.search(r"([\d,]+)/[\d,]+ questions · engines: starting", resumed.at("engines: starting")[-1])
        if found is None or int(found[1].replace(",", "")) < RESUMED_AT * self._num_questions:
            raise SystemExit(f"the resumed run has not found what was durable: {resumed.lines}")
        shutil.rmtree(self._killed)
        return measured | {
            "resume_s": round(resumed.at(" ready ")[0], 1),
            "decided_s": round(resumed.at("engines: starting")[0], 1),
            "decided_driver_cpu_s": round(resumed.at("engines: starting")[1], 1),
            "resume_driver_gib": round(resumed.peak_bytes / 2**30, 3),
        }

    def _look(self, command: psutil.Process) -> None:
        """Count the files, and copy them once most questions are durable."""
        samples = self._run / "round_0" / "samples"
        finished = len(list(files(samples / "tasks")))
        if not finished or self._killed.exists():
            return
        self._num_files = max(self._num_files, sum(1 for _ in files(samples)))
        one = next(files(samples / "tasks"))
        if finished * pq.read_metadata(one).num_rows >= RESUMED_AT * self._num_questions:
            copy(self._run, self._killed)
            engines = [one for one in command.children(recursive=True) if "Sampler" in one.name()]
            self._engine_bytes = max((one.memory_full_info().uss for one in engines), default=0)

    def measure_stored(self) -> dict[str, Any]:
        """The requests of the whole command into an object store."""
        with counted_store() as store:
            watch(self.command(store.address("run")))
            kinds = dict(store.requests.most_common())
        per_question = store.requests.total() / self._num_questions
        return {"requests_per_question": round(per_question, 3), "requests": kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num_questions", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--per-task", type=int, help="engines.questions_per_task; by default the setting's own")
    parser.add_argument("--only", choices=("disk", "store"), help="measure only on local disk, or only the store")
    options = parser.parse_args()
    results = {}
    for num_questions in options.num_questions:
        with tempfile.TemporaryDirectory(prefix="east-ray-scale-") as name:
            scale, measured = Scale(Path(name), num_questions, options), dict[str, Any]()
            if options.only != "store":
                measured |= scale.measure()
            if options.only != "disk" and num_questions <= MOST_STORED:
                measured |= scale.measure_stored()
        results[str(num_questions)] = measured
        print(num_questions, json.dumps(measured), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
