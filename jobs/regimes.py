#!/usr/bin/env python3
"""When does weighting help? A designed study on generated questions, whose difficulty and mistakes are known.

    python jobs/regimes.py runs/regimes
    python jobs/regimes.py runs/regimes --wrong-shares 0,0.2 --easy-shares 0.75 --kinds stubborn compare.seeds=[0,1,2]

For each share of easy questions a pool is generated and sampled once. A wrong reference answer changes which responses
are chosen, not which are sampled, so the same samples serve all shares and kinds of wrong references. The wrong
references of a smaller share are among those of a larger one. Every point is a comparison, by default of weights
(jobs/compare_regimes.yaml); --arms names another one's YAML file, whose arms may differ in more than their weights. The
same command resumes an interrupted study.

Results: summary.json, a figure of each arm's difference to its baseline, and a table of these differences with the
share of the examples whose label, the answer that is trained on, is wrong; the share of the total weight on them; and
that on labels which three quarters of the responses contradict. p-values are corrected (Holm) over the whole figure,
all points and arms together, and the verdicts are by these. KEY=VALUE are settings of every comparison.
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

from east_ray.answers import equivalent
from east_ray.answers.graders import MathGrader
from east_ray.answers.grading import clustered
from east_ray.evaluation.significance import SIGNIFICANCE_LEVEL, holm
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
#: Horizontal distance, in points of the share of wrong references, between the error bars of two arms; at most this
#: part of the distance of two shares for all arms together.
BAR_OFFSET, BARS_SHARE = 0.35, 0.8
#: One for each arm, so that arms whose colours repeat differ in them.
MARKERS = "osD^v<>PX*hd"


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


def checked_questions(pool: Path, num_checked: int) -> Path:
    """Write a file for `labels.trusted`: so many questions of a pool, drawn at random, with their right answers."""
    rows = [json.loads(line) for line in pool.read_text(encoding="utf-8").splitlines()]
    drawn = random.Random(POOL_SEED).sample(rows, num_checked)
    checked = [{"question": row["question"], "reference_answer": row["answer"].rpartition("#### ")[2]} for row in drawn]
    path = pool.with_name(f"{pool.stem}_checked_{num_checked}.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in checked), encoding="utf-8")
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


def comparison_of(root: Path, name: str) -> tuple[dict[str, Any], dict[str, Path]]:
    """The ``comparison.json`` of a point, and the folder of each arm's examples with the first seed."""
    round_ = root / name / "round_0"
    found = json.loads((round_ / "comparison.json").read_text())
    trainings = {arm["name"]: f"{arm['name']}-seed-{found['seeds'][0]}" for arm in found["arms"]}
    return found, {arm: round_ / "variants" / training / "examples" for arm, training in trainings.items()}


