"""What sampling has made durable, through attempts that end at any moment."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.records import SAMPLES
from east_ray.sampling.journal import TaskJournal, adopt, sample_key, sample_keys, stored_keys, tidy
from east_ray.storage import Folder, locate


def row(key: str, text: str = "It is 2.") -> dict[str, Any]:
    response = {"text": text, "num_tokens": 4, "finish_reason": "stop", "logprob": -1.0, "token_ids": [5, 6, 7, 2]}
    values = {"question_id": f"q-{key}", "question": "?", "model": "base", "responses": [response] * 2, "key": key}
    return {name: values.get(name) for name in SAMPLES.names}


def aside(key: str) -> dict[str, Any]:
    return {"question_id": f"q-{key}", "question": "?", "reference_answer": None, "reason": "engine_died",
            "detail": "", "key": key}  # fmt: skip


def durable(folder: Folder) -> set[str]:
    return set(stored_keys(folder)["key"].to_pylist())


@pytest.fixture
def samples(tmp_path: Path) -> Folder:
    return Folder(*locate(str(tmp_path / "samples")))


def test_a_key_says_all_that_samples_depend_on() -> None:
    question = {"question_id": "q1", "question": "Why?", "reference_answer": "2"}
    key = sample_key("base", "f" * 32, {"temperature": 1.0}, question)
    assert key == sample_key("base", "f" * 32, {"temperature": 1.0}, question | {"reference_answer": "3"})
    others = [
        sample_key("trained", "f" * 32, {"temperature": 1.0}, question),
        sample_key("base", "e" * 32, {"temperature": 1.0}, question),
        sample_key("base", "f" * 32, {"temperature": 0.9}, question),
        sample_key("base", "f" * 32, {"temperature": 1.0}, question | {"question_id": "q2"}),
        sample_key("base", "f" * 32, {"temperature": 1.0}, question | {"question": "How?"}),
    ]
    assert len({key, *others}) == 6


@given(st.text(), st.text(), st.text(), st.dictionaries(st.text(), st.floats(allow_nan=False) | st.text()))
def test_keys_are_hashes_of_json(model: str, question_id: str, question: str, settings: dict[str, Any]) -> None:
    """Runs that were begun with any version since 0.1.0 go on, so what is hashed must not change."""
    told = json.dumps([model, "f" * 32, settings, question_id, question], sort_keys=True)
    asked = {"question_id": question_id, "question": question}
    keys = list(sample_keys(model, "f" * 32, settings, [asked, asked | {"question_id": "other"}, asked]))
    assert keys[0] == keys[2] == hashlib.blake2b(told.encode(), digest_size=16).hexdigest() != keys[1] or (
        question_id == "other"
    )


def test_the_keys_of_a_part_are_read_once(samples: Folder) -> None:
    for task in "ab", "cd":
        TaskJournal(samples, samples / "aside", list(task)).close([row(key) for key in task], [])
    known = stored_keys(samples)
    assert known["key"].to_pylist() in (["a", "b", "c", "d"], ["c", "d", "a", "b"])
    assert known["num_responses"].to_pylist() == [2] * 4
    first, second = (Path(part) for part in (samples / "tasks").parts())
    first.write_bytes(b"")  # would fail to be read
    second.unlink()
    (samples / "tasks").write_part(pa.Table.from_pylist([row("e") | {"responses": []}], SAMPLES), "part-z.parquet")
    again = stored_keys(samples, known).to_pylist()
    of_first = [one for one in known.to_pylist() if one["part"] == str(first)]
    assert again == [*of_first, {"part": f"{samples}/tasks/part-z.parquet", "key": "e", "num_responses": 0,
                                 "stopped_because": None}]  # fmt: skip


def test_an_attempt_finds_what_those_before_it_have_left(samples: Folder) -> None:
    set_aside, keys = samples / "aside", ["a", "b", "c"]
    first = TaskJournal(samples, set_aside, keys)
    assert first.open() == (False, [], [])
    first.ask(keys)
    first.add([row("a")])  # and here it is killed

    second = TaskJournal(samples, set_aside, keys)
    assert second.open() == (False, [row("a")], [])
    assert (second.deaths, second.deaths_alone, second.errors) == ({"a": 1, "b": 1, "c": 1}, {}, {})
    second.ask(["b", "c"])
    second.died(["b", "c"], "CUDA error")

    third = TaskJournal(samples, set_aside, keys)
    third.open()
    assert third.deaths["b"] == 2 and third.errors == {"b": "CUDA error", "c": "CUDA error"}
    third.ask(["b"], alone=True)

    last = TaskJournal(samples, set_aside, keys)
    last.open()
    assert last.deaths_alone == {"b": 1} and last.deaths["b"] == 2
    last.close([row("a"), row("c")], [aside("b")])
    assert TaskJournal(samples, set_aside, keys).open() == (True, [row("a"), row("c")], [aside("b")])
    assert not (samples / "pending").names()
    assert durable(samples) == {"a", "c"} and durable(set_aside) == {"b"}
    assert TaskJournal(samples, set_aside, ["a", "b"]).open() == (False, [], []), "another task"


def test_a_new_driver_takes_over_and_brings_the_folder_to_rest(samples: Folder, local_ray: None) -> None:
    killed = TaskJournal(samples, samples / "aside", ["a", "b"])
    killed.ask(["a", "b"])
    killed.add([row("a")])
    adopt(samples)
    assert durable(samples) == {"a"}
    TaskJournal(samples, samples / "aside", ["b", "c"]).close([row("b"), row("c")], [])
    killed.close([row("a", "Late."), row("b", "Late.")], [])  # its actor was alive, and writes once more
    sums = list(tidy(samples, pa.array(["a", "b", "c"])))
    assert [part["num_questions"] for part in sums] == [3] and sums[0]["num_dropped"] == 2
    assert sums[0]["num_responses"] == 6 and sums[0]["num_tokens"] == 24
    killed.close([row("a", "Too late."), row("b", "Too late.")], [])
    rows = samples.read(SAMPLES).to_pylist()
    assert sorted(one["key"] for one in rows) == ["a", "b", "c"]
    assert not any(response["text"] == "Too late." for one in rows for response in one["responses"])
    assert len(samples.parts()) == 1
    assert [one["num_dropped"] for one in tidy(samples, pa.array(["a", "b", "c"]))] == [2]
    assert len(samples.parts()) == 1
    assert [one["num_questions"] for one in tidy(samples, pa.array(["a", "c"]))] == [2], (
        "a key of other settings is dropped"
    )


def test_of_the_rows_of_a_question_the_one_with_most_responses_stays(samples: Folder, local_ray: None) -> None:
    def begun(key: str, count: int) -> dict[str, Any]:
        return row(key) | {"responses": row(key)["responses"][:1] * count}

    for name, rows in {
        "1": [begun("a", 4), begun("b", 1), begun("b", 3)],
        "2": [begun("a", 2), begun("b", 2), begun("c", 1)],
        "3": [begun("unwanted", 9)],
    }.items():
        (samples / "tasks").write_part(pa.Table.from_pylist(rows, SAMPLES), f"part-{name}.parquet")
    (sums,) = tidy(samples, pa.array(["a", "b", "c", "never asked"]))
    assert (sums["num_questions"], sums["num_responses"], sums["num_dropped"]) == (3, 8, 4)
    rows = samples.read(SAMPLES).to_pylist()
    assert sorted((one["key"], len(one["responses"])) for one in rows) == [("a", 4), ("b", 3), ("c", 1)]
    (samples / "tasks").write_part(pa.Table.from_pylist([begun("a", 4)], SAMPLES), "part-late.parquet")
    assert [one["num_questions"] for one in tidy(samples, pa.array(["a", "b", "c"]))] == [3]
