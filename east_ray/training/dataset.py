"""Weighted examples -> token ids in the order of training."""

import contextlib
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from east_ray.config import TRAINED, InputError, PromptConfig, TrainingConfig
from east_ray.questions.prompts import end_of_turn, load_tokenizer, render_prompt, response_ids, tokenize_prompt
from east_ray.records import EXAMPLES
from east_ray.storage import Folder, local_copy
from east_ray.training.objectives import RESPONSES, Objective

if TYPE_CHECKING:
    import ray.data
    from transformers import PreTrainedTokenizerBase

#: What the loop reads: a row per example and epoch, in the order of training.
TOKENIZED = pa.schema(
    [
        pa.field("epoch", pa.int32()),
        pa.field("order", pa.string()),  # sorts an epoch's examples in a random order that the seed fixes
        pa.field("question_id", pa.string()),
        pa.field("weight", pa.float64()),
        pa.field("prompt", pa.list_(pa.int32())),  # token ids
        pa.field("chosen", pa.list_(pa.int32())),  # token ids, the end-of-turn token included
        pa.field("rejected", pa.list_(pa.int32())),  # null where the objective does not need it
        pa.field("mismatched", pa.list_(pa.int32())),  # the chosen response of another question, likewise
    ]
)
#: Columns of examples/ that are trained on.
_COLUMNS = ["question_id", "question", "weight", "chosen", "chosen_finish_reason", "chosen_token_ids", "more_chosen"]
_COLUMNS += ["rejected", "rejected_finish_reason", "rejected_token_ids"]
#: How the columns of a response's parts end, with the names of the parts in `more_chosen`.
_PARTS_OF_A_RESPONSE = {"": "text", "_finish_reason": "finish_reason", "_token_ids": "token_ids"}
#: Rows of TOKENIZED, the number of their training, and what is counted of them: what Ray Data sorts.
_TO_SORT = TOKENIZED.insert(0, pa.field("training", pa.int32()))
_TO_SORT = _TO_SORT.append(pa.field("is_cut", pa.bool_())).append(pa.field("is_retokenized", pa.bool_()))
_ORDER = ["training", "epoch", "order"]
#: Up to this many of them are made in this process: tokenizing, sorting and counting them as Ray's tasks takes four new
#: processes one after the other, which is longer.
FEW_ROWS = 8192
Row = Mapping[str, Any]
#: Numbers by name, and the name of the attention that computed them.
Metrics = dict[str, Any]


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

    @property
    def adapter_target(self) -> Folder:
        """Where the adapters go: ``adapter/`` beside the model."""
        return Folder(self.target.filesystem, self.target.path.rpartition("/")[0]) / "adapter"


@dataclass(frozen=True)
class ExportedModel:
    """The files of a trained model's parameters, all of which were read back and compared with the trained ones.

    `logits_difference`: root mean square between the logits of the written model, computed through all its layers, and
    those of the trained one, relative to the spread of a position's logits.
    """

    num_files: int
    num_bytes: int
    logits_difference: float
    seconds: float


@dataclass(frozen=True)
class TrainingPhase:
    """What the workers of a training have begun to do, or how far they are with it."""

    name: Literal["loading the model", "reference pass", "steps", "writing the model"]
    done: int = 0
    num_examples: int = 0
    """Of the reference pass, how many there are, and how many of them are done."""

    @property
    def is_work(self) -> bool:
        """Whether the workers are no longer being started."""
        return self.name != "loading the model"


@dataclass(frozen=True)
class TrainingSummary:
    """What a training counted: examples trained on, examples left out or cut, metrics of each step, the model.

    Retokenized are examples of which a response has token ids that do not spell its text.
    """

    num_examples: int
    num_too_long: int
    num_zero_weight: int
    steps: Sequence[Metrics] = ()
    num_retokenized: int = 0
    exported: ExportedModel | None = None


