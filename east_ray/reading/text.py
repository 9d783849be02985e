"""Rows in text: lines of JSON, documents of JSON, and tables whose values a comma or another mark separates.

Text is read as a stream. Nothing but a single row, or a document that is one object, is in memory as a whole.
"""

import codecs
import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import charset_normalizer
import pyarrow.fs

from east_ray.config import InputError

#: A longer row cannot be read.
MAX_ROW_BYTES = 1 << 28
#: Bytes, or characters, that are read at once.
_CHUNK = 1 << 20
#: First bytes of files that are no text, whatever their names say.
_NO_TEXT = {b"PAR1": ".parquet", b"ARROW1": ".arrow", b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
_NO_TEXT |= {b"PK\x03\x04": ".zip or .xlsx"}
#: Encodings that programs still write. Among all that there are, a short text seems to be in the oddest.
_ENCODINGS = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1256", "cp932", "gb18030", "big5", "cp949", "euc_jp"]
_ENCODINGS += ["koi8_r", "mac_roman"]
#: Bytes of lines by which an encoding is guessed.
_MAX_GUESS_BYTES = 1 << 16
#: What spreadsheets write before the first line of a table.
_SEPARATOR = re.compile(r"\ufeff?\"?sep=(.)\"?\s*", re.IGNORECASE)
_SPACE = re.compile(r"[\s,]*")

Row = dict[str, Any]

csv.field_size_limit(MAX_ROW_BYTES)  # the module's own limit, 128 KiB, is shorter than many a response


def open_bytes(filesystem: pyarrow.fs.FileSystem, path: str, compression: str | None) -> io.BufferedReader:
    """The bytes of a file as they were before they were compressed; only without compression can one seek in them."""
    if compression is None:
        return io.BufferedReader(filesystem.open_input_file(path), _CHUNK)
    return io.BufferedReader(filesystem.open_input_stream(path, compression=compression), _CHUNK)


def codec_of(encoding: str) -> str:
    """The codec for a setting: that of UTF-8 leaves out a byte order mark."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def is_wide(encoding: str) -> bool:
    """Whether an end of a line takes several bytes, so that bytes cannot be cut into lines."""
    return codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def not_in(encoding: str, data: bytes) -> str:
    """The sentence that a text is not in an encoding, with the one that these bytes of it seem to have."""
    seems = _seeming_encoding(data)
    return f"the text is not in the encoding {encoding}; it seems to be {seems}, which `encoding: {seems}` reads"


def _seeming_encoding(data: bytes) -> str:
    if _is_wide_text(data):
        return json.detect_encoding(data)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":  # as where the bytes are cut
            found = charset_normalizer.from_bytes(data, cp_isolation=_ENCODINGS)
            best = found.best()
            # Of several that are as good, the library takes the first of the alphabet, and cp1252 is the commonest.
            if best is not None and not any(
                "cp1252" in one.could_be_from_charset and one.chaos <= best.chaos for one in found
            ):
                return best.encoding
            return "cp1252"
    return "utf-8"


def _is_wide_text(data: bytes) -> bool:
    return json.detect_encoding(data).startswith(("utf-16", "utf-32"))


def check_text(file: io.BufferedReader, encoding: str) -> None:
    """Raises InputError if the first bytes are no text, or UTF-16, UTF-32 or UTF-8 where another encoding is meant.

    Such text has no error in most other encodings, only other characters.
    """
    head = file.read(_CHUNK)
    for beginning, form in _NO_TEXT.items():
        if head.startswith(beginning):
            raise InputError(f"the file is no text but {form}; expected a name that ends so")
    is_other = _is_wide_text(head) and not is_wide(encoding)
    if b"\0" not in head and codec_of(encoding) != "utf-8-sig":
        is_other = (is_wide(encoding) or not head.isascii()) and _seeming_encoding(head) == "utf-8"
    if is_other:
        raise InputError(not_in(encoding, head))


# ------------------------------------------------------------------------------------------------------ lines of JSON


def is_document(file: io.BufferedReader, encoding: str, *, ends_in_json: bool) -> bool:
    """Whether a file is one document of JSON, a list or an object on one line or many, and not a row on each line.

    A single object on a single line is a document if the file's name ends in .json.
    """
    text = io.TextIOWrapper(file, codec_of(encoding), errors="replace")
    first = next((line for line in iter(lambda: text.readline(_CHUNK), "") if line.strip()), "").lstrip("\ufeff \t")
    if first.strip() in ("[", "{") or not first.startswith(("[", "{")):
        return first.strip() in ("[", "{")
    if first.startswith("{") and not first.endswith("\n"):
        first += text.readline(MAX_ROW_BYTES)
        if len(first) > MAX_ROW_BYTES:
            return ends_in_json
    following = [line for line in (text.readline(_CHUNK) for _ in range(4)) if line.strip()]
    try:
        value = json.loads(first.rstrip())
    except json.JSONDecodeError as error:  # the object goes on in the next line, or the first row is damaged
        goes_on = ends_in_json or len(first) >= _CHUNK or first[error.pos :].strip() in ("", ",")
        return goes_on and not any(isinstance(parsed(line), dict) for line in following)
    except (ValueError, RecursionError):
        return False
    if isinstance(value, list):
        return not following and (not value or isinstance(value[0], dict))
    return ends_in_json and not following


def lines_between(file: io.BufferedReader, start: int, stop: int) -> Iterator[bytes | None]:
    """The lines that begin in bytes [start, stop), without their ends; None in place of one that is too long."""
    at = start
    if start:
        file.seek(start - 1)
        at += _skip_line(file) - 1
    while at < stop and (line := file.readline(MAX_ROW_BYTES)):
        at += len(line)
        if not line.endswith(b"\n") and len(line) == MAX_ROW_BYTES:
            at += _skip_line(file)
            yield None
        else:
            yield line.rstrip(b"\r\n")


def _skip_line(file: io.BufferedReader) -> int:
    num_bytes = 0
    while part := file.readline(_CHUNK):
        num_bytes += len(part)
        if part.endswith(b"\n"):
            break
    return num_bytes


def lines_of_wide(file: io.BufferedReader, encoding: str) -> Iterator[bytes]:
    """The lines of a file in UTF-16 or UTF-32, as UTF-8."""
    for line in io.TextIOWrapper(file, encoding, newline="\n"):
        yield line.removeprefix("\ufeff").rstrip("\r\n").encode()


def parsed(text: str) -> Row | str:
    """A row of JSON, or what is wrong with it."""
    try:
        return as_row(json.loads(text))
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({error}): {text.strip()[:40]!r}"


def as_row(value: Any) -> Row | str:
    """A value as a row, or what it is instead."""
    if isinstance(value, dict):
        return value
    return f"expected a JSON object, found {'null' if value is None else type(value).__name__}"


def check_lines(lines: Iterator[bytes | None], encoding: str) -> None:
    """Raises InputError if most of the lines that have other characters than ASCII's are not in the encoding."""
    others, num_others, num_found = b"", 0, 0
    for line in lines:
        if line is not None and not line.isascii():
            try:
                line.decode(codec_of(encoding))
                num_found += 1
            except UnicodeDecodeError:
                num_others += 1
                others += line + b"\n" if len(others) < _MAX_GUESS_BYTES else b""
    if num_others > num_found:
        raise InputError(not_in(encoding, others[:_MAX_GUESS_BYTES]))


# -------------------------------------------------------------------------------------------------- documents of JSON


def document_rows(text: io.TextIOBase) -> Iterator[Row | str]:
    """The rows of a document: of a list, or of objects one after another; of a single object, those inside it or it.

    An object has rows inside it if it has a list of objects called rows, data, samples, examples or the like, at any
    depth; if all its values are objects; if its only value is a list of objects; or if it has a single such list, whose
    objects have a question, and none itself.
    Raises InputError, which says where, if the document is damaged.
    """
    values = _values(text)
    first = next(values, None)
    if first is None:
        return
    second = next(values, None)
    if second is not None or first[0]:
        for value in (first, second, *([] if second is None else values)):
            if value is not None:
                yield as_row(value[1])
        return
    yield from map(as_row, _inside(first[1]))


#: Names for the list of rows inside a document that says more, and names that an object has which is a row itself.
_LISTS_OF_ROWS = frozenset({"samples", "examples", "rows", "data", "records", "instances", "items"})
_OF_ROWS = frozenset({"question", "problem", "prompt", "query", "instruction", "input"})


def _inside(value: Any) -> list[Any]:
    """The rows of a document with a single value; an empty object has none."""
    if value == {}:
        return []
    if named := list(_lists_of_rows(value)):
        return named
    inside = list(value.values()) if isinstance(value, dict) else []
    if inside and all(isinstance(one, dict) for one in inside):
        return inside
    lists = [one for one in inside if _is_list_of_objects(one)]
    if len(lists) == 1 and (len(inside) == 1 or not _OF_ROWS & value.keys()):
        (only,) = lists
        if len(inside) == 1 or all(_OF_ROWS & one.keys() for one in only):
            return list(only)
    return [value]


def _lists_of_rows(value: Any) -> Iterator[Any]:
    """What is in the lists of rows inside a document, by their names: of Inspect's ``samples``, for example."""
    if isinstance(value, dict) and not _OF_ROWS & value.keys():
        for name, inner in value.items():
            if name in _LISTS_OF_ROWS and _is_list_of_objects(inner):
                yield from inner
            else:
                yield from _lists_of_rows(inner)


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _values(text: io.TextIOBase) -> Iterator[tuple[bool, Any]]:
    """(whether it is in a list, value) of a document, read by and by."""
    decoder, number, in_list = json.JSONDecoder(), 0, False
    held, at, is_end = text.read(_CHUNK).removeprefix("\ufeff"), 0, False
    while True:
        space = _SPACE.match(held, at)
        at = space.end() if space else at
        if not number and not in_list and held[at : at + 1] == "[":
            in_list, at = True, at + 1
            continue
        if in_list and held[at : at + 1] == "]":
            if (held[at + 1 :] + text.read()).strip():
                raise InputError("not valid JSON (there is more after the list)")
            return
        problem = f"ends inside of its list, after row {number:,}"
        if at < len(held):
            try:
                value, end = decoder.raw_decode(held, at)
                if end < len(held) or is_end:
                    number, at = number + 1, end
                    yield in_list, value
                    continue
            except RecursionError as error:
                raise InputError(f"row {number + 1}: not valid JSON ({error})") from error
            except ValueError as error:
                problem = f"row {number + 1}: not valid JSON ({str(error).partition(':')[0]})"
        elif is_end and not in_list:
            return
        if is_end or len(held) - at > MAX_ROW_BYTES:
            raise InputError(problem)
        more = text.read(max(_CHUNK, len(held) - at))
        held, at, is_end = held[at:] + more, 0, not more


# --------------------------------------------------------------------------------------------------- separated values


def _begun(text: io.TextIOBase, kind: str) -> tuple[str, str]:
    """The line of a table that has the names, and what separates the values."""
    first = text.readline()
    if said := _SEPARATOR.fullmatch(first):
        first = text.readline()
    while first and not first.strip():
        first = text.readline()
    outside = re.sub(r'"[^"]*("|$)', "", first)
    return first, str(said[1]) if said else max("\t,;|" if kind == "tsv" else ",;\t|", key=outside.count)


def csv_rows(text: io.TextIOBase, kind: str) -> Iterator[Row | str]:
    """The rows of a table whose first line has the names; all values are text, and an empty one is None.

    Values are separated by what the first line has most of outside of quotes: commas, semicolons, tabs or bars, or by
    what a line sep=; before it says. They may have line breaks within quotes. Columns at the end without a name and
    values are left out. Raises InputError if the first line has a name twice, the last quote is not closed, or quotes
    are written as \\" and not doubled.
    """
    first, mark = _begun(text, kind)
    held = list[str]()

    def lines() -> Iterator[str]:
        for line in itertools.chain([first], text):
            held.append(line)
            yield line

    reader = csv.reader(lines(), delimiter=mark, strict=True)
    try:
        names = next(reader, [])
    except csv.Error as error:
        raise InputError(f"the first line has no names of columns ({error})") from error
    while names and not names[-1]:
        names.pop()
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"the column {repeated[0]!r} occurs twice in the first line")
    while True:
        begin = reader.line_num + 1
        held.clear()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if any('\\"' in line for line in held):  # where the row ends cannot be known
                raise InputError(f'line {begin}: quotes are written as \\", expected them doubled: ""') from error
            if "unexpected end" in str(error):
                raise InputError(f"line {begin}: a quote is opened and never closed") from error
            yield f"line {begin}: {error}"
            continue
        while len(values) > len(names) and not values[-1]:
            values.pop()
        if values and len(values) != len(names):
            yield f"line {begin}: {len(values)} values, expected {len(names)}"
        elif values:
            yield {name: value or None for name, value in zip(names, values, strict=True)}
