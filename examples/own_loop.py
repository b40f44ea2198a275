"""Your own training loop, with events that can be replayed.

    python examples/own_loop.py out/own

A loop as in diffusers' train_unconditional.py, on scikit-learn's digits and a tiny network. Three
lines are for retrac, marked with #: the ledger decides timesteps and noise, and an index tells
which sample is which. Checkpoints are saved as they always were. Afterwards the model is adopted,
and scores replay what training did, exactly.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import retrac

EPOCHS, EVERY, BATCH, SEED = 6, 2, 32, 0


def train(accelerator: Accelerator, folder: Path, images: torch.Tensor) -> None:
    """Train on images `[N, 1, 8, 8]` in [-1, 1]; saves a checkpoint after every second epoch."""
    if (processes := accelerator.num_processes) > 1 and len(images) % (BATCH * processes):
        sys.exit(  # accelerate would show some samples twice, to make batches even
            f"with {processes} processes, --samples must be a multiple of {BATCH * processes}"
        )
    torch.manual_seed(SEED)
    model = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    dataset = TensorDataset(torch.arange(len(images)), images)
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    ledger = retrac.Ledger(SEED, len(images))  #
    for epoch in range(EPOCHS):
        for index, clean in loader:
            timesteps, noise, _ = ledger.events(epoch, index, clean.shape[1:])  #
            timesteps, noise = timesteps.to(clean.device), noise.to(clean.device)  #
            noisy = scheduler.add_noise(clean, noise, timesteps)
            loss = torch.nn.functional.mse_loss(model(noisy, timesteps).sample, noise)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        if (epoch + 1) % EVERY == 0 and accelerator.is_main_process:
            network = accelerator.unwrap_model(model)
            DDPMPipeline(network, scheduler).save_pretrained(folder / f"checkpoint-{epoch + 1}")


def main() -> None:
    """Train, adopt, attribute, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--samples", type=int, default=256)
    given = parser.parse_args()
    digits = load_digits()
    pixels = (digits.images[: given.samples, None] * 255 / 16).round().astype(np.uint8)
    given.output.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator()
    train(accelerator, given.output, torch.from_numpy(pixels).float() / 127.5 - 1)
    if not accelerator.is_main_process:
        return  # another process goes on
    data = given.output / "digits.npz"
    np.savez(data, images=pixels, labels=digits.target[: given.samples].astype(str))

    after = range(EVERY, EPOCHS + 1, EVERY)
    config = retrac.AdoptConfig(
        pipeline=given.output / f"checkpoint-{EPOCHS}",
        weights=tuple(given.output / f"checkpoint-{epoch}" for epoch in after),
        data=retrac.DatasetConfig(dataset=str(data)),
        epochs=tuple(after),
        seed=SEED,
    )
    run = retrac.adopt(config, given.output / "run")
    result = retrac.attribute(run, "train:4+generated:2", replay="all")
    print(f"report: {retrac.write_report(result, given.output / 'report.html')}")


if __name__ == "__main__":
    main()
