"""What sampling has made durable: the parts that tasks write while they work, and the folder at rest.

    samples/tasks/part-*.parquet           finished tasks
    samples/pending/TASK/part-*.parquet    questions that a task in flight has finished, or begun
    samples/pending/TASK/asked-*.json      keys of the questions that one attempt at the task has asked
    samples/pending/TASK/died-*.json       keys of those in flight when the engine failed, with the engine's error
    samples/part-*.parquet                 all samples, once the stage has ended; later stages read nothing else

A task is attempted again after its actor, engine or node has died, and a node that was cut off may still be at work on
the first attempt. So every file of an attempt has a unique name, but for the part of a finished task, which is named
after the task: two attempts write the same questions there, and the last to write wins. What is written after the stage
has ended is ignored. A row is found by its key, which covers all that its responses depend on. Of several rows of a key
the one with most responses counts (standing.py).
"""

import contextlib
import functools
import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray.records import SAMPLES, SET_ASIDE
from east_ray.sampling.standing import longest
from east_ray.storage import Folder

#: A folder at rest has parts of about this size; the keys of so many parts are read at the same time.
_PART_BYTES, _READS_AT_ONCE = 128 << 20, 32
#: Rows of samples that are counted at once.
_ROWS_AT_ONCE = 256

Row = dict[str, Any]


