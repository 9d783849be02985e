"""Settings of a comparison: grids of trainings, their names, and what each is compared with."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from east_ray.config.base import Section, flatten, hint
from east_ray.config.examples import MappingName, SignalName
from east_ray.config.training import ObjectiveName


class GridConfig(Section):
    """Trainings of a comparison: every combination of these lists. Each has a name such as sft-entropy-a1.5."""

    objectives: Annotated[list[ObjectiveName], Field(min_length=1)] = ["sft"]
    """Training objectives."""
    signals: Annotated[list[SignalName], Field(min_length=1)] = ["uniform", "entropy"]
    """Signals, which the weight grows with."""
    exponents: Annotated[list[Annotated[float, Field(ge=-100, le=100)]], Field(min_length=1)] = [1.0]
    """Exponents of every signal but uniform."""
    mappings: Annotated[list[MappingName], Field(min_length=1)] = ["power"]
    """Mappings of every signal but uniform."""
    overrides: dict[str, Any] = {}
    """Settings of selection, weighting and training, and answers.responses, for all of them, e.g.
    {training.learning_rate: 2.0e-7}."""
    suffix: Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]+)?$")] = ""
    """Added to the names, e.g. -lr1, to tell apart grids that differ only in their overrides."""

    def arms(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, overrides) of each combination."""
        for objective in self.objectives:
            for signal in self.signals:
                shapes = [(m, a) for m in self.mappings for a in self.exponents] if signal != "uniform" else [(None, 0)]
                for mapping, exponent in shapes:
                    overrides: dict[str, Any] = {"training.objective": objective, "weighting.signal": signal}
                    name = f"{objective}-{signal}"
                    if mapping is not None:
                        overrides |= {"weighting.mapping": mapping, "weighting.exponent": float(exponent)}
                        name += f"-a{exponent:g}" + (f"-{mapping}" if mapping != "power" else "")
                    yield name.replace(":", ".") + self.suffix, overrides | self.overrides


class CompareConfig(Section):
    """Trainings from one set of samples, each with several seeds, evaluated on the same questions."""

    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0, 1, 2, 3, 4]
    """Every training is repeated with each seed, which decides the responses trained on and their order."""
    grids: Annotated[list[GridConfig], Field(min_length=1)] = [GridConfig()]
    """What is compared."""
    baseline: str | None = None
    """Name of the training that every other is compared with, e.g. sft-uniform. By default each is compared with the
    one with uniform weights, the same objective and the same overrides."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Trainings at the same time; by default as many as the CPUs and GPUs of the cluster allow at the start."""
    models_at_once: Annotated[int, Field(ge=1)] = 8
    """Models, and tokenized examples of each, that are kept at a time: evaluated together, then removed."""
    keep_models: bool = False
    """Keep the models after their evaluation."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        decided_by_lists = ("training.objective", "weighting")
        keys = [key for grid in self.grids for key, _ in flatten(grid.overrides)]
        if mine := [key for key in keys if key.startswith(decided_by_lists)]:
            raise ValueError(f"grids: {mine[0]} is decided by the lists of the grid, not by its overrides")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: each may be given once")
        names = Counter(name for grid in self.grids for name, _ in grid.arms())
        if names.most_common(1)[0][1] > 1:
            raise ValueError(f"grids: two trainings are called {names.most_common(1)[0][0]}; give one grid a suffix")
        if self.baseline is not None and self.baseline not in names:
            near = hint(self.baseline, list(names))
            raise ValueError(f"baseline: no training is called {self.baseline}{near or '; known: ' + ', '.join(names)}")
        return self

    def arms(self) -> dict[str, dict[str, Any]]:
        """Name -> overrides of everything that is compared."""
        return dict(arm for grid in self.grids for arm in grid.arms())

    def baselines(self) -> dict[str, str | None]:
        """Name of each arm -> name of the arm that it is compared with; None for a baseline, or if there is none."""
        if self.baseline is not None:
            return {name: self.baseline if name != self.baseline else None for name in self.arms()}
        alike = {
            name: (overrides["training.objective"], json.dumps(grid.overrides, sort_keys=True))
            for grid in self.grids
            for name, overrides in grid.arms()
        }
        uniform = {
            alike[name]: name
            for name, overrides in reversed(self.arms().items())
            if overrides["weighting.signal"] == "uniform"
        }
        return {name: found if (found := uniform.get(alike[name])) != name else None for name in alike}

    def trainings(self) -> dict[str, dict[str, Any]]:
        """Name -> overrides of each arm with each seed."""
        return {
            f"{name}-seed-{seed}": overrides | {"seed": seed}
            for name, overrides in self.arms().items()
            for seed in self.seeds
        }
