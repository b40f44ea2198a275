"""The cost model: what it counts, what it chooses, and that every route gives the same numbers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrac.gradients import routes
from retrac.gradients.routes import USUAL, Machine, Shape, Work

from .agreement import random_layers

LINEAR = Shape(
    batch=4, groups=1, positions=3, inputs=5, outputs=7, pixels=3, channels=5, number_bytes=4
)
CONVOLUTION = Shape(
    batch=2, groups=1, positions=16, inputs=18, outputs=5, pixels=16, channels=2, bands=3,
    copied=6 * 4 * 6, number_bytes=4,
)  # fmt: skip

shapes = st.builds(
    Shape,
    batch=st.sampled_from([1, 8, 64]),
    groups=st.sampled_from([1, 4]),
    positions=st.sampled_from([0, 1, 2, 4, 16, 1024]),
    inputs=st.sampled_from([9, 288, 9216]),
    outputs=st.sampled_from([1, 32, 1024]),
    pixels=st.sampled_from([1, 1024]),
    channels=st.sampled_from([1, 3, 9]),
    bands=st.sampled_from([1, 3]),
    copied=st.sampled_from([0, 100, 10**6]),
    number_bytes=st.sampled_from([2, 4, 8]),
)


def test_writing_out_counts_products_and_norms() -> None:
    """By hand: `2·B·n·P` to write, `2·B·n·M` for dots, `2·B·n` for norms."""
    work = routes.written_out(LINEAR, 6)
    numbers = 4 * 5 * 7
    assert work.operations == 2 * numbers * 3 + 2 * numbers * 6 + 2 * numbers
    sides, directions = 4 * 3 * (5 + 7), 6 * 5 * 7
    assert work.bytes == 4 * (sides + directions + routes.CACHED * 3 * numbers)


def test_contracting_counts_products_and_gram_matrices() -> None:
    work = routes.contracted(LINEAR, 6)
    rows = 4 * 3
    dots, norms = 2 * rows * 6 * 7 * (5 + 1), 2 * rows * 3 * (5 + 7) + 2 * rows * 3
    assert work.operations == dots + norms
    single = replace(LINEAR, positions=1, pixels=1)  # its norm is a product of two norms
    assert routes.contracted(single, 0).operations == 2 * 4 * (5 + 7)


def test_norms_come_from_gram_matrices_where_these_are_small() -> None:
    few = Shape(16, 1, 16, 9216, 1024, 16, 9216)
    assert routes.norms_aside(few) and not routes.norms_aside(LINEAR)
    numbers, rows = 16 * 9216 * 1024, 16 * 16
    norms = 2 * rows * 16 * (9216 + 1024) + 2 * rows * 16
    assert routes.written_out(few, 6).operations == 2 * numbers * (16 + 6) + norms


def test_copies_are_made_once_and_read_for_every_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = replace(CONVOLUTION, copied=0)
    copies, patches = 2 * 6 * 4 * 6 * 4, 2 * 16 * 18 * 4
    once = routes.CACHED * (copies + patches)  # written, and read
    extra = routes.written_out(CONVOLUTION, 3).bytes - routes.written_out(plain, 3).bytes
    assert extra == once
    monkeypatch.setattr(routes, "TILE_BYTES", 4 * 2 * 6 * 3)
    assert routes.tile_sizes(CONVOLUTION) == (2, 3)
    again = routes.written_out(CONVOLUTION, 3).bytes - routes.written_out(plain, 3).bytes
    assert again == once


def test_directions_are_read_for_every_slice_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    once = routes.written_out(CONVOLUTION, 100).bytes
    monkeypatch.setattr(routes, "COPIED_BYTES", 4 * 6 * 4 * 6)  # one sample's
    assert routes.tile_sizes(CONVOLUTION)[0] == 1
    assert routes.written_out(CONVOLUTION, 100).bytes == once + 100 * 18 * 5 * 4


def test_projecting_counts_both_sides_and_what_is_left() -> None:
    small = replace(CONVOLUTION, inputs=9, outputs=2, channels=1, copied=6 * 4 * 3)
    work = routes.projected(CONVOLUTION, small)
    sides = 2 * (2 * 16) * 2 * 1 + 2 * (2 * 16) * 5 * 2
    assert work.operations == sides + routes.written_out(small, 0).operations
    assert routes.projected(CONVOLUTION, CONVOLUTION) == routes.written_out(CONVOLUTION, 0)


def test_time_is_that_of_operations_and_of_bytes() -> None:
    assert Machine(operations=10, bytes=2).seconds(Work(30, 8)) == 7
    assert Work(1, 2) + Work(3, 4) == Work(4, 6)


@random_layers
@given(shape=shapes, directions=st.sampled_from([0, 1, 2, 32]))
def test_the_cheapest_route_is_chosen(shape: Shape, directions: int) -> None:
    found = routes.contractions(shape, directions)
    least = min(USUAL.seconds(work) for work in found.values())
    assert USUAL.seconds(found[routes.choose(shape, directions)]) == least
    assert all(work.operations >= 0 and work.bytes >= 0 for work in found.values())


@pytest.mark.parametrize(
    ("positions", "directions", "route"),
    [(1, 32, "contract"), (1, 0, "contract"), (4, 0, "contract"), (64, 32, "write out"),
     (1024, 0, "write out"), (16, 32, "write out")],
)  # fmt: skip
def test_few_positions_are_contracted_and_many_written_out(
    positions: int, directions: int, route: str
) -> None:
    shape = Shape(64, 1, positions, 512, 256, positions, 512)
    assert routes.choose(shape, directions) == route


@random_layers
@given(shape=shapes, directions=st.sampled_from([0, 1, 32]))
def test_temporaries_are_small(shape: Shape, directions: int) -> None:
    room = routes.TILE_BYTES // shape.number_bytes
    samples = routes.contraction_samples(shape, directions)
    widest = max(directions * shape.outputs, shape.positions)
    assert samples == 1 or samples * shape.groups * shape.positions * widest <= room
    assert torch.tensor(routes.tile_sizes(shape)).min() >= 1
