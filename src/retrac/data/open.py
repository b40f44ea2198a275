"""From a configuration to an `ImageDataset`, whatever the source."""

from dataclasses import replace
from pathlib import Path

from retrac.data import arrays, folders, hub
from retrac.data.config import DatasetConfig
from retrac.data.dataset import ImageDataset
from retrac.data.mirrors import open_mirror
from retrac.data.named import NAMED
from retrac.data.samples import Samples, decode, survey
from retrac.errors import RetracError, unknown

HUB_PREFIX = "hf:"


DEFAULT_RESOLUTION = 32


def open_dataset(
    config: DatasetConfig, default_resolution: int | None = DEFAULT_RESOLUTION
) -> ImageDataset:
    """Open and decode the samples that `config` asks for.

    A named dataset goes before a folder of the same name (`./digits` is the folder).

    Args:
        config: which they are.
        default_resolution: where it gives none, and images differ in size or are not square.

    Raises:
        RetracError: an unknown name, a path that is not there, a source that cannot be read, a
            broken image (named), an option that does not fit the source, or no resolution.
    """
    for option, value in (("resolution", config.resolution), ("limit", config.limit)):
        if value is not None and value < 1:
            raise RetracError(f"--{option} must be at least 1, not {value}")
    if config.skip < 0:
        raise RetracError(f"--skip must be at least 0, not {config.skip}")
    record = NAMED.get(config.dataset)
    if record is not None:
        if record.source is None:
            _refuse_source_options(config)
        resolution, channels = config.resolution or record.resolution, record.channels
        samples = _limited(record.load(config, resolution), config)
    else:
        samples = _limited(_unnamed(config), config)
        own, channels = survey(samples)
        found = config.resolution or own or default_resolution
        if found is None:
            raise RetracError(
                f"the images of {config.dataset} differ in size, or are not square: give "
                "--resolution"
            )
        resolution = found
    images = decode(samples, resolution, channels)
    return ImageDataset(config.dataset, images, samples.ids, samples.labels, samples.classes)


def _unnamed(config: DatasetConfig) -> Samples:
    name = config.dataset
    if name.startswith(HUB_PREFIX):
        if config.dataset_path is not None:
            return open_mirror(config.dataset_path.expanduser(), config)
        return hub.fetch(name.removeprefix(HUB_PREFIX), config)
    path = Path(name).expanduser()
    if path.is_dir():
        _refuse_source_options(config)
        return folders.image_folder(path)
    if path.suffix == ".npz" and path.is_file():
        _refuse_source_options(config)
        return arrays.npz(path)
    if path.is_file():
        raise RetracError(f"{name} is neither a folder of images nor an .npz file")
    if "/" in name or "\\" in name or path.suffix == ".npz":
        raise RetracError(f"the dataset {name} does not exist: no such folder or .npz file")
    raise unknown("dataset", name, NAMED)


def _refuse_source_options(config: DatasetConfig) -> None:
    """Refuse the options of public datasets where they would silently have no effect."""
    plain = replace(config, dataset_path=None, split="train", image_column=None, label_column=None)
    if config != plain:
        raise RetracError(
            f"dataset {config.dataset!r} has no local copy, splits or columns to choose from: "
            "leave out --dataset-path, --split, --image-column and --label-column"
        )


def _limited(samples: Samples, config: DatasetConfig) -> Samples:
    if config.skip and config.skip >= len(samples):
        raise RetracError(
            f"--skip {config.skip} leaves nothing: {config.dataset} has {len(samples)} samples"
        )
    rest = samples.take(range(config.skip, len(samples))) if config.skip else samples
    return rest if config.limit is None else rest.first(config.limit)
