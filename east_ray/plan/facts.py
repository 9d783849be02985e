"""The numbers that an estimate starts from: measured in the run directory, counted in a local file, or assumed.

Everything is read from what is there already, with bounds on size.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import pyarrow.compute as pc

from east_ray.config import Config, InputError, PromptConfig, QuestionsConfig
from east_ray.config.plan import PlanConfig
from east_ray.questions.stage import load_questions
from east_ray.reading.files import find_files
from east_ray.storage import Folder, Stages, locate

#: Files of questions up to this size are read; a larger one would keep the reader waiting.
_MAX_QUESTIONS_BYTES = 64 << 20
#: Parts of samples/ that mean lengths are taken from, and the assumed numbers where nothing is known.
_MAX_PARTS = 8
CHARACTERS_PER_TOKEN, TEMPLATE_TOKENS, PROMPT_TOKENS, RESPONSE_SHARE, KEPT_SHARE = 4, 40, 150, 0.25, 0.8


@dataclass(frozen=True)
class Figure:
    """A number, and where it comes from in a few words; `setting` is what changes it. None: not known."""

    value: float | None
    source: str
    setting: str


@dataclass(frozen=True)
class Facts:
    """What a run's time depends on besides its settings."""

    num_questions: Figure
    num_held_out: Figure
    prompt_tokens: Figure
    response_tokens: Figure
    kept_share: Figure
    num_responses: Figure  # to a question, on average
    sampled_tokens_per_s: Figure  # of all engines together, their start included
    trained_tokens_per_s: Figure  # of all workers together


def facts_of(config: Config) -> Facts:
    """The facts of a run. A setting of `plan` counts first, then what was measured, then a local file, then a guess."""
    plan, stages = config.plan, round_0_of(config)
    at_most = config.questions.max_questions if config.questions else None
    asked, characters = _counted(config.questions)
    prompt, response = _mean_lengths(stages)
    sampling, examples = _counts(stages, "sampling"), _counts(stages, "examples")
    kept = examples.get("kept", 0) / max(1, examples.get("kept", 0) + sum(examples.get("discarded", {}).values()))
    seconds = _seconds(stages, "sampling")

    figure = functools.partial(_figure, plan)
    measured = f"measured in {config.run_dir}"
    around = characters_around(config.prompt)
    guess = None if characters is None else (characters + around) / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS
    rate = sampling.get("num_tokens", 0) / seconds if seconds and config.samples is None else None
    return Facts(
        num_questions=figure(
            "num_questions",
            (sampling.get("num_questions"), measured),
            (asked, "of the local file"),
            (at_most, "questions.max_questions"),
        ),
        num_held_out=num_held_out_of(config),
        prompt_tokens=figure(
            "prompt_tokens",
            (prompt, measured),
            (guess, f"a token for {CHARACTERS_PER_TOKEN} characters of the local file, and the template"),
            (PROMPT_TOKENS, "assumed"),
        ),
        response_tokens=figure(
            "response_tokens",
            (response, measured),
            (RESPONSE_SHARE * config.sampling.max_tokens, "assumed: a quarter of sampling.max_tokens"),
        ),
        kept_share=figure("kept_share", (kept, measured), (KEPT_SHARE, "assumed")),
        num_responses=_num_responses(config, sampling, measured, plan.num_questions or asked or at_most),
        sampled_tokens_per_s=Figure(rate, measured if rate else "not known", "plan.engine_efficiency"),
        trained_tokens_per_s=_trained_tokens_per_s(stages, measured),
    )


def _figure(plan: PlanConfig, name: str, *found: tuple[float | None, str]) -> Figure:
    """What the setting of `plan` says, or the first that was found."""
    choices = [(getattr(plan, name, None), "given"), *found]
    value, source = next(((v, s) for v, s in choices if v), (None, "not known"))
    return Figure(value, source, f"plan.{name}")


