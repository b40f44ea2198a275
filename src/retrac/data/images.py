"""Image files and PIL images to arrays and back; the only place that knows about either."""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from retrac.errors import RetracError
from retrac.progress import progress

Pixels: TypeAlias = NDArray[np.uint8]

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
GREY_MODES = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"}

# What PIL raises for broken files, depending on the format and on where the damage is.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def files_in(folder: Path) -> list[Path]:
    """Return all files below `folder`, sorted by relative path; hidden ones are left out."""
    found: list[Path] = []
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def image_files(folder: Path) -> list[Path]:
    """Return all image files below `folder`, recursively, sorted by relative path."""
    return [path for path in files_in(folder) if path.suffix.lower() in EXTENSIONS]


@contextmanager
def reading(what: object) -> Iterator[None]:
    """Turn what PIL raises for a broken image into a RetracError that names it."""
    try:
        yield
    except BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RetracError(
            f"cannot read the image {what} ({reason}): replace or remove it"
        ) from error


def is_grey(image: Image.Image) -> bool:
    """Tell from the header whether an image has no colour."""
    return image.mode in GREY_MODES


def from_pil(image: Image.Image, resolution: int | None, channels: int) -> Pixels:
    """Convert to uint8 `[channels, H, W]`; channels is 1 (luminance) or 3 (RGB).

    With a resolution, the image is cropped to a centred square and resized (bicubic,
    antialiased). Orientation tags are applied; transparency is laid over white.
    """
    image = _opaque(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
    if resolution is not None and image.size != (resolution, resolution):
        image = _centre(image).resize((resolution, resolution), Image.Resampling.BICUBIC)
    pixels = np.array(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _centre(image: Image.Image) -> Image.Image:
    """Crop to the largest centred square; before resizing, so that nothing outside bleeds in."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel; PIL's own conversion clips at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no agreed range: save it with 8 or 16 bits")
    if image.mode.endswith("A") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image


def to_pil(pixels: Pixels) -> Image.Image:
    """Convert uint8 `[C, H, W]` with C = 1 or 3 to a greyscale or RGB image."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def read_image(path: Path, shape: tuple[int, int, int] | None = None) -> Pixels:
    """Read one image file as uint8 `[C, H, W]`, never resized.

    Args:
        path: The file.
        shape: The (C, H, W) needed; None takes the image as it is. Grey becomes RGB by
            repetition, and RGB whose channels are equal becomes grey: both lose nothing.

    Raises:
        RetracError: broken file, wrong size, or colour where grey is needed.
    """
    with reading(path), Image.open(path) as image:
        pixels = from_pil(image, None, 1 if is_grey(image) else 3)
    if shape is None:
        return pixels
    channels, height, width = shape
    if pixels.shape[1:] != (height, width):
        raise RetracError(
            f"{path} is {pixels.shape[2]}x{pixels.shape[1]} pixels, but {width}x{height} "
            "are needed: crop or resize it first"
        )
    if channels == 1 and (pixels != pixels[:1]).any():
        raise RetracError(
            f"{path} is in colour, but greyscale is needed (1 channel): convert it first"
        )
    return pixels[:1] if channels == 1 else np.broadcast_to(pixels, shape).copy()


def read_images(
    source: Path, shape: tuple[int, int, int] | None = None
) -> tuple[tuple[str, ...], Pixels]:
    """Read an image, or all below a folder, as (ids, uint8 `[N, C, H, W]`), never resized.

    Ids are the file's name, or the paths relative to the folder. Without a `shape`, the
    first image sets it.

    Raises:
        RetracError: nothing there, or any image that `read_image` refuses.
    """
    if not source.exists():
        raise RetracError(f"{source} does not exist: give an image file or a folder of images")
    files = image_files(source) if source.is_dir() else [source]
    if not files:
        raise RetracError(f"{source} holds no images ({', '.join(sorted(EXTENSIONS))})")
    root = source if source.is_dir() else source.parent
    arrays: list[Pixels] = []
    with progress("reading images", len(files), "image", shown=len(files) > 100) as advance:
        for path in files:
            arrays.append(read_image(path, shape))
            shape = shape or (arrays[0].shape[0], arrays[0].shape[1], arrays[0].shape[2])
            advance()
    return tuple(path.relative_to(root).as_posix() for path in files), np.stack(arrays)
