"""What the documents tell a reader to type can be typed: verbs, options, settings, targets of make and files exist."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from pydantic import BaseModel

from east_ray import cli
from east_ray.config import Config
from east_ray.config.base import flatten, section_type
from east_ray.serving.settings import ServingConfig

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("tests/*/README.md"))
)
#: Programs that documents may name, of which nothing is checked here.
OTHERS = {".", "cd", "curl", "docker", "export", "git", "hadolint", "kubectl", "pip", "pre-commit", "printf", "ray",
          "rm", "sbatch", "serve", "uv"}  # fmt: skip
LONGEST_README = 150


def typed(document: str) -> Iterator[list[str]]:
    """The words of each command line in blocks of a shell: those indented by four spaces, and after "$ "."""
    text = (ROOT / document).read_text(encoding="utf-8")
    shells = re.findall(r"^```(?:console|bash|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line[2:] for block in shells for line in block.splitlines() if line.startswith("$ ")]
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    # A block that begins with a program; formulas and trees are indented too.
    starts = "|".join(map(re.escape, sorted({"east-ray", "make", "python", ".ci/run", "jobs/"} | OTHERS)))
    lines += re.findall(rf"^    ((?:{starts})(?:(?: .*)?\\\n)*.*)$", plain, re.MULTILINE)
    for line in lines:
        if line.count("'") % 2 or line.count('"') % 2:  # a body that goes on for lines
            continue
        yield shlex.split(line.replace("\\\n", " ").partition(" | ")[0], comments=True)


def is_setting(section: type[BaseModel], dotted: str) -> bool:
    """Whether a key is one of the settings; below a mapping with free keys, any is."""
    for name in dotted.split("."):
        if (field := section.model_fields.get(name)) is None:
            return False
        if (inner := section_type(field.annotation)) is None or is_mapping(field.annotation):
            return True
        section = inner
    return True


def is_mapping(annotation: Any) -> bool:
    return annotation is dict or getattr(annotation, "__origin__", None) is dict or any(
        map(is_mapping, get_args(annotation))
    )  # fmt: skip


def check_east_ray(words: Sequence[str]) -> None:
    group: Any = typer.main.get_command(cli.app)
    if words[0].startswith("--"):
        assert any(words[0] in option.opts for option in group.params), f"east-ray has no option {words[0]}"
        return
    assert words[0] in group.commands, f"east-ray has no verb {words[0]}"
    group.commands[words[0]].make_context(words[0], [*words[1:]])  # raises a UsageError
    root = ServingConfig if words[0] == "serve" else Config
    for word in words[1:]:
        key, equals, _ = word.partition("=")
        if equals and re.fullmatch(r"[a-z_]+(\.[\w-]+)*", key):
            assert is_setting(root, key), f"{key} is no setting"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_to_be_typed_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in typed(document):
        program, *rest = words
        if program == "python" and rest[:2] == ["-m", "east_ray"]:
            check_east_ray(rest[2:])
            continue
        if program == "east-ray":
            check_east_ray(rest)
        elif program == "make":
            assert {word for word in rest if "=" not in word} <= targets, words
        elif program == "python":
            assert rest[0] == "-m" or (ROOT / rest[0]).is_file() or rest[0] == "-c", words
        elif program.startswith("jobs/") or program == ".ci/run":
            assert (ROOT / program).is_file(), words
        else:
            assert program in OTHERS, f"{document}: what is {program}?"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_in_yaml_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for block in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        unknown = [key for key, _ in flatten(yaml.safe_load(block)) if not is_setting(Config, key)]
        assert not unknown, f"{document}: {', '.join(unknown)} in\n{block}"


def test_what_must_not_be_documented_is_found() -> None:
    with pytest.raises(AssertionError, match="no verb"):
        check_east_ray(["samples", "run.yaml"])
    with pytest.raises(AssertionError, match=r"weighting\.exponents is no setting"):
        check_east_ray(["run", "run.yaml", "weighting.exponents=2"])
    with pytest.raises(Exception, match="No such option"):
        check_east_ray(["plan", "run.yaml", "--card", "H100"])
    assert not is_setting(Config, "sampling.adaptive.budget.totals") and is_setting(Config, "sampling.params.min_p")


def test_the_readme_is_short_and_so_are_its_sentences() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= LONGEST_README
    prose = re.sub(r"^(```.*?^```|    .*?|\|.*?|!\[.*?|#.*?)$", "", text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"\]\([^)]*\)|[*`\[\]]", "", prose)
    sentences = [len(one.split()) for one in re.split(r"(?<=[.!?:])\s+|\n\n|\n\* ", prose) if len(one.split()) > 2]
    assert sum(sentences) / len(sentences) <= 20
