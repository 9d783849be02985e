"""Held-out responses -> judged answers, as training's responses are judged -> ``evaluation/metrics.json``.

Axes in shapes: Q questions, K values of k.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray.answers.grading import Grader, clustered
from east_ray.evaluation import estimators
from east_ray.records import (
    Accuracy,
    EvaluationMetrics,
    GroupAccuracy,
    ModelDifference,
    Question,
    SampledDifference,
    SampledMetrics,
    ValueAtK,
)


def judge_response(sample: Mapping[str, Any], grader: Grader, by_string: Grader) -> dict[str, Any]:
    """A row of records.SAMPLES with one response -> a row of records.GREEDY_ANSWERS.

    `grader` is the run's own; for `by_string` only equal texts are equal.
    """
    (response,) = sample["responses"]
    question = Question.of(sample)
    graded, as_text = (clustered([response["text"]], question, one) for one in (grader, by_string))
    return {name: sample[name] for name in ("model", "question_id", "level", "subject", "reference_answer")} | {
        "response": response["text"],
        "finish_reason": response["finish_reason"],
        "answer": graded.answers[0],
        "is_correct": graded.clusters[0].is_correct,
        "is_correct_by_string": as_text.clusters[0].is_correct,
    }


def judge_responses(sample: Mapping[str, Any], grader: Grader) -> dict[str, Any]:
    """A row of samples with several responses -> a row of records.SAMPLED_ANSWERS."""
    responses = sample["responses"]
    graded = clustered([response["text"] for response in responses], Question.of(sample), grader)
    return {name: sample[name] for name in ("model", "question_id", "level", "subject")} | {
        "num_responses": len(responses),
        "num_correct": sum(cluster.num_responses for cluster in graded.clusters if cluster.is_correct),
        "num_answerless": graded.answers.count(None),
        "num_truncated": sum(response["finish_reason"] == "length" for response in responses),
        "clusters": [asdict(cluster) for cluster in graded.clusters],
    }


def metrics(table: pa.Table, models: Sequence[str], seed: int, sampled: pa.Table | None = None) -> EvaluationMetrics:
    """records.GREEDY_ANSWERS of several models on the same questions, and SAMPLED_ANSWERS if there are any.

    The rows of each model must be in the same order of questions. Differences are of each later model in `models`
    minus each earlier one.
    """
    by_model = _by_model(table, models)
    found: EvaluationMetrics = {
        "accuracy": {name: _accuracy(rows) for name, rows in by_model.items()},
        "differences": model_differences(table, models, seed),
        "groups": [group for name, rows in by_model.items() for group in _groups(name, rows)],
    }
    if sampled is not None:
        values = _ValuesAtK(sampled, models)
        found["sampled"] = {name: values.of_model(name) for name in models}
        found["sampled_differences"] = values.differences(seed)
    return found


def model_differences(table: pa.Table, models: Sequence[str], seed: int) -> list[ModelDifference]:
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


def _accuracy(rows: pa.Table) -> Accuracy:
    num_truncated = pc.sum(pc.equal(rows["finish_reason"], "length")).as_py()
    found = estimators.accuracy(_is_correct(rows), rows["answer"].null_count, num_truncated)
    return {**found, "accuracy_by_string": pc.mean(rows["is_correct_by_string"]).as_py()}


def _groups(name: str, rows: pa.Table) -> list[GroupAccuracy]:
    """Accuracy of a model on the questions of each level and each subject, where the source has them."""
    groups: list[GroupAccuracy] = []
    for column in ("level", "subject"):
        counted = rows.filter(pc.is_valid(rows[column])).group_by(column)
        counted = counted.aggregate([("is_correct", "sum"), ("is_correct", "count")]).sort_by(column)
        for row in counted.to_pylist():
            num_correct, num_questions = row["is_correct_sum"], row["is_correct_count"]
            low, high = estimators.wilson_interval(num_correct, num_questions)
            groups.append(
                {
                    "model": name,
                    "column": column,
                    "group": row[column],
                    "num_questions": num_questions,
                    "accuracy": num_correct / num_questions,
                    "low": low,
                    "high": high,
                }
            )
    return groups


class _ValuesAtK:
    """pass@k and maj@k of several models on the same questions (records.SAMPLED_ANSWERS).

    k is 1, 2, 4, … and n, the least number of responses to a question. Intervals of a model are by `mean_interval`,
    those of a difference by the paired percentile bootstrap over questions. Each question brings its own responses, so
    both also speak of what other responses would have given.
    """

    def __init__(self, table: pa.Table, models: Sequence[str]) -> None:
        self._by_model, self._models = _by_model(table, models), models
        self._num_responses = pc.min(table["num_responses"]).as_py()
        self._k = sorted({*(2**power for power in range(self._num_responses.bit_length())), self._num_responses})
        self._values = {
            name: np.hstack([_pass_at(rows, self._k), _maj_at(rows, self._k)]) for name, rows in self._by_model.items()
        }
        """By model, (Q, 2 K): pass@k and then maj@k."""

    def of_model(self, name: str) -> SampledMetrics:
        """The metrics of a model, with intervals."""
        rows, values = self._by_model[name], self._values[name]
        low, high = estimators.mean_interval(values)
        at: list[ValueAtK] = [
            {"k": drawn, "value": float(value), "low": float(bottom), "high": float(top)}
            for drawn, value, bottom, top in zip(self._k * 2, values.mean(axis=0), low, high, strict=True)
        ]
        num_asked = pc.sum(rows["num_responses"]).as_py()
        return {
            "num_responses": self._num_responses,
            "truncated_share": pc.sum(rows["num_truncated"]).as_py() / num_asked,
            "answerless_share": pc.sum(rows["num_answerless"]).as_py() / num_asked,
            "pass_at": at[: len(self._k)],
            "maj_at": at[len(self._k) :],
        }

    def differences(self, seed: int) -> list[SampledDifference]:
        """Of each later model minus each earlier one; all of them from the same resamples of questions."""
        if not (pairs := _pairs(self._models)):
            return []
        resampled = estimators.bootstrap_means(np.hstack(list(self._values.values())), seed=seed)
        means = dict(zip(self._models, np.hsplit(resampled, len(self._models)), strict=True))
        return [row for pair in pairs for row in self._difference(*pair, means)]

    def _difference(self, later: str, earlier: str, means: Mapping[str, NDArray[Any]]) -> list[SampledDifference]:
        low, high = estimators.percentile_interval(means[later] - means[earlier]).tolist()
        difference = (self._values[later] - self._values[earlier]).mean(axis=0).tolist()
        names = [f"{metric}@{drawn}" for metric in ("pass", "maj") for drawn in self._k]
        return [
            {"first": later, "second": earlier, "metric": name, "difference": value, "low": bottom, "high": top}
            for name, value, bottom, top in zip(names, difference, low, high, strict=True)
        ]


def _pass_at(rows: pa.Table, k: Sequence[int]) -> NDArray[np.float64]:
    """records.SAMPLED_ANSWERS of one model -> (Q, K) pass@k."""
    num_responses, num_correct = (rows[name].to_numpy() for name in ("num_responses", "num_correct"))
    return np.stack([estimators.pass_at_k(num_responses, num_correct, drawn) for drawn in k], axis=1)


def _maj_at(rows: pa.Table, k: Sequence[int]) -> NDArray[np.float64]:
    """records.SAMPLED_ANSWERS of one model -> (Q, K) maj@k, computed once for questions whose clusters are alike."""
    ends = np.cumsum(pc.list_value_length(rows["clusters"]).to_numpy())[:-1]
    clusters = pc.list_flatten(rows["clusters"])
    sizes = np.split(pc.struct_field(clusters, "num_responses").to_numpy(), ends)
    answered = np.split(pc.struct_field(clusters, "answer").is_valid().to_numpy(zero_copy_only=False), ends)
    is_correct = np.split(pc.struct_field(clusters, "is_correct").to_numpy(zero_copy_only=False), ends)
    known: dict[tuple[tuple[int, ...], int | None, int], NDArray[np.float64]] = {}
    values = []
    for index, num_answerless in enumerate(rows["num_answerless"].to_pylist()):
        voting = tuple(sizes[index][answered[index]].tolist())
        correct = np.flatnonzero(is_correct[index][answered[index]]).tolist()
        profile = (voting, correct[0] if correct else None, num_answerless)
        if profile not in known:
            known[profile] = estimators.maj_at_k(*profile[:2], k, num_answerless)
        values.append(known[profile])
    return np.stack(values)
