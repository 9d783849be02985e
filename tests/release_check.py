"""What a release must pass: wheel and sdist are built, and the wheel alone does the quick start in an empty folder.

``make release-check`` runs it. The environment is made outside the tree, and nothing of the tree is on its path.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Of the wheel, beside the modules.
SHIPPED = (
    *(f"east_ray/quickstart/{name}" for name in ("quickstart.yaml", "train.jsonl", "test.jsonl")),
    *(f"east_ray/quickstart/model/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")),
    "east_ray/report/report.html.jinja",
    "east_ray/serving/page.html.jinja",
    "east_ray/py.typed",
)
#: As the Makefile installs them, and for the same reasons.
TORCH = "torch==2.13.0+cpu"
BREAKING = ("torchvision", "torchaudio", "torchcodec")


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command, which is also shown. Ends the program where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    print("$", *command, flush=True)
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}")
    return done.stdout


def built(folder: Path) -> Path:
    """The wheel, made of the sdist, which is made of the tree."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    if missing := [name for name in SHIPPED if name not in names]:
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
    if strange := sorted({name.partition("/")[0] for name in names if not name.startswith(("east_ray", "east-ray"))}):
        sys.exit(f"{wheel.name} holds {', '.join(strange)} beside east_ray")
    with tarfile.open(sdist) as archive:
        inside = {member.partition("/")[2] for member in archive.getnames()}
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    if missing := sorted(set(tracked) - inside):
        sys.exit(f"{sdist.name} lacks {', '.join(missing[:5])}")
    print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, {sdist.name}: {sdist.stat().st_size / 2**20:.1f} MiB")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """A fresh environment with the wheel; returns the folder of its programs."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip: tuple[str | Path, ...] = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    if uv := shutil.which("uv"):
        pip = (uv, "--quiet", "pip")
    at = ("--python", python) if uv else ()
    constraints = ("--constraint", ROOT / ".constraints-cpu.txt")
    run(*pip, "install", *at, TORCH, *constraints, cwd=folder)
    run(*pip, "install", *at, f"{wheel}[cpu]", *constraints, cwd=folder)
    run(python, "-m", "pip", "--quiet", "uninstall", "--yes", *BREAKING, cwd=folder)
    return python.parent


def main() -> None:
    """Build, install, and use it as a stranger would; with ``--small``, the quick start on fewer questions."""
    fewer = ["questions.max_questions=150", "evaluation.questions.max_questions=200"] if "--small" in sys.argv else []
    with tempfile.TemporaryDirectory(prefix="east-ray-release-") as name:
        scratch, empty = Path(name), Path(name, "empty")
        empty.mkdir()
        (scratch / "dist").mkdir()
        east_ray = installed(built(scratch / "dist"), scratch / "venv") / "east-ray"
        run(east_ray, "--version", cwd=empty)
        rows = [
            {"question": f"{n} + 1?", "gold": str(n + 1), "outputs": [f"\\boxed{{{n + 1}}}", f"\\boxed{{{n}}}"] * 4}
            for n in range(8)
        ]
        (empty / "outputs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        run(east_ray, "weigh", "outputs.jsonl", cwd=empty)
        run(east_ray, "quickstart", *fewer, cwd=empty)
        if not (empty / "runs/quickstart/report.html").is_file():
            sys.exit("the quick start left no report")
    print("the release check has passed")


if __name__ == "__main__":
    main()
