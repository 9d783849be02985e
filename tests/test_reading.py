"""Files of all forms: which ones a path means, the rows in them, and what is said of those that cannot be read."""

import csv
import gzip
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from east_ray.config import InputError
from east_ray.reading import rows, tables, text
from east_ray.reading.files import find_files
from east_ray.reading.rows import num_lines, pieces_of, rows_of, rows_of_file

GIVEN = Path(__file__).parent.parent.parent / "shared" / "data" / "given"
ROWS = [
    {"question": f"{i} é, “and”\n{i}?", "answer": str(i), "responses": [f"r{j}" for j in range(3)]} for i in range(9)
]
TEXTS = [{name: row[name] for name in ("question", "answer")} for row in ROWS]


def read(path: Path | str, encoding: str = "utf-8") -> list[tuple[int, Any]]:
    """(number, row or sentence) of all files that a path means."""
    found = find_files(str(path), "samples.path")
    return [one for file in found.files for one in rows_of_file(found.filesystem, file, encoding)]


def rows_in(path: Path | str, encoding: str = "utf-8") -> list[Any]:
    return [row for _, row in read(path, encoding)]


def lines_of(some: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def parquet(some: list[dict[str, Any]], **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(some), sink, **options)
    return sink.getvalue().to_pybytes()


def arrow(some: list[dict[str, Any]], *, stream: bool) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(some)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return sink.getvalue().to_pybytes()


def separated(some: list[dict[str, Any]], mark: str) -> bytes:
    import io

    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, list(some[0]), delimiter=mark)
    writer.writeheader()
    writer.writerows(some)
    return sink.getvalue().encode()


# -------------------------------------------------------------------------------------------------------------- forms

FORMS = {
    "jsonl": lines_of(ROWS).encode(),
    "ndjson": ("\n\n" + lines_of(ROWS)).replace("\n", "\r\n").encode(),
    "jsonlines": b"\xef\xbb\xbf" + lines_of(ROWS).encode(),
    "lines.json": lines_of(ROWS).encode(),
    "list.json": json.dumps(ROWS, indent=1).encode(),
    "compact.json": json.dumps(ROWS).encode(),
    "list.jsonl": json.dumps(ROWS).encode(),
    "spread.jsonl": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "commas.jsonl": ",\n".join(map(json.dumps, ROWS)).encode(),
    "by_name.json": json.dumps({f"id {i}": row for i, row in enumerate(ROWS)}, indent=1).encode(),
    "inside.json": json.dumps({"data": ROWS}).encode(),
    "parquet": parquet(ROWS, row_group_size=4),
    "pq": parquet(ROWS),
    "arrow": arrow(ROWS, stream=False),
    "stream.arrow": arrow(ROWS, stream=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_rows_also_compressed_and_in_capitals(tmp_path: Path, form: str) -> None:
    content = FORMS[form]
    for ending, packed in (("", content), (".gz", gzip.compress(content)), (".zst", zstd(content))):
        path = tmp_path / f"out.{form}{ending}"
        path.write_bytes(packed)
        assert rows_in(path) == ROWS
        upper = tmp_path / f"UP.{form}{ending}".upper()
        upper.write_bytes(packed)
        assert rows_in(upper) == ROWS


@pytest.mark.parametrize(
    ("mark", "ending"), [(",", ".csv"), (";", ".csv"), ("|", ".CSV"), ("\t", ".tsv"), ("\t", ".csv")]
)
def test_separated_values_are_texts_with_line_breaks(tmp_path: Path, mark: str, ending: str) -> None:
    some = [*TEXTS, {"question": 'a "b", c;\td\r\ne', "answer": "007"}, {"question": "1/2", "answer": "x" * 300_000}]
    path = tmp_path / f"q{ending}"
    path.write_bytes(separated(some, mark))
    assert rows_in(path) == some
    path.write_bytes(b"\xef\xbb\xbf" + separated([{"question": "12:30", "answer": ""}], mark))
    assert rows_in(path) == [{"question": "12:30", "answer": None}]


@pytest.mark.parametrize(
    "content",
    [
        'a,b,,\n"1;2;3",x,,\n"4",y,,\n', 'sep=;\na;b\n1;2;3;\n"1;2;3";x\n4;y\n', '"a",b\n"1;2;3",x\n4,y,\n',
    ],
)  # fmt: skip
def test_what_spreadsheets_write_around_a_table_is_no_column(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.csv").write_text(content)
    found = [row for row in rows_in(tmp_path / "s.csv") if isinstance(row, dict)]
    assert found == [{"a": "1;2;3", "b": "x"}, {"a": "4", "b": "y"}]


def test_separators_in_the_quotes_of_a_name_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text('"a;b;c",d\n1,2\n')
    assert rows_in(tmp_path / "s.csv") == [{"a;b;c": "1", "d": "2"}]


def test_quotes_behind_a_backslash_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text('a,b\n"1",2\n"He said \\"3\nand",4"\n5,6\n')
    with pytest.raises(InputError, match=r"s.csv: line 3: quotes are written as"):
        rows_in(tmp_path / "s.csv")


@pytest.mark.parametrize("name", ["s.parquet", "s.jsonl", "s.csv", "s.arrow"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="found a pointer of Git LFS"):
        rows_in(tmp_path / name)


def test_rows_in_a_document_that_says_more(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"v": 1, "results": [{"question": "1"}, {"question": "2"}]}))
    assert [row["question"] for row in rows_in(path)] == ["1", "2"]
    for one in ({"frage": "1", "antworten": [{"text": "a"}]}, {"question": "1", "more": [{"question": "a"}]}):
        path.write_text(json.dumps(one))
        assert rows_in(path) == [one]


def test_links_pipes_and_hidden_files_are_not_read_silently(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".s.jsonl").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"found only .s.jsonl; files whose names begin with a dot are not read"):
        find_files(str(tmp_path / "hidden"), "samples.path")
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "s.jsonl").write_text('{"a": 1}')
    (folder / "gone.jsonl").symlink_to(folder / "nothing.jsonl")
    (folder / "up").symlink_to(folder)
    os.mkfifo(folder / "pipe.jsonl")
    found = find_files(str(folder), "samples.path")
    assert [file.base_name for file in found.files] == ["s.jsonl"]
    assert found.unread_said() == "2 unreadable files"


