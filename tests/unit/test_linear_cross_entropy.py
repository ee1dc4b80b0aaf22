"""The chunked loss against F.cross_entropy through autograd, gradcheck, and its promises about memory and types."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from attnrec_dist.ops.linear_cross_entropy import linear_cross_entropy


class Watch(TorchDispatchMode):
    """Sees every operation below autograd: its name, and the size of what it made."""

    def __init__(self):
        super().__init__()
        self.names, self.largest = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.names.append(function.name())
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def problem(queries, targets, items=11, width=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(queries, width, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(items, width, generator=generator, dtype=dtype).requires_grad_()
    of_query = torch.randint(max(queries, 1), (targets,), generator=generator).sort().values
    chosen = torch.randint(items, (targets,), generator=generator)
    share = torch.rand(targets, generator=generator) * (torch.rand(targets, generator=generator) > 0.2)
    return hidden, weight, chosen, of_query, share


def plain(hidden, weight, targets, target_query, target_weight):
    each = F.cross_entropy((hidden @ weight.t())[target_query], targets, reduction="none")
    return (each * target_weight).sum()


@given(queries=st.integers(1, 20), targets=st.integers(0, 40), rows=st.integers(1, 25), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_value_and_gradients_equal_autograd(queries, targets, rows, seed):
    arguments = problem(queries, targets, seed=seed)
    mine = linear_cross_entropy(*arguments, chunk_elements=rows * 11)
    theirs = plain(*arguments)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    for a, b in zip(torch.autograd.grad(3 * mine, arguments[:2]), torch.autograd.grad(3 * theirs, arguments[:2]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_single_precision_stays_close_to_double_over_whole_chunks_and_the_last():
    wide = problem(70, 90, items=301, width=16)
    narrow = [each.detach().float().requires_grad_() for each in wide[:2]]
    mine, exact = linear_cross_entropy(*narrow, *wide[2:], chunk_elements=32 * 301), plain(*wide)
    torch.testing.assert_close(mine.double(), exact, rtol=1e-6, atol=0)
    for a, b in zip(torch.autograd.grad(mine, narrow), torch.autograd.grad(exact, wide[:2]), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


def test_gradcheck():
    hidden, weight, *targets = problem(6, 9)
    assert gradcheck(lambda h, e: linear_cross_entropy(h, e, *targets, chunk_elements=22), (hidden, weight))


def test_no_queries_and_no_targets():
    hidden, weight, *targets = problem(0, 0)
    loss = linear_cross_entropy(hidden, weight, *targets)
    assert loss.item() == 0
    assert [grad.abs().sum().item() for grad in torch.autograd.grad(loss, (hidden, weight))] == [0, 0]


def test_a_query_without_weight_has_no_gradient():
    hidden, weight, targets, _, _ = problem(3, 3)
    loss = linear_cross_entropy(hidden, weight, targets, torch.tensor([0, 1, 2]), torch.tensor([1.0, 0.0, 2.0]))
    gradient = torch.autograd.grad(loss, hidden)[0]
    assert gradient[1].abs().sum() == 0
    assert gradient[0].abs().sum() > 0


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_the_gradient_asked_for_is_formed(frozen):
    arguments = list(problem(4, 6))
    arguments[frozen] = arguments[frozen].detach()
    loss = linear_cross_entropy(*arguments)
    saved = loss.grad_fn.saved_tensors
    assert saved[frozen] is None
    expected = torch.autograd.grad(plain(*arguments), arguments[1 - frozen])[0]
    torch.testing.assert_close(torch.autograd.grad(loss, arguments[1 - frozen])[0], expected)


def test_without_gradients_none_is_formed():
    arguments = problem(4, 6)
    with torch.no_grad(), Watch() as watch:
        loss = linear_cross_entropy(*arguments, chunk_elements=22)
    assert not loss.requires_grad
    assert [name for name in watch.names if "mm" in name] == ["aten::mm"] * 2  # two chunks, each only its logits
    torch.testing.assert_close(loss, plain(*arguments).detach())


def test_extreme_logits_do_not_overflow():
    hidden = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True)
    loss = linear_cross_entropy(hidden, weight, torch.tensor([0, 0]), torch.tensor([0, 1]), torch.ones(2))
    assert loss.item() == 2000
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, (hidden, weight)))


def test_bf16_accumulates_in_fp32():
    # 4,096 equal queries: sums kept in bf16 would stop growing at 256 times one addend.
    hidden = torch.ones(4096, 4, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.zeros(8, 4, dtype=torch.bfloat16, requires_grad=True)
    loss = linear_cross_entropy(
        hidden, weight, torch.zeros(4096, dtype=torch.int64), torch.arange(4096), torch.ones(4096), chunk_elements=16 * 8
    )
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, 4096 * torch.tensor(8.0).log(), rtol=1e-6, atol=0)
    gradient = torch.autograd.grad(loss, weight)[0]
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient[1].float(), torch.full((4,), 4096 / 8), rtol=1e-2, atol=0)


def test_autocast_multiplies_in_bf16_and_returns_fp32_gradients():
    arguments = problem(50, 80, items=40, width=16, dtype=torch.float32)
    exact = linear_cross_entropy(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(*arguments)
    assert loss.dtype == torch.float32
    assert loss.item() != exact.item()  # the products were rounded
    torch.testing.assert_close(loss, exact, rtol=5e-3, atol=0)
    for rounded, full in zip(torch.autograd.grad(loss, arguments[:2]), torch.autograd.grad(exact, arguments[:2]), strict=True):
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, full, rtol=0.05, atol=0.05)


def test_the_device_path_without_slices_gives_the_same(monkeypatch):
    # On a GPU each chunk sees all targets, those of other chunks with weight 0; run that path here.
    from attnrec_dist.ops import linear_cross_entropy as module

    hidden, weight, *targets = problem(17, 40)
    expected = torch.autograd.grad(linear_cross_entropy(hidden, weight, *targets, chunk_elements=55), (hidden, weight))
    monkeypatch.setattr(module, "_on_host", lambda tensor: False)
    actual = torch.autograd.grad(linear_cross_entropy(hidden, weight, *targets, chunk_elements=55), (hidden, weight))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_no_more_than_a_chunk_of_logits_is_alive():
    hidden, weight, *targets = problem(300, 300, items=1000, width=4, dtype=torch.float32)
    with Watch() as watch:
        linear_cross_entropy(hidden, weight, *targets, chunk_elements=7 * 1000).backward()
    assert watch.largest == 7 * 1000


# One expert of a mixture: p(target) = a softmax + b


def mixed(hidden, weight, targets, target_query, target_weight, log_share, log_rest):
    """The formula itself through autograd, holding every logit of every target."""
    softmax = (hidden @ weight.t())[target_query].softmax(-1).gather(1, targets[:, None])[:, 0]
    return -((log_share.exp() * softmax + log_rest.exp()).log() * target_weight).sum()


def mixture_problem(queries, targets, seed):
    arguments = problem(queries, targets, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    log_share, log_rest = (torch.rand(targets, generator=generator, dtype=torch.float64).log() for _ in range(2))
    return [*arguments, log_share.requires_grad_(), log_rest.requires_grad_()]


def with_beside(hidden, weight, targets, target_query, target_weight, log_share, log_rest, **chunks):
    return linear_cross_entropy(hidden, weight, targets, target_query, target_weight, beside=(log_share, log_rest), **chunks)


def all_gradients(loss, arguments):
    return torch.autograd.grad(3 * loss, [each for each in arguments if each.requires_grad], materialize_grads=True)


@pytest.fixture(params=["host", "device"])
def path(request, monkeypatch):
    """The CPU's slices of targets, and the way that a GPU takes."""
    from attnrec_dist.ops import linear_cross_entropy as module

    if request.param == "device":
        monkeypatch.setattr(module, "_on_host", lambda tensor: False)


