"""Clusters of one question's responses -> a training example, or the reason why there is none.

Pure functions on one graded question. What they give depends on the question, the settings and the run's seed alone,
never on other questions, their order or the machine. At the end is the stage on Ray: one pass over the samples judges
the questions for all trainings of a round.
"""

import functools
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray.answers.grading import Graded, measured
from east_ray.answers.stage import paired
from east_ray.config import Config, InputError
from east_ray.labels.deciding import Label, Labels, label_rules, labelled
from east_ray.records import CHOSEN, DISCARDED, EXAMPLES, JUDGED, QUESTIONS, GradedQuestion, Reason
from east_ray.storage import Folder, Stages, counts_by
from east_ray.storage.rounds import Round
from east_ray.storage.tasks import part_groups, run_tasks

#: The columns of a question that its example has too.
_QUESTION = ["question_id", "question", "reference_answer"]
#: Characters of a question or an answer that a sentence quotes.
_MAX_QUOTED = 80
#: What the weights of a training grow with; see weighting.py.
Signal = Callable[[GradedQuestion], float]


@dataclass(frozen=True)
class SelectionRules:
    """What decides whether a sampled question becomes an example; see the settings of the same names."""

    needs_rejected: bool = False
    """The objective trains on a rejected response too, so a question needs a wrong answer."""
    all_correct: Literal["keep", "drop"] = "keep"
    require_boxed: bool = True
    responses_per_question_trained: int = 1
    no_answer: Literal["cluster", "exclude"] = "cluster"
    num_responses: int | None = None
    """Only the first so many responses count (`answers.responses`); None: all."""
    seed: int = 0
    labels: Labels = field(default_factory=Labels)
    """What counts as right."""


def selection_rules(settings: Config, *, needs_rejected: bool, labels: Labels | None = None) -> SelectionRules:
    """The rules of a training; `needs_rejected`: its objective trains on a rejected response too.

    `labels` are those that `labels.stage.prepared` gives; by default, they are the settings alone.
    """
    return SelectionRules(
        needs_rejected=needs_rejected,
        all_correct=settings.selection.all_correct,
        # Boxes are the mathematical grader's: another one marks its answers as it likes.
        require_boxed=settings.selection.require_boxed and settings.answers.grader == "math",
        responses_per_question_trained=settings.selection.responses_per_question_trained,
        no_answer=settings.answers.no_answer,
        num_responses=settings.answers.responses,
        seed=settings.seed,
        labels=Labels(label_rules(settings.labels)) if labels is None else labels,
    )


def judge(
    question: Mapping[str, Any],
    graded: Graded,
    finish_reasons: list[str],
    response_of: Callable[[int], dict[str, Any]],
    rules: SelectionRules,
    signal: Signal,
) -> dict[str, Any]:
    """One question -> a row of records.JUDGED: an example that lacks its weight, or with the ``reason`` why not.

    `graded` and `finish_reasons` are those of all its responses, in the same order. `response_of` gives the response
    at a place as a row of records.CHOSEN; it is called for the few that are trained on. Raises InputError as
    `signal_of` does.
    """
    question_id, reference = question["question_id"], question["reference_answer"]
    graded, label = labelled(question_id, reference, graded, rules.num_responses, rules.labels)
    seen = measured(question_id, graded.clusters, rules.no_answer)
    chosen, more_chosen, rejected = choose(question_id, graded, finish_reasons, rules)

    def named(name: str, place: int | None) -> dict[str, Any]:
        response = {} if place is None else response_of(place)
        columns = {"text": name, "finish_reason": f"{name}_finish_reason", "token_ids": f"{name}_token_ids"}
        return {column: response.get(of_response) for of_response, column in columns.items()}

    more = [response_of(place) for place in more_chosen]
    return {
        **{name: question[name] for name in _QUESTION},
        "reference_answer": label.answer if label is not None and label.replaces_reference else reference,
        "label": None if label is None else vars(label),
        "num_responses": seen.num_responses,
        "num_truncated": finish_reasons[: seen.num_responses].count("length"),
        "entropy": seen.entropy,
        "pass_rate": seen.pass_rate,
        "rejected_rate": seen.rejected_rate,
        "clusters": [
            {"answer": one.answer, "num_responses": one.num_responses, "is_correct": one.is_correct}
            for one in graded.clusters
        ],
        "signal": signal_of(seen, signal),
        **named("chosen", chosen),
        "more_chosen": more if rules.responses_per_question_trained > 1 else None,
        **named("rejected", rejected),
        "reason": reason_to_discard(graded, label, rules),
    }


