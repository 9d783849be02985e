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
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from east_ray.answers.grading import Grader
from east_ray.questions.prompts import load_tokenizer
from east_ray.report.html import templates
from east_ray.serving import chat
from east_ray.serving.gate import Gate
from east_ray.serving.settings import LimitsConfig, ServingConfig
from east_ray.serving.solver import Solver, SolveRequest, SolveResult, end_replica

#: The routes of vLLM's chat router that are served; its batches are not.
_CHAT_PATHS = ("/v1/chat/completions",)
#: The page is not shown in frames of other sites, and sends no address to them.
_PAGE_HEADERS = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_ERROR_CODES = (400, 401, 403, 408, 413, 429, 503)
_ERROR = {"description": "An error in the form of the OpenAI protocol"}

router = APIRouter(responses=dict.fromkeys(_ERROR_CODES, _ERROR))


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
    """The application around a vLLM engine client.

    Args:
        engine: vLLM's AsyncLLM.
        args: The arguments of vLLM's own server, and `model_folder`, where the tokenizer is.
        settings: Resolved.
        grader: Reads and compares the answers of `/v1/solve`.
        token_digest: See `settings.token_digest`.
    """
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
    app.state.openai_serving_chat = _LimitedChat(app.state.openai_serving_chat, settings.limits)
    app.state.solver = Solver(engine, load_tokenizer(args.model_folder), settings, grader)
    app.state.page = render_page(settings.name, settings.limits.max_responses)
    completions = APIRouter()
    completions.routes = [route for route in chat_router.routes if getattr(route, "path", "") in _CHAT_PATHS]
    app.include_router(router)
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

    With vLLM 0.29 `structured_outputs: []` does that. Requests that vLLM refuses properly are left to it.
    """
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.exceptions import VLLMError

    try:
        body = await request.json()
    except ValueError:
        return
    if problem := chat.problem(body, ChatCompletionRequest.model_fields, request.app.state.limits):
        raise HTTPException(400, problem)
    try:
        ChatCompletionRequest.model_validate(body)
    except (ValueError, VLLMError, HTTPException):
        return
    except Exception as error:
        raise HTTPException(
            400, "the body is not a chat completion request: a field has a value of a wrong type"
        ) from error


class _LimitedChat:
    """vLLM's chat completions within the server's limits.

    Requests that name no length get the engine's default, see `deployment.engine_arguments`.
    """

    def __init__(self, chat: Any, limits: LimitsConfig) -> None:
        self._chat, self._limits = chat, limits

    async def create_chat_completion(self, request: Any, raw_request: Request) -> Any:
        from vllm.entrypoints.serve import create_error_response

        tokens = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
        for name, asked, limit in (
            ("n", request.n or 1, self._limits.max_responses),
            ("max_completion_tokens", tokens or 1, self._limits.max_tokens),
        ):
            if asked > limit:
                said = f"{name}: {asked} requested, but this server allows at most {limit}"
                return create_error_response(said, param=name)
        return await self._chat.create_chat_completion(request, raw_request)


async def _end_replica(request: Request, error: Exception) -> Response:
    end_replica(request.url.path, error)
