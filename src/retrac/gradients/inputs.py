"""What a layer saw at each of its positions, copied out only where it is about to be contracted."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

EVERY = slice(None)


class Inputs(Protocol):
    """Layer inputs `[B, G, P, I]`: samples, groups of channels, positions, numbers per position.

    The numbers of a position fall into `bands` equal parts, each of which can be had alone.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, G, P, I)."""
        ...

    @property
    def bands(self) -> int:
        """Parts of the I numbers."""
        ...

    @property
    def channels(self) -> int:
        """Numbers of a position that `project` multiplies: I, or less."""
        ...

    @property
    def pixels(self) -> int:
        """Places of a sample where such numbers lie."""
        ...

    @property
    def is_copied(self) -> bool:
        """Whether `take` makes a copy."""
        ...

    def take(self, samples: slice = EVERY, bands: slice = EVERY) -> Tensor:
        """Some samples' numbers in some bands, `[b, G, P, i]`."""
        ...

    def project(self, matrix: Tensor) -> "Inputs":
        """The inputs with the channels of each position multiplied by a matrix `[C, k]`."""
        ...


@dataclass(frozen=True, eq=False)
class Plain:
    """Inputs that lie in memory as they are.

    Attributes:
        values: `[B, G, P, I]`.
    """

    values: Tensor
    bands = 1
    is_copied = False

    @property
    def channels(self) -> int:
        """I."""
        return self.values.shape[3]

    @property
    def pixels(self) -> int:
        """P."""
        return self.values.shape[2]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, G, P, I)."""
        batch, groups, positions, width = self.values.shape
        return batch, groups, positions, width

    def take(self, samples: slice = EVERY, bands: slice = EVERY) -> Tensor:
        """Some samples' numbers; a view."""
        return self.values[samples]

    def project(self, matrix: Tensor) -> "Plain":
        """The numbers of each position multiplied by a matrix `[I, k]`."""
        return Plain(self.values @ matrix)


@dataclass(frozen=True, eq=False)
class Patches:
    """What the kernel of a convolution sees at each of its positions; its rows are the bands.

    Attributes:
        images: the layer's input `[B, C, H, W]`.
        size: height and width of its output.
        kernel, stride, dilation: (down, right).
        padding: as `torch.nn.functional.pad` takes it.
        mode: of the padding, likewise.
        groups: G.
    """

    images: Tensor
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, ...] = (0, 0, 0, 0)
    mode: str = "constant"
    groups: int = 1
    is_copied = True

    @property
    def channels(self) -> int:
        """C/G."""
        return self.images.shape[1] // self.groups

    @property
    def pixels(self) -> int:
        """H·W."""
        return self.images.shape[2] * self.images.shape[3]

    @property
    def bands(self) -> int:
        """Rows of the kernel."""
        return self.kernel[0]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, G, h·w, kh·kw·C/G)."""
        batch, channels = self.images.shape[:2]
        width = self.kernel[0] * self.kernel[1] * channels // self.groups
        return batch, self.groups, self.size[0] * self.size[1], width

    def take(self, samples: slice = EVERY, bands: slice = EVERY) -> Tensor:
        """Some samples' numbers under some rows of the kernel."""
        part = self._windows[samples, :, :, :, bands]
        return part.reshape(*part.shape[:2], part.shape[2] * part.shape[3], -1)

    def project(self, matrix: Tensor) -> "Patches":
        """The channels of each pixel multiplied by a matrix `[C/G, k]`; k·G channels are left."""
        batch, _, height, width = self.images.shape
        pixels = self.images.permute(0, 2, 3, 1).reshape(batch, height, width, self.groups, -1)
        images = (pixels @ matrix).flatten(3).permute(0, 3, 1, 2)
        return Patches(
            images,
            self.size,
            self.kernel,
            self.stride,
            self.dilation,
            self.padding,
            self.mode,
            self.groups,
        )

    @cached_property
    def _windows(self) -> Tensor:
        """`[B, G, h, w, kh, kw, C/G]`, a view of the padded images."""
        images = self.images
        if any(self.padding):
            images = F.pad(images, self.padding, mode=self.mode)
        pixels = images.permute(0, 2, 3, 1).contiguous()
        batch, _, _, channels = pixels.shape
        across = channels // self.groups
        sample, row, column, _ = pixels.stride()
        (down, right), (apart_y, apart_x) = self.stride, self.dilation
        return pixels.as_strided(
            (batch, self.groups, *self.size, *self.kernel, across),
            (sample, across, row * down, column * right, row * apart_y, column * apart_x, 1),
        )
