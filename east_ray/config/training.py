"""Settings of training."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from east_ray.config.base import Part, Section
from east_ray.config.resuming import ANY_TIME

ObjectiveName = Annotated[str, Part("sft", "dpo", "kto")]


class DeepSpeedConfig(Section):
    """How the model is sharded over the workers."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """What the workers shard: 0 nothing, 1 optimizer state, 2 and gradients, 3 and parameters."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in CPU memory (stages 1 to 3)."""
    offload_parameters: bool = False
    """Keep the parameters in CPU memory (stage 3)."""

    @model_validator(mode="after")
    def _offload_stage(self) -> Self:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer needs zero_stage 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError("offload_parameters needs zero_stage 3")
        return self


class LoraConfig(Section):
    """Low-rank adapters: only the adapters are trained; they are merged into the model when it is written."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the adapters."""
    alpha: Annotated[int, Field(ge=1)] = 32
    """The adapters' output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapters."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the modules that get adapters, e.g. [q_proj, v_proj]; by default every linear one but the head."""


class TrainingConfig(Section):
    """How the model is trained on the weighted examples."""

    objective: ObjectiveName = "sft"
    """sft: supervised fine-tuning on chosen responses; dpo, kto: preference objectives on chosen and rejected
    responses; module:name: a class of your own."""
    examples: Literal["selected", "reference_solutions"] = "selected"
    """selected: the model's own responses, weighted. reference_solutions: no sampling; the questions' worked solutions
    with weight 1, the usual supervised warm start (with objective sft)."""
    epochs: Annotated[int, Field(ge=1)] = 3
    """Passes over the examples."""
    examples_per_step: Annotated[int, Field(ge=1)] = 16
    """Examples in one optimizer step, over all workers."""
    micro_batch_size: Annotated[int, Field(ge=1), ANY_TIME] = 4
    """Examples that one worker computes at once. Memory and speed depend on it; the result does not."""
    packing: Annotated[bool, ANY_TIME] = True
    """Concatenate the sequences of a micro-batch without padding; each attends to itself alone. false pads them, for
    models whose attention or head cannot work on packed sequences; the result is the same."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-6
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay of the learning rate after the warm-up, to 0 (constant: none)."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this global norm."""
    max_length: Annotated[int, Field(ge=8)] = 2048
    """Longest prompt and response together, in tokens."""
    too_long: Literal["discard", "truncate"] = "discard"
    """What happens to a longer example; both cases are counted. truncate cuts off the end of the response."""
    precision: Literal["bf16", "float32"] = "bf16"
    """Arithmetic of the model; the optimizer's state is float32 in both."""
    gradient_checkpointing: Annotated[bool, ANY_TIME] = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    skip_zero_weight: bool = False
    """Leave examples of weight 0 out of the batches; they still count in the normalizer."""
    beta: Annotated[float, Field(gt=0)] = 0.01
    """DPO and KTO: how strongly the trained model is held close to its initial model."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """DPO: probability that chosen and rejected are interchanged in a pair (conservative DPO)."""
    length_normalized: bool = False
    """DPO: compare mean log-probabilities per token in place of sums over the response."""
    desirable_factor: Annotated[float, Field(gt=0)] = 1.0
    """KTO: factor of the chosen responses' losses."""
    undesirable_factor: Annotated[float, Field(gt=0)] = 1.0
    """KTO: factor of the rejected responses' losses."""
    deepspeed: Annotated[DeepSpeedConfig, ANY_TIME] = DeepSpeedConfig()
    """Sharding over the workers."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all parameters, e.g. {rank: 16, alpha: 32}."""
    num_workers: Annotated[int, Field(ge=1), ANY_TIME] = 1
    """Workers, each with a model replica or shard of it."""
    num_gpus_per_worker: Annotated[float, Field(ge=0), ANY_TIME] = 0
    """GPUs of a worker; 0 trains on the CPU."""
    num_cpus_per_worker: Annotated[float, Field(ge=0), ANY_TIME] = 1
    """CPUs of a worker."""
    resources: Annotated[dict[str, Annotated[float, Field(gt=0)]], ANY_TIME] = {}
    """Other resources of a worker, e.g. {trainer: 1} for nodes that declare `trainer`."""
    max_failures: Annotated[int, Field(ge=0), ANY_TIME] = 8
    """After the death of a worker or node a training resumes from its last checkpoint, at most this many times."""
    checkpoint_every_steps: Annotated[int, Field(ge=1), ANY_TIME] = 100
    """Steps between checkpoints, from which an interrupted training resumes."""
    checkpoint_every_minutes: Annotated[Annotated[float, Field(gt=0)] | None, ANY_TIME] = None
    """Also write a checkpoint when this many minutes have passed since the last."""
    tracker: Annotated[Literal["none", "tensorboard", "wandb", "mlflow"], ANY_TIME] = "none"
    """Where each step's metrics go beside training.jsonl. The library must be installed; it reads its own environment
    variables (WANDB_MODE, MLFLOW_TRACKING_URI, …). TensorBoard's files go to tensorboard/ in the run directory."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.examples_per_step < self.num_workers:
            raise ValueError(
                f"examples_per_step {self.examples_per_step} is smaller than num_workers {self.num_workers}"
            )
        if self.num_gpus_per_worker % 1 and self.num_workers > 1:
            raise ValueError(f"num_gpus_per_worker {self.num_gpus_per_worker:g}: workers cannot share a GPU")
        return self
