"""An index: features of a run's samples on disk.

A folder with `index.json`, which says of each feature what it is, and a folder for each checkpoint
with one table for each feature and weight, such as `epoch-0050/intervals-inverse_norm`. What is
there does not change when a feature or a weight is added.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrac.errors import RetracError
from retrac.files import PARTIAL, read_json, write_json
from retrac.gradients.sketch_layout import SketchLayout
from retrac.store.feature import StoredFeature

CONFIG = "index.json"
FORMAT = 4
"""Of what the folder holds, and of the order in which a sketch's numbers lie."""
NEEDED = {"kind", "trained", "parameters", "features"}


@dataclass(frozen=True)
class Index:
    """An index folder.

    Attributes:
        path: the folder.
        config: `index.json`: `format`; `kind` ("replayed" or "recorded"); `trained` (the run's
            identity, or its origin if recorded); `parameters`, the pattern of those that count;
            `features` by name, as `StoredFeature` has them.
    """

    path: Path
    config: Mapping[str, Any]

    @staticmethod
    def planned(path: Path, config: Mapping[str, Any]) -> "Index":
        """A new one; nothing is written until it is saved."""
        return Index(path, {"format": FORMAT, **config})

    @staticmethod
    def open(path: Path) -> "Index":
        """Open an index folder.

        Raises:
            RetracError: there is none, it is damaged, or of another version.
        """
        if not (path / CONFIG).is_file():
            raise RetracError(f"no index at {path}: it has no {CONFIG}")
        config = read_json(path / CONFIG)
        if config and config.get("format") != FORMAT:
            raise RetracError(
                f"{path} was made by another version of diffusion-retrac (format "
                f"{config.get('format')}, now {FORMAT}): delete it and make it again"
            )
        if missing := NEEDED - config.keys():
            raise RetracError(f"{path / CONFIG} is damaged: it lacks {min(missing)!r}")
        return Index(path, config)

    @staticmethod
    def resumed(path: Path, settings: Mapping[str, Any]) -> "Index | None":
        """One that is there, as it will be with these settings; None if there is none.

        Features that it lacks are added. Those that it has may get weights, and checkpoints after
        theirs: each stands for the epochs since the one before, so that no other may come. What is
        taken `at` one checkpoint alone begins anew at another. Nothing is written until it is
        saved.

        Args:
            path: the folder.
            settings: as `config`, without the layouts of sketches.

        Raises:
            RetracError: `path` holds an index of other settings, or something else.
        """
        if not (path / CONFIG).is_file():
            if path.exists() and not (path.is_dir() and _only_leftovers(path)):
                raise RetracError(f"{path} exists and is not an index; move it away")
            return None
        earlier = Index.open(path)
        earlier.refuse_other_training(settings["trained"])
        there, features = dict(earlier.config), dict(earlier.config["features"])
        differing = _differing(there, {**settings, "features": there["features"]})
        for name, feature in settings["features"].items():
            before = features.get(name, {})
            if before.get("at") != feature.get("at"):
                before = {}
            differing += _differing(before, feature) if before else []
            weights = dict.fromkeys([*before.get("weights", []), *feature["weights"]])
            features[name] = {**before, **feature, "weights": list(weights)}
        if differing:
            raise RetracError(
                f"{path} holds an index of other settings ({'; '.join(differing)}): delete it, "
                "or give the same settings to go on with it"
            )
        return Index(path, {**there, **settings, "features": features})

    def with_sketches(self, layout: Callable[[], SketchLayout]) -> "Index":
        """With a layout of sketches for each feature that has none yet."""
        features = self.config["features"]
        if all("sketch" in feature for feature in features.values()):
            return self
        new = {"sketch": layout().to_json()}
        laid = {name: {**new, **feature} for name, feature in features.items()}
        return Index(self.path, {**self.config, "features": laid})

    def save(self) -> None:
        """Write `index.json`, unless it says so already; what begins anew is deleted before.

        To be called before the first chunk: what a row stands for depends on it.

        Raises:
            RetracError: no space left, or no permission.
        """
        path, features = self.path / CONFIG, self.features
        earlier = Index.open(self.path) if path.is_file() else None
        if earlier == self:
            return
        for name, feature in earlier.features.items() if earlier else ():
            if feature.config.get("at") != features[name].config.get("at"):
                for epoch in feature.begun():
                    feature.remove(epoch)
        write_json(path, self.config)

    @property
    def features(self) -> dict[str, StoredFeature]:
        """What it has, whole or not, by name."""
        features = self.config["features"].items()
        return {name: StoredFeature(self.path, name, config) for name, config in features}

    def refuse_other_training(self, trained: str) -> None:
        """Refuse an index of another training than the one that `trained` tells from others.

        Raises:
            RetracError: it is.
        """
        if self.config["trained"] != trained:
            raise RetracError(f"{self.path} is of another training: delete it and make it again")


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which settings an index cannot go on with, in words."""
    return [
        f"{name} was {before.get(name)}, now {value}"
        for name, value in now.items()
        if not _goes_on(name, before.get(name), value)
    ]


def _goes_on(name: str, before: Any, now: Any) -> bool:
    """Whether an index with one value of a setting can go on with another."""
    if name == "checkpoints":
        return bool(now[: len(before)] == before)
    return name == "weights" or bool(before == now)


def _only_leftovers(path: Path) -> bool:
    """Whether nothing is there but what was left when it was stopped before its first file."""
    return all(inner.suffix == PARTIAL for inner in path.iterdir())
