"""Rows of a question are put together whatever the number of tasks, files and buckets between them."""

import tempfile
from itertools import groupby
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from east_ray.sampling.given.grouping import DEALT, Dealer, bucket_groups, gather, hash_of, number_of_buckets
from east_ray.storage import Folder, locate


def dealt(group: str, file: int, row: int, texts: list[str], **changes: Any) -> dict[str, Any]:
    responses = [{"text": text, "finish_reason": "stop"} for text in texts]
    asked = {"question_id": f"{file}-{row}", "question": f"{group}?", "reference_answer": "4", "model": "given"}
    return asked | {"responses": responses, "group": hash_of(group), "file": file, "row": row} | changes


ROWS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 3), st.lists(st.text("xy", max_size=3), max_size=3)),
    max_size=30,
)


@given(ROWS, st.integers(1, 7), st.integers(1, 5), st.randoms())
@settings(max_examples=25)
def test_groups_are_those_of_the_sorted_rows(rows: Any, num_buckets: int, rows_at_once: int, random: Any) -> None:
    rows = [dealt(group, file, row, texts) for row, (group, file, texts) in enumerate(rows)]
    wanted = {}
    ordered = sorted(rows, key=lambda one: (one["file"], one["row"]))
    for group, some in groupby(sorted(ordered, key=lambda one: one["group"]), key=lambda one: one["group"]):
        first, *others = some
        texts = [response["text"] for one in (first, *others) for response in one["responses"]]
        wanted[first["question_id"]] = (first["question"], texts)
        assert group == first["group"]
    random.shuffle(rows)
    with tempfile.TemporaryDirectory() as path:
        folder = Folder(*locate(path))
        sizes = [0] * num_buckets
        for start in range(0, len(rows), rows_at_once):
            dealer = Dealer(folder, f"task-{start}", num_buckets)
            for one in rows[start : start + rows_at_once]:
                dealer.add(pa.Table.from_pylist([one], schema=DEALT))
                if random.random() < 0.3:
                    dealer.write()
            dealer.write()
            sizes = [old + new for old, new in zip(sizes, dealer.bucket_bytes.tolist(), strict=True)]
        found = [gather(folder, *buckets) for buckets in bucket_groups(sizes)]
    got = [one for some in found for one in some.samples.to_pylist()]
    assert len(got) == len(wanted) and not any(any(some.contradicting.to_pylist()) for some in found)
    assert {
        one["question_id"]: (one["question"], [response["text"] for response in one["responses"]]) for one in got
    } == wanted
    assert all(one["num_responses"] == len(one["responses"]) for one in got)


def test_rows_that_contradict_each_other_are_told() -> None:
    rows = [
        dealt("a", 0, 0, ["x"]), dealt("a", 0, 1, [], question="other?"),
        dealt("b", 0, 2, ["x"], question="", reference_answer=None), dealt("b", 0, 3, ["y"]),
        dealt("c", 0, 4, []), dealt("c", 1, 0, [], reference_answer="5"),
        dealt("d", 0, 5, [], question=""),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as path:
        dealer = Dealer(Folder(*locate(path)), "task", 1)
        dealer.add(pa.Table.from_pylist(rows, schema=DEALT))
        dealer.write()
        found = gather(Folder(*locate(path)), 0, 1)
    told = [["question", "a?", "other?"], None, ["reference_answer", "4", "5"], None]
    assert found.contradicting.to_pylist() == told
    assert found.samples["question"].to_pylist() == ["a?", "b?", "c?", ""]
    assert found.samples["reference_answer"].to_pylist() == ["4", "4", "4", "4"]
    assert found.rows.to_pylist() == [0, 2, 4, 5]


def test_buckets_are_as_many_as_memory_asks_for() -> None:
    assert number_of_buckets(1000, 1000) == 16
    assert number_of_buckets(1 << 30, 0) < number_of_buckets(1 << 30, 1 << 30) < number_of_buckets(1 << 40, 0) <= 2048
    mib = 1 << 20
    assert bucket_groups([mib] * 200) == [(0, 64), (64, 128), (128, 192), (192, 200)]
    assert bucket_groups([200 * mib, 0, 200 * mib]) == [(0, 1), (1, 3)]
    assert bucket_groups([0, 0]) == []
