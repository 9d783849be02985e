r"""East-ray: entropy-based adaptive weighting for self-training (EAST, arXiv 2503.23913), as a Ray application.

What a notebook needs is here. None of it needs Ray, torch or vLLM, and each name is imported when it is first used:

>>> import east_ray
>>> responses = [r"Half of it: \boxed{\frac{1}{2}}.", "The answer is 0.5.", "So 3 are left. #### 3"]
>>> answers = [east_ray.extract_answer(response) for response in responses]
>>> answers
['\\frac{1}{2}', '0.5', '3']
>>> east_ray.equivalent(answers[0], answers[1]), east_ray.cluster(answers)
(True, [0, 0, 1])
>>> weighed = east_ray.weigh([{"question": "1 / 2?", "reference_answer": "0.5", "responses": responses}])
>>> weighed.examples.select(["entropy", "weight"]).to_pylist() == [{"entropy": east_ray.entropy([2, 1]), "weight": 1.0}]
True
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from east_ray.answers import cluster, equivalent, extract_answer
    from east_ray.config import InputError
    from east_ray.library.runs import Run, read_run
    from east_ray.library.weighing import Weighed, weigh
    from east_ray.weighting import entropy, weights

__version__ = "0.2.0"
__all__ = ["InputError", "Run", "Weighed", "cluster", "entropy", "equivalent", "extract_answer", "read_run", "weigh"]
__all__ += ["weights"]

_MODULES = {
    "InputError": "config",
    "Run": "library.runs",
    "Weighed": "library.weighing",
    "cluster": "answers",
    "entropy": "weighting",
    "equivalent": "answers",
    "extract_answer": "answers",
    "read_run": "library.runs",
    "weigh": "library.weighing",
    "weights": "weighting",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'east_ray' has no attribute {name!r}")
    return getattr(importlib.import_module(f"east_ray.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
