r"""The error of the weights against the number of responses, by the rules of `sampling.adaptive`, judged by the truth.

    python tests/benchmarks/adaptive.py
    python tests/benchmarks/adaptive.py --make-counts FOLDER      # samples the truth again

The truth are the cluster sizes of 512 responses to each question, sampled once from the quick start's model and kept
in adaptive_counts.json. ``quickstart`` are 300 questions of the quick start's pool; ``held_out`` are 100 of them, which
nothing was tuned on: the constants of the rules and of `weighting.smoothed_entropy` were chosen on the other 200.
``strong`` stands for a strong model: other questions of the generator, of kinds that ours is mostly sure of, and hard
ones as a twentieth of the whole. Nothing was tuned on these either.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

from east_ray.answers.graders import MathGrader
from east_ray.answers.grading import clustered
from east_ray.records import Question
from east_ray.report.studies.adaptive import (
    Outcome,
    Rule,
    Truth,
    budget,
    equal_number,
    fixed,
    local,
    outcomes,
)
from east_ray.sampling.adaptive import Precision, Unanimous

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "jobs" / "quickstart"
sys.path.insert(0, str(QUICKSTART))
import word_problems  # noqa: E402

COUNTS = Path(__file__).with_name("adaptive_counts.json")
NUM_RESPONSES, SEED = 512, 1717
#: Of the rules: fixed numbers, means of a budget, its pilot, and the most that it and the oracle give a question.
FIXED, BUDGETS, PILOT, MOST = (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256), (48, 96), 16, 256
#: The questions of the quick start's pool that were sampled: how many to leave out, and how many to take then.
RANGES = {"tuned": (0, 200), "held_out": (300, 100)}
#: Kinds of clauses that the quick start's model answers with confidence, and the questions of a strong model.
SURE, NUM_SURE, NUM_HARD = {"sells_each", "gets_more", "double", "more_than", "left_over"}, 180, 9


def make_counts(folder: Path) -> None:
    """Sample the pools with the settings of the quick start and another seed; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    train = str(QUICKSTART / "train.jsonl")
    counts = {}
    for name, (skip, count) in RANGES.items():
        counts[name] = sampled_counts(folder / name, {"path": train, "skip": skip, "max_questions": count})
    questions = folder / "strong_questions.jsonl"
    word_problems.write_jsonl(questions, map(word_problems.reference_row, strong()))
    counts["strong"] = sampled_counts(folder / "strong", {"path": str(questions)})
    COUNTS.write_text(json.dumps(counts, separators=(",", ":")) + "\n")


def strong() -> list[word_problems.WordProblem]:
    """The questions of a strong model: those of one step that ours is mostly sure of, and hard ones."""
    train, _ = word_problems.quickstart_problems()
    drawn = word_problems.easy_and_hard(2000, SEED, exclude={problem.question for problem in train})
    sure = [one for one in drawn if len(one.steps) == 1 and one.kinds <= SURE]
    hard = [one for one in drawn if len(one.steps) > 1 or one.kinds & set(word_problems.PLANTED_MISCONCEPTIONS)]
    return sure[:NUM_SURE] + hard[:NUM_HARD]


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


# ------------------------------------------------------------------------------------------------------------- measure


def oracle(truth: Truth, mean: int) -> Rule:
    """Numbers proportional to sigma^(2/3) with this mean, at least 2: optimal if each error were sigma / sqrt(n)."""
    wanted = truth.deviations() ** (2 / 3)
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        numbers = np.clip(np.floor(middle * wanted), 2, MOST).astype(np.int64)
        low, high = (middle, high) if numbers.sum() <= mean * len(wanted) else (low, middle)
    numbers = np.clip(np.floor(low * wanted), 2, MOST).astype(np.int64)
    return lambda draw: numbers


def rules(truth: Truth) -> dict[str, Rule]:
    """Every rule by its name in the table; the fixed numbers first."""
    found = {f"fixed {number}": fixed(number) for number in FIXED}
    for mean in sorted((32, 64, *BUDGETS)):
        found[f"budget {mean}"] = budget(mean, PILOT, MOST)
    found |= {f"precision {bound:g}": local(Precision(32, 128, bound)) for bound in (0.1, 0.08, 0.05)}
    found |= {f"unanimous {first}": local(Unanimous(first, 128)) for first in (32, 48)}
    return found | {f"oracle {mean}": oracle(truth, mean) for mean in BUDGETS}


def measure(pool: list[dict[str, Any]], repetitions: int, seed: int) -> dict[str, Any]:
    """The part of the JSON object for one pool; prints its table."""
    truth = Truth.of([one["sizes"] for one in pool], [one["is_kept"] for one in pool])
    found = outcomes(truth, rules(truth), MOST, repetitions, seed)
    same = {name: [outcome[f"fixed {number}"] for number in FIXED] for name, outcome in found.items()}
    table = Table("rule", "responses", "plug_in", "±", "saved", "smoothed", "±", "saved")
    for rule in found["plug_in"]:
        cells = [f"{found['plug_in'][rule].num_responses:.1f}"]
        for name, outcome in found.items():
            share = None if rule.startswith("fixed") else share_saved(same[name], outcome[rule])
            cells += [f"{outcome[rule].error:.4f}", f"{outcome[rule].standard_error:.4f}"]
            cells += ["" if share is None else f"{share:.1%}"]
        table.add_row(rule, *cells)
    Console().print(table)
    plain, smooth = found["plug_in"], found["smoothed"]
    budgets = [f"budget {mean}" for mean in BUDGETS]

    def saved(beside: list[Outcome], rules_: Sequence[Outcome]) -> dict[str, float | None]:
        return {str(mean): share_saved(beside, one) for mean, one in zip(BUDGETS, rules_, strict=True)}

    return {
        "unanimous_at_128": round(float(np.mean(truth.shares.max(axis=1) ** 128)), 3),
        "fixed": {str(number): round(plain[f"fixed {number}"].error, 4) for number in FIXED},
        "fixed_smoothed": {str(number): round(smooth[f"fixed {number}"].error, 4) for number in FIXED},
        "rules": {
            f"{rule}, {name}": {"responses": round(one.num_responses, 1), "error": round(one.error, 4)}
            for name, outcome in found.items()
            for rule, one in outcome.items()
            if not rule.startswith(("fixed", "oracle"))
        },
        "saved_at_equal_error": saved(same["plug_in"], [smooth[rule] for rule in budgets]),
        "saved_with_one_estimator": {
            name: saved(same[name], [outcome[rule] for rule in budgets]) for name, outcome in found.items()
        },
        "oracle_saves": saved(same["plug_in"], [plain[f"oracle {mean}"] for mean in BUDGETS]),
    }


def share_saved(same: list[Outcome], one: Outcome) -> float | None:
    """The share of responses saved beside the fixed number that is off by as much; None beyond those measured."""
    as_good = equal_number(same, one.error)
    return None if as_good is None else round(1 - one.num_responses / as_good, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make-counts", type=Path, metavar="FOLDER", help="sample the truth; its runs are kept here")
    parser.add_argument("--repetitions", type=int, default=100, help="draws of all responses")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.make_counts:
        make_counts(arguments.make_counts.resolve())
    counts = json.loads(COUNTS.read_text())
    pools = {"quickstart": counts["tuned"] + counts["held_out"], "held_out": counts["held_out"]}
    pools["strong"] = counts["strong"]
    print(json.dumps({name: measure(pool, arguments.repetitions, arguments.seed) for name, pool in pools.items()}))


if __name__ == "__main__":
    main()
