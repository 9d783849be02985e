"""The group of training workers under Ray Train: trainings in, metrics and models out. The driver comes last."""

import contextlib
import gc
import itertools
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from east_ray.config import InputError, TrainingConfig
from east_ray.questions.prompts import load_tokenizer
from east_ray.storage import Folder, local_copy
from east_ray.storage.room import full_disk_as_input_error
from east_ray.training.checkpoints import GROUP, checkpoint_metadata, prepare_checkpoints
from east_ray.training.dataset import (
    ExportedModel,
    Metrics,
    Training,
    TrainingPhase,
    TrainingSummary,
    naming,
    tokenized_examples,
)
from east_ray.training.loop import train

#: How often the driver looks for new metrics, and a worker whether the training before is published.
_DRIVER_LOOKS_EVERY_S, _WORKER_LOOKS_EVERY_S = 0.5, 0.2
#: Settings that a group of workers is made for; trainings that differ in one of them cannot share a group.
_OF_A_GROUP = {"num_workers", "num_cpus_per_worker", "num_gpus_per_worker", "resources", "max_failures", "deepspeed"}


class _Board:
    """An actor between workers and driver: of rank 0 what it begins to do, the metrics of each step, and at the end of
    each training what was exported; and the reason why no worker can continue, if there is one.
    """

    def __init__(self) -> None:
        self._events: list[Metrics | TrainingPhase | ExportedModel] = []
        self._refusal: str | None = None

    def add(self, event: Metrics | TrainingPhase | ExportedModel) -> None:
        self._events.append(event)

    def read(self, first: int) -> list[Metrics | TrainingPhase | ExportedModel]:
        return self._events[first:]

    def num_done(self) -> int:
        return sum(isinstance(event, ExportedModel) for event in self._events)

    def refuse(self, reason: str) -> None:
        self._refusal = reason

    def refusal(self) -> str | None:
        return self._refusal


def work(config: Mapping[str, Any]) -> None:
    """What each worker runs: the trainings that are not done yet, one after the other.

    An error that only the user can mend goes to the board. Ray Train restarts a group after any error; the restarted
    workers find the refusal there and return without an error, so that the group ends.
    """
    import ray

    board, trainings = config["board"], config["trainings"]
    if ray.get(board.refusal.remote()) is not None:
        return
    for number in range(ray.get(board.num_done.remote()), len(trainings)):
        try:
            with naming(trainings[number]):
                num_examples, checkpoints = config["num_examples"][number], config["checkpoints"]
                _train_and_publish(trainings[number], str(number), num_examples, board, checkpoints)
        except InputError as error:
            ray.get(board.refuse.remote(str(error)))
            raise
        _free_memory()
        # A barrier would fail with a timeout while a large model is being published.
        while ray.get(board.num_done.remote()) <= number:
            time.sleep(_WORKER_LOOKS_EVERY_S)


def _free_memory() -> None:
    """Free what a training has held, and measure the peak of the next one from here."""
    import torch

    gc.collect()  # the engine is in reference cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # Linux
            Path("/proc/self/clear_refs").write_text("5")


