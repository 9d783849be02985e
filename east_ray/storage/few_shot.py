"""The file of worked questions of `prompt.examples` -> the questions themselves, which config.yaml of the run holds.

So a run is the same after the file has changed, and the keys of its samples depend on what the file said.
"""

import json
from collections.abc import Iterator

from pydantic import ValidationError

from east_ray.config import Config, InputError, PromptConfig, WorkedQuestion
from east_ray.config.base import sentences
from east_ray.config.prompting import ExamplesConfig
from east_ray.storage.folders import locate


def with_examples_read(config: Config) -> Config:
    """The configuration with worked questions in place of their files, in `prompt` and in `evaluation.prompt`.

    Raises InputError naming the file, and the line, that cannot be read as worked questions.
    """
    prompt, evaluation = prompt_with_examples(config.prompt), config.evaluation
    if evaluation.prompt.get("examples"):
        asked = prompt_with_examples(config.in_evaluation().prompt, "evaluation.prompt.examples")
        read = evaluation.prompt | asked.model_dump(include={"examples"})
        evaluation = evaluation.model_copy(update={"prompt": read})
    return config.model_copy(update={"prompt": prompt, "evaluation": evaluation})


def prompt_with_examples(prompt: PromptConfig, key: str = "prompt.examples") -> PromptConfig:
    """The same for one section `prompt`; messages call the setting `key`."""
    if prompt.examples is None or prompt.examples.path is None:
        return prompt
    path, count = prompt.examples.path, prompt.examples.count
    worked = list(_worked_questions(path, key))
    if len(worked) < (count or 1):
        raise InputError(f"{key}: {path} has {len(worked)} worked questions; expected at least {count or 1}")
    return prompt.model_copy(update={"examples": ExamplesConfig(questions=worked[:count])})


def _worked_questions(path: str, key: str) -> Iterator[WorkedQuestion]:
    filesystem, inner = locate(path)
    try:
        with filesystem.open_input_stream(inner) as stream:
            lines = bytes(stream.read()).decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        said = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error).splitlines()[0]
        raise InputError(
            f"{key}: cannot read {path} ({said}); a run that has begun holds a copy of it, so give the run directory "
            "in place of the YAML file"
        ) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _worked_question(line, f"{key}: {path}, line {number}")


def _worked_question(line: str, where: str) -> WorkedQuestion:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
    for column in WorkedQuestion.model_fields:
        if column not in row:
            found = ", ".join(map(repr, sorted(row)))
            raise InputError(f"{where}: column {column!r} is missing; found {found or 'none'}")
    try:
        return WorkedQuestion.model_validate({name: row[name] for name in WorkedQuestion.model_fields})
    except ValidationError as error:
        raise InputError(f"{where}: {next(sentences(error, WorkedQuestion))}") from None
