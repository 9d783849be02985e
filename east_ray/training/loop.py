"""Weighted examples -> a better model: the training loop of one worker with its DeepSpeed engine.

It needs no Ray (group.py runs it in a group of Ray Train workers). Every worker reads the same stream of examples and
takes its own share of each global step. So the steps, their denominators and their order follow from the seed alone:
they are the same for any number of workers, any micro-batch size, with and without packing, and after any restart.
"""

import functools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from east_ray.config import InputError, TrainingConfig
from east_ray.storage import Folder, model_fingerprint
from east_ray.training.batches import steps
from east_ray.training.compute import Compute
from east_ray.training.dataset import ExportedModel, Metrics, Row, TrainingPhase
from east_ray.training.export import export_and_end
from east_ray.training.model import compile_layers, is_compiled, load_model
from east_ray.training.objectives import Objective
from east_ray.training.reference import reference_logprobs
from east_ray.training.sharding import check_extra, deepspeed_config, size_of
from east_ray.training.state import load_progress, load_state, save_state

#: A prime above any number of steps times workers, so that no two seeds share a step's random numbers.
_SEED_STRIDE = 1_000_003


def learning_rate(settings: TrainingConfig, step: int, num_steps: int) -> float:
    """Learning rate of a step, counted from 0: linear warm-up from 0, then the schedule's decay towards 0."""
    warmup = math.ceil(settings.warmup_ratio * num_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    match settings.schedule:
        case "cosine":
            return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return settings.learning_rate * (1 - progress)
    return settings.learning_rate


def train(
    settings: TrainingConfig,
    objective: Objective,
    model_path: str,
    rows: Callable[[], Iterable[Row]],
    num_examples: int,
    report: Callable[[Metrics], None],
    save: Callable[[int, Callable[[str], None]], None],
    restored: str | None = None,
    pad_token_id: int = 0,
    seed: int = 0,
    references: Folder | None = None,
    tell: Callable[[TrainingPhase], Any] = lambda phase: None,
) -> Callable[..., ExportedModel | None]:
    """Train on this worker, one of a torch.distributed group; returns the function that exports the model.

    `rows` starts the stream of TOKENIZED rows anew, of which `num_examples` are an epoch; `report` gets the metrics of
    each step on rank 0. `save(step, write)` calls write(folder) on every worker; `restored` is a folder that was
    written so. `references` is the folder of the reference log-probabilities, if the objective needs any. `tell` gets
    what this worker begins to do. The returned function is `export_and_end` without its first arguments; it must be
    called on every worker, once.
    """
    import torch
    import torch.distributed as dist

    rank, world_size, every_minutes = dist.get_rank(), dist.get_world_size(), settings.checkpoint_every_minutes
    tell(TrainingPhase("loading the model"))
    engine = make_engine(settings, model_path, seed, world_size)
    compute = Compute(engine, settings, objective, pad_token_id, rank, world_size)
    if objective.reference_responses:
        assert references is not None, f"{settings.objective} needs a folder for its reference log-probabilities"
        folder = references / f"{model_fingerprint(model_path)}-{settings.precision}"
        compute.references = reference_logprobs(compute, rows, num_examples, folder, tell)
    num_steps = math.ceil(num_examples / settings.examples_per_step) * settings.epochs
    begin = _restored(engine, restored)
    history: list[Metrics] = begin["history"] if rank == 0 else []  # saved too, so a resumed log is complete
    for metrics in history:
        report(metrics)
    engine.train()
    tell(TrainingPhase("steps"))
    saved_at = time.monotonic()
    for index, step in enumerate(steps(rows(), settings.examples_per_step)):
        if index < begin["next_step"]:
            continue
        start, lr = time.monotonic(), learning_rate(settings, index, num_steps)
        for group in engine.optimizer.param_groups:
            group["lr"] = lr
        # Dropout draws from seed and step, so a restart draws the same numbers and no generator's state is kept.
        torch.manual_seed(seed * _SEED_STRIDE + index * world_size + rank)
        is_late = rank == 0 and every_minutes is not None and start - saved_at >= 60 * every_minutes
        metrics, some_is_late = compute.step(step, is_late)
        if rank == 0:
            place: Metrics = {"step": index + 1, "num_steps": num_steps, "epoch": step[0]["epoch"], "learning_rate": lr}
            history.append(place | _described(step, metrics, time.monotonic() - start))
            report(history[-1])
        is_due = (index + 1) % settings.checkpoint_every_steps == 0 or some_is_late
        if is_due and index + 1 < num_steps:
            saved_at = time.monotonic()
            save(index + 1, functools.partial(save_state, engine, {"next_step": index + 1, "history": history}))
    return functools.partial(export_and_end, engine, compute, settings)


def _restored(engine: Any, folder: str | None) -> dict[str, Any]:
    """The number of the next step and the metrics of those before, after the engine has taken the folder's state."""
    if folder is None:
        return {"next_step": 0, "history": []}
    begin = load_progress(folder)
    load_state(engine, begin["next_step"], folder)
    return begin


def make_engine(settings: TrainingConfig, model_path: str, seed: int, world_size: int) -> Any:
    """The DeepSpeed engine of this worker, with the model that training starts from."""
    import deepspeed
    import torch

    # None of its compiled operations is used here. On a CPU it would compile one at the first training, and where a
    # process is killed meanwhile, its lock stays and every later training on the machine waits for it without end.
    deepspeed.ops.__compatible_ops__ = {}
    check_extra(settings)
    deepspeed.init_distributed()  # over the existing group; loading a sharded model needs it
    model = load_model(settings, model_path, seed, world_size)
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        # What the layers start from is in CPU memory already where there is no GPU.
        is_moved = settings.gradient_checkpointing == "offload" and torch.cuda.is_available()
        options: dict[str, Any] = {"offload": True} if is_moved else {}
        try:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False}, **options)
        except ValueError as error:
            raise InputError(f"training.gradient_checkpointing: {error} Set it to false") from None
    if is_compiled(settings, on_gpu=torch.cuda.is_available()):
        compile_layers(model)
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        config=deepspeed_config(settings, world_size, on_gpu=torch.cuda.is_available(), size=size_of(model)),
    )
    return engine


def _described(step: Sequence[Row], metrics: Metrics, seconds: float) -> Metrics:
    """The metrics of a step, with what its examples and this machine say."""
    import resource

    import torch

    weights = [row["weight"] for row in step]
    if torch.cuda.is_available():  # the most memory held so far: of the GPU, or of this process
        peak_bytes = torch.cuda.max_memory_allocated()
    else:
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "num_examples": len(step),
        "weight_mean": sum(weights) / len(step),
        "weight_min": min(weights),
        "weight_max": max(weights),
        **metrics,
        "tokens_per_s": metrics["num_tokens"] / seconds,
        "memory_gib": peak_bytes / 2**30,
    }