def _train_and_publish(training: Training, dataset: str, num_examples: int, board: Any, checkpoints: Folder) -> None:
    """Train, and publish the model with the tokenizer and the generation settings of the model it began with.

    Raises InputError if a disk is full: in the folder `checkpoints`, in the training's own, or in the temporary one.
    """
    import ray
    import ray.train

    model_path = local_copy(training.model)
    tokenizer = load_tokenizer(model_path)

    def save(step: int, write: Callable[[str], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with full_disk_as_input_error(tempfile.gettempdir()):
                write(folder)
            # Every worker reports its part of the state; Ray Train joins the parts in one checkpoint.
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            checkpoint.set_metadata(checkpoint_metadata(training.name, training.settings, step))
            with checkpoints.room_for():
                ray.train.report({"step": step}, checkpoint=checkpoint)

    is_first = ray.train.get_context().get_world_rank() == 0
    tell = board.add.remote if is_first else lambda phase: None
    found = ray.train.get_checkpoint()  # of this training, or of the one before
    is_own = found is not None and found.get_metadata().get("training") == training.name
    with (
        out_of_memory_as_input_error(),
        found.as_directory() if is_own else contextlib.nullcontext() as restored,
    ):
        export = train(
            training.settings,
            training.objective,
            model_path,
            ray.train.get_dataset_shard(dataset).iter_rows,
            num_examples,
            board.add.remote,
            save,
            restored,
            tokenizer.pad_token_id or 0,
            training.seed,
            training.references,
            tell,
        )
        tell(TrainingPhase("writing the model"))
        with training.target.room_for():
            exported = _export(export, training, model_path, tokenizer)
    if exported is not None:
        ray.get(board.add.remote(exported))


def _export(
    export: Callable[..., ExportedModel | None], training: Training, model_path: str, tokenizer: Any
) -> ExportedModel | None:
    """Let rank 0 write the model and, on request, its adapters, and move them to their places when they are whole."""
    import ray.train

    lora = training.settings.lora
    with _scratch(training.target, is_used=ray.train.get_context().get_world_rank() == 0) as scratch:
        model, adapter = f"{scratch}/model", f"{scratch}/adapter" if lora is not None and lora.save_adapter else None
        exported = export(model, adapter)
        if exported is not None:
            tokenizer.save_pretrained(model)
            generation = Path(model_path, "generation_config.json")
            if generation.is_file():
                shutil.copy(generation, model)
            training.adapter_target.clear()  # of a training before, that was done again
            if adapter is not None:
                # peft would name the copy of the model on this machine.
                config = Path(adapter, "adapter_config.json")
                told = json.loads(config.read_text()) | {"base_model_name_or_path": training.model}
                config.write_text(json.dumps(told, indent=2))
                _publish(adapter, training.adapter_target)
            _publish(model, training.target)
    return exported


@contextlib.contextmanager
def _scratch(target: Folder, *, is_used: bool) -> Iterator[str]:
    """A folder on this machine for what will move to `target`: beside it, so that it moves by a change of its name.

    For a remote target it is in the system's temporary folder, which must have room for the model.
    """
    if not target.is_local:
        with tempfile.TemporaryDirectory() as scratch:
            yield scratch
        return
    path = Path(target.path)
    scratch = str(path.with_name(f".{path.name}.partial"))
    if is_used:
        shutil.rmtree(scratch, ignore_errors=True)  # what a killed process has left
        Path(scratch).mkdir(parents=True)
    try:
        yield scratch
    finally:
        if is_used:
            shutil.rmtree(scratch)


def _publish(folder: str, target: Folder) -> None:
    """Make a folder of `_scratch` the content of the target."""
    target.clear()
    if target.is_local:
        Path(folder).rename(target.path)
    else:
        target.filesystem.create_dir(target.path, recursive=True)
        pafs.copy_files(folder, target.path, destination_filesystem=target.filesystem)


@contextlib.contextmanager
def out_of_memory_as_input_error() -> Iterator[None]:
    """Turn a GPU's out-of-memory error into an InputError that names the settings to change."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"training: the GPU's memory is not sufficient ({str(error).splitlines()[0]}); lower "
            "training.micro_batch_size, training.tokens_per_micro_batch or training.max_length, set "
            "training.gradient_checkpointing, raise training.deepspeed.zero_stage or turn on its offload"
        ) from None


def train_models(
    trainings: Sequence[Training], checkpoints: Folder
) -> Iterator[Metrics | TrainingPhase | TrainingSummary]:
    """Train one after the other: of each in turn its phases and the metrics of its steps, as they come, its summary.

    Trainings in a row that need the same workers share one group of them, because starting a group takes as long as a
    small training. `checkpoints` keeps what is needed to continue after a crash of a worker or of this process, if the
    `interrupted` training is the first, in a group of any shape; the caller clears it after the last event. Raises
    InputError if there is nothing to train on, an example cannot be used, or memory does not suffice.
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
    alike = training.settings.model_dump_json(include=_OF_A_GROUP)
    # DeepSpeed's ZeRO-3 holds every model of a process in globals (FWD_MODULE_STACK, a cached method) until it ends.
    return alike + (training.name if training.settings.deepspeed.zero_stage == 3 else "")


def train_group(
    trainings: Sequence[Training], checkpoints: Folder
) -> Iterator[Metrics | TrainingPhase | TrainingSummary]:
    """As `train_models`, with one group of workers that all trainings share."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    settings = trainings[0].settings
    prepare_checkpoints(checkpoints)
    datasets, counts = tokenized_examples(trainings)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()  # it must outlive the other nodes
    config = {"trainings": trainings, "num_examples": [counted.num_examples for counted in counts], "board": board}
    config["checkpoints"] = checkpoints
    trainer = _trainer(settings, config, checkpoints, {str(number): one for number, one in enumerate(datasets)})
    waiting = iter(counts)
    steps: dict[float, Metrics] = {}  # of a step that was repeated after a restart, the last metrics count
    for event in _on_board(board, trainer.fit):
        if isinstance(event, ExportedModel):
            yield replace(next(waiting), steps=[steps[step] for step in sorted(steps)], exported=event)
            steps = {}
        elif isinstance(event, TrainingPhase):
            yield event
        else:
            steps[event["step"]] = event
            yield event
    assert next(waiting, None) is None, "the workers ended before the last training"


def _trainer(settings: TrainingConfig, config: dict[str, Any], checkpoints: Folder, datasets: dict[str, Any]) -> Any:
    """The Ray Train group with the workers and resources that the settings ask for."""
    import ray.train
    import ray.train.torch

    use_gpu, num_gpus = settings.num_gpus_per_worker > 0, settings.num_gpus_per_worker
    resources = {"CPU": settings.num_cpus_per_worker, **({"GPU": num_gpus} if use_gpu else {}), **settings.resources}
    return ray.train.torch.TorchTrainer(
        work,
        train_loop_config=config,
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.num_workers, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=GROUP,
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


def _on_board(board: Any, fit: Callable[[], Any]) -> Iterator[Metrics | TrainingPhase | ExportedModel]:
    """What the workers put on the board while `fit` runs. Raises what `fit` raises, or an InputError of the refusal."""
    import ray

    raised: list[BaseException] = []

    def run() -> None:
        try:
            fit()
        except BaseException as error:  # raised below
            raised.append(error)

    # In a thread of its own: in the main thread Ray Train would install its handler of Ctrl-C and leave it there.
    thread = threading.Thread(target=run, daemon=True, name="training")
    thread.start()
    seen, is_running = 0, True
    while is_running:
        thread.join(_DRIVER_LOOKS_EVERY_S)
        is_running = thread.is_alive()
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
            "training.micro_batch_size, training.tokens_per_micro_batch or training.max_length, or raise "
            "training.deepspeed.zero_stage"
        ) from None
