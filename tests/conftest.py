"""What several tests share: the shipped model and questions, and one local Ray."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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