def sample_key(model: str, identity: str, settings: Mapping[str, Any], question: Mapping[str, Any]) -> str:
    """What identifies the samples of a question: 32 hex digits over all that they depend on.

    `model` is the name under which it is asked, `identity` what the backend says of it (the model's fingerprint, which
    covers tokenizer and chat template), and `settings` are those of the prompt and of decoding.
    """
    text = json.dumps([model, identity, settings, question["question_id"], question["question"]], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class TaskJournal:
    """The durable progress of one task: some questions, asked of one pool."""

    def __init__(self, folder: Folder, set_aside: Folder, asked: Sequence[str]) -> None:
        """`asked` tells this task from all others: the keys of its questions, or more than these."""
        name = hashlib.blake2b("\n".join(asked).encode(), digest_size=16).hexdigest()
        self.task = name
        self._folder, self._set_aside, self._pending = folder / "tasks", set_aside, folder / "pending" / name
        self._of_all = folder
        self._part = f"part-{name}.parquet"
        #: How often each question was asked by an attempt that did not finish, together with others and alone.
        self.deaths: Counter[str] = Counter()
        self.deaths_alone: Counter[str] = Counter()
        #: The last error of an engine that died with the question in flight, by key.
        self.errors: dict[str, str] = {}

    def open(self, begun_in: Mapping[str, str] | None = None) -> tuple[bool, list[Row], list[Row]]:
        """What earlier attempts have written: (whether the task is finished, rows of SAMPLES, rows of SET_ASIDE).

        Of each question there is one row, that with most responses; `stopped_because` is None where more were asked
        for. `begun_in` are questions that were begun before this task was, by key: the part with their row.
        """
        if self._folder.has(self._part):
            rows = self._folder.read(SAMPLES, parts=[f"{self._folder.path}/{self._part}"]).to_pylist()
            aside = [part for part in self._set_aside.parts() if part.endswith(f"/{self._part}")]
            return True, rows, self._set_aside.read(SET_ASIDE, parts=aside).to_pylist()
        for name in self._pending.names():
            if name.startswith(("asked-", "died-")):
                found = json.loads(self._pending.read_text(name) or "{}")
                (self.deaths_alone if found.get("alone") else self.deaths).update(found.get("asked", []))
                self.errors.update(dict.fromkeys(found.get("died", []), found.get("error", "")))
        begun, rows = begun_in or {}, dict[str, Row]()
        before = self._of_all.read(SAMPLES, parts=sorted(set(begun.values())))
        before = before.filter(pc.is_in(before["key"], pa.array(begun, pa.string())))
        for row in pa.concat_tables([before, self._pending.read(SAMPLES)]).to_pylist():
            if len(row["responses"]) >= len(rows.get(row["key"], row)["responses"]):
                rows[row["key"]] = row
        return False, list(rows.values()), []

    def ask(self, keys: Sequence[str], *, alone: bool = False) -> None:
        """Note that these are about to be asked. If this attempt is killed, the next one finds the note."""
        self._note("asked", {"asked": list(keys), "alone": alone})

    def died(self, keys: Sequence[str], error: str) -> None:
        """Note that the engine failed with these in flight."""
        self._note("died", {"died": list(keys), "error": error})

    def add(self, rows: Sequence[Row]) -> None:
        """Make questions durable that have ended, or have responses and get more, while the task goes on."""
        self._pending.write_part(pa.Table.from_pylist(list(rows), SAMPLES))

    def close(self, rows: Sequence[Row], aside: Sequence[Row]) -> None:
        """Make the whole task durable, and remove its pending files."""
        if aside:
            self._set_aside.write_part(pa.Table.from_pylist(list(aside), SET_ASIDE), self._part)
        self._folder.write_part(pa.Table.from_pylist(list(rows), SAMPLES), self._part)
        self._pending.clear()

    def _note(self, kind: str, content: Mapping[str, Any]) -> None:
        self._pending.write_text(f"{kind}-{uuid.uuid4().hex}.json", json.dumps(content))


def adopt(folder: Folder) -> None:
    """Move what the tasks of a killed driver had finished to the parts of finished tasks.

    An actor of that driver may still be at work, so only the files that were read are removed.
    """
    for task in (folder / "pending").names():
        for part in (folder / "pending" / task).parts():
            try:
                rows = folder.read(SAMPLES, parts=[part])
            except FileNotFoundError:  # its task has just finished
                continue
            (folder / "tasks").write_part(rows)  # rows that are there already are dropped by `tidy`
            folder.remove([part])


def keys_by_part(folder: Folder) -> dict[str, list[str | None]]:
    """The keys in each part of a folder of samples, or of ``set_aside/``, whether the stage is running or at rest.

    Given samples have none. Many parts are read at once, since a remote file system answers slowly.
    """
    parts = [*folder.parts(), *(folder / "tasks").parts()]
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        columns = pool.map(lambda part: folder.read(SAMPLES, ["key"], [part])["key"].to_pylist(), parts)
        return dict(zip(parts, columns, strict=True))


def distinct(keys: Mapping[str, Sequence[str | None]]) -> set[str]:
    """The distinct keys in some parts."""
    return {key for of_part in keys.values() for key in of_part if key is not None}


def tidy(
    folder: Folder, wanted: Collection[str], found: Mapping[str, Sequence[str | None]] | None = None
) -> Iterator[dict[str, int]]:
    """Bring a folder of samples to rest: one row of each wanted key, nothing else, in few parts.

    `found` is what `keys_by_part` returned, if it was called before. Yields numbers of each new part: num_questions,
    num_responses, num_tokens, num_truncated, and num_dropped, rows of other settings or of a key that was there twice.
    Tasks of Ray Data do the work; if it is killed at any moment, it can be done again.
    """
    import ray.data

    groups = _groups(folder, wanted, longest(folder, keys_by_part(folder) if found is None else found))
    if not groups:
        return
    merge = functools.partial(_merge, folder)
    yield from ray.data.from_items(groups, override_num_blocks=len(groups)).map(merge).iter_rows()
    for leftover in (folder / "pending", folder / "tasks"):
        with contextlib.suppress(OSError):  # an attempt that was cut off may be writing there; nobody reads it
            leftover.clear()


def _groups(
    folder: Folder, wanted: Collection[str], found: Mapping[str, Sequence[str | None]]
) -> list[dict[str, list[Any]]]:
    """Parts that become one, each with the numbers of the rows to drop."""
    sizes = folder.part_sizes() | (folder / "tasks").part_sizes()
    groups: list[dict[str, list[Any]]] = []
    seen: set[str | None] = set()
    room = 0
    for part, keys in found.items():
        if sizes[part] > room or not groups:
            groups.append({"parts": [], "drop": []})
            room = _PART_BYTES
        room -= sizes[part]
        drop = []
        for index, key in enumerate(keys):
            if key in seen or key not in wanted:
                drop.append(index)
            seen.add(key)
        groups[-1]["parts"].append(part)
        groups[-1]["drop"].append(drop)
    return groups


def _merge(folder: Folder, group: Mapping[str, list[Any]]) -> dict[str, int]:
    """Make one part of a group's, unless it is one already, and count what is in it."""
    parts = group["parts"]
    num_dropped = sum(len(drop) for drop in group["drop"])
    whole = parts[0]
    if num_dropped or len(parts) > 1 or whole.startswith((folder / "tasks").path):
        name = hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
        whole = f"{folder.path}/part-{name}.parquet"
        if not folder.has(f"part-{name}.parquet"):  # else an earlier attempt at this has written it
            tables = []
            for part, drop in zip(parts, map(set, group["drop"]), strict=True):
                table = folder.read(SAMPLES, parts=[part])
                keep = pa.array([index not in drop for index in range(table.num_rows)], pa.bool_())
                tables.append(table.filter(keep))
            folder.write_part(pa.concat_tables(tables), f"part-{name}.parquet")
        folder.remove(parts)
    sums = Counter({"num_questions": 0, "num_responses": 0, "num_tokens": 0, "num_truncated": 0})
    counted = [f"responses.list.element.{name}" for name in ("num_tokens", "finish_reason")]
    for batch in folder.batches(counted, [whole], max_rows=_ROWS_AT_ONCE):
        responses = batch["responses"].flatten()
        sums["num_questions"] += batch.num_rows
        sums["num_responses"] += len(responses)
        sums["num_tokens"] += pc.sum(responses.field("num_tokens")).as_py() or 0
        sums["num_truncated"] += pc.sum(pc.equal(responses.field("finish_reason"), "length")).as_py() or 0
    return {**sums, "num_dropped": num_dropped}
