"""The audit of the reference answers, as a page."""

from east_ray.records import StudyPage, StudyText
from east_ray.report.audit import Audit, Suspect

#: Questions that the page shows; ``audit/`` has all of them.
_SHOWN = 20


def audit_page(found: Audit) -> StudyPage:
    """The most suspicious reference answers, with responses for and against them."""
    shown = found.suspects[:_SHOWN]
    rows = [
        [
            one.question_id,
            one.reference_answer,
            one.dominant_answer,
            f"{100 * one.share:.0f}",
            f"{100 * one.reference_share:.0f}",
        ]
        for one in shown
    ]
    columns = ["question", "reference", "most responses say", "share, %", "reference's share, %"]
    caption = f"The {len(shown)} most suspicious"
    return {
        "title": "Reference answers that may be wrong",
        "text": f"In {found.num_suspicious:,} of {found.num_questions:,} questions at least "
        f"{100 * found.min_share:.0f} % of the responses agree on an answer that is not the reference. Either the "
        "reference is wrong, or the model makes the same mistake again and again; only a person can tell. All of these "
        "questions are in audit/.",
        "tables": [{"caption": caption, "columns": columns, "rows": rows}] if shown else [],
        "curves": [],
        "texts": [_folded(one) for one in shown],
    }


def _folded(one: Suspect) -> StudyText:
    dominant, reference = f"{100 * one.share:.0f} %", f"{100 * one.reference_share:.0f} %"
    return {
        "title": f"{one.question_id}: {one.dominant_answer} or {one.reference_answer}?",
        "blocks": [
            {"label": "question", "text": one.question},
            {"label": f"{one.dominant_answer}, {dominant}", "text": one.dominant_response or ""},
            {
                "label": f"reference {one.reference_answer}, {reference}",
                "text": one.reference_response or "(no response gives it)",
            },
        ],
    }
