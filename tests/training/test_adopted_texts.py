"""Models that are told texts, with all their weights or a LoRA, asked like any run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling
from safetensors.torch import load_file, save_file

from plain_loop import assert_close, expected_scores
from retrac.attribution.attribute import attribute
from retrac.attribution.config import PlanConfig, QueryConfig
from retrac.attribution.queries import open_queries
from retrac.data.config import DatasetConfig
from retrac.data.images import to_pil
from retrac.diffusion.density import drawn_as, flow_moments
from retrac.diffusion.lora import LORA
from retrac.errors import RetracError
from retrac.training.adopted import AdoptedRun, adopt
from retrac.training.config import AdoptConfig
from retrac.training.run import Run
from text_pipelines import STEPS, TOKENS, TOLD_TEXTS, lora, opened, text_pipeline
from tiny import PUBLISHED

DIGITS = DatasetConfig(dataset="digits", resolution=16, limit=6)
PLAN = PlanConfig(3, 2)


def adopted(folder: Path, name: str, with_lora: bool = False, **changes: Any) -> AdoptedRun:
    path = text_pipeline(folder / "model", name)
    part = "unet" if (path / "unet").is_dir() else "transformer"
    weights = (lora(folder / "lora", path, part),) if with_lora else ()
    options = {"events": 2, "caption": "a {label}", "text_tokens": TOKENS, **changes}
    return adopt(AdoptConfig(path, DIGITS, weights, **options), folder / "run")


@pytest.mark.parametrize("name", TOLD_TEXTS)
@pytest.mark.parametrize("with_lora", [False, True])
def test_scores_are_those_of_the_plain_loop(tmp_path: Path, name: str, with_lora: bool) -> None:
    flow = name.startswith(("Stable Diffusion 3", "Flux"))
    changes = {"density": "logit-normal", "weighting": "cosine-map"} if flow else {"drop": 0.5}
    run = adopted(tmp_path, name, with_lora, **changes)
    queries = open_queries(run, QueryConfig("generated:2", query_labels=("3", "b c")))
    found = attribute(run, queries, PUBLISHED, replay="all", plan=PLAN).contributions
    for place, method in enumerate(("tracin", "retrac")):
        assert_close(found.values[place], expected_scores(run, queries, PLAN, method))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> AdoptedRun:
    """Stable Diffusion with a LoRA. Not to be changed."""
    return adopted(tmp_path_factory.mktemp("adapted"), "Stable Diffusion", True, drop=0.5)


def test_captions_of_samples_and_prompts_of_queries(adapted: AdoptedRun) -> None:
    """A sample's label goes through the template; anything else is a prompt as it stands."""
    told = [adapted.conditions([label])["encoder_hidden_states"] for label in ("3", "a 3", "3 ")]
    assert torch.equal(told[0], told[1]) and not torch.equal(told[0], told[2])


def test_dropped_captions_are_those_of_the_ledger(adapted: AdoptedRun) -> None:
    every = np.arange(6)
    dropped = adapted.ledger.dropped(1, every, 0.5)
    assert 0 < dropped.sum() < 6
    shown = adapted.shown(1, every).seen.conditions["encoder_hidden_states"]
    assert adapted.conditioning.dropped is not None
    empty = adapted.conditioning.dropped(1)["encoder_hidden_states"]
    assert [torch.equal(row, empty[0]) for row in shown] == dropped.tolist()


@pytest.mark.parametrize("density", ["uniform", "logit-normal", "mode"])
def test_timesteps_of_flows_are_drawn_as_training_did(tmp_path: Path, density: str) -> None:
    run = adopted(tmp_path, "Stable Diffusion 3", density=density)
    events = [run.shown(epoch, np.arange(6)).timesteps for epoch in range(2)]
    uniform = [run.ledger.events(epoch, np.arange(6), (1,)).timesteps for epoch in range(2)]
    table = drawn_as(density, STEPS)
    for found, drawn in zip(events, uniform, strict=True):
        assert torch.equal(found, table[drawn])
    scheme = density.replace("-", "_")
    theirs = compute_density_for_timestep_sampling(
        scheme, 200_000, 0.0, 1.0, 1.29, generator=torch.Generator().manual_seed(0)
    )
    places = STEPS - 1 - (theirs * STEPS).long()  # their timesteps fall
    shares = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    quantiles = torch.quantile(places.double(), shares)
    assert (torch.quantile(drawn_as(density, STEPS).double(), shares) - quantiles).abs().max() <= 1


