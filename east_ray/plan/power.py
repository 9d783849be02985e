"""`east-ray compare --plan`: with which probability a comparison will show a difference, before anything is trained."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from statistics import mean

from rich.console import Console
from rich.table import Table

from east_ray.config import Config, InputError
from east_ray.evaluation.significance import (
    SIGNIFICANCE_LEVEL,
    expected_precision,
    minimal_detectable_difference,
    power_of,
)
from east_ray.plan.facts import Figure, num_held_out_of, round_0_of
from east_ray.records import ArmComparison

#: True differences in accuracy that a plan tells the power for.
DIFFERENCES = (0.005, 0.01, 0.02, 0.03)
#: What is assumed where nothing is given or measured; `config.plan` documents it.
DISAGREEMENT, SEED_SPREAD, REPEATED = 0.1, 0.005, 0.2


@dataclass(frozen=True)
class PlannedPower:
    """What a comparison of this many seeds, questions and arms will probably show.

    `powers` has for each of DIFFERENCES the probability of showing it in a single comparison, and in the first step of
    Holm's correction over all of them; `detectable` the difference that is shown with 80 %, in the same two ways.
    """

    num_seeds: int
    num_questions: int
    num_comparisons: int
    assumptions: list[Figure]  # disagreement, seed_spread, repeated
    powers: dict[float, tuple[float, float]]
    detectable: tuple[float, float]


def planned_power(config: Config) -> PlannedPower:
    """The power of a configured comparison. Raises InputError without `compare`, or if its questions are not known."""
    if config.compare is None:
        raise InputError("compare: missing; --plan tells what a comparison of grids with seeds will show")
    num_comparisons = sum(baseline is not None for baseline in config.compare.baselines().values())
    num_comparisons += len(config.compare.pairs)
    if num_comparisons == 0:
        raise InputError("compare: no arm has a baseline, so there is no difference to show; name compare.baseline")
    text = round_0_of(config).folder.read_text("comparison.json")
    measured: ArmComparison | None = json.loads(text) if text else None
    held_out = num_held_out_of(config).value or (measured["num_questions"] if measured else None)
    if held_out is None or held_out < 2:
        raise InputError(
            "evaluation.questions: how many they are is not known before they are loaded; say it with plan.num_held_out"
        )
    assumptions = list(_assumptions(config, measured))
    disagreement, seed_spread, repeated = (figure.value or 0.0 for figure in assumptions)
    num_seeds, num_questions = len(config.compare.seeds), round(held_out)
    levels = SIGNIFICANCE_LEVEL, SIGNIFICANCE_LEVEL / num_comparisons

    def precision(difference: float) -> tuple[float, float]:
        disagreeing = max(disagreement, difference)  # arms that differ by 3 points disagree on 3 % of the questions
        return expected_precision(
            num_seeds, num_questions, disagreement=disagreeing, seed_spread=seed_spread, repeated=repeated
        )

    powers = {
        difference: (power_of(difference, *precision(difference), levels[0]),
                     power_of(difference, *precision(difference), levels[1]))
        for difference in DIFFERENCES
    }  # fmt: skip
    single, first_step = (_detectable(precision, level) for level in levels)
    return PlannedPower(num_seeds, num_questions, num_comparisons, assumptions, powers, (single, first_step))


def _detectable(precision: Callable[[float], tuple[float, float]], level: float) -> float:
    """The smallest detectable difference d, at most 1; `precision` is that of arms which differ by d.

    Arms that differ by more disagree on more, so the standard error grows with d, but slower than d: by bisection.
    """

    def at(difference: float) -> float:
        return minimal_detectable_difference(*precision(difference), level=level)

    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) > middle else (low, middle)
    return min(1.0, at(high))


def _assumptions(config: Config, measured: ArmComparison | None) -> Iterator[Figure]:
    """Disagreement, spread over seeds and repeated share: as given, as an earlier comparison measured, or assumed."""
    arms = measured["arms"] if measured else []
    disagreements = [value for arm in arms if (value := arm.get("disagreement")) is not None]
    spreads = [value for arm in arms if (value := arm.get("seed_spread")) is not None]
    repeated = [value for arm in arms if (value := arm.get("repeated")) is not None]
    found = {
        "disagreement": (mean(disagreements) if disagreements else None, DISAGREEMENT),
        "seed_spread": (sqrt(mean(value**2 for value in spreads)) if spreads else None, SEED_SPREAD),
        "repeated": (mean(repeated) if repeated else None, REPEATED),
    }
    for name, (value, assumed) in found.items():
        choices = [
            (getattr(config.plan, name), "given"),
            (value, f"measured in {config.run_dir}"),
            (assumed, "assumed"),
        ]
        yield Figure(*next((one, source) for one, source in choices if one is not None), f"plan.{name}")


def described(plan: PlannedPower) -> Iterator[Table | str]:
    """The table and sentences of `east-ray compare --plan`."""
    seeds = f"{plan.num_seeds} seed{'s' if plan.num_seeds > 1 else ''}"
    yield f"{seeds}, {plan.num_questions:,} held-out questions, comparisons: {plan.num_comparisons}"
    table = Table(header_style="bold")
    table.add_column("true difference, points")
    table.add_column("probability of showing it, %", justify="right")
    table.add_column(f"corrected for {plan.num_comparisons}, %", justify="right")
    for difference, powers in plan.powers.items():
        table.add_row(f"{100 * difference:g}", *(f"{100 * power:.0f}" for power in powers))
    yield table
    single, first_step = (f"{100 * difference:.1f}" for difference in plan.detectable)
    yield (
        f"with 80 % a difference of {single} points is shown in a single comparison, and one of {first_step} points as "
        "the first of all by Holm's correction, which asks less of the others"
    )
    if plan.num_seeds == 1:
        yield "one seed tells nothing of what another would give: this is the power for the two models as they are"
    yield "reckoned with (KEY=VALUE on the command line changes it):"
    meanings = (
        "of the questions only one of two arms answers correctly",
        "standard deviation over seeds of a difference",
        "of that disagreement is the same with every seed",
    )
    for figure, meaning in zip(plan.assumptions, meanings, strict=True):
        yield f"  {figure.setting:<18} {figure.value:>7.3g}  {meaning}, {figure.source}"


def print_power(config: Config, console: Console) -> None:
    """Print what a comparison will probably show. Raises InputError as `planned_power` does."""
    for part in described(planned_power(config)):
        console.print(part, markup=False, soft_wrap=isinstance(part, str))
