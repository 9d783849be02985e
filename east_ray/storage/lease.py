"""Who works in a run directory: a claim with a heartbeat, so that two commands never work through one run together.

Every command that writes into a run directory first writes a claim, a file of its own with a name that nobody else has.
It owns the directory once a listing that it made after this shows no other claim that counts. Of two commands, the one
whose claim was written second sees the first one's in its listing, so both never own it. No file system has to create
or lock anything atomically for that: it has to list what has been written, as local disks, object stores and shared
file systems do. Where both see each other before either owns, the smaller name waits and the larger one withdraws.

An owner rewrites its claim every few seconds, with a higher number each time. Whether it is alive is decided

* on its own machine by its process, at once, so that a killed run can go on immediately;
* elsewhere by whether the number changes while one looks, for 30 s. Clocks of two hosts are never compared.

A claim that no longer counts is named in the next owner's claim, and removed. An owner looks for that at every beat,
and soon after its machine was suspended: then it ends its process. An owner that cannot reach the folder goes on: it
cannot write its results there either, and once it can again, it looks first.
"""

import datetime
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from east_ray import last_words
from east_ray.config import InputError
from east_ray.storage.folders import Folder, locate

#: The folder of claims in a run directory.
CLAIMS = ".owners"
#: Seconds between two beats, and without a change after which an owner on another machine counts as dead.
BEAT_S, DEAD_AFTER_S = 5.0, 30.0
#: Seconds between two looks of a command that waits, and of one whose claim and another's are both new.
_LOOK_S, _DECIDE_S = 1.0, 0.1


@dataclass(frozen=True)
class Claim:
    """What a command says of itself in its file."""

    verb: str
    host: str
    machine: str
    """Equal for processes that can see one another: of one boot of one machine, in one container. "" if unknown."""
    pid: int
    started: str
    """When the process began, in the kernel's own ticks: another process may have got the same number since."""
    since: str
    beat: int = 0
    """0 as long as it is not decided whether the command owns the directory."""
    replaces: tuple[str, ...] = ()
    """Claims that no longer count, because their owners are dead."""

    def __str__(self) -> str:
        return f"`east-ray {self.verb}` (process {self.pid} on host {self.host}, since {self.since})"


def _own_claim(verb: str) -> Claim:
    now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    return Claim(verb, socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()) or "", now)


def _machine() -> str:
    with suppress(OSError):  # no Linux: then only the heartbeat tells
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    return ""


def _started(pid: int) -> str | None:
    """When a process of this machine began; None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]  # a killed process may stay in the table until its parent looks


def _parsed(text: str) -> Claim:
    """A claim. What cannot be read, as while it is written where a file cannot be moved as a whole, is undecided."""
    try:
        stored = json.loads(text)
        return Claim(**stored | {"replaces": tuple(stored["replaces"])})
    except (ValueError, TypeError, KeyError):
        return Claim("…", "unknown", "", 0, "", "now")


class _Claims:
    """The claims in a folder, as seen by one command that looks at them again and again."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[int, float]] = {}  # name -> the beat, and when it was seen first
        self._moved: set[str] = set()  # whose beat has changed before our eyes

    def write(self, name: str, claim: Claim) -> None:
        self._folder.write_text(name, json.dumps(asdict(claim)))

    def remove(self, *names: str) -> None:
        self._folder.remove([f"{self._folder}/{name}" for name in names])

    def read(self) -> dict[str, Claim]:
        """Name -> claim."""
        found = {}
        for name in self._folder.names():
            if (text := self._folder.read_text(name)) is not None:  # it may just have been withdrawn
                found[name] = _parsed(text)
        return found

    def look(self, own: str = "") -> tuple[dict[str, Claim], dict[str, Claim], dict[str, Claim]]:
        """The claims but one's own: those of living owners, those of which it is not known yet, and the dead ones."""
        found, now = self.read(), time.monotonic()
        replaced = {name for claim in found.values() for name in claim.replaces}
        living, unsure, dead = dict[str, Claim](), dict[str, Claim](), dict[str, Claim]()
        for name, claim in found.items():
            beat, since = self._seen.get(name, (claim.beat, now))
            if beat != claim.beat:
                self._moved.add(name)
                since = now
            self._seen[name] = claim.beat, since
            is_here = claim.machine != "" and claim.machine == _machine()
            if name == own:
                continue
            if name in replaced or (is_here and _started(claim.pid) != claim.started):
                dead[name] = claim
            elif is_here or (name in self._moved and now - since < DEAD_AFTER_S):
                living[name] = claim
            else:
                (unsure if now - since < DEAD_AFTER_S else dead)[name] = claim
        return living, unsure, dead


