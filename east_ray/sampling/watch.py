"""What the engines of a pool are doing and what is durable: each actor tells a board, which the driver reads.

The results of Ray Data come when a task ends, and then some tasks late. So every actor of the pool tells the board once
a second what its engine does and how much of each task is durable: numbers of tasks, no key of a question. The board is
an actor on the driver's node. A task that is done again after a death counts once, with the latest of its numbers.
"""

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from east_ray.sampling.backends import EngineStatus

#: An actor tells the board so often, and the driver reads it so often. An engine that has not told anything for
#: `_GONE_S` is gone; it may be silent while it loads, because native code holds Python's lock.
_TELL_S, _READ_S, _GONE_S = 1.0, 1.0, 60.0
#: Tokens per second are those of the last seconds, and no rate is told before one second of them.
_RATE_OVER_S, _FIRST_RATE_S = 10.0, 1.0
#: The phases of an engine, in order. It is starting while its actor waits for a place and its process starts.
STARTING, LOADING, COMPILING, READY = PHASES = "starting", "loading", "compiling", "ready"


@dataclass(frozen=True)
class TaskProgress:
    """What is durable of a task: questions by the name of the model, those set aside included, and responses."""

    num_questions: Mapping[str, int]
    num_responses: int


@dataclass(frozen=True)
class EngineReport:
    """What an actor tells. `engine` is the same after a restart of the actor, and `process` is not."""

    engine: str
    process: str
    phase: str
    status: EngineStatus
    num_durable: int
    """Responses that this process has made durable, of those that its status counts as finished."""
    tasks: Mapping[str, TaskProgress]
    """The tasks of which more has become durable since the report before."""


