#!/usr/bin/env python3
"""When does weighting help? A designed study on generated questions, whose difficulty and mistakes are known.

    python jobs/regimes.py runs/regimes
    python jobs/regimes.py runs/regimes --wrong-shares 0,0.2 --easy-shares 0.75 --kinds stubborn compare.seeds=[0,1,2]

For each share of confidently solved questions a pool is generated and sampled once. A wrong reference answer changes
what is chosen and not what is sampled, so the same responses serve every share and kind of wrong references, and the
wrong ones of a smaller share are among those of a larger one. Every point is a comparison (jobs/compare_regimes.yaml);
the same command goes on where it stopped. At the end: summary.json, a figure of the differences to uniform weights, and
a table of them and of the share of the total weight that lies on wrong references, and on those that 3/4 of the
responses contradict. p-values are corrected within a point, not over the points. KEY=VALUE are settings of every
comparison.
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

from east_ray import answers
from east_ray.report.studies.shares import ByEntropy
from east_ray.report.studies.steps import steps_by_entropy
from east_ray.storage import Folder, locate

sys.path.insert(0, str(Path(__file__).resolve().parent / "quickstart"))
from word_problems import steps_are_right

JOBS = Path(__file__).resolve().parent
GENERATOR = JOBS / "quickstart" / "word_problems.py"


def east_ray(*arguments: str) -> None:
    """Run a verb; ends this process with its exit code if it fails."""
    if code := subprocess.run([sys.executable, "-m", "east_ray", *arguments], check=False).returncode:  # noqa: S603
        sys.exit(code)


def generate(path: Path, count: int, easy_share: float, wrong_share: float = 0.0, kind: str = "stubborn") -> Path:
    """Write questions of a share of easy ones and of wrong references; the same questions whatever is wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(  # noqa: S603
        [sys.executable, str(GENERATOR), "--out", str(path), "--count", str(count), "--seed", "11", "--easy-share",
         str(easy_share), "--wrong-share", str(wrong_share), "--wrong-references", kind, "--exclude",
         str(JOBS / "quickstart" / "test.jsonl")],
        check=True,
    )  # fmt: skip
    return path


def sample_pool(root: Path, count: int, easy_share: float) -> Path:
    """The folder of the samples of a pool with right references."""
    questions = generate(root / f"questions_{count}_easy_{easy_share:g}.jsonl", count, easy_share)
    run = root / f"pool_{count}_easy_{easy_share:g}"
    east_ray("sample", str(JOBS / "quickstart.yaml"), f"run_dir={run}", f"questions.path={questions}")
    return run / "round_0" / "samples"


def with_own_mistakes(samples: Path, pool: Path, path: Path, wrong_share: float) -> Path:
    """Write a pool's questions with wrong references that are answers which the model itself gave, as often as it did.

    Of questions that it always solves there are none, so with many easy ones the share may not be reached.
    """
    responses = {
        row["question"]: [one["text"] for one in row["responses"]]
        for row in pq.read_table(samples, columns=["question", "responses"]).to_pylist()
    }
    rows = [json.loads(line) for line in pool.read_text(encoding="utf-8").splitlines()]
    draw = random.Random(11)
    num_wrong = round(wrong_share * len(rows))
    for row in sorted(rows, key=lambda row: hashlib.blake2b(row["question"].encode()).digest()):
        solution, _, right = row["answer"].rpartition("#### ")
        given = [answers.extract(text).answer for text in responses[row["question"]]]
        keys = answers.cluster([right, *given])
        wrong = [answer for answer, key in zip(given, keys[1:], strict=True) if answer and key != keys[0]]
        if wrong and num_wrong > 0:
            row |= {"answer": f"{solution}#### {draw.choice(wrong)}", "reference_is_wrong": True}
            num_wrong -= 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def with_references(samples: Path, questions: Path, target: Path) -> Path:
    """The samples with the reference answers of another file of the same questions, in the same order."""
    rows = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    references = {row["question"]: row["answer"].rpartition("#### ")[2] for row in rows}
    table = pq.read_table(samples, columns=["question_id", "question", "responses"]).sort_by("question_id")
    answers = pa.array([references[question] for question in table["question"].to_pylist()], pa.string())
    beside = target.with_suffix(".tmp")
    pq.write_table(table.append_column("reference_answer", answers), beside)
    beside.rename(target)  # never half of it under its name
    return target


def wrong_steps(root: Path, name: str, pool: str) -> ByEntropy:
    """Right answers by wrong steps among the chosen responses of a point, by entropy; wrong references left out."""
    texts = [(root / f"{file}.jsonl").read_text(encoding="utf-8") for file in (pool, name)]
    right, given = ([json.loads(line) for line in text.splitlines()] for text in texts)
    solutions = {
        row["question"]: row["answer"]
        for row, other in zip(right, given, strict=True)
        if not other.get("reference_is_wrong")
    }

    def are_right(row: Mapping[str, Any]) -> bool | None:
        solution = solutions.get(row["question"])
        return None if solution is None else steps_are_right(solution, row["chosen"])

    learner = next((root / name / "round_0" / "variants").iterdir())
    return steps_by_entropy(Folder(*locate(str(learner / "examples"))), are_right)


