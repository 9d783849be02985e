"""Label audit: which reference answers look wrong? Those that nearly all responses contradict with one other answer.

A wrong reference answer turns the weights upside down: the question's right responses count as wrong, and the few that
hit the reference by chance are trained on. Suspects are ranked by the normalized margin of confident learning
(Northcutt, Jiang and Chuang, 2021, arXiv 1911.00068): the share of the commonest wrong answer minus the reference's.

Known limits. A model with a systematic misconception contradicts right references in just the same way: whatever the
ranking says, a person decides. And a wrong reference that repeats the model's own misconception is not found.

Nothing here holds more than `max_rows` questions at a time, however many the round has.
"""

import heapq
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from east_ray import answers
from east_ray.records import SAMPLES, Reason
from east_ray.selection import SelectionRules
from east_ray.storage import Folder

# ----------------------------------------------------------------------------------------------------- one question


def suspicion(row: Mapping[str, Any], min_share: float = 0.5) -> float | None:
    """How much the responses contradict the reference answer, in (0, 1); None if they do not.

    (w - r) / (n + 2) for n responses of which w give the commonest wrong answer and r the reference's: the margin of
    their shares, drawn towards 0 where responses are few (Laplace's rule), so that 1 of 1 counts less than 120 of 128.

    Args:
        row: of records.EXAMPLES or records.DISCARDED.
        min_share: of all responses that must give the commonest wrong answer. It must also be commoner than the
            reference's answer and than having no answer.
    """
    if row.get("reason") == Reason.UNPARSABLE_REFERENCE or not row["clusters"]:
        return None  # there is nothing to contradict, or nothing was sampled
    wrong = max((_size(c) for c in row["clusters"] if not c["is_correct"] and c["answer"] is not None), default=0)
    others = [_size(c) for c in row["clusters"] if c["is_correct"] or c["answer"] is None]
    if wrong < min_share * row["num_responses"] or wrong <= max(others, default=0):
        return None
    correct = sum(_size(c) for c in row["clusters"] if c["is_correct"])
    return float((wrong - correct) / (row["num_responses"] + 2))


def _size(cluster: Mapping[str, Any]) -> int:
    return int(cluster["num_responses"])


def responses_with(sample: Mapping[str, Any], wanted: Sequence[str | None], rules: SelectionRules) -> list[str | None]:
    """For each wanted answer (None: no answer) the first response that gives it; None if no response does.

    A response that ended by itself is preferred. Equality is that of `selection.judge`, all responses considered.
    """
    responses: Sequence[Mapping[str, Any]] = sample["responses"]
    found = [answers.extract(response["text"], last_number=rules.last_number).answer for response in responses]
    numbers = answers.cluster([*wanted, sample["reference_answer"], *found], equivalence=rules.equivalence)
    members: dict[int, list[Mapping[str, Any]]] = {}
    for number, response in zip(numbers[len(wanted) + 1 :], responses, strict=True):
        members.setdefault(number, []).append(response)

    def first(group: Sequence[Mapping[str, Any]]) -> str | None:
        ended = (response["text"] for response in group if response["finish_reason"] == "stop")
        return next(ended, group[0]["text"] if group else None)

    return [first(members.get(number, [])) for number in numbers[: len(wanted)]]


# -------------------------------------------------------------------------------------------------------- one round


@dataclass(frozen=True)
class Suspect:
    """A question whose reference answer looks wrong. Shares are of all its responses; entropy in nats."""

    question_id: str
    question: str
    reference_answer: str
    dominant_answer: str
    score: float
    """See `suspicion`."""
    share: float
    reference_share: float
    entropy: float
    num_responses: int
    dominant_response: str | None = None
    """A response that gives the dominant answer."""
    reference_response: str | None = None
    """A response that gives the reference answer; None if there is none."""


@dataclass(frozen=True)
class Audit:
    """The suspects of a round, most suspicious first, and how many there are with those beyond `max_rows`."""

    min_share: float
    num_questions: int
    num_suspicious: int
    suspects: list[Suspect]


#: Of examples/ and discarded/; `reason` is in the latter only, and a column that is not there is not read.
_COLUMNS = ["question_id", "question", "reference_answer", "num_responses", "entropy", "rejected_rate", "clusters",
            "reason"]  # fmt: skip
_RESPONSES = ["question_id", "reference_answer", "responses.list.element.text", "responses.list.element.finish_reason"]
_QUESTIONS_AT_ONCE = 1024
_SAMPLES_AT_ONCE = 16  # with all their responses
_NUM_READERS = 16


def audit(
    samples: Folder,
    examples: Folder,
    discarded: Folder,
    rules: SelectionRules,
    *,
    min_share: float = 0.5,
    max_rows: int = 1000,
) -> Audit:
    """The suspects among the kept and the discarded questions of a round.

    Args:
        rules: those that the questions were judged by.
        max_rows: suspects with their responses; only the most suspicious are kept.
    """
    counts = Counter[str]()
    found = (one for folder in (examples, discarded) for one in _suspects(folder, min_share, counts))
    ranked = heapq.nsmallest(max_rows, found, key=lambda one: (-one.score, one.question_id))
    wanted = {one.question_id: [one.dominant_answer, one.reference_answer] for one in ranked}
    responses = fetch_responses(samples, wanted, rules)
    nothing = [None, None]
    suspects = [
        replace(one, dominant_response=dominant, reference_response=reference)
        for one in ranked
        for dominant, reference in [responses.get(one.question_id, nothing)]
    ]
    return Audit(min_share, counts["questions"], counts["suspicious"], suspects)


