"""Responses -> final answers -> clusters of equal answers. This package imports neither Ray nor torch."""

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
