"""Adaptive sampling through the durable machinery, on the scripted backend; test_adaptive_drills.py has engines."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from adaptive_runs import MODELS, answers_of, asked, config, said, sampled, table, texts
from sampling_runs import questions, scripted, settings

from east_ray.config import InputError
from east_ray.config.adaptive import AdaptiveConfig, BudgetConfig
from east_ray.records import SAMPLES
from east_ray.sampling.adaptive import allocate, local_rule
from east_ray.sampling.deciding import adaptive_of, cluster_sizes
from east_ray.sampling.journal import TaskJournal, sample_key
from east_ray.sampling.pool import pool_settings, requests
from east_ray.sampling.stage import decoding_of
from east_ray.sampling.waves import PLAN, wanted_numbers
from east_ray.storage import Folder, locate

MOST, COUNT, TOTAL = 32, 20, 240
RULES: dict[str, dict[str, Any]] = {
    "unanimous": {"unanimous": {"first": 8}},
    "precision": {"precision": {"first": 8, "standard_error": 0.1}},
    "budget": {"budget": {"pilot": 4, "total": TOTAL, "max": MOST}},
}


def sizes(number: int, count: int) -> list[int]:
    """The sizes of the clusters of the first answers to a question."""
    found = answers_of(number, count)
    return [found.count(one) for one in dict.fromkeys(found)]


def expected(rule: str) -> dict[str, tuple[int, str]]:
    """How many responses each question is to get and why, by the rules alone."""
    if rule == "budget":
        numbers = [4] * COUNT
        # In the order of the keys, which is another one: equal questions may change places.
        while (more := allocate([sizes(i, n) for i, n in enumerate(numbers)], TOTAL - sum(numbers), MOST)).any():
            numbers = [n + int(one) for n, one in zip(numbers, more, strict=True)]
        return {f"q{i}": (n, "all" if n == MOST else "budget") for i, n in enumerate(numbers)}
    decide, found = local_rule(AdaptiveConfig.model_validate(RULES[rule]), MOST), {}
    assert decide is not None
    for i in range(COUNT):
        number = decide.first
        while (step := decide.next_step(sizes(i, number))).num_more:
            number += step.num_more
        found[f"q{i}"] = number, str(step.stopped_because)
    return found


Whole = Callable[[str], tuple[Path, dict[str, dict[str, Any]], dict[str, Any]]]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Whole:
    """Name of a rule, or all -> folder, rows and counts of a run that nothing interrupts."""

    @functools.cache
    def run(rule: str) -> tuple[Path, dict[str, dict[str, Any]], dict[str, Any]]:
        folder = tmp_path_factory.mktemp(rule)
        return folder, *sampled(config(folder, table(COUNT, MOST), MOST, RULES.get(rule)), questions(COUNT))

    return run


@pytest.mark.parametrize("rule", RULES)
def test_every_question_gets_the_beginning_of_what_a_full_run_gives_it(whole_run: Whole, rule: str) -> None:
    _, full, _ = whole_run("all")
    folder, rows, counts = whole_run(rule)
    assert all((row["stopped_because"], row["num_responses"]) == ("all", MOST) for row in full.values())
    assert all(said(row) == said(full[name])[: row["num_responses"]] for name, row in rows.items())
    found = {name: (row["num_responses"], row["stopped_because"]) for name, row in rows.items()}
    wanted = expected(rule)
    if rule == "budget":
        assert sorted(found.values()) == sorted(wanted.values()) and sum(n for n, _ in found.values()) == TOTAL
    else:
        assert found == wanted
    assert len(set(found.values())) > 1, "the questions differ"
    numbers = [(row["num_responses"], row["num_questions"]) for row in counts["numbers"]]
    assert sum(n * q for n, q in numbers) == counts["num_responses"] == sum(n for n, _ in found.values())
    assert counts["most_responses"] == MOST and counts["num_questions"] == COUNT
    assert sum(one["number"] for one in asked(folder)) == counts["num_responses"], "nothing is asked twice"
    sampled(config(folder, table(COUNT, MOST), MOST, RULES[rule]), questions(COUNT))
    assert sum(one["number"] for one in asked(folder)) == counts["num_responses"], "nor when it is done"


def killed_after(
    tmp_path: Path, whole: Mapping[str, Mapping[str, Any]], begun: Mapping[str, int], *, in_flight: bool
) -> None:
    """The folder of a run that was killed when these questions had so many responses, in a task or in pending parts."""
    samples = Folder(*locate(str(tmp_path / "run" / "run" / "round_0" / "samples")))
    rows = [dict(whole[name]) for name in begun]
    for row in rows:
        number = begun[row["question_id"]]
        stopped = row["stopped_because"] if number == row["num_responses"] else None if in_flight else "budget"
        row |= {"responses": row["responses"][:number], "num_responses": number, "stopped_because": stopped}
    journal = TaskJournal(samples, samples / "aside", [row["key"] for row in rows])
    journal.ask([row["key"] for row in rows])
    if in_flight:
        journal.add(rows)
    else:
        journal.close(rows, [])


@pytest.mark.parametrize("rule", RULES)
def test_a_run_that_was_killed_goes_on_with_what_is_durable(tmp_path: Path, whole_run: Whole, rule: str) -> None:
    """Of some questions all is there, of some the beginning, of some nothing."""
    _, whole, counts = whole_run(rule)
    first = 4 if rule == "budget" else 8
    begun = {f"q{i}": first if rule == "budget" or i % 2 else whole[f"q{i}"]["num_responses"] for i in range(12)}
    killed_after(tmp_path, whole, begun, in_flight=rule != "budget")
    again, same = sampled(config(tmp_path / "run", table(COUNT, MOST), MOST, RULES[rule]), questions(COUNT))
    assert {name: said(row) for name, row in again.items()} == {name: said(row) for name, row in whole.items()}
    assert {n: r["stopped_because"] for n, r in again.items()} == {n: r["stopped_because"] for n, r in whole.items()}
    assert same["numbers"] == counts["numbers"]
    newly = sum(one["number"] for one in asked(tmp_path / "run"))
    assert newly == counts["num_responses"] - sum(begun.values()), "what was durable was not asked again"


def test_a_budget_that_is_killed_in_a_wave_keeps_to_the_plan_of_the_wave(tmp_path: Path, whole_run: Whole) -> None:
    rule, rows = RULES["budget"], table(COUNT, MOST)
    folder, whole, _ = whole_run("budget")
    waves = Folder(*locate(str(folder / "run" / "round_0" / "waves")))
    assert len(waves.parts()) > 2 and waves.read(PLAN, parts=waves.parts()[-1:]).num_rows == 0
    keys = {row["key"]: name for name, row in whole.items()}
    last = wanted_numbers(waves, pa.chunked_array([list(keys)]), BudgetConfig.model_validate(rule["budget"]))
    assert dict(zip(keys.values(), last.to_pylist(), strict=True)) == {
        name: row["num_responses"] for name, row in whole.items()
    }
    killed_after(tmp_path, whole, {f"q{i}": 4 for i in range(COUNT)}, in_flight=False)
    planned = waves.read(PLAN, parts=waves.parts()[:1])
    changed = planned.filter(pa.array([i > 0 for i in range(planned.num_rows)]))
    to = Folder(*locate(str(tmp_path / "run" / "run" / "round_0" / "waves")))
    to.write_part(changed, "part-0001.parquet")
    again, _ = sampled(config(tmp_path / "run", rows, MOST, rule), questions(COUNT))
    assert to.read(PLAN, parts=to.parts()[:1]).equals(changed), "a stored plan is not made again"
    assert sum(row["num_responses"] for row in again.values()) == TOTAL, "later waves spend what it has left"
    assert all(said(row) == texts(answers_of(int(name[1:]), MOST))[: len(said(row))] for name, row in again.items())


def test_requests_go_on_where_those_before_have_ended(tmp_path: Path, local_ray: None) -> None:
    """The second request for a question has its seed, the same prompt and the number of the first response wanted."""
    sampled(config(tmp_path, table(4, MOST), MOST, RULES["precision"], seed=7), questions(4))
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for one in asked(tmp_path):
        by_prompt.setdefault(one["prompt"], []).append(one)
    several = [one for one in by_prompt.values() if len(one) > 1]
    assert several
    for one in by_prompt.values():
        assert [each["first"] for each in one] == [sum(each["number"] for each in one[:i]) for i in range(len(one))]
        assert len({each["seed"] for each in one}) == 1


def test_a_user_s_own_grader_tells_answers_apart(tmp_path: Path, local_ray: None) -> None:
    """Answers that end in the same digit agree, for a grader in a process of its own; for math they do not."""
    text = questions(1)["question"].to_pylist()[0]
    row = {"question": text, "responses": texts([10 * i + 7 for i in range(MOST)])}
    for grader, number in (("adaptive_runs:last_digit", 8), ("math", MOST)):
        own = config(tmp_path / grader[:4], [row], MOST, RULES["unanimous"], answers={"grader": grader})
        rows, _ = sampled(own, questions(1))
        assert rows["q0"]["num_responses"] == number, grader


@pytest.mark.parametrize(("rule", "first"), [("unanimous", 8), ("budget", 4)])
def test_a_further_request_that_is_refused_leaves_the_responses_before(
    tmp_path: Path, local_ray: None, rule: str, first: int
) -> None:
    """It is not made again, and a budget goes to the others."""
    refused = questions(4)["question"].to_pylist()[3]
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "refused.txt").write_text(refused)
    adaptive = {"budget": {"pilot": 4, "total": 80, "max": MOST}} if rule == "budget" else RULES[rule]
    rows, counts = sampled(config(tmp_path, table(6, MOST), MOST, adaptive), questions(6))
    assert len(rows) == 6 and counts["set_aside"] == {}
    assert (rows["q3"]["num_responses"], rows["q3"]["stopped_because"]) == (first, "engine_refused")
    assert [one["first"] for one in asked(tmp_path) if one["prompt"] == refused] == [0, first]
    assert rows["q4"]["stopped_because"] == ("all" if rule == "unanimous" else "budget")
    assert rule == "unanimous" or counts["num_responses"] == 80


@pytest.mark.parametrize("dies", ["engine", "process"])
@pytest.mark.parametrize("rule", RULES)
def test_an_engine_that_dies_changes_nothing(tmp_path: Path, whole_run: Whole, rule: str, dies: str) -> None:
    """It dies of the second request in flight, and its actor begins again with what is durable."""
    _, whole, _ = whole_run(rule)
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "dies.txt").write_text(dies)
    again, counts = sampled(config(tmp_path, table(COUNT, MOST), MOST, RULES[rule]), questions(COUNT))
    assert not (tmp_path / "script" / "dies.txt").exists(), "it has died"
    assert {name: said(row) for name, row in again.items()} == {name: said(row) for name, row in whole.items()}
    assert counts["set_aside"] == {}


# ------------------------------------------------------------------------------------------------------------- settings


def test_a_key_tells_rules_apart_and_is_as_before_without_one(tmp_path: Path) -> None:
    def keys(adaptive: Mapping[str, Any] | None) -> list[str]:
        run = config(tmp_path, table(2, MOST), MOST, adaptive)
        told = pool_settings(run, decoding_of(run, 0), adaptive=adaptive_of(run))
        found: list[str] = requests(questions(2), MODELS, told)["key"].to_pylist()
        return found

    run = config(tmp_path, table(2, MOST), MOST, None)
    decoding = decoding_of(run, 0)
    told = {"responses_per_question": MOST, "temperature": 1.0, "max_tokens": 1024, "top_p": 1.0, "top_k": 0}
    told |= {"seed": decoding.seed, **run.prompt.model_dump(exclude={"style", "examples"})}
    backend = pool_settings(run, decoding)
    identity = backend.backend.identity("m", backend.args)
    rows = questions(2).select(["question_id", "question"]).to_pylist()
    assert keys(None) == [sample_key("base", identity, told, row) for row in rows]
    rules = [*RULES.values(), {"unanimous": {"first": 9}}, {"budget": RULES["budget"]["budget"] | {"total": 241}}]
    assert len({tuple(keys(one)) for one in (None, *rules)}) == 6


@pytest.mark.parametrize(
    ("adaptive", "message"),
    [
        ({"unanimous": {"first": 64}}, "adaptive.unanimous.first 64 is greater than responses_per_question 32"),
        ({"precision": {"first": 33, "standard_error": 0.1}}, "adaptive.precision.first 33 is greater than"),
        ({"precision": {"first": 8, "standard_error": 0}}, "sampling.adaptive.precision.standard_error: 0 given"),
        ({"budget": {"pilot": 16, "max": 8, "total": 100}}, "pilot 16 is greater than max 8"),
        ({"unanimous": {"first": 8}, "budget": {"total": 9}}, "give exactly one of unanimous, precision and budget"),
        ({}, "give exactly one of unanimous, precision and budget"),
    ],
)
def test_bad_settings_are_one_sentence(tmp_path: Path, adaptive: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        config(tmp_path, table(2, MOST), MOST, adaptive)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_budget_below_the_pilot_ends_the_command_before_anything_is_asked(tmp_path: Path) -> None:
    rows = questions(4).select(["question", "reference_answer"]).to_pylist()
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sections = scripted(tmp_path / "script")
    sections["sampling"] |= {"adaptive": {"budget": {"pilot": 16, "total": 63}}}
    run = {"model": "m", "run_dir": str(tmp_path / "run"), "questions": {"path": str(tmp_path / "q.jsonl")}}
    run |= {"cluster": {"address": "local", "num_cpus": 1}}
    (tmp_path / "run.yaml").write_text(json.dumps(run | sections))
    command = [sys.executable, "-m", "east_ray", "sample", str(tmp_path / "run.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1 and "sampling.adaptive.budget" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "round_0" / "samples").exists()


def test_the_rule_of_a_run_that_has_begun_cannot_change(tmp_path: Path, local_ray: None) -> None:
    sampled(config(tmp_path, table(2, MOST), MOST, RULES["unanimous"]), questions(2))
    for other in (None, {"unanimous": {"first": 16}}, RULES["precision"]):
        with pytest.raises(InputError, match=r"holds a run of another configuration .*sampling\.adaptive"):
            sampled(config(tmp_path, table(2, MOST), MOST, other), questions(2))


def test_sizes_are_those_of_all_clusters(tmp_path: Path) -> None:
    run = config(tmp_path, [], MOST, RULES["unanimous"])
    adaptive = adaptive_of(run)
    assert adaptive is not None and adaptive_of(settings(tmp_path)) is None
    row = dict.fromkeys(SAMPLES.names) | {"question_id": "q", "question": "?", "reference_answer": "9"}
    row["responses"] = [{"text": text} for text in texts([1, 2, None, "1.0", None, 1, 9])]
    assert sorted(cluster_sizes(row, adaptive.grader)) == [1, 1, 2, 3]


def test_what_a_folder_at_rest_says_of_itself(tmp_path: Path, local_ray: None) -> None:
    told = [{"text": "\\boxed{1}", "num_tokens": number} for number in (3, 5)]
    rows = [{"question": "pens", "responses": told}]
    _, counts = sampled(config(tmp_path, rows, MOST, RULES["unanimous"]), questions(2))
    assert counts["numbers"] == [
        {"stopped_because": "unanimous", "num_responses": 8, "num_questions": 2, "num_tokens": 64}
    ]
