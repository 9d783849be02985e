"""``questions/`` of a round: the questions that are asked, and those that cannot be."""

from collections.abc import Callable

import pyarrow as pa

from east_ray import answers
from east_ray.config import Config, InputError, QuestionsConfig
from east_ray.questions.prompts import load_tokenizer, prompts_within
from east_ray.questions.source import CanUse, load_questions
from east_ray.storage import counts_by, local_copy, resolve_model
from east_ray.storage.rounds import Round, is_done, listed

#: The most tokens that a prompt for a model may have; None: unknown, so that the length of prompts is not checked.
#: The sampling stage says it (`sampling.stage.max_prompt_tokens`), since it depends on the backend.
MaxPromptTokens = Callable[[Config, str], int | None]


def ask_questions(
    round_: Round, max_prompt_tokens: MaxPromptTokens, can_use: CanUse = answers.is_parsable_reference
) -> None:
    """``questions/`` and ``set_aside/``: what is asked in this round, and what cannot be, with the reason."""
    config, stages = round_.config, round_.stages
    assert config.questions is not None
    if is_done(round_, stages, "questions", "questions"):
        return
    with stages.recording("questions") as record, round_.progress.stage("questions", None, "questions") as line:
        source = config.questions
        if config.questions_per_round == "fresh":
            source = slice_of_round(source, round_.number)
        questions, aside = askable_questions(round_, source, round_.sampled_model, max_prompt_tokens, can_use)
        (stages / "questions").replace(questions)
        (stages / "set_aside").replace(aside)
        if questions.num_rows == 0:
            raise InputError(f"no question can be asked: {listed(counts_by(aside, 'reason'))}")
        record.counts = {"asked": questions.num_rows, "set_aside": counts_by(aside, "reason")}
        line.update(questions.num_rows, f"{aside.num_rows:,} set aside" if aside.num_rows else "")


def slice_of_round(source: QuestionsConfig, number: int) -> QuestionsConfig:
    """A round's own questions: as many as `max_questions`, after those of the rounds before it."""
    return source.model_copy(update={"skip": source.skip + number * (source.max_questions or 0)})


def askable_questions(
    round_: Round,
    source: QuestionsConfig,
    model: str,
    max_prompt_tokens: MaxPromptTokens,
    can_use: CanUse = answers.is_parsable_reference,
) -> tuple[pa.Table, pa.Table]:
    """The questions of a source whose prompts leave room for a response, and those set aside."""
    config, model = round_.config, resolve_model(model)
    questions, aside = load_questions(source, can_use)
    most = max_prompt_tokens(config, model)
    if most is None:
        return questions, aside
    questions, too_long = prompts_within(questions, load_tokenizer(local_copy(model)), config.prompt, most)
    return questions, pa.concat_tables([aside, too_long])
