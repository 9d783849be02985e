"""Rows as a program has them -> dictionaries of plain Python values, as in a file of JSONL -> records.SAMPLES."""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from east_ray.config import InputError, SamplesConfig
from east_ray.config.base import hint
from east_ray.questions.stage import CanUse
from east_ray.reading.fields import names_in
from east_ray.reading.tables import plain_rows
from east_ray.sampling.given.grouping import DEALT, whole_questions
from east_ray.sampling.given.rows import optional_names
from east_ray.sampling.given.stage import questions_elsewhere
from east_ray.sampling.given.tasks import Rules, chunks, of_groups, of_rows, samples_of
from east_ray.storage.rounds import listed

#: What `weigh` takes: dictionaries, a pandas DataFrame, a datasets.Dataset, a pyarrow Table or what Arrow can read.
Rows: TypeAlias = Iterable[Mapping[str, Any]] | pa.Table

_ROWS_AT_ONCE = 64


def dictionaries(rows: Rows) -> Iterator[dict[str, Any]]:
    """Each row as a dictionary. Raises InputError for what is no rows.

    Missing values of pandas are None; arrays and numbers of numpy are lists and numbers.

    >>> list(dictionaries(pa.table({"question": ["1 + 1?"], "responses": [["2", "3"]]})))
    [{'question': '1 + 1?', 'responses': ['2', '3']}]
    """
    # Whoever has such rows has imported their library; no other caller should wait for it.
    pandas, datasets = (sys.modules.get(name) for name in ("pandas", "datasets"))
    if pandas is not None and isinstance(rows, pandas.DataFrame):
        if not rows.columns.is_unique:
            raise InputError(f"rows: two columns are called {rows.columns[rows.columns.duplicated()][0]!r}")
        if short := [name for name, kind in rows.dtypes.items() if kind in (np.float16, np.float32)]:
            rows = rows.astype(dict.fromkeys(short, str)).astype(dict.fromkeys(short, float))
        rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    if datasets is not None and isinstance(rows, datasets.Dataset):
        for table in rows.with_format("arrow").iter(_ROWS_AT_ONCE):
            yield from plain_rows(table)
    elif hasattr(rows, "__arrow_c_stream__"):
        for batch in pa.RecordBatchReader.from_stream(rows):
            for begin in range(0, batch.num_rows, _ROWS_AT_ONCE):
                yield from plain_rows(batch.slice(begin, _ROWS_AT_ONCE))
    else:
        yield from _dictionaries(rows)


def _dictionaries(rows: Any) -> Iterator[dict[str, Any]]:
    if isinstance(rows, str | PathLike):
        raise InputError(f"rows: found the path {str(rows)!r}; expected rows; `east-ray weigh` reads files")
    if isinstance(rows, Mapping):
        parts = ", ".join(map(repr, list(rows)[:5]))
        raise InputError(f"rows: found a {type(rows).__name__} of {parts}; expected rows: a list of dictionaries")
    try:
        found = iter(rows)
    except TypeError:
        raise InputError(f"rows: found {type(rows).__name__}; expected rows: a list of dictionaries") from None
    for number, row in enumerate(found, start=1):
        if not isinstance(row, Mapping):
            raise InputError(f"rows: row {number} is {type(row).__name__}; expected a dictionary")
        yield _plain(row)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = list(value) if value.ndim else value[()]
    if isinstance(value, np.generic):  # the shortest decimal of a float of 32 bits, which has another value in 64
        value = float(str(value)) if isinstance(value, np.floating) else value.item()
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


@dataclass
class Samples:
    """The questions of some rows with their responses, and the rows that are set aside."""

    tables: list[pa.Table] = field(default_factory=list)
    """records.SAMPLES, a bounded number of rows each."""
    numbers: dict[str, int] = field(default_factory=dict)
    """question_id -> the first of its rows, from 1."""
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    """Of records.SET_ASIDE, with the number of its `row`."""
    counts: Counter[str] = field(default_factory=Counter)
    """As `samples_of` counts."""


def read_samples(rows: Rows, config: SamplesConfig, name: str, can_use: CanUse) -> Samples:
    """Read rows as `east-ray weigh` reads those of a file called `name`.

    Raises InputError if no row can be used, two questions have one id, or a name in the configuration is in no row.
    """
    rules = Rules(config, can_use, questions_elsewhere(config, can_use))
    look_up, found, dealt, first = rules.lookup(), Samples(), list[pa.Table](), dict[str, Any]()

    def numbered() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in enumerate(dictionaries(rows), start=1):
            first.update({} if first else row)
            yield number, row

    ids = list[tuple[str, int]]()
    for some in chunks(samples_of(numbered(), config, name, 0, found.counts, found.set_aside)):
        if config.groups:
            dealt.append(pa.Table.from_pylist(some, DEALT))
        else:
            ids += [(sample["question_id"], sample["row"]) for sample in some]
            found.tables.append(of_rows(rules, some, look_up, found.set_aside))
    if dealt:
        gathered = whole_questions(pa.concat_tables(dealt))
        ids = list(zip(gathered.samples["question_id"].to_pylist(), gathered.rows.to_pylist(), strict=True))
        found.tables.append(of_groups(rules, gathered, look_up, found.set_aside))
    aside = {one["row"] for one in found.set_aside}
    found.numbers = {question_id: number for question_id, number in ids if number not in aside}
    for problem in _problems(found, config, first):
        raise InputError(problem)
    return found


def _problems(found: Samples, config: SamplesConfig, first: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the rows or the configuration, as all rows together show, a sentence each."""
    wheres = ", ".join(f"{name}: {value!r}" for name, value in config.where.items())
    if found.counts["num_unwanted"] and not found.counts["num_wanted"]:
        yield f"samples.where: no row has {wheres}"
    if not found.numbers:
        reasons = listed(Counter(str(one["reason"]) for one in found.set_aside)) or "there is no row"
        details = "".join(f"; {one['detail']}" for one in found.set_aside[:1])
        yield f"rows: no question can be used: {reasons}{details}"
    for setting, name, key in optional_names(config):
        if not found.counts[key]:
            yield f"samples.{setting}: no row has {name!r}{hint(name, list(names_in(first)))}"
    times = Counter(name for table in found.tables for name in table["question_id"].to_pylist())
    for name, number in times.most_common(1):
        if number > 1:
            yield (
                f"samples.id_column: {number} questions have the name {name!r}; expected a name of its own for each, "
                f"or samples.group_by: {config.id_column} to put their rows together"
            )
