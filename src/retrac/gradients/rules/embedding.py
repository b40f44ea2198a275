"""Embeddings: a linear layer on one-hot inputs."""

import torch.nn.functional as F
from torch import Tensor, nn

from retrac.gradients.gradient import Factored, Gradient
from retrac.gradients.inputs import Plain
from retrac.gradients.layout import Layout
from retrac.gradients.rules.registry import Call, rule


@rule(nn.Embedding)
def embedding(layer: nn.Embedding, call: Call, output_gradient: Tensor) -> dict[str, Gradient]:
    """Each position's output gradient goes to the row that was looked up, but for padding."""
    batch = len(output_gradient)
    chosen = F.one_hot(call.input.reshape(batch, 1, -1).long(), layer.num_embeddings)
    if layer.padding_idx is not None:
        chosen[..., layer.padding_idx] = 0
    b = output_gradient.reshape(batch, 1, -1, layer.embedding_dim)
    layout = Layout((layer.embedding_dim, layer.num_embeddings), (1, 0), tuple(layer.weight.shape))
    return {"weight": Factored(Plain(chosen.to(b.dtype)), b, layout)}
