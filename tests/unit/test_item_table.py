"""The item table: it embeds and scores with the same numbers."""

from __future__ import annotations

import torch

from attnrec_dist.ops.item_table import ItemTable


def test_embedding_and_logits_use_one_weight():
    torch.manual_seed(0)
    table = ItemTable(7, 4)
    assert [name for name, _ in table.named_parameters()] == ["weight"]
    ids = torch.tensor([3, 3, 0])
    assert torch.equal(table(ids), table.weight[ids])
    hidden = torch.randn(2, 4)
    expected = torch.stack([(table.weight * row).sum(1) for row in hidden])
    torch.testing.assert_close(table.logits(hidden), expected)
    torch.testing.assert_close(table.logits(hidden, 2, 5), expected[:, 2:5])
    assert (table.num_items, table.width) == (7, 4)


def test_cross_entropy_trains_the_table_through_both_uses():
    torch.manual_seed(0)
    table = ItemTable(7, 4).double()
    ids, targets = torch.tensor([1, 2]), torch.tensor([5, 5, 6])
    of_query, weight = torch.tensor([0, 1, 1]), torch.tensor([1.0, 0.5, 0.5])
    loss = table.cross_entropy(table(ids), targets, of_query, weight, chunk_elements=7)
    log_p = (table.weight[ids] @ table.weight.t()).log_softmax(-1)
    expected = -(log_p[of_query, targets] * weight).sum()
    torch.testing.assert_close(loss, expected)
    mine, theirs = (torch.autograd.grad(each, table.weight)[0] for each in (loss, expected))
    torch.testing.assert_close(mine, theirs)


def test_initial_values():
    torch.manual_seed(0)
    weight = ItemTable(1000, 64).weight
    assert abs(weight.mean().item()) < 1e-3
    assert abs(weight.std().item() - 0.02) < 1e-3
