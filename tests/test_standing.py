"""Where questions stand: through attempts, kills and new drivers, the row with most responses is found and kept."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from east_ray.records import SAMPLES, Stopped
from east_ray.sampling.journal import TaskJournal, adopt, stored_keys, tidy
from east_ray.sampling.standing import standing, unfinished
from east_ray.storage import Folder, locate

KEYS = "abcdef"


def row(key: str, number: int, stopped: str | None = None) -> dict[str, Any]:
    """A row with so many responses, of which each says whose it is."""
    responses = [{"text": f"{key} {i}", "num_tokens": 1, "finish_reason": "stop"} for i in range(number)]
    told = {"question_id": f"q-{key}", "question": "?", "model": "base", "key": key, "stopped_because": stopped}
    return dict.fromkeys(SAMPLES.names) | told | {"responses": responses, "num_responses": number}


def requests(keys: str) -> pa.Table:
    rows = [{"question_id": f"q-{key}", "question": "?", "key": key} for key in keys]
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in ("question_id", "question", "key")]))


def stand(samples: Folder, keys: str = KEYS) -> pa.Table:
    return standing(stored_keys(samples), pa.chunked_array([list(keys)]))


@pytest.fixture
def samples(tmp_path: Path) -> Folder:
    return Folder(*locate(str(tmp_path / "samples")))


#: One after the other: an attempt at a task of some questions that adds responses, finishes the task or is killed.
ATTEMPTS = st.lists(
    st.tuples(
        st.sets(st.sampled_from(KEYS), min_size=1, max_size=4),
        st.lists(st.dictionaries(st.sampled_from(KEYS), st.integers(1, 5), min_size=1), max_size=3),
        st.sampled_from(["killed", "finished", "driver killed"]),
    ),
    max_size=6,
)


@settings(max_examples=60)
@given(ATTEMPTS)
def test_nothing_durable_is_lost_whatever_ends_when(attempts: list[tuple[set[str], list[dict[str, int]], str]]) -> None:
    with TemporaryDirectory() as folder:
        samples, durable = Folder(*locate(folder)), dict[str, int]()
        waves = 0
        for keys, added, end in attempts:
            stands = {one["key"]: one for one in stand(samples).to_pylist()}
            begun = {key: one["part"] for key, one in stands.items()}
            waves += end != "killed"  # a task that is attempted again has the same name
            journal = TaskJournal(samples, samples / "aside", [*sorted(keys), f"{waves}"])
            _, found, _ = journal.open({key: begun[key] for key in keys if key in begun})
            has = {one["key"]: len(one["responses"]) for one in found}
            for key in keys & begun.keys():
                assert has[key] >= stands[key]["num_responses"]
            for more in added:
                mine = {key: has.get(key, 0) + number for key, number in more.items() if key in keys}
                has |= mine
                journal.add([row(key, number) for key, number in mine.items()])
            if end == "finished":
                journal.close([row(key, number, Stopped.ALL) for key, number in has.items()], [])
            durable |= {key: max(number, durable.get(key, 0)) for key, number in has.items()}
            if end == "driver killed":
                adopt(samples)
        adopt(samples)
        stands = {one["key"]: one for one in stand(samples).to_pylist()}
        assert {key: one["num_responses"] for key, one in stands.items()} == durable
        for key, one in stands.items():
            there = samples.read(SAMPLES, parts=[one["part"]]).to_pylist()
            assert (key, one["num_responses"]) in [(row["key"], len(row["responses"])) for row in there]


@pytest.mark.parametrize("reasons", list(itertools.permutations([None, "budget", "engine_died"])))
def test_of_rows_with_as_many_responses_the_one_that_ended_for_good_counts(
    samples: Folder, local_ray: None, reasons: Sequence[str | None]
) -> None:
    for number, reason in enumerate(reasons):
        (samples / "tasks").write_part(pa.Table.from_pylist([row("a", 4, reason)], SAMPLES), f"part-{number}.parquet")
    (samples / "tasks").write_part(pa.Table.from_pylist([row("a", 2, "all")], SAMPLES), "part-9.parquet")
    assert stand(samples).select(["num_responses", "stopped_because"]).to_pylist() == [
        {"num_responses": 4, "stopped_because": "engine_died"}
    ]
    assert [one["num_dropped"] for one in tidy(samples, pa.array(["a"]))] == [3]
    assert samples.read(SAMPLES)["stopped_because"].to_pylist() == ["engine_died"]


def test_rest_has_the_row_with_most_responses_and_no_other(samples: Folder, local_ray: None) -> None:
    parts = [
        [row("a", 2), row("b", 8, "all")],
        [row("b", 2), row("a", 8, "all")],
        [row("a", 4), row("c", 2, "unanimous")],
    ]
    for number, rows in enumerate(parts):
        (samples / "tasks").write_part(pa.Table.from_pylist(rows, SAMPLES), f"part-{number}.parquet")
    (done,) = tidy(samples, pa.array(list("abc")))
    assert (done["num_questions"], done["num_responses"], done["num_dropped"]) == (3, 18, 3)
    rows = samples.read(SAMPLES).to_pylist()
    assert {one["key"]: len(one["responses"]) for one in rows} == {"a": 8, "b": 8, "c": 2}
    assert len(samples.parts()) == 1


def test_what_is_left_says_what_each_question_has_and_where(samples: Folder) -> None:
    rows = [[row("a", 8, "unanimous"), row("b", 8)], [row("c", 4, "budget"), row("d", 4, "engine_died")]]
    for number, of_part in enumerate(rows):
        samples.write_part(pa.Table.from_pylist(of_part, SAMPLES), f"part-{number}.parquet")
    columns = ["key", "num_had", "begun_in"]
    part = f"{samples.path}/part-0.parquet"
    by_rule = unfinished(requests("fbae"), stand(samples), pa.chunked_array([["e"]])).select(columns).to_pylist()
    assert by_rule == [{"key": "b", "num_had": 8, "begun_in": part}, {"key": "f", "num_had": 0, "begun_in": None}]
    none = pa.chunked_array([], pa.string())
    by_number = unfinished(requests("cdfb"), stand(samples), none, pa.array([6, 6, 4, 8], pa.int32()))
    assert by_number.select(["key", "num_had", "num_wanted"]).to_pylist() == [
        {"key": "c", "num_had": 4, "num_wanted": 6}, {"key": "f", "num_had": 0, "num_wanted": 4}
    ]  # fmt: skip
