"""Doors: a setting that holds the name of a built-in part, or `package.module:name` of a user's own."""

import importlib
from collections.abc import Mapping
from typing import Any

from east_ray.config import InputError


def load(key: str, spelled: str, built_in: Mapping[str, str]) -> Any:
    """What a setting names: one of the built-in parts, or a user's. Raises InputError if it cannot be imported."""
    module_name, _, name = built_in.get(spelled, spelled).partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"{key}: {spelled} cannot be loaded: {error}") from error
    if not hasattr(module, name):
        raise InputError(f"{key}: {spelled} cannot be loaded: {module_name} has no {name}")
    if spelled not in built_in:
        import ray.cloudpickle

        ray.cloudpickle.register_pickle_by_value(module)
    return getattr(module, name)
