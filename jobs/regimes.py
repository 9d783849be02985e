#!/usr/bin/env python3
"""When does weighting help? A designed study on generated questions, whose difficulty and mistakes are known.

    python jobs/regimes.py runs/regimes
    python jobs/regimes.py runs/regimes --wrong-shares 0,0.2 --easy-shares 0.75 --kinds stubborn compare.seeds=[0,1,2]

For each share of easy questions a pool is generated and sampled once. A wrong reference answer changes which responses
are chosen, not which are sampled, so the same samples serve all shares and kinds of wrong references. The wrong
references of a smaller share are among those of a larger one. Every point is a comparison (jobs/compare_regimes.yaml).
The same command resumes an interrupted study.

Results: summary.json, a figure of the differences to uniform weights, and a table of these differences with the share
of the total weight on wrong references, and on references that three quarters of the responses contradict. p-values are
corrected within a point, not across points. KEY=VALUE are settings of every comparison.
"""

import argparse
import hashlib
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from east_ray.answers.graders import MathGrader
from east_ray.answers.grading import clustered
from east_ray.records import Question
from east_ray.report.studies.shares import ByEntropy, steps_by_entropy
from east_ray.storage import Folder, locate

sys.path.insert(0, str(Path(__file__).resolve().parent / "quickstart"))
from word_problems import steps_are_right

JOBS = Path(__file__).resolve().parent
GENERATOR = JOBS / "quickstart" / "word_problems.py"
POOL_SEED = 11
#: A reference is contradicted if at least this share of the responses gives one and the same other answer.
CONTRADICTED_SHARE = 0.75
#: Horizontal distance, in points of the share of wrong references, between the error bars of two weightings.
BAR_OFFSET = 0.35


def east_ray(*arguments: str) -> None:
    """Run a command of east-ray; if it fails, exit with its exit code."""
    if code := subprocess.run([sys.executable, "-m", "east_ray", *arguments], check=False).returncode:  # noqa: S603
        sys.exit(code)


