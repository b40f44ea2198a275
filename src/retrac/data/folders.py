"""Folders of image files: any folder, folders with splits, Tiny ImageNet, CelebA."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from retrac.data.images import EXTENSIONS, image_files
from retrac.data.metadata import captions
from retrac.data.samples import Samples
from retrac.errors import RetracError

SPLITS = ("test", "train", "val", "valid", "validation")

# CelebA's official partition, by the number in the file name.
CELEBA_SPLITS = {
    "train": range(1, 162_771),
    "valid": range(162_771, 182_638),
    "test": range(182_638, 202_600),
}


def image_folder(folder: Path, root: Path | None = None) -> Samples:
    """Open all images below `folder`, sorted by path; ids are paths relative to `root`.

    The label is the caption that `metadata.jsonl` or `metadata.csv` gives, or else the first
    subfolder, if any image lies in one.

    Raises:
        RetracError: no images, or one without a caption where others have some.
    """
    root = root or folder
    files = image_files(folder)
    if not files:
        raise RetracError(f"{folder} holds no images ({', '.join(sorted(EXTENSIONS))})")
    if (told := captions(folder)) is not None:
        names = [path.relative_to(folder).as_posix() for path in files]
        if missing := [name for name in names if name not in told]:
            raise RetracError(f"{folder / missing[0]} has no caption among those beside it")
        return _files(files, root, [told[name] for name in names])
    parents = [path.relative_to(folder).parts[:-1] for path in files]
    if not any(parents):
        return _files(files, root, None)
    labels = [parts[0] if parts else "unlabelled" for parts in parents]
    # As `datasets` and torchvision number folders: by name, in which "10" is before "2".
    return replace(_files(files, root, labels), classes=tuple(sorted({*labels})))


def split_folder(path: Path, split: str) -> Samples:
    """Open `path/split` if the folder is divided into splits, else all of it.

    Raises:
        RetracError: no images, or other splits only.
    """
    there = [name for name in SPLITS if (path / name).is_dir()]
    if not there:
        return image_folder(path)
    if not (path / split).is_dir():
        raise RetracError(f"{path} has no split {split!r} (splits: {', '.join(there)})")
    return image_folder(path / split, root=path)


def tiny_imagenet(path: Path, split: str) -> Samples:
    """Open the official tiny-imagenet-200 folder; labels are its words for each class.

    Raises:
        RetracError: no such split.
    """
    samples = split_folder(path, {"valid": "val", "validation": "val"}.get(split, split))
    folder = samples.ids[0].split("/")[0]
    classes = samples.labels if folder == "train" else None  # elsewhere all lie in one folder
    if annotations := _table(path / folder / "val_annotations.txt"):
        classes = tuple(annotations.get(Path(name).name, "unlabelled") for name in samples.ids)
    words = _table(path / "words.txt")
    if classes is None:
        return replace(samples, labels=None, classes=None)
    labels, in_order = (
        tuple(words.get(name, name) for name in names) for names in (classes, sorted({*classes}))
    )
    return replace(samples, labels=labels, classes=in_order)


def celeba(folder: Path, split: str) -> Samples:
    """Open CelebA's img_align_celeba; labels are identities, if identity_CelebA.txt is near.

    The 178x218 portraits are cropped to their central 178x178 when they are decoded.

    Raises:
        RetracError: an unknown split, or no images of it.
    """
    numbers = CELEBA_SPLITS.get(split, range(0))
    files = [
        path for path in image_files(folder) if path.stem.isdecimal() and int(path.stem) in numbers
    ]
    if not files:
        raise RetracError(
            f"{folder} holds no images of split {split!r} (splits: {', '.join(CELEBA_SPLITS)})"
        )
    near = [folder, folder.parent, folder.parent / "Anno", folder.parent.parent / "Anno"]
    identities = next(filter(None, (_table(at / "identity_CelebA.txt") for at in near)), None)
    labels = [identities.get(path.name, "unlabelled") for path in files] if identities else None
    return _files(files, folder, labels)


def _files(files: Sequence[Path], root: Path, labels: Sequence[str] | None) -> Samples:
    return Samples(
        tuple(path.relative_to(root).as_posix() for path in files),
        None if labels is None else tuple(labels),
        lambda index: Image.open(files[index]),
        where=f"{root}/",
    )


def _table(path: Path) -> dict[str, str]:
    """Read the first two columns of a text file; empty if it is not there."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t" if "\t" in line else None) for line in lines)
    return {row[0]: row[1] for row in rows if len(row) > 1}
