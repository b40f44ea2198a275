"""An accelerator gives the scores of the CPU, to rounding."""

import numpy as np
import pytest
import torch

import retrac
from retrac.attribution.config import ComputeConfig, PlanConfig
from retrac.errors import RetracError
from retrac.training.run import Run
from tiny import PUBLISHED

PLAN = PlanConfig(plan_timesteps=3, plan_noises=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_on_cuda_are_those_of_the_cpu(tiny_run: Run) -> None:
    cpu = retrac.attribute(
        tiny_run, "train:2", PUBLISHED, plan=PLAN, compute=ComputeConfig(device="cpu")
    )
    gpu = retrac.attribute(
        tiny_run, "train:2", PUBLISHED, plan=PLAN, compute=ComputeConfig(device="cuda")
    )
    scale = float(np.abs(cpu.contributions).max())
    np.testing.assert_allclose(gpu.contributions, cpu.contributions, rtol=0, atol=1e-3 * scale)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(tiny_run: Run) -> None:
    with pytest.raises(RetracError, match="there is no cuda device here; use --device auto"):
        retrac.attribute(tiny_run, "train:1", PUBLISHED, compute=ComputeConfig(device="cuda"))
