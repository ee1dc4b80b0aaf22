"""The mixture against its formula: p(i) = sum_k alpha_k p_k(i), item by item, from a plain reimplementation in float64."""

from __future__ import annotations

import dataclasses
import itertools
import math
import weakref
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_statistics import FakeStatistics, make_statistics, with_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import make_batch, row_sizes
from torch.func import functional_call

from attnrec_dist.batch import PADDING, DataSpec
from attnrec_dist.data import expert_features
from attnrec_dist.engine.config import run_config_class
from attnrec_dist.errors import ConfigError, DataError
from attnrec_dist.losses import build_loss, loss_config_class
from attnrec_dist.models import build_model, mixture, model_config_class
from attnrec_dist.models.experts import EXPERTS, SEQUENCE, QueryChunk
from attnrec_dist.models.experts.base import AGES, AGOS, HALF_LIFE, PACE
from attnrec_dist.models.experts.copy import CopyExpert, lookup_trend
from attnrec_dist.models.experts.graph import OPEN, rising
from attnrec_dist.models.experts.scoring import ELEMENTS_AT_ONCE, runs
from attnrec_dist.models.experts.trend import TrendExpert
from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.ops.packed import Layout
from attnrec_dist.settings import build

ITEMS = 12
ALL = [SEQUENCE, *EXPERTS]
DAY = 86_400
few = settings(deadline=None, max_examples=10)
problems = st.tuples(row_sizes(max_rows=3, max_baskets=4), st.integers(0, 999))


def configuration(**keys):
    body = {"width": 8, "heads": 2, "blocks": 1, "dropout": 0.0}
    return build(model_config_class("mixture"), {"name": "mixture", "body": body, **keys}, "model")


def make_model(statistics: FakeStatistics, seed: int = 0, **keys):
    """A float64 model in evaluation mode whose parameters are all away from zero."""
    torch.manual_seed(seed)
    model = build_model(configuration(**keys), DataSpec(statistics.num_items, 40, (), statistics))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.mean()), std=0.5)
    return model.double().eval()


def with_standins(batch):
    """Two stand-ins behind the rows, as the loader's packing makes them."""
    tokens, queries, two = batch.num_tokens, len(batch.queries), torch.arange(2)
    zero = 0 * two
    return dataclasses.replace(
        batch,
        sample_ids=torch.cat([batch.sample_ids, zero + PADDING]),
        users=torch.cat([batch.users, zero + PADDING]),
        items=torch.cat([batch.items, zero]),
        times=torch.cat([batch.times, zero]),
        baskets=torch.cat([batch.baskets, zero]),
        offsets=torch.cat([batch.offsets, batch.offsets[-1:] + 1 + two.int()]),
        queries=torch.cat([batch.queries, tokens + two]),
        query_times=torch.cat([batch.query_times, zero]),
        targets=torch.cat([batch.targets, zero]),
        target_query=torch.cat([batch.target_query, queries + two]),
        target_weight=torch.cat([batch.target_weight, torch.zeros(2)]),
        max_length=max(batch.max_length, 1),
        events={},
    )


def problem(sizes, seed, isolated=0.3, **keys):
    """(model, batch, statistics): repeats are frequent, some items have neighbours and some were never seen before."""
    statistics = make_statistics(ITEMS, seed, isolated=isolated)
    model = make_model(statistics, seed, **keys)
    batch = with_standins(make_batch(sizes, ITEMS, seed))
    batch.times += torch.randint(-40, 1, (1,), generator=torch.Generator().manual_seed(seed)) * DAY * (batch.times > 0)
    return model, with_evidence(batch, model.config.needs, statistics), statistics


def softmax_loss(model, batch):
    return build_loss(loss_config_class("softmax")(), DataSpec(5, 40))(model(batch), batch, model.table)


# The plain reimplementation: loops over queries, tokens and edges; torch only for numbers that autograd can follow.


