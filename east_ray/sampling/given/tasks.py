"""What one task of taking given samples does: read a piece of a file, deal its rows, put buckets together."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from east_ray.config import InputError, SamplesConfig
from east_ray.questions import stage as questions
from east_ray.reading.rows import Piece, rows_of
from east_ray.reading.text import Row
from east_ray.records import QUESTIONS, SAMPLES, SET_ASIDE, SetAside
from east_ray.sampling.given import grouping
from east_ray.sampling.given.rows import given_sample, group_of, is_wanted, needed_columns, why_set_aside
from east_ray.storage import Stages

#: Bytes of responses that a task holds in memory before it writes them as a part.
_PART_BYTES = 16 << 20
#: Rows of a file that become a table at once, and characters of their responses.
_ROWS_AT_ONCE, _CHARS_AT_ONCE = 1024, 4 << 20
#: Characters of a value in a message.
_EXAMPLE = 60

Counts = dict[str, Any]


@dataclass(frozen=True)
class FilePiece(Piece):
    """What one task reads; what the names of its questions begin with; and the place of its file among all."""

    prefix: str
    file: int


@dataclass(frozen=True)
class Rules:
    """How rows are read and what is set aside."""

    config: SamplesConfig
    can_use: questions.CanUse
    asked: pa.Table | None
    """records.QUESTIONS of `samples.questions`."""

    def lookup(self) -> Callable[[Sequence[str]], list[Row | None]]:
        """A function from the ids of rows to the questions that they name; None: there is no such question."""
        asked = QUESTIONS.empty_table() if self.asked is None else self.asked
        places = {name: place for place, name in enumerate(asked["question_id"].to_pylist())}

        def look_up(names: Sequence[str]) -> list[Row | None]:
            found = [places.get(name) for name in names]
            rows = iter(asked.take(pa.array([place for place in found if place is not None], pa.int64())).to_pylist())
            return [None if place is None else next(rows) for place in found]

        return look_up


@dataclass(frozen=True)
class Work(Rules):
    """What all tasks know."""

    filesystem: pyarrow.fs.FileSystem
    stages: Stages
    num_buckets: int = 1


def file_rows(
    filesystem: pyarrow.fs.FileSystem, piece: Piece, config: SamplesConfig
) -> Iterator[tuple[int, Row | str]]:
    """As `reading.rows.rows_of`, with the columns that the configuration needs."""
    with named_by_setting():
        yield from rows_of(filesystem, piece, needed_columns(config))


@contextmanager
def named_by_setting() -> Iterator[None]:
    """Around what reads a file: errors name the setting."""
    try:
        yield
    except InputError as error:
        raise InputError(f"samples.path: {error}") from None


def readable(row: Row | str) -> Row:
    """A row of `file_rows`. Raises InputError if it is the sentence that says why there is none."""
    if isinstance(row, str):
        raise InputError(row)
    return row


@dataclass
class _Parts:
    """Writes questions as parts of ``samples/`` and ``questions/``, and counts them."""

    stages: Stages
    name: str
    num_parts: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    held: list[pa.Table] = field(default_factory=list)
    num_bytes: int = 0

    def add(self, table: pa.Table) -> None:
        """Add rows of records.SAMPLES; a part is written when there are enough of them."""
        self.held.append(table)
        self.num_bytes += table.nbytes
        finish_reasons = pc.struct_field(pc.list_flatten(table["responses"]), "finish_reason")
        self.counts["num_questions"] += table.num_rows
        self.counts["num_responses"] += len(finish_reasons)
        self.counts["num_truncated"] += pc.sum(pc.equal(finish_reasons, "length"), min_count=0).as_py()
        if self.num_bytes >= _PART_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is held. To be called at the end."""
        table = pa.concat_tables([SAMPLES.empty_table(), *self.held])
        if table.num_rows:
            part = f"part-{self.name}-{self.num_parts:04d}.parquet"
            (self.stages / "samples").write_part(table, part)
            (self.stages / "questions").write_part(table.select(QUESTIONS.names), part)
            self.num_parts += 1
        self.held, self.num_bytes = [], 0

    def numbers(self, aside: Sequence[Row]) -> Counts:
        """Write the rest, and what is set aside; the numbers of the task."""
        self.write()
        if aside:
            table = pa.Table.from_pylist(list(aside), schema=SET_ASIDE)
            (self.stages / "set_aside").write_part(table, f"part-{self.name}.parquet")
        return {**self.counts, "set_aside": Counter(str(row["reason"]) for row in aside)}


