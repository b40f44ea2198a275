"""Losses and their gradients in every family of networks, against autograd, sample by sample."""

import pytest
import torch
from diffusers import FluxPipeline

from families import EVERY, SAMPLES, family
from retrac.diffusion.calls import call_of, packed, places, unpacked
from retrac.diffusion.loss import DISTANCES, Objective
from retrac.diffusion.process import Process, cosine_map, min_snr
from retrac.diffusion.shown import Seen
from retrac.errors import RetracError
from retrac.gradients import dots_and_norms, oracle

STEPS = 50
MOMENTS = torch.tensor([3, 20, 49])
FLOWING = ("Stable Diffusion 3", "Flux")


def objective(name: str) -> Objective:
    """Its own process, with weights that differ by timestep."""
    if name.startswith(FLOWING):
        sigmas = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS
        process = Process.flow(sigmas, 1000 * sigmas)
        process = process.weighted(cosine_map(process))
    else:
        process = Process.diffusion(torch.linspace(0.99, 0.01, STEPS).double(), "v")
        process = process.weighted(min_snr(process))
    return Objective(process, DISTANCES["mse"], family(name).call)


@pytest.fixture(autouse=True)
def _double() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_the_oracle_s(name: str) -> None:
    network, seen = family(name)
    loss, noise = objective(name), torch.randn_like(seen.clean)
    directions = {
        name: torch.randn(2, *parameter.shape)
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
    assert directions and (name.endswith("LoRA") == all("lora" in each for each in directions))

    def losses() -> torch.Tensor:
        return loss.losses(network, seen, MOMENTS, noise)

    dots, squared = dots_and_norms(network, losses, directions)
    expected, norms = oracle.dots_and_norms(network, losses, directions)
    torch.testing.assert_close(dots, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    torch.testing.assert_close(squared, norms, rtol=1e-9, atol=0)
    assert (norms > 0).all()


@pytest.mark.parametrize("name", EVERY)
def test_a_sample_s_loss_is_its_own(name: str) -> None:
    network, seen = family(name)
    loss, noise = objective(name), torch.randn_like(seen.clean)
    with torch.no_grad():
        every = loss.losses(network, seen, MOMENTS, noise)
        for row in range(SAMPLES):
            one = slice(row, row + 1)
            alone = loss.losses(network, seen.rows(one), MOMENTS[one], noise[one])
            torch.testing.assert_close(alone, every[one])
        if seen.conditions:  # and depends on its condition
            first = {name: each.roll(1, 0) for name, each in seen.conditions.items()}
            other = loss.losses(network, Seen(seen.clean, first), MOMENTS, noise)
            assert not torch.allclose(other, every)


def test_patches_and_places_are_those_of_the_flux_pipeline() -> None:
    latents = torch.randn(2, 4, 6, 8)
    assert torch.equal(packed(latents), FluxPipeline._pack_latents(latents, 2, 4, 6, 8))
    assert torch.equal(unpacked(packed(latents), latents.shape), latents)
    theirs = FluxPipeline._prepare_latent_image_ids(1, 3, 4, latents.device, latents.dtype)
    assert torch.equal(places(latents), theirs)
    with pytest.raises(RetracError, match="5x8"):
        packed(torch.randn(1, 4, 5, 8))


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(RetracError, match="AutoencoderKL"):
        call_of("AutoencoderKL")