def generate(path: Path, count: int, easy_share: float, wrong_share: float = 0.0, kind: str = "stubborn") -> Path:
    """Write generated questions; the questions do not depend on the share and kind of wrong references."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "--out": path,
        "--count": count,
        "--seed": POOL_SEED,
        "--easy-share": easy_share,
        "--wrong-share": wrong_share,
        "--wrong-references": kind,
        "--exclude": JOBS / "quickstart" / "test.jsonl",
    }
    words = [str(word) for option in options.items() for word in option]
    subprocess.run([sys.executable, str(GENERATOR), *words], check=True)  # noqa: S603
    return path


def pool_name(count: int, easy_share: float) -> str:
    """Name of the file with the questions of a pool, without its suffix."""
    return f"questions_{count}_easy_{easy_share:g}"


def sample_pool(root: Path, count: int, easy_share: float) -> Path:
    """Sample a pool with correct references; returns the folder of its samples."""
    questions = generate(root / f"{pool_name(count, easy_share)}.jsonl", count, easy_share)
    run = root / f"pool_{count}_easy_{easy_share:g}"
    east_ray("sample", str(JOBS / "quickstart.yaml"), f"run_dir={run}", f"questions.path={questions}")
    return run / "round_0" / "samples"


def with_own_mistakes(samples: Path, pool: Path, path: Path, wrong_share: float) -> Path:
    """Write a pool's questions, with wrong references that are wrong answers of the model, as frequent as it gave them.

    Questions that the model always solves have no wrong answer, so with many easy ones the share may not be reached.
    """
    responses = {
        row["question"]: [response["text"] for response in row["responses"]]
        for row in pq.read_table(samples, columns=["question", "responses"]).to_pylist()
    }
    rows = [json.loads(line) for line in pool.read_text(encoding="utf-8").splitlines()]
    draw, grader = random.Random(POOL_SEED), MathGrader()
    num_wrong = round(wrong_share * len(rows))
    for row in sorted(rows, key=lambda row: hashlib.blake2b(row["question"].encode()).digest()):
        solution, _, correct = row["answer"].rpartition("#### ")
        graded = clustered(responses[row["question"]], Question("", row["question"], correct), grader)
        wrong = [
            answer
            for answer, place in zip(graded.answers, graded.cluster, strict=True)
            if answer is not None and not graded.clusters[place].is_correct
        ]
        if wrong and num_wrong > 0:
            row |= {"answer": f"{solution}#### {draw.choice(wrong)}", "reference_is_wrong": True}
            num_wrong -= 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def with_references(samples: Path, questions: Path, target: Path) -> Path:
    """Write the samples with the reference answers of another file of the same questions."""
    rows = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    references = {row["question"]: row["answer"].rpartition("#### ")[2] for row in rows}
    table = pq.read_table(samples, columns=["question_id", "question", "responses"]).sort_by("question_id")
    column = pa.array([references[question] for question in table["question"].to_pylist()], pa.string())
    temporary = target.with_suffix(".tmp")
    pq.write_table(table.append_column("reference_answer", column), temporary)
    temporary.rename(target)  # so an interrupted write leaves no incomplete file under this name
    return target


def wrong_steps(root: Path, name: str, pool: str) -> ByEntropy:
    """Share of the chosen responses of a point that reach the correct answer by wrong steps, by entropy.

    Questions with a wrong reference are left out.
    """
    texts = [(root / f"{file}.jsonl").read_text(encoding="utf-8") for file in (pool, name)]
    correct, given = ([json.loads(line) for line in text.splitlines()] for text in texts)
    solutions = {
        row["question"]: row["answer"]
        for row, other in zip(correct, given, strict=True)
        if not other.get("reference_is_wrong")
    }

    def are_right(row: Mapping[str, Any]) -> bool | None:
        solution = solutions.get(row["question"])
        return None if solution is None else steps_are_right(solution, row["chosen"])

    variant = next((root / name / "round_0" / "variants").iterdir())  # all of them have the same chosen responses
    return steps_by_entropy(Folder(*locate(str(variant / "examples"))), are_right)


def weight_shares(root: Path, name: str, arm: str) -> dict[str, float]:
    """Two shares, in [0, 1], of the total weight of an arm's examples.

    wrong_weight: on questions whose reference is wrong. contradicted_weight: on questions for which at least
    CONTRADICTED_SHARE of the responses give one and the same answer other than the reference.
    """
    rows = [json.loads(line) for line in (root / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    wrong = {row["question"] for row in rows if row.get("reference_is_wrong")}
    examples = root / name / "round_0" / "variants" / f"{arm}-seed-0" / "examples"  # the same for every seed
    total = on_wrong = on_contradicted = 0.0
    for row in pq.read_table(examples, columns=["question", "clusters", "num_responses", "weight"]).to_pylist():
        against = [c["num_responses"] for c in row["clusters"] if not c["is_correct"] and c["answer"] is not None]
        is_contradicted = max(against, default=0) >= CONTRADICTED_SHARE * row["num_responses"]
        total += row["weight"]
        on_wrong += row["weight"] * (row["question"] in wrong)
        on_contradicted += row["weight"] * is_contradicted
    return {"wrong_weight": on_wrong / total, "contradicted_weight": on_contradicted / total}


def points(arguments: argparse.Namespace) -> Iterator[tuple[float, float, str]]:
    """(easy share, wrong share, kind) of each point; without wrong references all kinds are the same point."""
    for easy, wrong, kind in itertools.product(arguments.easy_shares, arguments.wrong_shares, arguments.kinds):
        if wrong or kind == arguments.kinds[0]:
            yield easy, wrong, kind


def figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Difference to uniform weights over the share of wrong references, with 95 % intervals; a panel per pool, kind."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    shares = sorted({row["easy_share"] for row in rows})
    kinds = list(dict.fromkeys(row["kind"] for row in rows if row["wrong_share"])) or [rows[0]["kind"]]
    names = list(dict.fromkeys(row["label"] for row in rows))
    size = (3.6 * len(kinds), 3 * len(shares) + 0.4)
    drawn, axes = pyplot.subplots(len(shares), len(kinds), figsize=size, sharex=True, sharey=True, squeeze=False)
    for (easy, kind), panel in zip(itertools.product(shares, kinds), axes.flat, strict=True):
        mine = [row for row in rows if row["easy_share"] == easy and (row["kind"] == kind or not row["wrong_share"])]
        for number, name in enumerate(names):
            of_arm = sorted((row for row in mine if row["label"] == name), key=lambda row: row["wrong_share"])
            # Side by side, so that the error bars do not cover each other.
            x = [100 * row["wrong_share"] + BAR_OFFSET * (number - (len(names) - 1) / 2) for row in of_arm]
            y = [100 * row["difference"] for row in of_arm]
            low = [100 * (row["difference"] - row["low"]) for row in of_arm]
            high = [100 * (row["high"] - row["difference"]) for row in of_arm]
            panel.errorbar(x, y, yerr=[low, high], marker="o", markersize=4, capsize=2, linewidth=1, label=name)
        panel.axhline(0, color="0.5", linewidth=0.8)
        panel.set_title(f"{100 * easy:.0f} % easy; wrong: {kind}", fontsize=10)
        panel.set_xlabel("wrong references (%)")
        panel.set_ylabel("accuracy minus uniform (points)")
        panel.label_outer()
    lines, labels = axes[0][0].get_legend_handles_labels()
    drawn.legend(lines, labels, fontsize=8, frameon=False, loc="lower center", ncols=3)
    drawn.tight_layout(rect=(0, 0.5 / size[1], 1, 1))
    drawn.savefig(path, metadata={"Date": None})
    pyplot.close(drawn)


def _shares(text: str) -> list[float]:
    return [float(share) for share in text.split(",")]


def compare_point(root: Path, count: int, point: tuple[float, float, str], samples: Path, overrides: list[str]) -> str:
    """Run the comparison of a point, or what is left of it; returns the point's name."""
    easy, wrong, kind = point
    name = f"{count}_easy_{easy:g}_wrong_{wrong:g}_{kind}"
    file = root / f"{name}.parquet"
    if not file.exists():  # a comparison is resumed only if the file's modification time is unchanged
        path = root / f"{name}.jsonl"
        if kind == "own" and wrong:
            questions = with_own_mistakes(samples, root / f"{pool_name(count, easy)}.jsonl", path, wrong)
        else:
            questions = generate(path, count, easy, wrong, "stubborn" if kind == "own" else kind)
        with_references(samples, questions, file)
    settings = [f"run_dir={root / name}", f"samples.path={file}", *overrides]
    east_ray("compare", str(JOBS / "compare_regimes.yaml"), *settings)
    return name


