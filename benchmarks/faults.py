"""Would the tests notice? Faults are seeded into a copy of `src`, one at a time, and each must make
a test fail.

Every fault is a process of its own, forked from one that has the libraries loaded already but
nothing of `retrac`, so that it imports the faulty copy and starts at once.
"""

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
import tyro
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "benchmarks", "examples", "pyproject.toml")
LOADED = (
    *("torch", "diffusers", "transformers", "peft", "datasets", "accelerate", "hypothesis"),
    *("matplotlib.figure", "scipy.stats", "sklearn.metrics", "xarray", "zarr", "tyro"),
)
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore")


class Fault(NamedTuple):
    """What is wrong, where, and which tests should say so."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "the last timestep is never drawn",
        "training/ledger.py",
        "int(moment * self.timesteps)",
        "int(moment * (self.timesteps - 1))",
        ("training/test_ledger.py",),
    ),
    Fault(
        "latents have the luck of the noise",
        "training/ledger.py",
        "np.array([0, kind, epoch, index], np.uint64)",
        "np.array([0, 0, epoch, index], np.uint64)",
        ("training/test_ledger.py",),
    ),
    Fault(
        "samples below 0 are no longer refused",
        "training/ledger.py",
        "if not 0 <= index < self.size:",
        "if not index < self.size:",
        ("training/test_ledger.py",),
    ),
    Fault(
        "a visit's weight is not divided by its batch",
        "training/steps.py",
        "[step.learning_rate / step.batch_size for step in rows]",
        "[step.learning_rate for step in rows]",
        ("training/test_steps.py",),
    ),
    Fault(
        "weights go to samples in their own order, not in the epoch's",
        "training/steps.py",
        "weights[row, ledger.order(epoch)] = np",
        "weights[row] = np",
        ("training/test_steps.py",),
    ),
    Fault(
        "images are mirrored upside down",
        "training/inputs.py",
        "images.flip(-1)",
        "images.flip(-2)",
        ("training/test_inputs.py",),
    ),
    Fault(
        "the warm-up begins with a learning rate of 0",
        "training/optimiser.py",
        "(step + 1) / config.warmup_steps",
        "step / config.warmup_steps",
        ("training/test_loop.py",),
    ),
    Fault(
        "training goes on from the average, not from the weights",
        "training/state.py",
        "            ema.restore(parameters)\n",
        "",
        ("training/test_loop.py", "training/test_resume.py"),
    ),
    Fault(
        "a folder that is there is not replaced",
        "files.py",
        "if path.is_dir():  # which",
        "if False:  # which",
        ("test_files.py",),
    ),
    Fault(
        "what was half written stays",
        "files.py",
        "the first error is the one to tell\n            remove(temporary)",
        "the first error is the one to tell\n            pass",
        ("test_files.py",),
    ),
    Fault(
        "a file that changes keeps its fingerprint",
        "fingerprints.py",
        "_fingerprint(file, file.stat().st_size, file.stat().st_mtime_ns)",
        "_fingerprint(file, 0, 0)",
        ("training/test_adopted.py",),
    ),
    Fault(
        "image files with capital endings are skipped",
        "data/images.py",
        "path.suffix.lower() in EXTENSIONS",
        "path.suffix in EXTENSIONS",
        ("data/test_images.py", "data/test_open.py"),
    ),
    Fault(
        "a corner is cut out, not the centre",
        "data/images.py",
        "left, top = (width - side) // 2, (height - side) // 2",
        "left, top = 0, 0",
        ("data/test_images.py",),
    ),
    Fault(
        "pixels are scaled to [0, 1]",
        "data/dataset.py",
        ".div_(127.5).sub_(1.0)",
        ".div_(255.0)",
        ("data/test_dataset.py",),
    ),
    Fault(
        "labels are the innermost folders",
        "data/folders.py",
        "parts[0] if parts else",
        "parts[-1] if parts else",
        ("data/test_open.py",),
    ),
    Fault(
        "planting shuffles the samples that were there",
        "data/planting.py",
        "order[np.sort(places[count:])]",
        "order[places[count:]]",
        ("data/test_planting.py",),
    ),
    Fault(
        "wrong normalisation darkens instead of brightening",
        "data/planting.py",
        "128 + images // 2",
        "images // 2",
        ("data/test_planting.py",),
    ),
    Fault(
        "the sign of the velocity's sample",
        "diffusion/process.py",
        '"v": (-spread, signal)',
        '"v": (spread, signal)',
        ("diffusion/test_process.py",),
    ),
    Fault(
        "min-SNR weights of v are those of ε",
        "diffusion/process.py",
        "clamped / (process.ratio + 1)",
        "clamped / process.ratio",
        ("diffusion/test_process.py",),
    ),
    Fault(
        "losses are sums over pixels",
        "diffusion/loss.py",
        "distances.flatten(1).mean(1)",
        "distances.flatten(1).sum(1)",
        ("diffusion/test_loss.py",),
    ),
    Fault(
        "an image's noise is that of its place in the call",
        "diffusion/sampling.py",
        "_generator(seed, indices[place])",
        "_generator(seed, place)",
        ("diffusion/test_sampling.py",),
    ),
    Fault(
        "scales of normalisations lack the mean",
        "gradients/rules/norm.py",
        "(along - mean * past) * scale",
        "along * scale",
        ("gradients/test_norm.py",),
    ),
    Fault(
        "the row of an embedding's padding is trained",
        "gradients/rules/embedding.py",
        "chosen[..., layer.padding_idx] = 0",
        "pass",
        ("gradients/test_embedding.py",),
    ),
    Fault(
        "layers that mix samples are no longer refused",
        "gradients/rules/fallback.py",
        "if not _agree(output.to(call.kept.dtype), call.kept):",
        "if False:",
        ("gradients/test_fallback.py",),
    ),
    Fault(
        "sketches are not scaled to keep inner products",
        "gradients/sketch.py",
        "math.sqrt(channels / kept)",
        "1.0",
        ("gradients/test_sketch.py",),
    ),
    Fault(
        "replayed visits do not stand for those that are left out",
        "attribution/replay.py",
        "weights = shares * total",
        "weights = replayed",
        ("attribution/test_replay.py", "attribution/test_attribute.py"),
    ),
    Fault(
        "pairs of noises have the same sign",
        "attribution/plan.py",
        "torch.stack((noise, -noise), 2)",
        "torch.stack((noise, noise), 2)",
        ("attribution/test_plan.py",),
    ),
    Fault(
        "λ is a share of the mean over numbers, not over samples",
        "attribution/metrics.py",
        "gram.diagonal().sum()) / count",
        "gram.diagonal().sum()) / size",
        ("attribution/test_metrics.py",),
    ),
    Fault(
        "a query has the noises of an equal sample",
        "attribution/draws.py",
        "hashlib.sha256(side + pixels",
        "hashlib.sha256(pixels",
        ("attribution/test_draws.py",),
    ),
    Fault(
        "visits fall into bins one too late",
        "attribution/draws.py",
        "// self.run.timesteps == which",
        "// self.run.timesteps == which + 1",
        ("attribution/test_draws.py",),
    ),
    Fault(
        "the jackknife's error is too small by the number of parts",
        "attribution/feature_work.py",
        "whole / count + (count - 1) / count",
        "whole / count + 1 / count",
        ("attribution/test_metrics.py",),
    ),
    Fault(
        "visits do not count by their learning rates",
        "attribution/sample_scores.py",
        "weight(norms) * counted for",
        "weight(norms) for",
        ("attribution/test_attribute.py",),
    ),
    Fault(
        "Adam's metric divides by the mean square, without the root",
        "attribution/parameter_metrics.py",
        "corrected.sqrt() + EPS",
        "corrected + EPS",
        ("attribution/test_parameter_metrics.py",),
    ),
    Fault(
        "sampled targets are too far apart",
        "attribution/curvatures.py",
        "(2 / size * predicted.weight).sqrt()",
        "(4 / size * predicted.weight).sqrt()",
        ("attribution/test_parameter_metrics.py",),
    ),
    Fault(
        "the output's square is its absolute value",
        "diffusion/measurements.py",
        "predicted.output.square()",
        "predicted.output.abs()",
        ("diffusion/test_measurements.py",),
    ),
    Fault(
        "layers are weighed the wrong way round",
        "attribution/layer_weights.py",
        "[known[name] for name in layers]",
        "[known[name] for name in reversed(layers)]",
        ("attribution/test_layer_weights.py",),
    ),
    Fault(
        "lists are numbered from 0",
        "attribution/ranking.py",
        "enumerate(rows, start=1)",
        "enumerate(rows, start=0)",
        ("attribution/test_attribution.py",),
    ),
    Fault(
        "scores foretell losses, not their fall",
        "evaluation/lds.py",
        "[:, asked], -self.losses.mean(1)[:, asked]",
        "[:, asked], self.losses.mean(1)[:, asked]",
        ("evaluation/test_lds.py",),
    ),
    Fault(
        "a query is among its own nearest samples",
        "evaluation/answers.py",
        "found[found != self.own][:k] if",
        "found[:k] if",
        ("evaluation/test_metrics.py",),
    ),
    Fault(
        "intervals are too narrow by the root of their count",
        "interval.py",
        "math.sqrt((count - 1) * np.var(left_out))",
        "math.sqrt(np.var(left_out))",
        ("evaluation/test_interval.py",),
    ),
)


@dataclass(frozen=True)
class Settings:
    """What is tried."""

    tests: Path = ROOT / "tests"
    """The folder of tests, perhaps another checkout's."""
    output: Path | None = None
    """A JSON file that is told whether each fault was caught."""
    named: str = "caught"
    """Under which name."""
    only: str = ""
    """Faults with this in their name or file alone."""


