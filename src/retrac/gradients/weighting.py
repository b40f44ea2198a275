"""What tells Diffusion-TracIn from Diffusion-ReTrac: the weight of a gradient of given norm."""

from collections.abc import Callable

import torch
from torch import Tensor

Weighting = Callable[[Tensor], Tensor]
"""Norms of gradients -> the factors they enter a score with, same shape."""


def as_is(norms: Tensor) -> Tensor:
    """Diffusion-TracIn (Xie et al. 2024, eq. 4): every gradient as it is."""
    return torch.ones_like(norms)


def normalised(norms: Tensor) -> Tensor:
    """Diffusion-ReTrac (Xie et al. 2024, eq. 7): every gradient at unit norm; zero stays zero."""
    return torch.where(norms > 0, 1 / norms, 0)


WEIGHTINGS: dict[str, Weighting] = {"tracin": as_is, "retrac": normalised}
