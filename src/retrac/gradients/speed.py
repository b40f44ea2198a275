"""How fast this machine is, measured in about a second."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from retrac.gradients.routes import TILE_BYTES, Machine, Shape

SECONDS = 0.5
"""For each of the two measurements."""


def measure_machine(device: torch.device, shape: Shape) -> Machine:
    """Rate at which gradients of a shape are written out, and directions read from memory."""
    samples = max(1, min(shape.batch, TILE_BYTES // (4 * shape.inputs * shape.outputs)))
    a = torch.ones(samples, shape.positions, shape.inputs // shape.bands, device=device)
    b = torch.ones(samples, shape.positions, shape.outputs, device=device).transpose(1, 2)
    operations = 2 * a.numel() * shape.outputs
    # Few gradients, so that what takes time is the directions: 128 MB of them, in usual pieces.
    gradients = torch.ones(512, 4, 2048, device=device)
    directions = torch.ones(32, 512, 2048, device=device).permute(1, 2, 0)
    read = directions.numel() * directions.element_size()
    return Machine(
        operations / _median_seconds(lambda: b @ a, device),
        read / _median_seconds(lambda: gradients @ directions, device),
    )


def now(device: torch.device) -> float:
    """Seconds on a clock, after all that was begun on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _median_seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    run()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < SECONDS:
        start = now(device)
        run()
        taken.append(now(device) - start)
    return sorted(taken)[len(taken) // 2]
