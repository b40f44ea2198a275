"""Trainings in processes of their own that are killed, without warning or clean-up.

The processes are forked from a server that has torch loaded already, so that each starts at once.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from retrac.training import loop
from retrac.training.config import TrainConfig

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "open"}
"""Audit events of what alters the disk (and reads of it)."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["retrac.training.loop", "matplotlib.backends.backend_agg"])


def killed_after(seconds: float, config: TrainConfig, output: Path) -> int | None:
    """Train, and `kill -9` after some time; the exit code, 0 if it ended before."""
    return _end(_start(_train, config, output), seconds)


def killed_at_change(number: int, config: TrainConfig, output: Path) -> int | None:
    """Train, and die just before the so-many-th access to a file of the run."""
    return _end(_start(_train_until, number, config, output), 60)


def _start(target: Callable[..., None], *arguments: object) -> BaseProcess:
    process = _context.Process(target=target, args=arguments)
    process.start()
    return process


def _end(process: BaseProcess, seconds: float) -> int | None:
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


def _train(config: TrainConfig, output: Path) -> None:
    loop.STATE_SECONDS = 0.0  # save after every step
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    loop.train(config, output)


def _train_until(number: int, config: TrainConfig, output: Path) -> None:
    left = number

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in CHANGES and str(arguments[0]).startswith(str(output)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)

    sys.addaudithook(watch)
    _train(config, output)
