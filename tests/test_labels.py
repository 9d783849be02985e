"""Labels: what contradicts a reference, what becomes of it, what a trusted set says, and labels without references."""

import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rounds import MATH, graded, judged, sample, write_samples

import east_ray
from east_ray import pipeline, weighting
from east_ray.answers.graders import MathGrader
from east_ray.config import Config, InputError, WeightingConfig
from east_ray.config.files import resolve
from east_ray.console import Progress
from east_ray.evaluation import rounds
from east_ray.evaluation.collapse import Alarm
from east_ray.labels.calibrating import Calibration, Outcome, applied, calibrated, in_a_sentence, outcome
from east_ray.labels.deciding import (
    Checked,
    LabelRules,
    Labels,
    Lead,
    Past,
    change_of,
    contradiction,
    labelled,
    lead_of,
    slope_of,
)
from east_ray.labels.stage import look_for_trusted, prepare_labels, trusted_rows
from east_ray.labels.trusted import check, matched, read_trusted
from east_ray.records import DISCARDED, EXAMPLES, JUDGED, QUESTIONS, Question
from east_ray.report.audit import suspicion
from east_ray.report.files import write_report
from east_ray.selection import SelectionRules, factors_of
from east_ray.storage import RunDirectory
from east_ray.storage.rounds import Round

#: Answers to a question whose reference is 4; None: no answer.
ANSWERS = st.lists(st.sampled_from([4, 5, "10/2", 6, None]), min_size=1, max_size=12)
POLICIES = ("keep", "drop", "relabel", "downweight")


def rules_of(policy: str, **changes: Any) -> SelectionRules:
    trusted, past, number = (changes.pop(name, default) for name, default in (("trusted", {}), ("past", {}), ("n", 0)))
    return SelectionRules(labels=Labels(LabelRules(policy=policy, **changes), number, trusted, past))  # type: ignore[arg-type]


def row_of(answers: Sequence[Any], rules: SelectionRules, reference: str = "4") -> dict[str, Any]:
    return judged(sample("q", list(answers), reference), rules)


# ----------------------------------------------------------------------------------------------------- one question


@pytest.mark.parametrize(
    ("answers", "lead"),
    [
        ([5] * 6 + [4] * 2, (0.75, 0.5)),
        ([5] * 4 + [None] * 3 + [4], (0.5, 0.125)),
        ([5, "10/2", "5.0", 4], (0.75, 0.5)),
        ([5], (1.0, 1.0)),
        ([5, 4], None),  # a tie has no majority
        ([None] * 3 + [5], None),  # having no answer is none
    ],
)
def test_the_majority_is_commoner_than_every_other_outcome(answers: list[Any], lead: Any) -> None:
    found = lead_of(graded(sample("q", answers)))
    assert (None if found is None else (found.share, found.margin)) == lead


@pytest.mark.parametrize(
    ("answers", "changes", "is_contradicted"),
    [
        ([5] * 3 + [4], {}, True),
        ([4] * 3 + [5], {}, False),
        ([5] * 4 + [4, 4, 6, 7], {"min_share": 0.5}, True),
        ([5] * 4 + [4, 4, 6, 7], {"min_share": 0.51}, False),
        ([5] * 4 + [4, 4, 6, 7], {"min_margin": 0.25}, True),
        ([5] * 4 + [4, 4, 6, 7], {"min_margin": 0.26}, False),
        ([5] * 3 + [4], {"stable_rounds": 2}, False),  # there has been one round
        ([5] * 3 + [4], {"max_slope": 1.0}, False),  # one round has no slope
    ],
)
def test_what_contradicts_a_reference(answers: list[Any], changes: dict[str, Any], is_contradicted: bool) -> None:
    rules = LabelRules(policy="drop", **changes)
    assert (contradiction(graded(sample("q", answers)), (), 0, rules) is not None) == is_contradicted


def test_an_unusable_reference_is_not_contradicted() -> None:
    assert contradiction(graded(sample("q", [5, 5, 5], "...")), (), 0, LabelRules(policy="drop")) is None


@pytest.mark.parametrize(
    ("majorities", "stable_rounds", "is_contradicted"),
    [
        (["5", "5"], 3, True),
        (["4", "5"], 3, False),
        (["4", "5"], 2, True),  # what was before the last two rounds does not count
        ([None, "5"], 3, False),
        ([], 3, True),  # it was not asked in the earlier rounds
        (["5", "5"], 4, False),  # this is the third round
    ],
)
def test_the_majority_must_have_been_so_in_the_last_rounds(
    majorities: list[str | None], stable_rounds: int, is_contradicted: bool
) -> None:
    past = [Past(number, one, 0.0) for number, one in enumerate(majorities)]
    rules = LabelRules(policy="relabel", stable_rounds=stable_rounds)
    assert (contradiction(graded(sample("q", [5, 5, 4])), past, 2, rules) is not None) == is_contradicted


def test_a_pass_rate_that_grows_speaks_for_the_reference() -> None:
    now, past = graded(sample("q", [5] * 3 + [4])), [Past(0, "5", 0.05), Past(1, "5", 0.15)]
    assert slope_of(now, past, 2) == pytest.approx(0.1)  # 0.05, 0.15, 0.25
    assert contradiction(now, past, 2, LabelRules(policy="drop", max_slope=0.09)) is None
    assert contradiction(now, past, 2, LabelRules(policy="drop", max_slope=0.11)) is not None
    assert slope_of(now, [], 2) is None


# ---------------------------------------------------------------------------------------------------------- policies


def test_each_policy_does_what_it_says() -> None:
    answers = [5] * 6 + [4, 6]
    kept, dropped, relabelled, lighter = (row_of(answers, rules_of(policy, factor=0.25)) for policy in POLICIES)
    assert (kept["reason"], kept["label"], kept["chosen"], kept["rejected"]) == (
        None,
        None,
        r"So \boxed{4}",
        r"So \boxed{5}",
    )
    assert dropped["reason"] == "contradicted_reference" and dropped["reference_answer"] == "4"
    assert (relabelled["reference_answer"], relabelled["pass_rate"], relabelled["rejected_rate"]) == ("5", 0.75, 0.125)
    assert (relabelled["chosen"], relabelled["reason"]) == (r"So \boxed{5}", None)
    assert [one["is_correct"] for one in relabelled["clusters"]] == [True, False, False]
    assert lighter | {"label": None} == kept
    told = {"answer": "5", "original_reference": "4", "agrees": False, "reference_cluster": 1, "share": 0.75}
    for row, action in ((dropped, "drop"), (relabelled, "relabel"), (lighter, "downweight")):
        assert row["label"].items() >= (told | {"action": action, "margin": 0.625, "slope": None}).items()
    assert [row["label"]["factor"] for row in (dropped, relabelled, lighter)] == [1, 1, 0.25]


