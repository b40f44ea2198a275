"""A training of the paper's published code, taken in, and asked in two ways.

    python examples/published_code.py out/published

In place of files of the published `train.py` it writes some of the same format: a tiny network of
that architecture, trained on scikit-learn's digits. With your own, the steps below are
`retrac import` and `retrac attribute` on the command line. Once the recorded events are replayed,
as the paper's formulas say; once fresh ones are drawn, as the published code does. How far do the
lists agree?
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

import retrac
from retrac.diffusion.published import PublishedUNet
from retrac.diffusion.schedule import clipped_cosine_betas

STEPS, EPOCHS, EVERY, BATCH, WIDTHS, SEED = 1000, 8, 2, 16, (8, 16), 0


def train(folder: Path, images: torch.Tensor) -> None:
    """Train on images `[N, 1, H, W]` in [-1, 1], and leave `ckpt_EPOCH_STEP.pth` as that code."""
    torch.manual_seed(SEED)
    network = PublishedUNet(1, WIDTHS)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    kept = torch.from_numpy(1 - clipped_cosine_betas(STEPS)).cumprod(0)
    whole = len(images) // BATCH * BATCH  # the last samples are never trained there
    for epoch in range(1, EPOCHS + 1):
        batches = torch.randperm(whole).view(-1, BATCH)
        timesteps = torch.randint(0, STEPS, batches.shape)
        noise = torch.randn(*batches.shape, *images.shape[1:])
        for batch, moment, fresh in zip(batches, timesteps, noise, strict=True):
            share = kept[moment].view(-1, 1, 1, 1)
            noisy = share.sqrt() * images[batch] + (1 - share).sqrt() * fresh
            (network(noisy, moment) - fresh).abs().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        if epoch % EVERY == 0:
            content = {
                "model_state": network.state_dict(),
                "timesteps": timesteps,
                "noise": noise,
                "batch": batches.tolist(),
            }
            torch.save(content, folder / f"ckpt_{epoch}_{len(batches)}.pth")


def main() -> None:
    """Train, import both ways, attribute, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--samples", type=int, default=130)
    given = parser.parse_args()
    files, data = given.output / "files", given.output / "digits.npz"
    files.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    pixels = (digits.images[: given.samples, None] * 255 / 16).round().astype(np.uint8)
    np.savez(data, images=pixels, labels=digits.target[: given.samples].astype(str))
    train(files, torch.from_numpy(pixels).float() / 127.5 - 1)

    lists = []
    for events in ("recorded", "fresh"):
        config = retrac.ImportConfig(retrac.DatasetConfig(dataset=str(data)), events)
        run = retrac.import_published(files, config, given.output / events)
        result = retrac.attribute(run, "train:4")
        path = retrac.write_report(result, given.output / f"{events}.html")
        lists.append(
            [{entry.sample for entry in result.proponents(q, "retrac", 10)} for q in range(4)]
        )
        print(f"report, events {events}: {path}")
    shared = np.mean([len(one & other) for one, other in zip(*lists, strict=True)])
    print(f"of 10 proponents under ReTrac {shared:.1f} are the same (mean of 4 queries)")


if __name__ == "__main__":
    main()
