"""Metrics of parameters change a query's directions as their matrices do."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import retrac
from retrac.attribution import curvature_estimate, curvatures
from retrac.attribution.asked import pixels
from retrac.attribution.attribution import Attribution
from retrac.attribution.config import AttributeConfig, ComputeConfig, PlanConfig
from retrac.attribution.curvature_estimate import estimate_curvature
from retrac.attribution.curvatures import CURVATURE, curvature, curvature_place, sampled_loss
from retrac.attribution.engine import Engine
from retrac.attribution.methods import Draws
from retrac.attribution.parts import Parts
from retrac.attribution.queries import open_queries
from retrac.attribution.scorer import Scorer
from retrac.diffusion.shown import Seen
from retrac.errors import RetracError
from retrac.estimate import folder_bytes
from retrac.gradients import Directions, oracle
from retrac.training.inputs import training_inputs
from retrac.training.run import Run

PLAN = PlanConfig(plan_timesteps=3, plan_noises=2)
FEW = "conv_out|conv_norm_out|time_embedding"
"""Parameters few enough for matrices, of layers of three kinds."""


@pytest.fixture
def run(own_run: Path) -> Run:
    return Run.open(own_run)


EXACT = ComputeConfig(precision="float64")


def unrounded(run: Run, name: str) -> np.ndarray:
    """Scores in float64, `[Q, N]`."""
    config = AttributeConfig((name,), (6,), parameters=FEW, plan=PLAN, compute=EXACT)
    scores = Engine.of(run, config).scores(open_queries(run, "train:2"), Parts(None, {}))
    return scores.score[0, 0]


def scored(run: Run, name: str) -> Attribution:
    return retrac.attribute(run, "train:2", (name,), checkpoints=[6], parameters=FEW, plan=PLAN)


def gradients(
    run: Run, scorer: Scorer
) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """The queries' directions, and the samples' gradients at each epoch that is replayed."""
    (replay,) = scorer.replays
    model = scorer.model(replay)
    plan = scorer.plan.at(replay.checkpoint.epoch)
    images = pixels(open_queries(run, "train:2").images)
    noise = torch.stack([plan.draw(image) for image in images]).flatten(0, 2)
    seen = Seen(images.repeat_interleave(6, 0))
    moments = plan.timesteps.repeat_interleave(2).repeat(2)
    asked = oracle.per_sample_gradients(
        model, lambda: run.objective.losses(model, seen, moments, noise)
    )
    events = [
        oracle.per_sample_gradients(model, lambda: run.objective.losses(model, *shown))  # noqa: B023
        for epoch in replay.epochs
        for shown in [
            training_inputs(run.dataset, run.ledger, epoch, np.arange(24), run.config.flip)
        ]
    ]
    means = {name: rows.unflatten(0, (2, 6)).mean(1) for name, rows in asked.items()}
    return means, events


def products(directions: dict[str, torch.Tensor], rows: dict[str, torch.Tensor]) -> np.ndarray:
    """`[Q, N]`."""
    return sum(directions[name].flatten(1) @ rows[name].flatten(1).T for name in directions).numpy()


def assert_close(found: np.ndarray, expected: np.ndarray, within: float = 1e-8) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=within * np.abs(expected).max())


def test_adam_divides_by_the_root_of_its_mean_square(run: Run) -> None:
    scorer = Scorer.of(
        run, AttributeConfig(("adam",), (6,), parameters=FEW, plan=PLAN, compute=EXACT)
    )
    directions, (events,) = gradients(run, scorer)
    state = load_file(run.checkpoints[-1].path / "optimizer.safetensors")
    model = run.checkpoints[-1].load(run.shape)
    for number, (name, _) in enumerate(model.named_parameters()):
        if name in directions:
            step = float(state[f"{number}/step"])
            assert step == 6 * 3  # batches
            moment = state[f"{number}/exp_avg_sq"].double() / (1 - 0.999**step)
            directions[name] = directions[name] / (moment.sqrt() + 1e-8)
    expected = products(directions, events) * scorer.replays[0].total
    assert_close(unrounded(run, "adam"), expected)


def test_adam_needs_the_state_of_adam(run: Run) -> None:
    path = run.checkpoints[-1].path / "optimizer.safetensors"
    state = load_file(path)
    save_file({name: each for name, each in state.items() if "exp_avg" not in name}, path)
    with pytest.raises(
        RetracError, match=r"no mean square .*: Adam's metric is for runs that were trained"
    ):
        scored(run, "adam")
    moment = next(name for name in state if "exp_avg_sq" in name)
    for damage in (float("nan"), -1.0):
        save_file({**state, moment: torch.full_like(state[moment], damage)}, path)
        with pytest.raises(
            RetracError, match=r"optimizer\.safetensors is damaged: the mean square"
        ):
            retrac.attribute(run, "train:1", ("adam",), checkpoints=[6], plan=PLAN)
    path.unlink()
    with pytest.raises(RetracError, match=r"has no optimizer\.safetensors, .* leave the"):
        scored(run, "adam")


def test_ekfac_divides_by_the_damped_matrix(run: Run) -> None:
    """Of each parameter, λ a tenth of its layer's mean eigenvalue."""
    found = scored(run, "ekfac")
    config = AttributeConfig(("ekfac",), (6,), parameters=FEW, plan=PLAN, compute=EXACT)
    scorer = Scorer.of(run, config, Draws.LAST)
    (replay,) = scorer.replays
    assert replay.epochs == tuple(range(6))
    fitted = curvature(scorer, scorer.model(replay), replay)  # the one that was saved
    directions, events = gradients(run, scorer)
    means = fitted.layer_means()
    turned = {}
    for name, rows in directions.items():
        numbers = rows[0].numel()
        every = Directions(
            {name: torch.eye(numbers, dtype=rows.dtype).view(numbers, *rows.shape[1:])}
        )
        matrix = fitted.apply(every, lambda _, eigenvalues: eigenvalues).parameters()[name]
        damped = matrix.flatten(1).double() + 0.1 * means[name] * torch.eye(numbers)
        solved = torch.linalg.solve(damped, rows.flatten(1).double().T).T
        turned[name] = solved.view_as(rows)
    expected = np.mean([products(turned, rows) for rows in events], 0)
    assert_close(unrounded(run, "ekfac"), expected)
    assert found.groups("ekfac") == 6


