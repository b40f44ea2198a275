"""`retrac layers`."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Layers:
    """Show what each part of the network adds to scores, and learn weights for the parts.

    Of scores that were made with `retrac attribute --by-layer`. Use the weights for other queries:
    `retrac attribute --layer-weights FILE`. On our banks they helped methods that compare
    features by one metric; those that add up events mostly lost by them (docs/methods.md).
    """

    result: tyro.conf.Positional[Path]
    """The folder of the scores."""
    top: int = 10
    """Length of the lists of which the parts are compared, and that weights make stand out."""
    output: Path | None = None
    """File for the weights, such as weights.json."""

    def __call__(self) -> None:
        """Learn, print, and write."""
        from retrac.attribution.attribution import Attribution
        from retrac.attribution.layer_weights import learnt_from
        from retrac.cli.tables import print_layers
        from retrac.errors import RetracError

        if self.top < 1:
            raise RetracError(f"--top must be at least 1, not {self.top}")
        result = Attribution.open(self.result)
        weights = learnt_from(result, self.top)
        for method in result.methods:
            print_layers(result, method, weights.by_method[method], self.top)
        if self.output is not None:
            weights.write(self.output)
            print(f"weights: {self.output}")
