r"""How evenly micro-batches by tokens load eight workers: ``python tests/benchmarks/balance.py``. A simulation.

Steps of GSM8K's lengths (four characters per token; random ones of its spread if ``../shared/data/gsm8k`` is missing)
and of responses with a log-normal length as those of reasoning models: median 4,024 tokens, a quarter above 8,000, cut
at 65,536. Time is `east_ray.training.batches.Cost` of a model with 1.2 billion parameters. Beside it stands the other
way, `training.micro_batch_size`, which deals in order of length.

    slowest over mean     sum over the steps of the slowest worker's time, over that of the mean worker's: what ZeRO 0
                          and 1 wait for, at the end of a step
    lockstep over mean    the same where workers wait for each other after each micro-batch, as with ZeRO 2 and 3
    micro-batches         of a worker in a step

The last line is a JSON object. `slowest_over_mean` is the worse of the two distributions.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from east_ray.training.batches import Cost, cost_of, items, micro_batches
from east_ray.training.dealing import Deal, Room, deal, step_time

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
BILLION = {"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True}  # fmt: skip
NUM_WORKERS = 8
Row = dict[str, Any]


class Case(NamedTuple):
    """Lengths of (prompt, response), and the settings of a training on them."""

    lengths: Sequence[tuple[int, int]]
    examples_per_step: int
    tokens_per_micro_batch: int
    micro_batch_size: int


class Balance(NamedTuple):
    """What the docstring of this module says, of all steps together."""

    slowest_over_mean: float
    lockstep_over_mean: float
    micro_batches: float


def cases(seed: int = 0) -> dict[str, Case]:
    """The two distributions of lengths, in a random order."""
    rng = random.Random(seed)
    if DATA.exists():
        texts = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
        short = [(len(one["question"]) // 4 + 1, len(one["answer"]) // 4 + 1) for one in texts]
    else:
        short = [(int(rng.lognormvariate(3.9, 0.4)) + 1, int(rng.lognormvariate(4.1, 0.5)) + 1) for _ in range(7473)]
    rng.shuffle(short)
    long = [(100, min(int(rng.lognormvariate(8.3, 1.0)) + 1, 65_536 - 100)) for _ in range(8192)]
    return {"GSM8K": Case(short, 128, 4096, 4), "log-normal": Case(long, 256, 65_536, 1)}


def model_cost() -> Cost:
    """Of the model of tests/benchmarks/training.py on a GPU."""
    with torch.device("meta"):
        return cost_of(LlamaForCausalLM(LlamaConfig(**BILLION)))


def simulate(case: Case, cost: Cost, *, by_number: bool = False) -> Balance:
    """Deal all whole steps of a case to the workers, and add up what they would take."""
    slowest = lockstep = mean = num = 0.0
    for begin in range(0, len(case.lengths) - case.examples_per_step + 1, case.examples_per_step):
        here = case.lengths[begin : begin + case.examples_per_step]
        step: list[Row] = [{"prompt": range(prompt), "chosen": range(response)} for prompt, response in here]
        mean += sum(item.cost for item in items(step, ["chosen"], cost)) / NUM_WORKERS
        at_the_end, at_each = (dealt(step, case, cost, by_number, lockstep=each) for each in (False, True))
        slowest += step_time(at_the_end, lockstep=False)
        lockstep += step_time(at_each, lockstep=True)
        num += len(at_the_end[0])
    return Balance(slowest / mean, lockstep / mean, num / (len(case.lengths) // case.examples_per_step))


def dealt(step: list[Row], case: Case, cost: Cost, by_number: bool, *, lockstep: bool) -> Deal:
    """The micro-batches of all workers."""
    if not by_number:
        return deal(items(step, ["chosen"], cost), NUM_WORKERS, Room(case.tokens_per_micro_batch), lockstep=lockstep)
    ranks = [micro_batches(step, rank, NUM_WORKERS, case.micro_batch_size) for rank in range(NUM_WORKERS)]
    return [[items(batch, ["chosen"], cost) for batch in own] for own in ranks]


def slowest_over_mean() -> dict[str, float]:
    """The time of the slowest of eight workers over the mean, of the worse distribution; with ZeRO 2 and 3 too."""
    found = [simulate(case, cost) for cost in [model_cost()] for case in cases().values()]
    return {
        "slowest_over_mean": max(one.slowest_over_mean for one in found),
        "slowest_over_mean_in_lockstep": max(one.lockstep_over_mean for one in found),
    }


def main() -> None:
    cost, table = model_cost(), Table(title=f"{NUM_WORKERS} workers, model of 1.2B parameters", title_justify="left")
    for column in ("lengths", "micro-batches of", "slowest over mean", "lockstep over mean", "micro-batches"):
        table.add_column(column, justify="left" if column == "lengths" else "right")
    for name, case in cases().items():
        for by_number in (False, True):
            found = simulate(case, cost, by_number=by_number)
            unit = f"{case.micro_batch_size} examples" if by_number else f"{case.tokens_per_micro_batch:,} tokens"
            of = f"{name}, {case.examples_per_step} a step"
            table.add_row(of, unit, *(f"{value:.3f}" for value in found[:2]), f"{found.micro_batches:.1f}")
    Console(width=120).print(table)
    print(json.dumps(slowest_over_mean()))


if __name__ == "__main__":
    main()
