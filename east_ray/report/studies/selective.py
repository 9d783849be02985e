"""Does entropy tell which majority answers to held-out questions are wrong? The page of evaluation/abstention.py."""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.config import BASE, TRAINED
from east_ray.evaluation.abstention import Selective, majority_answers, selective_prediction
from east_ray.records import StudyPage, StudySeries

#: Percent of the questions, surest first, whose share of wrong answers is in the table.
_SUREST = (25, 50, 75)


def selective_page(sampled: pa.Table, no_answer: Literal["cluster", "exclude"], seed: int) -> StudyPage:
    """records.SAMPLED_ANSWERS of several models -> whether entropy tells their wrong majority answers from right ones.

    It shows what a server gains that withholds answers (`abstain_above` of /v1/solve).
    """
    models = sorted(pc.unique(sampled["model"]).to_pylist(), key=lambda name: (name != BASE, name != TRAINED, name))
    found = {
        name: selective_prediction(
            *majority_answers(sampled.filter(pc.equal(sampled["model"], name)), no_answer=no_answer), seed=seed
        )
        for name in models
    }
    surest = [f"wrong of the surest {share} %, % (95 % interval)" for share in _SUREST]
    return {
        "title": "Does entropy tell which answers are wrong",
        "text": "The answer of most responses, against the entropy of all their answers, on held-out questions. AUROC "
        "is the chance that a wrong answer has a higher entropy than a right one: 0.5 says nothing, 1 separates them "
        "completely. The curve shows the share of wrong answers among the surest questions, if only these are "
        "answered; no answer at all counts as wrong.",
        "tables": [
            {
                "caption": "Entropy as a predictor of wrong answers",
                "columns": ["model", "questions", "wrong, %", "AUROC (95 % interval)", *surest],
                "rows": [_cells(name, one) for name, one in found.items()],
            }
        ],
        "curves": [
            {
                "title": "Risk and coverage",
                "x_label": "share of questions answered, surest first",
                "y_label": "share of these answered wrongly",
                "series": [_series(name, one) for name, one in found.items()],
            }
        ],
        "texts": [],
    }


def _cells(name: str, one: Selective) -> list[str]:
    wrong = f"{100 * one.num_wrong / one.num_questions:.1f}"
    return [name, f"{one.num_questions:,}", wrong, _auroc(one), *(_risk(one, share / 100) for share in _SUREST)]


def _auroc(one: Selective) -> str:
    if one.auroc is None:
        return "none: all alike"
    return f"{one.auroc:.3f} ({one.auroc_low:.3f} to {one.auroc_high:.3f})"


def _risk(one: Selective, coverage: float) -> str:
    at = one.coverages.index(coverage)
    return f"{100 * one.risks[at]:.1f} ({100 * one.risks_low[at]:.1f} to {100 * one.risks_high[at]:.1f})"


def _series(name: str, one: Selective) -> StudySeries:
    return {
        "label": name,
        "x": one.coverages,
        "y": one.risks,
        "low": one.risks_low,
        "high": one.risks_high,
    }
