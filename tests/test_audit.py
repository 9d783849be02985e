"""The label audit: which references are suspected, in which order, and how well that finds errors."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmarks.audit import planted
from hypothesis import given
from hypothesis import strategies as st
from rounds import judged as judged_row
from rounds import sample, write_round

from east_ray.report.audit import Audit, Suspect, audit, suspicion, write_audit
from east_ray.report.questions import fetch_responses, first_responses
from east_ray.storage import Folder, locate


def judged(answers: list[Any], reference: str = "4") -> dict[str, Any]:
    return judged_row(sample("q", answers, reference))


# ------------------------------------------------------------------------------------------------------- one question


@pytest.mark.parametrize(
    ("answers", "score"),
    [
        ([5] * 8, 8 / 10),
        ([5] * 7 + [4], 6 / 10),
        ([5, "5.0", "10/2", 6, 4, None, 7, 5], 3 / 10),  # 4 of 8 are the least that counts
        ([5, 5, 5, 6, 4, None, 7, 8], None),  # no answer has half of the responses
        ([5] * 4 + [4] * 4, None),  # as common as the reference
        ([5] * 4 + [None] * 4, None),  # as common as having no answer
        ([4] * 8, None),
        ([None] * 8, None),
    ],
)
def test_suspicion_is_the_margin_over_the_reference(answers: list[Any], score: float | None) -> None:
    assert suspicion(judged(answers)) == score


def test_the_share_that_is_needed_can_be_chosen() -> None:
    answers = [5, 5, 5, 6, 4, None, 7, 8]
    assert suspicion(judged(answers), min_share=0.375) == 2 / 10
    assert suspicion(judged([5] * 7 + [4]), min_share=0.9) is None


def test_many_responses_say_more_than_one() -> None:
    one, many = suspicion(judged([5])), suspicion(judged([5] * 120 + [6] * 8))
    assert one is not None and many is not None and one < many


def test_what_has_no_reference_or_no_responses_is_no_suspect() -> None:
    unparsable = judged([5] * 8, reference="...")
    assert unparsable["reason"] == "unparsable_reference"
    assert suspicion(unparsable) is None
    assert suspicion({"clusters": None, "num_responses": None}) is None


@given(st.lists(st.sampled_from([4, 5, "10/2", 6, None]), min_size=1, max_size=12), st.randoms())
def test_the_order_of_the_responses_does_not_matter(answers: list[Any], random: Any) -> None:
    shuffled = random.sample(answers, len(answers))
    score = suspicion(judged(answers))
    assert suspicion(judged(shuffled)) == score
    assert score is None or 0 < score < 1


def test_responses_are_found_as_they_were_clustered() -> None:
    row = sample("q", ["10/2", None, "5.0", 4])
    row["responses"][0]["finish_reason"] = "length"
    # Of clusters 0, 1 and 2 the largest is 0; the others are of equal size. One that ended by itself is preferred.
    found = first_responses(row["responses"], [0, 1, 0, 2], [0, 2, 1, None])
    assert found == ["So \\boxed{5.0}", "So \\boxed{4}", "no idea", None]
    assert first_responses(row["responses"][:1], [0], [0]) == ["So \\boxed{10/2}"]
    # Places are by size among these responses, whatever the numbers are.
    assert first_responses(row["responses"][1:], [1, 0, 0], [0, 1]) == ["So \\boxed{5.0}", "no idea"]


def test_only_the_first_responses_count_if_the_answers_say_so(tmp_path: Path) -> None:
    folder = write_round(tmp_path, [sample("q", [5, 4, "8/2", 4])])
    wanted = {"q": [0, 1]}
    every = fetch_responses(folder / "samples", folder / "answers", wanted)
    assert every == {"q": ["So \\boxed{4}", "So \\boxed{5}"]}
    first = fetch_responses(folder / "samples", folder / "answers", wanted, num_responses=2)
    assert first == {"q": ["So \\boxed{5}", "So \\boxed{4}"]}


# --------------------------------------------------------------------------------------------------------- one round


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Ten good questions; `wrong-n` have n of 8 responses with another answer than the reference, 5."""
    good = [sample(f"good-{i}", [4] * (8 - i % 4) + [5] * (i % 4)) for i in range(10)]
    wrong = [sample(f"wrong-{n}", ["10/2"] * n + [4] * (8 - n)) for n in (5, 6, 7, 8)]
    return write_round(tmp_path, good + wrong)


def audited(folder: Folder, **options: Any) -> Audit:
    names = ("samples", "answers", "examples", "discarded")
    return audit(*(folder / name for name in names), **options)


def test_kept_and_discarded_suspects_come_in_order_of_suspicion(folder: Folder) -> None:
    found = audited(folder)
    assert (found.num_questions, found.num_suspicious) == (14, 4)
    assert [one.question_id for one in found.suspects] == ["wrong-8", "wrong-7", "wrong-6", "wrong-5"]
    first, second, *_ = found.suspects
    assert (first.reference_response, first.reference_share, first.entropy) == (None, 0, 0)
    assert second.dominant_response == "So \\boxed{10/2}" and second.reference_response == "So \\boxed{4}"
    assert (second.dominant_answer, second.reference_answer, second.num_responses) == ("10/2", "4", 8)
    assert (second.share, second.reference_share, second.score) == (7 / 8, 1 / 8, 6 / 10)


