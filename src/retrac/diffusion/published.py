"""The network of the paper's published code, to whose weights it gives the same names.

Written from the names and shapes of its weights and from what it computes: a U-Net with two
residual blocks and two skips per level, patches of 2×2 put into channels on the way down, and
attention at the lowest level, in the middle, and at the highest level of the way up.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import count, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrac.errors import RetracError

GROUPS = 8
"""Of the group normalisations; divides every width."""
HEADS, HEAD_WIDTH = 4, 32
"""Of attention, at every width."""


class PublishedUNet(nn.Module):
    """Predicts the noise of images `[B, C, H, W]`, whose sides can be halved len(widths) - 2 times.

    Args:
        channels: C.
        widths: of the levels, from the image's resolution down; the paper's are 128 256 512 1024.
            The last two levels have the same resolution.

    Attributes:
        channels, widths: as given.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.channels, self.widths = channels, tuple(widths)
        first, told = widths[0], 4 * widths[0]
        self.time_embedding = nn.Sequential(
            nn.Linear(first, told), nn.SiLU(), nn.Linear(told, told)
        )
        self.init_conv = nn.Conv2d(channels, first, 3, padding=1)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        steps = [*pairwise(widths)]
        for above, below in steps:
            lowest = len(self.down_blocks) == len(steps) - 1
            same = nn.Conv2d(above, below, 3, padding=1)
            smaller = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * above, below, 1))
            self.down_blocks.append(Level(above, above, told, lowest, same if lowest else smaller))
        self.mid_block1 = Block(widths[-1], widths[-1], told)
        self.mid_attn = Attention(widths[-1])
        self.mid_block2 = Block(widths[-1], widths[-1], told)
        for above, below in reversed(steps):
            highest = len(self.up_blocks) == len(steps) - 1
            same = nn.Conv2d(below, above, 3, padding=1)
            larger = nn.Sequential(nn.Upsample(scale_factor=2), same)
            self.up_blocks.append(
                Level(below + above, below, told, highest, same if highest else larger)
            )
        self.out_block = Block(2 * first, first, told)
        self.conv_out = nn.Conv2d(first, channels, 1)

    def refuse_other(self, shape: tuple[int, int, int]) -> None:
        """Refuse images (C, H, W) for which it is not.

        Raises:
            RetracError: other channels, or sides that cannot be halved as often as it does.
        """
        channels, *sides = shape
        halvings = len(self.widths) - 2
        if channels != self.channels:
            raise RetracError(
                f"the network is for {self.channels} channels, but the images have {channels}"
            )
        if any(side % 2**halvings for side in sides):
            raise RetracError(
                f"images of {sides[0]}x{sides[1]} cannot be halved {halvings} times, as the "
                "network does: give another --resolution"
            )

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Noise `[B, C, H, W]` in images at timesteps `[B]`, or one for all."""
        waves = sinusoids(timesteps.expand(len(noisy)), self.init_conv.out_channels)
        told = F.silu(self.time_embedding(waves.to(noisy.dtype)))
        seen = self.init_conv(noisy)
        skips = [seen]
        for level in self.down_blocks:
            first, second, seen = level(seen, told)
            skips += first, second
        seen = self.mid_block2(self.mid_attn(self.mid_block1(seen, told)), told)
        for level in self.up_blocks:
            _, _, seen = level(seen, told, (skips.pop(), skips.pop()))
        return self.conv_out(self.out_block(torch.cat((seen, skips.pop()), 1), told))


class Level(nn.ModuleList):
    """Two blocks, attention where there is some, and the way to the next level."""

    def __init__(
        self, inputs: int, width: int, told: int, attended: bool, resize: nn.Module
    ) -> None:
        super().__init__(
            [
                Block(inputs, width, told),
                Block(inputs, width, told),
                Attention(width) if attended else nn.Identity(),
                resize,
            ]
        )

    def forward(
        self, seen: Tensor, told: Tensor, skips: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What each block gives, beside one of the skips, and the second's at the next level."""
        one, two, attend, resize = self
        first = one(torch.cat((seen, *skips[:1]), 1), told)
        second = attend(two(torch.cat((first, *skips[1:]), 1), told))
        return first, second, resize(second)


