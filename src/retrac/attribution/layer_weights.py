"""Weights of groups of layers: learnt on some queries, used on others.

Scores are sums over the network's layers, and some layers speak of what matters more than others
(https://arxiv.org/abs/2506.05647). Weights are learnt without any truth: those are good under which
the first samples of a list stand out from the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from retrac.attribution.attribution import Attribution
from retrac.errors import RetracError
from retrac.files import read_json, write_json

EVENNESS = 0.01
"""How much weights are held together: of the mean squared difference from 1 that is subtracted from
what they gain (benchmarks/layers.py)."""


MOST = 1e6
"""The largest weight that is taken."""


@dataclass(frozen=True)
class LayerWeights:
    """Of each group of layers, by method; 1 on average.

    Attributes:
        parameters: regular expression of the names of those that counted.
        by_method: the weights by group.
    """

    parameters: str
    by_method: Mapping[str, Mapping[str, float]]

    @staticmethod
    def read(path: Path) -> "LayerWeights":
        """Read what `write` wrote.

        Raises:
            RetracError: no such file, or no weights in it.
        """
        advice = "make it with `retrac layers RESULT --output FILE`"
        content = read_json(path)
        try:
            found = {
                str(method): {str(name): float(value) for name, value in weights.items()}
                for method, weights in content["weights"].items()
            }
            parameters = str(content["parameters"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RetracError(f"{path} holds no weights of layers ({error}): {advice}") from error
        for method, weights in found.items():
            numbers = np.array(list(weights.values()))
            if not (
                np.isfinite(numbers).all() and (numbers >= 0).all() and (numbers <= MOST).all()
            ):
                raise RetracError(
                    f"{path} has a weight for {method} that is not between 0 and {MOST:g}: {advice}"
                )
            if not numbers.any():
                raise RetracError(f"{path} has no weight above 0 for {method}: {advice}")
        return LayerWeights(parameters, found)

    def write(self, path: Path) -> None:
        """Write a JSON file; only earlier weights are replaced.

        Raises:
            RetracError: something else is there.
        """
        if path.exists() and not (path.is_file() and _are_weights(path)):
            raise RetracError(f"{path} holds something other than weights: choose another --output")
        weights = {name: dict(each) for name, each in self.by_method.items()}
        write_json(path, {"parameters": self.parameters, "weights": weights})

    def refuse_other_parameters(self, parameters: str) -> None:
        """Refuse weights that were learnt while other parameters counted.

        Raises:
            RetracError: they were.
        """
        if parameters != self.parameters:
            raise RetracError(
                f"--layer-weights was learnt with --parameters {self.parameters!r}, and now "
                f"{parameters!r} count"
            )

    def of(self, method: str, layers: Sequence[str]) -> np.ndarray:
        """Those of a method, float32 `[L]`.

        Raises:
            RetracError: it has none, or those of another network.
        """
        if method not in self.by_method:
            others = ", ".join(self.by_method) or "no method"
            raise RetracError(f"--layer-weights has weights for {others}, not for {method}")
        known = self.by_method[method]
        if set(known) != set(layers):
            other = min(set(known) ^ set(layers))
            raise RetracError(
                f"--layer-weights is of another network: {other!r} is in one of both alone"
            )
        return np.array([known[name] for name in layers], np.float32)


def _are_weights(path: Path) -> bool:
    try:
        return "weights" in read_json(path)
    except RetracError:
        return False


def learnt_from(result: Attribution, k: int = 10) -> LayerWeights:
    """Learn weights from scores that were made by layer, for each method.

    Raises:
        RetracError: they were not, or as `learnt`.
    """
    if "layer_weights" in result.config:
        raise RetracError("these scores are weighted already: learn from scores without weights")
    found = {}
    for method in result.methods:
        layers = result.layers(method)
        names = map(str, layers["layer"].values)
        found[method] = dict(zip(names, map(float, learnt(layers.values, k)), strict=True))
    return LayerWeights(str(result.config["parameters"]), found)


def learnt(contributions: np.ndarray, k: int = 10, evenness: float = EVENNESS) -> np.ndarray:
    """Weights `[L]` of groups of layers, above 0 and 1 on average.

    The mean of a query's k highest weighted scores, over the norm of all of them, is made large:
    `mean_q [ mean_{i in top k} s_q(i) / ‖s_q‖ ] - evenness · mean_l (w_l - 1)²` with
    `s_q = Σ_l w_l c_lq` and w a softmax (2506.05647, section 4).

    Args:
        contributions: `[L, Q, N]`, what each group adds to the scores.
        k: length of the lists.
        evenness: how much weights are held together.

    Raises:
        RetracError: fewer samples than k + 1, or scores that are not finite.
    """
    groups, samples = len(contributions), contributions.shape[2]
    if samples <= k:
        raise RetracError(f"lists of {k} of {samples} samples say nothing: take a smaller --top")
    if not np.isfinite(contributions).all():
        raise RetracError("some scores are not finite: nothing can be learnt from them")
    each = contributions.astype(np.float64)
    each = each[:, each.any((0, 2))]
    scale = np.sqrt(np.square(each.sum(0)).mean()) if each.size else 0.0
    if scale == 0:
        return np.ones(groups)
    each = each / scale

    def loss(logits: np.ndarray) -> tuple[float, np.ndarray]:
        shares = softmax(logits)
        weights = groups * shares
        scores = np.einsum("l,lqn->qn", weights, each)
        norms = np.linalg.norm(scores, axis=1, keepdims=True).clip(min=1e-12)
        first = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        gained = np.take_along_axis(scores, first, 1).mean(1, keepdims=True)
        slope = -gained * scores / norms**3
        np.put_along_axis(
            slope, first, np.take_along_axis(slope, first, 1) + 1 / (k * norms), axis=1
        )
        by_weight = np.einsum("qn,lqn->l", slope, each) / len(scores)
        by_weight -= 2 * evenness * (weights - 1) / groups
        value = float((gained / norms).mean()) - evenness * float(np.square(weights - 1).mean())
        by_logit = weights * (by_weight - (shares * by_weight).sum())
        return -value, -by_logit

    found = minimize(loss, np.zeros(groups), jac=True, method="L-BFGS-B")
    return np.asarray(groups * softmax(found.x))
