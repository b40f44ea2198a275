"""A model that was trained elsewhere, asked like any run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from families import latent_pipeline, pipeline
from plain_loop import assert_close, expected_scores
from retrac.attribution.attribute import attribute
from retrac.attribution.config import PlanConfig
from retrac.attribution.queries import open_queries
from retrac.data.config import DatasetConfig
from retrac.data.images import to_pil
from retrac.diffusion.model import load_network
from retrac.errors import RetracError
from retrac.training.adopted import AdoptedRun, adopt
from retrac.training.conditioning import numbered
from retrac.training.config import AdoptConfig
from retrac.training.run import Run
from retrac.training.trained import TrainedRun
from tiny import PUBLISHED

DIGITS = DatasetConfig(dataset="digits", resolution=8, limit=24)
PLAN = PlanConfig(3, 2)
LABELS = 10


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> AdoptedRun:
    """Two checkpoints, five events of each sample at each. Not to be changed."""
    folder = tmp_path_factory.mktemp("adopted")
    last = pipeline(folder / "model")
    pipeline(folder / "first", seed=1)
    weights = (folder / "first" / "unet", last)
    config = AdoptConfig(last, DIGITS, weights, weighting="min-snr", flip=True, events=5)
    return adopt(config, folder / "run")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> AdoptedRun:
    folder = tmp_path_factory.mktemp("conditional")
    model = pipeline(folder / "model", classes=LABELS, prediction_type="v_prediction")
    return adopt(AdoptConfig(model, DIGITS, loss="l1", events=2), folder / "run")


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> AdoptedRun:
    """A DiT, of which training has dropped classes, mirrored images and drawn latents."""
    folder = tmp_path_factory.mktemp("latent")
    config = AdoptConfig(
        latent_pipeline(folder / "model"),
        replace(DIGITS, resolution=16),
        flip=True,
        drop=0.5,
        events=2,
    )
    return adopt(config, folder / "run")


@pytest.mark.parametrize("which", ["plain", "conditional", "latent"])
@pytest.mark.parametrize("method", ["tracin", "retrac"])
def test_scores_are_those_of_the_plain_loop(
    which: str, method: str, request: pytest.FixtureRequest
) -> None:
    run: AdoptedRun = request.getfixturevalue(which)
    queries = open_queries(run, "train:2")
    found = attribute(run, queries, (method,), replay="all", plan=PLAN).contributions
    assert_close(found.values[0], expected_scores(run, queries, PLAN, method))


def test_events_are_the_ledger_s_and_other_ones_at_every_checkpoint(plain: AdoptedRun) -> None:
    every = np.arange(24)
    events = plain.ledger.events(7, every, plain.shape)
    shown = plain.shown(7, every)
    assert torch.equal(shown.noise, events.noise) and 0 < events.flips.sum() < 24
    mirrored = torch.tensor(np.flatnonzero(events.flips))
    images = plain.dataset.tensors(every)
    assert torch.equal(shown.seen.clean[mirrored], images[mirrored].flip(-1))
    assert [checkpoint.epoch for checkpoint in plain.checkpoints] == [5, 10]
    assert plain.visit_weights(range(5)).sum(0).tolist() == pytest.approx([1.0] * 24)


def test_classes_are_told_in_alphabetical_order(conditional: AdoptedRun) -> None:
    shown = conditional.shown(0, np.array([3, 12]))
    assert conditional.dataset.labels is not None
    told = [int(conditional.dataset.labels[index]) for index in (3, 12)]
    assert shown.seen.conditions["class_labels"].tolist() == told
    made = open_queries(conditional, "generated:12")
    assert made.labels == tuple(str(number % LABELS) for number in range(12))
    other = replace(made, labels=tuple(reversed(made.labels)))
    one, two = (conditional.conditions(queries.labels) for queries in (made, other))
    assert not torch.equal(one["class_labels"], two["class_labels"])


def test_latents_are_drawn_anew_at_every_event(latent: AdoptedRun) -> None:
    encoder = load_network(latent.config.pipeline / "vae", "AutoencoderKL")
    samples = np.array([3, 17, 5, 9])
    for epoch in (0, 1):
        events = latent.ledger.events(epoch, samples, (4, 8, 8))
        images = latent.dataset.tensors(samples)
        images = torch.where(events.flips.view(-1, 1, 1, 1), images.flip(-1), images)
        with torch.no_grad():
            found = encoder.encode(images).latent_dist
        luck = latent.ledger.posterior(epoch, samples, (4, 8, 8))
        expected = 0.5 * (found.mean + found.std * luck - 0.1)
        shown = latent.shown(epoch, samples)
        torch.testing.assert_close(shown.seen.clean, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(shown.noise, events.noise) and shown.noise.shape == (4, 4, 8, 8)
    assert not torch.equal(luck, latent.ledger.posterior(0, samples, (4, 8, 8)))
    queries = open_queries(latent, "train:1")
    with torch.no_grad():
        mean = encoder.encode(latent.dataset.tensors([0])).latent_dist.mean
    seen = latent.seen(queries.images, queries.labels)
    torch.testing.assert_close(seen.clean, 0.5 * (mean - 0.1))


def test_dropped_classes_are_those_of_the_ledger_and_queries_keep_theirs(
    latent: AdoptedRun,
) -> None:
    every = np.arange(24)
    dropped = latent.ledger.dropped(1, every, 0.5)
    told = latent.shown(1, every).seen.conditions["class_labels"]
    assert 4 < dropped.sum() < 20 and ((told == LABELS) == dropped).all()
    labels = open_queries(latent, "train:8").labels
    assert (latent.conditions(labels)["class_labels"] < LABELS).all()


def test_generated_latents_become_images(latent: AdoptedRun) -> None:
    made = open_queries(latent, "generated:2")
    assert made.images.shape == (2, 1, 16, 16) and made.labels == ("0", "1")
    assert (made.images[0] != made.images[1]).any()


def test_an_encoder_that_changes_is_noticed(latent: AdoptedRun, tmp_path: Path) -> None:
    model = latent_pipeline(tmp_path / "model")
    run = adopt(replace(latent.config, pipeline=model), tmp_path / "run")
    load_network(model / "vae", "AutoencoderKL").save_pretrained(model / "vae")
    assert run.checkpoints
    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    changed = load_file(file)
    first = next(iter(changed))
    save_file({**changed, first: changed[first] + 1}, file)
    with pytest.raises(RetracError, match="the encoder of"):
        _ = run.checkpoints


def test_a_schedule_that_changes_is_noticed_and_damage_is_named(tmp_path: Path) -> None:
    model = pipeline(tmp_path / "model")
    run = adopt(AdoptConfig(model, DIGITS), tmp_path / "run")
    schedule = model / "scheduler" / "scheduler_config.json"
    schedule.write_text(schedule.read_text().replace("linear", "scaled_linear"))
    with pytest.raises(RetracError, match="the scheduler of"):
        _ = run.checkpoints
    record = json.loads((run.path / "run.json").read_text())
    for damaged in ({**record, "weights": []}, {k: v for k, v in record.items() if k != "parts"}):
        (run.path / "run.json").write_text(json.dumps(damaged))
        with pytest.raises(RetracError, match="cannot be read"):
            Run.open(run.path)


def test_an_encoder_that_does_not_tell_its_scale_has_the_usual_one(tmp_path: Path) -> None:
    """As those of Stable Diffusion 1, which are older than that setting."""
    model = latent_pipeline(tmp_path / "model")
    config = model / "vae" / "config.json"
    told = json.loads(config.read_text())
    assert told.pop("scaling_factor") != 0.18215 and told.pop("shift_factor")
    config.write_text(json.dumps(told))
    run = adopt(AdoptConfig(model, replace(DIGITS, resolution=16)), tmp_path / "run")
    encoder = load_network(model / "vae", "AutoencoderKL")
    images = run.dataset.tensors([0, 1])
    with torch.no_grad():
        expected = encoder.encode(images).latent_dist.mean * 0.18215
    torch.testing.assert_close(run.source.of(images), expected)


def test_classes_can_be_named_in_the_order_of_the_network(tmp_path: Path) -> None:
    model = pipeline(tmp_path / "model", classes=12)
    names = tuple(str(number) for number in (*range(9, -1, -1), 10, 11))
    run = adopt(AdoptConfig(model, DIGITS, classes=names), tmp_path / "run")
    assert run.dataset.labels is not None
    told = run.shown(0, np.arange(3)).seen.conditions["class_labels"].tolist()
    assert told == [9 - int(label) for label in run.dataset.labels[:3]]


def test_classes_are_those_that_the_pipeline_names(tmp_path: Path) -> None:
    model = latent_pipeline(tmp_path / "model")
    index = json.loads((model / "model_index.json").read_text())
    index["id2label"] = {str(9 - digit): f"digit {digit}, {digit}" for digit in range(10)}
    (model / "model_index.json").write_text(json.dumps(index))
    data = DatasetConfig("digits", limit=6, resolution=16)
    run = adopt(AdoptConfig(model, data), tmp_path / "run")
    told = run.shown(0, np.arange(6)).seen.conditions["class_labels"].tolist()
    assert told == [9 - int(label) for label in run.labels]
    classes = [9 - int(label) for label in run.generated_labels(range(len({*run.labels})))]
    assert classes == sorted({*told})  # of samples, not of all classes
    index["id2label"]["9"] = "0"
    (model / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(RetracError, match="the names of classes of"):
        _ = run.checkpoints


def test_classes_are_numbered_as_their_dataset_does(tmp_path: Path) -> None:
    """As `datasets` and torchvision number folders: by name, so that "10" is before "2"."""
    for label in range(12):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        image = np.full((1, 8, 8), label, np.uint8)
        to_pil(image).save(tmp_path / "images" / str(label) / "one.png")
    model = pipeline(tmp_path / "model", classes=12)
    run = adopt(AdoptConfig(model, DatasetConfig(str(tmp_path / "images"))), tmp_path / "run")
    told = run.shown(0, np.arange(12)).seen.conditions["class_labels"].tolist()
    assert told == [sorted(map(str, range(12))).index(label) for label in run.labels]
    assert str(run.facts["it is told"]).startswith("classes: 0 = 0, 1 = 1, 10 = 2, 11 = 3, 2 = 4")


def test_classes_that_samples_have_are_numbered_in_the_order_of_all() -> None:
    def numbers(labels: list[str], in_order: list[str] | None, count: int) -> Any:
        return numbered("m", labels, (), {}, in_order, count, None).numbers

    every = ["trouser", "top", "pullover"]
    assert numbers(["top", "trouser"], every, 3) == {"trouser": 0, "top": 1, "pullover": 2}
    assert numbers(["top", "pullover"], every, 2) == {"top": 0, "pullover": 1}
    assert numbers(["top", "pullover"], None, 2) == {"pullover": 0, "top": 1}
    with pytest.raises(RetracError, match="give the label of each by --classes"):
        numbers(["top", "unlabelled"], every, 2)
    with pytest.raises(RetracError, match="has 2 classes, but there are 1 labels"):
        numbers(["top"], ["top", "top"], 2)


def test_images_that_differ_in_size_become_what_the_model_was_made_for(tmp_path: Path) -> None:
    for side in (20, 24):
        to_pil(np.zeros((1, side, side), np.uint8)).save(tmp_path / f"{side}.png")
    model = pipeline(tmp_path / "model")
    run = adopt(AdoptConfig(str(model), DatasetConfig(str(tmp_path))), tmp_path / "run")
    assert run.shape == (1, 8, 8) and run.config.data.resolution == 8
    network = model / "unet" / "config.json"
    network.write_text(network.read_text().replace('"sample_size": 8', '"sample_size": null'))
    with pytest.raises(RetracError, match="differ in size"):
        adopt(AdoptConfig(model, DatasetConfig(str(tmp_path))), tmp_path / "other")


def test_losses_of_predicted_samples_can_count_by_signal_and_noise(tmp_path: Path) -> None:
    """As train_unconditional.py has it: α² / σ² of the scheduler, times the squared error."""
    model = pipeline(tmp_path / "model", prediction_type="sample")
    plain, weighted = (
        adopt(AdoptConfig(model, DIGITS, weighting=weighting), tmp_path / weighting)
        for weighting in ("none", "snr")
    )
    network, shown = plain.checkpoints[0].load(plain.shape), plain.shown(0, np.arange(24))
    kept = plain.pipeline.scheduler.alphas_cumprod[shown.timesteps]
    with torch.no_grad():
        losses, found = (run.objective.losses(network, *shown) for run in (plain, weighted))
    torch.testing.assert_close(found, losses * kept / (1 - kept), rtol=1e-4, atol=0)


def test_an_image_without_a_class_is_refused(conditional: AdoptedRun, tmp_path: Path) -> None:
    with pytest.raises(RetracError, match="has no label"):
        conditional.seen(np.zeros((1, 1, 8, 8), np.uint8), ("",))
    with pytest.raises(RetracError, match="'cat', which is of no class"):
        conditional.seen(np.zeros((1, 1, 8, 8), np.uint8), ("cat",))
    few = pipeline(tmp_path / "few", classes=3)
    with pytest.raises(RetracError, match="has 3 classes, but there are 10 labels"):
        adopt(AdoptConfig(few, DIGITS), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_is_opened_again_and_no_other_run_is_overwritten(
    plain: AdoptedRun, tiny_run: TrainedRun
) -> None:
    again = Run.open(plain.path)
    assert isinstance(again, AdoptedRun) and again.identity == plain.identity
    assert adopt(plain.config, plain.path).identity == plain.identity
    with pytest.raises(RetracError, match="holds another run"):
        adopt(replace(plain.config, seed=1), plain.path)
    with pytest.raises(RetracError, match="holds another run"):
        adopt(plain.config, tiny_run.path)
    with pytest.raises(RetracError, match="was adopted"):
        TrainedRun.open(plain.path)


def test_weights_that_change_are_noticed(tmp_path: Path) -> None:
    model = pipeline(tmp_path / "model")
    run = adopt(AdoptConfig(model, DIGITS), tmp_path / "run")
    before = run.identity
    pipeline(model, seed=1)
    with pytest.raises(RetracError, match="changed after"):
        _ = Run.open(run.path).checkpoints
    other = adopt(AdoptConfig(model, DIGITS), tmp_path / "other")
    assert other.identity != before


def test_any_scheduler_of_a_diffusion_will_do(tmp_path: Path) -> None:
    model = pipeline(tmp_path / "model", scheduler=DDIMScheduler(20, prediction_type="sample"))
    run = adopt(AdoptConfig(model, DIGITS), tmp_path / "run")
    assert run.timesteps == 20 and run.objective.process.prediction == "x0"


def test_what_cannot_be_adopted_is_refused(tmp_path: Path) -> None:
    def refused(folder: Path, **changes: Any) -> str:
        with pytest.raises(RetracError) as caught:
            adopt(AdoptConfig(folder, DIGITS, **changes), tmp_path / "run")
        return str(caught.value)

    model = pipeline(tmp_path / "model")
    assert "no model_index.json" in refused(tmp_path / "nowhere")
    assert "holds no weights" in refused(model, weights=(tmp_path,))
    assert "is for 3 channels" in refused(pipeline(tmp_path / "colour", channels=3))
    config = model / "unet" / "config.json"
    text = config.read_text()
    config.write_text(text.replace("UNet2DModel", "UNet2DConditionModel"))
    assert "DDPMPipeline with a UNet2DConditionModel, which is not known" in refused(model)
    config.write_text(text.replace("UNet2DModel", "Elsewhere"))
    assert "of no class of diffusers here: Elsewhere" in refused(model)
    config.write_text(text)
    assert "--classes: the model" in refused(model, classes=("0", "1"))
    assert "no class that stands for none" in refused(model, drop=0.1)
    assert "sees 4 channels of 8x8, but these images give 4 of 4x4" in refused(
        latent_pipeline(tmp_path / "latent")
    )
    schedule = model / "scheduler" / "scheduler_config.json"
    schedule.write_text(json.dumps({**json.loads(schedule.read_text()), "_class_name": "os"}))
    assert "names no scheduler of diffusers: os" in refused(model)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RetracError, match="--events must be at least 1"):
        AdoptConfig(model, DIGITS, events=0)
    with pytest.raises(RetracError, match="as many as weights, 1, not 2"):
        AdoptConfig(model, DIGITS, epochs=(1, 2))
    with pytest.raises(RetracError, match="names a label twice"):
        AdoptConfig(model, DIGITS, classes=("0", "0"))
    flow = pipeline(tmp_path / "flow", scheduler=FlowMatchEulerDiscreteScheduler(50))
    for weighting in ("snr", "min-snr"):
        assert "is of flow matching" in refused(flow, weighting=weighting)
    with pytest.raises(RetracError, match=r"2 pixels for one latent.* divide 17x17"):
        odd = AdoptConfig(latent_pipeline(tmp_path / "odd"), replace(DIGITS, resolution=17))
        adopt(odd, tmp_path / "run")
    with pytest.raises(RetracError, match="must rise from at least 1"):
        AdoptConfig(model, DIGITS, (model, model), epochs=(2, 2))


def test_events_that_a_ledger_drew_are_those_of_the_epochs_between_checkpoints(
    plain: AdoptedRun, tmp_path: Path
) -> None:
    run = adopt(replace(plain.config, epochs=(3, 7)), tmp_path / "run")
    found = attribute(run, "train:1", PUBLISHED, replay="all", plan=PLAN)
    timesteps = found.dataset["train_timestep"].values
    for place, epochs in enumerate((range(3), range(3, 7))):
        expected = [run.ledger.events(epoch, range(24), run.shape).timesteps for epoch in epochs]
        assert (np.stack(expected) == timesteps[place, :, : len(epochs)].T).all()
    assert found.dataset["train_weight"].values.tolist() == [[3.0] * 24, [4.0] * 24]
