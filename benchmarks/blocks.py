"""Where in the network the gradient is, and where it tells labels apart.

`python benchmarks/blocks.py RUN` takes some samples of every label, averages each one's gradient
over noises at three timesteps, and prints for each block of the network its share of the squared
norm, and how many of a sample's nearest neighbours by that block's gradient have its label.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import normalize

import retrac
from retrac.attribution.plan import Plan
from retrac.attribution.query_gradients import gradients_by_timestep
from retrac.diffusion.shown import Seen
from retrac.files import write_json
from retrac.gradients import LayerGroups


@dataclass(frozen=True)
class Settings:
    """What is measured, at the last checkpoint."""

    run: tyro.conf.Positional[Path]
    per_label: int = 8
    """Samples of each label."""
    noises: int = 8
    """Noises per timestep."""
    timesteps: tuple[int, ...] = (200, 500, 800)
    output: Path | None = None
    """JSON file for the numbers."""


def main(settings: Settings) -> None:
    run = retrac.Run.open(settings.run)
    labels = np.array(run.dataset.labels)
    chosen = np.concatenate(
        [np.flatnonzero(labels == label)[: settings.per_label] for label in np.unique(labels)]
    )
    model = run.checkpoints[-1].load(run.shape)
    groups = LayerGroups.of(name for name, _ in model.named_parameters())
    plan = Plan(torch.tensor(settings.timesteps), settings.noises, seed=0)
    blocks: dict[str, list[Tensor]] = {}
    steps = len(settings.timesteps)
    for image in run.dataset.tensors(chosen):
        gradients, _ = gradients_by_timestep(
            model,
            run.objective,
            Seen(image.expand(steps, -1, -1, -1)),
            plan.timesteps,
            plan.draw(image),
            settings.noises,
        )
        parts: dict[str, list[Tensor]] = {}
        for name, (_, values) in gradients.items():
            parts.setdefault(groups.names[groups.place[name]], []).append(values)
        for block, values_of in parts.items():
            blocks.setdefault(block, []).append(torch.cat(values_of, 1))
    stacked = {block: torch.stack(rows) for block, rows in blocks.items()}
    total = sum(rows.square().sum(2) for rows in stacked.values())
    table = Table("block", "parameters", *(f"t = {t}: share, own" for t in settings.timesteps))
    found = {}
    for block, rows in stacked.items():
        shares = (rows.square().sum(2) / total).mean(0).tolist()
        own = [
            _own(rows[:, at], labels[chosen], settings.per_label - 1) for at in range(len(shares))
        ]
        found[block] = {"parameters": rows.shape[2], "share": shares, "own label": own}
        numbers = (f"{share:.2f}, {hits:.2f}" for share, hits in zip(shares, own, strict=True))
        table.add_row(block, f"{rows.shape[2]:,}", *numbers)
    Console().print(table)
    if settings.output is not None:
        write_json(settings.output, {"timesteps": list(settings.timesteps), "blocks": found})


def _own(rows: Tensor, labels: np.ndarray, k: int) -> float:
    """Share of the k nearest by cosine that have the sample's own label."""
    unit = normalize(rows, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    nearest = cosines.topk(k).indices.numpy()
    return float((labels[nearest] == labels[:, None]).mean())


if __name__ == "__main__":
    main(tyro.cli(Settings))
