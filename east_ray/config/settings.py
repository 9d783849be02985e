"""Every setting of a run: its type, its bound, its default and what it means.

The models below are strict: an unknown key, a wrong type or a value out of bounds is refused with the path of the key,
the value, what was expected and the nearest known key. Nothing here edits a value or imports Ray, vLLM or torch.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from east_ray.config.messages import sentences


class InputError(ValueError):
    """What a user gave cannot be used. The message is one sentence: which file, row or key, and what was expected."""


#: Names of the two models that every round knows, beside its variants: what the run began with, what the round made.
BASE, TRAINED = "base", "trained"

#: Marks a field whose change cannot change a result, so that a run may be resumed with another value (more workers,
#: another cluster). Every other difference to the configuration stored in a run directory is refused.
_FREE = {"free": True}


Signal = Literal["entropy", "accuracy", "rejection", "uniform"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class QuestionsConfig(_Section):
    """Where questions come from."""

    path: str | None = None
    """A .jsonl, .json, .csv or .parquet file of questions (local, s3:// or gs://). Either this or `hub`."""
    hub: str | None = None
    """Name of a data set on the Hugging Face hub, e.g. openai/gsm8k."""
    hub_config: str | None = None
    """Configuration of the hub data set, e.g. main."""
    split: str = "train"
    """Split of the hub data set."""
    format: Literal["auto", "gsm8k", "math", "columns"] = "auto"
    """gsm8k: {question, answer ending in "#### 72"}; math: {problem, solution, answer}; columns: named below;
    auto: told from the first row."""
    question_column: str = "question"
    """With format columns: the column of the question's text."""
    reference_answer_column: str = "reference_answer"
    """With format columns: the column of the final answer."""
    reference_solution_column: str | None = None
    """With format columns: the column of the worked solution; `training.examples: reference_solutions` needs it."""
    id_column: str | None = None
    """With format columns: a column of unique names; by default the file's name and the row's number."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Leave out this many questions from the beginning."""
    max_questions: Annotated[int, Field(ge=1)] | None = None
    """Take at most this many questions after `skip`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give exactly one of path and hub")
        return self


class SamplesConfig(_Section):
    """Responses that another sampler made, to be clustered, weighted and trained on in place of our own."""

    path: str
    """A .jsonl or .parquet file, or a folder of them (local, s3:// or gs://); a row is a question with its responses.
    The samples/ folder of another run is one."""
    question_column: str = "question"
    """The column of the question's text."""
    reference_answer_column: str = "reference_answer"
    """The column of the final answer, e.g. 72. Of a worked solution that ends in #### 72 or \\boxed{72}, the answer."""
    responses_column: str = "responses"
    """The column of the list of responses: texts, or objects that hold one."""
    text_field: str = "text"
    """With responses that are objects: the field of the text. Dots go deeper, e.g. message.content."""
    finish_reason_field: str = "finish_reason"
    """With responses that are objects: the field that says stop or length. Where it is missing, stop is assumed: the
    response is taken to have ended by itself."""
    num_tokens_field: str = "num_tokens"
    """With responses that are objects: the field of the number of tokens; it may be missing."""
    id_column: str | None = None
    """A column of unique names of the questions; by default the file's name and the row's number."""


class PromptConfig(_Section):
    """How a question is put to the model."""

    system: str | None = None
    """System message; none by default. The paper's: "Please reason step by step, and put your final answer within
    \\boxed{}."."""
    template: str = "{question}"
    """The user's message; {question} stands for the question's text. The model's own chat template does the rest."""

    template_variables: dict[str, Any] = {}
    """Variables of the model's chat template, e.g. {enable_thinking: false}. Llama 3's template writes the day's date
    unless {date_string: ...} fixes it, and sampling and training may happen on different days."""

    @model_validator(mode="after")
    def _has_question(self) -> Self:
        if "{question}" not in self.template:
            raise ValueError("template must contain {question}")
        return self


class EnginePoolConfig(_Section):
    """The vLLM engines that sample and evaluate."""

    min_engines: Annotated[int, Field(ge=1, json_schema_extra=_FREE)] = 1
    """Engines that the pool keeps while a stage runs."""
    max_engines: Annotated[int, Field(ge=1, json_schema_extra=_FREE)] = 1
    """Engines that the pool may grow to while questions wait."""
    num_gpus_per_engine: Annotated[float, Field(ge=0, json_schema_extra=_FREE)] = 0
    """GPUs that Ray reserves for an engine; a fraction lets engines share one. 0 runs on the CPU."""
    num_cpus_per_engine: Annotated[float, Field(ge=0, json_schema_extra=_FREE)] = 1
    """CPUs that Ray reserves for an engine."""
    resources: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(json_schema_extra=_FREE)] = {}
    """Other resources that Ray reserves for an engine, e.g. {sampler: 1} for nodes that declare `sampler`."""
    engine_args: dict[str, Any] = {}
    """vLLM engine arguments by name, e.g. {dtype: bfloat16, tensor_parallel_size: 2, max_model_len: 4096}."""
    env: Annotated[dict[str, str], Field(json_schema_extra=_FREE)] = {}
    """Environment variables of the engine's process, e.g. {VLLM_CPU_KVCACHE_SPACE: "1"}. They are stored with the
    run, so no secrets: a token belongs in the environment of the cluster's nodes."""
    questions_per_task: Annotated[int, Field(ge=1, json_schema_extra=_FREE)] = 8
    """Questions of a task at least, which asks them together and writes each as it finishes."""
    max_deaths_per_question: Annotated[int, Field(ge=1, json_schema_extra=_FREE)] = 2
    """Set a question aside when so many engines have died with no other question in flight beside it."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_engines > self.max_engines:
            raise ValueError(f"min_engines {self.min_engines} is greater than max_engines {self.max_engines}")
        shards = math.prod(int(self.engine_args.get(f"{kind}_parallel_size", 1)) for kind in ("tensor", "pipeline"))
        by_ray = self.engine_args.get("distributed_executor_backend") == "ray"  # its workers ask for GPUs themselves
        if shards > 1 and self.num_gpus_per_engine not in (0, shards) and not by_ray:
            raise ValueError(
                f"num_gpus_per_engine {self.num_gpus_per_engine:g}: tensor_parallel_size times pipeline_parallel_size "
                f"in engine_args is {shards}, so an engine needs {shards} GPUs"
            )
        return self


class SamplingConfig(_Section):
    """How responses are drawn."""

    responses_per_question: Annotated[int, Field(ge=1, le=16384)] = 128
    """Responses sampled for each question, all in one request (n = 128 in the paper)."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: the smallest set of tokens whose probability reaches this."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample among this many likeliest tokens; 0: among all."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest response, in tokens; a longer one is cut and marked finish_reason: length."""
    seeded: bool = True
    """Give each request its own seed, made from `seed`, the round and the question, so that a repeated run samples the
    same responses whatever the order of questions. On a GPU an unseeded sampler can be faster."""


class AnswersConfig(_Section):
    """How final answers are found and compared."""

    equivalence: Literal["math", "string"] = "math"
    """math: mathematically equal answers share a cluster; string: only equal strings do, as the authors had it."""
    no_answer: Literal["cluster", "exclude"] = "cluster"
    """A response without an answer: one cluster of its own, as in the authors' code, or left out of the entropy."""
    last_number: bool = False
    """Take the last number of a response that states no answer explicitly."""
    grader: str = "math"
    """How responses are read and compared."""
    grader_args: dict[str, Any] = {}
    """Keyword arguments of the grader."""
    responses: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many responses of a question are used; null: all."""


class SelectionConfig(_Section):
    """Which questions become examples."""

    all_correct: Literal["keep", "drop"] = "keep"
    """Questions that every response answers correctly. SFT keeps them by default (entropy gives them weight 0);
    DPO and KTO always drop them, for want of a wrong response."""
    require_boxed: bool = True
    """A chosen response must have its answer in \\boxed{}, as the paper has it. false: any correct response will do,
    those with a box first; for samples of models that were not asked for one."""
    responses_per_question_trained: Annotated[int, Field(ge=1)] = 1
    """Correct responses of a question that are trained on, or as many as it has; they share the question's weight."""


class WeightingConfig(_Section):
    """How an example's weight comes from its question's responses."""

    signal: Signal = "entropy"
    """What the weight grows with: entropy of the answers, 1 - pass_rate (accuracy), share of the commonest wrong answer
    (rejection), or nothing (uniform)."""
    mapping: Literal["power", "sigmoid"] = "power"
    """power: signal ** exponent, the paper's; sigmoid: 1 / (1 + exp(-exponent * (signal - mean) / std)), bounded."""
    exponent: Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)] = 1.0
    """> 1 sharpens, between 0 and 1 flattens, 0 is uniform, < 0 prefers questions that the model is sure of."""