def main(settings: Settings) -> int:
    """Try every fault; 1 if one is not caught."""
    for name in LOADED:
        import_module(name)
    table = Table("fault", "file", "caught")
    found: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder), settings.tests)
        for fault in FAULTS:
            if settings.only not in fault.name + fault.file:
                continue
            with seeded(copy / "src/retrac" / fault.file, fault):
                found[fault.name] = caught(copy, fault.tests)
            print(f"{'caught' if found[fault.name] else 'MISSED'}: {fault.name}", file=sys.stderr)
            table.add_row(fault.name, fault.file, "yes" if found[fault.name] else "NO")
    Console(width=120).print(table)
    if settings.output is not None:
        write(settings.output, settings.named, found)
    return 0 if all(found.values()) else 1


def copied(folder: Path, tests: Path) -> Path:
    """The repository, with these tests."""
    ignored = shutil.ignore_patterns("__pycache__", "results")
    for name in COPIED:
        source = tests if name == "tests" else ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


@contextlib.contextmanager
def seeded(file: Path, fault: Fault) -> Iterator[None]:
    """Have the fault in the copy for a while."""
    right = file.read_text(encoding="utf-8")
    if right.count(fault.before) != 1:
        raise SystemExit(f"{fault.file} has changed: {fault.before!r} must be in it once")
    file.write_text(right.replace(fault.before, fault.after), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(right, encoding="utf-8")


def caught(copy: Path, tests: tuple[str, ...]) -> bool:
    """Whether one of the tests fails."""
    processes = multiprocessing.get_context("fork")
    here, there = processes.Pipe(duplex=False)
    process = processes.Process(target=_run, args=(copy, tests, there))
    process.start()
    there.close()
    code, told = here.recv()
    process.join()
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"the tests could not run:\n{told}")
    return bool(code == pytest.ExitCode.TESTS_FAILED)


def _run(copy: Path, tests: tuple[str, ...], answer: Connection) -> None:
    os.chdir(copy)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(copy / "src"))
    os.environ["PYTHONPATH"] = str(copy / "src")  # of processes that tests start
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = pytest.main([*OPTIONS, *(f"tests/{name}" for name in tests)])
    answer.send((int(code), told.getvalue()))


def write(file: Path, named: str, found: dict[str, bool]) -> None:
    """Add the answers to those that are in the file."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    rows = {row["fault"]: row for row in known}
    content = [
        {"fault": fault.name, "file": fault.file, **rows.get(fault.name, {})} for fault in FAULTS
    ]
    for row in content:
        if row["fault"] in found:
            row[named] = found[row["fault"]]
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
