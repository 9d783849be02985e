"""The sections of a run's report: which tables, figures and sentences stand under which title."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from east_ray.config import Config
from east_ray.config.files import dump
from east_ray.report import plots
from east_ray.report.page import Block, Figure, Fold, Questions, Section, Table, Text, shown
from east_ray.report.plots import Series, Whisker
from east_ray.report.summary import (
    BASE_LABEL,
    Learner,
    RoundSummary,
    arm_difference,
    arm_labels,
    interval,
    labels,
    quantiles,
    shown_questions,
    signed,
    summarize,
    verdicts,
)
from east_ray.storage import RunDirectory

#: Most rows of a table that grows with the number of models, and most curves of a figure that does.
_MAX_ROWS, _MAX_CURVES = 40, 6


def sections(directory: RunDirectory, *, in_full: bool = True) -> list[Section]:
    """The sections of a run, as far as it has got; not `in_full` leaves out its questions and its configuration."""
    config, rounds = directory.config, summarize(directory)
    found = [Section("The run", "What was run", list(_what_was_run(config, rounds)))]
    for summary in rounds:
        parts: dict[str, Iterator[Block]] = {
            "Questions asked and kept": _funnel(summary),
            "Entropy and weights": _weights(summary),
        }
        if in_full:
            parts["Questions to look at"] = _questions(directory, summary)
        parts |= {
            "Training": _training(summary),
            "Accuracy on held-out questions": _accuracy(summary),
            "Comparison": _comparison(summary),
            "Time and tokens": _cost(summary),
        }
        parts |= {shown(study["title"], 100): _study(study) for study in summary.studies}
        found += [Section(f"Round {summary.number}", title, list(blocks)) for title, blocks in parts.items()]
    found.append(Section("Over the rounds", "Accuracy and weights from round to round", list(_over_rounds(rounds))))
    if in_full:
        fold = Fold("config.yaml", [("", dump(config))], max_chars=1 << 18)
        found.append(Section("Configuration", "Every setting", [fold]))
    return [section for section in found if section.blocks]


def _what_was_run(config: Config, rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    if config.description:
        yield Text(config.description)
    source, sampling, training = config.questions or config.samples, config.sampling, config.training
    held_out = config.evaluation.questions
    seconds = sum(record.seconds for summary in rounds for record in summary.records.values())
    responses = (
        f"{sampling.responses_per_question} a question, temperature {sampling.temperature:g}, "
        f"at most {sampling.max_tokens:,} tokens"
    )
    if config.samples is not None or training.examples == "reference_solutions":
        responses = "given" if config.samples is not None else "none: the questions' reference solutions are trained on"
    rows = [
        ["model", config.model or "none: the samples were weighed only"],
        ["questions", str(getattr(source, "path", None) or getattr(source, "hub", None))],
        ["responses", responses],
        ["answers", f"equal by {config.answers.equivalence}"],
        ["weighting", f"{config.weighting.signal}, {config.weighting.mapping}, a = {config.weighting.exponent:g}"],
        [
            "training",
            f"{training.objective.upper()}, epochs: {training.epochs}, {training.examples_per_step} examples a step, "
            f"learning rate {training.learning_rate:g}" + (", adapters" if training.lora else ""),
        ],
        ["trainings in a round", f"{len(config.learners()) if source else 0:,}"],
        ["held-out questions", str(held_out.path or held_out.hub) if held_out else "none"],
        ["rounds", f"{len(rounds)} of {config.rounds}"],
        ["seed", str(config.seed)],
        ["time of the stages", _duration(seconds)],
    ]
    yield Table("", ["setting", "value"], rows)
    for summary in rounds[-1:]:
        yield from (Text(line) for line in verdicts(summary))


def _funnel(summary: RoundSummary) -> Iterator[Block]:
    if not summary.learners:
        return
    first = summary.learners[0]
    counts = (
        {"asked": summary.asked}
        | {f"set aside: {reason}": count for reason, count in summary.set_aside.items()}
        | {"kept as examples": first.kept}
        | {f"discarded: {reason}": count for reason, count in first.discarded.items()}
    )
    rows = [[name, f"{count:,}", _percent(count, summary.asked)] for name, count in counts.items()]
    yield Table("Every question is in one place", ["", "questions", "% of asked"], rows)
    yield Figure("From asked to kept", plots.bars("Questions asked, set aside, kept and discarded", counts))
    if first.num_responses:
        share = _percent(first.num_truncated, first.num_responses)
        yield Text(f"Responses: {first.num_responses:,}, of which {first.num_truncated:,} ({share} %) were truncated.")
    differing = [
        learner for learner in summary.arms if (learner.kept, learner.discarded) != (first.kept, first.discarded)
    ]
    if differing:
        shown_as = arm_labels(summary)
        rows = [
            [shown_as[learner.arm], f"{learner.kept:,}", _listed(learner.discarded)] for learner in [first, *differing]
        ]
        yield Table("Trainings that keep other questions", ["training", "kept", "discarded"], rows)


def _weights(summary: RoundSummary) -> Iterator[Block]:
    if not summary.learners or not summary.learners[0].entropies.size:
        return
    first, shown_as = summary.learners[0], arm_labels(summary)
    arrays = {"entropy (nats)": first.entropies} | {
        f"weight: {shown_as[learner.arm]}": learner.weights for learner in summary.arms if learner.weights.size
    }
    rows = [[name, *(f"{value:.2f}" for value in quantiles(array))] for name, array in arrays.items()]
    yield Table("Over the kept questions", ["", "min", "25 %", "50 %", "75 %", "max"], rows)
    title = "Entropy of the answers to kept questions"
    yield Figure(title, plots.histogram(title, {"entropy": first.entropies}, "entropy (nats)"))
    weighted = {
        shown_as[learner.arm]: learner.weights
        for learner in summary.arms
        if learner.weights.size and np.ptp(learner.weights) > 0
    }
    if weighted:
        title = "Weights" if len(weighted) > 1 else f"Weights: {next(iter(weighted))}"
        yield Figure(title, plots.histogram(title, weighted, "weight"))
    title = "Entropy against pass rate"
    yield Figure(
        f"{title}; a larger dot is more questions",
        plots.density(title, first.pass_rates, first.entropies, "pass rate", "entropy (nats)"),
    )


def _questions(directory: RunDirectory, summary: RoundSummary) -> Iterator[Block]:
    if not summary.learners:
        return
    first, settings = summary.learners[0], directory.config.answers
    # From the second round on, each training of a comparison has samples of its own.
    own = directory.config.compare is not None and summary.number > 0
    samples = first.stages / "samples" if own else directory.round(summary.number) / "samples"
    questions = shown_questions(first, samples, last_number=settings.last_number)
    if questions:
        yield Questions(
            f"{len(questions):,} of {summary.asked:,} questions: of those that were kept the least and the greatest "
            "entropies and a spread between them, and discarded ones. Open a question for its responses.",
            questions,
        )


def _training(summary: RoundSummary) -> Iterator[Block]:
    trained = [learner for learner in summary.learners if learner.steps.get("loss") is not None]
    if not trained:
        return
    unit = "loss (nats/token)" if all(learner.objective == "sft" for learner in trained) else "loss"
    metrics = {
        "loss": ("Loss, weighted", unit),
        "unweighted_loss": ("Loss, without weights", unit),
        "learning_rate": ("Learning rate", "learning rate"),
        "gradient_norm": ("Gradient norm", "norm before clipping"),
        "tokens_per_s": ("Training speed", "tokens/s"),
    }
    if all(
        np.array_equal(learner.steps["loss"], learner.steps.get("unweighted_loss", np.empty(0))) for learner in trained
    ):
        del metrics["unweighted_loss"]  # weights of 1
    for metric, (title, y_label) in metrics.items():
        curves = training_curves(summary, metric)
        if curves:
            caption = (
                title if len(trained) <= _MAX_CURVES else f"{title}: mean of each arm, band from least to greatest"
            )
            yield Figure(caption, plots.curves(title, curves, "step", y_label))


def training_curves(summary: RoundSummary, metric: str) -> list[Series]:
    """A metric of the steps of each training; of more than six, of each arm: the mean over its seeds and their range.

    Trainings of an arm that is still under way are as long as the shortest of them.
    """
    trained = [learner for learner in summary.learners if metric in learner.steps]
    by_arm: dict[str, list[NDArray[np.float64]]] = {}
    for learner in trained:
        by_arm.setdefault(learner.arm if len(trained) > _MAX_CURVES else learner.name, []).append(learner.steps[metric])
    shown_as = arm_labels(summary) if len(trained) > _MAX_CURVES else labels(summary)
    series = []
    for name, arrays in by_arm.items():
        length = min(len(array) for array in arrays)
        stacked = np.stack([array[:length] for array in arrays])
        band = (stacked.min(0).tolist(), stacked.max(0).tolist()) if len(arrays) > 1 else (None, None)
        series.append(Series(shown_as[name], list(range(1, length + 1)), stacked.mean(0).tolist(), *band))
    return series


def _accuracy(summary: RoundSummary) -> Iterator[Block]:
    metrics = summary.metrics
    if metrics is None:
        return
    shown_as, accuracies = labels(summary), metrics["accuracy"]
    against_base = {row["first"]: row for row in metrics["differences"] if row["second"] == "base"}
    by_string = any("accuracy_by_string" in row for row in accuracies.values())
    columns = ["model", "questions", "accuracy %", "95 % interval", "against base", "no answer", "truncated"]
    rows = [
        [
            shown_as[name],
            f"{row['num_questions']:,}",
            f"{100 * row['accuracy']:.1f}",
            interval(row),
            signed(against_base[name]) if name in against_base else "",
            f"{row['num_unanswered']:,}",
            f"{row['num_truncated']:,}",
            *([_share(row.get("accuracy_by_string"))] if by_string else []),
        ]
        for name, row in accuracies.items()
    ]
    yield Table("Greedy decoding", [*columns, *(["equal as text %"] if by_string else [])], rows)
    if summary.comparison is None:
        points = [_whisker(shown_as[name], row, "accuracy") for name, row in accuracies.items()]
        title = "Accuracy with 95 % intervals"
        yield Figure(title, plots.whiskers(title, {"": points}, "accuracy (%)"))
    if summary.comparison is None:
        yield from (Text(line) for line in verdicts(summary))
        yield from _differences(metrics["differences"], shown_as)
    yield from _groups(metrics.get("groups", []), shown_as)
    yield from _sampled(metrics, shown_as)


def _differences(differences: Sequence[Mapping[str, Any]], shown_as: Mapping[str, str]) -> Iterator[Block]:
    if not differences:
        return
    short = {**shown_as, "base": "base"}
    named = [(f"{short[row['first']]} − {short[row['second']]}", row) for row in differences[:_MAX_ROWS]]
    rows = [[name, signed(row), f"{row['p_value']:.2g}"] for name, row in named]
    caption = "Paired differences in points, with 95 % intervals and McNemar's exact test" + _left_out(differences)
    yield Table(caption, ["", "difference", "p"], rows)
    if len(named) <= _MAX_ROWS // 4:
        title = "Paired differences with 95 % intervals"
        points = [_whisker(name, row, "difference") for name, row in named]
        yield Figure(title, plots.whiskers(title, {"": points}, "difference (points)", reference=0))


def _groups(groups: Sequence[Mapping[str, Any]], shown_as: Mapping[str, str]) -> Iterator[Block]:
    for column in dict.fromkeys(row["column"] for row in groups):
        by_model: dict[str, dict[str, Mapping[str, Any]]] = {}
        for row in groups:
            if row["column"] == column:
                by_model.setdefault(shown_as[row["model"]], {})[row["group"]] = row
        names = sorted({name for rows in by_model.values() for name in rows})[:_MAX_ROWS]
        sizes = {name: row["num_questions"] for rows in by_model.values() for name, row in rows.items()}
        cells = [
            [name, f"{sizes[name]:,}", *(_with_interval(rows.get(name), "accuracy") for rows in by_model.values())]
            for name in names
        ]
        yield Table(f"Accuracy % by {column}", [column, "questions", *by_model], cells)
        if len(by_model) <= _MAX_CURVES:
            points = {
                model: [_whisker(name, rows[name], "accuracy") for name in names if name in rows]
                for model, rows in by_model.items()
            }
            title = f"Accuracy by {column} with 95 % intervals"
            yield Figure(title, plots.whiskers(title, points, "accuracy (%)"))


def _sampled(metrics: Mapping[str, Any], shown_as: Mapping[str, str]) -> Iterator[Block]:
    sampled = metrics.get("sampled") or {}
    if not sampled:
        return
    for key, name in (("pass_at", "pass@k"), ("maj_at", "maj@k")):
        by_model = {shown_as[model]: {int(point["k"]): point for point in row[key]} for model, row in sampled.items()}
        ks = sorted({k for points in by_model.values() for k in points})
        rows = [[model, *(_with_interval(points.get(k), "value") for k in ks)] for model, points in by_model.items()]
        yield Table(f"{name} in %, with 95 % intervals", ["model", *(f"k = {k}" for k in ks)], rows)
        drawn = list(by_model.items())[:_MAX_CURVES]
        curves = [_band(model, list(points), list(points.values()), "value") for model, points in drawn]
        title = f"{name} with 95 % bands" + _first_of(drawn, by_model)
        yield Figure(title, plots.curves(title, curves, "k (responses)", f"{name} (%)", x_ticks=ks))
    columns = ["model", "responses", "truncated %", "no answer %"]
    rows = [
        [
            shown_as[model],
            f"{row['num_responses']:,}",
            _share(row["truncated_share"]),
            _share(row["answerless_share"]),
        ]
        for model, row in sampled.items()
    ]
    yield Table("Sampled responses", columns, rows)
    short, differences = {**shown_as, "base": "base"}, metrics.get("sampled_differences", [])
    rows = [
        [f"{short[row['first']]} − {short[row['second']]}", row["metric"], signed(row)]
        for row in differences[:_MAX_ROWS]
    ]
    if rows:
        caption = "Paired differences of sampled metrics in points, with 95 % intervals" + _left_out(differences)
        yield Table(caption, ["", "metric", "difference"], rows)


def _comparison(summary: RoundSummary) -> Iterator[Block]:
    comparison = summary.comparison
    if comparison is None:
        return
    arms, seeds = comparison["arms"], comparison["seeds"]
    base = comparison.get("base")
    yield Text(
        f"{len(arms)} arms, {len(seeds)} seed{'s' if len(seeds) != 1 else ''} each, on {comparison['num_questions']:,} "
        "held-out questions. Differences are to the uniform weights of the same objective, paired by seed and "
        f"question; p is adjusted by Holm over {comparison['num_comparisons']} comparisons. The intervals are over "
        + (
            "questions and seeds."
            if comparison["over_seeds"]
            else "questions alone: one training tells of no other seed."
        )
    )
    yield from (Text(line) for line in verdicts(summary))
    columns = ["arm", "accuracy %", "95 % interval", "difference", "p", "Holm p", "verdict", "examples", "effective",
               "tokens", "seconds"]  # fmt: skip
    rows = [
        [
            arm["label"],
            f"{100 * arm['mean']:.1f}",
            interval(arm),
            arm_difference(arm),
            *("" if arm["baseline"] is None else f"{arm[p]:.2g}" for p in ("p_value", "p_adjusted")),
            arm["verdict"],
            f"{arm['num_examples']:,}",
            f"{arm['effective_examples']:,.0f}",
            "" if arm["num_tokens"] is None else f"{arm['num_tokens']:,}",
            "" if arm["training_seconds"] is None else f"{arm['training_seconds']:,.0f}",
        ]
        for arm in arms
    ]
    if base:
        rows.insert(0, [BASE_LABEL, f"{100 * base['accuracy']:.1f}", interval(base), *[""] * 8])
    yield Table("Arms, with 95 % intervals; differences in points", columns, rows)
    yield Text("Effective: as many examples of equal weight would leave as much noise, (sum w)² / sum w².")
    compared = [arm for arm in arms if arm["baseline"] is not None]
    title = "Difference to uniform weights"
    forest = [
        Whisker(arm["label"], *(100 * arm[key] for key in ("difference", "difference_low", "difference_high")))
        for arm in compared
    ]
    if forest:
        yield Figure(title, plots.whiskers(title, {"": forest}, "difference (points)", reference=0))
    title = "Accuracy of each arm; faint dots are its seeds"
    means = [_whisker(arm["label"], arm, "mean", [100 * share for share in arm["accuracies"]]) for arm in arms]
    line = 100 * base["accuracy"] if base else None
    dashed = "; the dashed line is the model before training" if base else ""
    yield Figure(title + dashed, plots.whiskers(title, {"": means}, "accuracy (%)", reference=line))
    families = _exponent_curves(arms)
    if families:
        title = "Accuracy against exponent"
        yield Figure(title, plots.curves(title, families, "exponent a", "accuracy (%)"))
    sampling = comparison.get("sampling")
    if sampling:
        yield Text(
            f"All arms learn from the same responses: {sampling['num_tokens']:,} tokens, sampled once in "
            f"{_duration(sampling['seconds'])}."
        )


def _exponent_curves(arms: Sequence[Mapping[str, Any]]) -> list[Series]:
    """Accuracy by exponent for each kind of weighting that occurs with at least three exponents."""
    families: dict[str, dict[float, Mapping[str, Any]]] = {}
    for arm in arms:
        if arm["exponent"] is not None and arm["signal"] != "uniform":
            name = str(arm["name"]).replace(f"-a{float(arm['exponent']):g}", "")  # grids may differ in a suffix
            families.setdefault(name, {})[float(arm["exponent"])] = arm
    return [
        _band(name, sorted(by_exponent), [by_exponent[exponent] for exponent in sorted(by_exponent)], "mean")
        for name, by_exponent in families.items()
        if len(by_exponent) >= 3
    ]


def _over_rounds(rounds: Sequence[RoundSummary]) -> Iterator[Block]:
    measured = [summary for summary in rounds if summary.metrics]
    if len(rounds) < 2:
        return
    by_model: dict[str, dict[int, Mapping[str, Any]]] = {}
    for summary in measured:
        assert summary.metrics is not None
        for name, row in summary.metrics["accuracy"].items():
            by_model.setdefault(labels(summary)[name], {})[summary.number] = row
    for summary in rounds:
        for arm in (summary.comparison or {}).get("arms", []):
            by_model.setdefault(arm["label"], {})[summary.number] = arm | {"accuracy": arm["mean"]}
    if by_model:
        numbers = sorted({number for rows in by_model.values() for number in rows})
        cells = [
            [model, *(_with_interval(rows.get(number), "accuracy") for number in numbers)]
            for model, rows in by_model.items()
        ]
        caption = "Accuracy % after each round, with 95 % intervals"
        yield Table(caption, ["model", *(f"round {number}" for number in numbers)], cells)
        drawn = list(by_model.items())[:_MAX_CURVES]
        curves = [_band(model, list(rows), list(rows.values()), "accuracy") for model, rows in drawn]
        title = "Accuracy over the rounds, with 95 % intervals" + _first_of(drawn, by_model)
        yield Figure(title, plots.curves(title, curves, "round", "accuracy (%)"))
    weighed = [summary for summary in rounds if summary.learners and summary.learners[0].weights.size]
    if len(weighed) > 1:
        numbers = [summary.number for summary in weighed]
        of_rounds = np.array([quantiles(summary.learners[0].weights) for summary in weighed]).T
        names = ("min", "25 %", "50 %", "75 %", "max")
        title = "Quantiles of the weights over the rounds"
        curves = [Series(name, numbers, row.tolist()) for name, row in zip(names, of_rounds, strict=True)]
        yield Figure(title, plots.curves(title, curves, "round", "weight"))


def _cost(summary: RoundSummary) -> Iterator[Block]:
    rows = [
        _cost_row(stage, record.seconds, record.counts.get("num_responses"), record.counts.get("num_tokens"))
        for stage, record in summary.records.items()
        if stage != "training"
    ]
    shown_as = arm_labels(summary)
    by_arm: dict[str, list[Learner]] = {}
    for learner in summary.learners:
        if learner.seconds is not None:
            by_arm.setdefault(learner.arm, []).append(learner)
    for arm, learners in by_arm.items():
        name = f"training: {shown_as[arm]}" + (f" ({len(learners)} seeds)" if len(learners) > 1 else "")
        seconds = sum(learner.seconds or 0 for learner in learners)
        rows.append(_cost_row(name, seconds, None, sum(learner.num_tokens for learner in learners)))
    columns = ["stage", "seconds", "responses", "tokens", "tokens/s"]
    yield Table("Seconds of a whole stage, its start included; of a training, those of its steps", columns, rows)


def _cost_row(name: str, seconds: float, num_responses: int | None, num_tokens: int | None) -> list[str]:
    rate = f"{num_tokens / seconds:,.0f}" if num_tokens and seconds > 0 else ""
    return [name, f"{seconds:,.1f}", *(f"{count:,}" if count else "" for count in (num_responses, num_tokens)), rate]


def _study(study: Mapping[str, Any]) -> Iterator[Block]:
    if study.get("text"):
        yield Text(study["text"])
    for table in study.get("tables", []):
        rows = [[_cell(value) for value in row] for row in table["rows"]]
        yield Table(table["caption"], [str(column) for column in table["columns"]], rows)
    for figure in study.get("curves", []):
        series = [Series(**{"low": None, "high": None} | one) for one in figure["series"]]
        svg = plots.curves(figure["title"], series, figure["x_label"], figure["y_label"])
        yield Figure(figure["title"], svg)
    for text in study.get("texts", []):
        yield Fold(text["title"], [(block["label"], block["text"]) for block in text["blocks"]])


def _with_interval(row: Mapping[str, Any] | None, key: str) -> str:
    return "" if row is None else f"{100 * row[key]:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def _whisker(label: str, row: Mapping[str, Any], key: str, dots: Sequence[float] = ()) -> Whisker:
    return Whisker(label, 100 * row[key], 100 * row["low"], 100 * row["high"], dots)


def _band(label: str, x: Sequence[float], rows: Sequence[Mapping[str, Any]], key: str) -> Series:
    """Shares with their intervals as a curve in per cent."""
    y, low, high = ([100 * row[name] for row in rows] for name in (key, "low", "high"))
    return Series(label, x, y, low, high)


def _first_of(drawn: Sized, every: Sized) -> str:
    """What a caption says of a figure that has not every model."""
    return f", of the first {len(drawn)} of {len(every)} models" if len(drawn) < len(every) else ""


def _left_out(rows: Sized) -> str:
    """What a caption says of a table that has not every row."""
    return f"; {len(rows) - _MAX_ROWS:,} more in evaluation/metrics.json" if len(rows) > _MAX_ROWS else ""


def _share(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else ""


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def _cell(value: Any) -> str:
    """A value of a study's table: whole numbers with separators, others to four digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> _duration(42), _duration(61), _duration(7262)
    ('42 s', '1 min 1 s', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
