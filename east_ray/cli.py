"""The command line: one verb per stage, plus run, plan, report, explain, config and doctor.

A run is a YAML file plus dotted overrides: ``east-ray run jobs/quickstart.yaml weighting.exponent=1.5``.
"""

import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from east_ray import __version__, endings
from east_ray.config import Config, InputError
from east_ray.config.files import dump_documented
from east_ray.console import Progress
from east_ray.storage import RunDirectory, load_run
from east_ray.storage.lease import owning
from east_ray.storage.rounds import Round

# Ray takes seconds to import, so each verb imports what it uses.


class _Verbs(TyperGroup):
    """Ends an interrupted verb with our sentence and code: Typer itself has none, and one code for both signals."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except endings.Terminated:  # which has been said
            raise SystemExit(128 + signal.SIGTERM) from None
        except KeyboardInterrupt:
            endings.say_error("interrupted; the same command goes on where this one stopped")
            raise SystemExit(128 + signal.SIGINT) from None


app = typer.Typer(
    cls=_Verbs,
    name="east-ray",
    help="Entropy-based adaptive weighting for self-training of language models (EAST), on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[
    str,
    typer.Argument(help="The run's YAML file, e.g. jobs/quickstart.yaml, or its run directory.", show_default=False),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings in place of the file's, e.g. weighting.exponent=1.5."),
]
FilesAndOverrides = Annotated[
    list[str],
    typer.Argument(metavar="CONFIG_FILE... [KEY=VALUE]...", help="YAML files or run directories; settings for all."),
]
RoundNumber = Annotated[int, typer.Option("--round", min=0, help="The round, counted from 0.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for another command that works in the run directory.")]

_CONSOLE = Console(highlight=False)


@app.command()
def run(config_file: ConfigFile, overrides: Overrides = None, wait: Wait = False) -> None:
    """Run everything: sample, weigh, train and evaluate, round after round; or go on where a run was interrupted."""
    from east_ray import pipeline

    settings, progress = load_run(config_file, overrides or []), Progress(_CONSOLE)
    with owning(settings.run_dir, "run", progress.say, wait=wait):
        path = pipeline.run(settings, progress)
        _show(RunDirectory(settings), f"report: {path}")


@app.command()
def sample(config_file: ConfigFile, overrides: Overrides = None, number: RoundNumber = 0, wait: Wait = False) -> None:
    """Sample responses to a round's questions: questions/, set_aside/ and samples/."""
    from east_ray import pipeline

    with _open_round("sample", config_file, overrides, number, wait=wait) as round_:
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
    from east_ray import first_use, pipeline

    ask = typer.prompt if sys.stdin.isatty() else None
    config_file = first_use.config_of(source, overrides or [], Progress(_CONSOLE).say, ask)
    with _open_round("weigh", config_file, overrides, number, wait=wait) as round_:
        if round_.config.samples is not None:
            pipeline.prepare(round_)
        pipeline.require(round_, "sampling", "sample")
        pipeline.weigh(round_)
        _show(round_.directory, f"examples: {round_.directory.address(round_.stages / 'examples')}")


@app.command()
def train(config_file: ConfigFile, overrides: Overrides = None, number: RoundNumber = 0, wait: Wait = False) -> None:
    """Train on a round's examples: model/, of each variant too. Reference solutions need no earlier stage."""
    from east_ray import pipeline

    with _open_round("train", config_file, overrides, number, wait=wait) as round_:
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

    with _open_round("evaluate", config_file, overrides, number, wait=wait) as round_:
        if round_.config.compare is not None:
            raise InputError("compare: `east-ray compare` evaluates what it trains")
        if round_.config.evaluation.questions is None:
            raise InputError("evaluation.questions: missing; name the held-out questions to evaluate on")
        pipeline.require_model(round_.config)
        if round_.config.questions is not None or round_.config.samples is not None:
            pipeline.require(round_, "training", "train")
        pipeline.measure(round_)
        _show(round_.directory)


