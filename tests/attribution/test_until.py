"""Rounds are repeats with draws and events of their own; their mean is the score."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import retrac
from retrac.attribution import until as module
from retrac.attribution.attribute import attribution_of
from retrac.attribution.attribution import Attribution, group_of, part_of
from retrac.attribution.build_index import build_index
from retrac.attribution.config import AttributeConfig, FeatureConfig, IndexConfig, PlanConfig
from retrac.attribution.feature_plan import FEWEST
from retrac.attribution.queries import open_queries
from retrac.attribution.replay import chosen_epochs
from retrac.attribution.until import Until, attribute_until, rounds_beside
from retrac.errors import RetracError
from retrac.training.run import Run
from tiny import PUBLISHED

PLAN = PlanConfig(plan_timesteps=3, plan_noises=2)
PART = (group_of("tracin"), "query", "sample")
CONFIG = AttributeConfig(PUBLISHED, plan=PLAN)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock is the number of rounds, in minutes."""
    begun: list[int] = []

    def counted(run, queries, config, turn, path):
        begun.append(turn)
        return original(run, queries, config, turn, path)

    original = module._round
    monkeypatch.setattr(module, "_round", counted)
    monkeypatch.setattr(module.time, "monotonic", lambda: 60.0 * len(begun))
    return begun


def test_the_budget_ends_it_and_scores_are_the_mean_of_repeats(tiny_run: Run, rounds) -> None:
    found = attribute_until(tiny_run, "train:2", Until(0.99, 3), CONFIG)
    assert rounds == [0, 1, 2]
    told = found.config["reached"]
    assert told["rounds"] == 3 and not told["enough"]
    repeats = [
        retrac.attribute(
            tiny_run,
            "train:2",
            PUBLISHED,
            plan=PlanConfig(plan_timesteps=3, plan_noises=2, plan_seed=turn),
            replay_back=turn,
        )
        for turn in range(3)
    ]
    expected = np.mean([each.contributions.values for each in repeats], 0)
    np.testing.assert_allclose(found.contributions, expected, rtol=1e-5, atol=1e-9)
    # Intervals have two epochs: the third round replays those of the first.
    assert found.dataset.sizes["visit"] == 2
    assert set(told["repeatability"]) == {"tracin", "retrac"}
    for method, share in told["repeatability"].items():
        assert found.uncertainty(method).first(10).repeatability.mean() == pytest.approx(share)


def test_enough_ends_it(tiny_run: Run, rounds) -> None:
    found = attribute_until(tiny_run, "train:1", Until(0.01, 100), CONFIG)
    assert rounds == [0]
    assert found.config["reached"]["enough"]


def test_rounds_of_a_single_checkpoint_show_its_errors(tiny_run: Run, rounds) -> None:
    config = AttributeConfig(PUBLISHED, plan=PLAN, checkpoints=(6,))
    found = attribute_until(tiny_run, "train:1", Until(0.99, 8), config)
    assert rounds == list(range(8))
    for method in PUBLISHED:  # rounds that replay the same epoch are no groups of their own
        assert found.groups(method) == 6
        np.testing.assert_allclose(found.parts(method).sum(0), found.scores_of(method), atol=1e-6)
    assert found.dataset["train_timestep"].shape == (1, 24, 6)


def test_rounds_of_the_same_events_are_no_groups(tiny_run: Run, rounds) -> None:
    config = AttributeConfig(PUBLISHED, plan=PLAN, checkpoints=(6,), replay="all")
    found = attribute_until(tiny_run, "train:1", Until(0.99, 2), config)
    for method in PUBLISHED:
        assert found.groups(method) == 6  # of visits
        np.testing.assert_allclose(found.parts(method).sum(0), found.scores_of(method), atol=1e-6)
    assert found.dataset.sizes["visit"] == 6


