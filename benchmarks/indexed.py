"""What an index keeps of a sample, and how well it answers: bytes on disk and LDS.

    python -m benchmarks.indexed

Indexes of the benchmark's run for kernel-retrac, with and without the network's outputs, in
sketches of some sizes. Writes benchmarks/results/indexed.json.
"""

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from retrac.attribution.attribute import attribution_of
from retrac.attribution.build_index import build_index
from retrac.attribution.config import AttributeConfig, IndexConfig
from retrac.attribution.methods import DEFAULT
from retrac.evaluation.lds import Lds
from retrac.evaluation.shipped import Shipped
from retrac.files import write_json
from retrac.training.trained import TrainedRun

RESULTS = Path(__file__).parent / "results"
KERNEL = DEFAULT[:1]
INDEXES = ((8192, True), (8192, False), (4096, False), (1024, False))


@dataclass(frozen=True)
class Settings:
    run: Path = Path("runs/benchmark")
    """Of the benchmark's model; trained where it is not there."""

    def __call__(self) -> None:
        shipped, rows = Shipped.load(), list[dict[str, Any]]()
        run = shipped.trained(self.run)
        for size, outputs in INDEXES:
            metric = Lds(shipped.subsets, shipped.losses)
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "run"
                shutil.copytree(run.path, copy, ignore=shutil.ignore_patterns("index", "*.parts"))
                copied = TrainedRun.open(copy)
                index = build_index(copied, IndexConfig(KERNEL, sketch_size=size, outputs=outputs))
                config = AttributeConfig(KERNEL, index=True)
                found = attribution_of(copied, shipped.queries, config)
                metric.update("", found.scores.values[0])
                taken = _bytes(index.path) / run.size
            row = {"numbers": size, "outputs": outputs, "bytes of a sample": taken}
            rows.append({**row, "lds": asdict(metric.compute()[""])})
            print(rows[-1], flush=True)
        write_json(RESULTS / "indexed.json", {"rows": rows})


def _bytes(folder: Path) -> int:
    return sum(
        (Path(place) / name).stat().st_size for place, _, names in os.walk(folder) for name in names
    )


if __name__ == "__main__":
    tyro.cli(Settings)()
