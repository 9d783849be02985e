"""The result with which a report begins: the numbers of the run, no more said than they show, and what it cost."""

import json
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from run_directories import difference, share, write_run, write_weighed
from scipy.stats import binom

from east_ray import cli
from east_ray.config import Config
from east_ray.evaluation.significance import detectable_by_one_pair
from east_ray.export.command import Wanted
from east_ray.report.files import write_report
from east_ray.report.page import Highlights
from east_ray.report.plots import Figure
from east_ray.report.result import cost_line, next_step, result_blocks, result_round
from east_ray.report.steps import step_blocks
from east_ray.report.summary import RoundSummary, summarize
from east_ray.report.wording import reach_lines
from east_ray.storage import RunDirectory, StageRecord


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def summary(directory: RunDirectory) -> RoundSummary:
    return summarize(directory)[0]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return write_run(tmp_path_factory.mktemp("runs") / "compared", num_seeds=3)


def tiles(config: Config, *rounds: RoundSummary) -> list[tuple[str, str, str]]:
    return [one for block in result_blocks(config, rounds) if isinstance(block, Highlights) for one in block.highlights]


def texts(config: Config, *rounds: RoundSummary) -> list[str]:
    return [block for block in result_blocks(config, rounds) if isinstance(block, str)]


def captions(config: Config, *rounds: RoundSummary) -> list[str]:
    return [block.caption for block in result_blocks(config, rounds) if isinstance(block, Figure)]


def measured(summary: RoundSummary, accuracies: Mapping[str, float], *rows: Mapping[str, Any]) -> RoundSummary:
    """The round with these accuracies and differences in place of its own."""
    metrics = {"accuracy": {name: share(value) for name, value in accuracies.items()}, "differences": list(rows)}
    return replace(summary, metrics=metrics)  # type: ignore[arg-type]


def apart(first: str, second: str, only_first: int, only_second: int, p_value: float) -> Mapping[str, Any]:
    """The difference of two models on 100 questions, from how many each alone answers."""
    value = (only_first - only_second) / 100
    row = difference(first, second, value, value - 0.05, value + 0.05, p_value)
    return row | {"num_only_first": only_first, "num_only_second": only_second}


# ------------------------------------------------------------------------------------------------------------- of a run


def test_a_run_begins_with_its_accuracies_and_its_difference_to_uniform(
    directory: RunDirectory, summary: RoundSummary
) -> None:
    assert tiles(directory.config, summary) == [
        ("base (before training)", "50.0 %", "40.0 to 60.0"),
        ("EAST (entropy, a = 1)", "55.0 %", "45.0 to 65.0"),
        ("uniform", "60.0 %", "50.0 to 70.0"),
        ("EAST (entropy, a = 1) − uniform", "+10.0", "+5.0 to +15.0 points"),
    ]
    over, verdict = texts(directory.config, summary)
    assert over == "Accuracy on 100 held-out questions, decoded greedily, with 95 % intervals."
    assert "EAST (entropy, a = 1) answers more of these questions" in verdict
    assert captions(directory.config, summary) == [
        "Accuracy with 95 % intervals",
        "Paired differences with 95 % intervals",
    ]


def test_why_two_accuracies_are_equal_is_said_from_their_own_numbers(
    directory: RunDirectory, summary: RoundSummary
) -> None:
    equal = measured(
        summary,
        {"base": 0.4, "trained": 0.5, "uniform": 0.5},
        apart("trained", "base", 20, 10, 0.1),
        apart("uniform", "trained", 9, 9, 1.0),
    )
    points = 100 * detectable_by_one_pair(100, 18)
    (said,) = reach_lines(equal)
    assert said == (
        "Why no difference is shown: EAST (entropy, a = 1) and uniform differ on 18 of 100 questions: the first alone "
        "is right on 9, the second on 9; so many questions, with one training of each, show in 80 % of cases a "
        f"difference of about {points:.1f} points and seldom a smaller one. `east-ray compare` compares over seeds."
    )
    assert said in texts(directory.config, equal)
    same = measured(summary, {"base": 0.4, "trained": 0.5, "uniform": 0.5}, apart("uniform", "trained", 0, 0, 1.0))
    assert "differ on 0 of 100 questions; so many questions" in reach_lines(same)[0]


