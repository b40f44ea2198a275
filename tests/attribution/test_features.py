"""Features are the means of their draws' gradients, however passes are cut."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from retrac.attribution.draws import Grid, Source, Visits
from retrac.attribution.features import Features, features, variants
from retrac.attribution.queries import training_samples
from retrac.diffusion.device import placed
from retrac.diffusion.measurements import Measurement, Predicted, loss, output_mean
from retrac.errors import RetracError
from retrac.gradients.allocation import measure_sides
from retrac.gradients.sketch import Projection
from retrac.training.run import Run

from . import dense

SOME = np.array([3, 7, 20])
BOTH = (loss, output_mean)


@pytest.fixture(scope="module")
def model(tiny_run: Run) -> nn.Module:
    """Its last convolution and norm, in float64."""
    network = placed(tiny_run.checkpoints[-1].load(tiny_run.shape), torch.device("cpu"), "float64")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith("conv_"))
    return network


def source_of(run: Run, kind: str) -> Source:
    grid = Grid.spread(run, 4, bins=2, noises=4, seed=0, epoch=6)
    return grid if kind == "grid" else Visits.of(run, range(6), grid)


def made(
    run: Run,
    model: nn.Module,
    source: Source,
    rows: Callable[..., object],
    group: int,
    most: int,
    measurements: tuple[Measurement, ...] = BOTH,
) -> Features:
    example = run.example.repeated(2)
    probe = partial(run.objective.losses, model, example, torch.tensor([9, 9]), example.clean)
    sides = measure_sides(model, probe)
    whole = {name: (side.inputs, side.outputs) for name, side in sides.items()}
    return features(
        model,
        run.objective,
        measurements,
        rows(1, most),
        Projection(0, whole),
        sum(side.numbers for side in sides.values()),
        len(SOME),
        source.parts,
        group,
        most,
        lambda image: f"image {image}",
    )


@pytest.mark.parametrize("kind", ["grid", "visits"])
@pytest.mark.parametrize("side", ["query", "sample"])
@pytest.mark.parametrize("most", [1, 3, 1000])
def test_features_are_means_of_gradients(
    tiny_run: Run, model: nn.Module, kind: str, side: str, most: int
) -> None:
    source = source_of(tiny_run, kind)
    if side == "query":
        rows, group = (
            partial(source.query_rows, training_samples(tiny_run, "", SOME)),
            source.query_group,
        )
    else:
        rows, group = partial(source.sample_rows, SOME), source.group
    found = made(tiny_run, model, source, rows, group, most)
    expected = dense.summed(tiny_run, model, BOTH, rows(1, 1000), len(SOME), source.parts)
    assert torch.equal(found.counts, expected.counts)
    for without in variants(source.parts):
        one, two = found.mean(without), expected.mean(without)
        assert one.dtype == torch.float64
        gram = two @ two.mT  # numbers lie in another order, which products do not know
        torch.testing.assert_close(one @ one.mT, gram, rtol=0, atol=1e-8 * float(gram.abs().max()))


def test_a_mean_without_draws_is_zero() -> None:
    found = Features(torch.zeros(1, 2, 3, 4), torch.tensor([[0, 2, 1], [0, 0, 1]]))
    found.sums[0, 0, 1:] = 4
    found.sums[0, 1, 2] = 2
    assert found.mean()[0, :, 0].tolist() == [0, 2, 3]
    assert found.mean(0)[0, :, 0].tolist() == [0, 0, 2]
    assert list(variants(1)) == [None] and list(variants(2)) == [None, 0, 1]


def test_a_gradient_that_is_not_finite_names_its_image(tiny_run: Run, model: nn.Module) -> None:
    def breaking(predicted: Predicted) -> Tensor:
        calls.append(len(predicted.losses))
        return predicted.losses * (torch.nan if len(calls) == 2 else 1)

    calls: list[int] = []
    source = source_of(tiny_run, "grid")
    rows = partial(source.sample_rows, SOME)
    with pytest.raises(
        RetracError, match=r"the gradient of image 1 is not finite; .*--checkpoints"
    ):
        made(tiny_run, model, source, rows, source.group, 8, (breaking,))
    assert calls == [8, 8]  # the draws of the second image