def solutions_of(root: Path, pool: str) -> dict[str, str]:
    """Question -> its right solution, of a pool."""
    rows = (json.loads(line) for line in (root / f"{pool}.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["question"]: row["answer"] for row in rows}


def is_wrong(example: Mapping[str, Any], solutions: Mapping[str, str]) -> bool:
    """Whether the answer that an example is trained on is another than the question's right one."""
    label, right = example["reference_answer"], solutions[example["question"]].rpartition("#### ")[2]
    return label is None or not equivalent(label, right)


def wrong_steps(examples: Path, solutions: Mapping[str, str]) -> ByEntropy:
    """Share of the chosen responses that reach the right answer by wrong steps, by entropy.

    Examples with a wrong label are left out.
    """

    def are_right(row: Mapping[str, Any]) -> bool | None:
        return None if is_wrong(row, solutions) else steps_are_right(solutions[row["question"]], row["chosen"])

    return steps_by_entropy(Folder(*locate(str(examples))), are_right)


def label_shares(examples: Path, solutions: Mapping[str, str]) -> dict[str, float]:
    """Three shares, in [0, 1], of the examples of a training.

    wrong_labels: of the examples, those whose label is wrong. wrong_weight: of the total weight, what lies on them.
    contradicted_weight: of the total weight, what lies on questions for which at least CONTRADICTED_SHARE of the
    responses give one and the same answer other than the label.
    """
    num_wrong = num_examples = 0
    total = on_wrong = on_contradicted = 0.0
    columns = ["question", "reference_answer", "clusters", "num_responses", "weight"]
    for row in pq.read_table(examples, columns=columns).to_pylist():
        against = [c["num_responses"] for c in row["clusters"] if not c["is_correct"] and c["answer"] is not None]
        is_contradicted = max(against, default=0) >= CONTRADICTED_SHARE * row["num_responses"]
        has_wrong_label = is_wrong(row, solutions)
        num_examples, num_wrong = num_examples + 1, num_wrong + has_wrong_label
        total += row["weight"]
        on_wrong += row["weight"] * has_wrong_label
        on_contradicted += row["weight"] * is_contradicted
    return {
        "wrong_labels": num_wrong / num_examples,
        "wrong_weight": on_wrong / total,
        "contradicted_weight": on_contradicted / total,
    }


def points(arguments: argparse.Namespace) -> Iterator[tuple[float, float, str]]:
    """(easy share, wrong share, kind) of each point; without wrong references all kinds are the same point."""
    for easy, wrong, kind in itertools.product(arguments.easy_shares, arguments.wrong_shares, arguments.kinds):
        if wrong or kind == arguments.kinds[0]:
            yield easy, wrong, kind


def figure(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Difference to the baseline over the share of wrong references, with 95 % intervals; a panel per pool, kind."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    shares = sorted({row["easy_share"] for row in rows})
    kinds = list(dict.fromkeys(row["kind"] for row in rows if row["wrong_share"])) or [rows[0]["kind"]]
    names = {row["name"]: row["label"] for row in rows}
    offset = bar_offset([row["wrong_share"] for row in rows], len(names))
    legend = 0.2 + 0.17 * -(-len(names) // 3)  # inches, three arms a line
    size = (3.6 * len(kinds), 3 * len(shares) + legend)
    drawn, axes = pyplot.subplots(len(shares), len(kinds), figsize=size, sharex=True, sharey=True, squeeze=False)
    for (easy, kind), panel in zip(itertools.product(shares, kinds), axes.flat, strict=True):
        mine = [row for row in rows if row["easy_share"] == easy and (row["kind"] == kind or not row["wrong_share"])]
        for number, (name, label) in enumerate(names.items()):
            of_arm = sorted((row for row in mine if row["name"] == name), key=lambda row: row["wrong_share"])
            # Side by side, so that the error bars do not cover each other.
            x = [100 * row["wrong_share"] + offset * (number - (len(names) - 1) / 2) for row in of_arm]
            y = [100 * row["difference"] for row in of_arm]
            low = [100 * (row["difference"] - row["low"]) for row in of_arm]
            high = [100 * (row["high"] - row["difference"]) for row in of_arm]
            style = {"marker": MARKERS[number % len(MARKERS)], "markersize": 4, "capsize": 2, "linewidth": 1}
            panel.errorbar(x, y, yerr=[low, high], label=label, **style)
        panel.axhline(0, color="0.5", linewidth=0.8)
        panel.set_title(f"{100 * easy:.0f} % easy; wrong: {kind}", fontsize=10)
        panel.set_xlabel("wrong references (%)")
        panel.set_ylabel("accuracy minus baseline (points)")
        panel.label_outer()
    lines, labels = axes[0][0].get_legend_handles_labels()
    drawn.legend(lines, labels, fontsize=8, frameon=False, loc="lower center", ncols=min(3, len(names)))
    drawn.tight_layout(rect=(0, legend / size[1], 1, 1))
    drawn.savefig(path, metadata={"Date": None}, bbox_inches="tight")  # a legend may be wider than one panel
    pyplot.close(drawn)


def bar_offset(wrong_shares: Sequence[float], num_arms: int) -> float:
    """Distance in points of the error bars of two arms, such that those of two shares stay apart."""
    places = sorted({100 * share for share in wrong_shares})
    nearest = min((after - before for before, after in itertools.pairwise(places)), default=float("inf"))
    return min(BAR_OFFSET, BARS_SHARE * nearest / num_arms)


def _shares(text: str) -> list[float]:
    return [float(share) for share in text.split(",")]


def compare_point(root: Path, samples: Path, point: tuple[float, float, str], arguments: argparse.Namespace) -> str:
    """Run the comparison of a point, or what is left of it; returns the point's name."""
    (easy, wrong, kind), count = point, arguments.count
    name = f"{count}_easy_{easy:g}_wrong_{wrong:g}_{kind}"
    file = root / f"{name}.parquet"
    if not file.exists():  # a comparison is resumed only if the file's modification time is unchanged
        path = root / f"{name}.jsonl"
        if kind == "own" and wrong:
            questions = with_own_mistakes(samples, root / f"{pool_name(count, easy)}.jsonl", path, wrong)
        else:
            questions = generate(path, count, easy, wrong, "stubborn" if kind == "own" else kind)
        with_references(samples, questions, file)
    settings = [f"run_dir={root / name}", f"samples.path={file}", *arguments.overrides]
    if arguments.checked:
        pool = root / f"{pool_name(count, easy)}.jsonl"
        settings.append(f"labels.trusted={checked_questions(pool, arguments.checked)}")
    east_ray("compare", str(arguments.arms), *settings)
    return name


def summary_rows(
    root: Path, name: str, point: tuple[float, float, str], solutions: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A row for each arm of a point's comparison, and for each further pair of arms that it tests.

    Only rows of arms have the accuracy and the shares of labels and weights. Differences are to the row's `baseline`.
    """
    found, examples = comparison_of(root, name)
    at = dict(zip(("easy_share", "wrong_share", "kind"), point, strict=True)) | {"base": found["base"]["accuracy"]}
    rows = [
        at
        | {key: arm[key] for key in ("name", "label", "baseline", "difference", "p_value", "verdict")}
        | {"low": arm["difference_low"], "high": arm["difference_high"], "accuracy": arm["mean"]}
        | {key: arm[key] for key in ("num_examples", "effective_examples", "top_share", "detectable")}
        | label_shares(examples[arm["name"]], solutions)
        for arm in found["arms"]
    ]
    labels = {row["name"]: row["label"] for row in rows}
    pairs = [
        at | pair | {"label": f"{labels[pair['name']]} minus {labels[pair['baseline']]}"}
        for pair in found.get("pairs", [])
    ]
    return rows + pairs


def with_verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with p-values that are corrected over all of them together, and the verdicts by these."""
    tested = [row for row in rows if row["p_value"] is not None]
    adjusted = iter(holm([row["p_value"] for row in tested]))
    corrected = []
    for row in rows:
        p, verdict = None, row["verdict"]
        if row["p_value"] is not None:
            p, verdict = next(adjusted), "not shown"
            if p < SIGNIFICANCE_LEVEL:
                verdict = "better" if row["difference"] > 0 else "worse"
        corrected.append({**row, "p_adjusted": p, "verdict": verdict})
    return corrected


def summary_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The table for the terminal."""
    columns = ("easy %", "wrong %", "kind", "arm", "minus baseline, points (95 %)", "Holm p", "verdict")
    shares = ("wrong_labels", "wrong_weight", "contradicted_weight")
    table = Table(*columns, "wrong labels, %", "weight on wrong, %", "on contradicted, %", header_style="bold")
    for row in rows:
        difference = ""
        if row["difference"] is not None:
            value, low, high = (f"{100 * row[key]:+z.1f}" for key in ("difference", "low", "high"))
            difference = f"{value} ({low}, {high})"
        easy, wrong = (f"{100 * row[key]:.0f}" for key in ("easy_share", "wrong_share"))
        p = "" if row["p_adjusted"] is None else f"{row['p_adjusted']:.2g}"
        told = (f"{100 * row[key]:.0f}" if key in row else "" for key in shares)
        table.add_row(easy, wrong, row["kind"], row["label"], difference, p, row["verdict"], *told)
    return table


def power_line(rows: Sequence[dict[str, Any]]) -> str:
    """What the comparisons of the study can show."""
    if not (detectable := [100 * row["detectable"] for row in rows if row.get("detectable") is not None]):
        return "No arm has a baseline, so no difference was tested."
    tested = sum(row["p_value"] is not None for row in rows)
    return (
        f"p-values are corrected (Holm) over all {tested} differences. With 80 % power a single comparison, not "
        f"corrected, shows a difference of {min(detectable):.1f} to {max(detectable):.1f} points."
    )


def parsed_arguments() -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of all results")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of every comparison")
    parser.add_argument(
        "--arms", type=Path, default=JOBS / "compare_regimes.yaml", help="YAML file of the comparison at each point"
    )
    parser.add_argument("--count", type=int, default=600, help="number of questions in a pool")
    parser.add_argument("--easy-shares", type=_shares, default=[0.5, 0.75], help="e.g. 0.5,0.75")
    parser.add_argument("--wrong-shares", type=_shares, default=[0.0, 0.1, 0.2], help="e.g. 0,0.2")
    parser.add_argument(
        "--kinds",
        type=lambda text: text.split(","),
        default=["stubborn", "own", "diverse"],
        help="kinds of wrong references: from one misconception, from the model's own wrong answers, from slips",
    )
    parser.add_argument(
        "--checked", type=int, default=0, help="number of questions, drawn at random, whose right answer is trusted"
    )
    arguments = parser.parse_intermixed_args()
    if not 0 <= arguments.checked <= arguments.count:
        parser.error(f"--checked {arguments.checked}: expected 0 to {arguments.count}, the questions of a pool")
    return arguments


def main() -> None:
    """The command line."""
    arguments = parsed_arguments()
    root: Path = arguments.root
    pools = {easy: sample_pool(root, arguments.count, easy) for easy in arguments.easy_shares}
    rows: list[dict[str, Any]] = []
    steps: dict[str, Any] = {}
    for point in points(arguments):
        solutions = solutions_of(root, pool_name(arguments.count, point[0]))
        name = compare_point(root, pools[point[0]], point, arguments)
        rows += summary_rows(root, name, point, solutions)
        _, examples = comparison_of(root, name)
        steps[name] = {arm: asdict(wrong_steps(folder, solutions)) for arm, folder in examples.items()}
    rows = with_verdicts(rows)
    arms, pairs = ([row for row in rows if ("accuracy" in row) == is_arm] for is_arm in (True, False))
    found = {"arms": arms, "pairs": pairs, "wrong_steps": steps}
    (root / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    console = Console()
    console.print(summary_table(rows), power_line(rows), f"\n{root / 'summary.json'}", highlight=False)
    if compared := [row for row in arms if row["difference"] is not None]:
        figure(compared, root / "regimes.svg")
        console.print(root / "regimes.svg", highlight=False)


if __name__ == "__main__":
    main()
