"""The line of a stage, as it stands in a terminal or in the log of a job, and what engines and workers tell it."""

import io
import json
import re
import time
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console
from sampling_runs import questions, scripted, settings

from east_ray.console import Progress, StageLine
from east_ray.records import SAMPLES
from east_ray.sampling import stage
from east_ray.sampling.backends import Decoding, EngineStatus
from east_ray.sampling.line import SamplingLine
from east_ray.sampling.stage import ask_models
from east_ray.sampling.watch import Board, EngineReport, PoolStatus, TaskProgress, TokenRate, make_board
from east_ray.storage import RunDirectory
from east_ray.storage.rounds import Round


class Clock:
    """Shows the time that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def line(clock: Clock) -> StageLine:
    """The line of a stage that began ten seconds ago."""
    line = StageLine("samples", 4000, "questions", clock)
    clock.now = 10.0
    return line


def test_a_line_has_what_is_done_at_which_rate(line: StageLine) -> None:
    assert line.render().plain == "samples     0/4,000 questions \u00b7 0:10"
    line.advance(80, "640 responses")
    said = "samples     80/4,000 questions \u00b7 8.0/s \u00b7 640 responses \u00b7 0:10 \u00b7 about 8:10 left"
    assert line.render().plain == said, "(4000 - 80) / 8 = 490 seconds"
    line.end()
    assert line.render().plain == said.removesuffix(" \u00b7 about 8:10 left")


def test_what_an_interrupted_run_has_done_counts_but_not_for_the_rate(line: StageLine) -> None:
    line.go_on(2200)
    assert line.render().plain == "samples     2,200/4,000 questions \u00b7 0:10"
    line.advance(20)
    assert line.render().plain == "samples     2,220/4,000 questions \u00b7 2.0/s \u00b7 0:10 \u00b7 about 14:50 left"


def test_starting_is_no_work(line: StageLine, clock: Clock) -> None:
    line.starts()
    line.doing("starting 2 workers")
    clock.now = 40.0
    assert line.starting_s == 30.0 and line.seconds_left is None
    assert line.render().plain == "samples     0/4,000 questions \u00b7 starting 2 workers \u00b7 0:40"
    line.works(for_s=5.0)
    line.works()
    line.update(100)
    assert line.starting_s == 25.0, "it was at work for five seconds when this was told"
    assert line.seconds_left == pytest.approx(3900 / (100 / 15))
    line.starts()
    clock.now = 50.0
    line.works()
    assert line.starting_s == 35.0


def test_no_end_is_estimated_from_next_to_nothing_done(line: StageLine, clock: Clock) -> None:
    line.update(1)
    assert line.seconds_left is None, "one of four thousand"
    line.update(1, begun=79.0)
    assert line.seconds_left == pytest.approx(3920 / 8), "what is done of unfinished questions counts"
    line.update(1)
    clock.now = 60.0
    assert line.seconds_left == pytest.approx(3999 * 60)


def report(
    phase: str = "ready", engine: str = "a", process: str = "1", num_durable: int = 0,
    tasks: dict[str, int] | None = None, **status: int,
) -> EngineReport:  # fmt: skip
    """A report; `tasks` are the durable questions of each, of two responses."""
    found = {name: TaskProgress({"base": count}, 2 * count) for name, count in (tasks or {}).items()}
    return EngineReport(engine, process, phase, EngineStatus(**status), num_durable, found)


def test_the_board_knows_the_phase_of_every_engine(clock: Clock) -> None:
    board = Board(3, begin=0.0, clock=clock)
    clock.now = 35.0
    assert board.read() == PoolStatus(phases={"starting": (3, 35.0)})
    board.tell(report("loading", "a", "of a"))
    board.tell(report("ready", "b", "of b"))
    clock.now = 40.0
    found = board.read()
    assert found.phases == {"starting": (1, 40.0), "loading": (1, 5.0), "ready": (1, 5.0)} and found.num_engines == 3
    assert found.ready_for_s == 5.0
    clock.now = 99.0
    board.tell(report("ready", "a", "of a"))
    assert board.read().phases == {"starting": (2, 99.0), "ready": (1, 0.0)}, "b has not told anything for a minute"


def test_what_is_durable_counts_once_however_often_a_task_is_done(clock: Clock) -> None:
    board = Board(1, begin=0.0, clock=clock)
    board.tell(report(tasks={"t": 3}, num_durable=6, num_finished=7, num_running=4, num_tokens=100))
    found = board.read()
    assert found.num_questions == {"base": 3} and (found.num_responses, found.num_running) == (7, 4)
    # The process dies; the next one finds three questions of the task durable, and asks the others again.
    board.tell(report(process="2", tasks={"t": 3}))
    assert board.read().num_responses == 6, "the seventh was lost"
    board.tell(report(process="2", tasks={"t": 8, "u": 1}, num_durable=12, num_finished=12, num_tokens=50))
    found = board.read()
    assert (found.num_questions, found.num_responses, found.num_tokens) == ({"base": 9}, 18, 150)
    board.tell(report(process="1", tasks={}, num_running=9, num_tokens=110))  # it had only been cut off
    assert board.read().num_running == 0 and board.read().num_tokens == 160


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    rate = TokenRate()
    assert rate.add(100.0, 0) is None, "no token yet"
    assert rate.add(100.5, 40) is None, "after half a second"
    assert rate.add(102.0, 200) == pytest.approx(100.0)
    for second in range(103, 130):
        found = rate.add(float(second), 200 + 50 * (second - 102))
    assert found == pytest.approx(50.0)


def test_the_line_of_an_evaluation_names_each_model() -> None:
    line = StageLine("evaluation", 16, "questions")
    of_models = {"base": 8, "trained": 8}
    shown = SamplingLine(line, of_models, {"base": 2, "trained": 8}, Decoding(1, 0.0, 8))
    shown.begin_pool(0)
    shown.show(PoolStatus({"ready": (1, 9.0)}, 9.0, {"base": 2, "trained": 3}, 5, 3, 2, 90))
    said = "evaluation  11/16 questions .* base 8/8, trained 3/8 \u00b7 11 responses \u00b7 3 running, 2 waiting"
    assert re.match(said, line.render().plain), line.render().plain


def test_a_terminal_has_a_bar() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    with Progress(console).stage("sampling", 8, "questions") as line:
        line.doing("engines: starting")
        line.update(4)
        time.sleep(0.5)
    assert re.search(
        "sampling +\u2501{11}[\u2501\u2578\u257a \u2500]+ 4/8 questions .* engines: starting", out.getvalue()
    )
    assert out.getvalue().rstrip().endswith("0:00") or "4/8 questions" in out.getvalue().splitlines()[-1]


def test_a_log_tells_every_phase_and_the_rate_before_a_question_is_done(tmp_path: Path, local_ray: None) -> None:
    """The first line with phases within ten seconds, and tokens per second within ten of the first token."""
    texts = [{"text": "1", "num_tokens": 1000}]
    sections = scripted(tmp_path / "script", {"question": "pens", "responses": texts}, delay_s=6.0, start_s=6.0)
    config = settings(tmp_path / "run", **sections)
    lines: list[tuple[float, str]] = []

    class Log(io.StringIO):
        def write(self, text: str) -> int:
            lines.extend((time.monotonic(), one) for one in text.splitlines() if one)
            return len(text)

    round_ = Round(config, RunDirectory(config), 0, "m", "m", Progress(Console(file=Log(), width=200)))
    begin, counts = time.monotonic(), dict[str, object]()
    starting_s = ask_models(
        round_, "sampling", questions(2), {"base": "m"}, "samples", "set_aside", Decoding(2, 1.0, 8), counts
    )
    seconds = time.monotonic() - begin
    said = [text for _, text in lines]

    def first(pattern: str) -> float:
        return next(at for at, text in lines if re.search(pattern, text))

    assert first("engines: starting") - begin < 10, said
    assert first("starting") <= first("loading") < first("compiling") < first("ready 1 of 1|tokens/s"), said
    assert 6.0 <= starting_s < seconds - 11.0, "two requests of six seconds each were no starting"
    at = first(r"0/2 questions .* \d+ tokens/s")
    assert at - (begin + starting_s) < 10, "the first request lasts six seconds, and the rate is told before it ends"
    assert any(re.search(r"1/2 questions .* 2 responses .* 2 running", text) for text in said), said
    assert counts["num_questions"] == 2 and "2/2 questions" in said[-1] and "left" not in said[-1]


def test_a_question_of_a_task_in_flight_counts_once_it_is_durable(
    tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task of eight questions of a second each: the line shows at every time what is on disk, a second late."""
    config = settings(tmp_path / "run", **scripted(tmp_path / "script", delay_s=1.0))
    round_ = Round(config, RunDirectory(config), 0, "m", "m", Progress(Console(quiet=True)))
    told: list[tuple[int, int]] = []

    class Watched(SamplingLine):
        def show(self, status: PoolStatus) -> None:
            super().show(status)
            samples = round_.stages / "samples"
            try:
                parts = [
                    part for task in (samples / "pending").names() for part in (samples / "pending" / task).parts()
                ]
                on_disk = sum(samples.read(SAMPLES, ["key"], [part]).num_rows for part in parts)
            except FileNotFoundError:  # the task has just ended
                return
            told.append((sum(status.num_questions.values()), on_disk))

    monkeypatch.setattr(stage, "SamplingLine", Watched)
    counts: dict[str, object] = {}
    ask_models(round_, "sampling", questions(8), {"base": "m"}, "samples", "set_aside", Decoding(2, 1.0, 8), counts)
    during = [(shown, on_disk) for shown, on_disk in told if on_disk]
    assert len({shown for shown, _ in during}) >= 4, told
    assert all(shown <= on_disk + 1 for shown, on_disk in during), "a part is read after the status"
    assert [shown for shown, _ in told] == sorted(shown for shown, _ in told)
    assert any(shown >= on_disk - 2 for shown, on_disk in during if on_disk > 4), "and not one task late"
    assert counts["num_questions"] == 8, json.dumps(told)


def test_rays_metrics_have_the_same_numbers(local_ray: None) -> None:
    import ray

    board = make_board(2)
    told = report("ready", tasks={"t": 3}, num_durable=6, num_running=4, num_waiting=5, num_finished=7, num_tokens=100)
    ray.get(board.tell.remote(told))
    ray.get(board.read.remote())
    (node,) = ray.nodes()
    wanted = {
        "ray_east_ray_generated_tokens_total": 100.0, "ray_east_ray_running_responses": 4.0,
        "ray_east_ray_waiting_responses": 5.0, 'ray_east_ray_engines phase="ready"': 1.0,
        'ray_east_ray_engines phase="starting"': 1.0, 'ray_east_ray_durable_questions model="base"': 3.0,
    }  # fmt: skip
    deadline = time.monotonic() + 60
    missing = set(wanted)
    while missing:
        assert time.monotonic() < deadline, missing
        time.sleep(0.5)
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(address) as response:
            lines = response.read().decode().splitlines()
        for name in list(missing):
            metric, _, label = name.partition(" ")
            found = [line for line in lines if line.startswith(f"{metric}{{") and label in line]
            if any(float(line.split()[-1]) == wanted[name] for line in found):
                missing.remove(name)
