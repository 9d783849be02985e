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
import itertools
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from east_ray.records import SAMPLES, SET_ASIDE, Stopped
from east_ray.storage import Folder

#: A folder at rest has parts of about this size; so many parts are read at the same time.
_PART_BYTES, _READS_AT_ONCE = 128 << 20, 32
#: Rows of samples that are counted at once.
_ROWS_AT_ONCE = 256
#: Of the responses: what is counted, and the least that says how many there are.
_COUNTED = [f"responses.list.element.{name}" for name in ("num_tokens", "finish_reason")]

#: What `stored_keys` tells of each row of a folder: as little as can be, since there may be millions.
STORED = pa.schema(
    [
        pa.field("part", pa.dictionary(pa.int32(), pa.string())),  # path of the Parquet file
        pa.field("key", pa.string()),
        pa.field("num_responses", pa.int32()),
        pa.field("stopped_because", pa.dictionary(pa.int32(), pa.string())),
    ]
)

Row = dict[str, Any]


def sample_key(model: str, identity: str, settings: Mapping[str, Any], question: Mapping[str, Any]) -> str:
    """What identifies the samples of a question: 32 hex digits over all that they depend on.

    `model` is the name under which it is asked, `identity` what the backend says of it (the model's fingerprint, which
    covers tokenizer and chat template), and `settings` are those of the prompt and of decoding.
    """
    return next(sample_keys(model, identity, settings, [question]))


def sample_keys(
    model: str, identity: str, settings: Mapping[str, Any], questions: Iterable[Mapping[str, Any]]
) -> Iterator[str]:
    """`sample_key` of each question. What all have in common is written and hashed once."""
    common = json.dumps([model, identity, settings], sort_keys=True).removesuffix("]")
    hashed = hashlib.blake2b(common.encode(), digest_size=16)
    for question in questions:
        own = hashed.copy()
        own.update(f", {json.dumps(question['question_id'])}, {json.dumps(question['question'])}]".encode())
        yield own.hexdigest()


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
        names = self._pending.names()
        for name in names:
            if name.startswith(("asked-", "died-")):
                found = json.loads(self._pending.read_text(name) or "{}")
                (self.deaths_alone if found.get("alone") else self.deaths).update(found.get("asked", []))
                self.errors.update(dict.fromkeys(found.get("died", []), found.get("error", "")))
        begun, rows = begun_in or {}, dict[str, Row]()
        parts = [f"{self._pending}/{name}" for name in names if name.endswith(".parquet")]
        before = self._of_all.read(SAMPLES, parts=sorted(set(begun.values())))
        before = before.filter(pc.is_in(before["key"], pa.array(begun, pa.string())))
        for row in pa.concat_tables([before, self._pending.read(SAMPLES, parts=parts)]).to_pylist():
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
    """Move what the tasks of a killed driver had finished to the parts of finished tasks, many tasks at once.

    An actor of that driver may still be at work, so only the files that were read are removed.
    """
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        for _ in pool.map(functools.partial(_adopt_task, folder), (folder / "pending").names()):
            pass  # an error in one of them is raised here


def _adopt_task(folder: Folder, task: str) -> None:
    for part in (folder / "pending" / task).parts():
        try:
            rows = folder.read(SAMPLES, parts=[part])
        except FileNotFoundError:  # its task has just finished
            continue
        (folder / "tasks").write_part(rows)  # rows that are there already are dropped by `tidy`
        folder.remove([part])


