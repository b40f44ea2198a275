"""The ledger: every event a pure function of seed, epoch and sample, and of nothing else."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from retrac.training.ledger import Ledger

SHAPE = (1, 3, 2)

ledgers = st.builds(
    Ledger,
    seed=st.integers(0, 2**64 - 1),
    size=st.integers(1, 40),
    timesteps=st.integers(1, 5000),
)
epochs = st.one_of(st.integers(0, 50), st.integers(0, 2**64 - 1))


@settings(max_examples=50, deadline=None)
@given(ledgers, epochs, st.data())
def test_an_event_does_not_depend_on_the_batch_it_is_asked_in(
    ledger: Ledger, epoch: int, data: st.DataObject
) -> None:
    batch = data.draw(st.lists(st.integers(0, ledger.size - 1), min_size=1, max_size=8))
    together = ledger.events(epoch, batch, SHAPE)
    for row, index in enumerate(batch):
        alone = Ledger(ledger.seed, ledger.size, ledger.timesteps).events(epoch, [index], SHAPE)
        for one, many in zip(alone, together, strict=True):
            assert torch.equal(one[0], many[row])


@settings(max_examples=50, deadline=None)
@given(ledgers, epochs)
def test_events_have_the_promised_types_and_ranges(ledger: Ledger, epoch: int) -> None:
    timesteps, noise, flips = ledger.events(epoch, range(ledger.size), SHAPE)
    assert (timesteps.dtype, noise.dtype, flips.dtype) == (torch.int64, torch.float32, torch.bool)
    assert timesteps.shape == flips.shape == (ledger.size,)
    assert noise.shape == (ledger.size, *SHAPE)
    assert ((timesteps >= 0) & (timesteps < ledger.timesteps)).all()


@settings(max_examples=50, deadline=None)
@given(ledgers, epochs, st.data())
def test_seed_epoch_and_sample_each_change_the_event(
    ledger: Ledger, epoch: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, ledger.size - 1))
    other = data.draw(st.integers(0, 2**64 - 1))
    noise = ledger.events(epoch, [index], SHAPE).noise
    if other != epoch:
        assert not torch.equal(noise, ledger.events(other, [index], SHAPE).noise)
    if other != ledger.seed:
        reseeded = Ledger(other, ledger.size, ledger.timesteps)
        assert not torch.equal(noise, reseeded.events(epoch, [index], SHAPE).noise)
    if index:
        assert not torch.equal(noise, ledger.events(epoch, [index - 1], SHAPE).noise)


def test_a_larger_training_set_keeps_the_events_of_its_first_samples() -> None:
    few, many = Ledger(3, 10).events(2, range(10), SHAPE), Ledger(3, 99).events(2, range(10), SHAPE)
    assert all(torch.equal(one, other) for one, other in zip(few, many, strict=True))


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor], ids=lambda k: k.__name__)
def test_samples_may_come_in_any_sequence(kind: type) -> None:
    ledger = Ledger(0, 10)
    expected = ledger.events(0, [7, 2], SHAPE)
    for one, other in zip(ledger.events(0, kind([7, 2]), SHAPE), expected, strict=True):
        assert torch.equal(one, other)
    assert len(ledger.events(0, [], SHAPE).timesteps) == 0


@settings(max_examples=50, deadline=None)
@given(ledgers, epochs, st.integers(1, 50))
def test_the_batches_of_an_epoch_hold_every_sample_once(
    ledger: Ledger, epoch: int, batch_size: int
) -> None:
    batches = ledger.batches(epoch, batch_size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(ledger.size))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert len(batches[-1]) == (ledger.size - 1) % batch_size + 1
    assert np.concatenate(batches).tolist() == ledger.order(epoch).tolist()


def test_every_epoch_has_its_own_order_whatever_the_batch_size() -> None:
    orders = {tuple(Ledger(0, 30).order(epoch)) for epoch in range(20)}
    assert len(orders) == 20


def test_timesteps_are_uniform_noise_is_normal_and_half_are_flipped() -> None:
    """Fixed seed; each test would fail by chance once in a thousand seeds."""
    ledger = Ledger(seed=11, size=20_000, timesteps=1000)
    timesteps, noise, flips = ledger.events(4, range(ledger.size), (2,))
    counts = np.bincount(timesteps.numpy() // 10, minlength=100)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.kstest(noise.numpy().ravel(), "norm").pvalue > 1e-3
    assert stats.binomtest(int(flips.sum()), len(flips)).pvalue > 1e-3


def test_what_an_event_draws_is_independent_of_its_other_parts() -> None:
    timesteps, noise, flips = Ledger(seed=5, size=5_000).events(0, range(5_000), (1,))
    parts = np.stack([timesteps.numpy(), noise.numpy()[:, 0], flips.numpy()])
    correlations = np.corrcoef(parts)[np.triu_indices(3, 1)]
    assert (abs(correlations) < 4 / np.sqrt(5_000)).all()


def test_events_of_neighbours_are_independent() -> None:
    noise = Ledger(0, 2_000).events(0, range(2_000), (8,)).noise.numpy()
    across = np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]
    assert abs(across) < 4 / np.sqrt(noise[1:].size)


def test_four_uniform_numbers_come_first_so_that_additions_move_nothing() -> None:
    """The documented stream: Philox keyed by the seed, counted by epoch and sample."""
    drawn = Ledger(seed=9, size=8, timesteps=100).events(3, [6], SHAPE)
    philox = np.random.Philox(
        key=np.array([9, 0x5265547261634C67], np.uint64), counter=np.array([0, 0, 3, 6], np.uint64)
    )
    stream = np.random.Generator(philox)
    moment, flip, _reserved, _for_later = stream.random(4)
    assert int(drawn.timesteps) == int(moment * 100)
    assert bool(drawn.flips) == (flip < 0.5)
    assert np.array_equal(drawn.noise[0], stream.standard_normal(SHAPE, dtype=np.float32))


def test_the_events_are_the_same_on_every_machine() -> None:
    ledger = Ledger(seed=0, size=100)
    assert ledger.events(0, range(6), SHAPE).timesteps.tolist() == [362, 702, 335, 23, 255, 609]
    assert ledger.order(0)[:6].tolist() == [17, 88, 22, 40, 43, 32]


def test_another_process_draws_the_same() -> None:
    code = "from retrac.training.ledger import Ledger; print(Ledger(7, 50, 300).digest())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == Ledger(7, 50, 300).digest()


def test_the_digest_changes_with_seed_size_and_timesteps() -> None:
    digests = {
        Ledger(*given).digest()
        for given in [(0, 50, 1000), (1, 50, 1000), (0, 51, 1000), (0, 50, 999), (0, 1, 1000)]
    }
    assert len(digests) == 5


@pytest.mark.parametrize("changed", ["random", "standard_normal", "permutation"])
def test_the_digest_notices_a_generator_that_has_changed(
    changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Ledger(0, 50).digest()
    monkeypatch.setattr(np.random, "Generator", _changed(changed))
    assert Ledger(0, 50).digest() != before


def _changed(name: str) -> type:
    """NumPy's generator, with one number of one distribution a little different."""

    def drifted(self: np.random.Generator, *args: object, **options: object) -> object:
        drawn = getattr(super(changed, self), name)(*args, **options)
        if name == "standard_normal":
            options["out"].flat[0] += 1e-6  # type: ignore[attr-defined]
            return drawn
        if name == "random":
            return (drawn + 0.5) % 1
        return np.roll(drawn, 1)

    changed = type("Changed", (np.random.Generator,), {name: drifted})
    return changed