def _suspects(folder: Folder, min_share: float, counts: Counter[str]) -> Iterator[Suspect]:
    for batch in folder.batches(_COLUMNS, max_rows=_QUESTIONS_AT_ONCE):
        counts["questions"] += batch.num_rows - batch["rejected_rate"].null_count
        # Most questions are told by the rate alone, which is null where nothing was sampled.
        for row in batch.filter(pc.greater_equal(batch["rejected_rate"], min_share)).to_pylist():
            score = suspicion(row, min_share)
            if score is None:
                continue
            counts["suspicious"] += 1
            num_responses = row["num_responses"]
            wrong = next(c for c in row["clusters"] if not c["is_correct"] and c["answer"] is not None)  # largest first
            yield Suspect(
                question_id=row["question_id"],
                question=row["question"],
                reference_answer=row["reference_answer"],
                dominant_answer=wrong["answer"],
                score=score,
                share=wrong["num_responses"] / num_responses,
                reference_share=sum(_size(c) for c in row["clusters"] if c["is_correct"]) / num_responses,
                entropy=row["entropy"],
                num_responses=num_responses,
            )


def fetch_responses(
    samples: Folder, wanted: Mapping[str, Sequence[str | None]], rules: SelectionRules
) -> dict[str, list[str | None]]:
    """question_id -> `responses_with` the wanted answers; only parts that hold such a question are read beyond its id.

    A question that is not among the samples is left out.
    """
    ids = pa.array(list(wanted), pa.string())

    def is_needed(part: str) -> bool:
        in_part = samples.read(SAMPLES, ["question_id"], [part])["question_id"]
        return bool(pc.any(pc.is_in(in_part, ids)).as_py())

    parts = samples.parts() if wanted else []
    with ThreadPoolExecutor(_NUM_READERS) as pool:  # a round on an object store has thousands of parts
        needed = [part for part, is_one in zip(parts, pool.map(is_needed, parts), strict=True) if is_one]
    return {
        row["question_id"]: responses_with(row, wanted[row["question_id"]], rules)
        for batch in samples.batches(_RESPONSES, needed, max_rows=_SAMPLES_AT_ONCE)
        for row in batch.filter(pc.is_in(batch["question_id"], ids)).to_pylist()
    }


# -------------------------------------------------------------------------------------------------------- two files

_MAX_SHOWN_CHARS = 4000
#: What no UTF-8 file or HTML page may hold: halves of surrogate pairs, control characters.
_UNSHOWABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def write_audit(audited: Audit, folder: Folder) -> str:
    """Write ``audit.jsonl``, a line per suspect, and ``audit.html``, the same to read; returns the page's path."""
    import jinja2

    suspects = [
        {name: _UNSHOWABLE.sub("\ufffd", value) if isinstance(value, str) else value for name, value in row.items()}
        for row in map(asdict, audited.suspects)
    ]
    folder.write_text("audit.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in suspects))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("east_ray.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("audit.html.jinja").render(
        audit=audited, suspects=suspects, max_chars=_MAX_SHOWN_CHARS
    )
    return folder.write_text("audit.html", html)


# --------------------------------------------------------------------------------------------------- planted errors


@dataclass(frozen=True)
class Retrieval:
    """How well a ranking finds errors that were planted."""

    num_ranked: int
    num_wrong: int
    base_rate: float
    """Share of wrong references among all: the precision of a random ranking."""
    precision_at: dict[int, float]
    """Share of wrong references among the first k."""
    recall: float
    """Share of the wrong references that the ranking holds."""
    average_precision: float
    """Mean over the wrong references of the precision at their rank, 0 for those not ranked."""


def planted(
    ranked_ids: Sequence[str], wrong_ids: Collection[str], all_ids: Collection[str], cuts: Sequence[int] = (10, 30, 100)
) -> Retrieval:
    """Compare a ranking of suspects, most suspicious first, with the references known to be wrong.

    Cuts beyond the ranking's end are left out, and its whole length joins them. Raises ValueError if no reference is
    wrong, an id is ranked twice, or one is not among all.

    >>> found = planted(["b", "a"], {"b", "c"}, "abcd", cuts=[1, 10])
    >>> found.precision_at, found.recall, found.average_precision, found.base_rate
    ({1: 1.0, 2: 0.5}, 0.5, 0.5, 0.5)
    """
    wrong, ranked, everything = set(wrong_ids), set(ranked_ids), set(all_ids)
    if not wrong:
        raise ValueError("no reference answer is known to be wrong, so there is nothing to find")
    if len(ranked) < len(ranked_ids):
        raise ValueError("a question_id is ranked twice")
    if unknown := sorted((wrong | ranked) - everything):
        raise ValueError(f"{len(unknown)} question_ids are not among all questions, the first is {unknown[0]!r}")
    hits = [question_id in wrong for question_id in ranked_ids]
    found_at = [rank for rank, hit in enumerate(hits, start=1) if hit]
    sizes = sorted({*(cut for cut in cuts if cut < len(hits)), len(hits)} - {0})
    return Retrieval(
        num_ranked=len(hits),
        num_wrong=len(wrong),
        base_rate=len(wrong) / len(everything),
        precision_at={size: sum(hits[:size]) / size for size in sizes},
        recall=len(found_at) / len(wrong),
        average_precision=sum(count / rank for count, rank in enumerate(found_at, start=1)) / len(wrong),
    )
