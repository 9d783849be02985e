"""A global step's micro-batches by tokens: complete, bounded, as few as can be, and balanced over the workers."""

import random
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from east_ray.config import InputError, TrainingConfig
from east_ray.config.base import validated
from east_ray.training.batches import Cost, Row, cost_of, division, items, shortest
from east_ray.training.dealing import Deal, Item, Room, deal, fewest, step_time

COST = Cost(head=0.25, attention=0.01)
both = pytest.mark.parametrize("lockstep", [False, True])
#: (tokens of each sequence) of the examples of a step; an example has one or two sequences.
lengths = st.integers(1, 2).flatmap(
    lambda num: st.lists(st.tuples(*[st.integers(1, 60)] * num), min_size=1, max_size=40)
)
workers, rooms = st.integers(1, 7), st.builds(Room, st.integers(1, 90), st.booleans())


def of_lengths(lengths: list[tuple[int, ...]]) -> list[Item]:
    return [Item(number, each, sum(COST(0, one) for one in each)) for number, each in enumerate(lengths)]


def positions(batch: list[Item], room: Room) -> int:
    every = [length for item in batch for length in item.lengths]
    return len(every) * max(every) if room.padded else sum(every)


def shape(dealt: Deal) -> list[list[list[tuple[int, ...]]]]:
    return [[[item.lengths for item in batch] for batch in worker] for worker in dealt]


@both
@given(lengths, workers, rooms)
def test_every_example_is_in_one_micro_batch_with_room_for_it(
    lockstep: bool, lengths: list[tuple[int, ...]], workers: int, room: Room
) -> None:
    dealt = deal(of_lengths(lengths), workers, room, lockstep=lockstep)
    assert len(dealt) == workers and len({len(worker) for worker in dealt}) == 1
    batches = [batch for worker in dealt for batch in worker]
    assert sorted(item.number for batch in batches for item in batch) == list(range(len(lengths)))
    assert all(len(batch) <= 1 or positions(batch, room) <= room.num_tokens for batch in batches)
    # An empty micro-batch costs as much as the shortest example, so none is empty while another holds two.
    empty = sum(not batch for batch in batches)
    assert not empty or all(len(batch) <= 1 for batch in batches)


