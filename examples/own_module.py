"""Any module and any loss: two functions make it a run that can be asked.

    python examples/own_module.py out/module

A small network of no library, trained on scikit-learn's digits with a loss of its own. `load` and
`losses` are all that retrac is told; that training asked a ledger for its events, so scores replay
them.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import retrac

STEPS, EPOCHS, EVERY, BATCH, SEED = 100, 8, 4, 32, 0


class Denoiser(nn.Module):
    """Three convolutions, told how much noise there is."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 24, 3, padding=1)
        self.moment = nn.Linear(1, 24)
        self.middle = nn.Conv2d(24, 24, 3, padding=1)
        self.last = nn.Conv2d(24, 1, 3, padding=1)

    def forward(self, noisy: Tensor, share: Tensor) -> Tensor:
        """The noise in images `[B, 1, H, W]` of which it is a share `[B]`."""
        inner = self.first(noisy) + self.moment(share[:, None])[..., None, None]
        return self.last(self.middle(inner.relu()).relu())


def load(path: Path) -> nn.Module:
    """The network with the weights in a file."""
    network = Denoiser()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def losses(network: nn.Module, seen: retrac.Seen, timesteps: Tensor, noise: Tensor) -> Tensor:
    """Of B samples `[B, 1, H, W]` in [-1, 1] at timesteps `[B]`: B losses."""
    share = (timesteps + 1) / STEPS
    angle = share.view(-1, 1, 1, 1) * torch.pi / 2
    noisy = angle.cos() * seen.clean + angle.sin() * noise
    wrong = network(noisy, share) - noise
    huber = nn.functional.huber_loss(wrong, torch.zeros_like(wrong), reduction="none")
    return huber.mean((1, 2, 3))


def train(folder: Path, images: Tensor) -> None:
    """Train on images `[N, 1, 8, 8]`; saves weights after every fourth epoch."""
    torch.manual_seed(SEED)
    network, ledger = Denoiser(), retrac.Ledger(SEED, len(images), STEPS)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for epoch in range(EPOCHS):
        for index in torch.randperm(len(images)).split(BATCH):
            timesteps, noise, _ = ledger.events(epoch, index, images.shape[1:])
            losses(network, retrac.Seen(images[index]), timesteps, noise).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        if (epoch + 1) % EVERY == 0:
            torch.save(network.state_dict(), folder / f"{epoch + 1}.pt")


def main() -> None:
    """Train, make it a run, attribute, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--samples", type=int, default=256)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    pixels = (digits.images[: given.samples, None] * 255 / 16).round().astype(np.uint8)
    data = given.output / "digits.npz"
    np.savez(data, images=pixels, labels=digits.target[: given.samples].astype(str))
    train(given.output, torch.from_numpy(pixels).float() / 127.5 - 1)

    after = range(EVERY, EPOCHS + 1, EVERY)
    run = retrac.adopt_module(
        given.output / "run",
        load=load,
        losses=losses,
        weights=[given.output / f"{epoch}.pt" for epoch in after],
        epochs=after,
        data=retrac.DatasetConfig(dataset=str(data)),
        timesteps=STEPS,
        seed=SEED,
    )
    result = retrac.attribute(run, "train:4", replay="all")
    print(f"report: {retrac.write_report(result, given.output / 'report.html')}")


if __name__ == "__main__":
    main()
