"""evaluation/ and validation/ of a round: how its models answer held-out questions, and ``metrics.json`` from them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from east_ray import records
from east_ray.answers import graders
from east_ray.answers.grading import Failures, reference_check
from east_ray.config import BASE, TRAINED, InputError, QuestionsConfig
from east_ray.evaluation.estimators import weight_spread
from east_ray.evaluation.metrics import judge_response, judge_responses, metrics, model_differences
from east_ray.questions.stage import askable_questions, by_reference, none_can_be_asked
from east_ray.sampling.backends import Decoding
from east_ray.sampling.stage import ask_models, max_evaluated_prompt_tokens
from east_ray.storage import StageRecord, resolve_model
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
        found["weights"] = _weights(round_)
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


def _weights(round_: Round) -> dict[str, records.WeightSpread]:
    """How the weights of each training of the round spread; nothing where models are only evaluated."""
    if round_.config.questions is None and round_.config.samples is None:
        return {}
    weights = {
        one.name: (one.stages / "examples").read(records.EXAMPLES, ["weight"])["weight"] for one in round_.learners()
    }
    return {name: weight_spread(column.to_numpy()) for name, column in weights.items() if len(column)}


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
    can_use = by_reference(reference_check(graders.load(round_.config.answers)))
    asking = _as_evaluated(round_)
    found = askable_questions(asking, source, round_.config.model, max_evaluated_prompt_tokens, can_use)
    if found.questions.num_rows == 0:
        raise none_can_be_asked(found.aside, "evaluation.questions", "evaluation.max_tokens")
    return found.questions, found.aside.num_rows


def _as_evaluated(round_: Round) -> Round:
    """The round with the prompt and the decoding of held-out questions."""
    return replace(round_, config=round_.config.in_evaluation())


def held_out_answers(
    round_: Round, held_out: pa.Table, models: Mapping[str, str], folder: str, record: StageRecord
) -> pa.Table:
    """Each model's greedy answer to each question (records.GREEDY_ANSWERS); the responses are in ``folder/responses/``.

    A question that an engine has refused or died of for one model is left out for all. Raises InputError if no question
    is left.
    """
    settings, sampling = round_.config.answers, _as_evaluated(round_).config.sampling
    decoding = Decoding(
        responses_per_question=1,
        temperature=0.0,
        max_tokens=round_.config.evaluation.max_tokens,
        stop=sampling.stop,
        params=sampling.params,
    )
    responses = _responses(round_, held_out, models, f"{folder}/responses", decoding, record, record.counts)
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
    named |= _as_evaluated(round_).config.sampling.model_dump(include={"stop", "params"})
    decoding = Decoding(**named, seed=config.seed if config.is_seeded else None)
    counts = record.counts["sampled"] = {}
    responses = _responses(round_, held_out, models, "evaluation/sampled_responses", decoding, record, counts)
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
    record: StageRecord,
    counts: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """Rows of records.SAMPLES of the questions that every model has answered; `counts` gets the sums of the stage."""
    samples, label = round_.stages / folder, folder.partition("/")[0]
    asking, aside = _as_evaluated(round_), f"{folder}_set_aside"
    record.starting_s += ask_models(
        asking, label, held_out, models, folder, aside, decoding, counts, is_evaluation=True
    )
    times = Counter(samples.read(records.SAMPLES, ["question_id"])["question_id"].to_pylist())
    if len(models) not in times.values():
        raise InputError(f"evaluation: no question could be sampled: {listed(counts['set_aside'])}")
    for batch in samples.batches(records.SAMPLES.names, max_rows=_ROWS_AT_ONCE):
        yield from (row for row in batch.to_pylist() if times[row["question_id"]] == len(models))