@both
@given(lengths, workers, rooms, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_changes_nothing(
    lockstep: bool, lengths: list[tuple[int, ...]], workers: int, room: Room, rng: random.Random
) -> None:
    once = shape(deal(of_lengths(lengths), workers, room, lockstep=lockstep))
    rng.shuffle(lengths)
    assert shape(deal(of_lengths(lengths), workers, room, lockstep=lockstep)) == once


@given(st.lists(st.tuples(st.integers(1, 60)), min_size=1, max_size=40), workers, st.integers(60, 300))
def test_there_are_hardly_more_micro_batches_than_there_must_be(
    lengths: list[tuple[int, ...]], workers: int, bound: int
) -> None:
    """First fit decreasing needs at most 11/9 of the fewest and one; a worker with many short examples another."""
    examples, room = of_lengths(lengths), Room(bound)
    (num,) = {len(worker) for worker in deal(examples, workers, room, lockstep=False)}
    least = fewest(examples, workers, room)
    assert least <= num
    # Balance may ask for more, where one example takes as long as all that some other worker has.
    if 4 * max(item.cost for item in examples) <= sum(item.cost for item in examples) / workers:
        assert num <= 11 / 9 * least + 2


@given(lengths, workers, rooms)
def test_no_worker_is_busier_than_the_mean_and_the_costliest_example(
    lengths: list[tuple[int, ...]], workers: int, room: Room
) -> None:
    """The bound of longest processing time first, and what empty micro-batches compute in vain."""
    examples = of_lengths(lengths)
    costs = [item.cost for item in examples]
    dealt = deal(examples, workers, room, lockstep=False)
    time = step_time(dealt, lockstep=False)
    assert max(*costs, sum(costs) / workers) <= time * (1 + 1e-9)
    assert time <= 1.01 * (sum(costs) / workers + max(costs)) + min(costs) * len(dealt[0])


@given(lengths, workers, rooms)
def test_in_lockstep_a_step_is_no_slower_than_with_one_example_at_a_time_in_order_of_cost(
    lengths: list[tuple[int, ...]], workers: int, room: Room
) -> None:
    examples = of_lengths(lengths)
    dealt = deal(examples, workers, room, lockstep=True)
    costs = sorted((item.cost for item in examples), reverse=True)
    assert step_time(dealt, lockstep=True) <= 1.01 * sum(costs[::workers])
    assert step_time(dealt, lockstep=False) <= step_time(dealt, lockstep=True) * (1 + 1e-9)


def test_one_long_example_leaves_the_others_to_the_other_workers() -> None:
    """Lengths alone: one worker computes the 900 tokens, the other all the rest in three micro-batches."""
    cost = Cost()
    examples = [Item(0, (900,), cost(0, 900)), *(Item(number, (300,), cost(0, 300)) for number in range(1, 4))]
    dealt = deal(examples, 2, Room(300), lockstep=False)
    # Two passes in vain over the 300 tokens would take longer than one over those of another example.
    assert shape(dealt) == [[[(900,)], [(300,)]], [[(300,)], [(300,)]]]


@pytest.mark.parametrize(("median", "spread", "tokens"), [(5.0, 0.5, 4096), (8.3, 1.0, 65_536)])
def test_eight_workers_are_loaded_evenly(median: float, spread: float, tokens: int) -> None:
    """Short examples, and a heavy tail: a quarter of the examples has more than 8,000 tokens."""
    rng, cost = random.Random(0), Cost(head=0.27, attention=3.4e-5)
    step = [row(100, chosen=min(int(rng.lognormvariate(median, spread)) + 1, 65_000)) for _ in range(256)]
    dealt = deal(items(step, ["chosen"], cost), 8, Room(tokens), lockstep=False)
    mean = sum(item.cost for worker in dealt for batch in worker for item in batch) / 8
    assert step_time(dealt, lockstep=False) <= 1.02 * mean
    assert len(dealt[0]) <= fewest(items(step, ["chosen"], cost), 8, Room(tokens)) + 1


def test_in_lockstep_long_examples_are_computed_at_the_same_time() -> None:
    long, short = [(800,), (790,), (780,), (770,)], [(10,)] * 400
    dealt = deal(of_lengths([*long, *short]), 4, Room(1000), lockstep=True)
    first = [batch[0].lengths for batch, *_ in dealt]
    assert sorted(first) == sorted(long)
    costs = [[sum(item.cost for item in batch) for batch in worker] for worker in dealt]
    for together in zip(*costs, strict=True):
        assert max(together) <= 1.05 * sum(together) / 4


def row(prompt: int, **responses: int) -> Row:
    return {"prompt": [0] * prompt, **{name: [1] * length for name, length in responses.items()}}


def test_the_tokens_of_an_example_are_those_of_every_sequence_that_is_computed() -> None:
    step = [row(10, chosen=5, rejected=7), row(3, chosen=9, rejected=1)]
    (first, second) = items(step, ["chosen", "rejected"], COST)
    assert first.lengths == (15, 17) and second.lengths == (12, 4)
    assert first.cost == pytest.approx(15 + 17 + 0.25 * 12 + 0.01 * (225 + 289))
    assert shortest(step, ["chosen"]) is step[1] and shortest(step, ["rejected"]) is step[1]


SIZES: dict[str, Any] = {
    "vocab_size": 1000, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
#: Of a layer: queries and output 32 x 64, keys and values 32 x 32, three matrices of the MLP 32 x 64, two norms.
IN_LAYERS = 4 * (2 * 32 * 64 + 2 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32


@pytest.mark.parametrize("tied", [False, True])
def test_the_cost_of_tokens_follows_from_the_sizes_of_the_model(tied: bool) -> None:
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=tied))
    cost = cost_of(model)
    assert cost == Cost(head=32 * 1000 / IN_LAYERS, attention=4 * 64 / IN_LAYERS)
    # Operations forward, in those of a token in the layers: 2 P n + 2 D V r + 4 layers x 2 x 64 x n^2.
    assert cost(20, 30) == pytest.approx((2 * IN_LAYERS * 50 + 2 * 32_000 * 30 + 512 * 2500) / (2 * IN_LAYERS))


def test_a_sliding_window_bounds_the_cost_of_attention() -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    with torch.device("meta"):
        config = transformers.Qwen3Config(**SIZES, use_sliding_window=True, sliding_window=8, layer_types=kinds)
        cost = cost_of(transformers.Qwen3ForCausalLM(config))
        all_windowed = cost_of(transformers.MistralForCausalLM(transformers.MistralConfig(**SIZES, sliding_window=8)))
    assert cost.attention == cost.windowed > 0 and cost.window == 8
    assert all_windowed.attention == 0 and all_windowed.windowed > 0

    def pairs(n: int, window: int) -> float:
        return sum(min(i, window) for i in range(1, n + 1))

    only = Cost(windowed=0.5, window=8)  # pairs of tokens counted, to half a token's own
    assert only(0, 100) - 100 == pytest.approx(pairs(100, 8) - 8 / 2, rel=0.01)


def settings(**changes: Any) -> TrainingConfig:
    return validated(TrainingConfig, {"deepspeed": {"zero_stage": 0}} | changes)


def test_what_a_micro_batch_holds_is_given_by_number_or_by_tokens() -> None:
    with pytest.raises(InputError, match=r"^micro_batch_size 4 and tokens_per_micro_batch 512 are both given; set one"):
        settings(micro_batch_size=4, tokens_per_micro_batch=512)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    step = [row(2, chosen=length) for length in (3, 8, 2, 9, 4, 4, 1)]

    def sizes(**changes: Any) -> list[list[int]]:
        divide, _ = division(settings(**changes), model, 0, 1)
        return [[len(one["prompt"]) + len(one["chosen"]) for one in batch] for batch in divide(step, ["chosen"])]

    assert sizes() == sizes(micro_batch_size=4) == [[11, 10, 6, 6], [5, 4, 3]]
    assert sizes(tokens_per_micro_batch=15) == [[11, 4], [10, 5], [6, 6, 3]]
    assert sizes(tokens_per_micro_batch=15, packing=False) == [[6, 6], [11], [5, 4, 3], [10]]
    assert division(settings(), model, 0, 3)[1] == 12, "a pass without steps fills a micro-batch of each worker"
