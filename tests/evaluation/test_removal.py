"""Removing samples and training again: where nothing may change, and where something must."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrac.attribution.attribute import attribution_of
from retrac.attribution.attribution import Attribution
from retrac.attribution.config import AttributeConfig, PlanConfig
from retrac.attribution.queries import open_queries, regenerated
from retrac.errors import RetracError
from retrac.evaluation import removing as module
from retrac.evaluation.config import RemovalConfig
from retrac.evaluation.removal import DISTANCE, LOSS, RANDOM, SIMILARITY, Removal
from retrac.evaluation.removing import Model, Removing
from retrac.evaluation.thinned import Thinned, train_without
from retrac.training.ledger import Ledger
from retrac.training.run import Run
from tiny import PUBLISHED, TINY, weights

WAY = AttributeConfig(PUBLISHED, checkpoints=(6,), plan=PlanConfig(plan_timesteps=2, plan_noises=2))
FEW = RemovalConfig(k=3, queries_used=2, random_draws=2, loss_timesteps=4, loss_noises=2)
PIXELS = "pixels-query-01"


@pytest.fixture(scope="module")
def scores(tiny_run: Run) -> Attribution:
    return attribution_of(tiny_run, open_queries(tiny_run, "train:1+generated:1", 3), WAY)


@pytest.fixture(scope="module")
def done(tiny_run: Run, scores: Attribution, tmp_path_factory: pytest.TempPathFactory) -> Removing:
    """Everything trained and measured. Not to be changed."""
    removing = Removing.planned(tiny_run, scores, FEW, tmp_path_factory.mktemp("r") / "removal")
    removing.begin()
    for model in removing.missing():
        removing.train(model)
    return removing


@settings(max_examples=60, deadline=None)
@given(st.integers(5, 40), st.integers(1, 9), st.integers(0, 3), st.data())
def test_those_that_stay_keep_events_and_order(
    size: int, batch: int, epoch: int, data: st.DataObject
) -> None:
    whole, steps = Ledger(7, size, 50), math.ceil(size / batch)
    most = size - steps
    removed = data.draw(st.sets(st.integers(0, size - 1), max_size=most))
    thin = Thinned(7, size, 50, tuple(removed))
    batches = thin.batches(epoch, batch)
    order = np.concatenate(batches)
    kept = whole.order(epoch)
    assert order.tolist() == kept[~np.isin(kept, [*removed])].tolist()
    assert len(batches) == steps and all(map(len, batches))
    assert thin.digest() == whole.digest()
    before = whole.batches(epoch, batch)
    if all(len(set(b.tolist()) - removed) for b in before):  # no batch has lost all of its samples
        for one, other in zip(batches, before, strict=True):
            assert set(one.tolist()) == set(other.tolist()) - removed


def test_with_nothing_removed_the_weights_are_the_same_bits(tiny_run: Run, tmp_path: Path) -> None:
    again = train_without(TINY, tmp_path / "again", tiny_run.dataset, ())
    one, other = (weights(run.checkpoints[-1].path) for run in (again, tiny_run))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_with_nothing_removed_nothing_changes(
    tiny_run: Run, scores: Attribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Removing, "models", [Model("none", "none", (0, 1))])
    monkeypatch.setattr(Removing, "removed", lambda *_: ())
    removing = Removing.planned(tiny_run, scores, FEW, tmp_path / "removal")
    removing.begin()
    removing.train(removing.models[0])
    found = removing.metric().compute()["none"]
    assert found[LOSS].value == found[DISTANCE].value == 0
    assert found[SIMILARITY].value == pytest.approx(1)


def test_what_is_removed_is_what_a_way_puts_first(done: Removing, scores: Attribution) -> None:
    by_name = {model.name: model for model in done.models}
    # Random draws; TracIn, ReTrac and pixels of two queries; the training loss of both.
    assert len(by_name) == 2 + 2 * 3 + 1 and by_name["training-loss"].rows == (0, 1)
    own = done.run.dataset.ids.index(done.queries.ids[0])
    nearest = done.removed(by_name["pixels-query-00"])
    assert own not in nearest and len(nearest) == 3
    best = [entry.sample for entry in scores.proponents(1, "retrac", 4) if entry.sample != own]
    assert done.removed(by_name["retrac-query-01"]) == tuple(best[:3])  # no query, whatever the way
    first, second = by_name["random-00"], by_name["random-01"]
    assert done.removed(first) != done.removed(second) and first.rows == second.rows == (0, 1)
    assert own not in {*done.removed(first), *done.removed(second)}
    loudest = np.argsort(-done.losses)[:4]
    assert {*done.removed(by_name["training-loss"])} < {*loudest}


def test_every_model_is_measured_and_let_go(done: Removing) -> None:
    assert done.missing() == [] and not list((done.path / "models").iterdir())
    found = done.metric().compute()
    assert set(found) == {RANDOM, "tracin", "retrac", "pixels", "training loss"}
    for row in found.values():
        assert row[DISTANCE].value > 0 and row[SIMILARITY].value < 1 and row[LOSS].value != 0
    by_query = done.metric().by_query()[RANDOM]
    assert {name: len(values) for name, values in by_query[LOSS].items()} == dict.fromkeys(
        done.queries.ids, 2
    )
    # A training sample has no noise to be generated from.
    assert list(by_query[DISTANCE]) == ["generated/seed-3/0000"]
    assert list(done.pictures()) == ["generated/seed-3/0000"]


def test_interrupted_work_ends_with_the_same_numbers(
    done: Removing, scores: Attribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Removing.planned(done.run, scores, FEW, tmp_path / "removal")
    again.begin()
    names = [model.name for model in again.models]
    model = again.models[names.index(PIXELS)]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "last_losses", killed)
        again.train(model)
    assert model in again.missing()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "remove", killed)
        again.train(model)
    assert model not in again.missing() and [*(again.path / "models").iterdir()]
    taken_up = Removing.planned(done.run, scores, FEW, tmp_path / "removal")
    taken_up.begin()
    assert not [*(again.path / "models").iterdir()]
    one, other = done.read(model), taken_up.read(model)
    assert (one.losses == other.losses).all()
    assert all((one.made[name] == other.made[name]).all() for name in one.made)


def test_a_query_is_generated_again_from_its_own_noise(tiny_run: Run) -> None:
    asked = open_queries(tiny_run, "generated:3", 5)
    found = regenerated(tiny_run, ["digits/0000", asked.ids[2], "generated/other", asked.ids[0]])
    assert list(found) == [asked.ids[2], asked.ids[0]]
    assert (found[asked.ids[2]] == asked.images[2]).all()


def test_differences_to_chance_are_paired_by_query() -> None:
    metric = Removal()
    for query, level in (("a", 0.0), ("b", 5.0), ("c", 11.0), ("d", 4.0)):
        for luck in (-1.0, 1.0):
            metric.update(RANDOM, query, {LOSS: level + luck})
        metric.update("good", query, {LOSS: level + 2})
        metric.update("chance", query, {LOSS: level})
    found, beyond = metric.compute(), metric.beyond_random()
    assert found["good"][LOSS].value == pytest.approx(20 / 4 + 2)
    assert found["good"][LOSS].high - found["good"][LOSS].low > 2
    gain = beyond["good"][LOSS]
    assert gain.value == gain.low == gain.high == 2
    assert beyond["chance"][LOSS].value == 0 and RANDOM not in beyond


def test_what_cannot_be_removed_is_refused(
    tiny_run: Run, scores: Attribution, tmp_path: Path
) -> None:
    def refused(config: RemovalConfig, told: Attribution = scores, path: str = "new") -> str:
        with pytest.raises(RetracError) as caught:
            Removing.planned(tiny_run, told, config, tmp_path / path)
        return str(caught.value)

    assert "--k must be at most 21 here, not 22" in refused(RemovalConfig(k=22))
    foreign = Attribution(scores.dataset, {**scores.config, "trained": "another"})
    assert "repeat `retrac attribute`" in refused(FEW, foreign)
    earlier = {**scores.config, "run": {**scores.config["run"], "epochs trained": 4}}
    assert "as it is now" in refused(FEW, Attribution(scores.dataset, earlier))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    assert "holds something else" in refused(FEW, path="full")
    Removing.planned(tiny_run, scores, FEW, tmp_path / "begun").begin()
    other = RemovalConfig(k=4, queries_used=2, random_draws=2, loss_timesteps=4, loss_noises=2)
    assert "holds a result of other settings (removed was" in refused(other, path="begun")
    with pytest.raises(RetracError, match="--random-draws must be at least 1"):
        RemovalConfig(random_draws=0)


def test_damage_is_named(done: Removing, scores: Attribution, tmp_path: Path) -> None:
    removing = Removing.planned(done.run, scores, FEW, tmp_path / "removal")
    removing.begin()
    (tmp_path / "removal/found/nothing.npz").write_bytes(b"PK")
    with pytest.raises(RetracError, match=r"nothing\.npz is damaged"):
        removing.metric()
