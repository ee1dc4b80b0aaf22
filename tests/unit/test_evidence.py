"""What experts are told of the targets, against walks over lists; and that none of it comes from the query's time or later."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch
from fake_statistics import FakeStatistics, make_statistics, with_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import batches, change_tokens, make_batch, shuffle_inside_baskets, take_rows

from attnrec_dist.batch import Needs
from attnrec_dist.data.expert_features import EvidenceFinder
from attnrec_dist.ops.edges import row_sums
from attnrec_dist.ops.packed import Layout

ITEMS = 8  # few, so that items repeat in the history and share baskets with the target
NEEDS = Needs(("repeats", "neighbours", "trend"), (3.0, 30.0))
DAY = 86_400
some_batches = batches(num_items=ITEMS)
many = settings(deadline=None, max_examples=60)


@st.composite
def statistics(draw) -> FakeStatistics:
    """Counts and a graph of any shape: empty rows, edges one way, pairs of 1 that the query's own basket uses up."""
    keys = st.tuples(st.integers(0, ITEMS - 1), st.integers(0, ITEMS - 1)).filter(lambda pair: pair[0] != pair[1])
    edges = draw(st.dictionaries(keys, st.tuples(st.sampled_from([0.1, 0.3, 1.0]), st.integers(1, 3)), max_size=30))
    events = draw(st.dictionaries(st.tuples(st.integers(0, ITEMS - 1), st.integers(9, 20)), st.integers(1, 5), max_size=20))
    return FakeStatistics(ITEMS, events, edges, within=draw(st.integers(0, 3)))


def seen_by(batch, target: int) -> list[int]:
    """Tokens of the target's row up to its query's basket."""
    query = int(batch.queries[batch.target_query[target]])
    row = int(Layout.of(batch).rows[query])
    return [token for token in range(int(batch.offsets[row]), int(batch.offsets[row + 1])) if token <= query]


def found(batch, name: str, *more: str) -> list[tuple]:
    columns = [batch.evidence[f"{name}.{column}"].tolist() for column in ("target", "token", *more)]
    assert columns[0] == sorted(columns[0])
    return list(zip(*columns, strict=True))


@given(some_batches)
@many
def test_repeats_are_each_earlier_token_of_the_target_once(batch):
    batch = with_evidence(batch, NEEDS, make_statistics(ITEMS))
    expected = [
        (target, token)
        for target in range(len(batch.targets))
        for token in seen_by(batch, target)
        if batch.items[token] == batch.targets[target]
    ]
    assert Counter(found(batch, "repeats")) == Counter(expected)
    assert max(Counter(expected).values(), default=1) == 1


def plain_neighbours(batch, made: FakeStatistics) -> dict[tuple[int, int], float]:
    """{(target, token): share}: what the token's item hands to the target, its own basket not counted."""
    expected = {}
    for target in range(len(batch.targets)):
        wanted = int(batch.targets[target])
        basket = set(batch.targets[batch.target_query == batch.target_query[target]].tolist())
        for token in seen_by(batch, target):
            item = int(batch.items[token])
            if (item, wanted) not in made.edges:
                continue
            weight, pairs = made.edges[item, wanted]
            total = sum(each for (first, _), (each, _) in made.edges.items() if first == item)
            seen = seen_by(batch, target)
            lately = {int(batch.baskets[each]) for each in seen[::-1][: made.within]}
            again = sum(int(batch.items[each]) == item and int(batch.baskets[each]) in lately for each in seen)
            left = pairs - (item in basket) - again
            if left > 0:
                expected[target, token] = weight / total * left / pairs
    return expected


@given(some_batches, statistics())
@many
def test_neighbours_are_each_token_with_an_edge_to_the_target_once(batch, made):
    batch = with_evidence(batch, NEEDS, made)
    expected = plain_neighbours(batch, made)
    pairs = found(batch, "neighbours", "log_weight")
    assert len({pair[:2] for pair in pairs}) == len(pairs)
    assert {pair[:2]: math.exp(pair[2]) for pair in pairs} == pytest.approx(expected, rel=1e-5)


@given(some_batches, statistics())
@many
def test_trend_is_that_of_the_days_before_the_query(batch, made):
    batch = with_evidence(batch, NEEDS, made)
    for target, log_p in enumerate(batch.evidence["trend"].tolist()):
        today = int(batch.query_times[batch.target_query[target]]) // DAY
        for half_life, value in zip(NEEDS.half_lives, log_p, strict=True):
            faded = np.full(ITEMS, 0.01)
            for (item, day), count in made.events.items():
                faded[item] += count * 0.5 ** ((today - 1 - day) / half_life) if day < today else 0
            assert value == pytest.approx(math.log(faded[batch.targets[target]] / faded.sum()), abs=2e-6)


@given(some_batches, statistics(), st.integers(9, 20), st.integers(0, 2**16))
@many
def test_events_from_the_querys_day_on_tell_it_nothing(batch, made, day, seed):
    """What is counted on a day and after it is planted anew; queries up to that day do not notice."""
    planted = {(int(item), day + 1 + int(later)): 99 for item, later in np.random.default_rng(seed).integers(0, 6, (9, 2))}
    changed = dataclasses.replace(made, events={key: n for key, n in made.events.items() if key[1] < day} | planted)
    before, after = (with_evidence(batch, NEEDS, each).evidence["trend"] for each in (made, changed))
    early = batch.query_times[batch.target_query] // DAY <= day
    assert torch.equal(before[early], after[early])


