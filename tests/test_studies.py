"""The studies of a run: shares by entropy, kinds of errors, fewer responses, rounds and steps."""

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_records import checked
from rich.console import Console
from rounds import RULES, graded, judged, sample, write_round

from east_ray import weighting
from east_ray.answers.graders import MathGrader
from east_ray.config.files import resolve
from east_ray.console import Progress
from east_ray.evaluation.estimators import wilson_interval
from east_ray.records import EXAMPLES, StudyPage
from east_ray.report.files import write_findings
from east_ray.report.studies.fewer_responses import (
    Prefix,
    SizeSummary,
    entropies_of_first,
    fewer_responses,
    measure_prefixes,
)
from east_ray.report.studies.shares import (
    ByEntropy,
    Share,
    by_entropy,
    errors_by_entropy,
    kind_of_errors,
    steps_by_entropy,
    weights_over_rounds,
)
from east_ray.report.studies.weights import Disagreements, disagreements
from east_ray.selection import SelectionRules
from east_ray.storage import Folder, RunDirectory, locate
from east_ray.storage.rounds import Round
from east_ray.weighting import corrected_entropy

# -------------------------------------------------------------------------------------------------- shares by entropy


def test_shares_by_quartile_by_hand() -> None:
    found = by_entropy(list(enumerate([True, True, True, False, True, False, False, False])))
    assert found.overall == Share(8, 4, 0.5, *wilson_interval(4, 8))
    assert [(q.min_entropy, q.max_entropy, q.share.num_true) for q in found.quartiles] == [
        (0, 1, 2), (2, 3, 1), (4, 5, 1), (6, 7, 0)
    ]  # fmt: skip
    last = found.quartiles[-1].share
    assert last.share == last.low == 0 < last.high


def test_no_questions_have_no_share() -> None:
    assert by_entropy([]) == ByEntropy(None, [])


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans()), min_size=1))
def test_quartiles_split_all_questions_and_no_equal_entropies(rows: list[tuple[float, bool]]) -> None:
    found = by_entropy(rows)
    assert found.overall is not None
    assert sum(q.share.num_questions for q in found.quartiles) == found.overall.num_questions == len(rows)
    assert sum(q.share.num_true for q in found.quartiles) == found.overall.num_true
    bounds = [bound for q in found.quartiles for bound in (q.min_entropy, q.max_entropy)]
    assert bounds == sorted(bounds)
    assert all(a.max_entropy < b.min_entropy for a, b in zip(found.quartiles, found.quartiles[1:], strict=False))


# ---------------------------------------------------------------------------------------------- entropy and pass rate


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([4] * 8, "none"),
        ([4] + [None] * 7, "none"),  # no answer is not a wrong answer
        ([4, 5, 5, 5, 5], "few"),
        ([5] * 5, "stubborn"),
        ([4, 5, 5, 5, 6, 7, 8], "stubborn"),  # 3 of 6
        ([4, 5, 5, "5.0", 6, 7, 8, 9], "diverse"),  # 3 of 7
        ([1, 2, 3, 5, 6, None, None, None, None, None, None], "diverse"),
    ],
)
def test_kinds_of_errors(answers: list[Any], kind: str) -> None:
    assert kind_of_errors(judged(sample("q", answers))["clusters"]) == kind


def test_errors_of_a_round(tmp_path: Path) -> None:
    samples = [
        *(sample(f"stubborn-{i}", [4] * 2 + [5] * 6) for i in range(4)),
        *(sample(f"diverse-{i}", [4, 4, 5, 6, 7, 8, 9, 10]) for i in range(4)),
        sample("all-wrong", [5] * 8),  # discarded, and counted
        sample("sure", [4] * 8),
        sample("no reference", [5] * 8, reference="..."),  # not counted
    ]
    folder = write_round(tmp_path, samples)
    kinds, stubborn = errors_by_entropy(folder / "examples", folder / "discarded")
    assert kinds == {"none": 1, "few": 0, "stubborn": 5, "diverse": 4}
    assert stubborn.overall is not None and stubborn.overall.num_true == 5
    assert [(q.share.share, q.share.num_questions) for q in stubborn.quartiles] == [(1.0, 5), (0.0, 4)]
    json.dumps(dataclasses.asdict(stubborn))


