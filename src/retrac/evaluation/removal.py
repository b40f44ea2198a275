"""Does a query change when what it is owed to is removed, more than when other samples are?

The counterfactual evaluation of Zheng et al. 2024, "Intriguing Properties of Data Attribution on
Diffusion Models": train again without the samples, generate again from the same noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from retrac.evaluation.section import Rows, Section
from retrac.interval import mean_interval

RANDOM = "random"
DISTANCE, SIMILARITY, LOSS = "pixel distance", "SSIM", "loss change, %"


@dataclass
class Removal:
    """What removing samples does to queries, by the way in which the samples were chosen.

    A model that is trained again on anything else differs already by chance: small differences
    grow in every step, and regenerated images drift. No value tells anything by itself; what counts
    is how far a way is beyond samples removed at random.

    Measures are the pixel distance to the query (root mean square, in [0, 1]), the structural
    similarity with it, and by how much more than the full model the new one loses on it, in percent
    of the former's loss. A way that works has a large distance, a low similarity, and a large
    change of the loss.
    """

    _values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def update(self, way: str, query: str, measures: Mapping[str, float]) -> None:
        """Take what one retrained model makes of a query; several of one way are averaged."""
        for measure, value in measures.items():
            by_query = self._values.setdefault(way, {}).setdefault(measure, {})
            by_query.setdefault(query, []).append(value)

    def compute(self) -> Rows:
        """Means over queries by way and measure, with intervals over queries."""
        return {
            way: {name: mean_interval(np.array([*self._means(way, name).values()])) for name in row}
            for way, row in self._values.items()
        }

    def beyond_random(self) -> Rows:
        """Likewise of the differences to random removal, query by query."""
        return {
            way: {name: mean_interval(self._differences(way, name)) for name in row}
            for way, row in self._values.items()
            if way != RANDOM
        }

    def by_query(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """Way -> measure -> query -> the values of each model."""
        return self._values

    def sections(self) -> list[Section]:
        """For tables."""
        return [
            Section(
                "Removal",
                "How far are queries from what models make and lose that were trained without the "
                "samples that a way puts first?",
                self.compute(),
            ),
            Section(
                "Removal, beyond random",
                "The same, less what removing as many samples at random does to the query.",
                self.beyond_random(),
                "More distance, less SSIM and more loss than at random: these samples taught the "
                "model the query. 0 is chance.",
            ),
        ]

    def _means(self, way: str, measure: str) -> dict[str, float]:
        by_query = self._values.get(way, {}).get(measure, {})
        return {query: float(np.mean(values)) for query, values in by_query.items()}

    def _differences(self, way: str, measure: str) -> np.ndarray:
        own, chance = self._means(way, measure), self._means(RANDOM, measure)
        return np.array([own[query] - chance[query] for query in own if query in chance])
