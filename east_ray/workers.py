"""The group of training workers under Ray Train: examples in, checkpoints on the way, models out."""

import contextlib
import gc
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from east_ray.batches import TOKENIZED, tokenize_example
from east_ray.config import TRAINED, InputError, PromptConfig, TrainingConfig
from east_ray.questions import load_tokenizer
from east_ray.records import EXAMPLES
from east_ray.storage import Folder, local_copy
from east_ray.training import Checkpointing, Metrics, train

if TYPE_CHECKING:
    import ray.data


@dataclass(frozen=True)
class TrainingSummary:
    """What a training counted: examples trained on, examples left out, and the metrics of each step."""

    num_examples: int
    num_too_long: int
    num_zero_weight: int
    steps: list[Metrics]


@dataclass(frozen=True)
class Training:
    """One training: a folder of records.EXAMPLES, the model to begin with, where the trained one goes, and how.

    `references` keeps the reference log-probabilities of DPO and KTO. A name is unique among those of a group.
    """

    name: str
    examples: Folder
    model: str
    target: Folder
    references: Folder
    settings: TrainingConfig
    prompt: PromptConfig
    seed: int


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
    datasets, counts = _tokenized(trainings)
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


@dataclass(frozen=True)
class _Counts:
    num_examples: int
    num_too_long: int
    num_zero_weight: int


def _tokenized(trainings: Sequence[Training]) -> "tuple[list[ray.data.Dataset], list[_Counts]]":
    """Examples -> TOKENIZED rows of all epochs in the order of training, and how many were left out or cut; of each.

    The parts are read and tokenized by tasks and sorted by Ray Data, which spills to disk what the object store cannot
    hold, so this process never has the examples in memory. All trainings go through it at once: each pass has its cost.
    """
    import ray.data

    names = {"sft": ["chosen"], "dpo": ["chosen", "rejected"], "kto": ["chosen", "rejected", "mismatched"]}
    checked = []
    for training in trainings:
        with _named(training):
            checked.append(_checked_parts(training.examples, training.settings))
    tokenizers = {model: load_tokenizer(local_copy(model)) for model in {training.model for training in trainings}}

    def tokenize_parts(task: pa.Table) -> pa.Table:
        ((number, parts),) = zip(*(task[name].to_pylist() for name in ("training", "parts")), strict=True)
        training, parts_of = trainings[number], checked[number]
        settings, tokenizer = training.settings, tokenizers[training.model]
        rows = _trainable_rows(training.examples, parts, settings, parts_of.num_responses / parts_of.num_questions)
        tokenized = (
            _cut(tokenize_example(row, tokenizer, training.prompt), names[settings.objective], settings) for row in rows
        )
        found: list[dict[str, Any]] = []
        for row, ids in zip(rows, tokenized, strict=True):
            for epoch in range(settings.epochs if ids is not None else 0):
                key = f"{training.seed}:{epoch}:{row['question_id']}"
                order = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
                found.append({"training": number, "epoch": epoch, "order": order, **row, **(ids or {})})
        return pa.Table.from_pylist([{name: row.get(name) for name in _TO_SORT.names} for row in found], _TO_SORT)

    groups = [{"training": number, "parts": parts} for number, one in enumerate(checked) for parts in one.groups]
    tasks = ray.data.from_items(groups, override_num_blocks=len(groups))
    dataset = tasks.map_batches(tokenize_parts, batch_size=1, batch_format="pyarrow")
    dataset = dataset.sort(["training", "epoch", "order"]).materialize()
    rows, cut = Counter[int](), Counter[int]()
    for found in dataset.map_batches(_count_rows, batch_size=None, batch_format="pyarrow").take_all():
        rows[found["training"]] += found["rows"]
        cut[found["training"]] += found["cut"]
    counts = []
    for number, (training, one) in enumerate(zip(trainings, checked, strict=True)):
        with _named(trainings[number]):
            counts.append(_counted(training.settings, one, rows[number], cut[number]))
    ends = itertools.accumulate(rows[number] for number in range(len(trainings) - 1))
    return (dataset.split_at_indices(list(ends)) if len(trainings) > 1 else [dataset]), counts


def _count_rows(block: pa.Table) -> pa.Table:
    """Rows of each training in a block, and those that were cut."""
    counted = block.group_by("training").aggregate([("is_cut", "count"), ("is_cut", "sum")])
    return pa.table([counted["training"], counted["is_cut_count"], counted["is_cut_sum"]], ["training", "rows", "cut"])


def _counted(settings: TrainingConfig, parts: "_Parts", num_rows: int, num_cut: int) -> _Counts:
    """Counts of a training by its tokenized rows. Raises InputError if too few are left for its workers."""
    num_examples = num_rows // settings.epochs
    if num_examples == 0:
        raise InputError(
            f"training: none of the {parts.num_responses} examples fits in training.max_length "
            f"{settings.max_length} tokens"
        )
    if num_examples < settings.num_workers:
        raise InputError(
            f"training.num_workers: {settings.num_workers} workers for {num_examples} examples; use fewer workers"
        )
    num_too_long = parts.num_responses - num_examples + num_cut // settings.epochs
    return _Counts(num_examples, num_too_long, parts.num_skipped)