def test_parameters_that_count_are_those_that_were_trained(adapted: AdoptedRun) -> None:
    queries = open_queries(adapted, "train:1")
    by_name = {
        name: attribute(adapted, queries, ("tracin",), plan=PLAN, parameters=name)
        for name in ("trained", "lora", "all", "lora_A")
    }
    scores = {name: result.scores.values for name, result in by_name.items()}
    np.testing.assert_array_equal(scores["trained"], scores["lora"])
    assert not np.allclose(scores["lora"], scores["all"])
    assert not np.allclose(scores["lora"], scores["lora_A"])


def test_a_lora_changes_the_network_and_leaves_the_rest_alone(adapted: AdoptedRun) -> None:
    base = adapted.pipeline.load(adapted.config.pipeline)
    network = adapted.checkpoints[0].load(adapted.shape)
    own = dict(base.named_parameters())
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        if not parameter.requires_grad:
            assert torch.equal(parameter, own[name.replace(".base_layer", "")])
    losses = [
        adapted.objective.losses(model, *adapted.shown(0, np.arange(6)))
        for model in (base, network)
    ]
    assert not torch.allclose(*losses)


def test_it_is_opened_again(adapted: AdoptedRun) -> None:
    again = Run.open(adapted.path)
    assert isinstance(again, AdoptedRun) and again.identity == adapted.identity
    assert again.trained == "lora_" and again.told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weighting": "cosine-map"}, "--weighting cosine-map is of flow matching"),
        ({"density": "mode"}, "--density mode is of flow matching"),
        ({"classes": ("a",)}, "--classes: the model in .* is told none"),
        ({"text_tokens": 0}, "--text-tokens must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: Any, told: str) -> None:
    with pytest.raises(RetracError, match=told):
        adopted(tmp_path, "Stable Diffusion", **changes)
    assert not (tmp_path / "run").exists()


def test_min_snr_is_not_of_flows(tmp_path: Path) -> None:
    with pytest.raises(RetracError, match="min-snr is of diffusion"):
        adopted(tmp_path, "Flux", weighting="min-snr")


def test_samples_without_captions_need_one(tmp_path: Path) -> None:
    path = text_pipeline(tmp_path / "model", "Stable Diffusion")
    np.savez(tmp_path / "plain.npz", images=np.zeros((4, 1, 16, 16), np.uint8))
    data = DatasetConfig(str(tmp_path / "plain.npz"))
    with pytest.raises(RetracError, match="has none: give the same to all samples by --caption"):
        adopt(AdoptConfig(path, data), tmp_path / "run")
    run = adopt(AdoptConfig(path, data, caption="a photo"), tmp_path / "run")
    shown = run.shown(0, np.arange(2)).seen.conditions["encoder_hidden_states"]
    assert torch.equal(shown[0], shown[1])
    assert torch.equal(shown[:1], run.conditions(["a photo"])["encoder_hidden_states"])


def test_sizes_that_the_network_cannot_see_are_refused(tmp_path: Path) -> None:
    path = text_pipeline(tmp_path / "model", "Flux")
    data = DatasetConfig(dataset="digits", resolution=18, limit=6)
    with pytest.raises(RetracError, match=r"sides that 2 divides.*4 of 9x9: give another --res"):
        adopt(AdoptConfig(path, data), tmp_path / "run")


@pytest.mark.parametrize("damage", ["renamed", "text encoder", "cut", "other shape"])
def test_a_lora_that_does_not_fit_is_refused(tmp_path: Path, damage: str) -> None:
    run = adopted(tmp_path, "Stable Diffusion", True)
    file = tmp_path / "lora" / LORA
    tensors = load_file(file)
    first = next(iter(tensors))
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        value = tensors.pop(first)
        if damage == "renamed":
            tensors[first.replace("unet.", "unet.elsewhere.")] = value
        elif damage == "text encoder":
            tensors[first.replace("unet.", "text_encoder.")] = value
        else:
            tensors[first] = torch.zeros(value.shape[0] + 1, *value.shape[1:])
        save_file(tensors, file)
    with pytest.raises(RetracError, match="changed after"):
        _ = run.checkpoints
    pattern = "does not fit|text encoder, too|cannot be read"
    with pytest.raises(RetracError, match=pattern) as caught:
        run.pipeline.load(tmp_path / "lora")
    assert "\n" not in str(caught.value)


def test_other_text_encoders_are_noticed(tmp_path: Path) -> None:
    run = adopted(tmp_path, "Stable Diffusion")
    text_pipeline(tmp_path / "other", "Stable Diffusion", seed=1)
    for name in ("model.safetensors",):
        source = tmp_path / "other/text_encoder" / name
        (tmp_path / "model/text_encoder" / name).write_bytes(source.read_bytes())
    with pytest.raises(RetracError, match=r"text encoders and tokenizers of .* changed"):
        _ = Run.open(run.path).checkpoints


def test_dropped_captions_of_xl_are_empty_texts_and_nothing_is_zeros(tmp_path: Path) -> None:
    """As train_text_to_image_sdxl.py and the pipeline have them."""
    conditioning = adopted(tmp_path, "Stable Diffusion XL").conditioning
    assert conditioning.dropped is not None and conditioning.nothing is not None
    for name in ("encoder_hidden_states", "text_embeds"):
        assert conditioning.nothing(2)[name].abs().max() == 0
        assert conditioning.dropped(2)[name].abs().max() > 0.1


@pytest.mark.parametrize(("loss", "power"), [("mse", 2), ("l1", 1)])
def test_preconditioned_losses_are_those_of_the_script(
    tmp_path: Path, loss: str, power: int
) -> None:
    """`model_pred = model_pred * (-sigmas) + noisy_model_input`, compared with the sample."""
    run = adopted(tmp_path, "Stable Diffusion 3", preconditioned=True, loss=loss)
    model = run.checkpoints[0].load(run.shape)
    seen, timesteps, noise = run.shown(0, np.arange(6))
    with torch.no_grad():
        found = run.objective.losses(model, seen, timesteps, noise)
        sigmas = run.objective.process.spread[timesteps].view(-1, 1, 1, 1)
        noisy = (1 - sigmas) * seen.clean + sigmas * noise
        told = run.objective.process.told[timesteps]
        velocity = run.objective.call(model, noisy, told, seen.conditions)
        wrong = (velocity * -sigmas + noisy - seen.clean).abs().pow(power)
    torch.testing.assert_close(found, wrong.flatten(1).mean(1))


def test_a_picture_needs_a_prompt(adapted: AdoptedRun, tmp_path: Path) -> None:
    to_pil(adapted.dataset.images[0]).save(tmp_path / "one.png")
    asked = open_queries(adapted, str(tmp_path / "one.png"))
    with pytest.raises(RetracError, match="give a query's by --query-labels"):
        attribute(adapted, asked, PUBLISHED, plan=PLAN)
    named = open_queries(adapted, QueryConfig(str(tmp_path / "one.png"), query_labels=("x y",)))
    assert attribute(adapted, named, ("tracin",), plan=PLAN).scores.shape == (1, 1, 6)


@pytest.mark.parametrize("name", ["tokenizer_2", "text_encoder"])
@pytest.mark.parametrize("null", [False, True])
def test_a_pipeline_without_a_part_is_refused(tmp_path: Path, name: str, null: bool) -> None:
    path = text_pipeline(tmp_path / "model", "Stable Diffusion XL")
    if null:
        index = json.loads((path / "model_index.json").read_text())
        index[name] = [None, None]
        (path / "model_index.json").write_text(json.dumps(index))
    else:
        shutil.rmtree(path / name)
    with pytest.raises(RetracError, match=f"without its {name}"):
        adopt(AdoptConfig(path, DIGITS), tmp_path / "run")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = text_pipeline(tmp_path / "model", "Stable Diffusion XL")
    other = text_pipeline(tmp_path / "other", "Stable Diffusion")
    with pytest.raises(RetracError, match="of another network"):
        adopt(AdoptConfig(path, DIGITS, (other,)), tmp_path / "run")
    flux = text_pipeline(tmp_path / "flux", "Flux")
    foreign = lora(tmp_path / "lora", flux, "transformer")
    with pytest.raises(RetracError, match="no LoRA of a unet in diffusers' own format"):
        adopt(AdoptConfig(path, DIGITS, (foreign,)), tmp_path / "run")


@pytest.mark.parametrize("name", ["Stable Diffusion", "Stable Diffusion 3"])
def test_half_precision_files_in_pieces(tmp_path: Path, name: str) -> None:
    """Such as pipelines of which only the fp16 variant was downloaded."""
    path = text_pipeline(tmp_path / "model", name)
    whole = opened(path).to(torch.float16)
    half = tmp_path / "half"
    whole.save_pretrained(half, variant="fp16", max_shard_size="20KB")
    assert not list(half.rglob("diffusion_pytorch_model.safetensors"))
    options = {"caption": "a {label}", "text_tokens": TOKENS, "events": 1}
    runs = [
        adopt(AdoptConfig(model, DIGITS, **options), tmp_path / f"run-{model.name}")
        for model in (path, half)
    ]
    found = []
    for run in runs:
        model = run.checkpoints[0].load(run.shape)
        assert next(model.parameters()).dtype == torch.float32
        with torch.no_grad():
            found.append(run.objective.losses(model, *run.shown(0, np.arange(6))))
    torch.testing.assert_close(*found, rtol=0.02, atol=0)


@pytest.mark.parametrize("guidance", [float("nan"), float("inf")])
def test_guidance_is_a_number(adapted: AdoptedRun, guidance: float) -> None:
    with pytest.raises(RetracError, match="must be a number"):
        QueryConfig("generated:1", query_guidance=guidance)
    with pytest.raises(RetracError, match="--guidance must be from 0"):
        AdoptConfig(adapted.config.pipeline, guidance=guidance)


def test_a_flow_s_own_loop_sees_what_is_replayed(tmp_path: Path) -> None:
    run = adopted(tmp_path, "Stable Diffusion 3", density="mode")
    every = np.arange(6)
    timesteps = run.ledger.events(3, every, run.source.shape).timesteps
    sigmas, told = flow_moments(run.pipeline.scheduler, timesteps, "mode")
    shown, process = run.shown(3, every), run.objective.process
    sizes = sigmas.view(-1, 1, 1, 1)
    noisy = (1 - sizes) * shown.seen.clean + sizes * shown.noise
    torch.testing.assert_close(
        noisy, process.noised(shown.seen.clean, shown.noise, shown.timesteps)
    )
    assert torch.equal(told, process.told[shown.timesteps])
    with pytest.raises(RetracError, match="unknown density 'logit_normal': did you mean 'logit-"):
        flow_moments(run.pipeline.scheduler, timesteps, "logit_normal")
    with pytest.raises(RetracError, match="DDPMScheduler is of no flow"):
        flow_moments(DDPMScheduler(50), timesteps)
    scheduler = run.pipeline.scheduler
    theirs = dict(zip(scheduler.timesteps.tolist(), scheduler.sigmas, strict=True))
    assert [float(theirs[each]) for each in told.tolist()] == sigmas.tolist()
