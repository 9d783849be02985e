"""A trained model behind Ray Serve: the OpenAI protocol by vLLM's own classes, and the method's signal at `/v1/solve`.

    GET  /                      a page for people
    POST /v1/chat/completions   vLLM's, streaming too          GET /v1/models   vLLM's
    POST /v1/solve              one question, many responses, their clusters, entropy and majority answer
    GET  /health                200: a replica's engine lives  GET /openapi.json
    GET  /-/healthz             Ray Serve's own: 200 while this proxy has replicas to ask, also when all are busy

A replica is one vLLM engine (AsyncLLM) with its application around it, the same on CPU and GPU. `ray.serve.llm` is not
used: its GPU engines insist on Ray's executor and placement groups of their own, its packages are not among our pins,
and what it serves is the same application of vLLM's, whole: with endpoints that load adapters, start profilers or
answer outside /v1 unguarded by a token. Here only the routes above are mounted, behind `gate.Gate`.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import threading
import time
import types
from argparse import Namespace
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NoReturn
from uuid import uuid4

import jinja2
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from east_ray.config import AnswersConfig, ClusterConfig, InputError, PromptConfig
from east_ray.questions.prompts import load_tokenizer, render_prompt, tokenize
from east_ray.report.html import csp_hash
from east_ray.serving import chat, solving
from east_ray.serving.gate import Gate
from east_ray.serving.settings import (
    TOKEN_VARIABLE,
    HttpConfig,
    LimitsConfig,
    ReplicasConfig,
    ServingConfig,
    resolve,
    token_digest,
    validate,
)
from east_ray.storage import local_copy

#: Name of the application on a cluster; serving again under it is a rolling update.
APPLICATION = "east-ray"
#: Logs: warnings and worse, which hold no prompts.
_ENGINE_ENV = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
#: Seconds between looks at whether a replica's engine lives; three failures in a row replace it.
_HEALTH_CHECK_PERIOD_S = 2.0
#: Times that Ray Serve tries to begin a replica; what is wrong with a model or its arguments fails each time.
_MAX_ATTEMPTS = 3
#: Seconds that a replica may take to go besides what it has for its requests.
_DRAIN_EXTRA_S = 15.0
#: Seconds between words on how far the start is.
_SAY_EVERY_S = 10.0
#: Responses to a question of /v1/solve that names no number.
_NUM_RESPONSES = 16
#: Of vLLM's chat routes.
_CHAT_PATHS = ("/v1/chat/completions",)

logger = logging.getLogger("ray.serve")


class SolveRequest(BaseModel):
    """What `POST /v1/solve` takes."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    question: Annotated[str, Field(min_length=1)]
    """The question's text; the server renders the prompt as in training."""
    responses: Annotated[int, Field(ge=1)] | None = None
    """Responses to sample, by default 16 or the server's limit; the more, the better are entropy and majority known."""
    temperature: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: the smallest set of tokens whose probability reaches this."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest response, in tokens; by default the server's limit or what the model's context leaves."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Makes the responses repeatable, as far as the engine's batching allows."""
    abstain_above: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Give no answer if the entropy in nats is above this."""
    stream: bool = False
    """Send server-sent events as responses finish, each with those that are new and the solution so far; the last one
    has `done: true` and the whole solution."""


@dataclass(frozen=True)
class SolveResponse(solving.Solution):
    """What `POST /v1/solve` returns: the solution, and what was asked."""

    model: str
    num_prompt_tokens: int


# ------------------------------------------------------------------------------------------------------- the solver


@dataclass(frozen=True)
class Asked:
    """One question as the engine gets it."""

    token_ids: list[int]
    params: Any  # vllm.SamplingParams
    abstain_above: float | None


class Solver:
    """Asks an engine for the responses to a question and lets them vote."""

    def __init__(
        self, engine: Any, name: str, tokenizer: Any, prompt: PromptConfig, rules: AnswersConfig, limits: LimitsConfig
    ) -> None:
        """`engine` is a vllm AsyncLLM, or anything with its `generate` and `model_config.max_model_len`."""
        self._engine, self._name, self._tokenizer = engine, name, tokenizer
        self._prompt, self._rules, self._limits = prompt, rules, limits

    def prepare(self, request: SolveRequest) -> Asked:
        """What the engine is asked. Raises HTTPException 400 for what the limits or the context do not allow."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for name, asked, most in (
            ("question", len(request.question), self._limits.max_prompt_chars),
            ("responses", request.responses or 1, self._limits.max_responses),
            ("max_tokens", request.max_tokens or 1, self._limits.max_tokens),
        ):
            if asked > most:
                what = "characters" if name == "question" else "asked for"
                raise HTTPException(400, f"{name}: {asked} {what}, and this server allows {most}")
        token_ids = tokenize(self._tokenizer, render_prompt(self._tokenizer, request.question, self._prompt))
        context = int(self._engine.model_config.max_model_len)
        if len(token_ids) >= context:
            raise HTTPException(
                400, f"question: its prompt has {len(token_ids)} tokens, and the model's context is {context}"
            )
        params = SamplingParams(
            n=request.responses or min(_NUM_RESPONSES, self._limits.max_responses),
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=min(request.max_tokens or self._limits.max_tokens, context - len(token_ids)),
            seed=request.seed,
            output_kind=RequestOutputKind.CUMULATIVE if request.stream else RequestOutputKind.FINAL_ONLY,
        )
        return Asked(token_ids, params, request.abstain_above)

    def require_engine(self) -> None:
        """Raises what a dead engine raises, while the request can still be given to another replica."""
        if self._engine.errored:
            raise self._engine.dead_error

    async def solve(self, asked: Asked) -> SolveResponse:
        """All responses, and what they say together."""
        responses: list[solving.Response] = []
        async with contextlib.aclosing(self._finished(asked)) as parts:
            async for finished in parts:
                responses += finished
        solution = await asyncio.to_thread(solving.solve, responses, self._rules, asked.abstain_above)
        _count(solution)
        return self._response(solution, asked)

    async def events(self, asked: Asked) -> AsyncIterator[str]:
        """Server-sent events, see `SolveRequest.stream`; an error ends them as an event of its own."""
        responses: list[solving.Response] = []
        try:
            async with contextlib.aclosing(self._finished(asked)) as parts:
                async for finished in parts:
                    responses += finished
                    solution = await asyncio.to_thread(solving.solve, responses, self._rules, asked.abstain_above)
                    is_done = len(responses) == asked.params.n
                    shown = asdict(self._response(solution, asked))
                    if is_done:
                        _count(solution)
                    else:  # the texts of all clusters, again and again, would outweigh everything else
                        shown["clusters"] = [cluster | {"response": None} for cluster in shown["clusters"]]
                    yield _event({"done": is_done, "responses": [asdict(one) for one in finished], "solution": shown})
        except Exception as error:  # the status has been sent
            if getattr(self._engine, "errored", False):
                _leave("/v1/solve", error)
            logger.error("a streamed /v1/solve failed: %s", type(error).__name__)
            yield _event({"error": {"message": "the engine has failed", "type": "InternalServerError", "code": 500}})

    async def _finished(self, asked: Asked) -> AsyncGenerator[list[solving.Response], None]:
        prompt = {"prompt_token_ids": asked.token_ids}
        async with contextlib.aclosing(self._engine.generate(prompt, asked.params, f"solve-{uuid4().hex}")) as outputs:
            async for output in outputs:
                finished = [one for one in output.outputs if one.finish_reason is not None]
                if any(one.finish_reason not in ("stop", "length") for one in finished):
                    raise RuntimeError("the engine has given up a response")
                if finished:
                    yield [
                        solving.Response(one.text, len(one.token_ids), one.finish_reason == "length")
                        for one in finished
                    ]

    def _response(self, solution: solving.Solution, asked: Asked) -> SolveResponse:
        return SolveResponse(**vars(solution), model=self._name, num_prompt_tokens=len(asked.token_ids))


