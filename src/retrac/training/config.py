"""How a run is trained. Light to import: these fields are the command line and its help."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from retrac.data.config import DatasetConfig
from retrac.data.named import NAMED
from retrac.diffusion.config import ModelConfig, ObjectiveConfig
from retrac.errors import RetracError, unknown
from retrac.gradients.weights import WEIGHTS, Weight
from retrac.training.plain import Plain, refuse_unknown_choices
from retrac.training.visits import Visits

MeanOver = Literal["batch", "weights"]
"""What a step's sum of weighted losses is divided by."""

LARGEST = 1e30
"""Of a number that optimisers compute with; float32 ends at 3e38."""


FREE = {"epochs", "sample_count", "sample_steps"}
"""Settings that may change between two calls: they do not alter a step that was taken."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser; sgd without momentum unless --momentum is given."""
    learning_rate: float = 1e-3
    """Learning rate, reached after the warm-up and kept."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    weight_decay: float = 0.0
    """Weight decay."""
    momentum: float = 0.0
    """Momentum of sgd."""
    max_grad_norm: float | None = None
    """Gradients of a batch are scaled down to this norm; None for never."""


@dataclass(frozen=True)
class TrainConfig(Plain):
    """Everything that decides the trained weights."""

    data: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimisation: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 40
    """Visits to every sample."""
    checkpoint_every: int = 5
    """Epochs between checkpoints; the last epoch always has one."""
    batch_size: int = 64
    """Samples per step, over all processes; the last batch of an epoch holds what is left."""
    seed: int = 0
    """Decides the first weights and, through the ledger, every event."""
    flip: bool = False
    """Mirror each image in half of its visits."""
    ema_decay: float | None = None
    """Keep an exponential moving average of the weights, for generation; such as 0.999."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Precision of forward and backward passes."""
    pretrained: Path | None = None
    """A diffusers model folder to start from, instead of fresh weights."""
    sample_count: int = 16
    """Images in the sample grid of each checkpoint; 0 for none."""
    sample_steps: int = 50
    """DDIM steps of the sample grid."""

    def __post_init__(self) -> None:
        model, optimisation = self.model, self.optimisation
        for part in (self, model, self.objective, optimisation):
            refuse_unknown_choices(part)
        least = {
            "epochs": (self.epochs, 1),
            "checkpoint-every": (self.checkpoint_every, 1),
            "batch-size": (self.batch_size, 1),
            "timesteps": (self.objective.timesteps, 1),
            "channels": (min(model.channels, default=0), 1),
            "layers-per-block": (model.layers_per_block, 1),
            "norm-groups": (model.norm_groups, 1),
            "attention-head-dim": (model.attention_head_dim, 1),
            "warmup-steps": (optimisation.warmup_steps, 0),
            "sample-count": (self.sample_count, 0),
            "sample-steps": (self.sample_steps, 1),
        }
        for name, (value, bound) in least.items():
            if value < bound:
                raise RetracError(f"--{name} must be at least {bound}, not {value}")
        factors = {"weight-decay": optimisation.weight_decay, "momentum": optimisation.momentum}
        for name, factor in factors.items():
            if not 0 <= factor <= LARGEST:
                raise RetracError(f"--{name} must be from 0 to {LARGEST:g}, not {factor}")
        rates = {
            "learning-rate": optimisation.learning_rate,
            "max-grad-norm": optimisation.max_grad_norm,
        }
        for name, rate in rates.items():
            if rate is not None and not 0 < rate <= LARGEST:
                raise RetracError(f"--{name} must be above 0 and at most {LARGEST:g}, not {rate}")
        if optimisation.momentum and optimisation.optimizer != "sgd":
            raise RetracError("--momentum is for --optimizer sgd only")
        if self.sample_count and self.sample_steps > self.objective.timesteps:
            raise RetracError(
                f"--sample-steps must be at most --timesteps, {self.objective.timesteps}, not "
                f"{self.sample_steps}"
            )
        if not 0 <= self.seed < 2**63:
            raise RetracError(f"--seed must be in [0, 2^63), not {self.seed}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise RetracError(f"--ema-decay must be between 0 and 1, not {self.ema_decay}")

    def has_checkpoint(self, epoch: int) -> bool:
        """Whether there is a checkpoint after so many epochs."""
        return epoch % self.checkpoint_every == 0 or epoch == self.epochs

    def with_preset(self, preset: dict[str, Any]) -> "TrainConfig":
        """The same configuration with a dataset's published training settings.

        Args:
            preset: field name -> value, from any of the parts of this configuration.

        Raises:
            RetracError: a name that no part has.
        """
        parts = ("data", "model", "objective", "optimisation")
        known = {f.name for part in parts for f in fields(getattr(self, part))}
        known |= {f.name for f in fields(self)}
        for name in preset:
            if name not in known:
                raise unknown("setting", name, known)
        changed = self
        for part in parts:
            inner = getattr(self, part)
            own = {f.name: preset[f.name] for f in fields(inner) if f.name in preset}
            changed = replace(changed, **{part: replace(inner, **own)})
        own = {f.name: preset[f.name] for f in fields(self) if f.name in preset}
        return replace(changed, **own)

    @staticmethod
    def for_dataset(name: str, **changes: Any) -> "TrainConfig":
        """A named dataset's training settings, as `retrac train --dataset NAME` has them.

        Args:
            name: of the dataset, or a path; then without a preset.
            changes: settings that differ, by field name, from any part of the configuration.
        """
        preset = dict(NAMED[name].preset) if name in NAMED else {}
        config = TrainConfig(data=DatasetConfig(dataset=name)).with_preset(preset)
        return config.with_preset(changes)


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded of every visit while training, in sketches."""

    sketch_size: int = 8192
    """About how many numbers a sketch has."""
    bins: int = 8
    """Equal parts of the timesteps by which visits are added up for methods such as
    kernel-retrac."""
    weights: tuple[Weight, ...] = tuple(WEIGHTS.values())
    """Under which visits are added up for methods such as tracin and retrac."""

    def __post_init__(self) -> None:
        for name, value in (("sketch-size", self.sketch_size), ("record-bins", self.bins)):
            if value < 1:
                raise RetracError(f"--{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class ReplayConfig:
    """From where to where a training is replayed."""

    from_epoch: int = 0
    """Whole epochs before the checkpoint from which training goes on; 0: from the first weights."""
    to_epoch: int | None = None
    """Whole epochs after which it ends. Default: the run's last checkpoint."""
    mean_over: MeanOver = "batch"
    """What a step's loss is divided by. batch: all samples of the batch, so that those that stay
    count as they did; weights: the sum of the batch's weights, as if samples that are left out had
    never been there."""

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)


