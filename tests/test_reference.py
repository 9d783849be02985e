"""Reference log-probabilities: found by content, kept under the model's fingerprint."""

import math
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from east_ray.config import InputError
from east_ray.storage import Folder, locate, model_fingerprint
from east_ray.training import reference

TOKENS = st.lists(st.integers(0, 99), min_size=1, max_size=6)


def table(values: dict[str, float]) -> pa.Table:
    rows = [
        {"question_id": "q", "key": key, "chosen": v, "rejected": -v, "mismatched": None} for key, v in values.items()
    ]
    return pa.Table.from_pylist(rows, reference.REFERENCE)


@given(TOKENS, TOKENS, TOKENS)
def test_a_key_changes_with_any_token_and_with_where_it_stands(prompt: list[int], a: list[int], b: list[int]) -> None:
    names = ["chosen", "rejected"]
    key = reference.reference_key({"prompt": prompt, "chosen": a, "rejected": b}, names)
    assert key == reference.reference_key({"prompt": prompt, "chosen": a, "rejected": b, "weight": 2.0}, names)
    others = [
        {"prompt": prompt[:-1], "chosen": [prompt[-1], *a], "rejected": b},
        {"prompt": prompt, "chosen": [*a, 1], "rejected": b},
        {"prompt": prompt, "chosen": a, "rejected": [b[0] + 1, *b[1:]]},
    ]
    assert key not in [reference.reference_key(other, names) for other in others]
    assert (reference.reference_key({"prompt": prompt, "chosen": b, "rejected": a}, names) == key) == (a == b)


@given(st.dictionaries(st.text("0123456789abcdef", min_size=32, max_size=32), st.floats(-1e3, 0), max_size=30))
def test_every_row_is_found_and_no_other(values: dict[str, float]) -> None:
    stored = reference.ReferenceLogprobs(pa.concat_tables([table(values), table(values)]))
    for key, value in values.items():
        assert key in stored and (stored[key]["chosen"], stored[key]["rejected"]) == (value, -value)
    for key in ("0" * 32, "f" * 32, "8" + "0" * 31):
        assert (key in stored) == (key in values)
    if "g" * 32 not in values:
        with pytest.raises(KeyError):
            stored["g" * 32]


def test_what_was_written_is_read_whatever_wrote_it(tmp_path: Path) -> None:
    folder = Folder(*locate(str(tmp_path / "reference"))) / "one"
    assert len(reference.ReferenceLogprobs.read(folder)) == 0 and "a" * 32 not in reference.ReferenceLogprobs.read(
        folder
    )
    for rank in range(2):
        reference.add_references(
            folder, [{"question_id": "q", "key": name * 32, "chosen": -1.0 - rank} for name in "ab"]
        )
    stored = reference.ReferenceLogprobs.read(folder)
    assert len(stored) == 2 and stored["b" * 32]["chosen"] in (-1.0, -2.0) and math.isnan(stored["b" * 32]["rejected"])


def test_a_fingerprint_is_of_content_and_not_of_place(quickstart: Path, tmp_path: Path) -> None:
    shutil.copytree(quickstart / "model", tmp_path / "copy")
    same = model_fingerprint(str(quickstart / "model"))
    assert model_fingerprint(str(tmp_path / "copy")) == same
    (tmp_path / "copy" / "README.md").write_text("A card says nothing about what a model does.")
    assert model_fingerprint(str(tmp_path / "copy")) == same
    seen = {same}
    for name in ("model.safetensors", "config.json", "chat_template.jinja", "tokenizer.json"):
        content = bytearray((tmp_path / "copy" / name).read_bytes())
        content[-20] ^= 1
        (tmp_path / "copy" / name).write_bytes(content)
        seen.add(model_fingerprint(str(tmp_path / "copy")))
    assert len(seen) == 5


def test_a_large_file_is_probed_all_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("east_ray.storage.models.WHOLE_BYTES", 1 << 20)
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(5 << 20))
    seen = {model_fingerprint(str(tmp_path))}
    for place in (0, (2 << 20) + 100, (4 << 20) + 4095):
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content)
        seen.add(model_fingerprint(str(tmp_path)))
    assert len(seen) == 4


def test_a_hub_model_is_told_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter(["a" * 40, "b" * 40, "b" * 40])
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda name, file: f"/cache/snapshots/{next(commits)}/{file}"
    )
    first, second, third = (model_fingerprint("some/hub-name") for _ in range(3))
    assert first != second == third
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: None)

    def unreachable(name: str, file: str) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(InputError, match="'some/hub-name' is neither a folder nor a hub model that can be reached"):
        model_fingerprint("some/hub-name")