def stored_keys(folder: Folder, known: pa.Table | None = None) -> pa.Table:
    """A row (STORED) for each of a folder of samples, or of ``set_aside/``, whether the stage is running or at rest.

    What `known`, the result of an earlier call, has of a part is not read again. Rows without a key have null. Many
    parts are read at once, since a remote file system answers slowly.
    """
    parts = [*folder.parts(), *(folder / "tasks").parts()]
    known = STORED.empty_table() if known is None else known
    named = known["part"].combine_chunks()
    known = known.filter(pc.is_in(named.dictionary, pa.array(parts, pa.string())).take(named.indices))
    are_known = set(named.dictionary.to_pylist())
    unread = [part for part in parts if part not in are_known]
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        read = list(pool.map(functools.partial(_keys_of_part, folder), unread))
    numbers = np.repeat(np.arange(len(read), dtype=np.int32), [table.num_rows for table in read])
    named = pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(unread, pa.string()))
    of_parts = pa.concat_tables([pa.schema(list(STORED)[1:]).empty_table(), *read])
    return pa.concat_tables([known, of_parts.add_column(0, STORED.field("part"), named)]).unify_dictionaries()


def _keys_of_part(folder: Folder, part: str) -> pa.Table:
    """Key, number of responses and why there are no more; a row of ``set_aside/`` has no responses."""
    table = folder.read_fields(part, ["key", "stopped_because", _COUNTED[0]])
    names, nothing = table.column_names, pa.nulls(table.num_rows, pa.int32())
    count = pc.list_value_length(table["responses"]) if "responses" in names else nothing
    key, stopped = (table[name] if name in names else nothing.cast(pa.string()) for name in ("key", "stopped_because"))
    return pa.table([key, count, stopped.dictionary_encode()], schema=pa.schema(list(STORED)[1:]))


