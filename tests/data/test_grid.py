"""Several images as one picture."""

import numpy as np
import pytest

from retrac.data.grid import grid


@pytest.mark.parametrize(
    ("count", "columns", "rows_and_columns"),
    [(1, None, (1, 1)), (4, None, (2, 2)), (5, None, (2, 3)), (5, 5, (1, 5)), (3, 2, (2, 2))],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_in_its_place_on_white(
    count: int, columns: int | None, rows_and_columns: tuple[int, int], channels: int
) -> None:
    images = np.random.default_rng(0).integers(0, 255, (count, channels, 32, 40), np.uint8)
    sheet = np.asarray(grid(images, columns))
    rows, across = rows_and_columns
    assert sheet.shape[:2] == (2 + rows * 34, 2 + across * 42)
    rest = sheet.copy()
    for index, image in enumerate(images):
        row, column = divmod(index, across)
        place = (slice(2 + row * 34, 34 + row * 34), slice(2 + column * 42, 42 + column * 42))
        assert np.array_equal(sheet[place].reshape(32, 40, channels), image.transpose(1, 2, 0))
        rest[place] = 255
    assert (rest == 255).all()


@pytest.mark.parametrize(("side", "scale"), [(8, 4), (20, 2), (32, 1), (64, 1)])
def test_small_images_are_enlarged_with_sharp_pixels(side: int, scale: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, 1, side, side), np.uint8)
    sheet = np.asarray(grid(image, gap=0))
    assert np.array_equal(sheet, image[0, 0].repeat(scale, 0).repeat(scale, 1))
