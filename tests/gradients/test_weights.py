"""What tells TracIn from ReTrac."""

import torch

from retrac.gradients.weights import inverse_norm, one


def test_retrac_brings_every_gradient_to_unit_norm_and_leaves_zero_at_zero() -> None:
    norms = torch.tensor([0.0, 0.5, 4.0])
    assert (inverse_norm(norms) * norms).tolist() == [0, 1, 1]
    assert torch.isfinite(inverse_norm(norms)).all()
    assert one(norms).tolist() == [1, 1, 1]
