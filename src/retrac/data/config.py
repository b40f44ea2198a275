"""The choice of a dataset, as the command line and a run's record hold it. Free of torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from retrac.errors import RetracError, unknown

KINDS = ("other", "noise", "normalisation")
"""Of planted outliers."""


@dataclass(frozen=True)
class DatasetConfig:
    """Which images to use. `retrac datasets` lists the named ones."""

    dataset: str = "digits"
    """A named dataset, a folder of images, an .npz file with an array `images`, or hf:org/name."""

    dataset_path: Path | None = None
    """Local copy of a named or hub dataset: a folder saved by `datasets`, its parquet files, its
    official distribution, or images in one folder per class."""

    resolution: int | None = None
    """Height and width in pixels; images are cropped to a centred square and resized. Default: the
    dataset's own; where its images differ in size or are not square, 32, or what an adopted model
    was made for."""

    image_column: str | None = None
    """For hub datasets: the column with the images. Default: the only one that holds images."""

    label_column: str | None = None
    """For hub datasets: the column with the labels. Default: the only one that holds classes."""

    split: str = "train"
    """The split of a hub dataset, or of a local copy that has several."""

    skip: int = 0
    """Leave out the first so many samples."""

    limit: int | None = None
    """Use only the first so many samples, of those that are not left out."""

    def located(self) -> "DatasetConfig":
        """The same dataset by absolute paths, to be found from another working directory."""
        path = self.dataset_path and self.dataset_path.expanduser().resolve()
        there = Path(self.dataset).expanduser()
        named = "/" not in self.dataset and "." not in self.dataset and not there.is_dir()
        name = self.dataset if named or not there.exists() else str(there.resolve())
        return replace(self, dataset=name, dataset_path=path)


@dataclass(frozen=True)
class PlantConfig:
    """Which outliers are planted."""

    kind: Literal["other", "noise", "normalisation", "all"] = "all"
    """other: images of another dataset; noise: each pixel uniform; normalisation: copies of samples
    that were scaled to [0, 1] where [-1, 1] was due; all: a third of each."""
    count: int = 30
    """How many."""
    other: str = "photos-zeros"
    """The other dataset: a name, a folder, an .npz file or hf:org/name."""
    seed: int = 0
    """Decides which they are, and their places."""

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, "all"):
            raise unknown("kind of outliers", self.kind, (*KINDS, "all"))
        least = len(KINDS) if self.kind == "all" else 1
        if self.count < least:
            raise RetracError(
                f"--count must be at least {least} for --kind {self.kind}, not {self.count}"
            )
        if self.seed < 0:
            raise RetracError(f"--seed must be at least 0, not {self.seed}")

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind; the first ones take what does not divide."""
        if self.kind != "all":
            return {self.kind: self.count}
        share, rest = divmod(self.count, len(KINDS))
        return {kind: share + (place < rest) for place, kind in enumerate(KINDS)}
