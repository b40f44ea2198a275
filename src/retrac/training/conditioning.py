"""What a network is told of a sample, made from its label: nothing, its class, or a text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from retrac.diffusion.calls import Conditions
from retrac.diffusion.device import choose_device
from retrac.diffusion.texts import Prompts, embed
from retrac.errors import RetracError
from retrac.training.kept import Kept

CHUNK = 16
"""Texts that are embedded together."""
MANY = 10
"""Classes that are shown to a reader."""
LABEL = "{label}"
"""Stands for a sample's label in a template of captions."""


class Conditioning(Protocol):
    """From labels to conditions."""

    def of(self, labels: Sequence[str]) -> Conditions:
        """What the network is told of samples with these labels, by name `[B, …]`.

        Raises:
            RetracError: it cannot be told these.
        """
        ...

    @property
    def dropped(self) -> Callable[[int], Conditions] | None:
        """What it is told of so many samples whose condition training dropped; None if it knows no
        such thing."""
        ...

    @property
    def nothing(self) -> Callable[[int], Conditions] | None:
        """What it is told of so many samples without a condition, to guide generation."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """Those that generated images get, one after the other."""
        ...

    @property
    def told(self) -> str:
        """What a reader wants to know of it."""
        ...


@dataclass(frozen=True)
class Untold:
    """Nothing."""

    dropped: None = None
    nothing: None = None
    labels: Sequence[str] = ("",)
    told: str = "nothing"

    def of(self, labels: Sequence[str]) -> Conditions:
        """Nothing."""
        return {}


@dataclass(frozen=True)
class Classes:
    """The number of a class.

    Attributes:
        model: what to call the model in errors.
        numbers: of each label.
        no_class: the number that stands for none; None where no number does.
        labels: those that generated images get, one after the other.
    """

    model: str
    numbers: Mapping[str, int]
    no_class: int | None
    labels: Sequence[str]

    def of(self, labels: Sequence[str]) -> Conditions:
        """`class_labels [B]`."""
        for label in labels:
            if label not in self.numbers:
                what = f"the label {label!r}, which is of no class" if label else "no label"
                raise RetracError(
                    f"the model in {self.model} is told an image's class, and an image has {what}: "
                    "give a query's by --query-labels"
                )
        return {"class_labels": torch.tensor([self.numbers[label] for label in labels])}

    @property
    def nothing(self) -> Callable[[int], Conditions] | None:
        """The class that stands for none."""
        number = self.no_class
        if number is None:
            return None
        return lambda count: {"class_labels": torch.full((count,), number)}

    @property
    def dropped(self) -> Callable[[int], Conditions] | None:
        """The same."""
        return self.nothing

    @property
    def told(self) -> str:
        """Which number the first labels have."""
        some = [f"{name} = {self.numbers[name]}" for name in self.labels[:MANY]]
        return f"classes: {', '.join(some)}{', …' if len(self.labels) > MANY else ''}"


def numbered(
    model: str,
    labels: Sequence[str],
    given: Sequence[str],
    known: Mapping[str, int],
    in_order: Sequence[str] | None,
    count: int,
    no_class: int | None,
) -> Classes:
    """Classes by the labels of samples.

    Args:
        model: what to call the model in errors.
        labels: of all samples.
        given: the labels in the order of their classes.
        known: the number of each class by its names, which count where nothing is given and they
            have all labels.
        in_order: labels as their dataset numbers them, which counts next; else they are in
            alphabetical order, or in that of numbers.
        count: of classes that the network tells apart.
        no_class: as `Classes` has it.

    Raises:
        RetracError: there are more labels, or fewer, or one that was not given.
    """
    found = {*labels} - {""}
    if known and not given and found <= known.keys():
        classes = Classes(model, known, no_class, sorted(found, key=lambda name: known[name]))
    else:
        names = given or _in_order(found, in_order, count)
        if len(names) != count or len({*names}) < count:
            raise RetracError(
                f"the model in {model} has {count} classes, but there are {len({*names})} labels: "
                "give the label of each by --classes, in order"
            )
        numbers = {name: place for place, name in enumerate(names)}
        classes = Classes(model, numbers, no_class, names)
    classes.of(labels)
    return classes


def _in_order(found: set[str], known: Sequence[str] | None, count: int) -> Sequence[str]:
    """Labels as their dataset numbers them: all that it knows, or those that its samples have."""
    if known is not None and not found <= {*known}:
        return []  # an order that is not known whole tells nothing
    if known is None:
        return sorted(found, key=int if all(name.isdecimal() for name in found) else str)
    return known if len(known) == count else [name for name in known if name in found]


class Captions:
    """Texts, embedded as the model's pipeline does it.

    Args:
        open_pipeline: gives the pipeline with its text encoders.
        template: the caption of a sample, with {label} for its label. What is no sample's label is
            a text of its own.
        labels: of all samples.
        size: height and width of images.
        tokens: of T5.
        guidance: what the network is told of it, where it is.

    Attributes:
        device: where to embed.
    """

    def __init__(
        self,
        open_pipeline: Callable[[], Any],
        template: str,
        labels: Sequence[str],
        size: tuple[int, int],
        tokens: int,
        guidance: float,
    ) -> None:
        self._open = open_pipeline
        self._template = template
        self._known = {*labels}
        self._settings = (size, tokens, guidance)
        self._names: tuple[str, ...] = ()
        self.device = choose_device()
        self._kept: Kept[tuple[str, bool]] = Kept(self._embedded, CHUNK)
        self.labels = tuple(dict.fromkeys(labels))

    @property
    def told(self) -> str:
        """An example."""
        return f"captions such as {self._caption(self.labels[0])!r}"

    def of(self, labels: Sequence[str]) -> Conditions:
        """Embedded texts.

        Raises:
            RetracError: an image has none, and every sample has.
        """
        return self._rows([(self._caption(label), False) for label in labels])

    def dropped(self, count: int) -> Conditions:
        """The empty text, so many times, as diffusers' training scripts have it."""
        return self._rows([("", False)] * count)

    def nothing(self, count: int) -> Conditions:
        """What stands for no text where the pipeline generates, so many times."""
        return self._rows([("", True)] * count)

    def _caption(self, label: str) -> str:
        if not label and label not in self._known:
            raise RetracError(
                "the model is told a text, and an image has none: give a query's by --query-labels"
            )
        return self._template.replace(LABEL, label) if label in self._known else label

    def _rows(self, keys: Sequence[tuple[str, bool]]) -> Conditions:
        rows = self._kept[keys]
        columns = (torch.stack(column) for column in zip(*rows, strict=True))
        return dict(zip(self._names, columns, strict=True))

    def _embedded(self, keys: list[tuple[str, bool]]) -> list[tuple[Tensor, ...]]:
        rows: list[tuple[Tensor, ...]] = [()] * len(keys)
        for absent in {absent for _, absent in keys}:
            places = [place for place, key in enumerate(keys) if key[1] == absent]
            texts = [keys[place][0] for place in places]
            found = embed(self._pipeline, Prompts(texts, absent, *self._settings), self.device)
            self._names = tuple(found)
            for place, row in zip(places, zip(*found.values(), strict=True), strict=True):
                rows[place] = row
        return rows

    @cached_property
    def _pipeline(self) -> Any:
        return self._open()
