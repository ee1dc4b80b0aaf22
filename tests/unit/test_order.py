"""The order of a run: bijections, mixing, every sample once, dealing; docs/order.md against a second implementation."""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from attnrec_dist.batch import PADDING
from attnrec_dist.data.order import Order, cost, derive_key, permute, samples, shuffled, slots_of, split, unpermute

DOC = Path(__file__).parents[2] / "docs" / "order.md"
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 64, 100, 255, 256, 257, 1000, 4097, 65_537]

# A second implementation, on Python's integers, from the text of docs/order.md alone.

ALL_64 = 2**64 - 1


def plain_key(*parts: object) -> list[int]:
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=64).digest()
    return [int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(8)]


def plain_mix(value: int, key: int, half: int) -> int:
    z = (value + key) & ALL_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & ALL_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & ALL_64
    return (z ^ (z >> 31)) >> (64 - half)


def plain_permute(value: int, size: int, key: list[int]) -> int:
    half = 1
    while 4**half < size:
        half += 1
    while True:
        left, right = value >> half, value % 2**half
        for word in key:
            left, right = right, left ^ plain_mix(right, word, half)
        value = left << half | right
        if value < size:
            return value


def plain_epoch(order: Order, epoch: int) -> list[int]:
    """The whole epoch as a list, built from lists: blocks laid out, windows of blocks shuffled."""
    blocks = [list(range(first, order.samples))[: order.block_size] for first in range(0, order.samples, order.block_size)]
    width = order.window_blocks or len(blocks)
    if width >= len(blocks):
        key = plain_key(order.fingerprint, order.seed, epoch, "samples")
        return [plain_permute(slot, order.samples, key) for slot in range(order.samples)]
    key = plain_key(order.fingerprint, order.seed, epoch, "blocks")
    laid_out = [blocks[plain_permute(place, len(blocks), key)] for place in range(len(blocks))]
    result = []
    for index, first in enumerate(range(0, len(blocks), width)):
        window = [sample for block in laid_out[first : first + width] for sample in block]
        key = plain_key(order.fingerprint, order.seed, epoch, f"window {index}")
        result += [window[plain_permute(slot, len(window), key)] for slot in range(len(window))]
    return result


def plain_split(lengths: list[int], world: int, budget: int) -> list[list[list[int]]]:
    costs = [length + length * length // 512 for length in lengths]
    most = len(costs) // world
    count = min(most, max(1, -(-sum(costs) // (world * budget))))
    while True:
        loads, bins = [(0, 0, index) for index in range(world * count)], [[] for _ in range(world * count)]
        for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
            load, rows, index = heapq.heappop(loads)
            bins[index].append(place)
            heapq.heappush(loads, (load + costs[place], rows + 1, index))
        if max(loads)[0] <= max(budget, *costs) or count == most:
            return [[sorted(bins[micro * world + rank]) for micro in range(count)] for rank in range(world)]
        count += 1


# The vectors


def vectors() -> dict[str, list[dict]]:
    blocks = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)]
    return {name: cases for block in blocks for name, cases in block.items()}


def test_the_document_has_vectors_of_every_function():
    assert {name: len(cases) > 1 for name, cases in vectors().items()} == {
        "derive_key": True,
        "permute": True,
        "samples": True,
        "split": True,
    }


@pytest.mark.parametrize("case", vectors()["derive_key"], ids=lambda case: str(case["parts"]))
def test_vectors_of_derive_key(case):
    expected = [int(word, 16) for word in case["key"]]
    assert derive_key(*case["parts"]).tolist() == expected
    assert plain_key(*case["parts"]) == expected


@pytest.mark.parametrize("case", vectors()["permute"], ids=lambda case: str(case["size"]))
def test_vectors_of_permute(case):
    values = np.array(case["values"])
    key = derive_key(*case["key_parts"])
    assert permute(values, case["size"], key).tolist() == case["result"]
    assert [plain_permute(value, case["size"], plain_key(*case["key_parts"])) for value in case["values"]] == case["result"]
    assert unpermute(np.array(case["result"]), case["size"], key).tolist() == case["values"]


@pytest.mark.parametrize("case", vectors()["samples"], ids=lambda case: f"step {case['step']} of {case['order']['samples']}")
def test_vectors_of_samples(case):
    order, step = Order(**case["order"]), case["step"]
    assert samples(order, step).tolist() == case["result"]
    epoch, batch = divmod(step, order.steps_per_epoch)
    slots = plain_epoch(order, epoch)[batch * order.global_batch :][: order.global_batch]
    assert slots + [PADDING] * (order.global_batch - len(slots)) == case["result"]


@pytest.mark.parametrize("case", vectors()["split"], ids=lambda case: f"{case['world']} ranks, budget {case['budget']}")
def test_vectors_of_split(case):
    dealt = split(np.array(case["lengths"]), case["world"], case["budget"])
    assert [[micro.tolist() for micro in rank] for rank in dealt] == case["result"]
    assert plain_split(case["lengths"], case["world"], case["budget"]) == case["result"]


# permute


@pytest.mark.parametrize("size", SIZES)
def test_permute_is_a_bijection_and_unpermute_its_inverse(size):
    key = derive_key("test", size)
    values = np.arange(size)
    image = permute(values, size, key)
    assert image.dtype == np.int64
    assert np.array_equal(np.sort(image), values)
    assert np.array_equal(unpermute(image, size, key), values)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 2**50), st.integers(0, 2**63), st.data())