def signal_of(seen: GradedQuestion, signal: Signal) -> float:
    """The signal of a question. Raises InputError if a user's function fails or gives no number of at least 0."""
    try:
        value = float(signal(seen))
    except Exception as error:
        problem = f"raised {type(error).__name__}: {error}"
        raise InputError(f"weighting.signal: {problem} (question {seen.question_id})") from error
    if not 0 <= value < float("inf"):
        problem = f"gave {value} for question {seen.question_id}; expected a finite number of at least 0"
        raise InputError(f"weighting.signal: {problem}")
    return value


def choose(
    question_id: str, graded: Graded, finish_reasons: Sequence[str], rules: SelectionRules
) -> tuple[int | None, list[int], int | None]:
    """The places of a correct response, of further ones to train on, and of one with the commonest wrong answer.

    The choice among equals is random, fixed by seed and question_id. None: there is no such response.
    """
    rng = random.Random(f"{rules.seed}:{question_id}")
    choosable = _ended(_trainable(graded, rules), finish_reasons)
    chosen = rng.choice(choosable) if choosable else None
    wrong = _commonest_wrong(graded)
    rejected = None if wrong is None else rng.choice(_ended(_members(graded, wrong), finish_reasons))
    more = []
    if rules.responses_per_question_trained > 1:
        others = [place for place in choosable if place != chosen]
        more = rng.sample(others, min(len(others), rules.responses_per_question_trained - 1))
    return chosen, more, rejected


def judge_batch(
    batch: pa.RecordBatch, graded: Sequence[Graded], trainings: Sequence[tuple[SelectionRules, Signal]]
) -> list[pa.Table]:
    """Rows of ``samples/`` with their gradings -> their rows of records.JUDGED, a table for each training."""
    rows = _with_responses(batch)
    tables = []
    for rules, signal in trainings:
        found = [
            judge(question, one, finish_reasons, response_of, rules, signal)
            for (question, finish_reasons, response_of), one in zip(rows, graded, strict=True)
        ]
        tables.append(pa.Table.from_pylist(found, schema=JUDGED))
    return tables


def _with_responses(batch: pa.RecordBatch) -> list[tuple[dict[str, Any], list[str], Callable[[int], dict[str, Any]]]]:
    """Of each row: its question, the finish reasons of its responses, and what gives one of them, as records.CHOSEN.

    Samples of older runs have no token ids.
    """
    responses = batch["responses"]
    every = responses.flatten()
    # A few words, many times: a string made for each takes longer.
    encoded = every.field("finish_reason").dictionary_encode()
    reasons = list(map(encoded.dictionary.to_pylist().__getitem__, encoded.indices.to_pylist()))
    ends = [0, *itertools.accumulate(responses.value_lengths().to_pylist())]

    def response_at(begin: int, place: int) -> dict[str, Any]:
        found: dict[str, Any] = every[begin + place].as_py()
        return found

    return [
        (question, reasons[begin:end], functools.partial(response_at, begin))
        for question, (begin, end) in zip(batch.select(_QUESTION).to_pylist(), itertools.pairwise(ends), strict=True)
    ]


def reason_to_discard(graded: Graded, label: Label | None, rules: SelectionRules) -> Reason | None:
    """Why these rules drop a question, or None. `graded` and `label` are what `labels.deciding.labelled` gives."""
    return next(_reasons(graded, label, rules), None)


def _reasons(graded: Graded, label: Label | None, rules: SelectionRules) -> Iterator[Reason]:
    if label is not None and label.action == "drop":
        yield Reason.CONTRADICTED_REFERENCE
    if label is None and rules.labels.rules.source == "majority":
        yield Reason.NO_MAJORITY
    if not graded.can_use_reference:
        yield Reason.UNPARSABLE_REFERENCE
    correct = graded.correct_cluster
    if correct is None:
        yield Reason.ALL_WRONG
        return
    if rules.require_boxed and (correct, True) not in zip(graded.cluster, graded.is_boxed, strict=True):
        yield Reason.NO_BOXED_CORRECT
    if rules.needs_rejected and _commonest_wrong(graded) is None:
        yield Reason.NO_WRONG_ANSWER
    if rules.all_correct == "drop" and len(graded.clusters) == 1:
        yield Reason.ALL_CORRECT


