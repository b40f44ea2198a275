"""Matrix products by MKL and by oneDNN, on this processor: GFLOP/s of one core.

    OMP_NUM_THREADS=1 python -m benchmarks.products

Sizes are those of exact scores of the small and of DDPM's network. Writes
benchmarks/results/products.json.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cost.report import device_name
from retrac.files import write_json

OUTPUT = Path(__file__).parent / "results" / "products.json"
SIZES = ((256, 36864, 32), (256, 1024, 768), (1024, 1024, 1024))
SECONDS = 1.0


def main() -> None:
    rows = []
    for m, k, n in SIZES:
        left, right = torch.randn(m, k), torch.randn(n, k)
        image = torch.randn(m, k // 16, 4, 4).contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(n, k // 16, 3, 3)
        products = {
            "MKL": partial(torch.mm, left, right.T),
            "oneDNN": partial(_linear, left, right),
            "convolution": partial(torch.conv2d, image, kernel, padding=1),
        }
        speeds = {
            name: _speed(run, 2 * m * k * n * (9 if name == "convolution" else 1))
            for name, run in products.items()
        }
        print((m, k, n), {name: f"{speed:.0f}" for name, speed in speeds.items()}, flush=True)
        rows.append({"m": m, "k": k, "n": n, **speeds})
    write_json(
        OUTPUT, {"device": device_name("cpu"), "threads": torch.get_num_threads(), "rows": rows}
    )


def _linear(left: Tensor, right: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return product


def _speed(run: Callable[[], Tensor], operations: int) -> float:
    """10⁹ operations a second, the median."""
    run()
    taken: list[float] = []
    while sum(taken) < SECONDS:
        begun = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begun)
    return operations / sorted(taken)[len(taken) // 2] / 1e9


if __name__ == "__main__":
    main()
