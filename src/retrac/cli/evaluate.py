"""`retrac evaluate`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tyro

from retrac.attribution.config import AttributeConfig, QueryConfig
from retrac.cli.estimate import announced
from retrac.evaluation.config import EvaluationConfig


@dataclass(frozen=True)
class Evaluate:
    """Are the scores right? Tracing, targeting, bias, outliers and LDS, beside baselines.

    Scores are computed as by `retrac attribute`, or opened where they are. What makes no sense for
    a run is said in one line.
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    asked: tyro.conf.OmitArgPrefixes[QueryConfig] = field(
        default_factory=lambda: QueryConfig("train:24")
    )
    output: Path | None = None
    """Folder of the scores, where the numbers and figures will stand too. Default: as of `retrac
    attribute`."""
    losses: Path | None = None
    """Folder that `retrac lds prepare` wrote, for the LDS. Default: RUN/lds."""
    config: tyro.conf.OmitArgPrefixes[AttributeConfig] = field(default_factory=AttributeConfig)
    evaluation: tyro.conf.OmitArgPrefixes[EvaluationConfig] = field(
        default_factory=EvaluationConfig
    )
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Score, evaluate, print tables, and write them down."""
        from retrac.attribution.attribute import attribution_of, default_name
        from retrac.attribution.queries import open_queries, stand_in, to_generate
        from retrac.cli.tables import print_section
        from retrac.evaluation.evaluate import (
            Evaluation,
            estimate_evaluation,
            refuse_long_lists,
        )
        from retrac.report.evaluation import read_sections, write_sections
        from retrac.report.page import write_report
        from retrac.training.run import Run

        run, config = Run.open(self.run), self.config
        refuse_long_lists(run, self.evaluation)
        like = stand_in(run, self.asked)
        path = self.output or run.path / "attributions" / default_name(
            like.name, self.asked, config
        )
        read_sections(path)  # what is damaged is said before the work, not after it
        generated = to_generate(self.asked.queries)
        measure = partial(estimate_evaluation, run, like, config, self.evaluation, path, generated)
        if not announced(measure, path, self.dry_run):
            return
        queries = open_queries(run, self.asked, device=config.compute.device)
        result = attribution_of(run, queries, config, path)
        sections = Evaluation(
            run,
            queries,
            config,
            result,
            self.evaluation,
            self.losses or run.path / "lds",
        ).sections()
        for section in sections:
            print_section(section)
        print(f"numbers: {write_sections(sections, path, result.config)}")
        print(f"report: {write_report(result, path / 'report.html', sections=read_sections(path))}")
