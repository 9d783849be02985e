"""What sampling has made durable: the parts that tasks write while they work, and the folder at rest.

    samples/tasks/part-*.parquet           finished tasks
    samples/pending/TASK/part-*.parquet    questions that a task in flight has finished
    samples/pending/TASK/asked-*.json      keys of the questions that one attempt at the task has asked
    samples/pending/TASK/died-*.json       the same of an attempt that outlived its engine, with the engine's error
    samples/part-*.parquet                 all of it, once the stage has ended; nothing else is read by later stages

A task may be attempted again after its actor, engine or node has died, even while a node that was cut off goes on with
it. So every file that an attempt writes has a name of its own, and only what is whole has the task's: two attempts
write the same questions there, and whichever is last stands. What an attempt writes after the stage has ended is not
looked at. A row is found by its key, which says all that its responses depend on; `tidy` leaves each key once.
"""

import contextlib
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
from east_ray.storage import Folder

#: A folder at rest has parts of about this size.
_PART_BYTES = 128 << 20

Row = dict[str, Any]


def sample_key(model: str, model_fingerprint: str, settings: Mapping[str, Any], question: Mapping[str, Any]) -> str:
    """What identifies the samples of a question: 32 hex digits over all that they depend on.

    `model` is the name under which it is asked, `settings` are those of the prompt and of decoding; what renders the
    prompt (tokenizer and chat template) is part of the model's fingerprint.
    """
    text = json.dumps(
        [model, model_fingerprint, settings, question["question_id"], question["question"]], sort_keys=True
    )
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class TaskJournal:
    """The durable progress of one task: some questions, asked of one pool of engines."""

    def __init__(self, folder: Folder, set_aside: Folder, keys: Sequence[str]) -> None:
        name = hashlib.blake2b("\n".join(keys).encode(), digest_size=16).hexdigest()
        self._folder, self._set_aside, self._pending = folder / "tasks", set_aside, folder / "pending" / name
        self._part = f"part-{name}.parquet"
        self._has_files = False
        #: How often each question was asked by an attempt that did not come to its end, with others and alone.
        self.deaths: Counter[str] = Counter()
        self.deaths_alone: Counter[str] = Counter()
        #: The last error of an engine that died with the question in flight, by key.
        self.errors: dict[str, str] = {}

    def open(self) -> tuple[bool, list[Row], list[Row]]:
        """What earlier attempts have left: (whether the task is finished, rows of SAMPLES, rows of SET_ASIDE)."""
        if self._folder.has(self._part):
            rows = self._folder.read(SAMPLES, parts=[f"{self._folder.path}/{self._part}"]).to_pylist()
            aside = [part for part in self._set_aside.parts() if part.endswith(f"/{self._part}")]
            return True, rows, self._set_aside.read(SET_ASIDE, parts=aside).to_pylist()
        names = self._pending.names()
        self._has_files = bool(names)
        for name in names:
            if name.startswith(("asked-", "died-")):
                found = json.loads(self._pending.read_text(name) or "{}")
                (self.deaths_alone if found.get("alone") else self.deaths).update(found.get("asked", []))
                self.errors.update(dict.fromkeys(found.get("died", []), found.get("error", "")))
        rows = {row["key"]: row for row in self._pending.read(SAMPLES).to_pylist()}
        return False, list(rows.values()), []

    def ask(self, keys: Sequence[str], *, alone: bool = False) -> None:
        """Note that these are about to be asked, so that the next attempt knows should this one end in silence."""
        self._note("asked", {"asked": list(keys), "alone": alone})

    def died(self, keys: Sequence[str], error: str) -> None:
        """Note that the engine failed with these in flight."""
        self._note("died", {"died": list(keys), "error": error})

    def add(self, rows: Sequence[Row]) -> None:
        """Make finished questions durable before the whole task is."""
        self._has_files = True
        self._pending.write_part(pa.Table.from_pylist(list(rows), SAMPLES))

    def close(self, rows: Sequence[Row], aside: Sequence[Row]) -> None:
        """Make the whole task durable, and remove what stood for it until now."""
        if aside:
            self._set_aside.write_part(pa.Table.from_pylist(list(aside), SET_ASIDE), self._part)
        self._folder.write_part(pa.Table.from_pylist(list(rows), SAMPLES), self._part)
        if self._has_files:
            self._pending.clear()

    def _note(self, kind: str, content: Mapping[str, Any]) -> None:
        self._has_files = True
        self._pending.write_text(f"{kind}-{uuid.uuid4().hex}.json", json.dumps(content))


