"""A training as the published code does one, written for these tests, and the files it leaves."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retrac.data.config import DatasetConfig
from retrac.diffusion.published import PublishedUNet

SAMPLES, BATCH, SIDE = 22, 4, 8
"""The last two samples are never trained: they make no whole batch."""
TRAINED = SAMPLES // BATCH * BATCH
WIDTHS = (8, 16, 24)
EPOCHS, EVERY = 4, 2


def images(folder: Path, count: int = SAMPLES) -> DatasetConfig:
    """A dataset of random images with two labels."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, SIDE, SIDE), np.uint8)
    labels = np.array(["even", "odd"] * count)[:count]
    np.savez(folder / "images.npz", images=pixels, labels=labels)
    return DatasetConfig(dataset=str(folder / "images.npz"))


def alphas_bar(steps: int = 1000) -> Tensor:
    """ᾱ `[T]` of the cosine schedule with betas between 0.0001 and 0.02, in float64."""

    def f(step: int) -> float:
        return math.cos((step / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(max(1 - f(t + 1) / f(t), 1e-4), 0.02) for t in range(steps)]
    return torch.tensor([1 - beta for beta in betas], dtype=torch.float64).cumprod(0)


def loss_of(network: Any, clean: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
    """L1 between the noise and what the network takes for it; a mean over everything."""
    kept = alphas_bar()[timesteps].float().view(-1, 1, 1, 1)
    return F.l1_loss(network(kept.sqrt() * clean + (1 - kept).sqrt() * noise, timesteps), noise)


def train(folder: Path, data: DatasetConfig, widths: tuple[int, ...] = WIDTHS) -> Path:
    """Write `ckpt_2_5.pth` and `ckpt_4_5.pth`."""
    torch.manual_seed(0)
    order = random.Random(0)
    pixels = torch.from_numpy(np.load(data.dataset)["images"])
    clean = pixels.float() / 255 * 2 - 1
    network = PublishedUNet(3, widths)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    indices = list(range(len(clean) // BATCH * BATCH))
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(1, EPOCHS + 1):
        order.shuffle(indices)
        batches = [indices[start : start + BATCH] for start in range(0, len(indices), BATCH)]
        timesteps, noises = [], []
        for batch in batches:
            timesteps.append(torch.randint(0, 1000, (BATCH,)))
            noises.append(torch.randn(BATCH, *clean.shape[1:]))
            loss_of(network, clean[batch], timesteps[-1], noises[-1]).backward()
            optimizer.step()
            optimizer.zero_grad()
        if epoch % EVERY == 0:
            content = {
                "model_state": network.state_dict(),
                "timesteps": torch.stack(timesteps),
                "noise": torch.stack(noises),
                "batch": batches,
            }
            torch.save(content, folder / f"ckpt_{epoch}_{len(batches)}.pth")
    torch.save({"losses": [0.5]}, folder / "losses")
    return folder
