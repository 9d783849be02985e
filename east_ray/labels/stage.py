"""What the labels of a round depend on beside its responses, and the folder ``labels/`` that tells what was decided.

One pass over the questions finds the trusted ones, and one over the answers gives theirs, which set the thresholds: a
global reduction of a few numbers before the questions are judged. Earlier rounds are read where the rules ask for them.
"""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.answers.grading import Graded, Grader, GraderError, compared
from east_ray.answers.stage import graded_rows
from east_ray.config import Config, InputError
from east_ray.labels.calibrating import Calibration, applied, calibrated, estimate, in_a_sentence, outcome
from east_ray.labels.deciding import (
    LabelRules,
    Labels,
    Past,
    change_of,
    contradiction,
    is_decided,
    label_rules,
    lead_of,
    pass_rate,
)
from east_ray.labels.trusted import TrustedRow, check, found_words, matched, read_trusted
from east_ray.records import ANSWERS, Question
from east_ray.storage import Folder, Stages
from east_ray.storage.rounds import Round

_QUESTION = ["question_id", "question", "reference_answer", "reference_solution", "level", "subject", "extra"]
_OF_CHANGES = ["question_id", "question", "num_responses", "clusters", "label", "reason"]  # discarded/ has the last
_ROWS_AT_ONCE = 1024

#: The gradings of some questions, by question_id.
GradedOf = Callable[[Collection[str]], Mapping[str, Graded]]
#: Earlier rounds of the questions that this round alone contradicts by these rules: of those with some ids; None: all.
PastOf = Callable[[LabelRules, Collection[str] | None], Mapping[str, list[Past]]]


@dataclass(frozen=True)
class Prepared:
    """The rules as they hold, and what the trusted set says."""

    labels: Labels
    num_trusted: int = 0
    """Rows of the trusted file."""
    num_found: int = 0
    """Those of them whose question is in the round."""
    found_said: str = ""
    """The same in a sentence, with the first that is not."""
    calibration: Calibration | None = None
    """None: there is no trusted set, or nothing that thresholds would decide."""
    thresholds_said: str = ""
    """Which thresholds hold and why, in a sentence, where drawn questions are in the round."""

    def as_json(self) -> dict[str, Any]:
        """``labels/labels.json``."""
        rules = asdict(self.labels.rules)
        if self.calibration is not None:
            rules["min_share"] = self.calibration.min_share  # null where no answer is common enough
        found = {"num_rows": self.num_trusted, "num_found": self.num_found, **estimate(self.labels.trusted)}
        calibration = None if self.calibration is None else asdict(self.calibration) | {"said": self.thresholds_said}
        return {"rules": rules, "trusted": found if self.num_trusted else None, "calibration": calibration}


def prepared(
    settings: Config,
    grader: Grader,
    questions: Iterable[Question],
    graded_of: GradedOf,
    past_of: PastOf = lambda rules, ids: {},
    number: int = 0,
) -> Prepared:
    """What the labels of a training in round `number` depend on; `questions` are all of the round.

    Raises InputError as `read_trusted`, `_found` and `check`.
    """
    rules = label_rules(settings.labels)
    path = settings.labels.trusted
    if path is None:
        return Prepared(Labels(rules, number, past=past_of(rules, None) if rules.needs_past else {}))
    rows = read_trusted(path, grader)
    found, said = _found(rows, questions, settings)
    num_found = len({row.where for row, _ in found.values()})
    graded = graded_of(found)
    labels = Labels(rules, number, {name: check(*found[name], one, grader) for name, one in graded.items()})
    if labels.rules.policy == "keep" and labels.rules.source == "reference":
        return Prepared(labels, len(rows), num_found, said)
    past = past_of(replace(rules, min_share=0.0, min_margin=0.0), graded.keys()) if rules.needs_past else {}
    calibration = calibrated(
        [
            outcome(checked, graded[name], settings.answers.responses, past.get(name, ()), labels)
            for name, checked in labels.trusted.items()
            if checked.is_drawn
        ],
        rules,
    )
    thresholds = in_a_sentence(calibration, rules) if calibration.num_questions else ""
    rules = applied(calibration, rules)
    past = past_of(rules, None) if rules.needs_past else {}
    return Prepared(replace(labels, rules=rules, past=past), len(rows), num_found, said, calibration, thresholds)


def _found(
    rows: Sequence[TrustedRow], questions: Iterable[Question], settings: Config
) -> tuple[dict[str, tuple[TrustedRow, Question]], str]:
    """`matched`, and in a sentence how many rows are in the round.

    Raises InputError as `matched`, and if a run of one round has none of them: of several rounds one rightly may.
    """
    found, path = matched(rows, questions), settings.labels.trusted
    if not found and settings.rounds == 1:
        asked = "questions.path" if settings.samples is None else "samples.path"
        raise InputError(
            f"labels.trusted: {path}: none of its {len(rows):,} questions is in this round; expected rows with the "
            f"question_id of this run, or with the question's text as in {asked}"
        )
    return found, f"labels.trusted: {path}: {found_words(rows, found)}"


