"""The group of training workers under Ray Train: examples in, checkpoints on the way, models out."""

import contextlib
import gc
import itertools
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from east_ray.config import InputError
from east_ray.questions.prompts import load_tokenizer
from east_ray.storage import Folder, local_copy
from east_ray.training.dataset import Training, naming, tokenized_examples
from east_ray.training.loop import Checkpointing, Metrics, train


@dataclass(frozen=True)
class TrainingSummary:
    """What a training counted: examples trained on, examples left out, and the metrics of each step."""

    num_examples: int
    num_too_long: int
    num_zero_weight: int
    steps: list[Metrics]


def train_models(trainings: Sequence[Training], checkpoints: Folder) -> Iterator[Metrics | TrainingSummary]:
    """Train one after the other: of each in turn the metrics of its steps, as they come, then its summary.

    Trainings in a row that want the same workers have one group of Ray Train workers: to begin a group takes as long
    as a small training. `checkpoints` keeps what is needed to go on after a crash, of a worker or of this process, if
    the training that was interrupted (`interrupted`) is the first; whoever has taken all clears it. Raises InputError
    if there is nothing to train on, an example cannot be used, the group had another shape when it was interrupted, or
    memory does not suffice.
    """
    import ray.train

    for number, (_, group) in enumerate(itertools.groupby(trainings, _workers_of)):
        if number > 0:
            checkpoints.clear()
        left = list(group)
        while left:
            num_done = 0
            try:
                for event in _train_group(left, checkpoints):
                    num_done += isinstance(event, TrainingSummary)
                    yield event
            except ray.train.TrainingFailedError:
                if num_done == 0:
                    raise  # a training may fail `max_failures` times; Ray Train counts those of the whole group
            left = left[num_done:]


def interrupted(checkpoints: Folder) -> str | None:
    """The name of the training that a group was in the middle of, if it has left a whole checkpoint."""
    for run in checkpoints.names():
        for name in _whole_checkpoints(checkpoints / run)[-1:]:
            metadata = json.loads((checkpoints / run / name).read_text(".metadata.json") or "{}")
            training: str | None = metadata.get("training")
            return training
    return None


def _workers_of(training: Training) -> str:
    """What a group of workers is made for; trainings that differ in it cannot share one."""
    wanted = {"num_workers", "num_cpus_per_worker", "num_gpus_per_worker", "resources", "max_failures", "deepspeed"}
    alike = training.settings.model_dump_json(include=wanted)
    # DeepSpeed's ZeRO-3 holds every model of a process in globals (FWD_MODULE_STACK, a cached method) until it ends.
    return alike + (training.name if training.settings.deepspeed.zero_stage == 3 else "")


def _train_group(trainings: Sequence[Training], checkpoints: Folder) -> Iterator[Metrics | TrainingSummary]:
    import ray
    import ray.train
    import ray.train.torch
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    settings = trainings[0].settings
    shape = f"workers_{settings.num_workers}_zero_{settings.deepspeed.zero_stage}"
    _check_shape(checkpoints, shape)
    _remove_half_written(checkpoints / shape)
    datasets, counts = tokenized_examples(trainings)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()  # it must not go with another node
    use_gpu = settings.num_gpus_per_worker > 0
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config={
            "trainings": trainings,
            "num_examples": [counted.num_examples for counted in counts],
            "board": board,
        },
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
            name=shape,
            storage_path=checkpoints.path,
            storage_filesystem=None if checkpoints.is_local else checkpoints.filesystem,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=settings.max_failures),
            # Without GPUs of their own, workers must not see those of others.
            worker_runtime_env={} if use_gpu else {"env_vars": {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}},
        ),
        datasets={_dataset_name(number): dataset for number, dataset in enumerate(datasets)},
        # Not split: every worker reads every example and takes its share of each step itself.
        dataset_config=ray.train.DataConfig(datasets_to_split=[]),
    )
    waiting = iter(counts)
    steps: dict[float, Metrics] = {}  # a step that was done again after a restart counts once, as it was done last
    for metrics in _on_board(board, trainer.fit):
        if metrics is not None:
            steps[metrics["step"]] = metrics
            yield metrics
        else:
            counted = next(waiting)
            log = [steps[step] for step in sorted(steps)]
            steps = {}
            yield TrainingSummary(counted.num_examples, counted.num_too_long, counted.num_zero_weight, log)
    assert next(waiting, None) is None, "the workers have ended before the last training"


def _on_board(board: Any, fit: Callable[[], Any]) -> "Iterator[Metrics | None]":
    """What the workers put on the board while they fit, as they do: metrics of a step, or None, a training's end.

    Looks about twice a second. Raises what the fit raises, or an InputError with the refusal on the board.
    """
    import ray

    ended = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            fit()
        except BaseException as error:  # raised where it is waited for
            raised.append(error)
        finally:
            ended.set()

    # Not in this thread: if it is the main one, Ray Train puts its own handler of Ctrl-C in place, and leaves it there.
    threading.Thread(target=run, daemon=True, name="training").start()
    seen, last_look = 0, False
    while not last_look:
        last_look = ended.wait(0.5)
        new = ray.get(board.read.remote(seen))
        seen += len(new)
        yield from new
    refusal = ray.get(board.refusal.remote())
    if refusal is not None:
        raise InputError(refusal)
    for error in raised:
        _say_in_one_sentence(error)
        raise error


