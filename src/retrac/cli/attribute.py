"""`retrac attribute`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from retrac.influence.config import AttributeConfig


@dataclass(frozen=True)
class Attribute:
    """Score every training sample for some queries, and write a report."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    queries: str
    """generated:8, train:16 (so many, evenly spread), train:3,17 (these), or a path of images."""
    query_seed: int = 0
    """Seed of generated queries."""
    output: Path | None = None
    """Folder of the result. Default: RUN/attributions/QUERIES."""
    config: tyro.conf.OmitArgPrefixes[AttributeConfig] = field(default_factory=AttributeConfig)

    def __call__(self) -> None:
        """Attribute, report, and print the first proponents."""
        from retrac.cli.tables import print_proponents
        from retrac.influence.attribute import attribute
        from retrac.influence.queries import open_queries
        from retrac.report.page import write_report
        from retrac.training.run import Run

        run, config = Run.open(self.run), self.config
        queries = open_queries(run, self.queries, self.query_seed)
        path = self.output or run.path / "attributions" / queries.name
        result = attribute(
            run,
            queries,
            config.methods,
            checkpoints=config.checkpoints,
            replay=config.replay,
            parameters=config.parameters,
            plan=config.plan,
            compute=config.compute,
            index=config.index,
            recorded=config.recorded,
            exact_top=config.exact_top,
            output=path,
        )
        print_proponents(result, queries.ids)
        print(f"report: {write_report(result, path / 'report.html')}")
