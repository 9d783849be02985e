"""Held-out responses to one question -> rows of ``evaluation/answers/`` and ``evaluation/sampled_answers/``.

They are read and clustered as training's responses are, by answers.grading.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from east_ray.answers.grading import Grader, clustered
from east_ray.records import Question


def judge_response(sample: Mapping[str, Any], grader: Grader, by_string: Grader) -> dict[str, Any]:
    """A row of samples with one response -> a row of records.GREEDY_ANSWERS.

    Args:
        sample: of records.SAMPLES.
        grader: the run's own.
        by_string: the grader for which only equal texts are equal.
    """
    (response,) = sample["responses"]
    question = Question.of(sample)
    graded, as_text = (clustered([response["text"]], question, one) for one in (grader, by_string))
    return {name: sample[name] for name in ("model", "question_id", "level", "subject", "reference_answer")} | {
        "response": response["text"],
        "finish_reason": response["finish_reason"],
        "answer": graded.answers[0],
        "is_correct": graded.clusters[0].is_correct,
        "is_correct_by_string": as_text.clusters[0].is_correct,
    }


def judge_responses(sample: Mapping[str, Any], grader: Grader) -> dict[str, Any]:
    """A row of samples with several responses -> a row of records.SAMPLED_ANSWERS."""
    responses = sample["responses"]
    graded = clustered([response["text"] for response in responses], Question.of(sample), grader)
    return {name: sample[name] for name in ("model", "question_id", "level", "subject")} | {
        "num_responses": len(responses),
        "num_correct": sum(cluster.num_responses for cluster in graded.clusters if cluster.is_correct),
        "num_answerless": graded.answers.count(None),
        "num_truncated": sum(response["finish_reason"] == "length" for response in responses),
        "clusters": [asdict(cluster) for cluster in graded.clusters],
    }
