"""Random batches of the ranking task for tests, and ways to take one apart."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import torch
from torch import Tensor

from attnrec_dist.batch import DataSpec, RankingBatch
from attnrec_dist.data.example_format import ExamplesSpec, FieldSpec, Shard

NUM_ITEMS = 20  # items 20 and above are cold
EVENT_TYPES = ("view", "cart", "purchase")
TASKS = ["label", "cart"]
FIELDS = [
    FieldSpec(name="colour", kind="categorical", size=7),
    FieldSpec(name="visits", kind="numeric", log1p=True, quantiles=[1.0, 2.0, 5.0], mean=0.9, std=0.6),
    FieldSpec(name="price", kind="numeric", quantiles=[-1.5, -0.5, 0.0, 0.5, 1.5], mean=0.0, std=1.0),
    FieldSpec(name="constant", kind="numeric", mean=3.0, std=0.0),
    FieldSpec(name="size", kind="categorical", size=4),
]
COUNTS = {"train": 100, "validation": 10, "test": 10}
EXAMPLES = ExamplesSpec(
    tasks=TASKS,
    fields=FIELDS,
    counts=COUNTS,
    known=dict.fromkeys(TASKS, COUNTS),
    positives={"label": {"train": 50}, "cart": {"train": 20}},
    shards={},
    vocabulary=Shard(name="v", rows=0, bytes=0, sha256="0" * 64),
)
SPEC = DataSpec(num_items=NUM_ITEMS, max_length=12, event_types=EVENT_TYPES, examples=EXAMPLES)


def make_ranking_batch(lengths: list[int], seed: int = 0, hostile: bool = False) -> RankingBatch:
    """A batch of rows whose histories have these lengths; `hostile` numbers are infinite, huge or missing."""
    generator = torch.Generator().manual_seed(seed)
    rows, tokens = len(lengths), sum(lengths)

    def draw(high: int, size: int = rows) -> Tensor:
        return torch.randint(high, (size,), generator=generator)

    numbers = {name: torch.randn(rows, generator=generator) * 2 for name in ("price", "constant")}
    numbers["visits"] = draw(9).float()
    numbers["price"][draw(4) == 0] = float("nan")
    if hostile:
        wild = torch.tensor([float("inf"), float("-inf"), 3e38, -3e38, float("nan"), 0.0])
        numbers = {name: wild[draw(6)] for name in numbers}
    times = 1_000_000 + draw(900_000)
    ages = draw(1_000_000, tokens) + 1
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    known = draw(5) > 0
    return RankingBatch(
        sample_ids=torch.arange(rows),
        users=torch.arange(rows),
        candidates=draw(NUM_ITEMS + 4),
        times=times,
        fields={"colour": draw(7), "size": draw(4), **numbers},
        labels={"label": draw(2).float(), "cart": draw(2).float() * known},
        label_weights={"label": torch.ones(rows), "cart": known.float()},
        items=draw(NUM_ITEMS + 4, tokens),
        history_times=times.repeat_interleave(torch.tensor(lengths)) - ages,
        offsets=offsets,
        max_length=max(lengths, default=0),
        events={"event": draw(len(EVENT_TYPES), tokens)},
    )


def ranking_batches() -> st.SearchStrategy[RankingBatch]:
    """Ragged, empty histories among them."""
    return st.builds(make_ranking_batch, st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(0, 2**16))


def take_examples(batch: RankingBatch, rows: list[int]) -> RankingBatch:
    """The same examples in a batch of their own, in the order given."""
    offsets = batch.offsets.tolist()
    spans = [range(offsets[row], offsets[row + 1]) for row in rows]
    tokens = torch.tensor([token for span in spans for token in span], dtype=torch.int64)
    lengths = [len(span) for span in spans]

    def chosen(values: dict[str, Tensor], places: Tensor | list[int]) -> dict[str, Tensor]:
        return {name: each[places] for name, each in values.items()}

    return dataclasses.replace(
        batch,
        sample_ids=batch.sample_ids[rows],
        users=batch.users[rows],
        candidates=batch.candidates[rows],
        times=batch.times[rows],
        fields=chosen(batch.fields, rows),
        labels=chosen(batch.labels, rows),
        label_weights=chosen(batch.label_weights, rows),
        items=batch.items[tokens],
        history_times=batch.history_times[tokens],
        offsets=torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32),
        max_length=max(lengths, default=0),
        events=chosen(batch.events, tokens),
    )