def test_a_question_that_nobody_answers_as_the_reference_says_is_trained_on_after_relabelling() -> None:
    assert row_of([5] * 4, rules_of("keep"))["reason"] == "all_wrong"
    assert row_of([5] * 4, rules_of("drop"))["reason"] == "contradicted_reference"
    relabelled = row_of([5] * 4, rules_of("relabel"))
    assert (relabelled["reason"], relabelled["pass_rate"], relabelled["label"]["reference_cluster"]) == (None, 1, None)


@given(ANSWERS)
def test_what_is_not_contradicted_is_as_without_a_policy(answers: list[Any]) -> None:
    kept = row_of(answers, SelectionRules())
    assert row_of(answers, rules_of("keep")) == kept
    if contradiction(graded(sample("q", answers)), (), 0, LabelRules()) is None:
        assert all(row_of(answers, rules_of(policy)) == kept for policy in POLICIES)


@given(ANSWERS, st.sampled_from(POLICIES), st.randoms())
def test_the_order_of_the_responses_does_not_matter(answers: list[Any], policy: str, random: Any) -> None:
    def decided(some: list[Any]) -> Any:
        row = row_of(["5" if one in (5, "10/2") else one for one in some], rules_of(policy))
        place = row["label"] and row["label"]["reference_cluster"]
        told = row["label"] and {**row["label"], "reference_cluster": place is None}
        return row["reason"], row["pass_rate"], row["reference_answer"], told

    assert decided(random.sample(answers, len(answers))) == decided(answers)


@given(ANSWERS, st.sampled_from(["4", "5", "6", "7"]), st.sampled_from(POLICIES), st.sampled_from([None, 3]))
def test_no_policy_touches_a_trusted_question(answers: list[Any], right: str, policy: str, first: int | None) -> None:
    row = sample("q", answers)
    checked = check(trusted_row("q", right), Question.of(row), graded(row), MATH)
    rules = replace(rules_of(policy, trusted={"q": checked}), num_responses=first)
    found, as_given = (
        judged(row, rules),
        judged(sample("q", answers, right), replace(SelectionRules(), num_responses=first)),
    )
    assert found | {"label": None} == as_given
    assert (found["label"]["action"], found["label"]["agrees"]) == ("trusted", right == "4")


@given(ANSWERS, st.sampled_from(["drop", "relabel", "downweight"]))
def test_the_row_of_a_change_undoes_it(answers: list[Any], policy: str) -> None:
    row, rules = sample("q", answers), rules_of(policy)
    changed = judged(row, rules)
    if (change := change_of(changed)) is None:
        has_no_weight = policy == "downweight" and changed["reason"] == "all_wrong"
        assert changed["label"] is None or has_no_weight
        return
    assert (
        change["action"] == policy
        and change["new_answer"] in ("5", "10/2", "6")
        and "the reference 4;" in change["why"]
    )
    undo = trusted_row(change["question_id"], change["reference_answer"])
    checked = check(undo, Question.of(row), graded(row), MATH)
    undone = judged(row, rules_of(policy, trusted={"q": checked}))
    assert undone | {"label": None} == judged(row, SelectionRules())


@given(st.lists(ANSWERS, min_size=1, max_size=6), st.floats(0.01, 0.99))
def test_weights_have_mean_1_after_downweighting(questions: list[list[Any]], factor: float) -> None:
    rules = rules_of("downweight", factor=factor)
    rows = [judged(sample(f"q{i}", answers), rules) for i, answers in enumerate(questions)]
    kept = pa.Table.from_pylist([row for row in rows if row["reason"] is None], JUDGED)
    if not kept.num_rows:
        return
    factors = factors_of(kept)
    mapped = weighting.mapped(np.ones(kept.num_rows), WeightingConfig(signal="uniform")) * factors
    weights = mapped / weighting.normalizer(mapped)
    assert weights.mean() == pytest.approx(1)
    assert np.allclose(weights / factors, weights[0] / factors[0])
    assert set(factors.tolist()) <= {1.0, factor}


# ------------------------------------------------------------------------------------------------------ label-free


def test_the_majority_stands_in_for_a_reference() -> None:
    rules = SelectionRules(labels=Labels(LabelRules(source="majority", min_share=0.6)))
    row = row_of([5, 5, 5, 4], rules, reference=None)  # type: ignore[arg-type]
    assert (row["reason"], row["reference_answer"], row["pass_rate"], row["rejected_rate"]) == (None, "5", 0.75, 0.25)
    assert (row["label"]["action"], row["label"]["agrees"], row["label"]["original_reference"]) == (
        "majority",
        None,
        None,
    )
    for answers in ([5, 5, 4, 4], [5, 4, 6], [None] * 4):
        assert row_of(answers, rules, reference=None)["reason"] == "no_majority"  # type: ignore[arg-type]


@given(ANSWERS, st.sampled_from(["4", "5", "7", None, "..."]))
def test_without_references_a_given_one_decides_nothing(answers: list[Any], reference: str | None) -> None:
    rules = SelectionRules(labels=Labels(LabelRules(source="majority")))
    with_one, without = row_of(answers, rules, reference), row_of(answers, rules, None)  # type: ignore[arg-type]
    decided = [name for name in JUDGED.names if name not in ("label", "reference_answer")]
    assert [with_one[name] for name in decided] == [without[name] for name in decided]
    if with_one["reason"] == "no_majority":
        assert with_one["reference_answer"] == reference
    else:
        assert with_one["reference_answer"] == without["reference_answer"]
        said = {"4": "4", "5": "5", "6": "6", "10/2": "5"}[with_one["label"]["answer"]]
        assert with_one["label"]["agrees"] == (None if reference in (None, "...") else reference == said)


# ----------------------------------------------------------------------------------------------------- the audit


def test_the_audit_asks_of_the_given_reference_whatever_the_policy() -> None:
    answers = [5] * 6 + [4, 6]
    score = suspicion(row_of(answers, SelectionRules()))
    assert score == 5 / 10
    assert [suspicion(row_of(answers, rules_of(policy))) for policy in POLICIES] == [score] * 4
    trusted = {"q": Checked("5", agrees=False, cluster=0)}
    assert suspicion(row_of(answers, rules_of("keep", trusted=trusted))) is None
    free = SelectionRules(labels=Labels(LabelRules(source="majority")))
    assert suspicion(row_of(answers, free)) == score
    assert suspicion(row_of([5, 5, 4, 4], free), min_share=0.1) is None


