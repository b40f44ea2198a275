"""Metrics of features, held against dense algebra."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retrac.attribution.feature_work import pseudo_groups
from retrac.attribution.metrics import DampedKernel, Freedom, Identity, UnitNorm, damped_inverse

from . import dense

LAYERS = [slice(0, 3), slice(3, 20), slice(20, 21), slice(21, 30)]


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


numbers = st.floats(-8, 8, allow_nan=False).map(lambda value: 0.0 if abs(value) < 1e-3 else value)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 7), st.integers(1, 7), st.sampled_from([0.01, 0.3, 10.0]))
def test_an_inverse_is_the_dense_one(
    data: st.DataObject, count: int, size: int, damping: float
) -> None:
    """With fewer samples than numbers, with more, with as many, and where some numbers are zero."""
    samples = torch.from_numpy(data.draw(arrays(np.float64, (count, size), elements=numbers)))
    samples[:, data.draw(st.lists(st.integers(0, size - 1)))] = 0
    queries = torch.from_numpy(data.draw(arrays(np.float64, (3, size), elements=numbers)))
    found = damped_inverse(samples, damping)(queries)
    strength = damping * (samples**2).sum() / count
    if strength == 0:
        assert not found.any()
        return
    matrix = samples.T @ samples + strength * torch.eye(size, dtype=torch.float64)
    expected = queries @ torch.linalg.inv(matrix)
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8 * scale)


@pytest.mark.parametrize("count", [5, 40])
def test_a_kernel_is_the_same_in_either_form(count: int) -> None:
    samples, queries = drawn(count, 30), drawn(4, 30)
    found = DampedKernel(0.3).fit(samples, LAYERS)(queries) @ samples.T
    torch.testing.assert_close(found, dense.kernel(queries, samples, 0.3), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("count", "freedom"), [(5, 2.0), (12, 25), (40, 2.0), (40, 12.5), (40, 25)]
)
def test_a_kernel_of_some_degrees_of_freedom(count: int, freedom: float) -> None:
    """With fewer samples than numbers and with more; 25 are more than half of any rank here."""
    samples, queries = drawn(count, 30), drawn(4, 30)
    found = DampedKernel(Freedom(freedom)).fit(samples, LAYERS)(queries) @ samples.T
    torch.testing.assert_close(
        found, dense.freely(queries, samples, freedom), rtol=1e-8, atol=1e-12
    )


def test_some_of_many_samples_decide_on_degrees_of_freedom(monkeypatch) -> None:
    samples = drawn(900, 30) * torch.linspace(0.1, 3, 30)
    gram = samples.T @ samples
    every = Freedom(8.0).strength(samples, gram)
    monkeypatch.setattr("retrac.attribution.metrics.MOST", 300)
    assert Freedom(8.0).strength(samples, gram) == pytest.approx(every, rel=0.1)
    assert Freedom(8.0).strength(torch.zeros(900, 30), torch.zeros(30, 30)) == 0


def test_kernels_by_layer_are_fitted_to_some_layers_as_to_all() -> None:
    samples, queries = drawn(12, 30), drawn(4, 30)
    metric = DampedKernel(0.3, by_layer=True)
    whole = metric.fit(samples, LAYERS)(queries) @ samples.T
    by_layer = [dense.kernel(queries[:, each], samples[:, each], 0.3) for each in LAYERS]
    expected = sum(by_layer) / len(LAYERS)
    torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-12)
    assert metric.separable  # and of no other metric is this true
    assert not any(each.separable for each in (Identity(), UnitNorm(), DampedKernel(0.3)))
    lots = (LAYERS[:1], LAYERS[1:])
    parts = []
    for lot in lots:
        some = slice(lot[0].start, lot[-1].stop)
        moved = [slice(each.start - some.start, each.stop - some.start) for each in lot]
        one, two = queries[:, some], samples[:, some]
        parts.append(len(lot) / len(LAYERS) * (metric.fit(two, moved)(one) @ two.T))
    torch.testing.assert_close(sum(parts), whole, rtol=1e-9, atol=1e-12)


def test_a_kernel_does_not_know_the_scale_of_a_layer() -> None:
    """Every layer speaks with one voice, however large its gradients are."""
    samples, queries = drawn(12, 30), drawn(4, 30)
    loud = torch.ones(30, dtype=torch.float64)
    loud[LAYERS[1]] = 1000
    metric = DampedKernel(0.3, by_layer=True)
    quietly = metric.fit(samples, LAYERS)(queries) @ samples.T
    loudly = metric.fit(loud * samples, LAYERS)(loud * queries) @ (loud * samples).T
    torch.testing.assert_close(loudly, quietly)


def test_many_samples_in_single_precision_are_fitted_as_in_double() -> None:
    """λ is a small share of the sum of all products, and must not drown in it."""
    common, stream = torch.randn(1, 8), torch.Generator().manual_seed(0)
    samples = 3 * common + 0.01 * torch.randn(60_000, 8, generator=stream)
    queries = 0.01 * torch.randn(4, 8, generator=stream)
    single = damped_inverse(samples, 1e-3)(queries)
    double = damped_inverse(samples.double(), 1e-3)(queries.double())
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-7 * double.abs().max())


def test_vectors_of_zeros_stay_so() -> None:
    queries = torch.zeros(2, 30)
    kernels = (DampedKernel(0.3), DampedKernel(0.3, by_layer=True), DampedKernel(Freedom(2.0)))
    for metric in (Identity(), UnitNorm(), *kernels):
        assert not metric.fit(torch.ones(5, 30), LAYERS)(queries).any()
        assert torch.isfinite(metric.fit(torch.zeros(5, 30), LAYERS)(torch.ones(2, 30))).all()


@pytest.mark.parametrize("parts", [2, 4])
def test_contributions_of_parts_show_the_error_of_the_jackknife(parts: int) -> None:
    scores = np.random.default_rng(0).normal(size=(1 + parts, 3, 5))
    found = pseudo_groups(scores)
    np.testing.assert_allclose(found.sum(0), scores[0])
    without = scores[1:]
    squares = (np.square(without - without.mean(0)).sum(0)) * (parts - 1) / parts
    np.testing.assert_allclose(parts * found.var(0, ddof=1), squares)
