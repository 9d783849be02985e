#!/usr/bin/env python3
"""How many responses to a question are enough? Accuracy after training, against what the sampling cost.

    python jobs/how_many_responses.py runs/how_many_responses

A fifth of the questions of a generated pool have a wrong reference answer, which the model gave itself. The pool is
sampled with a fixed number of responses, and again by the rule `sampling.adaptive.budget` at each cost. Models are
trained from the first 16, 32, 64 and 128 responses and from the budgets of 32 and 64 a question, by entropy and
uniformly, with five seeds (jobs/compare_regimes.yaml). All answer the same held-out questions, so each is compared with
entropy weights from the most responses, paired by seed and question. The same command resumes an interrupted study.

Results: summary.json, a figure, a table, and a page in the report of the comparison of the fixed numbers
(fixed/report.html). KEY=VALUE are settings of every comparison. For 32, 64 and 128 responses alone:

    python jobs/how_many_responses.py runs/how_many_responses --fixed 32,64,128 --budgets ""
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pages import add_page
from regimes import JOBS, east_ray, generate, with_own_mistakes, with_references
from rich.console import Console
from rich.table import Table

from east_ray.evaluation import significance
from east_ray.evaluation.estimators import effective_examples
from east_ray.records import StudyPage, StudySeries

WRONG_SHARE = 0.2
#: The estimate of the entropy that goes with adaptive numbers. The fixed ones have it too: nothing else may differ.
ESTIMATOR = "smoothed"
SIGNALS = {"entropy": "sft-entropy-a1", "uniform": "sft-uniform"}


def sample(root: Path, questions: Path, name: str, *settings: str) -> Path:
    """Sample the pool as the quick start does, but for `settings`; returns the folder of the samples."""
    run = root / name
    east_ray("sample", str(JOBS / "quickstart.yaml"), f"run_dir={run}", f"questions.path={questions}", *settings)
    return run / "round_0" / "samples"


def compare(
    root: Path, name: str, samples: Path, questions: Path, numbers: Sequence[int], overrides: list[str]
) -> None:
    """Train from the samples by entropy and uniformly, from the first so many responses of each question.

    Without numbers all responses are used.
    """
    file = root / f"{name}.parquet"
    if not file.exists():  # a comparison is resumed only if the file's modification time is unchanged
        with_references(samples, questions, file)
    firsts = [(f"-{number}", {"answers.responses": number}) for number in numbers] or [("", {})]
    grids = [
        {
            "signals": ["uniform", "entropy"],
            "suffix": suffix,
            "overrides": {"weighting.entropy_estimator": ESTIMATOR, **first},
        }
        for suffix, first in firsts
    ]
    settings = [f"run_dir={root / name}", f"samples.path={file}", f"compare.grids={json.dumps(grids)}", *overrides]
    east_ray("compare", str(JOBS / "compare_regimes.yaml"), *settings)


def correctness(variants: Path, arm: str, seeds: Sequence[int]) -> NDArray[np.bool_]:
    """(S, Q) whether a model trained with each seed answers each held-out question correctly, in one order."""
    tables = [
        pq.read_table(variants / f"{arm}-seed-{seed}" / "evaluation" / "answers").sort_by("question_id")
        for seed in seeds
    ]
    assert all(table["question_id"].equals(tables[0]["question_id"]) for table in tables)
    return np.array([table["is_correct"].to_numpy() for table in tables])


def read_arm(run: Path, arm: str, samples: Path, number: int | None) -> dict[str, Any]:
    """What a training was given: mean responses a question, examples, and those that the weights are worth."""
    counts = pq.read_table(samples, columns=["num_responses"])["num_responses"]
    weights = pq.read_table(run / "round_0" / "variants" / f"{arm}-seed-0" / "examples", columns=["weight"])["weight"]
    return {
        "responses": number or pc.mean(counts).as_py(),
        "num_examples": len(weights),
        "effective_examples": effective_examples(weights.to_numpy()),
    }


def summary(root: Path, samples: Mapping[str, Path], fixed: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each arm of the comparisons `samples` names: what it was given, and its accuracy beside the most."""
    rows: list[dict[str, Any]] = []
    correct: dict[str, NDArray[np.bool_]] = {}
    for name, folder in samples.items():
        seeds = json.loads((root / name / "round_0" / "comparison.json").read_text())["seeds"]
        for number in fixed if name == "fixed" else [None]:
            for signal, grid in SIGNALS.items():
                arm = grid if number is None else f"{grid}-{number}"
                correct[f"{name}/{arm}"] = correctness(root / name / "round_0" / "variants", arm, seeds)
                of_arm = read_arm(root / name, arm, folder, number)
                rows.append({"signal": signal, "rule": name.partition("-")[0], **of_arm})
    baseline = f"fixed/{SIGNALS['entropy']}-{max(fixed)}"
    results = significance.compare(correct, {arm: None if arm == baseline else baseline for arm in correct})
    for row, result in zip(rows, results, strict=True):
        accuracy, difference = result.accuracy, result.difference
        row |= {"accuracy": accuracy.mean, "low": accuracy.low, "high": accuracy.high}
        row |= {"difference": difference and difference.mean, "p_adjusted": result.adjusted_p_value}
        row |= {"difference_low": difference and difference.low, "difference_high": difference and difference.high}
        row |= {"detectable": result.minimal_detectable_difference}
    return rows


def figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy over the mean number of responses, with 95 % intervals over seeds and questions."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    size = (6, 3.8)
    drawn, axes = pyplot.subplots(figsize=size)
    shift = 0.95
    for signal in SIGNALS:
        for rule, marker, line in (("fixed", "o", "-"), ("budget", "s", "--")):
            mine = [row for row in rows if row["signal"] == signal and row["rule"] == rule]
            x = [row["responses"] * shift for row in mine]  # side by side, so that error bars do not cover each other
            y, low, high = (np.array([100 * row[key] for row in mine]) for key in ("accuracy", "low", "high"))
            label = f"{signal} weights, {'a fixed number' if rule == 'fixed' else 'a budget'}"
            axes.errorbar(x, y, yerr=[y - low, high - y], marker=marker, linestyle=line, capsize=2, label=label)
            shift *= 1.035
    numbers = sorted({row["responses"] for row in rows if row["rule"] == "fixed"})
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set_xlabel("mean number of responses to a question")
    axes.set_ylabel("accuracy after training (%)")
    drawn.legend(fontsize=8, frameon=False, loc="lower center", ncols=2)
    drawn.tight_layout(rect=(0, 0.6 / size[1], 1, 1))
    drawn.savefig(path, metadata={"Date": None})
    pyplot.close(drawn)


COLUMNS = ("weights", "responses", "accuracy %, 95 %", "minus the most, points (95 %)", "Holm p", "worth, examples")


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of `summary` as text, below COLUMNS."""
    number = f"{row['responses']:.0f}" + (", budget" if row["rule"] == "budget" else "")
    accuracy, low, high = (f"{100 * row[key]:.1f}" for key in ("accuracy", "low", "high"))
    difference = p_value = ""
    if row["difference"] is not None:
        mean, least, most = (f"{100 * row[key]:+z.1f}" for key in ("difference", "difference_low", "difference_high"))
        difference, p_value = f"{mean} ({least}, {most})", f"{row['p_adjusted']:.2g}"
    worth = f"{row['effective_examples']:.0f} of {row['num_examples']}"
    return [row["signal"], number, f"{accuracy} ({low} to {high})", difference, p_value, worth]


def summary_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table for the terminal."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row))
    return table


def page(rows: Sequence[Mapping[str, Any]]) -> StudyPage:
    """The same table and the figure's curves as a section of the report."""
    return {
        "title": "How many responses are enough: accuracy after training",
        "text": "Trained from the first responses of the same sampling, or from a budget that is spent where it tells "
        "most. A fifth of the references are wrong answers of the model's own. Each arm is compared with entropy "
        "weights from the most responses, paired by seed and question.",
        "tables": [
            {
                "caption": "By the mean number of responses to a question",
                "columns": COLUMNS,
                "rows": [cells(row) for row in rows],
            }
        ],
        "curves": [
            {
                "title": "Accuracy by the mean number of responses",
                "x_label": "responses a question",
                "y_label": "accuracy (%)",
                "series": list(_curves(rows)),
            }
        ],
    }


def _curves(rows: Sequence[Mapping[str, Any]]) -> Iterator[StudySeries]:
    for signal, rule in itertools.product(SIGNALS, ("fixed", "budget")):
        mine = [row for row in rows if row["signal"] == signal and row["rule"] == rule]
        if mine:
            x, y = [row["responses"] for row in mine], [100 * row["accuracy"] for row in mine]
            low, high = ([100 * row[bound] for row in mine] for bound in ("low", "high"))
            yield {"label": f"{signal}, {rule}", "x": x, "y": y, "low": low, "high": high}


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def parsed_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of all results")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of every comparison")
    parser.add_argument("--count", type=int, default=600, help="number of questions in the pool")
    parser.add_argument("--easy-share", type=float, default=0.5, help="share of easy questions")
    parser.add_argument("--fixed", type=_numbers, default=[16, 32, 64, 128], help="fixed numbers of responses")
    parser.add_argument("--budgets", type=_numbers, default=[32, 64], help="mean numbers of responses of the budgets")
    return parser.parse_intermixed_args()


def main() -> None:
    """The command line."""
    arguments = parsed_arguments()
    root: Path = arguments.root
    most = max(arguments.fixed)
    pool = generate(root / "pool.jsonl", arguments.count, arguments.easy_share)
    samples = {"fixed": sample(root, pool, "sampled_fixed", f"sampling.responses_per_question={most}")}
    for mean in arguments.budgets:
        budget = f"{{total: {mean * arguments.count}, max: {2 * most}}}"
        samples[f"budget-{mean}"] = sample(root, pool, f"sampled_budget_{mean}", f"sampling.adaptive.budget={budget}")
    questions = root / "questions.jsonl"
    if not questions.exists():
        with_own_mistakes(samples["fixed"], pool, questions, WRONG_SHARE)
    for name, folder in samples.items():
        compare(root, name, folder, questions, arguments.fixed if name == "fixed" else [], arguments.overrides)
    rows = summary(root, samples, arguments.fixed)
    (root / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    figure(rows, root / "how_many_responses.svg")
    report = add_page(str(root / "fixed"), "8_how_many_responses", page(rows))
    written = [root / "summary.json", root / "how_many_responses.svg", report]
    Console(width=120).print(summary_table(rows), *(f"\n{path}" for path in written))


if __name__ == "__main__":
    main()