@pytest.mark.parametrize("share", [0.55, 0.07, 0.57, 0.58])  # times 100 these are not whole numbers
def test_the_audit_and_the_rules_agree_on_the_least_share(share: float) -> None:
    num = round(100 * share)
    row = sample("q", [5] * num + list(range(100, 200 - num)))
    is_contradicted = contradiction(graded(row), (), 0, LabelRules(policy="drop", min_share=share)) is not None
    assert is_contradicted and suspicion(judged(row), share) is not None
    assert suspicion(judged(row), share + 0.001) is None


# --------------------------------------------------------------------------------------------------- the trusted set


def trusted_row(question_id: str, answer: str) -> Any:
    return read_rows([{"question_id": question_id, "reference_answer": answer}])[0]


def read_rows(rows: list[dict[str, Any]], folder: Path | None = None) -> list[Any]:
    import tempfile

    path = Path(folder or tempfile.mkdtemp()) / "trusted.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_trusted(str(path), MATH)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "q?", "answer": "4"}], "row 1: has no reference_answer, the answer that you have checked"),
        ([{"reference_answer": "4"}], "row 1: has neither question_id nor question"),
        ([{"questions": "q?", "reference_answer": "4"}], "did you mean questions?"),
        ([{"question": "q?", "reference_answer": ["4", "5"]}], "row 1: reference_answer: "),
        ([], "trusted.jsonl is empty; expected"),
        ([{"question": "q?", "reference_answer": "..."}], "row 1: responses cannot be compared with the answer '...'"),
        ([{"question_id": "a", "reference_answer": "1"}] * 2, "row 2: is of the same question as labels.trusted: "),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError) as error:
        read_rows(rows, tmp_path)
    assert str(error.value).startswith("labels.trusted: ") and message in str(error.value)


def test_an_empty_text_is_missing(tmp_path: Path) -> None:
    row = {"question_id": " ", "question": "A?", "reference_answer": "1", "action": ""}
    (one,) = read_rows([row], tmp_path)
    assert (one.question_id, one.question, one.is_drawn) == (None, "A?", True)
    assert [row.answer for row, _ in matched(read_rows([row], tmp_path), [Question("a", "A?")]).values()] == ["1"]
    for name, message in (("question", "has neither question_id nor question"), ("reference_answer", "has no ref")):
        with pytest.raises(InputError, match=message):
            read_rows([row | {name: ""}], tmp_path)


def test_a_trusted_question_is_found_by_id_or_text(tmp_path: Path) -> None:
    questions = [Question("a", "A?"), Question("b", " B?"), Question("b2", "B?"), Question("c", "C?")]
    by_id = {"question_id": "a", "reference_answer": 1}
    rows = read_rows([by_id, {"question": "B?", "reference_answer": "so #### 2", "action": "relabel"}], tmp_path)
    found = matched(rows, questions)
    assert {name: (row.answer, row.is_drawn) for name, (row, _) in found.items()} == {
        "a": ("1", True), "b": ("2", False), "b2": ("2", False),
    }  # fmt: skip
    for wrong, message in (
        ([by_id, by_id], "is of the same question as"),
        ([{"question": "A?", "reference_answer": 1}] * 2, "is of the same question as"),
        ([by_id, {"question": "A?", "reference_answer": 1}], "is of the same question as"),
        ([by_id | {"question": "B?"}], "in this run a is another question; leave out question_id"),
    ):
        with pytest.raises(InputError, match=message):
            matched(read_rows(wrong, tmp_path), questions)


def test_a_row_whose_id_is_not_in_the_run_is_found_by_its_text(tmp_path: Path) -> None:
    def told(rows: list[dict[str, Any]], *questions: Question) -> dict[str, str]:
        return {name: row.answer for name, (row, _) in matched(read_rows(rows, tmp_path), questions).items()}

    row = {"question_id": "gsm-000001", "question": "A?", "reference_answer": 1}
    assert told([row], Question("part-000001", "A?"), Question("part-000002", "B?")) == {"part-000001": "1"}
    # Where the id is in the run, another question with this text is another question.
    twice = [Question("a", "A?"), Question("gsm-000001", "A?")]
    assert told([row], *twice) == {"gsm-000001": "1"} == told([row], *reversed(twice))
    both = [row, row | {"question_id": "a", "reference_answer": 2}]
    assert told(both, *twice) == {"gsm-000001": "1", "a": "2"}
    with pytest.raises(InputError, match=r"row 2: is of the same question as .*row 1; expected one row a question"):
        told(both, Question("b", "A?"))