def disagreements_of(folder: Folder, **options: Any) -> Disagreements:
    return disagreements(folder / "examples", folder / "samples", folder / "answers", **options)


def test_disagreements_at_equal_pass_rates_are_those_of_the_spread(tmp_path: Path) -> None:
    samples = [
        sample("stubborn", [4] * 2 + [5] * 6),
        sample("diverse", [5, 6, 7, 8, 9, 10, 4, 4]),
        *(sample(f"plain-{i}", [4] * 4 + [5] * 2 + [6] * 2) for i in range(6)),
        sample("all-wrong", [5] * 8),
    ]
    folder = write_round(tmp_path, samples)
    found = disagreements_of(folder, max_questions=1, max_clusters=2)
    (heavier,), (lighter,) = found.heavier_by_entropy, found.heavier_by_accuracy
    assert found.num_questions == 8
    assert (heavier.question_id, heavier.errors) == ("diverse", "diverse")
    assert (lighter.question_id, lighter.errors) == ("stubborn", "stubborn")
    assert heavier.accuracy_weight == lighter.accuracy_weight == pytest.approx(0.75 / ((2 * 0.75 + 6 * 0.5) / 8))
    assert heavier.entropy_weight > heavier.accuracy_weight and lighter.entropy_weight < lighter.accuracy_weight
    assert [(*cluster.values(), response) for cluster, response in lighter.clusters] == [
        ("5", 6, False, "So \\boxed{5}"), ("4", 2, True, "So \\boxed{4}")
    ]  # fmt: skip
    assert [cluster["is_correct"] for cluster, _ in heavier.clusters] == [True, False]
    json.dumps(dataclasses.asdict(found))


def test_the_weights_compared_have_mean_1(tmp_path: Path) -> None:
    rng = random.Random(0)
    samples = [sample(f"q{i}", [4, *(rng.choice([4, 5, 6, None]) for _ in range(7))]) for i in range(30)]
    folder = write_round(tmp_path, samples)
    found = disagreements_of(folder)
    shown = found.heavier_by_entropy + found.heavier_by_accuracy
    differences = [row.entropy_weight - row.accuracy_weight for row in shown]
    assert sum(differences) == pytest.approx(0, abs=1e-9)
    assert found.mean_difference == pytest.approx(sum(map(abs, differences)) / found.num_questions)
    assert differences == sorted(differences[: len(found.heavier_by_entropy)], reverse=True) + sorted(
        differences[len(found.heavier_by_entropy) :]
    )


def test_a_round_without_uncertainty_has_no_weights_to_compare(tmp_path: Path) -> None:
    folder = write_round(tmp_path, [sample("a", [5] * 8)])
    with pytest.raises(ValueError, match="no kept question"):
        disagreements_of(folder)


# --------------------------------------------------------------------------------------------------- corrected entropy


def published(counts: list[int]) -> float:
    """The estimator as Chao, Wang and Jost print it, with 400 digits."""
    with mpmath.workdps(400):
        n, once, twice = sum(counts), counts.count(1), counts.count(2)
        seen = mpmath.fsum(mpmath.mpf(x) / n * mpmath.fsum(mpmath.mpf(1) / k for k in range(x, n)) for x in counts)
        a = mpmath.mpf(1)
        if twice:
            a = mpmath.mpf(2 * twice) / ((n - 1) * once + 2 * twice)
        elif once:
            a = mpmath.mpf(2) / ((n - 1) * (once - 1) + 2)
        if once == 0 or a == 1:
            return float(seen)
        series = mpmath.fsum((1 - a) ** r / r for r in range(1, n))
        return float(seen + mpmath.mpf(once) / n * (1 - a) ** (1 - n) * (-mpmath.log(a) - series))


