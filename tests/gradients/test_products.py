"""Matrix products are the same by either library."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from retrac.gradients import products

NEEDS_ONEDNN = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch was built without oneDNN"
)


@pytest.fixture(params=[False, pytest.param(True, marks=NEEDS_ONEDNN)], ids=["torch", "oneDNN"])
def by_onednn(request, monkeypatch) -> bool:
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: request.param)
    monkeypatch.setattr(products, "ALONE", 0)
    monkeypatch.setattr(products, "LONG", 0)
    calls: list[int] = []
    multiply = products._onednn
    monkeypatch.setattr(products, "_onednn", lambda *sides: calls.append(1) or multiply(*sides))
    yield request.param
    assert bool(calls) == request.param


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float32)


def laid_out(matrix: Tensor) -> list[Tensor]:
    """A matrix as it lies, transposed in memory, and with gaps."""
    wide = matrix.new_zeros(*matrix.shape[:-1], matrix.shape[-1] + 3)
    wide[..., :-3] = matrix
    return [matrix, matrix.mT.contiguous().mT, wide[..., :-3]]


def test_by_rows(by_onednn):
    left, right = numbers(7, 20), numbers(5, 20)
    expected = (left.double() @ right.double().T).float()
    for one in laid_out(left):
        for other in laid_out(right):
            torch.testing.assert_close(products.by_rows(one, other), expected)


def test_in_place(by_onednn):
    left, right = numbers(3, 1, 7, 20), numbers(3, 1, 20, 5)
    expected = (left.double() @ right.double()).float()
    for one in laid_out(left):
        for other in laid_out(right):
            for out in laid_out(numbers(3, 1, 7, 5)):
                assert products.in_place(one, other, out) is out
                torch.testing.assert_close(out, expected)


def test_groups_and_double_precision_go_to_torch(monkeypatch):
    monkeypatch.setattr(products, "_mkl_is_slow", lambda: True)
    monkeypatch.setattr(products, "ALONE", 0)
    monkeypatch.setattr(products, "LONG", 0)
    monkeypatch.setattr(products, "_onednn", None)
    left, right = numbers(3, 2, 7, 20), numbers(3, 2, 20, 5)
    products.in_place(left, right, numbers(3, 2, 7, 5))
    products.by_rows(left[0, 0].double(), right[0, 0].T.double())


@pytest.mark.parametrize(
    ("processor", "capability", "slow"),
    [
        ("vendor_id : AuthenticAMD", "AVX512", True),
        ("vendor_id : AuthenticAMD", "AVX2", False),
        ("vendor_id : GenuineIntel", "AVX512", False),
    ],
)
def test_mkl_is_slow_on_wide_registers_that_are_not_intels(
    tmp_path: Path, monkeypatch, processor, capability, slow
):
    (tmp_path / "cpuinfo").write_text(processor)
    monkeypatch.setattr(products, "PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    products._mkl_is_slow.cache_clear()
    try:
        assert products._mkl_is_slow() is slow
    finally:
        products._mkl_is_slow.cache_clear()