def test_a_bad_line_of_separated_values_is_a_sentence_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('question,answer\n"a?",1\nb?,12,000\n\n"c"d,3\nonly\n"e?",5\n')
    assert read(path) == [
        (1, {"question": "a?", "answer": "1"}),
        (2, "line 3: 3 values, expected 2"),
        (3, "line 5: ',' expected after '\"'"),
        (4, "line 6: 1 values, expected 2"),
        (5, {"question": "e?", "answer": "5"}),
    ]
    for content, message in (
        ('question,answer\na?,1\n"b?,2\nc?,3\n', "line 3: a quote is opened and never closed"),
        ("question,answer,question\n", "the column 'question' occurs twice in the first line"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message) as error:
            read(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("form", ["jsonl", "list.json", "csv"])
def test_another_encoding_is_named_and_then_read(tmp_path: Path, form: str, encoding: str) -> None:
    path = tmp_path / f"s.{form}"
    expected = TEXTS if form == "csv" else ROWS
    path.write_bytes((separated(TEXTS, ",") if form == "csv" else FORMS[form]).decode().encode(encoding))
    if form == "list.json":  # json.dumps wrote \u escapes
        path.write_bytes(json.dumps(ROWS, ensure_ascii=False, indent=1).encode(encoding))
    with pytest.raises(InputError, match="not in the encoding utf-8; it seems to be " + encoding) as error:
        read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert rows_in(path, encoding) == expected


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "shift_jis"])
def test_utf_8_is_not_taken_for_another_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "s.jsonl").write_bytes(FORMS["jsonl"])
    with pytest.raises(InputError, match=f"not in the encoding {encoding}; it seems to be utf-8"):
        read(tmp_path / "s.jsonl", encoding)
    (tmp_path / "s.jsonl").write_text('{"a": 1}\n')
    if encoding != "utf-16":
        assert rows_in(tmp_path / "s.jsonl", encoding) == [{"a": 1}]


