"""Held-out responses -> judged answers, as training's responses are judged -> ``evaluation/metrics.json``.

Axes in shapes: Q questions, K values of k.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray import records
from east_ray.answers.grading import Failures, Grader, clustered
from east_ray.evaluation import estimators


def judge_response(
    sample: Mapping[str, Any], grader: Grader, by_string: Grader, failures: Failures | None = None
) -> dict[str, Any]:
    """A row of records.SAMPLES with one response -> a row of records.GREEDY_ANSWERS.

    `grader` is the run's own, whose failures are counted; for `by_string` only equal texts are equal.
    """
    (response,) = sample["responses"]
    question = records.Question.of(sample)
    graded, as_text = (clustered([response["text"]], question, one) for one in (grader, by_string))
    if failures is not None:
        failures.add(graded.num_failed, graded.error)
    return {name: sample[name] for name in ("model", "question_id", "level", "subject", "reference_answer")} | {
        "response": response["text"],
        "finish_reason": response["finish_reason"],
        "answer": graded.answers[0],
        "is_correct": graded.clusters[0].is_correct,
        "is_correct_by_string": as_text.clusters[0].is_correct,
    }


def judge_responses(sample: Mapping[str, Any], grader: Grader, failures: Failures | None = None) -> dict[str, Any]:
    """Samples of a question -> a row of records.SAMPLED_ANSWERS; the grader's failures are counted."""
    responses = sample["responses"]
    graded = clustered([response["text"] for response in responses], records.Question.of(sample), grader)
    if failures is not None:
        failures.add(graded.num_failed, graded.error)
    return {name: sample[name] for name in ("model", "question_id", "level", "subject")} | {
        "num_responses": len(responses),
        "num_correct": sum(cluster.num_responses for cluster in graded.clusters if cluster.is_correct),
        "num_answerless": graded.answers.count(None),
        "num_truncated": sum(response["finish_reason"] == "length" for response in responses),
        "clusters": [asdict(cluster) for cluster in graded.clusters],
    }


def metrics(
    table: pa.Table, models: Sequence[str], seed: int, sampled: pa.Table | None = None
) -> records.EvaluationMetrics:
    """records.GREEDY_ANSWERS of several models on the same questions, and records.SAMPLED_ANSWERS if there are any.

    The rows of each model must be in the same order of questions. Differences are of each later model in `models`
    minus each earlier one.
    """
    by_model = _by_model(table, models)
    found: records.EvaluationMetrics = {
        "accuracy": {name: _accuracy(rows) for name, rows in by_model.items()},
        "differences": model_differences(table, models, seed),
        "groups": [group for name, rows in by_model.items() for group in _groups(name, rows)],
    }
    if sampled is not None:
        found["sampled"], found["sampled_differences"] = _sampled_metrics(sampled, models, seed)
    return found


def model_differences(table: pa.Table, models: Sequence[str], seed: int) -> list[records.ModelDifference]:
    """records.GREEDY_ANSWERS -> the paired difference of each later model minus each earlier one."""
    correct = {name: _is_correct(rows) for name, rows in _by_model(table, models).items()}
    return [
        {"first": later, "second": earlier, **estimators.paired_difference(correct[later], correct[earlier], seed=seed)}
        for later, earlier in _pairs(models)
    ]


def _by_model(table: pa.Table, models: Sequence[str]) -> dict[str, pa.Table]:
    by_model = {name: table.filter(pc.equal(table["model"], name)) for name in models}
    ids = by_model[models[0]]["question_id"].to_pylist()
    same = all(rows["question_id"].to_pylist() == ids for rows in by_model.values())
    assert same, "the models answered different questions"
    return by_model


def _pairs(models: Sequence[str]) -> list[tuple[str, str]]:
    """Each later model with each earlier one."""
    return [(later, earlier) for index, later in enumerate(models) for earlier in models[:index]]


def _is_correct(rows: pa.Table) -> NDArray[np.bool_]:
    return np.asarray(rows["is_correct"].to_numpy(zero_copy_only=False), dtype=np.bool_)


def _accuracy(rows: pa.Table) -> records.Accuracy:
    num_truncated = pc.sum(pc.equal(rows["finish_reason"], "length")).as_py()
    found = estimators.accuracy(_is_correct(rows), rows["answer"].null_count, num_truncated)
    return {**found, "accuracy_by_string": pc.mean(rows["is_correct_by_string"]).as_py()}