@pytest.mark.parametrize(
    "counts",
    [[8], [1], [1, 1], [4, 4], [5, 2, 1], [1] * 8, [1] * 128, [120, 5, 1, 1, 1], [60, 40, 20, 2, 2, 1, 1, 1, 1],
     [1000, 20, 3, 1, 1], [1] * 300],
)  # fmt: skip
def test_the_corrected_entropy_is_the_published_one(counts: list[int]) -> None:
    assert corrected_entropy(counts) == pytest.approx(published(counts), rel=1e-9, abs=1e-12)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_the_correction_only_adds_and_is_0_for_one_cluster(counts: list[int]) -> None:
    assert corrected_entropy(counts) >= weighting.entropy(counts) - 1e-12
    assert corrected_entropy([sum(counts)]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("size", [8, 16, 32, 64])
@pytest.mark.parametrize(
    "shares",
    [
        [0.6, 0.1, 0.1, 0.1, 0.1],
        [0.3] * 2 + [0.04] * 10,
        [1 / 20] * 20,
        [1 / rank / sum(1 / r for r in range(1, 31)) for rank in range(1, 31)],
    ],
    ids=["sure", "two and a tail", "uniform", "Zipf"],
)
def test_the_correction_takes_away_most_of_the_bias(shares: list[float], size: int) -> None:
    truth = -sum(share * math.log(share) for share in shares)
    draws = np.random.default_rng(0).multinomial(size, shares, size=2000)
    plain = np.mean([weighting.entropy(counts.tolist()) for counts in draws]) - truth
    corrected = np.mean([corrected_entropy(counts.tolist()) for counts in draws]) - truth
    assert plain < 0
    assert abs(corrected) < max(0.5 * abs(plain), 0.02)


# ----------------------------------------------------------------------------------------------------- fewer responses

ANSWERS = st.lists(st.sampled_from([4, "8/2", 5, "5.0", 6, None]), min_size=8, max_size=8)


@given(
    ANSWERS,
    st.sampled_from(["4", "7", "..."]),
    st.sampled_from(["cluster", "exclude"]),
    st.booleans(),
    st.sampled_from(["keep", "drop"]),
    st.booleans(),
)
def test_a_prefix_is_what_judging_those_responses_alone_gives(
    found: list[Any], reference: str, no_answer: Any, needs_rejected: bool, all_correct: Any, require_boxed: bool
) -> None:
    rules: SelectionRules = dataclasses.replace(
        RULES,
        no_answer=no_answer,
        needs_rejected=needs_rejected,
        all_correct=all_correct,
        require_boxed=require_boxed,
    )
    grader = MathGrader(last_number=True)
    row = sample("q", found, reference)
    for response in row["responses"][::3]:
        response["text"] = response["text"].replace("\\boxed{", "").replace("}", ".")  # correct, but not in a box
    sizes = [1, 2, 5, 8]
    for size, prefix in zip(sizes, entropies_of_first("q", graded(row, grader), [3] * 8, sizes, rules), strict=True):
        alone = judged(row | {"responses": row["responses"][:size]}, rules, grader)
        assert prefix.entropy == alone["entropy"]
        assert prefix.pass_rate == alone["pass_rate"]
        assert prefix.is_kept == (alone["reason"] is None)
        assert prefix.num_tokens == 3 * size


def test_too_few_responses_are_an_error() -> None:
    with pytest.raises(ValueError, match="q: expected 9 responses, found 8"):
        entropies_of_first("q", graded(sample("q", [4] * 8)), [3] * 8, [4, 9], RULES)


def summarized(*questions: list[Prefix]) -> list[SizeSummary]:
    return fewer_responses([2, 4], np.array(questions, np.float64).reshape(-1, 2, len(Prefix._fields)))


def test_fewer_responses_by_hand() -> None:
    small, full = summarized(
        [Prefix(0.0, 0.1, 1.0, True, 6), Prefix(1.0, 1.1, 0.5, True, 12)],
        [Prefix(0.6, 0.7, 0.5, True, 6), Prefix(0.5, 0.6, 0.25, True, 12)],
        [Prefix(0.3, 0.4, 0.0, False, 6), Prefix(0.6, 0.7, 0.25, True, 12)],
    )
    assert (small.num_responses, small.num_tokens, full.num_tokens) == (2, 18, 36)
    assert small.mean_entropy == pytest.approx(0.3) and small.mean_corrected_entropy == pytest.approx(0.4)
    assert small.rank_correlation == pytest.approx(-1) and full.rank_correlation == pytest.approx(1)
    # The first two are kept at both: weights (0, 2) against (4/3, 2/3).
    assert small.num_kept_at_both == 2
    assert small.mean_weight_difference == pytest.approx(4 / 3)
    assert (small.decision_changes.num_true, full.decision_changes.num_true) == (1, 0)
    assert full.mean_weight_difference == 0


def test_what_is_unknown_is_none() -> None:
    sure = Prefix(0.0, 0.0, 1.0, True, math.nan)
    small, _ = summarized([sure, sure], [sure, sure])
    assert (small.rank_correlation, small.mean_weight_difference, small.num_tokens) == (None, None, None)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="no question has 4 responses"):
        summarized()
    with pytest.raises(ValueError, match="expected growing numbers"):
        measure_prefixes(Folder(*locate("nowhere")), Folder(*locate("nowhere")), [8, 4], RULES)


