"""Every setting of serving, as strict as those of a run, and how a run or a model becomes what is served.

Imports neither Ray nor vLLM, so the command line reports a mistake at once.
"""

import hashlib
import ipaddress
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from east_ray.config import AnswersConfig, Config, EnginePoolConfig, InputError, PromptConfig
from east_ray.config.base import Section, validated
from east_ray.config.files import merge
from east_ray.config.prompting import StopString
from east_ray.config.sections import num_shards
from east_ray.sampling.backends.vllm import check_engine_args
from east_ray.storage import RunDirectory, load_run, resolve_model
from east_ray.storage.few_shot import prompt_with_examples

#: Environment variable of the bearer token; it has precedence over `token_file`.
TOKEN_VARIABLE = "EAST_RAY_TOKEN"  # noqa: S105 - a name, no token


class HttpConfig(Section):
    """Where `east-ray serve` listens; `serve deploy` has `http_options` in its own file instead."""

    host: str = "127.0.0.1"
    """Address to listen at. Any other than a loopback address needs a token, or `allow_without_token`."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen at."""
    request_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that a request may take, waiting included; then it gets 408 and its work is cancelled. The time starts
    again if the request is given to another replica because its replica died."""


class ReplicasConfig(Section):
    """Number of engines, and the load of each."""

    min_replicas: Annotated[int, Field(ge=1)] = 1
    """Fewest replicas; each has an engine of its own."""
    max_replicas: Annotated[int, Field(ge=1)] = 1
    """Most replicas under load."""
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16.0
    """Autoscaling's target for the number of requests in progress per replica."""
    upscale_delay_s: Annotated[float, Field(ge=0)] = 30.0
    """Seconds of higher load before replicas are added."""
    downscale_delay_s: Annotated[float, Field(ge=0)] = 600.0
    """Seconds of lower load before replicas are removed."""
    max_ongoing_requests: Annotated[int, Field(ge=1)] = 64
    """Requests that a replica works on at once; its engine batches their responses."""
    max_queued_requests: Annotated[int, Field(ge=1)] = 128
    """Requests that wait at each node's proxy while all replicas are busy. Further ones get 429 with Retry-After."""
    retry_after_s: Annotated[float, Field(ge=0)] = 2.0
    """Seconds after which a client with 429 should try again."""
    drain_s: Annotated[float, Field(ge=0)] = 600.0
    """Seconds that a replica has, at a shutdown or an update, to finish the requests in progress."""
    max_surge_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Replicas that an update starts beside the old ones, in percent of their number. With 0, for clusters without
    spare devices, each old replica is stopped first and requests wait."""
    num_gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs of a replica. Default: as many as an engine of the run has; for a model, one for each tensor and pipeline
    parallel shard if the cluster has GPUs, else 0 (vLLM's build for the CPU)."""
    num_cpus: Annotated[float, Field(ge=0)] | None = None
    """CPUs of a replica. Default: those that the run sets for an engine, else 1."""
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Other resources of a replica, e.g. {sampler: 1}. Default: in a cluster, those of an engine of the run."""

    def _problems(self) -> Iterator[str]:
        if self.min_replicas > self.max_replicas:
            yield f"min_replicas {self.min_replicas} is greater than max_replicas {self.max_replicas}"


class LimitsConfig(Section):
    """Limits of one request. A request beyond them gets 400, or 413 if its body is too large."""

    max_responses: Annotated[int, Field(ge=1, le=16384)] = 128
    """Most responses of one request: `responses` of /v1/solve, `n` of /v1/chat/completions."""
    max_tokens: Annotated[int, Field(ge=1)] = 2048
    """Longest response, in tokens, and the default of chat requests that name no length. Prompt and response together
    must fit the model's context, or `engine_args.max_model_len`."""
    max_prompt_chars: Annotated[int, Field(ge=1)] = 1 << 16
    """Longest question, or messages of a chat together, in characters; the model's context bounds their tokens."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 26)] = 1 << 20
    """Largest body of a request, in bytes."""
    structured_outputs: bool = False
    """Accept JSON schemas and grammars in chat. Nothing bounds the time that an engine spends on a client's grammar."""


class ServingConfig(Section):
    """A served model."""

    model: str
    """A run (its directory or YAML file), whose newest trained model is served; or a model's folder or hub name."""
    round: Annotated[int, Field(ge=0)] | None = None
    """With a run: the round whose model is served. Default: the last round that has a trained model."""
    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_./-]*)?$")] = ""
    """The model's name for clients. Default: the last part of the address of the run or model."""
    prompt: PromptConfig | None = None
    """How /v1/solve renders prompts. Default: as the run does in training, see `training.prompt`."""
    stop: list[StopString] | None = None
    """Strings that end a response of /v1/solve. Default: those of the run's `sampling.stop`."""
    answers: AnswersConfig | None = None
    """How /v1/solve finds and compares answers. Default: as the run does."""
    engine_args: dict[str, Any] = {}
    """vLLM engine arguments, in addition to those of the run and with precedence over them, e.g. {max_model_len: 4096}.
    `model` and `served_model_name` are not allowed."""
    env: dict[str, str] = {}
    """Environment variables of the replicas beside those of the run. No secrets: Ray shows them."""
    limits: LimitsConfig = LimitsConfig()
    """Limits of one request."""
    replicas: ReplicasConfig = ReplicasConfig()
    """Number of engines, and the load of each."""
    http: HttpConfig = HttpConfig()
    """Where `east-ray serve` listens."""
    token_file: str | None = None
    """A file with the bearer token that clients must send; the environment variable EAST_RAY_TOKEN has precedence."""
    allow_without_token: bool = False
    """Answer clients of other machines without a token. Only for a server behind a proxy that authenticates clients."""
    address: str | None = None
    """Ray cluster to join, e.g. auto. Default: RAY_ADDRESS if it is set, else a Ray of this process's own."""

    def _problems(self) -> Iterator[str]:
        for name, instead in (("model", "model"), ("served_model_name", "name")):
            if name in self.engine_args:
                yield f"engine_args.{name}: not allowed; set `{instead}` of the service instead"
        has_token = self.token_file is not None or bool(os.environ.get(TOKEN_VARIABLE))
        if not (is_loopback(self.http.host) or has_token or self.allow_without_token):
            instead = f"set {TOKEN_VARIABLE} or token_file, or allow_without_token: true"
            yield f"http.host: {self.http.host} can be reached from other machines; {instead}"


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def from_command_line(model: str, overrides: Sequence[str]) -> ServingConfig:
    """The settings of ``east-ray serve MODEL [KEY=VALUE]…``. Raises InputError."""
    return validated(ServingConfig, merge({"model": model}, overrides))


