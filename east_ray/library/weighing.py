"""Responses in memory -> weights: what `east-ray weigh` does with files, in one process and without Ray."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.answers import graders
from east_ray.answers.grading import Failures, Graded, Grader
from east_ray.answers.stage import grade_batch
from east_ray.config import Config, InputError, PromptConfig
from east_ray.config.base import hint, validated
from east_ray.export.shapes import Form, Shape
from east_ray.labels.stage import prepared
from east_ray.labels.trusted import can_be_labelled, read_trusted
from east_ray.library.rows import Rows, Samples, read_samples
from east_ray.records import ANSWERS, JUDGED, QUESTIONS, SET_ASIDE, Question
from east_ray.report.wording import waste
from east_ray.sampling.given import why_all_agree
from east_ray.selection import SelectionRules, Signal, factors_of, judge_batch, selection_rules
from east_ray.storage.rounds import counts_by, listed
from east_ray.training import objectives
from east_ray.training.dataset import trained_responses
from east_ray.weighting import load_signal, mapped, normalizer, weighted

_QUESTIONS_AT_ONCE = 64
_OUTCOME = pa.schema(
    [
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("question", pa.string()),
        pa.field("reference_answer", pa.string()),
        pa.field("num_responses", pa.int32()),
        pa.field("entropy", pa.float64()),
        pa.field("pass_rate", pa.float64()),
        pa.field("rejected_rate", pa.float64()),
        pa.field("weight", pa.float64()),
        pa.field("reason", pa.string()),
    ]
)


@dataclass(frozen=True, repr=False, eq=False)
class Weighed:
    """Weighed questions, as Arrow tables with the columns of a run's folders of these names (east_ray/records.py).

    ``table.to_pandas()`` is a DataFrame of one, ``datasets.Dataset(table)`` a data set. Each question is in exactly one
    of `examples`, `discarded` and `set_aside`; rows are in the order in which they were given.
    """

    samples: pa.Table
    """The questions with their responses, as they were read; without those that are set aside."""
    answers: pa.Table
    """Of each row of `samples` its clusters, and the answer, cluster and correctness of each response."""
    examples: pa.Table
    """What to train on: a chosen response (and a rejected one), with the weight, whose mean is 1."""
    discarded: pa.Table
    """Questions that are not trained on, with the reason."""
    set_aside: pa.Table
    """Rows that cannot be used, with the reason."""
    questions: pa.Table
    """A row for each question: its entropy (nats), its rates, its weight, or why it has none (`reason`)."""

    def clusters(self, question_id: str) -> pa.Table:
        """The clusters of a question, largest first, each with its answer, its share and the texts of its responses.

        `is_correct` says whether the answer equals the reference answer. Raises InputError if `samples` has no such
        question.
        """
        ids = self.samples["question_id"]
        if (place := pc.index(ids, str(question_id)).as_py()) < 0:
            raise InputError(
                f"no samples have the question_id {question_id!r}{hint(str(question_id), ids.to_pylist())}"
            )
        answers = self.answers.slice(place, 1).to_pylist()[0]
        texts: list[list[str]] = [[] for _ in answers["clusters"]]
        responses = self.samples["responses"].slice(place, 1).to_pylist()[0]
        for one, response in zip(answers["responses"], responses, strict=True):
            texts[one["cluster"]].append(response["text"])
        shares = [one["num_responses"] / len(responses) for one in answers["clusters"]]
        rows = zip(answers["clusters"], shares, texts, strict=True)
        return pa.Table.from_pylist([one | {"share": share, "responses": of_one} for one, share, of_one in rows])

    def exported(self, shape: str = "messages", *, as_text: bool = False, system: str | None = None) -> pa.Table:
        """The examples as rows for another trainer, with their weights, as `east-ray export` writes them.

        Args:
            shape: messages, prompt-completion, preference (questions with a wrong response) or unpaired.
            as_text: strings in place of messages.
            system: a system message before each question.

        Raises InputError for another shape.
        """
        if shape not in list(Shape):
            raise InputError(f"shape: {shape!r} given, expected {', '.join(Shape)}{hint(str(shape), list(Shape))}")
        prompt, rows = validated(PromptConfig, {"system": system}), self.examples.to_pylist()
        form = Form(Shape(shape), prompt, as_text)
        num_responses = sum(1 + len(row["more_chosen"] or ()) for row in rows)
        found = [
            one
            for row in rows
            if form.shape is not Shape.PREFERENCE or row["rejected"] is not None
            for example in trained_responses(row, num_responses / len(rows))
            for one in form.rows(example)
        ]
        return pa.Table.from_pylist(found, form.schema)

    def __repr__(self) -> str:
        parts = [f"{self.examples.num_rows:,} kept as examples"]
        for name, table in (("discarded", self.discarded), ("set aside", self.set_aside)):
            if table.num_rows:
                parts.append(f"{name}: {listed(counts_by(table, 'reason'))}")
        num_responses = pc.sum(self.samples["num_responses"]).as_py() or 0
        return f"<Weighed: {self.questions.num_rows:,} questions, {num_responses:,} responses; {'; '.join(parts)}>"


def weigh(
    rows: Rows,
    *,
    samples: Mapping[str, Any] | None = None,
    answers: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    selection: Mapping[str, Any] | None = None,
    weighting: Mapping[str, Any] | None = None,
    objective: str = "sft",
    seed: int = 0,
    name: str = "row",
) -> Weighed:
    r"""Cluster the answers of each question and weight the questions, as `east-ray weigh` does with a file.

    A row is a question with its reference answer and the list of its responses or, with `samples.response_column`, one
    response. Everything is kept in memory; for more than that there is `east-ray weigh`.

    >>> rows = [
    ...     {"question": "1 + 1?", "reference_answer": "2", "responses": [r"\boxed{2}", r"\boxed{2.0}", r"\boxed{3}"]},
    ...     {"question": "2 + 2?", "reference_answer": "4", "responses": [r"\boxed{4}", r"\boxed{4}", r"\boxed{4}"]},
    ... ]
    >>> weighed = weigh(rows)
    >>> weighed
    <Weighed: 2 questions, 6 responses; 2 kept as examples>
    >>> weighed.questions.select(["pass_rate", "weight"]).to_pylist()
    [{'pass_rate': 0.6666666666666666, 'weight': 2.0}, {'pass_rate': 1.0, 'weight': 0.0}]
    >>> weighed.clusters("row-000001").select(["answer", "num_responses", "is_correct"]).to_pylist()[1]
    {'answer': '3', 'num_responses': 1, 'is_correct': False}

    Args:
        rows: dictionaries, a pandas DataFrame, a datasets.Dataset, a pyarrow Table, or anything that Arrow can read.
        samples: settings of the section `samples` in place of their defaults, e.g. {"responses_column": "outputs"}.
        answers: settings of the section `answers`, e.g. {"last_number": True}.
        labels: settings of the section `labels`, e.g. {"policy": "drop"}. Without references: {"source": "majority"},
            and of `samples` {"reference_answer_column": None}.
        selection: settings of the section `selection`, e.g. {"require_boxed": False}.
        weighting: settings of the section `weighting`, e.g. {"exponent": 1.5}.
        objective: the setting `training.objective`; dpo and kto need a wrong answer.
        seed: decides which of several correct responses is chosen.
        name: questions without an id are called name-000001 and so on. With the stem of a file, they are called, and
            their responses are chosen, as by `east-ray weigh` of that file.

    Warns if rows are set aside, responses dropped, questions repeated, if trusted ones are not there, if the grader
    fails, if no question is kept, and if the weights leave less than 30 % of the examples effective.
    Raises InputError (a ValueError) if a setting is wrong, a name in it is in no row, no row can be used, two questions
    have one id, or no weights exist.
    """
    sections = {"answers": answers, "labels": labels, "selection": selection, "weighting": weighting}
    settings = _settings(samples or {}, sections, objective, seed)
    assert settings.samples is not None
    grader, failures = graders.load(settings.answers), Failures()
    trusted = [] if settings.labels.trusted is None else read_trusted(settings.labels.trusted, grader)
    can_use = can_be_labelled(settings.labels.source, trusted, grader)
    read = read_samples(rows, settings.samples, name, can_use)
    weighed = _weighed(read, settings, grader, failures)
    _warn(weighed, read.counts, failures)
    return weighed


def _settings(samples: Any, sections: Mapping[str, Any], objective: str, seed: int) -> Config:
    """The settings of a run with these sections; None: the defaults. Raises InputError as for a YAML file."""
    if not isinstance(samples, Mapping):
        raise InputError(f"samples: {samples!r} given, expected settings, e.g. {{'responses_column': 'outputs'}}")
    if "path" in samples:
        raise InputError("samples.path: the rows are given, so there is no path; `east-ray weigh` reads files")
    given = {name: section for name, section in sections.items() if section is not None}
    values = {"run_dir": ".", "samples": {"path": "rows", **samples}, "training": {"objective": objective}}
    return validated(Config, {**values, **given, "seed": seed})


def _weighed(read: Samples, settings: Config, grader: Grader, failures: Failures) -> Weighed:
    """The stages answers, selection and weighting. Raises InputError."""
    batches = [batch for table in read.tables for batch in table.to_batches(max_chunksize=_QUESTIONS_AT_ONCE)]
    graded = [grade_batch(batch, grader, failures) for batch in batches]
    training = _rules(settings, grader, batches, [one for some, _ in graded for one in some])
    parts = [(ANSWERS.empty_table(), JUDGED.empty_table())]
    for batch, (some, table) in zip(batches, graded, strict=True):
        parts.append((table, *judge_batch(batch, some, [training])))
    answers, judged = (pa.concat_tables(tables) for tables in zip(*parts, strict=True))
    aside = sorted(read.set_aside, key=lambda row: row["row"])
    kept = judged.filter(pc.is_null(judged["reason"]))
    signals = kept["signal"].to_numpy()
    try:
        values = mapped(signals, settings.weighting) * factors_of(kept) if signals.size else signals
        weights = values / normalizer(values) if signals.size else signals
    except ValueError as error:
        why = "" if signals.any() else _why_all_agree(settings, read, aside)
        raise InputError(f"weighting: {error}{why}") from error
    examples, discarded = weighted(judged, weights)
    outcomes = [(one["row"], one) for one in aside]
    for table in (examples, discarded):
        there = table.select([name for name in _OUTCOME.names if name in table.column_names]).to_pylist()
        outcomes += [(read.numbers[row["question_id"]], row) for row in there]
    questions = [row for _, row in sorted(outcomes, key=lambda one: one[0])]
    return Weighed(
        pa.concat_tables(read.tables),
        answers,
        examples,
        discarded,
        pa.Table.from_pylist(aside, SET_ASIDE),
        pa.Table.from_pylist(questions, _OUTCOME),
    )


def _why_all_agree(settings: Config, read: Samples, aside: Sequence[Mapping[str, Any]]) -> str:
    assert settings.samples is not None
    num_responses = sum(pc.sum(table["num_responses"]).as_py() or 0 for table in read.tables)
    example = "".join(f"; e.g. {one['question_id']}: {one['detail']}" for one in aside[:1])
    return why_all_agree(settings.samples, len(read.numbers), num_responses, example)


def _rules(
    settings: Config, grader: Grader, batches: Sequence[pa.RecordBatch], graded: Sequence[Graded]
) -> tuple[SelectionRules, Signal]:
    """What judges the questions. Raises InputError."""
    questions = [Question.of(row) for batch in batches for row in batch.select(QUESTIONS.names).to_pylist()]
    by_id = dict(zip((one.question_id for one in questions), graded, strict=True))
    found = prepared(settings, grader, questions, lambda ids: {name: by_id[name] for name in ids})
    if found.num_found < found.num_trusted:
        warnings.warn(found.found_said, stacklevel=4)
    needs_rejected = "rejected" in objectives.load(settings.training).required_responses
    rules = selection_rules(settings, needs_rejected=needs_rejected, labels=found.labels)
    return rules, load_signal(settings.weighting)


def _warn(weighed: Weighed, counts: Mapping[str, int], failures: Failures) -> None:
    """Warn of what the user should know, and where to look."""

    def warn(said: str) -> None:
        warnings.warn(said.strip(), stacklevel=4)

    def reasons(table: pa.Table) -> str:
        return listed(counts_by(table, "reason"))

    if weighed.set_aside.num_rows:
        warn(f"set aside: {reasons(weighed.set_aside)}; the first is {weighed.set_aside['detail'][0]}; see `set_aside`")
    if counts["num_dropped"]:
        warn(f"{counts['num_dropped']:,} failed responses are dropped")
    times = weighed.samples["question"].value_counts().field("counts")
    if repeated := pc.sum(pc.greater(times, 1)).as_py():
        warn(f"{repeated:,} questions are in several rows, and each row has a weight of its own; see samples.group_by")
    num_responses = pc.sum(weighed.samples["num_responses"]).as_py()
    failures.report(lambda said: warnings.warn(said.strip(), stacklevel=5), num_responses)
    for said in waste({"weighting": weighed.examples["weight"].to_numpy()}) if weighed.examples.num_rows else []:
        warn(said.removeprefix("warning: "))
    if not weighed.examples.num_rows:
        warn(f"no question is kept: {reasons(weighed.discarded)}; see `discarded`")
