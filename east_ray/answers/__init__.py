"""From responses to final answers, and from final answers to clusters of equal ones. Imports neither Ray nor torch."""

from east_ray.answers.equality import (
    Equivalence,
    canonical,
    canonical_answer,
    cluster,
    equivalent,
    is_parsable_reference,
)
from east_ray.answers.extraction import MAX_ANSWER_CHARS, Extraction, extract, extract_answer

__all__ = [
    "MAX_ANSWER_CHARS",
    "Equivalence",
    "Extraction",
    "canonical",
    "canonical_answer",
    "cluster",
    "equivalent",
    "extract",
    "extract_answer",
    "is_parsable_reference",
]
