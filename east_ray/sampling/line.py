"""The line of sampling and of evaluation: what is durable, what the engines do, how fast, and when it will end."""

import threading
import time
from collections import Counter
from collections.abc import Mapping

from east_ray.console import StageLine, clock
from east_ray.sampling.backends import Decoding
from east_ray.sampling.watch import READY, PoolStatus, TokenRate

#: With more models than this, only the one at work is named.
_MAX_NAMED_MODELS = 3


class SamplingLine:
    """Turns the status of one pool after the other into what the stage's line says."""

    def __init__(
        self,
        line: StageLine,
        asked: Mapping[str, int],
        unfinished: Mapping[str, int],
        decoding: Decoding,
        num_before: int | None = None,
    ) -> None:
        """`asked` and `unfinished` are numbers of questions by the name of the model.

        `num_before` are the responses that are there already; None: every question gets the same number.
        """
        self._line, self._asked = line, asked
        self._per_question = decoding.responses_per_question if num_before is None else None
        #: What is durable without the pool at work: questions by model, and responses.
        self._before = Counter({name: asked[name] - unfinished.get(name, 0) for name in asked})
        self._responses_before = self._before.total() * (self._per_question or 0) if num_before is None else num_before
        self._durable = Counter[str]()  # of the pool at work
        self._last, self._rate, self._lock = PoolStatus(), TokenRate(), threading.Lock()
        line.go_on(self._units(self._before, self._responses_before))

    def begin_pool(self, num_questions: int, wave: int = 1) -> None:
        """Another pool is being started, for so many questions."""
        self._before.update(self._durable)
        self._responses_before += self._last.num_responses
        self._durable, self._last, self._rate = Counter(), PoolStatus(), TokenRate()
        self._line.starts()
        self._line.doing("engines: starting", "starting")

    def show(self, status: PoolStatus) -> None:
        """What the pool is doing now."""
        with self._lock:
            self._last = status
            if status.ready_for_s is not None:
                self._line.works(status.ready_for_s)
            self._durable |= Counter(status.num_questions)  # the larger: a board that was killed knows less
            done = self._before + self._durable
            num_responses = self._responses_before + status.num_responses
            rate = self._rate.add(time.monotonic(), status.num_tokens)
            notes = [
                self._questions(done),
                self._responses(num_responses),
                running(status),
                f"{rate:,.0f} tokens/s" if rate is not None else "",
            ]
            self._line.update(self._units(done, num_responses), " · ".join(filter(None, notes)), self._begun(status))
            kind = " ".join(status.phases) + (" at a rate" if rate is not None else "")
            self._line.doing(engines(status), kind)

    def _units(self, done: Counter[str], num_responses: int) -> int:
        """What is done, in units of the line."""
        return done.total()

    def _begun(self, status: PoolStatus) -> float:
        """What is done of other questions, in questions; unknown where a rule decides how many responses they take."""
        if self._per_question is None:
            return 0.0
        return max(0.0, status.num_responses / self._per_question - sum(status.num_questions.values()))

    def _questions(self, done: Counter[str]) -> str:
        return by_model(self._asked, done)

    def _responses(self, num_responses: int) -> str:
        return f"{num_responses:,} response{'s' if num_responses > 1 else ''}" if num_responses else ""


class BudgetLine(SamplingLine):
    """The same under a budget, whose unit is a response: questions get more in one wave after the other."""

    _wave, _num_asked = 1, 0

    def begin_pool(self, num_questions: int, wave: int = 1) -> None:
        """The wave of this number begins or goes on, in which so many questions are asked."""
        super().begin_pool(num_questions, wave)
        self._wave, self._num_asked = wave, num_questions

    def _units(self, done: Counter[str], num_responses: int) -> int:
        return num_responses

    def _questions(self, done: Counter[str]) -> str:
        return f"wave {self._wave}: {self._durable.total():,}/{self._num_asked:,} questions"

    def _responses(self, num_responses: int) -> str:
        return ""  # the line begins with it


def engines(status: PoolStatus) -> str:
    """The engines by phase: ``starting 0:35, ready 2 of 8``; nothing once all of them are at work.

    >>> engines(PoolStatus(phases={"starting": (5, 35.2), "loading": (1, 4.0), "ready": (2, 9.0)}))
    'engines: 5 starting 0:35, loading 0:04, ready 2 of 8'
    >>> engines(PoolStatus(phases={"starting": (1, 35.2)}))
    'engines: starting 0:35'
    """
    told = []
    for phase, (count, seconds) in status.phases.items():
        if phase != READY:
            told.append(f"{count} {phase} {clock(seconds)}" if count > 1 else f"{phase} {clock(seconds)}")
        elif count < status.num_engines or not status.num_tokens:
            told.append(f"ready {count} of {status.num_engines}")
    return f"engines: {', '.join(told)}" if told else ""


def running(status: PoolStatus) -> str:
    """The responses that engines are at work on, and those that wait for a place."""
    told = [f"{status.num_running:,} running"] if status.num_running else []
    return ", ".join(told + ([f"{status.num_waiting:,} waiting"] if status.num_waiting else []))


def by_model(asked: Mapping[str, int], done: Mapping[str, int]) -> str:
    """Durable questions of each model; of many models, of the one at work.

    >>> by_model({"base": 64, "trained": 64}, {"base": 64, "trained": 12})
    'base 64/64, trained 12/64'
    >>> by_model({"a": 8, "b": 8, "c": 8, "d": 8}, {"a": 8, "b": 3})
    '1 of 4 models, b 3/8'
    """
    if len(asked) < 2:
        return ""
    told = [f"{name} {done.get(name, 0):,}/{count:,}" for name, count in asked.items()]
    if len(asked) <= _MAX_NAMED_MODELS:
        return ", ".join(told)
    whole = sum(done.get(name, 0) >= count for name, count in asked.items())
    at_work = [one for one, (name, count) in zip(told, asked.items(), strict=True) if 0 < done.get(name, 0) < count]
    return ", ".join([f"{whole:,} of {len(asked):,} models", *at_work[:_MAX_NAMED_MODELS]])
