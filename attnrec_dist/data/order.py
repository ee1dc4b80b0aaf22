"""Which samples make up global batch `step`, and which rank computes which of them: pure arithmetic on integers.

Nothing here reads data, keeps state or knows a device, so any position is reached in O(1) and every rank agrees with
every other without a word. docs/order.md holds test vectors.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
from dataclasses import dataclass

import numpy as np

from attnrec_dist.batch import PADDING

ROUNDS = 8
SLOTS_AT_ONCE = 4096  # places of the epoch that are looked up together
QUADRATIC_LENGTH = 512  # a row of this length pays as much for attention as for everything pointwise


@dataclass(frozen=True)
class Order:
    """The order of a run: frozen at its start, equal on every rank. `window_blocks` None mixes the whole epoch."""

    fingerprint: str
    seed: int
    samples: int
    global_batch: int
    block_size: int = 1024
    window_blocks: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples // self.global_batch)


def samples(order: Order, step: int) -> np.ndarray:
    """Sample ids of global batch `step`, int64 [G], the same on every rank; PADDING (-1) fills the epoch's last step."""
    epoch, batch = divmod(step, order.steps_per_epoch)
    run, place = divmod(batch, _batches_at_once(order))
    return _run_of_batches(order, epoch, run)[place].copy()


