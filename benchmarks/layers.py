"""Do weights of layers that were learnt on some queries help others?

    python -m benchmarks.layers

Weights are learnt on every second query and used on the rest, and the other way round, without any
truth; then sums over halves of the training set are compared with what retrained models lost. How
much weights are held together is chosen on the development bank. Writes
benchmarks/results/layers.json.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from retrac.attribution.attribute import attribution_of
from retrac.attribution.config import AttributeConfig
from retrac.attribution.layer_weights import EVENNESS, learnt
from retrac.attribution.methods import methods
from retrac.evaluation.lds import Lds
from retrac.evaluation.shipped import BENCHMARK, DEVELOPMENT, Shipped
from retrac.files import write_json

RESULTS = Path(__file__).parent / "results"
TRIED = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Settings:
    runs: Path = Path("runs")
    """Folder of the banks' models; trained where they are not there."""

    def __call__(self) -> None:
        rows: list[dict[str, Any]] = []
        for bank, tried in ((DEVELOPMENT, TRIED), (BENCHMARK, (EVENNESS,))):
            shipped = Shipped.load(bank)
            run = shipped.trained(self.runs / bank)
            for chosen in methods():
                config = AttributeConfig((chosen,), by_layer=True)
                result = attribution_of(run, shipped.queries, config, shipped.place(run, config))
                layers = result.layers(chosen).values
                found = {"as it is": layers.sum(0)}
                found |= {f"{each:g}": _crossed(layers, each) for each in tried}
                metric = Lds(shipped.subsets, shipped.losses)
                for name, scores in found.items():
                    metric.update(name, scores)
                computed = metric.compute()
                for name in found:
                    rows.append(
                        {
                            "bank": bank,
                            "method": chosen,
                            "evenness": name,
                            "lds": asdict(computed[name]),
                            "gain": None
                            if name == "as it is"
                            else asdict(metric.difference(name, "as it is")),
                        }
                    )
                    print(bank, chosen, name, computed[name], flush=True)
        write_json(RESULTS / "layers.json", {"rows": rows})


def _crossed(layers: np.ndarray, evenness: float) -> np.ndarray:
    """Scores `[Q, N]` of each half of the queries by weights of the other."""
    scores = np.empty(layers.shape[1:])
    for half in range(2):
        weights = learnt(layers[:, 1 - half :: 2], evenness=evenness)
        scores[half::2] = np.einsum("l,lqn->qn", weights, layers[:, half::2])
    return scores


if __name__ == "__main__":
    tyro.cli(Settings)()