@dataclass(frozen=True)
class PoolStatus:
    """What a pool is doing; every number is of this pool alone, since it began."""

    phases: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Phase -> (number of engines in it, seconds for which the first of them has been in it)."""
    ready_for_s: float | None = None
    """Seconds since the first engine was ready; None: none has been."""
    num_questions: dict[str, int] = field(default_factory=dict)
    """Durable questions by the name of the model, with those that are set aside."""
    num_responses: int = 0
    """Finished responses, whether they are durable yet or not."""
    num_running: int = 0
    num_waiting: int = 0
    num_tokens: int = 0
    """Tokens that the engines have generated, with those that were lost in a death."""

    @property
    def num_engines(self) -> int:
        """Engines that work or are to come."""
        return sum(count for count, _ in self.phases.values())


class Board:
    """Gathers the reports of a pool's engines, of which at least `min_engines` are expected."""

    def __init__(self, min_engines: int, begin: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`begin` is when the pool began, on the clock; all processes of a machine have the same."""
        self._min_engines, self._clock, self._begin = min_engines, clock, begin
        self._processes: dict[str, str] = {}  # engine -> its last process; one that was cut off may still report
        self._reports: dict[str, EngineReport] = {}  # the last one of each process
        self._told_at: dict[str, float] = {}
        self._phase_since: dict[str, tuple[str, float]] = {}  # process -> its phase, and since when
        self._tasks: dict[str, TaskProgress] = {}
        self._ready_at: float | None = None

    def tell(self, report: EngineReport) -> None:
        """Take a report; it takes the place of the last one of its process."""
        now, process = self._clock(), report.process
        if process not in self._reports:
            self._processes[report.engine] = process
        if self._phase_since.get(process, ("", 0.0))[0] != report.phase:
            self._phase_since[process] = report.phase, now
        if report.phase == READY and self._ready_at is None:
            self._ready_at = now
        self._reports[process], self._told_at[process] = report, now
        self._tasks.update(report.tasks)

    def read(self) -> PoolStatus:
        """The sums over all engines."""
        now = self._clock()
        last = [self._reports[process] for process in self._processes.values()]
        living = [one for one in last if now - self._told_at[one.process] < _GONE_S]
        phases: dict[str, tuple[int, float]] = {}
        if (missing := self._min_engines - len(living)) > 0:
            phases[STARTING] = missing, now - self._begin
        for one in living:
            count, seconds = phases.get(one.phase, (0, 0.0))
            phases[one.phase] = count + 1, max(seconds, now - self._phase_since[one.process][1])
        questions = Counter[str]()
        for task in self._tasks.values():
            questions.update(task.num_questions)
        durable = sum(task.num_responses for task in self._tasks.values())
        return PoolStatus(
            phases={phase: phases[phase] for phase in PHASES if phase in phases},
            ready_for_s=None if self._ready_at is None else now - self._ready_at,
            num_questions=dict(questions),
            num_responses=durable + sum(max(0, one.status.num_finished - one.num_durable) for one in living),
            num_running=sum(one.status.num_running for one in living),
            num_waiting=sum(one.status.num_waiting for one in living),
            num_tokens=sum(one.status.num_tokens for one in self._reports.values()),
        )


class TokenRate:
    """Tokens per second over the last seconds, from how many there are at a time."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque([(0.0, 0)])

    def add(self, at: float, num_tokens: int) -> float | None:
        """The rate after this reading at a time in seconds; None: too early to say."""
        if num_tokens == 0:
            self._seen = deque([(at, 0)])  # what counts is the time since the first token
            return None
        self._seen.append((at, num_tokens))
        while len(self._seen) > 2 and at - self._seen[1][0] >= _RATE_OVER_S:
            self._seen.popleft()
        (begin, before), (end, now) = self._seen[0], self._seen[-1]
        return (now - before) / (end - begin) if end - begin >= _FIRST_RATE_S else None


class _Metrics:
    """The same numbers as Ray's metrics, for Prometheus and Grafana."""

    def __init__(self) -> None:
        from ray.util import metrics

        self._num_tokens = 0
        self._tokens = metrics.Counter("east_ray_generated_tokens", "Tokens that the engines have generated.")
        self._running = metrics.Gauge("east_ray_running_responses", "Responses that the engines are generating.")
        self._waiting = metrics.Gauge("east_ray_waiting_responses", "Responses that are asked for and have not begun.")
        self._engines = metrics.Gauge("east_ray_engines", "Engines by phase.", tag_keys=("phase",))
        self._questions = metrics.Gauge(
            "east_ray_durable_questions", "Questions of the pool that are durable, by model.", tag_keys=("model",)
        )

    def set(self, status: PoolStatus) -> None:
        if status.num_tokens > self._num_tokens:
            self._tokens.inc(status.num_tokens - self._num_tokens)
            self._num_tokens = status.num_tokens
        self._running.set(status.num_running)
        self._waiting.set(status.num_waiting)
        for phase in PHASES:
            self._engines.set(status.phases.get(phase, (0, 0.0))[0], tags={"phase": phase})
        for model, count in status.num_questions.items():
            self._questions.set(count, tags={"model": model})


class MeteredBoard(Board):
    """A board whose numbers are Ray's metrics as well, as often as they are read."""

    def __init__(self, min_engines: int, begin: float) -> None:
        super().__init__(min_engines, begin)
        self._metrics = _Metrics()

    def read(self) -> PoolStatus:
        """As `Board.read`."""
        status = super().read()
        self._metrics.set(status)
        return status


def make_board(min_engines: int) -> Any:
    """A board as an actor on this node: it must outlive the other nodes."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # It may be killed where memory is scarce. Then what it knew of finished tasks is lost, and nothing else.
    again = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(num_cpus=0, scheduling_strategy=here, **again)(MeteredBoard).remote(min_engines, time.monotonic())


@contextmanager
def shown(board: Any, show: Callable[[PoolStatus], None]) -> Iterator[None]:
    """Give the board's numbers to `show` every second while the block runs, and once more at its end."""
    import ray

    ended = threading.Event()

    def read() -> None:
        while not ended.wait(_READ_S):
            try:
                show(ray.get(board.read.remote()))
            except ray.exceptions.RayError:  # Ray itself has ended; the work in the block meets the same error
                return

    reader = threading.Thread(target=read, daemon=True, name="watch")
    reader.start()
    try:
        yield
        show(ray.get(board.read.remote()))
    finally:
        ended.set()
        reader.join()


class Reporter:
    """Tells the board what the engine of this process does, from a thread of its own."""

    def __init__(self, board: Any, phase: Callable[[], str], status: Callable[[], EngineStatus]) -> None:
        """`phase` and `status` are asked once a second."""
        import ray

        self._board, self._phase, self._status = board, phase, status
        self._engine, self._process = ray.get_runtime_context().get_actor_id() or "", uuid.uuid4().hex
        self._lock, self._changed, self._num_durable = threading.Lock(), dict[str, TaskProgress](), 0
        self._telling = threading.Lock()
        threading.Thread(target=self._run, daemon=True, name="reporter").start()

    def durable(self, task: str, progress: TaskProgress, num_new: int) -> None:
        """So much of a task is durable now, `num_new` responses of it by this process since it was last told."""
        with self._lock:
            self._changed[task] = progress
            self._num_durable += num_new

    def tell(self) -> None:
        """Tell the board now, and wait until it knows."""
        import ray

        with self._telling:  # reports must not overtake one another
            with self._lock:
                tasks, self._changed = self._changed, {}
                status, num_durable = self._status(), self._num_durable
            report = EngineReport(self._engine, self._process, self._phase(), status, num_durable, tasks)
            ray.get(self._board.tell.remote(report))

    def _run(self) -> None:
        import ray

        while True:
            try:
                self.tell()
            except ray.exceptions.RayError:  # the driver has ended, and nobody watches any more
                return
            time.sleep(_TELL_S)
