"""The sections of a round: its questions, the accuracies of its models, the arms compared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any

from east_ray import records
from east_ray.config import BASE
from east_ray.report import plots
from east_ray.report.page import Block, Questions, Table
from east_ray.report.plots import MAX_CURVES, Figure, band, whisker
from east_ray.report.questions import question_dots, shown_questions
from east_ray.report.summary import BASE_LABEL, QUANTILES, RoundSummary, arm_labels, labels, quantiles
from east_ray.report.wording import (
    difference_of,
    duration,
    interval,
    number_words,
    percent,
    percent_of,
    power_lines,
    signed,
    verdicts,
    with_interval,
)
from east_ray.storage import RunDirectory
from east_ray.storage.rounds import listed

#: Most rows of a table that grows with the number of models.
_MAX_ROWS = 40
#: Most questions in a report, over all rounds, characters of their texts, and characters of a response. They keep the
#: page under two megabytes, however many questions a run has.
_MAX_QUESTIONS, _MAX_CHARS, _MAX_RESPONSE_CHARS = 150, 700_000, 1500
#: Exponents of a weighting that make a curve.
_MIN_EXPONENTS = 3


# ---------------------------------------------------------------------------------------------------------- questions


def funnel_blocks(summary: RoundSummary) -> Iterator[Block]:
    """What became of the questions that were asked or given."""
    if not summary.trainings:
        return
    first = summary.trainings[0]
    yield outcomes_table(summary)
    bars = plots.bars("Questions set aside, kept and discarded", summary.outcomes)
    yield replace(bars, caption=f"From {'usable' if summary.is_given else 'asked'} to kept")
    if first.num_responses:
        share = percent_of(first.num_truncated, first.num_responses)
        yield f"Responses: {first.num_responses:,}, of which {first.num_truncated:,} ({share} %) were truncated."
    if differing := [one for one in summary.arms if (one.kept, one.discarded) != (first.kept, first.discarded)]:
        shown_as = arm_labels(summary)
        rows = [[shown_as[one.arm], f"{one.kept:,}", listed(one.discarded)] for one in [first, *differing]]
        yield Table("Trainings that keep other questions", ["training", "kept", "discarded"], rows)


def outcomes_table(summary: RoundSummary) -> Table:
    """How many questions had which outcome. Given ones that are set aside are no part of the usable ones."""
    rows = [[name, f"{count:,}", percent_of(count, summary.asked)] for name, count in summary.outcomes.items()]
    if not summary.is_given:
        return Table("Every question by its outcome", ["", "questions", "% of asked"], rows)
    rows = [[name, count, "" if name.startswith("set aside: ") else share] for name, count, share in rows]
    return Table("Every question by its outcome", ["", "questions", "% of usable"], rows)


def question_blocks(directory: RunDirectory, summary: RoundSummary) -> Iterator[Block]:
    """A table of some questions with examples of their responses."""
    if not summary.trainings:
        return
    first, config = summary.trainings[0], directory.config
    # From the second round on, each training of a comparison has samples of its own.
    has_own = config.compare is not None and summary.number > 0
    stages = first.stages if has_own else directory.round(summary.number)
    how = config.learners()[first.name].answers
    is_mathematical = how.grader == how.equivalence == "math"
    folders = stages / "samples", stages / "answers"
    num = max(_MAX_QUESTIONS // config.rounds, 30)
    found = shown_questions(
        first, *folders, num_responses=how.responses, is_mathematical=is_mathematical, max_questions=num
    )
    if found:
        name, num_texts = f"q{summary.number}", sum(1 + len(question["responses"]) for question in found)
        caption = (
            f"{len(found):,} of {summary.asked:,} questions: kept ones with the least and the greatest entropies and a "
            "spread between them, and discarded ones. Open a question, here or by its dot, to read its responses."
        )
        max_chars = min(_MAX_RESPONSE_CHARS, max(_MAX_CHARS // config.rounds // num_texts, 200))
        yield Questions(name, caption, found, question_dots(name, found), max_chars)


# --------------------------------------------------------------------------------------------- accuracies of the models


def accuracy_blocks(summary: RoundSummary, *, is_told: bool = False) -> Iterator[Block]:
    """Everything that evaluation/metrics.json has, but for figures and verdicts that the result told (`is_told`)."""
    if summary.metrics is None:
        return
    metrics, shown_as = summary.metrics, labels(summary)
    yield greedy_table(metrics, shown_as)
    if summary.comparison is None:
        if not is_told:
            yield accuracy_figure(metrics, shown_as)
            yield from verdicts(summary)
        yield from _differences(metrics["differences"], shown_as)
    yield from _groups(metrics.get("groups", []), shown_as)
    if sampled := metrics.get("sampled"):
        yield from _sampled(sampled, shown_as)
        yield from _sampled_differences(metrics.get("sampled_differences", []), shown_as)


def accuracy_figure(metrics: records.EvaluationMetrics, shown_as: Mapping[str, str]) -> Figure:
    """Every model's accuracy at temperature 0 with its interval; `shown_as` has the label of each."""
    points = [whisker(shown_as[name], row, "accuracy") for name, row in metrics["accuracy"].items()]
    return plots.whiskers("Accuracy with 95 % intervals", {"": points}, "accuracy (%)")