def test_the_disk_that_a_fit_is_told_to_need_is_what_it_takes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ahead of the end the first round's sums stand beside the second's and the result."""
    monkeypatch.setattr(curvature_estimate, "few", lambda passes: False)
    scorer = Scorer.of(run, AttributeConfig(("ekfac",), (6,), compute=EXACT), Draws.LAST)
    (replay,) = scorer.replays
    told = estimate_curvature(scorer)
    folder, most = curvature_place(scorer, replay).parent, 0

    def saved(tensors: dict[str, torch.Tensor], path: Path) -> None:
        nonlocal most
        save_file(tensors, path)
        most = max(most, folder_bytes(folder))

    monkeypatch.setattr(curvatures, "save_file", saved)
    curvature(scorer, scorer.model(replay), replay)
    assert told is not None and told.disk == pytest.approx(most, rel=0.1)


def test_curvature_is_the_fisher_information_of_the_output(run: Run) -> None:
    """The bias of the last convolution has the sum over pixels of ξ as gradient: its mean square
    is that of the mean square error's second derivative, 2/D for each of its pixels."""
    scorer = Scorer.of(run, AttributeConfig(("ekfac",), (6,), parameters="conv_out"), Draws.LAST)
    (replay,) = scorer.replays
    fitted = curvature(scorer, scorer.model(replay), replay)
    found = float(fitted.blocks["conv_out.bias"].eigenvalues)
    assert found == pytest.approx(2.0, rel=0.5)  # of 96 draws


def test_timesteps_count_in_the_curvature_as_in_the_loss(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is four times as large at a timestep has four times the curvature there."""
    scorer = Scorer.of(run, AttributeConfig(("ekfac",), (6,)), Draws.LAST)
    model = scorer.model(scorer.replays[0])
    shown = run.shown(0, np.arange(4))
    noise = torch.randn_like(shown.noise)
    plain = sampled_loss(scorer, model, shown, noise)
    weight = torch.ones(run.timesteps)
    weight[shown.timesteps[1]] = 4
    objective = dataclasses.replace(
        run.objective, process=dataclasses.replace(run.objective.process, weight=weight)
    )
    monkeypatch.setattr(type(run), "objective", objective)
    factors = weight[shown.timesteps].sqrt()
    torch.testing.assert_close(sampled_loss(scorer, model, shown, noise), factors * plain)


def test_curvature_depends_on_no_batches_and_is_fitted_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scored(run, "ekfac")
    (path,) = (run.path / CURVATURE).iterdir()
    whole = load_file(path)
    with monkeypatch.context() as patched:
        patched.setattr("retrac.gradients.curvature.Covariances.__call__", None)  # not fitted again
        assert_close(scored(run, "ekfac").scores.values, first.scores.values)
    shutil.rmtree(path.parent)
    monkeypatch.setattr("retrac.attribution.memory.MOST_ROWS", 5)
    again = scored(run, "ekfac")
    (path,) = (run.path / CURVATURE).iterdir()
    for name, values in load_file(path).items():
        if name.endswith("eigenvalues"):
            torch.testing.assert_close(values, whole[name], rtol=1e-3, atol=1e-6)
    assert_close(again.scores.values, first.scores.values, 1e-4)
