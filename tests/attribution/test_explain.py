"""What `explain` says of a pass over a tiny run."""

import pytest

from retrac.attribution import explain as module
from retrac.attribution.config import ComputeConfig
from retrac.attribution.explain import explain
from retrac.attribution.explanation import Explanation
from retrac.errors import RetracError
from retrac.training.run import Run


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUNDS", (1, 1))
    monkeypatch.setattr("retrac.gradients.speed.SECONDS", 0.0)


def trained(run: Run) -> dict[str, int]:
    model = run.checkpoints[-1].load(run.shape)
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


def assert_whole(found: Explanation) -> None:
    """Blocks and entries tell the same story."""
    assert sum(block.parameters for block in found.blocks) == len(found.entries)
    assert sum(block.numbers for block in found.blocks) == found.total.numbers
    seconds = sum(block.seconds for block in found.blocks)
    assert seconds == pytest.approx(found.total.seconds)
    assert found.times.training > 0 and found.times.whole > found.total.seconds > 0


def test_every_parameter_appears_once(tiny_run: Run) -> None:
    found = explain(tiny_run, queries=3)
    assert {entry.name: entry.numbers for entry in found.entries} == trained(tiny_run)
    assert len(found.entries) == len(trained(tiny_run)) and found.frozen == 0
    assert (found.batch, found.queries, found.sketch) == (24, 3, 0)
    assert {entry.route for entry in found.entries} == {"contract", "write out", "vector"}
    assert all(entry.seconds > 0 and entry.work.bytes > 0 for entry in found.entries)
    assert sum(found.rules.values()) == found.total.numbers
    assert_whole(found)


def test_parameters_samples_and_memory_are_those_asked_for(tiny_run: Run) -> None:
    everything = trained(tiny_run)
    found = explain(tiny_run, parameters="mid_block", samples=5, compute=ComputeConfig("1GB"))
    assert {entry.name for entry in found.entries} == {n for n in everything if "mid_block" in n}
    assert found.frozen == sum(everything.values()) - found.total.numbers
    assert found.batch == 5
    assert_whole(found)


def test_a_sketching_pass_projects(tiny_run: Run) -> None:
    found = explain(tiny_run, sketch_size=300)
    assert {entry.name for entry in found.entries} == set(trained(tiny_run))
    assert 100 < found.sketch < 900 and found.queries == 0
    assert "project" in {entry.route for entry in found.entries}
    assert_whole(found)


@pytest.mark.parametrize(
    "wrong", [{"queries": 0}, {"sketch_size": 0}, {"samples": -1}, {"parameters": "no such"}]
)
def test_refusals(wrong: dict[str, object], tiny_run: Run) -> None:
    with pytest.raises(RetracError) as caught:
        explain(tiny_run, **wrong)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert "--" in str(caught.value)
