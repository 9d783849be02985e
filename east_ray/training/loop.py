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
from east_ray.training.compute import Compute, reference_logprobs
from east_ray.training.dataset import Metrics, Row, steps
from east_ray.training.objectives import Objective

#: A prime above any number of steps times workers, so that no two seeds share a step's random numbers.
_SEED_STRIDE = 1_000_003
#: How far the logits of the written model may differ from the trained one's, relative to the largest of them: another
#: attention kernel rounds differently, and so does merging adapters.
_TOLERANCE_FLOAT32, _TOLERANCE_BF16 = 1e-3, 0.1


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
) -> Callable[[str], None]:
    """Train on this worker, one of a torch.distributed group; returns the function that exports the model to a folder.

    `rows` starts the stream of TOKENIZED rows anew, of which `num_examples` are an epoch; `report` gets the metrics of
    each step on rank 0. `save(step, write)` calls write(folder) on every worker; `restored` is a folder that was
    written so. `references` is the folder of the reference log-probabilities, if the objective needs any. The returned
    function must be called on every worker, once; it raises RuntimeError if what it wrote is not what was trained.
    """
    import torch
    import torch.distributed as dist

    rank, world_size, every_minutes = dist.get_rank(), dist.get_world_size(), settings.checkpoint_every_minutes
    engine = _engine(settings, model_path, seed, world_size)
    compute = Compute(engine, settings, objective, pad_token_id, rank, world_size)
    if objective.reference_responses:
        assert references is not None, f"{settings.objective} needs a folder for its reference log-probabilities"
        folder = references / f"{model_fingerprint(model_path)}-{settings.precision}"
        compute.references = reference_logprobs(compute, rows, num_examples, folder)
    num_steps = math.ceil(num_examples / settings.examples_per_step) * settings.epochs
    begin: dict[str, Any] = {"next_step": 0, "history": []}
    if restored is not None:
        _, begin = engine.load_checkpoint(restored, tag="state")
    history: list[Metrics] = [*begin["history"]] if rank == 0 else []  # saved too, so a resumed log is complete
    for metrics in history:
        report(metrics)
    engine.train()
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
            state = {"next_step": index + 1, "history": history}
            write = functools.partial(engine.save_checkpoint, tag="state", client_state=state, save_latest=False)
            save(index + 1, write)
    return functools.partial(_export_and_end, engine, compute, settings, model_path)


def _engine(settings: TrainingConfig, model_path: str, seed: int, world_size: int) -> Any:
    """The DeepSpeed engine of this worker, with the model that training starts from."""
    import deepspeed
    import torch

    # None of its compiled operations is used here. On a CPU it would compile one at the first training, and where a
    # process is killed meanwhile, its lock stays and every later training on the machine waits for it without end.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed()  # over the existing group; loading a sharded model needs it
    model = _load_model(settings, model_path, seed, world_size)
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        config=deepspeed_config(settings, world_size, on_gpu=torch.cuda.is_available()),
    )
    return engine


