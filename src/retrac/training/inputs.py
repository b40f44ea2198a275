"""What an event shows the network: the same for training and for its replay."""

import numpy as np
import torch
from torch import Tensor

from retrac.data.dataset import ImageDataset
from retrac.diffusion.shown import Seen, Shown
from retrac.training.ledger import Ledger


def training_inputs(
    dataset: ImageDataset, ledger: Ledger, epoch: int, indices: np.ndarray, flip: bool
) -> Shown:
    """What training showed the network of some samples in one epoch.

    Returns:
        Images `[B, C, H, W]` in [-1, 1], mirrored where the events say so and `flip` is on,
        timesteps `[B]` and noise `[B, C, H, W]`.
    """
    events = ledger.events(epoch, indices, dataset.shape)
    images = dataset.tensors(indices)
    if flip:
        images = mirror(images, events.flips)
    return Shown(Seen(images), events.timesteps, events.noise)


def mirror(images: Tensor, which: Tensor) -> Tensor:
    """Images `[B, C, H, W]`, those of `which [B]` mirrored left to right."""
    return torch.where(which.view(-1, 1, 1, 1), images.flip(-1), images)
