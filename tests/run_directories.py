"""Run directories for tests of what reads them: every file that a report knows, with hostile text in each of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rounds import sample, write_samples

from east_ray.config.files import resolve
from east_ray.records import (
    ANSWERS,
    DISCARDED,
    EXAMPLES,
    SAMPLES,
    Accuracy,
    ArmComparison,
    ComparedArm,
    EvaluationMetrics,
    GroupAccuracy,
    ModelDifference,
    SampledMetrics,
    StudyPage,
    ValueAtK,
)
from east_ray.storage import RunDirectory, Stages

#: Would set window.pwned if any of it were executed; breaks out of attributes, elements and scripts; reverses, hides.
HOSTILE = (
    "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'></script></title></pre></details></table>"
    "<svg onload=window.pwned=1>{{7*7}}$x_{$\u202eevil\u2066\x00\x1b[31m\x85"
)
NUM_QUESTIONS = 60


def share(value: float) -> Accuracy:
    """An accuracy with its interval and counts."""
    return {
        "num_questions": 100,
        "accuracy": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "num_unanswered": 1,
        "num_truncated": 2,
        "accuracy_by_string": value - 0.05,
    }


def difference(first: str, second: str, value: float, low: float, high: float, p_value: float) -> ModelDifference:
    """A paired difference of two models."""
    return {
        "first": first,
        "second": second,
        "difference": value,
        "low": low,
        "high": high,
        "p_value": p_value,
        "num_only_first": 30,
        "num_only_second": 10,
    }


def write_run(path: Path, *, rounds: int = 1, num_seeds: int = 0, description: str = HOSTILE) -> RunDirectory:
    """A finished run; with seeds, a comparison of three arms in place of one variant."""
    grids = [{"signals": ["uniform", "entropy"], "exponents": [0.5, 1.0, 2.0]}]
    config = resolve(
        {
            "model": HOSTILE,
            "description": description,
            "run_dir": str(path),
            "rounds": rounds,
            "questions": {"path": "q.jsonl"},
            "evaluation": {"questions": {"path": "held_out.jsonl"}},
            "compare": {"seeds": list(range(num_seeds)), "grids": grids} if num_seeds else None,
            "variants": {} if num_seeds else {"uniform": {"weighting.signal": "uniform"}},
        }
    )
    run = RunDirectory(config)
    for number in range(rounds):
        arms = config.compare.arms() if config.compare else {}
        _write_round(run.round(number), list(config.learners()), number, list(arms), num_seeds)
    return run


def write_large_run(path: Path, num_questions: int = 10_000) -> RunDirectory:
    """A round of many questions, each with long texts, eight answers and four responses; weighed and trained on."""
    config = resolve({"model": "m", "run_dir": str(path), "questions": {"path": "q.jsonl"}})
    run = RunDirectory(config)
    stages, rng = run.round(0), np.random.default_rng(0)
    rows = []
    for index in range(num_questions):
        counts = sorted(rng.integers(1, 30, size=8).tolist(), reverse=True)
        shares = np.array(counts) / sum(counts)
        rows.append(
            {"question_id": f"q{index:05d}", "question": "how many? " * 60, "reference_answer": "\\frac{1}{2}"}
            | {"num_responses": sum(counts), "num_truncated": 1, "pass_rate": shares[0], "rejected_rate": shares[1]}
            | {"entropy": -float(shares @ np.log(shares)) + index * 1e-6, "signal": 1.0, "weight": 0.5 + rng.random()}
            | {"clusters": [_cluster(f"\\frac{{{place}}}{{{index + 2}}}", n, place) for place, n in enumerate(counts)]}
            | {"chosen": f"{index} < " * 500, "chosen_finish_reason": "stop", "rejected": f"{index} > " * 500}
            | {"reason": "all_wrong"}
        )
    responses = [
        {"text": f"{place} < {place + 1}. " * 200, "num_tokens": 2000, "finish_reason": "stop"} for place in range(4)
    ]
    graded = [{"is_boxed": True, "cluster": place, "is_correct": place == 0} for place in range(4)]
    for begin in range(0, num_questions, 1000):
        part, name = rows[begin : begin + 1000], f"part-{begin}.parquet"
        of_samples = [row | {"model": "base", "responses": responses} for row in part]
        (stages / "samples").write_part(_table(of_samples, SAMPLES), name)
        of_answers = [row | {"can_use_reference": True, "responses": graded} for row in part]
        (stages / "answers").write_part(_table(of_answers, ANSWERS), name)
    num_kept = 7 * num_questions // 10
    (stages / "examples").replace(_table(rows[:num_kept], EXAMPLES))
    (stages / "discarded").replace(_table(rows[num_kept:], DISCARDED))
    with stages.recording("questions") as record:
        record.counts = {"asked": num_questions, "set_aside": {}}
    with stages.recording("examples") as record:
        record.counts = {"kept": num_kept, "discarded": {"all_wrong": num_questions - num_kept}}
    steps = [{"step": step, "loss": 1 / step, "unweighted_loss": 1.1 / step} for step in range(1, 2000)]
    stages.folder.write_text("training.jsonl", "".join(json.dumps(step) + "\n" for step in steps))
    return run


def write_weighed(path: Path) -> RunDirectory:
    """Given responses to six questions, which were weighed alone: five are kept, and one row was set aside."""
    run = RunDirectory(resolve({"run_dir": str(path), "samples": {"path": "s.jsonl"}}))
    stages, rows = run.round(0), []
    for index in range(6):
        clusters = [_cluster("2.5", 3, 0 if index < 5 else 1), _cluster("7", 1, 1)]
        rows.append(
            {"question_id": f"q{index}", "question": f"Question {index}?", "reference_answer": "25"}
            | {"num_responses": 4, "num_truncated": 0, "entropy": 0.5, "pass_rate": 0.75, "rejected_rate": 0.25}
            | {"clusters": clusters, "signal": 0.5, "weight": float(index), "reason": "all_wrong"}
            | {"chosen": "So 2.5.", "chosen_finish_reason": "stop"}
        )
    (stages / "examples").replace(_table(rows[:5], EXAMPLES))
    (stages / "discarded").replace(_table(rows[5:], DISCARDED))
    with stages.recording("questions") as record:
        record.counts = {"asked": 6, "set_aside": {"malformed_row": 1}}
    with stages.recording("examples") as record:
        record.counts = {"kept": 5, "discarded": {"all_wrong": 1}}
    return run


def _cluster(answer: str, num_responses: int, place: int) -> dict[str, Any]:
    return {"answer": answer, "num_responses": num_responses, "is_correct": place == 0}


def _write_round(stages: Stages, names: list[str], number: int, arms: list[str], num_seeds: int) -> None:
    texts = [r"It is \boxed{72}.", r"So \boxed{71}.", HOSTILE * 400]
    responses = [{"text": text, "num_tokens": 5, "finish_reason": "stop", "logprob": -1.0} for text in texts]
    samples, examples = [], []
    for index in range(NUM_QUESTIONS):
        question = {
            "question_id": f"q{index:03d}",
            "question": f"Question {index}: {HOSTILE}",
            "reference_answer": "72",
        }
        # One of each answer: their clusters are of equal size, in this order.
        samples.append(sample("", []) | question | {"responses": responses})
        clusters = [(HOSTILE if index == 0 else "72", 5, True), ("71", 2, False), (None, 1, False)]
        keys = ("answer", "num_responses", "is_correct")
        examples.append(
            question
            | {"num_responses": 8, "num_truncated": 1, "pass_rate": index / NUM_QUESTIONS, "rejected_rate": 0.25}
            | {"entropy": (NUM_QUESTIONS - index) / 25, "signal": 1.0, "weight": 2 * (index + 0.5) / NUM_QUESTIONS}
            | {"clusters": [dict(zip(keys, cluster, strict=True)) for cluster in clusters]}
            | {"chosen": texts[0], "chosen_finish_reason": "stop", "rejected": texts[1], "reason": "all_wrong"}
        )
    write_samples(stages.folder, [samples])
    for name, learner in [(name, stages.learner(name)) for name in names]:
        (learner / "examples").replace(_table(examples[:-10], EXAMPLES))
        (learner / "discarded").replace(_table(examples[-10:], DISCARDED))
        steps = [
            {"step": step + 1, "loss": 1 / (step + 1), "unweighted_loss": 1.1 / (step + 1), "gradient_norm": 1.0}
            | {"learning_rate": 1e-5, "num_tokens": 1000, "tokens_per_s": 500.0 + len(name)}
            for step in range(20)
        ]
        learner.folder.write_text("training.jsonl", "".join(json.dumps(step) + "\n" for step in steps))
        with learner.recording("examples") as record:
            record.counts = {"kept": NUM_QUESTIONS - 10, "discarded": {"all_wrong": 10}}
        with learner.recording("training") as record:
            record.counts = {"examples": NUM_QUESTIONS - 10, "too_long": 0, "zero_weight_skipped": 0}
    with stages.recording("questions") as record:
        record.counts = {"asked": NUM_QUESTIONS, "set_aside": {HOSTILE: 2}}
    counts = {"num_questions": 60, "num_responses": 480, "num_tokens": 9600, "num_truncated": 60}
    told = {"seconds": 30.0, "starting_s": 10.0, "counts": counts}
    (stages / "stages").write_text("sampling.json", json.dumps(told))
    if not arms:
        (stages / "evaluation").write_text("metrics.json", json.dumps(_metrics(names, number)))
    (stages / "studies").write_text("responses.json", json.dumps(_study()))
    if arms:
        stages.folder.write_text("comparison.json", json.dumps(_comparison(arms, num_seeds)))


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema)


def _metrics(names: list[str], number: int) -> EvaluationMetrics:
    models = ["base", *names]
    groups: list[GroupAccuracy] = [
        {
            "model": model,
            "column": column,
            "group": group,
            "num_questions": 100,
            "accuracy": 0.5,
            "low": 0.4,
            "high": 0.6,
        }
        for model in ("base", "trained")
        for column, values in {"level": ["Level 1", "Level 2"], "subject": ["Algebra", HOSTILE]}.items()
        for group in values
    ]
    return {
        "accuracy": {model: share(0.5 + 0.05 * min(i, 3) + 0.02 * number) for i, model in enumerate(models)},
        "differences": [
            difference("trained", "base", 0.2, 0.1, 0.3, 0.001),
            difference(names[1], "base", 0.1, -0.1, 0.3, 0.3),
            difference(names[1], "trained", -0.1, -0.15, -0.05, 0.004),
        ],
        "groups": groups,
        "sampled": {model: _sampled() for model in ("base", "trained")},
        "sampled_differences": [
            {"first": "trained", "second": "base", "metric": "pass@8", "difference": 0.1, "low": 0.05, "high": 0.15}
        ],
        "num_set_aside": 0,
    }


def _sampled() -> SampledMetrics:
    points: list[ValueAtK] = [
        {"k": k, "value": 0.5 + 0.05 * k, "low": 0.4 + 0.05 * k, "high": 0.55 + 0.05 * k} for k in (1, 2, 4, 8)
    ]
    return {
        "num_responses": 8,
        "truncated_share": 0.1,
        "answerless_share": 0.05,
        "pass_at": points,
        "maj_at": points,
    }


def _study() -> StudyPage:
    return {
        "title": "How many responses are enough",
        "text": HOSTILE + "\ud800",  # a lone surrogate, as JSON may have it
        "tables": [{"caption": "Sizes", "columns": ["name", HOSTILE], "rows": [["a", 0.123456], [HOSTILE, None]]}],
        "curves": [
            {
                "title": "Curve",
                "x_label": "responses",
                "y_label": "entropy (nats)",
                "series": [
                    {
                        "label": HOSTILE,
                        "x": [8, 16, 32],
                        "y": [0.1, 0.2, 0.3],
                        "low": [0.0, 0.1, 0.2],
                        "high": [0.2, 0.3, 0.4],
                    }
                ],
            }
        ],
        "texts": [{"title": "Example", "blocks": [{"label": HOSTILE, "text": HOSTILE}]}],
    }


def _comparison(names: list[str], num_seeds: int) -> ArmComparison:
    return {
        "num_questions": 100,
        "num_comparisons": len(names) - 1,
        "seeds": list(range(num_seeds)),
        "over_seeds": num_seeds > 1,
        "arms": [_arm(name, 0.6 + 0.02 * index, num_seeds) for index, name in enumerate(names)],
        "base": share(0.5),
        "sampling": {"num_tokens": 9600, "seconds": 20.0},
    }


def _arm(name: str, mean: float, num_seeds: int) -> ComparedArm:
    is_baseline = name == "sft-uniform"
    return {
        "name": name,
        "label": name,
        "baseline": None if is_baseline else "sft-uniform",
        "accuracies": [mean + 0.005 * seed for seed in range(num_seeds)],
        "mean": mean,
        "low": mean - 0.02,
        "high": mean + 0.02,
        "difference": None if is_baseline else mean - 0.6,
        "difference_low": None if is_baseline else mean - 0.62,
        "difference_high": None if is_baseline else mean - 0.58,
        "p_value": None if is_baseline else 0.02,
        "p_adjusted": None if is_baseline else 0.04,
        "verdict": "baseline" if is_baseline else "better" if mean > 0.63 else "not shown",
        "detectable": None if is_baseline else 0.03,
        "objective": "sft",
        "signal": name.split("-")[1],
        "mapping": "power",
        "exponent": 1.0 if is_baseline else float(name.partition("-a")[2]),
        "num_examples": 50,
        "effective_examples": 40.0,
        "top_share": 0.0195,
        "power_of_one_point": None if is_baseline else 0.12 + (mean - 0.6),
        "disagreement": None if is_baseline else 0.06,
        "seed_spread": None if is_baseline else 0.004,
        "repeated": None if is_baseline else 0.25,
        "num_tokens": 20_000,
        "training_seconds": 40.0,
        "num_sampled_tokens": 0,
    }
