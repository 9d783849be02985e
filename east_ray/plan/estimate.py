"""A run's configuration -> what it needs: memory of a worker and of an engine, tokens, hours, price."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from east_ray.config import Config, InputError, TrainingConfig
from east_ray.config.devices import threads
from east_ray.config.sections import num_shards
from east_ray.plan import duration
from east_ray.plan.cards import Device, card, this_cpu
from east_ray.plan.facts import CHARACTERS_PER_TOKEN, Facts, Figure, characters_around, facts_of
from east_ray.plan.memory import (
    EngineMemory,
    WorkerMemory,
    buckets_of,
    engine_memory,
    micro_batch_tokens,
    worker_memory,
)
from east_ray.plan.model_size import ModelSize, model_size
from east_ray.training import objectives
from east_ray.training.objectives import Objective

#: Of a GPU, what the allocator cannot use because free memory lies in pieces.
_ALLOCATOR_SHARE = 0.05
_NO_CARD = "the GPU is not known; --gpu or plan.gpu names it"
#: vLLM's defaults.
_GPU_SHARE, _CPU_CACHE_GIB = 0.92, 4.0


@dataclass(frozen=True)
class Worker:
    """A training worker: its memory where every example has `training.max_length` tokens, and where they have the mean
    length; and what there is for it, in bytes (None: not known).
    """

    name: str  # of the training that needs most
    count: int
    device: str
    tokens: int  # of a micro-batch, at most
    at_most: WorkerMemory
    usual: WorkerMemory
    available: float | None

    @property
    def fits(self) -> bool | None:
        """Whether the longest examples fit; None: not known."""
        return None if self.available is None else self.at_most.peak <= self.available


@dataclass(frozen=True)
class Engine:
    """An engine: its memory, and how many responses it computes at once at their mean and at their longest length."""

    count: int
    device: str
    memory: EngineMemory
    longest: int  # tokens of the longest sequence that it must be able to hold
    at_once: int
    at_once_longest: int
    cores: int  # that one on a CPU computes with; 0 on a GPU

    @property
    def fits(self) -> bool:
        """Whether it can start."""
        return self.memory.fits(self.longest)


@dataclass(frozen=True)
class Stage:
    """What a stage does in all rounds. None: it cannot be known."""

    name: str
    tokens: float | None
    tokens_per_s: float | None
    seconds: float | None
    source: str  # of the speed


@dataclass(frozen=True)
class Plan:
    """What `east-ray plan` says. Bytes, tokens, seconds."""

    model: str
    size: ModelSize
    facts: Facts
    worker: Worker | None
    engine: Engine | None
    stages: tuple[Stage, ...]
    gpus: int
    price: float | None
    problems: tuple[str, ...] = ()
    assumptions: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """Of all stages; None if one is not known."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if len(known) == len(self.stages) else None


def estimate(config: Config, *, may_download: bool = True) -> Plan:
    """The plan of a run. Raises InputError for a model or card that is not known, and for questions it cannot read."""
    if not config.model:
        raise InputError("model: missing; nothing is trained or sampled without one")
    size, facts = model_size(config.model, may_download=may_download), facts_of(config)
    problems = list(_problems(config))
    engine = _engine(config, size, facts) if uses_engines(config) else None
    trains = config.questions is not None or config.samples is not None
    worker = largest_worker(config, size, facts) if trains else None
    stages = tuple(_stages(config, size, facts, engine, trains=trains))
    gpus = _gpus(config)
    made = Plan(config.model, size, facts, worker, engine, stages, gpus, None, tuple(problems), _assumptions(config))
    if (per_hour := config.plan.price_per_gpu_hour) is None:
        return made
    if not gpus:
        raise InputError("plan.price_per_gpu_hour: these settings use no GPU, so there is nothing to pay for")
    return made if made.seconds is None else replace(made, price=made.seconds / 3600 * gpus * per_hour)


def uses_engines(config: Config) -> bool:
    """Whether vLLM samples or evaluates anything in the run."""
    is_vllm = config.on_engines().sampling.backend == "vllm"
    return is_vllm and (config.samples_on_engines or config.evaluates_on_engines)


def device_of(config: Config, num_gpus: float) -> Device | None:
    """What an engine or a worker with so many GPUs runs on; None: a GPU, and which one is not known."""
    return card(config.plan) if num_gpus > 0 else this_cpu()


