"""What it costs to fit a metric to the features of 50,000 samples, and to put a query to it.

    python -m benchmarks.fitting

Random features stand in for real ones, which cost the same. Writes benchmarks/results/fitting.json.
"""

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.cost.report import device_name
from retrac.attribution.metrics import DampedKernel, Freedom
from retrac.files import write_json

RESULTS = Path(__file__).parent / "results"
SHARE, FREEDOM = 0.1, Freedom(25)
CASES: dict[str, tuple[int, int, float | Freedom]] = {
    "32 layers of 256 numbers": (32, 256, SHARE),
    "one block of 8,192 numbers": (1, 8192, SHARE),
    "one block of 8,192 numbers, λ by degrees of freedom": (1, 8192, FREEDOM),
}


@dataclass(frozen=True)
class Settings:
    samples: int = 50_000
    queries: int = 48

    def __call__(self) -> None:
        rows = []
        for name, case in CASES.items():
            rows.append({"features": name, **self._measured(*case)})
            print(rows[-1], flush=True)
        write_json(
            RESULTS / "fitting.json",
            {"processor": device_name("cpu"), "threads": torch.get_num_threads(), "rows": rows},
        )

    def _measured(self, blocks: int, size: int, damping: float | Freedom) -> dict[str, Any]:
        """Of one case, whose features are freed ahead of the next."""
        generator = torch.Generator().manual_seed(0)
        samples = torch.randn(self.samples, blocks * size, generator=generator)
        queries = torch.randn(self.queries, blocks * size, generator=generator)
        layers = [slice(at, at + size) for at in range(0, blocks * size, size)]
        begun = time.perf_counter()
        transform = DampedKernel(damping, by_layer=blocks > 1).fit(samples, layers)
        fitted = time.perf_counter()
        scores = transform(queries) @ samples.mT
        ended = time.perf_counter()
        assert scores.shape == (self.queries, self.samples)
        return {
            "samples": self.samples,
            "fit seconds": fitted - begun,
            "seconds of all queries": ended - fitted,
            "queries": self.queries,
            "peak GB of the process so far": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            / 2**20,
        }


if __name__ == "__main__":
    tyro.cli(Settings)()
