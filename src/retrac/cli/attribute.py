"""`retrac attribute`."""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tyro

from retrac.attribution.config import AttributeConfig, QueryConfig
from retrac.cli.estimate import announced


@dataclass(frozen=True)
class Attribute:
    """Score every training sample for some queries, and write a report."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    asked: tyro.conf.OmitArgPrefixes[QueryConfig]
    output: Path | None = None
    """Folder of the result. Default: RUN/attributions/QUERIES, with whatever is not the usual
    choice in its name."""
    config: tyro.conf.OmitArgPrefixes[AttributeConfig] = field(default_factory=AttributeConfig)
    until: float | None = None
    """Go on in rounds, each with draws and events of its own, until a repeat would give this share
    of each query's first ten again, such as 0.95 (the mean over queries, with every method)."""
    until_minutes: float = 10.0
    """With --until: begin no round that would not end within so many minutes."""
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Attribute, print what the methods say, and report."""
        from retrac.attribution.attribute import attribution_of, default_name
        from retrac.attribution.engine import Engine
        from retrac.attribution.estimate import estimate_attribution
        from retrac.attribution.queries import open_queries, stand_in, to_generate
        from retrac.attribution.until import Until, attribute_until, refuse_untold, rounds_beside
        from retrac.cli.tables import print_answer, print_events, print_others, print_reached
        from retrac.report.page import write_report
        from retrac.training.run import Run

        run, config = Run.open(self.run), self.config
        until = Until(self.until, self.until_minutes) if self.until is not None else None
        like = stand_in(run, self.asked)
        name = default_name(like.name, self.asked, config, self.until)
        path = self.output or run.path / "attributions" / name
        generated = to_generate(self.asked.queries)
        first = path if until is None or path.exists() else rounds_beside(path) / "0000"
        measure = partial(estimate_attribution, run, like, config, first, generated)
        if until is not None:
            refuse_untold(Engine.of(run, config))
            print(f"rounds for {until.minutes:g} min at the most; of the first:", file=sys.stderr)
        if not announced(measure, path, self.dry_run):
            return
        queries = open_queries(run, self.asked, device=config.compute.device)
        if until is not None:
            result = attribute_until(run, queries, until, config, output=path)
        else:
            result = attribution_of(run, queries, config, path)
        print_answer(result)
        print_others(result)
        print_reached(result)
        print_events(result)
        print(f"report: {write_report(result, path / 'report.html')}")
