"""Local copies of public datasets, each recognised by what the folder contains."""

from collections.abc import Sequence
from pathlib import Path

from retrac.data import binary, folders, hub
from retrac.data.config import DatasetConfig
from retrac.data.images import EXTENSIONS, files_in
from retrac.data.samples import Samples
from retrac.errors import RetracError


def open_mirror(
    path: Path, config: DatasetConfig, label: str | None = None, classes: Sequence[str] = ()
) -> Samples:
    """Open a local copy: saved by `datasets`, parquet, an official distribution, or images.

    Args:
        path: The folder.
        config: Gives the split and, for tables, the columns.
        label: The label column of the hub's version.
        classes: Class names, where a distribution has numbers only.

    Raises:
        RetracError: no such folder, or nothing in it that is known.
    """
    if not path.is_dir():
        raise RetracError(f"--dataset-path {path} is not a folder")
    files = files_in(path)
    names = {file.name for file in files}
    tables = [file for file in files if file.suffix == ".parquet"]
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return hub.saved(path, config, label)
    if tables:
        return hub.parquet(path, tables, config, label)
    if {"data_batch_1.bin", "test_batch.bin"} & names:
        return binary.cifar(files, config.split, classes)
    if {"data_batch_1", "test_batch"} & names:
        raise RetracError(
            f"{path} holds the python version, and pickles are not safe to open: "
            "give the binary version (data_batch_1.bin, ...) instead"
        )
    if any(binary.IDX_NAME.fullmatch(name) for name in names):
        return binary.idx(files, config.split)
    if (path / "wnids.txt").is_file():
        return folders.tiny_imagenet(path, config.split)
    for portraits in (path, path / "img_align_celeba"):
        if portraits.name == "img_align_celeba" and portraits.is_dir():
            return folders.celeba(portraits, config.split)
    if not any(file.suffix.lower() in EXTENSIONS for file in files):
        raise RetracError(
            f"--dataset-path {path} holds nothing that is known: give a folder saved by "
            "`datasets`, parquet files, the unpacked official distribution, or images"
        )
    return folders.split_folder(path, config.split)
