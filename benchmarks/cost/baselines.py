"""A plain training step, and what can be done without a library."""

import torch
from torch import Tensor, nn

from benchmarks.cost.ours import NOISES, query_plan
from benchmarks.cost.workload import Draws, Work, Workload, scores
from retrac.diffusion.shown import fast_memory_format
from retrac.gradients.weights import WEIGHTS


def plain_step(workload: Workload) -> Work:
    """Forward and backward of the mean loss over a batch."""

    def run() -> None:
        workload.losses.zero_grad(set_to_none=True)
        workload.losses(*workload.samples).mean().backward()

    return Work(run, workload.network.batch)


def input_gradient(workload: Workload) -> Work:
    """Forward, and backward to the input: what any gradient needs."""
    images, timesteps, noise = workload.samples

    def run() -> None:
        pixels = images.detach().requires_grad_()
        torch.autograd.grad(workload.losses(pixels, timesteps, noise).mean(), pixels)

    return Work(run, workload.network.batch)


def naive_scores(workload: Workload) -> Work:
    """As published: a batch of one, autograd, one inner product per query and method."""
    rows = _query_rows(workload)
    samples = workload.samples.first(workload.network.part)

    def run() -> Tensor:
        dots, norms = [], []
        for sample in samples.split(1):
            gradient = _gradient(workload.losses, sample)
            norms.append(torch.linalg.vector_norm(gradient))
            dots.append(torch.stack([torch.dot(row, gradient) for row in rows]))
        return scores(torch.stack(dots), torch.stack(norms))

    return Work(run, workload.network.part)


def naive_query(workload: Workload) -> Work:
    """As published: a batch of one for each draw, a mean over noises, a sum over timesteps."""
    plan = query_plan(workload, max(1, workload.network.part // NOISES))
    image = workload.queries.images[:1]
    noise = fast_memory_format(plan.draw(image[0].cpu()).flatten(0, 1).to(image))
    timesteps = plan.timesteps.to(image.device).repeat_interleave(NOISES)
    draws = Draws(image.expand_as(noise), timesteps, noise)

    def run() -> None:
        tracin = torch.zeros(sum(p.numel() for p in workload.losses.parameters())).to(image)
        retrac = torch.zeros_like(tracin)
        for noises in draws.split(NOISES):
            mean = torch.zeros_like(tracin)
            for draw in noises.split(1):
                mean += _gradient(workload.losses, draw) / NOISES
            tracin += mean
            retrac += mean / torch.linalg.vector_norm(mean)

    return Work(run, len(noise))


def vmapped_scores(workload: Workload) -> Work:
    """Every sample's gradient of the whole network, for a chunk of samples at a time."""
    losses, samples = workload.losses, workload.samples.first(workload.network.chunk)
    parameters = {name: parameter.detach() for name, parameter in losses.named_parameters()}
    sizes = [parameter.numel() for parameter in parameters.values()]
    rows = dict(zip(parameters, _query_rows(workload).split(sizes, 1), strict=True))

    def loss(parameters: dict[str, Tensor], *sample: Tensor) -> Tensor:
        one = tuple(part.unsqueeze(0) for part in sample)
        return torch.func.functional_call(losses, parameters, one).squeeze(0)

    gradients_of = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))

    def run() -> Tensor:
        gradients = gradients_of(parameters, *samples)
        dots, norms = [], []
        while gradients:
            name, values = gradients.popitem()
            dots.append(values.flatten(1) @ rows[name].T)
            norms.append(torch.linalg.vector_norm(values.flatten(1), dim=1))
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        return scores(torch.stack(dots).sum(0), norm)

    return Work(run, workload.network.chunk)


def _gradient(losses: nn.Module, draw: Draws) -> Tensor:
    """The gradient at one draw, as a vector."""
    gradients = torch.autograd.grad(losses(*draw).sum(), list(losses.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients])


def _query_rows(workload: Workload) -> Tensor:
    """One direction for each method and query, method by method, as vectors `[M·Q, n]`."""
    losses, queries = workload.losses, workload.network.queries
    size = sum(parameter.numel() for parameter in losses.parameters())
    rows = workload.queries.images.new_empty(len(WEIGHTS), queries, size)
    for place, query in enumerate(workload.queries.split(1)):
        gradient = _gradient(losses, query)
        norm = torch.linalg.vector_norm(gradient)
        for row, weight in zip(rows[:, place], WEIGHTS.values(), strict=True):
            torch.mul(gradient, weight(norm), out=row)
    return rows.flatten(0, 1)
