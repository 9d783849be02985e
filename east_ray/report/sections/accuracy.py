"""How a round's models answer the held-out questions: greedy decoding, groups of questions, sampled responses."""

from collections.abc import Iterator, Mapping, Sequence

from east_ray.config import BASE
from east_ray.records import (
    EvaluationMetrics,
    GroupAccuracy,
    ModelDifference,
    SampledDifference,
    SampledMetrics,
    ValueAtK,
)
from east_ray.report import plots
from east_ray.report.page import Block, Figure, Table, Text
from east_ray.report.sections.rows import MAX_CURVES, MAX_ROWS, band, first_of, left_out, whisker
from east_ray.report.summary import RoundSummary, labels
from east_ray.report.verdicts import verdicts
from east_ray.report.wording import interval, percent, signed, with_interval


def accuracy(summary: RoundSummary) -> Iterator[Block]:
    """Everything that evaluation/metrics.json has."""
    if summary.metrics is None:
        return
    metrics, shown_as = summary.metrics, labels(summary)
    yield _greedy(metrics, shown_as)
    if summary.comparison is None:
        points = [whisker(shown_as[name], row, "accuracy") for name, row in metrics["accuracy"].items()]
        title = "Accuracy with 95 % intervals"
        yield Figure(title, plots.whiskers(title, {"": points}, "accuracy (%)"))
        yield from (Text(line) for line in verdicts(summary))
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
            signed(against_base[name]) if name in against_base else "",
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
    named = [(_pair(row, shown_as), row) for row in differences[:MAX_ROWS]]
    rows = [[name, signed(row), f"{row['p_value']:.2g}"] for name, row in named]
    caption = "Paired differences in points, with 95 % intervals and McNemar's exact test" + left_out(differences)
    yield Table(caption, ["", "difference", "p"], rows)
    if len(named) <= MAX_ROWS // 4:
        title = "Paired differences with 95 % intervals"
        points = [whisker(name, row, "difference") for name, row in named]
        yield Figure(title, plots.whiskers(title, {"": points}, "difference (points)", reference=0))


def _pair(row: ModelDifference | SampledDifference, shown_as: Mapping[str, str]) -> str:
    short = {**shown_as, BASE: BASE}
    return f"{short[row['first']]} − {short[row['second']]}"


def _groups(groups: Sequence[GroupAccuracy], shown_as: Mapping[str, str]) -> Iterator[Block]:
    for column in dict.fromkeys(row["column"] for row in groups):
        by_model: dict[str, dict[str, GroupAccuracy]] = {}
        for row in groups:
            if row["column"] == column:
                by_model.setdefault(shown_as[row["model"]], {})[row["group"]] = row
        names = sorted({name for rows in by_model.values() for name in rows})[:MAX_ROWS]
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
            title = f"Accuracy by {column} with 95 % intervals"
            yield Figure(title, plots.whiskers(title, points, "accuracy (%)"))


def _sampled(sampled: Mapping[str, SampledMetrics], shown_as: Mapping[str, str]) -> Iterator[Block]:
    yield from _at_k("pass@k", {shown_as[model]: row["pass_at"] for model, row in sampled.items()})
    yield from _at_k("maj@k", {shown_as[model]: row["maj_at"] for model, row in sampled.items()})
    rows = [
        [
            shown_as[model],
            f"{row['num_responses']:,}",
            percent(row["truncated_share"]),
            percent(row["answerless_share"]),
        ]
        for model, row in sampled.items()
    ]
    yield Table("Sampled responses", ["model", "responses", "truncated %", "no answer %"], rows)


def _at_k(name: str, values: Mapping[str, Sequence[ValueAtK]]) -> Iterator[Block]:
    by_model = {model: {point["k"]: point for point in points} for model, points in values.items()}
    ks = sorted({k for points in by_model.values() for k in points})
    rows = [[model, *(with_interval(points.get(k), "value") for k in ks)] for model, points in by_model.items()]
    yield Table(f"{name} in %, with 95 % intervals", ["model", *(f"k = {k}" for k in ks)], rows)
    drawn = list(by_model.items())[:MAX_CURVES]
    curves = [band(model, list(points), list(points.values()), "value") for model, points in drawn]
    title = f"{name} with 95 % bands" + first_of(drawn, by_model)
    yield Figure(title, plots.curves(title, curves, "k (responses)", f"{name} (%)", x_ticks=ks))


def _sampled_differences(differences: Sequence[SampledDifference], shown_as: Mapping[str, str]) -> Iterator[Block]:
    rows = [[_pair(row, shown_as), row["metric"], signed(row)] for row in differences[:MAX_ROWS]]
    if rows:
        caption = "Paired differences of sampled metrics in points, with 95 % intervals" + left_out(differences)
        yield Table(caption, ["", "metric", "difference"], rows)