def _trainable(graded: Graded, rules: SelectionRules) -> list[int]:
    """Places of the correct responses that may be trained on: those with a box, or all if none needs one."""
    if graded.correct_cluster is None:
        return []
    correct = _members(graded, graded.correct_cluster)
    boxed = [place for place in correct if graded.is_boxed[place]]
    return boxed if boxed or rules.require_boxed else correct


def _commonest_wrong(graded: Graded) -> int | None:
    """Place of the largest cluster that has an answer and is not correct."""
    wrong = (place for place, one in enumerate(graded.clusters) if not one.is_correct and one.answer is not None)
    return next(wrong, None)


def _members(graded: Graded, cluster: int) -> list[int]:
    return [place for place, number in enumerate(graded.cluster) if number == cluster]


def _ended(places: Sequence[int], finish_reasons: Sequence[str]) -> list[int]:
    """Those of some responses that ended by themselves; all of them if none did."""
    return [place for place in places if finish_reasons[place] == "stop"] or list(places)


# -------------------------------------------------------------------------------------------------------------- on Ray


def judge_samples(
    samples: Folder, answers: Folder, trainings: Sequence[tuple[SelectionRules, Signal, Folder]]
) -> Iterator[dict[str, int]]:
    """Judge every sampled question for each training: rows of records.JUDGED into the parts of its folder.

    The samples are read once for all trainings. Yields num_questions of each task.
    """

    def work(task: Mapping[str, Any]) -> dict[str, int]:
        tables: list[list[pa.Table]] = [[JUDGED.empty_table()] for _ in trainings]
        columns = [*_QUESTION, *(f"responses.list.element.{name}" for name in CHOSEN.names)]
        for batch, graded in paired(samples, answers, task["parts"], columns, max_rows=64):
            found = judge_batch(batch, graded, [(rules, signal) for rules, signal, _ in trainings])
            for judged, table in zip(tables, found, strict=True):
                judged.append(table)
        whole = [pa.concat_tables(judged) for judged in tables]
        for (*_, folder), table in zip(trainings, whole, strict=True):
            folder.write_part(table, task["name"])
        return {"num_questions": whole[0].num_rows}

    groups = enumerate(part_groups(samples))
    yield from run_tasks(work, [{"name": f"part-{number:06d}.parquet", "parts": parts} for number, parts in groups])


def judge_questions(round_: Round, trainings: Sequence[tuple[SelectionRules, Signal, Stages]]) -> None:
    """``judged/`` of each training, a folder that `weighting.write_examples` turns into ``examples/``."""
    if not trainings:
        return
    folders = [(rules, signal, stages / "judged") for rules, signal, stages in trainings]
    note = f"{len(folders)} trainings" if len(folders) > 1 else ""
    with round_.stages.recording("selection") as record, round_.progress.stage("selection", None, "questions") as line:
        record.counts = {"num_trainings": len(folders)}
        for *_, folder in folders:
            folder.clear()
        for counts in judge_samples(round_.stages / "samples", round_.stages / "answers", folders):
            line.advance(counts["num_questions"], note)


