"""`retrac explain`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from retrac.attribution.config import TRAINED, ComputeConfig


@dataclass(frozen=True)
class Explain:
    """Show where the time of a scoring pass goes: route, work and time of every layer.

    Measures one pass over one batch at the last checkpoint, beside a training step.
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    queries: int = 16
    """Queries that the pass scores the samples for, by every method."""
    sketch_size: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Show the pass of `retrac index` with sketches of about so many numbers instead."""
    samples: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Samples in the pass. Default: as many as the memory budget allows, at most
    256; few are quicker to measure."""
    parameters: str = TRAINED
    """Which parameters count: trained (all, or those of the LoRA that was trained), all, lora, or a
    regular expression that is found in their names."""
    all: bool = False
    """A line for every parameter, not for every block of the network."""
    compute: tyro.conf.OmitArgPrefixes[ComputeConfig] = field(default_factory=ComputeConfig)

    def __call__(self) -> None:
        """Measure, and print."""
        from retrac.attribution.explain import explain
        from retrac.cli.explanation import print_explanation
        from retrac.training.run import Run

        print_explanation(
            explain(
                Run.open(self.run),
                queries=self.queries,
                sketch_size=self.sketch_size,
                samples=self.samples,
                parameters=self.parameters,
                compute=self.compute,
            ),
            in_full=self.all,
        )
