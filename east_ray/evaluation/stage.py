"""evaluation/ and validation/ of a round: how its models answer held-out questions, and ``metrics.json`` from them.

Answers are judged as training's responses are. Axes in shapes: Q questions, K values of k.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray import records
from east_ray.answers import graders
from east_ray.answers.grading import Failures, Grader, clustered, reference_check
from east_ray.config import BASE, TRAINED, InputError, QuestionsConfig
from east_ray.evaluation import estimators
from east_ray.questions.stage import askable_questions
from east_ray.sampling.backends import Decoding
from east_ray.sampling.stage import ask_models, max_prompt_tokens
from east_ray.storage import StageRecord, counts_by, resolve_model
from east_ray.storage.rounds import Round, is_done, listed

#: Questions with all their responses that are in memory as Python objects.
_ROWS_AT_ONCE = 64
_ORDER = [("model", "ascending"), ("question_id", "ascending")]


def evaluate(round_: Round) -> None:
    """``evaluation/``: the answers of all the round's models to held-out questions, and ``metrics.json`` from them."""
    config, stages = round_.config, round_.stages
    if config.evaluation.questions is None or is_done(round_, stages, "evaluation", "evaluation"):
        return
    models = _models(round_)
    with stages.recording("evaluation") as record:
        held_out, num_aside = held_out_questions(round_, config.evaluation.questions)
        answers = held_out_answers(round_, held_out, models, "evaluation", record)
        (stages / "evaluation/answers").replace(answers)
        sampled = None
        if config.evaluation.responses_per_question:
            sampled = sampled_answers(round_, held_out, models, record)
            (stages / "evaluation/sampled_answers").replace(sampled)
        found = metrics(answers, list(models), config.seed, sampled)
        found["num_set_aside"] = num_aside + held_out.num_rows - answers.num_rows // len(models)
        (stages / "evaluation").write_text("metrics.json", json.dumps(found, indent=1) + "\n")


def _models(round_: Round) -> dict[str, str]:
    """The models to evaluate, by name: the one before training, those of the configuration and those of the round."""
    config = round_.config
    models = {BASE: config.model} | config.evaluation.models
    models = {name: resolve_model(path) for name, path in models.items()}
    if config.questions is not None or config.samples is not None:
        models |= {one.name: round_.directory.address(one.stages / "model") for one in round_.learners()}
    return models


def has_gained(round_: Round) -> bool:
    """``validation/``: whether the round's model answers significantly more validation questions than the one before.

    It does if the paired 95 % interval of the difference lies above 0. True without `early_stopping`.
    """
    config, stages = round_.config, round_.stages
    if config.early_stopping is None:
        return True
    if not is_done(round_, stages, "validation", "validation"):
        models = {"before": round_.sampled_model, TRAINED: round_.directory.address(stages / "model")}
        with stages.recording("validation") as record:
            held_out, _ = held_out_questions(round_, config.early_stopping.questions)
            answers = held_out_answers(round_, held_out, models, "validation", record)
            (record.counts["gain"],) = model_differences(answers, list(models), config.seed)
    gain: records.ModelDifference = (stages.record("validation") or StageRecord()).counts["gain"]
    round_.progress.say(
        f"{'':<12}{100 * gain['difference']:+z.1f} points on the validation questions, paired 95 % interval "
        f"{100 * gain['low']:+z.1f} to {100 * gain['high']:+z.1f}"
    )
    return gain["low"] > 0


def held_out_questions(round_: Round, source: QuestionsConfig) -> tuple[pa.Table, int]:
    """The held-out questions of a source that can be asked (records.QUESTIONS), and how many cannot.

    Their prompts are tokenized here, once for all that is asked of them. Raises InputError if none can be asked.
    """
    can_use = reference_check(graders.load(round_.config.answers))
    questions, aside = askable_questions(round_, source, round_.config.model, max_prompt_tokens, can_use)
    if questions.num_rows == 0:
        raise InputError(f"evaluation: no question can be asked: {listed(counts_by(aside, 'reason'))}")
    return questions, aside.num_rows


def held_out_answers(
    round_: Round, held_out: pa.Table, models: Mapping[str, str], folder: str, record: StageRecord
) -> pa.Table:
    """Each model's greedy answer to each question (records.GREEDY_ANSWERS); the responses are in ``folder/responses/``.

    A question that an engine has refused or died of for one model is left out for all. Raises InputError if no question
    is left.
    """
    settings = round_.config.answers
    decoding = Decoding(responses_per_question=1, temperature=0.0, max_tokens=round_.config.evaluation.max_tokens)
    responses = _responses(round_, held_out, models, f"{folder}/responses", decoding, record.counts)
    only_text = {"grader": "math", "grader_args": {}, "equivalence": "string"}
    grader, by_string = graders.load(settings), graders.load(settings.model_copy(update=only_text))
    failures = Failures()
    rows = [judge_response(row, grader, by_string, failures) for row in responses]
    record.counts |= failures.counts
    failures.report(round_.progress.say, len(rows))
    return pa.Table.from_pylist(rows, schema=records.GREEDY_ANSWERS).sort_by(_ORDER)


def sampled_answers(round_: Round, held_out: pa.Table, models: Mapping[str, str], record: StageRecord) -> pa.Table:
    """The clusters of each model's sampled responses to each question: records.SAMPLED_ANSWERS."""
    config = round_.config
    named = config.evaluation.model_dump(include={"responses_per_question", "temperature", "top_p", "max_tokens"})
    decoding = Decoding(**named, seed=config.seed if config.sampling.seeded else None)
    counts = record.counts["sampled"] = {}
    responses = _responses(round_, held_out, models, "evaluation/sampled_responses", decoding, counts)
    grader = graders.load(config.answers)
    failures = Failures()
    rows = [judge_responses(row, grader, failures) for row in responses]
    counts |= failures.counts
    failures.report(round_.progress.say, sum(row["num_responses"] for row in rows))
    return pa.Table.from_pylist(rows, schema=records.SAMPLED_ANSWERS).sort_by(_ORDER)


def _responses(
    round_: Round,
    held_out: pa.Table,
    models: Mapping[str, str],
    folder: str,
    decoding: Decoding,
    counts: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Rows of records.SAMPLES of the questions that every model has answered; `counts` gets the sums of the stage."""
    samples, label = round_.stages / folder, folder.partition("/")[0]
    ask_models(round_, label, held_out, models, folder, f"{folder}_set_aside", decoding, counts)
    times = Counter(samples.read(records.SAMPLES, ["question_id"])["question_id"].to_pylist())
    if len(models) not in times.values():
        raise InputError(f"evaluation: no question could be sampled: {listed(counts['set_aside'])}")
    for batch in samples.batches(records.SAMPLES.names, max_rows=_ROWS_AT_ONCE):
        yield from (row for row in batch.to_pylist() if times[row["question_id"]] == len(models))


# ------------------------------------------------------------------------------------------------ judging, and metrics


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