def _event(values: dict[str, Any]) -> str:
    return f"data: {json.dumps(values)}\n\n"


def _count(solution: solving.Solution) -> None:
    """Into Ray's metrics, which Prometheus reads beside those of the engine."""
    outcome = "abstained" if solution.abstained else "no_answer" if solution.answer is None else "answered"
    questions, entropies = _metrics()
    questions.inc(tags={"outcome": outcome})
    entropies.observe(solution.entropy)


def _metrics() -> tuple[Any, Any]:
    from ray.util import metrics

    global _METRICS  # noqa: PLW0603 - Ray registers a metric once for each process
    if _METRICS is None:
        _METRICS = (
            metrics.Counter("east_ray_solved_questions", "Questions of /v1/solve by outcome", tag_keys=("outcome",)),
            metrics.Histogram("east_ray_entropy_nats", "Entropy of the answers", boundaries=_ENTROPY_BOUNDARIES),
        )
    return _METRICS


_METRICS: tuple[Any, Any] | None = None
_ENTROPY_BOUNDARIES = [0.01, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0]


# ----------------------------------------------------------------------------------------------------------- routes

_ERROR = {"description": "What is wrong, as the OpenAI protocol says it"}
router = APIRouter(responses=dict.fromkeys((400, 401, 403, 408, 413, 429, 503), _ERROR))


