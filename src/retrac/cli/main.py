"""`retrac COMMAND`: turns the command line into one configuration and runs it."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from retrac.allocator import keep_freed_memory
from retrac.cli.adopt import Adopt
from retrac.cli.attribute import Attribute
from retrac.cli.benchmark import Benchmark
from retrac.cli.datasets import Datasets
from retrac.cli.evaluate import Evaluate
from retrac.cli.explain import Explain
from retrac.cli.generate import Generate
from retrac.cli.import_ import Import
from retrac.cli.index import Index
from retrac.cli.layers import Layers
from retrac.cli.lds import Lds
from retrac.cli.methods import Methods
from retrac.cli.norms import Norms
from retrac.cli.outliers import Outliers
from retrac.cli.plant import Plant
from retrac.cli.removal import Removal
from retrac.cli.replay import Replay
from retrac.cli.report import Report
from retrac.cli.train import Train
from retrac.data.named import NAMED
from retrac.errors import RetracError
from retrac.files import disk_refusal
from retrac.training.config import TrainConfig

DESCRIPTION = "Which training images made a diffusion model produce this image?"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for an error of the user's, 130 if stopped."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        command = tyro.cli(_commands(given), prog="retrac", description=DESCRIPTION, args=given)
        quiet()
        command()
    except RetracError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped; what was saved is whole, and the same command takes it up", 130)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        told = _resource_refusal(error)
        if told is None:
            raise
        return _fail(told, 2)
    return 0


def quiet() -> None:
    """Silence the libraries' own chatter: what a user must know, we say."""
    import logging
    import warnings

    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    for name in ("torch.distributed", "huggingface_hub", "datasets", "httpx", "fsspec"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="accelerate|torch|zarr")


def _commands(given: Sequence[str]) -> Any:
    subcommand = tyro.conf.subcommand
    commands = (
        Annotated[Datasets, subcommand("datasets")],
        Annotated[Methods, subcommand("methods")],
        Annotated[Plant, subcommand("plant")],
        Annotated[Train, subcommand("train", default=_train_defaults(given))],
        Annotated[Adopt, subcommand("adopt")],
        Annotated[Import, subcommand("import")],
        Annotated[Generate, subcommand("generate")],
        Annotated[Index, subcommand("index")],
        Annotated[Attribute, subcommand("attribute")],
        Annotated[Layers, subcommand("layers")],
        Annotated[Evaluate, subcommand("evaluate")],
        Annotated[Outliers, subcommand("outliers")],
        Annotated[Norms, subcommand("norms")],
        Annotated[tyro.conf.OmitSubcommandPrefixes[Lds], subcommand("lds")],
        Annotated[Replay, subcommand("replay")],
        Annotated[Removal, subcommand("removal")],
        Annotated[Benchmark, subcommand("benchmark")],
        Annotated[Report, subcommand("report")],
        Annotated[Explain, subcommand("explain")],
    )
    union: Any = commands[0]
    for command in commands[1:]:
        union = union | command
    return union


def _train_defaults(given: Sequence[str]) -> Train:
    """A named dataset's training settings are the defaults, shown by --help too."""
    config = TrainConfig()
    for option, value in zip(given, [*given[1:], ""], strict=False):
        name = value if option == "--dataset" else option.removeprefix("--dataset=")
        if option.startswith("--dataset") and name in NAMED:
            config = TrainConfig.for_dataset(name)
    return Train(config=config)


def _resource_refusal(error: Exception) -> str | None:
    """What the machine has too little of, in one line; None for any other error."""
    if refusal := disk_refusal(error, "the output"):
        return str(refusal)
    told = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in told or "allocate memory" in told:
        return (
            "out of memory: lower --memory-budget or --batch-size, or close other programs; what "
            "was computed is kept"
        )
    return None


def _fail(message: str, code: int) -> int:
    print(f"retrac: {' '.join(message.split())}", file=sys.stderr)
    return code


def run() -> None:
    """Entry point of the `retrac` script."""
    keep_freed_memory()
    sys.exit(main())
