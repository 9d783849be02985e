"""``east-ray init``: a run's YAML file from a few answers, with a comment on every line that a user may want to change.

The questions' file is looked into first, so that what cannot be read is said before anything is written.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from east_ray.config import InputError, QuestionsConfig
from east_ray.config import files as config_file
from east_ray.config.base import validated
from east_ray.first_use.responses import Ask, Say
from east_ray.questions.stage import load_questions

#: Questions of a file that are looked at.
_LOOKED_AT = 20
#: Characters of a question in a message.
_EXAMPLE = 100
#: The paper's words (EAST, arXiv 2503.23913, appendix), which the default grader's boxes come from.
_SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."
_OBJECTIVES = ("sft", "dpo", "kto")


@dataclass(frozen=True)
class Answers:
    """What a run's file is written from; None: not given yet."""

    model: str | None = None
    """A folder or a hub name."""
    questions: str | None = None
    """A file, a folder, a pattern, or hub:NAME[:CONFIGURATION[:SPLIT]] for a data set on the Hugging Face hub."""
    held_out: str | None = None
    """The same, for the evaluation; an empty text: none."""
    gpus: int | None = None
    """GPUs for engines and for training; 0: the CPU."""
    objective: str | None = None


#: What is asked for, and the answer of who gives none. Without a default, the user must say it.
_ASKED: dict[str, tuple[str, str | None]] = {
    "model": ("Which model is trained: a folder, or a name on the Hugging Face hub", None),
    "questions": (
        "Which questions does it learn from: a file, a folder, or hub:NAME, e.g. hub:openai/gsm8k:main:train",
        None,
    ),
    "held_out": ("Which held-out questions measure it (empty: none)", ""),
    "gpus": ("How many GPUs may it use (0: the CPU)", "0"),
    "objective": (f"How is it trained: {', '.join(_OBJECTIVES)}", "sft"),
}


def write(path: Path, given: Answers, say: Say, ask: Ask) -> None:
    """Write the YAML file of a run. What is not given is asked for, or, where `ask` is None, takes its default.

    Raises InputError if the file exists, something without a default is missing, or the questions cannot be read.
    """
    if path.exists():
        raise InputError(f"{path} exists; name another file, or remove it")
    answers = _complete(given, ask)
    text = written(path.stem, answers, say)
    config_file.parse(text, str(path))  # what the command line could not know, such as both a path and a hub
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    say(f"written to {path}; `east-ray plan {path}` says whether it fits, `east-ray run {path}` runs it")


def _complete(given: Answers, ask: Ask) -> Answers:
    found: dict[str, str | int | None] = {one.name: getattr(given, one.name) for one in fields(given)}
    for name, (question, default) in _ASKED.items():
        if found[name] is not None:
            continue
        if ask is None:
            if default is None:
                raise InputError(f"--{name.replace('_', '-')} is missing: {question[0].lower()}{question[1:]}")
            found[name] = default
        else:
            found[name] = _asked(question, default, ask)
    gpus, objective = str(found["gpus"]), str(found["objective"])
    if not gpus.isdecimal():
        raise InputError(f"--gpus {gpus}: expected a number of GPUs, e.g. 8, or 0 for the CPU")
    if objective not in _OBJECTIVES:
        raise InputError(f"--objective {objective}: expected one of {', '.join(_OBJECTIVES)}")
    texts = {name: str(found[name] or "") for name in ("model", "questions", "held_out")}
    return Answers(**texts, gpus=int(gpus), objective=objective)


def _asked(question: str, default: str | None, ask: Callable[[str], str]) -> str:
    while True:
        answer = ask(f"{question} [{default}]" if default else question).strip()
        if answer or default is not None:
            return answer or default or ""