@contextlib.contextmanager
def _named(training: Training) -> Iterator[None]:
    """What is wrong with a training that is not the run's own is said with its name."""
    try:
        yield
    except InputError as error:
        if training.name == TRAINED:
            raise
        raise InputError(f"{training.name}: {error}") from error


def _dataset_name(number: int) -> str:
    return f"examples-{number}"


#: What is sorted: rows of batches.TOKENIZED, whose they are, and whether they were cut.
_TO_SORT = TOKENIZED.insert(0, pa.field("training", pa.int32())).append(pa.field("is_cut", pa.bool_()))


@dataclass(frozen=True)
class _Parts:
    """Questions and responses that are trained on, questions skipped for weight 0, and the parts in groups."""

    num_questions: int
    num_responses: int
    num_skipped: int
    groups: list[list[str]]


def _checked_parts(examples: Folder, settings: TrainingConfig) -> _Parts:
    """What there is to train on; a group of parts has two questions at least, which KTO needs.

    Raises InputError for a weight that is none, a preference objective without rejected responses, or too few examples.
    """
    num_trained = num_responses = num_skipped = waiting = 0
    groups: list[list[str]] = []
    for part in examples.parts():
        columns = ["question_id", "weight", "more_chosen", *(["rejected"] if settings.objective != "sft" else [])]
        table = examples.read(EXAMPLES, columns, [part])
        weights = table["weight"].to_numpy()
        for row in np.flatnonzero(~np.isfinite(weights) | (weights < 0))[:1]:
            name = table["question_id"][int(row)].as_py()
            raise InputError(
                f"examples: the weight of {name} is {weights[row]}; expected a finite number of at least 0"
            )
        if settings.objective != "sft" and table["rejected"].null_count:
            row = pc.index(pc.is_null(table["rejected"]), True).as_py()
            raise InputError(
                f"training.objective: {settings.objective} needs a rejected response, and {table['question_id'][row]} "
                "has none; weigh the samples again with this objective"
            )
        trained = int(np.count_nonzero(weights)) if settings.skip_zero_weight else len(weights)
        num_trained, num_skipped = num_trained + trained, num_skipped + len(weights) - trained
        is_trained = weights > 0 if settings.skip_zero_weight else np.ones(len(weights), bool)
        more = pc.fill_null(pc.list_value_length(table["more_chosen"]), 0).to_numpy()
        num_responses += int((1 + more)[is_trained].sum())
        if waiting < 2:  # KTO pairs the prompts of a group with its other responses
            groups.append([*(groups.pop() if waiting else []), part])
            waiting += trained
        else:
            groups.append([part])
            waiting = trained
    if len(groups) > 1 and waiting < 2:
        last = groups.pop()
        groups[-1] += last
    if num_trained == 0:
        raise InputError("training: there is no example to train on" + (" with a weight" if num_skipped else ""))
    if settings.objective == "kto" and num_trained < 2:
        raise InputError("training.objective: kto needs at least 2 examples, to pair prompts with other responses")
    return _Parts(num_trained, num_responses, num_skipped, groups)


def _trainable_rows(
    examples: Folder, parts: Sequence[str], settings: TrainingConfig, responses_per_question: float
) -> list[dict[str, Any]]:
    """A row per chosen response of the examples in some parts, in order of question_id.

    The responses of a question share its weight, times their mean number, so that the mean weight stays. For KTO each
    row has the chosen response of the next question besides.
    """
    rows: list[dict[str, Any]] = examples.read(EXAMPLES, _TRAINED_COLUMNS, parts).sort_by("question_id").to_pylist()
    rows = [row for row in rows if row["weight"] or not settings.skip_zero_weight]
    if settings.objective == "kto":
        # A fixed mismatched pairing, so that its reference is computed only once.
        for row, following in zip(rows, rows[1:] + rows[:1], strict=True):
            row |= {"mismatched": following["chosen"], "mismatched_finish_reason": following["chosen_finish_reason"]}
    return [one for row in rows for one in _per_response(row, responses_per_question)]


def _per_response(row: dict[str, Any], responses_per_question: float) -> Iterator[dict[str, Any]]:
    responses = [{"text": row["chosen"], "finish_reason": row["chosen_finish_reason"]}, *(row["more_chosen"] or [])]
    for number, response in enumerate(responses):
        yield row | {
            "question_id": f"{row['question_id']}#{number}" if number else row["question_id"],
            "weight": row["weight"] * responses_per_question / len(responses),
            "chosen": response["text"],
            "chosen_finish_reason": response["finish_reason"],
        }


_TRAINED_COLUMNS = ["question_id", "question", "weight", "chosen", "chosen_finish_reason", "more_chosen", "rejected",
                    "rejected_finish_reason"]  # fmt: skip


def _cut(
    tokenized: dict[str, list[int] | None], names: Sequence[str], settings: TrainingConfig
) -> dict[str, Any] | None:
    """The example within max_length, `is_cut` or whole; None if it is too long and not to be cut."""
    room = settings.max_length - len(tokenized["prompt"] or [])
    if all(len(tokenized[name] or []) <= room for name in names):
        return {**tokenized, "is_cut": False}
    if settings.too_long == "discard" or room < 1:
        return None
    return {**tokenized, **{name: (tokenized[name] or [])[:room] for name in names}, "is_cut": True}


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
            with _named(trainings[number]):
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