def _check_shape(checkpoints: Folder, shape: str) -> None:
    """Raises InputError if the checkpoints are of another shape: DeepSpeed restores only what the same group saved."""
    for other in checkpoints.names():
        if other != shape and _whole_checkpoints(checkpoints / other):
            _, workers, _, stage = other.split("_")
            raise InputError(
                f"training.num_workers, training.deepspeed.zero_stage: the interrupted training had {workers} workers "
                f"and ZeRO stage {stage}; go on with these, or remove {checkpoints} to begin it anew"
            )


def _whole_checkpoints(run: Folder) -> list[str]:
    """Names of the checkpoints that Ray Train has listed as whole; none if its list is not whole itself."""
    try:
        listed = json.loads(run.read_text("checkpoint_manager_snapshot.json") or "{}").get("checkpoint_results", [])
    except (ValueError, NotADirectoryError):
        return []
    names = [result["checkpoint_dir_name"] for result in listed]
    return names if set(names) <= set(run.names()) else []


def _remove_half_written(run: Folder) -> None:
    """Remove what a killed group or driver left half-written or half-removed, which Ray Train refuses to begin with."""
    whole = _whole_checkpoints(run)
    if not whole:
        run.clear()
    for name in run.names():
        if name.startswith("checkpoint_") and name != "checkpoint_manager_snapshot.json" and name not in whole:
            (run / name).clear()


def _say_in_one_sentence(error: BaseException) -> None:
    """Raises InputError, with the settings to lower, for a group that was ended for its use of a machine's memory."""
    workers = getattr(error, "worker_failures", {}).values()
    failures = [f"{failure} {getattr(failure, 'health_check_failure', '')}" for failure in workers]
    if any("OutOfMemory" in failure or "due to the node running low on memory" in failure for failure in failures):
        raise InputError(
            "training: the memory of a machine does not suffice; lower training.num_workers on it, "
            "training.micro_batch_size or training.max_length, or raise training.deepspeed.zero_stage"
        ) from None


def _dataset_name(number: int) -> str:
    return f"examples-{number}"


def _worker(config: Mapping[str, Any]) -> None:
    """One worker of the Ray Train group: the trainings that are not done yet, one after the other.

    What only the user can mend is put on the board, and a group that is begun again finds it there and ends: without
    an error, since Ray Train would begin it again.
    """
    import ray

    board, trainings = config["board"], config["trainings"]
    if ray.get(board.refusal.remote()) is not None:
        return
    for number in range(ray.get(board.num_done.remote()), len(trainings)):
        try:
            with naming(trainings[number]):
                _train_and_publish(trainings[number], _dataset_name(number), config["num_examples"][number], board)
        except InputError as error:
            ray.get(board.refuse.remote(str(error)))
            raise
        _free_memory()
        # Not in a collective operation, which ends with an error if a large model takes long to be published.
        while ray.get(board.num_done.remote()) <= number:
            time.sleep(0.2)


def _free_memory() -> None:
    """Give back what a training has held, and measure the peak of the next one from here."""
    import torch

    gc.collect()  # the engine is in reference cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # Linux
            Path("/proc/self/clear_refs").write_text("5")


def _train_and_publish(training: Training, dataset: str, num_examples: int, board: Any) -> None:
    import ray
    import ray.train

    model_path = local_copy(training.model)
    tokenizer = load_tokenizer(model_path)
    rank = ray.train.get_context().get_world_rank()
    shard = ray.train.get_dataset_shard(dataset)

    def save(step: int, write: Callable[[str], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            write(folder)
            # Every worker reports the part of the sharded state that it holds; Ray Train joins them in one checkpoint.
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            checkpoint.set_metadata({"training": training.name})
            ray.train.report({"step": step}, checkpoint=checkpoint)

    with contextlib.ExitStack() as stack:
        stack.enter_context(_out_of_memory_is_said())
        export = train(
            training.settings,
            model_path,
            shard.iter_rows,
            num_examples,
            board.add.remote,
            Checkpointing(save, stack.enter_context(_restored(training.name))),
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
            training.seed,
            training.references,
        )
        with tempfile.TemporaryDirectory() as scratch:
            folder = os.path.join(scratch, "model")
            export(folder)
            if rank == 0:
                tokenizer.save_pretrained(folder)
                _publish(folder, model_path, training.target)
                ray.get(board.add.remote(None))


@contextlib.contextmanager
def _restored(name: str) -> Iterator[str | None]:
    """The folder of the newest checkpoint, if it is of the training of this name and not of the one before it."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None or checkpoint.get_metadata().get("training") != name:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield folder


@contextlib.contextmanager
def _out_of_memory_is_said() -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"training: the GPU's memory does not suffice ({str(error).splitlines()[0]}); lower "
            "training.micro_batch_size or training.max_length, set training.gradient_checkpointing, raise "
            "training.deepspeed.zero_stage or turn on its offload"
        ) from None


def _publish(folder: str, base: str, target: Folder) -> None:
    """Move a finished model to its place, with the base model's generation settings."""
    generation = Path(base) / "generation_config.json"
    if generation.is_file():
        shutil.copy(generation, folder)
    target.clear()
    target.filesystem.create_dir(target.path, recursive=True)
    pafs.copy_files(folder, target.path, destination_filesystem=target.filesystem)


class _Board:
    """An actor, for the driver to read: the metrics of each step from rank 0, None for the end of each training, and
    why a worker cannot go on.
    """

    def __init__(self) -> None:
        self._events: list[Metrics | None] = []
        self._refusal: str | None = None

    def add(self, metrics: Metrics | None) -> None:
        self._events.append(metrics)

    def read(self, begin: int) -> list[Metrics | None]:
        return self._events[begin:]

    def num_done(self) -> int:
        return self._events.count(None)

    def refuse(self, reason: str) -> None:
        self._refusal = reason

    def refusal(self) -> str | None:
        return self._refusal
