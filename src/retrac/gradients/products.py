"""Matrix products, by the library that has fast code for this processor.

torch multiplies matrices by MKL, which leaves the wide registers (AVX-512) of processors that are
not Intel's unused, and convolves by oneDNN, which uses them: one core of an AMD EPYC multiplies 2.2
times as fast by oneDNN (`python -m benchmarks.products`).
"""

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

ALONE = 2**24
"""Operations of a product from which on it is worth a call of its own, on each core."""
LONG = 64
"""Numbers over which it sums from then on; with fewer, copying its results takes as long."""
PROCESSOR = Path("/proc/cpuinfo")


def by_rows(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right.T` of `[m, k]` and `[n, k]`."""
    return _onednn(left, right) if _served(left) else left @ right.T


def in_place(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """`left @ right` of `[B, G, m, k]` and `[B, G, k, n]`, written to `out` `[B, G, m, n]`."""
    _, groups, rows, inner = left.shape
    operations = 2 * rows * inner * right.shape[3]
    small = inner < LONG or operations < ALONE * torch.get_num_threads()
    if groups > 1 or small or not _served(left):
        return torch.matmul(left, right, out=out)
    for one, other, place in zip(left[:, 0], right[:, 0], out[:, 0], strict=True):
        place.copy_(_onednn(one, other.T))
    return out


def _served(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32 and _mkl_is_slow()


def _onednn(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right.T`, as torch's compiler multiplies."""
    sides = _gapless(left), _gapless(right)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(*sides, None, "none", [], "")
    return product


def _gapless(matrix: Tensor) -> Tensor:
    """A matrix without gaps in memory: with some oneDNN takes a thousand times as long."""
    return matrix if matrix.T.is_contiguous() else matrix.contiguous()


@cache
def _mkl_is_slow() -> bool:
    """Whether products go to MKL, on a processor with AVX-512 that is not Intel's."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "GenuineIntel" not in _processor()
    )


def _processor() -> str:
    return PROCESSOR.read_text() if PROCESSOR.is_file() else platform.processor()
