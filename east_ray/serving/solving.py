r"""`/v1/solve`: a question -> responses of an engine -> their clusters, entropy, and the majority answer or none.

Clusters and entropy are computed as in training, but without a reference answer.

>>> from east_ray.answers import graders
>>> from east_ray.config import AnswersConfig
>>> solving = Solving(Question("", "What is 1/2?"), graders.load(AnswersConfig()))
>>> solving.add([ServedResponse(r"\boxed{1/2}", 5), ServedResponse(r"\boxed{0.5}", 4), ServedResponse(r"\boxed{3}", 4)])
>>> solution = solving.solution()
>>> solution.answer, round(solution.share, 3), round(solution.entropy, 3), len(solution.clusters)
('1/2', 0.667, 0.637, 2)
"""

import asyncio
import contextlib
import functools
import json
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NoReturn
from uuid import uuid4

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

from east_ray.answers.grading import Grader, Tally, measured
from east_ray.config import InputError
from east_ray.questions.prompts import render_prompt, tokenize_prompt
from east_ray.records import Question
from east_ray.serving.settings import ServingConfig

#: Number of responses if the request names none; the server's limit may be lower.
DEFAULT_NUM_RESPONSES = 16

#: Gradings that are under way at the same time; those of a user's own grader wait for its one process.
_GRADING_THREADS = 8

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class ServedResponse:
    """A finished response of the model."""

    text: str
    num_tokens: int
    is_truncated: bool = False
    """The response was cut at the length limit, so its answer may be missing."""


@dataclass(frozen=True)
class ServedCluster:
    """Responses with equal answers."""

    answer: str | None
    """The answer as the first response of the cluster writes it; None: no answer was found."""
    num_responses: int
    share: float
    """Share of all responses."""
    response: str | None
    """The text of the first response; None in a stream until all responses are in."""


@dataclass(frozen=True)
class Solution:
    """The result of all responses to a question together."""

    answer: str | None
    """The majority answer, or the first of equally frequent ones. None if no response has one, or if `abstained`."""
    share: float
    """Share of the responses that give the majority answer, also when it is withheld; 0 if there is none."""
    entropy: float
    """Entropy of the answers in nats: 0 if all agree, at most ln(number of clusters)."""
    abstained: bool
    """There is a majority answer, but the entropy is above the request's bound."""
    num_responses: int
    num_answerless: int
    num_truncated: int
    num_tokens: int
    """Number of tokens of all responses."""
    clusters: list[ServedCluster]
    """Largest first; of equal size, the one whose first response came first."""


@dataclass
class Solving:
    """The responses to one question as they arrive, and the solution so far. Each response is read once."""

    question: Question
    grader: Grader
    no_answer: Literal["cluster", "exclude"] = "cluster"
    abstain_above: float | None = None
    """The largest entropy, in nats, with which an answer is given; None: always."""
    num_failed: int = 0
    """Responses that have no answer because the grader failed on them."""
    error: str | None = None
    """How the grader failed first."""

    def __post_init__(self) -> None:
        self._tally = Tally(self.question, self.grader)
        self._responses: list[ServedResponse] = []

    def add(self, responses: Sequence[ServedResponse]) -> None:
        """Add responses in the order in which they came."""
        self._tally.add([response.text for response in responses])
        self._responses += responses

    def solution(self) -> Solution:
        """The solution by all responses so far; without responses, no answer and entropy 0."""
        graded, num_responses = self._tally.graded(), len(self._responses)
        self.num_failed, self.error = graded.num_failed, graded.error
        answered = [cluster for cluster in graded.clusters if cluster.answer is not None]
        entropy = measured("", graded.clusters, self.no_answer).entropy
        majority = answered[0] if answered else None
        abstained = majority is not None and self.abstain_above is not None and entropy > self.abstain_above
        first = {place: index for index, place in reversed(list(enumerate(graded.cluster)))}
        return Solution(
            answer=majority.answer if majority and not abstained else None,
            share=majority.num_responses / num_responses if majority else 0.0,
            entropy=entropy,
            abstained=abstained,
            num_responses=num_responses,
            num_answerless=graded.answers.count(None),
            num_truncated=sum(response.is_truncated for response in self._responses),
            num_tokens=sum(response.num_tokens for response in self._responses),
            clusters=[
                ServedCluster(
                    one.answer, one.num_responses, one.num_responses / num_responses, self._responses[first[place]].text
                )
                for place, one in enumerate(graded.clusters)
            ],
        )


