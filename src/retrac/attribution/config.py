"""How scores are computed. Light to import: these fields are the command line and its help."""

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from typing_extensions import Doc

from retrac.attribution.methods import DEFAULT, NAMES, Draws, Method, method_named
from retrac.errors import RetracError, unknown
from retrac.fingerprints import digest

PLANS = {"fast": (10, 2), "default": (20, 8), "published": (100, 16)}
"""Timesteps, and noises at each; docs/performance-plans.md says how they were chosen."""

GRIDS = {"small": (4, 4), "medium": (16, 4), "large": (24, 8)}
"""Timesteps, and noises at each, at which features of samples and queries alike are taken."""

CALIBRATION_SETS = 20
"""Random sets without which a window is replayed; no fewer are enough."""

BINS = 8
"""Equal parts of the timesteps, by which the events of training are averaged."""
BIN_GRID = (8, 8)
"""Timesteps in each bin, and noises at each, at which queries meet those averages."""

TRAINED = "trained"
"""The parameters that training changed."""

MethodNames: TypeAlias = Annotated[
    tuple[str, ...],
    Doc(f"Methods to score, of {', '.join(NAMES)} (`retrac methods` says what each one tells)."),
]

LONG = 30
"""Letters of prompts in the name of a folder, at the most."""

PRECISIONS = ("float64", "float32", "tf32", "bfloat16", "float16")

