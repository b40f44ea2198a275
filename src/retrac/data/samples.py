"""Samples that are known but not yet decoded: what every source yields and can be chosen from."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from retrac.data.images import Pixels, from_pil, is_grey, reading, to_pil
from retrac.progress import progress


@dataclass(frozen=True, eq=False)
class Samples:
    """Ids and labels at hand, images opened one at a time.

    Attributes:
        ids: One per sample.
        labels: One per sample, or None.
        image: Opens the image at an index; PIL may decode it later.
        in_memory: Decoding is quick, so no bar is shown.
        where: The place to name beside an id in an error.
        classes: All labels in the order in which the source numbers them; None where it has none.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...] | None
    image: Callable[[int], Image.Image]
    in_memory: bool = False
    where: str = ""
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Sequence[int]) -> "Samples":
        """Return the samples at `indices`, in that order."""
        return replace(
            self,
            ids=tuple(self.ids[index] for index in indices),
            labels=self.labels and tuple(self.labels[index] for index in indices),
            image=lambda index: self.image(indices[index]),
        )

    def first(self, count: int) -> "Samples":
        """Return the first `count` samples, or all if there are fewer."""
        return self.take(range(min(count, len(self))))

    def labelled(self, *labels: str) -> "Samples":
        """Return the samples with one of `labels`, in order."""
        return self.take([i for i, label in enumerate(self.labels or ()) if label in labels])

    def renamed(self, prefix: str, label: str) -> "Samples":
        """Return the same samples with prefixed ids and one label for all."""
        ids = tuple(f"{prefix}{name}" for name in self.ids)
        return replace(self, ids=ids, labels=(label,) * len(self), classes=None)

    @contextmanager
    def opened(self, index: int) -> Iterator[Image.Image]:
        """Open one image; broken ones become an error that names the sample."""
        with reading(f"{self.where}{self.ids[index]}"), self.image(index) as image:
            yield image


def from_arrays(
    images: Sequence[Pixels] | Pixels,
    ids: Sequence[str],
    labels: Sequence[str] | None,
    classes: Sequence[str] | None = None,
) -> Samples:
    """Wrap decoded images, each uint8 `[C, H, W]`."""
    return Samples(
        tuple(ids),
        None if labels is None else tuple(labels),
        lambda index: to_pil(images[index]),
        in_memory=True,
        classes=None if classes is None else tuple(classes),
    )


def concatenate(first: Samples, second: Samples) -> Samples:
    """Return the samples of `first`, then those of `second`; both must have labels."""
    return Samples(
        first.ids + second.ids,
        (first.labels or ()) + (second.labels or ()),
        lambda index: (
            first.image(index) if index < len(first) else second.image(index - len(first))
        ),
        first.in_memory and second.in_memory,
    )


def survey(samples: Samples) -> tuple[int | None, int]:
    """Return the (resolution, channels) that the images' headers ask for.

    The resolution is their own if all are one square size, else None. RGB unless all are grey.
    """
    sizes, grey = set(), True
    with _bar("looking at images", samples) as advance:
        for index in range(len(samples)):
            with samples.opened(index) as image:
                sizes.add(image.size)
                grey = grey and is_grey(image)
            advance()
    width, height = sizes.pop() if len(sizes) == 1 else (0, 1)
    return (width if width == height else None), (1 if grey else 3)


def decode(samples: Samples, resolution: int, channels: int) -> Pixels:
    """Decode all samples to uint8 `[N, channels, resolution, resolution]`.

    Raises:
        RetracError: a broken image, by its id.
    """
    images = np.empty((len(samples), channels, resolution, resolution), np.uint8)
    with _bar("decoding images", samples) as advance:
        for index in range(len(samples)):
            with samples.opened(index) as image:
                images[index] = from_pil(image, resolution, channels)
            advance()
    return images


def _bar(description: str, samples: Samples) -> AbstractContextManager[Callable[..., None]]:
    shown = not samples.in_memory and len(samples) > 100
    return progress(description, len(samples), "image", shown=shown)
