"""One verb for each stage, `run` for all of them, and `compare`."""

import sys
from typing import Annotated

import typer

from east_ray.cli.arguments import (
    CONSOLE,
    ConfigFile,
    FilesAndOverrides,
    Overrides,
    RoundNumber,
    Wait,
    app,
    open_round,
    runs,
    show,
)
from east_ray.config import InputError
from east_ray.console import Progress
from east_ray.storage import RunDirectory, load_run
from east_ray.storage.lease import owning


@app.command()
def run(config_file: ConfigFile, overrides: Overrides = None, wait: Wait = False) -> None:
    """Run everything: sample, weigh, train and evaluate, round after round; or go on where a run was interrupted."""
    from east_ray import pipeline

    settings, progress = load_run(config_file, overrides or []), Progress(CONSOLE)
    with owning(settings.run_dir, "run", progress.say, wait=wait):
        path = pipeline.run(settings, progress)
        show(RunDirectory(settings), f"report: {path}")


@app.command()
def sample(config_file: ConfigFile, overrides: Overrides = None, number: RoundNumber = 0, wait: Wait = False) -> None:
    """Sample responses to a round's questions: questions/, set_aside/ and samples/."""
    from east_ray import pipeline

    with open_round("sample", config_file, overrides, number, wait=wait) as round_:
        pipeline.require_questions(round_.config)
        if round_.config.samples is not None:
            raise InputError("samples: the responses are given, so there is nothing to sample; run `east-ray weigh`")
        pipeline.prepare(round_)


@app.command()
def weigh(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG_FILE_OR_RESPONSES",
            help="The run's YAML file or directory; or a file or folder of responses, e.g. outputs.jsonl.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    number: RoundNumber = 0,
    wait: Wait = False,
) -> None:
    """Cluster the sampled answers and weight the questions: answers/, examples/ and discarded/, of each variant too.

    With `samples` in the configuration, those that another sampler made. Of a file of responses alone, its first rows
    say what is what; the YAML file of the run is then written beside the run directory.
    """
    from east_ray import pipeline
    from east_ray.first_use import responses

    ask = typer.prompt if sys.stdin.isatty() else None
    config_file = responses.config_of(source, overrides or [], Progress(CONSOLE).say, ask)
    with open_round("weigh", config_file, overrides, number, wait=wait) as round_:
        if round_.config.samples is not None:
            pipeline.prepare(round_)
        pipeline.require(round_, "sampling", "sample")
        pipeline.weigh(round_)
        show(round_.directory, f"examples: {round_.directory.address(round_.stages / 'examples')}", say_next=True)


@app.command()
def train(config_file: ConfigFile, overrides: Overrides = None, number: RoundNumber = 0, wait: Wait = False) -> None:
    """Train on a round's examples: model/, of each variant too. Reference solutions need no earlier stage."""
    from east_ray import pipeline

    with open_round("train", config_file, overrides, number, wait=wait) as round_:
        pipeline.require_model(round_.config)
        if round_.config.training.examples == "reference_solutions":
            pipeline.prepare(round_)
            pipeline.weigh(round_)
        pipeline.require(round_, "examples", "weigh")
        pipeline.train(round_)


@app.command()
def evaluate(config_file: ConfigFile, overrides: Overrides = None, number: RoundNumber = 0, wait: Wait = False) -> None:
    """Measure a round's models on the held-out questions: evaluation/."""
    from east_ray import pipeline

    with open_round("evaluate", config_file, overrides, number, wait=wait) as round_:
        if round_.config.compare is not None:
            raise InputError("compare: `east-ray compare` evaluates what it trains")
        if round_.config.evaluation.questions is None:
            raise InputError("evaluation.questions: missing; name the held-out questions to evaluate on")
        pipeline.require_model(round_.config)
        if round_.config.questions is not None or round_.config.samples is not None:
            pipeline.require(round_, "training", "train")
        pipeline.measure(round_)
        show(round_.directory)


@app.command()
def compare(
    files_and_overrides: FilesAndOverrides,
    wait: Wait = False,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Only say which differences it would probably show.")
    ] = False,
) -> None:
    """Train every combination of compare.grids with every seed, from the same samples, and say which differ."""
    if only_plan:
        from east_ray.plan import power

        for settings in runs(files_and_overrides):
            power.print_power(settings, CONSOLE)
        return
    from east_ray import compare as comparing

    for settings in runs(files_and_overrides):
        progress = Progress(CONSOLE)
        with owning(settings.run_dir, "compare", progress.say, wait=wait):
            path = comparing.compare(settings, progress)
            show(RunDirectory(settings), f"report: {path}")