@app.command()
def compare(files_and_overrides: FilesAndOverrides, wait: Wait = False) -> None:
    """Train every combination of compare.grids with every seed, from the same samples, and say which differ."""
    from east_ray import compare as comparing

    for settings in _runs(files_and_overrides):
        progress = Progress(_CONSOLE)
        with owning(settings.run_dir, "compare", progress.say, wait=wait):
            path = comparing.compare(settings, progress)
            _show(RunDirectory(settings), f"report: {path}")


@app.command()
def plan(
    config_file: ConfigFile,
    overrides: Overrides = None,
    gpu: Annotated[str | None, typer.Option(help="The card, e.g. H100-80GB; by default this machine's.")] = None,
    gpus: Annotated[int | None, typer.Option(help="How many of them.")] = None,
    price_per_gpu_hour: Annotated[float | None, typer.Option(help="In any currency.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: bytes, tokens, seconds.")] = False,
) -> None:
    """Say before anything starts whether it fits, how long it takes and what it costs, and which settings to change."""
    from east_ray.plan import terminal

    options = {"gpu": gpu, "gpus": gpus, "price_per_gpu_hour": price_per_gpu_hour}
    terminal.from_command_line(config_file, overrides or [], options, _CONSOLE, as_json=as_json)


@app.command(name="report")
def write_report(
    files_and_overrides: FilesAndOverrides,
    output: Annotated[str, typer.Option(help="Where several runs side by side are written.")] = "side_by_side.html",
) -> None:
    """Write report.html of a run, as far as it has got, and show its tables; of several runs, one page with all."""
    from east_ray.report import files

    directories = [RunDirectory(settings, only_read=True) for settings in _runs(files_and_overrides)]
    paths = [files.write_report(directory) for directory in directories]
    if len(directories) > 1:
        _CONSOLE.print(f"report: {files.write_side_by_side(directories, output)}", soft_wrap=True)
    else:
        _show(directories[0], f"report: {paths[0]}")


@app.command()
def audit(config_file: ConfigFile, overrides: Overrides = None, round_number: RoundNumber = 0) -> None:
    """List the questions whose reference answer the responses contradict: audit/, as JSONL and HTML."""
    from east_ray.report import terminal

    settings = load_run(config_file, overrides or [])
    _refuse_later_rounds_of_a_comparison(settings, round_number)
    # What the audit asks of the responses may differ from what the run's labels asked.
    as_run = settings.model_copy(update={"labels": load_run(config_file).labels})
    terminal.write_and_print_audit(RunDirectory(as_run, only_read=True), settings, round_number, _CONSOLE)


@app.command()
def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="The run directory, or the run's YAML file.", show_default=False)
    ],
    shape: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="SHAPE",
            help="messages, prompt-completion, preference or unpaired; or model, with --push-to-hub.",
            show_default=False,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[prompt.KEY=VALUE]...", help="How a question is put, where it is to be another way."),
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="PATH", help="A .jsonl or .parquet file; by default in the round's export/.")
    ] = None,
    as_text: Annotated[
        bool | None, typer.Option("--text/--chat", help="Texts or messages; by default as the run's model is asked.")
    ] = None,
    resample: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Draw K examples in proportion to their weights.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of --resample; by default the run's.")] = None,
    bare: Annotated[bool, typer.Option("--bare", help="Only the shape's own columns, without weight.")] = False,
    training: Annotated[str | None, typer.Option(metavar="NAME", help="A variant or training of a comparison.")] = None,
    number: RoundNumber = 0,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="NAME", help="Upload to this repository of the hub; the token is HF_TOKEN.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository on the hub is public.")] = False,
) -> None:
    """Write the weighted examples in a shape that another trainer reads, or upload them, or the model, to the hub."""
    from east_ray.export import command

    wanted = command.Wanted(shape, output, as_text, resample, seed, bare, training, number, push_to_hub, public)
    for line in command.export(run, overrides or [], wanted):
        _CONSOLE.print(line, markup=False, soft_wrap=True)