def plain_history(state, tokens, places, batch, query, asked_at):
    """One query with its history alone, unpadded."""
    days = [max(0, asked_at - int(batch.times[place])) / DAY for place in places]
    ago = [int(batch.baskets[query] - batch.baskets[place]) for place in places]
    return QueryChunk(
        state=state[None],
        keys=torch.stack([tokens[place] for place in places])[None],
        items=batch.items[list(places)][None],
        seen=torch.ones(1, len(places), dtype=torch.bool),
        age=torch.tensor([[min(int(2 * math.log2(each + 1)), AGES - 1) for each in days]]),
        ago=torch.tensor([[min(each, AGOS - 1) for each in ago]]),
        times=torch.tensor([asked_at]),
        target_query=torch.zeros(0, dtype=torch.int64),
        evidence={},
    )


def plain_edges(item, target_basket, statistics):
    """{neighbour: what of the item's weight goes to it}; the target basket's own counts taken back."""
    edges = {other: edge for (first, other), edge in statistics.edges.items() if first == item}
    total = sum(float(np.float32(strength)) for strength, _ in edges.values())
    shares = {}
    for other, (strength, pairs) in edges.items():
        left = pairs - (item in target_basket and other in target_basket)
        share = float(np.float32(strength)) / total * left / pairs
        shares[other] = math.exp(np.float32(math.log(share))) if share else 0.0  # evidence comes in fp32
    return shares


def plain_expert(expert, history, target_basket, statistics):
    """p of every item under an expert beside the softmax, [V]."""
    state, items = history.state[0], history.items[0].tolist()
    log_popularity = torch.from_numpy(expert.trend.all_items(int(history.times[0]))).double()  # [V, H]
    if isinstance(expert, TrendExpert):
        return log_popularity.exp() @ (expert.choose.weight @ state + expert.choose.bias).softmax(0)
    p = [torch.zeros((), dtype=torch.float64)] * ITEMS
    if isinstance(expert, CopyExpert):  # an item's popularity, to some power, makes its tokens weigh more
        bias = log_popularity[items] @ (expert.prior + PACE * expert.by_trend)
        for item, weight in zip(items, expert.attention(history, bias[None])[0].exp(), strict=True):
            p[item] = p[item] + weight
        return torch.stack(p)
    for item, weight in zip(items, expert.attention(history)[0].exp(), strict=True):
        for other, share in plain_edges(item, target_basket, statistics).items():
            p[other] = p[other] + weight * share
    return torch.stack(p) * expert._log_gate(log_popularity).exp()


def plain_mixture(model, batch, statistics, leave_out=True):
    """alpha_k p_k(i), float64 [K, P, V]. With `leave_out`, as in training, without what the target basket gave the graph."""
    layout = Layout.of(batch)
    hidden, tokens = model.body(batch).hidden, model.body.encode(batch, layout)
    result = []
    for row, query in enumerate(batch.queries.tolist()):
        state, asked_at = hidden[query], int(batch.query_times[row])
        places = range(int(batch.offsets[layout.rows[query]]), query + 1)
        basket = set(batch.targets[batch.target_query == row].tolist()) if leave_out else set()
        alpha = model.log_alpha(state[None], batch.query_times[row : row + 1])[0].exp()
        history = plain_history(state, tokens, places, batch, query, asked_at)
        experts = [
            (model.table.weight @ state).softmax(0)
            if name == SEQUENCE
            else plain_expert(model.others[name], history, basket, statistics)
            for name in model.config.experts
        ]
        result.append(torch.stack([share * p for share, p in zip(alpha, experts, strict=True)]))
    return torch.stack(result, 1)


def plain_loss(model, batch, statistics):
    p = plain_mixture(model, batch, statistics).sum(0)[batch.target_query, batch.targets]
    return -(batch.target_weight * p.log()).sum()


def gradients(loss, model):
    found = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    return dict(zip(dict(model.named_parameters()), found, strict=True))


@given(problems)
@few
def test_loss_and_gradients_are_those_of_the_formula(case):
    model, batch, statistics = problem(*case)
    mine, theirs = softmax_loss(model, batch), plain_loss(model, batch, statistics)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients(mine, model), gradients(theirs, model), rtol=1e-9, atol=1e-9)


