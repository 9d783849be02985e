"""Parts that a user adds: where their modules are found, what is refused, and what a resumed run compares."""

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from east_ray import doors
from east_ray.answers.graders import GRADERS
from east_ray.config import Config, InputError
from east_ray.config.base import Part, section_type
from east_ray.config.files import MODULE_FOLDERS, load, resolve
from east_ray.questions.formats import FORMATS
from east_ray.sampling.backends import BACKENDS
from east_ray.storage import RunDirectory, load_run
from east_ray.training.objectives import OBJECTIVES
from east_ray.weighting import MAPPINGS, SIGNALS

SIGNAL = "def signal(question):\n    return {}\n"
RUN = {"model": "m", "questions": {"path": "q.jsonl"}, "weighting": {"signal": "own:signal"}}


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working directory, and no module of another test."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr("east_ray.doors.MODULE_FOLDERS", MODULE_FOLDERS)
    MODULE_FOLDERS.clear()
    yield
    MODULE_FOLDERS.clear()
    sys.modules.pop("own", None)


def write(folder: Path, value: object = 1, run_dir: object = "runs/r") -> Path:
    """A run's YAML file, with a module of the user's beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.py").write_text(SIGNAL.format(value))
    (folder / "run.yaml").write_text(json.dumps(RUN | {"run_dir": str(run_dir)}))
    return folder / "run.yaml"


def signal_of(settings: Config) -> object:
    return doors.load("weighting.signal", settings.weighting.signal, SIGNALS)(None)


def test_every_name_of_a_built_in_part_has_its_part() -> None:
    tables = {
        "answers.grader": GRADERS,
        "weighting.signal": SIGNALS,
        "weighting.mapping": MAPPINGS,
        "questions.format": FORMATS,
        "training.objective": OBJECTIVES,
        "sampling.backend": BACKENDS,
    }
    for key, built_in in tables.items():
        section, name = key.split(".")
        (mark,) = (
            mark
            for mark in section_type(Config.model_fields[section].annotation).model_fields[name].metadata
            if isinstance(mark, Part)
        )
        assert set(mark.names) - {"auto"} == set(built_in) - {"auto"}, key
        for spelled in built_in:
            assert callable(doors.load(key, spelled, built_in))


def test_a_module_is_found_beside_the_yaml_file_and_in_the_working_directory(tmp_path: Path) -> None:
    assert signal_of(load_run(str(write(tmp_path / "a", 1)))) == 1
    assert signal_of(load(write(tmp_path / "b", 2))) == 2  # the same name, another folder
    (tmp_path / "b" / "own.py").write_text(SIGNAL.format(30))
    assert signal_of(load(tmp_path / "b" / "run.yaml")) == 30  # edited since
    MODULE_FOLDERS.clear()
    write(Path.cwd(), 4)
    assert signal_of(resolve(RUN | {"run_dir": "r"})) == 4
    package = Path.cwd() / "parts" / "deep"
    package.mkdir(parents=True)
    (package / "signals.py").write_text(SIGNAL.format(5))
    settings = resolve(RUN | {"run_dir": "r"}, ["weighting.signal=parts.deep.signals:signal"])
    assert signal_of(settings) == 5 and list(doors.sources(settings)) == ["weighting.signal"]


def test_a_run_directory_brings_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "received"
    write(run, run_dir=run).rename(run / "config.yaml")
    for source in (run, run / "config.yaml"):
        with pytest.raises(InputError, match=r"weighting.signal: own:signal cannot be loaded: no module own \(looked"):
            signal_of(load_run(str(source)))
    (run / "config.yaml").write_text(json.dumps(RUN | {"run_dir": str(tmp_path / "elsewhere")}))
    (run / "round_0" / "samples").mkdir(parents=True)
    write(run / "round_0")
    monkeypatch.setattr(doors, "_run_directories", set())
    for folder in (run, run / "round_0"):
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend("")
        with pytest.raises(InputError, match="no module own"):
            signal_of(load_run("config.yaml" if folder == run else "../config.yaml"))
        with pytest.raises(InputError, match="no module own"):
            RunDirectory(load_run(str(run / "config.yaml")))
    assert "own" not in sys.modules


@pytest.mark.parametrize(
    ("source", "spelled", "message"),
    [
        ("", "own:signal", "own.py has no signal"),
        ("def signals(): ...", "own:signal", "own.py has no signal; did you mean signals?"),
        (
            "import no_such_package",
            "own:signal",
            "own.py fails (ModuleNotFoundError: No module named 'no_such_package')",
        ),
        ("1 / 0", "own:signal", "own.py fails (ZeroDivisionError: division by zero)"),
        ("raise SystemExit", "own:signal", "own.py fails (SystemExit: )"),
        ("", "own.deeper:signal", "no module own.deeper (looked on the Python path and in "),
        ("", "owm:signal", "no module owm (looked on the Python path and in "),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(source: str, spelled: str, message: str) -> None:
    Path("own.py").write_text(source)
    with pytest.raises(InputError) as error:
        doors.load("weighting.signal", spelled, SIGNALS)
    assert str(error.value).startswith(f"weighting.signal: {spelled} cannot be loaded: ")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_part_reaches_workers_that_do_not_have_its_module() -> None:
    from ray import cloudpickle

    write(Path.cwd(), 6)
    pickled = cloudpickle.dumps(doors.load("weighting.signal", "own:signal", SIGNALS))
    cloudpickle.unregister_pickle_by_value(sys.modules["own"])
    Path("own.py").unlink()
    del sys.modules["own"]
    assert pickle.loads(pickled)(None) == 6


def test_sources_name_the_parts_of_every_training() -> None:
    write(Path.cwd())
    compare = {"grids": [{"signals": ["own:signal"], "exponents": [1.0, 2.0]}], "seeds": [0, 1]}
    of_grids = resolve(RUN | {"run_dir": "r", "weighting": {}, "compare": compare})
    assert list(doors.sources(of_grids)) == [
        "variants.sft-own.signal-a1.weighting.signal",
        "variants.sft-own.signal-a2.weighting.signal",
    ]
    variants = {"v": {"weighting": {"mapping": "own:mapping"}}, "w": {"weighting.signal": "entropy"}}
    assert list(doors.sources(resolve(RUN | {"run_dir": "r", "variants": variants}))) == [
        "weighting.signal",
        "variants.v.weighting.mapping",
    ]
    assert doors.sources(resolve(RUN | {"run_dir": "r", "weighting": {}})) == {}


def test_a_resumed_run_is_refused_if_a_module_has_changed_since_it_was_used(tmp_path: Path) -> None:
    settings = load_run(str(write(tmp_path / "job", 1, tmp_path / "run")), ["answers.grader=own:signal"])
    stages = RunDirectory(settings).round(0)
    assert set(json.loads((tmp_path / "run" / "doors.json").read_text())) == {"answers.grader", "weighting.signal"}
    for stage in ("sampling", "answers"):
        with stages.recording(stage):
            pass
    write(tmp_path / "job", 2, tmp_path / "run")
    RunDirectory(settings, only_read=True)
    assert stages.record("answers") is not None
    RunDirectory(settings)  # nothing has been weighed yet
    assert stages.record("answers") is None, "the answers of another grader are not used"
    with stages.recording("examples"):
        pass
    RunDirectory(settings)
    write(tmp_path / "job", 3, tmp_path / "run")
    with pytest.raises(InputError, match=r"another source of the module in answers.grader; undo the change of the mod"):
        RunDirectory(settings)
    (tmp_path / "job" / "own.py").unlink()
    assert RunDirectory(load_run(str(tmp_path / "run")), only_read=True).config == settings.settled()
    with pytest.raises(InputError, match="no module own"):
        RunDirectory(settings)


def test_answers_are_read_again_if_how_they_are_read_has_changed(tmp_path: Path) -> None:
    run = RUN | {"run_dir": str(tmp_path / "run"), "weighting": {}}
    stages = RunDirectory(resolve(run)).round(0)
    with stages.recording("answers"):
        pass
    RunDirectory(resolve(run, ["weighting.exponent=2.0"]))
    assert stages.record("answers") is not None
    RunDirectory(resolve(run, ["answers.last_number=true"]), only_read=True)
    assert stages.record("answers") is not None
    RunDirectory(resolve(run, ["answers.last_number=true"]))
    assert stages.record("answers") is None
