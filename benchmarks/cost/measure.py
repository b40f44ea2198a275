"""Time and memory of one row on one network, in a process of its own."""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

import numpy as np
import torch

from benchmarks.cost.memory import limit_memory, peak_memory
from benchmarks.cost.networks import Network
from benchmarks.cost.rows import PLAIN, Row
from benchmarks.cost.workload import Workload
from retrac.allocator import keep_freed_memory

LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Timing:
    """How a row is timed.

    Attributes:
        device: as torch calls it.
        rounds: of a plain step and the row, in turn, after one to warm up.
        seconds: after which no further round starts, unless there are too few.
        limit: seconds after which a row is given up.
    """

    device: str
    rounds: int
    seconds: float
    limit: float


@dataclass(frozen=True, eq=False)
class Cost:
    """What was measured.

    Attributes:
        plain: seconds of the plain step per sample, the median of the rounds.
        ratios: of each round, seconds of the row per unit to those of the plain step per sample.
        units: that were timed in each round.
        peak_bytes: beyond the network, the batch, and directions known beforehand.
        scores: `[M, S, Q]`, where the row gives any.
    """

    plain: float
    ratios: tuple[float, ...]
    units: float
    peak_bytes: int
    scores: np.ndarray | None


@dataclass(frozen=True)
class Failure:
    """Why a row has no cost."""

    reason: str


def measure_alone(row: Row, network: Network, timing: Timing) -> Cost | Failure:
    """Measure in a new process, whose memory is its own and whose end is not ours."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, row, network, timing))
    process.start()
    sender.close()  # so that the other end's death is seen here
    try:
        if receiver.poll(timing.limit):
            found: Cost | Failure = receiver.recv()
            return found
        return Failure(f"given up after {timing.limit:.0f} s")
    except EOFError:
        return Failure("its process was killed, as it is where memory runs out")
    finally:
        process.kill()
        process.join()


def _send(sender: Connection, row: Row, network: Network, timing: Timing) -> None:
    warnings.simplefilter("ignore")  # of peers, about themselves
    keep_freed_memory()  # as the command line does, for plain steps, too
    limit_memory(timing.device)
    sender.send(measure(row, network, timing))


def measure(row: Row, network: Network, timing: Timing) -> Cost | Failure:
    """Measure here; whatever a row fails with is what the table says."""
    try:
        return _measure(row, network, timing)
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        return Failure(f"{type(error).__name__}: {reason[0][:160]}")


def _measure(row: Row, network: Network, timing: Timing) -> Cost:
    workload = Workload.of(network, timing.device)
    plain, work = PLAIN.prepare(workload), row.prepare(workload)
    plain.run()
    workload.losses.zero_grad(set_to_none=True)
    with peak_memory(timing.device) as peak:
        found = work.run()
    began = time.perf_counter()
    plains: list[float] = []
    ratios: list[float] = []
    while len(ratios) < LEAST_ROUNDS or (
        len(ratios) < timing.rounds and time.perf_counter() - began < timing.seconds
    ):
        pair = [plain, work] if len(ratios) % 2 else [work, plain]  # whichever comes first
        seconds = {id(each): _seconds(each.run, timing.device) / each.units for each in pair}
        plains.append(seconds[id(plain)])
        ratios.append(seconds[id(work)] / plains[-1])
    return Cost(
        statistics.median(plains),
        tuple(ratios),
        work.units,
        peak.bytes,
        None if found is None else found.cpu().numpy(),
    )


def _seconds(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start
