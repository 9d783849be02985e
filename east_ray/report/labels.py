"""What the labels of a round changed, why, and what the trusted set says: a section of the report."""

import io
import itertools
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from east_ray.evaluation.estimators import wilson_interval
from east_ray.labels.calibrating import MIN_QUESTIONS
from east_ray.report.page import Block, Table
from east_ray.report.summary import RoundSummary, TrainingResults, arm_labels
from east_ray.report.wording import percent, with_interval
from east_ray.storage import Folder
from east_ray.storage.rounds import listed

#: Changes in the report; ``labels/changes.jsonl`` has all of them.
_SHOWN, _QUESTION_CHARS = 50, 200
_TOLD = "labels/labels.json"


def label_blocks(summary: RoundSummary) -> Iterator[Block]:
    """Counts by action of each training with labels of its own, the first changes, and what the trusted set says."""
    told = [(one, json.loads(text)) for one in summary.arms if (text := one.stages.folder.read_text(_TOLD))]
    if not told:
        return
    shown_as = arm_labels(summary)
    rows = [[shown_as[one.arm], *_rules_words(found["rules"]), listed(_counts(one)) or "none"] for one, found in told]
    columns = ["training", "decided by", "least share, %", "least margin, %", "questions by action"]
    yield Table("Labels of each training", columns, rows)
    agreeing = [[shown_as[one.arm], *_agreement(one)] for one, found in told if found["rules"]["source"] == "majority"]
    if agreeing:
        columns = ["training", "majorities with a given reference", "equal to it, % (95 % interval)"]
        yield Table("The majority's answers beside the references, which decided nothing", columns, agreeing)
    yield from _trusted_blocks([(shown_as[one.arm], found) for one, found in told])
    for one, _ in told:
        if rows := _changes(one.stages / "labels"):
            columns = ["question", "from", "to", "share, %", "why"]
            where = f"the first {_SHOWN}; " if len(rows) == _SHOWN else ""
            yield Table(f"Changed: {shown_as[one.arm]} ({where}all are in labels/changes.jsonl)", columns, rows)


def _counts(one: TrainingResults) -> dict[str, int]:
    record = one.stages.record("examples")
    return dict(record.counts.get("labels", {})) if record else {}


def _rules_words(rules: Mapping[str, Any]) -> tuple[str, str, str]:
    how = "the majority's answer" if rules["source"] == "majority" else f"the reference, policy {rules['policy']}"
    share = "none is enough" if rules["min_share"] is None else percent(rules["min_share"])
    return how, share, percent(rules["min_margin"])


def _agreement(one: TrainingResults) -> tuple[str, str]:
    """Of the majorities that are trained on, those with a usable reference, and the share that equals it."""
    batches = (one.stages / "examples").batches(["label"], max_rows=4096)
    agrees = [row["label"] and row["label"]["agrees"] for batch in batches for row in batch.to_pylist()]
    known = [value for value in agrees if value is not None]
    return f"{len(known):,}", _share_words(known.count(True), len(known))


def _share_words(count: int, total: int) -> str:
    if not total:
        return ""
    low, high = wilson_interval(count, total)
    return with_interval({"share": count / total, "low": low, "high": high}, "share")


def _trusted_blocks(told: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[Block]:
    """How many references are wrong, and how the rules fare on the trusted set."""
    trusted = next((found["trusted"] for _, found in told if found["trusted"]), None)
    if trusted is None:
        return
    said = f"Trusted: {trusted['num_found']:,} of the {trusted['num_rows']:,} questions in the file are in this round."
    if trusted["num_questions"]:
        share = _share_words(trusted["num_wrong"], trusted["num_questions"])
        said += f" Of {trusted['num_questions']:,} given references among them {share} % are wrong (95 % interval)."
        said += " That holds for all questions if the trusted ones were drawn at random."
    yield said
    known = [(label, one) for label, found in told if (one := found["calibration"]) and one["num_questions"]]
    if not known:
        return
    rows = []
    for label, one in known:
        precision = _share_words(one["num_acted_rightly"], one["num_acted"])
        errors = [one[name] for name in ("num_errors", "num_errors_as_set", "num_errors_untouched")]
        rows.append([label, *(f"{number:,}" for number in (one["num_questions"], *errors)), precision])
    columns = ["training", "trusted questions", "label errors", "as set", "without acting", "acted rightly, %"]
    yield Table("The rules on the trusted set: wrong labels kept or made, and right ones lost", columns, rows)
    yield (
        "Label errors: with the thresholds that hold. The same, as set: with the thresholds of the settings; without "
        "acting: if the rules acted on no question. Acted rightly: of the trusted questions that the rules act on, "
        "those where it is right to."
    )
    enough = [(label, one) for label, one in known if one["num_questions"] >= MIN_QUESTIONS]
    for label, one in enough:
        if "said" in one:  # not in a run of an older version
            yield f"{label}: {one['said']}." if len(known) > 1 else f"{one['said'][:1].upper()}{one['said'][1:]}."
    if any(one["is_applied"] for _, one in enough):
        yield (
            "Thresholds that were chosen are the best of many on these questions, by chance too. On other questions "
            "expect more label errors than the table shows."
        )
    if len(enough) < len(known):
        yield (
            f"Warning: with fewer than {MIN_QUESTIONS} trusted questions the thresholds are those of the settings, and "
            "these numbers say little."
        )


def _changes(labels: Folder) -> list[list[str]]:
    """The rows of the first changes."""
    if not labels.has("changes.jsonl"):
        return []
    with labels.filesystem.open_input_stream(f"{labels.path}/changes.jsonl") as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
        return [_cells(json.loads(line)) for line in itertools.islice(lines, _SHOWN)]


def _cells(change: Mapping[str, Any]) -> list[str]:
    question = textwrap.shorten(change["question"], _QUESTION_CHARS, placeholder=" …")
    texts = [f"{change['question_id']}: {question}", str(change["reference_answer"]), change["new_answer"]]
    return [*texts, percent(change["share"]), change["why"]]
