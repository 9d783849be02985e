"""Every setting of serving, strict as in config.py, and how a run or a model becomes what is served.

Imports neither Ray nor vLLM, so that the command line refuses a mistake at once.
"""

import hashlib
import ipaddress
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from east_ray.config import AnswersConfig, Config, InputError, PromptConfig
from east_ray.config.files import merge
from east_ray.config.messages import sentences
from east_ray.storage import RunDirectory, load_run, resolve_model

#: Environment variable of the bearer token; it wins over `token_file`.
TOKEN_VARIABLE = "EAST_RAY_TOKEN"  # noqa: S105 - a name, no token
_MIN_TOKEN_CHARS = 16
_Value = TypeVar("_Value")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class HttpConfig(_Section):
    """Where `east-ray serve` listens; `serve deploy` has `http_options` in its own file instead."""

    host: str = "127.0.0.1"
    """Address to listen at. Any other than a loopback address needs a token, or `allow_without_token`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen at."""
    request_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that a request may take, its wait included; then it ends with 408 and what it began is dropped. If its
    replica dies it has the time again."""


class ReplicasConfig(_Section):
    """How many engines serve, and how much each takes on."""

    min_replicas: Annotated[int, Field(ge=1)] = 1
    """Replicas, each with an engine of its own, that are always there."""
    max_replicas: Annotated[int, Field(ge=1)] = 1
    """Replicas that load may call for."""
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16.0
    """Requests in flight for each replica that autoscaling aims at."""
    upscale_delay_s: Annotated[float, Field(ge=0)] = 30.0
    """Seconds of more load before replicas are added."""
    downscale_delay_s: Annotated[float, Field(ge=0)] = 600.0
    """Seconds of less load before replicas are taken away."""
    max_ongoing_requests: Annotated[int, Field(ge=1)] = 64
    """Requests that a replica works on at once; its engine batches the responses of all of them."""
    max_queued_requests: Annotated[int, Field(ge=1)] = 128
    """Requests that wait at each node's proxy while every replica is busy. Those beyond get 429 with Retry-After."""
    retry_after_s: Annotated[float, Field(ge=0)] = 2.0
    """Seconds after which such a client should try again."""
    drain_s: Annotated[float, Field(ge=0)] = 600.0
    """Seconds that a replica which is to go, at a shutdown or an update, has for what it has begun."""
    max_surge_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Replicas that an update begins beside the old ones, in percent of them. 0, for clusters with no device to spare,
    ends each old one first; requests then wait."""
    num_gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of a replica; by default those of an engine of the run, else those of its tensor and pipeline parallel
    shards where the cluster has GPUs, else 0: the CPU, with vLLM's build for it."""
    num_cpus: Annotated[float, Field(ge=0)] | None = None
    """CPUs of a replica; by default those of an engine of the run, else 1."""
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Other resources of a replica, e.g. {sampler: 1}; by default, in a cluster, those of an engine of the run."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is greater than max_replicas {self.max_replicas}")
        return self


class LimitsConfig(_Section):
    """What one request may ask for. What asks for more gets 400, or 413 if its body is too large."""

    max_responses: Annotated[int, Field(ge=1, le=16384)] = 128
    """Responses of one request: `responses` of /v1/solve, `n` of /v1/chat/completions."""
    max_tokens: Annotated[int, Field(ge=1)] = 2048
    """Longest response, in tokens; also of requests that name no length. Prompt and response together have the model's
    context, or `engine_args.max_model_len`."""
    max_prompt_chars: Annotated[int, Field(ge=1)] = 1 << 16
    """Longest question, or messages of a chat, in characters; in tokens the model's context bounds them."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 26)] = 1 << 20
    """Largest body of a request."""
    structured_outputs: bool = False
    """Serve JSON schemas and grammars in chat. There is no bound to the time that a client's grammar can take an
    engine."""


class ServingConfig(_Section):
    """A served model."""

    model: str
    """A run (its directory, or its YAML file), of which the newest trained model is served; or a folder in Hugging Face
    format, or a hub name."""
    round: Annotated[int, Field(ge=0)] | None = None
    """With a run: the round whose model is served; by default the last that has one."""
    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_./-]*)?$")] = ""
    """What clients call the model; by default the last part of the address of the run or model."""
    prompt: PromptConfig | None = None
    """How /v1/solve puts a question to the model; by default as the run does."""
    answers: AnswersConfig | None = None
    """How /v1/solve finds and compares answers; by default as the run does."""
    engine_args: dict[str, Any] = {}
    """vLLM engine arguments, over those of the run, e.g. {max_model_len: 4096}. `model` and `served_model_name` are
    not among them."""
    env: dict[str, str] = {}
    """Environment variables of the replicas, over those of the run. They are shown by Ray, so no secrets."""
    limits: LimitsConfig = LimitsConfig()
    """What one request may ask for."""
    replicas: ReplicasConfig = ReplicasConfig()
    """How many engines serve, and how much each takes on."""
    http: HttpConfig = HttpConfig()
    """Where `east-ray serve` listens."""
    token_file: str | None = None
    """A file with the bearer token that clients must send; the environment variable EAST_RAY_TOKEN wins over it."""
    allow_without_token: bool = False
    """Answer clients of other machines without a token. Only behind something that checks who they are."""
    address: str | None = None
    """Ray cluster to join, e.g. auto. By default RAY_ADDRESS if it is set, else a Ray of this process's own."""

    @model_validator(mode="after")
    def _engine_args_are_its_own(self) -> Self:
        for name, instead in (("model", "model"), ("served_model_name", "name")):
            if name in self.engine_args:
                raise ValueError(f"engine_args.{name}: `{instead}` of the service says this")
        return self

    @model_validator(mode="after")
    def _loopback_or_token(self) -> Self:
        has_token = self.token_file is not None or bool(os.environ.get(TOKEN_VARIABLE))
        if not (is_loopback(self.http.host) or has_token or self.allow_without_token):
            raise ValueError(
                f"http.host: {self.http.host} can be reached from other machines; set {TOKEN_VARIABLE} or token_file, "
                "or allow_without_token: true"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant by a host name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def validate(values: dict[str, Any], source: str = "") -> ServingConfig:
    """Checked settings of serving; raises InputError, each sentence with `source` before it."""
    try:
        return ServingConfig.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(source + said for said in sentences(error, ServingConfig))) from None