def memory_of(
    size: ModelSize, settings: TrainingConfig, *, length: float, predicted: float, gpu_memory: float | None
) -> WorkerMemory:
    """Memory of a worker whose sequences have `length` tokens each, of which `predicted` are of the response.

    `gpu_memory`: bytes of its GPU; None: it computes on a CPU.
    """
    responses = len(objectives.load(settings).responses)
    tokens = micro_batch_tokens(settings, responses, length)
    predicted_at_once, buckets = int(tokens * predicted / length), buckets_of(size, settings)
    return worker_memory(size, settings, int(tokens), predicted_at_once, gpu_memory=gpu_memory, buckets=buckets)


def gpu_memory_of(config: Config, settings: TrainingConfig) -> float | None:
    """Bytes of a training worker's GPU, 0 where it is not known which one; None where it has none."""
    device = device_of(config, settings.num_gpus_per_worker)
    return None if settings.num_gpus_per_worker == 0 else device.memory if device is not None else 0.0


def available_to_worker(config: Config, settings: TrainingConfig) -> float | None:
    """Bytes that a worker has: of a GPU, or its share of this machine; None for another machine or an unknown GPU."""
    device = device_of(config, settings.num_gpus_per_worker)
    if device is None:
        return None
    if device.is_gpu:
        return device.memory * (1 - _ALLOCATOR_SHARE) * min(1.0, settings.num_gpus_per_worker)
    is_cluster = config.cluster.address or os.environ.get("RAY_ADDRESS")
    return None if is_cluster else device.memory / settings.num_workers


def largest_worker(config: Config, size: ModelSize, facts: Facts) -> Worker:
    """The worker of the training that needs most memory."""
    found = []
    for name, learner in config.learners().items():
        settings = learner.training
        device = device_of(config, settings.num_gpus_per_worker)
        gpu_memory, longest = gpu_memory_of(config, settings), settings.max_length
        length = min(longest, _length(facts, learner))
        found.append(
            Worker(
                name=name,
                count=settings.num_workers,
                device="a GPU" if device is None else device.name,
                tokens=int(micro_batch_tokens(settings, len(objectives.load(settings).responses), longest)),
                at_most=memory_of(size, settings, length=longest, predicted=longest, gpu_memory=gpu_memory),
                usual=memory_of(
                    size,
                    settings,
                    length=length,
                    predicted=facts.response_tokens.value or length,
                    gpu_memory=gpu_memory,
                ),
                available=available_to_worker(config, settings),
            )
        )
    return max(found, key=lambda one: one.at_most.peak)


def _length(facts: Facts, learner: Config) -> float:
    """Mean tokens of a prompt with a response, as they are trained on."""
    left_out = characters_around(learner.prompt) - characters_around(learner.training_prompt())
    prompt = max(0.0, (facts.prompt_tokens.value or 0) - left_out / CHARACTERS_PER_TOKEN)
    return prompt + (facts.response_tokens.value or 0)


# -------------------------------------------------------------------------------------------------------------- engines


def engine_memory_of(config: Config, size: ModelSize, device: Device | None) -> EngineMemory | None:
    """Memory of an engine with the settings' arguments; None where the device is not known."""
    if device is None:
        return None
    arguments, pool = config.engines.engine_args, config.engines
    if device.is_gpu:
        memory = device.memory * float(arguments.get("gpu_memory_utilization", _GPU_SHARE))
        cache = arguments.get("kv_cache_memory_bytes")
    else:
        memory = device.memory / pool.min_engines
        cache = float(pool.env.get("VLLM_CPU_KVCACHE_SPACE", _CPU_CACHE_GIB)) * 2**30
    is_large = device.is_gpu and device.memory >= 70 * 2**30 and not device.name.startswith("A100")
    return engine_memory(
        size,
        memory=memory,
        cache=cache,
        shards=num_shards(arguments),
        bytes_per_element=4 if arguments.get("dtype") == "float32" else 2,
        max_responses=int(arguments.get("max_num_seqs", 1024 if is_large else 256)),  # vLLM's own defaults
        on_gpu=device.is_gpu,
    )