def trusted_rows(round_: Round, grader: Grader) -> list[tuple[Config, list[TrustedRow]]]:
    """The rows of each trusted file that the examples of a round still wait for, with settings that name it.

    Raises InputError as `read_trusted`.
    """
    waiting = [one for one in round_.learners() if one.stages.record("examples") is None]
    settings = {path: one.settings for one in waiting if (path := one.settings.labels.trusted) is not None}
    return [(one, read_trusted(path, grader)) for path, one in settings.items()]


def look_for_trusted(round_: Round, trusted: Iterable[tuple[Config, list[TrustedRow]]]) -> None:
    """Say which trusted questions will be asked, before they are. Raises InputError as `_found`."""
    if round_.stages.record("sampling") is None:
        for settings, rows in trusted:
            round_.progress.say(_found(rows, _questions(round_.stages / "questions"), settings)[1])


def prepare_labels(round_: Round, settings: Config, grader: Grader) -> Prepared:
    """`prepared` from the folders of a round. Raises InputError."""
    samples, answers, num_responses = round_.stages / "samples", round_.stages / "answers", settings.answers.responses

    def graded_of(ids: Collection[str]) -> dict[str, Graded]:
        return dict(_graded(answers, ids))

    def past_of(rules: LabelRules, ids: Collection[str] | None) -> dict[str, list[Past]]:
        return _past(round_, grader, rules, ids, num_responses)

    return prepared(settings, grader, _questions(samples), graded_of, past_of, round_.number)


def _questions(samples: Folder) -> Iterator[Question]:
    for batch in samples.batches(_QUESTION, max_rows=_ROWS_AT_ONCE):
        yield from map(Question.of, batch.to_pylist())


def _graded(answers: Folder, ids: Collection[str] | None) -> Iterator[tuple[str, Graded]]:
    """(question_id, grading) of the questions with some ids; None: of all."""
    if ids is not None and not ids:
        return
    wanted = None if ids is None else pa.array(list(ids), pa.string())
    for batch in answers.batches(ANSWERS.names, max_rows=_ROWS_AT_ONCE):
        table = pa.Table.from_batches([batch])
        if wanted is not None:
            table = table.filter(pc.is_in(table["question_id"], wanted))
        yield from zip(table["question_id"].to_pylist(), graded_rows(table), strict=True)


def _past(
    round_: Round, grader: Grader, rules: LabelRules, ids: Collection[str] | None, num_responses: int | None
) -> dict[str, list[Past]]:
    """What earlier rounds gave for the questions that this round alone contradicts."""
    number, now = round_.number, dict[str, list[str]]()
    if number == 0 or number + 1 < rules.stable_rounds:
        return {}
    alone = replace(rules, stable_rounds=1, max_slope=None)
    for question_id, graded in _graded(round_.stages / "answers", ids):
        first = graded.first(num_responses)
        if contradiction(first, (), number, alone) is not None:
            now[question_id] = [one.answer for one in first.clusters if one.answer is not None]
    questions = {one.question_id: one for one in _questions(round_.stages / "samples") if one.question_id in now}
    found = defaultdict[str, list[Past]](list)
    for before in range(number):
        # In a comparison, the first round is shared and each later one is a training's own.
        stages = round_.directory.round(before).learner(round_.learner) if before else round_.directory.round(0)
        for question_id, graded in _graded(stages / "answers", now.keys()):
            then = graded.first(num_responses)
            lead = lead_of(then)
            answer = None if lead is None else then.clusters[lead.place].answer
            majority = answer and _as_now(answer, now[question_id], questions[question_id], grader)
            found[question_id].append(Past(before, majority, pass_rate(then)))
    return found


def _as_now(answer: str, now: list[str], question: Question, grader: Grader) -> str | None:
    """The one of this round's answers that equals an earlier answer; None: none does. Raises InputError."""
    if answer in now:
        return answer
    try:
        then, *keys = compared(grader, [answer, *now], question)
    except GraderError as error:
        raise InputError(f"labels: the grader failed on question {question.question_id}: {error}") from error
    return next((one for one, key in zip(now, keys, strict=True) if key == then), None)


def write_labels(stages: Stages, found: Prepared) -> None:
    """Write ``labels/labels.json`` of a training, unless every reference counts as given."""
    (stages / "labels").clear()
    if not found.labels.keep_all:
        (stages / "labels").write_text("labels.json", json.dumps(found.as_json(), indent=1) + "\n")


def write_changes(stages: Stages) -> dict[str, int]:
    """Write ``labels/changes.jsonl``, a line for each changed question; returns how often each action was taken."""
    labels, counts = stages / "labels", Counter[str]()
    if not labels.exists:
        return {}
    folders = stages / "examples", stages / "discarded"
    batches = itertools.chain.from_iterable(one.batches(_OF_CHANGES, max_rows=_ROWS_AT_ONCE) for one in folders)
    with labels.writing("changes.jsonl") as stream:
        for batch in batches:
            rows = list(filter(is_decided, batch.filter(pc.is_valid(batch["label"])).to_pylist()))
            counts.update(row["label"]["action"] for row in rows)
            for row in rows:
                if (change := change_of(row)) is not None:
                    stream.write((json.dumps(change, ensure_ascii=False) + "\n").encode())
    return dict(sorted(counts.items()))
