"""The sections of a run's settings, in the order of the stages."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from east_ray.config.adaptive import AdaptiveConfig
from east_ray.config.base import ANY_TIME, Column, Encoding, MayChange, Name, Part, Pattern, Section
from east_ray.config.deepspeed import DeepSpeedConfig
from east_ray.config.endpoint import EndpointConfig
from east_ray.config.prompting import SamplingParams, StopString

ObjectiveName = Annotated[str, Part("sft", "dpo", "kto")]
Announcement = Annotated[str, Field(min_length=1, max_length=100, pattern=r"\S")]


class QuestionsConfig(Section):
    """Where questions come from."""

    path: str | None = None
    """A file of questions, a folder with its subfolders, or a pattern such as data/*.csv (local, s3:// or gs://), in
    one of the forms that `samples.path` has. Either this or `hub`."""
    encoding: Encoding = "utf-8"
    """Encoding of text files, e.g. cp1252. A file in another one is refused."""
    hub: str | None = None
    """Name of a data set on the Hugging Face hub, e.g. openai/gsm8k."""
    hub_config: str | None = None
    """Configuration of the hub data set, e.g. main."""
    split: str = "train"
    """Split of the hub data set."""
    format: Annotated[str, Part("auto", "gsm8k", "math", "columns")] = "auto"
    """How a row is read. gsm8k: {question, answer ending in "#### 72"}; math: {problem, solution, answer}; columns: the
    columns named below, with dots and indices as in `samples`; auto: one of these, or {question, answer}, by the first
    row; module:name: a function of your own."""
    question_column: Column = "question"
    """With format columns: the column of the question: a text, or messages, whose last turn of the user it is."""
    reference_answer_column: Column | None = "reference_answer"
    """With format columns: the column of the final answer, or of a worked solution that marks it, as in `samples`.
    null: there is none; see `labels.source`."""
    reference_solution_column: Column | None = None
    """With format columns: the column of the worked solution; `training.examples: reference_solutions` needs it."""
    id_column: Column | None = None
    """A column of unique names; by default the file's name and the row's number."""
    extra_columns: list[Column] = []
    """Further columns to keep. A grader finds them in `question.extra`, e.g. the options of the grader choice."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Leave out this many questions from the beginning."""
    max_questions: Annotated[int, Field(ge=1)] | None = None
    """Take at most this many questions after `skip`."""

    def _problems(self) -> Iterator[str]:
        if (self.path is None) == (self.hub is None):
            yield "give exactly one of path and hub"


#: vLLM engine arguments that decide about memory, devices and speed, but not about the distribution of responses.
_FREE_ENGINE_ARGS = MayChange(
    keys=frozenset(
        {"max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_memory_bytes", "block_size"}
        | {"tensor_parallel_size", "pipeline_parallel_size", "distributed_executor_backend", "enforce_eager"}
        | {"enable_prefix_caching", "enable_chunked_prefill", "disable_log_stats", "download_dir", "load_format"}
        | {"swap_space", "cpu_offload_gb"}
    )
)


class SamplingConfig(Section):
    """How responses are drawn."""

    backend: Annotated[str, Part("vllm", "endpoint", "scripted")] = "vllm"
    """vllm: engines; endpoint: the server of `engines.endpoint`; scripted: a table of prepared responses, for tests;
    module:name: a class of your own."""
    backend_args: dict[str, Any] = {}
    """Arguments of the backend, e.g. {table: responses.jsonl} of scripted."""
    responses_per_question: Annotated[int, Field(ge=1, le=16384)] = 128
    """Responses sampled for each question, all in one request (n = 128 in the paper)."""
    adaptive: AdaptiveConfig | None = None
    """Fewer responses where they tell little, by one of three rules; by default every question gets all. Use them with
    `weighting.entropy_estimator: smoothed`."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: the smallest set of tokens whose probability reaches this."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample among this many likeliest tokens; 0: among all."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest response, in tokens; a longer one is cut and marked finish_reason: length."""
    stop: list[StopString] = []
    """Strings that end a response and are no part of its text, e.g. ["\\n\\n"] of a base model, which would go on with
    a question of its own. Training ends such a response like one that ended by itself, with the model's own token."""
    params: SamplingParams = {}
    """Further arguments of vLLM's SamplingParams, e.g. {min_p: 0.05, repetition_penalty: 1.05}."""
    seeded: Literal["auto", True, False] = "auto"
    """Give each request its own seed, derived from `seed`, the round and the question, so that a repeated run samples
    the same responses in any order of questions. auto: true where the engines run on CPUs; false on GPUs, whose kernels
    round differently in each batch, so that seeds would cost time and repeat nothing, and at an endpoint. config.yaml
    has what it was at the run's beginning, and the run keeps it on any device."""
    logprobs: Annotated[bool, MayChange(until=("sampling",))] = False
    """Keep the log-probability of each response, summed over its tokens. Nothing here uses it, and engines that compute
    it are slower: a tenth with a small model, less with a large one."""
    keep_token_ids: Annotated[bool, MayChange(until=("sampling",))] = True
    """Keep the token ids of the responses and train on them: a text may be tokenized otherwise than it was sampled. A
    response is tokenized from its text where its ids are missing, as in given samples, or do not spell it."""

    def _problems(self) -> Iterator[str]:
        if self.adaptive is not None:
            yield from self.adaptive.problems_with(self.responses_per_question)


def num_shards(engine_args: Mapping[str, Any]) -> int:
    """Tensor parallel times pipeline parallel size of an engine with these vLLM arguments."""
    return math.prod(int(engine_args.get(f"{kind}_parallel_size", 1)) for kind in ("tensor", "pipeline"))


class EnginePoolConfig(Section):
    """The engines that sample and evaluate."""

    min_engines: Annotated[int, Field(ge=1), ANY_TIME] = 1
    """Engines that the pool keeps while a stage runs."""
    max_engines: Annotated[int, Field(ge=1), ANY_TIME] = 1
    """Engines that the pool may grow to while questions wait."""
    num_gpus_per_engine: Annotated[float, Field(ge=0), ANY_TIME] = 0
    """GPUs that Ray reserves for an engine; a fraction lets engines share one. 0 runs on the CPU."""
    num_cpus_per_engine: Annotated[Annotated[float, Field(ge=0)] | None, ANY_TIME] = None
    """CPUs that Ray reserves for an engine, and threads that one without a GPU computes with. By default all of a
    machine's cores but one, and at least 1, for a single engine without a GPU; else 1."""
    resources: Annotated[dict[str, Annotated[float, Field(gt=0)]], ANY_TIME] = {}
    """Other resources that Ray reserves for an engine, e.g. {sampler: 1} for nodes that declare `sampler`."""
    engine_args: Annotated[dict[str, Any], _FREE_ENGINE_ARGS] = {}
    """vLLM engine arguments by name, e.g. {dtype: bfloat16, tensor_parallel_size: 2, max_model_len: 4096}."""
    env: Annotated[dict[str, str], ANY_TIME] = {}
    """Environment variables of the engine's process, e.g. {VLLM_CPU_KVCACHE_SPACE: "1"}. They are stored with the
    run, so no secrets: a token belongs in the environment of the cluster's nodes."""
    questions_per_task: Annotated[int, Field(ge=1), ANY_TIME] = 8
    """Minimum number of questions in a task, which asks them together and writes each as soon as it is answered."""
    max_deaths_per_question: Annotated[int, Field(ge=1), ANY_TIME] = 2
    """Set a question aside after this many engines have died while it was the only question in flight."""
    endpoint: EndpointConfig | None = None
    """With `sampling.backend: endpoint`: the server that samples. It needs no engines, and vLLM need not be installed;
    models are still evaluated by engines, but for those of `evaluation.endpoints`."""

    def of_endpoint(self, endpoint: EndpointConfig) -> Self:
        """The pool that asks an endpoint: one actor without a GPU, whose requests are all in flight together."""
        changes = {"min_engines": 1, "max_engines": 1, "num_gpus_per_engine": 0.0, "num_cpus_per_engine": 0.1}
        return self.model_copy(update={**changes, "resources": {}, "endpoint": endpoint})

    def _problems(self) -> Iterator[str]:
        if self.min_engines > self.max_engines:
            yield f"min_engines {self.min_engines} is greater than max_engines {self.max_engines}"
        shards, gpus = num_shards(self.engine_args), self.num_gpus_per_engine
        by_ray = self.engine_args.get("distributed_executor_backend") == "ray"  # its workers ask for GPUs themselves
        if shards > 1 and gpus not in (0, shards) and not by_ray:
            yield (
                f"num_gpus_per_engine {gpus:g}: tensor_parallel_size times pipeline_parallel_size in engine_args is "
                f"{shards}, so an engine needs {shards} GPUs"
            )


class AnswersConfig(Section):
    """How final answers are found and compared."""

    grader: Annotated[str, Part("math", "choice", "text", "number")] = "math"
    """What reads an answer from a response and compares answers. math: equal mathematically; choice: the letter of an
    option; text: the same words; number: equal when rounded; module:name: a class or function of your own."""
    grader_args: dict[str, Any] = {}
    """Arguments of a grader of your own, {options: COLUMN} of choice, or {digits: 3} of number."""
    grader_timeout_s: Annotated[float, Field(gt=0, le=86400)] = 10.0
    """Seconds that a grader of your own may take to read the responses to a question, and again to compare their
    answers. A response that it fails on, or is at when the time is over, has no answer."""
    equivalence: Literal["math", "string"] = "math"
    """Of the grader math. math: mathematically equal answers share a cluster; string: only equal strings do, as in the
    authors' code."""
    no_answer: Literal["cluster", "exclude"] = "cluster"
    """Responses without an answer: one cluster of their own, as in the authors' code, or excluded from the entropy."""
    last_number: bool = False
    """Take the last number of a response that states no answer explicitly."""
    unclosed_thinking: Literal["count", "exclude"] = "count"
    """Thinking that a response never closes, as when its tokens ran out: count takes an answer from it, exclude none.
    Where the prompt opens the thinking, such a response looks like one without thinking."""
    announcements: list[Announcement] = []
    """Further words that announce an answer, e.g. [Solution, my verdict]. Built in are those of some 50 languages."""
    pattern: Pattern | None = None
    """A regular expression of RE2 with one group, which finds the answer instead of all other rules, e.g.
    "(?m)^Answer: (.+)$". The last match counts, in the last 20,000 characters. Such an answer has no box: see
    `selection.require_boxed`."""
    responses: Annotated[int, Field(ge=1)] | None = None
    """Use only the first so many responses of each question; by default all."""


class SelectionConfig(Section):
    """Which questions become examples."""

    all_correct: Literal["keep", "drop"] = "keep"
    """Questions that every response answers correctly. SFT keeps them by default (entropy gives them weight 0);
    DPO and KTO always drop them, because there is no wrong response."""
    require_boxed: bool = True
    """A chosen response must have its answer in \\boxed{}, as in the paper. false: any correct response can be chosen,
    responses with a box first; for samples of models that were not asked for one."""
    responses_per_question_trained: Annotated[int, Field(ge=1)] = 1
    """At most this many correct responses of a question are trained on; they share the question's weight."""


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
    save_adapter: Annotated[bool, MayChange(until=("training",))] = False
    """Also write the adapters apart, in peft's format: adapter/ beside model/."""


#: `training.micro_batch_size` where neither it nor `training.tokens_per_micro_batch` is given.
DEFAULT_MICRO_BATCH_SIZE = 4


class TrainingConfig(Section):
    """How the model is trained on the weighted examples."""

    objective: ObjectiveName = "sft"
    """sft: supervised fine-tuning on chosen responses; dpo, kto: preference objectives on chosen and rejected
    responses; module:name: a class of your own."""
    examples: Literal["selected", "reference_solutions"] = "selected"
    """selected: the model's own responses, weighted. reference_solutions: no sampling; the questions' worked solutions
    with weight 1, the usual supervised warm start (with objective sft)."""
    prompt: Literal["same", "plain"] = "same"
    """The prompt that is trained on. same: the one that was sampled with. plain: without `prompt.examples`, so that the
    model learns to answer as if it had seen them. A served model is asked with the prompt that it was trained on."""
    epochs: Annotated[int, Field(ge=1)] = 3
    """Passes over the examples."""
    examples_per_step: Annotated[int, Field(ge=1)] = 16
    """Examples in one optimizer step, over all workers."""
    micro_batch_size: Annotated[Annotated[int, Field(ge=1)] | None, ANY_TIME] = None
    """Examples that one worker computes at once; by default 4, if `tokens_per_micro_batch` is not given either. Memory
    and speed depend on it; the result does not."""
    tokens_per_micro_batch: Annotated[Annotated[int, Field(ge=1)] | None, ANY_TIME] = None
    """In place of `micro_batch_size`: tokens that one worker computes at once, without `packing` those of the padding
    too. Examples are shared out so that all workers take about the same time. All sequences of an example count: with
    DPO the prompt twice. A longer example is computed alone. The result does not depend on it."""
    packing: Annotated[bool, ANY_TIME] = True
    """Concatenate the sequences of a micro-batch without padding; each attends to itself alone. false pads them, for
    models whose attention or head cannot work on packed sequences; the result is the same."""
    compile: Annotated[bool | Literal["auto"], ANY_TIME] = "auto"
    """Compile the model's layers with torch.compile: on a GPU a third faster, after half a minute at the first step.
    auto: on a GPU, with packing and zero_stage 0 to 2; the result is the same to rounding."""
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
    gradient_checkpointing: Annotated[bool | Literal["offload"], ANY_TIME] = False
    """true: recompute activations in the backward pass: less memory, about a third more time. offload: and what the
    layers start from waits in CPU memory instead of the GPU's; for examples of 16k tokens and more."""
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

    def _problems(self) -> Iterator[str]:
        examples, workers, gpus = self.examples_per_step, self.num_workers, self.num_gpus_per_worker
        if self.micro_batch_size is not None and self.tokens_per_micro_batch is not None:
            yield (
                f"micro_batch_size {self.micro_batch_size} and tokens_per_micro_batch {self.tokens_per_micro_batch} "
                "are both given; set one of them to null"
            )
        if examples < workers:
            yield f"examples_per_step {examples} is smaller than num_workers {workers}"
        if self.compile is True and self.deepspeed.zero_stage == 3:
            yield "compile needs deepspeed.zero_stage 0, 1 or 2"
        if gpus % 1 and workers > 1:
            yield f"num_gpus_per_worker {gpus:g}: workers cannot share a GPU"


class EvaluationConfig(Section):
    """How models are measured."""

    questions: QuestionsConfig | None = None
    """Held-out questions; without them nothing is evaluated."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest response, in tokens. Accuracy is measured with greedy decoding."""
    responses_per_question: Annotated[int, Field(ge=0, le=1000)] = 0
    """Also sample this many responses of each question, for pass@k and maj@k with k up to this; 0: none."""
    temperature: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Sampling temperature of these responses."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling of these responses."""
    prompt: dict[str, Any] = {}
    """Settings of `prompt` that are others in evaluation, e.g. {examples: null}, or {style: auto} where it is fixed and
    `models` have templates of their own; by default models are asked as in sampling."""
    stop: list[StopString] | None = None
    """Strings that end a response; by default those of `sampling.stop`."""
    params: SamplingParams | None = None
    """Further arguments of vLLM's SamplingParams; by default those of `sampling.params`."""
    models: dict[Name, str] = {}
    """Other models to measure too: name -> folder or hub name. Their architectures may differ."""
    endpoints: dict[Name, EndpointConfig] = {}
    """Servers that answer for models in place of engines, by the models' names, e.g. {base: …, trained: …}. Models that
    are compared should be served alike."""


class EarlyStoppingConfig(Section):
    """Ends the run when further rounds no longer help."""

    questions: QuestionsConfig
    """A validation split, disjoint from the questions that are trained on and from those of `evaluation`."""