class _Parts(NamedTuple):
    num_questions: int  # trained on, as the responses
    num_responses: int
    num_skipped: int  # questions left out for their weight of 0
    groups: list[list[str]]  # the parts of examples/ that a task reads together


@contextlib.contextmanager
def naming(training: Training) -> Iterator[None]:
    """Put the training's name before the message of an InputError, unless it is the run's own training."""
    try:
        yield
    except InputError as error:
        if training.name == TRAINED:
            raise
        raise InputError(f"{training.name}: {error}") from error


def _checked_parts(training: Training) -> _Parts:
    """What there is to train on, with two questions or more in a group: a mismatched response is of another question.

    Raises InputError for a weight that is negative or not finite, a missing rejected response, or too few examples.
    """
    settings, objective = training.settings, training.objective
    num_trained = num_responses = num_skipped = num_in_group = 0
    groups: list[list[str]] = []
    for part in training.examples.parts():
        table = _checked_part(training, part)
        weights = table["weight"].to_numpy()
        is_trained = weights > 0 if settings.skip_zero_weight else np.ones(len(weights), bool)
        trained = int(is_trained.sum())
        num_trained, num_skipped = num_trained + trained, num_skipped + len(weights) - trained
        more = pc.fill_null(pc.list_value_length(table["more_chosen"]), 0).to_numpy()
        num_responses += int((1 + more)[is_trained].sum())
        if not groups or num_in_group >= 2:
            groups.append([])
            num_in_group = 0
        groups[-1].append(part)
        num_in_group += trained
    if len(groups) > 1 and num_in_group < 2:
        groups[-2:] = [groups[-2] + groups[-1]]
    if num_trained == 0:
        if num_skipped:
            raise InputError("weighting: every example has the weight 0; choose another signal or mapping")
        raise InputError("training: there is no example to train on; `east-ray report` says why questions are left out")
    if num_trained < objective.min_examples:
        pairs = ", to pair prompts with other responses" if "mismatched" in objective.required_responses else ""
        needs = f"{settings.objective} needs at least {objective.min_examples} examples{pairs}"
        raise InputError(f"training.objective: {needs}, found {num_trained}; give more questions, or set it to sft")
    return _Parts(num_trained, num_responses, num_skipped, groups)


def _checked_part(training: Training, part: str) -> pa.Table:
    needs_rejected = "rejected" in training.objective.required_responses
    columns = ["question_id", "weight", "more_chosen", *(["rejected"] if needs_rejected else [])]
    table = training.examples.read(EXAMPLES, columns, [part])
    weights = table["weight"].to_numpy()
    for row in np.flatnonzero(~np.isfinite(weights) | (weights < 0))[:1]:
        name = table["question_id"][int(row)].as_py()
        raise InputError(
            f"examples: the weight of {name} is {weights[row]}; expected a finite number of at least 0; weigh again"
        )
    if needs_rejected and table["rejected"].null_count:
        name = table["question_id"][pc.index(pc.is_null(table["rejected"]), True).as_py()]
        needs = f"{training.settings.objective} needs a rejected response, and {name} has none"
        raise InputError(f"training.objective: {needs}; weigh the samples again with this objective")
    return table


def _trainable_rows(training: Training, parts: Sequence[str], responses_per_question: float) -> Iterator[Row]:
    """A row per chosen response of the examples in some parts, in order of question_id.

    `responses_per_question` is the mean number over all questions, so that the mean weight stays. If the objective
    needs mismatched responses, a row also has the chosen one of the next question.
    """
    rows: list[dict[str, Any]] = training.examples.read(EXAMPLES, _COLUMNS, parts).sort_by("question_id").to_pylist()
    rows = [row for row in rows if row["weight"] or not training.settings.skip_zero_weight]
    if "mismatched" in training.objective.required_responses:
        # The pairs are fixed, so that their reference log-probabilities are computed only once.
        for row, following in zip(rows, rows[1:] + rows[:1], strict=True):
            row |= {f"mismatched{part}": following[f"chosen{part}"] for part in _PARTS_OF_A_RESPONSE}
    for row in rows:
        yield from trained_responses(row, responses_per_question)


