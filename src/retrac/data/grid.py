"""Several images as one picture."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrac.data.images import to_pil


def grid(images: NDArray[np.uint8], columns: int | None = None, gap: int = 2) -> Image.Image:
    """Put images in rows on a white ground, enlarged to at least 32 pixels each.

    Args:
        images: uint8 `[K, C, H, W]`.
        columns: images in a row; by default as many as there are rows.
        gap: white pixels between images, before they are enlarged.
    """
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full(
        (channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, np.uint8
    )
    for index, image in enumerate(images):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    picture = to_pil(sheet)
    scale = max(1, math.ceil(32 / max(height, width)))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