def adopt(folder: Folder) -> None:
    """Take over what the tasks of a driver that was killed had finished.

    An actor of that driver may still be at work, so what was read is removed, and nothing else.
    """
    for task in (folder / "pending").names():
        for part in (folder / "pending" / task).parts():
            try:
                rows = folder.read(SAMPLES, parts=[part])
            except FileNotFoundError:  # its task has come to its end
                continue
            (folder / "tasks").write_part(rows)  # some may be there already: `tidy` will see to it
            folder.remove([part])


def _keys(folder: Folder, schema: pa.Schema) -> dict[str, list[str | None]]:
    """The keys in each part of a folder; many at once, since a remote file system takes its time for each."""
    parts = folder.parts()
    with ThreadPoolExecutor(32) as pool:
        columns = pool.map(lambda part: folder.read(schema, ["key"], [part])["key"].to_pylist(), parts)
        return dict(zip(parts, columns, strict=True))


def sampled_keys(folder: Folder) -> set[str]:
    """Keys of all questions whose samples are there, of a stage at rest or in the middle."""
    parts = _keys(folder, SAMPLES) | _keys(folder / "tasks", SAMPLES)
    return {key for keys in parts.values() for key in keys if key is not None}


def set_aside_keys(set_aside: Folder) -> set[str]:
    """Keys of all questions that were set aside while sampling."""
    return {key for keys in _keys(set_aside, SET_ASIDE).values() for key in keys if key is not None}


def tidy(folder: Folder, wanted: Collection[str]) -> Iterator[dict[str, int]]:
    """Bring a folder of samples to rest: each wanted key once, nothing else, in few parts.

    Yields numbers of each new part: num_questions, num_responses, num_tokens, num_truncated, and num_dropped, rows of
    other settings than these or there twice. Tasks of Ray Data do the work; killed at any moment, it can be done again.
    """
    import ray.data

    tasks = folder / "tasks"
    seen: set[str] = set()
    groups: list[dict[str, Any]] = []
    room = 0
    sizes = folder.part_sizes() | tasks.part_sizes()
    for part, keys in (_keys(folder, SAMPLES) | _keys(tasks, SAMPLES)).items():
        if sizes[part] > room or not groups:
            groups.append({"parts": [], "drop": []})
            room = _PART_BYTES
        room -= sizes[part]
        drop = []
        for index, key in enumerate(keys):
            if key in seen or key not in wanted:
                drop.append(index)
            seen.add(key or "")
        groups[-1]["parts"].append(part)
        groups[-1]["drop"].append(drop)
    if not groups:
        return

    def rewrite(group: dict[str, Any]) -> dict[str, int]:
        parts = group["parts"]
        num_dropped = sum(len(drop) for drop in group["drop"])
        whole = parts[0]
        if num_dropped or len(parts) > 1 or whole.startswith(tasks.path):
            name = hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
            whole = f"{folder.path}/part-{name}.parquet"
            if not folder.has(f"part-{name}.parquet"):  # else this task was here before
                tables = []
                for part, drop in zip(parts, map(set, group["drop"]), strict=True):
                    table = folder.read(SAMPLES, parts=[part])
                    keep = pa.array([index not in drop for index in range(table.num_rows)], pa.bool_())
                    tables.append(table.filter(keep))
                folder.write_part(pa.concat_tables(tables), f"part-{name}.parquet")
            folder.remove(parts)
        table = folder.read(SAMPLES, parts=[whole])
        responses = pc.list_flatten(table["responses"])
        return {
            "num_questions": table.num_rows,
            "num_responses": len(responses),
            "num_tokens": pc.sum(pc.struct_field(responses, "num_tokens")).as_py() or 0,
            "num_truncated": pc.sum(pc.equal(pc.struct_field(responses, "finish_reason"), "length")).as_py() or 0,
            "num_dropped": num_dropped,
        }

    yield from ray.data.from_items(groups, override_num_blocks=len(groups)).map(rewrite).iter_rows()
    for leftover in (folder / "pending", tasks):
        with contextlib.suppress(OSError):  # an attempt that was cut off may be writing there; nobody reads it
            leftover.clear()
