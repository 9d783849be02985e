"""Every setting of a run: its type, its bound, its default and what it means.

A run is one YAML file plus dotted overrides (``sampling.temperature=0.8``). The models below are strict: an unknown
key, a wrong type or a value out of bounds is refused with the path of the key, the value, what was expected and the
nearest known key. Nothing here edits a value, and nothing here imports Ray, vLLM or torch.

>>> resolve({"model": "m", "run_dir": "r", "questions": {"path": "q.jsonl"}}, ["weighting.exponent=1.5"]).weighting
WeightingConfig(signal='entropy', mapping='power', exponent=1.5)
"""

import difflib
import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails


class InputError(ValueError):
    """What a user gave cannot be used. The message is one sentence: which file, row or key, and what was expected."""


#: Marks a field whose change cannot change a result, so that a run may be resumed with another value (more workers,
#: another cluster). Every other difference to the configuration stored in a run directory is refused.
_FREE = {"free": True}

#: vLLM engine arguments that spend memory or devices differently and leave the responses' distribution as it is.
_FREE_ENGINE_ARGS = {
    "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_memory_bytes", "tensor_parallel_size",
    "pipeline_parallel_size", "distributed_executor_backend", "enforce_eager", "enable_prefix_caching",
    "enable_chunked_prefill", "disable_log_stats", "download_dir", "load_format", "swap_space", "cpu_offload_gb",
    "block_size",
}  # fmt: skip


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
    """Questions of a task, which asks them together and writes each as it finishes."""
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

    signal: Literal["entropy", "accuracy", "rejection", "uniform"] = "entropy"
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
    """Longest response, in tokens. Decoding is greedy."""


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
    """What the run is, in the user's words; shown in the report."""
    seed: int = 0
    """Seeds the choice of responses, the order of examples and, with `sampling.seeded`, the sampling."""
    rounds: Annotated[int, Field(ge=1)] = 1
    """Rounds of sampling, weighting and training; each samples from the newest model."""
    init_from: Literal["previous", "base"] = "previous"
    """What a later round trains: the previous round's model, or `model` again."""
    questions: QuestionsConfig | None = None
    """The questions to learn from. Either these or `samples`."""
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
    cluster: Annotated[ClusterConfig, Field(json_schema_extra=_FREE)] = ClusterConfig()
    """Where the run takes place."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.questions is None) == (self.samples is None):
            raise ValueError("questions: give exactly one of questions and samples")
        if self.samples is None:
            if not self.model:
                raise ValueError("model: missing; this key is required")
            return self
        if self.rounds > 1:
            raise ValueError("rounds: given samples are one round; a second would have to sample")
        if self.training.examples == "reference_solutions":
            raise ValueError("training.examples: reference_solutions needs questions, not samples")
        return self

    @model_validator(mode="after")
    def _variants_resolve(self) -> Self:
        for name in self.variants:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
                raise ValueError(f"variants.{name}: a name is made of letters, digits, '.', '_' and '-'")
            self.variant(name)
        return self

    def variant(self, name: str) -> "Config":
        """The configuration of a variant: this one with the variant's overrides, and no variants of its own.

        Raises InputError if an override is not of selection, weighting or training, or is refused there.
        """
        values = self.model_dump() | {"variants": {}}
        for key, value in _flatten(self.variants[name]):
            if key.split(".")[0] not in ("selection", "weighting", "training"):
                raise InputError(
                    f"variants.{name}.{key}: a variant may change selection, weighting and training, nothing else"
                )
            _set(values, key, value)
        return _validate(values, f"variants.{name}.")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 2e-6 as a string; users mean the number, as YAML 1.2 has it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with dotted overrides (``key.path=value``, the value read as YAML).

    Raises InputError naming the file, the key, the value and what was expected.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot read the configuration ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the configuration is not UTF-8 text") from error
    return parse(text, str(path), overrides)


def parse(text: str, source: str, overrides: Sequence[str] = ()) -> Config:
    """As `load`, from the text of a YAML file; `source` names it in messages."""
    values = _parse_yaml(text, source)
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected keys with values (model: …, run_dir: …), found {type(values).__name__}")
    return resolve(values, overrides, source=f"{source}: ")


def resolve(values: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "") -> Config:
    """A checked configuration from plain values and dotted overrides; raises InputError."""
    merged = _copy(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"{override!r} is not an override: expected key=value, e.g. weighting.exponent=1.5")
        _set(merged, key, _parse_yaml(text, override))
    return _validate(merged, source)


def dump(config: Config) -> str:
    """The configuration as YAML, every key written out; `load` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True, width=120)


def flat(config: Config) -> dict[str, Any]:
    """Every setting by its dotted key, e.g. {"weighting.exponent": 1.5}."""
    return dict(_flatten(config.model_dump()))


def dump_documented(config: Config) -> str:
    """The configuration as YAML with each field's documentation as a comment above it."""
    return "\n".join(_documented_lines(config, "")) + "\n"


def differences(stored: Config, given: Config, *, ignored_sections: Sequence[str] = ()) -> list[str]:
    """Keys in which two configurations differ and whose change would change results, as ``key: stored -> given``.

    Sections in `ignored_sections` are passed over.
    """
    old, new = dict(_results_keys(stored, "")), dict(_results_keys(given, ""))
    if not old["model"]:  # samples were weighed without one, and now they are trained on
        new["model"] = ""
    return [
        f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in old | new
        if old.get(key) != new.get(key) and key.partition(".")[0] not in ignored_sections
    ]


def _validate(values: Mapping[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(source + _sentence(details) for details in error.errors())) from None


def _sentence(details: ErrorDetails) -> str:
    """One pydantic error as ``key: what is wrong``, with the nearest known key for an unknown one."""
    path = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "extra_forbidden":
            known = list(_fields_at(details["loc"][:-1]))
            near = difflib.get_close_matches(str(details["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            return f"{path}: unknown key; {hint}"
        case "missing":
            return f"{path}: missing; this key is required"
        case "value_error":
            message = details["msg"].removeprefix("Value error, ")
            return f"{path}: {message}" if path else message
    expected = details["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{path}: {details['input']!r} given, expected {expected}"


def _fields_at(location: Sequence[int | str]) -> Iterator[str]:
    section: type[BaseModel] = Config
    for part in location:
        section = _section_type(section.model_fields[str(part)].annotation) or section
    yield from section.model_fields


def _section_type(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) in (Union, types.UnionType):
        return next((found for arg in get_args(annotation) if (found := _section_type(arg))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{source}: not valid YAML{where}: {getattr(error, 'problem', error)}") from error


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _set(values: dict[str, Any], dotted_key: str, value: Any) -> None:
    *parents, last = dotted_key.split(".")
    for parent in parents:
        child = values.get(parent)
        if not isinstance(child, dict):
            child = values[parent] = {}
        values = child
    values[last] = value


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _results_keys(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if (isinstance(extra, dict) and extra.get("free")) or (prefix == "" and name == "run_dir"):
            continue
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _results_keys(value, f"{prefix}{name}.")
        elif name == "engine_args":
            yield from ((f"{prefix}{name}.{key}", value[key]) for key in value if key not in _FREE_ENGINE_ARGS)
        else:
            yield f"{prefix}{name}", value


def _documented_lines(section: BaseModel, indent: str) -> Iterator[str]:
    for name, field in type(section).model_fields.items():
        for line in (field.description or "").splitlines():
            yield f"{indent}# {line.strip()}"
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:"
            yield from _documented_lines(value, indent + "  ")
        else:
            shown = yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=10_000).rstrip()
            yield from (indent + line for line in shown.splitlines())
