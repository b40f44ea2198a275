"""Where features are taken: the same timesteps for all images, and noises of every image's own."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor

from retrac.attribution.draws import Grid, Rows, Source, Visits
from retrac.attribution.queries import training_samples
from retrac.training.run import Run

EVERY = np.arange(24)
SOME = np.array([3, 7, 20])


def grid(run: Run, **changes: int) -> Grid:
    options = {"count": 4, "bins": 2, "noises": 4, "seed": 0, "epoch": 6, **changes}
    return Grid.spread(run, **options)


def visits(run: Run) -> Visits:
    return Visits.of(run, range(6), grid(run, bins=2))


def noises(rows: Iterable[Rows], image: int) -> Tensor:
    """Of one image, in order."""
    return torch.cat([some.batch.noise[some.image == image] for some in rows])


def test_timesteps_are_the_middles_of_equal_parts(tiny_run: Run) -> None:
    one = {"noises": 2}  # a pair, and so a single part
    assert grid(tiny_run, **one).timesteps.tolist() == [[[6, 18]], [[31, 43]]]  # of 50
    assert grid(tiny_run, bins=1, **one).timesteps.tolist() == [[[6, 18, 31, 43]]]
    others = [grid(tiny_run, count=5, bins=5, seed=n, **one).timesteps.flatten() for n in range(8)]
    assert len({tuple(steps.tolist()) for steps in others}) == 8
    assert all((steps // 10).tolist() == list(range(5)) for steps in others)


def test_parts_have_timesteps_of_their_own_that_are_evenly_spread(tiny_run: Run) -> None:
    source = grid(tiny_run, count=2, noises=8)
    assert source.parts == 4 and source.query_draws == 8
    assert source.timesteps.tolist() == [[[3], [9], [15], [21]], [[28], [34], [40], [46]]]
    (rows,) = source.sample_rows(SOME, 1, 1000)
    for part, step in enumerate((28, 34, 40, 46)):
        assert (rows.batch.timesteps[rows.part == part] == step).all()


@pytest.mark.parametrize("make", [grid, visits])
def test_rows_are_where_the_source_says(tiny_run: Run, make) -> None:
    source: Source = make(tiny_run)
    queries = training_samples(tiny_run, "some", SOME)
    for which in range(source.bins):
        for most in (1, 5, 1000):
            asked = list(source.query_rows(queries, which, most))
            held = list(source.sample_rows(SOME, which, most))
            assert sum(some.batch.size for some in asked) == len(SOME) * source.query_draws
            assert sum(some.batch.size for some in held) == source.sample_draws(SOME, which)
            for sides, group in ((asked, source.query_group), (held, source.group)):
                for some in sides:
                    place = torch.stack((some.image, some.part)).unflatten(1, (-1, group))
                    assert (place == place[..., :1]).all()  # a group is of one image and part
        assert {int(part) for some in asked for part in some.part} == set(range(source.parts))


@pytest.mark.parametrize("make", [grid, visits])
def test_samples_and_queries_are_at_the_same_timesteps(tiny_run: Run, make) -> None:
    source: Source = make(tiny_run)
    queries = training_samples(tiny_run, "some", SOME)
    for which in range(source.bins):
        sides = (source.query_rows(queries, which, 64), source.sample_rows(EVERY, which, 64))
        one, two = (torch.cat([some.batch.timesteps for some in side]) for side in sides)
        if make is grid:
            assert (
                set(one.tolist())
                == set(two.tolist())
                == set(source.timesteps[which].flatten().tolist())
            )
        for steps in (one, two):
            assert (steps * source.bins // tiny_run.timesteps == which).all()


def test_noises_come_in_pairs(tiny_run: Run) -> None:
    (rows,) = grid(tiny_run).sample_rows(SOME, 1, 1000)
    assert set(rows.part.tolist()) == {0, 1}
    for image in range(3):
        for part in range(2):
            which = (rows.image == image) & (rows.part == part)
            for step in rows.batch.timesteps[which].unique():
                pair = rows.batch.noise[which & (rows.batch.timesteps == step)]
                assert len(pair) == 2 and torch.equal(pair[0], -pair[1]) and pair[0].any()


def test_noises_depend_on_the_image_and_not_on_its_place(tiny_run: Run) -> None:
    together, alone = grid(tiny_run), np.array([7])
    many, one = (together.sample_rows(some, 0, 1000) for some in (SOME, alone))
    expected = noises(one, 0)
    assert torch.equal(noises(many, 1), expected)
    for changed in ({"seed": 1}, {"epoch": 4}):
        assert not torch.equal(
            noises(grid(tiny_run, **changed).sample_rows(alone, 0, 99), 0), expected
        )
    assert not torch.equal(noises(together.sample_rows(alone, 1, 99), 0), expected)


def test_a_query_never_has_the_noises_of_an_equal_sample(tiny_run: Run) -> None:
    source = grid(tiny_run)
    queries = training_samples(tiny_run, "some", SOME)
    for which in range(source.bins):
        asked = torch.cat([some.batch.noise for some in source.query_rows(queries, which, 99)])
        held = torch.cat([some.batch.noise for some in source.sample_rows(SOME, which, 99)])
        every = torch.cat((asked, held)).flatten(1)
        assert len(every.unique(dim=0)) == len(every)


def test_every_event_is_in_the_bin_of_its_timestep(tiny_run: Run) -> None:
    source = visits(tiny_run)
    seen: list[tuple[int, int, Tensor]] = []
    for which in range(source.bins):
        for rows in source.sample_rows(SOME, which, 4):
            assert rows.batch.size <= 4
            pairs = zip(rows.image.tolist(), rows.batch.timesteps.tolist(), strict=True)
            seen += [(*pair, noise) for pair, noise in zip(pairs, rows.batch.noise, strict=True)]
    assert len(seen) == 6 * len(SOME)
    for epoch in range(6):
        shown = tiny_run.shown(epoch, SOME)
        for image, (step, noise) in enumerate(zip(shown.timesteps, shown.noise, strict=True)):
            same = [n for i, t, n in seen if (i, t) == (image, int(step))]
            assert any(torch.equal(noise, other) for other in same)


def test_events_are_dealt_out_to_parts_in_turn(tiny_run: Run) -> None:
    source = visits(tiny_run)
    for which in range(source.bins):
        rows = list(source.sample_rows(EVERY, which, 1000))
        image, part = (
            torch.cat([getattr(some, name) for some in rows]) for name in ("image", "part")
        )
        for sample in EVERY:
            mine = part[image == sample]
            assert mine.tolist() == [place % source.parts for place in range(len(mine))]


def test_settings_tell_all_that_decides_draws(tiny_run: Run) -> None:
    """Few timesteps of many noises, and many of few, are as many draws."""
    found = [grid(tiny_run, count=count, noises=32 // count) for count in (2, 4, 8)]
    assert {source.query_draws for source in found} == {16}
    assert len({tuple(source.settings) for source in found}) == 3
    assert visits(tiny_run).settings == grid(tiny_run).settings