@given(some_batches, statistics(), st.data())
@many
def test_later_tokens_change_no_evidence_of_earlier_queries(batch, made, data):
    layout = Layout.of(batch)
    row = data.draw(st.integers(0, len(batch.sample_ids) - 1))
    cut = data.draw(st.integers(0, int(batch.baskets[layout.rows == row].max())))
    changed = (layout.rows == row) & (batch.baskets >= cut)
    blind = (~changed)[batch.queries[batch.target_query]].nonzero()[:, 0].tolist()
    before, after = with_evidence(batch, NEEDS, made), with_evidence(change_tokens(batch, changed, ITEMS), NEEDS, made)
    for name, more in (("repeats", ()), ("neighbours", ("log_weight",))):
        one, other = ([each for each in found(side, name, *more) if each[0] in blind] for side in (before, after))
        assert sorted(one) == sorted(other)
    assert torch.equal(before.evidence["trend"], after.evidence["trend"])


@given(some_batches, statistics(), st.integers(0, 99))
@many
def test_rows_alone_say_the_same_as_packed_and_order_inside_a_basket_nothing(batch, made, seed):
    whole = with_evidence(batch, NEEDS, made)
    targets = tokens = 0
    alone: dict[str, list[tuple]] = {"repeats": [], "neighbours": []}
    for row in range(len(batch.sample_ids)):
        part = with_evidence(take_rows(batch, [row]), NEEDS, made)
        for name, pairs in alone.items():
            more = ("log_weight",) if name == "neighbours" else ()
            pairs += [(pair[0] + targets, pair[1] + tokens, *pair[2:]) for pair in found(part, name, *more)]
        targets, tokens = targets + len(part.targets), tokens + part.num_tokens
    assert sorted(alone["repeats"]) == sorted(found(whole, "repeats"))
    assert sorted(alone["neighbours"]) == sorted(found(whole, "neighbours", "log_weight"))

    shuffled = with_evidence(shuffle_inside_baskets(batch, seed), NEEDS, made)
    for name in alone:
        items = [
            Counter((target, int(side.items[token]), int(side.baskets[token])) for target, token in found(side, name))
            for side in (whole, shuffled)
        ]
        assert items[0] == items[1]


def test_the_own_basket_is_taken_back_once_from_both_items_edges():
    made = FakeStatistics(ITEMS, {}, {(0, 1): (0.5, 1), (0, 2): (0.25, 2), (0, 3): (0.25, 1)})
    batch = make_batch([[1, 1]], ITEMS)
    batch.items, batch.targets = torch.tensor([0, 4]), torch.tensor([0, 1, 2, 3])
    batch.target_query, batch.target_weight = torch.tensor([0, 0, 0, 1]), torch.full((4,), 1.0)
    batch = with_evidence(batch, NEEDS, made)
    pairs = {(target, token): math.exp(weight) for target, token, weight in found(batch, "neighbours", "log_weight")}
    # item 0 is bought again with 1 and 2: its only basket with 1 is this one; of two with 2 one is left. With 3 it was not.
    assert pairs == pytest.approx({(2, 0): 0.125, (3, 0): 0.25})


def test_a_session_sees_nothing_of_its_own_clicks_in_the_graph_of_what_follows_what():
    """Each user's row alone makes the graph: whatever it says of the row's clicks, they have told it themselves."""
    draw = np.random.default_rng(0)
    for row in draw.integers(0, ITEMS, (20, 12)):
        pairs = Counter((int(a), int(b)) for d in (1, 2, 3) for a, b in zip(row[:-d], row[d:], strict=True) if a != b)
        edges = {edge: (0.5, count) for edge, count in pairs.items()}
        batch = make_batch([[1] * 12], ITEMS)
        batch.items = torch.from_numpy(row)
        batch.targets, batch.target_query = batch.items[1:], torch.arange(11)
        batch.queries, batch.query_times = batch.queries[:11], batch.query_times[:11]
        batch.target_weight = torch.ones(11)
        told = with_evidence(batch, NEEDS, FakeStatistics(ITEMS, {}, edges, within=3))
        kept = plain_neighbours(batch, FakeStatistics(ITEMS, {}, edges, within=3))
        assert {pair[:2]: math.exp(pair[2]) for pair in found(told, "neighbours", "log_weight")} == pytest.approx(kept)
        near = [(a, b) for a in range(12) for b in range(a + 1, min(a + 4, 12))]
        for target, token in kept:  # what is left are other occurrences of the pair
            assert any((row[a], row[b]) == (row[token], row[target + 1]) and b != target + 1 for a, b in near)


def test_only_what_is_asked_for_is_looked_up():
    batch = make_batch([[1, 2]], ITEMS)
    finder = EvidenceFinder(Needs(("repeats",)), None)  # nothing of the data set is read
    finder.add(batch)
    assert set(batch.evidence) == {"repeats.target", "repeats.token"}


def test_a_forecast_has_no_targets_and_no_evidence():
    batch = make_batch([[1, 2]], ITEMS)
    empty = torch.zeros(0, dtype=torch.int64)
    batch = dataclasses.replace(batch, targets=empty, target_query=empty, target_weight=empty.float())
    assert all(len(values) == 0 for values in with_evidence(batch, NEEDS, make_statistics(ITEMS)).evidence.values())


@given(statistics())
@many
def test_sums_of_rows(made):
    graph = made.graph()
    expected = [sum(float(np.float32(w)) for (item, _), (w, _) in made.edges.items() if item == row) for row in range(ITEMS)]
    assert row_sums(graph.offsets, graph.weights).tolist() == pytest.approx(expected)