def trained_responses(row: Row, responses_per_question: float) -> Iterator[Row]:
    """A row of examples/ once for each of its chosen responses, which share its weight times that mean number."""
    more = row["more_chosen"] or []
    weight = row["weight"] * responses_per_question / (1 + len(more))
    yield {**row, "weight": weight}
    for number, response in enumerate(more, start=1):
        chosen = {f"chosen{part}": response.get(name) for part, name in _PARTS_OF_A_RESPONSE.items()}
        yield {**row, **chosen, "weight": weight, "question_id": f"{row['question_id']}#{number}"}


def tokenize_example(row: Row, tokenizer: "PreTrainedTokenizerBase", prompt: PromptConfig) -> dict[str, list[int]]:
    """Token ids of an example's prompt and of the responses that it has: those that were sampled, where they are known.

    Prompt and response are tokenized separately, as in sampling. A response that ended by itself has an end-of-turn
    token; one that was cut has none, so that the model does not learn to end there.
    """
    ids = {"prompt": tokenize_prompt(tokenizer, render_prompt(tokenizer, row["question"], prompt), prompt)}
    end = end_of_turn(tokenizer, prompt)
    for name in RESPONSES:
        if row.get(name) is not None:
            ended = end if row[f"{name}_finish_reason"] == "stop" else []
            ids[name] = response_ids(tokenizer, row[name], ended, row.get(f"{name}_token_ids"))
    return ids


def _is_retokenized(row: Row, ids: Mapping[str, list[int]]) -> bool:
    """Whether a response of a tokenized example has sampled ids that are not trained on."""
    sampled = {name: row[f"{name}_token_ids"] for name in ids if row.get(f"{name}_token_ids") is not None}
    # The last id may be an end of turn where the sampled ones go on with a stop string.
    return any(
        ids[name][:-1] != of_response[: len(ids[name]) - 1] for name, of_response in sampled.items() if ids[name]
    )


def _fitted(ids: dict[str, list[int]], training: Training) -> dict[str, Any] | None:
    """A tokenized example within max_length, with `is_cut`; None if it is too long and to be discarded."""
    room = training.settings.max_length - len(ids["prompt"])
    responses = {name: ids[name] for name in training.objective.required_responses}
    if all(len(response) <= room for response in responses.values()):
        return {**ids, "is_cut": False}
    if training.settings.too_long == "discard" or room < 1:
        return None
    return {**ids, **{name: response[:room] for name, response in responses.items()}, "is_cut": True}


