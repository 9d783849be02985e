"""Who imports whom: the packages follow the flow of the data, and the pure modules import no heavy library."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "east_ray"

#: The packages and modules of east_ray in the order of the flow. None imports one that comes later, not even inside a
#: function or for its types. `answers` comes before `questions`, because a question's reference answer is read the way
#: a response is.
FLOW = (
    "records",
    "config",
    "doors",
    "last_words",
    "endings",
    "console",
    "storage",
    "ray_cluster",
    "reading",
    "answers",
    "questions",
    "sampling",
    "labels",
    "selection",
    "weighting",
    "training",
    "evaluation",
    "report",
    "export",
    "serving",
    "doctor",
    "plan",
    "pipeline",
    "compare",
    "first_use",
    "library",
    "cli",
    "__main__",
)
#: Neither imports the other: they meet in `pipeline` alone.
APART = ("sampling", "training")

HEAVY = ("ray", "torch", "vllm", "transformers", "deepspeed")
#: Modules, and packages with all that is in them, that import with none of these installed.
PURE = (
    "records", "config", "doors", "last_words", "endings", "console", "storage", "reading", "answers", "questions",
    "labels", "selection", "weighting", "evaluation", "report", "export", "plan", "library", "serving.settings",
    "serving.gate", "serving.solving", "serving.application", "sampling.journal", "sampling.given", "training.dataset",
    "training.batches", "training.dealing", "training.objectives", "training.compute", "training.reference",
    "training.stage",
)  # fmt: skip


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Dotted name below east_ray ("" is east_ray itself) and syntax tree of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        dotted = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield dotted.removesuffix("__init__").removesuffix("."), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and first name below east_ray of all that is imported of it, anywhere in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            names = [f"{node.module}.{one.name}" for one in node.names]
        elif isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        else:
            continue
        for name in names:
            package, _, inner = name.partition(".")
            if package == "east_ray" and inner:
                yield node.lineno, inner.partition(".")[0]


def test_every_package_has_its_place_in_the_flow() -> None:
    found = {name.partition(".")[0] for name, _ in modules()} - {""}
    assert found - set(FLOW) == set()


def test_imports_follow_the_flow() -> None:
    against = [
        f"{importer}:{line} imports {target}"
        for importer, tree in modules()
        for line, target in imported(tree)
        if (own := importer.partition(".")[0]) in FLOW and target in FLOW and FLOW.index(target) > FLOW.index(own)
    ]
    assert against == []


def test_training_and_sampling_never_meet() -> None:
    meeting = [
        f"{importer}:{line} imports {target}"
        for importer, tree in modules()
        for line, target in imported(tree)
        if {importer.partition(".")[0], target} == set(APART)
    ]
    assert meeting == []


def test_pure_modules_need_no_heavy_package() -> None:
    """All in one process: whichever fails is named by its traceback."""
    found = [name for name, _ in modules()]
    assert set(PURE) <= set(found), "these modules are gone"
    pure = [name for name in found if any(f"{name}.".startswith(f"{one}.") for one in PURE)]
    forbidden = (
        f"import sys, importlib; sys.modules.update(dict.fromkeys({HEAVY!r}))\n"
        "for module in sys.argv[1:]: importlib.import_module(f'east_ray.{module}')"
    )
    result = subprocess.run([sys.executable, "-c", forbidden, *pure], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_no_module_waits_for_itself() -> None:
    """Of what is imported when a module is; such a circle would fail only where it is entered at the wrong module."""
    trees = dict(modules())
    graph = {importer: set[str]() for importer in trees}
    for importer, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                module = f"{node.module}.".removeprefix("east_ray.").removesuffix(".")
                submodules = {f"{module}.{one.name}".removeprefix(".") for one in node.names}
                graph[importer] |= (submodules & trees.keys()) or ({module} & trees.keys() - {""})
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_the_command_line_answers_at_once() -> None:
    loaded = "import sys; import east_ray.cli; print([m for m in sys.argv[1:] if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", loaded, *HEAVY], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
