"""Measurements of what one forward pass gives."""

import torch

from retrac.diffusion.measurements import Predicted, loss, output_mean, output_square

OUTPUT = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]], [[[0.0, 0.0], [0.0, -6.0]]]])
LOSSES = torch.tensor([5.0, 7.0])


def predicted(counted: torch.Tensor | None = None) -> Predicted:
    return Predicted(OUTPUT, LOSSES, counted, torch.ones(2))


def test_they_are_means_over_pixels() -> None:
    assert torch.equal(loss(predicted()), LOSSES)
    assert output_mean(predicted()).tolist() == [1.5, -1.5]
    assert output_square(predicted()).tolist() == [7.5, 9.0]


def test_of_a_region_with_pixels_that_count_alone() -> None:
    counted = torch.zeros(2, 1, 2, 2)
    counted[:, 0, 1] = 2  # the lower half, with a mean of 1
    assert output_mean(predicted(counted)).tolist() == [3.5, -3.0]
    assert output_square(predicted(counted)).tolist() == [12.5, 18.0]
