"""Work on the parts of a folder, spread over the cluster as Ray tasks; only numbers travel back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from east_ray.storage.folders import Folder

#: Compressed bytes that one task reads: enough that its start does not count, and up to 256 tasks for a folder.
_MIN_TASK_BYTES, _MAX_TASK_BYTES, _NUM_TASKS = 1 << 18, 32 << 20, 256


def part_groups(folder: Folder) -> list[list[str]]:
    """The folder's parts, some for each task; the same groups on every machine."""
    sizes = folder.part_sizes()
    wanted = num_bytes = min(_MAX_TASK_BYTES, max(_MIN_TASK_BYTES, sum(sizes.values()) // _NUM_TASKS))
    groups: list[list[str]] = []
    for part, size in sizes.items():
        if num_bytes >= wanted:
            groups.append([])
            num_bytes = 0
        groups[-1].append(part)
        num_bytes += size
    return groups


def run_tasks(work: Callable[[Any], Mapping[str, Any]], tasks: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Call `work` on each task, a JSON-like value, and yield the row of numbers that it gives, as tasks end."""
    if len(tasks) == 1:  # in this process: Ray's workers would take longer to start than most tasks take
        yield dict(work(tasks[0]))
    elif tasks:
        import ray.data

        rows = [{"task": task} for task in tasks]
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            lambda batch: pa.Table.from_pylist([dict(work(row["task"])) for row in batch.to_pylist()]),
            batch_size=1,
            batch_format="pyarrow",
        )
        yield from results.iter_rows()