def test_of_several_open_pairs_the_range_is_said_and_of_decided_ones_nothing(summary: RoundSummary) -> None:
    accuracies = {"base": 0.4, "trained": 0.5, "uniform": 0.5, "other": 0.6}
    rows = [apart("uniform", "trained", 9, 9, 1.0), apart("other", "trained", 20, 20, 1.0)]
    decided = apart("other", "uniform", 30, 10, 0.002)
    (said,) = reach_lines(measured(summary, accuracies, *rows, decided))
    least, most = (100 * detectable_by_one_pair(100, num) for num in (18, 40))
    assert "each of these pairs differ on 18 to 40 of 100 questions; so many" in said
    assert f"about {least:.1f} to {most:.1f} points" in said
    assert reach_lines(measured(summary, accuracies, decided)) == []
    assert reach_lines(replace(summary, metrics=None)) == []


def test_without_uniform_weights_nothing_is_said_of_what_the_weights_did(
    directory: RunDirectory, summary: RoundSummary
) -> None:
    (own, uniform), config = summary.trainings, directory.config
    alone = measured(summary, {"base": 0.4, "trained": 0.5}, apart("trained", "base", 20, 10, 0.1))
    said = texts(config, replace(alone, trainings=[own]))
    assert [line for line in said if "nothing here tells what the weights did" in line]
    assert [name for name, *_ in tiles(config, alone)] == ["base (before training)", "EAST (entropy, a = 1)"]
    uniform_alone = measured(summary, {"base": 0.4, "uniform": 0.5})
    assert not [line for line in texts(config, replace(uniform_alone, trainings=[uniform])) if "weights did" in line]
    only_base = replace(measured(summary, {"base": 0.4}), trainings=[])
    assert tiles(config, only_base) == [("base", "40.0 %", "30.0 to 50.0")]


@pytest.mark.parametrize(("num_questions", "num_apart"), [(100, 0), (500, 0), (500, 60), (1319, 200), (40, 12)])
def test_the_difference_that_is_named_is_shown_by_the_exact_test_in_about_four_of_five_cases(
    num_questions: int, num_apart: int
) -> None:
    """Simulated: questions that one model alone answers, of which the difference decides the favoured ones."""
    detectable = detectable_by_one_pair(num_questions, num_apart)
    share_apart = max(num_apart / num_questions, detectable)
    rng = np.random.default_rng(0)
    drawn = rng.binomial(num_questions, share_apart, size=4000)
    favoured = rng.binomial(drawn, (1 + detectable / share_apart) / 2)
    p_values = np.minimum(1, 2 * binom.cdf(np.minimum(favoured, drawn - favoured), drawn, 0.5))
    assert 0.68 < np.mean(p_values < 0.05) < 0.92


def test_the_result_is_about_the_last_round_that_was_measured(directory: RunDirectory, summary: RoundSummary) -> None:
    config = directory.config.model_copy(update={"rounds": 3})
    later = replace(summary, number=1, metrics=None)
    assert result_round([summary, later]) is summary and result_round([later]) is later and result_round([]) is None
    assert texts(config, summary, later)[0] == "This is round 0 of rounds 0 to 2; the others are below."
    assert list(result_blocks(config, [])) == []


# ------------------------------------------------------------------------------------- of a comparison, and of weights


