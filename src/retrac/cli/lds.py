"""`retrac lds`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from retrac.attribution.config import QueryConfig
from retrac.cli.estimate import announced
from retrac.errors import RetracError
from retrac.evaluation.config import RetrainingConfig


@dataclass(frozen=True)
class Prepare:
    """Train models on random parts of the training set, and measure what they lose on queries.

    Can be stopped at any moment, and goes on where it was; several devices can share the work.
    """

    run: tyro.conf.Positional[Path]
    """The run folder, whose training is repeated."""
    asked: tyro.conf.OmitArgPrefixes[QueryConfig]
    part: str = "1/1"
    """Train only a part of the models: 2/4 is the second of four parts."""
    output: Path | None = None
    """Folder of the losses. Default: RUN/lds."""
    config: tyro.conf.OmitArgPrefixes[RetrainingConfig] = field(default_factory=RetrainingConfig)
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Train what is missing, and say how much there is."""
        from retrac.attribution.queries import open_queries
        from retrac.evaluation.retraining import Retraining, read_part
        from retrac.training.trained import TrainedRun

        part = read_part(self.part)
        run = TrainedRun.open(self.run)
        queries = open_queries(run, self.asked)
        path = self.output or run.path / "lds"
        retraining = Retraining.planned(run, queries, self.config, path)
        if not announced(partial(retraining.estimate, part), path, self.dry_run):
            return
        retraining.begin(part)
        missing = retraining.missing(part)
        for place, model in enumerate(missing, start=1):
            print(f"model {place} of {len(missing)}: {model.name}")
            retraining.train(model)
        left = len(retraining.missing())
        total = len(retraining.models)
        print(f"{retraining.path}: losses of {total - left} of {total} models")


@dataclass(frozen=True)
class Score:
    """Correlate scores with the losses of retrained models: the linear datamodelling score."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    attributions: tuple[Path, ...]
    """Folders that `retrac attribute` wrote, for the queries of the retrained models."""
    losses: Path | None = None
    """Folder that `retrac lds prepare` wrote. Default: RUN/lds."""
    output: Path | None = None
    """JSON file for the numbers."""

    def __call__(self) -> None:
        """Score, and print a table."""
        from retrac.attribution.attribution import Attribution
        from retrac.cli.tables import print_lds
        from retrac.evaluation.baselines import baselines
        from retrac.evaluation.retraining import Retraining, lds_of
        from retrac.files import write_json
        from retrac.training.trained import TrainedRun

        if not self.attributions:
            raise RetracError("--attributions is empty: give folders that `retrac attribute` wrote")
        run = TrainedRun.open(self.run)
        retraining = Retraining.open(run, self.losses or run.path / "lds")
        metric = lds_of(retraining)
        for name, scores in baselines(run, retraining.queries).items():
            metric.update(name, scores)
        for path, told in zip(self.attributions, told_apart(self.attributions), strict=True):
            result = Attribution.open(path)
            retraining.refuse_other_queries(path, result.config)
            for method in result.methods:
                name = f"{method}, {told}" if len(self.attributions) > 1 else method
                metric.update(name, result.scores_of(method).values)
        found, ceiling = metric.compute(), metric.ceiling()
        print_lds(found, ceiling, len(metric.subsets))
        if self.output is not None:
            write_json(self.output, metric.to_json(found, ceiling))


def told_apart(paths: Sequence[Path]) -> list[str]:
    """Names of folders; the whole paths where two have the same name.

    Raises:
        RetracError: a folder is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise RetracError("--attributions names a folder twice")
    names = [path.name for path in paths]
    return names if len({*names}) == len(names) else [str(path) for path in paths]


@dataclass(frozen=True)
class Lds:
    """Retrain on parts of the data, and see whether scores foretell what is lost."""

    action: (
        Annotated[Prepare, tyro.conf.subcommand("prepare")]
        | Annotated[Score, tyro.conf.subcommand("score")]
    )

    def __call__(self) -> None:
        """Do one of the two."""
        self.action()
