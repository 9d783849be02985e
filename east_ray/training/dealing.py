"""Items of some lengths and costs -> micro-batches of bounded length for every worker, balanced. Pure functions.

Workers wait for each other at the end of a step, and with ZeRO 2 and 3 after every micro-batch too (`lockstep`), since
they then exchange gradients or parameters in each. So there are two ways to deal: by worker, which balances the sums of
the workers, and by round, which balances the micro-batches that are computed at the same time. Both go through the
items in order of cost, the greatest first, and give each to the least busy that has room for it (longest processing
time first), there to the first micro-batch with room (first fit decreasing).
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: The step may take this much longer than necessary where that saves a micro-batch, which has a price of its own.
_SLACK = 1.01
#: By round: the costs of micro-batches that are tried, in those of a step in `k` equal rounds: k from the fewest that
#: can be to twice that, and a little more than k-th of the step, since items do not divide evenly.
_NUMS_OF_ROUNDS, _MARGINS = (1.0, 1.125, 1.25, 1.5, 2.0), (1.005, 1.03)


class Item(NamedTuple):
    """An example to deal: its place in the step, the tokens of its sequences, and the time that it takes."""

    number: int
    lengths: tuple[int, ...]
    cost: float


@dataclass(frozen=True)
class Room:
    """What a micro-batch holds: so many tokens, with those of the padding to the longest sequence if it is padded."""

    num_tokens: int
    padded: bool = False


@dataclass
class _MicroBatch:
    items: list[Item] = field(default_factory=list)
    cost: float = 0.0
    _lengths: tuple[int, int, int] = (0, 0, 0)  # number of sequences, their tokens, the longest

    def add(self, item: Item, room: Room) -> bool:
        """Take the item if there is room for it, or nothing else in here; returns whether it did."""
        num, total, longest = self._lengths
        num, total, longest = num + len(item.lengths), total + sum(item.lengths), max(longest, *item.lengths)
        if self.items and (num * longest if room.padded else total) > room.num_tokens:
            return False
        self.items.append(item)
        self.cost, self._lengths = self.cost + item.cost, (num, total, longest)
        return True


Deal = list[list[list[Item]]]
"""Worker -> its micro-batches, the same number on each -> items. Micro-batches are empty if there are too few items."""


def deal(items: Sequence[Item], world_size: int, room: Room, *, lockstep: bool) -> Deal:
    """The items in micro-batches with room for them; an item that is too long for any has one for itself.

    Several numbers of micro-batches are tried. The result is the one with the fewest whose step is hardly slower than
    the fastest. It is the same on all workers, and with equal items in another order.
    """
    items = sorted(items, key=lambda item: (-item.cost, [-length for length in item.lengths], item.number))
    found = _by_round(items, world_size, room) if lockstep else _by_worker(items, world_size, room)
    timed = [(step_time(one, lockstep=lockstep), one) for one in found]
    enough = _SLACK * min(time for time, _ in timed)
    return min((one for time, one in timed if time <= enough), key=lambda one: len(one[0]))


def step_time(dealt: Deal, *, lockstep: bool) -> float:
    """The cost of the slowest worker, or in lockstep the sum of the costliest micro-batches of each round.

    In place of an empty micro-batch the cheapest item is computed in vain.
    """
    cheapest = min(item.cost for worker in dealt for batch in worker for item in batch)
    costs = [[sum(item.cost for item in batch) or cheapest for batch in worker] for worker in dealt]
    return sum(map(max, zip(*costs, strict=True))) if lockstep else max(map(sum, costs))


def fewest(items: Sequence[Item], world_size: int, room: Room) -> int:
    """A lower bound of the number of micro-batches on each worker."""
    sizes = [sum(item.lengths) for item in items]
    fitting = [size for size in sizes if size <= room.num_tokens]
    return math.ceil((len(sizes) - len(fitting) + math.ceil(sum(fitting) / room.num_tokens)) / world_size)


# ------------------------------------------------------------------------------------------------------------ by worker


def _by_worker(items: Sequence[Item], world_size: int, room: Room) -> Iterator[Deal]:
    """Deals that balance the workers' sums, from the fewest micro-batches to as many as balance alone leads to."""
    free = _to_workers(items, world_size, room, len(items))
    assert free is not None, "as many micro-batches as items are always enough"
    for num in range(fewest(items, world_size, room), max(map(len, free)) + 1):
        if (workers := _to_workers(items, world_size, room, num)) is not None:
            yield [_divided(batches, num) for batches in workers]


