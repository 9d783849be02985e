"""Sections on accuracy: greedy decoding, sampled responses, the arms of a comparison, and one round after another."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

from east_ray.config import BASE
from east_ray.records import (
    ArmComparison,
    ComparedArm,
    Difference,
    EvaluationMetrics,
    GroupAccuracy,
    ModelDifference,
    SampledDifference,
    SampledMetrics,
)
from east_ray.report.page import Block, Figure, Paragraph, Table
from east_ray.report.plots import MAX_CURVES, Series, Whisker, band, curves, whisker, whiskers
from east_ray.report.summary import BASE_LABEL, QUANTILES, RoundSummary, labels, quantiles
from east_ray.report.wording import difference_of, duration, interval, percent, signed, verdicts, with_interval

#: Most rows of a table that grows with the number of models.
_MAX_ROWS = 40
#: Exponents of a weighting that make a curve.
_MIN_EXPONENTS = 3


def accuracy_blocks(summary: RoundSummary) -> Iterator[Block]:
    """Everything that evaluation/metrics.json has."""
    if summary.metrics is None:
        return
    metrics, shown_as = summary.metrics, labels(summary)
    yield _greedy(metrics, shown_as)
    if summary.comparison is None:
        points = [whisker(shown_as[name], row, "accuracy") for name, row in metrics["accuracy"].items()]
        yield _accuracies("Accuracy with 95 % intervals", {"": points})
        yield from (Paragraph(line) for line in verdicts(summary))
        yield from _differences(metrics["differences"], shown_as)
    yield from _groups(metrics.get("groups", []), shown_as)
    if sampled := metrics.get("sampled"):
        yield from _sampled(sampled, shown_as)
        yield from _sampled_differences(metrics.get("sampled_differences", []), shown_as)


def _greedy(metrics: EvaluationMetrics, shown_as: Mapping[str, str]) -> Table:
    accuracies = metrics["accuracy"]
    by_string = any(row.get("accuracy_by_string") is not None for row in accuracies.values())
    against_base = {row["first"]: row for row in metrics["differences"] if row["second"] == BASE}
    columns = ["model", "questions", "accuracy %", "95 % interval", "against base", "no answer", "truncated"]
    rows = [
        [
            shown_as[name],
            f"{row['num_questions']:,}",
            percent(row["accuracy"]),
            interval(row),
            signed(against_base.get(name)),
            f"{row['num_unanswered']:,}",
            f"{row['num_truncated']:,}",
            *([percent(row.get("accuracy_by_string"))] if by_string else []),
        ]
        for name, row in accuracies.items()
    ]
    return Table("Greedy decoding", [*columns, *(["equal as text %"] if by_string else [])], rows)


def _differences(differences: Sequence[ModelDifference], shown_as: Mapping[str, str]) -> Iterator[Block]:
    if not differences:
        return
    named = [(_pair(row, shown_as), row) for row in differences[:_MAX_ROWS]]
    rows = [[name, signed(row), f"{row['p_value']:.2g}"] for name, row in named]
    caption = "Paired differences in points, with 95 % intervals and McNemar's exact test" + _left_out(differences)
    yield Table(caption, ["", "difference", "p"], rows)
    if len(named) <= _MAX_ROWS // 4:
        yield _forest("Paired differences with 95 % intervals", named)


def _pair(row: ModelDifference | SampledDifference, shown_as: Mapping[str, str]) -> str:
    short = {**shown_as, BASE: BASE}
    return f"{short[row['first']]} − {short[row['second']]}"


def _groups(groups: Sequence[GroupAccuracy], shown_as: Mapping[str, str]) -> Iterator[Block]:
    for column in dict.fromkeys(row["column"] for row in groups):
        by_model: dict[str, dict[str, GroupAccuracy]] = {}
        for row in groups:
            if row["column"] == column:
                by_model.setdefault(shown_as[row["model"]], {})[row["group"]] = row
        names = sorted({name for rows in by_model.values() for name in rows})[:_MAX_ROWS]
        sizes = {name: row["num_questions"] for rows in by_model.values() for name, row in rows.items()}
        cells = [
            [name, f"{sizes[name]:,}", *(with_interval(rows.get(name), "accuracy") for rows in by_model.values())]
            for name in names
        ]
        yield Table(f"Accuracy % by {column}", [column, "questions", *by_model], cells)
        if len(by_model) <= MAX_CURVES:
            points = {
                model: [whisker(name, rows[name], "accuracy") for name in names if name in rows]
                for model, rows in by_model.items()
            }
            yield _accuracies(f"Accuracy by {column} with 95 % intervals", points)


def _sampled(sampled: Mapping[str, SampledMetrics], shown_as: Mapping[str, str]) -> Iterator[Block]:
    pass_at = {shown_as[model]: row["pass_at"] for model, row in sampled.items()}
    maj_at = {shown_as[model]: row["maj_at"] for model, row in sampled.items()}
    for metric, at in {"pass@k": pass_at, "maj@k": maj_at}.items():
        by_model = {name: {one["k"]: {**one, "accuracy": one["value"]} for one in row} for name, row in at.items()}
        yield _table(f"{metric} in %, with 95 % intervals", "k =", by_model)
        yield _curves(f"{metric} with 95 % bands", by_model, "k (responses)", f"{metric} (%)", is_log=True)
    rows = [
        [shown_as[name], f"{row['num_responses']:,}", percent(row["truncated_share"]), percent(row["answerless_share"])]
        for name, row in sampled.items()
    ]
    yield Table("Sampled responses", ["model", "responses", "truncated %", "no answer %"], rows)


def _sampled_differences(differences: Sequence[SampledDifference], shown_as: Mapping[str, str]) -> Iterator[Block]:
    if rows := [[_pair(row, shown_as), row["metric"], signed(row)] for row in differences[:_MAX_ROWS]]:
        caption = "Paired differences of sampled metrics in points, with 95 % intervals" + _left_out(differences)
        yield Table(caption, ["", "metric", "difference"], rows)


def _left_out(rows: Sized) -> str:
    """The end of the caption of a table that does not show every row."""
    return f"; {len(rows) - _MAX_ROWS:,} more in evaluation/metrics.json" if len(rows) > _MAX_ROWS else ""


# ------------------------------------------------------------------------------------------ accuracies of many models

#: Model -> k or number of the round -> a row with an accuracy and its interval.
_ByModel = Mapping[str, Mapping[int, Mapping[str, Any]]]


def _table(caption: str, heading: str, by_model: _ByModel) -> Table:
    numbers = sorted({number for rows in by_model.values() for number in rows})
    cells = [
        [model, *(with_interval(rows.get(number), "accuracy") for number in numbers)]
        for model, rows in by_model.items()
    ]
    return Table(caption, ["model", *(f"{heading} {number}" for number in numbers)], cells)


def _curves(title: str, by_model: _ByModel, x_label: str, y_label: str, *, is_log: bool = False) -> Figure:
    """Curves of the first models; with `is_log`, x is logarithmic."""
    drawn = list(by_model.items())[:MAX_CURVES]
    title += f", of the first {len(drawn)} of {len(by_model)} models" if len(drawn) < len(by_model) else ""
    series = [band(model, list(rows), list(rows.values()), "accuracy") for model, rows in drawn]
    x_ticks = sorted({x for rows in by_model.values() for x in rows}) if is_log else None
    return Figure(title, curves(title, series, x_label, y_label, x_ticks=x_ticks))


def _accuracies(title: str, groups: Mapping[str, Sequence[Whisker]]) -> Figure:
    return Figure(title, whiskers(title, groups, "accuracy (%)"))


def _forest(title: str, differences: Iterable[tuple[str, Difference]]) -> Figure:
    rows = [whisker(name, row, "difference") for name, row in differences]
    return Figure(title, whiskers(title, {"": rows}, "difference (points)", reference=0))


def blocks_over_rounds(rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    """How accuracies and weights move from round to round; nothing for a run of one round."""
    if len(rounds) < 2:
        return
    by_model: dict[str, dict[int, Mapping[str, Any]]] = {}
    for summary in rounds:
        for name, row in (summary.metrics["accuracy"] if summary.metrics else {}).items():
            by_model.setdefault(labels(summary)[name], {})[summary.number] = row
        for arm in summary.comparison["arms"] if summary.comparison else []:
            by_model.setdefault(arm["label"], {})[summary.number] = {**arm, "accuracy": arm["mean"]}
    if by_model:
        yield _table("Accuracy % after each round, with 95 % intervals", "round", by_model)
        yield _curves("Accuracy over the rounds, with 95 % intervals", by_model, "round", "accuracy (%)")
    weighed = [summary for summary in rounds if summary.trainings and summary.trainings[0].weights.size]
    if len(weighed) > 1:
        numbers = [summary.number for summary in weighed]
        of_rounds = zip(*(quantiles(summary.trainings[0].weights) for summary in weighed), strict=True)
        title = "Quantiles of the weights over the rounds"
        series = [Series(name, numbers, row) for name, row in zip(QUANTILES, of_rounds, strict=True)]
        yield Figure(title, curves(title, series, "round", "weight"))


# --------------------------------------------------------------------------------------------------- the arms compared


def comparison_blocks(summary: RoundSummary) -> Iterator[Block]:
    """Everything that comparison.json has."""
    if summary.comparison is None:
        return
    found = summary.comparison
    yield Paragraph(_design(found))
    yield from (Paragraph(line) for line in verdicts(summary))
    yield _arms(found)
    yield Paragraph("Effective: as many examples of equal weight would leave as much noise, (sum w)² / sum w².")
    yield from _figures(found)
    if sampling := found.get("sampling"):
        yield Paragraph(
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


def _arms(found: ArmComparison) -> Table:
    columns = ["arm", "accuracy %", "95 % interval", "difference", "p", "Holm p", "verdict"]
    columns += ["examples", "effective", "tokens", "seconds"]
    rows = [_row(arm) for arm in found["arms"]]
    if base := found.get("base"):
        rows.insert(0, [BASE_LABEL, percent(base["accuracy"]), interval(base), *[""] * (len(columns) - 3)])
    return Table("Arms, with 95 % intervals; differences in points", columns, rows)


def _row(arm: ComparedArm) -> list[str]:
    return [
        arm["label"],
        percent(arm["mean"]),
        interval(arm),
        signed(difference_of(arm)),
        *("" if p is None else f"{p:.2g}" for p in (arm["p_value"], arm["p_adjusted"])),
        arm["verdict"],
        f"{arm['num_examples']:,}",
        f"{arm['effective_examples']:,.0f}",
        f"{arm['num_tokens']:,}",
        f"{arm['training_seconds']:,.0f}",
    ]


def _figures(found: ArmComparison) -> Iterator[Figure]:
    arms, base = found["arms"], found.get("base")
    if differences := [(arm["label"], row) for arm in arms if (row := difference_of(arm))]:
        yield _forest("Difference to the baseline", differences)
    means = [whisker(arm["label"], arm, "mean", [100 * share for share in arm["accuracies"]]) for arm in arms]
    dashed = "; the dashed line is the model before training" if base else ""
    line = 100 * base["accuracy"] if base else None
    title = "Accuracy of each arm; faint dots are its seeds"
    yield Figure(title + dashed, whiskers(title, {"": means}, "accuracy (%)", reference=line))
    if families := _exponent_curves(arms):
        title = "Accuracy against exponent"
        yield Figure(title, curves(title, families, "exponent a", "accuracy (%)"))


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
