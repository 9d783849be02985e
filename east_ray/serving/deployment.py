"""A trained model behind Ray Serve: replicas, their start, the proxies, and the end of the service.

A replica is one vLLM engine (AsyncLLM) and the HTTP application around it (application.py), the same on CPU and GPU.
`ray.serve.llm` is not used: its GPU engines require Ray's executor and placement groups of their own, its packages are
not among our pinned ones, and it serves vLLM's application as a whole, unguarded endpoints included.
"""

import asyncio
import logging
import os
import re
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from east_ray.answers import graders
from east_ray.answers.grading import Grader
from east_ray.config import ClusterConfig, InputError
from east_ray.config.base import validated
from east_ray.questions.prompts import load_tokenizer, render_prompt
from east_ray.ray_cluster import address_of, connect, demands, require
from east_ray.serving.application import build_application
from east_ray.serving.settings import TOKEN_VARIABLE, HttpConfig, ServingConfig, resolve, token_digest, with_gpus
from east_ray.storage import local_copy

#: Name of the application on a cluster; serving again under this name is a rolling update.
APPLICATION = "east-ray"
_PROXY_ENV = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "east_ray.serving.gate.proxy_middlewares"}
#: Makes Ray Serve's proxies wrap themselves in `gate.Failover`.
CONTROLLER_OPTIONS = {"runtime_env": {"env_vars": _PROXY_ENV}}
#: The settings of `replicas` that Ray Serve's autoscaling knows under the same names.
_AUTOSCALING = {"min_replicas", "max_replicas", "target_ongoing_requests", "upscale_delay_s", "downscale_delay_s"}
#: The engine logs only warnings and errors, which contain no prompts.
_ENGINE_ENV = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
#: Seconds between two looks at the application's status, and between two progress messages during the start.
_POLL_S, _PROGRESS_PERIOD_S = 0.2, 10.0


class Server:
    """A replica: one engine and its application."""

    def __init__(self, settings: ServingConfig, grader: Grader, digest: str | None) -> None:
        self._settings, self._grader, self._digest = settings, grader, digest
        self._engine: Any = None

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Start the engine, in a process of its own, and build the application on this replica's event loop."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers.cli_args import FrontendArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

        engine_args = AsyncEngineArgs(**engine_arguments(self._settings))
        kind, loggers = UsageContext.OPENAI_API_SERVER, [RayPrometheusStatLogger]
        self._engine = await asyncio.to_thread(
            AsyncLLM.from_engine_args, engine_args, usage_context=kind, stat_loggers=loggers
        )
        assert self._settings.prompt is not None
        changes = {
            # Application and metrics use the model's name: clients must not see its folder.
            "model": self._settings.name,
            "served_model_name": [self._settings.name],
            "model_folder": engine_args.model,
            "default_chat_template_kwargs": self._settings.prompt.template_variables,  # as in training
        }
        args = Namespace(**(vars(FrontendArgs()) | vars(engine_args) | changes))
        return await build_application(self._engine, args, self._settings, self._grader, self._digest)

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica if this raises."""
        if self._engine is not None:
            await self._engine.check_health()

    def __del__(self) -> None:
        if getattr(self, "_engine", None) is not None:
            self._engine.shutdown()


def engine_arguments(settings: ServingConfig) -> dict[str, Any]:
    """vLLM's engine arguments for resolved settings."""
    on_cpu = not settings.replicas.num_gpus
    # On a CPU a seeded request whose prompt is processed in two chunks fails and kills the engine.
    unchunked = {"enable_chunked_prefill": False} if on_cpu else {}
    generation = settings.engine_args.get("override_generation_config", {})
    return {
        **unchunked,
        **settings.engine_args,
        "model": local_copy(settings.model),
        "served_model_name": [settings.name],
        "override_generation_config": generation | {"max_new_tokens": settings.limits.max_tokens},
        "enable_log_requests": False,
    }


def bind(settings: ServingConfig, grader: Grader, digest: str | None) -> Any:
    """Ray Serve's application for resolved settings. Raises InputError if the model has no such prompt."""
    from ray import serve

    if "://" not in settings.model:
        # A wrong model or prompt is reported at once instead of after several starts of a replica.
        assert settings.prompt is not None
        render_prompt(load_tokenizer(settings.model), "?", settings.prompt)
    replicas = settings.replicas
    deployment = serve.deployment(
        serve.ingress()(Server),
        name="Server",
        autoscaling_config=replicas.model_dump(include=_AUTOSCALING),
        max_ongoing_requests=replicas.max_ongoing_requests,
        max_queued_requests=replicas.max_queued_requests,
        backpressure_config={"status_code": 429, "retry_after_s": replicas.retry_after_s},
        graceful_shutdown_timeout_s=replicas.drain_s,
        max_surge_percent=replicas.max_surge_percent,
        health_check_period_s=2.0,  # three failures in a row replace the replica
        max_constructor_retry_count=3,  # a wrong model or engine argument fails every time
        ray_actor_options=replicas.model_dump(include={"num_cpus", "num_gpus", "resources"})
        | {"runtime_env": {"env_vars": _ENGINE_ENV | settings.env}},
    )
    return deployment.bind(settings, grader, digest)


def build(args: dict[str, Any]) -> Any:
    """The application for the files of ``serve deploy``; they need the `controller_options` of serve.yaml too."""
    import ray

    if ignored := sorted({"http", "address"} & args.keys()):
        raise InputError(f"{ignored[0]}: only for `east-ray serve`; in this file use `http_options`")
    settings = validated(ServingConfig, args)
    digest = token_digest(settings)
    settings, grader = _prepared(settings)
    return bind(with_gpus(settings, "GPU" in ray.cluster_resources()), grader, digest)


