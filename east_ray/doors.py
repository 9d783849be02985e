"""Loads the parts that settings name: built-in ones, and a user's own as ``package.module:name``.

A user's module is looked for on sys.path, beside the YAML file and in the current working directory (of a submitted
job, its working directory), but never in a run directory: a run that somebody else has made brings no code with it.
"""

import hashlib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from east_ray.config import Config, InputError, flatten
from east_ray.config.base import Part, hint, is_own_part, leaves
from east_ray.config.files import MODULE_FOLDERS

#: Folders of the runs that this process works on.
_run_directories: set[Path] = set()
#: The user's modules that were imported, with their files and the hashes of these at that time.
_imported: dict[str, tuple[Path, str]] = {}


def load(key: str, spelled: str, built_in: Mapping[str, str]) -> Any:
    """The part that the setting `key` names; `built_in` has the ``module:name`` of each built-in part.

    A user's module is marked to be pickled by value, so that Ray's workers need no copy of it. Raises InputError if
    the part cannot be imported. Whether it fits is for the caller to check.
    """
    module_name, _, name = built_in.get(spelled, spelled).partition(":")
    if spelled in built_in:
        return getattr(importlib.import_module(module_name), name)
    module = _import(where := f"{key}: {spelled} cannot be loaded", module_name)
    if not hasattr(module, name):
        raise InputError(f"{where}: {module.__file__} has no {name}{hint(name, dir(module))}")
    with suppress(ImportError):  # without Ray there are no workers
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    return getattr(module, name)


def leave_out(run_directory: Path) -> None:
    """Never look for modules in this run directory."""
    _run_directories.add(run_directory.resolve())


def sources(config: Config) -> dict[str, str]:
    """Dotted key -> SHA-256 of the source file of each user's module that the configuration names.

    Parts of a variant, or of an arm of a comparison, have keys such as ``variants.NAME.weighting.signal``. Nothing is
    imported. Raises InputError if a module cannot be found.
    """
    named = {key: value for key, field, value in leaves(config) if any(isinstance(m, Part) for m in field.metadata)}
    for arm, overrides in (config.variants | (config.compare.arms() if config.compare else {})).items():
        named |= {f"variants.{arm}.{key}": value for key, value in flatten(overrides) if key in named}
    with _searching():
        return {
            key: _found(f"{key}: {spelled} cannot be loaded", spelled.partition(":")[0])[1]
            for key, spelled in named.items()
            if is_own_part(spelled)
        }


def _import(where: str, name: str) -> ModuleType:
    with _searching():
        found, top = _found(where, name), name.partition(".")[0]
        related = [other for other in _imported if other.partition(".")[0] == top]
        if any(_imported[other] != _fingerprint(other) for other in related):  # edited, or from another folder
            for other in [other for other in sys.modules if other.partition(".")[0] == top]:
                del sys.modules[other]
            for other in related:
                del _imported[other]
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(f"{where}: importing {found[0]} fails ({said})") from error
    if module.__file__ is None or Path(module.__file__).resolve() != found[0]:
        raise InputError(f"{where}: another module {name} is in use, {module.__file__}")
    _imported[name] = found
    return module


def _found(where: str, module: str) -> tuple[Path, str]:
    if found := _fingerprint(module):
        return found
    raise InputError(f"{where}: no module {module} (looked {' and in '.join(['on the Python path', *_beside()])})")


def _fingerprint(module: str) -> tuple[Path, str] | None:
    """The source file of a module, found without importing anything, and its hash."""
    top, *inner = module.split(".")
    spec = next(filter(None, (finder.find_spec(top, None) for finder in sys.meta_path)), None)
    if spec is None:
        return None
    files = [Path(spec.origin or "")]
    if inner:
        folders = [Path(folder, *inner) for folder in spec.submodule_search_locations or ()]
        files = [file for folder in folders for file in (folder / "__init__.py", folder.with_suffix(".py"))]
    file = next((file.resolve() for file in files if file.is_file()), None)
    return None if file is None else (file, hashlib.sha256(file.read_bytes()).hexdigest())


def module_path() -> list[str]:
    """The places where a user's module may be, in the order of the search."""
    entries = [Path(entry).absolute() for entry in sys.path]
    in_path = [str(entry) for entry in entries if entry != Path.cwd() and not _is_run_directory(entry)]
    return list(dict.fromkeys([*in_path, *_beside()]))


@contextmanager
def _searching() -> Iterator[None]:
    """While the block runs, sys.path has the places where a user's module may be, and only those."""
    before = sys.path[:]
    sys.path[:] = module_path()
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _beside() -> list[str]:
    """The folder of the YAML file and the current working directory, unless they lie in a run directory."""
    return [
        str(place)
        for place in dict.fromkeys([*MODULE_FOLDERS, Path.cwd()])
        if not _is_run_directory(place)
        and not any((above / "config.yaml").exists() and _is_run_directory(above) for above in place.resolve().parents)
    ]


def _is_run_directory(place: Path) -> bool:
    """Whether it is the directory of a run in this process, or has the rounds of any run."""
    with suppress(OSError):  # a zip file, or nothing, on the Python path
        if any(re.fullmatch(r"round_\d+", entry.name) for entry in place.iterdir()):
            return True
    return place.resolve() in _run_directories