def test_single_broken_lines_are_no_other_encoding(tmp_path: Path) -> None:
    whole = [json.dumps({"a": "é"}, ensure_ascii=False).encode()] * 3
    (tmp_path / "s.jsonl").write_bytes(b"\n".join([*whole, b'{"a": "cut \xc3"}', b'{"b', b"[1]", b"null", *whole]))
    found = dict(read(tmp_path / "s.jsonl"))
    assert [number for number, row in found.items() if isinstance(row, dict)] == [1, 2, 3, 8, 9, 10]
    assert found[4] == "not text in the encoding utf-8"
    assert found[5].startswith("not valid JSON (")
    assert (found[6], found[7]) == ("expected a JSON object, found list", "expected a JSON object, found null")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.parquet", b"no parquet at all", "cannot be read as parquet"),
        ("s.arrow", b"no arrow at all", "cannot be read as arrow"),
        ("s.arrow", FORMS["stream.arrow"][:-600], "cannot be read as arrow"),
        ("s.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-20], "Truncated compressed stream"),
        ("s.jsonl.gz", b'{"a": 1}\n', "cannot be read as"),
        ("s.json.zst", zstd(FORMS["list.json"])[:-20], "cannot be read as json"),
        ("s.jsonl", gzip.compress(b'{"a": 1}\n', mtime=0), "is no text but .gz; expected a name that ends so"),
        ("s.csv", FORMS["parquet"], "is no text but .parquet; expected"),
        ("s.tsv", b"PK\x03\x04...", "is no text but .zip or .xlsx; expected"),
        ("s.json", b'[{"a": 1}, {"a": 2}, {"a"', r"row 3: not valid JSON \("),
        ("s.json", b'[\n{"a": 1},\n{"a": 2}', "ends inside of its list, after row 2"),
        ("s.json", b'[\n{"a": 1}\n]\n{"a": 2}', "there is more after the list"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)


def test_a_single_object_is_one_row_and_values_of_a_list_are_told_apart(tmp_path: Path) -> None:
    problem = {"problem": "1 + 1?", "level": "Level 1", "solution": "\\boxed{2}"}
    for number, content in enumerate(
        [json.dumps(problem), json.dumps(problem, indent=4), f"\n{json.dumps(problem)}\n"]
    ):
        (tmp_path / f"{number}.json").write_text(content)
    assert rows_in(tmp_path) == [problem] * 3
    (tmp_path / "one.jsonl").write_text(json.dumps({"doc": {"q": 1}, "target": {"a": 2}}) + "\n")
    assert rows_in(tmp_path / "one.jsonl") == [{"doc": {"q": 1}, "target": {"a": 2}}]
    for first in ("{'a': 1}", '{"a": "cut', "[" * 100_000, '{"a": ' + "9" * 9000 + "}"):  # a damaged row is no document
        (tmp_path / "one.jsonl").write_text("\n".join([first] * 6 + ['{"a": 1}']))
        *damaged, last = rows_in(tmp_path / "one.jsonl")
        assert last == {"a": 1} and all(row.startswith("not valid JSON (") for row in damaged)
    (tmp_path / "l.json").write_text('[{"a": 1}, 12, "b", [3], null]')
    assert [row if isinstance(row, dict) else row.split()[-1] for row in rows_in(tmp_path / "l.json")] == [
        {"a": 1}, "int", "str", "list", "null",
    ]  # fmt: skip


def test_documents_are_read_by_and_by_and_lines_may_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_CHUNK", 7)
    for form in ("jsonl", "list.json", "compact.json", "spread.jsonl", "by_name.json"):
        (tmp_path / f"s.{form}").write_bytes(FORMS[form])
        assert rows_in(tmp_path / f"s.{form}") == ROWS
    monkeypatch.setattr(text, "MAX_ROW_BYTES", 200)
    (tmp_path / "s.jsonl").write_text(json.dumps({"a": "x" * 500}) + '\n{"a": 1}\n')
    assert [(n, "longer" in r or r) for n, r in read(tmp_path / "s.jsonl")] == [(1, True), (2, {"a": 1})]


@pytest.mark.parametrize("size", [97, 100, 137, 4096])
def test_pieces_of_lines_give_the_rows_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps({"a": "é" * (7 * i % 50), "i": i}) + "\n" * (i % 3 + 1) for i in range(200)))
    monkeypatch.setattr(rows, "PIECE_BYTES", size)
    filesystem = pyarrow.fs.LocalFileSystem()
    pieces = list(pieces_of(filesystem, filesystem.get_file_info(str(path))))
    assert len(pieces) > 1
    assert [row for piece in pieces for _, row in rows_of(filesystem, piece)] == [row for _, row in read(path)]
    assert sum(num_lines(filesystem, piece) for piece in pieces) == len(path.read_bytes().splitlines())


