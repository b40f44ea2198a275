"""Scores by the derivative through a window of training, and what became of it without samples."""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from retrac.attribution.asked import Queries
from retrac.attribution.attribution import FIRST
from retrac.attribution.calibration import Calibration, random_sets
from retrac.attribution.config import TRAINED
from retrac.attribution.losses import mean_losses
from retrac.attribution.memory import MOST_ROWS, budget_of
from retrac.attribution.methods import Draws, Method
from retrac.attribution.parts import Parts
from retrac.attribution.scorer import Scorer
from retrac.diffusion.device import choose_device, exact_convolutions
from retrac.diffusion.shown import Shown
from retrac.errors import RetracError
from retrac.gradients.memory import activation_bytes, model_bytes
from retrac.progress import progress
from retrac.training.loop import make_accelerator
from retrac.training.run import Checkpoint
from retrac.training.trained import TrainedRun
from retrac.unrolled import (
    Adjoint,
    ReplayBank,
    Segments,
    State,
    Swept,
    Window,
    back,
    forward,
    least_states,
)

TWICE = 6
"""A pass that is differentiated twice holds about so many times what a plain one holds."""
HELD = 3
"""Adjoints of a query that are in memory at a time: before and after a step, and on the way."""
APART = 0.1
"""Of the way that weights went in a window: how far its replay may end from the checkpoint."""


@dataclass(frozen=True)
class Share:
    """Sizes of what is in memory at one time.

    Attributes:
        queries: that are carried back together.
        states: of the training.
        rows: samples that are differentiated together.
    """

    queries: int
    states: int
    rows: int


