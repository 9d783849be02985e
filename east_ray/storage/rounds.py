"""The run directory and its rounds: the folders of each stage, which stages are done, the configuration of the run.

A stage is done when its record is in ``stages/``. The record is written last, so a stage that was killed is not done.
"""

import functools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from east_ray import doors
from east_ray.config import TRAINED, Config, InputError
from east_ray.config import files as config_file
from east_ray.config.base import changes, differences, mark_of, may_change
from east_ray.console import Progress
from east_ray.storage.few_shot import with_examples_read
from east_ray.storage.folders import Folder, locate, resolve_path


@dataclass
class StageRecord:
    """What a stage has counted and how long it took; written at its end."""

    seconds: float = 0.0
    starting_s: float = 0.0
    """Seconds of them in which engines or workers were started and none was at work yet."""
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stages:
    """The folders of a round, or of one training of it, with the records of the stages that are done."""

    folder: Folder

    def __truediv__(self, name: str) -> Folder:
        return self.folder / name

    def learner(self, name: str) -> "Stages":
        """The folders of one training of the round. A variant shares only the samples."""
        return self if name == TRAINED else Stages(self.folder / "variants" / name)

    def record(self, stage: str) -> StageRecord | None:
        """The record of a stage; None if the stage is not done."""
        text = self.folder.read_text(f"stages/{stage}.json")
        return None if text is None else StageRecord(**json.loads(text))

    def forget(self, stage: str) -> None:
        """Remove the record of a stage, so that it is done again."""
        self.folder.remove([f"{self.folder}/stages/{stage}.json"])

    @contextmanager
    def recording(self, stage: str) -> Iterator[StageRecord]:
        """The record of a stage, for its counts; written with the time that the block took if it ends without error."""
        record, begin = StageRecord(), time.monotonic()
        yield record
        record.seconds, record.starting_s = round(time.monotonic() - begin, 3), round(record.starting_s, 3)
        (self.folder / "stages").write_text(f"{stage}.json", json.dumps(vars(record), indent=1) + "\n")


class RunDirectory:
    """The folder of a run. Opening it writes ``config.yaml``, or checks that the stored one is of the same run."""

    def __init__(self, config: Config, *, only_read: bool = False) -> None:
        """Raises InputError if the directory holds a run of another configuration; `only_read` leaves it as it is."""
        filesystem, path = locate(config.run_dir, is_output=True)
        self.folder = Folder(filesystem, path.rstrip("/"))
        self.uri = config.run_dir if "://" in config.run_dir else path
        if self.folder.is_local:
            doors.leave_out(Path(path))
        self._sources = {} if only_read else doors.sources(config)
        try:
            has_begun = any((self.round(0) / name).exists for name in ("stages", "samples"))
            stored = self.folder.read_text("config.yaml") if has_begun else None  # until then every setting may change
            before = None if stored is None else self._parsed(stored)
            config = config.settled(before)
            if before is None:
                self.store(config)
        except OSError as error:
            raise InputError(f"run_dir: cannot write to {path} ({error})") from error
        if before is not None:
            changed = self._changed_since(before, config)
            if not only_read and (changed or not self._is_done("examples")):
                for stage in {stage for key in changed for stage in mark_of(Config, key).remakes}:
                    self.round(0).forget(stage)
                self.store(config)

    def store(self, config: Config) -> None:
        """Make this the stored configuration of the run, with the hashes of the user's modules that it names."""
        if self._sources:
            self.folder.write_text("doors.json", json.dumps(self._stored_sources() | self._sources, indent=1) + "\n")
        self.folder.write_text("config.yaml", config_file.dump(config))
        self.__dict__.pop("config", None)

    def _stored_sources(self) -> dict[str, str]:
        """Dotted key -> hash of the user's module there, of every module that the run has named."""
        return dict(json.loads(self.folder.read_text("doors.json") or "{}"))

    def _is_done(self, stage: str) -> bool:
        """Whether a stage of round 0 is done, for any of its trainings."""
        learners = [TRAINED, *(self.round(0) / "variants").names()]
        return any(self.round(0).learner(name).record(stage) is not None for name in learners)

    def _parsed(self, stored: str) -> Config:
        try:
            return config_file.parse(stored, f"{self.uri}/config.yaml")
        except InputError as error:
            raise InputError(f"run_dir: {self.uri} holds a run that this version cannot read: {error}") from error

    def _changed_since(self, before: Config, config: Config) -> list[str]:
        """The settings that have changed, as they may. Raises InputError if one may not change any more."""
        is_done = functools.cache(self._is_done)
        if differing := differences(before, config, is_done):
            raise InputError(
                f"run_dir: {self.uri} holds a run of another configuration ({'; '.join(differing)}); "
                "choose another run_dir, e.g. run_dir=runs/other, or remove that one"
            )
        edited = [key for key, then in self._stored_sources().items() if self._sources.get(key, then) != then]
        if fixed := [key for key in edited if not may_change(mark_of(Config, key), key, is_done)]:
            raise InputError(
                f"run_dir: {self.uri} holds a run with another source of the module in {fixed[0]}; undo the change of "
                "the module, or choose another run_dir"
            )
        return [*changes(before, config), *edited]

    def round(self, number: int) -> Stages:
        """The folders of a round, counted from 0."""
        return Stages(self.folder / f"round_{number}")

    def address(self, folder: Folder) -> str:
        """A folder of this run as a path or address that any machine can open."""
        root, question, options = self.uri.partition("?")  # s3://bucket/run?endpoint_override=…
        return root.rstrip("/") + folder.path.removeprefix(self.folder.path) + question + options

    @functools.cached_property
    def config(self) -> Config:
        """The configuration as stored."""
        return config_file.parse(self.folder.read_text("config.yaml") or "", f"{self.uri}/config.yaml")


