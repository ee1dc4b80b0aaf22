"""The item table: it embeds and scores with the same numbers."""

from __future__ import annotations

import pytest
import torch

from attnrec_dist.ops.item_table import ItemTable
from attnrec_dist.ops.products import times_transposed


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 3, 4), (128, 64, 300), (1, 64, 1), (0, 2, 3)])
def test_products_take_any_strides(dtype, shape):
    n, width, m = shape
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(width, n, generator=generator).t().to(dtype), torch.randn(width, m, generator=generator).t().to(dtype)
    exact = a.double() @ b.double().t()
    for left, right in [(a, b), (a.contiguous(), b), (a, b.contiguous()), (a.contiguous(), b.contiguous())]:
        product = times_transposed(left, right)
        assert product.dtype == dtype
        torch.testing.assert_close(product, exact.to(dtype))


def test_scores_are_the_same_with_and_without_gradients():
    torch.manual_seed(0)
    table, hidden = ItemTable(50, 16), torch.randn(7, 16)
    with torch.no_grad():
        alone = table.logits(hidden, 3, 40)
    torch.testing.assert_close(alone, table.logits(hidden, 3, 40).detach())
