"""What a plan says: tables and sentences, JSON for programs, and the short form at the start of a run."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from east_ray.config import TRAINED, Config, InputError
from east_ray.plan.estimate import Engine, Plan, Stage, Worker, estimate, figures
from east_ray.plan.memory import Moment
from east_ray.plan.remedies import Remedy, remedies
from east_ray.storage import load_run

#: Seconds that the start of a run waits for its estimate.
MAX_WAIT_S = 2.0
#: Parts of a worker's memory, as the table has them.
_PARTS = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "head": "logits of the head",
    "buckets": "communication buckets",
    "base": "libraries",
}


def from_command_line(
    config_file: str, overrides: Sequence[str], named: Mapping[str, Any], console: Console, *, as_json: bool
) -> None:
    """Print the plan of a run. `named` are options that stand for settings of `plan`; None: not given."""
    given = [f"plan.{name}={json.dumps(value)}" for name, value in named.items() if value is not None]
    config = load_run(config_file, [*overrides, *given])
    plan = estimate(config)
    if as_json:
        console.print(json.dumps(as_values(plan, remedies(config, plan)), indent=1), markup=False, soft_wrap=True)
        return
    part: Table | str
    for part in described(config, plan):
        console.print(part, markup=False, soft_wrap=isinstance(part, str))


def as_values(plan: Plan, suggested: Sequence[Remedy]) -> dict[str, Any]:
    """A plan as plain values: bytes, tokens and seconds, with the suggestions as overrides of the command line."""
    values = asdict(plan)
    if plan.worker is not None:
        values["worker"] |= {"peak": plan.worker.at_most.peak, "fits": plan.worker.fits}
    if plan.engine is not None:
        values["engine"] |= {"fits": plan.engine.fits}
    return values | {"seconds": plan.seconds, "suggestions": [str(one) for one in suggested]}


def described(config: Config, plan: Plan) -> Iterator[Table | str]:
    """The tables and sentences of `east-ray plan`."""
    yield f"model: {plan.model}, {_large(plan.size.num_parameters)} parameters"
    yield from plan.problems
    if plan.worker is not None:
        yield _worker_table(plan.worker)
        yield _of_worker(plan.worker)
    if plan.engine is not None:
        yield _of_engine(plan.engine)
    suggested = remedies(config, plan)
    if suggested:
        yield "it fits with any of these:"
        yield from (f"  {remedy}{_needing(remedy)}" for remedy in suggested)
    elif (plan.worker and plan.worker.fits is False) or (plan.engine and not plan.engine.fits):
        yield "no setting of this run makes it fit here: take a larger card, more of them, or a smaller model"
    yield _stage_table(plan.stages)
    yield _hours(plan)
    if plan.price is not None:
        hours, each = (plan.seconds or 0) / 3600, config.plan.price_per_gpu_hour
        yield f"price: {plan.gpus} GPUs for {hours:,.2f} hours at {each:g}: {plan.price:,.2f}"
    yield "reckoned with (KEY=VALUE on the command line changes it):"
    for what, figure in figures(plan.facts):
        value = "not known" if figure.value is None else _number(figure.value)
        yield f"  {figure.setting:<24} {value:>9}  {what}" + ("" if figure.value is None else f", {figure.source}")
    for key, assumed in plan.assumptions.items():
        yield f"  {key:<24} {assumed:>9}  assumed"


def _worker_table(worker: Worker) -> Table:
    moments: tuple[Moment, Moment] = (worker.at_most.backward, worker.at_most.step)
    rows = [[shown, *(_gib(getattr(one, part)) for one in moments)] for part, shown in _PARTS.items()]
    rows.append(["in all", *(_gib(one.total) for one in moments)])
    return _table(["a training worker, GiB at most", "backward pass", "optimizer's step"], rows)


def _of_worker(worker: Worker) -> str:
    which = "" if worker.name == TRAINED else f" of {worker.name}"
    count = f"{worker.count} workers" if worker.count > 1 else "1 worker"
    have = "" if worker.available is None else f" of {_gib(worker.available)}"
    host = f", and {_gib(worker.at_most.on_host)} GiB of the machine's memory" if worker.at_most.on_host else ""
    verdict = {True: " It fits.", False: " It does not fit.", None: " What there is for it is not known."}[worker.fits]
    return (
        f"{count}{which} on {worker.device}: {_gib(worker.at_most.peak)}{have} GiB each{host} at training.max_length, "
        f"{_gib(worker.usual.peak)} at the mean length.{verdict}"
    )


def _of_engine(engine: Engine) -> str:
    memory = engine.memory
    count = f"{engine.count} engines" if engine.count > 1 else "1 engine"
    held = (
        f"{count} on {engine.device}: {_gib(memory.parameters)} GiB of parameters, {_gib(memory.base)} of its own, "
        f"{_gib(max(0.0, memory.cache))} of cache"
    )
    if not engine.fits:
        most = f"{memory.max_tokens:,} tokens, and one sequence may have {engine.longest:,}"
        return f"{held}\n  for {most}; there are {_gib(memory.available)} GiB. It does not fit."
    responses = f"{engine.at_once:,} responses at the mean length, {engine.at_once_longest:,} at sampling.max_tokens"
    return f"{held}\n  for {memory.max_tokens:,} tokens: at once {responses}. It fits."


def _needing(remedy: Remedy) -> str:
    if remedy.available < 2**31 and "engines." in str(remedy):
        return f"   a cache of {remedy.available:,.0f} tokens"
    return f"   {_gib(remedy.needed)} of {_gib(remedy.available)} GiB"


def _stage_table(stages: Sequence[Stage]) -> Table:
    rows = [
        [
            stage.name,
            "" if stage.tokens is None else _large(stage.tokens),
            "" if stage.tokens_per_s is None else f"{stage.tokens_per_s:,.0f}",
            "" if stage.seconds is None else _time(stage.seconds),
            "" if stage.seconds is None else stage.source,
        ]
        for stage in stages
    ]
    return _table(["stage", "tokens", "tokens/s", "time", "speed"], rows)


def _hours(plan: Plan) -> str:
    if plan.seconds is not None:
        return f"time in all: {_time(plan.seconds)}"
    unknown = ", ".join(f"{stage.name} ({stage.source})" for stage in plan.stages if stage.seconds is None)
    return f"time in all: not known, because of {unknown}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _gib(value: float) -> str:
    return f"{value / 2**30:,.1f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _large(value: float) -> str:
    for unit, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f}"


# ------------------------------------------------------------------------------------------- at the start of a run


def say_in_short(config: Config, say: Callable[[str], None]) -> None:
    """One line of memory and hours, and a warning where something will not fit. It never stops or delays a run.

    The estimate is made in a thread of its own, without a network, and is waited for `MAX_WAIT_S` seconds.
    """
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.extend(in_short(config)), daemon=True, name="plan")
    thread.start()
    thread.join(MAX_WAIT_S)
    for line in lines if not thread.is_alive() else ["plan: no estimate, it took too long; see `east-ray plan`"]:
        say(line)


def in_short(config: Config) -> list[str]:
    """The lines that a run begins with. What is not known is said to be so."""
    try:
        plan = estimate(config, may_download=False)
        suggested = remedies(config, plan)
    except InputError as error:
        return [f"plan: no estimate ({error})"]
    except Exception as error:  # an estimate must not end a run; whoever asks for it with `east-ray plan` sees it fail
        return [f"plan: no estimate, `east-ray plan` would fail ({type(error).__name__}: {error})"]
    parts, lines = list(_short_parts(plan)), []
    if parts:
        lines.append("plan: " + "; ".join(parts))
    too_large = []
    if plan.worker is not None and plan.worker.fits is False:
        too_large.append("a training worker")
    if plan.engine is not None and not plan.engine.fits:
        too_large.append("an engine")
    if too_large:
        better = f"; it fits with {suggested[0]}" if suggested else ""
        lines.append(f"warning: {' and '.join(too_large)} will probably not fit{better}; see `east-ray plan`")
    return lines


def _short_parts(plan: Plan) -> Iterator[str]:
    if plan.worker is not None:
        have = "" if plan.worker.available is None else f" of {_gib(plan.worker.available)}"
        yield f"a training worker needs up to {_gib(plan.worker.at_most.peak)}{have} GiB"
    if plan.engine is not None and plan.engine.fits:
        yield f"an engine has {plan.engine.at_once:,} responses in flight"
    if plan.seconds is not None:
        yield f"about {_time(plan.seconds)} in all"
    else:
        unknown = ", ".join(stage.name for stage in plan.stages if stage.seconds is None)
        yield f"time not known ({unknown})"
