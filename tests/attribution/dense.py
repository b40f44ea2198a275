"""Methods of features as dense algebra: gradients by autograd, kernels written out, in float64."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from retrac.attribution.draws import Rows
from retrac.attribution.feature_plan import FeaturePlan
from retrac.diffusion.measurements import Measurement
from retrac.training.run import Run


@dataclass(frozen=True, eq=False)
class Gradients:
    """Of S images: `sums` over draws `[R, G, S, n]` by measurement and part, `counts [G, S]`."""

    sums: Tensor
    counts: Tensor

    def mean(self, without: int | None = None) -> Tensor:
        """Over the draws of all parts, or of all but one: `[R, S, n]`."""
        parts = [part for part in range(len(self.counts)) if part != without]
        counts = self.counts[parts].sum(0).clamp(min=1)
        return self.sums[:, parts].sum(1) / counts[:, None]


def summed(
    run: Run,
    model: nn.Module,
    measurements: tuple[Measurement, ...],
    rows: Iterable[Rows],
    images: int,
    parts: int,
) -> Gradients:
    """The gradient of what an image's draws of a part measure together is the sum of theirs."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size = sum(parameter.numel() for parameter in trained)
    sums = torch.zeros(len(measurements), parts, images, size, dtype=torch.float64)
    counts = torch.zeros(parts, images, dtype=torch.int64)
    for some in rows:
        for image, part in sorted(set(zip(some.image.tolist(), some.part.tolist(), strict=True))):
            which = (some.image == image) & (some.part == part)
            measured = run.objective.measure(model, *some.batch.rows(which), measurements)
            values = [each.sum() for each in measured]
            for number, value in enumerate(values):
                gradients = torch.autograd.grad(value, trained, retain_graph=True)
                sums[number, part, image] += torch.cat([each.flatten() for each in gradients])
            counts[part, image] += int(which.sum())
    return Gradients(sums, counts)


def by_bin(
    plan: FeaturePlan, model: nn.Module, queries, samples
) -> Iterable[tuple[Gradients, Gradients]]:
    """Gradients of queries and samples in each bin of a plan's draws."""
    run, source = plan.scorer.run, plan.source
    for which in range(source.bins):
        rows = source.query_rows(queries, which, 64), source.sample_rows(samples, which, 64)
        yield tuple(
            summed(run, model, plan.measurements, some, size, source.parts)
            for some, size in zip(rows, (len(queries), len(samples)), strict=True)
        )


def layers_of(model: nn.Module) -> list[slice]:
    """Where the numbers of each layer lie in a flat gradient."""
    trained = [(name, p.numel()) for name, p in model.named_parameters() if p.requires_grad]
    layers, start = [], 0
    for _, members in groupby(trained, lambda each: each[0].rpartition(".")[0]):
        size = sum(numbers for _, numbers in members)
        layers.append(slice(start, start + size))
        start += size
    return layers


def kernel(queries: Tensor, samples: Tensor, damping: float) -> Tensor:
    """`K_q (K + λ mean(diag K) I)⁻¹`, zero where K is."""
    gram = samples @ samples.T
    return solved(queries, samples, damping * float(gram.diagonal().mean()))


def solved(queries: Tensor, samples: Tensor, shift: float) -> Tensor:
    """`K_q (K + λI)⁻¹`."""
    if shift == 0:
        return queries.new_zeros(len(queries), len(samples))
    gram = samples @ samples.T
    damped = gram + shift * torch.eye(len(gram), dtype=gram.dtype)
    return (queries @ samples.T) @ torch.linalg.inv(damped)


def freely(queries: Tensor, samples: Tensor, number: float) -> Tensor:
    """The same with the λ that leaves so many degrees of freedom, `tr K (K + λI)⁻¹`, or half of
    the rank of K."""
    gram = samples @ samples.T
    wanted = min(number, int(torch.linalg.matrix_rank(gram)) / 2)
    identity = torch.eye(len(gram), dtype=gram.dtype)

    def excess(log: float) -> float:
        return float(torch.linalg.solve(gram + math.exp(log) * identity, gram).trace()) - wanted

    scale = math.log(float(gram.trace()))
    return solved(queries, samples, math.exp(brentq(excess, scale - 20, scale + 5, xtol=1e-13)))


def kernel_retrac(queries: Tensor, samples: Tensor, layers: list[slice]) -> Tensor:
    """The sum over measurements `[R, …, n]`, the mean over layers."""
    every = [
        kernel(one[:, layer], two[:, layer], 0.1)
        for one, two in zip(queries, samples, strict=True)
        for layer in layers
    ]
    return torch.stack(every).sum(0) / len(layers)


def trak(queries: Tensor, samples: Tensor, layers: list[slice]) -> Tensor:
    """One kernel."""
    return freely(queries[0], samples[0], 25)


def d_trak(queries: Tensor, samples: Tensor, layers: list[slice]) -> Tensor:
    """The same: what differs is what is measured."""
    return freely(queries[0], samples[0], 25)


def cosine(queries: Tensor, samples: Tensor, layers: list[slice]) -> Tensor:
    """Between unit vectors."""
    one, two = (rows[0] / rows[0].norm(dim=1, keepdim=True) for rows in (queries, samples))
    return one @ two.T
