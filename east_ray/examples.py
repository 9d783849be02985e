"""samples/ -> examples/ with weights and discarded/ with reasons: CPU tasks spread over the cluster.

Each task reads some parts of ``samples/``, 64 questions at a time, and writes its judgements as one part; only signals
and reasons travel, some ten bytes a question. When the normalizer is known, a second pass gives the judged questions
their weights. Nothing else grows with the number of questions, and a task that Ray runs again replaces its own part.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from east_ray.records import DISCARDED, EXAMPLES, JUDGED
from east_ray.selection import SelectionRules, judge
from east_ray.storage import Folder
from east_ray.weighting import Normalizer

#: What `judge` reads of a row of ``samples/``.
_READ = ["question_id", "question", "reference_answer", "responses.list.element.text",
         "responses.list.element.finish_reason"]  # fmt: skip
_QUESTIONS_AT_ONCE = 64
#: Compressed bytes of the samples that a task judges: enough that its start does not count, and up to 256 tasks.
_MIN_TASK_BYTES, _MAX_TASK_BYTES, _NUM_TASKS = 1 << 18, 32 << 20, 256


def judge_samples(samples: Folder, judged: Folder, rules: SelectionRules) -> Iterator[dict[str, Any]]:
    """Write a row of records.JUDGED for each sampled question into the parts of `judged`.

    Yields for each task: num_questions; signals, those of the questions that are kept; reasons, those of the others.
    """

    def work(task: pa.Table) -> pa.Table:
        (row,) = task.to_pylist()
        table = _judged(samples, row["parts"], rules)
        judged.write_part(table, row["name"])
        kept = pc.is_null(table["reason"])
        signals, reasons = table["signal"].filter(kept), table["reason"].drop_null()
        return pa.table(
            {
                "num_questions": [table.num_rows],
                "signals": pa.array([signals.to_pylist()], pa.list_(pa.float64())),
                "reasons": pa.array([reasons.to_pylist()], pa.list_(pa.string())),
            }
        )

    yield from spread(work, part_groups(samples))


def weigh_judged(judged: Folder, examples: Folder, discarded: Folder, normalizer: Normalizer | None) -> Iterator[int]:
    """Write each judged question into `examples`, with its weight, or into `discarded`; yields numbers of questions.

    `normalizer` is None if no question was kept.
    """

    def work(task: pa.Table) -> pa.Table:
        (row,) = task.to_pylist()
        (part,) = row["parts"]
        table = pq.read_table(part, filesystem=judged.filesystem)
        if (dropped := discarded_rows(table)).num_rows:
            discarded.write_part(dropped, row["name"])
        if normalizer is not None and (kept := weighted_rows(table, normalizer)).num_rows:
            examples.write_part(kept, row["name"])
        return pa.table({"num_questions": [table.num_rows]})

    for counts in spread(work, [[part] for part in judged.parts()]):
        yield int(counts["num_questions"])


def weighted_rows(judged: pa.Table, normalizer: Normalizer) -> pa.Table:
    """The kept questions of records.JUDGED with their weights, as records.EXAMPLES."""
    kept = judged.filter(pc.is_null(judged["reason"]))
    weights = normalizer.weight(kept["signal"].to_numpy().astype(np.float64))
    return kept.append_column("weight", pa.array(weights, pa.float64())).select(EXAMPLES.names).cast(EXAMPLES)


def discarded_rows(judged: pa.Table) -> pa.Table:
    """The other questions of records.JUDGED, as records.DISCARDED."""
    return judged.filter(pc.is_valid(judged["reason"])).select(DISCARDED.names).cast(DISCARDED)


def _judged(samples: Folder, parts: Sequence[str], rules: SelectionRules) -> pa.Table:
    tables = [JUDGED.empty_table()]
    for batch in samples.batches(_READ, parts, max_rows=_QUESTIONS_AT_ONCE):
        tables.append(pa.Table.from_pylist([judge(row, rules) for row in batch.to_pylist()], schema=JUDGED))
    return pa.concat_tables(tables)


def part_groups(folder: Folder) -> list[list[str]]:
    """The folder's parts, some for each task; the same groups on every machine."""
    sizes = folder.part_sizes()
    wanted = min(_MAX_TASK_BYTES, max(_MIN_TASK_BYTES, sum(sizes.values()) // _NUM_TASKS))
    groups: list[list[str]] = []
    num_bytes = wanted
    for part, size in sizes.items():
        if num_bytes >= wanted:
            groups.append([])
            num_bytes = 0
        groups[-1].append(part)
        num_bytes += size
    return groups


def spread(work: Any, groups: Sequence[Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Run `work` on each group of parts as a task of its own; yields the one row that it gives."""
    import ray.data

    if groups:
        tasks = [{"name": f"part-{number:06d}.parquet", "parts": list(group)} for number, group in enumerate(groups)]
        yield from (
            ray.data.from_items(tasks, override_num_blocks=len(tasks))
            .map_batches(work, batch_size=1, batch_format="pyarrow")
            .iter_rows()
        )
