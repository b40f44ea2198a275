"""Images to arrays and back; queries must fit exactly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from retrac.data.images import from_pil, image_files, read_image, read_images, to_pil
from retrac.errors import RetracError

from .local_copies import noise, save_image

GREY, RGB = (1, 8, 8), (3, 8, 8)


@settings(max_examples=50)
@given(
    hnp.arrays(np.uint8, st.tuples(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)))
)
def test_to_pil_and_back_is_exact(pixels: np.ndarray) -> None:
    assert (from_pil(to_pil(pixels), None, len(pixels)) == pixels).all()


@pytest.mark.parametrize("shape", [GREY, RGB])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_a_lossless_file_is_read_exactly(
    tmp_path: Path, shape: tuple[int, int, int], suffix: str
) -> None:
    pixels = noise(1, *shape)[0]
    save_image(tmp_path / f"x.{suffix}", pixels)
    assert (read_image(tmp_path / f"x.{suffix}", shape) == pixels).all()
    assert (read_image(tmp_path / f"x.{suffix}") == pixels).all()


def test_grey_and_rgb_change_into_each_other_only_without_loss(tmp_path: Path) -> None:
    grey, colour = noise(1, *GREY)[0], noise(1, *RGB)[0]
    save_image(tmp_path / "grey.png", grey)
    save_image(tmp_path / "same.png", np.repeat(grey, 3, axis=0))
    save_image(tmp_path / "colour.png", colour)
    assert (read_image(tmp_path / "grey.png", RGB) == grey).all()
    assert (read_image(tmp_path / "same.png", GREY) == grey).all()
    with pytest.raises(RetracError, match=r"colour\.png is in colour, but greyscale"):
        read_image(tmp_path / "colour.png", GREY)


def test_a_query_of_the_wrong_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    save_image(tmp_path / "wide.png", noise(1, 3, 8, 12)[0])
    with pytest.raises(RetracError, match=r"wide\.png is 12x8 pixels, but 8x8 are needed"):
        read_image(tmp_path / "wide.png", RGB)


def test_broken_images_are_named(tmp_path: Path, broken_png: Callable[[Path], None]) -> None:
    (tmp_path / "text.png").write_text("not an image")
    broken_png(tmp_path / "half.png")
    for name in ("text.png", "half.png"):
        with pytest.raises(RetracError, match=rf"cannot read the image .*{name}") as caught:
            read_image(tmp_path / name, GREY)
        assert "\n" not in str(caught.value)


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path) -> None:
    pixels = noise(3, *RGB)
    for name, image in zip(("b/0.png", "a.PNG", "b/.hidden.png"), pixels, strict=True):
        save_image(tmp_path / name, image)
    (tmp_path / "notes.txt").write_text("skip me")
    ids, images = read_images(tmp_path, RGB)
    assert ids == ("a.PNG", "b/0.png")
    assert (images == pixels[[1, 0]]).all()
    assert image_files(tmp_path) == [tmp_path / "a.PNG", tmp_path / "b/0.png"]


def test_a_single_file_is_a_batch_of_one(tmp_path: Path) -> None:
    save_image(tmp_path / "q.png", noise(1, *GREY)[0])
    ids, images = read_images(tmp_path / "q.png")
    assert ids == ("q.png",) and images.shape == (1, *GREY)


def test_without_a_shape_the_first_image_sets_it(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", noise(1, 3, 8, 8)[0])
    save_image(tmp_path / "b.png", noise(1, 3, 9, 9)[0])
    with pytest.raises(RetracError, match=r"b\.png is 9x9"):
        read_images(tmp_path)


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RetracError, match="holds no images"):
        read_images(tmp_path, RGB)
    with pytest.raises(RetracError, match="does not exist"):
        read_images(tmp_path / "nowhere", RGB)


def test_resizing_crops_the_centre_first() -> None:
    pixels = np.zeros((1, 10, 30), np.uint8)
    pixels[:, :, 10:20] = 200
    assert (from_pil(to_pil(pixels), 5, 1) == 200).all()


def test_transparency_is_laid_over_white_and_orientation_applied() -> None:
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert (from_pil(clear, None, 3) == 255).all()
    turned = Image.fromarray(np.array([[0, 255]], np.uint8))
    turned.getexif()[0x0112] = 3  # upside down
    assert from_pil(turned, None, 1).tolist() == [[[255, 0]]]


def test_sixteen_bits_are_scaled_and_floats_refused(tmp_path: Path) -> None:
    deep = Image.fromarray(np.array([[0, 256, 65535]], np.uint16))
    deep.save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png").tolist() == [[[0, 1, 255]]]
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(RetracError, match=r"float\.tiff .*32-bit float"):
        read_image(tmp_path / "float.tiff")