def test_prefixes_of_a_round_are_measured_in_tasks(tmp_path: Path, local_ray: None) -> None:
    rng = random.Random(0)
    samples = [sample(f"q{i}", [rng.choice([4, 4, 5, 6, 7, None]) for _ in range(16)]) for i in range(30)]
    short = [sample(f"short-{i}", [4] * 8) for i in range(2)]
    folder = write_round(tmp_path, samples + short)
    sizes = [4, 8, 16]
    measured = measure_prefixes(folder / "samples", folder / "answers", sizes, RULES)
    assert measured.shape == (30, 3, 5)
    in_parts = [row for number in range(3) for row in (samples + short)[number::3] if "short" not in row["question_id"]]
    assert measured.tolist() == [
        [list(map(float, prefix)) for prefix in entropies_of_first("q", graded(row), [3] * 16, sizes, RULES)]
        for row in in_parts
    ]
    summaries = fewer_responses(sizes, measured)
    assert [row.num_tokens for row in summaries] == [30 * 3 * size for size in (4, 8, 16)]
    correlations = [row.rank_correlation or 0 for row in summaries]
    assert correlations[0] < correlations[1] < correlations[2] == pytest.approx(1)


# -------------------------------------------------------------------------------------------------------------- rounds


def weighed(**weights: float) -> pa.Table:
    return pa.table({"question_id": pa.array(list(weights), pa.string()), "weight": list(weights.values())})


def test_weights_over_rounds_by_hand() -> None:
    first, second = weights_over_rounds([weighed(a=0.0, b=0.5, c=1.5, d=2.0), weighed(e=3.0, d=1.0, c=0.0, b=0.0)])
    assert first.num_kept_in_both is first.rank_correlation is first.became_zero is None
    assert (first.num_questions, first.quantiles) == (4, [0.0, 0.375, 1.0, 1.625, 2.0])
    assert first.is_zero is not None and first.is_zero.num_true == 1
    assert second.num_kept_in_both == 3
    assert second.rank_correlation == pytest.approx(math.sqrt(3) / 2)  # ranks 1, 2, 3 and 1.5, 1.5, 3
    assert second.became_zero is not None
    assert (second.became_zero.num_true, second.became_zero.num_questions) == (2, 3)


def test_rounds_without_a_common_question() -> None:
    *_, last = weights_over_rounds([weighed(a=1.0), weighed(), weighed(b=1.0)])
    assert (last.num_kept_in_both, last.became_zero) == (0, None)


def test_weights_of_the_examples_folder(tmp_path: Path) -> None:
    folder = write_round(tmp_path, [sample("a", [4, 5]), sample("b", [4, 4])])
    table = (folder / "examples").read(EXAMPLES, ["question_id", "weight"])
    _, second = weights_over_rounds([table, table])
    assert second.num_kept_in_both == 2


