"""Conventions that a reader relies on, held by reading the source: sizes, private names, who imports whom."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "east_ray"

MAX_MODULE_LINES, MAX_FUNCTION_LINES = 400, 60
#: Modules that may be longer, with the reason.
LONG_MODULES = {
    "answers/symbolic/keys.py": "one table of rules from expressions to keys; split, their order could not be read",
    "answers/symbolic/parser.py": "one grammar, its rules in the order of precedence",
    "answers/symbolic/values.py": "one case for each operation on numbers",
    "records.py": "every column and field of the files of a run; a reader searches one place",
}
#: Tables whose rows the formatter would break apart.
MAX_FMT_SKIPS = 10


def sources(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")


def private_names(source: str) -> Iterator[str]:
    """Private names of modules of east_ray that this source imports, reads or patches; those of its own are not."""
    tree = ast.parse(source)
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "east_ray":
            yield from (f"{node.module}.{one.name}" for one in node.names if is_private(one.name))
            modules |= {one.asname or one.name for one in node.names}
        elif isinstance(node, ast.Import):
            modules |= {one.asname or one.name for one in node.names if one.name.split(".")[0] == "east_ray"}
        elif isinstance(node, ast.Constant) and str(node.value).startswith("east_ray."):
            yield from ([node.value] if any(map(is_private, node.value.split("."))) else [])
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) in modules:
            yield ast.unparse(node)


def is_private(name: str) -> bool:
    of_named_tuples = ("_fields", "_replace", "_asdict")
    return name.startswith("_") and not name.startswith("__") and name not in of_named_tuples


def test_modules_are_short() -> None:
    lengths = {name: source.count("\n") for name, source in sources(PACKAGE)}
    long = {name: lines for name, lines in lengths.items() if lines > MAX_MODULE_LINES}
    assert long.keys() <= LONG_MODULES.keys(), long
    assert set(LONG_MODULES) <= long.keys(), "these modules have become short: remove them from the list"


def test_functions_are_short() -> None:
    long = {
        f"{name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for name, source in sources(PACKAGE)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    }
    assert not long


def test_few_lines_are_kept_from_the_formatter() -> None:
    counts = {name: source.count("# fmt: skip") for name, source in sources(PACKAGE) if "# fmt: skip" in source}
    assert sum(counts.values()) <= MAX_FMT_SKIPS, counts


@pytest.mark.parametrize("folder", [PACKAGE, TESTS], ids=["east_ray", "tests"])
def test_no_module_uses_private_names_of_another(folder: Path) -> None:
    found = {name: sorted(set(private_names(source))) for name, source in sources(folder)}
    assert not {name: names for name, names in found.items() if names}


def test_tests_import_nothing_from_other_tests() -> None:
    """What two of them need is in conftest.py or in a module that is no test."""
    found = [
        f"{name}:{node.lineno} {ast.unparse(node)}"
        for name, source in sources(TESTS)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(module.startswith("test_") for module in [*(one.name for one in node.names), _module(node)])
    ]
    assert not found


def _module(node: ast.Import | ast.ImportFrom) -> str:
    return node.module or "" if isinstance(node, ast.ImportFrom) else ""


def test_the_hooks_before_a_commit_are_what_make_lint_runs_and_load_nothing() -> None:
    (repository,) = yaml.safe_load((TESTS.parent / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local" and {hook["language"] for hook in repository["hooks"]} == {"system"}
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (TESTS.parent / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    commands = recipe[1].replace("$(BIN)", ".venv/bin").split("\n\t")
    assert [hook["entry"] for hook in repository["hooks"]] == [command.strip() for command in commands]


def test_a_skip_in_ci_is_a_failure_unless_its_reason_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "test_skipped.py").write_text(
        "import pytest\n"
        "def test_allowed(): pytest.skip('network namespaces may not be made here: no')\n"
        "def test_other(): pytest.skip('no browser')\n"
        "@pytest.mark.skipif(True, reason='no browser')\n"
        "def test_marked(): ...\n"
        "@pytest.mark.xfail(reason='known')\n"
        "def test_known(): assert False\n"
    )
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")

    def outcome(ci: str) -> str:
        command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir=.", "-p", "conftest", "-q",
                   "--continue-on-collection-errors"]  # fmt: skip
        environment = {"CI": ci, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        run = subprocess.run(
            command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        return run.stdout.splitlines()[-1]

    assert "4 skipped, 1 xfailed" in outcome("false")
    assert "1 failed, 1 skipped, 1 xfailed, 2 errors" in outcome("true")
