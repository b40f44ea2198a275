"""Features: for each image, bin and part of its draws the mean gradient of each measurement."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from retrac.attribution.draws import Rows
from retrac.attribution.finite import refuse_not_finite
from retrac.diffusion.loss import Loss
from retrac.diffusion.measurements import Measurement
from retrac.gradients.sketch import Projection
from retrac.gradients.views import viewed


@dataclass(frozen=True, eq=False)
class Features:
    """Of S images in one bin, by part of their draws.

    Attributes:
        sums: `[R, G, S, d]`, of the gradients of each of R measurements; float32 or wider.
        counts: int64 `[G, S]`, draws.
    """

    sums: Tensor
    counts: Tensor

    @property
    def parts(self) -> int:
        """G."""
        return len(self.counts)

    def mean(self, without: int | None = None) -> Tensor:
        """Over all draws, or over all but those of one part, `[R, S, d]`; zero without draws."""
        sums, counts = self.sums.sum(1), self.counts.sum(0)
        if without is not None:
            sums, counts = sums - self.sums[:, without], counts - self.counts[without]
        return sums / counts.clamp(min=1)[:, None]

    @staticmethod
    def joined(parts: Sequence["Features"]) -> "Features":
        """Of several lots of images, one after the other."""
        return Features(
            torch.cat([part.sums for part in parts], 2), torch.cat([p.counts for p in parts], 1)
        )


def silent(draws: int) -> None:
    """Show no progress."""


def features(
    model: nn.Module,
    objective: Loss,
    measurements: Sequence[Measurement],
    rows: Iterable[Rows],
    projection: Projection,
    size: int,
    images: int,
    parts: int,
    group: int,
    most: int,
    names: Callable[[int], str],
    advance: Callable[[int], None] = silent,
) -> Features:
    """Sum the gradients of some images' draws.

    Args:
        model: the network at a checkpoint.
        objective: measures what it gives.
        measurements: R of them, of each forward pass.
        rows: the draws.
        projection: which numbers of a gradient are there.
        size: d, how many.
        images: S.
        parts: G.
        group: consecutive draws that have image and part in common.
        most: draws in a pass.
        names: of an image, for errors.
        advance: called with the draws of each pass when it is done.

    Raises:
        RetracError: a gradient that is not finite; the image is named.
    """
    weights = next(model.parameters())
    wide = torch.promote_types(weights.dtype, torch.float32)
    sums = torch.zeros(len(measurements), parts * images, size, dtype=wide)
    counts = torch.zeros(parts, images, dtype=torch.int64)
    group = max(size for size in range(1, min(group, most) + 1) if group % size == 0)
    for some in _passes(rows, most // group * group):
        batch = some.batch.on(weights.device)
        measured = partial(objective.measure, model, *batch, measurements)
        found = viewed(model, measured, projection, group)
        place = some.part[::group] * images + some.image[::group]
        for number, (values, squared) in enumerate(found):
            refuse_not_finite(
                torch.isfinite(squared),
                lambda row, image=some.image: names(int(image[row * group])),  # type: ignore[misc]
            )
            sums[number].index_add_(0, place, values.to(sums))
        counts.view(-1).index_add_(0, place, torch.full_like(place, group))
        advance(some.batch.size)
    return Features(sums.unflatten(1, (parts, images)), counts)


def _passes(rows: Iterable[Rows], size: int) -> Iterator[Rows]:
    for some in rows:
        for start in range(0, some.batch.size, size):
            yield some.slice(slice(start, start + size))


def variants(parts: int) -> Iterator[int | None]:
    """All draws, and, where there are parts, all but those of each."""
    yield None
    if parts > 1:
        yield from range(parts)
