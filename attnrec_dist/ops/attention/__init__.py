"""Self-attention inside the rows of a packed batch: one function, a file a kernel.

    kernel      runs on                   types         attention dropout
    reference   anything, slowly          any           yes
    bucketed    CPU; GPU                  any           yes
    varlen      GPU, singletons           bf16, fp16    no
    flex        GPU, singletons, baskets  bf16, fp16    no

A kernel is a module with `attend(q, k, v, layout, dropout)` and `obstacle(q, layout, dropout)`: why it cannot serve this
call, or None. `auto` takes the first of AUTO without an obstacle.
"""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from attnrec_dist.errors import ConfigError
from attnrec_dist.ops.attention import bucketed, flex, reference, varlen
from attnrec_dist.ops.packed import Layout
from attnrec_dist.registry import Registry

KERNELS: Registry[ModuleType] = Registry(
    "attention kernel", "", {"reference": reference, "bucketed": bucketed, "varlen": varlen, "flex": flex}
)
AUTO = ("varlen", "flex", "bucketed")


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout, dropout: float = 0.0, kernel: str = "auto") -> Tensor:
    """Scaled dot-product attention; q, k, v and the result are [T, H, D/H].

    A token sees the tokens of its own row that stand in its own basket (all of them, in both directions) or in an
    earlier one. With singletons that is plain causal attention.

    Args:
        dropout: share of attention weights set to zero, as in training; pass 0 in evaluation.
        kernel: `auto` or a name of KERNELS.
    Raises:
        ConfigError: the kernel is unknown, or cannot serve this call; another one never takes its place silently.
    """
    if kernel == "auto":
        kernel = next(name for name in AUTO if KERNELS[name].obstacle(q, layout, dropout) is None)
    chosen = KERNELS.find(kernel)
    reason = chosen.obstacle(q, layout, dropout)
    if reason is not None:
        raise ConfigError(f"attention kernel {kernel} {reason}; use auto, or one of {', '.join(KERNELS)}")
    if layout.num_tokens == 0:
        return q + k + v  # nothing to see, but part of the graph
    result: Tensor = chosen.attend(q, k, v, layout, dropout)
    return result


def attention_at_ends(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """What `attention` gives at the last token of each row, [B, H, D/H], of q [B, H, D/H], k and v [T, H, D/H]: these see their
    whole row, so that one query a row is computed instead of L. Rows are not empty. No dropout; any device and type."""
    return bucketed.attend_at_ends(q, k, v, layout) if layout.num_rows else q