def _batches_at_once(order: Order) -> int:
    return max(1, SLOTS_AT_ONCE // order.global_batch)


@functools.lru_cache(maxsize=4)
def _run_of_batches(order: Order, epoch: int, run: int) -> np.ndarray:
    """Global batches that follow one another, int64 [n, G]: a few numbers cost numpy as much as thousands."""
    batches = _batches_at_once(order)
    slot = run * batches * order.global_batch + np.arange(batches * order.global_batch)  # place in the epoch
    ids = np.full(len(slot), PADDING, np.int64)
    real = slot < order.samples
    ids[real] = shuffled(order, epoch, slot[real])
    return ids.reshape(batches, order.global_batch)


def shuffled(order: Order, epoch: int, slots: np.ndarray) -> np.ndarray:
    """The samples at these places of the epoch: blocks are permuted, then samples within each window of blocks. int64 [n]."""
    blocks = -(-order.samples // order.block_size)
    window = order.window_blocks or blocks
    if window >= blocks:
        return permute(slots, order.samples, _key(order, epoch, "samples"))
    places = _BlockPlaces(order.samples, order.block_size, blocks, _key(order, epoch, "blocks"))
    result = np.empty(len(slots), np.int64)
    window_of = places.block_at(slots) // window
    for index in np.unique(window_of):  # one or two a batch
        here = window_of == index
        first = places.start(index * window)
        size = places.start(min((index + 1) * window, blocks)) - first
        moved = first + permute(slots[here] - first, size, _key(order, epoch, f"window {index}"))
        place = places.block_at(moved)
        block = permute(place, blocks, places.key)
        result[here] = block * order.block_size + (moved - places.start(place))
    return result


def slots_of(order: Order, epoch: int, ids: np.ndarray) -> np.ndarray:
    """The places of these samples in the epoch, int64 [n]: the inverse of `shuffled`. Sample s comes in batch place // G."""
    blocks = -(-order.samples // order.block_size)
    window = order.window_blocks or blocks
    if window >= blocks:
        return unpermute(ids, order.samples, _key(order, epoch, "samples"))
    places = _BlockPlaces(order.samples, order.block_size, blocks, _key(order, epoch, "blocks"))
    place = unpermute(ids // order.block_size, blocks, places.key)
    moved = places.start(place) + ids % order.block_size
    result = np.empty(len(ids), np.int64)
    for index in np.unique(place // window):
        here = place // window == index
        first = places.start(index * window)
        size = places.start(min((index + 1) * window, blocks)) - first
        result[here] = first + unpermute(moved[here] - first, size, _key(order, epoch, f"window {index}"))
    return result


class _BlockPlaces:
    """Where each block begins once blocks are permuted; only the last block may be shorter than the others."""

    def __init__(self, samples: int, block_size: int, blocks: int, key: np.ndarray):
        self.key = key
        self.block_size = block_size
        self.missing = blocks * block_size - samples  # by so much is the last block shorter
        self.short_place = int(unpermute(np.array([blocks - 1]), blocks, key)[0])

    def start(self, place: np.ndarray | int) -> np.ndarray:
        return np.asarray(place) * self.block_size - self.missing * (np.asarray(place) > self.short_place)

    def block_at(self, slots: np.ndarray) -> np.ndarray:
        after = slots >= self.start(self.short_place) + self.block_size - self.missing
        return (slots + self.missing * after) // self.block_size


def _key(order: Order, epoch: int, purpose: str) -> np.ndarray:
    return derive_key(order.fingerprint, order.seed, epoch, purpose)


def derive_key(*parts: object) -> np.ndarray:
    """uint64 [ROUNDS] from a hash of all parts: sums of seed and epoch would collide, a hash does not."""
    text = "\x1f".join(str(part) for part in parts)
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8 * ROUNDS).digest(), dtype="<u8")


def permute(values: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """A keyed bijection of [0, size) onto itself, applied elementwise. int64 [n] -> int64 [n], no memory beyond it.

    A balanced Feistel network (Luby and Rackoff 1988) whose round function is splitmix64's finaliser: all bits of one half
    and of the key reach all bits of the other. Values that fall outside [0, size) walk on until they are inside.
    """
    return _walk(values, size, key)


def unpermute(values: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """The inverse of `permute`."""
    return _walk(values, size, key, inverse=True)


def _walk(values: np.ndarray, size: int, key: np.ndarray, inverse: bool = False) -> np.ndarray:
    half = np.uint64(max(1, -(-int(size - 1).bit_length() // 2)))
    cipher = _feistel_inverse if inverse else _feistel
    result = cipher(values.astype(np.uint64), half, key)
    outside = np.flatnonzero(result >= size)
    while len(outside):
        result[outside] = cipher(result[outside], half, key)
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def _feistel(values: np.ndarray, half: np.uint64, key: np.ndarray) -> np.ndarray:
    left, right = values >> half, values & _ones(half)
    for round_key in key:
        left, right = right, left ^ _mix(right, round_key, half)
    return (left << half) | right


def _feistel_inverse(values: np.ndarray, half: np.uint64, key: np.ndarray) -> np.ndarray:
    left, right = values >> half, values & _ones(half)
    for round_key in key[::-1]:
        left, right = right ^ _mix(left, round_key, half), left
    return (left << half) | right


def _ones(bits: np.uint64) -> np.uint64:
    return (np.uint64(1) << bits) - np.uint64(1)


def _mix(values: np.ndarray, key: np.uint64, half: np.uint64) -> np.ndarray:
    return mix(values + key) >> (np.uint64(64) - half)


def mix(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser, a bijection of uint64 in which every bit reaches every other; ops/draws.py has it for tensors."""
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)  # wraps round, which is what we want
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def cost(lengths: np.ndarray) -> np.ndarray:
    """What a row of this many tokens costs, in tokens of a short row; attention's quadratic part counted. int64 [n]."""
    lengths = np.asarray(lengths, np.int64)
    return lengths + lengths * lengths // QUADRATIC_LENGTH


def split(lengths: np.ndarray, world: int, budget: int) -> list[list[np.ndarray]]:
    """Deals one global batch to ranks: result[rank][micro-batch] = places in the batch, ascending. G >= world is required.

    Every rank gets equally many micro-batches, none is empty, and as far as single rows allow it none costs more than
    `budget`. The dearest row goes first, each to the cheapest micro-batch so far (Graham 1969).
    """
    costs = cost(lengths)
    most = len(costs) // world
    limit = max(budget, int(costs.max()))
    micro_batches = min(most, max(1, -(-int(costs.sum()) // (world * budget))))
    if world * micro_batches == 1:  # nothing to deal
        return [[np.arange(len(costs))]]
    while True:
        bins, heaviest = _deal(costs, world * micro_batches)
        if heaviest <= limit or micro_batches >= most:
            break
        micro_batches += 1
    return [[np.sort(np.array(bins[micro * world + rank])) for micro in range(micro_batches)] for rank in range(world)]


def _deal(costs: np.ndarray, bins: int) -> tuple[list[list[int]], int]:
    heap = [(0, 0, index) for index in range(bins)]  # (cost, rows, bin): an empty one always comes first
    dealt: list[list[int]] = [[] for _ in range(bins)]
    dearest_first = np.argsort(-costs, kind="stable")
    for place, own in zip(dearest_first.tolist(), costs[dearest_first].tolist()):
        load, rows, index = heap[0]
        dealt[index].append(place)
        heapq.heapreplace(heap, (load + own, rows + 1, index))
    return dealt, max(load for load, _, _ in heap)
