"""What a layer saw at each of its positions, copied out only where it is about to be contracted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

EVERY = slice(None)

FEW = 16
"""Channels or positions of a convolution that are not worth more than one matrix product."""


class Factors(NamedTuple):
    """Of gradients `Σ_p b_p a_pᵀ`.

    Attributes:
        a: inputs, band by band, each `[s, G, P, I / bands]`.
        b: output gradients `[s, G, P, O]`.
    """

    a: Sequence[Tensor]
    b: Tensor


class Inputs(Protocol):
    """Layer inputs `[B, G, P, I]`: samples, groups of channels, positions, numbers per position.

    The numbers of a position fall into `bands` equal parts.
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
    def copied(self) -> int:
        """Numbers of a sample that `factors` copies."""
        ...

    def factors(self, samples: slice, b: Tensor, group: int) -> Factors:
        """Inputs and output gradients of some samples, ready to be multiplied.

        Args:
            samples: which; as many as some groups have.
            b: their output gradients `[s, G, P, O]`.
            group: consecutive samples whose positions are put side by side.
        """
        ...

    def project(self, matrix: Tensor) -> "Inputs":
        """The inputs with the channels of each position multiplied by a matrix `[C, k]`."""
        ...


@dataclass(frozen=True, eq=False)
class Plain:
    """Inputs that lie in memory as they are.

    Attributes:
        values: `[B, G, P, I]`, band by band.
        bands: parts of the I numbers.
    """

    values: Tensor
    bands: int = 1
    copied = 0

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

    def factors(self, samples: slice, b: Tensor, group: int) -> Factors:
        """Views, but where groups of channels and of samples meet."""
        a = _side_by_side(self.values[samples], group)
        return Factors(a.split(a.shape[3] // self.bands, 3), _side_by_side(b, group))

    def project(self, matrix: Tensor) -> "Plain":
        """The numbers of each position multiplied by a matrix `[I, k]`."""
        return Plain(times(self.values, matrix))


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
        """Rows of the kernel; 1 where there is too little to copy for it to matter."""
        positions = self.size[0] * self.size[1]
        return self.kernel[0] if min(self.channels, positions) > FEW else 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, G, h·w, kh·kw·C/G), row by row of the kernel."""
        batch, channels = self.images.shape[:2]
        width = self.kernel[0] * self.kernel[1] * channels // self.groups
        return batch, self.groups, self.size[0] * self.size[1], width

    @property
    def copied(self) -> int:
        """All patches, or what all rows of the kernel see of the padded images."""
        lines = self._rows if self.bands > 1 else self.size[0] * self.kernel[0]
        return lines * self.size[1] * self.kernel[1] * self.images.shape[1]

    def factors(self, samples: slice, b: Tensor, group: int) -> Factors:
        """What each row of the kernel sees, or the whole kernel.

        What is under a row of the kernel is under the next row too, one line of pixels on: it is
        copied once for all rows.
        """
        if self.bands == 1:
            return Factors([_side_by_side(self._patches(samples), group)], _side_by_side(b, group))
        strips = self._strips(samples)
        height, width = self.size
        if self.stride[0] == self.groups == 1:
            # Lines of b that are zero, where the kernel would leave an image for the next one.
            past = self._rows - height
            lines = F.pad(b.unflatten(2, self.size), (0, 0, 0, 0, 0, past)) if group > 1 else b
            a, b = (
                _side_by_side(side, group) for side in (strips.flatten(2, 3), lines.flatten(2, -2))
            )
            positions = a.shape[2] - past * width
            firsts = range(0, (past + 1) * width, self.dilation[0] * width)
            return Factors([a[:, :, y : y + positions] for y in firsts], b[:, :, :positions])
        last = self.stride[0] * (height - 1) + 1
        firsts = range(0, self._rows - last + 1, self.dilation[0])
        parts = (strips[:, :, y : y + last : self.stride[0]].flatten(2, 3) for y in firsts)
        return Factors([_side_by_side(part, group) for part in parts], _side_by_side(b, group))

    def project(self, matrix: Tensor) -> "Patches":
        """The channels of each pixel multiplied by a matrix `[C/G, k]`; k·G channels are left."""
        pixels = self.images.flatten(2).unflatten(1, (self.groups, -1)).mT
        channels = times(pixels, matrix).mT.flatten(1, 2)
        return replace(self, images=channels.unflatten(2, self.images.shape[2:]))

    @property
    def _rows(self) -> int:
        """Lines of the padded images that the kernel touches, h'."""
        (lines, _), (high, _) = self.size, self.kernel
        return self.stride[0] * (lines - 1) + self.dilation[0] * (high - 1) + 1

    def _patches(self, samples: slice) -> Tensor:
        """`[s, G, h·w, kh·kw·C/G]`."""
        images = self._padded(samples)
        positions_first = self.channels > self.size[1]
        if positions_first:
            images = images.contiguous(memory_format=torch.channels_last)
        sample, channel, line, column = images.stride()
        windows = images.as_strided(
            (len(images), self.groups, *self.kernel, self.channels, *self.size),
            (
                sample,
                channel * self.channels,
                line * self.dilation[0],
                column * self.dilation[1],
                channel,
                line * self.stride[0],
                column * self.stride[1],
            ),
        )
        # Copied as they lie in memory: in runs of channels or of pixels, whichever are longer.
        if positions_first:
            return windows.permute(0, 1, 5, 6, 2, 3, 4).flatten(4).flatten(2, 3)
        return windows.flatten(5).flatten(2, 4).mT

    def _strips(self, samples: slice) -> Tensor:
        """What a row of the kernel sees on every line of the images, `[s, G, h', w, kw·C/G]`."""
        pixels = self._padded(samples).permute(0, 2, 3, 1).contiguous()
        sample, line, column, _ = pixels.stride()
        windows = pixels.as_strided(
            (len(pixels), self.groups, self._rows, self.size[1], self.kernel[1], self.channels),
            (sample, self.channels, line, column * self.stride[1], column * self.dilation[1], 1),
        )
        return windows.reshape(*windows.shape[:4], -1)

    def _padded(self, samples: slice) -> Tensor:
        """The images with what the kernel sees beyond their edges."""
        images = self.images[samples]
        return F.pad(images, self.padding, mode=self.mode) if any(self.padding) else images


def times(values: Tensor, matrix: Tensor) -> Tensor:
    """Numbers of positions `[B, G, P, I]` times a matrix `[I, k]`, `[B, G, P, k]`, without a copy
    of those that lie in memory position by position for each number."""
    if values.stride(2) == 1 < values.shape[2]:
        return (matrix.T @ values.mT).mT
    return values @ matrix


def _side_by_side(side: Tensor, group: int) -> Tensor:
    """`[s, G, P, ·]` -> `[s / group, G, group·P, ·]`."""
    if group == 1:
        return side
    return side.unflatten(0, (-1, group)).transpose(1, 2).flatten(2, 3)
