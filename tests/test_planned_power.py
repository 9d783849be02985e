"""`east-ray compare --plan`: what a comparison will show is said before it starts, from what is known by then."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from east_ray import cli
from east_ray.config import InputError
from east_ray.config.files import load, resolve
from east_ray.evaluation.significance import expected_precision, minimal_detectable_difference, power_of
from east_ray.plan.power import planned_power, print_power
from east_ray.storage import RunDirectory

ROOT = Path(__file__).parent.parent


def comparison(tmp_path: Path, *overrides: str) -> Any:
    return load(ROOT / "jobs" / "compare_quickstart.yaml", [f"run_dir={tmp_path / 'run'}", *overrides])


def test_the_plan_of_a_comparison_by_hand(tmp_path: Path) -> None:
    told = ["plan.disagreement=0.04", "plan.seed_spread=0.003", "plan.repeated=0.5", "compare.seeds=[0, 1, 2]"]
    plan = planned_power(comparison(tmp_path, *told))
    assert (plan.num_seeds, plan.num_questions, plan.num_comparisons) == (3, 2000, 6)
    error, df = expected_precision(3, 2000, disagreement=0.04, seed_spread=0.003, repeated=0.5)
    assert error == pytest.approx((0.003**2 / 3 + 0.02 / 2000 + 0.02 / 6000) ** 0.5)
    for difference, (single, corrected) in plan.powers.items():
        assert single == power_of(difference, error, df) and corrected == power_of(difference, error, df, 0.05 / 6)
    assert plan.detectable[0] == minimal_detectable_difference(error, df) < plan.detectable[1]


def test_nothing_is_made_and_defaults_are_said_to_be_assumed(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    print_power(comparison(tmp_path, "evaluation.questions.max_questions=300"), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.startswith("5 seeds, 300 held-out questions, comparisons: 6") and "│ 0.5 " in text and "│ 3 " in text
    assert text.count(", assumed") == 3 and not (tmp_path / "run").exists()


def test_the_command_line_plans_before_it_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = str(ROOT / "jobs" / "compare_quickstart.yaml")
    cli.app(["compare", job, f"run_dir={tmp_path / 'run'}", "plan.num_held_out=500", "--plan"], standalone_mode=False)
    assert "5 seeds, 500 held-out questions" in capsys.readouterr().out and not (tmp_path / "run").exists()


def test_an_earlier_comparison_is_gone_on_from(tmp_path: Path) -> None:
    config = comparison(tmp_path, "plan.repeated=0.7")
    arms = [
        {"disagreement": None, "seed_spread": None, "repeated": None},
        {"disagreement": 0.03, "seed_spread": 0.0, "repeated": 0.1},
        {"disagreement": 0.05, "seed_spread": 0.004, "repeated": 0.3},
        {},  # of a run that did not say it
    ]
    stored = json.dumps({"num_questions": 2000, "arms": arms})
    RunDirectory(config).round(0).folder.write_text("comparison.json", stored)
    found = {one.setting: (one.value, one.source) for one in planned_power(config).assumptions}
    measured = f"measured in {config.run_dir}"
    assert found == {
        "plan.disagreement": (0.04, measured),
        "plan.seed_spread": (pytest.approx(0.004 / 2**0.5), measured),
        "plan.repeated": (0.7, "given"),
    }


def test_arms_that_differ_by_more_than_they_disagree_are_no_case(tmp_path: Path) -> None:
    plan = planned_power(comparison(tmp_path, "plan.disagreement=0.001", "plan.seed_spread=0.0"))
    error, df = expected_precision(5, 2000, disagreement=0.03, seed_spread=0.0, repeated=0.2)
    assert plan.powers[0.03][0] == power_of(0.03, error, df)


@pytest.mark.parametrize("seeds", ["[0]", "[0, 1, 2, 3, 4]"])
@pytest.mark.parametrize("disagreement", [0.0001, 0.001, 0.004, 0.1])
@pytest.mark.parametrize("num_held_out", [500, 2000])
def test_the_sentence_says_what_the_table_says(
    tmp_path: Path, seeds: str, disagreement: float, num_held_out: int
) -> None:
    told = [f"compare.seeds={seeds}", f"plan.disagreement={disagreement}", f"plan.num_held_out={num_held_out}"]
    plan = planned_power(comparison(tmp_path, "plan.seed_spread=0.0", *told))
    num_seeds = len(json.loads(seeds))
    for difference, level in zip(plan.detectable, (0.05, 0.05 / 6), strict=True):
        assumed = {"disagreement": max(disagreement, difference), "seed_spread": 0.0, "repeated": 0.2}
        assert power_of(difference, *expected_precision(num_seeds, num_held_out, **assumed), level) == pytest.approx(
            0.8, abs=0.01
        )
    # Between two rows of the table with less and with more than 80 %, and beyond those that are not shown.
    for difference, powers in plan.powers.items():
        for power, detectable in zip(powers, plan.detectable, strict=True):
            assert abs(power - 0.8) < 0.01 or (power > 0.8) == (difference > detectable)


def test_no_difference_is_detectable_beyond_all_questions(tmp_path: Path) -> None:
    few = planned_power(comparison(tmp_path, "compare.seeds=[0]", "plan.num_held_out=2", "plan.seed_spread=0.0"))
    assert few.detectable == (1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare": None}, "compare: missing"),
        ({"compare": {"grids": [{"signals": ["entropy"]}]}}, "no arm has a baseline"),
        ({"evaluation": {"questions": {"hub": "openai/gsm8k"}}}, "say it with plan.num_held_out"),
    ],
)
def test_what_cannot_be_planned_is_said(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    values = comparison(tmp_path).model_dump() | changes
    with pytest.raises(InputError, match=message):
        planned_power(resolve(values))