def test_only_the_most_suspicious_are_held_but_all_are_counted(folder: Folder) -> None:
    found = audited(folder, max_rows=2)
    assert [one.question_id for one in found.suspects] == ["wrong-8", "wrong-7"]
    assert (found.num_suspicious, audited(folder, min_share=0.8).num_suspicious) == (4, 2)


def test_responses_are_read_from_no_other_parts(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    batches = Folder.batches

    def recorded(self: Folder, columns: Sequence[str], parts: Sequence[str], *, max_rows: int) -> Iterator[Any]:
        read.extend(part.removeprefix(f"{folder}/") for part in parts)
        return batches(self, columns, parts, max_rows=max_rows)

    monkeypatch.setattr(Folder, "batches", recorded)
    found = fetch_responses(folder / "samples", folder / "answers", {"good-4": [0], "absent": [0]})
    assert found == {"good-4": ["So \\boxed{4}"]}
    assert read == ["answers/part-1.parquet", "samples/part-1.parquet"]


def test_suspects_of_a_round_without_answers_have_no_responses(folder: Folder) -> None:
    (folder / "answers").clear()
    first, *_ = audited(folder).suspects
    assert (first.question_id, first.dominant_response) == ("wrong-8", None)


def test_an_empty_round_has_no_suspects(tmp_path: Path) -> None:
    assert audited(Folder(*locate(str(tmp_path)))) == Audit(0.5, 0, 0, [])


# --------------------------------------------------------------------------------------------------------- two files

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"


def written(tmp_path: Path, *suspects: Suspect) -> tuple[list[dict[str, Any]], str]:
    page = write_audit(Audit(0.5, 9, len(suspects), list(suspects)), Folder(*locate(str(tmp_path))))
    lines = (tmp_path / "audit.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line], Path(page).read_text(encoding="utf-8")


def suspect(**changes: Any) -> Suspect:
    texts = dict.fromkeys(("question_id", "question", "reference_answer", "dominant_answer"), HOSTILE)
    return Suspect(**(texts | {"score": 0.8, "share": 0.9, "reference_share": 0.0, "entropy": 0.3, "num_responses": 8,
                               "dominant_response": HOSTILE} | changes))  # fmt: skip


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    rows, html = written(tmp_path, suspect())
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html
    assert html.count("</pre>") == html.count("<pre>") == 1
    assert rows[0]["dominant_response"] == HOSTILE


def test_what_is_no_unicode_text_is_replaced(tmp_path: Path) -> None:
    rows, html = written(tmp_path, suspect(dominant_response="half \ud83d of\x00 a\u2028pair", question="\udc00?"))
    assert rows[0]["dominant_response"] == "half \ufffd of\ufffd a\u2028pair"
    assert "half \ufffd of\ufffd a" in html and rows[0]["question"] == "\ufffd?"


def test_long_responses_are_folded_and_cut_on_the_page_alone(tmp_path: Path) -> None:
    rows, html = written(tmp_path, suspect(dominant_response="z" * 10_000, reference_response="short"))
    assert html.count("z" * 4000) == 1 and "z" * 4001 not in html
    assert "all of its 10,000 characters" in html
    assert (html.count("<details>"), html.count("<details open>")) == (1, 1)
    assert len(rows[0]["dominant_response"]) == 10_000


def test_a_page_without_suspects_says_so(tmp_path: Path) -> None:
    rows, html = written(tmp_path)
    assert rows == [] and "No question is suspicious." in html


def test_the_page_of_a_round(folder: Folder, tmp_path: Path) -> None:
    page = Path(write_audit(audited(folder, max_rows=3), folder)).read_text()
    assert "4 of 14 questions" in page and "the 3 most suspicious are shown" in page


# ---------------------------------------------------------------------------------------------------- planted errors


def test_a_ranking_by_hand() -> None:
    found = planted(["w1", "g1", "w2", "g2"], {"w1", "w2", "w3", "w4"}, [f"{k}{i}" for k in "wg" for i in range(1, 9)],
                    cuts=(1, 2, 10))  # fmt: skip
    assert (found.num_ranked, found.num_wrong, found.base_rate) == (4, 4, 0.25)
    assert found.precision_at == {1: 1.0, 2: 0.5, 4: 0.5}
    assert found.recall == 0.5
    assert found.average_precision == (1 / 1 + 2 / 3) / 4


@given(st.permutations(range(8)), st.sets(st.integers(0, 7), min_size=1))
def test_nothing_ranks_better_than_all_wrong_ones_first(order: list[int], wrong: set[int]) -> None:
    ids = [str(i) for i in order]
    wrong_ids = {str(i) for i in wrong}
    best = planted(sorted(ids, key=lambda i: i not in wrong_ids), wrong_ids, ids)
    found = planted(ids, wrong_ids, ids)
    assert best.average_precision == best.recall == found.recall == 1
    assert found.base_rate <= best.average_precision and 0 < found.average_precision <= 1


@pytest.mark.parametrize(
    ("ranked", "wrong", "message"),
    [
        (["a"], set(), "nothing to find"),
        (["a", "a"], {"a"}, "ranked twice"),
        (["z"], {"a"}, "1 question_ids are not among all questions, the first is 'z'"),
    ],
)
def test_rankings_that_cannot_be_judged_are_refused(ranked: list[str], wrong: set[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planted(ranked, wrong, ["a", "b"])