def greedy_table(metrics: records.EvaluationMetrics, shown_as: Mapping[str, str]) -> Table:
    """Every model's accuracy at temperature 0; `shown_as` has the label of each."""
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


def _differences(differences: Sequence[records.ModelDifference], shown_as: Mapping[str, str]) -> Iterator[Block]:
    if not differences:
        return
    rows = [[_pair(row, shown_as), signed(row), f"{row['p_value']:.2g}"] for row in differences[:_MAX_ROWS]]
    caption = "Paired differences in points, with 95 % intervals and McNemar's exact test" + _left_out(differences)
    yield Table(caption, ["", "difference", "p"], rows)


def _pair(row: records.ModelDifference | records.SampledDifference, shown_as: Mapping[str, str]) -> str:
    short = {**shown_as, BASE: BASE}
    return f"{short[row['first']]} − {short[row['second']]}"


def _groups(groups: Sequence[records.GroupAccuracy], shown_as: Mapping[str, str]) -> Iterator[Block]:
    for column in dict.fromkeys(row["column"] for row in groups):
        by_model: dict[str, dict[str, records.GroupAccuracy]] = {}
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
            yield plots.whiskers(f"Accuracy by {column} with 95 % intervals", points, "accuracy (%)")


def _sampled(sampled: Mapping[str, records.SampledMetrics], shown_as: Mapping[str, str]) -> Iterator[Block]:
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


def _sampled_differences(
    differences: Sequence[records.SampledDifference], shown_as: Mapping[str, str]
) -> Iterator[Block]:
    if rows := [[_pair(row, shown_as), row["metric"], signed(row)] for row in differences[:_MAX_ROWS]]:
        caption = "Paired differences of sampled metrics in points, with 95 % intervals" + _left_out(differences)
        yield Table(caption, ["", "metric", "difference"], rows)


def _left_out(rows: Sized) -> str:
    """The end of the caption of a table that does not show every row."""
    return f"; {len(rows) - _MAX_ROWS:,} more in evaluation/metrics.json" if len(rows) > _MAX_ROWS else ""


# -------------------------------------------------------------------------------------------- accuracies of many models

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
    return plots.curves(title, series, x_label, y_label, x_ticks=x_ticks)


def forest(title: str, differences: Iterable[tuple[str, records.Difference]]) -> Figure:
    """Differences, by name, with their intervals, beside a line at 0."""
    rows = [whisker(name, row, "difference") for name, row in differences]
    return plots.whiskers(title, {"": rows}, "difference (points)", reference=0)


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
        series: list[records.StudySeries] = [
            {"label": name, "x": numbers, "y": row} for name, row in zip(QUANTILES, of_rounds, strict=True)
        ]
        yield plots.curves("Quantiles of the weights over the rounds", series, "round", "weight")


# ---------------------------------------------------------------------------------------------------- the arms compared


def comparison_blocks(summary: RoundSummary, *, is_told: bool = False) -> Iterator[Block]:
    """Everything that comparison.json has, but for figures and verdicts that the result told (`is_told`)."""
    if summary.comparison is None:
        return
    found = summary.comparison
    yield _design(found)
    if not is_told:
        yield from verdicts(summary)
        yield from power_lines(found)
    yield arms_table(found)
    if pairs := found.get("pairs"):
        yield pairs_table(pairs, arm_labels(summary))
    if not is_told:
        yield from differences_figure(found)
    yield from _figures(found)
    if sampling := found.get("sampling"):
        num_tokens, seconds = f"{sampling['num_tokens']:,}", duration(sampling["seconds"])
        yield f"All arms learn from the same responses: {num_tokens} tokens, sampled once in {seconds}."


