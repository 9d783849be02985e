"""Verbs about what a run has left: its report, its examples, its model."""

from typing import Annotated

import typer

from east_ray.cli.arguments import (
    CONSOLE,
    ConfigFile,
    FilesAndOverrides,
    Overrides,
    RoundNumber,
    app,
    refuse_later_rounds_of_a_comparison,
    runs,
    show,
)
from east_ray.storage import RunDirectory, load_run


@app.command(name="report")
def write_report(
    files_and_overrides: FilesAndOverrides,
    output: Annotated[str, typer.Option(help="Where several runs side by side are written.")] = "side_by_side.html",
) -> None:
    """Write report.html of a run, as far as it has got, and show its tables; of several runs, one page with all."""
    from east_ray.report import files

    directories = [RunDirectory(settings, only_read=True) for settings in runs(files_and_overrides)]
    paths = [files.write_report(directory) for directory in directories]
    if len(directories) > 1:
        CONSOLE.print(f"report: {files.write_side_by_side(directories, output)}", soft_wrap=True)
    else:
        show(directories[0], f"report: {paths[0]}")


@app.command()
def audit(config_file: ConfigFile, overrides: Overrides = None, round_number: RoundNumber = 0) -> None:
    """List the questions whose reference answer the responses contradict: audit/, as JSONL and HTML."""
    from east_ray.report import terminal

    settings = load_run(config_file, overrides or [])
    refuse_later_rounds_of_a_comparison(settings, round_number)
    # What the audit asks of the responses may differ from what the run's labels asked.
    as_run = settings.model_copy(update={"labels": load_run(config_file).labels})
    terminal.write_and_print_audit(RunDirectory(as_run, only_read=True), settings, round_number, CONSOLE)


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
        CONSOLE.print(line, markup=False, soft_wrap=True)


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

    It listens at http://127.0.0.1:8000, or where http.host and http.port say; for other machines it asks for a token.
    Without a cluster to join it serves until it is interrupted, and then finishes what has begun.
    """
    from east_ray.serving import settings as serve_config

    settings = serve_config.from_command_line(model, overrides or [])
    from east_ray.serving import deployment as serving

    serving.start(settings, CONSOLE.print)