@pytest.mark.parametrize("given", [(-1, 5, 10), (2**64, 5, 10), (0, 0, 10), (0, 5, 0)])
def test_numbers_that_make_no_ledger_are_refused(given: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"seed must be in|at least one"):
        Ledger(*given)


@pytest.mark.parametrize("index", [-1, 5, 10**9])
def test_samples_outside_the_training_set_are_refused(index: int) -> None:
    with pytest.raises(IndexError, match=f"sample {index} is not in a training set of 5"):
        Ledger(0, 5).events(0, [0, index], SHAPE)


def test_epochs_below_zero_are_refused() -> None:
    with pytest.raises(IndexError, match="counted from 0"):
        Ledger(0, 5).events(-1, [0], SHAPE)
    with pytest.raises(IndexError, match="counted from 0"):
        Ledger(0, 5).order(-1)


def test_the_luck_of_latents_has_no_number_of_the_noise() -> None:
    ledger = Ledger(seed=3, size=5)
    noise, luck = ledger.events(2, [4], (64,)).noise, ledger.posterior(2, [4], (64,))
    assert not {*noise.flatten().tolist()} & {*luck.flatten().tolist()}


def test_latents_and_dropped_conditions_have_luck_of_their_own() -> None:
    ledger = Ledger(3, 50, 10)
    every = np.arange(50)
    luck = ledger.posterior(2, every, (2, 3))
    assert torch.equal(luck[[4, 9]], ledger.posterior(2, torch.tensor([4, 9]), (2, 3)))
    noise = ledger.events(2, every, (2, 3)).noise
    for other in (
        noise,
        ledger.posterior(1, every, (2, 3)),
        Ledger(4, 50).posterior(2, every, (2, 3)),
    ):
        assert (
            abs(float(torch.corrcoef(torch.stack((luck.flatten(), other.flatten())))[0, 1])) < 0.3
        )
    assert not ledger.dropped(2, every, 0.0).any() and ledger.dropped(2, every, 1.0).all()
    some, more = ledger.dropped(2, every, 0.2), ledger.dropped(2, every, 0.6)
    assert 3 < some.sum() < 20 < more.sum() < 40 and (some <= more).all()
    with pytest.raises(IndexError, match="50"):
        ledger.posterior(0, [50], (1,))
    with pytest.raises(IndexError, match="50"):
        ledger.dropped(0, [50], 0.5)
