"""Numbers as people read them, and verdicts: sentences on trained models that say no more than the numbers do."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from east_ray import records
from east_ray.config import BASE
from east_ray.evaluation.collapse import named
from east_ray.evaluation.estimators import effective_examples
from east_ray.evaluation.significance import SIGNIFICANCE_LEVEL, detectable_by_one_pair
from east_ray.report.summary import RoundSummary, labels

#: Weights that leave a smaller share of the examples effective are warned of.
MIN_EFFECTIVE_SHARE = 0.3


def percent(share: float | None) -> str:
    """A share in percent, e.g. ``81.1``; empty for None."""
    return "" if share is None else f"{100 * share:.1f}"


def number_words(value: float | None, form: str) -> str:
    """A number in this format; empty for None."""
    return "" if value is None else format(value, form)


def percent_of(part: float, whole: float) -> str:
    """What percentage a part is; empty if there is no whole."""
    return percent(part / whole) if whole else ""


def interval(row: records.Interval) -> str:
    """The bounds of a share in percent, e.g. ``81.1 to 84.4``."""
    return f"{percent(row['low'])} to {percent(row['high'])}"


def with_interval(row: Mapping[str, Any] | None, key: str) -> str:
    """A share and its bounds in percent, e.g. ``82.8 (81.1 to 84.4)``; empty without a row."""
    return "" if row is None else f"{percent(row[key])} ({percent(row['low'])} to {percent(row['high'])})"


def points(difference: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * difference:+z.1f}"


def signed(row: records.Difference | None) -> str:
    """A difference of shares in points with its interval, e.g. ``+13.1 (+11.6, +14.6)``; empty for None."""
    return "" if row is None else f"{points(row['difference'])} ({points(row['low'])}, {points(row['high'])})"


def difference_of(arm: records.ComparedArm) -> records.Difference | None:
    """The difference of an arm to its baseline; None without a baseline."""
    difference, low, high = arm["difference"], arm["difference_low"], arm["difference_high"]
    if difference is None or low is None or high is None:
        return None
    return {"difference": difference, "low": low, "high": high}


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(42), duration(61), duration(7262)
    ('42 s', '1 min 1 s', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def waste(weights: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """The warning on weights, (N,) of each name, that waste the data, and what to change; empty if none does."""
    shares = {name: effective_examples(one) / one.size for name, one in weights.items()}
    if not (wasteful := {name: share for name, share in shares.items() if share < MIN_EFFECTIVE_SHARE}):
        return []
    said = ", ".join(f"{name} ({percent(share)} %)" for name, share in wasteful.items())
    return [
        f"warning: these weights leave less than {100 * MIN_EFFECTIVE_SHARE:.0f} % of the examples effective: {said}; "
        "an exponent nearer to 0 (weighting.exponent), or weighting.mapping: clip or rank, wastes less of the data "
        "(where most signals are 0, rank alone)"
    ]


def power_lines(found: records.ArmComparison) -> Iterator[str]:
    """What a comparison's seeds and questions can show, in a sentence; nothing of a run that did not say it."""
    powers = [power for arm in found["arms"] if (power := arm.get("power_of_one_point")) is not None]
    detectable = [difference for arm in found["arms"] if (difference := arm.get("detectable")) is not None]
    if powers and detectable:
        seeds = f"{len(found['seeds'])} seed{'s' if len(found['seeds']) != 1 else ''}"
        yield (
            f"Power of {seeds} and {found['num_questions']:,} questions: a difference of 1 point is shown with a "
            f"probability of {_from_to(powers, '.0f')} %, one of {_from_to(detectable, '.1f')} points with 80 % (of a "
            "single comparison, not corrected for the others)."
        )


def _from_to(shares: list[float], form: str) -> str:
    least, most = (format(100 * share, form) for share in (min(shares), max(shares)))
    return least if least == most else f"{least} to {most}"


