"""The solver of /v1/solve with a scripted engine: limits, votes, streams, and how often each response is read."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from fastapi import HTTPException
from scripted_solver import ScriptedEngine, solver

from east_ray.answers.graders import MathGrader
from east_ray.records import Question
from east_ray.serving.application import render_page
from east_ray.serving.solving import Solution, Solver, SolveRequest


def events(asking: Solver, request: SolveRequest) -> list[dict[str, Any]]:
    async def collect() -> list[str]:
        return [part async for part in asking.events(asking.prepare(request))]

    return [json.loads(part.removeprefix("data: ")) for part in asyncio.run(collect())]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"responses": 9}, "responses: 9 requested, but this server allows at most 8"),
        ({"max_tokens": 33}, "max_tokens: 33 requested, but this server allows at most 32"),
        ({"question": "x" * 61}, "question: its prompt has 64 tokens, but the model's context is 64 tokens"),
    ],
)
def test_what_is_beyond_the_limits_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(HTTPException) as error:
        solver(ScriptedEngine(), max_responses=8, max_tokens=32).prepare(SolveRequest(**{"question": "?"} | asked))
    assert (error.value.status_code, error.value.detail) == (400, said)


def test_the_responses_vote() -> None:
    engine, counted = ScriptedEngine(r"\boxed{1/2}", r"\boxed{3}", r"\boxed{0.5}"), list[Solution]()
    asking, request = solver(engine, count=counted.append), SolveRequest(question="?", responses=3, top_p=0.9, seed=4)
    found = asyncio.run(asking.solve(asking.prepare(request)))
    assert (found.answer, found.num_responses, found.model, found.num_prompt_tokens) == ("1/2", 3, "m", len("Q: ?"))
    assert [solution.answer for solution in counted] == ["1/2"]
    (params,) = engine.params
    assert (params.n, params.top_p, params.seed) == (3, 0.9, 4)
    assert params.max_tokens == 64 - len("Q: ?")  # what the context leaves


def test_a_stream_sends_responses_as_they_finish_and_ends_with_the_whole_solution() -> None:
    texts, counted = (r"\boxed{1}", r"\boxed{2}", r"\boxed{2}"), list[Solution]()
    asking = solver(ScriptedEngine(*texts), count=counted.append)
    request = SolveRequest(question="?", responses=3, stream=True)
    found = events(asking, request)
    assert [one["text"] for event in found for one in event["responses"]] == list(texts)
    assert [event["solution"]["num_responses"] for event in found] == [1, 2, 3]
    assert [event["done"] for event in found] == [False, False, True]
    assert [cluster["response"] for cluster in found[1]["solution"]["clusters"]] == [None, None]
    assert found[-1]["solution"]["answer"] == "2"
    assert found[-1]["solution"]["clusters"][0]["response"] == texts[1]
    assert len(counted) == 1
    whole = asyncio.run(asking.solve(asking.prepare(request.model_copy(update={"stream": False}))))
    assert found[-1]["solution"] == json.loads(json.dumps(whole, default=vars))


class CountingGrader(MathGrader):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.num_read, self.questions, self.compared = 0, set[str](), list[int]()

    def read(self, response: str, question: Question) -> Any:
        self.num_read += 1
        self.questions.add(question.question)
        return super().read(response, question)

    def keys(self, answers: Sequence[str], question: Question) -> Any:
        self.compared.append(len(answers))
        return super().keys(answers, question)


@pytest.mark.parametrize("stream", [True, False])
def test_each_response_is_read_once_and_only_distinct_answers_are_compared(stream: bool) -> None:
    """Reading all responses so far at each of 128 events would be 128 * 129 / 2 = 8,256 reads."""
    grader = CountingGrader()
    asking = solver(ScriptedEngine(*(f"{n}: \\boxed{{{n % 3}}}" for n in range(128))), grader)
    request = SolveRequest(question="7 + 5?", responses=128, stream=stream)
    if stream:
        assert len(events(asking, request)) == 128
    else:
        asyncio.run(asking.solve(asking.prepare(request)))
    assert grader.num_read == 128 and grader.questions == {"7 + 5?"}
    assert max(grader.compared) == 3


def test_a_stream_that_fails_ends_with_an_error_without_internals() -> None:
    class FailingEngine(ScriptedEngine):
        async def generate(self, *arguments: Any) -> AsyncIterator[Any]:
            raise RuntimeError("/secret/path")
            yield

    (event,) = events(solver(FailingEngine()), SolveRequest(question="?", stream=True))
    assert event["error"] == {"message": "internal error", "type": "InternalServerError", "code": 500}


@pytest.mark.parametrize("stream", [True, False])
def test_where_the_grader_fails_there_is_no_answer_and_what_it_says_stays_inside(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class FailingGrader(MathGrader):
        def read(self, response: str, question: Question) -> Any:
            if response == "secret":
                raise KeyError(f"it is: {response}")
            return super().read(response, question)

    asking = solver(ScriptedEngine("secret", r"\boxed{3}", "secret"), FailingGrader())
    request = SolveRequest(question="?", responses=3, stream=stream)
    if stream:
        solution = events(asking, request)[-1]["solution"]
    else:
        solution = vars(asyncio.run(asking.solve(asking.prepare(request))))
    assert (solution["answer"], solution["num_answerless"]) == ("3", 2)
    assert "the grader failed on 2 responses, first: FailingGrader.read raised KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_a_grader_that_takes_long_does_not_block_the_event_loop() -> None:
    class SlowGrader(MathGrader):
        def read(self, response: str, question: Question) -> Any:
            time.sleep(0.5)
            return super().read(response, question)

    async def ticks_while_grading() -> int:
        asking = solver(ScriptedEngine(r"\boxed{3}"), SlowGrader())
        grading = asyncio.create_task(asking.solve(asking.prepare(SolveRequest(question="?", responses=1))))
        num_ticks = 0
        while not grading.done():
            await asyncio.sleep(0.01)
            num_ticks += 1
        return num_ticks

    assert asyncio.run(ticks_while_grading()) > 10


def test_the_page_holds_nothing_but_its_own_script() -> None:
    page = render_page("<script>alert(1)</script>", 8)
    assert page.count("<script") == 1 and "&lt;script" in page
    assert "http://" not in page and "https://" not in page
