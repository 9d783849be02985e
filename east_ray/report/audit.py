"""Audit of the reference answers: which of them do nearly all responses contradict with one and the same answer?

A wrong reference answer inverts the weights: the question's right responses count as wrong, and the few that match the
reference by chance are trained on. Suspects are ranked by the normalized margin of confident learning (Northcutt, Jiang
and Chuang, 2021, arXiv 1911.00068): the share of the commonest wrong answer minus the reference's.

Known limits: a model with a systematic misconception contradicts right references in the same way, so a person must
decide on every suspect. A wrong reference that repeats the model's own misconception is not found.

At most `max_rows` questions are in memory, however many the round has.
"""

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc

from east_ray.records import Reason, StudyPage, StudyText
from east_ray.report.html import templates
from east_ray.report.questions import fetch_responses
from east_ray.storage import Folder

# ----------------------------------------------------------------------------------------------------- one question


def suspicion(row: Mapping[str, Any], min_share: float = 0.5) -> float | None:
    """How much the responses contradict the reference answer, in (0, 1); None if they do not.

    (w - r) / (n + 2) for n responses of which w give the commonest wrong answer and r the reference's: the margin of
    their shares, shrunk towards 0 for few responses (Laplace's rule), so that 1 of 1 counts less than 120 of 128.

    `row` is of records.EXAMPLES or DISCARDED. At least `min_share` of all responses must give the commonest wrong
    answer, which must also be commoner than the reference's answer and than having no answer. The reference is the one
    that was given, whatever the labels put in its place; one that the trusted set has checked is no suspect.
    """
    if row.get("reason") in (Reason.UNPARSABLE_REFERENCE, Reason.NO_MAJORITY) or not row["clusters"]:
        return None  # no reference counts, or nothing was sampled
    if (label := row.get("label")) is not None and (label["action"] == "trusted" or label["agrees"] is None):
        return None
    clusters = _by_given_reference(row)
    wrong = max((c["num_responses"] for c in clusters if not c["is_correct"] and c["answer"] is not None), default=0)
    others = [c["num_responses"] for c in clusters if c["is_correct"] or c["answer"] is None]
    if wrong / row["num_responses"] < min_share or wrong <= max(others, default=0):
        return None
    correct = sum(c["num_responses"] for c in clusters if c["is_correct"])
    return float((wrong - correct) / (row["num_responses"] + 2))