def test_a_comparison_shows_the_weights_of_each_arms_first_training(tmp_path: Path) -> None:
    config = resolve(
        {"model": "m", "run_dir": str(tmp_path), "questions": {"path": "q.jsonl"}, "rounds": 2,
         "compare": {"seeds": [7, 8], "grids": [{"signals": ["uniform", "entropy"], "exponents": [1.0, 2.0]}]}}
    )  # fmt: skip
    directory = RunDirectory(config)
    for number, answers in enumerate(([[4, 5], [4, 4, 6]], [[4, 4], [4, 4, 6]])):
        for name in config.learners():
            write_round(
                tmp_path / f"round_{number}" / "variants" / name, [sample("a", answers[0]), sample("b", answers[1])]
            )
    round_ = Round(config, directory, 1, "m", "m", Progress(Console(quiet=True)))
    write_findings(round_, lambda settings: RULES)
    assert (round_.stages / "studies").names() == ["5_weights_over_rounds.json"]
    page = checked(StudyPage, (tmp_path / "round_1" / "studies" / "5_weights_over_rounds.json").read_text())
    assert [table["caption"] for table in page["tables"]] == [
        "Weights of each round: sft-entropy-a1-seed-7",
        "Weights of each round: sft-entropy-a2-seed-7",
    ]
    for table in page["tables"]:
        first, second = table["rows"]
        assert (first[:2], first[-3:]) == (["0", "2"], ["", "", ""])
        assert (second[:2], second[8]) == (["1", "2"], "2") and second[-1].startswith("50.0 ")


@pytest.mark.parametrize("num_responses", [None, 6])
def test_the_pages_of_a_round_are_of_the_type_that_a_report_reads(tmp_path: Path, num_responses: int | None) -> None:
    config = resolve(
        {"model": "m", "run_dir": str(tmp_path), "questions": {"path": "q.jsonl"},
         "studies": {"fewer_responses": [2], "adaptive": [48]}, "answers": {"responses": num_responses}}
    )  # fmt: skip
    samples = [sample(f"q{i}", [4] * (8 - i) + [5] * i) for i in range(8)]
    rules = dataclasses.replace(RULES, num_responses=num_responses)
    write_round(tmp_path / "round_0", samples, num_parts=1, rules=rules)
    round_ = Round(config, RunDirectory(config), 0, "m", "m", Progress(Console(quiet=True)))
    write_findings(round_, lambda settings: rules)
    studies = round_.stages / "studies"
    pages = [checked(StudyPage, studies.read_text(name)) for name in studies.names()]
    assert [page["title"] for page in pages] == [
        "Stubborn and diverse errors",
        "Entropy against accuracy",
        "Reference answers that may be wrong",
        "How many responses to ask for",
        "How many responses are enough",
    ]
    assert [row[0] for row in pages[4]["tables"][0]["rows"]] == ["2", str(num_responses or 8)]
    same, budget, *_ = pages[3]["tables"][0]["rows"]
    assert (same[:2], budget[:2]) == (["48 for each", "48.0"], ["budget, mean 48", "48.0"])
    (first, *_) = pages[2]["texts"]
    assert first["title"] == "q7: 5 or 4?" and first["blocks"][1]["text"] == "So \\boxed{5}"
    assert (round_.stages / "audit").names() == ["audit.html", "audit.jsonl"]


# --------------------------------------------------------------------------------------------------------------- steps


def test_steps_are_asked_of_the_chosen_responses(tmp_path: Path) -> None:
    samples = [sample(f"q{i}", [4] * (8 - i) + [5] * i) for i in range(4)]
    folder = write_round(tmp_path, [*samples, sample("unknown", [4, 5, 6])])

    def steps_are_right(row: Any) -> bool | None:
        assert row["chosen"] == "So \\boxed{4}"
        return None if row["question_id"] == "unknown" else row["entropy"] == 0

    found = steps_by_entropy(folder / "examples", steps_are_right)
    assert found.overall is not None and (found.overall.num_questions, found.overall.num_true) == (4, 3)
    assert [q.share.num_true for q in found.quartiles] == [0, 1, 1, 1]
