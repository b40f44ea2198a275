"""Scores are refused where a gradient is not finite: one such number spoils every score."""

from collections.abc import Callable

import torch
from torch import Tensor

from retrac.errors import RetracError


def refuse_not_finite(finite: Tensor, named: Callable[[int], str]) -> None:
    """Name the first gradient that is not finite.

    Args:
        finite: bool `[n]`, of gradients.
        named: says whose gradient it is, and at which checkpoint.

    Raises:
        RetracError: one of them is not.
    """
    if not finite.all():
        broken = int(torch.nonzero(~finite)[0])
        raise RetracError(
            f"the gradient of {named(broken)} is not finite; leave that checkpoint out with "
            "--checkpoints"
        )
