"""The command line: one verb per stage, and others around them.

A run is a YAML file plus dotted overrides: ``east-ray run jobs/quickstart.yaml weighting.exponent=1.5``.
"""

from typing import Annotated

import typer

from east_ray import __version__, endings
from east_ray.cli.arguments import app

# Their order is that of the help. Importing them joins their verbs to the application.
from east_ray.cli import begin, stages, results  # isort: skip

__all__ = ["app", "begin", "main", "results", "stages"]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point."""
    with endings.in_a_sentence():
        app()