def load_run(source: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run, given its YAML file or its run directory. Raises InputError."""
    filesystem, path = locate(source)
    if "://" not in source and not Path(path).is_dir():
        config = with_examples_read(config_file.load(source, overrides))
    else:
        text = Folder(filesystem, path.rstrip("/")).read_text("config.yaml")
        if text is None:
            raise InputError(f"{source}: neither the YAML file of a run nor a run directory")
        own = [f"run_dir={json.dumps(source)}", *overrides]
        config = with_examples_read(config_file.parse(text, f"{source}/config.yaml", own))
    if "://" not in config.run_dir:
        doors.leave_out(Path(resolve_path(config.run_dir, is_output=True)))
    return config


@dataclass(frozen=True)
class Round:
    """A round: the run's settings, the round's folders, the model it samples from and the model it trains."""

    config: Config
    directory: RunDirectory
    number: int
    sampled_model: str
    initial_model: str
    progress: Progress
    learner: str = TRAINED  # from the second round on, each training of a comparison has a round of its own

    @property
    def stages(self) -> Stages:
        """The round's folders."""
        return self.directory.round(self.number).learner(self.learner)

    def learners(self) -> list["Learner"]:
        """The round's own training and each variant of it, or the trainings of a comparison."""
        learners = self.config.learners().items()
        return [Learner(name, settings, self.stages.learner(name), self) for name, settings in learners]


@dataclass(frozen=True)
class Learner:
    """One training of a round, with its own settings and folders; `round` says from which model it starts."""

    name: str
    settings: Config
    stages: Stages
    round: Round


def is_done(round_: Round, stages: Stages, stage: str, label: str) -> bool:
    """Whether a stage is done. If it is, a line on the console says so."""
    record = stages.record(stage)
    if record is not None:
        round_.progress.say(f"{label:<12}done before, in {record.seconds:.0f} s")
    return record is not None


def counts_by(table: pa.Table, column: str) -> dict[str, int]:
    """Value of a column -> number of rows with it, sorted by value."""
    return dict(sorted((str(row["values"]), int(row["counts"])) for row in table[column].value_counts().to_pylist()))


def listed(counts: Mapping[str, int]) -> str:
    """Counts by reason in one line, e.g. ``3 all_wrong, 1 no_boxed_correct``."""
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def label(learner: Learner, stage: str) -> str:
    """What the progress line of a training's stage is called: the stage for the run's own training, else its name."""
    return stage if learner.name == TRAINED else f"  {learner.name}"