@router.post("/v1/solve", response_model=SolveResponse)
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
    headers = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    return HTMLResponse(raw_request.app.state.page, headers=headers)


def render_page(name: str, max_responses: int) -> str:
    """The page at `/` for a model of this name."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("east_ray.serving", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["csp_hash"] = csp_hash
    return str(environment.get_template("page.html.jinja").render(name=name, max_responses=max_responses))


async def _checked_chat(request: Request) -> None:
    """Raises HTTPException 400 for a chat request that is not served, or over which vLLM's own checks would stumble.

    E.g. `structured_outputs: []`, with vLLM 0.29. What they refuse in due form is left to them to say.
    """
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.exceptions import VLLMError

    try:
        body = await request.json()
    except ValueError:
        return
    if said := chat.problem(body, ChatCompletionRequest.model_fields, request.app.state.limits):
        raise HTTPException(400, said)
    try:
        ChatCompletionRequest.model_validate(body)
    except (ValueError, VLLMError, HTTPException):
        return
    except Exception as error:
        raise HTTPException(
            400, "the body is no chat completion request: a field has a value of a wrong type"
        ) from error


class _LimitedChat:
    """vLLM's chat completions within the server's limits; the length of responses without one is the engine's."""

    def __init__(self, chat: Any, limits: LimitsConfig) -> None:
        self._chat, self._limits = chat, limits

    async def create_chat_completion(self, request: Any, raw_request: Request) -> Any:
        from vllm.entrypoints.serve import create_error_response

        tokens = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
        for name, asked, most in (
            ("n", request.n or 1, self._limits.max_responses),
            ("max_completion_tokens", tokens or 1, self._limits.max_tokens),
        ):
            if asked > most:
                return create_error_response(f"{name}: {asked} asked for, and this server allows {most}", param=name)
        return await self._chat.create_chat_completion(request, raw_request)


async def _end_replica(request: Request, error: Exception) -> Response:
    _leave(request.url.path, error)


def _leave(path: str, error: Exception) -> NoReturn:
    """An engine that has died takes its replica along, so that `Failover` gives its requests to another one at once."""
    logger.error("%s: the engine is gone (%s)", path, type(error).__name__)
    os._exit(1)