def from_command_line(model: str, overrides: Sequence[str]) -> ServingConfig:
    """The settings of ``east-ray serve MODEL [KEY=VALUE]…``; raises InputError."""
    return validate(merge({"model": model}, overrides))


def resolve(settings: ServingConfig, *, has_gpus: bool = False) -> ServingConfig:
    """The same with the model's own address, and with everything that a run or the cluster decides written out.

    Raises InputError if it is neither a run with a trained model nor a model, or if the GPUs of a replica are not as
    many as its shards. Resolving twice changes nothing.
    """
    run = _run_of(settings.model)
    if run is None:
        if settings.round is not None:
            raise InputError(f"round: {settings.model} is a model, not a run, so it has no rounds")
        model, engines = resolve_model(settings.model), None
    else:
        model, engines = _trained_model(run, settings.round), run.engines
    engine_args = (engines.engine_args if engines else {}) | settings.engine_args
    shards = math.prod(int(engine_args.get(f"{kind}_parallel_size", 1)) for kind in ("tensor", "pipeline"))
    num_gpus = _first(settings.replicas.num_gpus, engines.num_gpus_per_engine if engines else shards * has_gpus)
    if shards > 1 and num_gpus not in (0, shards):
        raise InputError(
            f"replicas.num_gpus: {num_gpus:g}, and tensor_parallel_size times pipeline_parallel_size in engine_args is "
            f"{shards}, so a replica needs {shards}"
        )
    replicas = settings.replicas.model_copy(
        update={
            "num_gpus": num_gpus,
            "num_cpus": _first(settings.replicas.num_cpus, engines.num_cpus_per_engine if engines else 1.0),
            "resources": _first(settings.replicas.resources, engines.resources if engines else {}),
        }
    )
    return settings.model_copy(
        update={
            "model": model,
            "round": None,
            "name": settings.name or _last_part(settings.model),
            "prompt": settings.prompt or (run.prompt if run else PromptConfig()),
            "answers": settings.answers or (run.answers if run else AnswersConfig()),
            "engine_args": engine_args,
            "env": (engines.env if engines else {}) | settings.env,
            "replicas": replicas,
        }
    )


def token_digest(settings: ServingConfig) -> str | None:
    """SHA-256 of the bearer token in hex, or None if there is none. Raises InputError for one that can be guessed.

    Only the digest travels to the replicas, so neither Ray's dashboard nor its logs can show the token.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    source = TOKEN_VARIABLE
    if not token and settings.token_file is not None:
        source = f"token_file {settings.token_file}"
        try:
            token = Path(settings.token_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{source}: cannot be read as text ({error})") from error
    if not token:
        if settings.token_file is not None:
            raise InputError(f"{source}: empty; expected a token")
        return None
    if len(token) < _MIN_TOKEN_CHARS or not token.isascii():
        raise InputError(f"{source}: expected a token of at least {_MIN_TOKEN_CHARS} ASCII characters")
    return hashlib.sha256(token.encode()).hexdigest()


def _run_of(model: str) -> Config | None:
    """The run that an address names; None if it is a model's."""
    if model.endswith((".yaml", ".yml")):
        return load_run(model)
    path = Path(resolve_model(model))
    if "://" not in model and not path.is_dir():
        return None  # a hub name
    if "://" not in model and (path / "config.json").exists():
        return None
    try:
        return load_run(model)
    except InputError:
        if "://" in model:
            return None
        raise InputError(
            f"model: {model} is neither a run (with a config.yaml) nor a model (with a config.json)"
        ) from None


def _trained_model(run: Config, number: int | None) -> str:
    directory = RunDirectory(run, only_read=True)
    numbers = range(run.rounds) if number is None else [number]
    for one in reversed(numbers):
        if directory.round(one).record("training") is not None:
            return directory.address(directory.round(one) / "model")
    which = "" if number is None else f" in round {number}"
    raise InputError(f"model: the run {run.run_dir} has no trained model{which} yet")


def _first(given: _Value | None, otherwise: _Value) -> _Value:
    return otherwise if given is None else given


def _last_part(address: str) -> str:
    part = re.sub(r"\.ya?ml$", "", address.rstrip("/").rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9_.-]", "-", part).lstrip("_.-") or "model"
