"""Where each question stands while an adaptive run is sampled, and what is left to be asked.

A question that got more responses has several rows, in several parts. The row with most responses has all that the
others have, and it alone counts.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from east_ray.records import Stopped
from east_ray.sampling.journal import STORED, best_rows

#: A question that has ended so gets no more responses, whatever a budget would give it.
_FOR_GOOD = [Stopped.ENGINE_REFUSED, Stopped.ENGINE_DIED]


def standing(stored: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
    """Of each of these keys that has rows, the row with most responses, of those that `journal.stored_keys` has found.

    Of two with as many, the one that says why it ended, for good if one does.
    """
    stored = stored.filter(pc.is_in(stored["key"], pc.unique(keys)))
    return stored.take(best_rows(*(stored[name] for name in STORED.names[1:])))


def unfinished(
    asked: pa.Table, stands: pa.Table, set_aside: pa.ChunkedArray, numbers: pa.Array | None = None
) -> pa.Table:
    """The requests that are not done, with what they have: num_had responses, in the part begun_in (null: nowhere).

    `stands` is what `standing` gives, and `set_aside` are keys that are not asked again. `numbers` are the responses
    that each request is to have (column num_wanted); without them, a question is done when its row says why it ended.
    Those that are begun in one part stand together.
    """
    place = pc.index_in(asked["key"], stands["key"].combine_chunks())
    had, stopped, part = (stands[name].take(place) for name in ("num_responses", "stopped_because", "part"))
    had, stopped = pc.fill_null(had, 0), stopped.cast(pa.string())
    asked = asked.append_column("num_had", had).append_column("begun_in", part.cast(pa.string()))
    if numbers is None:
        is_done = pc.is_valid(stopped)
    else:
        asked = asked.append_column("num_wanted", numbers)
        is_done = pc.or_(pc.greater_equal(had, numbers), pc.is_in(stopped, pa.array(_FOR_GOOD, pa.string())))
    is_done = pc.or_(is_done, pc.is_in(asked["key"], set_aside.unique()))
    left = asked.append_column("order", pa.array(np.arange(asked.num_rows))).filter(pc.invert(is_done))
    return left.sort_by([("begun_in", "ascending"), ("order", "ascending")]).drop_columns(["order"])
