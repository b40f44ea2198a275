"""`retrac removal`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from retrac.cli.estimate import announced
from retrac.evaluation.config import RemovalConfig


@dataclass(frozen=True)
class Removal:
    """Remove the samples that a query is owed to, train again, and see whether it changes.

    Beside every method stand pixel similarity, the training loss and chance. Can be stopped at any
    moment, and goes on where it was. Queries that were generated are also generated again, from the
    same noise. The attribution's report shows what was found, too.
    """

    run: tyro.conf.Positional[Path]
    """The run folder, whose training is repeated."""
    attribution: Path
    """Folder that `retrac attribute` wrote."""
    output: Path | None = None
    """Folder of the result. Default: RUN/removal."""
    config: tyro.conf.OmitArgPrefixes[RemovalConfig] = field(default_factory=RemovalConfig)
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop."""

    def __call__(self) -> None:
        """Train what is missing, print tables, draw."""
        from retrac.attribution.attribution import Attribution
        from retrac.cli.tables import print_section
        from retrac.evaluation.removing import Removing
        from retrac.files import write_json
        from retrac.report.canvas import save_png
        from retrac.report.evaluation import read_sections, write_sections
        from retrac.report.page import write_report
        from retrac.report.removal import regenerated_images
        from retrac.training.trained import TrainedRun

        run, result = TrainedRun.open(self.run), Attribution.open(self.attribution)
        path = self.output or run.path / "removal"
        removing = Removing.planned(run, result, self.config, path)
        if not announced(removing.estimate, path, self.dry_run):
            return
        removing.begin()
        missing = removing.missing()
        for place, model in enumerate(missing, start=1):
            print(f"model {place} of {len(missing)}: {model.name}")
            removing.train(model)
        sections = removing.metric().sections()
        for section in sections:
            print_section(section)
        write_sections(sections, self.attribution, result.config)
        shown, page = read_sections(self.attribution), self.attribution / "report.html"
        numbers = path / "removal.json"
        write_json(numbers, removing.told())
        print(f"numbers: {numbers}")
        print(f"report: {write_report(result, page, sections=shown)}")
        if pictures := removing.pictures():
            asked = dict(zip(removing.queries.ids, removing.queries.images, strict=True))
            figure = regenerated_images(asked, pictures, self.config.k, len(run.dataset))
            print(f"picture: {save_png(figure, path / 'removal.png')}")