def _load_model(settings: TrainingConfig, model_path: str, seed: int, sharded_over: int = 0) -> Any:
    """The model to train, with packed attention and adapters if the settings ask for them.

    `seed` fixes the adapters' initial values. With ZeRO-3 and `sharded_over` workers each parameter is split when it is
    created, so that no worker ever holds the whole model. Raises InputError if packing or the adapters do not fit it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from east_ray.training import packing

    options: dict[str, Any] = {"dtype": torch.bfloat16 if settings.precision == "bf16" else torch.float32}
    if settings.packing:
        packing.register_attention()
        options["attn_implementation"] = packing.PACKED_ATTENTION
    sharding = None  # takes effect while this object exists
    if sharded_over and settings.deepspeed.zero_stage == 3:
        from transformers.integrations import HfDeepSpeedConfig

        sharding = HfDeepSpeedConfig(deepspeed_config(settings, sharded_over, on_gpu=torch.cuda.is_available()))
    try:
        model = AutoModelForCausalLM.from_pretrained(model_path, **options)
    except (ValueError, KeyError) as error:
        if not settings.packing:
            raise
        hint = f"training.packing: this model's attention cannot be packed ({error}); set it to false"
        raise InputError(hint) from None
    del sharding
    if settings.packing and not packing.supports(model):
        raise InputError(
            "training.packing: this model has layers that would see the previous example, or transforms its logits "
            "after the head; set packing to false"
        )
    if (lora := settings.lora) is None:
        return model
    import peft

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    adapters = peft.LoraConfig(**sizes, target_modules=lora.target_modules, task_type="CAUSAL_LM")
    try:
        # Adapters of bf16 models stay in bf16, like all that DeepSpeed shards; its optimizer keeps float32 copies.
        model = peft.get_peft_model(model, adapters, autocast_adapter_dtype=False)
    except ValueError as error:
        raise InputError(f"training.lora.target_modules: {error}") from None
    if settings.packing and not packing.supports(model):
        raise InputError("training.lora.target_modules: adapters on the head need training.packing: false")
    return model


def deepspeed_config(settings: TrainingConfig, world_size: int, *, on_gpu: bool) -> dict[str, Any]:
    """The DeepSpeed configuration of these settings.

    DeepSpeed counts one micro-batch as one step here: the loop sets the accumulation boundary itself and the losses
    have the denominators of the global step, so DeepSpeed averages over the workers only. bf16 gradients accumulate in
    float32; otherwise the result would depend on the micro-batch size.
    """
    is_bf16, sharding = settings.precision == "bf16", settings.deepspeed
    # DeepSpeed's bf16 optimizer of stage 0 makes a step with zero gradients before the first; that of stage 1 does not.
    zero: dict[str, Any] = {"stage": max(1, sharding.zero_stage) if is_bf16 else sharding.zero_stage}
    if sharding.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if sharding.offload_parameters:
        zero["offload_param"] = {"device": "cpu"}
    adamw: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "torch_adam": True}
    if on_gpu and not sharding.offload_optimizer:
        adamw["fused"] = True
    return {
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": is_bf16},
        **({"data_types": {"grad_accum_dtype": "fp32"}} if is_bf16 else {}),
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "optimizer": {"type": "AdamW", "params": adamw},
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


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


def _export_and_end(engine: Any, compute: Compute, settings: TrainingConfig, model_path: str, folder: str) -> None:
    compute.remove_head()
    _export(engine, settings, model_path, folder)
    engine.destroy()  # its hooks would keep the model's memory from the next training of this process


def _export(engine: Any, settings: TrainingConfig, model_path: str, folder: str) -> None:
    """Write the model in Hugging Face format from rank 0, read it back, and compare parameters and some logits.

    Must be called on every worker. Adapters are merged. Raises RuntimeError if they differ.
    """
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM

    engine.eval()
    # Any text serves: here the first tokens of the vocabulary.
    ids = torch.arange(min(16, engine.module.config.vocab_size), device=engine.device)[None]
    packed = {"segments": [ids.shape[1]]} if settings.packing else {}
    with torch.no_grad():
        expected = engine(input_ids=ids, use_cache=False, **packed).logits.float().cpu()
    if engine.zero_optimization_partition_weights():
        state = engine._zero3_consolidated_16bit_state_dict()
    else:
        state = engine.module.state_dict() if dist.get_rank() == 0 else None
    if dist.get_rank() != 0:
        return
    assert state is not None
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    model = engine.module
    if settings.lora is not None:
        model = _load_model(settings, model_path, seed=0)
        model.load_state_dict(state)
        model = model.merge_and_unload()
        state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    model.config.use_cache = True
    model.save_pretrained(folder, state_dict=state, safe_serialization=True)
    dtype = next(iter(state.values())).dtype
    read = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    written = read.state_dict()
    differing = [name for name, tensor in state.items() if not torch.equal(written[name], tensor)]
    if differing:
        raise RuntimeError(f"{folder}: {len(differing)} parameters differ from the trained ones, first {differing[0]}")
    with torch.no_grad():
        found = read(input_ids=ids.cpu()).logits.float()
    relative = _TOLERANCE_FLOAT32 if dtype == torch.float32 else _TOLERANCE_BF16
    tolerance = relative * max(1.0, float(expected.abs().max()))
    if not torch.allclose(found, expected, rtol=0, atol=tolerance):
        difference = float((found - expected).abs().max())
        raise RuntimeError(
            f"{folder}: the written model's logits differ from the trained one's by up to {difference:g}"
        )
