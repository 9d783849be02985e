"""A solver without vLLM: an engine that gives scripted texts, and a tokenizer of characters."""

from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

from east_ray.answers import graders
from east_ray.answers.grading import Grader
from east_ray.config import AnswersConfig, PromptConfig
from east_ray.serving.settings import LimitsConfig, ServingConfig
from east_ray.serving.solving import Solution, Solver

SETTINGS = ServingConfig(model="m", name="m", prompt=PromptConfig(template="Q: {question}"), answers=AnswersConfig())


class ScriptedEngine:
    """Gives these texts in turn, each in its own output if the request asks for parts."""

    model_config = SimpleNamespace(max_model_len=64)
    errored = False

    def __init__(self, *texts: str) -> None:
        self.texts, self.params = texts, list[Any]()

    async def generate(self, prompt: Any, params: Any, request_id: str) -> AsyncIterator[Any]:
        self.params.append(params)
        outputs = [
            Namespace(text=text, token_ids=[0] * len(text), finish_reason="stop", index=index)
            for index, text in enumerate(self.texts)
        ]
        if params.output_kind.name == "FINAL_ONLY":
            yield Namespace(outputs=outputs)
            return
        for output in outputs:
            yield Namespace(outputs=[Namespace(text="", token_ids=[], finish_reason=None, index=output.index)])
            yield Namespace(outputs=[output])


class Characters:
    """A tokenizer for which a character is a token."""

    chat_template = "their content"

    def apply_chat_template(self, messages: list[dict[str, str]], **keywords: Any) -> str:
        return "".join(message["content"] for message in messages)

    def __call__(self, text: str, **keywords: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}


def solver(
    engine: Any, grader: Grader | None = None, count: Callable[[Solution], None] = lambda solution: None, **limits: Any
) -> Solver:
    settings = SETTINGS.model_copy(update={"limits": LimitsConfig(**limits)})
    return Solver(engine, Characters(), settings, grader or graders.load(AnswersConfig()), count)
