"""Datasets of the Hugging Face library: from the hub, saved to disk, or as parquet files."""

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from retrac.data.config import DatasetConfig
from retrac.data.metadata import one_text
from retrac.data.samples import Samples
from retrac.errors import RetracError, first_line


def fetch(source: str, config: DatasetConfig, label: str | None = None) -> Samples:
    """Open a split of the hub dataset `org/name` (or `org/name/configuration`).

    Raises:
        RetracError: it cannot be fetched, or `table` refuses it.
    """
    from datasets import load_dataset

    name, configuration = _split_name(source)
    try:
        dataset = load_dataset(name, configuration, split=config.split)
    except Exception as error:  # whatever network, hub or library raise, the way out is the same
        raise RetracError(
            f"cannot fetch {source!r} (split {config.split!r}) from the hub: {first_line(error)}; "
            "a local copy can be given by --dataset-path"
        ) from error
    return table(dataset, config, label, f"{source}: ")


def saved(path: Path, config: DatasetConfig, label: str | None = None) -> Samples:
    """Open a folder written by `save_to_disk`; a single dataset is taken whatever the split.

    Raises:
        RetracError: damaged, no such split, or `table` refuses it.
    """
    from datasets import DatasetDict, load_from_disk

    try:
        dataset = load_from_disk(str(path))
    except Exception as error:  # arrow, json and file errors alike: the folder is not whole
        raise RetracError(f"cannot open the saved dataset {path}: {first_line(error)}") from error
    if isinstance(dataset, DatasetDict):
        if config.split not in dataset:
            raise RetracError(
                f"{path} has no split {config.split!r} (splits: {', '.join(sorted(dataset))})"
            )
        dataset = dataset[config.split]
    return table(dataset, config, label, f"{path}/")


def parquet(
    path: Path, files: Sequence[Path], config: DatasetConfig, label: str | None = None
) -> Samples:
    """Open parquet files; where any is named after a split, those named after this one.

    Raises:
        RetracError: no file of the split, a damaged file, or `table` refuses it.
    """
    from datasets import Dataset

    def named_after(split: str) -> list[Path]:
        word = re.compile(rf"(^|[/._-]){re.escape(split)}([/._-])")
        return [file for file in files if word.search(file.relative_to(path).as_posix())]

    splits = [split for split in ("test", "train", "valid", "validation") if named_after(split)]
    chosen = named_after(config.split) if splits else list(files)
    if not chosen:
        raise RetracError(
            f"{path} has no parquet files of split {config.split!r} (splits: {', '.join(splits)})"
        )
    try:
        dataset = Dataset.from_parquet([str(file) for file in chosen])
    except Exception as error:  # arrow and library errors alike: some file is not whole
        raise RetracError(
            f"cannot read the parquet files in {path}: {first_line(error)}"
        ) from error
    return table(dataset, config, label, f"{path}/")


def table(dataset: Any, config: DatasetConfig, label: str | None, where: str) -> Samples:
    """Take images and labels from a `datasets.Dataset`; ids are "split/row".

    Args:
        dataset: The dataset, one split.
        config: Its columns, if given, are used; else the only column with images, and `label`
            or the only column with classes.
        label: The label column to prefer if it is there.
        where: The place to name in errors.

    Raises:
        RetracError: no such column, or no image column that is the only one.
    """
    import datasets

    features = dataset.features
    for column in (config.image_column, config.label_column):
        if column is not None and column not in features:
            raise RetracError(f"{where} no column {column!r} (columns: {', '.join(features)})")
    images = [name for name, kind in features.items() if _holds_images(kind)]
    classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    image = config.image_column or (images[0] if len(images) == 1 else None)
    if image is None or image not in images:
        raise RetracError(
            f"{where} choose --image-column among the columns that hold images: "
            f"{', '.join(images) or 'there are none'}"
        )
    only_class = classes[0] if len(classes) == 1 else None
    label = config.label_column or (label if label in features else only_class)
    rows = dataset.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    return Samples(
        tuple(f"{config.split}/{row}" for row in range(len(dataset))),
        None
        if label is None
        else _labels(features[label], dataset[label], f"{where} column {label!r}"),
        lambda index: _open(rows[index][image]),
        where=where,
        classes=None if label is None else _classes(features[label]),
    )


def _labels(kind: Any, values: Sequence[Any], where: str) -> tuple[str, ...]:
    names = _classes(kind)
    if names is None:
        return tuple(one_text(value, where) for value in values)
    return tuple("unlabelled" if value in (None, -1) else names[value] for value in values)


def _classes(kind: Any) -> tuple[str, ...] | None:
    names = getattr(kind, "names", None)
    return None if names is None else tuple(names)


def _holds_images(kind: Any) -> bool:
    import datasets

    return isinstance(kind, datasets.Image) or (
        isinstance(kind, dict) and set(kind) == {"bytes", "path"}
    )


def _open(cell: dict[str, Any] | None) -> Image.Image:
    if cell is None:
        raise ValueError("the row has no image")
    return Image.open(cell["path"] if cell["bytes"] is None else BytesIO(cell["bytes"]))


def _split_name(source: str) -> tuple[str, str | None]:
    parts = source.split("/")
    return ("/".join(parts[:2]), "/".join(parts[2:])) if len(parts) > 2 else (source, None)
