"""Examples -> the tokenized rows that the workers read, in the order of training."""

import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from east_ray.config import TRAINED, InputError, PromptConfig, TrainingConfig
from east_ray.questions.prompts import load_tokenizer
from east_ray.records import EXAMPLES
from east_ray.storage import Folder, local_copy
from east_ray.training.batches import TOKENIZED, tokenize_example

if TYPE_CHECKING:
    import ray.data


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


@dataclass(frozen=True)
class _Counts:
    num_examples: int
    num_too_long: int
    num_zero_weight: int


def tokenized_examples(trainings: Sequence[Training]) -> "tuple[list[ray.data.Dataset], list[_Counts]]":
    """Examples -> TOKENIZED rows of all epochs in the order of training, and how many were left out or cut; of each.

    The parts are read and tokenized by tasks and sorted by Ray Data, which spills to disk what the object store cannot
    hold, so this process never has the examples in memory. All trainings go through it at once: each pass has its cost.
    """
    import ray.data

    names = {"sft": ["chosen"], "dpo": ["chosen", "rejected"], "kto": ["chosen", "rejected", "mismatched"]}
    checked = []
    for training in trainings:
        with naming(training):
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
        with naming(trainings[number]):
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
def naming(training: Training) -> Iterator[None]:
    """What is wrong with a training that is not the run's own is said with its name."""
    try:
        yield
    except InputError as error:
        if training.name == TRAINED:
            raise
        raise InputError(f"{training.name}: {error}") from error


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
