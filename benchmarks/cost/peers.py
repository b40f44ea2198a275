"""Other libraries: TracIn at a single checkpoint, on the same network, loss, samples and queries.

They know nothing of timesteps and noises, so an example is (image, timestep, noise), and its loss
what the module gives for it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.cost.workload import Draws, Losses, Work, Workload
from retrac.diffusion.shown import Seen

DATTRI = 16
"""Samples in a chunk for dattri; 64 would be faster, but exceed this benchmark's memory limit."""


def dattri(workload: Workload) -> Work:
    """All queries' gradients are computed again for every batch of samples."""
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.task import AttributionTask

    losses, chunk = workload.losses, min(DATTRI, workload.network.chunk)

    def loss(parameters: dict[str, Tensor], example: tuple[Tensor, ...]) -> Tensor:
        one = tuple(part.unsqueeze(0) for part in example)
        return torch.func.functional_call(losses, parameters, one).squeeze(0)

    attributor = TracInAttributor(
        AttributionTask(loss, losses, losses.state_dict()),
        torch.ones(1),
        normalized_grad=False,
        device=str(workload.samples.images.device),
    )
    attributor.projector_kwargs = None  # no argument switches its random projection off
    samples = DataLoader(TensorDataset(*workload.samples.first(chunk)), chunk)
    queries = DataLoader(TensorDataset(*workload.queries), chunk)

    def run() -> Tensor:
        return attributor.attribute(samples, queries)[None]

    return Work(run, chunk)


def captum(workload: Workload) -> Work:
    """A backward pass for each sample, through its whole batch: fastest with batches of one."""
    return _tracincp(workload, workload.network.part, 1, sample_wise=False)


def captum_sample_wise(workload: Workload) -> Work:
    """A backward pass for each batch."""
    chunk = workload.network.chunk
    return _tracincp(workload, chunk, chunk, sample_wise=True)


class _SmoothTimesteps(Losses):
    """Timesteps as numbers that a gradient can reach: captum hooks the input of every layer, also
    of those that embed the timestep."""

    def forward(self, images: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """The losses `[B]`."""

        def network(noisy: Tensor, _: Tensor) -> Any:
            return self.model(noisy, timesteps)

        return self.objective.losses(network, Seen(images), timesteps.long(), noise)


def _tracincp(workload: Workload, count: int, batch: int, sample_wise: bool) -> Work:
    from captum.influence import TracInCP

    class WithQueriesKept(TracInCP):
        """Keeps the queries' gradients, which many samples share; views what it computes as rows,
        which it fails to do where channels come last."""

        known = None

        def _get_checkpoint_jacobians(self, *args: Any, **kwargs: Any) -> Any:
            if self.known is None:
                self.known = super()._get_checkpoint_jacobians(*args, **kwargs)
            return self.known

        def _basic_computation_tracincp(self, *args: Any, **kwargs: Any) -> Any:
            found = super()._basic_computation_tracincp(*args, **kwargs)
            return tuple(gradient.contiguous() for gradient in found)

    samples, queries = (
        DataLoader(_examples(draws), batch)
        for draws in (workload.samples.first(count), workload.queries)
    )
    tracin = WithQueriesKept(
        _SmoothTimesteps(workload.losses.model, workload.losses.objective),
        samples,
        ["as it is"],
        lambda model, checkpoint: 1.0,
        sample_wise_grads_per_batch=sample_wise,
    )
    tracin.influence(queries)

    def run() -> Tensor:
        return tracin.influence(queries).T[None]

    return Work(run, count)


def _examples(draws: Draws) -> TensorDataset:
    """Examples as captum wants them, with labels, of which there are none."""
    images, timesteps, noise = draws
    return TensorDataset(images, timesteps.to(images), noise, torch.zeros(len(images)))
