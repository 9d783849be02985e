"""``east-ray quickstart``: the run that is shipped, with its model and its questions, from any folder."""

from collections.abc import Sequence
from pathlib import Path

from east_ray.config import InputError

#: Settings that name a shipped file, and where it is below the folder.
_FILES = {"model": "model", "questions.path": "train.jsonl", "evaluation.questions.path": "test.jsonl"}


def shipped() -> tuple[Path, Path]:
    """The YAML file of the quick start, and the folder of its model and questions.

    An installed package holds both; in a clone they are where its jobs are. Raises InputError if they are missing.
    """
    package = Path(__file__).parent.parent
    installed, jobs = package / "quickstart", package.parent / "jobs"
    for file, folder in ((installed / "quickstart.yaml", installed), (jobs / "quickstart.yaml", jobs / "quickstart")):
        if file.is_file():
            return file, folder
    raise InputError(f"the quick start's files are neither in {installed} nor in {jobs}; install east-ray again")


def run_of(overrides: Sequence[str]) -> tuple[str, list[str]]:
    """The configuration file and all overrides of the quick start; a user's own come last and so count.

    Paths below the working directory are relative to it, as in a clone, where they are those of the file.
    """
    file, folder = shipped()
    return _near(file), [f"{key}={_near(folder / name)}" for key, name in _FILES.items()] + list(overrides)


def _near(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