def test_what_was_changed_is_undone_in_a_run_over_the_samples_that_has_names_of_its_own(tmp_path: Path) -> None:
    rows = given_rows([4, 4, 5], [6, 6, 4], [7, 7, 4])
    first = east_ray.weigh(rows, labels={"policy": "relabel"}, name="gsm")
    found = [change for row in first.examples.to_pylist() if (change := change_of(row))]
    assert [one["question_id"] for one in found] == ["gsm-000002", "gsm-000003"]
    nobodys = {"question": "nobody's?", "reference_answer": "1"}
    (tmp_path / "undo.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (found[0], nobodys)))
    labels = {"policy": "relabel", "trusted": str(tmp_path / "undo.jsonl")}
    said = r"1 of its 2 questions are in this round; not found: 1, the first in .*undo\.jsonl, row 2 \(\"nobody's\?\"\)"
    with pytest.warns(UserWarning, match=said):
        second = east_ray.weigh(first.samples, labels=labels, name="part-000000")
    labelled_so = {row["question_id"]: (row["reference_answer"], row["label"] and row["label"]["action"])
                   for row in second.examples.to_pylist()}  # fmt: skip
    assert labelled_so == {
        "part-000000-000001": ("4", None),
        "part-000000-000002": ("4", "trusted"),
        "part-000000-000003": ("7", "relabel"),
    }


def test_an_answer_on_which_the_grader_fails_is_named(tmp_path: Path) -> None:
    class Failing(MathGrader):
        def can_use(self, reference_answer: str | None) -> bool:
            raise RuntimeError("no such unit")

    (tmp_path / "trusted.jsonl").write_text('{"question": "q?", "reference_answer": "5 parsec"}')
    with pytest.raises(InputError, match=r"row 1: the grader failed on this answer: Failing\.can_use raised Runtime"):
        read_trusted(str(tmp_path / "trusted.jsonl"), Failing())


def drawn(share: float, margin: float, is_right_to_act: bool) -> tuple[Outcome, bool]:
    """A question of a trusted set under relabelling: either the majority or the reference is right."""
    return Outcome(Lead(0, share, margin), not is_right_to_act, is_right_to_act, is_right_to_act), is_right_to_act


def test_thresholds_are_those_with_the_fewest_errors_and_the_largest_of_them() -> None:
    found = [*[drawn(0.9, 0.8, True)] * 3, *[drawn(0.7, 0.5, True)] * 2, *[drawn(0.6, 0.3, False)] * 4]
    quiet: list[tuple[Outcome | None, bool]] = [(None, False)] * 30
    one = calibrated([*found, *quiet], LabelRules(policy="relabel"))
    assert one == Calibration(39, True, 0.7, 0.5, 0, 4, 5, 5, 5, 4, 0)
    assert applied(one, LabelRules(policy="relabel")).min_share == 0.7
    # Where acting does harm at every threshold, it is best not to act.
    never = calibrated([*[drawn(0.9, 0.8, False)] * 4, *quiet], LabelRules(policy="relabel"))
    assert (never.min_share, never.num_errors, never.num_errors_as_set, never.num_acted) == (None, 0, 4, 0)
    assert math.isinf(applied(never, LabelRules(policy="relabel")).min_share)
    # With few questions, or with none that tells, the thresholds stay.
    few = calibrated(found, LabelRules(policy="relabel"))
    assert (few.is_applied, few.min_share, few.num_errors, few.num_acted, few.num_acted_rightly) == (
        False,
        0.5,
        4,
        9,
        5,
    )
    assert calibrated(quiet, LabelRules(policy="drop", min_share=0.4)).min_share == 0.4


@pytest.mark.parametrize(
    ("num_better", "num_worse", "is_applied"), [(3, 0, False), (4, 0, True), (4, 1, False), (6, 1, True), (7, 2, True)]
)
@pytest.mark.parametrize("share", [0.9, 0.3])  # above the least share that is set: to act no more; below: to act too
def test_thresholds_stay_as_set_where_others_are_not_shown_to_be_better(
    num_better: int, num_worse: int, is_applied: bool, share: float
) -> None:
    rules, is_right = LabelRules(policy="relabel"), share < 0.5
    quiet: list[tuple[Outcome | None, bool]] = [(None, False)] * 30
    found = [*[drawn(share, 0.2, is_right)] * num_better, *[drawn(share, 0.2, not is_right)] * num_worse, *quiet]
    one = calibrated(found, rules)
    assert (one.is_applied, one.num_better, one.num_worse) == (is_applied, num_better, num_worse)
    assert (one.num_errors_as_set, one.num_errors) == (num_better, num_worse if is_applied else num_better)
    of = f"{num_better} of the {len(found)} trusted questions rightly that those that are set treat wrongly, and"
    of += f" {num_worse}"
    if not is_applied:
        assert applied(one, rules) == rules
        start = "labels.min_share (0.5) and labels.min_margin (0) are as set: no others are shown to be better on the "
        assert in_a_sentence(one, rules) == f"{start}{len(found)} trusted questions; the best treat {of} the other way"
    else:
        start = "the labels act on no question: that treats" if share > 0.5 else (
            "labels.min_share is 0.3 and labels.min_margin 0.2: these treat")  # fmt: skip
        assert in_a_sentence(one, rules) == f"{start} {of} the other way"


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8), st.booleans()), max_size=20))
def test_no_pair_of_thresholds_has_fewer_errors_than_the_best(rows: list[tuple[int, int, bool]]) -> None:
    found = [drawn(share / 8, margin / 8, is_right) for share, margin, is_right in rows]
    # So many that the best are chosen, wherever they differ from those that are set, under which none is acted on.
    rules = LabelRules(policy="relabel", min_share=2.0)
    one = calibrated([*(pair for pair in found for _ in range(4)), *[(None, False)] * 30], rules)

    def errors(share: float, margin: float) -> int:
        acts = [pair.lead.share >= share and pair.lead.margin >= margin for pair, _ in found]
        return 4 * sum(not is_right if is_acted else is_right
                       for is_acted, (*_, is_right) in zip(acts, rows, strict=True))  # fmt: skip

    fewest = min(errors(share / 8, margin / 8) for share in range(1, 10) for margin in range(9))
    assert one.num_errors == (fewest if one.is_applied else one.num_errors_as_set)
    assert one.num_errors_as_set - fewest == one.num_better - one.num_worse


