"""Nearness in patches is the softmax of its formula, over all patches of all samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrac.evaluation.patches import LARGEST, SCALES, Scale, patch_scores, signal

SHAPES = [(1, 8, 8), (3, 8, 8), (1, 6, 9), (2, 3, 5), (1, 1, 1)]


def images(count: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def plain_shares(query: np.ndarray, samples: np.ndarray, scale: Scale) -> np.ndarray:
    """One patch after the other, in float64; with steps of one pixel."""
    side, kept = max(1, min(query.shape[1:]) // scale.part), signal(scale.timestep)

    def patches(image: np.ndarray) -> list[np.ndarray]:
        pixels = image / 127.5 - 1
        return [
            pixels[:, top : top + side, left : left + side]
            for top in range(image.shape[1] - side + 1)
            for left in range(image.shape[2] - side + 1)
        ]

    shares, of_query = np.zeros(len(samples)), patches(query)
    for patch in of_query:
        x = np.sqrt(kept) * patch
        weights = [
            [np.exp(-((x - np.sqrt(kept) * y) ** 2).sum() / (2 * (1 - kept))) for y in patches(one)]
            for one in samples
        ]
        shares += np.sum(weights, 1) / np.sum(weights) / len(of_query)
    return shares


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [*SCALES, Scale(3, 500), Scale(1, 1000)])
def test_shares_are_those_of_a_plain_loop(shape: tuple[int, ...], scale: Scale) -> None:
    samples = images(5, shape)
    queries = np.stack([samples[2], (0.7 * samples[4]).astype(np.uint8)])
    expected = [plain_shares(query, samples, scale) for query in queries]
    found = patch_scores(queries, samples, scales=[scale])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-9)


def test_scales_are_mixed_in_equal_parts() -> None:
    samples = images(6, (1, 8, 8))
    one, other = (patch_scores(samples[:2], samples, scales=[scale]) for scale in SCALES)
    np.testing.assert_allclose(patch_scores(samples[:2], samples), (one + other) / 2, rtol=1e-12)


def test_signal_is_that_of_the_ddpm_schedule() -> None:
    assert signal(0) == 1 and signal(1) == pytest.approx(1 - 1e-4)
    assert signal(1000) == pytest.approx(4.04e-5, rel=0.01)  # Ho et al. 2020: almost nothing
    assert signal(100) > signal(200) > signal(500)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 64, 64), (1, 28, 20)])
def test_a_sample_is_nearest_to_itself(shape: tuple[int, ...]) -> None:
    samples = images(12, shape)
    found = patch_scores(samples[3:6], samples)
    assert found.shape == (3, 12) and found.dtype == np.float64
    assert (found.argmax(1) == [3, 4, 5]).all()


def test_a_shifted_copy_is_nearer_in_patches_than_others() -> None:
    samples = images(10, (1, 16, 16))
    shifted = np.roll(samples[7:8], (2, 1), (2, 3))
    assert patch_scores(shifted, samples).argmax() == 7


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(SHAPES), st.integers(1, 9), st.integers(1, 3000), st.integers(0, 99))
def test_shares_add_up_to_one_however_the_work_is_divided(
    shape: tuple[int, ...], count: int, weights: int, seed: int
) -> None:
    samples, queries = images(count, shape, seed), images(2, shape, seed + 1)
    found = patch_scores(queries, samples, weights=weights)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-9)
    np.testing.assert_allclose(found, patch_scores(queries, samples), rtol=1e-3, atol=1e-12)
    turned = patch_scores(queries[::-1], samples[::-1])
    np.testing.assert_allclose(found, turned[::-1, ::-1], rtol=1e-3, atol=1e-12)


def test_equal_samples_have_equal_shares_and_all_is_the_same_again() -> None:
    samples = images(4, (3, 8, 8))
    samples[2] = samples[1]
    found = patch_scores(samples, samples)
    assert (found == patch_scores(samples, samples)).all()
    np.testing.assert_allclose(found[:, 1], found[:, 2], rtol=1e-3)


def test_large_images_are_looked_at_as_small_ones() -> None:
    small = images(4, (3, LARGEST, LARGEST // 2))
    large = small.repeat(4, 2).repeat(4, 3)
    assert (patch_scores(large[:1], large) == patch_scores(small[:1], small)).all()


def test_queries_are_counted_one_by_one() -> None:
    done: list[int] = []
    patch_scores(images(3, (1, 8, 8)), images(5, (1, 8, 8)), advance=done.append)
    assert done == [1, 1, 1]
