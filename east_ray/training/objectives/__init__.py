"""Training objectives (minimal)."""

from types import SimpleNamespace
from typing import Any


def load(settings: Any) -> Any:
    """The objective that the settings name."""
    return SimpleNamespace(responses=("chosen",) if settings.objective == "sft" else ("chosen", "rejected"))
