"""The group of training workers under Ray Train, as the driver sees it: trainings in, metrics and models out."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from east_ray.config import InputError, TrainingConfig
from east_ray.storage import Folder
from east_ray.training.checkpoints import prepare_checkpoints, shape
from east_ray.training.compute import Metrics
from east_ray.training.dataset import Training, tokenized_examples
from east_ray.training.worker import Board, dataset_name, work

#: How often the driver looks for new metrics.
_LOOK_INTERVAL_S = 0.5
#: Settings that a group of workers is made for; trainings that differ in one of them cannot share a group.
_SETTINGS_OF_A_GROUP = {
    *("num_workers", "num_cpus_per_worker", "num_gpus_per_worker", "resources", "max_failures", "deepspeed"),
}


@dataclass(frozen=True)
class TrainingSummary:
    """What a training counted: examples trained on, examples left out, and the metrics of each step."""

    num_examples: int
    num_too_long: int
    num_zero_weight: int
    steps: list[Metrics]


def train_models(trainings: Sequence[Training], checkpoints: Folder) -> Iterator[Metrics | TrainingSummary]:
    """Train one after the other: of each in turn the metrics of its steps, as they come, then its summary.

    Trainings in a row that need the same workers share one group of Ray Train workers, because starting a group takes
    as long as a small training. `checkpoints` keeps what is needed to continue after a crash of a worker or of this
    process, if the interrupted training (`checkpoints.interrupted`) is the first. The caller clears it after the last
    event. Raises InputError if there is nothing to train on, an example cannot be used, the group had another shape
    when it was interrupted, or memory is not sufficient.
    """
    import ray.train

    for number, (_, group) in enumerate(itertools.groupby(trainings, _workers_of)):
        if number > 0:
            checkpoints.clear()
        left = list(group)
        while left:
            num_done = 0
            try:
                for event in train_group(left, checkpoints):
                    num_done += isinstance(event, TrainingSummary)
                    yield event
            except ray.train.TrainingFailedError:
                if num_done == 0:
                    raise  # each training may fail `max_failures` times; Ray Train counts those of the whole group
            left = left[num_done:]


def _workers_of(training: Training) -> str:
    """Equal for trainings that can share a group of workers."""
    alike = training.settings.model_dump_json(include=_SETTINGS_OF_A_GROUP)
    # DeepSpeed's ZeRO-3 holds every model of a process in globals (FWD_MODULE_STACK, a cached method) until it ends.
    return alike + (training.name if training.settings.deepspeed.zero_stage == 3 else "")


def train_group(trainings: Sequence[Training], checkpoints: Folder) -> Iterator[Metrics | TrainingSummary]:
    """As `train_models`, with one group of workers that all trainings share."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    settings = trainings[0].settings
    prepare_checkpoints(checkpoints, shape(settings))
    datasets, counts = tokenized_examples(trainings)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()  # it must outlive the other nodes
    config = {"trainings": trainings, "num_examples": [counted.num_examples for counted in counts], "board": board}
    trainer = _trainer(
        settings, config, checkpoints, {dataset_name(number): one for number, one in enumerate(datasets)}
    )
    waiting = iter(counts)
    steps: dict[float, Metrics] = {}  # of a step that was repeated after a restart, the last metrics count
    for metrics in _on_board(board, trainer.fit):
        if metrics is not None:
            steps[metrics["step"]] = metrics
            yield metrics
        else:
            counted = next(waiting)
            log = [steps[step] for step in sorted(steps)]
            steps = {}
            yield TrainingSummary(counted.num_examples, counted.num_too_long, counted.num_zero_weight, log)
    assert next(waiting, None) is None, "the workers ended before the last training"


def _trainer(settings: TrainingConfig, config: dict[str, Any], checkpoints: Folder, datasets: dict[str, Any]) -> Any:
    """The Ray Train group with the workers and resources that the settings ask for."""
    import ray.train
    import ray.train.torch

    use_gpu = settings.num_gpus_per_worker > 0
    return ray.train.torch.TorchTrainer(
        work,
        train_loop_config=config,
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.num_workers,
            use_gpu=use_gpu,
            resources_per_worker={
                "CPU": settings.num_cpus_per_worker,
                **({"GPU": settings.num_gpus_per_worker} if use_gpu else {}),
                **settings.resources,
            },
        ),
        run_config=ray.train.RunConfig(
            name=shape(settings),
            storage_path=checkpoints.path,
            storage_filesystem=None if checkpoints.is_local else checkpoints.filesystem,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=settings.max_failures),
            # Workers without GPUs of their own must not see those of others.
            worker_runtime_env={} if use_gpu else {"env_vars": {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}},
        ),
        datasets=datasets,
        # Not split: every worker reads every example and takes its share of each step itself.
        dataset_config=ray.train.DataConfig(datasets_to_split=[]),
    )


def _on_board(board: Any, fit: Callable[[], Any]) -> "Iterator[Metrics | None]":
    """What the workers put on the board while `fit` runs: the metrics of a step, or None at a training's end.

    Raises what `fit` raises, or an InputError with the refusal on the board.
    """
    import ray

    ended = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            fit()
        except BaseException as error:  # raised below
            raised.append(error)
        finally:
            ended.set()

    # In a thread of its own: in the main thread Ray Train would install its handler of Ctrl-C and leave it there.
    threading.Thread(target=run, daemon=True, name="training").start()
    seen, last_look = 0, False
    while not last_look:
        last_look = ended.wait(_LOOK_INTERVAL_S)
        new = ray.get(board.read.remote(seen))
        seen += len(new)
        yield from new
    refusal = ray.get(board.refusal.remote())
    if refusal is not None:
        raise InputError(refusal)
    for error in raised:
        raise_if_out_of_memory(error)
        raise error


def raise_if_out_of_memory(error: BaseException) -> None:
    """Raises an InputError that names the settings to lower, if a machine's lack of memory ended the group."""
    workers = getattr(error, "worker_failures", {}).values()
    failures = [f"{failure} {getattr(failure, 'health_check_failure', '')}" for failure in workers]
    if any("OutOfMemory" in failure or "due to the node running low on memory" in failure for failure in failures):
        raise InputError(
            "training: the memory of a machine is not sufficient; lower training.num_workers on it, "
            "training.micro_batch_size or training.max_length, or raise training.deepspeed.zero_stage"
        ) from None
