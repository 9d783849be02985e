"""What a person reads of a run: true to its files, careful in its words, harmless with hostile text."""

import io
import json
import re
import shutil
from html import escape as html_escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_records import checked
from pydantic import ValidationError
from rich.console import Console
from run_directories import HOSTILE, difference, write_large_run, write_run, write_weighed

from east_ray.config import InputError
from east_ray.config.files import resolve
from east_ray.console import Progress
from east_ray.records import EXAMPLES, SET_ASIDE, ArmComparison, EvaluationMetrics, StudyPage, StudySeries
from east_ray.report.files import write_cards, write_report, write_side_by_side
from east_ray.report.html import printable, shown
from east_ray.report.page import Table, render
from east_ray.report.plots import Dot, Whisker, bars, curves, density, histogram, linked_dots, whiskers
from east_ray.report.questions import positions_across, shown_questions
from east_ray.report.steps import training_curves
from east_ray.report.summary import describe, summarize
from east_ray.report.terminal import print_summary
from east_ray.storage import RunDirectory
from east_ray.storage.rounds import Round


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return write_run(tmp_path_factory.mktemp("runs") / "compared", num_seeds=3)


@pytest.fixture(scope="module")
def html(directory: RunDirectory) -> str:
    return Path(write_report(directory)).read_text()


