"""EK-FAC against dense algebra on the oracle's gradients."""

from itertools import product

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file
from torch import nn

from families import EVERY, family
from retrac.gradients import CoverageError, Directions, curvature, dots_and_norms, oracle
from retrac.gradients.curvature import EKFAC, Covariances, Eigenvalues
from retrac.gradients.gradient import Dense
from retrac.gradients.tape import per_sample_gradients

from .agreement import directions_for, random_losses

DAMPING = 0.1
BATCH = 6

LAYERS = {
    "linear": (nn.Linear(5, 4), (5,)),
    "linear at positions": (nn.Linear(5, 4), (7, 5)),
    "linear at few positions": (nn.Linear(5, 4, bias=False), (2, 5)),
    "conv 1x1": (nn.Conv2d(3, 4, 1), (3, 4, 4)),
    "conv 1x1, strided": (nn.Conv2d(3, 4, 1, stride=2), (3, 5, 4)),
    "conv": (nn.Conv2d(3, 4, 3, padding=1), (3, 4, 5)),
    "conv of many outputs": (nn.Conv2d(2, 20, 3), (2, 5, 5)),
    "conv, strided": (nn.Conv2d(3, 4, 3, 2, 1), (3, 6, 5)),
    "conv, dilated": (nn.Conv2d(2, 3, (3, 2), dilation=2, padding=1), (2, 7, 6)),
    "conv of groups": (nn.Conv2d(6, 4, 3, padding=1, groups=2), (6, 4, 4)),
    "conv of groups, strided": (nn.Conv2d(4, 6, (2, 3), (2, 1), groups=2), (4, 5, 6)),
    "depthwise": (nn.Conv2d(3, 3, 3, groups=3, bias=False), (3, 5, 5)),
    "conv, reflecting": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 4, 4)),
    "group norm": (nn.GroupNorm(2, 6), (6, 4, 4)),
    "layer norm": (nn.LayerNorm(6), (3, 6)),
    "no rule": (nn.Conv1d(3, 4, 3), (3, 6)),
}


def model_of(kind):
    layer, size = LAYERS[kind]
    return nn.Sequential(layer).double(), torch.randn(BATCH, *size)


def fit_ekfac(model, first, second):
    """In two rounds of forward and backward passes: eigenbases, then eigenvalues."""
    covariances = Covariances()
    for losses in first:
        per_sample_gradients(model, losses, covariances)
    eigenvalues = Eigenvalues(covariances.bases())
    for losses in second:
        per_sample_gradients(model, losses, eigenvalues)
    return eigenvalues.ekfac()


def gradients_of(model, losses):
    """What the tape hands over, by name."""
    gradients = {}
    per_sample_gradients(model, losses, gradients.__setitem__)
    return gradients