class SolveRequest(BaseModel):
    """The body of `POST /v1/solve`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    question: Annotated[str, Field(min_length=1)]
    """The question's text; the server renders the prompt as in training."""
    responses: Annotated[int, Field(ge=1)] | None = None
    """Number of responses, by default 16 or the server's limit. More give better estimates of entropy and answer."""
    temperature: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: the smallest set of tokens whose probability reaches this."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest response, in tokens; by default the server's limit, or what the model's context leaves."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Makes the responses repeatable, as far as the engine's batching allows."""
    abstain_above: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Give no answer if the entropy, in nats, is above this."""
    stream: bool = False
    """Send server-sent events as responses finish. Each has the new responses and the solution so far; the last one
    has `done: true` and the complete solution."""


@dataclass(frozen=True)
class SolveResult(Solution):
    """The body of the answer to `POST /v1/solve`."""

    model: str
    num_prompt_tokens: int


@dataclass(frozen=True)
class EngineRequest:
    """A question as the engine gets it."""

    request: SolveRequest
    token_ids: list[int]
    params: Any  # vllm.SamplingParams


def count_in_metrics(solution: Solution) -> None:
    """Count a solution in Ray's metrics, which Prometheus reads together with the engine's."""
    outcome = "abstained" if solution.abstained else "no_answer" if solution.answer is None else "answered"
    questions, entropies = _metrics()
    questions.inc(tags={"outcome": outcome})
    entropies.observe(solution.entropy)


class Solver:
    """Asks an engine for the responses to a question and lets them vote."""

    def __init__(
        self,
        engine: Any,
        tokenizer: Any,
        settings: ServingConfig,
        grader: Grader,
        count: Callable[[Solution], None] = count_in_metrics,
    ) -> None:
        """`engine` is like vLLM's AsyncLLM, `settings` are resolved, `count` is called for each complete solution."""
        assert settings.prompt is not None and settings.answers is not None, "the settings are not resolved"
        self._engine, self._tokenizer, self._grader, self._count = engine, tokenizer, grader, count
        self._name, self._limits, self._prompt = settings.name, settings.limits, settings.prompt
        self._no_answer, self._stop = settings.answers.no_answer, settings.stop
        # Threads of its own: a grader that hangs keeps its thread, and others on this event loop need threads too.
        self._threads = ThreadPoolExecutor(_GRADING_THREADS, thread_name_prefix="grading")

    def prepare(self, request: SolveRequest) -> EngineRequest:
        """The request for the engine. Raises HTTPException 400 if the limits or the model's context do not allow it."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for name, asked, limit in (
            ("question", len(request.question), self._limits.max_prompt_chars),
            ("responses", request.responses or 1, self._limits.max_responses),
            ("max_tokens", request.max_tokens or 1, self._limits.max_tokens),
        ):
            if asked > limit:
                unit = "characters" if name == "question" else "requested"
                raise HTTPException(400, f"{name}: {asked} {unit}, but this server allows at most {limit}")
        text = render_prompt(self._tokenizer, request.question, self._prompt)
        token_ids = tokenize_prompt(self._tokenizer, text, self._prompt)
        context = int(self._engine.model_config.max_model_len)
        if len(token_ids) >= context:
            said = f"question: its prompt has {len(token_ids)} tokens, but the model's context is {context} tokens"
            raise HTTPException(400, said)
        params = SamplingParams(
            n=request.responses or min(DEFAULT_NUM_RESPONSES, self._limits.max_responses),
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=min(request.max_tokens or self._limits.max_tokens, context - len(token_ids)),
            seed=request.seed,
            stop=self._stop,
            output_kind=RequestOutputKind.CUMULATIVE if request.stream else RequestOutputKind.FINAL_ONLY,
        )
        return EngineRequest(request, token_ids, params)

    def require_engine(self) -> None:
        """Raise the error of a dead engine while the request can still be given to another replica."""
        if self._engine.errored:
            raise self._engine.dead_error

    async def solve(self, asked: EngineRequest) -> SolveResult:
        """The result of all responses. Raises HTTPException 500 if the grader cannot be loaded."""
        try:
            *_, (_, solution) = [part async for part in self._parts(asked)]
        except InputError as error:
            raise HTTPException(500, _explained(error)) from error
        return self._result(solution, asked)

    async def events(self, asked: EngineRequest) -> AsyncIterator[str]:
        """Server-sent events, see `SolveRequest.stream`. If an error ends the stream, its last event says so."""
        try:
            async with contextlib.aclosing(self._parts(asked)) as parts:
                async for finished, solution in parts:
                    is_done = solution.num_responses == asked.params.n
                    shown = asdict(self._result(solution, asked))
                    if not is_done:  # repeated in every event, the texts would be most of the stream
                        shown["clusters"] = [cluster | {"response": None} for cluster in shown["clusters"]]
                    yield _event({"done": is_done, "responses": [asdict(one) for one in finished], "solution": shown})
        except Exception as error:  # the status line has been sent, so the error can only be an event
            if getattr(self._engine, "errored", False):
                end_replica("/v1/solve", error)
            yield _event({"error": {"message": _explained(error), "type": "InternalServerError", "code": 500}})

    async def _parts(self, asked: EngineRequest) -> AsyncGenerator[tuple[list[ServedResponse], Solution], None]:
        """Responses that finish together, and the solution by all so far; the complete one is counted."""
        question, abstain_above = Question("", asked.request.question), asked.request.abstain_above
        solving = Solving(question, self._grader, no_answer=self._no_answer, abstain_above=abstain_above)
        prompt, loop = {"prompt_token_ids": asked.token_ids}, asyncio.get_running_loop()
        async with contextlib.aclosing(self._engine.generate(prompt, asked.params, f"solve-{uuid4().hex}")) as outputs:
            async for output in outputs:
                ended = [one for one in output.outputs if one.finish_reason is not None]
                if any(one.finish_reason not in ("stop", "length") for one in ended):
                    raise RuntimeError("the engine aborted a response")
                if ended:
                    finished = [ServedResponse(x.text, len(x.token_ids), x.finish_reason == "length") for x in ended]
                    await loop.run_in_executor(self._threads, solving.add, finished)
                    solution = await loop.run_in_executor(self._threads, solving.solution)
                    if solution.num_responses == asked.params.n:
                        self._count(solution)
                        _log_failures(solving)
                    yield finished, solution

    def _result(self, solution: Solution, asked: EngineRequest) -> SolveResult:
        return SolveResult(**vars(solution), model=self._name, num_prompt_tokens=len(asked.token_ids))


def end_replica(path: str, error: Exception) -> NoReturn:
    """End this replica's process, because its engine is dead; `gate.Failover` then asks another replica at once."""
    logger.error("%s: the engine is dead (%s)", path, type(error).__name__)
    os._exit(1)


def _explained(error: Exception) -> str:
    """What a client is told of an error, which is logged without its message: that may contain a prompt."""
    is_grader = isinstance(error, InputError)  # of all that answers a request, only grading raises it
    logger.error("/v1/solve failed: %s", type(error).__name__)
    return "the grader cannot be used" if is_grader else "internal error"


def _log_failures(solving: Solving) -> None:
    """Log the failures of the grader without what it says, which may contain a response."""
    if solving.num_failed:
        said, _, _ = (solving.error or "").partition(":")
        logger.error("/v1/solve: the grader failed on %d responses, first: %s", solving.num_failed, said)


def _event(values: dict[str, Any]) -> str:
    return f"data: {json.dumps(values)}\n\n"


@functools.cache  # a metric is registered with Ray once per process
def _metrics() -> tuple[Any, Any]:
    from ray.util import metrics

    bounds = [0.01, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0]
    return (
        metrics.Counter("east_ray_solved_questions", "Questions of /v1/solve by outcome", tag_keys=("outcome",)),
        metrics.Histogram("east_ray_entropy_nats", "Entropy of the answers", boundaries=bounds),
    )
