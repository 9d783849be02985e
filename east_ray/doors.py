"""Doors: a setting holds the name of a built-in part, or `package.module:name` of a user's own."""

import importlib
from collections.abc import Mapping
from typing import Any

from east_ray.config import InputError


def load(key: str, spelled: str, built_in: Mapping[str, str]) -> Any:
    """The part that a setting names; raises InputError in one sentence if it cannot be loaded."""
    module_name, _, name = built_in.get(spelled, spelled).partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"{key}: {spelled} cannot be loaded: {error}") from error
    if not module_name.startswith("east_ray."):
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    if not hasattr(module, name):
        raise InputError(f"{key}: {spelled} cannot be loaded: module {module_name} has no {name}")
    return getattr(module, name)
