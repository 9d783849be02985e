"""What several tests share: the shipped model and questions, and one local Ray."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent


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


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """The system's Chromium. Not for the whole session: while it is open, this thread has a running event loop."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if chromium is None:
        pytest.skip("there is no Chromium or Chrome on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