def start(settings: ServingConfig, say: Callable[[str], None]) -> None:
    """Serve, and report the address once the service answers.

    In a joined cluster the service stays and this returns; a service that runs there already has its replicas replaced
    one after another, without a failed request. Otherwise this process has a Ray of its own and serves until SIGINT or
    SIGTERM, and then finishes the requests in progress. Raises InputError if this cannot be done.
    """
    import ray
    from ray import serve

    digest, cluster, http = token_digest(settings), ClusterConfig(address=settings.address), settings.http
    is_joined = address_of(cluster) is not None
    if settings.replicas.resources is None and not is_joined:
        # The run's custom resources belong to the run's cluster; a Ray of this process's own has none of them.
        replicas = settings.replicas.model_copy(update={"resources": {}})
        settings = settings.model_copy(update={"replicas": replicas})
    settings, grader = _prepared(settings)
    os.environ.pop(TOKEN_VARIABLE, None)  # workers and engines would inherit it
    connect(cluster)
    settings = with_gpus(settings, "GPU" in ray.cluster_resources())
    app = bind(settings, grader, digest)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # in this process only; replicas log to files
    _start_proxies(http)
    wanted = demands("replicas", settings.replicas, settings.replicas.min_replicas)
    require(wanted, ray.cluster_resources(), is_joined, say)
    target = serve.RunTarget(app, name=APPLICATION, route_prefix="/")
    serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    _wait_until_it_runs(settings.model, say)
    host = f"[{http.host}]" if ":" in http.host else http.host
    say(f"serving {settings.name} at http://{host}:{http.port}")
    for node in ray.nodes():
        say(f"metrics of {node['NodeManagerAddress']}: port {node['MetricsExportPort']}")
    if not is_joined:
        _serve_until_interrupted(settings.replicas.drain_s, say)


def _prepared(settings: ServingConfig) -> tuple[ServingConfig, Grader]:
    """The resolved settings and their grader: all that can be wrong without a cluster is reported here."""
    settings = resolve(settings)
    assert settings.answers is not None
    return settings, graders.load(settings.answers)


def _serve_until_interrupted(drain_s: float, say: Callable[[str], None]) -> None:
    from ray import serve

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:  # the regular end of a service, not a failure
        say("stopping when the requests in progress are finished; interrupt again to stop at once")
    finally:
        try:  # the proxies still run while the replicas finish their requests
            serve.delete(APPLICATION, _blocking=False)
            end = time.monotonic() + drain_s + 15.0  # the time that a replica itself may take to stop
            while APPLICATION in serve.status().applications and time.monotonic() < end:
                time.sleep(_POLL_S)
        finally:
            serve.shutdown()


def _interrupt(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the signal may be sent twice
    raise KeyboardInterrupt


def _start_proxies(http: HttpConfig) -> None:
    from ray import serve
    from ray.serve.context import _get_global_client

    others = serve.status().applications
    if others and APPLICATION not in others:  # its proxies were started without `Failover` and cannot get it later
        raise InputError(
            f"address: Ray Serve already runs other applications on this cluster ({', '.join(others)}); end it first "
            "(`serve shutdown`), or start it with cluster_configs/serve.yaml and add them to that file"
        )
    wanted = {"host": http.host, "port": http.port, "request_timeout_s": http.request_timeout_s}
    serve.start(http_options=wanted, controller_options=CONTROLLER_OPTIONS)
    found = _get_global_client().http_config
    if differing := [f"{key}={getattr(found, key)}" for key, value in wanted.items() if getattr(found, key) != value]:
        settings = ", ".join(differing)
        raise InputError(f"http: Ray Serve already runs on this cluster with {settings}; use these settings, or end it")


def _wait_until_it_runs(model: str, say: Callable[[str], None]) -> None:
    """Report progress now and then. Raises InputError with the engine's own words if no replica can start."""
    from ray import serve

    next_message = time.monotonic() + _PROGRESS_PERIOD_S
    while True:
        application = serve.status().applications[APPLICATION]
        if application.status == "RUNNING":
            return
        replicas = next(iter(application.deployments.values()), None)
        if application.status == "DEPLOY_FAILED":
            said = replicas.message if replicas is not None else application.message
            raise InputError(f"model: {model} cannot be served: {cause(said)}")
        if time.monotonic() >= next_message:
            states = replicas.replica_states if replicas is not None else {}
            say("starting; replicas: " + (", ".join(f"{n} {state.lower()}" for state, n in states.items()) or "none"))
            next_message += _PROGRESS_PERIOD_S
        time.sleep(_POLL_S)


def cause(message: str) -> str:
    """The reason in a replica's traceback: of its lines that name an error, the first informative line.

    vLLM's last error only refers to earlier ones, and pydantic gives the reason on the line below the error's name.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [at for at, line in enumerate(lines) if re.match(r"(?:\w+\.)*\w*(?:Error|Exception)\b.*: ", line)]
    for at in errors:
        if not re.search("root cause above|RayTaskError|Traceback", lines[at]):
            is_pydantic = "validation error" in lines[at] and at + 1 < len(lines)
            return lines[at + 1].partition(" [type=")[0] if is_pydantic else lines[at]
    return lines[-1] if lines else "no reason given"
