import torch
from torch import nn

from retrac.gradients.memory import activation_bytes, weight_bytes

from .agreement import assert_untouched, random_losses


def test_activations_are_counted_by_sample():
    model = nn.Sequential(nn.Linear(10, 1000), nn.Tanh(), nn.Linear(1000, 1))
    found = [
        activation_bytes(model, random_losses(model, torch.randn(batch, 10))) for batch in (2, 4)
    ]
    assert all(1000 * 8 <= bytes_ <= 3 * 1000 * 8 for bytes_ in found)
    assert_untouched(model, {name for name, _ in model.named_parameters()})


def test_layers_without_a_rule():
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.PReLU(), nn.Conv1d(4, 3, 3))
    assert activation_bytes(model, random_losses(model, torch.randn(2, 3, 9))) > 0


def test_weights():
    model = nn.Linear(3, 4)
    model.bias.requires_grad_(False)
    assert weight_bytes(model) == 12 * 8