def weight_shares(root: Path, name: str, arm: str) -> dict[str, float]:
    """What a weighting lets a model learn: shares of the total weight of an arm's examples, each between 0 and 1.

    wrong_weight: on questions whose reference is wrong. contradicted_weight: on questions of which at least three
    quarters of the responses give one and the same answer that is not the reference's.
    """
    rows = [json.loads(line) for line in (root / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    wrong = {row["question"] for row in rows if row.get("reference_is_wrong")}
    examples = root / name / "round_0" / "variants" / f"{arm}-seed-0" / "examples"  # the same for every seed
    total = on_wrong = on_contradicted = 0.0
    for row in pq.read_table(examples, columns=["question", "clusters", "num_responses", "weight"]).to_pylist():
        against = [c["num_responses"] for c in row["clusters"] if not c["is_correct"] and c["answer"] is not None]
        total += row["weight"]
        on_wrong += row["weight"] * (row["question"] in wrong)
        on_contradicted += row["weight"] * (max(against, default=0) >= 0.75 * row["num_responses"])
    return {"wrong_weight": on_wrong / total, "contradicted_weight": on_contradicted / total}


def points(arguments: argparse.Namespace) -> Iterator[tuple[float, float, str]]:
    """(easy share, wrong share, kind) of each point; without wrong references there is but one kind."""
    for easy, wrong, kind in itertools.product(arguments.easy_shares, arguments.wrong_shares, arguments.kinds):
        if wrong or kind == arguments.kinds[0]:
            yield easy, wrong, kind


def figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Difference to uniform weights against the share of wrong references, with 95 % intervals: a panel a pool."""
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
            # Beside one another, or the whiskers would hide each other.
            x = [100 * row["wrong_share"] + 0.35 * (number - (len(names) - 1) / 2) for row in of_arm]
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="where everything is written")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of every comparison")
    parser.add_argument("--count", type=int, default=600, help="questions of a pool")
    parser.add_argument("--easy-shares", type=_shares, default=[0.5, 0.75], help="e.g. 0.5,0.75")
    parser.add_argument("--wrong-shares", type=_shares, default=[0.0, 0.05, 0.1, 0.2], help="e.g. 0,0.2")
    parser.add_argument(
        "--kinds",
        type=lambda text: text.split(","),
        default=["stubborn", "own", "diverse"],
        help="of wrong references: of one misconception, of answers of the model's own, of slips",
    )
    arguments = parser.parse_intermixed_args()
    root: Path = arguments.root
    pools = {easy: sample_pool(root, arguments.count, easy) for easy in arguments.easy_shares}
    rows: list[dict[str, Any]] = []
    steps: dict[str, Any] = {}
    for easy, wrong, kind in points(arguments):
        name = f"{arguments.count}_easy_{easy:g}_wrong_{wrong:g}_{kind}"
        if not (root / f"{name}.parquet").exists():  # its time of change is part of what a resumed run is checked by
            path = root / f"{name}.jsonl"
            if kind == "own" and wrong:
                pool = root / f"questions_{arguments.count}_easy_{easy:g}.jsonl"
                questions = with_own_mistakes(pools[easy], pool, path, wrong)
            else:
                questions = generate(path, arguments.count, easy, wrong, "stubborn" if kind == "own" else kind)
            with_references(pools[easy], questions, root / f"{name}.parquet")
        east_ray(
            "compare", str(JOBS / "compare_regimes.yaml"), f"run_dir={root / name}",
            f"samples.path={root / f'{name}.parquet'}", *arguments.overrides,
        )  # fmt: skip
        found = json.loads((root / name / "round_0" / "comparison.json").read_text())
        rows += [
            {"easy_share": easy, "wrong_share": wrong, "kind": kind, "label": arm["label"], "accuracy": arm["mean"],
             "difference": arm["difference"], "low": arm["difference_low"], "high": arm["difference_high"],
             "p_adjusted": arm["p_adjusted"], "verdict": arm["verdict"], "base": found["base"]["accuracy"],
             "effective_examples": arm["effective_examples"], **weight_shares(root, name, arm["name"])}
            for arm in found["arms"]
        ]  # fmt: skip
        steps[name] = asdict(wrong_steps(root, name, f"questions_{arguments.count}_easy_{easy:g}"))
    (root / "summary.json").write_text(json.dumps({"arms": rows, "wrong_steps": steps}, indent=1) + "\n")
    compared = [row for row in rows if row["difference"] is not None]
    figure(compared, root / "regimes.svg")
    table = Table(
        "easy %", "wrong %", "kind", "weights", "minus uniform, points (95 %)", "verdict", "weight on wrong, %",
        "on contradicted, %", header_style="bold",
    )  # fmt: skip
    for row in rows:
        difference = "" if row["difference"] is None else (
            f"{100 * row['difference']:+z.1f} ({100 * row['low']:+z.1f}, {100 * row['high']:+z.1f})"
        )  # fmt: skip
        table.add_row(
            f"{100 * row['easy_share']:.0f}", f"{100 * row['wrong_share']:.0f}", row["kind"], row["label"],
            difference, row["verdict"], f"{100 * row['wrong_weight']:.0f}", f"{100 * row['contradicted_weight']:.0f}",
        )  # fmt: skip
    Console().print(table, f"\n{root / 'summary.json'}\n{root / 'regimes.svg'}", highlight=False)


if __name__ == "__main__":
    main()