async def build_application(engine: Any, args: Namespace, settings: ServingConfig, digest: str | None) -> FastAPI:
    """The application around a vLLM engine client; `settings` as `resolve` gives them, `digest` of the token."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.openai.chat_completion.api_router import router as chat_router
    from vllm.entrypoints.openai.models.api_router import router as models_router
    from vllm.entrypoints.serve.exception_handling.handlers.http import http_exception_handler
    from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
    from vllm.entrypoints.serve.instrumentator.health import router as health_router
    from vllm.v1.engine.exceptions import EngineDeadError

    assert settings.prompt is not None and settings.answers is not None, "the settings are not resolved"
    app = FastAPI(title="east-ray", docs_url=None, redoc_url=None)  # their pages load scripts from elsewhere
    app.state.args = args
    app.state.server = types.SimpleNamespace()  # vLLM's handlers tell it to exit; here check_health sees to that
    await init_app_state(engine, app.state, args, ("generate",))
    app.state.limits = settings.limits
    app.state.openai_serving_chat = _LimitedChat(app.state.openai_serving_chat, settings.limits)
    tokenizer = load_tokenizer(args.model_folder)
    app.state.solver = Solver(engine, settings.name, tokenizer, settings.prompt, settings.answers, settings.limits)
    app.state.page = render_page(settings.name, settings.limits.max_responses)
    app.include_router(router)
    completions = APIRouter()
    completions.routes = [one for one in chat_router.routes if getattr(one, "path", "") in _CHAT_PATHS]  # not batches
    app.include_router(completions, dependencies=[Depends(_checked_chat)])
    for vllm_router in (models_router, health_router):
        app.include_router(vllm_router)
    init_exception_handler(app)
    app.exception_handler(StarletteHTTPException)(http_exception_handler)  # also of paths that there are not
    app.exception_handler(EngineDeadError)(_end_replica)
    app.add_middleware(
        Gate,
        token_digest=digest,
        allow_without_token=settings.allow_without_token,
        max_body_bytes=settings.limits.max_body_bytes,
    )
    return app


# ------------------------------------------------------------------------------------------------------------- Ray


class Server:
    """A replica: one engine and its application."""

    def __init__(self, settings: ServingConfig, digest: str | None) -> None:
        self._settings, self._digest = settings, digest
        self._engine: Any = None

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Start the engine, in a process of its own, and build the application on this replica's event loop."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers.cli_args import FrontendArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

        engine_args = AsyncEngineArgs(**engine_arguments(self._settings))
        self._engine = await asyncio.to_thread(
            AsyncLLM.from_engine_args,
            engine_args,
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[RayPrometheusStatLogger],
        )
        # What the application and the metrics call the model; its folder is nobody's business.
        named = {"model": self._settings.name, "served_model_name": [self._settings.name]}
        folder = {"model_folder": engine_args.model}
        assert self._settings.prompt is not None
        prompt = {"default_chat_template_kwargs": self._settings.prompt.template_variables}  # as in training
        args = Namespace(**(vars(FrontendArgs()) | vars(engine_args) | named | folder | prompt))
        return await build_application(self._engine, args, self._settings, self._digest)

    async def check_health(self) -> None:
        """Asked by Ray Serve, which replaces the replica if this raises."""
        if self._engine is not None:
            await self._engine.check_health()

    def __del__(self) -> None:
        if getattr(self, "_engine", None) is not None:
            self._engine.shutdown()


def engine_arguments(settings: ServingConfig) -> dict[str, Any]:
    """vLLM's engine arguments for resolved settings."""
    on_cpu = not settings.replicas.num_gpus
    # On a CPU a seeded request whose prompt is read in two steps fails, and takes the engine with it.
    unchunked = {"enable_chunked_prefill": False} if on_cpu else {}
    generation = {"max_new_tokens": settings.limits.max_tokens}
    overridden = settings.engine_args.get("override_generation_config", {}) | generation
    return {
        **unchunked,
        **settings.engine_args,
        "model": local_copy(settings.model),
        "served_model_name": [settings.name],
        "override_generation_config": overridden,
        "enable_log_requests": False,
    }


