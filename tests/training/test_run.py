"""A run folder, opened: what it tells, and what it refuses."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from retrac.data.open import open_dataset
from retrac.errors import RetracError
from retrac.training.ledger import Ledger
from retrac.training.run import Run, choose_checkpoints
from retrac.training.trained import TrainedRun, new_record, training_identity
from tiny import TINY


def test_a_run_knows_how_it_was_trained(tiny_run: Run) -> None:
    run = Run.open(str(tiny_run.path))
    assert run.config == TINY
    assert run.ledger == Ledger(seed=0, size=24, timesteps=50)
    assert run.dataset.fingerprint == open_dataset(TINY.data).fingerprint
    assert run.shape == (1, 8, 8)
    assert len(run.steps) == 18
    assert run.facts["samples"] == 24 and run.facts["epochs trained"] == 6
    parameters = run.checkpoints[0].load(run.shape).parameters()
    assert run.facts["parameters"] == sum(p.numel() for p in parameters)


def test_diffusers_own_loaders_read_a_checkpoint(tiny_run: Run) -> None:
    for checkpoint in tiny_run.checkpoints:
        model = UNet2DModel.from_pretrained(checkpoint.path).eval()
        scheduler = DDPMScheduler.from_pretrained(checkpoint.path)
        assert torch.equal(scheduler.alphas_cumprod, tiny_run.making.scheduler.alphas_cumprod)
        images, timesteps = torch.randn(2, 1, 8, 8), torch.tensor([3, 40])
        ours = checkpoint.load(tiny_run.shape)
        theirs = model(images.contiguous(memory_format=torch.channels_last), timesteps).sample
        assert torch.allclose(ours(images, timesteps).sample, theirs, atol=1e-6)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_loaded_network_leaves_its_file_alone(tiny_run: Run) -> None:
    """Weights that lie in a mapped file would be in memory twice once they are rearranged."""
    checkpoint = tiny_run.checkpoints[-1]
    for load in (checkpoint.load, checkpoint.load_averaged):
        network = load(tiny_run.shape)
        assert network is not None
        assert str(checkpoint.path) not in Path("/proc/self/maps").read_text()


def test_identities_tell_runs_apart(tiny_run: Run, own_run: Path) -> None:
    assert Run.open(own_run).identity == tiny_run.identity
    path = own_run / "run.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1', 1))
    record = json.loads(path.read_text())
    other = TrainedRun(own_run, record, TINY)
    assert other.identity != tiny_run.identity and other.origin != tiny_run.origin


def test_an_origin_is_known_before_the_first_step(tiny_run: Run) -> None:
    """However long the training will go on, and wherever the data lies."""
    data = replace(TINY.data, dataset_path=Path("elsewhere"))
    config = replace(TINY, epochs=99, data=data)
    record = new_record(config, tiny_run.dataset, tiny_run.ledger)
    assert training_identity(record) == tiny_run.origin != tiny_run.identity


def test_checkpoints_are_chosen_by_epoch(tiny_run: Run) -> None:
    def chosen(*epochs: int) -> list[int]:
        return [checkpoint.epoch for checkpoint in choose_checkpoints(tiny_run, epochs)]

    assert chosen() == [2, 4, 6]
    assert chosen(6, 2, 6) == [2, 6]
    with pytest.raises(RetracError, match="no checkpoint after epoch 5: there are 2, 4, 6"):
        chosen(2, 5)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, "the folder does not exist"),
        (lambda folder: folder.write_text("x"), "the folder does not exist"),
        (lambda folder: folder.mkdir(), r"it has no run\.json; train one"),
    ],
)
def test_what_is_no_run_is_refused(make: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    make(tmp_path / "nothing")
    with pytest.raises(RetracError, match=f"no run at .*nothing: {told}"):
        Run.open(tmp_path / "nothing")


def test_a_run_without_a_whole_checkpoint_says_so(own_run: Path) -> None:
    for state in own_run.glob("checkpoints/*/state.json"):
        state.unlink()
    with pytest.raises(RetracError, match=r"no whole checkpoint yet; let `retrac train` finish"):
        _ = Run.open(own_run).checkpoints
    shutil.rmtree(own_run / "checkpoints")
    with pytest.raises(RetracError, match="no whole checkpoint yet"):
        _ = Run.open(own_run).checkpoints


def all_places(record: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(record, dict):
        return []
    return [
        place
        for name, inner in record.items()
        for place in [(*path, name), *all_places(inner, (*path, name))]
    ]


def test_a_damaged_record_is_refused_or_harmless(own_run: Path) -> None:
    """Whatever part of `run.json` is lost: no other error than ours."""
    path = own_run / "run.json"
    whole = json.loads(path.read_text())
    refused = 0
    for place in all_places(whole):
        record = json.loads(json.dumps(whole))
        parent = record
        for name in place[:-1]:
            parent = parent[name]
        del parent[place[-1]]
        path.write_text(json.dumps(record))
        try:
            run = Run.open(own_run)
            _ = run.facts, run.identity, run.dataset, run.objective
        except RetracError as error:
            refused += 1
            assert str(own_run) in str(error) and "\n" not in str(error)
    assert refused >= 15


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"config": {}}', "\0\1", '{"a": 1'])
def test_a_record_that_is_no_record_is_named(content: str, own_run: Path) -> None:
    (own_run / "run.json").write_text(content)
    with pytest.raises(RetracError, match=r"run\.json .*damaged"):
        Run.open(own_run)


def test_a_dataset_that_has_changed_is_refused(own_run: Path) -> None:
    path = own_run / "run.json"
    record = json.loads(path.read_text())
    record["dataset"]["fingerprint"] = "f" * 64
    path.write_text(json.dumps(record))
    run = Run.open(own_run)
    with pytest.raises(RetracError, match=r"'digits' has changed since .*restore it, or make"):
        _ = run.dataset


def test_a_folder_of_images_that_has_changed_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    from retrac.training.loop import train

    for name in "abc":
        Image.new("L", (8, 8), ord(name)).save(tmp_path / f"{name}.png")
    config = replace(
        TINY, data=replace(TINY.data, dataset=f"{tmp_path}/", limit=None), epochs=1, sample_count=0
    )
    run = train(config, tmp_path.with_name("folder-run"))
    assert run.dataset.ids == ("a.png", "b.png", "c.png")
    Image.new("L", (8, 8), 7).save(tmp_path / "b.png")
    with pytest.raises(RetracError, match="has changed since"):
        _ = Run.open(run.path).dataset
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(RetracError, match=r"cannot read the image .*b\.png"):
        _ = Run.open(run.path).dataset


def test_another_generator_than_in_training_is_refused(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "digest", lambda self: "0" * 64)
    with pytest.raises(RetracError, match=f"made with NumPy {np.__version__}; install"):
        Run.open(tiny_run.path)


@pytest.mark.parametrize("content", ["{}", "[1]", '{"step": "x"}', "{"])
def test_a_damaged_state_is_named(content: str, own_run: Path) -> None:
    (own_run / "checkpoints/epoch-0004/state.json").write_text(content)
    with pytest.raises(RetracError, match=r"epoch-0004/state\.json .*damaged"):
        _ = Run.open(own_run).checkpoints


def test_a_damaged_checkpoint_is_named(own_run: Path) -> None:
    weights = own_run / "checkpoints/epoch-0004/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    run = Run.open(own_run)
    run.checkpoints[0].load(run.shape)
    with pytest.raises(RetracError, match=r"epoch-0004 cannot be loaded .*damaged"):
        run.checkpoints[1].load(run.shape)
