"""The examples run, and what they claim is so."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch

import retrac
from processes import LAUNCH
from retrac.training.visits import REPLAYED

LAUNCHED = Path(__file__).with_name("launched_example.py")
EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_loop_of_one_s_own_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    events = retrac.Ledger.events

    def noted(self: retrac.Ledger, epoch: int, indices: torch.Tensor, shape: tuple[int, ...]):
        found = events(self, epoch, indices, shape)
        if isinstance(indices, torch.Tensor):  # by the example
            asked.append((epoch, indices.tolist(), *found))
        return found

    monkeypatch.setattr(retrac.Ledger, "events", noted)
    run_example(monkeypatch, "own_loop.py", tmp_path, "--samples", "40")
    run = retrac.Run.open(tmp_path / "run")
    assert [checkpoint.epoch for checkpoint in run.checkpoints] == [2, 4, 6]
    assert sorted(index for epoch, indices, *_ in asked if epoch == 3 for index in indices) == [
        *range(40)
    ]
    for epoch, indices, timesteps, noise, _ in asked:
        shown = run.shown(epoch, np.array(indices))
        assert torch.equal(shown.timesteps, timesteps) and torch.equal(shown.noise, noise)
    assert run.facts["events"] == REPLAYED
    page = (tmp_path / "report.html").read_text()
    assert "Nobody recorded" not in page and "training visited it" in page


def test_a_lora_s_own_loop_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss that training had at an event is the loss that is replayed."""
    seen: dict[int, torch.Tensor] = {}
    luck = retrac.Ledger.posterior

    def noted(self: retrac.Ledger, epoch: int, indices: torch.Tensor, shape: tuple[int, ...]):
        found = luck(self, epoch, indices, shape)
        if isinstance(indices, torch.Tensor) and epoch == 4:
            seen.update(zip(indices.tolist(), found, strict=True))
        return found

    monkeypatch.setattr(retrac.Ledger, "posterior", noted)
    batches: list[tuple[int, list[int], float]] = []
    asked: list[tuple[int, list[int]]] = []
    distance, events = torch.nn.functional.mse_loss, retrac.Ledger.events

    def noted_events(
        self: retrac.Ledger, epoch: int, indices: torch.Tensor, shape: tuple[int, ...]
    ):
        if isinstance(indices, torch.Tensor):
            asked.append((epoch, indices.tolist()))
        return events(self, epoch, indices, shape)

    def noted_loss(one: torch.Tensor, other: torch.Tensor):
        found = distance(one, other)
        batches.append((*asked[-1], found.item()))
        return found

    monkeypatch.setattr(retrac.Ledger, "events", noted_events)
    monkeypatch.setattr(torch.nn.functional, "mse_loss", noted_loss)
    run_example(monkeypatch, "text_to_image_lora.py", tmp_path, "--samples", "20")
    run = retrac.Run.open(tmp_path / "run")
    assert [checkpoint.epoch for checkpoint in run.checkpoints] == [3, 6]
    assert run.facts["events"] == REPLAYED and run.trained == "lora_"
    assert sorted(seen) == list(range(20))
    shown = run.shown(4, np.arange(20))
    from diffusers import AutoencoderKL

    encoder = AutoencoderKL.from_pretrained(tmp_path / "base" / "vae")
    with torch.no_grad():
        posterior = encoder.encode(run.dataset.tensors(range(20))).latent_dist
    drawn = torch.stack([seen[index] for index in range(20)])
    latents = (posterior.mean + posterior.std * drawn) * encoder.config.scaling_factor
    torch.testing.assert_close(shown.seen.clean, latents)
    page = (tmp_path / "report.html").read_text()
    assert "Nobody recorded" not in page and "three" in page
    # The first batch after a checkpoint met its weights.
    epoch, indices, loss = next(batch for batch in batches if batch[0] == 3)
    network = run.checkpoints[0].load(run.shape)
    with torch.no_grad():
        replayed = run.objective.losses(network, *run.shown(epoch, np.array(indices)))
    assert float(replayed.mean()) == pytest.approx(loss, rel=1e-4)


