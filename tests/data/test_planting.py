"""Planted outliers are known, few, and leave the dataset as it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrac.data.arrays import write_npz
from retrac.data.config import KINDS, DatasetConfig, PlantConfig
from retrac.data.dataset import ImageDataset
from retrac.data.open import open_dataset
from retrac.data.planting import badly_normalised, plant, planted, with_outliers
from retrac.errors import RetracError

from .local_copies import noise

DIGITS = DatasetConfig("digits", resolution=8, limit=60)


def dataset(size: int, channels: int = 1, labelled: bool = True) -> ImageDataset:
    labels = tuple(str(index % 3) for index in range(size)) if labelled else None
    return ImageDataset("x", noise(size, channels, 5, 5), tuple(map(str, range(size))), labels)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(8, 40),
    st.sampled_from([*KINDS, "all"]),
    st.integers(3, 7),
    st.integers(0, 9),
    st.booleans(),
    st.sampled_from([1, 3]),
)
def test_all_originals_stay_in_their_order(
    size: int, kind: str, count: int, seed: int, labelled: bool, channels: int
) -> None:
    before = dataset(size, channels, labelled)
    config = PlantConfig(kind, count, seed=seed)  # type: ignore[arg-type]
    foreign = noise(9, channels, 5, 5)
    after = plant(before, config, foreign)
    own = ~planted(after.ids)
    kept = after.take(np.flatnonzero(own))
    assert kept.fingerprint == before.fingerprint and kept.labels == before.labels
    assert len(after) == size + count and (~own).sum() == count
    found = [name.split("/")[1] for name in after.ids if name.startswith("planted/")]
    assert {kind: found.count(kind) for kind in found} == config.counts
    assert plant(before, config, foreign).fingerprint == after.fingerprint


def test_outliers_stand_anywhere_and_another_seed_has_others() -> None:
    before, config = dataset(200), PlantConfig("all", 30)
    after = plant(before, config, noise(20, 1, 5, 5))
    places = np.flatnonzero(planted(after.ids))
    assert places.min() < 40 and places.max() > 190 and np.diff(places).max() < 60
    kinds = [after.ids[place].split("/")[1] for place in places]
    assert kinds != sorted(kinds) and len(set(kinds[:15])) > 1
    other = plant(before, replace(config, seed=1), noise(20, 1, 5, 5))
    assert other.ids != after.ids


def test_labels_say_what_an_outlier_is() -> None:
    after = plant(dataset(30), PlantConfig("all", 9), noise(20, 1, 5, 5))
    for name, label in zip(after.ids, after.labels or (), strict=True):
        if name.startswith(("planted/noise", "planted/other")):
            assert label == "planted " + name.split("/")[1]
        else:
            assert label in ("0", "1", "2")


def test_wrong_normalisation_is_the_range_0_to_1_taken_for_minus_1_to_1() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    wrong = badly_normalised(images)
    assert wrong.dtype == np.uint8
    seen = wrong.astype(float) / 127.5 - 1  # as the network sees it
    np.testing.assert_allclose(seen, images / 255.0, atol=1 / 127)
    after = plant(dataset(30), PlantConfig("normalisation", 5), noise(0, 1, 5, 5))
    copies = after.images[planted(after.ids)]
    originals = badly_normalised(after.images[~planted(after.ids)])
    assert all((originals == copy).all((1, 2, 3)).any() for copy in copies)


def test_foreign_images_take_the_dataset_s_form_and_are_not_its_own() -> None:
    """photos-zeros holds the zeros of digits, also those beyond --limit."""
    after = with_outliers(DIGITS, PlantConfig("other", 59, seed=3))
    assert after.shape == (1, 8, 8)
    digits = open_dataset(replace(DIGITS, limit=None)).images
    known = {image.tobytes() for image in digits}
    foreign = after.images[planted(after.ids)]
    assert not known & {image.tobytes() for image in foreign}
    colour = with_outliers(
        DatasetConfig("photos-zeros", resolution=8, limit=20), PlantConfig("other", 5, "digits")
    )
    grey = colour.images[planted(colour.ids)]
    assert colour.shape == (3, 8, 8) and (grey == grey[:, :1]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_file_is_read_as_it_was_written(tmp_path: Path, channels: int) -> None:
    after = plant(dataset(30, channels), PlantConfig("noise", 4), noise(0, channels, 5, 5))
    write_npz(after, tmp_path / "planted.npz")
    read = open_dataset(DatasetConfig(str(tmp_path / "planted.npz")))
    assert read.fingerprint == after.fingerprint and read.labels == after.labels


@pytest.mark.parametrize(
    ("data", "config", "message"),
    [
        (DIGITS, {"kind": "noise", "count": 0}, "--count must be at least 1"),
        (DIGITS, {"kind": "all", "count": 2}, "--count must be at least 3 for --kind all"),
        (DIGITS, {"kind": "noise", "count": 60}, "--count must be below 60"),
        (DIGITS, {"kind": "noise", "seed": -1}, "--seed must be at least 0"),
        (DIGITS, {"kind": "fog"}, "unknown kind of outliers 'fog'"),
        (DIGITS, {"kind": "other", "other": "digits"}, "digits has only 0 images that digits has"),
        (DIGITS, {"kind": "other", "other": "digit"}, "unknown dataset 'digit'"),
        (
            DatasetConfig("digits", resolution=8),
            {"kind": "other", "count": 1200},
            "photos-zeros has only 1102 images that digits has not",
        ),
    ],
)
def test_nonsense_is_refused(data: DatasetConfig, config: dict[str, object], message: str) -> None:
    with pytest.raises(RetracError, match=message):
        with_outliers(data, PlantConfig(**config))  # type: ignore[arg-type]


def test_a_kind_is_planted_once() -> None:
    once = plant(dataset(30), PlantConfig("noise", 4), noise(0, 1, 5, 5))
    twice = plant(once, PlantConfig("normalisation", 4), noise(0, 1, 5, 5))
    assert planted(twice.ids).sum() == 8
    with pytest.raises(RetracError, match="'planted/noise/0000' occurs more than once"):
        plant(once, PlantConfig("noise", 4), noise(0, 1, 5, 5))
