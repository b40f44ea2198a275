"""Unrolled: scores by the derivative through a window, and whether they can be believed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrac.attribution import unrolled_work
from retrac.attribution.attribute import attribute
from retrac.attribution.attribution import Attribution
from retrac.attribution.calibration import Calibration, random_sets
from retrac.attribution.config import AttributeConfig, ComputeConfig, PlanConfig, parse_bytes
from retrac.attribution.engine import Engine
from retrac.attribution.losses import mean_losses
from retrac.attribution.plan import Plan
from retrac.attribution.queries import open_queries
from retrac.errors import RetracError
from retrac.training.config import ReplayConfig
from retrac.training.loop import train
from retrac.training.replaying import replay
from retrac.training.run import Run
from retrac.training.trained import TrainedRun
from tiny import tiny

PLAN = PlanConfig(plan_timesteps=3, plan_noises=2)


def unrolled(run: Run, queries: str = "train:3", **settings: object) -> Attribution:
    chosen = {"from_epoch": 4, "plan": PLAN, "calibration_sets": 0, **settings}
    return attribute(run, queries, ["unrolled"], **chosen)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scores(tiny_run: TrainedRun) -> np.ndarray:
    return unrolled(tiny_run).scores_of("unrolled").values


def test_it_foretells_what_a_replay_without_a_sample_loses(
    tiny_run: TrainedRun, scores: np.ndarray, tmp_path: Path
) -> None:
    """A 32nd of its weight less, through the replay of the command line."""
    queries = open_queries(tiny_run, "train:3")
    plan = Plan.of(PLAN, tiny_run.timesteps).at(6)

    def losses(run: Run) -> np.ndarray:
        network = run.checkpoints[-1].load_averaged(run.shape)
        return mean_losses(network, run.objective, plan, queries.asked(run, plan))

    for sample in (0, 5):
        counted = np.ones(24)
        counted[sample] -= 2**-5
        less = replay(tiny_run, counted, ReplayConfig(4), tmp_path / f"less-{sample}")
        rise = (losses(less) - losses(tiny_run)) / 2**-5
        assert np.allclose(rise, scores[:, sample], rtol=0.1, atol=0.02 * np.abs(scores).max())


def test_blocks_of_queries_and_scarce_memory_do_not_change_it(
    tiny_run: TrainedRun, scores: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce = unrolled_work.Share(queries=2, states=5, rows=3)
    monkeypatch.setattr(unrolled_work.UnrolledWork, "share", lambda self, window, begun=0: scarce)
    found = unrolled(tiny_run).scores_of("unrolled").values
    assert np.allclose(found, scores, rtol=1e-3, atol=1e-4 * np.abs(scores).max())


def test_in_float64_it_is_the_same_but_for_rounding(
    tiny_run: TrainedRun, scores: np.ndarray
) -> None:
    found = unrolled(tiny_run, compute=ComputeConfig(precision="float64"))
    assert np.allclose(
        found.scores_of("unrolled"), scores, rtol=1e-2, atol=1e-3 * np.abs(scores).max()
    )


@pytest.mark.parametrize("piece", [0, 1, 2, 3])
def test_stopped_after_any_piece_it_goes_on_to_the_same_scores(
    piece: int, own_run: Path, scores: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce = unrolled_work.Share(queries=2, states=5, rows=100)
    monkeypatch.setattr(unrolled_work.UnrolledWork, "share", lambda self, window, begun=0: scarce)
    run, put, count = Run.open(own_run), unrolled_work.Parts.put, iter(range(100))

    def stopping(parts: object, name: str, arrays: object) -> None:
        put(parts, name, arrays)  # type: ignore[arg-type]
        if next(count) == piece:
            raise KeyboardInterrupt

    monkeypatch.setattr(unrolled_work.Parts, "put", stopping)
    with pytest.raises(KeyboardInterrupt):
        unrolled(run, output=own_run / "result")
    monkeypatch.setattr(unrolled_work.Parts, "put", put)
    monkeypatch.undo()
    found = unrolled(run, output=own_run / "result").scores_of("unrolled").values
    assert np.allclose(found, scores, rtol=1e-3, atol=1e-4 * np.abs(scores).max())


def test_calibration_holds_what_was_foretold_against_replays(own_run: Path) -> None:
    run = Run.open(own_run)
    result = unrolled(run, calibration_sets=20, output=own_run / "result")
    calibration = result.calibration("unrolled")
    assert calibration is not None
    found, sets = result.scores_of("unrolled").values, random_sets(24, 20)
    foretold = np.stack([found[:, each].sum(1) for each in sets], 1)
    assert np.allclose(calibration.foretold, foretold, rtol=1e-4)
    assert calibration.correlation.value > 0.8 and calibration.believed
    assert 0.7 < calibration.slope.value < 1.3
    assert calibration.first_replayed.shape == (3,)
    assert np.all(calibration.first_foretold > 0)
    again = Attribution.open(own_run / "result").calibration("unrolled")
    assert again is not None and np.array_equal(again.replayed, calibration.replayed)
    files = sorted((own_run / "replays" / "epoch-0004-0006").glob("*.safetensors"))
    times = [file.stat().st_mtime_ns for file in files]
    assert 21 < len(files) <= 24
    unrolled(run, calibration_sets=20, plan=PlanConfig(plan_seed=1, plan_timesteps=3))
    assert times == [file.stat().st_mtime_ns for file in files]  # replayed once for all queries


def test_a_replay_of_the_bank_is_that_of_retrac_replay(own_run: Path, tmp_path: Path) -> None:
    from retrac.unrolled import Layout, ReplayBank

    run = TrainedRun.open(own_run)
    removed = np.array([3, 7, 20])
    bank = ReplayBank(run, 2, 4)
    bank.replay([removed])
    counted = np.ones(24)
    counted[removed] = 0
    there = replay(run, counted, ReplayConfig(2, 4), tmp_path / "replayed")
    network = there.checkpoints[-1].load_averaged(run.shape)
    parameters = list(network.parameters())
    expected = Layout.of(parameters).vector(parameters)
    assert np.array_equal(bank.weights(removed), expected.detach())


@pytest.mark.parametrize(
    ("correlated", "believed"), [(1.0, True), (0.0, False)], ids=["smooth", "not smooth"]
)
def test_what_foretells_nothing_is_not_believed(correlated: float, believed: bool) -> None:
    stream = np.random.default_rng(0)
    foretold = stream.normal(size=(4, 20))
    replayed = 1.5 * correlated * foretold + 0.1 * stream.normal(size=(4, 20))
    calibration = Calibration(foretold, replayed, foretold[:, 0], replayed[:, 0])
    assert calibration.believed == believed
    assert calibration.slope.value == pytest.approx(1.5 * correlated, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"from_epoch": None}, "say by --from-epoch"),
        ({"from_epoch": 3}, "--from-epoch can be 0, 2, 4"),
        ({"from_epoch": 6}, "--from-epoch can be 0, 2, 4"),
        ({"from_epoch": 2, "checkpoints": [2]}, "--from-epoch can be 0$"),
        ({"parameters": "conv"}, "--parameters does not go with unrolled"),
        ({"by_layer": True}, "--by-layer does not go with unrolled"),
        ({"replay_back": 1}, "--replay-back does not go with unrolled"),
        ({"compute": ComputeConfig(precision="bfloat16")}, "too coarse"),
        ({"compute": ComputeConfig(memory_budget="1MB")}, "memory budget is too small"),
        ({"calibration_sets": 5}, "at least 20, or 0"),
    ],
)
def test_what_cannot_be_is_refused(
    settings: dict[str, object], message: str, tiny_run: TrainedRun
) -> None:
    with pytest.raises(RetracError, match=message):
        unrolled(tiny_run, **settings)


def test_settings_of_a_window_without_the_method_are_refused() -> None:
    with pytest.raises(RetracError, match="--from-epoch is for"):
        AttributeConfig(methods=("tracin",), from_epoch=2)
    with pytest.raises(RetracError, match="--calibration-sets is for"):
        AttributeConfig(methods=("tracin",), calibration_sets=30)


def test_a_replay_is_no_training_to_look_back_through(tiny_run: TrainedRun, tmp_path: Path) -> None:
    replayed = replay(tiny_run, np.ones(24), ReplayConfig(4), tmp_path / "replayed")
    with pytest.raises(RetracError, match="runs of `retrac train` alone"):
        unrolled(replayed)


def test_it_stands_beside_other_methods(tiny_run: TrainedRun, scores: np.ndarray) -> None:
    both = attribute(
        tiny_run,
        "train:3",
        ["tracin", "unrolled"],
        plan=PLAN,
        from_epoch=4,
        calibration_sets=0,
    )
    found = both.scores_of("unrolled").values
    assert np.allclose(found, scores, rtol=1e-3, atol=1e-4 * np.abs(scores).max())
    alone = attribute(tiny_run, "train:3", ["tracin"], plan=PLAN)
    assert np.allclose(both.scores_of("tracin"), alone.scores_of("tracin"), rtol=1e-5)
    assert both.calibration("unrolled") is None and both.window("tracin") is None
    assert both.window("unrolled") == (4, 6)


@pytest.mark.parametrize("budget", ["300MB", "1GB"])
def test_memory_is_shared_out_within_the_budget(budget: str, tiny_run: TrainedRun) -> None:
    queries = open_queries(tiny_run, "train:3")
    config = AttributeConfig(
        methods=("unrolled",), from_epoch=2, compute=ComputeConfig(memory_budget=budget)
    )
    plan = Engine.of(tiny_run, config).unrolled
    assert plan is not None
    work = plan.work(queries)
    share = work.share(work.window())
    state = work.window().state().nbytes
    assert 1 <= share.queries <= 3 and 1 <= share.rows <= 10
    assert share.states >= 5
    assert share.states * state < parse_bytes(budget)


@pytest.mark.parametrize("part", ["adjoint", "effects"])
def test_what_is_not_finite_is_refused_and_not_kept(
    part: str, own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = unrolled_work.back

    def spoilt(*arguments: Any) -> Iterator[Any]:
        for reached in back(*arguments):
            (reached.adjoint.weights if part == "adjoint" else reached.effects)[1, 0] = np.nan
            yield reached

    scarce = unrolled_work.Share(queries=3, states=5, rows=100)
    monkeypatch.setattr(unrolled_work.UnrolledWork, "share", lambda self, window, begun=0: scarce)
    monkeypatch.setattr(unrolled_work, "back", spoilt)
    with pytest.raises(RetracError, match=r"derivative of digits/.* is not finite"):
        unrolled(Run.open(own_run), output=own_run / "result")
    assert not list((own_run / "result.parts").glob("*.npz"))


def test_a_bank_of_another_training_or_a_damaged_one_is_refused(own_run: Path) -> None:
    run = Run.open(own_run)
    unrolled(run, calibration_sets=20)
    bank = own_run / "replays" / "epoch-0004-0006"
    damaged = next(bank.glob("*.safetensors"))
    kept = damaged.read_bytes()
    damaged.write_bytes(kept[:100])
    with pytest.raises(RetracError, match=r"is damaged .* delete it and run again"):
        unrolled(run, calibration_sets=20)
    damaged.write_bytes(kept)
    design = bank / "design.json"
    design.write_text(design.read_text().replace(run.identity, "another"))
    with pytest.raises(RetracError, match="of another training"):
        unrolled(run, calibration_sets=20)


def test_weights_that_a_window_does_not_lead_to_are_refused(own_run: Path) -> None:
    run = Run.open(own_run)
    first, _, last = (checkpoint.path for checkpoint in run.checkpoints)
    name = "diffusion_pytorch_model.safetensors"
    (last / name).write_bytes((first / name).read_bytes())
    with pytest.raises(RetracError, match="do not lead to the weights"):
        unrolled(run)


def test_fp16_is_refused_by_name(tmp_path: Path) -> None:
    run = train(
        tiny(epochs=2, checkpoint_every=1, sample_count=0, mixed_precision="fp16"), tmp_path / "r"
    )
    with pytest.raises(RetracError, match="fp16"):
        unrolled(run, from_epoch=1)


def test_bf16_trainings_are_differentiated_at_their_own_states(tmp_path: Path) -> None:
    run = train(
        tiny(epochs=2, checkpoint_every=1, sample_count=0, mixed_precision="bf16"), tmp_path / "r"
    )
    found = unrolled(run, from_epoch=1).scores_of("unrolled").values
    assert np.isfinite(found).all() and np.abs(found).max() > 0
