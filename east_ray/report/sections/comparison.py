"""The arms of a comparison, with their differences to their baselines."""

from collections.abc import Iterator, Sequence

from east_ray.records import ArmComparison, ComparedArm
from east_ray.report import plots
from east_ray.report.page import Block, Figure, Table, Text
from east_ray.report.plots import Series
from east_ray.report.sections.rows import band, whisker
from east_ray.report.summary import BASE_LABEL, RoundSummary
from east_ray.report.verdicts import verdicts
from east_ray.report.wording import difference_of, duration, interval, percent, signed

#: Exponents of a weighting that make a curve.
_MIN_EXPONENTS = 3


def comparison(summary: RoundSummary) -> Iterator[Block]:
    """Everything that comparison.json has."""
    if summary.comparison is None:
        return
    found = summary.comparison
    yield Text(_design(found))
    yield from (Text(line) for line in verdicts(summary))
    yield _table(found)
    yield Text("Effective: as many examples of equal weight would leave as much noise, (sum w)² / sum w².")
    yield from _figures(found)
    if sampling := found.get("sampling"):
        yield Text(
            f"All arms learn from the same responses: {sampling['num_tokens']:,} tokens, sampled once in "
            f"{duration(sampling['seconds'])}."
        )


def _design(found: ArmComparison) -> str:
    arms, seeds = found["arms"], found["seeds"]
    over = "questions and seeds" if found["over_seeds"] else "questions alone: one training tells of no other seed"
    return (
        f"{len(arms)} arms, {len(seeds)} seed{'s' if len(seeds) != 1 else ''} each, on {found['num_questions']:,} "
        "held-out questions. Each difference is to the arm's baseline, paired by seed and question; p is adjusted by "
        f"Holm over {found['num_comparisons']} comparisons. The intervals are over {over}."
    )


def _table(found: ArmComparison) -> Table:
    columns = ["arm", "accuracy %", "95 % interval", "difference", "p", "Holm p", "verdict"]
    of_cost = ["examples", "effective", "tokens", "seconds"]
    rows = [_row(arm) for arm in found["arms"]]
    if base := found.get("base"):
        empty = [""] * (len(columns) + len(of_cost) - 3)
        rows.insert(0, [BASE_LABEL, percent(base["accuracy"]), interval(base), *empty])
    return Table("Arms, with 95 % intervals; differences in points", [*columns, *of_cost], rows)


def _row(arm: ComparedArm) -> list[str]:
    difference = difference_of(arm)
    return [
        arm["label"],
        percent(arm["mean"]),
        interval(arm),
        signed(difference) if difference else "",
        *("" if p is None else f"{p:.2g}" for p in (arm["p_value"], arm["p_adjusted"])),
        arm["verdict"],
        f"{arm['num_examples']:,}",
        f"{arm['effective_examples']:,.0f}",
        f"{arm['num_tokens']:,}",
        f"{arm['training_seconds']:,.0f}",
    ]


def _figures(found: ArmComparison) -> Iterator[Figure]:
    arms, base = found["arms"], found.get("base")
    differences = [(arm["label"], difference) for arm in arms if (difference := difference_of(arm))]
    if differences:
        title = "Difference to the baseline"
        forest = [whisker(label, difference, "difference") for label, difference in differences]
        yield Figure(title, plots.whiskers(title, {"": forest}, "difference (points)", reference=0))
    title = "Accuracy of each arm; faint dots are its seeds"
    means = [whisker(arm["label"], arm, "mean", [100 * share for share in arm["accuracies"]]) for arm in arms]
    dashed = "; the dashed line is the model before training" if base else ""
    line = 100 * base["accuracy"] if base else None
    yield Figure(title + dashed, plots.whiskers(title, {"": means}, "accuracy (%)", reference=line))
    if families := _exponent_curves(arms):
        title = "Accuracy against exponent"
        yield Figure(title, plots.curves(title, families, "exponent a", "accuracy (%)"))


def _exponent_curves(arms: Sequence[ComparedArm]) -> list[Series]:
    """Accuracy by exponent for each kind of weighting that occurs with enough exponents."""
    families: dict[str, dict[float, ComparedArm]] = {}
    for arm in arms:
        if arm["signal"] != "uniform":
            name = arm["name"].replace(f"-a{arm['exponent']:g}", "")  # grids may differ in a suffix
            families.setdefault(name, {})[arm["exponent"]] = arm
    return [
        band(name, sorted(by_exponent), [by_exponent[exponent] for exponent in sorted(by_exponent)], "mean")
        for name, by_exponent in families.items()
        if len(by_exponent) >= _MIN_EXPONENTS
    ]
