"""How often are right answers reached by wrong steps, and at which entropies?"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from east_ray.report.studies.shares import ByEntropy, by_entropy, only_sampled
from east_ray.storage import Folder

_QUESTIONS_AT_ONCE = 1024


def steps_by_entropy(examples: Folder, steps_are_right: Callable[[Mapping[str, Any]], bool | None]) -> ByEntropy:
    """Among the chosen responses, which have the right answer, the share of those that reach it by wrong steps.

    Args:
        examples: rows of records.EXAMPLES; those without samples are left out.
        steps_are_right: of a row's question_id, question, reference_answer and chosen; None if it cannot be told, e.g.
            because the reference answer is known to be wrong: such rows are not counted.
    """
    columns = ["question_id", "question", "reference_answer", "entropy", "chosen"]
    entropies: list[float] = []
    is_wrong: list[bool] = []
    for batch in examples.batches(columns, max_rows=_QUESTIONS_AT_ONCE):
        for row in only_sampled(batch).to_pylist():
            is_right = steps_are_right(row)
            if is_right is not None:
                entropies.append(row["entropy"])
                is_wrong.append(not is_right)
    return by_entropy(np.array(entropies, np.float64), np.array(is_wrong, np.bool_))