fixed_path = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(queries=st.integers(1, 20), targets=st.integers(0, 40), rows=st.integers(1, 25), seed=st.integers(0, 99))
@fixed_path
def test_in_a_mixture_value_and_gradients_equal_autograd(path, queries, targets, rows, seed):
    arguments = mixture_problem(queries, targets, seed)
    mine, theirs = with_beside(*arguments, chunk_elements=rows * 11), mixed(*arguments)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(all_gradients(mine, arguments), all_gradients(theirs, arguments), rtol=1e-10, atol=1e-10)


def test_gradcheck_in_a_mixture(path):
    hidden, weight, *targets, log_share, log_rest = mixture_problem(6, 9, 1)
    assert gradcheck(
        lambda h, e, a, b: with_beside(h, e, *targets, a, b, chunk_elements=22), (hidden, weight, log_share, log_rest)
    )


@pytest.mark.parametrize(("place", "value"), [(6, -torch.inf), (6, -1e4), (5, -torch.inf), (5, -1e4), (5, -300.0), (6, -300.0)])
def test_an_expert_that_rules_a_target_out_leaves_it_to_the_others(path, place, value):
    """place 5: the softmax has no share; place 6: the others give the target nothing. No NaN, and the other side's gradient."""
    arguments = mixture_problem(7, 12, 2)
    arguments[place] = arguments[place].detach().clone()
    arguments[place][::2] = value
    arguments[place].requires_grad_()
    mine = with_beside(*arguments, chunk_elements=22)
    found = all_gradients(mine, arguments)
    assert all(each.isfinite().all() for each in found)
    theirs = mixed(*arguments)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, all_gradients(theirs, arguments), rtol=1e-10, atol=1e-10)