def test_a_comparison_begins_with_its_best_supported_statement(compared: RunDirectory) -> None:
    (summary,) = summarize(compared)
    assert summary.comparison is not None
    summary.comparison["arms"][-1]["p_adjusted"] = 0.001
    assert tiles(compared.config, summary) == [
        ("base (before training)", "50.0 %", "40.0 to 60.0"),
        ("sft-uniform", "60.0 %", "58.0 to 62.0"),
        ("sft-entropy-a2", "66.0 %", "64.0 to 68.0"),
        ("sft-entropy-a2 − sft-uniform", "+6.0", "+4.0 to +8.0 points"),
    ]
    _, counted, first, second, third, power = texts(compared.config, summary)
    assert counted == "Of 3 arms beside a baseline, 2 are shown to be better and 0 to be worse."
    assert "sft-entropy-a2 is better" in first and "sft-entropy-a1 is better" in second
    assert "sft-entropy-a0.5" in third and "no difference is shown" in third and power.startswith("Power of 3 seeds")
    assert captions(compared.config, summary) == ["Difference to the baseline with 95 % intervals"]


def test_a_comparison_without_baselines_has_accuracies_alone(compared: RunDirectory) -> None:
    (summary,) = summarize(compared)
    assert summary.comparison is not None
    summary.comparison["arms"] = summary.comparison["arms"][:1]
    assert [name for name, *_ in tiles(compared.config, summary)] == ["base (before training)"]
    assert len(texts(compared.config, summary)) == 1


def test_of_weights_alone_the_result_is_what_is_kept_and_used_and_what_to_do(
    directory: RunDirectory, summary: RoundSummary
) -> None:
    config, first = directory.config, summary.trainings[0]
    weighed = replace(summary, metrics=None, trainings=[replace(one, record=None) for one in summary.trainings])
    effective = 100 * first.weights.sum() ** 2 / (first.weights**2).sum() / 50
    assert tiles(config, weighed)[:2] == [
        ("questions kept", "50", "83.3 % of 60 questions"),
        ("effective, EAST (entropy, a = 1)", f"{effective:.1f} %", "of the kept examples"),
    ]
    assert texts(config, weighed)[-1].startswith(f"Next: `east-ray train {config.run_dir}` trains")
    assert "with a `model` in the configuration" in texts(config.model_copy(update={"model": ""}), weighed)[-1]
    trained = replace(summary, metrics=None)
    assert texts(config, trained)[-1] == (
        f"Nothing has been measured yet: `east-ray evaluate {config.run_dir}` asks the models the held-out questions."
    )
    without = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"questions": None})})
    assert "`evaluation.questions` names no held-out questions" in texts(without, trained)[-1]


def commands_in(said: str) -> list[list[str]]:
    """The words of each command that is printed between backticks."""
    return [shlex.split(command)[1:] for command in re.findall(r"`(east-ray [^`]*)`", said)]


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto", "ipo:IPO"])
def test_commands_that_come_next_can_be_typed_as_they_stand(
    objective: str, directory: RunDirectory, compared: RunDirectory, summary: RoundSummary
) -> None:
    config = directory.config.model_copy(update={"run_dir": "runs/my run"})
    config = config.model_copy(update={"training": config.training.model_copy(update={"objective": objective})})
    weighed = replace(summary, metrics=None, trainings=[replace(one, record=None) for one in summary.trainings])
    trained = replace(summary, metrics=None)
    said = next_step(config, weighed) + next_step(config.model_copy(update={"model": ""}), weighed)
    said += next_step(config, trained) + next_step(
        compared.config.model_copy(update={"run_dir": "runs/my run"}), weighed
    )
    verbs: Any = typer.main.get_command(cli.app)
    for verb, *words in (found := commands_in(said)):
        context = verbs.commands[verb].make_context(verb, words)  # raises a UsageError
        assert "runs/my run" in context.params.values() or ["runs/my run"] in context.params.values()
        if verb == "export":
            Wanted(context.params["shape"]).check()
    assert [verb for verb, *_ in found] == ["train", "export", "export", "train", "evaluate", "compare"]


def test_the_command_that_comes_after_weighing_exports_the_examples(tmp_path: Path) -> None:
    directory = write_weighed(tmp_path / "a run")
    words = next(words for words in commands_in(texts(directory.config, *summarize(directory))[-1]))
    cli.app(words, standalone_mode=False)
    (file,) = (tmp_path / "a run" / "round_0" / "export").glob("*.jsonl")
    assert len(file.read_text().splitlines()) == 5


