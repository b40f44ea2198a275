"""`retrac outliers`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from retrac.attribution.config import TRAINED, AttributeConfig, ComputeConfig, PlanConfig
from retrac.attribution.methods import FOR_OUTLIERS, by_events
from retrac.cli.estimate import announced
from retrac.errors import RetracError


@dataclass(frozen=True)
class Outliers:
    """Rank training samples by self-influence: outliers come first."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    method: str = FOR_OUTLIERS
    """Method that ranks; the scores of every method are stored. Normalised gradients have lost the
    size that betrays an outlier."""
    samples: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only so many samples, evenly spread over the training set; default: all."""
    top: int = 32
    """Samples in the picture."""
    checkpoints: tuple[int, ...] = ()
    """Epochs of the checkpoints to use. Default: all."""
    replay: str = "last"
    """Epochs of each checkpoint's interval to replay: last, all, or a number."""
    parameters: str = TRAINED
    """Which parameters count: trained (all, or those of the LoRA that was trained), all, lora, or a
    regular expression that is found in their names."""
    output: Path | None = None
    """Folder of the result. Default: RUN/outliers."""
    plan: tyro.conf.OmitArgPrefixes[PlanConfig] = field(
        default_factory=lambda: PlanConfig(plan="fast")
    )
    compute: tyro.conf.OmitArgPrefixes[ComputeConfig] = field(default_factory=ComputeConfig)
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Rank, print the first and draw them."""
        from retrac.attribution.estimate import estimate_self_influence
        from retrac.attribution.self_influence import check_method, self_influence, spread
        from retrac.cli.tables import print_ranked
        from retrac.report.outliers import write_outliers
        from retrac.training.run import Run

        check_method(self.method)
        if self.top < 1:
            raise RetracError(f"--top must be at least 1, not {self.top}")
        run = Run.open(self.run)
        path = self.output or run.path / "outliers"
        samples = spread(len(run.dataset), self.samples)
        config = AttributeConfig(
            tuple(method.name for method in by_events()),
            self.checkpoints,
            self.replay,
            self.parameters,
            self.plan,
            self.compute,
        )
        measure = partial(estimate_self_influence, run, samples, config, path)
        if not announced(measure, path, self.dry_run):
            return
        result = self_influence(
            run,
            samples,
            checkpoints=self.checkpoints,
            replay=self.replay,
            parameters=self.parameters,
            plan=self.plan,
            compute=self.compute,
            output=path,
        )
        print_ranked(result.ranked(self.method, 10), f"largest self-influence by {self.method}")
        picture, table = write_outliers(result, self.method, path, self.top)
        print(f"picture: {picture}\nall samples: {table}")
