"""Planted outliers, known by their ids."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PREFIX = "planted/"


def planted(ids: Sequence[str]) -> NDArray[np.bool_]:
    """Which samples were planted, `[N]`."""
    return np.array([name.startswith(PREFIX) for name in ids])
