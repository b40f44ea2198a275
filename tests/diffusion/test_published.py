"""The network of the published code: its weights' names and shapes, and what it computes."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from retrac.diffusion.published import PublishedUNet, published_unet, sinusoids
from retrac.errors import RetracError

Shapes = dict[str, tuple[int, ...]]


def layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def block(name: str, inputs: int, outputs: int, told: int) -> Shapes:
    found = {
        **layer(f"{name}.time_emb_proj.1", outputs, told),
        **layer(f"{name}.conv1", outputs, inputs, 3, 3),
        **layer(f"{name}.conv2", outputs, outputs, 3, 3),
        **layer(f"{name}.norm1", outputs),
        **layer(f"{name}.norm2", outputs),
    }
    if inputs != outputs:
        found |= layer(f"{name}.residual_conv", outputs, inputs, 1, 1)
    return found


def attention(name: str, width: int) -> Shapes:
    return {
        f"{name}.fn.norm.g": (1, width, 1, 1),
        f"{name}.fn.fn.to_qkv.weight": (384, width, 1, 1),
        **layer(f"{name}.fn.fn.to_out", width, 128, 1, 1),
    }


PAPERS: Shapes = {
    **layer("time_embedding.0", 512, 128),
    **layer("time_embedding.2", 512, 512),
    **layer("init_conv", 128, 3, 3, 3),
    **block("down_blocks.0.0", 128, 128, 512),
    **block("down_blocks.0.1", 128, 128, 512),
    **layer("down_blocks.0.3.1", 256, 512, 1, 1),
    **block("down_blocks.1.0", 256, 256, 512),
    **block("down_blocks.1.1", 256, 256, 512),
    **layer("down_blocks.1.3.1", 512, 1024, 1, 1),
    **block("down_blocks.2.0", 512, 512, 512),
    **block("down_blocks.2.1", 512, 512, 512),
    **attention("down_blocks.2.2", 512),
    **layer("down_blocks.2.3", 1024, 512, 3, 3),
    **block("mid_block1", 1024, 1024, 512),
    **attention("mid_attn", 1024),
    **block("mid_block2", 1024, 1024, 512),
    **block("up_blocks.0.0", 1536, 1024, 512),
    **block("up_blocks.0.1", 1536, 1024, 512),
    **layer("up_blocks.0.3.1", 512, 1024, 3, 3),
    **block("up_blocks.1.0", 768, 512, 512),
    **block("up_blocks.1.1", 768, 512, 512),
    **layer("up_blocks.1.3.1", 256, 512, 3, 3),
    **block("up_blocks.2.0", 384, 256, 512),
    **block("up_blocks.2.1", 384, 256, 512),
    **attention("up_blocks.2.2", 256),
    **layer("up_blocks.2.3", 128, 256, 3, 3),
    **block("out_block", 256, 128, 512),
    **layer("conv_out", 3, 128, 1, 1),
}


def shapes(network: PublishedUNet) -> Shapes:
    return {name: tuple(each.shape) for name, each in network.state_dict().items()}


def test_weights_are_those_of_the_paper_s_network() -> None:
    with torch.device("meta"):
        network = PublishedUNet(3, (128, 256, 512, 1024))
        small = PublishedUNet(3, (16, 32, 64, 128))
    assert shapes(network) == PAPERS
    assert sum(math.prod(shape) for shape in PAPERS.values()) == 133_417_219
    assert sum(each.numel() for each in small.parameters()) == 2_192_419


@pytest.mark.parametrize("widths", [(8, 16), (8, 16, 24), (16, 8, 8, 24)])
def test_the_network_is_told_from_its_weights(widths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = PublishedUNet(1, widths)
    again = published_unet(network.state_dict())
    noisy, moments = torch.randn(2, 1, 8, 8), torch.tensor([7, 900])
    assert again.widths == widths and again.channels == 1
    assert torch.equal(again(noisy, moments), network(noisy, moments))
    assert torch.equal(again(noisy, torch.tensor(7))[0], network(noisy, torch.tensor([7, 7]))[0])


def test_it_computes_what_the_weights_names_say() -> None:
    """Once more, as one function of the weights, for two levels."""
    torch.manual_seed(0)
    network = PublishedUNet(3, (8, 16, 24)).double()
    weights = {
        name: each + 0.1 * torch.randn_like(each) for name, each in network.named_parameters()
    }
    network.load_state_dict(weights)
    noisy, moments = torch.randn(2, 3, 8, 8).double(), torch.tensor([0, 613])

    def conv(x: Tensor, name: str) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return F.conv2d(x, kernel, weights.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.silu(F.group_norm(x, 8, weights[f"{name}.weight"], weights[f"{name}.bias"]))

    def residual(x: Tensor, name: str) -> Tensor:
        # Twice through SiLU: once before the block, once within it.
        told = linear(F.silu(F.silu(t)), f"{name}.time_emb_proj.1")
        y = norm(conv(x, f"{name}.conv1"), f"{name}.norm1") + told[:, :, None, None]
        y = norm(conv(y, f"{name}.conv2"), f"{name}.norm2")
        return y + (
            conv(x, f"{name}.residual_conv") if f"{name}.residual_conv.bias" in weights else x
        )

    def attend(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        q, k, v = conv(scaled * weights[f"{name}.fn.norm.g"], f"{name}.fn.fn.to_qkv").chunk(3, 1)
        out = torch.zeros_like(q).flatten(2)
        for head in range(4):
            own = slice(32 * head, 32 * head + 32)
            a, b, c = (each.flatten(2)[:, own] for each in (q, k, v))  # [B, 32, pixels]
            out[:, own] = c @ (a.mT @ b / 32**0.5).softmax(-1).mT
        return x + conv(out.view_as(q), f"{name}.fn.fn.to_out")

    angles = moments[:, None] * 10000 ** (-torch.arange(4) / 3)
    waves = torch.cat((angles.sin(), angles.cos()), 1).double()
    t = linear(F.silu(linear(waves, "time_embedding.0")), "time_embedding.2")
    first = conv(noisy, "init_conv")
    one = residual(first, "down_blocks.0.0")
    two = residual(one, "down_blocks.0.1")
    patches = [two[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    x = conv(torch.stack(patches, 2).flatten(1, 2), "down_blocks.0.3.1")
    three = residual(x, "down_blocks.1.0")
    four = attend(residual(three, "down_blocks.1.1"), "down_blocks.1.2")
    x = conv(four, "down_blocks.1.3")
    x = residual(attend(residual(x, "mid_block1"), "mid_attn"), "mid_block2")
    x = residual(torch.cat((x, four), 1), "up_blocks.0.0")
    x = residual(torch.cat((x, three), 1), "up_blocks.0.1")
    x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = conv(x, "up_blocks.0.3.1")
    x = residual(torch.cat((x, two), 1), "up_blocks.1.0")
    x = attend(residual(torch.cat((x, one), 1), "up_blocks.1.1"), "up_blocks.1.2")
    x = conv(x, "up_blocks.1.3")
    expected = conv(residual(torch.cat((x, first), 1), "out_block"), "conv_out")
    torch.testing.assert_close(network(noisy, moments), expected, rtol=0, atol=1e-5)


def test_timesteps_are_told_by_sines_and_then_cosines() -> None:
    found = sinusoids(torch.tensor([3]), 8)[0]
    angles = [3 * 10000 ** (-place / 3) for place in range(4)]
    expected = [*map(math.sin, angles), *map(math.cos, angles)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_weights_of_another_network_are_refused_by_name() -> None:
    right = PublishedUNet(3, (8, 16, 24)).state_dict()

    def refused(weights: dict[str, Tensor]) -> str:
        with pytest.raises(RetracError, match="not of the published U-Net") as caught:
            published_unet(weights)
        return str(caught.value)

    assert "no init_conv.weight" in refused({})
    assert "no init_conv.weight" in refused({**right, "init_conv.weight": torch.zeros(8)})
    assert "extra.weight is (2,)" in refused({**right, "extra.weight": torch.zeros(2)})
    lacking = {name: each for name, each in right.items() if name != "mid_attn.fn.norm.g"}
    assert "mid_attn.fn.norm.g is absent" in refused(lacking)
    other = {**right, "conv_out.weight": torch.zeros(1, 8, 1, 1)}
    assert "conv_out.weight is (1, 8, 1, 1), where widths 8 16 24 have (3, 8, 1, 1)" in refused(
        other
    )
    odd = {**right, "init_conv.weight": torch.zeros(6, 3, 3, 3)}
    assert "multiples of 8" in refused(odd)


def test_images_that_it_cannot_see_are_refused() -> None:
    network = PublishedUNet(3, (8, 8, 8, 8))
    network.refuse_other((3, 12, 8))
    with pytest.raises(RetracError, match="10x8 cannot be halved 2 times"):
        network.refuse_other((3, 10, 8))
    with pytest.raises(RetracError, match="for 3 channels, but the images have 1"):
        network.refuse_other((1, 8, 8))