@contextmanager
def owning(
    run_dir: str,
    verb: str,
    say: Callable[[str], None],
    *,
    wait: bool = False,
    lost: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Own a run directory while the block runs.

    Raises InputError if another command works there; `wait` waits for its end, and `say` gets a line that says so. If
    the directory is taken over meanwhile, `lost` gets a sentence; by default it is shown and the process ends.
    """
    filesystem, path = locate(run_dir, is_output=True)
    claims = _Claims(Folder(filesystem, path.rstrip("/")) / CLAIMS)
    try:
        name, claim = _take(claims, _own_claim(verb), path, say, wait=wait)
    except OSError as error:
        raise InputError(f"run_dir: cannot write to {path} ({error})") from error
    ended = threading.Event()
    beating = threading.Thread(
        target=_beat, args=(claims, name, claim, path, ended, lost or last_words.end), daemon=True, name="lease"
    )
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join(BEAT_S)  # no longer: a store that is away may hold it for a minute
        with suppress(OSError):  # then the next command on this machine sees that this process has ended
            claims.remove(name)


def _take(claims: _Claims, claim: Claim, path: str, say: Callable[[str], None], *, wait: bool) -> tuple[str, Claim]:
    """The name and the claim of the command, once it owns the directory."""
    said = ""
    while True:
        living, unsure, dead = claims.look()
        if living and not wait:
            raise InputError(
                f"run_dir: {next(iter(living.values()))} works in {path}; --wait waits for its end, or choose another "
                "run_dir"
            )
        if living or unsure:
            other = next(iter((living or unsure).values()))
            for_what = "waiting for its end" if living else f"looking for {DEAD_AFTER_S:.0f} s whether it is alive"
            if (line := f"{other} has {path}: {for_what}") != said:
                say(line)
                said = line
            time.sleep(_LOOK_S)
            continue
        name = f"{uuid.uuid4().hex}.json"
        claim = replace(claim, replaces=tuple(dead))
        claims.write(name, claim)
        if _wins(claims, name):
            claim = replace(claim, beat=1)
            claims.write(name, claim)
            claims.remove(*dead)
            return name, claim
        claims.remove(name)


def _wins(claims: _Claims, name: str) -> bool:
    """Whether the command of this new claim owns the directory. False if another does, or has the better claim."""
    while True:
        living, unsure, _ = claims.look(name)
        rivals = living | unsure
        if not rivals:
            return True
        if any(rival.beat > 0 or other < name for other, rival in rivals.items()):
            return False
        time.sleep(_DECIDE_S)  # the others withdraw, unless one has seen no other claim


def _beat(
    claims: _Claims, name: str, claim: Claim, path: str, ended: threading.Event, lost: Callable[[str], None]
) -> None:
    """Rewrite the claim until the block has ended, or another command has taken the directory over."""
    last = time.time()
    # In short steps and by the wall clock, since other clocks stand still while the machine is suspended.
    while not ended.wait(min(1.0, BEAT_S)):
        if abs(time.time() - last) < BEAT_S:
            continue
        try:
            found = claims.read()
            heirs = [other for other in found.values() if name in other.replaces]
            if heirs or name not in found:
                lost(
                    f"run_dir: this process has not been seen at work in {path} for {DEAD_AFTER_S:.0f} s, as when its "
                    f"machine is suspended, and no longer has it: {heirs[0]} has taken it over"
                    if heirs
                    else f"run_dir: somebody has removed {path} or its folder {CLAIMS} while this process worked there"
                )
                return
            claim = replace(claim, beat=claim.beat + 1)
            claims.write(name, claim)
        except (OSError, InputError):  # the store is away, or its disk full: what works there will say so
            continue
        last = time.time()