def num_held_out_of(config: Config) -> Figure:
    """How many questions the evaluation asks."""
    source = config.evaluation.questions
    counted, _ = _counted(source)
    at_most = source.max_questions if source else None
    found = (counted, "of the local file"), (at_most, "evaluation.questions.max_questions")
    return _figure(config.plan, "num_held_out", *found)


def _num_responses(config: Config, sampling: Mapping[str, Any], measured: str, num_questions: float | None) -> Figure:
    """Mean responses to a question: of an adaptive run what was measured, what its budget is, or the most."""
    adaptive, most, setting = config.sampling.adaptive, config.sampling.responses_per_question, "sampling.adaptive"
    if adaptive is None:
        return Figure(most, "the same for all", "sampling.responses_per_question")
    if sampling.get("num_questions"):
        return Figure(sampling["num_responses"] / sampling["num_questions"], measured, setting)
    if adaptive.budget is None:
        return Figure(most, "the most that a question gets; a rule will stop earlier", setting)
    budget = adaptive.budget
    if num_questions is None:
        return Figure(budget.max, "the most that a question gets", setting)
    return Figure(min(budget.max, budget.total / num_questions), "the budget for each", setting)


def characters_around(prompt: PromptConfig) -> int:
    """Characters of a prompt beside its question's: the system message, the template and the worked questions."""
    template = len(prompt.template.replace("{question}", ""))
    worked = sum(template + len(one.question) + len(one.solution) for one in prompt.worked_questions)
    return len(prompt.system or "") + worked + template


def round_0_of(config: Config) -> Stages:
    """The first round of a run, whether it has begun or not."""
    filesystem, path = locate(config.run_dir)
    return Stages(Folder(filesystem, path.rstrip("/")) / "round_0")


def _counted(source: QuestionsConfig | None) -> tuple[int | None, float | None]:
    """Questions in local files and the mean of their characters; None where these are remote, missing or large."""
    if source is None or source.path is None or "://" in source.path:
        return None, None
    try:
        files = find_files(source.path, "questions.path").files
    except InputError:  # a plan is made before the files are there
        return None, None
    if sum(file.size for file in files) > _MAX_QUESTIONS_BYTES:
        return None, None
    questions, _ = load_questions(source, can_use=lambda reference: True)  # the grader may refuse a few
    if not questions.num_rows:
        return None, None
    return questions.num_rows, float(pc.mean(pc.utf8_length(questions["question"])).as_py())


def _mean_lengths(stages: Stages) -> tuple[float | None, float | None]:
    """Mean tokens of the prompts and of the responses in the first parts of samples/; None where there are none."""
    folder = stages / "samples"
    prompts, responses = list[int](), list[int]()
    for batch in folder.batches(
        ["num_prompt_tokens", "responses.list.element.num_tokens"], folder.parts()[:_MAX_PARTS], max_rows=256
    ):
        prompts += [one for one in batch["num_prompt_tokens"].to_pylist() if one is not None]
        flat = pc.struct_field(pc.list_flatten(batch["responses"]), "num_tokens")
        responses += [one for one in flat.to_pylist() if one is not None]
    return (mean(prompts) if prompts else None), (mean(responses) if responses else None)


def _counts(stages: Stages, stage: str) -> dict[str, Any]:
    record = stages.record(stage)
    return {} if record is None else record.counts


def _seconds(stages: Stages, stage: str) -> float | None:
    record = stages.record(stage)
    return None if record is None else record.seconds


def _trained_tokens_per_s(stages: Stages, measured: str) -> Figure:
    """The median of the steps of training.jsonl, without the first."""
    lines = [json.loads(line) for line in (stages.folder.read_text("training.jsonl") or "").splitlines()]
    rates = [line["tokens_per_s"] for line in lines if "tokens_per_s" in line][1:]
    return Figure(median(rates) if rates else None, measured if rates else "not known", "plan.mfu")
