"""The result of an attribution: labelled scores, and the few questions people ask of them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from retrac.attribution.calibration import Calibration
from retrac.attribution.methods import methods
from retrac.attribution.ranking import Ranked, ranked
from retrac.attribution.store import open_result, save_result
from retrac.attribution.uncertainty import Uncertainty
from retrac.errors import RetracError, unknown

KIND = "attribution"
FIRST = 10
"""Of each list, of which it is told how sure they are."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Scores of all samples for all queries.

    Attributes:
        dataset: everything, as one `xarray.Dataset`:

            - `score[method, checkpoint, query, sample]`: the checkpoint's contribution, float32;
            - `train_weight[checkpoint, sample]`: Σ η/B over the sample's visits in the interval;
            - `train_timestep`, `train_norm[checkpoint, sample, visit]`: timestep and gradient norm
              of each replayed event; -1 and NaN where there is none;
            - `query_norm[checkpoint, query, timestep]`: norm of the query's gradient, averaged over
              the noises of one timestep of the plan;
            - `query_image[query, channel, row, column]`, `sample_image[shown, …]`: uint8 pixels
              of the queries and of the samples at the top of some list (`shown`: their indices);
            - `query_mask[query, row, column]`: bool, the region that counts, where there is one;
            - `part_METHOD[group_METHOD, query, sample]`: what each of some independent groups of
              draws adds to the scores, where checkpoints do not tell how sure these are: of a
              method that looks at one checkpoint alone, or of a single one (its visits);
            - `foretold_METHOD`, `replayed_METHOD[query, set_METHOD]`: of methods that look at a
              window, what queries' losses were to rise by without each of some random sets of
              samples, and what they rose by; `first_foretold_METHOD[query]` and
              `first_replayed_METHOD[query]` without each query's own first ten (`Calibration`);
            - `layer_score[method, layer, query, sample]`: what each group of layers adds to the
              scores, where this was wanted (`layer`: its name in the network);
            - `error[method, query, sample]`: standard errors; `freedom`, `halves`, `certain`,
              `repeatability[method, query]`: of them, and of the first ten (`Uncertainty`). Only
              where there is more than one checkpoint or group.

            Coordinates: `method`, `checkpoint` (its epoch), `query_id`, `query_label`,
            `sample_id`, `sample_label`, `timestep`, `shown`, `exact` (whether a sample's scores
            are exact; with an index they are estimates).
        config: how it was computed, and the facts of the run (`config["run"]`).
    """

    dataset: xr.Dataset
    config: Mapping[str, Any]

    @property
    def scores(self) -> xr.DataArray:
        """Scores `[method, query, sample]`: the sum over checkpoints."""
        return self.contributions.sum("checkpoint", skipna=False)

    def uncertainty(self, method: str) -> Uncertainty:
        """How sure the scores of one method are, from how much checkpoints differ.

        Of a single checkpoint, from how much groups of visits differ.

        Raises:
            RetracError: there is one checkpoint and one visit, or an index that has added them up.
        """
        self.scores_of(method)  # refuses what is no method
        return Uncertainty.of(self.parts(method))

    def groups(self, method: str) -> int:
        """Checkpoints, or groups of one checkpoint's draws: with fewer than two, no errors."""
        return len(self.parts(method))

    @property
    def sure(self) -> tuple[str, ...]:
        """The methods whose errors can be told."""
        return tuple(method for method in self.methods if self.groups(method) > 1)

    def with_errors(self) -> "Attribution":
        """The same, with `error` and what belongs to it in the dataset, if they can be told."""
        if not self.sure:
            return self
        sizes = self.dataset.sizes
        each = ("method", "query")
        shape = tuple(sizes[name] for name in each)
        error = np.full((*shape, sizes["sample"]), np.nan, np.float32)
        names = ("freedom", "halves", "certain", "repeatability")
        lists = {name: np.full(shape, np.nan) for name in names}
        for place, method in enumerate(self.methods):
            if method not in self.sure:
                continue
            scores = self.uncertainty(method)
            first = scores.first(FIRST)
            error[place] = scores.errors
            told = (scores.freedom, scores.halves, first.certain, first.repeatability)
            for name, values in zip(names, told, strict=True):
                lists[name][place] = values
        variables = {name: (each, values) for name, values in lists.items()}
        return Attribution(
            self.dataset.assign(variables | {"error": ((*each, "sample"), error)}), self.config
        )

    def signed(self, method: str) -> bool:
        """Whether scores below zero say that a sample did the opposite."""
        return method not in methods() or methods()[method].signed

    def scores_of(self, method: str) -> xr.DataArray:
        """Scores of one method, `[query, sample]`.

        The same as `scores.sel({"method": method})`; beware of `scores.sel(method=...)`, which
        xarray takes for its own argument of that name and ignores.

        Raises:
            RetracError: a method that was not scored.
        """
        if method not in self.methods:
            raise unknown("method", method, self.methods)
        return self.scores.sel({"method": method})

    def layers(self, method: str) -> xr.DataArray:
        """What each group of layers adds to the scores of a method, `[layer, query, sample]`.

        Raises:
            RetracError: a method that was not scored, or scores without their layers.
        """
        self.scores_of(method)  # refuses what is no method
        if "layer_score" not in self.dataset:
            raise RetracError("the scores by layer were not kept: attribute again with --by-layer")
        return self.dataset["layer_score"].sel({"method": method})

    @property
    def contributions(self) -> xr.DataArray:
        """Scores by checkpoint, `[method, checkpoint, query, sample]`; 0 where a method does not
        look at one."""
        return self.dataset["score"]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that were scored."""
        return tuple(str(m) for m in self.dataset["method"].values)

    def proponents(self, query: int, method: str | None = None, k: int = 10) -> list[Ranked]:
        """The k samples with the highest scores for a query, best first; of the first method,
        where none is named."""
        return self._ranked(query, method, k, sign=-1)

    def opponents(self, query: int, method: str | None = None, k: int = 10) -> list[Ranked]:
        """The k samples with the lowest scores for a query, lowest first."""
        return self._ranked(query, method, k, sign=1)

    def generally_influential(
        self, method: str | None = None, k: int = 10, share: float = 0.25
    ) -> dict[int, int]:
        """Samples among the top k of at least `share` of the queries, and of at least two.

        Returns:
            Sample index -> number of queries that have it among their top k, most first.
        """
        queries = self.dataset.sizes["query"]
        lists = (self.proponents(query, method, k) for query in range(queries))
        counts = Counter(entry.sample for ranked in lists for entry in ranked)
        return {s: n for s, n in counts.most_common() if n >= max(2, share * queries)}

    def save(self, path: str | Path) -> Path:
        """Write the folder `path`: `scores.zarr`, `config.json` and the queries as PNG.

        Raises:
            RetracError: no space left; what was at `path` before is still there.
        """
        path = Path(path)
        save_result(path, KIND, self.dataset, self.config, list(self.dataset["query_image"].values))
        return path

    @staticmethod
    def open(path: str | Path) -> "Attribution":
        """Read a folder written by `save`.

        Raises:
            RetracError: absent, or damaged.
        """
        return Attribution(*open_result(Path(path), KIND))

    def calibration(self, method: str) -> Calibration | None:
        """What a method foretold of replayed windows, and what became of them; None of methods
        that look at no window, or where none was replayed."""
        names = [field.name for field in fields(Calibration)]
        if variable_of(names[0], method) not in self.dataset:
            return None
        return Calibration(*(self.dataset[variable_of(name, method)].values for name in names))

    def window(self, method: str) -> tuple[int, int] | None:
        """Epochs between which lies the window at which a method looked; None where it did not."""
        for feature in self.config.get("features", ()):
            if "from_epoch" in feature and method in feature["methods"]:
                return int(feature["from_epoch"]), int(self.dataset["checkpoint"].values[-1])
        return None

    def parts(self, method: str) -> np.ndarray:
        """What independent groups of draws add to a method's scores, `[G, Q, N]`."""
        if (name := part_of(method)) in self.dataset:
            return self.dataset[name].values
        if "part" in self.dataset and self.dataset.sizes["checkpoint"] == 1:  # of a version before
            return self.dataset["part"].sel({"method": method}).values
        return self.contributions.sel({"method": method}).values

    def _ranked(self, query: int, method: str | None, k: int, sign: int) -> list[Ranked]:
        data, by_query = self.dataset, self.scores_of(method or self.methods[0]).values
        if not 0 <= query < data.sizes["query"]:
            raise RetracError(
                f"query {query} does not exist: this attribution has {data.sizes['query']} "
                "queries, counted from 0"
            )
        scores = by_query[query]
        order = np.argsort(sign * scores, kind="stable")[:k]
        return ranked(data, scores, order)


def part_of(method: str) -> str:
    """Name of the variable that holds what independent groups of draws add to a method's scores."""
    return f"part_{method}"


def group_of(method: str) -> str:
    """Name of its dimension of groups."""
    return f"group_{method}"


def variable_of(name: str, method: str) -> str:
    """Name of the variable that holds a part of a method's calibration."""
    return f"{name}_{method}"


def set_of(method: str) -> str:
    """Name of its dimension of random sets."""
    return f"set_{method}"
