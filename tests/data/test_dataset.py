"""An ImageDataset: validated, read-only, and known by its fingerprint."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrac.data.dataset import ImageDataset
from retrac.errors import RetracError

images = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(2, 5), st.sampled_from([1, 3]), st.integers(1, 4), st.integers(1, 4)),
)


def dataset(pixels: np.ndarray, ids: list[str] | None = None) -> ImageDataset:
    return ImageDataset("x", pixels, tuple(ids or map(str, range(len(pixels)))))


@settings(max_examples=50)
@given(images)
def test_equal_content_has_an_equal_fingerprint(pixels: np.ndarray) -> None:
    strided = np.asfortranarray(pixels.copy())
    assert dataset(pixels).fingerprint == dataset(strided).fingerprint


@settings(max_examples=50)
@given(images, st.data())
def test_any_pixel_changes_the_fingerprint(pixels: np.ndarray, data: st.DataObject) -> None:
    where = tuple(data.draw(st.integers(0, size - 1)) for size in pixels.shape)
    changed = pixels.copy()
    changed[where] ^= data.draw(st.integers(1, 255))
    assert dataset(pixels).fingerprint != dataset(changed).fingerprint


@settings(max_examples=50)
@given(images)
def test_order_ids_and_resolution_change_the_fingerprint(pixels: np.ndarray) -> None:
    whole = dataset(pixels)
    ids = list(whole.ids)
    count, channels, height, width = pixels.shape
    reshaped = pixels.reshape(count, channels, 1, height * width)
    others = [
        dataset(pixels[::-1], ids[::-1]),
        dataset(pixels, ids[::-1]),
        dataset(pixels[:-1]),
        *([dataset(reshaped)] if reshaped.shape != pixels.shape else []),
    ]
    assert whole.fingerprint not in {other.fingerprint for other in others}


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    fixed = dataset(np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2))
    assert fixed.fingerprint.startswith("bc6dc0186f69a2b5")


def test_tensors_are_float32_in_minus_one_to_one() -> None:
    pixels = np.array([0, 255, 51], np.uint8).reshape(3, 1, 1, 1)
    batch = dataset(pixels).tensors([1, 0, 2, 1])
    assert batch.dtype == torch.float32 and batch.shape == (4, 1, 1, 1)
    assert batch.flatten().tolist() == pytest.approx([1.0, -1.0, -0.6, 1.0])
    assert torch.equal(dataset(pixels).tensors(torch.tensor([0])), -torch.ones(1, 1, 1, 1))
    assert dataset(pixels).tensors([]).shape == (0, 1, 1, 1)


def test_length_shape_and_being_read_only() -> None:
    pixels = np.zeros((5, 3, 4, 6), np.uint8)
    samples = dataset(pixels)
    assert len(samples) == 5 and samples.shape == (3, 4, 6)
    with pytest.raises(ValueError, match="read-only"):
        samples.images[0] = 1
    pixels[0] = 1  # the caller's own array stays his


@pytest.mark.parametrize(
    ("pixels", "ids", "labels", "message"),
    [
        (np.zeros((2, 3, 4, 4), np.float32), "ab", None, "must be uint8"),
        (np.zeros((2, 2, 4, 4), np.uint8), "ab", None, "C = 1 or 3"),
        (np.zeros((2, 4, 4), np.uint8), "ab", None, "C = 1 or 3"),
        (np.zeros((0, 3, 4, 4), np.uint8), "", None, "no samples"),
        (np.zeros((2, 3, 4, 4), np.uint8), "a", None, "1 ids for 2 images"),
        (np.zeros((2, 3, 4, 4), np.uint8), "ab", "x", "1 labels for 2 images"),
        (np.zeros((2, 3, 4, 4), np.uint8), "aa", None, "'a' occurs more than once"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    pixels: np.ndarray, ids: str, labels: str | None, message: str
) -> None:
    with pytest.raises(RetracError, match=message):
        ImageDataset("x", pixels, tuple(ids), labels and tuple(labels))