@dataclass(frozen=True, eq=False)
class UnrolledPlan:
    """A window of a run, and how queries are carried back through it.

    Attributes:
        scorer: what all methods have in common.
        methods: those that look at a window.
        run: what `retrac train` made.
        from_epoch: whole epochs before the window.
        last: the checkpoint at its end.
    """

    scorer: Scorer
    methods: tuple[Method, ...]
    run: TrainedRun
    from_epoch: int
    last: Checkpoint

    @staticmethod
    def of(scorer: Scorer) -> "UnrolledPlan | None":
        """None where no method looks at a window.

        Raises:
            RetracError: no such window, a run or settings of which steps cannot be differentiated.
        """
        config, run = scorer.config, scorer.run
        methods = tuple(each for each in config.chosen if each.draws is Draws.WINDOW)
        if not methods:
            return None
        name, first, last = methods[0].name, config.from_epoch, scorer.replays[-1].checkpoint
        if type(run) is not TrainedRun:
            raise RetracError(
                f"{name} differentiates the steps of a training, which are known of runs of "
                f"`retrac train` alone: {run.path} is none"
            )
        starts = [0, *(each.epoch for each in run.checkpoints if each.epoch < last.epoch)]
        if first not in starts:
            raise RetracError(
                f"{run.path} has no checkpoint after epoch {first} before that of epoch "
                f"{last.epoch}: --from-epoch can be {', '.join(map(str, starts))}"
            )
        assert first is not None
        unfit = {
            "--parameters": config.parameters != TRAINED,
            "--by-layer": config.by_layer,
            "--layer-weights": config.layer_weights is not None,
            "--replay-back": config.replay_back != 0,
        }
        for option, given in unfit.items():
            if given:
                raise RetracError(f"{option} does not go with {name}: leave it out")
        if config.compute.precision not in ("float32", "float64"):
            raise RetracError(
                f"--precision {config.compute.precision} is too coarse for {name}, which "
                "differentiates twice: use float32 or float64"
            )
        if run.config.mixed_precision == "fp16":
            raise RetracError(
                f"{run.path} was trained in fp16, whose scaler skips steps: {name} is for "
                "trainings in float32 or bf16"
            )
        device = make_accelerator(run.config).device.type
        if choose_device(config.compute.device).type != device:
            raise RetracError(
                f"{name} takes the steps of the training where it would train, on {device}: use "
                f"--device {device}"
            )
        if config.calibration_sets:
            ReplayBank(run, first, last.epoch).refuse_other()
        return UnrolledPlan(scorer, methods, run, first, last)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the scores, as JSON values."""
        return {
            "methods": [method.name for method in self.methods],
            "from_epoch": self.from_epoch,
            "calibration_sets": self.scorer.config.calibration_sets,
        }

    def work(self, queries: Queries) -> "UnrolledWork":
        """For some queries."""
        return UnrolledWork(self, queries)


@dataclass(frozen=True, eq=False)
class UnrolledWork:
    """Some queries, carried back through a window.

    Attributes:
        plan: the window.
        queries: Q of them.
    """

    plan: UnrolledPlan
    queries: Queries

    @property
    def bank(self) -> ReplayBank:
        """Of this window."""
        return ReplayBank(self.plan.run, self.plan.from_epoch, self.plan.last.epoch)

    @cached_property
    def sets(self) -> list[np.ndarray]:
        """The random sets without which the window is replayed."""
        return random_sets(self.plan.run.size, self.plan.scorer.config.calibration_sets)

    def window(self) -> Window:
        """From its beginning."""
        plan = self.plan
        precision = plan.scorer.config.compute.precision
        return Window(plan.run, plan.from_epoch, plan.last.epoch, precision)

    def share(self, window: Window, begun: int = 0) -> Share:
        """Divide the memory budget.

        Args:
            window: of the work.
            begun: queries in a block of work that was begun; 0 where none was.

        Raises:
            RetracError: it cannot hold one query, one sample and the states of a way back.
        """
        run, state = self.plan.run, window.state()
        config = self.plan.scorer.config.compute
        # Two networks, and of the training its state and gradients, each a second time on the way.
        fixed = 4 * model_bytes(window.network) + 2 * state.nbytes
        budget = budget_of(config, window.device) - fixed
        with sdpa_kernel(SDPBackend.MATH):
            row = TWICE * activation_bytes(
                window.network, lambda: run.objective.losses(window.network, *self._probe(window))
            )
        query = HELD * state.nbytes
        least = least_states(len(window.steps)) * state.nbytes + query + row
        if budget < least:
            raise RetracError(
                "the memory budget is too small for this window: its states, one query and one "
                f"sample need {least / 2**20:.0f}MB more than networks do, and {budget / 2**20:.0f}"
                "MB are left; raise --memory-budget, or take a shorter window"
            )
        spare = budget - least
        queries = begun or max(1, min(len(self.queries), 1 + spare // 3 // query))
        rows = max(1, min(MOST_ROWS, run.config.batch_size, 1 + spare // 3 // row))
        left = max(0, spare - (queries - 1) * query - (rows - 1) * row)
        return Share(queries, least_states(len(window.steps)) + left // state.nbytes, rows)

    def do(self, parts: Parts) -> None:
        """Carry the queries back, and replay the windows; what is there is not done again."""
        self.carry_back(parts)
        self.bank.replay(self.calibrating(parts))

    def calibrating(self, parts: Parts) -> list[np.ndarray]:
        """Sets of samples without which the window is replayed: none, random ones, and each
        query's first ten."""
        if not self.sets:
            return []
        return [np.array([], int), *self.sets, *self._first(self.assemble(parts))]

    def assemble(self, parts: Parts) -> np.ndarray:
        """Scores `[Q, N]`."""
        return parts.get(self.name)["scores"]

    def calibration(self, parts: Parts) -> Calibration | None:
        """What was foretold of windows, and what became of them; None where none were replayed."""
        if not self.sets:
            return None
        scores = self.assemble(parts).astype(float)
        first = self._first(scores)
        window = self.window()
        none = self.losses(window, np.array([], int))
        random, without = [], []
        with progress("measure", len(self.sets) + len(first), "replays") as advance:
            for each in self.sets:
                random.append(self.losses(window, each) - none)
                advance()
            for query, each in enumerate(first):
                (loss,) = self.losses(window, each, self.queries.take([query]))
                without.append(loss - none[query])
                advance()
        return Calibration(
            np.stack([scores[:, each].sum(1) for each in self.sets], 1),
            np.stack(random, 1),
            np.array([row[each].sum() for row, each in zip(scores, first, strict=True)]),
            np.array(without),
        )

    @property
    def name(self) -> str:
        """Of the piece with its scores."""
        plan = self.plan
        return f"window-{plan.from_epoch:04d}-{plan.last.epoch:04d}"

    def _first(self, scores: np.ndarray) -> Sequence[np.ndarray]:
        return list(np.argsort(-scores, 1, kind="stable")[:, :FIRST])

    def losses(
        self, window: Window, removed: np.ndarray, queries: Queries | None = None
    ) -> np.ndarray:
        """What queries lose at the end without some samples, `[Q]`.

        Args:
            window: whose network is to run.
            removed: indices of the samples; the window was replayed without them.
            queries: Q of them; all by default.
        """
        weights = self.bank.weights(removed).to(window.parameters[0])
        window.layout.write(weights, window.parameters)
        return self.measured(window, self.queries if queries is None else queries)

    def measured(self, window: Window, queries: Queries) -> np.ndarray:
        """What some queries lose with a window's network as it is, `[Q]`."""
        run, plan = self.plan.run, self.plan.scorer.plan.at(self.plan.last.epoch)
        with exact_convolutions():
            return mean_losses(
                window.network, run.objective, plan, queries.asked(run, plan), run.config.batch_size
            )

    def carry_back(self, parts: Parts) -> None:
        """Score by the derivative; what is there is not done again."""
        if self.name in parts:
            return
        share = self.share(self.window(), self._begun(parts.names))
        blocks = self._blocks(share.queries)
        each = 2 * self.steps
        with progress("unroll", each * len(blocks), "steps") as advance:
            for name, queries in blocks.items():
                if name not in parts:
                    effects = self._carried_back(name, queries, share, parts, advance)
                    parts.put(name, {"scores": -effects})
                    parts.drop(_reached(name))
                else:
                    advance(each)
        scores = [parts.get(name)["scores"] for name in blocks]
        parts.put(self.name, {"scores": np.concatenate(scores)})

    @property
    def steps(self) -> int:
        """In the window."""
        return (self.plan.last.epoch - self.plan.from_epoch) * self.plan.run.steps_per_epoch

    def _begun(self, there: Container[str]) -> int:
        """Queries in a block of work that was begun, which goes on in such blocks; 0 without."""
        for last in range(len(self.queries), 0, -1):
            name = self._block(0, last)
            if name in there or _reached(name) in there:
                return last
        return 0

    def _blocks(self, size: int) -> dict[str, Queries]:
        """Queries that are carried back together, by the name of their piece."""
        count = len(self.queries)
        bounds = [(at, min(at + size, count)) for at in range(0, count, size)]
        return {self._block(*each): self.queries.take(range(*each)) for each in bounds}

    def _block(self, first: int, stop: int) -> str:
        return f"{self.name}-queries-{first:05d}-to-{stop:05d}"

    def _carried_back(
        self,
        name: str,
        queries: Queries,
        share: Share,
        parts: Parts,
        advance: Callable[..., None],
    ) -> np.ndarray:
        """What the weights of samples do to some queries, `[Q, N]`.

        Raises:
            RetracError: a number that is not finite, or a window that leads elsewhere.
        """
        window = self.window()
        segments = Segments.within(window.steps, share.states)
        there = _read(_reached(name), parts, window.device)
        until = window.steps.stop if there is None else there.step
        kept = dict(forward(window, segments, until, advance))
        advance(2 * (window.steps.stop - until))
        swept = there or self._start(window, queries, share.rows, kept[window.steps.start])
        for reached in back(window, segments, kept, swept, share.rows, advance):
            swept = reached
            numbers = (*swept.adjoint, swept.effects)
            finite = torch.stack([each.flatten(1).isfinite().all(1).cpu() for each in numbers])
            for query, sound in zip(queries.ids, finite.all(0).tolist(), strict=True):
                if not sound:
                    raise RetracError(
                        f"the derivative of {query} is not finite: the training is not smooth in "
                        "this window; take a shorter one"
                    )
            if swept.step > window.steps.start:
                parts.put(_reached(name), _arrays(swept))
        return swept.effects.numpy()

    def _start(self, window: Window, queries: Queries, rows: int, begin: State) -> Swept:
        """Where the way back begins, at the end of the window.

        Raises:
            RetracError: that is not where the training came to.
        """
        end = window.state()
        self._refuse_other_end(window, begin, end)
        window.layout.write(end.generating, window.parameters)
        upon = torch.stack(
            [self._gradient(window, queries.take([q]), rows) for q in range(len(queries))]
        )
        effects = torch.zeros(len(queries), self.plan.run.size, dtype=torch.float64)
        return Swept(window.steps.stop, Adjoint.of(upon, end), effects)

    def _refuse_other_end(self, window: Window, begin: State, end: State) -> None:
        load = self.plan.last.load(self.plan.run.shape)
        there = window.layout.vector([p.detach() for p in load.parameters()]).to(end.weights)
        way = (there - begin.weights).norm().clamp(min=1e-30)
        apart = float((end.weights - there).norm() / way)
        if not apart <= APART:
            raise RetracError(
                f"the steps of epochs {self.plan.from_epoch} to {self.plan.last.epoch} do not lead "
                f"to the weights of {self.plan.last.path} here ({apart:.0%} of the way apart): "
                "another machine or other versions computed them; train there, or take a shorter "
                "window"
            )

    def _gradient(self, window: Window, query: Queries, rows: int) -> Tensor:
        """Of the mean loss of one query over the plan, `[P]`."""
        found = torch.zeros_like(window.layout.vector([p.detach() for p in window.parameters]))
        objective = self.plan.run.objective
        draws = 0
        for shown in self._draws(query, rows):
            with exact_convolutions():
                losses = objective.losses(window.network, *shown.on(window.device))
                found += window.layout.vector(torch.autograd.grad(losses.sum(), window.parameters))
            draws += shown.size
        return found / draws

    def _draws(self, query: Queries, rows: int) -> Iterator[Shown]:
        plan = self.plan.scorer.plan.at(self.plan.last.epoch)
        asked = query.asked(self.plan.run, plan)
        moments = plan.timesteps.repeat_interleave(plan.noises)
        seen = asked.at(slice(None), len(plan.timesteps)).repeated(plan.noises)
        yield from Shown(seen, moments, asked.noises(plan).flatten(0, 2)).split(rows)

    def _probe(self, window: Window) -> Any:
        example = self.plan.run.example.repeated(2).on(window.device)
        moments = torch.zeros(2, dtype=torch.int64, device=window.device)
        return example, moments, example.clean


def _reached(name: str) -> str:
    """Of the piece that tells how far a block has come."""
    return f"{name}-reached"


def _arrays(reached: Swept) -> dict[str, np.ndarray]:
    adjoint = {name: each.cpu().numpy() for name, each in reached.adjoint._asdict().items()}
    return {**adjoint, "step": np.array(reached.step), "effects": reached.effects.numpy()}


def _read(name: str, parts: Parts, device: torch.device) -> Swept | None:
    if name not in parts:
        return None
    found = parts.get(name)
    adjoint = Adjoint(*(torch.from_numpy(found[each]).to(device) for each in Adjoint._fields))
    return Swept(int(found["step"]), adjoint, torch.from_numpy(found["effects"]))
