"""Rows as a program has them -> dictionaries of plain Python values, as a row of a JSONL file is one."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from east_ray.config import InputError

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
        rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    if datasets is not None and isinstance(rows, datasets.Dataset):
        for table in rows.with_format("arrow").iter(_ROWS_AT_ONCE):
            yield from table.to_pylist()
    elif hasattr(rows, "__arrow_c_stream__"):
        for batch in pa.RecordBatchReader.from_stream(rows):
            for begin in range(0, batch.num_rows, _ROWS_AT_ONCE):
                yield from batch.slice(begin, _ROWS_AT_ONCE).to_pylist()
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
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
