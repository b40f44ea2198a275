"""The images to be explained: training samples, generated images, or files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrac.data.images import read_images
from retrac.diffusion.device import choose_device
from retrac.diffusion.sampling import generate
from retrac.diffusion.shown import Seen
from retrac.errors import RetracError
from retrac.influence.ranking import evenly_spread
from retrac.training.run import Run

STEPS = 50
"""Of DDIM, where training has as many timesteps."""
GENERATED = re.compile(r"generated/seed-(\d+)/(\d{4,})")
"""The id of a generated query tells its noise."""


@dataclass(frozen=True, eq=False)
class Queries:
    """Images to be explained.

    Attributes:
        name: short, fit for a folder name.
        images: uint8 `[Q, C, H, W]`.
        ids: Q names.
        labels: Q labels; empty where there is none.
    """

    name: str
    images: np.ndarray
    ids: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Queries":
        """Some of them."""
        return Queries(
            self.name,
            self.images[list(rows)],
            tuple(self.ids[row] for row in rows),
            tuple(self.labels[row] for row in rows),
        )

    def seen_by(self, run: Run) -> Seen:
        """As the network of a run sees them."""
        return run.seen(self.images, self.labels)


def open_queries(run: Run, text: str, seed: int = 0) -> Queries:
    """Find the queries that a text names.

    Args:
        run: the run that they are put to.
        text: `generated:8` (images that the run's last checkpoint makes), `train:16` (16 samples
            evenly spread over the training set), `train:3,17` (these samples; `train:3,` for a
            single one), `each:2` (two of every label, evenly spread among those that have it),
            several of these (`train:8+generated:8`), or the path of an image or of a folder.
        seed: of generated queries.

    Raises:
        RetracError: no such samples or files, or images of another size.
    """
    if len(parts := _parts(text)) > 1:
        return _joined([open_queries(run, part, seed) for part in parts])
    if re.fullmatch(r"generated:\d+", text):
        return generated(run, to_generate(text), seed)
    if match := re.fullmatch(r"train:(\d+)", text):
        count, size = _count(match[1], text), len(run.dataset)
        if count > size:
            raise RetracError(f"queries {text!r}: the training set has only {size} samples")
        return training_samples(run, f"train-{count}", evenly_spread(size, count))
    if match := re.fullmatch(r"train:((?:\d+,)+\d*)", text):
        indices = [int(index) for index in match[1].split(",") if index]
        return training_samples(run, "train-" + "-".join(map(str, indices[:8])), indices)
    if match := re.fullmatch(r"each:(\d+)", text):
        count = _count(match[1], text)
        return training_samples(run, f"each-{count}", _of_each_label(run, count, text))
    if not Path(text).exists():
        raise RetracError(
            f"queries {text!r}: neither generated:N, train:N, train:I,J, each:N, nor a file or "
            "folder that exists"
        )
    path = Path(text)
    ids, images = read_images(path, run.shape)
    return Queries(path.stem or "images", images, tuple(ids), ("",) * len(ids))


def to_generate(text: str) -> int:
    """How many images a text asks to be generated."""
    found = [re.fullmatch(r"generated:(\d+)", part) for part in _parts(text)]
    return sum(_count(match[1], text) for match in found if match)


def stand_in(run: Run, text: str, seed: int = 0) -> Queries:
    """As `open_queries`, but with training samples in place of images yet to be generated."""
    if len(parts := _parts(text)) > 1:
        return _joined([stand_in(run, part, seed) for part in parts])
    count = to_generate(text)
    if not count:
        return open_queries(run, text, seed)
    samples = [index % len(run.dataset) for index in range(count)]
    return training_samples(run, _generated_name(count, seed), samples)


def generated(run: Run, count: int, seed: int) -> Queries:
    """Images that the run's last checkpoint makes by DDIM."""
    images = _generate(run, seed, range(count))
    ids = tuple(_generated_id(seed, index) for index in range(count))
    return Queries(_generated_name(count, seed), images, ids, run.generated_labels(range(count)))


def regenerated(run: Run, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """What a run makes from the noises from which another made its generated queries.

    Args:
        run: of the same shape.
        ids: of queries; those that were not generated are left out.

    Returns:
        Id -> uint8 `[C, H, W]`.
    """
    wanted: dict[int, list[int]] = {}
    for name in ids:
        if match := GENERATED.fullmatch(name):
            wanted.setdefault(int(match[1]), []).append(int(match[2]))
    return {
        _generated_id(seed, index): image
        for seed, indices in wanted.items()
        for index, image in zip(indices, _generate(run, seed, indices), strict=True)
    }


def generation_steps(run: Run) -> int:
    """Steps in which a query is generated."""
    return min(STEPS, run.timesteps)


def training_samples(run: Run, name: str, indices: Sequence[int]) -> Queries:
    """Samples of the training set as queries.

    Raises:
        RetracError: an index outside the training set.
    """
    dataset = run.dataset
    for index in indices:
        if not 0 <= index < len(dataset):
            raise RetracError(
                f"there is no sample {index}: the training set has {len(dataset)}, from 0"
            )
    labels = dataset.labels or ("",) * len(dataset)
    return Queries(
        name,
        dataset.images[list(indices)],
        tuple(dataset.ids[index] for index in indices),
        tuple(labels[index] for index in indices),
    )


def _parts(text: str) -> list[str]:
    parts = text.split("+")
    return (
        parts
        if all(part.startswith(("train:", "generated:", "each:")) for part in parts)
        else [text]
    )


def _of_each_label(run: Run, count: int, text: str) -> list[int]:
    labels = np.array(run.dataset.labels or ())
    if not len(labels):
        raise RetracError(f"queries {text!r}: the training set has no labels")
    found = []
    for label in np.unique(labels):
        having = np.flatnonzero(labels == label)
        found += [int(having[place]) for place in evenly_spread(len(having), count)]
    return sorted(found)


def _joined(parts: Sequence[Queries]) -> Queries:
    return Queries(
        "-".join(part.name for part in parts),
        np.concatenate([part.images for part in parts]),
        sum((part.ids for part in parts), ()),
        sum((part.labels for part in parts), ()),
    )


def _generate(run: Run, seed: int, indices: Sequence[int]) -> np.ndarray:
    return generate(
        run.checkpoints[-1].load_for_generation(run.shape).to(choose_device()),
        run.making,
        indices,
        seed=seed,
        steps=generation_steps(run),
    )


def _generated_id(seed: int, index: int) -> str:
    return f"generated/seed-{seed}/{index:04d}"


def _generated_name(count: int, seed: int) -> str:
    return f"generated-{count}-seed-{seed}"


def _count(number: str, text: str) -> int:
    if int(number) < 1:
        raise RetracError(f"queries {text!r}: ask for at least one")
    return int(number)
