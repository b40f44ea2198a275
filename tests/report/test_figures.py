"""Figures are drawn for every shape of input, without a warning."""

import base64
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from retrac.report import figures
from retrac.report.canvas import save_png, spread, svg_uri


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def check(figure: Figure, folder: Path) -> None:
    """The PNG holds a picture."""
    path = save_png(figure, folder / "figure.png")
    with Image.open(path) as image:
        assert image.width > 300
        assert len(set(image.convert("L").tobytes())) > 10


@pytest.mark.parametrize("checkpoints", [(5,), (5, 10), tuple(range(1, 31))])
def test_norms_by_timestep(make_attribution, tmp_path, checkpoints):
    check(figures.norms_by_timestep(make_attribution(checkpoints=checkpoints)), tmp_path)


def test_norms_by_timestep_without_events(make_attribution, tmp_path):
    attribution = make_attribution()
    attribution.dataset["train_timestep"][:] = -1
    check(figures.norms_by_timestep(attribution), tmp_path)
    assert "No events" in figures.norm_finding(attribution)


def test_finding_is_what_the_numbers_say(make_attribution):
    attribution = make_attribution()
    attribution.dataset["train_timestep"][:] = np.linspace(0, 1000, 40, dtype=int)[None, :, None]
    attribution.dataset["train_norm"][:] = np.linspace(5, 1, 40)[None, :, None]
    finding = figures.norm_finding(attribution)
    assert "up to 99: 4.85; from 900 on: 1.15" in finding


@pytest.mark.parametrize("count", [1, 3, 5, 9])
def test_sample_norms(tmp_path, count):
    figure = figures.sample_norms(
        timesteps=np.linspace(1, 999, 100),
        norms=np.random.default_rng(0).lognormal(size=(count, 100)),
        checkpoints=range(5, 5 * count + 5, 5),
        trained_at=[[10 * i, 500] for i in range(count)],
        title="Sample a_$b: larger gradients at low timesteps",
    )
    assert len(figure.axes) == count
    check(figure, tmp_path)


def test_training_norms(tmp_path):
    timesteps = np.random.default_rng(0).integers(0, 1000, (3, 4000))
    norms = np.exp(-timesteps / 400)
    norms[0, 0] = 0  # has no logarithm
    check(figures.training_norms(timesteps, norms, [5, 10, 15]), tmp_path)


@pytest.mark.parametrize(("channels", "count", "columns"), [(1, 5, 4), (3, 8, 4), (3, 1, 8)])
def test_image_grid(tmp_path, channels, count, columns):
    images = np.random.default_rng(0).integers(0, 256, (count, channels, 8, 8)).astype(np.uint8)
    captions = [f"$a{i}_<b>\n0.123" for i in range(count)]
    check(figures.image_grid(images, captions, columns, "The samples with most $"), tmp_path)


def test_grey_images_keep_their_brightness(tmp_path):
    images = np.full((1, 1, 8, 8), 128, np.uint8)  # must not be stretched to black or white
    path = save_png(figures.image_grid(images, ["grey"], 1, "Grey"), tmp_path / "grid.png")
    with Image.open(path) as image:
        assert 128 in image.convert("L").tobytes()


def test_svg_follows_light_and_dark_and_is_the_same_each_time(make_attribution):
    first, second = (svg_uri(figures.norms_by_timestep(make_attribution())) for _ in range(2))
    assert first == second
    svg = base64.b64decode(first.removeprefix("data:image/svg+xml;base64,")).decode()
    assert svg.startswith("<svg")
    assert "prefers-color-scheme:dark" in svg
    assert "currentColor" in svg


def test_spread():
    assert spread(3, 6) == [0, 1, 2]
    assert spread(30, 3) == [0, 14, 29]
    assert spread(1, 6) == [0]
