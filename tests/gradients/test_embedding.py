import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from .agreement import assert_agrees, assert_refused, random_layers, random_losses, seeds


@random_layers
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    rows=st.integers(1, 5),
    width=st.integers(1, 4),
    padding=st.booleans(),
    seed=seeds,
)
def test_any_indices(slices, shape, rows, width, padding, seed):
    torch.manual_seed(seed)
    model = nn.Embedding(rows, width, padding_idx=rows - 1 if padding else None)
    indices = torch.randint(rows, shape)
    assert_agrees(model, random_losses(model, indices), (1, shape[0]))


def test_a_row_that_is_looked_up_again_and_again():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    indices = torch.tensor([[0, 0, 0], [0, 1, 0], [4, 4, 1]])
    assert_agrees(model, random_losses(model, indices), (1, 3))


def test_padding_gets_no_gradient():
    model = nn.Embedding(3, 2, padding_idx=-1)
    assert_agrees(model, random_losses(model, torch.tensor([[2, 2], [0, 2]])))


def test_indices_of_32_bits():
    model = nn.Embedding(3, 2)
    assert_agrees(model, random_losses(model, torch.tensor([[2, 1], [0, 2]], dtype=torch.int32)))


def test_scaling_by_frequency_is_refused():
    model = nn.Sequential(nn.Embedding(3, 2, scale_grad_by_freq=True))
    losses = random_losses(model, torch.tensor([[0, 0], [0, 1]]))
    assert_refused(model, losses, "'0' (Embedding)", "scale_grad_by_freq")


def test_an_embedding_of_positions_shared_by_the_samples_is_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.where = nn.Embedding(5, 3)

        def forward(self, tokens):
            return tokens + self.where(torch.arange(5))

    model = Model()
    losses = random_losses(model, torch.randn(2, 5, 3))
    assert_refused(model, losses, "'where' (Embedding)", "(5, 3)", "2 losses")
