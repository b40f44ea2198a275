"""The loss of each sample at its own timestep and noise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retrac.diffusion.config import ObjectiveConfig
from retrac.diffusion.schedule import make_scheduler


@dataclass(frozen=True, eq=False)
class Objective:
    """`L(θ; x, t, ε)`, the mean over pixels of the distance between prediction and target.

    Attributes:
        prediction: "epsilon", "v" or "x0".
        distance: elementwise, of prediction and target.
        alphas_bar: ᾱ `[T]`, float32.
    """

    prediction: str
    distance: Callable[[Tensor, Tensor], Tensor]
    alphas_bar: Tensor

    @staticmethod
    def of(config: ObjectiveConfig) -> "Objective":
        """Build the objective that a configuration describes."""
        distances = {"l1": lambda p, y: (p - y).abs(), "mse": lambda p, y: (p - y).square()}
        alphas_bar = make_scheduler(config).alphas_cumprod
        return Objective(config.prediction, distances[config.loss], alphas_bar)

    def losses(
        self,
        model: Callable[..., Any] | nn.Module,
        images: Tensor,
        timesteps: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Run the network on noised images.

        Args:
            model: called as `model(x_t, t).sample`, like diffusers' `UNet2DModel`.
            images: `[B, C, H, W]` in [-1, 1].
            timesteps: `[B]` int64 in [0, T).
            noise: `[B, C, H, W]`, standard normal.

        Returns:
            Losses `[B]`, float32 or wider.
        """
        alpha_bar = self.alphas_bar.to(images)[timesteps].view(-1, 1, 1, 1)
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        noisy = signal * images + spread * noise
        target = {
            "epsilon": noise,
            "v": signal * noise - spread * images,
            "x0": images,
        }[self.prediction]
        prediction = model(noisy, timesteps).sample.to(target.dtype)
        return self.distance(prediction, target).flatten(1).mean(1)


def fast_memory_format(images: Tensor) -> Tensor:
    """The same images with channels last, where convolutions are about twice as fast."""
    return images.contiguous(memory_format=torch.channels_last)
