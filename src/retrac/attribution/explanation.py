"""What is known of one pass: where its time goes, as predicted and as measured."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from retrac.gradients.explain import Line, Owned
from retrac.gradients.routes import Machine, Work

TOGETHER = {"vector": "biases, scales", "left out": "the rest", "not used": "the rest"}
"""What is said of parameters that take no time to speak of, by route."""


@dataclass(frozen=True)
class Times:
    """Medians of what was timed side by side, in seconds.

    Attributes:
        training: a plain training step: forward, and backward of the mean loss.
        bare: forward and backward without the gradients of the weights.
        taped: the same, with every layer's gradients taken apart by sample, in factored form.
        whole: the same, with those gradients contracted: the pass.
    """

    training: float
    bare: float
    taped: float
    whole: float


@dataclass(frozen=True)
class Entry:
    """What a pass does with one parameter, or with several that it treats alike.

    Attributes:
        name: of the parameter, or of the block that they are in.
        layer: the type of the layer.
        route: `left out` by a sketch, or `not used` by the network.
        parameters: how many there are.
        numbers: in all of them.
        positions: the fewest and the most over which a gradient is summed; 0 for vectors.
        work: that the pass takes.
        seconds: it took.
    """

    name: str
    layer: str
    route: str
    parameters: int
    numbers: int
    positions: tuple[int, int]
    work: Work
    seconds: float

    @staticmethod
    def joined(name: str, entries: Iterable["Entry"]) -> "Entry":
        """Several as one, under a name."""
        first, *others = entries
        positions = [bound for entry in (first, *others) for bound in entry.positions]
        return Entry(
            name,
            first.layer,
            first.route,
            first.parameters + sum(entry.parameters for entry in others),
            first.numbers + sum(entry.numbers for entry in others),
            (min(positions), max(positions)),
            sum((entry.work for entry in others), first.work),
            first.seconds + sum(entry.seconds for entry in others),
        )


@dataclass(frozen=True)
class Explanation:
    """One pass over one batch.

    Attributes:
        parameters: all that count, in the network's order.
        lines: what the pass did, by parameter's name.
        frozen: numbers in parameters that do not count.
        batch: samples in the pass.
        asked, queries: that the pass was to score, and that it does: as many as fit.
        sketch: numbers of a sketch, of a sketching pass; 0 for exact passes.
        machine: its measured speed.
        times: as measured.
    """

    parameters: list[Owned]
    lines: dict[str, Line]
    frozen: int
    batch: int
    asked: int
    queries: int
    sketch: int
    machine: Machine
    times: Times

    @property
    def entries(self) -> list[Entry]:
        """One for each parameter."""
        return [self._entry(parameter) for parameter in self.parameters]

    @property
    def blocks(self) -> list[Entry]:
        """One for each block of the network, type of layer and route; vectors are together."""
        groups: dict[tuple[str, str, str], list[Entry]] = {}
        for entry in self.entries:
            if entry.route in TOGETHER:
                key = (TOGETHER[entry.route], "all", entry.route)
            else:
                key = (_block(entry.name), entry.layer, entry.route)
            groups.setdefault(key, []).append(entry)
        ordered = sorted(groups.items(), key=lambda group: group[0][2] in TOGETHER)
        return [
            replace(Entry.joined(block, group), layer=layer) for (block, layer, _), group in ordered
        ]

    @property
    def total(self) -> Entry:
        """Everything as one."""
        return replace(Entry.joined("all", self.entries), layer="", route="", positions=(0, 0))

    @property
    def rules(self) -> dict[str, int]:
        """Numbers in the parameters that each rule covers."""
        found: dict[str, int] = {}
        for parameter in self.parameters:
            found[parameter.rule] = found.get(parameter.rule, 0) + parameter.numbers
        return found

    def _entry(self, owned: Owned) -> Entry:
        line = self.lines.get(owned.name)
        if line is None:
            route = "left out" if self.sketch else "not used"
            return Entry(owned.name, owned.layer, route, 1, owned.numbers, (0, 0), Work(0, 0), 0.0)
        summed = line.shape.positions if line.shape else 0
        layer = owned.layer
        positions = (summed, summed)
        return Entry(
            owned.name, layer, line.route, 1, owned.numbers, positions, line.work, line.seconds
        )


def _block(name: str) -> str:
    """The first part of a parameter's name, with its number where it is one of several."""
    first, *others = name.split(".")
    return f"{first}.{others[0]}" if others[0:1] and others[0].isdecimal() else first