def application(settings: ServingConfig, digest: str | None) -> Any:
    """Ray Serve's application, in the cluster that has been joined; `digest` of the token. Raises InputError."""
    import ray
    from ray import serve

    settings = resolve(settings, has_gpus="GPU" in ray.cluster_resources())
    if "://" not in settings.model:
        load_tokenizer(settings.model)  # says what is wrong at once, and not after attempts to begin a replica
    replicas = settings.replicas
    deployment = serve.deployment(
        serve.ingress()(Server),
        name="Server",
        autoscaling_config={
            "min_replicas": replicas.min_replicas,
            "max_replicas": replicas.max_replicas,
            "target_ongoing_requests": replicas.target_ongoing_requests,
            "upscale_delay_s": replicas.upscale_delay_s,
            "downscale_delay_s": replicas.downscale_delay_s,
        },
        max_ongoing_requests=replicas.max_ongoing_requests,
        max_queued_requests=replicas.max_queued_requests,
        backpressure_config={"status_code": 429, "retry_after_s": replicas.retry_after_s},
        graceful_shutdown_timeout_s=replicas.drain_s,
        max_surge_percent=replicas.max_surge_percent,
        health_check_period_s=_HEALTH_CHECK_PERIOD_S,
        max_constructor_retry_count=_MAX_ATTEMPTS,
        ray_actor_options={
            "num_cpus": replicas.num_cpus,
            "num_gpus": replicas.num_gpus,
            "resources": replicas.resources,
            "runtime_env": {"env_vars": _ENGINE_ENV | settings.env},
        },
    )
    return deployment.bind(settings, digest)


def build(args: dict[str, Any]) -> Any:
    """The application for the files of ``serve deploy``; they need the `controller_options` of serve.yaml too."""
    if ignored := sorted({"http", "address"} & args.keys()):
        raise InputError(f"{ignored[0]}: only `east-ray serve` has it; here `http_options` says where to listen")
    settings = validate(args)
    return application(settings, token_digest(settings))


#: Has Ray Serve's proxies put `gate.Failover` around themselves.
CONTROLLER_OPTIONS = {
    "runtime_env": {
        "env_vars": {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "east_ray.serving.gate.proxy_middlewares"}
    }
}


def start(settings: ServingConfig, say: Callable[[str], None]) -> None:
    """Serve, and say where once it answers.

    In a cluster that is joined the service stays there and this returns; if one is there already, its replicas are
    replaced one after another, without a failed request. A Ray of this process's own serves until SIGINT or SIGTERM,
    and then finishes what has begun. Raises InputError if the settings cannot be used or a replica cannot begin.
    """
    import ray
    from ray import serve

    from east_ray.ray_cluster import connect, is_joined

    digest, cluster, http = token_digest(settings), ClusterConfig(address=settings.address), settings.http
    if settings.replicas.resources is None and not is_joined(cluster):  # those of the run's cluster, which is not here
        replicas = settings.replicas.model_copy(update={"resources": {}})
        settings = settings.model_copy(update={"replicas": replicas})
    resolve(settings)  # what is wrong is said before a cluster is begun
    os.environ.pop(TOKEN_VARIABLE, None)  # workers and engines would inherit it
    connect(cluster)
    settings = resolve(settings, has_gpus="GPU" in ray.cluster_resources())
    app = application(settings, digest)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # of this process; those of the replicas write files
    _start_proxies(http)
    require_resources(settings.replicas, ray.cluster_resources(), is_joined(cluster), say)
    target = serve.RunTarget(app, name=APPLICATION, route_prefix="/")
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    _wait_until_it_runs(settings.model, say)
    host = f"[{http.host}]" if ":" in http.host else http.host
    say(f"serving {settings.name} at http://{host}:{http.port}")
    for node in ray.nodes():
        say(f"metrics of {node['NodeManagerAddress']}: port {node['MetricsExportPort']}")
    if is_joined(cluster):
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:  # the way to end a service, so no failure
        say("stopping as soon as what has begun is finished; interrupt again to stop at once")
    finally:
        try:
            _drain(settings.replicas.drain_s)
        finally:
            serve.shutdown()


