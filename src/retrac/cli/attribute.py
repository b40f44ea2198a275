"""`retrac attribute`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tyro

from retrac.cli.estimate import announced
from retrac.influence.config import AttributeConfig


@dataclass(frozen=True)
class Attribute:
    """Score every training sample for some queries, and write a report."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    queries: str
    """generated:8, train:16 (so many, evenly spread), train:3,17 (these), each:2 (of every label),
    train:8+generated:8, or a path of images."""
    query_seed: int = 0
    """Seed of generated queries."""
    output: Path | None = None
    """Folder of the result. Default: RUN/attributions/QUERIES, with the plan, --replay and --index
    in its name where they are not the usual ones."""
    config: tyro.conf.OmitArgPrefixes[AttributeConfig] = field(default_factory=AttributeConfig)
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Attribute, report, and print the first proponents."""
        from retrac.cli.tables import print_proponents
        from retrac.influence.attribute import attribute, default_name
        from retrac.influence.estimate import estimate_attribution
        from retrac.influence.queries import open_queries, stand_in, to_generate
        from retrac.report.page import write_report
        from retrac.training.run import Run

        run, config = Run.open(self.run), self.config
        like = stand_in(run, self.queries, self.query_seed)
        path = self.output or run.path / "attributions" / default_name(like.name, config)
        generated = to_generate(self.queries)
        measure = partial(estimate_attribution, run, like, config, path, generated)
        if not announced(measure, path, self.dry_run):
            return
        queries = open_queries(run, self.queries, self.query_seed)
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
