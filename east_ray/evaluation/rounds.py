"""diversity.json and collapse.json of a round: how its answers spread, and whether its run is collapsing.

Of a comparison, each training has both from the second round on; in round 0 all share the same answers.
"""

import json
import math

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from east_ray import records
from east_ray.config import BASE
from east_ray.evaluation.collapse import Alarm, Change, Spread, fall, loss, named, spread
from east_ray.records import GREEDY_ANSWERS
from east_ray.storage import Stages
from east_ray.storage.rounds import Learner, Round

_CLUSTERS = ["question_id", "responses.list.element.answer", "responses.list.element.cluster"]
_QUESTIONS_AT_ONCE = 1024


def write_diversity(round_: Round) -> None:
    """``diversity.json`` of a round that has answers, in a run of several rounds."""
    if round_.config.rounds == 1 or round_.stages.record("answers") is None:
        return
    settings = round_.config.answers
    before, now = (_clusters(one, settings.responses) for one in (round_.directory.round(0), round_.stages))
    found = spread(before, now, settings.no_answer)
    content: records.Diversity = {
        "num_questions": len(now),
        "entropy": _told(found.entropy),
        "num_answers": _told(found.num_answers),
    }
    round_.stages.folder.write_text("diversity.json", json.dumps(content, indent=1) + "\n")


def _clusters(stages: Stages, num_responses: int | None) -> dict[str, NDArray[np.int64]]:
    """Question id -> (R,) the cluster of each of its first responses, -1 for one without an answer."""
    found: dict[str, NDArray[np.int64]] = {}
    for batch in (stages / "answers").batches(_CLUSTERS, max_rows=_QUESTIONS_AT_ONCE):
        responses = batch["responses"].flatten()
        clusters = pc.if_else(pc.is_valid(responses.field("answer")), responses.field("cluster"), -1).to_numpy()
        ends = np.cumsum(batch["responses"].value_lengths().to_numpy(zero_copy_only=False))
        of_questions = np.split(clusters.astype(np.int64), ends[:-1])
        rows = zip(batch["question_id"].to_pylist(), of_questions, strict=True)
        found |= {question: one[:num_responses] for question, one in rows}
    return found


def _told(change: Change) -> records.Change:
    error = change.standard_error if math.isfinite(change.standard_error) else None
    return {"before": change.before, "now": change.now, "standard_error": error}


def _stored_spread(stages: Stages) -> Spread | None:
    """What ``diversity.json`` says; None without one."""
    text = stages.folder.read_text("diversity.json")
    if text is None:
        return None
    content: records.Diversity = json.loads(text)
    return Spread(*(_change(content[name]) for name in ("entropy", "num_answers")))


def _change(told: records.Change) -> Change:
    error = told["standard_error"]
    return Change(told["before"], told["now"], math.inf if error is None else error)


# ---------------------------------------------------------------------------------------------------------- the alarm


def look_for_collapse(learner: Learner, *, before_training: bool) -> Alarm | None:
    """The alarm of a training that learns from majority answers, which is kept in ``collapse.json``; None: no alarm.

    None as well with `labels.collapse: ignore`. It is looked for twice in a round: before the training, of which it may
    say that nothing is left to learn from, and after the evaluation.
    """
    round_, labels = learner.round, learner.settings.labels
    if labels.source != "majority" or labels.collapse == "ignore" or learner.settings.rounds == 1:
        return None
    models = correct_of_models(learner, round_.number if before_training else round_.number + 1)
    answers = _stored_spread(learner.stages)
    found = None if before_training else fall(models)
    if found is None and answers is not None and (models or before_training):
        found = loss(answers, round_.number, models, before_training=before_training)
    if found is not None:
        best = None if found.best is None else found.best - 1
        content: records.Collapse = {"said": found.said, "rule": found.rule, "best": best}
        learner.stages.folder.write_text("collapse.json", json.dumps(content, indent=1) + "\n")
    return found


def correct_of_models(learner: Learner, num_rounds: int) -> list[dict[str, bool]]:
    """Which held-out questions the model before training, and that of each round, answers; [] without any."""
    directory = learner.round.directory
    first = directory.round(0)
    base = correctness(first, BASE) or correctness(first.learner(BASE), BASE)  # of a run, or of a comparison
    trained = (correctness(directory.round(number).learner(learner.name), learner.name) for number in range(num_rounds))
    return [base, *trained] if base else []


def correctness(stages: Stages, model: str) -> dict[str, bool]:
    """Question id -> whether a model answered it correctly, of ``evaluation/answers/``; empty if it has none."""
    table = (stages / "evaluation/answers").read(GREEDY_ANSWERS, ["model", "question_id", "is_correct"])
    table = table.filter(pc.equal(table["model"], model))
    return dict(zip(table["question_id"].to_pylist(), table["is_correct"].to_pylist(), strict=True))


def in_a_sentence(learner: Learner, alarm: Alarm) -> str:
    """What has happened, which model is the best and where it lies, and which settings mend it."""
    if alarm.best is None:
        return f"{alarm.said}; give questions with references in evaluation.questions"
    round_, settings = learner.round, learner.settings
    made_by = round_.directory.round(alarm.best - 1).learner(learner.name) / "model"
    address = round_.directory.address(made_by) if alarm.best else settings.model
    mended = f"raise labels.min_share ({_least_share(learner)} now)"
    mended += f", run fewer rounds (rounds: {alarm.best})" if alarm.best else ""
    return (
        f"the run is collapsing: {alarm.said}; the best model is {named(alarm.best)}, in {address}; {mended}, or give "
        "references (labels.source: reference), in another run_dir; labels.collapse: warn goes on in this one"
    )


def _least_share(learner: Learner) -> str:
    """The share that made an answer a majority's in the newest round that has been weighed."""
    for number in range(learner.round.number, -1, -1):
        stages = learner.round.directory.round(number).learner(learner.name)
        if (told := (stages / "labels").read_text("labels.json")) is not None:
            share = json.loads(told)["rules"]["min_share"]
            found = "none is enough" if share is None else f"{share:g}"
            return found if share == learner.settings.labels.min_share else f"{found} by labels.trusted"
    return f"{learner.settings.labels.min_share:g}"