@dataclass(frozen=True)
class Judged:
    """The judged questions of a training, as far as the weights need to know them."""

    signals: NDArray[np.float64]
    """(Q,) of the kept questions, part after part."""
    num_kept: dict[str, int]
    """Part of ``judged/`` -> its kept questions."""
    reasons: dict[str, int]
    """Why questions were discarded -> how many."""
    factors: NDArray[np.float64]
    """(Q,) by which the labels multiply the weights before they are normalized; mostly 1."""

    def split(self, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """(Q,) values of the kept questions by part."""
        pieces = np.split(values, np.cumsum(list(self.num_kept.values())[:-1]))
        return dict(zip(self.num_kept, pieces, strict=True))


def read_judged(stages: Stages) -> Judged:
    """Signals and reasons of the questions that were judged for a training."""
    folder = stages / "judged"

    def read(part: str) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
        table = folder.read(JUDGED, ["signal", "label", "reason"], [part])
        kept = table.filter(pc.is_null(table["reason"]))
        return kept["signal"].to_numpy().astype(np.float64), factors_of(kept), table["reason"].drop_null().to_pylist()

    parts = folder.parts()
    with ThreadPoolExecutor(16) as pool:  # a round on an object store has hundreds of parts
        found = list(pool.map(read, parts))
    signals, factors = (np.concatenate([np.empty(0), *(one[place] for one in found)]) for place in (0, 1))
    reasons = Counter(reason for *_, dropped in found for reason in dropped)
    num_kept = {part: len(kept) for part, (kept, *_) in zip(parts, found, strict=True)}
    return Judged(signals, num_kept, dict(sorted(reasons.items())), factors)


def factors_of(kept: pa.Table) -> NDArray[np.float64]:
    """(Q,) of kept rows of records.JUDGED, the factor of each label; 1 without a label."""
    factors = pc.fill_null(pc.struct_field(kept["label"], "factor"), 1.0)
    return np.asarray(factors.to_numpy(), dtype=np.float64)


def one_discarded(stages: Stages, reason: str, num: int) -> str:
    """A question of ``discarded/``, one of `num` with this reason, and what to know of it, in a sentence."""
    columns = ["question", "reference_answer", "num_responses", "clusters", "reason"]
    rows = (row for batch in (stages / "discarded").batches(columns, max_rows=1000) for row in batch.to_pylist())
    row = next(row for row in rows if row["reason"] == reason)
    question, reference = _in_short(row["question"]), row["reference_answer"]
    said = f"one of them, {question}," if num > 1 else question
    if reason == Reason.NO_MAJORITY:
        return f"{said} has no majority: {_why_no_majority(row, stages)}"
    said += f" has {'no reference answer' if reference is None else f'the reference answer {_in_short(reference)}'}"
    if not row["clusters"]:
        return said
    most = row["clusters"][0]
    said += f", and the commonest answer to it is {_answer_of(most)} {_share_of(most, row)}"
    if reason == Reason.NO_BOXED_CORRECT:
        said += ": `selection.require_boxed: false` keeps answers without a box"
    elif most["answer"] is None:
        said += ": `answers.last_number: true` takes the last number where no answer is announced"
    return said


def _why_no_majority(row: Mapping[str, Any], stages: Stages) -> str:
    """The commonest answers to a question, and how common one must be."""
    most, *others = row["clusters"]
    said = f"its commonest answer is {_answer_of(most)} {_share_of(most, row)}"
    said += f", the next {_answer_of(others[0])} ({others[0]['num_responses']})" if others else ""
    if (told := (stages / "labels").read_text("labels.json")) is None:  # removed since
        return said
    rules = json.loads(told)["rules"]
    if rules["min_share"] is None:
        return f"{said}, and on the questions of labels.trusted no share was found to be enough"
    return (
        f"{said}, and a majority is an answer that is commoner than every other, with at least labels.min_share "
        f"({rules['min_share']:g}) of the responses and a lead of at least labels.min_margin ({rules['min_margin']:g})"
    )


def _answer_of(cluster: Mapping[str, Any]) -> str:
    return "none" if cluster["answer"] is None else _in_short(cluster["answer"])


def _share_of(cluster: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return f"({cluster['num_responses']} of {row['num_responses']} responses)"


def _in_short(text: str | None) -> str:
    """A text in quotes, on one line, its end left out where it is long; a word may be longer than a line, too."""
    words = " ".join(str(text).split())
    return repr(words if len(words) <= _MAX_QUOTED else f"{words[:_MAX_QUOTED].rstrip()} …")


def take_solutions(round_: Round, stages: Stages) -> tuple[int, dict[str, int]]:
    """``examples/`` of weight 1 from worked solutions; returns how many there are, and why others are discarded."""
    rows = (round_.stages / "questions").read(QUESTIONS).to_pylist()
    same = {"signal": 1.0, "weight": 1.0, "chosen_finish_reason": "stop"}
    solved = [row | same | {"chosen": row["reference_solution"]} for row in rows if row["reference_solution"]]
    unsolved = [row | {"reason": Reason.NO_REFERENCE_SOLUTION} for row in rows if not row["reference_solution"]]
    (stages / "examples").replace(pa.Table.from_pylist(solved, EXAMPLES))
    (stages / "discarded").replace(discarded := pa.Table.from_pylist(unsolved, DISCARDED))
    return len(solved), counts_by(discarded, "reason")
