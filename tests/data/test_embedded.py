"""The two datasets that need no network."""

import numpy as np
import pytest

from retrac.data.dataset import ImageDataset
from retrac.errors import RetracError

from .local_copies import open_named


@pytest.fixture(scope="module")
def photos_zeros() -> ImageDataset:
    return open_named("photos-zeros")


def test_digits_are_1797_grey_images_labelled_with_their_digit() -> None:
    digits = open_named("digits")
    assert len(digits) == 1797 and digits.shape == (1, 16, 16)
    assert digits.ids[42] == "digits/0042"
    assert digits.labels is not None and digits.labels[:10] == tuple("0123456789")
    assert digits.images.min() == 0 and digits.images.max() == 255


def test_digits_keep_their_shape_when_enlarged() -> None:
    small, large = open_named("digits", resolution=8), open_named("digits", resolution=32)
    blocks = large.images.reshape(-1, 8, 4, 8, 4).mean((2, 4))
    correlation = np.corrcoef(small.images.ravel(), blocks.ravel())[0, 1]
    assert large.shape == (1, 32, 32) and correlation > 0.97


def test_photos_zeros_are_1102_crops_then_178_zeros(photos_zeros: ImageDataset) -> None:
    labels = photos_zeros.labels
    assert labels == ("china",) * 551 + ("flower",) * 551 + ("zero",) * 178
    assert photos_zeros.shape == (3, 16, 16)
    assert photos_zeros.ids[0] == "photos-zeros/china-r00-c00"
    assert photos_zeros.ids[551 + 3 * 29 + 11] == "photos-zeros/flower-r03-c11"
    assert photos_zeros.ids[-1] == "photos-zeros/zero-0177"


def test_zeros_are_grey_and_crops_overlap(photos_zeros: ImageDataset) -> None:
    zeros = photos_zeros.images[1102:]
    assert (zeros == zeros[:, :1]).all() and zeros.max() == 255
    here, right = photos_zeros.images[5 * 29 + 10], photos_zeros.images[5 * 29 + 11]
    shifted = np.abs(here[:, :, 5:].astype(int) - right[:, :, :-5]).mean()
    assert shifted < np.abs(here.astype(int) - right).mean()  # 20 of 64 pixels: 5 of 16


def test_embedded_samples_are_the_same_every_time(photos_zeros: ImageDataset) -> None:
    assert open_named("photos-zeros").fingerprint == photos_zeros.fingerprint
    assert open_named("photos-zeros", resolution=8).fingerprint != photos_zeros.fingerprint


def test_the_first_samples_only() -> None:
    few, all_of_them = open_named("digits", limit=7), open_named("digits", limit=10**6)
    assert few.ids == all_of_them.ids[:7] and len(all_of_them) == 1797


def test_options_without_effect_are_refused() -> None:
    with pytest.raises(RetracError, match="leave out --dataset-path"):
        open_named("digits", split="test")
