"""Answers and responses that others have labelled, read where they are present."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent.parent / "shared" / "data" / "equivalence"


def labelled(name: str) -> Iterator[dict[str, Any]]:
    """The rows of NAME.jsonl; the test is skipped if it is not there."""
    path = FOLDER / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"the labelled data is not there: {path}")
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)