def test_many_different_shares_are_calibrated_within_seconds() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(16, 129, 3000)
    found = [drawn(one / size, (2 * one - size) / size, bool(random.random() < 0.5))
             for size in sizes.tolist() for one in [int(random.integers(size // 2 + 1, size + 1))]]  # fmt: skip
    begin = time.perf_counter()
    assert calibrated(found, LabelRules(policy="relabel")).num_questions == 3000
    assert time.perf_counter() - begin < 10


@pytest.mark.parametrize("num_trusted", [30, 100])
@pytest.mark.parametrize("middle", [0.4, 0.5, 0.7])
def test_on_other_questions_the_thresholds_are_no_worse_than_as_set(middle: float, num_trusted: int) -> None:
    """Of three in ten questions the reference is contradicted, and the commoner another answer is, the likelier it is
    right: as likely as not at the share `middle`."""
    random, rules = np.random.default_rng(0), LabelRules(policy="relabel")

    def questions(num: int) -> Any:
        shares = random.uniform(0.15, 1, num).round(2)
        is_right = random.random(num) < 1 / (1 + np.exp(-10 * (shares - middle)))
        return random.random(num) < 0.3, shares, is_right

    others = questions(50_000)

    def errors(some: LabelRules) -> float:
        is_contradicted, shares, is_right = others
        acts = is_contradicted & (shares >= some.min_share) & (shares / 2 >= some.min_margin)
        return float(np.mean(np.where(acts, ~is_right, is_contradicted & is_right)))

    found = []
    for _ in range(100):
        rows = zip(*(values.tolist() for values in questions(num_trusted)), strict=True)
        trusted = [drawn(share, share / 2, is_right) if is_one else (None, False) for is_one, share, is_right in rows]
        found.append(errors(applied(calibrated(trusted, rules), rules)))
    assert np.mean(found) <= errors(rules) + 0.005


def test_questions_that_are_never_trained_on_count_for_no_policy() -> None:
    def told(answers: list[Any], right: str, policy: str) -> Any:
        row, labels = sample("q", answers), Labels(LabelRules(policy=policy))  # type: ignore[arg-type]
        found, is_wrong = outcome(check(trusted_row("q", right), Question.of(row), graded(row), MATH),
                                  graded(row), None, (), labels)  # fmt: skip
        return found and (found.is_wrong_acted, found.is_wrong_left, found.is_right_to_act), is_wrong

    for policy in ("drop", "downweight"):
        # Nobody gives the reference: the question is discarded as all_wrong, whatever the policy.
        assert told([5] * 8, "4", policy) == told([5] * 8, "5", policy) == (None, False)
        assert told([5] * 7 + [4], "4", policy) == ((True, False, False), False)
        assert told([5] * 7 + [4], "5", policy) == ((False, True, True), True)
    assert told([5] * 8, "5", "relabel") == ((False, False, True), False)
    assert told([5] * 8, "7", "relabel") == ((True, False, False), False)
    assert told([5] * 7 + [4], "7", "relabel") == ((True, True, False), True)


@pytest.mark.parametrize(
    ("policy", "right", "least_share", "told"),
    [
        # 20 right references that nobody gives are discarded in any case, so the 10 wrong ones decide.
        ("drop", ["4"] * 20 + ["5"] * 10, 0.5, (0, 10, 10)),
        # The majority is as wrong as the reference: relabelling would train on it.
        ("relabel", ["7"] * 20 + ["4"] * 10, None, (0, 0, 0)),
    ],
)
def test_what_is_discarded_anyway_switches_no_policy_off_or_on(
    tmp_path: Path, policy: str, right: list[str], least_share: float | None, told: tuple[int, int, int]
) -> None:
    names = [f"a{i}" for i in range(20)] + [f"b{i}" for i in range(10)]
    answers = {name: [5] * 8 if name < "b" else [5] * 7 + [4] for name in names}
    rows = [{"question_id": name, "reference_answer": one} for name, one in zip(names, right, strict=True)]
    read_rows(rows, tmp_path)
    round_ = round_of(tmp_path, answers=answers, labels={"policy": policy, "trusted": f"{tmp_path}/trusted.jsonl"})
    one = prepare_labels(round_, round_.config, MATH).calibration
    assert one is not None and one.min_share == least_share
    assert (one.num_errors, one.num_acted, one.num_acted_rightly) == told


# ---------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "fix"}, "labels.policy: 'fix' given, expected 'keep', 'drop', 'relabel' or 'downweight'"),
        ({"source": "majority", "policy": "drop"}, "drop needs references; with source: majority it must be keep"),
        ({"factor": 0.0}, "labels.factor: 0.0 given, expected greater than 0"),
        (
            {"policy": "drop", "stable_rounds": 3},
            "labels.stable_rounds: 3 needs as many rounds, and rounds is 1, so no reference would be contradicted",
        ),
        ({"policy": "relabel", "max_slope": 0.0}, "labels.max_slope: 0 needs two rounds at least, and rounds is 1"),
        ({"min_share": 0.0}, "labels.min_share"),
        ({"stable_rounds": 0}, "labels.stable_rounds"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        resolve({"model": "m", "run_dir": "r", "questions": {"path": "q.jsonl"}, "labels": settings})
    assert message in str(error.value)


def test_references_may_be_missing_where_the_majority_labels_alone() -> None:
    values = {"model": "m", "run_dir": "r", "questions": {"path": "q.jsonl", "reference_answer_column": None}}
    with pytest.raises(InputError, match=r"questions.reference_answer_column: null needs labels.source: majority"):
        resolve(values)
    free = values | {"labels": {"source": "majority"}}
    assert resolve(free).questions is not None
    with pytest.raises(InputError, match=r"evaluation.questions.reference_answer_column: held-out questions need ref"):
        resolve(free | {"evaluation": {"questions": values["questions"]}})


def test_worked_solutions_have_no_labels() -> None:
    values = {"model": "m", "run_dir": "r", "questions": {"path": "q.jsonl"}}
    with pytest.raises(InputError, match=r"labels: training\.examples: reference_solutions trains on"):
        resolve(values, ["training.examples=reference_solutions", "labels.policy=drop"])


def test_the_least_share_of_older_files_is_read() -> None:
    values: dict[str, Any] = {"model": "m", "run_dir": "r", "questions": {"path": "q.jsonl"}}
    assert resolve(values | {"studies": {"min_share": 0.7}}).labels.min_share == 0.7
    assert resolve(values | {"studies": {"min_share": 0.7}}, ["labels.min_share=0.4"]).labels.min_share == 0.4


# ------------------------------------------------------------------------------------------------------- one round


#: question_id -> its answers; the reference of all is 4, and 5 is right for those called wrong.
ROUND = {
    **{f"right-{i}": [4] * (7 - i % 3) + [5] * (i % 3) + [6] for i in range(6)},
    **{f"wrong-{i}": [5] * (6 - i) + [4] * (i + 1) + [6] for i in range(2)},
    "stubborn": [7] * 6 + [4] * 2,  # the model is wrong
}


def round_of(folder: Path, number: int = 0, answers: Any = None, **settings: Any) -> Round:
    """A round with samples and answers, not yet judged."""
    config = resolve(
        {"model": "m", "run_dir": str(folder / "run"), "questions": {"path": "q.jsonl"}, "rounds": 3, **settings}
    )
    round_ = Round(config, RunDirectory(config), number, "m", "m", Progress(Console(quiet=True)))
    rows = [sample(name, list(one)) for name, one in (answers or ROUND).items()]
    write_samples(round_.stages.folder, [rows[::2], rows[1::2]])
    for stage in ("questions", "sampling", "answers"):
        with round_.stages.recording(stage) as record:
            record.counts = {"asked": len(rows), "set_aside": {}}
    return round_


def weigh(round_: Round) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    learners = round_.learners()
    pipeline.judge_round(round_, learners)
    for learner in learners:
        pipeline.make_examples(learner)
    folders = ((round_.stages / "examples", EXAMPLES), (round_.stages / "discarded", DISCARDED))
    examples, discarded = (one.read(schema).sort_by("question_id").to_pylist() for one, schema in folders)
    return examples, discarded


def changes(round_: Round, name: str = "") -> list[dict[str, Any]]:
    text = (round_.stages.learner(name or "trained") / "labels").read_text("changes.jsonl") or ""
    return [json.loads(line) for line in text.splitlines()]


def test_a_question_that_is_discarded_has_no_weight_to_change(tmp_path: Path) -> None:
    answers = {"contradicted": [5] * 7 + [4], "all-wrong": [5] * 8, "right": [4] * 8}
    round_ = round_of(tmp_path, answers=answers, labels={"policy": "downweight"}, weighting={"signal": "uniform"})
    _, discarded = weigh(round_)
    assert [(row["question_id"], row["reason"]) for row in discarded] == [("all-wrong", "all_wrong")]
    assert [row["question_id"] for row in changes(round_)] == ["contradicted"]
    record = round_.stages.record("examples")
    assert record is not None and record.counts["labels"] == {"downweight": 1}


def test_the_trusted_file_is_read_only_while_a_round_waits_for_it(tmp_path: Path) -> None:
    row, trusted = {"question_id": "right-0", "reference_answer": 4}, tmp_path / "trusted.jsonl"
    (tmp_path / "table.json").write_text("")
    settings: dict[str, Any] = {"labels": {"trusted": str(trusted)}, "rounds": 2, "model": str(tmp_path)}
    settings["sampling"] = {"backend": "scripted", "backend_args": {"table": str(tmp_path / "table.json")}}
    for number in range(2):
        read_rows([row], tmp_path)
        round_ = round_of(tmp_path, number, **settings)
        pipeline.check_inputs(round_.config, round_.directory)
        trusted.unlink()
        with pytest.raises(InputError, match=r"labels\.trusted: .*trusted\.jsonl"):
            pipeline.check_inputs(round_.config, round_.directory)
        read_rows([row], tmp_path)
        weigh(round_)
    trusted.unlink()
    pipeline.check_inputs(round_.config, round_.directory)


def test_without_a_policy_nothing_is_written(tmp_path: Path) -> None:
    round_ = round_of(tmp_path)
    examples, discarded = weigh(round_)
    assert len(examples) == 9 and not discarded and not (round_.stages / "labels").exists
    assert {row["label"] for row in examples} == {None}


def test_every_policy_in_one_round_with_its_changes_and_the_report(tmp_path: Path) -> None:
    variants = {policy: {"labels.policy": policy} for policy in POLICIES[1:]}
    round_ = round_of(tmp_path, variants=variants, weighting={"signal": "uniform"})
    examples, _ = weigh(round_)
    assert [row["weight"] for row in examples] == [1.0] * 9
    of_variant = {name: round_.stages.learner(name) for name in variants}
    tables = {name: (stages / "examples").read(EXAMPLES).to_pylist() for name, stages in of_variant.items()}
    assert [len(tables[name]) for name in variants] == [6, 9, 9]
    for name in variants:
        assert {row["question_id"] for row in changes(round_, name)} == {"wrong-0", "wrong-1", "stubborn"}
    lighter = {row["question_id"]: row["weight"] for row in tables["downweight"]}
    assert lighter["wrong-0"] == pytest.approx(0.5 * lighter["right-0"]) and sum(lighter.values()) == pytest.approx(9)
    record = of_variant["drop"].record("examples")
    assert record is not None
    assert record.counts == {"kept": 6, "discarded": {"contradicted_reference": 3}, "labels": {"drop": 3}}
    one = next(row for row in changes(round_, "relabel") if row["question_id"] == "wrong-0")
    assert (one["reference_answer"], one["new_answer"], one["share"], one["reference_share"]) == ("4", "5", 0.75, 0.125)
    assert one["why"] == "6 of 8 responses say 5, and 1 the reference 4; the majority's answer became the reference"
    page = Path(write_report(round_.directory)).read_text()
    assert "Labels of each training" in page and "6 of 8 responses say 5" in page


def test_a_change_is_undone_by_its_row_in_the_trusted_file(tmp_path: Path) -> None:
    first = round_of(tmp_path / "a", labels={"policy": "relabel"})
    weigh(first)
    wrong = next(row for row in changes(first) if row["question_id"] == "stubborn")
    (tmp_path / "trusted.jsonl").write_text(json.dumps(wrong) + "\n")
    second = round_of(tmp_path / "b", labels={"policy": "relabel", "trusted": str(tmp_path / "trusted.jsonl")})
    examples, _ = weigh(second)
    row = next(row for row in examples if row["question_id"] == "stubborn")
    assert (row["reference_answer"], row["pass_rate"], row["label"]["action"]) == ("4", 0.25, "trusted")
    assert {row["question_id"] for row in changes(second)} == {"wrong-0", "wrong-1"}
    told = json.loads((second.stages / "labels").read_text("labels.json") or "")
    assert told["trusted"] == {"num_rows": 1, "num_found": 1, "num_questions": 0, "num_wrong": 0}


def test_how_many_trusted_questions_a_round_has_is_said_and_none_is_an_error_in_a_run_of_one_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trusted.jsonl"

    def weighed(row: dict[str, Any], rounds: int) -> str:
        rows = [row, {"question": "nobody's?", "reference_answer": 1}]
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        labels = {"policy": "drop", "trusted": str(path)}
        round_ = round_of(tmp_path / f"{rounds}", rounds=rounds, labels=labels)
        weigh(replace(round_, progress=Progress(Console(soft_wrap=True))))
        return capsys.readouterr().out

    mine, other = ({"question_id": name, "reference_answer": "4"} for name in ("stubborn", "STUBBORN"))
    said = f"labels.trusted: {path}: 1 of its 2 questions are in this round; not found: 1, the first in {path}, row 2"
    assert f'{said} ("nobody\'s?")' in weighed(mine, 1)
    said = f"labels.trusted: {path}: 0 of its 2 questions are in this round; not found: 2, the first in {path}, row 1"
    assert f"{said} ('STUBBORN')" in weighed(other, 3)
    with pytest.raises(
        InputError, match=r"trusted\.jsonl: none of its 2 questions is in this round; expected rows with"
    ):
        weighed(other, 1)
    with pytest.raises(InputError, match=r"with the question's text as in samples\.path"):
        east_ray.weigh(given_rows([4, 5, 5]), labels={"policy": "drop", "trusted": str(path)})


def test_a_trusted_set_sets_the_thresholds_and_estimates_wrong_references(tmp_path: Path) -> None:
    # Majorities of 6 of 8 are right against the reference, those of 5 of 8 are wrong.
    answers = {f"a{i}": [5] * 6 + [4, 6] for i in range(10)} | {f"b{i}": [7] * 5 + [4] * 3 for i in range(15)}
    answers |= {f"c{i}": [4] * 8 for i in range(15)}
    rows = [
        {"question_id": name, "reference_answer": "5" if name < "b" else "4"} for name in answers if name[-1] != "0"
    ]
    (tmp_path / "trusted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = {"policy": "relabel", "trusted": str(tmp_path / "trusted.jsonl")}
    round_ = round_of(tmp_path, answers=answers, labels=labels)
    found = prepare_labels(round_, round_.config, MATH)
    assert found.calibration == Calibration(len(rows), True, 0.75, 0.625, 0, 13, 9, 9, 9, 13, 0)
    examples, _ = weigh(round_)
    by_id = {row["question_id"]: row for row in examples}
    assert (by_id["a0"]["reference_answer"], by_id["b0"]["reference_answer"]) == ("5", "4")
    assert by_id["a0"]["label"]["action"] == "relabel" and by_id["b0"]["label"] is None
    told = json.loads((round_.stages / "labels").read_text("labels.json") or "")
    assert told["trusted"] == {"num_rows": 35, "num_found": 35, "num_questions": 35, "num_wrong": 9}
    assert told["rules"]["min_share"] == 0.75
    page = Path(write_report(round_.directory)).read_text()
    said = (
        "labels.min_share is 0.75 and labels.min_margin 0.625: these treat 13 of the 35 trusted questions rightly that "
        "those that are set treat wrongly, and 0 the other way"
    )
    assert told["calibration"]["said"] == said and said[1:] in page
    assert "On other questions expect more label errors" in page and "Warning" not in page
    assert "Of 35 given references among them 25.7 (14.2 to 42.1) % are wrong" in page
    assert "100.0 (70.1 to 100.0)" in page


@pytest.mark.parametrize("trusted", ["right-0", "nobody"])
def test_few_trusted_questions_set_no_thresholds_and_none_has_no_table(tmp_path: Path, trusted: str) -> None:
    (tmp_path / "trusted.jsonl").write_text(json.dumps({"question_id": trusted, "reference_answer": "4"}) + "\n")
    round_ = round_of(tmp_path, labels={"policy": "drop", "trusted": str(tmp_path / "trusted.jsonl")})
    weigh(round_)
    page = Path(write_report(round_.directory)).read_text()
    is_there = trusted == "right-0"
    assert f"Trusted: {int(is_there)} of the 1 questions in the file are in this round." in page
    assert "On other questions expect" not in page
    assert ("The rules on the trusted set" in page) == ("with fewer than 30 trusted questions" in page) == is_there
    assert ("without acting: if the rules acted on no question" in page) == is_there


def test_later_rounds_ask_what_the_earlier_ones_gave(tmp_path: Path) -> None:
    labels = {"policy": "drop", "stable_rounds": 2, "max_slope": 0.2}
    answers = {"stable": [5] * 6 + [4, 6], "new": [5] * 6 + [4, 6], "growing": [5] * 5 + [4] * 3, "fresh": [5] * 4}
    before = {"stable": ["10/2"] * 4, "new": [6] * 3 + [5], "growing": [5] * 4}
    first = round_of(tmp_path, answers=before, labels=labels)
    assert weigh(round_of(tmp_path, answers=before | {"right": [4, 4, 5]}, labels=labels))[1] != []  # all_wrong alone
    assert not changes(first)
    _, discarded = weigh(round_of(tmp_path, 1, answers | {"right": [4, 4, 5]}, labels=labels))
    # The pass rate of "growing" has grown by 3/8; "fresh" was not asked before, so it has no slope.
    reasons = {row["question_id"]: (row["reason"], row["label"] and row["label"]["slope"]) for row in discarded}
    assert reasons == {"stable": ("contradicted_reference", 0.125), "fresh": ("all_wrong", None)}


def test_the_rules_of_a_run_may_not_change_once_it_is_weighed(tmp_path: Path) -> None:
    round_ = round_of(tmp_path)
    weigh(round_)
    changed: Config = round_.config.model_copy(update={"labels": resolve(
        {"model": "m", "run_dir": "r", "questions": {"path": "q"}, "labels": {"policy": "drop"}}
    ).labels})  # fmt: skip
    with pytest.raises(InputError, match=r"labels\.policy: 'keep' there, 'drop' now"):
        RunDirectory(changed)


def test_questions_are_asked_anew_where_references_are_needed_no_more(tmp_path: Path) -> None:
    round_ = round_of(tmp_path)
    RunDirectory(resolve(round_.config.model_dump(), ["labels.source=majority"]))
    assert [round_.stages.record(stage) for stage in ("questions", "sampling", "answers")] == [None] * 3


@pytest.mark.parametrize(("held", "said"), [(None, "0.5 now"), (0.5, "0.5 now"), (0.75, "0.75 by labels.trusted now")])
def test_a_run_that_collapses_names_the_least_share_that_held(tmp_path: Path, held: float | None, said: str) -> None:
    labels = {"source": "majority"}
    round_of(tmp_path, labels=labels)
    learner = round_of(tmp_path, 1, labels=labels).learners()[0]  # not weighed yet: round 0 is the newest that was
    if held is not None:
        told = json.dumps({"rules": {"min_share": held}})
        (learner.round.directory.round(0) / "labels").write_text("labels.json", told)
    assert f"raise labels.min_share ({said}), run fewer" in rounds.in_a_sentence(learner, Alarm("it fell", "fall", 1))


def test_why_no_question_has_a_majority_is_said_with_the_thresholds_that_hold(tmp_path: Path) -> None:
    answers = {"q0": [4] * 2 + [5] + [6], "q1": [4, 5]}
    labels = {"source": "majority", "min_share": 0.6, "min_margin": 0.1}
    with pytest.raises(InputError) as error:
        weigh(round_of(tmp_path, answers=answers, labels=labels))
    assert (
        "2 no_majority; one of them, 'q0?', has no majority: its commonest answer is '4' (2 of 4 responses), the next "
        "'5' (1), and a majority is an answer that is commoner than every other, with at least labels.min_share (0.6) "
        "of the responses and a lead of at least labels.min_margin (0.1); mend answers, selection, labels"
    ) in str(error.value)
    assert "reference answer" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "q0?", "reference_answer": "5"}] * 2, "row 2: is of the same question as"),
        ([{"question": "q0?", "reference_answer": "..."}], "responses cannot be compared with the answer '...'"),
    ],
)
def test_what_is_wrong_in_the_trusted_file_is_found_before_anything_is_sampled(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    path = tmp_path / "trusted.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = resolve({"model": "m", "run_dir": str(tmp_path / "run"), "questions": {"path": "q.jsonl"},
                      "sampling": {"backend": "scripted"}, "labels": {"trusted": str(path)}})  # fmt: skip
    with pytest.raises(InputError, match=re.escape(message)):
        pipeline.check_inputs(config, RunDirectory(config))