def test_a_run_that_only_weighed_begins_with_sentences_that_a_stranger_understands(tmp_path: Path) -> None:
    directory = write_weighed(tmp_path / "run")
    said = texts(directory.config, *summarize(directory))
    effective = (0 + 1 + 2 + 3 + 4) ** 2 / (0 + 1 + 4 + 9 + 16)
    assert said[:-1] == [
        "5 of 6 questions have weights.",
        "1 has none, because no response is correct (all_wrong): 'Question 5?' has the reference answer '25', and the "
        "commonest answer to it is '2.5' (3 of 4 responses).",
        "With the weights of EAST (entropy, a = 1), the 5 examples tell as much as "
        f"{effective:.1f} examples of equal weight would: {20 * effective:.1f} % of them are effective.",
    ]
    assert said[-1].startswith(
        f"Next: `east-ray export {directory.config.run_dir} --as messages` writes these examples"
    )
    page = Path(write_report(directory)).read_text()
    assert page.index("The result") < page.index("What was run") and "What it cost" not in page
    assert "learning rate" not in page.split("Configuration")[0] and "trainings in a round" not in page
    shutil.rmtree(tmp_path / "run" / "round_0" / "discarded")
    assert (
        texts(directory.config, *summarize(directory))[1] == "1 has none, because no response is correct (all_wrong)."
    )


# ----------------------------------------------------------------------------------------------------- cost, and losses


def test_the_cost_counts_every_training_and_every_round(directory: RunDirectory, summary: RoundSummary) -> None:
    spent = {"sampling": StageRecord(3600.0, 60.0, {"num_tokens": 9600}), "evaluation": StageRecord(90.0)}
    trainings = [replace(one, record=StageRecord(30.0)) for one in summary.trainings]
    first = replace(summary, records=spent | {"training": StageRecord(30.0)}, trainings=trainings)
    second = replace(first, number=1)
    assert cost_line(directory.config, [first]) == (
        "9,600 tokens sampled, 40,000 tokens trained on; 1 h 2 min in all stages: "
        "sampling 1 h 0 min, evaluation 1 min 30 s, training 1 min 0 s."
    )
    assert cost_line(directory.config, [first, second]).startswith(
        "19,200 tokens sampled, 80,000 tokens trained on; 2 h 5 min in all stages: sampling 2 h 0 min"
    )
    assert cost_line(directory.config, []) == ""


def test_later_rounds_of_a_comparison_cost_the_samples_of_each_training(tmp_path: Path) -> None:
    directory = write_run(tmp_path, num_seeds=1)
    (summary,) = summarize(directory)
    told = {"seconds": 60.0, "starting_s": 0.0, "counts": {"num_tokens": 100}}
    for one in summary.trainings:
        (one.stages / "stages").write_text("sampling.json", json.dumps(told))
    later = replace(summary, number=1, records={}, trainings=[replace(one, steps={}) for one in summary.trainings])
    assert cost_line(directory.config, [later]) == "400 tokens sampled; 4 min 0 s in all stages: sampling 4 min 0 s."


def test_losses_that_cannot_be_compared_are_not_in_one_figure(summary: RoundSummary) -> None:
    told, *figures = step_blocks(summary)
    assert isinstance(told, str) and "a lower curve is no better model" in told
    assert [one.caption for one in figures if isinstance(one, Figure)][:2] == [
        "Loss, without weights",
        "Loss, weighted",
    ]
    own, uniform = summary.trainings
    both = step_blocks(replace(summary, trainings=[own, replace(uniform, objective="dpo")]))
    assert [one.caption for one in both if isinstance(one, Figure)][:4] == [
        "Loss, without weights, SFT",
        "Loss, weighted, SFT",
        "Loss, without weights, DPO",
        "Loss, weighted, DPO",
    ]