def _interrupt(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may come twice
    raise KeyboardInterrupt


def _drain(seconds: float) -> None:
    """End the application, whose replicas finish what they have begun; the proxy goes only after them."""
    from ray import serve

    serve.delete(APPLICATION, _blocking=False)
    end = time.monotonic() + seconds + _DRAIN_EXTRA_S
    while APPLICATION in serve.status().applications and time.monotonic() < end:
        time.sleep(0.2)


def _start_proxies(http: HttpConfig) -> None:
    from ray import serve
    from ray.serve.context import _get_global_client

    others = serve.status().applications
    if others and APPLICATION not in others:  # its proxies were begun without `Failover`, and cannot get it any more
        raise InputError(
            f"address: Ray Serve has other applications on this cluster already ({', '.join(others)}); end it first "
            "(`serve shutdown`), or begin it with cluster_configs/serve.yaml and add them there"
        )
    asked = {"host": http.host, "port": http.port, "request_timeout_s": http.request_timeout_s}
    serve.start(http_options=asked, controller_options=CONTROLLER_OPTIONS)
    there = _get_global_client().http_config
    if found := [f"{key}={getattr(there, key)}" for key, value in asked.items() if getattr(there, key) != value]:
        raise InputError(f"http: Ray Serve runs on this cluster already with {', '.join(found)}; name these, or end it")


def require_resources(
    replicas: ReplicasConfig, there: Mapping[str, float], is_joined: bool, say: Callable[[str], None]
) -> None:
    """Refuse replicas that a Ray of this process's own can never hold; a cluster may have nodes still to come."""
    wanted = [("num_gpus", "GPU", replicas.num_gpus), ("num_cpus", "CPU", replicas.num_cpus)]
    wanted += [("resources", resource, amount) for resource, amount in (replicas.resources or {}).items()]
    for key, resource, amount in wanted:
        needed, found = (amount or 0) * replicas.min_replicas, there.get(resource, 0)
        if needed > found and is_joined:
            say(f"waiting for nodes: replicas.{key} needs {needed:g} {resource}s in all, and there are {found:g} now")
        elif needed > found:
            raise InputError(
                f"replicas.{key}: {needed:g} {resource}s are needed in all, and this machine has {found:g}"
            )


def _wait_until_it_runs(model: str, say: Callable[[str], None]) -> None:
    """Says every now and then how far it is. Raises InputError with the engine's own words if no replica can begin."""
    from ray import serve

    next_word = time.monotonic() + _SAY_EVERY_S
    while True:
        application = serve.status().applications[APPLICATION]
        replicas = next(iter(application.deployments.values()), None)
        if application.status == "RUNNING":
            return
        if application.status == "DEPLOY_FAILED":
            said = replicas.message if replicas is not None else application.message
            raise InputError(f"model: {model} cannot be served: {cause(said)}")
        if time.monotonic() >= next_word:
            states = replicas.replica_states if replicas is not None else {}
            say("starting; replicas: " + (", ".join(f"{n} {state.lower()}" for state, n in states.items()) or "none"))
            next_word += _SAY_EVERY_S
        time.sleep(0.2)


def cause(message: str) -> str:
    """What a replica's traceback says has gone wrong: of its lines that name an error, the first that is of substance.

    vLLM's own last one refers to others, and pydantic says what is wrong in the line below.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [at for at, line in enumerate(lines) if re.match(r"(?:\w+\.)*\w*(?:Error|Exception)\b.*: ", line)]
    for at in errors:
        if not re.search("root cause above|RayTaskError|Traceback", lines[at]):
            is_pydantic = "validation error" in lines[at] and at + 1 < len(lines)
            return lines[at + 1].partition(" [type=")[0] if is_pydantic else lines[at]
    return lines[-1] if lines else "no reason given"