def _groups(name: str, rows: pa.Table) -> list[records.GroupAccuracy]:
    """Accuracy of a model on the questions of each level and each subject, where the source has them."""
    groups: list[records.GroupAccuracy] = []
    for column in ("level", "subject"):
        counted = rows.filter(pc.is_valid(rows[column])).group_by(column)
        counted = counted.aggregate([("is_correct", "sum"), ("is_correct", "count")]).sort_by(column)
        for row in counted.to_pylist():
            size, share = row["is_correct_count"], row["is_correct_sum"] / row["is_correct_count"]
            low, high = estimators.wilson_interval(row["is_correct_sum"], size)
            group = records.GroupAccuracy(
                model=name, column=column, group=row[column], num_questions=size, accuracy=share, low=low, high=high
            )
            groups.append(group)
    return groups


def _sampled_metrics(
    table: pa.Table, models: Sequence[str], seed: int
) -> tuple[dict[str, records.SampledMetrics], list[records.SampledDifference]]:
    """records.SAMPLED_ANSWERS -> pass@k and maj@k of each model, and of each later model minus each earlier one.

    k is 1, 2, 4, … and n, the least number of responses to a question. Intervals of a model are by `mean_interval`,
    those of a difference by the paired percentile bootstrap over questions. Each question brings its own responses, so
    both also speak of what other responses would have given.
    """
    by_model, least = _by_model(table, models), pc.min(table["num_responses"]).as_py()
    k = sorted({*(2**power for power in range(least.bit_length())), least})
    # By model, (Q, 2 K): pass@k and then maj@k.
    values = {name: np.hstack([_pass_at(rows, k), _maj_at(rows, k)]) for name, rows in by_model.items()}
    found: dict[str, records.SampledMetrics] = {}
    for name, rows in by_model.items():
        low, high = estimators.mean_interval(values[name])
        at: list[records.ValueAtK] = [
            {"k": drawn, "value": float(value), "low": float(bottom), "high": float(top)}
            for drawn, value, bottom, top in zip(k * 2, values[name].mean(axis=0), low, high, strict=True)
        ]
        num_asked = pc.sum(rows["num_responses"]).as_py()
        found[name] = {
            "num_responses": least,
            "truncated_share": pc.sum(rows["num_truncated"]).as_py() / num_asked,
            "answerless_share": pc.sum(rows["num_answerless"]).as_py() / num_asked,
            "pass_at": at[: len(k)],
            "maj_at": at[len(k) :],
        }
    differences: list[records.SampledDifference] = []
    if pairs := _pairs(models):  # all of them from the same resamples of questions
        resampled = estimators.bootstrap_means(np.hstack(list(values.values())), seed=seed)
        means = dict(zip(models, np.hsplit(resampled, len(models)), strict=True))
        for later, earlier in pairs:
            low, high = estimators.percentile_interval(means[later] - means[earlier]).tolist()
            difference = (values[later] - values[earlier]).mean(axis=0).tolist()
            names = [f"{metric}@{drawn}" for metric in ("pass", "maj") for drawn in k]
            differences += [
                {"first": later, "second": earlier, "metric": name, "difference": value, "low": bottom, "high": top}
                for name, value, bottom, top in zip(names, difference, low, high, strict=True)
            ]
    return found, differences


def _pass_at(rows: pa.Table, k: Sequence[int]) -> NDArray[np.float64]:
    """records.SAMPLED_ANSWERS of one model -> (Q, K) pass@k."""
    num_responses, num_correct = (rows[name].to_numpy() for name in ("num_responses", "num_correct"))
    return np.stack([estimators.pass_at_k(num_responses, num_correct, drawn) for drawn in k], axis=1)


def _maj_at(rows: pa.Table, k: Sequence[int]) -> NDArray[np.float64]:
    """records.SAMPLED_ANSWERS of one model -> (Q, K) maj@k, computed once for questions whose clusters are alike."""
    vote = functools.cache(functools.partial(estimators.maj_at_k, k=k))
    values = []
    for row in rows.select(["clusters", "num_answerless"]).to_pylist():
        voting = [cluster for cluster in row["clusters"] if cluster["answer"] is not None]
        correct = next((place for place, cluster in enumerate(voting) if cluster["is_correct"]), None)
        sizes = tuple(cluster["num_responses"] for cluster in voting)
        values.append(vote(sizes, correct, num_answerless=row["num_answerless"]))
    return np.stack(values)
