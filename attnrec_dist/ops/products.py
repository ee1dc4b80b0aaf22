"""fp32 matrix products on the CPU by oneDNN, where this PyTorch has it.

PyTorch multiplies fp32 with MKL, which leaves AVX-512 unused on AMD: 110 GFLOP/s on a core on which oneDNN does 250 (on Intel
they are about equal). oneDNN compiles a kernel for each shape that it meets, so this is for shapes that come again. No gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor


def times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a b': [n, D] and [m, D] -> [n, m], any strides and any type; sums of fp32 in fp32."""
    if len(a) and by_onednn(a):
        result: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return result
    return torch_times_transposed(a, b)


def torch_times_transposed(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.t()


def by_onednn(a: Tensor) -> bool:
    """Whether products of this tensor go through oneDNN."""
    if a.dtype != torch.float32 or a.device.type != "cpu":
        return False
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