def _engine(config: Config, size: ModelSize, facts: Facts) -> Engine | None:
    pool = config.engines
    device = device_of(config, pool.num_gpus_per_engine)
    memory = engine_memory_of(config, size, device)
    if memory is None or device is None:
        return None
    prompt, response = facts.prompt_tokens.value or 0.0, facts.response_tokens.value or 0.0
    n, longest = round(facts.num_responses.value or 1), config.sampling.max_tokens
    context = int(pool.engine_args.get("max_model_len", size.context or prompt + longest))
    count = pool.max_engines
    if config.plan.gpus is not None and pool.num_gpus_per_engine:
        count = max(1, min(count, int(config.plan.gpus / pool.num_gpus_per_engine)))
    cores = 0 if device.is_gpu else min(threads(pool, device.cores), device.cores)
    return Engine(
        count=count,
        device=f"{cores} of {device.name}" if cores else device.name,
        cores=cores,
        memory=memory,
        longest=context,
        at_once=memory.responses_at_once(prompt, response, n),
        at_once_longest=memory.responses_at_once(prompt, longest, n),
    )


def _gpus(config: Config) -> int:
    """GPUs that the run holds: those of `plan.gpus`, or as many as its engines or its workers use."""
    of_workers = [one.training.num_workers * one.training.num_gpus_per_worker for one in config.learners().values()]
    of_engines = config.engines.max_engines * config.engines.num_gpus_per_engine if uses_engines(config) else 0
    used = max(of_engines, *of_workers)
    return (config.plan.gpus or -int(-used // 1)) if used else 0


def _problems(config: Config) -> Iterator[str]:
    """What the number of GPUs does not allow."""
    gpus, pool = config.plan.gpus, config.engines
    if config.plan.gpu is not None and _gpus(config) == 0:
        yield (
            f"plan.gpu: these settings use no GPU, so {config.plan.gpu} is left out; set engines.num_gpus_per_engine "
            "and training.num_gpus_per_worker to 1"
        )
    if gpus is None:
        return
    if uses_engines(config) and pool.num_gpus_per_engine > gpus:
        yield f"engines.num_gpus_per_engine: an engine needs {pool.num_gpus_per_engine:g} GPUs, and there are {gpus}"
    for name, learner in config.learners().items():
        needed = learner.training.num_workers * learner.training.num_gpus_per_worker
        if needed > gpus:
            yield f"training.num_workers: {name} needs {needed:g} GPUs, and there are {gpus}"


# ---------------------------------------------------------------------------------------------------------------- hours


def _stages(config: Config, size: ModelSize, facts: Facts, engine: Engine | None, *, trains: bool) -> Iterator[Stage]:
    """What is sampled, trained and evaluated in all rounds."""
    learners = config.learners()
    questions, response = facts.num_questions.value, facts.response_tokens.value or 0.0
    if uses_engines(config) and config.samples_on_engines:
        # From the second round on each training of a comparison samples from its own model.
        times = 1 + (config.rounds - 1) * (len(learners) if config.compare else 1)
        n = facts.num_responses.value or 1.0
        tokens = None if questions is None else times * questions * n * response
        yield _of_engines("sampling", config, size, facts, engine, tokens, times, round(n))
    if trains:
        yield _training(config, size, facts)
    if uses_engines(config) and config.evaluates_on_engines:
        evaluation, held_out = config.evaluation, facts.num_held_out.value
        models = 1 + len(learners) * config.rounds + len(evaluation.models) if trains else 1 + len(evaluation.models)
        models -= len(evaluation.endpoints)
        n = 1 + evaluation.responses_per_question
        tokens = None if held_out is None else models * held_out * n * min(response, evaluation.max_tokens)
        yield _of_engines("evaluation", config, size, facts, engine, tokens, config.rounds, n)


def _of_engines(
    name: str,
    config: Config,
    size: ModelSize,
    facts: Facts,
    engine: Engine | None,
    tokens: float | None,
    times: int,
    per_question: int,
) -> Stage:
    """A stage of the engines: their decoding, and before it the prompts, each read once for all its responses."""
    plan, device = config.plan, device_of(config, config.engines.num_gpus_per_engine)
    if plan.gpu is None and (measured := facts.sampled_tokens_per_s.value):
        return _stage(name, tokens, measured, 0.0, "measured")
    if engine is None or device is None:
        return Stage(name, tokens, None, None, _NO_CARD)
    prompt, response = facts.prompt_tokens.value or 0.0, facts.response_tokens.value or 0.0
    at_once = engine.memory.responses_at_once(prompt, response, per_question)
    share = 1.0 if device.is_gpu else min(engine.cores / device.cores, 1 / engine.count)  # engines share the cores
    rate = engine.count * duration.decoding_tokens_per_s(
        size, engine.memory, at_once, prompt + response / 2,
        peak_flops=share * device.flops, bandwidth=share * device.bandwidth,
        efficiency=plan.engine_efficiency, token_s=plan.engine_token_us * 1e-6,
    )  # fmt: skip
    if not rate:
        return Stage(name, tokens, None, None, "no response fits in the cache")
    computed = engine.count * engine.memory.shards * share * device.flops * plan.engine_efficiency
    prompts = 0.0 if tokens is None else tokens / max(1.0, response) / per_question * prompt
    extra = prompts * duration.forward_flops(size, prompt) / computed + times * plan.stage_start_s
    return _stage(name, tokens, rate, extra, "assumed")


def _training(config: Config, size: ModelSize, facts: Facts) -> Stage:
    """All trainings of all rounds: one after the other, of a comparison as many at once as the GPUs allow."""
    if facts.num_questions.value is None:
        return Stage("training", None, None, None, "the number of questions is not known")
    found = [_one_training(config, learner, size, facts) for learner in config.learners().values()]
    tokens = config.rounds * sum(of_one for of_one, _ in found)
    times = [seconds for _, seconds in found if seconds is not None]
    if len(times) < len(found):
        return Stage("training", tokens, None, None, _NO_CARD)
    each = max(1.0, config.training.num_workers * config.training.num_gpus_per_worker)
    groups = (
        min(config.compare.max_concurrent or len(found), max(1, int(_gpus(config) / each))) if config.compare else 1
    )
    seconds = config.rounds * sum(times) / groups
    starts = config.rounds * config.plan.stage_start_s  # trainings in a row share a group of workers
    measured = config.plan.gpu is None and facts.trained_tokens_per_s.value
    return Stage("training", tokens, tokens / seconds, seconds + starts, "measured" if measured else "assumed")


def _one_training(config: Config, learner: Config, size: ModelSize, facts: Facts) -> tuple[float, float | None]:
    """(tokens, seconds) of a training in a round, with its passes for reference log-probabilities."""
    settings, objective, plan = learner.training, objectives.load(learner.training), config.plan
    share = 1.0 if settings.examples == "reference_solutions" else facts.kept_share.value or 1.0
    length = min(settings.max_length, _length(facts, learner))
    examples = (facts.num_questions.value or 0.0) * share * learner.selection.responses_per_question_trained
    tokens = examples * settings.epochs * len(objective.responses) * length
    if plan.gpu is None and (measured := facts.trained_tokens_per_s.value):
        return tokens, tokens / measured
    device = device_of(config, settings.num_gpus_per_worker)
    if device is None:
        return tokens, None
    workers = settings.num_workers
    peak = device.flops / (1 if device.is_gpu else workers)  # workers on a CPU share its cores
    at_once = micro_batch_tokens(settings, len(objective.responses), length)
    rate = workers * duration.training_tokens_per_s(
        size, settings, length, at_once, peak_flops=peak, mfu=plan.mfu, pass_s=plan.micro_batch_s
    )
    passes = examples * length * _passes(objective, settings.epochs) * duration.forward_flops(size, length)
    return tokens, tokens / rate + passes / (workers * peak * plan.mfu)


def _passes(objective: Objective, epochs: int) -> float:
    """Passes without gradients over an example: once for the reference, and in each epoch for what is measured."""
    return len(objective.reference_responses) + epochs * len(objective.measured_responses)


def _stage(name: str, tokens: float | None, rate: float, extra_s: float, source: str) -> Stage:
    return Stage(name, tokens, rate, None if tokens is None else tokens / rate + extra_s, source)


def _assumptions(config: Config) -> dict[str, float | str]:
    """The settings that stand for something nobody has measured, by key."""
    names = ("mfu", "micro_batch_s", "engine_efficiency", "engine_token_us", "stage_start_s")
    return {f"plan.{name}": getattr(config.plan, name) for name in names}


def figures(facts: Facts) -> list[tuple[str, Figure]]:
    """(what it is, figure) of the facts that are printed."""
    found = [
        ("questions of a round", facts.num_questions),
        ("held-out questions", facts.num_held_out),
        ("tokens of a prompt", facts.prompt_tokens),
        ("tokens of a response", facts.response_tokens),
        ("share of the questions that is trained on", facts.kept_share),
    ]
    if facts.num_responses.setting == "sampling.adaptive":
        found.append(("responses to a question", facts.num_responses))
    return found