UNITS = {"KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


@dataclass(frozen=True)
class PlanConfig:
    """The draws at which a query's gradient is computed."""

    plan: Literal["fast", "default", "published"] = field(default="default", kw_only=True)
    """fast: 10 timesteps, 2 noises at each; default: 20 and 8; published: 100 and 16. The noises
    of fast and default come in pairs of opposite sign."""
    plan_timesteps: int | None = None
    """Timesteps T', evenly spaced. Default: the plan's."""
    plan_noises: int | None = None
    """Noises m per timestep. Default: the plan's."""
    plan_seed: int = 0
    """Seed of the plan's noises."""

    def __post_init__(self) -> None:
        if self.plan not in PLANS:
            raise unknown("plan", self.plan, PLANS)
        if self.timesteps < 1 or self.noises < 1:
            raise RetracError("--plan-timesteps and --plan-noises must be at least 1")
        if self.plan_seed < 0:
            raise RetracError(f"--plan-seed must be at least 0, not {self.plan_seed}")

    @property
    def timesteps(self) -> int:
        """T'."""
        return PLANS[self.plan][0] if self.plan_timesteps is None else self.plan_timesteps

    @property
    def noises(self) -> int:
        """The m noises per timestep."""
        return PLANS[self.plan][1] if self.plan_noises is None else self.plan_noises

    @property
    def published(self) -> bool:
        """Whether timesteps and noises are placed as in the published code."""
        return self.plan == "published"

    @property
    def settings(self) -> dict[str, int | str]:
        """What decides the draws, as JSON values."""
        return {
            "plan_timesteps": self.timesteps,
            "plan_spacing": "ends" if self.published else "middles",
            "plan_noises": self.noises,
            "plan_noise": "independent" if self.published else "pairs",
            "plan_noise_of": "each checkpoint",
            "plan_seed": self.plan_seed,
        }


@dataclass(frozen=True)
class QueryConfig:
    """The images to be explained."""

    queries: str
    """generated:8, trajectory:8 (generated, and looked at along the way there), train:16 (so many,
    evenly spread), train:3,17 (these), each:2 (of every label), train:8+generated:8, or a path of
    images."""
    query_seed: int = 0
    """Seed of generated queries."""
    query_labels: tuple[str, ...] = ()
    """Label or prompt of queries that are files or generated: one for all, or one for each. Default
    of generated ones: the labels of samples, one after the other."""
    query_guidance: float = 1.0
    """Guidance with which queries are generated: how much further than without label or prompt a
    step goes; 1 for none."""
    query_mask: Path | None = None
    """Only this region of the queries counts: an image of their size, white where it is; or a
    folder of one for each, in order."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.query_guidance):
            raise RetracError(f"--query-guidance must be a number, not {self.query_guidance}")
        if self.query_guidance != 1 and not re.search("generated:|trajectory:", self.queries):
            raise RetracError("--query-guidance is for queries that are generated")

    @property
    def words(self) -> tuple[str, ...]:
        """What tells this choice from the usual one, beside `queries` and seed."""
        return (
            *((named("-".join(self.query_labels)),) if self.query_labels else ()),
            *((f"guidance-{self.query_guidance:g}",) if self.query_guidance != 1 else ()),
            *((f"mask-{self.query_mask.stem}",) if self.query_mask else ()),
        )


@dataclass(frozen=True)
class ComputeConfig:
    """Where, in how much memory and how precisely."""

    memory_budget: str | None = None
    """Memory for weights, query gradients and one batch, such as 2GB; default: half of what is
    free."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    precision: Literal["float64", "float32", "tf32", "bfloat16", "float16"] = "float32"
    """Of weights and passes; gradients are added up in float32 at least. docs/performance.md says
    how close scores stay."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.memory_budget is not None:
            parse_bytes(self.memory_budget)


DrawNames = Literal["auto", "visits", "small", "medium", "large"]


@dataclass(frozen=True)
class FeatureConfig:
    """The draws of methods that compare features, such as kernel-retrac."""

    draws: DrawNames = "auto"
    """visits: samples at the last 64 events of training, by eight bins of their timesteps; small: 4
    timesteps and 4 noises, medium: 16 and 4, large: 24 and 8. auto: visits where a method takes
    them and the events are known, else medium. On the benchmark kernel-retrac foretold retraining
    with a correlation of 0.76 by visits, and of 0.70, 0.76 and 0.76 by the others."""
    outputs: bool = True
    """Whether gradients of the network's output are compared, too, where a method does so beside
    the loss; without them it takes less than half as long."""
    layer_numbers: int = 256
    """Numbers into which the gradient of each layer's weights is sketched; 0 keeps it whole."""

    def __post_init__(self) -> None:
        known = ("auto", "visits", *GRIDS)
        if self.draws not in known:
            raise unknown("draws", self.draws, known)
        if self.layer_numbers < 0:
            raise RetracError(f"--layer-numbers must be at least 0, not {self.layer_numbers}")


@dataclass(frozen=True)
class AttributeConfig:
    """Scores of all training samples."""

    methods: MethodNames = DEFAULT
    checkpoints: tuple[int, ...] = ()
    """Epochs of the checkpoints to use; each stands for the epochs since the one before. Default:
    all."""
    replay: str = "last"
    """Epochs of each checkpoint's interval to replay: last (as published), all, or a number."""
    replay_back: int = field(default=0, kw_only=True)
    """For a repeat: 1, 2, and so on replay other epochs than 0 does, and than one another, as long
    as the interval has as many left."""
    parameters: str = TRAINED
    """Which parameters count, in products and norms: trained (all, or those of the LoRA that was
    trained), all, lora, or a regular expression that is found in their names."""
    plan: PlanConfig = field(default_factory=PlanConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    index: bool = False
    """Answer from the index that `retrac index` made, by the gradients of the queries alone; its
    checkpoints, replay and parameters count."""
    recorded: bool = False
    """Answer from what `retrac train --record` recorded."""
    exact_top: int = 0
    """With --index, score so many best candidates of each query and method exactly."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    by_layer: bool = field(default=False, kw_only=True)
    """Keep what each part of the network adds to the scores, too, which `retrac layers` shows and
    learns weights from."""
    layer_weights: Path | None = field(default=None, kw_only=True)
    """Weigh the parts of the network as this file of `retrac layers` says."""
    from_epoch: int | None = field(default=None, kw_only=True)
    """Of unrolled: whole epochs before the checkpoint at which its window of the training begins;
    0: from the first weights. It ends at the last of --checkpoints."""
    calibration_sets: int = field(default=CALIBRATION_SETS, kw_only=True)
    """Of unrolled: random sets of a tenth of the samples, without each of which the window is
    replayed once, to show whether it foretells what happens; at least 20, or 0 for none."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.parameters)
        except re.error as error:
            raise RetracError(
                f"--parameters {self.parameters!r} is not a regular expression: {error}"
            ) from None
        if self.index and self.recorded:
            raise RetracError("give either --index or --recorded")
        if self.replay_back < 0:
            raise RetracError(f"--replay-back must be at least 0, not {self.replay_back}")
        if self.replay_back and (self.index or self.recorded):
            raise RetracError("--replay-back does not go with --index or --recorded: it replays")
        drawn = replace(self.features, outputs=True)
        if (self.index or self.recorded) and drawn != FeatureConfig():
            raise RetracError(
                "--draws and --layer-numbers do not go with --index or --recorded: the samples' "
                "features are there"
            )
        if self.by_layer and (self.index or self.recorded):
            raise RetracError(
                "--by-layer does not go with --index or --recorded: score anew without them"
            )
        if self.exact_top < 0:
            raise RetracError(f"--exact-top must be at least 0, not {self.exact_top}")
        if self.exact_top and not self.index:
            raise RetracError(
                "--exact-top goes with --index: scores without it are exact, and what was recorded "
                "while training met other weights than those of the checkpoints"
            )
        if not self.methods:
            raise RetracError(f"--methods is empty: give some, such as {', '.join(DEFAULT)}")
        for method in self.methods:
            method_named(method)
        if len(set(self.methods)) != len(self.methods):
            raise RetracError("--methods names a method twice")
        windows = [each.name for each in self.chosen if each.draws is Draws.WINDOW]
        if windows and self.from_epoch is None:
            raise RetracError(
                f"{windows[0]} looks at a window of the training: say by --from-epoch after how "
                "many epochs it begins, at a checkpoint"
            )
        if self.from_epoch is not None and not windows:
            raise RetracError("--from-epoch is for --methods unrolled")
        if self.calibration_sets != CALIBRATION_SETS and not windows:
            raise RetracError("--calibration-sets is for --methods unrolled")
        if 0 < self.calibration_sets < CALIBRATION_SETS or self.calibration_sets < 0:
            raise RetracError(
                f"--calibration-sets must be at least {CALIBRATION_SETS}, or 0 for none, not "
                f"{self.calibration_sets}"
            )
        if self.replay not in ("last", "all") and not (
            self.replay.isdecimal() and int(self.replay) >= 1
        ):
            raise RetracError(
                f"--replay must be last, all, or a number of epochs, not {self.replay!r}"
            )

    @property
    def chosen(self) -> tuple[Method, ...]:
        """The methods' records."""
        return tuple(map(method_named, self.methods))


@dataclass(frozen=True)
class IndexConfig:
    """An index: what methods need of every sample, in sketches."""

    methods: tuple[str, ...] = DEFAULT
    """Methods that it is to answer for. Those that add up events need few gradients of each sample
    and checkpoint; kernel-retrac needs some 64 at the last checkpoint."""
    checkpoints: tuple[int, ...] = ()
    """Epochs of the checkpoints to use; each stands for the epochs since the one before. Default:
    all."""
    replay: str = "last"
    """Epochs of each checkpoint's interval to replay: last (as published), all, or a number."""
    parameters: str = TRAINED
    """Which parameters count, in products and norms: trained (all, or those of the LoRA that was
    trained), all, lora, or a regular expression that is found in their names."""
    sketch_size: int = 8192
    """About how many numbers a sketch has, stored in two bytes each: by sample, checkpoint and
    method, or for kernel-retrac by sample, bin of timesteps, measurement and part of the draws."""
    draws: DrawNames = "auto"
    """Of methods such as kernel-retrac: as for `retrac attribute`."""
    outputs: bool = True
    """Whether such methods are to compare gradients of the network's output, too; without them an
    index of theirs takes a third of the space and less than half of the time."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        if self.sketch_size < 1:
            raise RetracError(f"--sketch-size must be at least 1, not {self.sketch_size}")


def named(text: str) -> str:
    """A text as a part of a folder's name; what cannot be told in full has a fingerprint."""
    found = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if found == text.lower().replace(" ", "-") and len(found) <= LONG:
        return found
    return f"{found[:LONG]}{'-' if found else ''}{digest(text)[:4]}"


def parse_bytes(text: str) -> int:
    """Read an amount of memory such as 512MB or 1.5GB.

    Raises:
        RetracError: not a positive number with a unit.
    """
    number, unit = text.strip().upper()[:-2], text.strip().upper()[-2:]
    try:
        amount = float(number) * UNITS[unit]
    except (KeyError, ValueError):
        amount = 0.0
    if not 0 < amount < float("inf"):
        raise RetracError(f"{text!r} is not an amount of memory; write it like 512MB or 2GB")
    return int(amount)
