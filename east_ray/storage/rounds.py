"""A round of a run, as its stages see it."""

from collections.abc import Iterator, Mapping
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

    def learners(self) -> Iterator[tuple[str, Config, Stages]]:
        """(name, configuration, folders) of each training: the run's own and its variants, or those of a comparison."""
        for name, settings in self.config.learners().items():
            yield name, settings, self.stages.learner(name)


def is_done(round_: Round, stages: Stages, stage: str, label: str) -> bool:
    """Whether a stage is done. If it is, a line on the console says so."""
    record = stages.record(stage)
    if record is not None:
        round_.progress.say(f"{label:<12}done before, in {record.seconds:.0f} s")
    return record is not None


def listed(counts: Mapping[str, int]) -> str:
    """Counts by reason in one line, e.g. ``3 all_wrong, 1 no_boxed_correct``."""
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
