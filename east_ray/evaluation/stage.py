"""evaluation/ and validation/ of a round: what its models answer to held-out questions."""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from east_ray.config import BASE, TRAINED, InputError, QuestionsConfig
from east_ray.evaluation import estimators as evaluation
from east_ray.questions.stage import askable_questions
from east_ray.records import GREEDY_ANSWERS, SAMPLED_ANSWERS, SAMPLES
from east_ray.sampling.decoding import Decoding
from east_ray.sampling.stage import ask_models, max_prompt_tokens
from east_ray.storage import StageRecord, counts_by, resolve_model
from east_ray.storage.rounds import Round, is_done, listed

#: Questions with all their responses that are in memory as Python objects.
_ROWS_AT_ONCE = 64


def evaluate(round_: Round) -> None:
    """``evaluation/``: the answers of all the round's models to held-out questions, and ``metrics.json`` from them."""
    config, stages = round_.config, round_.stages
    if config.evaluation.questions is None or is_done(round_, stages, "evaluation", "evaluation"):
        return
    models = {BASE: resolve_model(config.model)}
    models |= {name: resolve_model(path) for name, path in config.evaluation.models.items()}
    if config.questions is not None or config.samples is not None:
        models |= {one.name: round_.directory.address(one.stages / "model") for one in round_.learners()}
    with stages.recording("evaluation") as record:
        answers, num_set_aside = held_out_answers(round_, config.evaluation.questions, models, "evaluation", record)
        (stages / "evaluation/answers").replace(answers)
        sampled = None
        if config.evaluation.responses_per_question:
            sampled = sampled_answers(round_, config.evaluation.questions, models, record)
            (stages / "evaluation/sampled_answers").replace(sampled)
        metrics = evaluation.metrics(answers, list(models), config.seed, sampled) | {"num_set_aside": num_set_aside}
        (stages / "evaluation").write_text("metrics.json", json.dumps(metrics, indent=1) + "\n")


def has_gained(round_: Round) -> bool:
    """``validation/``: whether the round's model answers significantly more validation questions than the one before.

    That is: the paired 95 % interval of the difference lies above 0. True without `early_stopping`.
    """
    config, stages = round_.config, round_.stages
    if config.early_stopping is None:
        return True
    if not is_done(round_, stages, "validation", "validation"):
        models = {"before": round_.sampled_model, TRAINED: round_.directory.address(stages / "model")}
        with stages.recording("validation") as record:
            answers, _ = held_out_answers(round_, config.early_stopping.questions, models, "validation", record)
            (difference,) = evaluation.metrics(answers, list(models), config.seed)["differences"]
            record.counts["gain"] = difference
    gain = (stages.record("validation") or StageRecord()).counts["gain"]
    round_.progress.say(
        f"{'':<12}{100 * gain['difference']:+z.1f} points on the validation questions, paired 95 % interval "
        f"{100 * gain['low']:+z.1f} to {100 * gain['high']:+z.1f}"
    )
    return bool(gain["low"] > 0)


def held_out_answers(
    round_: Round, source: QuestionsConfig, models: Mapping[str, str], folder: str, record: StageRecord
) -> tuple[pa.Table, int]:
    """Each model's greedy answer to each question (records.GREEDY_ANSWERS), and how many questions were set aside.

    The responses are in ``responses/`` of that folder. A question that an engine has refused or died of counts for no
    model. Raises InputError if no question is left.
    """
    config = round_.config
    decoding = Decoding(responses_per_question=1, temperature=0.0, max_tokens=config.evaluation.max_tokens)
    questions, responses = _held_out_responses(round_, source, models, f"{folder}/responses", decoding, record)
    judge = functools.partial(
        evaluation.judge_response, equivalence=config.answers.equivalence, last_number=config.answers.last_number
    )
    answers = pa.Table.from_pylist([judge(row) for row in responses], schema=GREEDY_ANSWERS)
    num_left = answers.num_rows // len(models)
    return answers.sort_by([("model", "ascending"), ("question_id", "ascending")]), questions - num_left


def sampled_answers(round_: Round, source: QuestionsConfig, models: Mapping[str, str], record: StageRecord) -> pa.Table:
    """How each model's sampled responses to each question fall into clusters: records.SAMPLED_ANSWERS."""
    config = round_.config
    decoding = Decoding(
        responses_per_question=config.evaluation.responses_per_question,
        temperature=config.evaluation.temperature,
        top_p=config.evaluation.top_p,
        max_tokens=config.evaluation.max_tokens,
        seed=config.seed if config.sampling.seeded else None,
    )
    greedy = record.counts
    record.counts = {}
    _, responses = _held_out_responses(round_, source, models, "evaluation/sampled_responses", decoding, record)
    record.counts = greedy | {"sampled": record.counts}
    judge = functools.partial(
        evaluation.judge_responses, equivalence=config.answers.equivalence, last_number=config.answers.last_number
    )
    table = pa.Table.from_pylist([judge(row) for row in responses], schema=SAMPLED_ANSWERS)
    return table.sort_by([("model", "ascending"), ("question_id", "ascending")])


def _held_out_responses(
    round_: Round,
    source: QuestionsConfig,
    models: Mapping[str, str],
    folder: str,
    decoding: Decoding,
    record: StageRecord,
) -> tuple[int, Iterator[dict[str, Any]]]:
    """The number of questions that there are, and rows of SAMPLES of those that every model has answered."""
    stages = round_.stages
    questions, aside = askable_questions(round_, source, round_.config.model, max_prompt_tokens)
    if questions.num_rows == 0:
        raise InputError(f"evaluation: no question can be asked: {listed(counts_by(aside, 'reason'))}")
    label = folder.partition("/")[0]
    set_aside = f"{folder}_set_aside"
    ask_models(round_, label, questions, models, folder, set_aside, decoding, record.counts)
    times = Counter((stages / folder).read(SAMPLES, ["question_id"])["question_id"].to_pylist())
    if len(models) not in times.values():
        raise InputError(f"evaluation: no question could be sampled: {listed(record.counts['set_aside'])}")

    def rows() -> Iterator[dict[str, Any]]:
        for batch in (stages / folder).batches(SAMPLES.names, max_rows=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                if times[row["question_id"]] == len(models):
                    yield row

    return questions.num_rows + aside.num_rows, rows()
