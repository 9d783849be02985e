"""Adaptive sampling in tests: a backend that notes what it is asked, and the stage on the local Ray."""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from sampling_runs import questions, scripted, settings

from east_ray.config import Config
from east_ray.console import Progress
from east_ray.records import SAMPLES
from east_ray.sampling.backends import Alone, Decoding, EngineDiedError, Prompt, RequestRefusedError, Response
from east_ray.sampling.backends.scripted import Scripted
from east_ray.sampling.stage import ask_models, decoding_of
from east_ray.storage import RunDirectory
from east_ray.storage.rounds import Round

MODELS = {"base": "m"}


class Noted(Scripted):
    """The scripted backend; each request is a line of asked.jsonl beside its table.

    If refused.txt is there, a further request for the question in it is refused. If dies.txt is there, the engine or
    the process dies at the third further request, once.
    """

    _num_further = 0

    def ask(
        self, model: str, prompt: Prompt, decoding: Decoding, first: int = 0, alone: Alone | None = None
    ) -> "Future[list[Response]]":
        question: str = prompt[-1]["content"]  # type: ignore[index]
        asked = {"prompt": question, "first": first, "number": decoding.responses_per_question}
        with Path(self.args["table"]).with_name("asked.jsonl").open("a") as file:
            print(json.dumps(asked | {"seed": decoding.seed}), file=file)
        if first and (failure := self._failure_of_further(question)):
            future = Future[list[Response]]()
            future.set_exception(failure)
            return future
        return super().ask(model, prompt, decoding, first, alone)

    def _failure_of_further(self, prompt: str) -> Exception | None:
        refused, dies = (Path(self.args["table"]).with_name(f"{name}.txt") for name in ("refused", "dies"))
        if refused.exists() and refused.read_text() in prompt:
            return RequestRefusedError("no more of this")
        self._num_further += 1
        if self._num_further == 3 and dies.exists():
            how = dies.read_text()
            dies.unlink()
            if how == "process":
                os.kill(os.getpid(), signal.SIGKILL)
            self.has_failed = True
            return EngineDiedError("it was told to die")
        return None


def last_digit(response: str, question: Any) -> str | None:
    """A grader of a user's own."""
    digits = [one for one in response if one.isdigit()]
    return digits[-1] if digits else None


def texts(answers: Sequence[object]) -> list[str]:
    """Responses, no two alike, that box these answers; None: none."""
    return [f"Way {i}: " + ("hm" if one is None else f"\\boxed{{{one}}}") for i, one in enumerate(answers)]


def answers_of(number: int, count: int) -> list[object]:
    """The answers that question `number` gets: one, two, … or five different ones, in an irregular order."""
    return [(i * i * 7 + i * number) % (number % 5 + 1) for i in range(count)]


def table(count: int, most: int) -> list[dict[str, Any]]:
    """A row of the scripted backend's table for each of `questions(count)`."""
    asked = questions(count)["question"].to_pylist()
    return [{"question": text, "responses": texts(answers_of(i, most))} for i, text in enumerate(asked)]


def config(
    folder: Path, rows: Sequence[Mapping[str, Any]], most: int, adaptive: Mapping[str, Any] | None, **changes: Any
) -> Config:
    """A run's settings whose backend is `Noted` with these rows."""
    sections = scripted(folder / "script", *rows, **changes.pop("args", {}))
    own = {"backend": "adaptive_runs:Noted", "responses_per_question": most, "adaptive": adaptive}
    return settings(folder / "run", **{**sections, "sampling": sections["sampling"] | own, **changes})


def sampled(config: Config, asked: pa.Table) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Do the stage, or go on with it: the rows of samples/ by question_id, and the counts of the stage."""
    round_ = Round(config, RunDirectory(config), 0, "m", "m", Progress(Console(quiet=True)))
    counts: dict[str, Any] = {}
    decoding = decoding_of(config, 0)
    ask_models(round_, "sampling", asked, MODELS, "samples", "set_aside", decoding, counts)
    rows = (round_.stages / "samples").read(SAMPLES).to_pylist()
    assert len({row["question_id"] for row in rows}) == len(rows)
    return {row["question_id"]: row for row in rows}, counts


def said(row: Mapping[str, Any]) -> list[str]:
    """The texts of a row."""
    return [response["text"] for response in row["responses"]]


def asked(folder: Path) -> list[dict[str, Any]]:
    """What the backend of a run was asked so far."""
    path = folder / "script" / "asked.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
