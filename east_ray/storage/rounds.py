"""A round of a run, as its stages see it."""

from collections.abc import Mapping
from dataclasses import dataclass

from east_ray.config import TRAINED, Config
from east_ray.console import Progress
from east_ray.storage import RunDirectory, Stages


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
    """One training of a round, with its own settings and folders.

    `round` says from which model it starts; from the second round of a comparison on, each has a round of its own.
    """

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


def listed(counts: Mapping[str, int]) -> str:
    """Counts by reason in one line, e.g. ``3 all_wrong, 1 no_boxed_correct``."""
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def label(learner: Learner, stage: str) -> str:
    """What the progress line of a training's stage is called: the stage for the run's own training, else its name."""
    return stage if learner.name == TRAINED else f"  {learner.name}"