# ------------------------------------------------------------------------------------------------------------- tables


def test_parts_of_tables_are_read_by_dotted_names_and_without_token_ids(tmp_path: Path) -> None:
    response = {"text": "a", "token_ids": [1, 2], "finish_reason": {"type": "stop"}}
    table = pa.Table.from_pylist(
        [{"doc": {"q": "?", "a": 1}, "a.b": 3, "out": [response], "more": 1, "token_ids": [7]}]
    )
    pq.write_table(table, tmp_path / "s.parquet")
    pa.ipc.new_file(tmp_path / "s.arrow", table.schema).write_table(table)
    filesystem = pyarrow.fs.LocalFileSystem()

    def first(name: str, *columns: str) -> Any:
        (piece,) = pieces_of(filesystem, filesystem.get_file_info(str(tmp_path / name)))
        ((number, row),) = rows_of(filesystem, piece, columns)
        assert number == 1
        return row

    kept = {"text": "a", "finish_reason": {"type": "stop"}}
    assert first("s.parquet", "doc.q", "out.0.text", "a.b") == {"doc": {"q": "?"}, "a.b": 3, "out": [kept]}
    assert first("s.parquet", "out", "level") == {"out": [kept]}
    assert first("s.parquet", "nothing") == {
        "doc": {"q": "?", "a": 1},
        "a.b": 3,
        "out": [kept],
        "more": 1,
        "token_ids": [7],
    }


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.binary()],
    ids=str,
)
def test_texts_of_all_types(tmp_path: Path, kind: pa.DataType) -> None:
    plain = pa.array(["a", None, "é"]) if kind != pa.binary() else pa.array([b"a", None, b"\xff"])
    table = pa.table({"a": plain.cast(kind), "l": pa.array([["x"], [], None], pa.large_list(pa.string()))})
    pq.write_table(table, tmp_path / "s.parquet")
    assert [row["a"] for row in rows_in(tmp_path / "s.parquet")] == plain.to_pylist()


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_short_floats_and_maps_of_tables(tmp_path: Path, form: str) -> None:
    short, path = pa.float32(), tmp_path / f"s.{form}"
    columns = {
        "f": pa.array([0.1, None], short),
        "h": pa.array([np.float16(0.1), None], pa.float16()),
        "l": pa.array([[0.1, None], None], pa.list_(short)),
        "s": pa.array([{"x": [0.7]}, {"x": None}], pa.struct([("x", pa.large_list(short))])),
        "m": pa.array([[("q", 0.1)], []], pa.map_(pa.string(), short)),
    }
    table = pa.table(columns)
    if form == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    first, second = rows_in(path)
    assert first == {"f": 0.1, "h": 0.1, "l": [0.1, None], "s": {"x": [0.7]}, "m": {"q": 0.1}}
    assert second == {"f": None, "h": None, "l": None, "s": {"x": None}, "m": {}}


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"])], ["a", "a"]), tmp_path / "s.parquet")
    with pytest.raises(InputError, match=r"s.parquet: the column 'a' occurs twice"):
        rows_in(tmp_path / "s.parquet")


def test_a_broken_text_in_a_table_is_a_sentence_in_its_place(tmp_path: Path) -> None:
    broken = pa.array([b"a", b"\xff\xfe", b"c"]).view(pa.string())
    pq.write_table(pa.table({"a": broken}), tmp_path / "s.parquet")
    first, second, third = rows_in(tmp_path / "s.parquet")
    assert (first, third) == ({"a": "a"}, {"a": "c"}) and second.startswith("cannot be read ('utf-8' codec")


