"""``east-ray export``: from what the command line says to a file, a repository on the hub, and lines that say so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from east_ray.config import Config, InputError
from east_ray.config.base import hint
from east_ray.export import hub
from east_ray.export.files import counted, source_of, write
from east_ray.export.shapes import Shape
from east_ray.storage import RunDirectory, load_run

#: In place of a shape: the trained model, which is uploaded.
MODEL = "model"


@dataclass(frozen=True)
class Wanted:
    """The options of the command; `shape` is one of Shape, or MODEL."""

    shape: str
    output: str | None = None
    as_text: bool | None = None
    resample: int | None = None
    seed: int | None = None
    bare: bool = False
    training: str | None = None
    number: int = 0
    push_to_hub: str | None = None
    public: bool = False

    def check(self) -> None:
        """Raises InputError for a shape that there is not, and for options that have no meaning with the others."""
        shapes = [*Shape, MODEL]
        if self.shape not in shapes:
            raise InputError(f"--as {self.shape}: expected {', '.join(shapes)}{hint(self.shape, shapes)}")
        if self.shape == MODEL:
            if self.push_to_hub is None:
                raise InputError("--as model: needs --push-to-hub NAME; the model is a folder of the run already")
            given = {
                "--output": self.output is not None,
                "--text": self.as_text is not None,
                "--resample": self.resample is not None,
                "--bare": self.bare,
            }
            for option in [name for name, is_given in given.items() if is_given][:1]:
                raise InputError(f"{option}: belongs to examples, not to --as model")
        if self.seed is not None and self.resample is None:
            raise InputError("--seed: only --resample draws anything")
        if self.public and self.push_to_hub is None:
            raise InputError("--public: only with --push-to-hub")


def export(run: str, overrides: Sequence[str], wanted: Wanted) -> Iterator[str]:
    """Export what is wanted of a run, and say what was done and what should be known of it. Raises InputError."""
    wanted.check()
    if wanted.push_to_hub is not None:
        hub.require_token()  # before anything is written
        hub.check_name(wanted.push_to_hub)
    directory = RunDirectory(_loaded(run), only_read=True)
    if wanted.shape == MODEL:
        assert wanted.push_to_hub is not None
        model = source_of(directory, wanted.number, wanted.training, "training").stages / "model"
        address = hub.push_model(wanted.push_to_hub, directory.address(model), private=not wanted.public)
        yield f"model: {address}"
        return
    source = source_of(directory, wanted.number, wanted.training)
    form = source.form(Shape(wanted.shape), overrides, as_text=wanted.as_text, bare=wanted.bare)
    path = wanted.output
    if path is None:
        path = directory.address(source.stages / "export" / f"{wanted.shape}.jsonl")
    seed = directory.config.seed if wanted.seed is None else wanted.seed
    written = write(source, form, path, resample=wanted.resample, seed=seed)
    yield f"{counted(written.num_rows, 'row')}: {written.path}"
    yield from (f"note: {note}" for note in written.notes)
    if wanted.push_to_hub is not None:
        yield f"data set: {hub.push_data(wanted.push_to_hub, source, form, written, private=not wanted.public)}"


def _loaded(run: str) -> Config:
    """The settings of a run. Raises InputError."""
    try:
        return load_run(run)
    except InputError:
        if PurePath(run).suffix in ("", ".yaml", ".yml"):
            raise
        raise InputError(f"{run}: expected a run directory, or the YAML file of a run") from None