@app.command()
def serve(
    model: Annotated[
        str, typer.Argument(metavar="RUN_OR_MODEL", help="A run, or a model's folder or hub name.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings, e.g. http.port=8001 replicas.max_replicas=4."),
    ] = None,
) -> None:
    """Serve a model: OpenAI protocol, /v1/solve with answers and their entropy, and a page. In a cluster, and return.

    Without a cluster to join it serves until it is interrupted, and then finishes what has begun.
    """
    from east_ray.serving import settings as serve_config

    settings = serve_config.from_command_line(model, overrides or [])
    from east_ray.serving import deployment as serving

    serving.start(settings, _CONSOLE.print)


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})  # -5 is an answer
def explain(
    answers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ANSWER]... [answers.KEY=VALUE]...", help="Answers, and settings such as answers.last_number=true."
        ),
    ] = None,
    response: Annotated[str | None, typer.Option(metavar="FILE", help="A response in a file; - is the input.")] = None,
    reference: Annotated[str | None, typer.Option(metavar="ANSWER", help="The reference answer, to compare.")] = None,
    run: Annotated[
        str | None, typer.Option(metavar="CONFIG_FILE", help="Read as this run does: a YAML file or run directory.")
    ] = None,
) -> None:
    """Say how an answer or a response is read, and why answers are equal or not. This is what to paste in a report."""
    from east_ray.answers import story

    for line in story.from_command_line(answers or [], response=response, reference=reference, run=run):
        _CONSOLE.print(line, markup=False, soft_wrap=True)


@app.command(name="config")
def show_config(config_file: ConfigFile, overrides: Overrides = None) -> None:
    """Print the resolved configuration as YAML, every setting with its documentation."""
    sys.stdout.write(dump_documented(load_run(config_file, overrides or [])))


@app.command()
def doctor(
    address: Annotated[str | None, typer.Option(help="Also look at the Ray cluster at this address.")] = None,
) -> None:
    """Check versions, devices and cluster; exits 1 if something needs mending."""
    from east_ray.doctor import examine

    problems = 0
    for finding in examine(address):
        mark = "[green]ok[/]" if finding.ok else "[red]mend[/]"
        _CONSOLE.print(f"{mark:<4} ", finding.subject, "  ", finding.detail, sep="", soft_wrap=True)
        problems += not finding.ok
    raise typer.Exit(1 if problems else 0)


def _show(directory: RunDirectory, last_line: str = "") -> None:
    """Show the tables of a run, and then a line."""
    from east_ray.report.summary import summarize
    from east_ray.report.terminal import print_summary

    print_summary(summarize(directory), _CONSOLE)
    if last_line:
        _CONSOLE.print(f"\n{last_line}", soft_wrap=True)


def _runs(files_and_overrides: Sequence[str]) -> Iterator[Config]:
    """The configurations that a command line names, each with all of its overrides; all are checked before the first.

    Each is read again when its turn comes, because a user's modules are looked for beside the file that was read last.
    """
    # An address may have a "=" too: s3://bucket/run?endpoint_override=…
    overrides = [argument for argument in files_and_overrides if re.match(r"[A-Za-z_][\w.-]*=", argument)]
    files = [argument for argument in files_and_overrides if argument not in overrides]
    if not files:
        raise InputError("name at least one YAML file of a run, e.g. jobs/quickstart.yaml, or a run directory")
    for file in files:
        load_run(file, overrides)
    yield from (load_run(file, overrides) for file in files)


def _refuse_later_rounds_of_a_comparison(settings: Config, round_number: int) -> None:
    if settings.compare is not None and round_number > 0:
        raise InputError(f"--round {round_number}: from round 1 on each training of a comparison has its own samples")


@contextmanager
def _open_round(
    verb: str, config_file: str, overrides: list[str] | None, round_number: int, *, wait: bool
) -> Iterator[Round]:
    """The round that a verb works on, with a Ray cluster, while no other command works there; `pipeline.open_round`."""
    from east_ray import pipeline

    settings, progress = load_run(config_file, overrides or []), Progress(_CONSOLE)
    if round_number >= settings.rounds:
        raise InputError(f"--round {round_number}: the run has rounds 0 to {settings.rounds - 1}")
    _refuse_later_rounds_of_a_comparison(settings, round_number)
    with owning(settings.run_dir, verb, progress.say, wait=wait):
        directory = RunDirectory(settings)
        pipeline.check_inputs(settings, directory)
        yield pipeline.open_round(settings, directory, round_number, progress, only_weigh=verb == "weigh")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point."""
    with endings.in_a_sentence():
        app()


if __name__ == "__main__":
    main()
