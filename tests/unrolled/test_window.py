"""Derivatives through training: against central differences of the training itself."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from retrac.errors import RetracError
from retrac.training.loop import train
from retrac.training.sample_weights import SampleWeights
from retrac.training.trained import TrainedRun
from retrac.unrolled import Adjoint, Segments, State, Swept, Window, back, forward, least_states
from tiny import tiny

SAMPLES = 24
CHANGE = 2.0**-10
"""Of a sample's weight, for differences."""
RUNS = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.05},
    "sgd-decay": {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.1},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.9},
    "momentum-decay": {
        "optimizer": "sgd",
        "learning_rate": 0.02,
        "momentum": 0.9,
        "weight_decay": 0.1,
    },
    "adam": {},
    "adam-decay": {"weight_decay": 0.1},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "unclipped": {"max_grad_norm": None},
    "no-average": {"ema_decay": None},
    "l1": {"loss": "l1"},
    "attention": {"attention_levels": (1,), "attention_head_dim": 4},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TrainedRun]:
    """Runs of two epochs, by what is special about them."""
    made: dict[str, TrainedRun] = {}

    def run(name: str) -> TrainedRun:
        if name not in made:
            config = tiny(
                **{"epochs": 2, "checkpoint_every": 1, "sample_count": 0, **RUNS[name]},
            )
            made[name] = train(config, tmp_path_factory.mktemp("unrolled") / name)
        return made[name]

    return run


def measured(window: Window, weights: Tensor, queries: int = 2) -> Tensor:
    """What queries lose, `[Q]`, with weights `[P]`: samples at events of no training."""
    window.layout.write(weights, window.parameters)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        shown = window.run.shown(99, np.arange(queries))
        return window.run.objective.losses(window.network, *shown)


def gone_forward(
    run: TrainedRun, first: int, weights: np.ndarray | None = None
) -> tuple[Window, State]:
    """The end of a window in float64."""
    counted = SampleWeights(weights) if weights is not None else None
    window = Window(run, first, 2, "float64", counted)
    for step in window.steps:
        window.take(step)
    return window, window.state()


def beginning(window: Window, end: State, queries: int = 2) -> Swept:
    """Where the way back begins."""
    losses = measured(window, end.generating, queries)
    upon = torch.stack(
        [
            window.layout.vector(torch.autograd.grad(loss, window.parameters, retain_graph=True))
            for loss in losses
        ]
    )
    effects = torch.zeros(queries, window.run.size, dtype=torch.float64)
    return Swept(window.steps.stop, Adjoint.of(upon, end), effects)


def derivative(run: TrainedRun, first: int, states: int = 100, rows: int = 100) -> np.ndarray:
    """`[Q, N]`, by the way back."""
    segments = Segments.within(Window(run, first, 2).steps, states)
    window = Window(run, first, 2, "float64")
    kept = dict(forward(window, segments, window.steps.stop))
    *_, swept = back(window, segments, kept, beginning(window, window.state()), rows)
    return swept.effects.numpy()


def differences(run: TrainedRun, first: int, samples: list[int]) -> np.ndarray:
    """`[Q, len(samples)]`, by training with a little more and a little less of each."""
    found = []
    for sample in samples:
        ends = []
        for sign in (1, -1):
            weights = np.ones(SAMPLES)
            weights[sample] += sign * CHANGE
            window, end = gone_forward(run, first, weights)
            ends.append(measured(window, end.generating).detach())
        found.append((ends[0] - ends[1]) / (2 * CHANGE))
    return torch.stack(found, 1).numpy()


@pytest.mark.parametrize("name", RUNS)
def test_it_is_the_derivative(name: str, trained: Callable[[str], TrainedRun]) -> None:
    samples = [0, 7]
    expected = differences(trained(name), 1, samples)
    found = derivative(trained(name), 1)[:, samples]
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < 1e-5


@pytest.mark.parametrize(
    ("name", "states", "rows"),
    [("adam", 100, 3), ("adam", 5, 100), ("adam", 5, 3), ("momentum", 5, 3), ("no-average", 5, 3)],
)
def test_neither_stretches_nor_pieces_change_it(
    name: str, states: int, rows: int, trained: Callable[[str], TrainedRun]
) -> None:
    run = trained(name)
    expected = derivative(run, 0)
    # Adam's first steps make much of the last digits.
    assert np.allclose(derivative(run, 0, states, rows), expected, rtol=1e-6, atol=1e-9)


def test_the_steps_of_a_window_are_the_runs_own_to_the_bit(tiny_run: TrainedRun) -> None:
    window = Window(tiny_run, 2, 6)
    middle = None
    for step in window.steps:
        if step == 12:  # taken up again in another network
            middle = window.state()
            window = Window(tiny_run, 2, 6)
            window.put(middle)
        window.take(step)
    for averaged, found in ((False, window.state().weights), (True, window.state().average)):
        last = tiny_run.checkpoints[-1]
        load = last.load_averaged if averaged else last.load
        expected = window.layout.vector(list(load(tiny_run.shape).parameters()))
        assert torch.equal(found, expected.detach())


def test_stopped_on_the_way_back_it_goes_on_to_the_same_result(
    trained: Callable[[str], TrainedRun],
) -> None:
    run = trained("adam")
    segments = Segments.within(Window(run, 0, 2).steps, 5)
    window = Window(run, 0, 2, "float64")
    kept = dict(forward(window, segments, window.steps.stop))
    start = beginning(window, window.state())
    first = next(back(window, segments, kept, start, 100))
    stopped = Swept(first.step, first.adjoint, first.effects.clone())
    *_, whole = back(window, segments, kept, first, 100)
    window = Window(run, 0, 2, "float64")
    kept = dict(forward(window, segments, stopped.step))
    *_, again = back(window, segments, kept, stopped, 100)
    assert torch.equal(whole.effects, again.effects)


@given(steps=st.integers(1, 400), states=st.integers(1, 500))
def test_stretches_fit_into_memory(steps: int, states: int) -> None:
    window = range(7, 7 + steps)
    if states < least_states(steps):
        with pytest.raises(RetracError, match="shorter window"):
            Segments.within(window, states)
        return
    segments = Segments.within(window, states)
    covered = [step for start in segments.starts for step in segments.of(start)]
    assert covered == list(window)
    if len(segments.starts) > 1:  # else the first state is that of the only stretch
        assert segments.size + len(segments.starts) <= states


def test_as_few_states_are_needed_as_twice_the_root_of_the_steps() -> None:
    assert [least_states(steps) for steps in (1, 16, 100, 400)] == [1, 8, 20, 40]


def test_a_sample_that_came_in_no_step_has_no_effect(trained: Callable[[str], TrainedRun]) -> None:
    run = trained("adam")
    window = Window(run, 1, 2)
    window.steps = window.steps[:1]
    segments = Segments.within(window.steps, 10)
    kept = dict(forward(window, segments, window.steps.stop))
    *_, swept = back(window, segments, kept, beginning(window, window.state()), 100)
    there = np.isin(np.arange(SAMPLES), window.batch(window.steps.start))
    assert swept.effects[:, there].abs().min() > 0
    assert not swept.effects[:, ~there].any()