class DeepSpeedConfig(_Section):
    """What the workers share between them."""

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


class LoraConfig(_Section):
    """Low-rank adapters: only they are trained, and they are merged into the model when it is written."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the adapters."""
    alpha: Annotated[int, Field(ge=1)] = 32
    """The adapters' output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapters."""
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    """Names of the modules that get adapters, e.g. [q_proj, v_proj]; by default every linear one but the head."""


class TrainingConfig(_Section):
    """How the model is trained on the weighted examples."""

    objective: Literal["sft", "dpo", "kto"] = "sft"
    """Supervised fine-tuning on chosen responses, or a preference objective on chosen and rejected ones."""
    examples: Literal["selected", "reference_solutions"] = "selected"
    """selected: the model's own responses, weighted. reference_solutions: no sampling; the questions' worked solutions
    with weight 1, the usual supervised warm start (objective sft)."""
    epochs: Annotated[int, Field(ge=1)] = 3
    """Passes over the examples."""
    examples_per_step: Annotated[int, Field(ge=1)] = 16
    """Examples in one optimizer step, over all workers."""
    micro_batch_size: Annotated[int, Field(ge=1, json_schema_extra=_FREE)] = 4
    """Examples that one worker computes at once; the result does not depend on it, only memory and speed do."""
    packing: Annotated[bool, Field(json_schema_extra=_FREE)] = True
    """Put a micro-batch's sequences end to end, each with attention to itself alone, and no padding. false pads them,
    for models whose attention or head cannot do that; the result is the same."""
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
    """What becomes of a longer example; both are counted. truncate cuts the response, and with it its end."""
    precision: Literal["bf16", "float32"] = "bf16"
    """Arithmetic of the model; the optimizer's state is float32 in both."""
    gradient_checkpointing: Annotated[bool, Field(json_schema_extra=_FREE)] = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    skip_zero_weight: bool = False
    """Leave examples of weight 0 out of the batches; they still count in the normalizer."""
    beta: Annotated[float, Field(gt=0)] = 0.01
    """DPO and KTO: how strongly the trained model is held to the model that it starts from."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """DPO: probability that the two responses of a pair are the wrong way round (conservative DPO)."""
    length_normalized: bool = False
    """DPO: compare log-probabilities per token of a response in place of their sums."""
    desirable_factor: Annotated[float, Field(gt=0)] = 1.0
    """KTO: factor of the chosen responses' losses."""
    undesirable_factor: Annotated[float, Field(gt=0)] = 1.0
    """KTO: factor of the rejected responses' losses."""
    deepspeed: Annotated[DeepSpeedConfig, Field(json_schema_extra=_FREE)] = DeepSpeedConfig()
    """Sharding over the workers."""
    lora: LoraConfig | None = None
    """Train low-rank adapters in place of all parameters, e.g. {rank: 16, alpha: 32}."""
    num_workers: Annotated[int, Field(ge=1, json_schema_extra=_FREE)] = 1
    """Workers, each with a model replica or shard of it."""
    num_gpus_per_worker: Annotated[float, Field(ge=0, json_schema_extra=_FREE)] = 0
    """GPUs of a worker; 0 trains on the CPU."""
    num_cpus_per_worker: Annotated[float, Field(ge=0, json_schema_extra=_FREE)] = 1
    """CPUs of a worker."""
    resources: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(json_schema_extra=_FREE)] = {}
    """Other resources of a worker, e.g. {trainer: 1} for nodes that declare `trainer`."""
    max_failures: Annotated[int, Field(ge=0, json_schema_extra=_FREE)] = 8
    """How often a training whose worker or node has died goes on from its last checkpoint by itself."""
    checkpoint_every_steps: Annotated[int, Field(ge=1, json_schema_extra=_FREE)] = 100
    """Steps between checkpoints, from which a killed training goes on."""
    checkpoint_every_minutes: Annotated[float, Field(gt=0, json_schema_extra=_FREE)] | None = None
    """Also a checkpoint when so many minutes have passed since the last."""
    tracker: Annotated[Literal["none", "tensorboard", "wandb", "mlflow"], Field(json_schema_extra=_FREE)] = "none"
    """Where each step's metrics go beside training.jsonl. The library must be installed; it reads its own environment
    variables (WANDB_MODE, MLFLOW_TRACKING_URI, …). TensorBoard's files go to tensorboard/ in the run directory."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.examples == "reference_solutions" and self.objective != "sft":
            raise ValueError(f"examples: reference_solutions needs objective sft, not {self.objective}")
        if self.objective != "dpo" and (self.label_smoothing or self.length_normalized):
            raise ValueError(f"label_smoothing and length_normalized need objective dpo, not {self.objective}")
        if self.examples_per_step < self.num_workers:
            raise ValueError(
                f"examples_per_step {self.examples_per_step} is smaller than num_workers {self.num_workers}"
            )
        if self.num_gpus_per_worker % 1 and self.num_workers > 1:
            raise ValueError(f"num_gpus_per_worker {self.num_gpus_per_worker:g}: workers cannot share a GPU")
        return self


class EvaluationConfig(_Section):
    """How models are measured."""

    questions: QuestionsConfig | None = None
    """Held-out questions; without them nothing is evaluated."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest response, in tokens. Accuracy is of greedy decoding."""
    responses_per_question: Annotated[int, Field(ge=0, le=1000)] = 0
    """Sample so many responses besides, for pass@k and maj@k with k up to this; 0: none."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature of these responses."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling of these responses."""
    models: dict[str, str] = {}
    """Further models to measure beside: name -> folder or hub name. They may be of other architectures."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.models:
            _check_name(f"models.{name}", name)
        return self


class StudiesConfig(_Section):
    """What else the samples are asked, for the report."""

    fewer_responses: list[Annotated[int, Field(ge=2)]] = []
    """How far entropies and weights from the first 8, 16, … responses agree with those from all of them."""
    max_suspects: Annotated[int, Field(ge=1)] = 1000
    """Questions that the audit of the reference answers lists at most."""
    min_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the responses that must agree on another answer than the reference for a question to be suspect."""