def test_trusted_questions_are_looked_for_before_anything_is_sampled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trusted.jsonl"
    path.write_text('{"question_id": "b", "question": "B?", "reference_answer": "5"}')

    def asked(*names: str, rounds: int = 1) -> None:
        config = resolve({"model": "m", "run_dir": str(tmp_path / "run"), "questions": {"path": "q.jsonl"},
                          "rounds": rounds, "labels": {"policy": "drop", "trusted": str(path)}})  # fmt: skip
        round_ = Round(config, RunDirectory(config), 0, "m", "m", Progress(Console(soft_wrap=True)))
        rows = [dict.fromkeys(QUESTIONS.names) | {"question_id": name, "question": name} for name in names]
        (round_.stages / "questions").replace(pa.Table.from_pylist(rows, QUESTIONS))
        look_for_trusted(round_, trusted_rows(round_, MATH))

    asked("a", "B?", rounds=1)
    assert f"labels.trusted: {path}: 1 of its 1 questions are in this round\n" in capsys.readouterr().out
    with pytest.raises(InputError, match="none of its 1 questions is in this round"):
        asked("a")


@pytest.mark.parametrize("reference", [None, "..."])
def test_a_trusted_answer_stands_in_for_a_reference_that_cannot_be_used(tmp_path: Path, reference: str | None) -> None:
    rows = [*given_rows([4, 4, 5]), *given_rows([5, 5, 4], [5, 4, 6], [7, 7, 4], reference="4")[1:]]
    for row, question in zip(rows[1:], ("a?", "b?"), strict=True):
        row |= {"question": question, "reference_answer": reference}
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "trusted.jsonl").write_text('{"question": "a?", "reference_answer": "6"}')
    labels = {"trusted": str(tmp_path / "trusted.jsonl")}
    with pytest.warns(UserWarning, match="set aside: 1 unparsable_reference"):
        weighed = east_ray.weigh(rows, labels=labels, name="out")
    by_id = {row["question_id"]: row for row in weighed.examples.to_pylist()}
    assert {name: (row["reference_answer"], row["pass_rate"]) for name, row in by_id.items()} == {
        "out-000001": ("4", 2 / 3), "out-000002": ("6", 1 / 3),
    }  # fmt: skip
    assert by_id["out-000002"]["label"].items() >= {"action": "trusted", "original_reference": reference}.items()
    config = resolve({"run_dir": str(tmp_path / "run"), "labels": labels, "samples": {"path": f"{tmp_path}/out.jsonl"}})
    round_ = Round(config, RunDirectory(config), 0, "m", "m", Progress(Console(quiet=True)))
    pipeline.prepare(round_)
    pipeline.weigh(round_)
    assert (round_.stages / "examples").read(EXAMPLES).to_pylist() == weighed.examples.to_pylist()


