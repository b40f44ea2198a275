"""Groups of layers: the modules at a network's top, and the entries of its lists one by one."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

WHOLE = "network"
"""The group of parameters that belong to the network itself."""


@dataclass(frozen=True)
class LayerGroups:
    """Which group each parameter belongs to.

    Attributes:
        names: of L groups, in the order of the network.
        place: of each parameter's name among them.
    """

    names: tuple[str, ...]
    place: Mapping[str, int]

    @staticmethod
    def of(parameters: Iterable[str]) -> "LayerGroups":
        """By the names of parameters, in the order of the network.

        `down_blocks.0.resnets.1.conv1.weight` is in `down_blocks.0`, `conv_in.weight` in `conv_in`.
        What all names begin with, such as the wrapper of a LoRA, does not count.
        """
        modules = {name: layer_of(name).split(".") if "." in name else [] for name in parameters}
        common = _common(list(modules.values()))
        groups = {name: _group(parts[common:]) for name, parts in modules.items()}
        names = tuple(dict.fromkeys(groups.values()))
        return LayerGroups(names, {name: names.index(group) for name, group in groups.items()})

    def of_some(self, parameters: Container[str]) -> "LayerGroups":
        """The groups of some of the parameters, under the same names."""
        chosen = {name: self.names[at] for name, at in self.place.items() if name in parameters}
        names = tuple(dict.fromkeys(chosen.values()))
        return LayerGroups(names, {name: names.index(group) for name, group in chosen.items()})


def layer_of(parameter: str) -> str:
    """The name of the layer that a parameter belongs to."""
    return parameter.rpartition(".")[0]


def _common(modules: list[list[str]]) -> int:
    """How many first parts are the same in all, and hold more than a list or a single layer."""
    count = 0
    while all(len(parts) > count + 1 for parts in modules) and (
        len({parts[count] for parts in modules}) == 1
        and not any(parts[count + 1].isdecimal() for parts in modules)
    ):
        count += 1
    return count


def _group(parts: list[str]) -> str:
    return ".".join(parts[: 2 if parts[1:] and parts[1].isdecimal() else 1]) or WHOLE