def patches_of(layer, images):
    """What a convolution sees, one position after another, `[B, G, P, kh·kw·C/G]`."""
    pad = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    images = nn.functional.pad(images, pad, mode=mode)
    columns = nn.functional.unfold(images, layer.kernel_size, layer.dilation, 0, layer.stride)
    split = columns.unflatten(1, (layer.groups, layer.in_channels // layer.groups, -1))
    return split.permute(0, 1, 4, 3, 2).flatten(3)


def matrices_of(model, name, tensors):
    """`[M, *parameter.shape]` as `[M, G, O, I]`, without the layout's help."""
    layer = model.get_submodule(name.rpartition(".")[0])
    if isinstance(layer, nn.Conv2d):  # [M, G, O, C, kh, kw]
        return tensors.unflatten(1, (layer.groups, -1)).permute(0, 1, 2, 4, 5, 3).flatten(3)
    return (tensors.mT if isinstance(layer, nn.Embedding) else tensors).unsqueeze(1)


def assert_layers_have_means(ekfac):
    means = ekfac.layer_means()
    for name, block in ekfac.blocks.items():
        layer = name.rpartition(".")[0]
        alike = [other for other in ekfac.blocks if other.rpartition(".")[0] == layer]
        total = sum(ekfac.blocks[other].eigenvalues.sum() for other in alike)
        count = sum(ekfac.blocks[other].eigenvalues.numel() for other in alike)
        torch.testing.assert_close(means[name], total / count)
        assert block.eigenvalues.min() >= 0


def assert_preconditions(model, losses):
    """Every parameter has a block, and `(V diag(Λ) Vᵀ + λ)⁻¹` is that of the written gradients."""
    ekfac = fit_ekfac(model, [losses], [losses])
    given = directions_for(model)
    assert ekfac.blocks.keys() == given.keys()
    answers = ekfac.precondition(Directions(given), DAMPING).parameters()
    assert_layers_have_means(ekfac)
    means = ekfac.layer_means()
    for name, written in oracle.per_sample_gradients(model, losses).items():
        basis = ekfac.blocks[name].basis
        if basis is None:
            squares = written.square().mean(0)
            expected = given[name] / (squares + DAMPING * means[name])
            torch.testing.assert_close(answers[name], expected, rtol=1e-8, atol=1e-8)
            continue
        matrices, directions, answer = (
            matrices_of(model, name, tensors).flatten(2)
            for tensors in (written, given[name], answers[name])
        )
        groups = range(len(basis.inputs))
        bases = [torch.kron(basis.outputs[group], basis.inputs[group]) for group in groups]
        values = torch.stack(
            [(matrices[:, group] @ bases[group]).square().mean(0) for group in groups]
        )
        torch.testing.assert_close(ekfac.blocks[name].eigenvalues.flatten(1), values)
        for group in groups:
            curvature = bases[group] @ values[group].diag() @ bases[group].mT
            damped = curvature + DAMPING * means[name] * torch.eye(len(curvature))
            expected = torch.linalg.solve(damped, directions[:, group].mT).mT
            torch.testing.assert_close(answer[:, group], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind, slices, bands):
    model, inputs = model_of(kind)
    assert_preconditions(model, random_losses(model, inputs))


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind.startswith(("lin", "conv", "d"))])
def test_second_moments_are_sums_over_samples_and_positions(kind, slices, bands):
    model, inputs = model_of(kind)
    layer = model[0]
    is_conv = isinstance(layer, nn.Conv2d)
    seen = patches_of(layer, inputs) if is_conv else inputs.reshape(BATCH, 1, -1, 5)
    weight = gradients_of(model, random_losses(model, inputs))["0.weight"]
    sums = weight.second_moments()
    a, b = (torch.zeros_like(each) for each in sums)
    for sample, group, position in product(*map(range, seen.shape[:3])):
        one, other = seen[sample, group, position], weight.b[sample, group, position]
        a[group] += torch.outer(one, one)
        b[group] += torch.outer(other, other)
    torch.testing.assert_close(sums, (a, b))


def test_bands_are_tried_out_both_ways(bands, request):
    model, inputs = model_of("conv")
    weight = gradients_of(model, random_losses(model, inputs))["0.weight"]
    assert weight.inputs.bands == (3 if "by row" in request.node.name else 1)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_of_groups_of_samples(kind, slices, bands):
    model, inputs = model_of(kind)
    for gradient in gradients_of(model, random_losses(model, inputs)).values():
        grouped = gradient.grouped(3)
        if isinstance(gradient, Dense):
            torch.testing.assert_close(grouped.squares(), grouped.values.square().sum(0))
            continue
        moments = gradient.second_moments()
        torch.testing.assert_close(grouped.second_moments(), moments)
        left, right = (torch.linalg.eigh(each)[1] for each in moments)
        numbers = grouped.layout.unpack(grouped.materialise())
        matrices = gradient.matrix_layout.pack(numbers)
        matrices = matrices.view(2, len(left), right.shape[2], left.shape[2])
        expected = (right.mT @ matrices @ left).square().sum(0)
        torch.testing.assert_close(grouped.squares_in(left, right), expected)


def test_embedding(slices):
    model = nn.Sequential(nn.Embedding(5, 3, padding_idx=4))
    chosen = torch.tensor([[0, 1, 1], [2, 4, 0], [1, 0, 3], [3, 3, 3]])
    assert_preconditions(model, random_losses(model, chosen))


def unet(precision=torch.float64):
    model = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(4, 8),
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # some start at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    images, noise = torch.randn(2, 4, 3, 8, 8).to(precision)
    timesteps = torch.tensor([3, 500, 999, 3])
    model.to(precision)
    return model, lambda: (model(images, timesteps).sample - noise).square().flatten(1).mean(1)


def test_a_unet_with_attention():
    model, losses = unet()
    assert any("to_q" in name for name, _ in model.named_parameters())
    assert_preconditions(model, losses)


@pytest.mark.parametrize("name", EVERY)
def test_families_are_covered(name):
    """Every parameter has a block, and applying the damped curvature undoes its inverse."""
    one = family(name)
    network, seen = one.network.double(), one.seen.at(torch.float64)
    timesteps = torch.tensor([3, 500, 999])[: len(seen.clean)]
    losses = lambda: (  # noqa: E731
        one.call(network, seen.clean, timesteps, seen.conditions).square().flatten(1).mean(1)
    )
    ekfac = fit_ekfac(network, [losses], [losses])
    used = gradients_of(network, losses).keys()
    assert ekfac.blocks.keys() == used
    given = {name: rows for name, rows in directions_for(network).items() if name in used}
    there = ekfac.precondition(Directions(given), 0.5)
    means = ekfac.layer_means()
    back = ekfac.apply(there, lambda name, values: values + 0.5 * means[name]).parameters()
    for parameter, directions in given.items():
        if ekfac.blocks[parameter].eigenvalues.any():
            torch.testing.assert_close(back[parameter], directions)


