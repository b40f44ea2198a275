"""Metrics between gradients: what becomes of a query's vector before it meets the samples'.

A metric is fitted at a checkpoint and applied to queries alone, so the same features of samples
serve every metric. Metrics of features are fitted to them; metrics of parameters
(`parameter_metrics.py`) change directions in parameter space. Free of torch's import, as the
records of methods are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 4096
"""Columns that are in float64 at a time."""

MOST = 4096
"""Samples whose eigenvalues decide how strongly a kernel is damped, about."""
NOTHING = 1e-9
"""A share of the largest eigenvalue that is zero."""
HALVINGS = 60
"""In the search for a λ."""

Transform: TypeAlias = "Callable[[Tensor], Tensor]"
"""Queries' vectors `[Q, d]` -> `[Q, d]`."""


class Metric(Protocol):
    """Something that is fitted to features, and changes queries' vectors."""

    @property
    def separable(self) -> bool:
        """Whether its scores are a mean over layers, so that it can be fitted to some at a time."""
        ...

    def fit(self, samples: "Tensor", layers: Sequence[slice]) -> Transform:
        """Fit it.

        Args:
            samples: `[N, d]`, a feature of every sample.
            layers: the numbers of each layer, which lie side by side.
        """
        ...


@dataclass(frozen=True)
class Identity:
    """Plain inner products."""

    separable = False

    def fit(self, samples: "Tensor", layers: Sequence[slice]) -> Transform:
        """Nothing is to be fitted."""
        return lambda queries: queries


@dataclass(frozen=True)
class UnitNorm:
    """Queries' vectors at unit norm; a vector of zeros stays one."""

    separable = False

    def fit(self, samples: "Tensor", layers: Sequence[slice]) -> Transform:
        """Nothing is to be fitted."""
        return lambda queries: queries * inverse_norms(queries)[:, None]


@dataclass(frozen=True)
class Freedom:
    """The λ with which a kernel K has some effective degrees of freedom, `tr K (K + λI)⁻¹`.

    Attributes:
        number: of them, above 0; of a kernel of less than twice this rank, half its rank.
    """

    number: float

    def strength(self, samples: "Tensor", gram: "Tensor") -> float:
        """λ; 0 where the samples' features are.

        Args:
            samples: G, `[N, d]`. Of many, `MOST` evenly spaced ones decide.
            gram: `G Gᵀ` or `GᵀG`, which have the same eigenvalues but for zeros.
        """
        import torch

        step = -(-len(samples) // MOST)
        some = samples[::step]
        if step > 1:
            gram = _gram(some if len(some) < some.shape[1] else some.mT)
        values = torch.linalg.eigvalsh(gram)
        rank = int((values > values.max() * NOTHING).sum())
        return damping_of(values, min(self.number, rank / 2)) * len(samples) / len(some)


@dataclass(frozen=True)
class DampedKernel:
    """`K_q (K + λI)⁻¹`, with `K = G Gᵀ` the products of the samples' features.

    A query's vector becomes `(GᵀG + λI)⁻¹ u` (Park et al. 2023, TRAK, eq. 13).

    Attributes:
        damping: λ as a share, above 0, of the mean of K's diagonal, which is a sample's mean
            squared norm; or by the degrees of freedom that it leaves.
        by_layer: whether every layer has a kernel of its own; the score is their mean.
    """

    damping: float | Freedom
    by_layer: bool = False

    @property
    def separable(self) -> bool:
        """With a kernel for every layer."""
        return self.by_layer

    def fit(self, samples: "Tensor", layers: Sequence[slice]) -> Transform:
        """Factorise the kernels."""
        blocks = list(layers) if self.by_layer else [slice(0, samples.shape[1])]
        fitted = [damped_inverse(samples[:, block], self.damping) for block in blocks]

        def transform(queries: "Tensor") -> "Tensor":
            result = queries.new_zeros(queries.shape)
            for block, inverse in zip(blocks, fitted, strict=True):
                result[:, block] = inverse(queries[:, block]) / len(blocks)
            return result

        return transform


def damping_of(values: "Tensor", number: float) -> float:
    """The λ with which `Σ v / (v + λ)` is a number; 0 where no v is above zero.

    Args:
        values: v, eigenvalues of a kernel, `[n]`.
        number: below the kernel's rank.
    """
    largest = float(values.max())
    if largest <= 0:
        return 0.0
    positive = values[values > largest * NOTHING]
    low, high = NOTHING * largest, float(positive.sum()) / number
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        if float((positive / (positive + middle)).sum()) > number:
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def damped_inverse(samples: "Tensor", damping: float | Freedom) -> Transform:
    """`u -> (GᵀG + λI)⁻¹ u`, with λ = damping · mean_i ‖g_i‖², or by freedom; zero where G is.

    With N samples of d numbers the smaller of two matrices is factorised: of d×d (the primal), or
    of N×N (the dual: `(u - Gᵀ(GGᵀ + λI)⁻¹Gu) / λ`).

    Args:
        samples: G, `[N, d]`.
        damping: above 0, or degrees of freedom.
    """
    import torch

    count, size = samples.shape
    primal = size <= count
    gram = _gram(samples.mT if primal else samples)
    if isinstance(damping, Freedom):
        strength = damping.strength(samples, gram)
    else:
        strength = damping * float(gram.diagonal().sum()) / count  # both have the same trace
    if strength == 0:
        return torch.zeros_like
    gram.diagonal().add_(strength)
    factor = torch.linalg.cholesky(gram)

    def solve(right: "Tensor") -> "Tensor":
        return torch.cholesky_solve(right.double().mT, factor).mT

    def inverse(queries: "Tensor") -> "Tensor":
        if primal:
            return solve(queries).to(queries)
        coefficients = solve(queries @ samples.mT)
        return torch.cat(
            [
                ((asked.double() - coefficients @ held.double()) / strength).to(queries)
                for asked, held in zip(
                    queries.split(CHUNK, 1), samples.split(CHUNK, 1), strict=True
                )
            ],
            1,
        )

    return inverse


def _gram(rows: "Tensor") -> "Tensor":
    """Products `[n, n]` of rows `[n, m]`, added up in float64: λ is a small share of their sum."""
    first, *others = rows.split(CHUNK, 1)
    total = first.double() @ first.double().mT
    for part in others:
        wide = part.double()
        total.addmm_(wide, wide.mT)
    return total


def inverse_norms(vectors: "Tensor") -> "Tensor":
    """1/‖v‖ of each row, `[N]`; 0 where it is zero."""
    norms = vectors.norm(dim=1)
    return norms.reciprocal().masked_fill(norms == 0, 0)