def resolve(settings: ServingConfig) -> ServingConfig:
    """The settings with the model's own address, and with every value that the run decides filled in.

    `replicas.num_gpus` stays None if only the cluster can decide it, see `with_gpus`. Raises InputError if `model` is
    neither a run with a trained model nor a model, or if a replica's number of GPUs differs from that of its shards.
    """
    run = _run_of(settings.model)
    if run is None and settings.round is not None:
        raise InputError(f"round: {settings.model} is a model, not a run, so it has no rounds")
    model = _trained_model(run, settings.round) if run else resolve_model(settings.model)
    engines = run.engines if run else EnginePoolConfig()
    engine_args = engines.engine_args | settings.engine_args
    check_engine_args("engine_args", engine_args)
    gpus, cpus = engines.num_gpus_per_engine if run else None, engines.num_cpus_per_engine
    cpus = 1 if cpus is None else cpus
    resources: dict[str, Any] = {"num_gpus": gpus, "num_cpus": cpus, "resources": engines.resources}
    resources |= settings.replicas.model_dump(include=set(resources), exclude_none=True)
    num_gpus, shards = resources["num_gpus"], num_shards(engine_args)
    if num_gpus is not None and shards > 1 and num_gpus not in (0, shards):
        product = f"tensor_parallel_size times pipeline_parallel_size in engine_args is {shards}"
        raise InputError(f"replicas.num_gpus: {num_gpus:g}, but {product}, so a replica needs {shards}")
    return settings.model_copy(
        update={
            "model": model,
            "round": None,
            "name": settings.name or _last_part(settings.model),
            "prompt": prompt_with_examples(settings.prompt or (run.training_prompt() if run else PromptConfig())),
            "stop": (run.sampling.stop if run else []) if settings.stop is None else settings.stop,
            "answers": settings.answers or (run.answers if run else AnswersConfig()),
            "engine_args": engine_args,
            "env": engines.env | settings.env,
            "replicas": settings.replicas.model_copy(update=resources),
        }
    )


def with_gpus(settings: ServingConfig, has_gpus: bool) -> ServingConfig:
    """Resolved settings with `replicas.num_gpus` decided: by default a GPU for each shard if the cluster has GPUs."""
    if settings.replicas.num_gpus is not None:
        return settings
    num_gpus = {"num_gpus": float(num_shards(settings.engine_args) * has_gpus)}
    return settings.model_copy(update={"replicas": settings.replicas.model_copy(update=num_gpus)})


def token_digest(settings: ServingConfig) -> str | None:
    """SHA-256 of the bearer token in hex, or None without a token. Raises InputError for a token that can be guessed.

    Only the digest is sent to the replicas, so neither Ray's dashboard nor its logs can show the token.
    """
    token, source = os.environ.get(TOKEN_VARIABLE), TOKEN_VARIABLE
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
    if len(token) < 16 or not token.isascii():
        raise InputError(f"{source}: expected a token of at least 16 ASCII characters")
    return hashlib.sha256(token.encode()).hexdigest()


def _run_of(model: str) -> Config | None:
    """The run at this address; None if the address is that of a model."""
    if model.endswith((".yaml", ".yml")):
        return load_run(model)
    path, is_remote = Path(resolve_model(model)), "://" in model
    if not is_remote and (not path.is_dir() or (path / "config.json").exists()):
        return None  # a hub name or a folder
    try:
        return load_run(model)
    except InputError:
        if is_remote:
            return None
        said = f"model: {model} is neither a run (with a config.yaml) nor a model (with a config.json)"
        raise InputError(said) from None


def _trained_model(run: Config, number: int | None) -> str:
    directory = RunDirectory(run, only_read=True)
    for one in map(directory.round, reversed(range(run.rounds)) if number is None else [number]):
        if one.record("training") is not None:
            return directory.address(one / "model")
    which = "" if number is None else f" in round {number}"
    raise InputError(f"model: the run {run.run_dir} has no trained model{which} yet")


def _last_part(address: str) -> str:
    part = re.sub(r"\.ya?ml$", "", address.rstrip("/").rpartition("/")[2])
    return re.sub(r"[^A-Za-z0-9_.-]", "-", part).lstrip("_.-") or "model"
