"""Configurations of diffusers' classes, whichever version wrote them."""

import json
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import diffusers

from retrac.errors import RetracError
from retrac.files import read_json


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A configuration with the defaults of its class for what it does not say.

    Older versions of diffusers did not write what their classes knew only later: an encoder of
    Stable Diffusion 1 does not tell its scaling factor.

    Args:
        folder: with the file.
        name: of it.

    Returns:
        What its class takes, and `_class_name`.

    Raises:
        RetracError: it cannot be read, or is of no class of diffusers.
    """
    told = read_json(folder / name)
    if told.get("_class_name") == "Transformer2DModel" and told.get("norm_type") == "ada_norm_zero":
        told["_class_name"] = "DiTTransformer2DModel"  # as it was called then
    kind = getattr(diffusers, str(told.get("_class_name")), None)
    if not isinstance(kind, type):
        raise RetracError(
            f"{folder / name} is of no class of diffusers here: {told.get('_class_name')}"
        )
    assumed = _assumed(kind)
    found = {name: told.get(name, value) for name, value in assumed.items()}
    return {**found, "_class_name": told["_class_name"]}


def unusual(config: dict[str, Any]) -> dict[str, Any]:
    """What a configuration of `read_config` has that its class does not assume.

    Classes that learn new settings, in a later version of diffusers, change nothing in it.
    """
    assumed = _assumed(getattr(diffusers, config["_class_name"]))
    return {
        name: value
        for name, value in config.items()
        if name not in assumed or value != assumed[name]
    }


def _assumed(kind: type) -> dict[str, Any]:
    defaults = {
        name: None if taken.default is Parameter.empty else taken.default
        for name, taken in signature(kind).parameters.items()
    }
    found: dict[str, Any] = json.loads(json.dumps(defaults, default=str))  # tuples become lists
    return found
