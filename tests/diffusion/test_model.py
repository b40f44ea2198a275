"""Networks, built or loaded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from retrac.diffusion.model import build_unet, load_unet
from retrac.errors import RetracError
from tiny import TINY

SHAPE = (1, 8, 8)


def test_equal_seeds_give_equal_weights_and_leave_torch_s_own_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first, again, other = (build_unet(TINY.model, SHAPE, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.conv_in.weight, again.conv_in.weight)
    assert not torch.equal(first.conv_in.weight, other.conv_in.weight)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": (8,)},
        {"channels": (8, 8, 16), "layers_per_block": 2},
        {"attention_levels": (1,), "attention_head_dim": 8},
        {"attention_levels": (0,), "attention_head_dim": 4},
        {"time_scale_shift": "scale_shift", "resampling": "resnet"},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [SHAPE, (3, 8, 16)], ids=str)
def test_every_kind_of_network_maps_images_to_images(
    changes: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    model = build_unet(replace(TINY.model, **changes), shape, seed=0)
    images = torch.zeros(2, *shape)
    assert model(images, torch.tensor([0, 5])).sample.shape == images.shape
    heads = [name for name, _ in model.named_parameters() if "attentions" in name]
    assert bool(heads) == bool(changes.get("attention_levels"))


@pytest.mark.parametrize(
    ("changes", "shape", "told"),
    [
        ({"channels": (8, 8, 8, 8, 8)}, SHAPE, "8x8 cannot be halved 4 times"),
        ({}, (1, 7, 8), "7x8 cannot be halved 1 times"),
        ({"norm_groups": 3}, SHAPE, "--norm-groups 3 does not divide .* --channels 8 16"),
        ({"attention_levels": (2,)}, SHAPE, "no attention at level 2: levels are 0 to 1"),
        ({"attention_levels": (-1,)}, SHAPE, "no attention at level -1"),
        ({"attention_levels": (0,)}, SHAPE, "--attention-head-dim 16 must divide the width"),
    ],
)
def test_networks_that_cannot_be_are_refused(
    changes: dict[str, Any], shape: tuple[int, int, int], told: str
) -> None:
    with pytest.raises(RetracError, match=told):
        build_unet(replace(TINY.model, **changes), shape, seed=0)


def save(folder: Path) -> Path:
    build_unet(TINY.model, SHAPE, seed=4).save_pretrained(folder, safe_serialization=True)
    return folder


def small_unet(**options: Any) -> UNet2DModel:
    """One that `build_unet` has no settings for."""
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        **options,
    )


def test_a_model_folder_or_a_pipeline_s_unet_folder_is_loaded(tmp_path: Path) -> None:
    save(tmp_path / "model"), save(tmp_path / "pipeline/unet")
    (tmp_path / "pipeline/model_index.json").write_text("{}")
    expected = build_unet(TINY.model, SHAPE, seed=4).state_dict()
    for folder in (tmp_path / "model", tmp_path / "pipeline"):
        loaded = load_unet(folder, SHAPE).state_dict()
        assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_dropout_is_switched_off(tmp_path: Path) -> None:
    small_unet(dropout=0.5).save_pretrained(tmp_path)
    model = load_unet(tmp_path, SHAPE).train()
    images, timestep = torch.randn(1, *SHAPE), torch.tensor([1])
    assert torch.equal(model(images, timestep).sample, model(images, timestep).sample)


def test_folders_without_a_whole_fitting_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RetracError, match="nowhere holds no diffusers model"):
        load_unet(tmp_path / "nowhere", SHAPE)
    folder = save(tmp_path / "model")
    with pytest.raises(RetracError, match="for 1 channels, but the images have 3"):
        load_unet(folder, (3, 8, 8))
    with pytest.raises(RetracError, match="9x9 cannot be halved 1 times"):
        load_unet(folder, (1, 9, 9))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"junk")
    with pytest.raises(RetracError, match=f"the model in {folder} cannot be loaded"):
        load_unet(folder, SHAPE)


def test_a_class_conditional_model_is_refused(tmp_path: Path) -> None:
    small_unet(num_class_embeds=10).save_pretrained(tmp_path)
    with pytest.raises(RetracError, match="needs class labels"):
        load_unet(tmp_path, SHAPE)


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    folder = save(tmp_path)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(
        build_unet(TINY.model, SHAPE, 0).state_dict(), folder / "diffusion_pytorch_model.bin"
    )
    with pytest.raises(RetracError, match="cannot be loaded"):
        load_unet(folder, SHAPE)


def test_errors_are_one_line(tmp_path: Path) -> None:
    folder = save(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "block_out_channels": [4, 16]}))
    with pytest.raises(RetracError) as told:
        load_unet(folder, SHAPE)
    assert "\n" not in str(told.value)
