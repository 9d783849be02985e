r"""The error of the weights against the number of responses, by the rules of `sampling.adaptive`, judged by the truth.

    python tests/benchmarks/adaptive.py
    python tests/benchmarks/adaptive.py --make-counts FOLDER      # samples the truth again; 40 minutes on two cores

The truth are the cluster sizes of 512 responses to each of 300 questions, sampled once from the quick start's model and
kept in adaptive_counts.json: ``quickstart`` are the last 300 questions of the quick start's pool; ``strong`` are easy
questions of its generator, most of which the model always answers alike. No rule was tuned on these questions.

Fresh responses are drawn from these distributions. The error is the mean of |weight - true weight| over the kept
questions, those with a correct response; the weight is the entropy over its mean. `saved_at_equal_error` is the share
of responses that a budget of 48 or 96 responses a question saves beside the fixed number that is off by as much;
`oracle_saves` is the same for numbers proportional to sigma^(2/3), where sigma is the true standard deviation of
-ln p(answer), which nobody knows. The last line is a JSON object.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from east_ray.answers.graders import MathGrader
from east_ray.answers.grading import clustered
from east_ray.records import Question

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "jobs" / "quickstart"
COUNTS = Path(__file__).with_name("adaptive_counts.json")
NUM_QUESTIONS, NUM_RESPONSES, SEED = 300, 512, 1717
#: Questions of one step that the model answers with confidence.
STRONG = ("--steps", "1:1", "--kinds", "sells_each,gets_more,double,more_than,left_over", "--seed", str(SEED))


def make_counts(folder: Path) -> None:
    """Sample both pools with the settings of the quick start and another seed; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    strong = folder / "strong.jsonl"
    generate = [str(QUICKSTART / "word_problems.py"), "--out", str(strong), "--count", str(NUM_QUESTIONS), *STRONG]
    generate += ["--exclude", str(QUICKSTART / "train.jsonl"), str(QUICKSTART / "test.jsonl")]
    subprocess.run([sys.executable, *generate], check=True)
    pools = {
        "quickstart": {"path": str(QUICKSTART / "train.jsonl"), "skip": NUM_QUESTIONS, "max_questions": NUM_QUESTIONS},
        "strong": {"path": str(strong)},
    }
    counts = {name: sampled_counts(folder / name, questions) for name, questions in pools.items()}
    COUNTS.write_text(json.dumps(counts, separators=(",", ":")) + "\n")


def sampled_counts(run: Path, questions: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each question, in order: the sizes of its clusters, largest first, and whether a response is correct."""
    settings = yaml.safe_load((ROOT / "jobs" / "quickstart.yaml").read_text())
    for section in ("variants", "studies", "evaluation", "training"):
        del settings[section]
    settings |= {"run_dir": str(run), "model": str(QUICKSTART / "model"), "seed": SEED, "questions": questions}
    settings["sampling"]["responses_per_question"] = NUM_RESPONSES
    job = run.with_suffix(".yaml")
    job.write_text(yaml.safe_dump(settings))
    subprocess.run([sys.executable, "-m", "east_ray", "sample", str(job)], check=True)
    columns = ["question_id", "question", "reference_answer", "responses"]
    rows = pq.read_table(run / "round_0" / "samples", columns=columns).sort_by("question_id").to_pylist()
    found, grader = [], MathGrader()
    for row in rows:
        texts = [response["text"] for response in row["responses"]]
        graded = clustered(texts, Question(row["question_id"], row["question"], row["reference_answer"]), grader)
        sizes = [cluster.num_responses for cluster in graded.clusters]
        found.append({"sizes": sizes, "is_kept": graded.correct_cluster is not None})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make-counts", type=Path, metavar="FOLDER", help="sample the truth; its runs are kept here")
    arguments = parser.parse_args()
    if arguments.make_counts:
        make_counts(arguments.make_counts.resolve())


if __name__ == "__main__":
    main()