@pytest.mark.slow
def test_two_processes_ask_for_each_event_once(tmp_path: Path) -> None:
    launched = subprocess.run(
        [*LAUNCH, str(LAUNCHED), tmp_path, "--samples", "64"],
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    asked = [np.load(tmp_path / f"asked-{rank}.npz") for rank in range(2)]
    run = retrac.Run.open(tmp_path / "run")
    for epoch in range(6):
        indices, timesteps = (
            np.concatenate([each[name][each["epoch"] == epoch] for each in asked])
            for name in ("index", "timestep")
        )
        assert sorted(indices) == list(range(64))
        assert (run.shown(epoch, indices).timesteps.numpy() == timesteps).all()
    assert all(len(each["index"]) == 6 * 32 for each in asked)


def test_processes_that_would_share_samples_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(SystemExit, match="must be a multiple of 64"):
        run_example(monkeypatch, "own_loop.py", tmp_path, "--samples", "40")


@pytest.mark.parametrize("family", tiny_models.PIPELINES)
def test_every_family_has_an_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    run_example(monkeypatch, "any_model.py", tmp_path, family, "--samples", "24")
    assert "Nobody recorded" in (tmp_path / "report.html").read_text()


def test_a_module_of_one_s_own_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch after a checkpoint met its weights: what it lost there is replayed."""
    asked: list[torch.Tensor] = []
    lost: list[float] = []
    events, backward = retrac.Ledger.events, torch.Tensor.backward

    def noted(self: retrac.Ledger, epoch: int, indices: Any, shape: tuple[int, ...]) -> Any:
        if isinstance(indices, torch.Tensor) and epoch == 4:
            asked.append(indices)
        return events(self, epoch, indices, shape)

    def noted_loss(self: torch.Tensor) -> None:
        if len(asked) == 1 and not lost:
            lost.append(self.item())
        backward(self)

    monkeypatch.setattr(retrac.Ledger, "events", noted)
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "backward", noted_loss)
        patched.setattr(retrac, "attribute", lambda *_, **__: None)
        patched.setattr(retrac, "write_report", lambda *_: None)
        parts = run_example(monkeypatch, "own_module.py", tmp_path, "--samples", "48")
    run = retrac.adopt_module(
        tmp_path / "again",
        load=parts["load"],
        losses=parts["losses"],
        weights=[tmp_path / "4.pt", tmp_path / "8.pt"],
        epochs=(4, 8),
        data=retrac.DatasetConfig(str(tmp_path / "digits.npz")),
        timesteps=parts["STEPS"],
    )
    assert sorted(torch.cat(asked).tolist()) == list(range(48))
    with torch.no_grad():
        network = run.checkpoints[0].load(run.shape)
        replayed = run.objective.losses(network, *run.shown(4, asked[0].numpy()))
    assert float(replayed.mean()) == pytest.approx(lost[0], rel=1e-5)


def test_the_own_module_s_example_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_example(monkeypatch, "own_module.py", tmp_path, "--samples", "48")
    page = (tmp_path / "report.html").read_text()
    assert "Nobody recorded" not in page and "training visited it" in page


@pytest.mark.slow
def test_the_published_code_s_files_are_asked_in_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example(monkeypatch, "published_code.py", tmp_path, "--samples", "37")
    assert len(list((tmp_path / "files").glob("ckpt_*_2.pth"))) == 4
    assert "of 10 proponents under ReTrac" in capsys.readouterr().out
    assert "Events were drawn anew" in (tmp_path / "fresh.html").read_text()
    assert "Events were drawn anew" not in (tmp_path / "recorded.html").read_text()
    run = retrac.Run.open(tmp_path / "recorded")
    assert run.facts["samples without an event"] == 37 - 32


def run_example(
    monkeypatch: pytest.MonkeyPatch, name: str, output: Path, *options: str
) -> dict[str, Any]:
    """Run it as its command does; its names are given back."""
    monkeypatch.setattr(sys, "argv", [name, str(output), *options])
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")
