"""The one function that tells the methods apart."""

import torch

from retrac.attribution.config import METHODS
from retrac.gradients.weighting import WEIGHTINGS, as_is, normalised


def test_every_method_that_can_be_asked_for_has_a_weighting() -> None:
    assert set(WEIGHTINGS) == set(METHODS)


def test_retrac_brings_every_gradient_to_unit_norm_and_leaves_zero_at_zero() -> None:
    norms = torch.tensor([0.0, 0.5, 4.0])
    assert (normalised(norms) * norms).tolist() == [0, 1, 1]
    assert torch.isfinite(normalised(norms)).all()
    assert as_is(norms).tolist() == [1, 1, 1]
