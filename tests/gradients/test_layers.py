"""Groups of layers, and what each adds to inner products."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrac.gradients import Directions, LayerGroups, dots_by_layer, oracle

from .agreement import directions_for
from .test_sketch import network


def test_groups_are_modules_at_the_top_and_entries_of_lists():
    names = (
        "conv_in.weight", "conv_in.bias", "time_embedding.linear_1.weight",
        "down_blocks.0.resnets.1.conv1.weight", "down_blocks.1.conv.weight", "scale",
    )  # fmt: skip
    groups = LayerGroups.of(names)
    assert groups.names == (
        "conv_in", "time_embedding", "down_blocks.0", "down_blocks.1", "network",
    )  # fmt: skip
    assert [groups.place[name] for name in names] == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        # a wrapper that all are in
        (("base.model.mid.to_q.a", "base.model.up.0.to_q.a"), ("mid", "up.0")),
        # all in one list
        (("blocks.0.attn.a", "blocks.1.attn.a"), ("blocks.0", "blocks.1")),
        (("unet.blocks.0.attn.a", "unet.blocks.1.attn.a"), ("blocks.0", "blocks.1")),
        # a single layer
        (("proj.weight", "proj.bias"), ("proj",)),
        (("net.proj.weight",), ("proj",)),
    ],
)
def test_what_all_names_begin_with_does_not_count(names, groups):
    assert LayerGroups.of(names).names == groups


def test_some_parameters_keep_their_groups_names():
    names = ("down.0.a.w", "mid.a.w", "mid.b.w", "up.0.a.w")
    some = LayerGroups.of(names).of_some({"mid.b.w", "up.0.a.w"})
    assert some.names == ("mid", "up.0")
    assert some.place == {"mid.b.w": 0, "up.0.a.w": 1}


NAME = st.lists(st.sampled_from(["a", "b", "0", "1"]), min_size=1, max_size=5).map(".".join)


@given(st.lists(NAME, min_size=1, max_size=8, unique=True))
def test_every_parameter_is_in_a_group_with_all_of_its_layer(names):
    groups = LayerGroups.of(names)
    assert set(groups.place) == set(names)
    assert {*groups.place.values()} == {*range(len(groups.names))}
    by_layer: dict[str, set[int]] = {}
    for name, place in groups.place.items():
        by_layer.setdefault(name.rpartition(".")[0], set()).add(place)
    assert all(len(places) == 1 for places in by_layer.values())


def test_products_of_each_group_are_those_of_its_gradients_alone():
    model = network()
    images = torch.randn(4, 3, 6, 6)
    directions = directions_for(model)
    groups = LayerGroups.of(name for name, _ in model.named_parameters())
    assert len(groups.names) > 2

    def losses():
        return model(images).flatten(1).square().sum(1)

    dots, squared = dots_by_layer(model, losses, Directions(directions), groups)
    gradients = oracle.per_sample_gradients(model, losses)
    for number in range(len(groups.names)):
        expected = sum(
            gradients[name].flatten(1) @ directions[name].flatten(1).T
            for name, place in groups.place.items()
            if place == number
        )
        torch.testing.assert_close(dots[:, :, number], expected, rtol=1e-9, atol=1e-12)
    whole, norms = oracle.dots_and_norms(model, losses, directions)
    torch.testing.assert_close(dots.sum(2), whole, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(squared, norms, rtol=1e-9, atol=1e-12)
