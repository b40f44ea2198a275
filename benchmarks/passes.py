"""Cost of attribution against the cost of training, in one run: `make bench`.

Seconds per sample (train side) and per draw (query side) of

(a) a plain training step: forward and backward of the mean loss over a batch;
(b) ours: exact, TracIn and ReTrac together;
(c) a naive loop as published: batch of one, autograd, one inner product per query.

All three use the same network, images, events and memory format. Rounds of the three alternate, and
medians are reported, so that a machine whose speed drifts treats them alike.
"""

import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from retrac.data.config import DatasetConfig
from retrac.data.open import open_dataset
from retrac.diffusion.config import ModelConfig, ObjectiveConfig
from retrac.diffusion.loss import Objective, fast_memory_format
from retrac.diffusion.model import build_unet
from retrac.files import write_json
from retrac.gradients import dots_and_norms
from retrac.influence.config import PlanConfig
from retrac.influence.plan import Plan
from retrac.influence.query_gradients import query_gradients
from retrac.training.inputs import training_inputs
from retrac.training.ledger import Ledger

METHODS = ("tracin", "retrac")


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DatasetConfig = field(default_factory=DatasetConfig)
    queries: int = 16
    """Queries on the train side."""
    batch: int = 64
    """Samples in a plain step and in our pass."""
    naive: int = 8
    """Samples, and timesteps, of a round of the naive loop."""
    rounds: int = 7
    """Counted rounds, after one to warm up."""
    device: str = "cpu"
    output: Path = Path("benchmarks/results/passes.json")


def main(settings: Settings) -> None:
    torch.manual_seed(0)
    dataset = open_dataset(settings.data)
    model = build_unet(settings.model, dataset.shape, seed=0)
    with torch.no_grad():  # a fresh network's last convolutions are zero in places: no gradients
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model = model.to(settings.device, memory_format=torch.channels_last)
    objective = Objective.of(ObjectiveConfig())
    ledger = Ledger(0, len(dataset), 1000)
    indices = np.arange(settings.batch)
    images, timesteps, noise = (
        part.to(settings.device)
        for part in training_inputs(dataset, ledger, 0, indices, flip=False)
    )
    images, noise = fast_memory_format(images), fast_memory_format(noise)
    plan = Plan.of(PlanConfig(), 1000)
    block = max(1, settings.batch // plan.noises)
    queries = dataset.tensors(np.arange(settings.queries))
    names = [str(query) for query in range(settings.queries)]
    gradients = query_gradients(model, objective, plan, queries, METHODS, block, names, "none")
    directions = gradients.directions

    def plain() -> None:
        model.zero_grad(set_to_none=True)
        objective.losses(model, images, timesteps, noise).mean().backward()

    def ours() -> None:
        dots_and_norms(model, lambda: objective.losses(model, images, timesteps, noise), directions)

    rows = _rows(model, directions.parameters())

    def naive() -> None:
        for row in range(settings.naive):
            gradient = _gradient(model, objective, images, timesteps, noise, row)
            norm = torch.linalg.vector_norm(gradient)
            for direction in rows:
                torch.dot(direction, gradient) / norm

    query_draws = len(plan.timesteps) * plan.noises
    query = dataset.tensors(np.arange(1))

    def ours_query() -> None:
        query_gradients(model, objective, plan, query, METHODS, block, ["0"], "none")

    def naive_query() -> None:
        noises = fast_memory_format(plan.draw(query[0])[: settings.naive].flatten(0, 1).to(images))
        sums = [torch.zeros_like(rows[0]), torch.zeros_like(rows[0])]
        for moment in range(settings.naive):
            mean = torch.zeros_like(rows[0])
            for draw in range(plan.noises):
                row = moment * plan.noises + draw
                at = plan.timesteps[moment : moment + 1].expand(len(noises)).to(settings.device)
                image = query.to(images).expand(len(noises), -1, -1, -1)
                mean += _gradient(model, objective, image, at, noises, row) / plan.noises
            sums[0] += mean
            sums[1] += mean / torch.linalg.vector_norm(mean)

    per = _measure(
        {
            "plain": (plain, settings.batch),
            "ours": (ours, settings.batch),
            "naive": (naive, settings.naive),
            "plain query": (plain, settings.batch),
            "ours query": (ours_query, query_draws),
            "naive query": (naive_query, settings.naive * plan.noises),
        },
        settings,
    )
    report(per, model, settings)


def report(per: dict[str, float], model: nn.Module, settings: Settings) -> None:
    """Print the table and write the JSON."""
    parameters = sum(p.numel() for p in model.parameters())
    table = Table(
        "pass", "ms", "× plain step", "× ours",
        title=f"{parameters:,} parameters, {settings.queries} queries, both methods, batch "
        f"{settings.batch}, {torch.get_num_threads()} threads, {device_name(settings.device)}",
    )  # fmt: skip
    for side, unit in (("", "sample"), (" query", "draw")):
        for name, title in (("plain", "plain step"), ("ours", "ours"), ("naive", "naive loop")):
            seconds = per[name + side]
            table.add_row(
                f"{title}, per {unit}",
                f"{seconds * 1e3:.2f}",
                f"{seconds / per['plain' + side]:.2f}",
                f"{seconds / per['ours' + side]:.2f}",
            )
    Console().print(table)
    write_json(
        settings.output,
        {
            "command": " ".join(["python", *sys.argv]),
            "device": device_name(settings.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "parameters": parameters,
            "queries": settings.queries,
            "batch": settings.batch,
            "rounds": settings.rounds,
            "image": settings.data.dataset,
            "channels": list(settings.model.channels),
            "seconds per sample": {n: per[n] for n in ("plain", "ours", "naive")},
            "seconds per draw": {n: per[f"{n} query"] for n in ("plain", "ours", "naive")},
            "ours over plain, sample": per["ours"] / per["plain"],
            "naive over ours, sample": per["naive"] / per["ours"],
            "ours over plain, draw": per["ours query"] / per["plain query"],
            "naive over ours, draw": per["naive query"] / per["ours query"],
        },
    )
    print(f"written to {settings.output}")


def device_name(device: str) -> str:
    """The accelerator's name, or the processor's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        for line in cpu.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _measure(
    passes: dict[str, tuple[Callable[[], None], int]], settings: Settings
) -> dict[str, float]:
    """Median seconds per unit of each pass, over rounds in which all passes alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(settings.rounds + 1):
        for name, (work, units) in passes.items():
            start = time.perf_counter()
            work()
            if settings.device.startswith("cuda"):
                torch.cuda.synchronize()
            if turn:
                seconds[name].append((time.perf_counter() - start) / units)
    return {name: statistics.median(found) for name, found in seconds.items()}


def _gradient(
    model: nn.Module,
    objective: Objective,
    images: Tensor,
    timesteps: Tensor,
    noise: Tensor,
    row: int,
) -> Tensor:
    one = slice(row, row + 1)
    (loss,) = objective.losses(model, images[one], timesteps[one], noise[one])
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients])


def _rows(model: nn.Module, directions: dict[str, Tensor]) -> Tensor:
    """Directions as flat vectors `[M, n]`, in the order of the model's parameters."""
    return torch.cat([directions[name].flatten(1) for name, _ in model.named_parameters()], 1)


if __name__ == "__main__":
    main(tyro.cli(tyro.conf.OmitArgPrefixes[Settings]))
