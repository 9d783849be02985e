"""The stages of a round: each reads folders of the run directory and writes others. pipeline.py puts them in order."""

from array import array
from collections import Counter

import pyarrow as pa

from east_ray import weighting
from east_ray.config import TRAINED, Config, InputError
from east_ray.console import StageLine
from east_ray.examples import judge_samples, weigh_judged
from east_ray.records import DISCARDED, EXAMPLES, QUESTIONS, Reason
from east_ray.selection import SelectionRules
from east_ray.storage import Stages, counts_by
from east_ray.storage.rounds import Round, is_done, listed


def make_examples(round_: Round, name: str, settings: Config, stages: Stages) -> None:
    """``examples/`` with weights and ``discarded/`` with reasons: each sampled question is in one of them."""
    label = "examples" if name == TRAINED else f"  {name}"
    if is_done(round_, stages, "examples", label):
        return
    with stages.recording("examples") as record, round_.progress.stage(label, None, "questions") as line:
        if settings.training.examples == "reference_solutions":
            examples, discarded = _solutions(round_)
            (stages / "examples").replace(examples)
            (stages / "discarded").replace(discarded)
            kept, reasons = examples.num_rows, counts_by(discarded, "reason")
        else:
            kept, reasons = _weigh(round_, settings, stages, line)
        record.counts = {"kept": kept, "discarded": reasons}
        line.update(kept + sum(reasons.values()), f"{kept:,} kept")
        if kept == 0:
            raise InputError(
                f"no question was kept, so there is nothing to train on: of {sum(reasons.values()):,} questions "
                f"{listed(reasons)}; the responses are kept in "
                f"{round_.directory.address(round_.stages / 'samples')}"
            )


def selection_rules(settings: Config) -> SelectionRules:
    """By which rules a training's examples are made of the samples."""
    return SelectionRules(
        objective=settings.training.objective,
        signal=settings.weighting.signal,
        all_correct=settings.selection.all_correct,
        require_boxed=settings.selection.require_boxed,
        responses_per_question_trained=settings.selection.responses_per_question_trained,
        equivalence=settings.answers.equivalence,
        no_answer=settings.answers.no_answer,
        last_number=settings.answers.last_number,
        seed=settings.seed,
    )


def _weigh(round_: Round, settings: Config, stages: Stages, line: StageLine) -> tuple[int, dict[str, int]]:
    """The number of questions kept, and of those discarded by reason."""
    rules = selection_rules(settings)
    judged, examples, discarded = stages / "judged", stages / "examples", stages / "discarded"
    for folder in (judged, examples, discarded):
        folder.clear()
    signals, reasons = array("d"), Counter[str]()
    for part in judge_samples(round_.stages / "samples", judged, rules):
        signals.extend(part["signals"])
        reasons.update(part["reasons"])
        line.advance(part["num_questions"], f"{len(signals):,} kept")
    normalizer = None
    if signals:
        try:
            # The only global step of a round: what a question's weight has to know of the other questions.
            normalizer = weighting.normalizer(signals, settings.weighting.exponent, settings.weighting.mapping)
        except ValueError as error:
            raise InputError(f"weighting: {error}") from error
    for _ in weigh_judged(judged, examples, discarded, normalizer):
        pass
    judged.clear()
    return len(signals), dict(sorted(reasons.items()))


def _solutions(round_: Round) -> tuple[pa.Table, pa.Table]:
    """Examples of weight 1 from the questions' own worked solutions, and the questions that have none."""
    rows = (round_.stages / "questions").read(QUESTIONS).to_pylist()
    solved = [
        row | {"signal": 1.0, "weight": 1.0, "chosen": row["reference_solution"], "chosen_finish_reason": "stop"}
        for row in rows
        if row["reference_solution"]
    ]
    unsolved = [row | {"reason": Reason.NO_REFERENCE_SOLUTION} for row in rows if not row["reference_solution"]]
    return (
        pa.Table.from_pylist([{name: row.get(name) for name in EXAMPLES.names} for row in solved], EXAMPLES),
        pa.Table.from_pylist([{name: row.get(name) for name in DISCARDED.names} for row in unsolved], DISCARDED),
    )