def summary_rows(root: Path, name: str, point: tuple[float, float, str]) -> list[dict[str, Any]]:
    """A row for each arm of a point's comparison."""
    found = json.loads((root / name / "round_0" / "comparison.json").read_text())
    easy, wrong, kind = point
    return [
        {
            "easy_share": easy,
            "wrong_share": wrong,
            "kind": kind,
            "label": arm["label"],
            "accuracy": arm["mean"],
            "difference": arm["difference"],
            "low": arm["difference_low"],
            "high": arm["difference_high"],
            "p_adjusted": arm["p_adjusted"],
            "verdict": arm["verdict"],
            "base": found["base"]["accuracy"],
            "effective_examples": arm["effective_examples"],
            **weight_shares(root, name, arm["name"]),
        }
        for arm in found["arms"]
    ]


def summary_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The table for the terminal."""
    columns = ("easy %", "wrong %", "kind", "weights", "minus uniform, points (95 %)", "verdict")
    table = Table(*columns, "weight on wrong, %", "on contradicted, %", header_style="bold")
    for row in rows:
        difference = ""
        if row["difference"] is not None:
            value, low, high = (f"{100 * row[key]:+z.1f}" for key in ("difference", "low", "high"))
            difference = f"{value} ({low}, {high})"
        easy, wrong, on_wrong, on_contradicted = (
            f"{100 * row[key]:.0f}" for key in ("easy_share", "wrong_share", "wrong_weight", "contradicted_weight")
        )
        table.add_row(easy, wrong, row["kind"], row["label"], difference, row["verdict"], on_wrong, on_contradicted)
    return table


def parsed_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of all results")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of every comparison")
    parser.add_argument("--count", type=int, default=600, help="number of questions in a pool")
    parser.add_argument("--easy-shares", type=_shares, default=[0.5, 0.75], help="e.g. 0.5,0.75")
    parser.add_argument("--wrong-shares", type=_shares, default=[0.0, 0.05, 0.1, 0.2], help="e.g. 0,0.2")
    parser.add_argument(
        "--kinds",
        type=lambda text: text.split(","),
        default=["stubborn", "own", "diverse"],
        help="kinds of wrong references: from one misconception, from the model's own wrong answers, from slips",
    )
    return parser.parse_intermixed_args()


def main() -> None:
    """The command line."""
    arguments = parsed_arguments()
    root: Path = arguments.root
    pools = {easy: sample_pool(root, arguments.count, easy) for easy in arguments.easy_shares}
    rows: list[dict[str, Any]] = []
    steps: dict[str, Any] = {}
    for point in points(arguments):
        easy = point[0]
        name = compare_point(root, arguments.count, point, pools[easy], arguments.overrides)
        rows += summary_rows(root, name, point)
        steps[name] = asdict(wrong_steps(root, name, pool_name(arguments.count, easy)))
    (root / "summary.json").write_text(json.dumps({"arms": rows, "wrong_steps": steps}, indent=1) + "\n")
    figure([row for row in rows if row["difference"] is not None], root / "regimes.svg")
    Console().print(summary_table(rows), f"\n{root / 'summary.json'}\n{root / 'regimes.svg'}", highlight=False)


if __name__ == "__main__":
    main()
