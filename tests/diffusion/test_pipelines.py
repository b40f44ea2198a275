"""Folders that other versions of diffusers wrote."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from families import latent_pipeline, pipeline
from retrac.diffusion.configs import read_config, unusual
from retrac.diffusion.pipelines import Pipeline
from retrac.errors import RetracError


def change(file: Path, drop: tuple[str, ...] = (), **values: Any) -> None:
    content = json.loads(file.read_text())
    kept = {name: value for name, value in content.items() if name not in drop}
    file.write_text(json.dumps({**kept, **values}))


def test_what_a_configuration_does_not_say_is_what_its_class_assumes(tmp_path: Path) -> None:
    AutoencoderKL(scaling_factor=0.5).save_pretrained(tmp_path)
    assert read_config(tmp_path)["scaling_factor"] == 0.5
    change(tmp_path / "config.json", drop=("scaling_factor", "shift_factor"))
    found = read_config(tmp_path)
    assert found["scaling_factor"] == 0.18215 and found["shift_factor"] is None
    assert found["_class_name"] == "AutoencoderKL" and "_diffusers_version" not in found
    assert "scaling_factor" not in unusual(found)
    assert unusual({**found, "scaling_factor": 0.5, "in_channels": 3})["scaling_factor"] == 0.5
    change(tmp_path / "config.json", _class_name="Elsewhere")
    with pytest.raises(RetracError, match="of no class of diffusers here: Elsewhere"):
        read_config(tmp_path)


def test_weights_that_another_version_saved_are_of_the_same_network(tmp_path: Path) -> None:
    """What `checkpoint-500` says in full, an old base leaves to its class."""
    tiny_models.save("Stable Diffusion", tmp_path / "base")
    shutil.copytree(tmp_path / "base" / "unet", tmp_path / "checkpoint-500" / "unet")
    defaults = read_config(tmp_path / "base" / "unet")
    with torch.device("meta"):  # without its weights, which are many
        usual = UNet2DConditionModel().config
    same = tuple(name for name in usual if defaults.get(name) == usual[name])
    assert len(same) > 20
    base = tmp_path / "base" / "unet" / "config.json"
    change(base, drop=same, _diffusers_version="0.2.4", long_forgotten=1)
    opened = Pipeline.open(tmp_path / "base")
    opened.refuse_other(tmp_path / "checkpoint-500")
    change(base, cross_attention_dim=16)
    with pytest.raises(RetracError, match="of another network"):
        Pipeline.open(tmp_path / "base").refuse_other(tmp_path / "checkpoint-500")


def test_old_pipelines_have_their_files_beside_the_index(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "model")
    expected = Pipeline.open(folder).load(folder).state_dict()
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    opened = Pipeline.open(folder)
    assert opened.family == "UNet2DModel" and opened.scheduler.config.num_train_timesteps == 50
    found = opened.load(folder).state_dict()
    assert all((found[name] == value).all() for name, value in expected.items())


@pytest.mark.parametrize(
    ("family", "resolution"), [("Stable Diffusion", 16), ("Flux", 256), ("U-Net", 8), ("DiT", 16)]
)
def test_the_resolution_that_a_model_was_made_for(
    tmp_path: Path, family: str, resolution: int
) -> None:
    tiny_models.save(family, tmp_path)
    assert Pipeline.open(tmp_path).resolution == resolution


def test_transformers_of_old_dit_pipelines_go_by_their_new_name(tmp_path: Path) -> None:
    folder = latent_pipeline(tmp_path)
    before = Pipeline.open(folder)
    config = folder / "transformer" / "config.json"
    change(config, _class_name="Transformer2DModel", norm_type="ada_norm_zero")
    opened = Pipeline.open(folder)
    assert opened.family == "DiTTransformer2DModel" and opened.config == before.config
    assert opened.load(folder).state_dict().keys() == before.load(folder).state_dict().keys()


def test_names_that_two_classes_have_tell_none(tmp_path: Path) -> None:
    folder = latent_pipeline(tmp_path)
    change(folder / "model_index.json", id2label={"3": "crane, heron", "7": "crane, hoist"})
    assert Pipeline.open(folder).class_numbers == {"heron": 3, "hoist": 7}


def test_a_scheduler_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    folder = pipeline(tmp_path)
    change(folder / "scheduler" / "scheduler_config.json", beta_schedule="unheard-of")
    with pytest.raises(RetracError, match=r"scheduler in .* cannot be made"):
        _ = Pipeline.open(folder).scheduler
