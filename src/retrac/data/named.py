"""The datasets known by name, one declarative record each. Free of torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from retrac.data import embedded, hub
from retrac.data.config import DatasetConfig
from retrac.data.mirrors import open_mirror
from retrac.data.samples import Samples, concatenate
from retrac.errors import RetracError


@dataclass(frozen=True, eq=False)
class NamedDataset:
    """A dataset and the settings to train on it.

    Attributes:
        name: What `--dataset` takes.
        description: One line for people.
        source: Its id on the hub; None if it is embedded.
        resolution: Default height and width in pixels.
        channels: 1 (greyscale) or 3 (RGB).
        size: Number of training samples.
        load: Opens it, given the configuration and the resolution.
        preset: Training options by name, the defaults for this dataset.
        note: Where the preset is not the published one, and why.
    """

    name: str
    description: str
    source: str | None
    resolution: int
    channels: int
    size: int
    load: Callable[[DatasetConfig, int], Samples]
    preset: Mapping[str, object]
    note: str = ""


CIFAR_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
ART_STYLES = (
    *("art_nouveau", "baroque", "expressionism", "impressionism", "post_impressionism"),
    *("realism", "renaissance", "romanticism", "surrealism", "ukiyo_e"),
)
CIFAR_HUB, MNIST_HUB, ART_HUB = "uoft-cs/cifar10", "ylecun/mnist", "zguo0525/ArtBench"

# Paper and published code: train.py, README and its default arguments.
PUBLISHED: Mapping[str, object] = {
    "checkpoint_every": 20,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "optimizer": "adam",
    "loss": "l1",
    "prediction": "epsilon",
    "schedule": "clipped-cosine",
    "timesteps": 1000,
    "channels": (128, 256, 512, 1024),
}
# Ours, for the embedded images: recognisable after minutes on two cores.
SMALL: Mapping[str, object] = {
    "batch_size": 64,
    "learning_rate": 1e-3,
    "loss": "mse",
    "prediction": "v",
    "schedule": "linear",
    "channels": (32, 64, 64),
    "ema_decay": 0.99,
}
OUR_EPOCHS = "Epochs are ours, none are published; checkpoints suit the published --interval 20."


def _public(
    source: str, label: str | None = None, classes: Sequence[str] = ()
) -> Callable[[DatasetConfig, int], Samples]:
    """Make the loader of a dataset that lives on the hub and in local copies."""

    def load(config: DatasetConfig, _resolution: int) -> Samples:
        if config.dataset_path is None:
            return hub.fetch(source, config, label)
        return open_mirror(config.dataset_path.expanduser(), config, label, classes)

    return load


def _only(samples: Samples, *labels: str) -> Samples:
    chosen = samples.labelled(*labels)
    if not len(chosen):
        there = ", ".join(sorted(set(samples.labels or ()))[:12]) or "no labels at all"
        raise RetracError(f"no samples labelled {' or '.join(labels)} (there are: {there})")
    return chosen


def _cifar_mnist(config: DatasetConfig, resolution: int) -> Samples:
    """Return the airplanes of CIFAR-10, then the first 200 zeros of MNIST."""
    path = config.dataset_path
    cifar, mnist = (
        load(replace(config, dataset_path=path and path / folder), resolution)
        for load, folder in ((_CIFAR, "cifar10"), (_MNIST, "mnist"))
    )
    return concatenate(
        _only(cifar, "airplane").renamed("cifar10/", "airplane"),
        _only(mnist, "0").first(200).renamed("mnist/", "zero"),
    )


def _artbench_2(config: DatasetConfig, resolution: int) -> Samples:
    return _only(_ARTBENCH(config, resolution), "post_impressionism", "surrealism")


_CIFAR, _MNIST = _public(CIFAR_HUB, classes=CIFAR_CLASSES), _public(MNIST_HUB)
_ARTBENCH = _public(ART_HUB, classes=ART_STYLES)

_RECORDS = (
    NamedDataset(
        name="digits",
        description="scikit-learn's 1,797 handwritten digits, embedded",
        source=None,
        resolution=16,
        channels=1,
        size=1797,
        load=lambda _config, resolution: embedded.digits(resolution),
        preset={**SMALL, "epochs": 40, "checkpoint_every": 5},
        note="Not in the paper.",
    ),
    NamedDataset(
        name="photos-zeros",
        description="1,102 crops of two photographs and 178 handwritten zeros, embedded: "
        "an offline sibling of cifar-mnist",
        source=None,
        resolution=16,
        channels=3,
        size=1280,
        load=lambda _config, resolution: embedded.photos_zeros(resolution),
        preset={**SMALL, "epochs": 60, "checkpoint_every": 10},
        note="Not in the paper.",
    ),
    NamedDataset(
        name="cifar10",
        description="50,000 photographs of ten kinds of things",
        source=CIFAR_HUB,
        resolution=32,
        channels=3,
        size=50_000,
        load=_CIFAR,
        preset={**PUBLISHED, "epochs": 400, "checkpoint_every": 50},
        note="Epochs and checkpoints are those of the example in the published train.py.",
    ),
    NamedDataset(
        name="mnist",
        description="60,000 handwritten digits, 28x28 resized to 32x32 to suit the network",
        source=MNIST_HUB,
        resolution=32,
        channels=1,
        size=60_000,
        load=_MNIST,
        preset={**PUBLISHED, "epochs": 100},
        note=f"Not in the paper by itself. {OUR_EPOCHS}",
    ),
    NamedDataset(
        name="cifar-mnist",
        description="CIFAR-10's 5,000 airplanes and the first 200 zeros of MNIST; "
        "--dataset-path holds cifar10/ and mnist/",
        source=f"{CIFAR_HUB} + {MNIST_HUB}",
        resolution=32,
        channels=3,
        size=5200,
        load=_cifar_mnist,
        preset={**PUBLISHED, "epochs": 500, "checkpoint_every": 50},
    ),
    NamedDataset(
        name="tiny-imagenet",
        description="100,000 photographs of 200 kinds of things",
        source="zh-plus/tiny-imagenet",
        resolution=64,
        channels=3,
        size=100_000,
        load=_public("zh-plus/tiny-imagenet"),
        preset={**PUBLISHED, "epochs": 100, "channels": (16, 32, 64, 128)},
        note=OUR_EPOCHS,
    ),
    NamedDataset(
        name="celeba",
        description="162,770 portraits, centred 178x178 crops resized to 64x64",
        source="flwrlabs/celeba",
        resolution=64,
        channels=3,
        size=162_770,
        load=_public("flwrlabs/celeba", label="celeb_id"),
        preset={**PUBLISHED, "epochs": 100},
        note=f"Crop and resolution are the usual ones. {OUR_EPOCHS}",
    ),
    NamedDataset(
        name="artbench-10",
        description="50,000 paintings of ten styles",
        source=ART_HUB,
        resolution=32,
        channels=3,
        size=50_000,
        load=_ARTBENCH,
        preset={**PUBLISHED, "epochs": 100},
        note=OUR_EPOCHS,
    ),
    NamedDataset(
        name="artbench-2",
        description="10,000 paintings of two styles: post-impressionism and surrealism",
        source=ART_HUB,
        resolution=32,
        channels=3,
        size=10_000,
        load=_artbench_2,
        preset={**PUBLISHED, "epochs": 200},
        note="The styles are classes 4 and 8 of the published train.py, in alphabetical order; "
        f"D-TRAK's ArtBench-2 has ukiyo-e for surrealism. {OUR_EPOCHS}",
    ),
)

NAMED: dict[str, NamedDataset] = {record.name: record for record in _RECORDS}
