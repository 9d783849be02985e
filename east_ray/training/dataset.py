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
from east_ray.training.objectives import Objective

if TYPE_CHECKING:
    import ray.data

#: Columns of examples/ that are trained on.
_COLUMNS = [
    *("question_id", "question", "weight"),
    *("chosen", "chosen_finish_reason", "more_chosen", "rejected", "rejected_finish_reason"),
]
#: Rows of batches.TOKENIZED, the number of their training, and whether they were cut: what Ray Data sorts.
_TO_SORT = TOKENIZED.insert(0, pa.field("training", pa.int32())).append(pa.field("is_cut", pa.bool_()))
#: Fewest questions of a group of parts: a mismatched response is of another question of the same group.
_MIN_QUESTIONS_OF_A_GROUP = 2


@dataclass(frozen=True)
class Training:
    """One training: a folder of records.EXAMPLES, the model to start from, where the trained one goes, and how.

    `references` keeps the reference log-probabilities. A name is unique among those of a group.
    """

    name: str
    examples: Folder
    model: str
    target: Folder
    references: Folder
    settings: TrainingConfig
    objective: Objective
    prompt: PromptConfig
    seed: int


@dataclass(frozen=True)
class Parts:
    """What a training has in examples/: its numbers, and the parts in groups that a task reads together."""

    num_questions: int  # trained on
    num_responses: int  # trained on
    num_skipped: int  # questions left out for their weight of 0
    groups: list[list[str]]


@dataclass(frozen=True)
class Counts:
    """How many examples are trained on, how many were left out or cut for their length, or left out for weight 0."""

    num_examples: int
    num_too_long: int
    num_zero_weight: int


@contextlib.contextmanager
def naming(training: Training) -> Iterator[None]:
    """Put the training's name before the message of an InputError, unless it is the run's own training."""
    try:
        yield
    except InputError as error:
        if training.name == TRAINED:
            raise
        raise InputError(f"{training.name}: {error}") from error


def checked_parts(examples: Folder, settings: TrainingConfig, objective: Objective) -> Parts:
    """What there is to train on.

    Raises InputError for a weight that is negative or not finite, a missing rejected response, or too few examples.
    """
    num_trained = num_responses = num_skipped = waiting = 0
    groups: list[list[str]] = []
    for part in examples.parts():
        table = _checked_part(examples, part, settings, objective)
        weights = table["weight"].to_numpy()
        is_trained = weights > 0 if settings.skip_zero_weight else np.ones(len(weights), bool)
        trained = int(is_trained.sum())
        num_trained, num_skipped = num_trained + trained, num_skipped + len(weights) - trained
        more = pc.fill_null(pc.list_value_length(table["more_chosen"]), 0).to_numpy()
        num_responses += int((1 + more)[is_trained].sum())
        if waiting < _MIN_QUESTIONS_OF_A_GROUP:
            groups.append([*(groups.pop() if waiting else []), part])
            waiting += trained
        else:
            groups.append([part])
            waiting = trained
    if len(groups) > 1 and waiting < _MIN_QUESTIONS_OF_A_GROUP:
        last = groups.pop()
        groups[-1] += last
    if num_trained == 0:
        raise InputError("training: there is no example to train on" + (" with a weight" if num_skipped else ""))
    if num_trained < objective.min_examples:
        pairs = ", to pair prompts with other responses" if "mismatched" in objective.required_responses else ""
        raise InputError(
            f"training.objective: {settings.objective} needs at least {objective.min_examples} examples{pairs}"
        )
    return Parts(num_trained, num_responses, num_skipped, groups)


def _checked_part(examples: Folder, part: str, settings: TrainingConfig, objective: Objective) -> pa.Table:
    needs_rejected = "rejected" in objective.required_responses
    columns = ["question_id", "weight", "more_chosen", *(["rejected"] if needs_rejected else [])]
    table = examples.read(EXAMPLES, columns, [part])
    weights = table["weight"].to_numpy()
    for row in np.flatnonzero(~np.isfinite(weights) | (weights < 0))[:1]:
        name = table["question_id"][int(row)].as_py()
        raise InputError(f"examples: the weight of {name} is {weights[row]}; expected a finite number of at least 0")
    if needs_rejected and table["rejected"].null_count:
        name = table["question_id"][pc.index(pc.is_null(table["rejected"]), True).as_py()]
        raise InputError(
            f"training.objective: {settings.objective} needs a rejected response, and {name} has none; weigh the "
            "samples again with this objective"
        )
    return table


