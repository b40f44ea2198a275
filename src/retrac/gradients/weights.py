"""How much a gradient counts, by its norm: what tells Diffusion-TracIn from Diffusion-ReTrac.

Free of torch’s import, as the records of methods are.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Weight: TypeAlias = "Callable[[Tensor], Tensor]"
"""Norms of gradients -> the factors they enter a score with, same shape."""


def one(norms: "Tensor") -> "Tensor":
    """Every gradient as it is (Xie et al. 2024, eq. 4)."""
    return norms.new_ones(norms.shape)


def inverse_norm(norms: "Tensor") -> "Tensor":
    """Every gradient at unit norm (Xie et al. 2024, eq. 7); zero stays zero."""
    return norms.reciprocal().masked_fill(norms == 0, 0)


WEIGHTS: dict[str, Weight] = {weight.__name__: weight for weight in (one, inverse_norm)}
"""Those under which what is recorded or indexed is added up."""
