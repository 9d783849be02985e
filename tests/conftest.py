"""What several tests share, as one local Ray; which skips CI allows; and which files come first."""

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from east_ray.storage import Folder
    from east_ray.storage.rounds import Learner

ROOT = Path(__file__).parent.parent

# The first example of a property may import a library, and a machine may be busy.
hypothesis.settings.register_profile("east_ray", deadline=None)
hypothesis.settings.load_profile("east_ray")

#: Reasons for which a test may be skipped in CI, as its message begins. Any other skip there is a failure: a test that
#: never runs tests nothing. The data lies outside of the repository, so only a checkout without it may do without.
ALLOWED_SKIPS: tuple[str, ...] = (
    "network namespaces may not be made here",  # as in a container without CAP_NET_ADMIN
    "there is no GPU here",
    "no docker daemon answers here",
    "a small disk may not be mounted here",  # as without the rights of root
)
if not (ROOT.parent / "shared" / "data").is_dir():
    ALLOWED_SKIPS += (
        "GSM8K and MATH are not part of the repository",
        "the labelled data is not there",
        "the labelled outputs are not there",
    )


#: Files that take minutes in `make test` or `make drills`. They come first, so that no process is left alone with one
#: of them at the end.
LONG_FILES = tuple(
    f"test_{name}.py"
    for name in (
        "serving", "training", "faults", "whole_loop", "adaptive_sampling", "end_to_end", "adaptive_drills", "smollm2",
        "serving_cluster", "endpoint_servers", "sampling", "collapsing_runs", "endpoint_runs", "ray_job", "resume",
        "hosts", "training_on_hosts", "regimes", "comparing", "plan",
    )
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; the others as they are."""
    items.sort(key=lambda item: LONG_FILES.index(item.path.name) if item.path.name in LONG_FILES else len(LONG_FILES))


def _without_skip(report: Any) -> Any:
    """The report of a test or of a module; in CI a skip for another reason than the allowed ones is a failure."""
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if not reason.startswith(ALLOWED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI for a reason that is not on the list in conftest.py: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return _without_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return _without_skip((yield))


@pytest.fixture(scope="session")
def quickstart() -> Path:
    """The folder of the shipped model and questions."""
    return ROOT / "jobs" / "quickstart"


# Of the S3-compatible server of some tests; Ray's workers have the environment that Ray began with.
os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of the test session's own, with more logical CPUs than a small machine has."""
    import ray

    from east_ray.config import ClusterConfig
    from east_ray.ray_cluster import connect

    connect(ClusterConfig(address="local", num_cpus=4))
    yield
    ray.shutdown()


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trainings without the training: each leaves a model, and a backend answers for it. Gives the groups' sizes."""
    from east_ray import compare, pipeline

    sizes = list[int]()

    def train(
        learners: "Sequence[Learner]", checkpoints: "Folder", ended: Callable[[str], None] = lambda name: None
    ) -> None:
        sizes.append(len(learners))
        for one in learners:
            (one.stages / "model").write_text("config.json", "{}")
            with one.stages.recording("training"):
                pass
            ended(one.name)

    monkeypatch.setattr(compare, "train", train)
    monkeypatch.setattr(pipeline, "train_models", train)
    return sizes


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """The system's Chromium. Not for the whole session: while it is open, this thread has a running event loop."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium or Chrome on this machine")
    sync_api.expect.set_options(timeout=30_000)  # a busy machine takes its time; five seconds are the default
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