@dataclass(frozen=True)
class AdoptConfig(Plain):
    """A model that is trained already, and what is known of how."""

    pipeline: Path
    """The pipeline's folder, as diffusers' `save_pretrained` writes it."""
    data: DatasetConfig = field(default_factory=DatasetConfig)
    weights: tuple[Path, ...] = ()
    """Folders with weights at several moments of the training, in order, such as the checkpoint-*
    folders of diffusers' training scripts; of all weights, or of a LoRA. Default: the pipeline's
    own."""
    loss: Literal["mse", "l1"] = "mse"
    """Distance between prediction and target that it was trained with."""
    weighting: Literal["none", "snr", "min-snr", "inverse-square", "cosine-map"] = "none"
    """How losses counted by timestep. Of a diffusion: min-snr, with a γ of 5, or snr, with which
    diffusers' train_unconditional.py trains models that predict samples. Of a flow:
    inverse-square, 1/σ², which diffusers calls sigma_sqrt, or cosine-map, its cosmap."""
    density: Literal["uniform", "logit-normal", "mode"] = "uniform"
    """How training drew timesteps of a flow, with the usual settings of each: diffusers' scripts
    for Stable Diffusion 3 say logit-normal. Sampled events are drawn like that."""
    preconditioned: bool = False
    """Whether training turned the predicted velocity into a sample and compared that, as diffusers'
    scripts for Stable Diffusion 3 do unless told otherwise: losses count by σ², too."""
    flip: bool = False
    """Whether training mirrored images at random."""
    drop: float = 0.0
    """How often training dropped the class or the caption, such as 0.1."""
    classes: tuple[str, ...] = ()
    """Of a class-conditional model: the labels by class number. Default: as the
    pipeline names its classes, else as the dataset numbers them (folders by name, as `datasets` and
    torchvision do), else in alphabetical order, or that of numbers."""
    caption: str = "{label}"
    """Of a model that is told texts: the caption of a sample, with {label} for its label, such as
    "a photo of a {label}"; or the same for all."""
    text_tokens: int | None = None
    """Tokens at which T5 cuts captions. Default: 77 for Stable Diffusion 3 and 512 for Flux, as
    diffusers' training scripts have it."""
    guidance: float = 3.5
    """What training told a model that is told the guidance, such as Flux; it is told the same when
    it generates."""
    epochs: tuple[int, ...] = ()
    """Whole epochs before each of the weights, of a training whose events a `retrac.Ledger` of this
    --seed drew: they are replayed. (A loop of a flow asks `retrac.flow_moments` what they mean.)
    Default: events are sampled."""
    learning_rates: tuple[float, ...] = ()
    """Of the training before each of the weights, on average: what an event counts. Default: all
    alike, as with a constant one."""
    events: int = 64
    """Events that are sampled for each sample and checkpoint; `--replay all` takes all of them."""
    seed: int = 0
    """Of the ledger: decides every event."""

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        if self.events < 1 or not 0 <= self.seed < 2**63:
            raise RetracError(
                f"--events must be at least 1 and --seed from 0 to 2^63 - 1, not {self.events} and "
                f"{self.seed}"
            )
        if len({*self.classes}) < len(self.classes):
            raise RetracError("--classes names a label twice")
        if not 0 <= self.guidance <= LARGEST:
            raise RetracError(f"--guidance must be from 0 to {LARGEST:g}, not {self.guidance}")
        if self.text_tokens is not None and self.text_tokens < 1:
            raise RetracError(f"--text-tokens must be at least 1, not {self.text_tokens}")
        if not 0 <= self.drop < 1:
            raise RetracError(f"--drop must be at least 0 and below 1, not {self.drop}")
        _ = self.visits

    @property
    def visits(self) -> Visits:
        """Which events stand before each of the weights, and what they count.

        Raises:
            RetracError: as `Visits.of`.
        """
        checkpoints = max(1, len(self.weights))
        return Visits.of(self.epochs, self.events, self.learning_rates, checkpoints)

    def located(self) -> "AdoptConfig":
        """The same by absolute paths, to be found from another working directory."""
        return replace(
            self,
            pipeline=Path(self.pipeline).expanduser().resolve(),
            weights=tuple(Path(folder).expanduser().resolve() for folder in self.weights),
            data=self.data.located(),
        )


@dataclass(frozen=True)
class ImportConfig(Plain):
    """What the checkpoint files of the published code do not say."""

    data: DatasetConfig = field(default_factory=DatasetConfig)
    events: Literal["recorded", "fresh"] = "recorded"
    """The events whose gradients are a sample's. recorded: the timestep and the noise in the files,
    at which the sample was trained in the last epoch before each checkpoint, as the paper's
    formulas say. fresh: others, drawn from --seed for each checkpoint, which is what the published
    code does: it reads the recorded timestep, but does not use it."""
    loss: Literal["l1", "mse"] = "l1"
    """Distance between prediction and noise that it was trained with; mse of a training with
    `--use_l1_loss ''`."""
    timesteps: int = 1000
    """Steps T of the forward process; the published code attributes with 1000 only."""
    seed: int = 0
    """Of fresh events."""

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        if self.timesteps < 1 or not 0 <= self.seed < 2**63:
            raise RetracError(
                f"--timesteps must be at least 1 and --seed from 0 to 2^63 - 1, not "
                f"{self.timesteps} and {self.seed}"
            )

    def located(self) -> "ImportConfig":
        """The same by absolute paths, to be found from another working directory."""
        return replace(self, data=self.data.located())