def terminal(directory: RunDirectory, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_summary(summarize(directory), console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def rows(html: str, caption: str) -> list[list[str]]:
    """The cells of the first table under a caption that begins so."""
    table = html[html.index(f"<caption>{caption}") :].split("</table>", maxsplit=1)[0]
    return [re.findall(r"<bdi>(.*?)</bdi>", row, re.DOTALL) for row in table.split("<tr>")[2:]]


def test_the_terminal_tables(directory: RunDirectory) -> None:
    text = terminal(directory)
    assert "kept as examples" in text and "discarded: all_wrong" in text and "EAST (entropy, a = 1)" in text
    assert "+20.0 (+10.0, +30.0)" in text
    assert (
        "EAST (entropy, a = 1) minus uniform: +10.0 points, paired 95 % interval +5.0 to +15.0, exact p = 0.004: "
        "EAST (entropy, a = 1) answers more of these questions"
    ) in text
    assert re.search(r"pass@1 .* pass@4 .* pass@8 .* maj@1", text) and "\x1b[31m" not in text


def test_the_terminal_names_one_question_that_no_response_answered(directory: RunDirectory, tmp_path: Path) -> None:
    (line,) = [line for line in terminal(directory).splitlines() if line.startswith("10 all_wrong: ")]
    assert line.startswith("10 all_wrong: one of them, 'Question 50: <script>window.pwned=1</script>")
    assert line.endswith(
        " …', has the reference answer '72', and the commonest answer to it is '72' (5 of 8 responses)"
    )
    pruned = write_run(tmp_path / "pruned")
    shutil.rmtree(tmp_path / "pruned" / "round_0" / "discarded")
    assert "discarded: all_wrong" in terminal(pruned) and "one of them" not in terminal(pruned)


def test_the_terminal_names_one_row_of_each_reason_to_set_it_aside(tmp_path: Path) -> None:
    directory = write_run(tmp_path / "run")
    rows = [
        {"question_id": "q-2", "reason": HOSTILE, "detail": f"row 2: not valid JSON ({HOSTILE})"},
        {"question_id": "q-3", "reason": HOSTILE, "detail": "row 3"},
    ]
    (directory.round(0) / "set_aside").replace(pa.Table.from_pylist(rows, SET_ASIDE))
    (line,) = [line for line in terminal(directory).splitlines() if "q-2" in line]
    assert line.startswith("2 <script>") and ": q-2: row 2: not valid JSON (<script>" in line
    assert line.endswith(f"; all of them: {tmp_path}/run/round_0/set_aside")
    assert "q-3" not in terminal(directory)


def test_the_terminal_shows_a_comparison_in_place_of_its_trainings(compared: RunDirectory) -> None:
    text = terminal(compared, width=80)
    assert "seed-1" not in text and "against base " not in text
    assert "…" not in re.sub(r"\d+ all_wrong: one of them, .*", "", text)  # which quotes a long question
    assert re.search(r"sft-entropy-a2 .* 66.0 .* 64.0 to 68.0 .* \+6.0 \(\+4.0, \+8.0\) .* better ", text)
    assert (
        "sft-entropy-a2 minus sft-uniform: +6.0 points, 95 % interval +4.0 to +8.0, Holm-adjusted p = 0.04: "
        "sft-entropy-a2 is better."
    ) in text
    assert (
        "sft-entropy-a0.5 minus sft-uniform" in text
        and "no difference is shown (80 % power for a difference of 3.0" in text
    )
    assert max(len(line) for line in text.splitlines() if line[:1] in "┏┃│┡└") <= 80


def test_how_much_of_the_data_the_weights_use_is_always_shown(directory: RunDirectory, compared: RunDirectory) -> None:
    weights = np.array([2 * (index + 0.5) / 60 for index in range(50)])  # of write_run
    effective = 100 * weights.sum() ** 2 / (weights**2).sum() / 50
    top = 100 * weights[-1] / 2 / weights.sum()  # half of an example is one percent of 50
    for text in (terminal(directory), terminal(compared, width=80)):
        assert "effective %: " in text and "top 1 %: " in text and "warning" not in text
        assert re.search(rf" {effective:.1f} .* {top:.1f} ", text)
    html = Path(write_report(directory)).read_text()
    assert rows(html, "Over the kept")[1][-2:] == [f"{effective:.1f}", f"{top:.1f}"]
    assert rows(html, "Over the kept")[0][-2:] == ["", ""], "entropies are no weights"
    arm = rows(Path(write_report(compared)).read_text(), "Arms")[-1]
    assert arm[7:12] == ["3.0", "18.0", "50", "80.0", "1.9"]


def test_weights_that_waste_the_data_are_warned_of(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    folder = directory.round(0).learner("trained") / "examples"
    examples = folder.read(EXAMPLES)
    heavy = pa.array([10.0] * 5 + [0.0] * (examples.num_rows - 5))
    folder.replace(examples.set_column(EXAMPLES.get_field_index("weight"), EXAMPLES.field("weight"), heavy))
    said = "less than 30 % of the examples effective: EAST (entropy, a = 1) (10.0 %); an exponent nearer to 0"
    assert f"warning: these weights leave {said}" in terminal(directory)
    assert f"warning: these weights leave {said}" in Path(write_report(directory)).read_text()


def test_the_power_of_a_comparison_is_said(compared: RunDirectory) -> None:
    said = "Power of 3 seeds and 100 questions: a difference of 1 point is shown with a probability of 14 to 18 %"
    for text in (terminal(compared), Path(write_report(compared)).read_text()):
        assert f"{said}, one of 3.0 points with 80 % (of a single comparison" in text


def test_a_comparison_of_an_older_run_is_shown(tmp_path: Path) -> None:
    directory = write_run(tmp_path, num_seeds=2)
    folder = directory.round(0).folder
    found = json.loads(folder.read_text("comparison.json") or "")
    for arm in found["arms"]:
        for name in ("top_share", "power_of_one_point", "disagreement", "seed_spread", "repeated"):
            del arm[name]
    folder.write_text("comparison.json", json.dumps(found))
    assert "Power of" not in terminal(directory)
    assert rows(Path(write_report(directory)).read_text(), "Arms")[-1][7:12] == ["3.0", "", "50", "80.0", ""]


@pytest.mark.parametrize(
    ("value", "low", "high", "p_value", "verdict"),
    [
        (-0.1, -0.15, -0.05, 0.004, "EAST (entropy, a = 1) answers more of these questions"),
        (0.1, 0.05, 0.15, 0.004, "uniform answers more of these questions"),
        (0.1, -0.01, 0.15, 0.2, "no difference is shown"),
        (0.004, 0.001, 0.007, 0.07, "no difference is shown"),  # the interval alone would have said otherwise
    ],
)
def test_no_winner_is_named_that_the_numbers_do_not_show(
    tmp_path: Path, value: float, low: float, high: float, p_value: float, verdict: str
) -> None:
    directory = write_run(tmp_path)
    folder = directory.round(0) / "evaluation"
    metrics = json.loads(folder.read_text("metrics.json") or "")
    metrics["differences"][2] = difference("uniform", "trained", value, low, high, p_value)
    folder.write_text("metrics.json", json.dumps(metrics))
    assert verdict in terminal(directory)


def test_the_page_says_what_the_files_say(html: str) -> None:
    assert ["asked", "60", "100.0"] in rows(html, "Every question")
    assert ["kept as examples", "50", "83.3"] in rows(html, "Every question")
    assert rows(html, "Greedy decoding")[1][1:] == [
        "100", "55.0", "45.0 to 65.0", "+20.0 (+10.0, +30.0)", "1", "2", "50.0"
    ]  # fmt: skip
    assert rows(html, "Accuracy % by level")[0] == ["Level 1", "100", *["50.0 (40.0 to 60.0)"] * 2]
    assert rows(html, "maj@k")[0][1] == "55.0 (45.0 to 60.0)"
    assert rows(html, "Sizes")[0] == ["a", "0.1235"]
    sampling = next(row for row in rows(html, "Seconds") if row[0] == "sampling")
    assert sampling[1:] == ["30.0", "10.0", "20.0", "480", "9,600", "480"], "seconds, of which starting and working"


def test_the_page_of_a_comparison_names_arms_and_not_trainings(compared: RunDirectory) -> None:
    html = Path(write_report(compared)).read_text()
    assert [row[0] for row in rows(html, "Arms")] == [
        "base (before training)", "sft-uniform", "sft-entropy-a0.5", "sft-entropy-a1", "sft-entropy-a2"
    ]  # fmt: skip
    assert rows(html, "Arms")[-1][1:7] == ["66.0", "64.0 to 68.0", "+6.0 (+4.0, +8.0)", "0.02", "0.04", "better"]
    assert "Accuracy against exponent" in html and "training: sft-entropy-a2 (3 seeds)" in html


def test_many_trainings_are_drawn_as_means_of_their_arms(compared: RunDirectory) -> None:
    (summary,) = summarize(compared)
    series = {one["label"]: one for one in training_curves(summary, "tokens_per_s", summary.trainings)}
    assert len(summary.trainings) == 12 and len(series) == 4
    assert (
        series["sft-entropy-a2"]["y"] == [500.0 + len("sft-entropy-a2-seed-0")] * 20 == series["sft-entropy-a2"]["low"]
    )


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    directory = RunDirectory(resolve({"model": "m", "run_dir": str(tmp_path), "questions": {"path": "q"}}))
    assert "What was run" in Path(write_report(directory)).read_text()
    with directory.round(0).recording("questions") as record:
        record.counts = {"asked": 4, "set_aside": {}}
    html = Path(write_report(directory)).read_text()
    assert ["asked", "4", "100.0"] in rows(html, "Every question")
    assert "Accuracy" not in html and "Questions to look at" not in html


def test_given_questions_are_usable_or_set_aside_and_none_was_asked(tmp_path: Path) -> None:
    directory = write_weighed(tmp_path)
    html = Path(write_report(directory)).read_text()
    assert rows(html, "Every question") == [
        ["set aside: malformed_row", "1", ""],
        ["usable questions", "6", "100.0"],
        ["kept as examples", "5", "83.3"],
        ["discarded: all_wrong", "1", "16.7"],
    ]
    assert "asked" not in terminal(directory)


def _elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """The tags of a page with their attributes, as a parser has them."""
    found: list[tuple[str, dict[str, str | None]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append((tag, dict(attrs)))  # type: ignore[method-assign]
    parser.feed(html)
    return found


def test_hostile_text_stays_text(html: str) -> None:
    tags = [tag for tag, _ in _elements(html)]
    assert tags.count("script") == 1 and not {"img", "iframe", "link", "object"} & set(tags)
    assert not [name for _, attributes in _elements(html) for name in attributes if name.startswith("on")]
    assert tags.count("svg") == html.count('role="img"') + html.count('role="group"') >= 10
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html)
    assert "{{7*7}}" in html and "&lt;script&gt;window.pwned=1" in html
    assert f"(cut: {len(HOSTILE * 400):,} characters in all)" in html


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    assert "default-src 'none'" in html and "'unsafe-inline'; script-src 'sha256-" in html
    assert not re.search(r"url\((?!#)|@import", html)
    for _, attributes in _elements(html):
        assert not {"src", "srcset", "action", "data"} & set(attributes)
        assert all((value or "").startswith("#") for name, value in attributes.items() if name.endswith("href"))


def test_every_name_that_is_referred_to_is_there_once(html: str) -> None:
    ids = re.findall(r' id="([^"]+)"', html)
    named = [name for name in ids if name.startswith("c")]
    assert len(named) == len(set(named))
    assert set(re.findall(r"""(?:href="|url\()#([^")]+)""", html)) <= set(ids)


def test_a_report_of_ten_thousand_questions_is_a_small_file(tmp_path: Path) -> None:
    html = Path(write_report(write_large_run(tmp_path))).read_bytes()
    assert html.count(b'<td class="question">') == 150 and b"150 of 10,000 questions" in html
    assert len(html) < 2_000_000


def test_the_questions_that_are_shown(directory: RunDirectory) -> None:
    (summary,) = summarize(directory)
    folders = summary.trainings[0], directory.round(0) / "samples", directory.round(0) / "answers"
    questions = shown_questions(*folders, num_responses=None, max_questions=20)
    assert questions == shown_questions(*folders, num_responses=None, max_questions=20)
    kept = [question for question in questions if question["reason"] is None]
    assert len(kept) == 14 and len(questions) == 20
    assert {questions[0]["question_id"], kept[-1]["question_id"]} == {"q000", "q049"}  # greatest and least entropy
    texts = dict(questions[1]["responses"])
    assert texts["chosen, 72 × 5, correct"] == r"It is \boxed{72}."
    assert texts["rejected, 71 × 2"] == r"So \boxed{71}." and texts["no answer × 1"] == HOSTILE * 400
    told = ["the number 72", "the number 72", "the number 71; 72 is not 71"]
    assert [words for _, words in questions[1]["readings"]][:3] == told
    assert not any(one["readings"] for one in shown_questions(*folders, num_responses=None, is_mathematical=False))


def test_a_round_without_answers_shows_chosen_and_rejected_responses(tmp_path: Path) -> None:
    directory = write_run(tmp_path)
    (directory.round(0) / "answers").clear()
    (summary,) = summarize(directory)
    stages = directory.round(0)
    questions = shown_questions(
        summary.trainings[0], stages / "samples", stages / "answers", num_responses=None, max_questions=20
    )
    assert questions[1]["responses"] == [("chosen", r"It is \boxed{72}."), ("rejected", r"So \boxed{71}.")]


@given(
    st.lists(st.floats(0, 10) | st.just(float("nan")), max_size=300),
    st.integers(7, 60),
)
def test_a_spread_has_the_extremes_and_no_more_than_was_asked_for(values: list[float], num: int) -> None:
    array = np.array(values, dtype=np.float64)
    positions = positions_across(array, num)
    known = array[~np.isnan(array)]
    assert len(positions) == len(set(positions)) == min(num, known.size)
    assert known.size == 0 or (array[positions].min() == known.min() and array[positions].max() == known.max())


@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_what_is_shown_is_printable_and_says_what_was_cut(text: str) -> None:
    seen = printable(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u202a-\u202e\u2066-\u2069\ud800-\udfff]", seen)
    assert seen.encode().decode() == seen and printable(seen) == seen
    assert shown(text, 50) == seen if len(text) <= 50 else shown(text, 50).endswith(f"{len(text)} characters in all)")


def test_figures_say_in_words_what_they_show() -> None:
    values = np.array([0.0, 1.0, 2.0])
    loss: StudySeries = {"label": "loss", "x": [1, 2], "y": [3.0, 2.5]}
    figures = {
        bars("Funnel", {"asked": 1200, "kept": 1}): "asked 1,200, kept 1",
        histogram("H", {"x": values}, "entropy (nats)"): "3 questions from 0 to 2, median 1",
        density("D", values, values, "pass rate", "entropy"): "3 questions; a larger dot is more of them, 1 at most",
        curves("C", [loss], "step", "nats"): "loss: from 3 at 1 to 2.5 at 2",
        whiskers("W", {"": [Whisker("EAST", 1.0, -2.0, 3.0)]}, "points", reference=0): "EAST 1.0 (-2.0 to 3.0)",
    }
    for figure, words in figures.items():
        svg = figure.svg
        label = re.search(r'role="img" aria-label="([^"]*)"', svg)
        assert label is not None and words in label[1]
        assert "currentColor" in svg and "var(--c0)" in svg and "<style" not in svg
        assert not re.search(r": #(?!fff)[0-9a-f]{6}", svg), "colours are the page's"


def test_a_dot_is_a_link_that_says_its_question() -> None:
    kept, discarded = Dot(0.5, 1.0, "q0-0", f"Why? {HOSTILE}"), Dot(0.0, 1.5, "q0-1", "Whither?")
    svg = linked_dots("Dots", {"kept": [kept], "discarded": [discarded]}, "pass rate", "entropy (nats)").svg
    links = re.findall(r'<a href="#([^"]+)"><title>(.*?)</title>\s*<use', svg, re.DOTALL)
    assert links == [("q0-0", html_escape(printable(kept.words))), ("q0-1", "Whither?")]
    assert 'role="group"' in svg and 'xlink:href="#q0' not in svg


def test_columns_of_numbers_stand_to_the_right() -> None:
    table = Table("", ["arm", "gain", "interval", "verdict"], [["a", "+1.0", "", "better"], ["b", "−2", "3 to 4", ""]])
    assert table.numeric == [False, True, True, False]


def test_runs_side_by_side(directory: RunDirectory, compared: RunDirectory, tmp_path: Path) -> None:
    html = Path(write_side_by_side([directory, compared], str(tmp_path / "both.html"))).read_text()
    assert html.count("<h4>") == 2 * (html.count("<h3")) and directory.uri in html and compared.uri in html
    assert "Questions to look at" not in html and "config.yaml" not in html
    assert "None." in html  # the first has no comparison
    with pytest.raises(InputError, match="side by side: expected at least two different runs"):
        write_side_by_side([directory, directory], str(tmp_path / "both.html"))


def test_a_page_of_nothing_is_a_page() -> None:
    assert render({"run": {}}).rstrip().endswith("</html>")


def test_weightings_in_a_few_words() -> None:
    def words(**weighting: Any) -> str:
        values = {"model": "m", "run_dir": "r", "questions": {"path": "q"}, "weighting": weighting}
        return describe(resolve(values))

    assert words(signal="uniform") == "uniform"
    assert words(signal="accuracy", exponent=2.0, mapping="sigmoid") == "accuracy, a = 2, sigmoid"


# ------------------------------------------------------------------------------------------------------- JSON records


def test_the_files_that_these_tests_write_are_of_the_types_that_a_report_reads(
    directory: RunDirectory, compared: RunDirectory
) -> None:
    stages = directory.round(0)
    metrics = checked(EvaluationMetrics, (stages / "evaluation").read_text("metrics.json"))
    checked(StudyPage, (stages / "studies").read_text("responses.json"))
    comparison = checked(ArmComparison, compared.round(0).folder.read_text("comparison.json"))
    for kind, record, row in (
        (EvaluationMetrics, metrics, metrics["accuracy"]["base"]),
        (EvaluationMetrics, metrics, metrics["groups"][0]),
        (ArmComparison, comparison, comparison["arms"][0]),
    ):
        row["of another version"] = 1
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            checked(kind, json.dumps(record))
        del row["of another version"], row["low"]
        with pytest.raises(ValidationError, match="Field required"):
            checked(kind, json.dumps(record))
        row["low"] = 0.0


# -------------------------------------------------------------------------------------------------------------- cards


def test_cards_are_written_for_trained_models_and_again_when_they_are_measured(tmp_path: Path) -> None:
    directory = write_run(tmp_path, description="")
    stages = directory.round(0)
    metrics = (stages / "evaluation").read_text("metrics.json") or ""
    (stages / "evaluation").clear()
    round_ = Round(directory.config, directory, 0, "m", "the initial model", Progress(Console(quiet=True)))
    (stages / "model").write_text("model.safetensors", "")  # of the variant there is none, as after a comparison

    def card() -> str:
        write_cards(round_)
        return (stages / "model").read_text("README.md") or ""

    assert "Not measured yet." in card() and "50 examples; 10 questions discarded as all_wrong" in card()
    assert "round 0 of a run, from\n`the initial model`" in card()
    assert not (stages.learner("uniform") / "model").exists
    (stages / "evaluation").write_text("metrics.json", metrics)
    assert (
        "| before training | 100 | 50.0 % | 40.0 to 60.0 % |\n| this model | 100 | 55.0 % | 45.0 to 65.0 % |" in card()
    )
    assert "Held-out questions: held_out.jsonl." in card() and "Not measured" not in card()
    (stages / "model").write_text("README.md", card() + "and a note of the user's")
    assert card().endswith("and a note of the user's")
    (stages / "model").write_text("README.md", "another card")
    assert "Measured accuracy" in card()