def assert_exact(model, losses):
    """The block is the Fisher information itself."""
    written = oracle.per_sample_gradients(model, losses)["weight"].flatten(1)
    fisher = written.mT @ written / len(written)
    damped = fisher + DAMPING * fisher.diagonal().mean() * torch.eye(len(fisher))
    given = directions_for(model)
    expected = torch.linalg.solve(damped, given["weight"].flatten(1).mT).mT
    ekfac = fit_ekfac(model, [losses], [losses])
    answer = ekfac.precondition(Directions(given)).parameters()["weight"].flatten(1)
    torch.testing.assert_close(answer, expected, rtol=1e-8, atol=1e-8)


def test_exact_where_inputs_and_output_gradients_are_independent():
    model = nn.Linear(4, 3, bias=False)
    inputs, weights = torch.randn(7, 4), torch.randn(5, 3)  # every one meets every other
    all_inputs, all_weights = inputs.repeat_interleave(5, 0), weights.repeat(7, 1)
    assert_exact(model, lambda: (model(all_inputs) * all_weights).sum(1))


def test_exact_for_one_sample_again_and_again():
    model = nn.Linear(4, 3, bias=False)
    inputs, weights = torch.randn(1, 4).expand(5, 4), torch.randn(3)
    assert_exact(model, lambda: model(inputs) @ weights)


def two_halves():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    images, weights = torch.randn(6, 2, 4, 4), torch.randn(6, 3)

    def losses(some):
        return lambda: (model(images[some]) * weights[some]).square().sum(1)

    return model, losses(slice(None)), [losses(slice(2)), losses(slice(2, None))]


def assert_close_on_directions(one: EKFAC, other: EKFAC, model: nn.Module) -> None:
    given = directions_for(model)
    expected = other.precondition(Directions(given)).parameters()
    answers = one.precondition(Directions(given)).parameters()
    assert answers.keys() == expected.keys()
    for name, rows in expected.items():
        torch.testing.assert_close(answers[name], rows, rtol=1e-6, atol=1e-6)


def test_in_two_halves_it_is_the_same_as_at_once():
    model, whole, halves = two_halves()
    one, other = (fit_ekfac(model, passes, passes) for passes in ([whole], halves))
    assert_close_on_directions(one, other, model)


def test_preconditioned_directions_meet_exact_gradients(bands):
    model, whole, _ = two_halves()
    given = Directions(directions_for(model))
    preconditioned = fit_ekfac(model, [whole], [whole]).precondition(given)
    expected, _ = oracle.dots_and_norms(model, whole, preconditioned.parameters())
    dots, _ = dots_and_norms(model, whole, preconditioned)
    torch.testing.assert_close(dots, expected)


def through_a_file(state, folder):
    save_file(state, folder / "state.safetensors")
    return load_file(folder / "state.safetensors")


def test_saved_and_loaded_at_every_point_it_is_the_same(tmp_path):
    model, _, halves = two_halves()
    expected = fit_ekfac(model, halves, halves)
    covariances = Covariances()
    for half in halves:
        covariances = Covariances.of_state(through_a_file(covariances.state(), tmp_path))
        per_sample_gradients(model, half, covariances)
    covariances = Covariances.of_state(through_a_file(covariances.state(), tmp_path))
    eigenvalues = Eigenvalues(covariances.bases())
    for half in halves:
        eigenvalues = Eigenvalues.of_state(through_a_file(eigenvalues.state(), tmp_path))
        per_sample_gradients(model, half, eigenvalues)
    eigenvalues = Eigenvalues.of_state(through_a_file(eigenvalues.state(), tmp_path))
    fitted = eigenvalues.ekfac()
    ekfac = EKFAC.of_state(through_a_file(fitted.state(), tmp_path))
    for name, block in fitted.blocks.items():
        assert ekfac.blocks[name].layout == block.layout
        assert torch.equal(ekfac.blocks[name].eigenvalues, block.eigenvalues)
    assert_close_on_directions(ekfac, expected, model)