class EarlyStoppingConfig(_Section):
    """Ends the rounds when they no longer help."""

    questions: QuestionsConfig
    """A validation split, apart from the questions that are learned from and those of `evaluation`."""


class GridConfig(_Section):
    """Trainings of a comparison: every combination of these lists. Each has a name such as sft-entropy-a1.5."""

    objectives: Annotated[list[Literal["sft", "dpo", "kto"]], Field(min_length=1)] = ["sft"]
    """Training objectives."""
    signals: Annotated[list[Signal], Field(min_length=1)] = ["uniform", "entropy"]
    """What the weight grows with."""
    exponents: Annotated[list[Annotated[float, Field(ge=-100, le=100)]], Field(min_length=1)] = [1.0]
    """Exponents of every signal but uniform."""
    mappings: Annotated[list[Literal["power", "sigmoid"]], Field(min_length=1)] = ["power"]
    """Mappings of every signal but uniform."""
    overrides: dict[str, Any] = {}
    """Settings of selection, weighting and training for all of them, e.g. {training.learning_rate: 2.0e-7}."""
    suffix: Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]+)?$")] = ""
    """Ends the names, e.g. -lr1, where grids differ in nothing but their overrides."""

    def arms(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, overrides) of each combination."""
        for objective in self.objectives:
            for signal in self.signals:
                shapes = [(m, a) for m in self.mappings for a in self.exponents] if signal != "uniform" else [(None, 0)]
                for mapping, exponent in shapes:
                    overrides: dict[str, Any] = {"training.objective": objective, "weighting.signal": signal}
                    name = f"{objective}-{signal}"
                    if mapping is not None:
                        overrides |= {"weighting.mapping": mapping, "weighting.exponent": float(exponent)}
                        name += f"-a{exponent:g}" + ("-sigmoid" if mapping == "sigmoid" else "")
                    yield name + self.suffix, overrides | self.overrides


class CompareConfig(_Section):
    """Trainings from one set of samples, each with several seeds, evaluated on the same questions."""

    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0, 1, 2, 3, 4]
    """Every training is done with each of these; a seed decides the responses trained on and their order."""
    grids: Annotated[list[GridConfig], Field(min_length=1)] = [GridConfig()]
    """What is compared: each training with the one of uniform weights, the same objective and the same overrides."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trainings at the same time; by default as many as the cluster has CPUs and GPUs for when they begin."""
    models_at_once: Annotated[int, Field(ge=1)] = 8
    """Models, and tokenized examples of each, that are kept at a time: evaluated together, then removed."""
    keep_models: bool = False
    """Keep them."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        owned = ("training.objective", "weighting")
        if mine := [key for grid in self.grids for key, _ in flatten(grid.overrides) if key.startswith(owned)]:
            raise ValueError(f"grids: {mine[0]} is decided by the lists of the grid, not by its overrides")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: each may be given once")
        names = Counter(name for grid in self.grids for name, _ in grid.arms())
        if names.most_common(1)[0][1] > 1:
            raise ValueError(f"grids: two trainings are called {names.most_common(1)[0][0]}; give one grid a suffix")
        return self

    def arms(self) -> dict[str, dict[str, Any]]:
        """Name -> overrides of everything that is compared."""
        return dict(arm for grid in self.grids for arm in grid.arms())

    def baselines(self) -> dict[str, str | None]:
        """Name of each arm -> the uniform one of the same objective and overrides; None if that is it, or none is."""
        uniform = {
            (overrides["training.objective"], json.dumps(grid.overrides, sort_keys=True)): name
            for grid in reversed(self.grids)
            for name, overrides in grid.arms()
            if overrides["weighting.signal"] == "uniform"
        }
        found: dict[str, str | None] = {}
        for grid in self.grids:
            for name, overrides in grid.arms():
                baseline = uniform.get((overrides["training.objective"], json.dumps(grid.overrides, sort_keys=True)))
                found[name] = baseline if baseline != name else None
        return found

    def trainings(self) -> dict[str, dict[str, Any]]:
        """Name -> overrides of each arm with each seed."""
        return {
            f"{name}-seed-{seed}": overrides | {"seed": seed}
            for name, overrides in self.arms().items()
            for seed in self.seeds
        }


class ClusterConfig(_Section):
    """Where a run takes place."""

    address: str | None = None
    """Ray cluster to join (auto, HOST:6379). By default RAY_ADDRESS if it is set, else a Ray of this process's own."""
    num_cpus: Annotated[int, Field(ge=1)] | None = None
    """CPUs that a Ray of this process's own counts with; by default the machine's."""


