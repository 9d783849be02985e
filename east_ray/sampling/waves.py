"""The waves of a budget: every question gets the pilot, then each gets what the plan of the wave gives it.

    waves/part-0001.parquet     the first wave after the pilot: key, and num_responses that its question has after it

A wave is planned from the sizes of the clusters of all responses that are durable, once nothing of the wave before is
missing. The plan is stored before anything of it is asked, so that a run that was killed goes on with the same plan. A
plan without a question is the end.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from east_ray.answers.grading import Grader
from east_ray.config.adaptive import BudgetConfig
from east_ray.records import QUESTIONS, SAMPLES, Stopped
from east_ray.sampling.adaptive import allocate
from east_ray.sampling.deciding import cluster_sizes
from east_ray.storage import Folder
from east_ray.storage.tasks import part_groups, run_tasks

PLAN = pa.schema([SAMPLES.field("key"), SAMPLES.field("num_responses")])
#: Rows of samples that are in memory at once, and compressed bytes that one task of the cluster reads.
_ROWS_AT_ONCE, _TASK_BYTES = 64, 32 << 20
_COLUMNS = ["key", *QUESTIONS.names, "responses.list.element.text"]


def wanted_numbers(waves: Folder, keys: pa.ChunkedArray, budget: BudgetConfig) -> pa.Array:
    """How many responses the question of each key is to have now: the pilot's, or those of the last wave with it."""
    numbers = np.full(len(keys), budget.pilot, np.int32)
    for wave in waves.parts():
        plan = waves.read(PLAN, parts=[wave])
        place = pc.index_in(keys, plan["key"].combine_chunks()).to_numpy()
        is_in = ~np.isnan(place)
        numbers[is_in] = plan["num_responses"].to_numpy()[place[is_in].astype(np.int64)]
    return pa.array(numbers)


def is_planned_to_the_end(waves: Folder) -> bool:
    """Whether the last plan gives nothing more."""
    return any(waves.read(PLAN, ["key"], [wave]).num_rows == 0 for wave in waves.parts()[-1:])


def plan_wave(waves: Folder, samples: Folder, stands: pa.Table, budget: BudgetConfig, grader: Grader) -> None:
    """Plan the next wave, and store it. `stands` says where every question stands: `standing.standing`."""
    num_left = budget.total - (pc.sum(stands["num_responses"]).as_py() or 0)
    stopped = stands["stopped_because"].cast(pa.string())
    rows = stands.filter(pc.is_in(stopped, pa.array([Stopped.BUDGET, Stopped.ALL], pa.string())))
    plan = PLAN.empty_table()
    if num_left > 0 and rows.num_rows:
        keys, sizes = sizes_of(samples, rows, grader)
        numbers = np.array([sum(one) for one in sizes], np.int32)
        after = (numbers + allocate(sizes, num_left, budget.max)).astype(np.int32)
        plan = pa.table([pa.array(keys, pa.string()), pa.array(after)], schema=PLAN).filter(pa.array(after > numbers))
    waves.write_part(plan, f"part-{len(waves.parts()) + 1:04d}.parquet")


def sizes_of(samples: Folder, stands: pa.Table, grader: Grader) -> tuple[list[str], list[list[int]]]:
    """Keys, sorted, and the sizes of the clusters of their responses. Tasks of the cluster read the responses.

    `stands` is what `standing.standing` gives, or some of its rows.
    """

    def work(task: Mapping[str, Any]) -> dict[str, Any]:
        keys: list[str] = []
        sizes: list[list[int]] = []
        for part, of_part in zip(task["parts"], task["keys"], strict=True):
            for batch in samples.batches(_COLUMNS, [part], max_rows=_ROWS_AT_ONCE):
                for row in batch.filter(pc.is_in(batch["key"], pa.array(of_part, pa.string()))).to_pylist():
                    keys.append(row["key"])
                    sizes.append(cluster_sizes(row, grader))
        return {"keys": keys, "sizes": sizes}

    found: dict[str, list[int]] = {}
    for done in run_tasks(work, _tasks(samples, stands)):
        for key, of_one in zip(done["keys"], done["sizes"], strict=True):
            if sum(of_one) > sum(found.get(key, ())):  # a late attempt may have written a shorter row beside it
                found[key] = list(map(int, of_one))
    keys = sorted(found)  # a plan must not depend on the order in which tasks end
    return keys, [found[key] for key in keys]


def _tasks(samples: Folder, stands: pa.Table) -> list[dict[str, list[Any]]]:
    """The parts of these rows, each with their keys, in tasks of about the same size."""
    keys: dict[str, list[str]] = {}
    for part, key in zip(stands["part"].to_pylist(), stands["key"].to_pylist(), strict=True):
        keys.setdefault(part, []).append(key)
    sizes = samples.part_sizes() | (samples / "tasks").part_sizes()
    tasks: list[dict[str, list[Any]]] = []
    room = 0
    for part in sorted(keys):
        if sizes[part] > room or not tasks:
            tasks.append({"parts": [], "keys": []})
            room = _TASK_BYTES
        room -= sizes[part]
        tasks[-1]["parts"].append(part)
        tasks[-1]["keys"].append(keys[part])
    return tasks


# -------------------------------------------------------------------------------------------------- what it has come to


def numbers_by_reason(samples: Folder) -> list[dict[str, Any]]:
    """How many questions have how many responses, why, and the tokens of these: the rows of a folder at rest, counted.

    Rows with stopped_because, num_responses, num_questions and num_tokens, in this order; texts are not read.
    """
    columns = ["stopped_because", "num_responses", "responses.list.element.num_tokens"]

    def count(parts: Sequence[str]) -> dict[str, Any]:
        tables = [_COUNTED.empty_table()]
        for batch in samples.batches(columns, parts, max_rows=_ROWS_AT_ONCE):
            ends = np.cumsum(batch["responses"].value_lengths().to_numpy(zero_copy_only=False))
            tokens = pc.fill_null(batch["responses"].flatten().field("num_tokens"), 0).to_numpy(zero_copy_only=False)
            until = np.concatenate([[0], np.cumsum(tokens, dtype=np.int64)])[np.concatenate([[0], ends])]
            values = [batch["stopped_because"], batch["num_responses"], np.ones(batch.num_rows, int), np.diff(until)]
            tables.append(pa.table(list(map(pa.array, values)), schema=_COUNTED))
        return {"rows": _summed(pa.concat_tables(tables)).to_pylist()}

    found = [row for done in run_tasks(count, part_groups(samples)) for row in done["rows"]]
    counted: list[dict[str, Any]] = _summed(pa.Table.from_pylist(found, _COUNTED)).to_pylist()
    return counted


_COUNTED = pa.schema(
    [SAMPLES.field("stopped_because"), SAMPLES.field("num_responses")]
    + [pa.field(name, pa.int64()) for name in ("num_questions", "num_tokens")]
)


def _summed(table: pa.Table) -> pa.Table:
    names, summed = _COUNTED.names[:2], _COUNTED.names[2:]
    groups = table.group_by(names).aggregate([(name, "sum") for name in summed]).rename_columns(_COUNTED.names)
    return groups.sort_by([(name, "ascending") for name in names])
