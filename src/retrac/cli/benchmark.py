"""`retrac benchmark`."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from retrac.errors import RetracError
from retrac.influence.config import AttributeConfig, ComputeConfig, PlanConfig


@dataclass(frozen=True)
class Benchmark:
    """Score a method against the losses of retrained models that come with the package.

    Trains a small model in a minute or two, scores its training samples, and correlates the scores
    with what 128 models lost that were trained on random halves.
    """

    method: tuple[str, ...] = ("tracin", "retrac")
    """Methods to score."""
    replay: str = "last"
    """Epochs of each checkpoint's interval to replay: last, all, or a number."""
    checkpoints: tuple[int, ...] = ()
    """Epochs of the checkpoints to use. Default: all."""
    parameters: str = ".*"
    """Regular expression: only parameters in whose name it is found count. Default: all."""
    scores: tuple[Path, ...] = ()
    """Scores of other methods: .npy files of [48, 256] numbers, queries by samples; larger for
    samples that taught the model the query."""
    run: Path = Path("runs/benchmark")
    """Folder of the model; trained where it is not there yet."""
    output: Path | None = None
    """JSON file for the numbers."""
    plan: tyro.conf.OmitArgPrefixes[PlanConfig] = field(default_factory=PlanConfig)
    compute: tyro.conf.OmitArgPrefixes[ComputeConfig] = field(default_factory=ComputeConfig)

    def __call__(self) -> None:
        """Train, score, correlate, and print a table."""
        from retrac.cli.tables import print_benchmark
        from retrac.evaluation.shipped import Shipped, read_scores
        from retrac.files import write_json
        from retrac.influence.attribute import attribution_of

        shipped = Shipped.load()
        given = {path.stem: read_scores(path, shipped) for path in self.scores}
        if clash := sorted({*given} & {"random", "pixels", *self.method}):
            raise RetracError(f"{clash[0]}.npy has a known method's name: give it another")
        run = shipped.trained(self.run)
        metric = shipped.with_baselines(run)
        if self.method:
            way = AttributeConfig(
                self.method, self.checkpoints, self.replay, self.parameters, self.plan, self.compute
            )
            found = attribution_of(run, shipped.queries, way)
            for method in found.methods:
                metric.update(method, found.scores_of(method).values)
        for name, values in given.items():
            metric.update(name, values)
        print_benchmark(metric, shipped.kinds)
        if self.output is not None:
            write_json(self.output, metric.to_json(metric.compute(), metric.ceiling()))
