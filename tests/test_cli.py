"""The command line as a user meets it: help, one sentence for bad input, an exit code, never a traceback."""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from east_ray import __version__, cli, doctor, endings
from east_ray.config import ClusterConfig, InputError
from east_ray.config.files import load
from east_ray.ray_cluster import check_resources, connect
from east_ray.serving.settings import HttpConfig
from east_ray.storage.lease import owning

ROOT = Path(__file__).parent.parent


def east_ray(*arguments: str, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "east_ray", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, cwd=ROOT)


def here(*arguments: str) -> None:
    """A verb in this process, on the Ray of the tests, as far as its errors are concerned."""
    cli.app(list(arguments), standalone_mode=False)


def refused(*arguments: str, timeout: float = 300) -> str:
    result = east_ray(*arguments, timeout=timeout)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


VERBS = ["run", "sample", "weigh", "train", "evaluate", "compare", "plan", "report", "audit", "export", "explain"]


@pytest.mark.parametrize("verb", [*VERBS, "config", "doctor"])
def test_every_verb_has_help(verb: str) -> None:
    result = east_ray(verb, "--help")
    assert result.returncode == 0 and "Usage:" in result.stdout


def test_explain_takes_h_alone_as_help_and_else_as_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    here("explain", "-h")
    assert "Usage:" in capsys.readouterr().out
    for answers in (["-h/2"], ["-h", "-1h"]):
        here("explain", *answers)
        assert "Usage:" not in (said := capsys.readouterr().out) and "read as" in said


def test_no_part_of_a_text_becomes_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    endings.say_error("hub:openai/gsm8k:main:train:x")
    assert capsys.readouterr().err == "error: hub:openai/gsm8k:main:train:x\n"
    here("explain", "1:x:2")
    assert "answer: 1:x:2" in capsys.readouterr().out


def test_init_takes_one_file_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    given = ["--model", "m", "--questions", "hub:openai/gsm8k:main"]
    here("init", "seed=7", *given)
    here("init", "mine.yaml", "seed=8", *given)
    assert (load("run.yaml").seed, load("mine.yaml").seed) == (7, 8)
    with pytest.raises(InputError, match=r"b\.yaml: expected one file to write"):
        here("init", "a.yaml", "b.yaml", *given)


def test_the_help_of_serve_says_where_it_listens() -> None:
    said = " ".join(east_ray("serve", "--help").stdout.split())
    http = HttpConfig()
    assert f"It listens at http://{http.host}:{http.port}, or where http.host and http.port say" in said


#: The command line where Ray, torch and vLLM cannot be imported.
LIGHT = """
import sys
sys.modules |= dict.fromkeys(["ray", "torch", "vllm", "transformers"])
sys.argv[0] = "east-ray"
from east_ray import cli
cli.main()
"""


def light(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", LIGHT, *arguments]
    shell = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"} | environment
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env=shell)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_version_and_the_completion_of_a_shell_need_none_of_the_heavy_libraries() -> None:
    assert light("--version") == f"{__version__}\n"
    script = light("--show-completion", "bash")
    assert "complete -o default -F _east_ray_completion east-ray" in script
    completing = {"_EAST_RAY_COMPLETE": "complete_bash", "COMP_WORDS": "east-ray we", "COMP_CWORD": "1"}
    assert light(**completing).split() == ["weigh"]


def test_config_prints_every_setting_with_its_meaning() -> None:
    result = east_ray("config", "jobs/quickstart.yaml", "weighting.exponent=1.5")
    assert result.returncode == 0
    assert "  exponent: 1.5\n" in result.stdout
    assert "# > 1 sharpens, between 0 and 1 flattens" in result.stdout


#: The command line with one verb more, which waits.
WAITING = """
import signal, sys, time
from east_ray import cli
from east_ray.config import InputError
from east_ray.config.files import load
from east_ray.ray_cluster import check_resources
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
@cli.app.command()
def wait():
    print("waiting", flush=True)
    time.sleep(60)
sys.argv[1:] = ["wait"]
cli.main()
"""


