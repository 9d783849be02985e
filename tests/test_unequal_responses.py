"""Questions with different numbers of responses in the stages after sampling, and in what is said about them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rounds import judged, sample, write_round

from east_ray.config import Config
from east_ray.config.files import resolve
from east_ray.console import StageLine
from east_ray.plan.facts import facts_of
from east_ray.report.audit import audit
from east_ray.report.page import Table
from east_ray.report.plots import Figure
from east_ray.report.responses import adaptive_blocks, cost, number_of_responses
from east_ray.report.studies.fewer_responses import fewer_responses_page
from east_ray.sampling.backends import Decoding
from east_ray.sampling.line import BudgetLine, SamplingLine
from east_ray.sampling.watch import PoolStatus
from east_ray.selection import SelectionRules

#: Reference 4. Of 8 responses all agree; of 32, 8 are right and 16 agree on 5; of 16, 12 contradict the reference.
SURE = sample("sure", ["4"] * 8, num_responses=8, stopped_because="unanimous")
SPREAD = sample("spread", ["4", "5", "5", None] * 8, num_responses=32, stopped_because="all")
WRONG = sample("wrong", ["7", "7", "7", "4"] * 4, num_responses=16, stopped_because="precise")


def test_rates_are_shares_of_the_responses_that_a_question_has() -> None:
    found = {row["question_id"]: row for row in map(judged, (SURE, SPREAD, WRONG))}
    rates = {name: (row["num_responses"], row["pass_rate"], row["rejected_rate"]) for name, row in found.items()}
    assert rates == {"sure": (8, 1.0, 0.0), "spread": (32, 0.25, 0.5), "wrong": (16, 0.25, 0.75)}
    shares = np.array([0.25, 0.5, 0.25])
    assert found["spread"]["entropy"] == pytest.approx(-np.sum(shares * np.log(shares)))


def test_the_first_so_many_are_all_that_a_question_with_fewer_has() -> None:
    found = [judged(row, SelectionRules(num_responses=12)) for row in (SURE, SPREAD, WRONG)]
    assert [row["num_responses"] for row in found] == [8, 12, 12]
    assert [row["pass_rate"] for row in found] == [1.0, 0.25, 0.25]


def test_the_audit_ranks_questions_by_the_responses_that_each_has(tmp_path: Path) -> None:
    few = sample("few", ["7"] * 8, num_responses=8)
    folder = write_round(tmp_path, [SURE, SPREAD, WRONG, few])
    found = audit(*(folder / name for name in ("samples", "answers", "examples", "discarded")))
    assert [(one.question_id, one.num_responses, one.share) for one in found.suspects] == [
        ("few", 8, 1.0), ("wrong", 16, 0.75), ("spread", 32, 0.5)
    ]  # fmt: skip
    assert [one.score for one in found.suspects] == [8 / 10, 8 / 18, 8 / 34]


def test_the_study_of_fewer_responses_compares_with_what_every_question_has(tmp_path: Path) -> None:
    folder = write_round(tmp_path / "unequal", [SURE, SPREAD, WRONG], num_parts=1)
    page = fewer_responses_page(folder / "samples", folder / "answers", [4, 16], SelectionRules())
    assert "against those from the 8 that every question has; some have more." in page["text"]
    assert [row[0] for row in page["tables"][0]["rows"]] == ["4", "8"]
    same = write_round(tmp_path / "equal", [WRONG], num_parts=1)
    page = fewer_responses_page(same / "samples", same / "answers", [4], SelectionRules())
    assert "against those from all." in page["text"] and [row[0] for row in page["tables"][0]["rows"]] == ["4", "16"]


# ------------------------------------------------------------------------------------------------------- what is said


def adaptive(rule: dict[str, Any], *overrides: str, **plan: int) -> Config:
    sampling = {"responses_per_question": 128, "adaptive": rule}
    values = {"model": "m", "run_dir": "nowhere", "questions": {"path": "q.jsonl"}, "sampling": sampling, "plan": plan}
    return resolve(values)


def test_the_report_says_how_many_and_why_and_what_they_cost() -> None:
    numbers = [
        {"stopped_because": "unanimous", "num_responses": 32, "num_questions": 6, "num_tokens": 1920},
        {"stopped_because": "all", "num_responses": 128, "num_questions": 2, "num_tokens": 2560},
    ]
    counts = {"most_responses": 128, "numbers": numbers}
    table, figure, said = adaptive_blocks(counts)
    assert isinstance(figure, Figure) and "unanimous: 6 questions from 32 to 32" in figure.svg
    assert isinstance(table, Table) and [row[1:] for row in table.rows] == [
        ["2", "25.0", "256", "128", "128.0", "128"], ["6", "75.0", "192", "32", "32.0", "32"]
    ]  # fmt: skip
    assert table.rows[1][0].startswith("unanimous: ")
    # 448 of 8 * 128 responses; 4480 tokens, and the six would have had 1920 / 32 * 128 = 7680.
    fewer = "56.2 % fewer than 128 to every question"
    assert said == cost(counts) == f"448 responses of 4,480 tokens: {fewer}, and 56.2 % fewer tokens."
    untold = [row | {"num_tokens": 0} for row in numbers]
    assert cost(counts | {"numbers": untold}) == f"448 responses: {fewer}."
    of_budget = [row | {"stopped_because": "budget"} for row in untold]
    assert cost({"most_responses": 256, "numbers": of_budget}) == "448 responses, 56.0 to a question on average."


def test_the_number_of_responses_in_a_few_words() -> None:
    assert number_of_responses(adaptive({"unanimous": {}})) == "32 to 128"
    assert number_of_responses(adaptive({"budget": {"pilot": 16, "total": 9, "max": 256}})) == "16 to 256"
    assert number_of_responses(resolve({"model": "m", "run_dir": "x", "questions": {"path": "q"}})) == "128"


def test_a_plan_reckons_with_the_budget_and_else_with_the_most() -> None:
    of_budget = facts_of(adaptive({"budget": {"total": 6400}}, num_questions=100)).num_responses
    assert (of_budget.value, of_budget.source) == (64, "the budget for each")
    by_rule = facts_of(adaptive({"unanimous": {}}, num_questions=100)).num_responses
    assert by_rule.value == 128 and by_rule.setting == "sampling.adaptive"


def test_the_line_of_a_budget_counts_responses_over_its_waves() -> None:
    now = [100.0]
    line = StageLine("sampling", 640, "responses", lambda: now[0])
    shown = BudgetLine(line, {"base": 10}, {"base": 10}, Decoding(64, 1.0, 8), 0)
    shown.begin_pool(10)
    now[0] += 10
    shown.show(PoolStatus({"ready": (1, 9.0)}, 10.0, {"base": 10}, 160))
    assert line.render().plain.startswith("sampling    160/640 responses")
    assert "wave 1: 10/10 questions" in line.render().plain
    assert line.seconds_left == pytest.approx(30)
    shown.begin_pool(4, 2)
    now[0] += 10
    shown.show(PoolStatus({"ready": (1, 10.0)}, 10.0, {"base": 1}, 40))
    assert "200/640 responses" in line.render().plain and "wave 2: 1/4 questions" in line.render().plain


def test_the_line_of_a_rule_counts_questions_that_have_ended() -> None:
    now = [100.0]
    line = StageLine("sampling", 10, "questions", lambda: now[0])
    shown = SamplingLine(line, {"base": 10}, {"base": 8}, Decoding(64, 1.0, 8), 96)
    shown.begin_pool(8)
    now[0] += 10
    shown.show(PoolStatus({"ready": (1, 9.0)}, 10.0, {"base": 4}, 200))
    assert "6/10 questions" in line.render().plain and "296 responses" in line.render().plain
    assert line.seconds_left == pytest.approx(10)
