"""``east-ray init``: a run's YAML file from a few answers, with a comment on every line that a user may want to change.

The questions' file is looked into first, so that what cannot be read is said before anything is written.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from east_ray.answers import graders
from east_ray.answers.grading import reference_check
from east_ray.config import AnswersConfig, InputError, QuestionsConfig
from east_ray.config import files as config_file
from east_ray.config.base import flatten, validated
from east_ray.first_use.commented import in_line, with_setting
from east_ray.first_use.responses import Ask, Say, completed, first_rows, said_of, without_reference
from east_ray.questions.formats import layout
from east_ray.questions.stage import by_reference, load_questions
from east_ray.reading.files import find_files
from east_ray.reading.recognised import Row

#: Questions of a file that are looked at.
_LOOKED_AT = 20
#: Characters of a question in a message.
_EXAMPLE = 100
#: The paper's words (EAST, arXiv 2503.23913, appendix), which the default grader's boxes come from.
_SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."
_OBJECTIVES = ("sft", "dpo", "kto")
#: Settings of questions that are recognised where no format is known.
_COLUMNS = ("question_column", "reference_answer_column")


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


@dataclass(frozen=True)
class _Run:
    """What the answers mean."""

    model: str
    questions: dict[str, Any]
    held_out: dict[str, Any]
    """Empty: none."""
    gpus: int
    objective: str


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


def write(path: Path, given: Answers, say: Say, ask: Ask, overrides: Sequence[str] = ()) -> None:
    """Write the YAML file of a run. What is not given is asked for, or, where `ask` is None, takes its default.

    `overrides` (``key.path=value``) are written into its sections. Raises InputError if the file exists, something
    without a default is missing, or the questions cannot be read. What is answered to `ask` is asked for again instead.
    """
    if path.exists():
        raise InputError(f"{path} exists; name another file, or remove it")
    settings = config_file.merge({}, overrides)
    read: dict[str, Callable[[str], Any]] = {
        "model": str,
        "questions": _Questions("questions", settings, say, ask).read,
        "held_out": _Questions("evaluation.questions", settings, say, ask).read,
        "gpus": _number_of_gpus,
        "objective": _objective,
    }
    text = written(path.stem, _Run(**_complete(given, read, say, ask)))
    config_file.parse(text, str(path), overrides)  # what the command line could not know, such as both a path and a hub
    for override in overrides:
        text = with_setting(text, *config_file.key_and_value(override))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    say(f"written to {path}; `east-ray plan {path}` says whether it fits, `east-ray run {path}` runs it")


def _complete(given: Answers, read: Mapping[str, Callable[[str], Any]], say: Say, ask: Ask) -> dict[str, Any]:
    """What each answer means. Those that are given are read before anything is asked."""
    spelled = {name: str(value) for name, value in vars(given).items() if value is not None}
    for name, (question, default) in _ASKED.items():
        if name not in spelled and ask is None:
            if default is None:
                raise InputError(f"--{name.replace('_', '-')} is missing: {question[0].lower()}{question[1:]}")
            spelled[name] = default
    found = {name: read[name](answer) for name, answer in spelled.items()}
    for name, (question, default) in _ASKED.items():
        if name not in found and ask is not None:
            found[name] = _asked(question, default, read[name], say, ask)
    return found


def _asked(question: str, default: str | None, read: Callable[[str], Any], say: Say, ask: Callable[[str], str]) -> Any:
    """What the user's answer means; one that cannot be used is told why, and asked for again."""
    while True:
        answer = ask(f"{question} [{default}]" if default else question).strip() or default
        if answer is None:
            continue
        try:
            return read(answer)
        except InputError as error:
            say(str(error))


def _number_of_gpus(spelled: str) -> int:
    if not spelled.isdecimal():
        raise InputError(f"--gpus {spelled}: expected a number of GPUs, e.g. 8, or 0 for the CPU")
    return int(spelled)


def _objective(spelled: str) -> str:
    if spelled not in _OBJECTIVES:
        raise InputError(f"--objective {spelled}: expected one of {', '.join(_OBJECTIVES)}")
    return spelled


