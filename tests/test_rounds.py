"""Which models a round samples from and trains, and whose trainings it has."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from east_ray import pipeline
from east_ray.config import InputError
from east_ray.config.files import resolve
from east_ray.console import Progress
from east_ray.storage import RunDirectory


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("connect", "check_resources"):
        monkeypatch.setattr(pipeline, name, lambda *arguments: None)


def run_directory(path: Path, **settings: Any) -> RunDirectory:
    model = path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    values = {"model": str(model), "run_dir": str(path / "run"), "questions": {"path": "q.jsonl"}, "rounds": 2}
    return RunDirectory(resolve(values | settings))


@pytest.mark.parametrize("init_from", ["previous", "base"])
def test_a_later_round_samples_from_the_newest_model_and_trains_the_one_that_init_from_names(
    init_from: str, tmp_path: Path, no_cluster: None
) -> None:
    directory, progress = run_directory(tmp_path, init_from=init_from), Progress(Console(quiet=True))
    base = str(tmp_path / "model")
    first = pipeline.open_round(directory.config, directory, 0, progress)
    assert (first.sampled_model, first.initial_model) == (base, base)
    with pytest.raises(InputError, match=r"round 1: round 0 of .* has not been trained yet"):
        pipeline.open_round(directory.config, directory, 1, progress)
    with first.stages.recording("training"):
        pass
    second = pipeline.open_round(directory.config, directory, 1, progress)
    previous = str(tmp_path / "run/round_0/model")
    assert (second.sampled_model, second.initial_model) == (previous, {"previous": previous, "base": base}[init_from])


def test_a_round_has_the_seeds_that_the_run_began_with(tmp_path: Path, no_cluster: None) -> None:
    directory = run_directory(tmp_path)
    values = {**directory.config.model_dump(), "engines": {"num_gpus_per_engine": 1}, "sampling": {"seeded": "auto"}}
    round_ = pipeline.open_round(resolve(values), directory, 0, Progress(Console(quiet=True)))
    assert round_.config.sampling.seeded is True and round_.config.engines.num_gpus_per_engine == 1


def test_the_learners_of_a_round_are_its_own_training_and_its_variants(tmp_path: Path, no_cluster: None) -> None:
    directory = run_directory(tmp_path, variants={"flat": {"weighting.signal": "uniform"}})
    round_ = pipeline.open_round(directory.config, directory, 0, Progress(Console(quiet=True)))
    own, flat = round_.learners()
    assert (own.name, own.stages, own.round) == ("trained", round_.stages, round_)
    assert (flat.name, flat.settings.weighting.signal) == ("flat", "uniform")
    assert flat.stages == round_.stages.learner("flat")
