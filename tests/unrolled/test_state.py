"""Parameters as one vector."""

import torch
from torch import nn

from retrac.unrolled import Layout


def test_a_vector_and_its_tensors_are_the_same_numbers() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 5)).to(
        memory_format=torch.channels_last
    )
    parameters = list(network.parameters())
    layout = Layout.of(parameters)
    vector = layout.vector(parameters)
    assert layout.size == vector.numel() == sum(p.numel() for p in parameters)
    for one, other in zip(layout.tensors(vector), parameters, strict=True):
        assert torch.equal(one, other)
    layout.write(vector + 1, parameters)
    assert torch.equal(layout.vector(parameters), vector + 1)