def trainable_rows(
    examples: Folder,
    parts: Sequence[str],
    settings: TrainingConfig,
    objective: Objective,
    responses_per_question: float = 1.0,
) -> list[dict[str, Any]]:
    """A row per chosen response of the examples in some parts, in order of question_id.

    The responses of a question share its weight, times the mean number of responses over all questions, so that the
    mean weight stays. If the objective needs mismatched responses, a row also has the chosen one of the next question.
    """
    rows: list[dict[str, Any]] = examples.read(EXAMPLES, _COLUMNS, parts).sort_by("question_id").to_pylist()
    rows = [row for row in rows if row["weight"] or not settings.skip_zero_weight]
    if "mismatched" in objective.required_responses:
        # The pairs are fixed, so that their reference log-probabilities are computed only once.
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


def fitted(
    tokenized: dict[str, list[int] | None], names: Sequence[str], settings: TrainingConfig
) -> dict[str, Any] | None:
    """A tokenized example within max_length, with `is_cut`; None if it is too long and to be discarded."""
    room = settings.max_length - len(tokenized["prompt"] or [])
    if all(len(tokenized[name] or []) <= room for name in names):
        return {**tokenized, "is_cut": False}
    if settings.too_long == "discard" or room < 1:
        return None
    return {**tokenized, **{name: (tokenized[name] or [])[:room] for name in names}, "is_cut": True}


def _order(seed: int, epoch: int, question_id: str) -> str:
    """Sorts the examples of an epoch: a random order that the seed fixes."""
    return hashlib.blake2b(f"{seed}:{epoch}:{question_id}".encode(), digest_size=12).hexdigest()


def tokenized_examples(trainings: Sequence[Training]) -> "tuple[list[ray.data.Dataset], list[Counts]]":
    """The TOKENIZED rows of each training, of all its epochs in the order of training, and what was counted.

    Tasks read and tokenize the parts. Ray Data sorts the rows and spills to disk what the object store cannot hold, so
    this process never has the examples in memory. All trainings share one pass, since each pass has its own cost.
    """
    import ray.data

    checked = []
    for training in trainings:
        with naming(training):
            checked.append(checked_parts(training.examples, training.settings, training.objective))
    tokenizers = {model: load_tokenizer(local_copy(model)) for model in {training.model for training in trainings}}

    def tokenize_parts(task: pa.Table) -> pa.Table:
        ((number, parts),) = zip(*(task[name].to_pylist() for name in ("training", "parts")), strict=True)
        training, every = trainings[number], checked[number]
        settings, objective, tokenizer = training.settings, training.objective, tokenizers[training.model]
        mean = every.num_responses / every.num_questions
        found: list[dict[str, Any]] = []
        for row in trainable_rows(training.examples, parts, settings, objective, mean):
            tokenized = tokenize_example(row, tokenizer, training.prompt)
            if (ids := fitted(tokenized, objective.required_responses, settings)) is None:
                continue
            for epoch in range(settings.epochs):
                order = _order(training.seed, epoch, row["question_id"])
                found.append({"training": number, "epoch": epoch, "order": order, **row, **ids})
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
        with naming(training):
            counts.append(_counted(training.settings, one, rows[number], cut[number]))
    ends = itertools.accumulate(rows[number] for number in range(len(trainings) - 1))
    return (dataset.split_at_indices(list(ends)) if len(trainings) > 1 else [dataset]), counts


def _count_rows(block: pa.Table) -> pa.Table:
    """Rows of each training in a block, and how many of them were cut."""
    counted = block.group_by("training").aggregate([("is_cut", "count"), ("is_cut", "sum")])
    return pa.table([counted["training"], counted["is_cut_count"], counted["is_cut_sum"]], ["training", "rows", "cut"])


def _counted(settings: TrainingConfig, parts: Parts, num_rows: int, num_cut: int) -> Counts:
    """The counts of a training by its tokenized rows. Raises InputError if too few are left for its workers."""
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
    return Counts(num_examples, num_too_long, parts.num_skipped)