def opinions(model, batch):
    """alpha_k p_k(i) as the experts tell it, [K, P, V]: added up, and asked for item by item."""
    answer = model.answer(batch)
    items = torch.arange(ITEMS).expand(len(batch.queries), -1)
    added, told = [], []
    for opinion, share in zip(answer.opinions, answer.alpha.T, strict=True):
        p = torch.zeros(len(batch.queries), ITEMS, dtype=torch.float64)
        opinion.add_to(p, share)
        added.append(p)
        told.append(share[:, None] * opinion.of(items))
    return torch.stack(added), torch.stack(told)


@given(problems)
@few
def test_every_expert_gives_every_item_its_probability(case):
    model, batch, statistics = problem(*case)
    with torch.no_grad():
        expected = plain_mixture(model, batch, statistics, leave_out=False)
        added, told = opinions(model, batch)
    torch.testing.assert_close(added, expected, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(told, expected, rtol=1e-9, atol=1e-15)
    assert not added[expected == 0].any()
    torch.testing.assert_close(model.scored(batch).scores, expected.sum(0), rtol=1e-10, atol=1e-15)
    items = torch.arange(ITEMS).expand(len(batch.queries), -1)
    expected = (expected / expected.sum(0)).permute(1, 2, 0)
    torch.testing.assert_close(model.answer(batch).shares(items), expected, rtol=1e-8, atol=1e-12)


@given(problems)
@few
def test_the_rise_weighs_all_but_what_the_customer_had(case):
    model, batch, statistics = problem(*case, rise=0.7)
    with torch.no_grad():
        expected = plain_mixture(model, batch, statistics, leave_out=False)
    for row, time in enumerate(batch.query_times.tolist()):
        log_p = torch.from_numpy(model.trend.all_items(time)).double()  # half-lives 3, 14 and 60
        expected[[0, 2, 3], row] *= ((log_p[:, 1] - log_p[:, 2]) * 0.7).exp()
    torch.testing.assert_close(model.scored(batch).scores, expected.sum(0), rtol=1e-6, atol=1e-15)
    items = torch.arange(ITEMS).expand(len(batch.queries), -1)
    expected = (expected / expected.sum(0)).permute(1, 2, 0)
    torch.testing.assert_close(model.answer(batch).shares(items), expected, rtol=1e-6, atol=1e-12)


@given(problems)
@few
def test_a_discount_takes_from_one_expert_for_the_others(case):
    model, batch, statistics = problem(*case, discount={"sequence": 0.25, "graph": 2.0})
    with torch.no_grad():
        expected = plain_mixture(model, batch, statistics, leave_out=False)
        alpha = model(batch, explain=True).explanation["alpha"].exp()
    factors = torch.tensor([0.25, 1, 1, 2])
    expected *= (factors[:, None] / (alpha * factors).sum(-1))[..., None]
    torch.testing.assert_close(model.scored(batch).scores, expected.sum(0), rtol=1e-6, atol=1e-15)
    items = torch.arange(ITEMS).expand(len(batch.queries), -1)
    expected = (expected / expected.sum(0)).permute(1, 2, 0)
    torch.testing.assert_close(model.answer(batch).shares(items), expected, rtol=1e-6, atol=1e-12)


@given(st.sets(st.integers(0, 40)), st.integers(1, 40))
def test_rows_come_as_slices_of_neighbours(rows, most):
    wanted = sorted(rows)
    width = ELEMENTS_AT_ONCE // most
    found = list(runs(torch.tensor(wanted, dtype=torch.int64), width))
    assert [row for run in found for row in range(run.start, run.stop)] == wanted
    assert all(1 <= run.stop - run.start <= max(1, ELEMENTS_AT_ONCE // width) for run in found)
    parted = [(before, after) for before, after in itertools.pairwise(found) if before.stop == after.start]
    assert all(before.stop - before.start == ELEMENTS_AT_ONCE // width for before, _ in parted), (
        "only full ones are followed at once"
    )


def test_the_discount_changes_no_training():
    with_it, without = (problem([[2, 1], [1, 1, 2]], 3, discount=discount) for discount in ({"sequence": 0.1}, {}))
    assert torch.equal(softmax_loss(*with_it[:2]), softmax_loss(*without[:2]))
    assert not torch.equal(with_it[0].scored(with_it[1]).scores, without[0].scored(without[1]).scores)


def test_the_rise_changes_no_training():
    with_it, without = (problem([[2, 1], [1, 1, 2]], 3, rise=rise) for rise in (2.0, 0.0))
    assert torch.equal(softmax_loss(*with_it[:2]), softmax_loss(*without[:2]))
    assert not torch.equal(with_it[0].scored(with_it[1]).scores, without[0].scored(without[1]).scores)


@given(problems)
@few
def test_ranking_says_what_training_says_but_for_the_targets_own_basket(case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expert_features, "in_same_basket", lambda lookup, target, item: torch.zeros(len(target)).bool().numpy())
        model, batch, _ = problem(*case)
    log_share, log_rest = model(batch).beside
    at = batch.target_query, batch.targets
    sequence = model.table.logits(model(batch).hidden[batch.queries]).log_softmax(-1)
    torch.testing.assert_close(
        torch.logaddexp(log_share + sequence[at], log_rest), model.scored(batch).scores[at].log(), rtol=1e-10, atol=1e-10
    )


@given(problems)
@few
def test_probabilities_sum_to_one_but_for_what_the_graph_keeps_to_itself(case):
    """Items without neighbours hand on nothing, and neighbours that no longer sell are held back."""
    model, batch, statistics = problem(*case, isolated=0.5)
    with torch.no_grad():
        held_back = plain_held_back(model, batch, statistics)
    total = model.scored(batch).scores.sum(1)
    torch.testing.assert_close(total, 1 - held_back, rtol=0, atol=1e-6)  # trend and edges come in float32
    assert (total < 1 + 1e-6).all()


@given(problems)
@few
def test_without_the_graph_probabilities_sum_to_one(case):
    model, batch, _ = problem(*case, experts=["sequence", "copy", "trend"])
    total = model.scored(batch).scores.sum(1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


def plain_held_back(model, batch, statistics):
    """What of alpha_graph reaches no item, [P]."""
    graph = ALL.index("graph")
    alpha = model(batch, explain=True).explanation["alpha"][:, graph].exp()
    return alpha - plain_mixture(model, batch, statistics, leave_out=False)[graph].sum(1)


def test_gradcheck():
    statistics = make_statistics(5, 3, isolated=0.0)
    model = make_model(statistics, 1, body={"width": 2, "heads": 1, "blocks": 1, "dropout": 0.0, "activation": "gelu"})
    batch = with_evidence(make_batch([[1, 2, 1], [2]], 5, 4), model.config.needs, statistics)
    names, values = zip(*model.named_parameters(), strict=True)
    loss = build_loss(loss_config_class("softmax")(), DataSpec(5, 40))

    def of(*parameters):
        given_ones = dict(zip(names, parameters, strict=True))
        output = functional_call(model, given_ones, (batch,))
        table = build_table(given_ones["body.table.weight"])
        return loss(output, batch, table)

    assert torch.autograd.gradcheck(of, values, atol=1e-6)


def build_table(weight):
    """An item table of this very tensor."""
    table = ItemTable(*weight.shape)
    del table.weight
    table.weight = weight
    return table


@given(problems, st.integers(1, 200))
@few
def test_the_size_of_a_chunk_changes_nothing(case, elements):
    model, batch, _ = problem(*case)
    whole = softmax_loss(model, batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture, "CHUNK_ELEMENTS", elements)
        cut = softmax_loss(model, batch)
        torch.testing.assert_close(cut, whole, rtol=1e-13, atol=0)
        torch.testing.assert_close(gradients(cut, model), gradients(whole, model), rtol=1e-11, atol=1e-12)


def test_one_chunk_of_histories_is_alive_at_a_time(monkeypatch):
    model, batch, _ = problem([[1, 2, 3, 1], [2, 2]], 0)
    made, alive = [], []
    query_chunk = mixture.query_chunk

    def watched(*arguments):
        chunk = query_chunk(*arguments)
        made.append(weakref.ref(chunk.keys))
        alive.append(sum(reference() is not None for reference in made))
        return chunk

    monkeypatch.setattr(mixture, "query_chunk", watched)
    monkeypatch.setattr(mixture, "CHUNK_ELEMENTS", 1)
    softmax_loss(model, batch).backward()
    assert len(made) == 2 * len(batch.queries)  # each made once more on the way back
    assert max(alive) == 1


def test_attention_weighs_content_age_and_baskets_ago():
    attention = make_model(make_statistics(ITEMS)).others["copy"].attention
    batch = make_batch([[1, 1, 1]], ITEMS)
    keys = torch.randn(1, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    chunk = plain_history(keys[0, 2], keys[0], range(3), batch, 2, int(batch.times[2]) + 3 * DAY)
    chunk.seen[0, 1] = False
    asks = attention.query(chunk.state)[0]
    scores = []
    for place in (0, 2):
        age, ago = int(chunk.age[0, place]), int(chunk.ago[0, place])
        days = 2 ** (age / 2 + 0.25) - 1
        prior = -math.log(2) * min(days / HALF_LIFE, 20)
        learnt = PACE * (attention.by_age.weight[age, 0] + attention.by_ago.weight[ago, 0])
        scores.append(float(asks @ attention.key(keys[0, place]) / 8**0.5 + prior + learnt))
    total = sum(map(math.exp, scores))
    expected = [math.exp(scores[0]) / total, 0.0, math.exp(scores[1]) / total]
    assert attention(chunk)[0].exp().tolist() == pytest.approx(expected, rel=1e-6)


def test_the_graphs_gate_opens_with_popularity():
    expert = make_model(make_statistics(ITEMS)).others["graph"]
    log_p = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for row, gate in enumerate(expert._log_gate(log_p).exp().tolist()):
        slopes = [float(expert.prior[place] + PACE * expert.rise[place]) for place in range(3)]
        score = sum(slope * (float(log_p[row, place]) + math.log(ITEMS)) for place, slope in enumerate(slopes))
        assert gate == pytest.approx(1 / (1 + math.exp(-score - PACE * float(expert.rise[-1]) - OPEN)))
    assert rising((3.0, 14.0, 60.0)).tolist() == [0, 1, -1, 0]
    assert rising((30.0,)).tolist() == [0, 0]


def test_ages_are_half_octaves_of_days_at_the_querys_time():
    _, batch, _ = problem([[1, 1, 1]], 0)
    batch = dataclasses.replace(batch, times=torch.tensor([0, 2 * DAY, 3 * DAY, 0, 0]), query_times=torch.full((5,), 3 * DAY + 1))
    layout = Layout.of(batch)
    hidden = torch.zeros(batch.num_tokens, 8)
    chunk = mixture.query_chunk(batch, layout, hidden, hidden, (2, 3), (0, 0))
    assert chunk.age.tolist() == [[4, 2, 0]]  # 3, 1 and 0 days: 2 log2(days + 1)
    assert chunk.ago.tolist() == [[2, 1, 0]]


def test_the_experts_weights_follow_state_month_and_weekday():
    model = make_model(make_statistics(ITEMS), weekday=True)
    state = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    january_in_1970, march_in_2011, december_in_2011 = 5 * DAY, 1_300_000_000, 1_324_000_000
    alpha = model.log_alpha(state, torch.tensor([january_in_1970, march_in_2011, december_in_2011])).exp()
    for row, (month, weekday) in enumerate(((0, 1), (2, 6), (11, 4))):  # Tuesday 6 January, Sunday 13 March, Friday 16 December
        scores = model.key.weight @ state[row] + PACE * (model.season.weight[month] + model.weekday.weight[weekday] + model.prior)
        torch.testing.assert_close(alpha[row], scores.exp() / scores.exp().sum())


SUBSETS = [
    list(chosen)
    for size in range(1, len(ALL) + 1)
    for chosen in itertools.combinations(ALL, size)
    if set(chosen) & {SEQUENCE, "trend"}
]


@pytest.mark.parametrize("experts", SUBSETS, ids="-".join)
def test_every_choice_of_experts_trains(experts):
    statistics = make_statistics(ITEMS)
    torch.manual_seed(0)
    model = build_model(configuration(experts=experts, expert_dropout=0.3), DataSpec(ITEMS, 40, (), statistics))
    batch = with_evidence(make_batch([[2, 1, 2], [1, 1, 1, 1], [3]], ITEMS), model.config.needs, statistics)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = [softmax_loss(model.eval(), batch).item()]
    for _ in range(15):
        loss = softmax_loss(model.train(), batch)
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    losses.append(softmax_loss(model.eval(), batch).item())
    assert losses[1] < losses[0]
    with torch.no_grad():
        assert not any(each.isnan().any() for each in opinions(model, batch))


def test_the_choice_of_experts_is_what_is_looked_up():
    assert configuration().needs.names == ("repeats", "trend", "neighbours")
    assert configuration(experts=["sequence", "graph"]).needs.names == ("neighbours", "trend")
    assert configuration(experts=["sequence"]).needs.names == ()
    assert configuration(experts=["trend"], half_lives=[5]).needs.half_lives == (5.0,)


def test_stand_ins_alone_reach_every_parameter():
    """The step that a process takes part in without a sample of its own: nothing changes, and no other process waits in vain."""
    model, batch, _ = problem([], 0)
    assert batch.sample_ids.tolist() == [PADDING, PADDING]
    loss = softmax_loss(model, batch)
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def plain_chunk(asked_at):
    """One query after three baskets."""
    batch = make_batch([[1, 2, 1]], ITEMS)
    return plain_history(torch.ones(8), torch.ones(4, 8), range(3), batch, 2, asked_at)


def test_history_items_are_looked_up_at_their_querys_day_even_before_1970():
    trend = make_model(make_statistics(ITEMS)).others["trend"].trend
    items, times = torch.tensor([[3, 5, 3], [3, 0, 11]]), torch.tensor([12 * DAY, -5 * DAY - 1])
    found = lookup_trend(trend, dataclasses.replace(plain_chunk(0), items=items, times=times)).numpy()
    for row, column in np.ndindex(2, 3):
        assert np.array_equal(found[row, column], trend.all_items(int(times[row]))[int(items[row, column])])


@pytest.mark.parametrize("name", ["copy", "graph"])
def test_bf16_does_not_round_how_items_sell(name):
    expert = make_model(make_statistics(ITEMS, isolated=0.0)).float().others[name]
    torch.nn.init.zeros_(expert.attention.query.weight)  # these products may be rounded
    torch.nn.init.zeros_(expert.attention.query.bias)
    chunk = plain_chunk(1_300_000_000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = expert.opinion(chunk)
    exact = expert.opinion(chunk)
    assert torch.equal(rounded.place, exact.place)
    torch.testing.assert_close(rounded.p, exact.p, rtol=1e-5, atol=1e-7)


def test_without_the_sequence_the_softmax_has_no_share():
    model, batch, statistics = problem([[2, 1], [1]], 2, experts=["trend", "copy"])
    p = plain_mixture(model, batch, statistics)
    assert len(p) == 2
    torch.testing.assert_close(softmax_loss(model, batch), plain_loss(model, batch, statistics))


def test_expert_dropout_leaves_each_query_an_expert_that_rules_nothing_out():
    model, _, _ = problem([[1]], 0, expert_dropout=0.6)
    state, times = torch.randn(4000, 8, dtype=torch.float64), torch.full((4000,), 1_300_000_000)
    torch.manual_seed(0)
    left_in = model.train().log_alpha(state, times) > -1000
    counts = Counter(tuple(row) for row in left_in.tolist())
    assert not any(key for key in counts if not (key[0] or key[ALL.index("trend")]))
    share = 1 - left_in.double().mean(0)
    assert share[ALL.index("copy")].item() == pytest.approx(0.6, abs=0.03)
    assert share[0].item() == pytest.approx(0.6 * 0.4, abs=0.03)  # but for the queries where trend was dropped too
    torch.testing.assert_close(model.log_alpha(state, times).exp().sum(1), torch.ones(4000, dtype=torch.float64))
    assert (model.eval().log_alpha(state, times) > -1000).all()


def test_a_dropped_expert_costs_no_target_its_probability():
    """A target that only the copy expert's history rules out stays possible, whatever is dropped."""
    model, batch, _ = problem([[1] * 6, [2, 2]], 5, expert_dropout=0.9)
    torch.manual_seed(0)
    assert all(softmax_loss(model.train(), batch).item() < 200 for _ in range(20))


def test_no_queries():
    model, batch, _ = problem([[1]], 0)
    empty = dataclasses.replace(
        batch,
        queries=batch.queries[:0],
        query_times=batch.query_times[:0],
        targets=batch.targets[:0],
        target_query=batch.target_query[:0],
        target_weight=batch.target_weight[:0],
    )
    empty = with_evidence(empty, model.config.needs, make_statistics(ITEMS))
    assert softmax_loss(model, empty).item() == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"experts": ["sequence", "coyp"]}, r"model.experts: there is no expert coyp; known: sequence, copy, trend, graph"),
        ({"experts": ["copy", "graph"]}, r"model.experts: one of sequence and trend is needed"),
        ({"experts": []}, "model.experts"),
        ({"half_lives": []}, "model.half_lives"),
        ({"half_lives": [3, 0]}, "model.half_lives"),
        ({"rise": 0.5, "half_lives": [7]}, "rise compares a short half-life with the longest"),
        ({"rise": -1}, "model.rise"),
        ({"discount": {"sequence": 0}}, "model.discount"),
        ({"discount": {"coyp": 0.5}}, r"model.discount: there is no expert coyp; known: sequence, copy, trend, graph"),
        ({"expert_dropout": 1.0}, "model.expert_dropout"),
        ({"body": {"wdth": 8}}, r"model.body.wdth: unknown key"),
    ],
)
def test_a_wrong_configuration_is_told(keys, message):
    tree = {"data": {"path": "data"}, "model": {"name": "mixture", **keys}}
    with pytest.raises(ConfigError, match=message):
        build(run_config_class(tree), tree, "run.yaml")


def test_a_temperature_is_refused():
    """The ranking would not follow it: a mixture ranks by probabilities, and the loss alone knows the temperature."""
    tree = {"data": {"path": "data"}, "model": {"name": "mixture"}, "loss": {"name": "softmax", "temperature": 0.5}}
    with pytest.raises(ConfigError, match=r"run.yaml: loss.temperature: .* but 1; leave it out"):
        build(run_config_class(tree), tree, "run.yaml")


MADE = make_statistics(ITEMS)
WITHOUT = {
    "graph": (SimpleNamespace(graph=lambda: None, daily=MADE.daily), {"graph": "has no item graph"}),
    "edges": (dataclasses.replace(MADE, edges={}), {"graph": "no two items go together"}),
    "counts": (dataclasses.replace(MADE, events={}), {"trend": "has no daily counts", "graph": "has no daily counts"}),
}


@pytest.mark.parametrize("missing", WITHOUT)
def test_an_expert_without_its_statistics_has_no_weight(missing):
    """Its share is 0 to the last digit, whatever is dropped; everything that is left is trained, on every process alike."""
    statistics, off = WITHOUT[missing]
    torch.manual_seed(0)
    spec = DataSpec(ITEMS, 40, (), statistics)
    model = build_model(configuration(expert_dropout=0.5, rise=0.5), spec)
    told = model.config.lacking(spec)
    assert told.keys() == off.keys()
    assert all(words in told[name] for name, words in off.items())
    batch = with_evidence(make_batch([[2, 1, 2], [1, 1, 1, 1], [3]], ITEMS), model.config.needs, statistics)
    for _ in range(8):
        loss = softmax_loss(model.train(), batch)
        assert loss.item() < 200
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    answer = model.eval().answer(batch)
    silent = torch.tensor([name in off for name in ALL])
    shares = answer.shares(torch.arange(ITEMS).expand(len(batch.queries), -1))
    assert torch.equal(answer.alpha[:, silent], torch.zeros(len(batch.queries), len(off)))
    assert torch.equal(shares[..., silent], torch.zeros_like(shares[..., silent]))
    assert (shares[..., 0] > 0).all()
    torch.testing.assert_close(answer.alpha.sum(1), torch.ones(len(batch.queries)))


def test_one_expert_at_least_gives_every_item_some_probability():
    statistics, _ = WITHOUT["counts"]
    with pytest.raises(DataError, match=r"has no daily counts.* type --model.experts '\[sequence, trend, copy\]'"):
        build_model(configuration(experts=["trend", "copy"]), DataSpec(ITEMS, 40, (), statistics))
