"""One worker of the Ray Train group: it trains its part of each training, saves checkpoints and publishes models."""

import contextlib
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from east_ray.config import InputError
from east_ray.questions.prompts import load_tokenizer
from east_ray.storage import Folder, local_copy
from east_ray.training.compute import Metrics
from east_ray.training.dataset import Training, naming
from east_ray.training.loop import Checkpointing, train

#: How often a worker looks whether the training before is published.
_LOOK_INTERVAL_S = 0.2


class Board:
    """An actor between workers and driver: the metrics of each step from rank 0, None for the end of each training, and
    the reason why no worker can continue, if there is one.
    """

    def __init__(self) -> None:
        self._events: list[Metrics | None] = []
        self._refusal: str | None = None

    def add(self, metrics: Metrics | None) -> None:
        """Add the metrics of a step, or None at the end of a training."""
        self._events.append(metrics)

    def read(self, first: int) -> list[Metrics | None]:
        """Everything that was added, but the first so many."""
        return self._events[first:]

    def num_done(self) -> int:
        """Trainings that have ended."""
        return self._events.count(None)

    def refuse(self, reason: str) -> None:
        """Say why no worker can continue."""
        self._refusal = reason

    def refusal(self) -> str | None:
        """The reason why no worker can continue."""
        return self._refusal


def dataset_name(number: int) -> str:
    """The name by which workers know the examples of a training."""
    return f"examples-{number}"


def work(config: Mapping[str, Any]) -> None:
    """Do the trainings that are not done yet, one after the other.

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
                _train_and_publish(trainings[number], dataset_name(number), config["num_examples"][number], board)
        except InputError as error:
            ray.get(board.refuse.remote(str(error)))
            raise
        _free_memory()
        # A barrier would fail with a timeout while a large model is being published.
        while ray.get(board.num_done.remote()) <= number:
            time.sleep(_LOOK_INTERVAL_S)


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
            # Every worker reports its part of the sharded state; Ray Train joins the parts in one checkpoint.
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            checkpoint.set_metadata({"training": training.name})
            ray.train.report({"step": step}, checkpoint=checkpoint)

    with contextlib.ExitStack() as stack:
        stack.enter_context(out_of_memory_as_input_error())
        export = train(
            training.settings,
            training.objective,
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
    """The folder of the newest checkpoint, if it belongs to the training of this name and not to the one before."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None or checkpoint.get_metadata().get("training") != name:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield folder


@contextlib.contextmanager
def out_of_memory_as_input_error() -> Iterator[None]:
    """Turn a GPU's out-of-memory error into an InputError that names the settings to change."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"training: the GPU's memory is not sufficient ({str(error).splitlines()[0]}); lower "
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
