"""Forward processes as tables over timesteps: how a sample is noised, and what is to be predicted.

Diffusion and flow matching differ in their tables alone:
`x_t = signal_t x + spread_t ε`, and the target is `of_clean_t x + of_noise_t ε`.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Process:
    """A forward process with T timesteps.

    Attributes:
        signal, spread: `[T]`, what is left of the sample, and how much noise there is.
        of_clean, of_noise: `[T]`, of what the target is made.
        told: `[T]`, what the network is told of the timestep.
        weight: `[T]`, how much a loss there counts.
        prediction: "epsilon", "v", "x0" or "velocity": what the target is called.
    """

    signal: Tensor
    spread: Tensor
    of_clean: Tensor
    of_noise: Tensor
    told: Tensor
    weight: Tensor
    prediction: str

    @staticmethod
    def diffusion(alphas_bar: Tensor, prediction: str) -> "Process":
        """Variance-preserving (Ho et al. 2020, eq. 4).

        Args:
            alphas_bar: ᾱ `[T]`.
            prediction: "epsilon", "v" (Salimans and Ho 2022) or "x0".
        """
        signal, spread = alphas_bar.sqrt(), (1 - alphas_bar).sqrt()
        nothing, everything = torch.zeros_like(signal), torch.ones_like(signal)
        of_clean, of_noise = {
            "epsilon": (nothing, everything),
            "v": (-spread, signal),
            "x0": (everything, nothing),
        }[prediction]
        told = torch.arange(len(alphas_bar))
        return Process(signal, spread, of_clean, of_noise, told, everything, prediction)

    @staticmethod
    def flow(sigmas: Tensor, told: Tensor) -> "Process":
        """Straight paths from sample to noise, whose velocity is predicted (Lipman et al. 2023).

        Args:
            sigmas: σ `[T]` in [0, 1], rising.
            told: `[T]`, what the network is told of each.
        """
        everything = torch.ones_like(sigmas)
        return Process(1 - sigmas, sigmas, -everything, everything, told, everything, "velocity")

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.signal)

    @property
    def ratio(self) -> Tensor:
        """`[T]`, of squared signal and spread: SNR."""
        return (self.signal / self.spread).square()

    def weighted(self, weight: Tensor) -> "Process":
        """With other weights `[T]`."""
        return replace(self, weight=weight)

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t `[B, …]` at timesteps `[B]`."""
        return _mixed(self.signal, clean, self.spread, noise, timesteps)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should predict, `[B, …]`."""
        return _mixed(self.of_clean, clean, self.of_noise, noise, timesteps)


def snr(process: Process) -> Tensor:
    """Weights `[T]` of squared signal to noise, which make a loss on x0 one on ε."""
    return process.ratio


def min_snr(process: Process, most: float = 5.0) -> Tensor:
    """Weights `[T]` that do not let easy timesteps dominate (Hang et al. 2023, section 3.4).

    Args:
        process: a diffusion; the weights of a loss on x0 are brought over to what it predicts.
        most: γ.
    """
    clamped = process.ratio.clamp(max=most)
    return {
        "epsilon": (most / process.ratio).clamp(max=1),  # also where there is no signal at all
        "v": clamped / (process.ratio + 1),
        "x0": clamped,
    }[process.prediction]


def inverse_square(process: Process) -> Tensor:
    """Weights `[T]` 1/σ², of a flow; diffusers calls them "sigma_sqrt"."""
    return process.spread.pow(-2)


def cosine_map(process: Process) -> Tensor:
    """Weights `[T]` of a flow as a cosine schedule has them (Esser et al. 2024, section 3.1)."""
    sigma = process.spread
    return 2 / (math.pi * (1 - 2 * sigma + 2 * sigma.square()))


def _mixed(one: Tensor, clean: Tensor, other: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    size = (-1, *(1,) * (clean.dim() - 1))
    first, second = (table.to(clean)[timesteps].view(size) for table in (one, other))
    return first * clean + second * noise