def test_tables_are_read_so_many_rows_at_once_as_their_bytes_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a file is small because its texts repeat: 16 rows of 1 MB are 16 MB in memory, and 0.1 MB on disk."""
    long = [{"i": i, "responses": ["x" * 250_000 + str(j) for j in range(4)]} for i in range(16)]
    for name, content in (("s.parquet", parquet(long)), ("s.arrow", arrow(long, stream=True))):
        (tmp_path / name).write_bytes(content)
    assert (tmp_path / "s.parquet").stat().st_size < 1 << 20
    del long
    monkeypatch.setattr(tables, "_BATCH_BYTES", 2 << 20)
    for name in ("s.parquet", "s.arrow"):
        found = find_files(str(tmp_path / name), "samples.path")
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        most = 0
        for number, row in rows_of_file(found.filesystem, found.files[0]):
            assert isinstance(row, dict) and row["i"] == number - 1
            most = max(most, pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert most < 10 << 20


# -------------------------------------------------------------------------------------------------- what a path means


def test_a_folder_is_read_with_its_subfolders_and_what_is_not_read_is_counted(tmp_path: Path) -> None:
    for name, content in {
        "a.jsonl": lines_of(ROWS[:2]), "deep/er/b.ndjson": lines_of(ROWS[2:4]), "c.JSON": json.dumps(ROWS[4:5]),
        "part-00000": lines_of(ROWS[5:6]), "log.eval": "x", "log2.EVAL": "x", "deep/README.md": "x", "LICENSE": "x",
        "d.jsonl.xz": "x", "empty.csv": "", "_SUCCESS": "", "_tmp/x.jsonl": "x", ".cache/x.jsonl": "x", ".y.jsonl": "x",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    found = find_files(str(tmp_path), "samples.path")
    names = [Path(file.path).name for file in found.files]
    assert names == ["a.jsonl", "c.JSON", "b.ndjson", "part-00000"]
    assert found.unread_said() == (
        "2 .eval files, 1 .jsonl.xz file, 1 .md file, 1 _tmp file, 1 empty file, 1 nameless file"
    )
    assert len(rows_in(tmp_path)) == 6


def test_patterns(tmp_path: Path) -> None:
    for name in ("rank0/out.jsonl", "rank1/out.jsonl", "rank1/deep/out.jsonl", "rank10/out.csv.gz", "odd[1].jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'{"a": 1}\n')

    def meant(pattern: str) -> list[str]:
        return [file.path.removeprefix(f"{tmp_path}/") for file in find_files(f"{tmp_path}/{pattern}", "p").files]

    assert meant("rank?/*.jsonl") == ["rank0/out.jsonl", "rank1/out.jsonl"]
    assert meant("rank1*") == ["rank1/deep/out.jsonl", "rank1/out.jsonl", "rank10/out.csv.gz"]
    assert meant("**/out.jsonl") == ["rank0/out.jsonl", "rank1/deep/out.jsonl", "rank1/out.jsonl"]
    assert meant("rank[01]/out*") == ["rank0/out.jsonl", "rank1/out.jsonl"]
    assert meant("odd[1].jsonl") == ["odd[1].jsonl"]
    with pytest.raises(InputError, match=r"^questions.path: no file matches .*/\*.parquet"):
        find_files(f"{tmp_path}/*.parquet", "questions.path")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "is an empty folder; expected files with rows"),
        (["a.eval", "b.eval", "c.eval"], "found 3 .eval files; expected .jsonl, "),
        (["a.xlsx", "b.pdf"], "found 1 .pdf file, 1 .xlsx file; expected"),
        (
            ["train/a.jsonl", "test/a.jsonl"],
            "has the splits test and train; expected one, e.g. .*/test[*] or .*/train[*]",
        ),
        (["train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"], "splits train and validation"),
        (["math_train.jsonl", "math_test.jsonl.gz"], "splits test and train; expected one, e.g. .*/[*]test[*] or "),
    ],
)
def test_a_folder_that_cannot_be_meant_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=message) as error:
        find_files(str(tmp_path), "samples.path")
    assert str(error.value).startswith(f"samples.path: {tmp_path}")
    if "split" in message:
        assert len(find_files(f"{tmp_path}/*train*", "samples.path").files) == 1


@pytest.mark.parametrize("names", [["contest.jsonl", "retrain.jsonl"], ["a_train_test.jsonl", "b_train.jsonl"]])
def test_names_that_only_look_like_splits_are_read(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("x")
    assert len(find_files(str(tmp_path), "samples.path").files) == 2


def test_rows_are_named_after_the_shortest_name_that_no_other_file_has(tmp_path: Path) -> None:
    for name in ("a/1.json", "b/1.json", "a/2.json.gz", "a/x.csv", "x.parquet", "t-00.123.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    prefixes = find_files(str(tmp_path), "samples.path").prefixes()
    assert {path.removeprefix(f"{tmp_path}/"): name for path, name in prefixes.items()} == {
        "a/1.json": "a/1", "b/1.json": "b/1", "a/2.json.gz": "2", "a/x.csv": "x.csv", "x.parquet": "x.parquet",
        "t-00.123.jsonl": "t-00.123",
    }  # fmt: skip


def test_columns_of_hive_folders_are_part_of_the_rows(tmp_path: Path) -> None:
    pq.write_to_dataset(
        pa.table({"i": [1, 2, 3], "level": ["1", "1", None], "of": ["a b", "c/d", "e"]}),
        tmp_path, partition_cols=["level", "of"],
    )  # fmt: skip
    found = sorted(rows_in(tmp_path), key=lambda row: int(row["i"]))
    assert found == [
        {"i": 1, "level": "1", "of": "a b"}, {"i": 2, "level": "1", "of": "c/d"}, {"i": 3, "level": None, "of": "e"},
    ]  # fmt: skip


def test_data_sets_that_were_saved_to_disk(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "one", num_shards=2)
    (tmp_path / "one" / "cache-0f.arrow").write_bytes(FORMS["stream.arrow"])
    assert rows_in(tmp_path / "one") == ROWS
    assert find_files(str(tmp_path / "one"), "samples.path").unread_said() == "1 cache file"
    both = datasets.DatasetDict({"train": saved.select(range(6)), "test": saved.select(range(6, 9))})
    both.save_to_disk(tmp_path / "both")
    with pytest.raises(InputError, match=r"both has the splits test and train; expected one"):
        find_files(str(tmp_path / "both"), "samples.path")
    assert rows_in(tmp_path / "both" / "test") == ROWS[6:]
    datasets.DatasetDict({"train": saved}).save_to_disk(tmp_path / "alone")
    assert rows_in(tmp_path / "alone") == ROWS


GIVEN_FOLDERS = sorted(folder.name for folder in GIVEN.iterdir() if folder.is_dir()) if GIVEN.exists() else ["none"]


#: Rows of the folders that have not twelve, one for each question.
_NUM_ROWS: dict[str, int] = {
    "csv": 96, "distilabel_flat": 96, "nemo_skills": 96, "openmathinstruct2": 96, "openrlhf": 96, "qwen_math_seeds": 96,
    "trl_completions": 96, "verl_rollout": 96, "lm_eval": 24, "lm_eval_converted": 24, "split_rows": 24,
    "first_row_bad": 13, "jl_other": 13, "pq_other": 13, "qwen_math": 13, "numeric_float_big": 5,
    "inspect": 96,
}  # fmt: skip
_ENCODINGS = {"cp1252": "cp1252", "utf16": "utf-16"}


@pytest.mark.skipif(not GIVEN.exists(), reason=f"the labelled data is not there: {GIVEN}")
@pytest.mark.parametrize("name", GIVEN_FOLDERS)
def test_every_file_of_other_tools_is_read(name: str) -> None:
    if name in _ENCODINGS:
        with pytest.raises(
            InputError, match=f"it seems to be {_ENCODINGS[name]}, which `encoding: {_ENCODINGS[name]}`"
        ):
            read(GIVEN / name)
    found = rows_in(GIVEN / name, _ENCODINGS.get(name, "utf-8"))
    assert all(isinstance(row, dict) for row in found)
    assert len(found) == _NUM_ROWS.get(name, 12)
