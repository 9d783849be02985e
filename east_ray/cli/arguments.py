"""What the verbs share: the application that they join, their arguments, and how they open a run or show it."""

import re
import shlex
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from east_ray import endings
from east_ray.config import Config, InputError
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

CONSOLE = Console(highlight=False, emoji=False)  # main:train:1 has no train in it


def show(directory: RunDirectory, last_line: str = "", *, say_next: bool = False) -> None:
    """Show the tables of a run, then a line, and with `say_next` what to do with weights if nothing is measured yet."""
    from east_ray.report.result import next_step
    from east_ray.report.summary import summarize
    from east_ray.report.terminal import print_summary

    rounds = summarize(directory)
    print_summary(rounds, CONSOLE)
    if last_line:
        CONSOLE.print(f"\n{last_line}", soft_wrap=True)
    if say_next and rounds[-1].metrics is None and rounds[-1].comparison is None:
        run = shlex.quote(directory.config.run_dir)
        said = f"{next_step(directory.config, rounds[-1])} `east-ray report {run}` shows the questions, and "
        said += f"`east-ray audit {run}` the reference answers that look wrong."
        CONSOLE.print(said, markup=False, soft_wrap=True)


def told_apart(files_and_overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files and the settings (``key=value``) of a command line that has both."""
    # An address may have a "=" too: s3://bucket/run?endpoint_override=…
    overrides = [argument for argument in files_and_overrides if re.match(r"[A-Za-z_][\w.-]*=", argument)]
    return [argument for argument in files_and_overrides if argument not in overrides], overrides


def runs(files_and_overrides: Sequence[str]) -> Iterator[Config]:
    """The configurations that a command line names, each with all of its overrides; all are checked before the first.

    Each is read again when its turn comes, because a user's modules are looked for beside the file that was read last.
    """
    files, overrides = told_apart(files_and_overrides)
    if not files:
        raise InputError("name at least one YAML file of a run, e.g. jobs/quickstart.yaml, or a run directory")
    for file in files:
        load_run(file, overrides)
    yield from (load_run(file, overrides) for file in files)


def refuse_later_rounds_of_a_comparison(settings: Config, round_number: int) -> None:
    """Raises InputError for a round that each training of a comparison has for itself."""
    if settings.compare is not None and round_number > 0:
        raise InputError(f"--round {round_number}: from round 1 on each training of a comparison has its own samples")


@contextmanager
def open_round(
    verb: str, config_file: str, overrides: list[str] | None, round_number: int, *, wait: bool
) -> Iterator[Round]:
    """The round that a verb works on, with a Ray cluster, while no other command works there; `pipeline.open_round`."""
    from east_ray import pipeline

    settings, progress = load_run(config_file, overrides or []), Progress(CONSOLE)
    if round_number >= settings.rounds:
        raise InputError(f"--round {round_number}: the run has rounds 0 to {settings.rounds - 1}")
    refuse_later_rounds_of_a_comparison(settings, round_number)
    with owning(settings.run_dir, verb, progress.say, wait=wait):
        directory = RunDirectory(settings)
        pipeline.check_inputs(settings, directory)
        yield pipeline.open_round(settings, directory, round_number, progress, only_weigh=verb == "weigh")
