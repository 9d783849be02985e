r"""Time and memory of weighing against the number of questions: ``python tests/benchmarks/weighing.py 10000 100000``.

For each number, a Parquet file of questions with 128 synthetic responses each (an answer and little other text) is
written, and ``east-ray weigh`` takes them as given samples. With ``--row response`` a row is one response, and those
of a question are anywhere in the file. Reported are the seconds of taking and of weighing, and the peak memory of the
command with all its processes, Ray's and the object store included (proportional set size, sampled every half second).
The object store has at most ``--store-mib``. The last line is a JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

#: Taking the samples, and the stages of weighing.
STAGES = ("sampling", "answers", "selection", "examples")
CHUNK = 10_000


def write_samples(path: Path, num_questions: int, num_responses: int, seed: int) -> None:
    """Integers as answers, as in GSM8K: the correct one and seven near it, with decreasing probabilities."""
    rng = np.random.default_rng(seed)
    texts = pa.array([f"So it is \\boxed{{{value}}}." for value in range(5100)])
    shares = np.cumsum(np.array([8, 3, 2, 1, 1, 1, 0.5, 0.5]) / 17)
    schema = pa.schema({"question": pa.string(), "reference_answer": pa.string(), "responses": pa.list_(pa.string())})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, num_questions, CHUNK):
            count = min(CHUNK, num_questions - start)
            right = rng.integers(50, 5000, count)
            near = rng.integers(-40, 100, (count, len(shares)))
            near[:, 0] = 0
            drawn = np.searchsorted(shares, rng.random((count, num_responses)))
            values = np.clip(right[:, None] + np.take_along_axis(near, drawn, axis=1), 0, 5099)
            offsets = np.arange(0, (count + 1) * num_responses, num_responses, dtype=np.int32)
            responses = pa.ListArray.from_arrays(offsets, texts.take(pa.array(values.ravel())))
            questions = pa.array([f"Question {start + i}?" for i in range(count)])
            writer.write_table(pa.table([questions, pa.array(right).cast(pa.string()), responses], schema=schema))


def write_responses(path: Path, num_questions: int, num_responses: int, seed: int) -> None:
    """A row for each response, of 200 to 600 characters, in random order: those of a question are anywhere."""
    rng = np.random.default_rng(seed)
    right = rng.integers(50, 5000, num_questions)
    order = rng.permutation(num_questions * num_responses) // num_responses
    filler = "We add the numbers one after another and look at what is left of them in the end. " * 8
    schema = pa.schema({"question": pa.string(), "reference_answer": pa.string(), "response": pa.string()})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(order), 10 * CHUNK):
            of = order[start : start + 10 * CHUNK]
            off = rng.choice([0, 0, 0, 0, 1, 2, 10, -1], len(of))
            lengths = rng.integers(200, 600, len(of))
            said = zip(lengths.tolist(), (right[of] + off).tolist(), strict=True)
            columns = [
                [f"Question {number}?" for number in of.tolist()],
                [str(value) for value in right[of].tolist()],
                [f"{filler[:length]} So it is \\boxed{{{value}}}." for length, value in said],
            ]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))


def peak_bytes_now(process: psutil.Process) -> int:
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:  # the process has exited
            continue
    return total


def measure(folder: Path, num_questions: int, options: argparse.Namespace) -> dict[str, float]:
    """Weigh this many questions in a separate process."""
    samples = {"path": str(folder / "samples.parquet")}
    write = write_samples if options.row == "question" else write_responses
    write(folder / "samples.parquet", num_questions, options.responses, options.seed)
    samples |= {} if options.row == "question" else {"response_column": "response"}
    settings = {"run_dir": str(folder / "run"), "samples": samples}
    (folder / "weigh.yaml").write_text(yaml.safe_dump(settings))
    begin, peak = time.perf_counter(), 0
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "east_ray", "weigh", str(folder / "weigh.yaml")]
        store = {"RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(options.store_mib << 20)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | store)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, peak_bytes_now(watched))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
    if process.wait():
        raise SystemExit((folder / "log").read_text())
    stages = folder / "run" / "round_0" / "stages"
    records = {name: json.loads((stages / f"{name}.json").read_text()) for name in STAGES}
    counts = records["examples"]["counts"]
    if counts["kept"] + sum(counts["discarded"].values()) != num_questions:
        raise SystemExit(f"{num_questions} questions in, but {counts} out")
    return {
        "num_questions": num_questions,
        "take_s": records["sampling"]["seconds"],
        "weigh_s": sum(records[name]["seconds"] for name in STAGES[1:]),
        "total_s": time.perf_counter() - begin,
        "peak_bytes": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num_questions", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--row", choices=["question", "response"], default="question")
    parser.add_argument("--responses", type=int, default=128, help="to each question")
    parser.add_argument("--store-mib", type=int, default=512)
    parser.add_argument("--folder", help="where the files are written; by default the system's for temporary files")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = Console()
    table = Table(title=f"{options.responses} answers a question, a row for each {options.row}", title_justify="left")
    for column in ("questions", "taking, s", "weighing, s", "answers/s", "all, s", "peak memory, GiB"):
        table.add_column(column, justify="right")
    results = []
    for num_questions in options.num_questions:
        with tempfile.TemporaryDirectory(prefix="east-ray-weighing-", dir=options.folder) as folder:
            row = measure(Path(folder), num_questions, options)
        results.append(row)
        answers_per_s = num_questions * options.responses / row["weigh_s"]
        table.add_row(f"{num_questions:,}", f"{row['take_s']:.1f}", f"{row['weigh_s']:.1f}", f"{answers_per_s:,.0f}",
                      f"{row['total_s']:.1f}", f"{row['peak_bytes'] / 2**30:.2f}")  # fmt: skip
    console.print(table)
    print(json.dumps({"runs": results}))


if __name__ == "__main__":
    main()
