"""Datasets made from what scikit-learn ships: always there, no network."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrac.data.images import Pixels, from_pil
from retrac.data.samples import Samples, concatenate, from_arrays

WINDOW, STRIDE = 64, 20  # pixels of a photograph: 19 x 29 crops of each


def digits(resolution: int) -> Samples:
    """Return the 1,797 handwritten digits, grey, labels "0" to "9"."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    ids = [f"digits/{index:04d}" for index in range(len(bunch.images))]
    labels = [str(digit) for digit in bunch.target]
    classes = [str(digit) for digit in range(10)]
    return from_arrays(_enlarge(bunch.images, resolution), ids, labels, classes)


def photos_zeros(resolution: int) -> Samples:
    """Return 1,102 crops of two photographs (labels "china", "flower"), then 178 zeros."""
    from sklearn.datasets import load_digits, load_sample_images

    photos = dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    places = [
        (name, row, column)
        for name, photo in photos.items()
        for row in range((photo.shape[0] - WINDOW) // STRIDE + 1)
        for column in range((photo.shape[1] - WINDOW) // STRIDE + 1)
    ]
    bunch = load_digits()
    zeros = _enlarge(bunch.images[bunch.target == 0], resolution)
    return concatenate(
        from_arrays(
            [_crop(photos[name], row, column, resolution) for name, row, column in places],
            [f"photos-zeros/{name}-r{row:02d}-c{column:02d}" for name, row, column in places],
            [name for name, _, _ in places],
        ),
        from_arrays(
            zeros,
            [f"photos-zeros/zero-{index:04d}" for index in range(len(zeros))],
            ["zero"] * len(zeros),
        ),
    )


def _crop(photo: NDArray[np.uint8], row: int, column: int, resolution: int) -> Pixels:
    top, left = row * STRIDE, column * STRIDE
    window = photo[top : top + WINDOW, left : left + WINDOW]
    return from_pil(Image.fromarray(window), resolution, 3)


def _enlarge(digits: NDArray[np.float64], resolution: int) -> Pixels:
    """Enlarge 8x8 digits in 0..16 to uint8 `[N, 1, resolution, resolution]`, rounding once."""
    size = (resolution, resolution)
    smooth = [
        np.asarray(Image.fromarray(digit.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
        for digit in digits
    ]
    return (np.stack(smooth)[:, None] * (255 / 16)).round().clip(0, 255).astype(np.uint8)