def best_rows(
    keys: pa.ChunkedArray, num_responses: pa.ChunkedArray, stopped_because: pa.ChunkedArray | None = None
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """The number of the row of each key with the most responses; rows without a key are none.

    Of several with as many, one whose engine gave no more counts before one that a budget gave no more, and that before
    one that does not say why it has no more, if `stopped_because` is given; or else the first.

    >>> best_rows(pa.chunked_array([["b", "a", "b", None, "a"]]), pa.chunked_array([[8, 8, 32, 8, 8]])).tolist()
    [1, 2]
    """
    if stopped_because is not None:
        reasons = stopped_because.cast(pa.string())
        is_final = pc.fill_null(pc.not_equal(reasons, Stopped.BUDGET), False)  # a later wave may have ended otherwise
        finality = pc.add(pc.is_valid(reasons).cast(pa.int32()), is_final.cast(pa.int32()))
        num_responses = pc.add(pc.multiply(num_responses, 3), finality)
    rows = pa.table({"key": keys, "num_responses": num_responses, "row": np.arange(len(keys))})
    rows = rows.filter(pc.is_valid(rows["key"]))
    if len(rows["key"].unique()) < rows.num_rows:
        rows = rows.sort_by([("key", "ascending"), ("num_responses", "descending"), ("row", "ascending")])
        ordered = rows["key"].combine_chunks()
        is_first = np.ones(len(ordered), bool)
        is_first[1:] = pc.not_equal(ordered[1:], ordered[:-1]).to_numpy(zero_copy_only=False)
        rows = rows.filter(pa.array(is_first))
    return np.sort(rows["row"].to_numpy())


def tidy(folder: Folder, wanted: pa.Array | pa.ChunkedArray, found: pa.Table | None = None) -> Iterator[dict[str, int]]:
    """Bring a folder of samples to rest: of each wanted key the row with most responses, nothing else, in few parts.

    `found` is what `stored_keys` returned, if it was called before. Yields numbers of each new part: num_questions,
    num_responses, num_tokens, num_truncated, and num_dropped, rows of other settings or of a key that was there twice.
    Tasks of Ray Data do the work; if it is killed at any moment, it can be done again.
    """
    import ray.data

    groups = _groups(folder, wanted, stored_keys(folder) if found is None else found)
    if groups:
        merge = functools.partial(_merge, folder)
        yield from ray.data.from_items(groups, override_num_blocks=len(groups)).map(merge).iter_rows()
    for leftover in (folder / "pending", folder / "tasks"):
        with contextlib.suppress(OSError):  # an attempt that was cut off may be writing there; nobody reads it
            leftover.clear()


def _groups(folder: Folder, wanted: pa.Array | pa.ChunkedArray, found: pa.Table) -> list[dict[str, Any]]:
    """Parts that become one: their paths, of each the keys to drop, and the numbers of rows that are kept and dropped.

    Keys and no row numbers, since a late attempt at a task may write its part once more, in another order.
    """
    sizes = folder.part_sizes() | (folder / "tasks").part_sizes()
    asked = np.flatnonzero(pc.is_in(found["key"], pc.unique(wanted)).to_numpy())
    is_kept = np.zeros(found.num_rows, bool)
    is_kept[asked[best_rows(*(found[name].take(asked) for name in STORED.names[1:]))]] = True
    named = found["part"].combine_chunks()
    numbers, names = named.indices.to_numpy(), named.dictionary.to_pylist()
    begins = np.flatnonzero(np.diff(numbers, prepend=-1))
    groups: list[dict[str, Any]] = []
    room = 0
    for begin, end in itertools.pairwise([*begins.tolist(), len(numbers)]):
        part, kept = names[numbers[begin]], is_kept[begin:end]
        if sizes[part] > room or not groups:
            groups.append({"parts": [], "drop": [], "num_kept": 0, "num_dropped": 0})
            room = _PART_BYTES
        room -= sizes[part]
        drop = []
        if not kept.all():
            keys = np.array(found["key"].slice(begin, end - begin).to_pylist(), dtype=object)
            drop = sorted(set(keys[~kept]) - set(keys[kept]) - {None})
        groups[-1]["parts"].append(part)
        groups[-1]["drop"].append(drop)
        groups[-1]["num_kept"] += int(kept.sum())
        groups[-1]["num_dropped"] += int((~kept).sum())
    return groups


def _merge(folder: Folder, group: Mapping[str, Any]) -> dict[str, int]:
    """Make one part of a group's, unless it is one already, and count what is in it."""
    parts, tasks = group["parts"], (folder / "tasks").path
    sums = Counter({"num_questions": 0, "num_responses": 0, "num_tokens": 0, "num_truncated": 0})
    sums["num_dropped"] = group["num_dropped"]
    whole = parts[0]
    if group["num_dropped"] or len(parts) > 1 or whole.startswith(tasks):
        name = hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
        whole = f"{folder.path}/part-{name}.parquet"
        if group["num_kept"] and not folder.has(f"part-{name}.parquet"):  # else an earlier attempt has written it
            folder.write_part(_kept(folder, parts, group["drop"]), f"part-{name}.parquet")
        # To remove a file of an object store takes three requests, and to clear a folder two for a thousand files.
        folder.remove(parts if folder.is_local else [part for part in parts if not part.startswith(tasks)])
    for batch in folder.batches(_COUNTED, [whole], max_rows=_ROWS_AT_ONCE) if group["num_kept"] else ():
        responses = batch["responses"].flatten()
        sums["num_questions"] += batch.num_rows
        sums["num_responses"] += len(responses)
        sums["num_tokens"] += pc.sum(responses.field("num_tokens")).as_py() or 0
        sums["num_truncated"] += pc.sum(pc.equal(responses.field("finish_reason"), "length")).as_py() or 0
    return dict(sums)


def _kept(folder: Folder, parts: Sequence[str], drop: Sequence[Sequence[str]]) -> pa.Table:
    """The rows of these parts without those of keys to drop, and of a key that is there twice the best."""

    def read(part: str, of_part: Sequence[str]) -> pa.Table:
        table = folder.read(SAMPLES, parts=[part])
        return table.filter(pc.invert(pc.is_in(table["key"], pa.array(of_part, pa.string())))) if of_part else table

    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        table = pa.concat_tables(pool.map(read, parts, drop))
    best = np.zeros(table.num_rows, bool)
    best[best_rows(table["key"], pc.list_value_length(table["responses"]), table["stopped_because"])] = True
    return table if best.all() else table.filter(pa.array(best))
