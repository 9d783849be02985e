"""The folder answers/ of a round: the answer and the cluster of every response, for all later stages."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from east_ray.answers import graders
from east_ray.answers.grading import Failures, Graded, Grader, clustered
from east_ray.config import InputError
from east_ray.records import ANSWERS, CLUSTER, Cluster, Question
from east_ray.storage import Folder
from east_ray.storage.rounds import Round, is_done
from east_ray.storage.tasks import part_groups, run_tasks

_QUESTIONS_AT_ONCE = 64
_TEXTS = "responses.list.element.text"
#: The columns of ``samples/`` that a grader sees, besides the texts.
_QUESTION = ["question_id", "question", "reference_answer", "reference_solution", "level", "subject", "extra"]
_RESPONSE = ANSWERS.field("responses").type.value_type


def grade_responses(round_: Round) -> None:
    """Write ``answers/``: one row for each row of ``samples/``, in parts of the same names."""
    stages = round_.stages
    if is_done(round_, stages, "answers", "answers"):
        return
    grader = graders.load(round_.config.answers)
    with stages.recording("answers") as record, round_.progress.stage("answers", None, "questions") as line:
        (stages / "answers").clear()
        sums, failures = dict.fromkeys(("num_questions", "num_responses", "num_answerless"), 0), Failures()
        for counts in write_answers(stages / "samples", stages / "answers", grader):
            sums = {name: sums[name] + int(counts[name]) for name in sums}
            failures.add(counts["num_failed"], counts["error"] or None)
            said = f" · grader failed on {failures.num_responses:,}" if failures.num_responses else ""
            line.advance(int(counts["num_questions"]), f"{sums['num_responses']:,} responses{said}")
        record.counts = sums | failures.counts
    failures.report(round_.progress.say, sums["num_responses"])


def write_answers(samples: Folder, answers: Folder, grader: Grader) -> Iterator[dict[str, Any]]:
    """Grade all parts of `samples`.

    Yields num_questions, num_responses and num_answerless of each finished task, and on how many responses the grader
    failed (num_failed), with the first error.
    """

    def work(parts: Sequence[str]) -> dict[str, Any]:
        counts = {"num_questions": 0, "num_responses": 0, "num_answerless": 0}
        failures = Failures()
        for part in parts:
            table = _graded_part(samples, part, grader, failures)
            answers.write_part(table, part.rpartition("/")[2])
            of_responses = pa.chunked_array(table["responses"]).combine_chunks().flatten()
            counts["num_questions"] += table.num_rows
            counts["num_responses"] += len(of_responses)
            counts["num_answerless"] += of_responses.field("answer").null_count
        return {**counts, "num_failed": failures.num_responses, "error": failures.error or ""}

    yield from run_tasks(work, part_groups(samples))


def _graded_part(samples: Folder, part: str, grader: Grader, failures: Failures) -> pa.Table:
    tables = [ANSWERS.empty_table()]
    for batch in samples.batches([*_QUESTION, _TEXTS], [part], max_rows=_QUESTIONS_AT_ONCE):
        tables.append(grade_batch(batch, grader, failures)[1])
    return pa.concat_tables(tables)


def grade_batch(batch: pa.RecordBatch, grader: Grader, failures: Failures) -> tuple[list[Graded], pa.Table]:
    """The grading of each row of ``samples/``, and the same as rows of ``answers/``. Failures join `failures`."""
    of_question = [name for name in _QUESTION if name in batch.schema.names]  # old runs lack some columns
    questions = [Question.of(row) for row in batch.select(of_question).to_pylist()]
    graded = [clustered(*pair, grader) for pair in zip(texts_of(batch), questions, strict=True)]
    for one in graded:
        failures.add(one.num_failed, one.error)
    return graded, answers_table(questions, graded)


def texts_of(batch: pa.RecordBatch) -> list[list[str]]:
    """The texts of the responses in each row of ``samples/``."""
    texts = batch["responses"].flatten().field("text").to_pylist()
    ends = np.concatenate([[0], np.cumsum(batch["responses"].value_lengths().to_numpy(zero_copy_only=False))])
    return [texts[begin:end] for begin, end in itertools.pairwise(ends.tolist())]


def answers_table(questions: Sequence[Question], graded: Sequence[Graded]) -> pa.Table:
    """Graded questions as rows of records.ANSWERS, built from flat columns (a dictionary per response takes longer)."""
    answers = [answer for one in graded for answer in one.answers]
    places = [place for one in graded for place in one.cluster]
    is_correct = np.concatenate([np.empty(0, bool), *(_is_correct(one) for one in graded)])
    boxed = [is_boxed for one in graded for is_boxed in one.is_boxed]
    clusters = [cluster for one in graded for cluster in one.clusters]
    of_responses = [pa.array(answers, pa.string()), pa.array(boxed, pa.bool_())]
    of_responses += [pa.array(places, pa.int32()), pa.array(is_correct, pa.bool_())]
    of_clusters = [
        pa.array([one.answer for one in clusters], pa.string()),
        pa.array([one.num_responses for one in clusters], pa.int32()),
        pa.array([one.is_correct for one in clusters], pa.bool_()),
    ]
    columns = {
        "question_id": [one.question_id for one in questions],
        "reference_answer": [one.reference_answer for one in questions],
        "can_use_reference": [one.can_use_reference for one in graded],
        "clusters": _lists([len(one.clusters) for one in graded], of_clusters, CLUSTER),
        "responses": _lists([len(one.cluster) for one in graded], of_responses, _RESPONSE),
    }
    return pa.table(columns, schema=ANSWERS)


def _is_correct(graded: Graded) -> NDArray[np.bool_]:
    """(R,) whether each response is in the correct cluster."""
    correct = graded.correct_cluster
    return np.equal(graded.cluster, -1 if correct is None else correct)


def _lists(lengths: Sequence[int], columns: Sequence[pa.Array], kind: pa.StructType) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.StructArray.from_arrays(columns, fields=list(kind)))


def paired(
    samples: Folder, answers: Folder, parts: Sequence[str] | None, columns: Sequence[str], *, max_rows: int
) -> Iterator[tuple[pa.RecordBatch, list[Graded]]]:
    """The rows of some parts of ``samples/`` (None: of all parts), with the grading of each row from ``answers/``.

    `columns` are the columns of ``samples/`` to read, e.g. ``responses.list.element.text``. Raises InputError if a part
    has no answers because the run has not been weighed since its samples were made.
    """
    for part in samples.parts() if parts is None else parts:
        name = part.rpartition("/")[2]
        if not answers.has(name):
            raise InputError(f"{answers}/{name} is missing; run `east-ray weigh` to read the responses again")
        table = answers.read(ANSWERS, parts=[f"{answers.path}/{name}"])
        begin = 0
        for batch in samples.batches(columns, [part], max_rows=max_rows):
            yield batch, graded_rows(table.slice(begin, batch.num_rows))
            begin += batch.num_rows
        if begin != table.num_rows:
            said = f"{answers}/{name} has {table.num_rows} rows and its samples have {begin}"
            raise InputError(f"{said}; remove it and run `east-ray weigh` to read the responses again")


def graded_rows(table: pa.Table) -> list[Graded]:
    """The rows of records.ANSWERS as one Graded each."""
    lists = [table[name].combine_chunks() for name in ("responses", "clusters")]
    of_responses, of_clusters = (one.flatten() for one in lists)
    found = [of_responses.field(name) for name in ("answer", "is_boxed", "cluster")]
    answers, is_boxed, places = (one.to_numpy(zero_copy_only=False).tolist() for one in found)
    clusters = list(map(Cluster, *(of_clusters.field(name).to_pylist() for name in CLUSTER.names)))
    ends = [np.concatenate([[0], np.cumsum(one.value_lengths().to_numpy(zero_copy_only=False))]) for one in lists]
    spans = [[slice(*pair) for pair in itertools.pairwise(end.tolist())] for end in ends]
    return [
        Graded(answers[r], is_boxed[r], places[r], clusters[c], can_use)
        for r, c, can_use in zip(*spans, table["can_use_reference"].to_pylist(), strict=True)
    ]