def test_stopped_it_goes_on_and_done_it_is_opened(
    tiny_run: Run, rounds, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, until = tmp_path / "a", Until(0.99, 2)
    whole = attribute_until(tiny_run, "train:1", until, CONFIG)
    counted = module._round

    def dying(run, queries, config, turn, path):
        if turn == 1:
            raise KeyboardInterrupt
        return counted(run, queries, config, turn, path)

    rounds.clear()
    monkeypatch.setattr(module, "_round", dying)
    with pytest.raises(KeyboardInterrupt):
        attribute_until(tiny_run, "train:1", until, CONFIG, output=output)
    assert (rounds_beside(output) / "0000" / "config.json").is_file()
    rounds.clear()
    monkeypatch.setattr(module, "_round", counted)
    found = attribute_until(tiny_run, "train:1", until, CONFIG, output=output)
    np.testing.assert_allclose(found.scores, whole.scores, rtol=1e-5, atol=1e-9)
    again = attribute_until(tiny_run, "train:1", until, CONFIG, output=output)
    assert again.config == found.config and rounds == [0, 1]
    with pytest.raises(RetracError, match="other settings"):
        attribute_until(tiny_run, "train:1", Until(0.5, 2), CONFIG, output=output)


def test_more_time_goes_on_where_it_ended_and_enough_leaves_no_rounds(
    tiny_run: Run, rounds, tmp_path
) -> None:
    output = tmp_path / "a"
    attribute_until(tiny_run, "train:1", Until(0.99, 2), CONFIG, output=output)
    assert rounds == [0, 1] and (rounds_beside(output) / "0001").is_dir()
    rounds.clear()
    fewer = attribute_until(tiny_run, "train:1", Until(0.99, 1), CONFIG, output=output)
    assert fewer.config["reached"]["rounds"] == 2 and rounds == []
    more = attribute_until(tiny_run, "train:1", Until(0.99, 6), CONFIG, output=output)
    whole = attribute_until(tiny_run, "train:1", Until(0.99, 4), CONFIG)
    assert rounds[:4] == [0, 1, 2, 3] and more.config["reached"]["rounds"] == 4
    np.testing.assert_allclose(more.scores, whole.scores, rtol=1e-5, atol=1e-9)
    found = attribute_until(tiny_run, "train:1", Until(0.01, 6), CONFIG, output=tmp_path / "b")
    assert found.config["reached"]["enough"] and not rounds_beside(tmp_path / "b").exists()


def test_a_single_checkpoint_s_errors_hold_the_truth_however_many_rounds_there_are() -> None:
    """Rounds come round to the same events; what is drawn again is not independent of it."""
    stream = np.random.default_rng(0)
    truth = stream.standard_normal(2000)
    for length, replay, count in ((10, "last", 8), (10, "3", 40), (24, "7", 24), (12, "last", 60)):
        events = truth + 4 * stream.standard_normal((length, 2000))
        moments = stream.integers(0, 1000, (length, 2000))
        rounds = [
            made_round(events, moments, chosen_epochs(range(length), replay, turn))
            for turn in range(count)
        ]
        found = module._mean(rounds, RUN).uncertainty("tracin")
        low, high = found.intervals(0.9)
        assert ((low <= truth) & (truth <= high)).mean() == pytest.approx(0.9, abs=0.04)


RUN = SimpleNamespace(dataset=SimpleNamespace(images=np.zeros((2000, 1, 2, 2), np.uint8)))


def made_round(events: np.ndarray, moments: np.ndarray, epochs: tuple[int, ...]) -> Attribution:
    """A round of one checkpoint that replays some of its events `[E, N]`."""
    chosen = events[list(epochs)] / len(epochs)
    groups = np.stack(
        [chosen[group :: min(8, len(epochs))].sum(0) for group in range(min(8, len(epochs)))]
    )
    visits = ("checkpoint", "sample", "visit")
    data = xr.Dataset(
        {
            "score": (("method", "checkpoint", "query", "sample"), chosen.sum(0)[None, None, None]),
            "train_timestep": (visits, moments[list(epochs)].T[None]),
            "train_norm": (visits, np.ones((1, 2000, len(epochs)))),
            "query_norm": (("checkpoint", "query", "timestep"), np.ones((1, 1, 2))),
            "sample_image": (("shown", "channel", "row", "column"), np.zeros((1, 1, 2, 2))),
            **({part_of("tracin"): (PART, groups[:, None])} if len(groups) > 1 else {}),
        },
        {"method": ["tracin"], "shown": [0]},
    )
    return Attribution(data, {})


def test_candidates_that_are_scored_exactly_would_be_others_in_each_round(own_run, rounds) -> None:
    run = Run.open(own_run)
    build_index(run, IndexConfig(sketch_size=64))
    config = AttributeConfig(PUBLISHED, plan=PLAN, index=True, exact_top=3)
    with pytest.raises(RetracError, match="does not go with --exact-top"):
        attribute_until(run, "train:1", Until(), config)
    assert rounds == []


@pytest.mark.parametrize("share", [0, 1, -0.5, 95, float("nan")])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(RetracError, match="--until must be between 0 and 1"):
        Until(share)


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_times_that_are_none_are_refused(minutes: float) -> None:
    with pytest.raises(RetracError, match="--until-minutes"):
        Until(0.95, minutes)


def test_what_will_never_be_known_is_refused(own_run, rounds) -> None:
    run = Run.open(own_run)
    build_index(run, IndexConfig(checkpoints=(6,), sketch_size=64))
    config = AttributeConfig(PUBLISHED, plan=PLAN, index=True)
    with pytest.raises(RetracError, match="a single checkpoint shows no error"):
        attribute_until(run, "train:1", Until(), config)
    assert rounds == []


def test_rounds_with_the_same_events_are_no_independent_groups(own_run: Path, rounds) -> None:
    """Six epochs are all that there are: every round looks back at the same events."""
    run, names = Run.open(own_run), ("kernel-retrac", "ekfac")
    config = AttributeConfig(
        names,
        (6,),
        parameters="conv_out|conv_norm_out",
        plan=PLAN,
        features=FeatureConfig(layer_numbers=8, outputs=False),
    )
    assert FEWEST > 6  # so that the kernel's visits are asked for
    config = replace(config, features=replace(config.features, draws="visits"))
    alone = attribution_of(run, open_queries(run, "train:2"), config)
    found = attribute_until(run, "train:2", Until(0.999, 2), config)
    assert rounds == [0, 1]
    for name in names:
        assert found.groups(name) == alone.groups(name)
        np.testing.assert_allclose(found.parts(name).sum(0), found.scores_of(name), rtol=1e-3)
    config = replace(config, methods=("kernel-retrac",), features=FeatureConfig("small", False, 8))
    rounds.clear()
    drawn = attribute_until(run, "train:2", Until(0.999, 2), config)
    assert drawn.groups("kernel-retrac") == 2 * 2  # parts of two rounds
