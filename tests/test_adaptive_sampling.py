"""Adaptive sampling through the durable machinery, on the scripted backend; drills.py has it on real engines."""

from pathlib import Path
from typing import Any

import pytest
from adaptive_runs import asked, config, said, sampled, table
from sampling_runs import questions

MOST, COUNT = 32, 20
RULES: dict[str, dict[str, Any]] = {
    "unanimous": {"unanimous": {"first": 8}},
    "precision": {"precision": {"first": 8, "standard_error": 0.12}},
    "budget": {"budget": {"pilot": 4, "total": 12 * COUNT, "max": MOST}},
}


@pytest.mark.parametrize("rule", RULES)
def test_every_question_gets_the_beginning_of_what_a_full_run_gives_it(
    tmp_path: Path, local_ray: None, rule: str
) -> None:
    full, _ = sampled(config(tmp_path / "full", table(COUNT, MOST), MOST, None), questions(COUNT))
    rows, counts = sampled(config(tmp_path / "some", table(COUNT, MOST), MOST, RULES[rule]), questions(COUNT))
    assert rows.keys() == full.keys() and all(row["stopped_because"] == "all" for row in full.values())
    for name, row in rows.items():
        assert said(row) == said(full[name])[: row["num_responses"]] and row["num_responses"] == len(row["responses"])
        assert (row["stopped_because"] == "all") == (row["num_responses"] == MOST), row["stopped_because"]
    assert len({row["num_responses"] for row in rows.values()}) > 1
    assert counts["num_responses"] == sum(row["num_responses"] for row in rows.values())
    numbers = [(row["num_responses"], row["num_questions"]) for row in counts["numbers"]]
    assert sum(n * q for n, q in numbers) == counts["num_responses"] and counts["most_responses"] == MOST
    requests = asked(tmp_path / "some")
    assert sum(one["number"] for one in requests) == counts["num_responses"], "nothing was asked twice"