def take(work: Work, **piece: Any) -> Counts:
    """Write the questions of a piece, each of which is one row."""
    read, look_up = FilePiece(**piece), work.lookup()
    parts, aside = _Parts(work.stages, _name(read)), list[Counts]()
    for some in chunks(_samples(work, read, parts.counts, aside)):
        parts.add(of_rows(work, some, look_up, aside))
    return parts.numbers(aside)


def deal(work: Work, **piece: Any) -> Counts:
    """Deal the rows of a piece into buckets."""
    read, aside = FilePiece(**piece), list[Counts]()
    parts = _Parts(work.stages, _name(read))
    dealer = grouping.Dealer(work.stages / "grouping", _name(read), work.num_buckets)
    for some in chunks(_samples(work, read, parts.counts, aside)):
        dealer.add(pa.Table.from_pylist(some, schema=grouping.DEALT))
    dealer.write()
    return parts.numbers(aside) | {"bucket_bytes": dealer.bucket_bytes.tolist()}


def gather(work: Work, start: int, stop: int) -> Counts:
    """Write the questions of some buckets."""
    gathered, look_up = grouping.gather(work.stages / "grouping", start, stop), work.lookup()
    parts, aside = _Parts(work.stages, f"{start:05d}"), list[Counts]()
    each = max(1, gathered.samples.num_rows * _PART_BYTES // max(1, gathered.samples.nbytes))
    for begin in range(0, gathered.samples.num_rows, each):
        some = grouping.Gathered(*(column.slice(begin, each) for column in gathered))
        parts.add(of_groups(work, some, look_up, aside))
    return parts.numbers(aside)


def _samples(work: Work, piece: FilePiece, counts: Counter[str], aside: list[Counts]) -> Iterator[Counts]:
    rows = file_rows(work.filesystem, piece, work.config)
    return samples_of(rows, work.config, piece.prefix, piece.file, counts, aside)


# ---------------------------------------------------------------------------------------------------- rows and groups


def samples_of(
    rows: Iterable[tuple[int, Row | str]],
    config: SamplesConfig,
    prefix: str,
    file: int,
    counts: Counter[str],
    aside: list[Counts],
) -> Iterator[Counts]:
    """(number, row) of a file -> rows of grouping.DEALT.

    Those that cannot be read join `aside`, rows of records.SET_ASIDE; num_wanted, num_unwanted, num_dropped,
    num_finish_reasons and num_num_tokens are counted.
    """
    for number, row in rows:
        question_id = f"{prefix}-{number:06d}"
        try:
            if config.where and not is_wanted(readable(row), config.where):
                counts["num_unwanted"] += 1
                continue
            counts["num_wanted"] += 1
            sample = given_sample(readable(row), config, question_id)
            if config.groups:
                sample["group"] = grouping.hash_of(group_of(readable(row), sample, config))
        except InputError as error:
            told = {"detail": f"row {number}: {error}", "row": number}
            aside.append({"question_id": question_id, "reason": SetAside.MALFORMED_ROW, **told})
            continue
        for name in ("num_dropped", "num_finish_reasons", "num_num_tokens"):
            counts[name] += sample.pop(name)
        yield sample | {"file": file, "row": number}


def of_rows(
    rules: Rules, samples: list[Counts], look_up: Callable[[Sequence[str]], list[Row | None]], aside: list[Counts]
) -> pa.Table:
    """Samples that are questions -> records.SAMPLES of those that can be used; the others join `aside`."""
    judged = [_judged(rules, sample, f"row {sample['row']}") for sample in _with_questions(rules, samples, look_up)]
    aside += [sample for sample in judged if "reason" in sample]
    return pa.Table.from_pylist([sample for sample in judged if "reason" not in sample], schema=SAMPLES)


def of_groups(
    rules: Rules,
    gathered: grouping.Gathered,
    look_up: Callable[[Sequence[str]], list[Row | None]],
    aside: list[Counts],
) -> pa.Table:
    """Questions that were put together -> records.SAMPLES of those that can be used; the others join `aside`."""
    table = gathered.samples
    asked = _with_questions(rules, table.select([*QUESTIONS.names, "num_responses"]).to_pylist(), look_up)
    judged = list[Counts]()
    for sample, row, contradicting in zip(asked, gathered.rows.to_pylist(), gathered.contradicting, strict=True):
        sample |= {"responses": sample.pop("num_responses"), "row": row}  # whether there are any is all that is asked
        if contradicting.is_valid and "reason" not in sample:
            differ = _said_of_two(rules.config, *contradicting.as_py())
            said = f"row {row} and others of its group, which samples.group_by or samples.id_column names: {differ}"
            sample |= {"reason": SetAside.CONTRADICTING_ROWS, "detail": said}
        judged.append(_judged(rules, sample, f"row {row} and those of its group"))
    aside += [sample for sample in judged if "reason" in sample]
    kept = table.filter(pa.array(["reason" not in sample for sample in judged], pa.bool_()))
    if rules.asked is not None:
        texts = pa.Table.from_pylist([sample for sample in judged if "reason" not in sample], schema=QUESTIONS)
        for place, name in enumerate(QUESTIONS.names):
            kept = kept.set_column(place, QUESTIONS.field(name), texts[name])
    return kept


def _said_of_two(config: SamplesConfig, name: str, first: str, second: str) -> str:
    column = config.question_column if name == "question" else config.reference_answer_column
    first, second = (text if len(text) <= _EXAMPLE else f"{text[:_EXAMPLE]}…" for text in (first, second))
    return f"{column} is {first!r} and {second!r}"


def chunks(samples: Iterator[Counts]) -> Iterator[list[Counts]]:
    """Samples in lists of a bounded size."""
    some, num_chars = list[Counts](), 0
    for sample in samples:
        some.append(sample)
        num_chars += sum(len(response["text"]) for response in sample["responses"])
        if len(some) == _ROWS_AT_ONCE or num_chars >= _CHARS_AT_ONCE:
            yield some
            some, num_chars = [], 0
    if some:
        yield some


def _with_questions(
    rules: Rules, samples: list[Counts], look_up: Callable[[Sequence[str]], list[Row | None]]
) -> list[Counts]:
    """The samples with the questions of `samples.questions`, and the reason to set aside those that have none there."""
    if rules.asked is None:
        return samples
    found = look_up([sample["question_id"] for sample in samples])
    unknown = {"reason": SetAside.UNKNOWN_QUESTION}
    joined = list[Counts]()
    for sample, question in zip(samples, found, strict=True):
        extra = sample["extra"] or (question and question["extra"])
        joined.append(sample | unknown if question is None else {**sample, **question, "extra": extra})
    return joined


def _judged(rules: Rules, sample: Counts, where: str) -> Counts:
    """The sample; if it cannot be used, with the key `reason`, as a row of records.SET_ASIDE."""
    reason = sample.get("reason") or why_set_aside(sample, rules.can_use)
    if reason == SetAside.UNKNOWN_QUESTION:
        asked = rules.asked["question_id"][:1].to_pylist() if rules.asked is not None else []
        where = f"{where}: {sample['question_id']!r}; the questions have names such as {''.join(map(repr, asked))}"
        numbered = re.fullmatch(r"(.+)[-_:#]\d+", str(sample["question_id"]), re.DOTALL)
        if numbered and rules.asked is not None and pc.index(rules.asked["question_id"], numbered[1]).as_py() >= 0:
            mend = "write such names without the number into a column, for samples.id_column and samples.group_by"
            where += f"; {numbered[1]!r} is there, to which a number is added here: {mend}"
    elif reason is not None:
        where += questions.problem(sample, reason)
    return sample if reason is None else {"detail": where, **sample, "reason": reason}


def _name(piece: FilePiece) -> str:
    """A name for the parts of a piece, the same each time."""
    return hashlib.blake2b(f"{piece.path}:{piece.start}".encode(), digest_size=16).hexdigest()
