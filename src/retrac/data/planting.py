"""Planted outliers: samples that do not belong, known by their ids, for self-influence to find."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retrac.data.config import DatasetConfig, PlantConfig
from retrac.data.dataset import ImageDataset
from retrac.data.images import Pixels, from_pil, to_pil
from retrac.data.open import open_dataset
from retrac.errors import RetracError

PREFIX = "planted/"


def planted(ids: Sequence[str]) -> NDArray[np.bool_]:
    """Which samples were planted, `[N]`."""
    return np.array([name.startswith(PREFIX) for name in ids])


def with_outliers(data: DatasetConfig, config: PlantConfig) -> ImageDataset:
    """Open a dataset, and plant outliers in it.

    Raises:
        RetracError: as `open_dataset` and `plant`.
    """
    dataset = open_dataset(data)
    return plant(dataset, config, _foreign(data, dataset, config))


def plant(dataset: ImageDataset, config: PlantConfig, foreign: Pixels) -> ImageDataset:
    """Put outliers at random places among the samples, which all stay, in their order.

    An outlier's id is its kind and number, `planted/noise/0003`. A sample of wrong normalisation
    keeps the label of the sample that it is a copy of, for it still shows that; the others are
    labelled `planted noise` and `planted other`. A dataset without labels stays without.

    Args:
        dataset: N samples.
        config: which outliers, and how many.
        foreign: uint8 `[M, C, H, W]`, for the kind "other".

    Raises:
        RetracError: as many outliers as samples, too few foreign images, or outliers of that kind
            are there already.
    """
    before, count = len(dataset), config.count
    if count >= before:
        raise RetracError(
            f"--count must be below {before}, the number of samples, not {count}: outliers are few"
        )
    if config.counts.get("other", 0) > len(foreign):
        raise RetracError(
            f"{config.other} has only {len(foreign)} images that {dataset.name} has not: lower "
            "--count, or choose another --other"
        )
    stream = np.random.default_rng(config.seed)
    images, ids, labels = [dataset.images], [*dataset.ids], [*(dataset.labels or ())]
    for kind, some in config.counts.items():
        found, shown = _outliers(kind, some, dataset, foreign, stream)
        images.append(found)
        ids += [f"{PREFIX}{kind}/{number:04d}" for number in range(some)]
        labels += shown if dataset.labels else []
    together = ImageDataset(
        dataset.name, np.concatenate(images), tuple(ids), tuple(labels) if labels else None
    )
    places = stream.permutation(before + count)
    order = np.empty(before + count, int)
    order[np.sort(places[count:])] = np.arange(before)
    order[places[:count]] = np.arange(before, before + count)
    return together.take(order)


def badly_normalised(images: Pixels) -> Pixels:
    """Images that were scaled to [0, 1] and taken for [-1, 1]: half the contrast, all bright."""
    return 128 + images // 2


def _outliers(
    kind: str,
    count: int,
    dataset: ImageDataset,
    foreign: Pixels,
    stream: np.random.Generator,
) -> tuple[Pixels, list[str]]:
    """Outliers of one kind, and their labels."""
    if kind == "noise":
        noise = stream.integers(0, 256, (count, *dataset.shape), np.uint8)
        return noise, ["planted noise"] * count
    if kind == "other":
        return foreign[stream.permutation(len(foreign))[:count]], ["planted other"] * count
    chosen = dataset.take(stream.permutation(len(dataset))[:count])
    return badly_normalised(chosen.images), [*(chosen.labels or ())]


def _foreign(data: DatasetConfig, dataset: ImageDataset, config: PlantConfig) -> Pixels:
    """The other dataset in the form of this one, without images that this one has too.

    Those are no outliers: photos-zeros has the zeros of digits. Samples that --skip and --limit
    leave out count.
    """
    channels, side, _ = dataset.shape
    if "other" not in config.counts:
        return np.empty((0, *dataset.shape), np.uint8)
    whole = open_dataset(replace(data, skip=0, limit=None))
    known = {image.tobytes() for image in whole.images}
    other = open_dataset(DatasetConfig(config.other, resolution=side)).images
    alike = np.stack([from_pil(to_pil(image), None, channels) for image in other])
    return alike[[image.tobytes() not in known for image in alike]]
