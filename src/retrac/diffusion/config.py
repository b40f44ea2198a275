"""What is trained: the network and the objective. Light to import: these are the command line."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """A diffusers `UNet2DModel`."""

    channels: tuple[int, ...] = (32, 64, 64)
    """Width of each level, from the image's resolution down; each level halves it."""
    layers_per_block: int = 1
    """Residual blocks per level."""
    attention_levels: tuple[int, ...] = (2,)
    """Levels with self-attention, counted from 0, the widest resolution."""
    attention_head_dim: int = 16
    """Channels of an attention head."""
    norm_groups: int = 8
    """Groups of the group normalisations; divides every width."""
    time_scale_shift: Literal["default", "scale_shift"] = "default"
    """How the timestep enters a residual block: added, or as scale and shift."""
    resampling: Literal["conv", "resnet"] = "conv"
    """Down- and upsampling by a convolution or by a residual block."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """The forward process and the loss."""

    timesteps: int = 1000
    """Steps T of the forward process."""
    schedule: Literal["linear", "cosine", "clipped-cosine"] = "cosine"
    """Noise schedule; clipped-cosine is the published one, with betas clipped at 0.0001 and
    0.02."""
    prediction: Literal["epsilon", "v", "x0"] = "epsilon"
    """What the network predicts."""
    loss: Literal["l1", "mse"] = "mse"
    """Distance between prediction and target, averaged over pixels."""