def tokenized_examples(trainings: Sequence[Training]) -> "tuple[list[ray.data.Dataset], list[TrainingSummary]]":
    """The TOKENIZED rows of each training, of all its epochs in the order of training, and what was counted.

    Tasks read and tokenize the parts. Ray Data sorts the rows and spills to disk what the object store cannot hold, so
    this process never has more than a few thousand examples in memory. All trainings share one pass, since each pass
    has its own cost.
    Raises InputError if there is nothing to train on, or too little for the workers.
    """
    checked = []
    for training in trainings:
        with naming(training):
            checked.append(_checked_parts(training))
    tokenizers = {model: load_tokenizer(local_copy(model)) for model in {training.model for training in trainings}}
    for training in trainings:
        with naming(training):
            render_prompt(tokenizers[training.model], "?", training.prompt)  # a template that refuses it says so here

    def tokenize_parts(task: pa.Table) -> pa.Table:
        ((number, parts),) = zip(*(task[name].to_pylist() for name in ("training", "parts")), strict=True)
        training, every = trainings[number], checked[number]
        found: list[dict[str, Any]] = []
        for row in _trainable_rows(training, parts, every.num_responses / every.num_questions):
            whole = tokenize_example(row, tokenizers[training.model], training.prompt)
            if (ids := _fitted(whole, training)) is None:
                continue
            ids["is_retokenized"] = _is_retokenized(row, whole)
            for epoch in range(training.settings.epochs):
                place = f"{training.seed}:{epoch}:{row['question_id']}".encode()
                order = hashlib.blake2b(place, digest_size=12).hexdigest()
                found.append({"training": number, "epoch": epoch, "order": order, **row, **ids})
        return pa.Table.from_pylist([{name: row.get(name) for name in _TO_SORT.names} for row in found], _TO_SORT)

    groups = [{"training": number, "parts": parts} for number, one in enumerate(checked) for parts in one.groups]
    num_rows = sum(one.num_responses * it.settings.epochs for it, one in zip(trainings, checked, strict=True))
    rows, cut, retokenized = Counter[int](), Counter[int](), Counter[int]()
    datasets, counted = _sorted(tokenize_parts, groups, len(trainings), in_this_process=num_rows <= FEW_ROWS)
    for found in counted:
        rows[found["training"]] += found["rows"]
        cut[found["training"]] += found["cut"]
        retokenized[found["training"]] += found["retokenized"]
    counts = []
    for number, (training, one) in enumerate(zip(trainings, checked, strict=True)):
        settings = training.settings
        num, num_cut, workers = rows[number] // settings.epochs, cut[number] // settings.epochs, settings.num_workers
        with naming(training):
            if num == 0:
                fits = f"examples fits in training.max_length {settings.max_length} tokens"
                raise InputError(f"training: none of the {one.num_responses} {fits}")
            if num < workers:
                raise InputError(f"training.num_workers: {workers} workers for {num} examples; use fewer workers")
        num_too_long, num_other = one.num_responses - num + num_cut, retokenized[number] // settings.epochs
        counts.append(TrainingSummary(num, num_too_long, one.num_skipped, num_retokenized=num_other))
    return datasets, counts


def _sorted(
    tokenize_parts: Callable[[pa.Table], pa.Table],
    groups: Sequence[dict[str, Any]],
    num_trainings: int,
    *,
    in_this_process: bool,
) -> "tuple[list[ray.data.Dataset], list[dict[str, Any]]]":
    """What `tokenize_parts` makes of the groups, for each training in the order of training; rows of `_count_rows`."""
    import ray.data

    if in_this_process:
        table = pa.concat_tables([tokenize_parts(pa.Table.from_pylist([group])) for group in groups])
        table = table.sort_by([(name, "ascending") for name in _ORDER]).combine_chunks()
        of_each = [table.filter(pc.equal(table["training"], number)) for number in range(num_trainings)]
        return [ray.data.from_arrow(one) for one in of_each], _count_rows(table).to_pylist()
    tasks = ray.data.from_items(groups, override_num_blocks=len(groups))
    dataset = tasks.map_batches(tokenize_parts, batch_size=1, batch_format="pyarrow").sort(_ORDER).materialize()
    counted = dataset.map_batches(_count_rows, batch_size=None, batch_format="pyarrow").take_all()
    rows = Counter[int]()
    for found in counted:
        rows[found["training"]] += found["rows"]
    ends = itertools.accumulate(rows[number] for number in range(num_trainings - 1))
    return (dataset.split_at_indices(list(ends)) if num_trainings > 1 else [dataset]), counted


def _count_rows(block: pa.Table) -> pa.Table:
    """Rows of each training in a block, and how many of them were cut and were retokenized."""
    counted = block.group_by("training").aggregate([("is_cut", "count"), ("is_cut", "sum"), ("is_retokenized", "sum")])
    columns = {"training": "training", "rows": "is_cut_count", "cut": "is_cut_sum", "retokenized": "is_retokenized_sum"}
    return pa.table({name: counted[column] for name, column in columns.items()})