def written(name: str, run: _Run) -> str:
    """The text of the file."""
    evaluation = (
        f"""
evaluation:
  questions: {in_line(run.held_out)}
  max_tokens: 1024
"""
        if run.held_out
        else """
# evaluation:                      # without held-out questions nothing is measured
#   questions: {path: test.jsonl}
"""
    )
    return f"""# A run of east-ray. `east-ray config FILE` shows every setting with what it means.
run_dir: runs/{name}
model: {in_line(run.model)}
seed: 0
rounds: 1                          # more: each round samples from the model that the last one trained

questions: {in_line(run.questions)}

prompt:                            # a base model without a chat template: see prompt.style, and no system message
  system: {in_line(_SYSTEM)}

sampling:
  responses_per_question: 32       # the paper's number is 128
  temperature: 1.0
  max_tokens: 1024

{_devices(run.gpus)}
weighting:
  signal: entropy                  # uniform: without EAST
  exponent: 1.0                    # > 1 sharpens, < 1 flattens

{_training(run.objective, run.gpus)}
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


class _Questions:
    """Reads a source of questions: with the settings that are given, and columns as the first rows seem to have."""

    def __init__(self, section: str, settings: Mapping[str, Any], say: Say, ask: Ask) -> None:
        """Raises InputError if the settings of the section, or those of the grader, cannot be used."""
        self._section, self._say, self._ask = section, say, ask
        flat = dict(flatten(settings))
        self._given = {key.removeprefix(f"{section}."): flat[key] for key in flat if key.startswith(f"{section}.")}
        self._config({"path": "", **self._given})
        self._majority_labels = section == "questions" and flat.get("labels.source") == "majority"
        self._grader = graders.load(validated(AnswersConfig, settings.get("answers", {}), "answers."))

    def _config(self, values: Mapping[str, Any]) -> QuestionsConfig:
        return validated(QuestionsConfig, values, f"{self._section}.")

    def read(self, spelled: str) -> dict[str, Any]:
        """The settings of the section; of an empty text none. Says the first question of a file.

        What is on the hub is not fetched for it. Raises InputError if no question of the file can be used.
        """
        if not spelled or spelled.startswith("hub:"):
            return _on_the_hub(spelled) | self._given if spelled else {}
        values = {"path": spelled} | self._given
        values |= self._columns(self._config(values), spelled)
        can_use = (lambda _: True) if self._majority_labels else by_reference(reference_check(self._grader))
        found, aside = load_questions(self._config(values | {"max_questions": _LOOKED_AT}), can_use)
        if not found.num_rows:
            none = f"none of the first {aside.num_rows} questions can be used: {aside['detail'][0]}"
            raise InputError(f"{self._section}: {none}")
        row = found.slice(0, 1).to_pylist()[0]
        text = " ".join(row["question"].split())
        shown = text if len(text) <= _EXAMPLE else f"{text[:_EXAMPLE]}…"
        self._say(f"{spelled}: {shown}  reference answer: {row['reference_answer'] or 'none'}")
        return values

    def _columns(self, config: QuestionsConfig, spelled: str) -> Mapping[str, Any]:
        """The columns where no format is known: those given, else as `east-ray weigh` recognises them, and says so."""
        key = f"{self._section}.path"
        rows = [one.row for one in first_rows(find_files(spelled, key), config.encoding, key)]
        given: Mapping[str, Any] = {name: self._given[name] for name in _COLUMNS if name in self._given}
        if "format" in self._given or (not given and any(_is_known(row, config) for row in rows)):
            return {}
        if self._majority_labels:
            given = without_reference(rows, given, self._section)
        named = completed(rows, given, spelled, self._ask, self._section)
        for taken in named.taken:
            self._say(said_of(taken))
        return {"format": "columns", **named.settings}


def _is_known(row: Row, settings: QuestionsConfig) -> bool:
    """Whether the format auto would read the row."""
    with suppress(InputError):
        return layout(row, settings) is not None
    return False


def _on_the_hub(spelled: str) -> dict[str, Any]:
    # A split may be a slice, which has a colon in brackets: train[:100].
    found = re.fullmatch(r"hub:([^:]+)(?::([^:]*))?(?::((?:[^:\[]|\[[^\]]*\])*))?", spelled)
    if found is None:
        raise InputError(f"{spelled}: expected hub:NAME[:CONFIGURATION[:SPLIT]], e.g. hub:openai/gsm8k:main:train")
    return {key: value for key, value in zip(("hub", "hub_config", "split"), found.groups(), strict=True) if value}
