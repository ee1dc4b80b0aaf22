"""Random packed batches for tests: a plain builder, hypothesis strategies on top of it, and ways to take a batch apart."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import torch
from torch import Tensor

from attnrec_dist.batch import SequenceBatch

EVENT_TYPES = ("view", "cart", "purchase")


def make_batch(sizes: list[list[int]], num_items: int = 30, seed: int = 0) -> SequenceBatch:
    """A batch of rows given by the sizes of their baskets; [[1, 1, 1], [2, 3]] has a row of singletons and one of two baskets.

    Every basket predicts the next one; the last one of a row predicts one or two random items.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    items, baskets, queries, targets, target_query, target_weight = [], [], [], [], [], []
    offsets = [0]
    for row in sizes:
        bags = [draw(num_items, size) for size in row]
        for place, bag in enumerate(bags):
            items.append(bag)
            baskets.append(torch.full_like(bag, place))
            queries.append(offsets[-1] + sum(row[: place + 1]) - 1)
            answer = bags[place + 1] if place + 1 < len(bags) else draw(num_items, 1 + int(draw(2)))
            targets.append(answer)
            target_query.append(torch.full_like(answer, len(queries) - 1))
            target_weight.append(torch.full((len(answer),), 1 / len(answer)))
        offsets.append(offsets[-1] + sum(row))
    all_baskets = _join(baskets)
    return SequenceBatch(
        sample_ids=torch.arange(len(sizes)),
        users=torch.arange(len(sizes)),
        items=_join(items),
        times=1_000_000 + 86_400 * all_baskets,
        baskets=all_baskets,
        offsets=torch.tensor(offsets, dtype=torch.int32),
        queries=torch.tensor(queries, dtype=torch.int64),
        query_times=1_000_000 + 86_400 * (all_baskets[torch.tensor(queries, dtype=torch.int64)] + 1),
        targets=_join(targets),
        target_query=_join(target_query),
        target_weight=_join(target_weight, torch.float32),
        max_length=max((sum(row) for row in sizes), default=0),
        singletons=all(size == 1 for row in sizes for size in row),
        events={"event": draw(len(EVENT_TYPES), offsets[-1])},
        query_keys=torch.arange(len(queries)) * 7919 + seed,
        step_key=torch.tensor([seed]),
    )


def _join(parts: list[Tensor], dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.cat(parts).to(dtype) if parts else torch.zeros(0, dtype=dtype)


def row_sizes(singletons: bool = False, max_rows: int = 4, max_baskets: int = 6) -> st.SearchStrategy[list[list[int]]]:
    """Sizes for `make_batch`: ragged, a row of one token and long rows among them."""
    size = st.just(1) if singletons else st.integers(1, 5)
    return st.lists(st.lists(size, min_size=1, max_size=max_baskets), min_size=1, max_size=max_rows)


def batches(singletons: bool | None = None, num_items: int = 30) -> st.SearchStrategy[SequenceBatch]:
    """Random batches; with `singletons=None` both kinds."""
    kinds = st.booleans() if singletons is None else st.just(singletons)
    sizes = kinds.flatmap(lambda single: row_sizes(singletons=single))
    return st.builds(lambda rows, seed: make_batch(rows, num_items, seed), sizes, st.integers(0, 2**16))


def take_rows(batch: SequenceBatch, rows: list[int]) -> SequenceBatch:
    """The same samples in a batch of their own, in the order given."""
    offsets = batch.offsets.tolist()
    spans = [range(offsets[row], offsets[row + 1]) for row in rows]
    tokens = torch.tensor([token for span in spans for token in span], dtype=torch.int64)
    new_place = {int(old): new for new, old in enumerate(tokens)}
    kept = [query for span in spans for query in range(len(batch.queries)) if int(batch.queries[query]) in span]
    marks = [m for query in kept for m in range(len(batch.targets)) if int(batch.target_query[m]) == query]
    new_query = {query: new for new, query in enumerate(kept)}
    lengths = [len(span) for span in spans]
    return dataclasses.replace(
        batch,
        sample_ids=batch.sample_ids[rows],
        users=batch.users[rows],
        items=batch.items[tokens],
        times=batch.times[tokens],
        baskets=batch.baskets[tokens],
        offsets=torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32),
        queries=torch.tensor([new_place[int(batch.queries[query])] for query in kept], dtype=torch.int64),
        query_times=batch.query_times[kept],
        query_keys=None if batch.query_keys is None else batch.query_keys[kept],
        targets=batch.targets[marks],
        target_query=torch.tensor([new_query[int(batch.target_query[m])] for m in marks], dtype=torch.int64),
        target_weight=batch.target_weight[marks],
        max_length=max(lengths, default=0),
        events={name: values[tokens] for name, values in batch.events.items()},
    )


def shuffle_inside_baskets(batch: SequenceBatch, seed: int) -> SequenceBatch:
    """The same sets, their members in another order; queries still point at the last token of their basket."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.repeat_interleave(torch.arange(len(batch.sample_ids)), batch.offsets.diff().long())
    noise = torch.rand(batch.num_tokens, generator=generator).tolist()
    keys = list(zip(rows.tolist(), batch.baskets.tolist(), noise, strict=True))
    order = torch.tensor(sorted(range(batch.num_tokens), key=keys.__getitem__), dtype=torch.int64)
    return dataclasses.replace(
        batch,
        items=batch.items[order],
        times=batch.times[order],
        events={name: values[order] for name, values in batch.events.items()},
    )


def change_tokens(batch: SequenceBatch, where: Tensor, num_items: int = 30) -> SequenceBatch:
    """Another item and another event at the tokens where the mask [T] is True."""
    events = {"event": torch.where(where, (batch.events["event"] + 1) % len(EVENT_TYPES), batch.events["event"])}
    return dataclasses.replace(batch, items=torch.where(where, (batch.items + 7) % num_items, batch.items), events=events)
