"""`retrac generate`."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from retrac.attribution.config import QueryConfig
from retrac.cli.estimate import announced


@dataclass(frozen=True)
class Generate:
    """Generate images by DDIM, or of flows by Euler's method; image i depends on the seed and on i
    alone."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    count: int = 16
    """How many images."""
    seed: int = 0
    """Seed of their noise."""
    steps: int = 50
    """Steps of the sampler."""
    eta: float = 0.0
    """0 for deterministic sampling, 1 for as much noise as DDPM; flows have none."""
    guidance: float = 1.0
    """How much further than without label or prompt a step goes; 1 for no guidance."""
    labels: tuple[str, ...] = ()
    """Labels or prompts: one for all images, or one for each. Default: those of the samples, one
    after the other."""
    checkpoint: int | None = None
    """Epoch of the checkpoint; default: the last."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    output: Path | None = None
    """Folder for the images; the grid goes beside it. Default: RUN/generated/seed-SEED,
    with labels and guidance in its name where they are given."""
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Generate and say where the images are."""
        from retrac.training.estimate import estimate_generation
        from retrac.training.generation import generate_images
        from retrac.training.run import Run

        run = Run.open(self.run)
        words = QueryConfig("generated:1", 0, self.labels, self.guidance).words
        name = "-".join((f"seed-{self.seed}", *words))
        folder = self.output or run.path / "generated" / name
        where = (self.checkpoint, self.device)
        told = (self.guidance, self.labels)
        what = (self.count, self.seed, self.steps, self.eta, *where, *told)
        if not announced(partial(estimate_generation, run, folder, *what), folder, self.dry_run):
            return
        sheet = generate_images(run, folder, *what)
        print(f"{folder}: {self.count} images; {sheet}: all of them on one sheet")
