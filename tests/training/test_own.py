"""Any module, with any loss per sample, asked like any run."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import retrac
from plain_loop import assert_close, expected_scores
from retrac.attribution.attribute import attribute
from retrac.attribution.build_index import build_index
from retrac.attribution.config import PlanConfig
from retrac.data.config import DatasetConfig
from retrac.diffusion.shown import Seen
from retrac.errors import RetracError
from retrac.training.own import OwnRun, adopt_module
from retrac.training.run import Run
from tiny import PUBLISHED

DIGITS = DatasetConfig(dataset="digits", resolution=8, limit=12)
PLAN = PlanConfig(3, 2)
STEPS = 20


class Net(nn.Module):
    """Nothing that diffusers has: one linear layer, told the timestep and a class."""

    def __init__(self) -> None:
        super().__init__()
        self.label = nn.Embedding(10, 4)
        self.inner = nn.Linear(64 + 1 + 4, 16)
        self.outer = nn.Linear(16, 64)

    def forward(self, noisy: Tensor, moment: Tensor, label: Tensor) -> Tensor:
        told = torch.cat((noisy.flatten(1), moment[:, None], self.label(label)), 1)
        return self.outer(self.inner(told).tanh()).view_as(noisy)


def load(path: Path) -> nn.Module:
    network = Net()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def losses(network: nn.Module, seen: Seen, timesteps: Tensor, noise: Tensor) -> Tensor:
    moment = (timesteps + 1) / STEPS
    share = moment[:, None, None, None]
    wrong = network((1 - share) * seen.clean + share * noise, moment, seen.conditions["label"])
    return (wrong - noise + seen.clean).abs().pow(1.5).flatten(1).mean(1)


def squared(network: nn.Module, seen: Seen, timesteps: Tensor, noise: Tensor) -> Tensor:
    return losses(network, seen, timesteps, noise).square()


def conditions(labels: Any) -> dict[str, Tensor]:
    return {"label": torch.tensor([int(label or 0) for label in labels])}


def given(folder: Path, **changes: Any) -> dict[str, Any]:
    paths = [folder / "early.pt", folder / "late.pt"]
    for seed, path in enumerate(paths):
        if not path.exists():
            torch.manual_seed(seed)
            torch.save(Net().state_dict(), path)
    functions = {"load": load, "losses": losses, "conditions": conditions}
    return {**functions, "weights": paths, "data": DIGITS, "timesteps": STEPS, **changes}


@pytest.fixture
def own(tmp_path: Path) -> OwnRun:
    return adopt_module(tmp_path / "run", **given(tmp_path, events=3))


def test_scores_are_those_of_the_plain_loop(own: OwnRun) -> None:
    queries = retrac.open_queries(own, "train:2")
    found = attribute(own, queries, PUBLISHED, replay="all", plan=PLAN).contributions
    for place, method in enumerate(("tracin", "retrac")):
        assert_close(found.values[place], expected_scores(own, queries, PLAN, method))


def test_replay_is_told_as_a_number_too(own: OwnRun) -> None:
    one, other = (
        attribute(own, "train:1", PUBLISHED, replay=count, plan=PLAN) for count in (2, "2")
    )
    assert np.array_equal(one.scores, other.scores)
    with pytest.raises(RetracError, match="a number of epochs, not '0'"):
        attribute(own, "train:1", PUBLISHED, replay=0, plan=PLAN)


def test_events_count_by_the_learning_rate_at_which_they_came(own: OwnRun, tmp_path: Path) -> None:
    rated = adopt_module(tmp_path / "rated", **given(tmp_path, events=3, learning_rates=(0.5, 2)))
    assert rated.identity != own.identity
    same, found = (
        attribute(run, "train:2", PUBLISHED, replay="all", plan=PLAN).contributions
        for run in (own, rated)
    )
    assert_close(found.values[:, 0], 0.5 * same.values[:, 0])
    assert_close(found.values[:, 1], 2 * same.values[:, 1])
    replayed = adopt_module(
        tmp_path / "replayed", **given(tmp_path, epochs=(2, 5), learning_rates=(0.5, 2))
    )
    counts = replayed.visit_weights([0, 1, 2, 4])
    assert counts.tolist() == [[0.5] * 12, [0.5] * 12, [2] * 12, [2] * 12]


def test_parameters_that_are_left_frozen_do_not_count(own: OwnRun, tmp_path: Path) -> None:
    def load_frozen(path: Path) -> nn.Module:
        network = load(path)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith("outer"))
        return network

    options = given(tmp_path, events=3, load=load_frozen, version="frozen")
    frozen = adopt_module(tmp_path / "frozen", **options)
    found = attribute(frozen, "train:2", PUBLISHED, plan=PLAN)
    expected = attribute(own, "train:2", PUBLISHED, plan=PLAN, parameters="^outer")
    assert_close(found.contributions.values, expected.contributions.values)
    assert not np.allclose(found.scores, attribute(own, "train:2", PUBLISHED, plan=PLAN).scores)
    everything = attribute(frozen, "train:2", PUBLISHED, plan=PLAN, parameters="all").scores
    assert_close(everything.values, attribute(own, "train:2", PUBLISHED, plan=PLAN).scores.values)


def test_a_network_may_see_what_a_function_makes_of_images(tmp_path: Path) -> None:
    def halved(images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 2).repeat(1, 4, 1, 1)  # 4 x 4 x 4 of 1 x 8 x 8

    run = adopt_module(tmp_path / "run", **given(tmp_path, events=3, encode=halved, flip=True))
    assert (
        run.identity
        != adopt_module(tmp_path / "other", **given(tmp_path, events=3, flip=True)).identity
    )
    shown, every = run.shown(1, np.arange(12)), np.arange(12)
    events = run.ledger.events(1, every, (4, 4, 4))
    assert torch.equal(shown.noise, events.noise) and 0 < events.flips.sum() < 12
    pixels = run.dataset.tensors(every)
    expected = torch.where(events.flips.view(-1, 1, 1, 1), pixels.flip(-1), pixels)
    assert torch.equal(shown.seen.clean, halved(expected))
    queries = retrac.open_queries(run, "train:2")
    found = attribute(run, queries, PUBLISHED, replay="all", plan=PLAN).contributions
    for place, method in enumerate(("tracin", "retrac")):
        assert_close(found.values[place], expected_scores(run, queries, PLAN, method))
    flat = adopt_module(tmp_path / "flat", **given(tmp_path, encode=lambda images: images.mean(1)))
    with pytest.raises(RetracError, match=r"must give \[B, C, H, W\]"):
        _ = flat.source


def test_frozen_modules_are_scored_where_parameters_are_asked_for(
    own: OwnRun, tmp_path: Path
) -> None:
    def load_frozen(path: Path) -> nn.Module:
        return load(path).requires_grad_(False)

    options = given(tmp_path, events=3, load=load_frozen, version="frozen")
    frozen = adopt_module(tmp_path / "frozen", **options)
    with pytest.raises(RetracError, match="leaves no parameter trainable"):
        attribute(frozen, "train:1", PUBLISHED, plan=PLAN)
    found = attribute(frozen, "train:1", PUBLISHED, plan=PLAN, parameters="all").scores
    assert_close(found.values, attribute(own, "train:1", PUBLISHED, plan=PLAN).scores.values)


def test_regions_are_refused(own: OwnRun) -> None:
    queries = replace(retrac.open_queries(own, "train:1"), masks=np.ones((1, 8, 8), bool))
    with pytest.raises(RetracError, match="leave out the mask"):
        attribute(own, queries, PUBLISHED, plan=PLAN)


def test_events_of_a_ledger_are_replayed(tmp_path: Path) -> None:
    run = adopt_module(tmp_path / "run", **given(tmp_path, epochs=(2, 5), flip=True))
    assert [checkpoint.epoch for checkpoint in run.checkpoints] == [2, 5]
    every = np.arange(12)
    events, shown = run.ledger.events(4, every, run.shape), run.shown(4, every)
    assert torch.equal(shown.timesteps, events.timesteps) and 0 < events.flips.sum() < 12
    mirrored = torch.where(
        events.flips.view(-1, 1, 1, 1),
        run.dataset.tensors(every).flip(-1),
        run.dataset.tensors(every),
    )
    assert torch.equal(shown.seen.clean, mirrored)
    assert "drawn by a ledger" in str(run.facts["events"])


def test_everything_else_can_be_asked(own: OwnRun) -> None:
    build_index(own, retrac_index())
    assert attribute(own, "train:1", PUBLISHED, plan=PLAN, index=True).scores.shape == (2, 1, 12)
    assert retrac.self_influence(own, plan=PLAN).ranked("tracin", 3)


def retrac_index() -> Any:
    from retrac.attribution.config import IndexConfig

    return IndexConfig(sketch_size=200)


def test_it_is_opened_by_code_alone_and_never_taken_for_another(tmp_path: Path) -> None:
    first = adopt_module(tmp_path / "run", **given(tmp_path))
    assert adopt_module(tmp_path / "run", **given(tmp_path)).identity == first.identity
    with pytest.raises(RetracError, match=r"open it by `retrac.adopt_module`"):
        Run.open(tmp_path / "run")

    for changes in (
        {"losses": squared},
        {"version": "2"},
        {"events": 5},
        {"seed": 1},
        {"timesteps": 21},
    ):
        with pytest.raises(RetracError, match="holds another run"):
            adopt_module(tmp_path / "run", **given(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weights": []}, "needs weights"),
        ({"seed": -1}, "seed must be from 0"),
        ({"events": 0}, "at least one timestep and one event"),
        ({"epochs": (3, 2)}, "must rise from at least 1"),
        ({"epochs": (3,)}, "epochs must be as many as weights"),
        ({"learning_rates": (3,)}, "learning rates must be as many as weights"),
        ({"learning_rates": (1, 0)}, "must be above 0"),
        ({"weights": [Path("/nowhere")]}, "holds no weights"),
    ],
)
def test_what_makes_no_run_is_refused(tmp_path: Path, changes: Any, told: str) -> None:
    with pytest.raises(RetracError, match=told):
        adopt_module(tmp_path / "run", **given(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_how_it_generates_is_not_known(own: OwnRun) -> None:
    with pytest.raises(RetracError, match="give its images as files"):
        retrac.open_queries(own, "generated:1")


def test_what_source_does_not_show_needs_a_version(tmp_path: Path) -> None:
    def made(power: float) -> Any:
        return lambda *given: losses(*given).pow(power)

    for hidden in (made(2), partial(losses)):
        with pytest.raises(RetracError, match="give a `version`"):
            adopt_module(tmp_path / "run", **given(tmp_path, losses=hidden))
    adopt_module(tmp_path / "run", **given(tmp_path, losses=made(2), version="power 2"))
    with pytest.raises(RetracError, match="holds another run"):
        adopt_module(tmp_path / "run", **given(tmp_path, losses=made(2), version="power 3"))
