"""Trained models against one another, in sentences that say no more than the numbers do."""

from east_ray.config import BASE
from east_ray.evaluation.significance import SIGNIFICANCE_LEVEL
from east_ray.records import ArmComparison, ComparedArm, ModelDifference
from east_ray.report.summary import RoundSummary, labels
from east_ray.report.wording import difference_of, points


def verdicts(summary: RoundSummary) -> list[str]:
    """Of a comparison, every arm against its baseline; else every training against the run's own."""
    if summary.comparison is not None:
        return _of_arms(summary.comparison)
    if summary.metrics is None:
        return []
    shown_as = labels(summary)
    differences = summary.metrics["differences"]
    # The run's own weighting comes first, its variants after it: say it from the run's point of view.
    return [
        _of_models(shown_as[row["second"]], shown_as[row["first"]], row)
        for row in differences
        if BASE not in (row["first"], row["second"])
    ]


def _of_models(first: str, second: str, reverse: ModelDifference) -> str:
    """One sentence on the first model minus the second; `reverse` is the second minus the first."""
    difference, low, high = -reverse["difference"], -reverse["high"], -reverse["low"]
    # The interval is approximate where few answers differ, so a verdict needs the exact test as well.
    is_decided = (low > 0 or high < 0) and reverse["p_value"] < SIGNIFICANCE_LEVEL
    better = first if difference > 0 else second
    return (
        f"{first} minus {second}: {points(difference)} points, paired 95 % interval {points(low)} to {points(high)}, "
        f"exact p = {reverse['p_value']:.2g}: "
        + (f"{better} answers more of these questions" if is_decided else "no difference is shown")
        + " (one training of each: what another seed would change is not in the interval)."
    )


def _of_arms(comparison: ArmComparison) -> list[str]:
    arms = {arm["name"]: arm for arm in comparison["arms"]}
    one_seed = "" if comparison["over_seeds"] else " (what another seed would change is not in the interval)"
    return [f"{_of_arm(arm, arms[arm['baseline']])}{one_seed}." for arm in arms.values() if arm["baseline"] is not None]


def _of_arm(arm: ComparedArm, baseline: ComparedArm) -> str:
    found, detectable = difference_of(arm), arm.get("detectable")
    assert found is not None
    said = "no difference is shown"
    if arm["verdict"] in ("better", "worse"):
        said = f"{arm['label']} is {arm['verdict']}"
    elif detectable is not None:
        said += f" (80 % power for a difference of {100 * detectable:.1f} points)"
    return (
        f"{arm['label']} minus {baseline['label']}: {points(found['difference'])} points, 95 % interval "
        f"{points(found['low'])} to {points(found['high'])}, Holm-adjusted p = {arm['p_adjusted']:.2g}: {said}"
    )