# ---------------------------------------------------------------------------------------------------------- library


def given_rows(*answers: Sequence[Any], reference: str | None = "4") -> list[dict[str, Any]]:
    found = [sample(f"q{i}", list(one)) for i, one in enumerate(answers)]
    rows = [{"question": one["question"], "responses": [each["text"] for each in one["responses"]]} for one in found]
    return rows if reference is None else [row | {"reference_answer": reference} for row in rows]


def test_the_library_labels_as_the_stage_does(tmp_path: Path) -> None:
    trusted = {"question": "stubborn?", "reference_answer": "4"}
    (tmp_path / "trusted.jsonl").write_text(json.dumps(trusted) + "\n")
    labels = {"policy": "downweight", "factor": 0.5, "trusted": str(tmp_path / "trusted.jsonl")}
    rows = [sample(name, one) for name, one in ROUND.items()]
    weighed = east_ray.weigh(rows, samples={"id_column": "question_id"}, labels=labels)
    examples, _ = weigh(round_of(tmp_path, labels=labels))
    assert weighed.examples.sort_by("question_id").to_pylist() == examples
    assert {row["label"]["action"] for row in examples if row["label"]} == {"downweight", "trusted"}


def test_the_library_weighs_rows_without_references() -> None:
    rows = given_rows([5, 5, 4], [5, 4, 6], [7, 7, 7], reference=None)
    with pytest.raises(InputError, match=r"reference_answer_column: null and labels\.source: majority"):
        east_ray.weigh(rows)
    weighed = east_ray.weigh(rows, samples={"reference_answer_column": None}, labels={"source": "majority"})
    assert weighed.examples["reference_answer"].to_pylist() == ["5", "7"]
    assert weighed.discarded["reason"].to_pylist() == ["no_majority"]
    # With the column, rows without a value in it are taken too.
    mixed = [*given_rows([5, 5, 4]), *(row | {"question": "other?", "reference_answer": None} for row in rows[:1])]
    some = east_ray.weigh(mixed, labels={"source": "majority"}).examples["label"].to_pylist()
    assert [one["agrees"] for one in some] == [False, None]


