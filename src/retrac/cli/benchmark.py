"""`retrac benchmark`."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from retrac.attribution.config import (
    TRAINED,
    AttributeConfig,
    ComputeConfig,
    FeatureConfig,
    MethodNames,
    PlanConfig,
)
from retrac.attribution.methods import DEFAULT, Draws, method_named
from retrac.cli.estimate import announced
from retrac.errors import RetracError


@dataclass(frozen=True)
class Benchmark:
    """Score a method against the losses of retrained models that come with the package.

    Trains a small model in a minute or two, scores its training samples, and correlates the scores
    with what 128 models lost that were trained on random halves. Scores stay in
    RUN/attributions; stopped at any moment, the same command goes on.
    """

    method: MethodNames = DEFAULT
    bank: Literal["benchmark", "development"] = "benchmark"
    """Which retrained models: the benchmark, or those on which choices such as λ were made."""
    replay: str = "last"
    """Epochs of each checkpoint's interval to replay: last, all, or a number."""
    checkpoints: tuple[int, ...] = ()
    """Epochs of the checkpoints to use. Default: all."""
    parameters: str = TRAINED
    """Which parameters count: trained (all, or those of the LoRA that was trained), all, lora, or a
    regular expression that is found in their names."""
    scores: tuple[Path, ...] = ()
    """Scores of other methods: .npy files of [48, 256] numbers (of the development bank [24,
    256]), queries by samples; larger for samples that taught the model the query."""
    run: Path | None = None
    """Folder of the model; trained where it is not there yet. Default: runs/benchmark, or
    runs/development."""
    output: Path | None = None
    """JSON file for the numbers."""
    plan: tyro.conf.OmitArgPrefixes[PlanConfig] = field(default_factory=PlanConfig)
    compute: tyro.conf.OmitArgPrefixes[ComputeConfig] = field(default_factory=ComputeConfig)
    features: tyro.conf.OmitArgPrefixes[FeatureConfig] = field(default_factory=FeatureConfig)
    dry_run: bool = False
    """Tell the time, memory and disk that it needs, and stop; where the model is not trained yet,
    those of its training."""

    def __call__(self) -> None:
        """Train, score, correlate, and print a table."""
        from retrac.attribution.attribute import attribution_of
        from retrac.attribution.estimate import estimate_attribution
        from retrac.cli.tables import print_benchmark
        from retrac.evaluation.baselines import NAMES
        from retrac.evaluation.shipped import Shipped, read_scores
        from retrac.files import write_json
        from retrac.training.estimate import estimate_training

        way = self.way
        shipped, folder = Shipped.load(self.bank), self.run or Path("runs") / self.bank
        names = [path.stem for path in self.scores]
        for name in names:
            if names.count(name) > 1 or name in (*NAMES, *self.method):
                raise RetracError(f"another method is called {name!r}, too: rename {name}.npy")
        given = {path.stem: read_scores(path, shipped) for path in self.scores}
        to_train = partial(estimate_training, shipped.training, shipped.dataset(), folder, None)
        if not shipped.is_trained(folder) and not announced(to_train, folder, self.dry_run):
            return
        run = shipped.trained(folder)
        metric = shipped.with_baselines(run)
        if way is not None:
            path = shipped.place(run, way)
            to_score = partial(estimate_attribution, run, shipped.queries, way, path)
            if not announced(to_score, path, self.dry_run):
                return
            found = attribution_of(run, shipped.queries, way, path)
            for method in found.methods:
                metric.update(method, found.scores_of(method).values)
        for name, values in given.items():
            metric.update(name, values)
        print_benchmark(metric, shipped.kinds)
        if self.output is not None:
            write_json(self.output, metric.to_json(metric.compute(), metric.ceiling()))

    @property
    def way(self) -> AttributeConfig | None:
        """How our own methods score; None where none of them is asked for."""
        if not self.method:
            return None
        for method in map(method_named, self.method):
            if method.draws is Draws.WINDOW:
                raise RetracError(
                    f"{method.name} answers for one very run, which models of other seeds are not: "
                    "leave it out of --method"
                )
        return AttributeConfig(
            self.method,
            self.checkpoints,
            self.replay,
            self.parameters,
            self.plan,
            self.compute,
            features=self.features,
        )