def test_a_layer_used_twice(bands):
    layer = nn.Conv2d(3, 3, 3, padding=1)
    model = nn.Sequential(layer, nn.SiLU(), layer)
    losses = random_losses(model, torch.randn(5, 3, 4, 4))
    assert fit_ekfac(model, [losses], [losses]).blocks["0.weight"].basis is not None
    assert_preconditions(model, losses)


def test_a_weight_shared_by_layers_of_different_kinds_is_diagonal():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.linear = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.linear.weight = self.embedding.weight

        def forward(self, chosen):
            return self.linear(torch.tanh(self.embedding(chosen)))

    model = Tied()
    losses = random_losses(model, torch.tensor([[0, 1], [2, 4], [1, 1]]))
    assert fit_ekfac(model, [losses], [losses]).blocks["embedding.weight"].basis is None
    assert_preconditions(model, losses)


def test_passes_that_do_not_use_a_parameter_count_as_zeros():
    first, second = nn.Linear(3, 2), nn.Linear(2, 2)
    model = nn.Sequential(first, second)
    inputs = torch.randn(4, 3)
    with_it = lambda: model(inputs).square().sum(1)  # noqa: E731
    without = lambda: second(inputs[:, :2]).square().sum(1)  # noqa: E731
    ekfac = fit_ekfac(model, [with_it, without], [without, with_it])
    alone = fit_ekfac(model, [with_it], [with_it])
    for name in ("0.weight", "0.bias"):
        torch.testing.assert_close(
            2 * ekfac.blocks[name].eigenvalues, alone.blocks[name].eigenvalues
        )


def test_directions_of_parameters_that_no_pass_used():
    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    losses = lambda: model[0](torch.ones(4, 3)).square().sum(1)  # noqa: E731
    ekfac = fit_ekfac(model, [losses], [losses])
    given = directions_for(model)
    given["1.weight"] = torch.zeros_like(given["1.weight"])
    with pytest.raises(CoverageError, match=r"'1\.bias'.*no curvature"):
        ekfac.precondition(Directions(given))
    given["1.bias"] = torch.zeros_like(given["1.bias"])
    answer = ekfac.precondition(Directions(given)).parameters()
    assert answer.keys() == given.keys() and not answer["1.weight"].any()


def test_a_parameter_without_influence_stays_without():
    model = nn.Linear(3, 2)
    losses = lambda: 0 * model(torch.randn(4, 3)).sum(1)  # noqa: E731
    ekfac = fit_ekfac(model, [losses], [losses])
    for rows in ekfac.precondition(Directions(directions_for(model))).parameters().values():
        assert not rows.any()


def test_single_precision():
    answers = []
    for precision in (torch.float64, torch.float32):
        torch.manual_seed(0)
        model, losses = unet(precision)
        torch.manual_seed(1)
        given = {
            name: torch.randn(2, *parameter.shape).to(precision)
            for name, parameter in model.named_parameters()
        }
        ekfac = fit_ekfac(model, [losses], [losses])
        answers.append(ekfac.precondition(Directions(given)).parameters())
    for name, exact in answers[0].items():
        assert answers[1][name].dtype == torch.float32
        error = (answers[1][name] - exact).norm() / exact.norm()
        assert error < 1e-3, (name, error)


def test_a_layer_that_is_too_wide_is_refused(monkeypatch):
    monkeypatch.setattr(curvature, "WIDEST", 20)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 21))
    losses = random_losses(model, torch.randn(3, 2, 4, 4))
    with pytest.raises(CoverageError, match=r"'2\.weight' has 21 outputs.*at most 20.*freeze"):
        fit_ekfac(model, [losses], [losses])
    model[2].weight.requires_grad_(False)
    assert "2.weight" not in fit_ekfac(model, [losses], [losses]).blocks


def test_a_layer_without_a_basis_that_fits_is_refused():
    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    one, other = ((lambda part=part: part(torch.ones(4, 3)).square().sum(1)) for part in model)
    with pytest.raises(CoverageError, match=r"'1\.weight' is used in another way"):
        fit_ekfac(model, [one], [other])
    with pytest.raises(CoverageError, match=r"'0\.weight' was used by the first passes only"):
        fit_ekfac(model, [one], [])


def test_gradients_that_are_not_finite_are_refused():
    model = nn.Linear(3, 2)
    losses = lambda: model(torch.full((4, 3), torch.nan)).sum(1)  # noqa: E731
    with pytest.raises(CoverageError, match="'weight' are not finite"):
        fit_ekfac(model, [losses], [losses])


def test_negative_damping_is_refused():
    model = nn.Linear(3, 2)
    losses = random_losses(model, torch.randn(4, 3))
    with pytest.raises(ValueError, match="negative"):
        fit_ekfac(model, [losses], [losses]).precondition(Directions(directions_for(model)), -0.1)