def test_the_stages_weigh_a_file_without_references(tmp_path: Path) -> None:
    rows = given_rows([5, 5, 4], [5, 4, 6], [7, 7, 7], reference=None)
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"run_dir": str(tmp_path / "run"), "labels": {"source": "majority"}}
    values["samples"] = {"path": str(tmp_path / "out.jsonl"), "reference_answer_column": None}
    config = resolve(values)
    round_ = Round(config, RunDirectory(config), 0, "m", "m", Progress(Console(quiet=True)))
    pipeline.prepare(round_)
    pipeline.weigh(round_)
    weighed = east_ray.weigh(rows, samples={"reference_answer_column": None}, labels={"source": "majority"}, name="out")
    for found, schema in ((weighed.examples, EXAMPLES), (weighed.discarded, DISCARDED)):
        name = "examples" if schema is EXAMPLES else "discarded"
        assert (round_.stages / name).read(schema).to_pylist() == found.to_pylist() and found.num_rows


def test_labels_do_not_see_responses_that_do_not_count() -> None:
    row = sample("q", [4, 5, 5, 5])
    labels = Labels(LabelRules(policy="relabel"))
    assert labelled("q", "4", graded(row), 1, labels)[1] is None
    assert labelled("q", "4", graded(row), None, labels)[1] is not None
