"""The networks that costs are measured on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import UNet2DModel

from retrac.diffusion.config import ModelConfig
from retrac.diffusion.model import build_unet


@dataclass(frozen=True)
class Network:
    """A network, and how much work two processor cores can bear with it.

    Attributes:
        name: on the command line.
        title: in the table.
        build: makes it, with fresh weights.
        shape: of an image, (C, H, W).
        batch: samples, or draws, in a forward and backward pass, also of a plain step.
        queries: whose inner products a scoring pass gives.
        chunk: samples whose gradients of the whole network exist together, in rows that need them,
            which time no more.
        part: samples, or draws, of which slow rows time no more.
    """

    name: str
    title: str
    build: Callable[[], UNet2DModel]
    shape: tuple[int, int, int]
    batch: int
    queries: int
    chunk: int
    part: int

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in self.build().parameters())


def ddpm_cifar() -> UNet2DModel:
    """Build the network of DDPM (Ho et al. 2020) for CIFAR-10, which D-TRAK attributes."""
    return UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )


PUBLISHED = ModelConfig(
    channels=(128, 256, 512, 1024), layers_per_block=1, attention_levels=(), norm_groups=32
)
"""The widths of the network of Xie et al. (2024), whose blocks are built otherwise."""

NETWORKS = {
    network.name: network
    for network in (
        Network(
            "small",
            "small U-Net",
            partial(build_unet, ModelConfig(), (1, 16, 16), seed=0),
            shape=(1, 16, 16),
            batch=256,
            queries=16,
            chunk=64,
            part=8,
        ),
        Network(
            "cifar",
            "CIFAR-10 network of DDPM",
            ddpm_cifar,
            shape=(3, 32, 32),
            batch=32,
            queries=16,
            chunk=8,
            part=4,
        ),
        Network(
            "published",
            "published widths",
            partial(build_unet, PUBLISHED, (3, 32, 32), seed=0),
            shape=(3, 32, 32),
            batch=32,
            queries=8,
            chunk=4,
            part=4,
        ),
    )
}