class Block(nn.Module):
    """Two convolutions, the timestep added between them, beside a way around."""

    def __init__(self, inputs: int, outputs: int, told: int) -> None:
        super().__init__()
        self.time_emb_proj = nn.Sequential(nn.SiLU(), nn.Linear(told, outputs))
        self.residual_conv = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm1 = nn.GroupNorm(GROUPS, outputs)
        self.norm2 = nn.GroupNorm(GROUPS, outputs)

    def forward(self, seen: Tensor, told: Tensor) -> Tensor:
        """`[B, inputs, H, W]`, told `[B, told]` -> `[B, outputs, H, W]`."""
        hidden = F.silu(self.norm1(self.conv1(seen))) + self.time_emb_proj(told)[..., None, None]
        return F.silu(self.norm2(self.conv2(hidden))) + self.residual_conv(seen)


class Attention(nn.Module):
    """Self-attention over pixels, normalised first, beside a way around."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fn = nn.ModuleDict({"norm": ChannelNorm(width), "fn": Heads(width)})

    def forward(self, seen: Tensor) -> Tensor:
        """`[B, width, H, W]` -> the same."""
        return seen + self.fn["fn"](self.fn["norm"](seen))


class Heads(nn.Module):
    """Self-attention over pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(width, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.to_out = nn.Conv2d(HEADS * HEAD_WIDTH, width, 1)

    def forward(self, seen: Tensor) -> Tensor:
        """`[B, width, H, W]` -> the same."""
        parts = self.to_qkv(seen).flatten(2).unflatten(1, (3, HEADS, HEAD_WIDTH))
        query, key, value = parts.transpose(-1, -2).unbind(1)  # [B, heads, pixels, head width]
        found = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(found.transpose(-1, -2).flatten(1, 2).unflatten(2, seen.shape[2:]))


class ChannelNorm(nn.Module):
    """Each pixel's channels at mean 0 and variance 1, then scaled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, seen: Tensor) -> Tensor:
        """`[B, width, H, W]` -> the same."""
        variance, mean = torch.var_mean(seen, 1, unbiased=False, keepdim=True)
        return (seen - mean) * (variance + 1e-5).rsqrt() * self.g


def sinusoids(timesteps: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of timesteps `[B]` at width / 2 frequencies from 1 down to 1/10000:
    float32 `[B, width]`."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
    angles = timesteps[:, None].float() * frequencies.to(timesteps.device)
    return torch.cat((angles.sin(), angles.cos()), 1)


def published_unet(weights: Mapping[str, Tensor]) -> PublishedUNet:
    """The network that weights belong to, with these weights.

    Raises:
        RetracError: they are of another architecture; the first that does not fit is named.
    """
    channels, widths = _size(weights)
    with torch.device("meta"):
        network = PublishedUNet(channels, widths)
    expected = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    there = {name: tuple(each.shape) for name, each in weights.items()}
    for name in sorted(expected.keys() | there.keys()):
        if expected.get(name) != there.get(name):
            raise _of_another(
                f"{name} is {there.get(name, 'absent')}, where widths {' '.join(map(str, widths))} "
                f"have {expected.get(name, 'none')}"
            )
    network.load_state_dict(dict(weights), assign=True)
    return network


def _size(weights: Mapping[str, Tensor]) -> tuple[int, tuple[int, ...]]:
    """Channels and widths, as far as they can be told from weights of any kind."""
    first = weights.get("init_conv.weight")
    if first is None or first.dim() != 4:
        raise _of_another("they have no init_conv.weight of four dimensions")
    widths = [first.shape[0]]
    for level in count():
        names = (f"down_blocks.{level}.3.weight", f"down_blocks.{level}.3.1.weight")
        found = [weights[name] for name in names if name in weights]
        if not found or not found[0].dim():
            break
        widths.append(found[0].shape[0])
    if any(width < 1 or width % GROUPS for width in widths):
        raise _of_another(f"not all widths {' '.join(map(str, widths))} are multiples of {GROUPS}")
    return first.shape[1], tuple(widths)


def _of_another(reason: str) -> RetracError:
    return RetracError(f"the weights are not of the published U-Net: {reason}")
