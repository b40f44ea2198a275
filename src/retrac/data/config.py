"""The choice of a dataset, as the command line and a run's record hold it. Free of torch."""

from dataclasses import dataclass, replace
from pathlib import Path


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
    dataset's own (32 where its images differ in size or are not square)."""

    image_column: str | None = None
    """For hub datasets: the column with the images. Default: the only one that holds images."""

    label_column: str | None = None
    """For hub datasets: the column with the labels. Default: the only one that holds classes."""

    split: str = "train"
    """The split of a hub dataset, or of a local copy that has several."""

    limit: int | None = None
    """Use only the first so many samples."""

    def located(self) -> "DatasetConfig":
        """The same dataset by absolute paths, to be found from another working directory."""
        path = self.dataset_path and self.dataset_path.expanduser().resolve()
        there = Path(self.dataset).expanduser()
        named = "/" not in self.dataset and "." not in self.dataset and not there.is_dir()
        name = self.dataset if named or not there.exists() else str(there.resolve())
        return replace(self, dataset=name, dataset_path=path)