def _to_workers(items: Sequence[Item], world_size: int, room: Room, num: int) -> list[list[_MicroBatch]] | None:
    """At most `num` micro-batches for each worker; None if the items do not fit into them.

    Every worker gets at least `num` items where there are that many, so that it has no empty micro-batch.
    """
    workers: list[list[_MicroBatch]] = [[] for _ in range(world_size)]
    waiting = [(0.0, 0, rank) for rank in range(world_size)]  # a heap of cost, number of items and rank
    lacking = num * world_size
    for left, item in zip(range(len(items), 0, -1), items, strict=True):
        passed = []
        while waiting:
            cost, num_items, rank = heapq.heappop(waiting)
            if (left > lacking or num_items < num) and _put(item, workers[rank], num, room):
                break
            passed.append((cost, num_items, rank))
        else:
            return None
        lacking -= num_items < num
        for one in [*passed, (cost + item.cost, num_items + 1, rank)]:
            heapq.heappush(waiting, one)
    return workers


def _put(item: Item, batches: list[_MicroBatch], num: int, room: Room) -> bool:
    """Put the item into the first micro-batch with room, or into a new one if there are less than `num`."""
    if any(batch.add(item, room) for batch in batches):
        return True
    if len(batches) == num:
        return False
    batches.append(_MicroBatch())
    return batches[-1].add(item, room)


def _divided(batches: Sequence[_MicroBatch], num: int) -> list[list[Item]]:
    """So many micro-batches, the costliest first: the costliest are halved while there are too few."""

    def cost(one: list[Item]) -> float:
        return sum(item.cost for item in one)

    lists = [batch.items for batch in batches]
    while len(lists) < num and any(len(one) > 1 for one in lists):
        largest = max((one for one in lists if len(one) > 1), key=cost)
        lists.remove(largest)
        lists += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    return sorted(lists, key=cost, reverse=True) + [[] for _ in range(num - len(lists))]


# ------------------------------------------------------------------------------------------------------------- by round


def _by_round(items: Sequence[Item], world_size: int, room: Room) -> Iterator[Deal]:
    """Deals whose micro-batches of each round cost about the same, for several costs."""
    share, least = sum(item.cost for item in items) / world_size, fewest(items, world_size, room)
    for num in sorted({math.ceil(least * factor) for factor in (*_NUMS_OF_ROUNDS, 1 + 1 / least)}):
        for margin in _MARGINS:
            rounds = _to_rounds(items, world_size, room, margin * share / num)
            _fill_empty(rounds)
            yield _to_ranks(rounds)


def _to_rounds(items: Sequence[Item], world_size: int, room: Room, limit: float) -> list[list[_MicroBatch]]:
    """Rounds of a micro-batch for each worker, each of at most that cost, or that of the costliest item in the round.

    What fits nowhere opens a new round.
    """
    rounds: list[
        tuple[float, list[tuple[float, int]], list[_MicroBatch]]
    ] = []  # limit, heap of cost and place, batches
    for item in items:
        if not any(_put_into_round(item, one, room) for one in rounds):
            heap = [(0.0, place) for place in range(world_size)]
            rounds.append((max(limit, item.cost), heap, [_MicroBatch() for _ in range(world_size)]))
            assert _put_into_round(item, rounds[-1], room)
    return [batches for _, _, batches in rounds]


def _put_into_round(item: Item, one: tuple[float, list[tuple[float, int]], list[_MicroBatch]], room: Room) -> bool:
    """Put the item into the cheapest micro-batch of a round that has room for it."""
    limit, heap, batches = one
    passed, is_put = [], False
    while heap and not is_put and heap[0][0] + item.cost <= limit:
        _, place = heapq.heappop(heap)
        is_put = batches[place].add(item, room)
        passed.append((batches[place].cost, place))
    for entry in passed:
        heapq.heappush(heap, entry)
    return is_put


def _fill_empty(rounds: list[list[_MicroBatch]]) -> None:
    """Move the cheapest items that have neighbours into empty micro-batches, where something would run in vain."""
    batches = [batch for one in rounds for batch in one]
    for empty in [batch for batch in batches if not batch.items]:
        if not (shared := [batch for batch in batches if len(batch.items) > 1]):
            return
        giver = min(shared, key=lambda batch: batch.items[-1].cost)
        empty.items.append(item := giver.items.pop())
        empty.cost, giver.cost = item.cost, giver.cost - item.cost


def _to_ranks(rounds: Sequence[Sequence[_MicroBatch]]) -> Deal:
    """Worker -> its micro-batches: of each round the costliest goes to the worker with the least so far."""
    dealt: Deal = [[] for _ in rounds[0]]
    sums = [0.0] * len(dealt)
    for one in sorted(rounds, key=lambda batches: max(batch.cost for batch in batches), reverse=True):
        ranks = sorted(range(len(dealt)), key=lambda rank: (sums[rank], rank))
        for rank, batch in zip(ranks, sorted(one, key=lambda batch: batch.cost, reverse=True), strict=True):
            dealt[rank].append(batch.items)
            sums[rank] += batch.cost
    return dealt