def test_permute_agrees_with_plain_integers_at_any_size(size, seed, data):
    values = data.draw(st.lists(st.integers(0, size - 1), max_size=5))
    key = derive_key("test", seed)
    image = permute(np.array(values, np.int64), size, key)
    assert image.tolist() == [plain_permute(value, size, plain_key("test", seed)) for value in values]
    assert unpermute(image, size, key).tolist() == values


@pytest.mark.parametrize("size", [2**16, 100_003, 2**20])
def test_neighbours_lose_their_parity_and_every_other_bit(size):
    """An affine round keeps the lowest bit's difference between neighbours 99.9% of the time; chance keeps half."""
    image = permute(np.arange(size), size, derive_key("mixing", size))
    spread = 5 * 0.5 / np.sqrt(size)
    for distance in (1, 2, 3, 64):
        flipped = image[distance:] ^ image[:-distance]
        for bit in range(int(size - 1).bit_length() - 1):
            ones = np.mean(image >> bit & 1)
            chance = 2 * ones * (1 - ones)  # where size is no power of two the high bits are not balanced
            assert abs(np.mean(flipped >> bit & 1) - chance) < 2 * spread, (distance, bit)


@pytest.mark.parametrize("size", [2**16, 100_003])
def test_places_and_images_are_uncorrelated(size):
    image = permute(np.arange(size), size, derive_key("correlation", size))
    for other in (np.arange(size), np.roll(image, 1), permute(np.arange(size), size, derive_key("correlation", size, "other"))):
        assert abs(np.corrcoef(image, other)[0, 1]) < 5 / np.sqrt(size)


def test_every_bit_of_a_value_reaches_every_bit_of_its_image():
    bits, tries = 20, 4096
    size, key = 1 << bits, derive_key("avalanche")
    values = np.random.default_rng(0).integers(0, size, tries)
    image = permute(values, size, key)
    for bit in range(bits):
        flipped = image ^ permute(values ^ (1 << bit), size, key)
        shares = [np.mean(flipped >> out & 1) for out in range(bits)]
        assert np.abs(np.array(shares) - 0.5).max() < 5 * 0.5 / np.sqrt(tries), bit


def test_every_bit_of_the_key_matters():
    size = 2**20
    values, key = np.arange(0, size, 256), derive_key("key")
    image = permute(values, size, key)
    for word in range(len(key)):
        for bit in (0, 1, 31, 62, 63):
            other = key.copy()
            other[word] ^= np.uint64(1 << bit)
            assert np.mean(permute(values, size, other) == image) < 0.01, (word, bit)