def _design(found: records.ArmComparison) -> str:
    arms, seeds = found["arms"], found["seeds"]
    over = "questions and seeds" if found["over_seeds"] else "questions alone: one training tells of no other seed"
    return (
        f"{len(arms)} arms, {len(seeds)} seed{'s' if len(seeds) != 1 else ''} each, on {found['num_questions']:,} "
        "held-out questions. Each difference is to the arm's baseline, paired by seed and question; p is adjusted by "
        f"Holm over {found['num_comparisons']} comparisons. The intervals are over {over}."
    )


def arms_table(found: records.ArmComparison) -> Table:
    """The model before training and every arm, with what its trainings cost."""
    columns = ["arm", "accuracy %", "95 % interval", "difference", "p", "Holm p", "verdict"]
    columns += ["80 % power for", "power at 1 point, %", "examples", "effective %", "on top 1 %", "tokens", "seconds"]
    rows = [_row(arm) for arm in found["arms"]]
    if base := found.get("base"):
        rows.insert(0, [BASE_LABEL, percent(base["accuracy"]), interval(base), *[""] * (len(columns) - 3)])
    return Table("Arms, with 95 % intervals; differences in points", columns, rows)


def pairs_table(pairs: Sequence[records.ComparedPair], shown_as: Mapping[str, str]) -> Table:
    """The further differences that were tested."""
    columns = ["arm", "compared with", "difference", "p", "Holm p", "verdict"]
    rows = [
        [shown_as[one["name"]], shown_as[one["baseline"]], signed(one), *_p_values(one), one["verdict"]]
        for one in pairs
    ]
    return Table("Further differences in points, with 95 % intervals", columns, rows)


def _p_values(row: records.ComparedArm | records.ComparedPair) -> list[str]:
    return [number_words(row["p_value"], ".2g"), number_words(row["p_adjusted"], ".2g")]


def _row(arm: records.ComparedArm) -> list[str]:
    return [
        arm["label"],
        percent(arm["mean"]),
        interval(arm),
        signed(difference_of(arm)),
        *_p_values(arm),
        arm["verdict"] + (", collapsing" if "collapse" in arm else ""),
        percent(arm.get("detectable")),
        percent(arm.get("power_of_one_point")),
        f"{arm['num_examples']:,}",
        percent_of(arm["effective_examples"], arm["num_examples"]),
        percent(arm.get("top_share")),
        f"{arm['num_tokens']:,}",
        f"{arm['training_seconds']:,.0f}",
    ]


def differences_figure(found: records.ArmComparison) -> Iterator[Figure]:
    """Each arm's difference to its baseline, if an arm has one."""
    if differences := [(arm["label"], row) for arm in found["arms"] if (row := difference_of(arm))]:
        yield forest("Difference to the baseline with 95 % intervals", differences)


def _figures(found: records.ArmComparison) -> Iterator[Figure]:
    arms, base = found["arms"], found.get("base")
    means = [whisker(arm["label"], arm, "mean", [100 * share for share in arm["accuracies"]]) for arm in arms]
    dashed = "; the dashed line is the model before training" if base else ""
    line = 100 * base["accuracy"] if base else None
    title = "Accuracy of each arm; faint dots are its seeds"
    yield replace(plots.whiskers(title, {"": means}, "accuracy (%)", reference=line), caption=title + dashed)
    if families := _exponent_curves(arms):
        yield plots.curves("Accuracy against exponent", families, "exponent a", "accuracy (%)")


def _exponent_curves(arms: Sequence[records.ComparedArm]) -> list[records.StudySeries]:
    """Accuracy by exponent for each kind of weighting that occurs with enough exponents."""
    families: dict[str, dict[float, records.ComparedArm]] = {}
    for arm in arms:
        if arm["signal"] != "uniform":
            name = arm["name"].replace(f"-a{arm['exponent']:g}", "")  # grids may differ in a suffix
            families.setdefault(name, {})[arm["exponent"]] = arm
    return [
        band(name, sorted(by_exponent), [by_exponent[exponent] for exponent in sorted(by_exponent)], "mean")
        for name, by_exponent in families.items()
        if len(by_exponent) >= _MIN_EXPONENTS
    ]
