"""The HTTP application of a replica: vLLM's own OpenAI routes, `/v1/solve` and a page, around one engine.

    GET  /                      a page for people
    POST /v1/chat/completions   vLLM's, streaming too          GET /v1/models   vLLM's
    POST /v1/solve              one question, many responses, their clusters, entropy and majority answer
    GET  /health                200: the replica's engine is alive  GET /openapi.json

vLLM's application also has endpoints that load adapters, start profilers or answer outside /v1 without a token. So only
the routes above are included here, behind `gate.Gate`. Ray Serve's proxy adds /-/healthz: 200 while the proxy has
replicas to ask, also when all of them are busy.
"""

import asyncio
import types
from argparse import Namespace
from collections.abc import Collection
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from east_ray.answers.grading import Grader
from east_ray.questions.prompts import load_tokenizer
from east_ray.report.html import templates
from east_ray.serving.gate import Gate
from east_ray.serving.settings import LimitsConfig, ServingConfig
from east_ray.serving.solving import Solver, SolveRequest, SolveResult, end_replica

#: The page is not shown in frames of other sites, and sends no address to them.
_PAGE_HEADERS = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_ERROR = {"description": "An error in the form of the OpenAI protocol"}

# vLLM trusts its clients: some fields of its protocol can kill an engine and with it all its requests (e.g. more biases
# than its kernels hold), name files and addresses to fetch, or are meant for operators. Nothing bounds the time that
# the grammar of a structured output takes (vllm#54003).
_EXCHANGE = ("messages", "model", "user", "stream", "stream_options", "logprobs", "top_logprobs", "skip_special_tokens")
_SAMPLING = ("n", "seed", "temperature", "top_p", "top_k", "min_p", "logit_bias")
_PENALTIES = ("frequency_penalty", "presence_penalty", "repetition_penalty")
_LENGTH = ("max_tokens", "max_completion_tokens", "min_tokens", "ignore_eos")
_STOP = ("stop", "stop_token_ids", "include_stop_str_in_output")
#: The fields of a chat request that may be used: OpenAI's parameters, and those of vLLM's that cannot harm an engine.
_SERVED = (*_EXCHANGE, *_SAMPLING, *_PENALTIES, *_LENGTH, *_STOP)
#: Served only with `limits.structured_outputs`.
_STRUCTURED = ("response_format", "structured_outputs")
#: Served always: the value of a structured field that asks for nothing.
_UNSTRUCTURED = ("response_format", {"type": "text"})
#: Largest number of items by field, and the bounds of every value.
_MAX_ITEMS = {"logit_bias": 300, "stop_token_ids": 64, "stop": 16, "messages": 1024}
_MAX_INTEGER, _MAX_DEPTH = 2**31 - 1, 32

router = APIRouter(responses=dict.fromkeys((400, 401, 403, 408, 413, 429, 503), _ERROR))


@router.post("/v1/solve", response_model=SolveResult)
async def solve(request: SolveRequest, raw_request: Request) -> Any:
    """Sample responses to a question, cluster their answers, and answer with the largest cluster."""
    solver: Solver = raw_request.app.state.solver
    asked = await asyncio.to_thread(solver.prepare, request)
    if request.stream:
        solver.require_engine()
        return StreamingResponse(solver.events(asked), media_type="text/event-stream")
    return await solver.solve(asked)


@router.get("/", response_class=HTMLResponse)
async def page(raw_request: Request) -> HTMLResponse:
    """The page for people."""
    return HTMLResponse(raw_request.app.state.page, headers=_PAGE_HEADERS)


def render_page(name: str, max_responses: int) -> str:
    """The page at `/` for a model of this name."""
    page = templates("east_ray.serving").get_template("page.html.jinja")
    return str(page.render(name=name, max_responses=max_responses))


