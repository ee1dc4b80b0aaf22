"""BSARec: its filter against Fourier transforms of numpy and torch, the model against the published formulas, padded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import EVENT_TYPES, batches, make_batch, row_sizes, take_rows
from tiny_shop import attnrec_in_process

from attnrec_dist.batch import DataSpec
from attnrec_dist.engine.config import load_run_config
from attnrec_dist.errors import ConfigError
from attnrec_dist.models import build_model, model_config_class
from attnrec_dist.ops.low_pass import kernel, low_pass
from attnrec_dist.ops.packed import Layout, pool_baskets
from attnrec_dist.settings import build

V, L = 30, 40
few_examples = settings(deadline=None, max_examples=20)


def make_model(spec=None, **keys):
    torch.manual_seed(0)
    tree = {"name": "bsarec", "width": 8, "dropout": 0.0, **keys}
    model = build_model(build(model_config_class("bsarec"), tree, "model"), spec or DataSpec(V, L, EVENT_TYPES)).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.mean()), std=0.3)
    return model


def ends_only(batch):
    """The batch with the last query of each row alone, as data.targets prefixes and last have it."""
    row = torch.searchsorted(batch.offsets[1:].long(), batch.queries, right=True)
    last = torch.tensor([int((row == each).nonzero()[-1]) for each in range(len(batch.sample_ids))], dtype=torch.int64)
    kept = torch.isin(batch.target_query, last)
    return dataclasses.replace(
        batch,
        queries=batch.queries[last],
        query_times=batch.query_times[last],
        query_keys=batch.query_keys[last],
        targets=batch.targets[kept],
        target_weight=batch.target_weight[kept],
        target_query=torch.searchsorted(last, batch.target_query[kept]),
    )


def transformed(x, cutoff):
    """Low frequencies of [..., L, D] by way of the transform, as the paper's equation has it."""
    spectrum = torch.fft.rfft(x, dim=-2, norm="ortho")
    spectrum[..., cutoff // 2 + 1 :, :] = 0
    return torch.fft.irfft(spectrum, n=x.shape[-2], dim=-2, norm="ortho")


@given(length=st.integers(1, 60), cutoff=st.integers(1, 90), seed=st.integers(0, 99))
@settings(deadline=None)
def test_the_kernel_is_the_transform(length, cutoff, seed):
    x = np.random.default_rng(seed).normal(size=length)
    spectrum = np.fft.rfft(x)
    spectrum[cutoff // 2 + 1 :] = 0
    distance = (np.arange(length)[:, None] - np.arange(length)) % length
    np.testing.assert_allclose(kernel(length, cutoff).numpy()[distance] @ x, np.fft.irfft(spectrum, n=length), atol=1e-12)


@given(batch=batches(), cutoff=st.sampled_from([1, 4, 5, 90]), causal=st.booleans())
@few_examples
def test_the_filter_is_the_transform_of_the_row_padded_with_zeros(batch, cutoff, causal):
    layout = Layout.of(batch)
    x = torch.randn(batch.num_tokens, 3, dtype=torch.float64)
    ours = low_pass(x, layout, kernel(L, cutoff), causal)
    mean = pool_baskets(x, layout)
    for token in range(batch.num_tokens):
        row, basket = layout.rows[token], batch.baskets[token]
        own = layout.rows == row
        seen = int(basket) + 1 if causal else int(batch.baskets[own].max()) + 1
        padded = torch.zeros(L, 3, dtype=torch.float64)
        for place in range(seen):
            padded[L - seen + place] = mean[own & (batch.baskets == place)][0]
        torch.testing.assert_close(ours[token], transformed(padded, cutoff)[L - seen + basket], rtol=1e-9, atol=1e-12)


def reference(model, batch):
    """The published formulas on a batch padded to L on the left, with dense tensors: the state at each row's end, [B, D]."""
    p, shape = dict(model.named_parameters()), model.blocks[0].shape
    lengths = batch.offsets.diff().tolist()
    real = torch.tensor([[place >= L - length for place in range(L)] for length in lengths])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    embedded = p["table.weight"][batch.items] + p["embedding.events.weight"][batch.events["event"]]
    x = torch.zeros(len(lengths), L, shape.width, dtype=torch.float64)
    x[real] = embedded
    x = norm(x + p["embedding.positions.weight"], "norm")
    hidden = ~(real[:, None, :] & torch.ones(L, L).tril().bool())
    for number in range(len(model.blocks)):
        block = f"blocks.{number}"
        x = x * real[..., None]  # padding is zero
        low = transformed(x, model.config.cutoff)
        filtered = norm(x + low + p[f"{block}.sqrt_beta"] ** 2 * (x - low), f"{block}.norm_filter")
        q, k, v = (each.unflatten(-1, (shape.heads, -1)).transpose(1, 2) for each in linear(x, f"{block}.qkv").chunk(3, dim=-1))
        scores = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).masked_fill(hidden[:, None], -1e9)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        attended = norm(x + linear(mixed, f"{block}.out"), f"{block}.norm_attention")
        x = model.config.alpha * filtered + (1 - model.config.alpha) * attended
        inner = F.gelu(linear(x, f"{block}.widen"))
        x = norm(x + linear(inner, f"{block}.narrow"), f"{block}.norm_feed_forward")
    return x[:, -1]


@given(sizes=row_sizes(singletons=True), heads=st.sampled_from([1, 2]), cutoff=st.sampled_from([1, 5, 12]))
@few_examples
def test_as_published_but_for_zero_padding(sizes, heads, cutoff):
    model = make_model(causal=False, heads=heads, cutoff=cutoff)
    batch = ends_only(make_batch(sizes, V))
    torch.testing.assert_close(model(batch).hidden[batch.queries], reference(model, batch), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sizes", [[1] * L, [2, 1] * 3 + [1] * (L - 6)])
def test_in_one_block_at_a_rows_end_causal_or_not_is_the_same(sizes):
    """The row fills the window, so that positions counted from either end are the same."""
    batch = ends_only(make_batch([sizes], V))
    causal, published = (make_model(blocks=1, causal=each) for each in (True, False))
    ends = [model(batch).hidden[batch.queries] for model in (causal, published)]
    torch.testing.assert_close(*ends, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(causal(batch).hidden[:3], published(batch).hidden[:3])  # elsewhere it sees the future


@given(batch=batches(), causal=st.booleans(), order=st.randoms())
@few_examples
def test_rows_know_nothing_of_one_another(batch, causal, order):
    model, batch = make_model(causal=causal), ends_only(batch)
    rows = list(range(len(batch.sample_ids)))
    order.shuffle(rows)
    ours, shuffled = model(batch).hidden[batch.queries], take_rows(batch, rows)
    torch.testing.assert_close(model(shuffled).hidden[shuffled.queries], ours[rows], rtol=1e-10, atol=1e-10)


def test_the_future_is_refused_where_the_filter_sees_it(shop, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.causal: false .* --data\.targets prefixes"):
        make_model(causal=False)(make_batch([[1, 1, 1]], V))
    tree = yaml.safe_load(shop.run_yaml.read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree | {"model": {"name": "bsarec"}}))
    assert load_run_config(tmp_path / "run.yaml", {}).model.causal
    with pytest.raises(ConfigError, match=r"model\.causal: false .* --data\.targets prefixes .* --model\.causal true"):
        load_run_config(tmp_path / "run.yaml", {"model.causal": False})


PUBLISHED = {"model.causal": "false", "data.targets": "prefixes", "data.empty_history": "true"}


@pytest.mark.parametrize("keys", [{}, PUBLISHED], ids=["causal", "published"])
def test_trains_and_goes_on_bitwise(keys, shop, tmp_path):
    tree = yaml.safe_load(shop.run_yaml.read_text()) | {"model": {"name": "bsarec", "width": 8, "heads": 1, "dropout": 0.3}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))

    def train(run, steps):
        options = [f"--{key}={value}" for key, value in keys.items()]
        options += ["--run_dir", tmp_path / run, "--data", shop.data, "--train.max_steps", steps]
        assert attnrec_in_process("train", tmp_path / "run.yaml", *options) == 0
        return [(tmp_path / run / "last" / f"{name}.safetensors").read_bytes() for name in ("objective", "optimizer")]

    train("cut", 3)
    assert train("cut", 6) == train("whole", 6)
    assert attnrec_in_process("evaluate", tmp_path / "whole") == 0
