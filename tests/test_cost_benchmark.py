"""Every row of the cost benchmark runs, and those that compute scores compute the same ones."""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.cost.job import job_content, job_table
from benchmarks.cost.measure import Cost, Failure, Timing, measure, measure_alone
from benchmarks.cost.networks import NETWORKS, Network
from benchmarks.cost.plot import plot
from benchmarks.cost.report import Measured, content, table
from benchmarks.cost.rows import REFERENCE, ROWS, Row
from benchmarks.cost.workload import Work, Workload
from retrac.diffusion.config import ModelConfig
from retrac.diffusion.model import build_unet

CONFIG = ModelConfig(channels=(8, 16), attention_levels=(1,), attention_head_dim=8, norm_groups=4)
TINY = Network(
    "tiny",
    "tiny U-Net",
    partial(build_unet, CONFIG, (1, 8, 8), seed=0),
    shape=(1, 8, 8),
    batch=8,
    queries=3,
    chunk=4,
    part=4,
)
TIMING = Timing("cpu", rounds=2, seconds=0, limit=60)
NEEDS = {"captum": "captum", "captum-fast": "captum", "dattri": "dattri"}
SCORED = {"naive": TINY.part, "vmap": TINY.chunk, "dattri": TINY.chunk, "captum": TINY.part}
"""How many samples the rows score that should agree with ours."""


def cost(name: str) -> Cost:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    found = measure(ROWS[name], TINY, TIMING)
    assert isinstance(found, Cost), found
    return found


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_measured(name: str) -> None:
    found = cost(name)
    assert len(found.ratios) == 3 and min(found.ratios) > 0 and found.plain > 0
    assert found.units > 0 and found.peak_bytes >= 0


@pytest.mark.parametrize("name", ROWS)
def test_every_row_can_be_measured_in_a_process_of_its_own(name: str) -> None:
    assert pickle.loads(pickle.dumps(ROWS[name])).name == name


@pytest.mark.parametrize("name", SCORED)
def test_scores_are_the_same_as_ours(name: str) -> None:
    ours, other = cost(REFERENCE.name), cost(name)
    assert other.scores is not None and other.scores.shape[1:] == (SCORED[name], TINY.queries)
    difference = Measured(TINY, {REFERENCE.name: ours, name: other}).difference(name)
    assert difference is not None and difference < 1e-5


def test_captum_sample_wise_leaves_normalisation_out() -> None:
    pytest.importorskip("captum")
    workload = Workload.of(TINY, "cpu")
    found = ROWS["captum-fast"].prepare(workload).run()
    for module in workload.losses.modules():
        if isinstance(module, nn.GroupNorm):
            module.requires_grad_(False)
    without = REFERENCE.prepare(workload).run()
    assert found is not None and without is not None
    expected = without[:1, : TINY.chunk]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(without[0].max()))


def test_what_a_row_fails_with_is_in_the_table() -> None:
    failing = measure(Row("broken", "broken", "sample", broken), TINY, TIMING)
    assert failing == Failure("RuntimeError: too large")
    found = Measured(TINY, dict.fromkeys(ROWS, failing) | {"plain": cost("plain")})
    shown, legend = table([found], tuple(ROWS), "a device")
    assert shown.row_count == len(ROWS) and "tiny: RuntimeError: too large" in legend
    rows = content([found], tuple(ROWS), "a device")["networks"]["tiny"]["rows"]
    assert rows["ours"]["failed"] == "RuntimeError: too large" and rows["plain"]["over plain"] > 0
    assert plot([found], tuple(ROWS), "a device").axes


def test_a_whole_job_is_the_sum_of_its_parts() -> None:
    def costing(ratio: float) -> Cost:
        return Cost(0.5, (ratio,), 1, 0, None)

    network = replace(TINY, queries=8)
    ratios = {"naive-query": 3.0, "naive": 5.0, "ours-query": 1.0, "ours": 2.0}
    found = Measured(network, {name: costing(ratio) for name, ratio in ratios.items()})
    times = job_content([found])["tiny"]
    naive, exact = 4 * (16 * 1600 * 3 + 1000 * 5), 4 * (16 * 160 * 1 + 2 * 1000 * 2)
    assert times["naive loop, published plan"]["minutes"] == pytest.approx(naive * 0.5 / 60)
    assert times["ours, exact, default plan"]["times faster"] == pytest.approx(naive / exact)
    assert "ours, indexed, default plan" not in times
    assert job_table([found]).row_count == len(times)
    alone = replace(found, costs={"ours-sketch": costing(1.0)})
    ((_, minutes),) = job_content([alone])["tiny"].items()
    assert list(minutes) == ["minutes"]


def test_other_scores_are_told() -> None:
    ours = cost(REFERENCE.name)
    assert ours.scores is not None
    other = replace(ours, scores=ours.scores * np.float32(1.5))
    _, legend = table([Measured(TINY, {"ours": ours, "vmap": other})], ("ours", "vmap"), "")
    assert "scores differ from ours by 0.5" in legend


def test_a_row_that_takes_too_long_is_given_up() -> None:
    found = measure_alone(ROWS["plain"], TINY, replace(TIMING, limit=0.01))
    assert found == Failure("given up after 0 s")


def test_networks_have_the_sizes_they_are_named_for() -> None:
    sizes = {name: network.parameters for name, network in NETWORKS.items()}
    assert 1e6 < sizes["small"] < 2e6
    assert sizes["cifar"] == 35_746_307
    assert sizes["published"] > 1e8


def broken(workload: Workload) -> Work:
    raise RuntimeError("too large\nand more")
