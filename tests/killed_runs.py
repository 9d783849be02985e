"""Commands that are killed with SIGKILL while they work, and the same commands again, to their end."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def command(*arguments: str) -> list[str]:
    """The command line of `east-ray` with these arguments."""
    return [sys.executable, "-m", "east_ray", *arguments]


def kill_once(arguments: Sequence[str], seen: Callable[[], bool], seconds: float = 240) -> None:
    """Begin a command, kill its process when something is seen, and wait for what it began to end with it."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + seconds
            while not seen():
                if process.poll() is not None:
                    said.seek(0)
                    raise AssertionError(f"the command ended before it could be killed: {said.read()}")
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()


def finish(arguments: Sequence[str], seconds: float = 580) -> str:
    """Run a command to its end; returns what it says."""
    result = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