async def build_application(
    engine: Any, args: Namespace, settings: ServingConfig, grader: Grader, token_digest: str | None
) -> FastAPI:
    """The application around a vLLM AsyncLLM. `settings` are resolved; `args` are vLLM's, with `model_folder`."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.openai.chat_completion.api_router import router as chat_router
    from vllm.entrypoints.openai.models.api_router import router as models_router
    from vllm.entrypoints.serve.exception_handling.handlers.http import http_exception_handler
    from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
    from vllm.entrypoints.serve.instrumentator.health import router as health_router
    from vllm.v1.engine.exceptions import EngineDeadError

    app = FastAPI(title="east-ray", docs_url=None, redoc_url=None)  # FastAPI's pages load scripts from other sites
    app.state.args = args
    # vLLM's handlers tell their HTTP server to exit when the engine dies; here Server.check_health does that job.
    app.state.server = types.SimpleNamespace()
    await init_app_state(engine, app.state, args, ("generate",))
    app.state.limits = settings.limits
    app.state.solver = Solver(engine, load_tokenizer(args.model_folder), settings, grader)
    app.state.page = render_page(settings.name, settings.limits.max_responses)
    app.include_router(router)
    completions = APIRouter()  # without the router's batches
    completions.routes = [one for one in chat_router.routes if getattr(one, "path", "") == "/v1/chat/completions"]
    app.include_router(completions, dependencies=[Depends(_checked_chat)])
    app.include_router(models_router)
    app.include_router(health_router)
    init_exception_handler(app)
    app.exception_handler(StarletteHTTPException)(http_exception_handler)  # also for unknown paths
    app.exception_handler(EngineDeadError)(_end_replica)
    app.add_middleware(
        Gate,
        token_digest=token_digest,
        allow_without_token=settings.allow_without_token,
        max_body_bytes=settings.limits.max_body_bytes,
    )
    return app


async def _checked_chat(request: Request) -> None:
    """Raise HTTPException 400 for a chat request that is not served, or that makes vLLM's own validation crash.

    With vLLM 0.29 `structured_outputs: []` does that. What vLLM refuses properly is left to it, and a missing length to
    `deployment.engine_arguments`. Raises VLLMValidationError beyond the limits.
    """
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.exceptions import VLLMError, VLLMValidationError

    limits: LimitsConfig = request.app.state.limits
    try:
        body = await request.json()
    except ValueError:
        return
    if problem := chat_problem(body, ChatCompletionRequest.model_fields, limits):
        raise HTTPException(400, problem)
    try:
        chat = ChatCompletionRequest.model_validate(body)
    except (ValueError, VLLMError, HTTPException):
        return
    except Exception as error:
        said = "the body is not a chat completion request: a field has a value of a wrong type"
        raise HTTPException(400, said) from error
    tokens = chat.max_completion_tokens if chat.max_completion_tokens is not None else chat.max_tokens
    bounds = {"n": (chat.n, limits.max_responses), "max_completion_tokens": (tokens, limits.max_tokens)}
    for name, (asked, limit) in bounds.items():
        if asked and asked > limit:
            said = f"{name}: {asked} requested, but this server allows at most {limit}"
            raise VLLMValidationError(said, parameter=name)


async def _end_replica(request: Request, error: Exception) -> Response:
    end_replica(request.url.path, error)


def chat_problem(body: Any, known: Collection[str], limits: LimitsConfig) -> str | None:
    """Why the body of a chat request is refused, or None. `known` are vLLM's fields; vLLM ignores all others.

    >>> chat_problem({"messages": [], "priority": 1}, {"messages", "priority"}, LimitsConfig())
    'priority: not served'
    """
    if not isinstance(body, dict):
        return None
    served = _SERVED + _STRUCTURED if limits.structured_outputs else _SERVED
    for name, value in body.items():
        if name in known and name not in served and value is not None and (name, value) != _UNSTRUCTURED:
            return f"{name}: not served"
        limit = _MAX_ITEMS.get(name)
        if limit is not None and isinstance(value, list | dict) and len(value) > limit:
            return f"{name}: {len(value)} items, but this server allows at most {limit}"
        if not _can_be_sent(value):
            return f"{name}: a number is out of range, a text is not valid Unicode, or the nesting is too deep"
    messages = body.get("messages")
    parts = [part for message in (messages if isinstance(messages, list) else []) for part in _parts(message)]
    if any(isinstance(part, dict) and part.get("type", "text") != "text" for part in parts):
        return "messages: only text is served"
    num_chars = sum(len(part if isinstance(part, str) else str(part.get("text", ""))) for part in parts)
    said = f"messages: {num_chars} characters, but this server allows at most {limits.max_prompt_chars}"
    return said if num_chars > limits.max_prompt_chars else None


def _can_be_sent(value: Any, depth: int = _MAX_DEPTH) -> bool:
    """Whether a value can be sent to the engine's process: bounded integers and nesting, texts that can be encoded."""
    if depth == 0:
        return False
    if isinstance(value, dict):
        return all(_can_be_sent(key, depth - 1) and _can_be_sent(one, depth - 1) for key, one in value.items())
    if isinstance(value, list):
        return all(_can_be_sent(one, depth - 1) for one in value)
    if isinstance(value, int):
        return abs(value) <= _MAX_INTEGER
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
    return True


def _parts(message: Any) -> list[Any]:
    """The content of a message as a list of texts and parts."""
    content = message.get("content") if isinstance(message, dict) else None
    return [part for part in (content if isinstance(content, list) else [content]) if isinstance(part, str | dict)]
