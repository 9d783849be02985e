"""Verbs that begin something, or answer a question without doing anything."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from east_ray.cli.arguments import CONSOLE, ConfigFile, Overrides, Wait, app, told_apart
from east_ray.cli.stages import run as run_all
from east_ray.config import InputError
from east_ray.config.files import dump_documented
from east_ray.console import Progress
from east_ray.storage import load_run


@app.command()
def quickstart(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, e.g. run_dir=runs/other.")
    ] = None,
    wait: Wait = False,
) -> None:
    """Self-train a tiny model that is shipped, on two CPU cores in a few minutes; in runs/quickstart."""
    from east_ray.first_use.quickstart import run_of

    run_all(*run_of(overrides or []), wait=wait)


@app.command()
def init(
    file_and_overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE] [KEY=VALUE]...", help="The YAML file to write (run.yaml); settings to write into it."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model: a folder or a hub name.")] = None,
    questions: Annotated[
        str | None, typer.Option(help="The questions: a file, a folder, or hub:NAME[:CONFIGURATION[:SPLIT]].")
    ] = None,
    held_out: Annotated[str | None, typer.Option(help="Held-out questions, to measure with.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs; 0: the CPU.")] = None,
    objective: Annotated[str | None, typer.Option(help="sft, dpo or kto.")] = None,
) -> None:
    """Write a run's YAML file, with comments, from a few answers; on a terminal it asks for what no option gives."""
    from east_ray.first_use import init as first_file

    def ask(question: str) -> str:
        return str(typer.prompt(question, default="", show_default=False, prompt_suffix="\n> "))

    files, overrides = told_apart(file_and_overrides or [])
    if len(files) > 1:
        raise InputError(f"{files[1]}: expected one file to write, and settings as KEY=VALUE")
    given = first_file.Answers(model, questions, held_out, gpus, objective)
    path = Path(files[0] if files else "run.yaml")
    first_file.write(path, given, Progress(CONSOLE).say, ask if sys.stdin.isatty() else None, overrides)


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
    terminal.from_command_line(config_file, overrides or [], options, CONSOLE, as_json=as_json)


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})  # -5 is an answer
def explain(
    ctx: typer.Context,
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

    if answers == ["-h"] and reference is None and response is None:  # -h is no option: it would take -h/2 as well
        print(ctx.get_help())
        return
    for line in story.from_command_line(answers or [], response=response, reference=reference, run=run):
        CONSOLE.print(line, markup=False, soft_wrap=True)


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
        CONSOLE.print(f"{mark:<4} ", finding.subject, "  ", finding.detail, sep="", soft_wrap=True)
        problems += not finding.ok
    raise typer.Exit(1 if problems else 0)
