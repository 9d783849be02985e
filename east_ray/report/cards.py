"""The cards of trained models: ``model/README.md`` with method, data, configuration and measured accuracy."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from east_ray.config import BASE
from east_ray.config.files import dump
from east_ray.records import EvaluationMetrics
from east_ray.report.summary import describe, interval, percent
from east_ray.storage.rounds import Learner, Round

#: The file of a card, where the Hugging Face hub looks for it.
_CARD = "README.md"


def write_cards(round_: Round) -> None:
    """Write the card of every trained model of the round that has none, or one without the latest metrics."""
    text = (round_.stages / "evaluation").read_text("metrics.json")
    metrics: EvaluationMetrics | None = json.loads(text) if text else None
    for learner in round_.learners():
        model = learner.stages / "model"
        if learner.stages.record("training") is None or not model.exists:
            continue
        measured = _measured(learner, metrics)
        card = model.read_text(_CARD)
        if card is None or measured not in card:
            model.write_text(_CARD, _card(learner, measured))


def _measured(learner: Learner, metrics: EvaluationMetrics | None) -> str:
    """A Markdown table of the model's accuracy and that of the model before training; or that there is none yet."""
    shown = {BASE: "before training", learner.name: "this model"}
    accuracies = {} if metrics is None else {name: metrics["accuracy"].get(name) for name in shown}
    rows = [
        f"| {shown[name]} | {row['num_questions']} | {percent(row['accuracy'])} % | {interval(row)} % |"
        for name, row in accuracies.items()
        if row is not None
    ]
    if not rows:
        return "Not measured yet."
    return "\n".join(["| model | questions | accuracy, greedy | 95 % interval |", "|---|---|---|---|", *rows])


def _card(learner: Learner, measured: str) -> str:
    import jinja2

    loader = jinja2.PackageLoader("east_ray.report", ".")
    environment = jinja2.Environment(  # noqa: S701 - Markdown
        loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    config, record = learner.settings, learner.stages.record("examples")
    num_responses = config.sampling.responses_per_question
    return str(
        environment.get_template("model_card.md.jinja").render(
            config=config,
            config_yaml=dump(config),
            label=f"{describe(config)}, from {Path(config.model).name}",
            version=metadata.version("east-ray"),
            number=learner.round.number,
            initial_model=learner.round.initial_model,
            num_responses=f"{num_responses} times" if config.samples is None else "several times",
            source=_address(config.questions or config.samples),
            kept=record.counts["kept"] if record else 0,
            discarded=record.counts["discarded"] if record else {},
            measured=measured,
            held_out=_address(config.evaluation.questions),
        )
    )


def _address(source: Any) -> str | None:
    """The file or hub data set of a section that names questions."""
    return source and (source.path or getattr(source, "hub", None))