def written(name: str, answers: Answers, say: Say) -> str:
    """The text of the file; says what the questions' files hold. Raises InputError if they cannot be read."""
    questions, held_out = answers.questions or "", answers.held_out or ""
    _look(questions, "questions", say)
    if held_out:
        _look(held_out, "evaluation.questions", say)
    evaluation = (
        f"""
evaluation:
  questions: {_source(held_out)}
  max_tokens: 1024
"""
        if held_out
        else """
# evaluation:                      # without held-out questions nothing is measured
#   questions: {path: test.jsonl}
"""
    )
    return f"""# A run of east-ray. `east-ray config FILE` shows every setting with what it means.
run_dir: runs/{name}
model: {_quoted(answers.model or "")}
seed: 0
rounds: 1                          # more: each round samples from the model that the last one trained

questions: {_source(questions)}

prompt:                            # a base model without a chat template: see prompt.style, and no system message
  system: {_quoted(_SYSTEM)}

sampling:
  responses_per_question: 32       # the paper's number is 128
  temperature: 1.0
  max_tokens: 1024

{_devices(answers.gpus or 0)}
weighting:
  signal: entropy                  # uniform: without EAST
  exponent: 1.0                    # > 1 sharpens, < 1 flattens

{_training(answers.objective or "sft", answers.gpus or 0)}
variants:                          # trained from the same responses, to compare with
  uniform: {{weighting.signal: uniform}}
{evaluation}"""


def _devices(gpus: int) -> str:
    if gpus == 0:
        return """engines:
  engine_args: {dtype: bfloat16, enforce_eager: true, max_model_len: 2048}
  env: {VLLM_CPU_KVCACHE_SPACE: "4"}    # GiB
"""
    return f"""engines:
  max_engines: {gpus:<16}# one engine a GPU; a larger model: engine_args: {{tensor_parallel_size: 2}}
  num_gpus_per_engine: 1
  engine_args: {{dtype: bfloat16, max_model_len: 2048, gpu_memory_utilization: 0.9}}
"""


def _training(objective: str, gpus: int) -> str:
    rate = "2.0e-6" if objective == "sft" else "2.0e-7"
    workers = f"""  num_workers: {gpus}
  num_gpus_per_worker: 1
""" if gpus else """  num_workers: 1
"""  # fmt: skip
    return f"""training:
  objective: {objective}
  epochs: 3
  examples_per_step: 16
  tokens_per_micro_batch: 4096     # less, where the memory is too small
  learning_rate: {rate}
  max_length: 2048
  precision: bf16
  deepspeed: {{zero_stage: {3 if gpus > 1 else 0}}}
{workers}"""


def _look(spelled: str, setting: str, say: Say) -> None:
    """Read the first questions of a file and say one. What is on the hub is not fetched for it."""
    if spelled.startswith("hub:"):
        return
    settings = validated(QuestionsConfig, {"path": spelled, "max_questions": _LOOKED_AT}, f"{setting}.")
    try:
        found, aside = load_questions(settings)
    except InputError as error:
        raise InputError(f"{setting}: {error}") from None
    if not found.num_rows:
        raise InputError(f"{setting}: none of the first {aside.num_rows} questions can be used: {aside['detail'][0]}")
    row = found.slice(0, 1).to_pylist()[0]
    text = " ".join(row["question"].split())
    shown = text if len(text) <= _EXAMPLE else f"{text[:_EXAMPLE]}…"
    say(f"{spelled}: {shown}  reference answer: {row['reference_answer']}")


def _source(spelled: str) -> str:
    """The settings of `questions`, as YAML in one line."""
    if not spelled.startswith("hub:"):
        return f"{{path: {_quoted(spelled)}}}"
    named = zip(("hub", "hub_config", "split"), spelled.removeprefix("hub:").split(":", 2), strict=False)
    return f"{{{', '.join(f'{key}: {_quoted(value)}' for key, value in named)}}}"


def _quoted(text: str) -> str:
    """A text as YAML, quoted where it must be inside { }."""
    return yaml.safe_dump([text], default_flow_style=True, width=10_000, allow_unicode=True).strip()[1:-1]
