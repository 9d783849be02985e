"""A run directory as Arrow tables: examples, metrics and comparisons, for a notebook."""

import functools
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from east_ray.config import Config, InputError
from east_ray.config.base import hint
from east_ray.records import ANSWERS, DISCARDED, EXAMPLES, SAMPLES, SET_ASIDE
from east_ray.storage import Folder, RunDirectory, Stages, load_run, locate

_SCHEMAS = {
    "samples": SAMPLES,
    "answers": ANSWERS,
    "examples": EXAMPLES,
    "discarded": DISCARDED,
    "set_aside": SET_ASIDE,
}
_NUMBERS = [pa.field(name, pa.float64()) for name in ("low", "high")]
_METRICS = pa.schema(
    [
        pa.field("round", pa.int32()),
        pa.field("model", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("column", pa.string()),
        pa.field("group", pa.string()),
        pa.field("value", pa.float64()),
        *_NUMBERS,
        pa.field("num_questions", pa.int64()),
    ]
)
_DIFFERENCES = pa.schema(
    [
        pa.field("round", pa.int32()),
        pa.field("first", pa.string()),
        pa.field("second", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("difference", pa.float64()),
        *_NUMBERS,
        pa.field("p_value", pa.float64()),
    ]
)


class Run:
    """A run as far as it has got. Each table is an Arrow table; ``table.to_pandas()`` makes a DataFrame of one.

    `rounds` are the numbers of the rounds that have begun. `trainings` are the names of a round's trainings: "trained"
    is the run's own, others are its variants or those of a comparison.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self.config: Config = directory.config
        numbers = range(self.config.rounds)
        self.rounds = [number for number in numbers if directory.round(number).folder.exists]
        self.trainings = list(self.config.learners())

    def __repr__(self) -> str:
        return f"<Run: {self._directory.uri}, rounds {self.rounds}, trainings {self.trainings}>"

    def examples(self, number: int = -1, *, training: str | None = None) -> pa.Table:
        """What was trained on, with weights (records.EXAMPLES), of a training in a round.

        Args:
            number: the round, counted from 0; -1 is the last that has begun.
            training: one of `trainings`, by default the first.

        Raises InputError if there is no such round or training, or if it has no examples yet.
        """
        return self._table("examples", number, training)

    def discarded(self, number: int = -1, *, training: str | None = None) -> pa.Table:
        """What was not trained on, with reasons (records.DISCARDED). Arguments as in `examples`."""
        return self._table("discarded", number, training, required="examples")

    def set_aside(self, number: int = -1, *, training: str | None = None) -> pa.Table:
        """Rows that have no responses, with reasons (records.SET_ASIDE). Arguments as in `examples`."""
        return self._table("set_aside", number, training, required="samples")

    def samples(self, number: int = -1, *, training: str | None = None) -> pa.Table:
        """Questions with all their responses (records.SAMPLES), which may be large. Arguments as in `examples`."""
        return self._table("samples", number, training)

    def answers(self, number: int = -1, *, training: str | None = None) -> pa.Table:
        """The answer and the cluster of each response (records.ANSWERS). Arguments as in `examples`."""
        return self._table("answers", number, training)

    @functools.cached_property
    def metrics(self) -> pa.Table:
        """How each round's models answer the held-out questions: round, model, metric, value, low, high, num_questions.

        Metrics are accuracy and, if responses were sampled, pass@k and maj@k; low and high bound 95 % intervals. Rows
        with a `column` (level or subject) are of the questions of one `group`. Without an evaluation there are no rows.
        """
        return pa.Table.from_pylist([row for number in self.rounds for row in self._metrics(number)], _METRICS)

    @functools.cached_property
    def differences(self) -> pa.Table:
        """Paired differences of two models: round, first, second, metric, difference, low, high, p_value."""
        rows = []
        for number in self.rounds:
            found = self._json(number, "evaluation/metrics.json")
            of_accuracy = [{"metric": "accuracy", **one} for one in found.get("differences", [])]
            rows += [{"round": number, **one} for one in [*of_accuracy, *found.get("sampled_differences", [])]]
        return pa.Table.from_pylist(rows, _DIFFERENCES)

    @functools.cached_property
    def comparison(self) -> pa.Table:
        """The arms of a comparison after each round (records.ComparedArm), with the `round`; no rows if it is none."""
        rows = [
            {"round": number, **arm}
            for number in self.rounds
            for arm in self._json(number, "comparison.json").get("arms", [])
        ]
        return pa.table({name: [row.get(name) for row in rows] for name in dict.fromkeys(itertools.chain(*rows))})

    def _metrics(self, number: int) -> Iterator[dict[str, Any]]:
        found = self._json(number, "evaluation/metrics.json")
        for model, one in found.get("accuracy", {}).items():
            yield {"round": number, "model": model, "metric": "accuracy", "value": one["accuracy"], **one}
        for one in found.get("groups", []):
            yield {"round": number, "metric": "accuracy", "value": one["accuracy"], **one}
        for model, one in found.get("sampled", {}).items():
            for kind in ("pass", "maj"):
                for at in one[f"{kind}_at"]:
                    yield {"round": number, "model": model, "metric": f"{kind}@{at['k']}", **at}

    def _json(self, number: int, name: str) -> dict[str, Any]:
        text = self._directory.round(number).folder.read_text(name)
        return dict(json.loads(text)) if text else {}

    def _table(self, name: str, number: int, training: str | None, required: str = "") -> pa.Table:
        training = training or self.trainings[0]
        if training not in self.trainings:
            known = hint(training, self.trainings) or f"; it has {', '.join(self.trainings)}"
            raise InputError(f"{self._directory.uri} has no training {training!r}{known}")
        if not self.rounds or not -1 <= number <= self.rounds[-1]:
            raise InputError(f"{self._directory.uri} has no round {number}; it has {self.rounds}")
        stages = self._directory.round(self.rounds[number])
        own = stages.learner(training)
        # A variant shares the samples of its round; from the second round on, trainings of a comparison do not.
        of = own if name in ("examples", "discarded") or (own / "samples").exists else stages
        is_unfinished = (required or name) == "examples" and of.record("examples") is None
        if is_unfinished or not (of / (required or name)).exists:
            raise InputError(f"{of.folder} has no {required or name} yet")
        try:
            return (of / name).read(_SCHEMAS[name])
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{of / name}: cannot be read ({error})") from error


def read_run(path: str | os.PathLike[str]) -> Run:
    """A run, given its run directory or its YAML file; local, s3://… or gs://…. Nothing is written.

    Raises InputError if there is no run, or if it cannot be reached.
    """
    try:
        config = load_run(os.fspath(path))
        first = Stages(Folder(*locate(config.run_dir, is_output=True)) / "round_0")
        if not ((first / "stages").exists or (first / "samples").exists):
            raise InputError(f"{config.run_dir}: no run has begun there")
        return Run(RunDirectory(config, only_read=True))
    except OSError as error:
        raise InputError(f"{path}: the run cannot be read ({error})") from error
    except TypeError as error:
        if isinstance(path, str | os.PathLike):
            raise
        raise InputError(f"path: {path!r} given, expected the path of a run") from error
