"""Prompts, guidance and samplers, against the pipelines of diffusers."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from retrac.diffusion.calls import call_of, packed, unpacked
from retrac.diffusion.pipelines import Pipeline
from retrac.diffusion.sampling import Making, sample
from retrac.diffusion.texts import Prompts, embed
from text_pipelines import TOKENS, TOLD_TEXTS, opened, text_pipeline

SHAPE = (4, 8, 8)
SIDE = 16
STEPS = 5
"""Divides the timesteps, so that the last step ends without noise."""
GUIDANCE = 2.5
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=TOLD_TEXTS)
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("pipeline")
    return Pipeline.open(text_pipeline(folder, request.param))


@pytest.mark.parametrize("guidance", [1.0, GUIDANCE])
def test_images_are_those_of_the_pipeline(pipeline: Pipeline, guidance: float) -> None:
    """All of it at once: what prompts become, their absence, the network's call, the steps."""
    whole, prompts = opened(pipeline.path), ["a 3", "bc"]
    texts = pipeline.for_texts()

    def told(labels: Any, absent: bool = False) -> Any:
        return embed(texts, Prompts(labels, absent, (SIDE, SIDE), TOKENS, 3.5), CPU)

    making = Making(
        pipeline.scheduler,
        SHAPE,
        call_of(pipeline.family),
        told,
        lambda count: told([""] * count, True),
        lambda made: made[:, :1],
    )
    network = pipeline.load(pipeline.path)
    made = sample(network, making, [0, 1], 5, STEPS, 0.0, guidance, prompts, keep=True, shown=False)
    expected = theirs(whole, prompts, guidance)
    assert made.clean is not None
    torch.testing.assert_close(made.clean[:, -1], expected, rtol=1e-4, atol=1e-4)


def theirs(whole: Any, prompts: list[str], guidance: float) -> torch.Tensor:
    streams = (np.random.Philox(np.random.SeedSequence([5, index])) for index in (0, 1))
    drawn = [np.random.Generator(each).standard_normal(SHAPE, dtype=np.float32) for each in streams]
    noise = torch.from_numpy(np.stack(drawn))
    whole.set_progress_bar_config(disable=True)
    common = {
        "num_inference_steps": STEPS,
        "height": SIDE,
        "width": SIDE,
        "output_type": "latent",
    }
    name = type(whole).__name__
    if name == "FluxPipeline":
        guided = {"negative_prompt": ["", ""], "true_cfg_scale": guidance} if guidance > 1 else {}
        common["max_sequence_length"] = TOKENS
        found = whole(prompts, latents=packed(noise), guidance_scale=3.5, **guided, **common).images
        return unpacked(found, noise.shape)
    if name == "StableDiffusion3Pipeline":
        common["sigmas"] = np.linspace(1, 1 / STEPS, STEPS)
        common["max_sequence_length"] = TOKENS
    else:
        whole.scheduler = DDIMScheduler.from_config(
            whole.scheduler.config, timestep_spacing="trailing"
        )
    found = whole(prompts, latents=noise, guidance_scale=guidance, **common).images
    return torch.as_tensor(found)


def test_a_prompt_s_embedding_does_not_depend_on_its_neighbours(pipeline: Pipeline) -> None:
    texts = pipeline.for_texts()

    def told(*labels: str) -> dict[str, torch.Tensor]:
        return embed(texts, Prompts(labels, False, (SIDE, SIDE), TOKENS, 3.5), CPU)

    both, alone = told("a 3", "bc"), told("bc")
    for name, value in alone.items():
        torch.testing.assert_close(both[name][1:], value)
    assert any(not torch.equal(value[0], value[1]) for value in both.values())


def test_nothing_but_text_encoders_is_loaded(pipeline: Pipeline) -> None:
    texts = pipeline.for_texts()
    assert texts.vae is None
    network = getattr(texts, pipeline.part)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert not any(parameter.requires_grad for parameter in texts.text_encoder.parameters())