def test_a_target_that_nobody_gives_more_than_a_trace_keeps_its_gradient(path):
    """Both sides far below what a float can hold: the loss is their logarithm, the gradient that of the larger."""
    arguments = mixture_problem(4, 4, 3)
    arguments[3], arguments[4] = torch.arange(4), torch.ones(4)
    arguments[5], arguments[6] = (torch.full((4,), value, dtype=torch.float64, requires_grad=True) for value in (-1e4, -2e4))
    loss = with_beside(*arguments, chunk_elements=22)
    assert loss.item() == pytest.approx(plain(*arguments[:5]).item() + 4e4, rel=1e-12)
    hidden, _, of_share, of_rest = all_gradients(loss, arguments)
    assert of_share.tolist() == [-3.0] * 4
    assert of_rest.tolist() == [0.0] * 4
    torch.testing.assert_close(hidden, torch.autograd.grad(3 * plain(*arguments[:5]), arguments[0])[0])


def test_alone_in_the_mixture_it_is_the_plain_loss(path):
    arguments = problem(9, 17)
    none, all_of_it = torch.full((17,), -torch.inf), torch.zeros(17)
    loss = with_beside(*arguments, all_of_it, none, chunk_elements=33)
    torch.testing.assert_close(loss, plain(*arguments), rtol=1e-12, atol=1e-12)


def test_a_mixture_without_gradients_forms_none(path):
    arguments = mixture_problem(4, 6, 0)
    with torch.no_grad(), Watch() as watch:
        loss = with_beside(*arguments, chunk_elements=22)
    assert not loss.requires_grad
    assert [name for name in watch.names if "mm" in name] == ["aten::mm"] * 2
    torch.testing.assert_close(loss, mixed(*arguments).detach())


def test_a_mixture_in_fp32_and_bf16_stays_close():
    arguments = mixture_problem(50, 80, 4)
    exact = mixed(*arguments)
    arguments = [
        each.detach().float().requires_grad_(each.requires_grad) if each.is_floating_point() else each for each in arguments
    ]
    torch.testing.assert_close(with_beside(*arguments).double(), exact, rtol=1e-6, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = with_beside(*arguments)
    torch.testing.assert_close(loss.double(), exact, rtol=5e-3, atol=0)
    assert {each.dtype for each in all_gradients(loss, arguments)} == {torch.float32}