def _by_given_reference(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The clusters of a row, of which that of the given reference is the correct one."""
    clusters, label = row["clusters"], row.get("label")
    if label is None:
        return list(clusters)
    return [one | {"is_correct": place == label["reference_cluster"]} for place, one in enumerate(clusters)]


# -------------------------------------------------------------------------------------------------------- one round


@dataclass(frozen=True)
class Suspect:
    """A question whose reference answer looks wrong. Shares are of all its responses; entropy in nats."""

    question_id: str
    question: str
    reference_answer: str
    dominant_answer: str
    score: float  # see `suspicion`
    share: float
    reference_share: float
    entropy: float
    num_responses: int
    action: str | None = None  # what the section `labels` did: relabel, drop, downweight or majority
    dominant_response: str | None = None  # one that gives the dominant answer
    reference_response: str | None = None  # one that gives the reference answer; None if there is none


@dataclass(frozen=True)
class Audit:
    """The suspects of a round, most suspicious first; `num_suspicious` counts those beyond `max_rows` too."""

    min_share: float
    num_questions: int
    num_suspicious: int
    suspects: list[Suspect]


_QUESTION = ["question_id", "question", "reference_answer"]
#: Of examples/ and discarded/; only the latter has `reason`, and a column that is not there is not read.
_COLUMNS = [*_QUESTION, "num_responses", "entropy", "rejected_rate", "clusters", "label", "reason"]
_QUESTIONS_AT_ONCE = 1024


def audit(
    samples: Folder,
    answers: Folder,
    examples: Folder,
    discarded: Folder,
    *,
    num_responses: int | None = None,
    min_share: float = 0.5,
    max_rows: int = 1000,
) -> Audit:
    """The suspects among the kept and the discarded questions of a round; at most `max_rows`, the most suspicious.

    `num_responses` is `answers.responses` of the training whose examples these are.
    """
    counts = Counter[str]()
    found = (one for folder in (examples, discarded) for one in _suspects(folder, min_share, counts))
    ranked = heapq.nsmallest(max_rows, found, key=lambda one: (-one[0], one[1]["question_id"]))
    wanted = {row["question_id"]: _places(row) for _, row in ranked}
    responses = fetch_responses(samples, answers, wanted, num_responses=num_responses)
    suspects = []
    for score, row in ranked:
        wrong, correct = wanted[row["question_id"]]
        dominant_response, reference_response = responses.get(row["question_id"], (None, None))
        shares = [one["num_responses"] / row["num_responses"] for one in row["clusters"]]
        label = row.get("label") or {"original_reference": row["reference_answer"], "action": None}
        suspects.append(
            Suspect(
                **{name: row[name] for name in ("question_id", "question", "entropy", "num_responses")},
                reference_answer=label["original_reference"],
                action=label["action"],
                dominant_answer=row["clusters"][wrong]["answer"],
                score=score,
                share=shares[wrong],
                reference_share=0.0 if correct is None else shares[correct],
                dominant_response=dominant_response,
                reference_response=reference_response,
            )
        )
    return Audit(min_share, counts["questions"], counts["suspicious"], suspects)


def _suspects(folder: Folder, min_share: float, counts: Counter[str]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Suspects, each a score with its row."""
    for batch in folder.batches(_COLUMNS, max_rows=_QUESTIONS_AT_ONCE):
        counts["questions"] += batch.num_rows - batch["rejected_rate"].null_count
        # The rate alone excludes most questions; it is null where nothing was sampled. A label may have changed it.
        is_common = pc.greater_equal(batch["rejected_rate"], min_share)
        if "label" in batch.schema.names:  # older runs have none
            is_common = pc.or_(is_common, pc.is_valid(batch["label"]))
        for row in batch.filter(is_common).to_pylist():
            if (score := suspicion(row, min_share)) is not None:
                counts["suspicious"] += 1
                yield score, row


def _places(row: Mapping[str, Any]) -> tuple[int, int | None]:
    """The places of the commonest wrong answer, which is the largest, and of the reference among the clusters."""
    clusters = _by_given_reference(row)
    wrong = (p for p, one in enumerate(clusters) if not one["is_correct"] and one["answer"] is not None)
    return next(wrong), next((p for p, one in enumerate(clusters) if one["is_correct"]), None)


# --------------------------------------------------------------------------------------------- two files and a page

_MAX_SHOWN_CHARS = 4000
#: Questions on the page of studies/; ``audit/`` has all of them.
_SHOWN = 20
#: Not allowed in UTF-8 files or HTML pages: halves of surrogate pairs, control characters.
_UNSHOWABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def write_audit(audited: Audit, folder: Folder) -> str:
    """Write ``audit.jsonl``, a line per suspect, and ``audit.html``, the same to read; returns the page's path."""
    suspects = [
        {name: _UNSHOWABLE.sub("\ufffd", value) if isinstance(value, str) else value for name, value in row.items()}
        for row in map(asdict, audited.suspects)
    ]
    folder.write_text("audit.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in suspects))
    template = templates("east_ray.report").get_template("audit.html.jinja")
    html = template.render(audit=audited, suspects=suspects, max_chars=_MAX_SHOWN_CHARS)
    return folder.write_text("audit.html", html)


def audit_page(found: Audit) -> StudyPage:
    """The most suspicious reference answers, with responses for and against them."""
    shown = found.suspects[:_SHOWN]
    rows = [
        [
            one.question_id,
            one.reference_answer,
            one.dominant_answer,
            _percent(one.share),
            _percent(one.reference_share),
            one.action or "kept",
        ]
        for one in shown
    ]
    columns = ["question", "reference", "most responses say", "share, %", "reference's share, %", "policy"]
    caption = f"The {len(shown)} most suspicious"
    return {
        "title": "Reference answers that may be wrong",
        "text": f"In {found.num_suspicious:,} of {found.num_questions:,} questions at least "
        f"{_percent(found.min_share)} % of the responses agree on an answer that is not the reference. Either the "
        "reference is wrong, or the model makes the same mistake again and again; only a person can tell. All of these "
        "questions are in audit/.",
        "tables": [{"caption": caption, "columns": columns, "rows": rows}] if shown else [],
        "texts": [_folded(one) for one in shown],
    }


def _folded(one: Suspect) -> StudyText:
    return {
        "title": f"{one.question_id}: {one.dominant_answer} or {one.reference_answer}?",
        "blocks": [
            {"label": "question", "text": one.question},
            {"label": f"{one.dominant_answer}, {_percent(one.share)} %", "text": one.dominant_response or ""},
            {
                "label": f"reference {one.reference_answer}, {_percent(one.reference_share)} %",
                "text": one.reference_response or "(no response gives it)",
            },
        ],
    }


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"