class Config(_Section):
    """A run."""

    run_dir: str
    """Where everything is written: a local folder, s3://… or gs://…"""
    model: str = ""
    """The model to improve: a folder in Hugging Face format or a hub name. Only `east-ray weigh` on given `samples`
    does without."""
    description: Annotated[str, Field(json_schema_extra=_FREE)] = ""
    """What the run is, in the user's words."""
    seed: int = 0
    """Seeds the choice of responses, the order of examples and, with `sampling.seeded`, the sampling."""
    rounds: Annotated[int, Field(ge=1)] = 1
    """Rounds of sampling, weighting and training; each samples from the newest model."""
    init_from: Literal["previous", "base"] = "previous"
    """What a later round trains: the previous round's model, or `model` again."""
    questions_per_round: Literal["same", "fresh"] = "same"
    """same: every round asks the same questions. fresh: each the next `questions.max_questions` of the source."""
    early_stopping: EarlyStoppingConfig | None = None
    """End after a round whose model does not answer significantly more of these questions than the one before it."""
    questions: QuestionsConfig | None = None
    """The questions to learn from. Either these or `samples`; `east-ray evaluate` does without both."""
    samples: SamplesConfig | None = None
    """Questions with responses that another sampler made; nothing is sampled then."""
    prompt: PromptConfig = PromptConfig()
    """How a question is put to the model."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses are drawn."""
    engines: EnginePoolConfig = EnginePoolConfig()
    """The vLLM engines that sample and evaluate."""
    answers: AnswersConfig = AnswersConfig()
    """How final answers are found and compared."""
    selection: SelectionConfig = SelectionConfig()
    """Which questions become examples."""
    weighting: WeightingConfig = WeightingConfig()
    """How an example's weight comes from its question's responses."""
    training: TrainingConfig = TrainingConfig()
    """How the model is trained on the weighted examples."""
    variants: dict[str, dict[str, Any]] = {}
    """Other ways to learn from the same responses, for comparison: name -> overrides of selection, weighting, training,
    e.g. {uniform: {weighting.signal: uniform}}."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How models are measured."""
    studies: Annotated[StudiesConfig, Field(json_schema_extra=_FREE)] = StudiesConfig()
    """What else the samples are asked, for the report."""
    compare: Annotated[CompareConfig | None, Field(json_schema_extra=_FREE)] = None
    """What `east-ray compare` trains and evaluates; arms and seeds may join later."""
    cluster: Annotated[ClusterConfig, Field(json_schema_extra=_FREE)] = ClusterConfig()
    """Where the run takes place."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.questions is not None and self.samples is not None:
            raise ValueError("questions: give one of questions and samples, not both")
        if self.samples is None:
            if self.questions is None and self.evaluation.questions is None:
                raise ValueError("questions: give questions to learn from, samples, or evaluation.questions")
            if not self.model:
                raise ValueError("model: missing; this key is required")
        elif self.rounds > 1:
            raise ValueError("rounds: given samples are one round; a second would have to sample")
        elif self.training.examples == "reference_solutions":
            raise ValueError("training.examples: reference_solutions needs questions, not samples")
        return self

    @model_validator(mode="after")
    def _rounds_make_sense(self) -> Self:
        if self.questions_per_round == "fresh" and not (self.questions and self.questions.max_questions):
            raise ValueError("questions_per_round: fresh needs questions.max_questions, the number of each round")
        return self

    @model_validator(mode="after")
    def _variants_resolve(self) -> Self:
        for name in self.variants:
            _check_name(f"variants.{name}", name)
            self.variant(name)
        taken = {BASE, TRAINED}
        for key, names in (("variants", self.variants), ("evaluation.models", self.evaluation.models)):
            if twice := taken.intersection(names):
                raise ValueError(f"{key}: another model is called {twice.pop()}; choose another name")
            taken.update(names)
        if self.compare:
            if self.evaluation.models or self.evaluation.responses_per_question:
                raise ValueError(
                    "compare: a comparison measures accuracy, without evaluation.models and sampled responses"
                )
            if self.variants or self.early_stopping or self.training.examples == "reference_solutions":
                raise ValueError(
                    "compare: goes with none of variants, early_stopping and examples: reference_solutions"
                )
            for name in self.compare.arms():
                self.variant(f"{name}-seed-{self.compare.seeds[0]}")
        return self

    def learners(self) -> "dict[str, Config]":
        """Name -> configuration of each training of a round: the run's own and its variants, or a comparison's."""
        names = self.compare.trainings() if self.compare else self.variants
        return ({} if self.compare else {TRAINED: self}) | {name: self.variant(name) for name in names}

    def variant(self, name: str) -> "Config":
        """The configuration of a variant or of a comparison's training: this one with the overrides of that name.

        Raises InputError if an override is not of selection, weighting or training, or is refused there.
        """
        values = self.model_dump() | {"variants": {}, "compare": None}
        where = "compare" if self.compare else f"variants.{name}"
        overrides = self.compare.trainings()[name] if self.compare else self.variants[name]
        for key, value in flatten(overrides):
            if key.split(".")[0] not in ("selection", "weighting", "training", "seed"):
                raise InputError(f"{where}.{key}: only selection, weighting, training and seed may differ here")
            set_dotted(values, key, value)
        return validate(values, f"{where}.")


def _check_name(key: str, name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"{key}: a name is made of letters, digits, '.', '_' and '-'")


def validate(values: Mapping[str, Any], source: str) -> Config:
    """A checked configuration; raises InputError, each sentence with `source` before it."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(source + said for said in sentences(error, Config))) from None


def set_dotted(values: dict[str, Any], dotted_key: str, value: Any) -> None:
    """Put a value at its dotted key, e.g. weighting.exponent, making the sections that are missing."""
    *parents, last = dotted_key.split(".")
    for parent in parents:
        child = values.get(parent)
        if not isinstance(child, dict):
            child = values[parent] = {}
        values = child
    values[last] = value


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with its dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
