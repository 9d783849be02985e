"""Where each question of a folder of samples stands while it is being sampled.

A question that got more responses has several rows, in several parts. The row with most responses has all that the
others have, and it alone counts.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from east_ray.records import SAMPLES, Stopped
from east_ray.storage import Folder

#: So many parts are read at the same time.
_READS_AT_ONCE = 32
_COLUMNS = ["key", "num_responses", "stopped_because"]
_STANDING = pa.schema(
    [*(SAMPLES.field(name) for name in _COLUMNS), pa.field("part", pa.string()), pa.field("place", pa.int64())]
)
#: A question that has ended so gets no more responses, whatever a budget would give it.
_FOR_GOOD = [Stopped.ENGINE_REFUSED, Stopped.ENGINE_DIED]


def standing(folder: Folder) -> pa.Table:
    """Of each key, the row with most responses: key, num_responses, stopped_because, part, and its place in the part.

    Of two with as many, the one that says why it ended. In the order of the keys; texts are not read.
    """

    def read(part: str) -> pa.Table:
        found = folder.read(SAMPLES, _COLUMNS, [part])
        where = [pa.array([part] * found.num_rows, pa.string()), pa.array(np.arange(found.num_rows))]
        return pa.table([*found.columns, *where], schema=_STANDING)

    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        found = list(pool.map(read, [*folder.parts(), *(folder / "tasks").parts()]))
    every = pa.concat_tables([_STANDING.empty_table(), *found])
    every = every.filter(pc.is_valid(every["key"]))
    order = [("key", "ascending"), ("num_responses", "descending"), ("stopped_because", "ascending")]
    every = every.take(pc.sort_indices(every, sort_keys=order))
    keys = every["key"].combine_chunks()
    is_first = pa.concat_arrays([pa.array([True] * min(1, len(keys)), pa.bool_()), pc.not_equal(keys[1:], keys[:-1])])
    return every.filter(is_first)


def longest(folder: Folder, found: Mapping[str, Sequence[str | None]]) -> dict[str, list[str | None]]:
    """`journal.keys_by_part` with None in place of the key of every row that a longer one has made needless."""
    keys = [key for of_part in found.values() for key in of_part if key is not None]
    if len(set(keys)) == len(keys):
        return {part: list(of_part) for part, of_part in found.items()}
    places: dict[str, set[int]] = {part: set() for part in found}
    stands = standing(folder)
    for part, place in zip(stands["part"].to_pylist(), stands["place"].to_pylist(), strict=True):
        places.setdefault(part, set()).add(place)
    return {
        part: [key if place in places[part] else None for place, key in enumerate(of_part)]
        for part, of_part in found.items()
    }


def unfinished(
    asked: pa.Table, stands: pa.Table, set_aside: Collection[str], numbers: Sequence[int] | None = None
) -> pa.Table:
    """The requests that are not done, with what they have: num_had responses, in the part begun_in (null: nowhere).

    `set_aside` are keys that are not asked again. `numbers` are the responses that each request is to have (column
    num_wanted); without them, a question is done when its row says why it ended. Those that are begun in one part stand
    together.
    """
    place = pc.index_in(asked["key"], stands["key"].combine_chunks())
    had, stopped = pc.fill_null(stands["num_responses"].take(place), 0), stands["stopped_because"].take(place)
    asked = asked.append_column("num_had", had).append_column("begun_in", stands["part"].take(place))
    if numbers is None:
        is_done = pc.is_valid(stopped)
    else:
        wanted = pa.chunked_array([pa.array(numbers, pa.int32())])
        asked = asked.append_column("num_wanted", wanted)
        is_done = pc.or_(pc.greater_equal(had, wanted), pc.is_in(stopped, pa.array(_FOR_GOOD, pa.string())))
    is_done = pc.or_(is_done, pc.is_in(asked["key"], pa.array(set_aside, pa.string())))
    order = pa.array(np.arange(asked.num_rows))
    left = asked.append_column("order", order).filter(pc.invert(is_done))
    return left.sort_by([("begun_in", "ascending"), ("order", "ascending")]).drop_columns(["order"])