def verdicts(summary: RoundSummary) -> list[str]:
    """Sentences that say no more than the numbers do.

    Of a comparison, every arm against its baseline, in the arms' order; else every training against the run's own.
    """
    if (found := summary.comparison) is not None:
        arms = {arm["name"]: arm for arm in found["arms"]}
        one_seed = "" if found["over_seeds"] else " (what another seed would change is not in the interval)"
        compared = [(arm, arms[arm["baseline"]]) for arm in arms.values() if arm["baseline"] is not None]
        return [f"{_of_arms(arm, baseline)}{one_seed}." for arm, baseline in compared]
    shown_as = labels(summary)
    # The run's own weighting comes first, its variants after it: say it from the run's point of view.
    return [_of_models(shown_as[row["second"]], shown_as[row["first"]], row) for row in trained_pairs(summary)]


def collapse_lines(summary: RoundSummary) -> list[str]:
    """What is collapsing: the run, or arms of a comparison; mostly nothing."""
    if (found := summary.comparison) is not None:
        return [f"{arm['label']}: {arm['collapse']}." for arm in found["arms"] if "collapse" in arm]
    return [_of_collapse(summary.collapse)] if summary.collapse else []


def trained_pairs(summary: RoundSummary) -> list[records.ModelDifference]:
    """The measured differences of two models of which none is the model before training, as the metrics have them."""
    return [
        row
        for row in (summary.metrics["differences"] if summary.metrics else [])
        if BASE not in (row["first"], row["second"])
    ]


def _of_collapse(found: records.Collapse) -> str:
    """The alarm of a run that learns from majority answers."""
    if found["best"] is None:
        return f"Is this run collapsing? {found['said'][:1].upper()}{found['said'][1:]}."
    return f"The run is collapsing: {found['said']}; the best model is {named(found['best'] + 1)}."


def reach_lines(summary: RoundSummary) -> list[str]:
    """Why two models of a run are not told apart, in a sentence from its own numbers; none if all are, or none is.

    A comparison over seeds has `power_lines` in its place.
    """
    metrics = summary.metrics
    if metrics is None or summary.comparison is not None:
        return []
    open_pairs = [row for row in trained_pairs(summary) if not _is_decided(row)]
    num_questions = {metrics["accuracy"][row["first"]]["num_questions"] for row in open_pairs}
    if len(num_questions) != 1 or (num := num_questions.pop()) < 2:
        return []
    apart = [row["num_only_first"] + row["num_only_second"] for row in open_pairs]
    detectable = _from_to([detectable_by_one_pair(num, one) for one in apart], ".1f")
    if len(open_pairs) == 1:
        (row,), shown_as = open_pairs, labels(summary)
        said = f"{shown_as[row['second']]} and {shown_as[row['first']]} differ on {apart[0]:,} of {num:,} questions"
        if apart[0]:
            said += f": the first alone is right on {row['num_only_second']:,}, the second on {row['num_only_first']:,}"
    else:
        least, most = f"{min(apart):,}", f"{max(apart):,}"
        count = least if least == most else f"{least} to {most}"
        said = f"the models of each of these pairs differ on {count} of {num:,} questions"
    return [
        f"Why no difference is shown: {said}; so many questions, with one training of each, show in 80 % of cases a "
        f"difference of about {detectable} points and seldom a smaller one. `east-ray compare` compares over seeds."
    ]


def _is_decided(row: records.ModelDifference) -> bool:
    """Whether a winner is named: the interval is approximate where few answers differ, so the exact test must agree."""
    return (row["low"] > 0 or row["high"] < 0) and row["p_value"] < SIGNIFICANCE_LEVEL


def reversed_difference(row: records.Difference) -> records.Difference:
    """The second minus the first, of the first minus the second."""
    return {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]}


def _of_models(first: str, second: str, reverse: records.ModelDifference) -> str:
    """One sentence on the first model minus the second; `reverse` is the second minus the first."""
    found = reversed_difference(reverse)
    better = first if found["difference"] > 0 else second
    return (
        f"{first} minus {second}: {points(found['difference'])} points, paired 95 % interval {points(found['low'])} to "
        f"{points(found['high'])}, exact p = {reverse['p_value']:.2g}: "
        + (f"{better} answers more of these questions" if _is_decided(reverse) else "no difference is shown")
        + " (one training of each: what another seed would change is not in the interval)."
    )


def _of_arms(arm: records.ComparedArm, baseline: records.ComparedArm) -> str:
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
