"""A stream of examples -> global steps -> the micro-batches of each worker, by number or by tokens.

Losses have the denominators of the global step, so its division into micro-batches decides memory and speed alone.
Every worker gets the same number of micro-batches, because a sharded engine communicates in each pass; some are empty.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from east_ray.config import TrainingConfig
from east_ray.config.sections import DEFAULT_MICRO_BATCH_SIZE
from east_ray.training.dataset import Row
from east_ray.training.dealing import Item, Room, deal

#: (examples of a step, responses that are computed) -> this worker's micro-batches.
Divide = Callable[[Sequence[Row], Sequence[str]], list[list[Row]]]
#: Most logits in a chunk of the head: 2^26 take 256 MiB in float32.
MAX_CHUNK_LOGITS = 1 << 26
#: On a GPU a chunk's logits take this share of its memory in float32, if that is more. Each chunk adds its gradient to
#: that of the whole head, so many small ones cost time.
CHUNK_SHARE_OF_GPU = 1 / 64
#: By tokens: examples for each worker that a pass without steps divides at once. Enough to fill micro-batches well.
_EXAMPLES_AT_ONCE = 64


def steps(rows: Iterable[Row], examples_per_step: int) -> Iterator[list[Row]]:
    """The global optimizer steps of a stream of TOKENIZED rows. The last step of an epoch may be smaller."""
    for _, epoch in itertools.groupby(rows, key=lambda row: row["epoch"]):
        while step := list(itertools.islice(epoch, examples_per_step)):
            yield step


def division(settings: TrainingConfig, model: Any, rank: int, world_size: int) -> tuple[Divide, int]:
    """How this worker divides a step as the settings say, and how many examples a pass without steps takes at once."""
    if (tokens := settings.tokens_per_micro_batch) is None:
        size = settings.micro_batch_size or DEFAULT_MICRO_BATCH_SIZE
        return lambda step, names: micro_batches(step, rank, world_size, size), size * world_size
    cost, room = cost_of(model), Room(tokens, padded=not settings.packing)
    lockstep = settings.deepspeed.zero_stage >= 2

    def divide(step: Sequence[Row], names: Sequence[str]) -> list[list[Row]]:
        dealt = deal(items(step, names, cost), world_size, room, lockstep=lockstep)[rank]
        return [[step[item.number] for item in batch] for batch in dealt]

    return divide, _EXAMPLES_AT_ONCE * world_size


def micro_batches(step: Sequence[Row], rank: int, world_size: int, size: int) -> list[list[Row]]:
    """The micro-batches of one worker, of at most `size` examples.

    Examples are dealt to the workers in order of length, so that each worker has about as many tokens and each
    micro-batch has rows of about the same length.
    """
    by_length = sorted(step, key=lambda row: len(row["prompt"]) + len(row["chosen"]), reverse=True)
    own = by_length[rank::world_size]
    num_batches = math.ceil(math.ceil(len(step) / world_size) / size)
    return [own[i * size : (i + 1) * size] for i in range(num_batches)]


def max_chunk_logits(gpu_memory: float | None) -> int:
    """The most logits that a head computes at once, on a GPU with so many bytes of memory or (None) on a CPU."""
    return MAX_CHUNK_LOGITS if gpu_memory is None else max(MAX_CHUNK_LOGITS, int(CHUNK_SHARE_OF_GPU * gpu_memory) // 4)


def shortest(step: Sequence[Row], names: Sequence[str]) -> Row:
    """The example with the fewest tokens in its prompt and the named responses."""
    return min(step, key=lambda row: sum(len(row["prompt"]) + len(row[name]) for name in names))


@dataclass(frozen=True)
class Cost:
    """The time of computing on a sequence; the unit is that of one token in the matrices of the layers.

        n + head * r + attention * n^2 + windowed * (n^2 if n <= window else 2 n window - window^2)

    n are the tokens, r those of the response. Forward, a token takes 2 P operations with P parameters in the layers,
    and a predicted one 2 D V in the head (D hidden size, V vocabulary): head = D V / P. Causal attention takes 2 A n^2
    in a layer: (scores, their product with the values) x (multiplication, addition) x n^2 / 2 pairs x A, the heads
    times their size. So attention = A / P times the layers that attend to everything, and windowed = A / P times those
    with a sliding window. A backward pass takes twice, recomputation once of each again, so the proportions stay.
    """

    head: float = 0.0
    attention: float = 0.0
    windowed: float = 0.0
    window: int = 0

    def __call__(self, prompt: int, response: int) -> float:
        """Of a sequence with so many tokens of prompt and response."""
        n, window = prompt + response, self.window
        near = n * n if n <= window else 2 * n * window - window * window
        return n + self.head * response + self.attention * n * n + self.windowed * near


def head_dim_of(config: Any) -> int | None:
    """The size of an attention head, from a model's transformers configuration; None if it has no such single size."""
    config = config.get_text_config()
    try:
        return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    except (AttributeError, RuntimeError):  # a model without attention; another size in each layer
        return None


def cost_of(model: Any) -> Cost:
    """The cost of sequences for a model of transformers, from its sizes; its parameters may be split over workers."""
    config, ends = model.config.get_text_config(), (model.get_input_embeddings(), model.get_output_embeddings())
    outside = {id(module.weight) for module in ends}
    sizes = [getattr(one, "ds_numel", one.numel()) for one in model.parameters() if id(one) not in outside]
    in_layers, num_layers, head_dim = max(1, sum(sizes)), config.num_hidden_layers, head_dim_of(config)
    heads = 0 if head_dim is None else config.num_attention_heads * head_dim
    window = getattr(config, "sliding_window", None) or 0
    kinds = getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"] * num_layers
    return Cost(
        head=config.hidden_size * config.vocab_size / in_layers,
        attention=kinds.count("full_attention") * heads / in_layers,
        windowed=kinds.count("sliding_attention") * heads / in_layers,
        window=window,
    )


def items(step: Sequence[Row], names: Sequence[str], cost: Cost) -> list[Item]:
    """What `deal` needs to know of examples whose prompt is computed with each of the named responses."""
    found = []
    for number, row in enumerate(step):
        lengths = [(len(row["prompt"]), len(row[name])) for name in names]
        found.append(Item(number, tuple(map(sum, lengths)), sum(cost(*one) for one in lengths)))
    return found