@pytest.mark.parametrize("size", [2, 3, 5, 6, 10, 17])
def test_over_keys_a_value_lands_everywhere_equally_often(size):
    keys = 100 * size
    images = np.array([permute(np.arange(size), size, derive_key("uniform", size, number)) for number in range(keys)])
    for value in (0, size // 2, size - 1):
        counts = np.bincount(images[:, value], minlength=size)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4, value


def test_parts_of_a_key_do_not_run_together():
    keys = {
        derive_key(*parts).tobytes() for parts in [("a", 1, 0), ("a", 0, 1), ("a", 10), ("a1", 0), ("a", "1", "0", ""), ("a",)]
    }
    assert len(keys) == 6


# samples


def orders() -> st.SearchStrategy[Order]:
    return st.builds(
        Order,
        fingerprint=st.just("f"),
        seed=st.integers(0, 5),
        samples=st.integers(1, 300),
        global_batch=st.integers(1, 40),
        block_size=st.integers(1, 50),
        window_blocks=st.none() | st.integers(1, 8),
    )


def epoch_of(order: Order, epoch: int) -> np.ndarray:
    first = epoch * order.steps_per_epoch
    return np.concatenate([samples(order, step) for step in range(first, first + order.steps_per_epoch)])


@settings(deadline=None, max_examples=150)
@given(orders(), st.integers(0, 3))
def test_an_epoch_sees_every_sample_once_and_only_its_last_step_is_padded(order, epoch):
    ids = epoch_of(order, epoch)
    assert ids.dtype == np.int64
    assert len(ids) == order.steps_per_epoch * order.global_batch
    assert sorted(ids[: order.samples].tolist()) == list(range(order.samples))
    assert (ids[order.samples :] == PADDING).all()
    assert len(ids) - order.samples < order.global_batch


@settings(deadline=None, max_examples=60)
@given(orders(), st.integers(0, 2))
def test_an_epoch_is_what_plain_lists_say(order, epoch):
    assert epoch_of(order, epoch)[: order.samples].tolist() == plain_epoch(order, epoch)


@settings(deadline=None, max_examples=100)
@given(orders(), st.integers(0, 2))
def test_a_sample_is_found_where_the_epoch_has_it(order, epoch):
    ids = epoch_of(order, epoch)[: order.samples]
    assert slots_of(order, epoch, ids).tolist() == list(range(order.samples))


@given(orders())
def test_a_window_of_blocks_is_left_only_when_all_of_it_was_seen(order):
    """Reads stay local: a stretch of the epoch touches the blocks of its window and no other."""
    blocks = -(-order.samples // order.block_size)
    width = order.window_blocks or blocks
    seen = epoch_of(order, 1)[: order.samples] // order.block_size
    place, windows = 0, []
    while place < len(seen):
        touched: set[int] = set()
        left = 0
        # the window ends where every block met so far is complete and there are `width` of them
        while len(touched) < min(width, blocks - sum(map(len, windows))) or left:
            block = int(seen[place])
            if block not in touched:
                touched.add(block)
                left += min(order.block_size, order.samples - block * order.block_size)
            left -= 1
            place += 1
        assert len(touched) <= width
        windows.append(touched)
    assert sorted(block for window in windows for block in window) == list(range(blocks))


def test_any_place_is_reached_without_walking_there():
    order = Order("f", 3, samples=10**12 + 39, global_batch=8, block_size=1000, window_blocks=64)
    far = samples(order, 10**10)
    assert len(set(far.tolist())) == 8
    assert ((far >= 0) & (far < order.samples)).all()


def test_seeds_epochs_and_data_sets_have_orders_of_their_own():
    def first_epoch(fingerprint: str, seed: int, epoch: int, window: int | None) -> tuple[int, ...]:
        order = Order(fingerprint, seed, samples=64, global_batch=64, block_size=4, window_blocks=window)
        return tuple(samples(order, epoch).tolist())

    for window in (None, 4):
        cases = [(name, seed, epoch) for name in ("f", "g") for seed in range(5) for epoch in range(5)]
        assert len({first_epoch(*case, window) for case in cases}) == len(cases)  # seed 1 epoch 0 is not seed 0 epoch 1


def test_a_complete_shuffle_leaves_no_trace_of_the_storage_order():
    order = Order("f", 0, samples=20_000, global_batch=100)
    ids = shuffled(order, 0, np.arange(order.samples))
    assert abs(np.corrcoef(ids, np.arange(order.samples))[0, 1]) < 5 / np.sqrt(order.samples)
    assert np.mean(np.abs(np.diff(ids)) == 1) < 0.001


# split


LENGTHS = st.lists(st.integers(1, 60) | st.integers(1, 2000), min_size=1, max_size=60)


@settings(deadline=None, max_examples=200)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 5000))
def test_split_deals_every_place_once_evenly_and_within_the_budget(lengths, world, budget):
    if len(lengths) < world:
        lengths = lengths * world
    dealt = split(np.array(lengths), world, budget)
    assert len(dealt) == world
    assert len({len(micro_batches) for micro_batches in dealt}) == 1
    micro_batches = [micro.tolist() for rank in dealt for micro in rank]
    assert all(micro_batches)
    assert all(micro == sorted(micro) for micro in micro_batches)
    assert sorted(place for micro in micro_batches for place in micro) == list(range(len(lengths)))

    costs = [length + length * length // 512 for length in lengths]
    loads = [sum(costs[place] for place in micro) for micro in micro_batches]
    single_rows = len(micro_batches) > len(lengths) - world  # no room for another round of micro-batches
    assert max(loads) <= max(budget, *costs) or single_rows
    assert max(loads) - min(loads) <= max(costs)
    assert [[micro.tolist() for micro in rank] for rank in dealt] == plain_split(lengths, world, budget)


def test_split_refuses_no_batch_that_fits_and_accumulates_only_where_it_must():
    assert [len(rank) for rank in split(np.full(64, 10), 2, 10_000)] == [1, 1]
    assert [len(rank) for rank in split(np.full(64, 10), 2, 160)] == [2, 2]
    assert [len(rank) for rank in split(np.full(4, 1000), 2, 1)] == [2, 2]


def test_long_rows_are_dearer_than_their_tokens():
    assert cost(np.array([1, 512, 1024])).tolist() == [1, 1024, 3072]


WORLDS = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96, 128]


def test_sixteen_sizes_of_the_world_see_the_same_global_batches():
    order = Order("f", 1, samples=1000, global_batch=128, block_size=16, window_blocks=5)
    lengths = np.random.default_rng(0).integers(1, 200, order.samples)
    for step in range(2 * order.steps_per_epoch):
        ids = samples(order, step)
        for world in WORLDS:
            dealt = split(np.where(ids < 0, 1, lengths[np.maximum(ids, 0)]), world, budget=500)
            there = [ids[micro] for rank in dealt for micro in rank]  # [ranks x micro-batches] of ids
            assert np.array_equal(np.sort(np.concatenate(there)), np.sort(ids)), (step, world)
