"""A round of a run: what its stages work with."""

from collections.abc import Mapping
from dataclasses import dataclass

from east_ray.config import TRAINED, Config
from east_ray.console import Progress
from east_ray.storage import RunDirectory, Stages


@dataclass(frozen=True)
class Learner:
    """One training of a round: the run's own, a variant of it, or one of a comparison."""

    round_: "Round"
    """The round whose samples it learns from."""
    name: str
    settings: Config
    stages: Stages


@dataclass(frozen=True)
class Round:
    """What a round works with: the run's settings, its folders, and the models that it samples from and trains."""

    config: Config
    directory: RunDirectory
    number: int
    sampled_model: str
    initial_model: str
    progress: Progress
    learner: str = TRAINED  # whose round it is: from the second on, each training of a comparison has its own

    @property
    def stages(self) -> Stages:
        """The round's folders."""
        return self.directory.round(self.number).learner(self.learner)

    def learners(self) -> list[Learner]:
        """The round's own training and each variant of it, or the trainings of a comparison."""
        learners = self.config.learners().items()
        return [Learner(self, name, settings, self.stages.learner(name)) for name, settings in learners]


def is_done(round_: Round, stages: Stages, stage: str, label: str) -> bool:
    """Whether a stage is done; if it is, says so."""
    record = stages.record(stage)
    if record is not None:
        round_.progress.say(f"{label:<12}done before, in {record.seconds:.0f} s")
    return record is not None


def listed(counts: Mapping[str, int]) -> str:
    """Counts in one line, e.g. ``3 all_wrong, 1 no_boxed_correct``."""
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def label(learner: Learner, stage: str) -> str:
    """What the progress line of a training's stage is called: the stage for the run's own training, else its name."""
    return stage if learner.name == TRAINED else f"  {learner.name}"