@pytest.mark.parametrize(
    ("number", "times", "said"),
    [(signal.SIGTERM, 1, "stopped"), (signal.SIGTERM, 20, "stopped"), (signal.SIGINT, 1, "interrupted")],
)
def test_an_interrupted_verb_says_so_once_and_ends_with_the_signals_code(
    number: signal.Signals, times: int, said: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    for _ in range(times):  # `timeout` sends it to the process and to its group
        process.send_signal(number)
        time.sleep(0.002)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err == f"error: {said}; the same command goes on where this one stopped\n"


def test_a_second_sigterm_does_not_disturb_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout` sends it to the process and to its group; rich, which tells of it, cannot be entered twice."""
    handlers: list[Any] = []
    monkeypatch.setattr(endings, "say_error", lambda said: handlers.append(signal.getsignal(signal.SIGTERM)))
    monkeypatch.setattr(endings.logging, "disable", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt):
            endings.terminate(signal.SIGTERM, None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handlers == [signal.SIG_IGN]


def test_doctor_finds_this_environment_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))  # the one of this machine is its owner's affair
    result = east_ray("doctor")
    assert result.returncode == 0, result.stdout
    assert "vllm" in result.stdout and "torch" in result.stdout and "GPU" in result.stdout
    cores = len(os.sched_getaffinity(0))
    assert f"on the CPU, {max(1, cores - 1)} of {cores} cores" in " ".join(result.stdout.split())
    unreachable = east_ray("doctor", "--address", "127.0.0.1:1")
    assert unreachable.returncode == 1 and "cannot join the Ray cluster at 127.0.0.1:1" in unreachable.stdout


def test_doctor_finds_a_token_that_others_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)

    def found() -> list[doctor.Finding]:
        return [finding for finding in doctor.examine(None) if finding.subject == "token"]

    assert not found()
    for path in (tmp_path / ".ray" / "auth_token", tmp_path / "another's token"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("secret")
        for mode in (0o644, 0o640, 0o602):
            path.chmod(mode)
            (finding,) = found()
            assert not finding.ok and f"(mode {mode:04o}): chmod 600 " in finding.detail
            command = finding.detail.rpartition(": ")[2]
        subprocess.run(shlex.split(command), check=True)  # what it says mends it
        (finding,) = found()
        assert finding.ok and str(path) in finding.detail
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "another's token"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jobs/none.yaml"], "jobs/none.yaml does not exist; expected a run directory or the YAML file"),
        (["jobs/quickstart.yaml", "sampling.n=3"], "sampling.n: unknown key"),
        (["jobs/quickstart.yaml", "--round", "7"], "--round 7: the run has rounds 0 to 0"),
    ],
)
def test_bad_commands(arguments: list[str], message: str) -> None:
    assert message in refused("sample", *arguments)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["questions.path=jobs/none.jsonl"], "questions.path: jobs/none.jsonl does not exist; expected a file"),
        (["model=jobs/none"], "model: 'jobs/none' is neither a folder"),
        (["training.num_workers=16"], "training.num_cpus_per_worker: 8 CPUs are needed in all, and this machine has 4"),
    ],
)
def test_what_a_run_cannot_have_is_said_before_anything_is_sampled(
    tmp_path: Path, overrides: list[str], message: str, local_ray: None
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        here("run", "jobs/quickstart.yaml", f"run_dir={tmp_path / 'run'}", *overrides)
    assert not (tmp_path / "run" / "round_0" / "samples").exists()


def test_a_cluster_that_does_not_answer_is_said(tmp_path: Path) -> None:
    override = "cluster.address=127.0.0.1:1"
    said = refused("run", "jobs/quickstart.yaml", f"run_dir={tmp_path / 'run'}", override)
    assert "cluster.address: cannot join the Ray cluster at 127.0.0.1:1" in said


def test_a_ray_that_does_not_start_in_time_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def late(**given: object) -> None:
        raise Exception(
            "The current node timed out during startup. This could happen because some of the raylet failed"
        )

    def other(**given: object) -> None:
        raise Exception("something else")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(InputError, match="Ray did not start in time: the machine is probably busy or out of memory"):
        connect(ClusterConfig(address="local"))
    monkeypatch.setattr(ray, "init", other)
    with pytest.raises(Exception, match="something else"):
        connect(ClusterConfig(address="local"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "engines.num_gpus_per_engine=1",
            "num_gpus_per_engine: 1 GPUs are needed in all, and this machine has 0",
        ),
        ('engines.env={VLLM_CPU_KVCACHE_SPACE: "90000"}', "lower engines.min_engines or VLLM_CPU_KVCACHE_SPACE"),
        ("engines.resources={sampler: 2}", "engines.resources: 2 samplers are needed in all, and this machine has 0"),
    ],
)
def test_a_machine_that_can_never_hold_the_run_is_said(override: str, message: str, local_ray: None) -> None:
    config = load(ROOT / "jobs" / "quickstart.yaml", [override])
    with pytest.raises(InputError, match=re.escape(message)):
        check_resources(config, print)


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("weigh", "has no sampling yet: run `east-ray sample` first"),
        ("train", "has no examples yet: run `east-ray weigh` first"),
        ("evaluate", "has no training yet: run `east-ray train` first"),
    ],
)
def test_a_stage_names_the_one_that_comes_before_it(verb: str, message: str, tmp_path: Path, local_ray: None) -> None:
    with pytest.raises(InputError, match=message):
        here(verb, "jobs/quickstart.yaml", f"run_dir={tmp_path / 'run'}")


@pytest.mark.parametrize("verb", ["run", "sample", "weigh", "train", "evaluate", "compare"])
def test_a_second_command_on_a_run_directory_says_who_works_there(verb: str, tmp_path: Path) -> None:
    with owning(str(tmp_path / "run"), "sample", print):
        with pytest.raises(
            InputError, match=r"run_dir: `east-ray sample` \(process \d+ on host .*--wait waits for its"
        ):
            here(verb, "jobs/compare_quickstart.yaml", f"run_dir={tmp_path / 'run'}")
        assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_command_with_wait_goes_on_when_the_other_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = threading.Event()

    def work() -> None:
        with owning(str(tmp_path / "run"), "sample", print):
            begun.set()
            time.sleep(2)

    first = threading.Thread(target=work)
    first.start()
    begun.wait()
    with pytest.raises(InputError, match="this is a comparison"):  # the first thing that `run` finds
        here("run", "jobs/compare_quickstart.yaml", f"run_dir={tmp_path / 'run'}", "--wait")
    assert not first.is_alive() and "waiting for its end" in capsys.readouterr().out
