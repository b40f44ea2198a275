"""Checkpoint files of the published code, asked like any run."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from published_training import (
    BATCH,
    EVERY,
    SAMPLES,
    SIDE,
    TRAINED,
    WIDTHS,
    alphas_bar,
    images,
    loss_of,
    train,
)
from retrac.attribution.asked import pixels
from retrac.attribution.attribute import attribute
from retrac.attribution.config import PlanConfig
from retrac.attribution.plan import Plan
from retrac.attribution.queries import open_queries
from retrac.data.config import DatasetConfig
from retrac.diffusion.published import PublishedUNet
from retrac.errors import RetracError
from retrac.files import read_json, write_json
from retrac.training import imported
from retrac.training.config import ImportConfig
from retrac.training.imported import ImportedRun, import_published
from retrac.training.ledger import Ledger
from retrac.training.run import Run
from retrac.training.trained import TrainedRun
from tiny import PUBLISHED

PLAN = PlanConfig(3, 2)
FILES = ("ckpt_2_5.pth", "ckpt_4_5.pth")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetConfig:
    return images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, data: DatasetConfig) -> Path:
    """Not to be changed."""
    return train(tmp_path_factory.mktemp("published") / "files", data)


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, files: Path, data: DatasetConfig
) -> dict[str, ImportedRun]:
    """Both kinds of events. Not to be changed."""
    folder = tmp_path_factory.mktemp("imported")
    configs = {"recorded": ImportConfig(data), "fresh": ImportConfig(data, "fresh", seed=7)}
    return {name: import_published(files, each, folder / name) for name, each in configs.items()}


def events_of(kind: str, file: Path, epoch: int) -> dict[int, tuple[int, Tensor]]:
    """Timestep and noise of each sample that an epoch visits: from the file, or drawn."""
    content = torch.load(file, weights_only=True)
    found = {
        sample: (int(content["timesteps"][row, place]), content["noise"][row, place])
        for row, batch in enumerate(content["batch"])
        for place, sample in enumerate(batch)
    }
    if kind == "recorded":
        return found
    drawn = Ledger(7, SAMPLES, 1000).events(epoch - 1, range(SAMPLES), (3, SIDE, SIDE))
    return {sample: (int(drawn.timesteps[sample]), drawn.noise[sample]) for sample in found}


def gradient(network: PublishedUNet, clean: Tensor, timestep: int, noise: Tensor) -> Tensor:
    loss = loss_of(network, clean[None], torch.tensor([timestep]), noise[None])
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*network.parameters()])])


def direction(network: PublishedUNet, plan: Plan, clean: Tensor, method: str) -> Tensor:
    found = []
    for timestep, noises in zip(plan.timesteps.tolist(), plan.draw(clean), strict=True):
        rows = [gradient(network, clean, timestep, noise) for noise in noises]
        mean = torch.stack(rows).mean(0)
        found.append(mean / mean.norm() if method == "retrac" else mean)
    return torch.stack(found).mean(0)


@pytest.mark.parametrize("kind", ["recorded", "fresh"])
@pytest.mark.parametrize("method", ["tracin", "retrac"])
def test_scores_are_those_of_the_plain_loop(
    kind: str, method: str, runs: dict[str, ImportedRun], files: Path
) -> None:
    """The formulas, from the files: weights, schedule, loss and events are read and written here
    once more."""
    run = runs[kind]
    found = attribute(run, "train:2", (method,), plan=PLAN).contributions
    asked = pixels(open_queries(run, "train:2").images)
    clean = torch.from_numpy(np.load(run.data.dataset)["images"]).float() / 255 * 2 - 1
    for place, name in enumerate(FILES):
        epoch = EVERY * (place + 1)
        network = PublishedUNet(3, WIDTHS)
        network.load_state_dict(torch.load(files / name, weights_only=True)["model_state"])
        plan = Plan.of(PLAN, 1000).at(epoch)
        directions = [direction(network, plan, query, method) for query in asked]
        expected = np.zeros((2, SAMPLES))
        for sample, (timestep, noise) in events_of(kind, files / name, epoch).items():
            own = gradient(network, clean[sample], timestep, noise)
            own = own / own.norm() if method == "retrac" else own
            expected[:, sample] = [EVERY / BATCH * float(each @ own) for each in directions]
        scores = found.values[0, place]
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        assert (scores[:, TRAINED:] == 0).all() and (scores[:, :TRAINED] != 0).all()


def test_the_two_kinds_of_events_differ_and_facts_say_which(
    runs: dict[str, ImportedRun], files: Path
) -> None:
    recorded, fresh = (runs[kind].shown(1, np.arange(TRAINED)) for kind in ("recorded", "fresh"))
    expected = events_of("recorded", files / FILES[0], EVERY)
    assert recorded.timesteps.tolist() == [expected[sample][0] for sample in range(TRAINED)]
    assert all(torch.equal(recorded.noise[s], expected[s][1]) for s in range(TRAINED))
    assert not torch.equal(recorded.timesteps, fresh.timesteps)
    assert torch.equal(recorded.seen.clean, fresh.seen.clean)
    assert "recorded by the published code" in str(runs["recorded"].facts["events"])
    assert "not those of training" in str(runs["fresh"].facts["events"])
    assert runs["recorded"].facts["samples without an event"] == SAMPLES - TRAINED
    assert runs["recorded"].identity != runs["fresh"].identity
    sizes = [sum(f.stat().st_size for f in run.path.rglob("*.npy")) for run in runs.values()]
    assert sizes[0] > 2 * TRAINED * 3 * SIDE**2 * 4 > sizes[1]


def test_the_schedule_is_the_published_one(runs: dict[str, ImportedRun]) -> None:
    process = runs["recorded"].objective.process
    torch.testing.assert_close(process.signal.double().square(), alphas_bar(), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        process.spread.double().square(), 1 - alphas_bar(), rtol=1e-3, atol=0
    )


def test_only_recorded_epochs_are_replayed(runs: dict[str, ImportedRun]) -> None:
    """A checkpoint's last epoch, and those of checkpoints that are left out."""
    run = runs["recorded"]
    last, every = (
        attribute(run, "train:1", PUBLISHED, replay=how, plan=PLAN) for how in ("last", "all")
    )
    np.testing.assert_array_equal(last.contributions.values, every.contributions.values)
    weights = last.dataset["train_weight"].values
    expected = [EVERY / BATCH] * TRAINED + [0] * (SAMPLES - TRAINED)
    assert weights.tolist() == [expected, expected]
    one = attribute(run, "train:1", PUBLISHED, replay="all", checkpoints=(4,), plan=PLAN)
    timesteps = one.dataset["train_timestep"].values[0]
    own = [run.shown(epoch, np.arange(SAMPLES)).timesteps for epoch in (1, 3)]
    assert (timesteps[:TRAINED] == torch.stack(own, 1)[:TRAINED].numpy()).all()
    assert (timesteps[TRAINED:] == -1).all()  # they had no event
    assert np.isnan(one.dataset["train_norm"].values[0, TRAINED:]).all()
    without = [
        entry.sample for entry in one.proponents(0, "retrac", SAMPLES) if not entry.timesteps
    ]
    assert without == list(range(TRAINED, SAMPLES))
    assert one.dataset["train_weight"].values[0, 0] == 2 * EVERY / BATCH
    with pytest.raises(RetracError, match="no events of epoch 2 were recorded"):
        run.shown(2, np.arange(3))
    fresh = attribute(
        runs["fresh"], "train:1", PUBLISHED, replay="all", checkpoints=(4,), plan=PLAN
    )
    assert fresh.dataset["train_timestep"].shape == (1, SAMPLES, 4)


def test_generated_queries_and_what_is_in_the_folder(runs: dict[str, ImportedRun]) -> None:
    run = runs["recorded"]
    made = open_queries(run, "generated:2")
    assert made.images.shape == (2, 3, SIDE, SIDE) and (made.images[0] != made.images[1]).any()
    names = {file.name for file in run.checkpoints[0].path.iterdir()}
    assert names == {
        *("weights.safetensors", "samples.npy", "timesteps.npy", "noise.npy", "checkpoint.json")
    }


def test_the_files_are_not_needed_afterwards_and_the_same_call_opens(
    files: Path, data: DatasetConfig, tmp_path: Path, tiny_run: TrainedRun
) -> None:
    own = Path(shutil.copytree(files, tmp_path / "own"))
    run = import_published(own, ImportConfig(data), tmp_path / "run")
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    assert import_published(own, ImportConfig(data), tmp_path / "run").identity == run.identity
    assert before == {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    with pytest.raises(RetracError, match="holds another run"):
        import_published(own, ImportConfig(data, "fresh"), tmp_path / "run")
    with pytest.raises(RetracError, match="holds another run"):
        import_published(own, ImportConfig(data), tiny_run.path)
    with pytest.raises(RetracError, match="is not a run"):
        import_published(own, ImportConfig(data), own)
    shutil.rmtree(own)
    again = Run.open(tmp_path / "run")
    assert isinstance(again, ImportedRun) and again.identity == run.identity
    assert attribute(again, "train:1", PUBLISHED, plan=PLAN).dataset["score"].notnull().all()
    with pytest.raises(RetracError, match="was adopted or imported"):
        TrainedRun.open(again.path)


def test_an_import_that_was_stopped_goes_on(
    files: Path, data: DatasetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, convert = ImportConfig(data), imported._convert
    written: list[str] = []

    def until(count: int) -> Callable[..., None]:
        def stopping(found: Any, folder: Path, *rest: Any) -> None:
            if len(written) == count:
                raise KeyboardInterrupt
            convert(found, folder, *rest)
            written.append(folder.name)

        return stopping

    monkeypatch.setattr(imported, "_convert", until(1))
    with pytest.raises(KeyboardInterrupt):
        import_published(files, config, tmp_path)
    with pytest.raises(RetracError, match=r"has no run\.json"):
        Run.open(tmp_path)
    monkeypatch.setattr(imported, "_convert", until(9))
    run = import_published(files, config, tmp_path)
    assert written == ["epoch-0002", "epoch-0004"] and len(run.checkpoints) == 2
    (tmp_path / "run.json").unlink()  # and of other settings nothing is taken over
    import_published(files, replace(config, events="fresh"), tmp_path)
    assert written == ["epoch-0002", "epoch-0004"] * 2


def test_a_sample_without_an_event_at_one_checkpoint_counts_nothing_there(
    files: Path, data: DatasetConfig, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(files, tmp_path / "own"))
    content = torch.load(own / FILES[0], weights_only=True)
    lacking = content["batch"][0]
    changed = {name: content[name][1:] for name in ("timesteps", "noise", "batch")}
    torch.save({**content, **changed}, own / FILES[0])
    run = import_published(own, ImportConfig(data), tmp_path / "run")
    assert run.facts["samples without an event"] == SAMPLES - TRAINED + BATCH
    scores = attribute(run, "train:1", PUBLISHED, plan=PLAN).contributions.values
    assert (scores[:, 0, 0, lacking] == 0).all() and (scores[:, 1, 0, lacking] != 0).all()


def test_files_that_a_gpu_wrote_are_read_without_one(
    files: Path, data: DatasetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = torch.load(files / FILES[1], weights_only=True)
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")
    torch.save(content, tmp_path / FILES[1])
    assert b"cuda:3" in (tmp_path / FILES[1]).read_bytes()
    run = import_published(tmp_path, ImportConfig(data), tmp_path / "run")
    assert torch.equal(run.shown(3, np.array(content["batch"][2])).noise, content["noise"][2])


def test_files_of_older_torch_and_of_half_precision_are_read(
    files: Path, data: DatasetConfig, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(files, tmp_path / "own"))
    content = torch.load(own / FILES[0], weights_only=True)
    half = {name: each.half() for name, each in content["model_state"].items()}
    changed = {**content, "model_state": half, "noise": content["noise"].half()}
    torch.save(changed, own / FILES[0], _use_new_zipfile_serialization=False)
    run = import_published(own, ImportConfig(data), tmp_path / "run")
    network = run.checkpoints[0].load(run.shape)
    assert all(each.dtype == torch.float32 for each in network.parameters())
    assert run.shown(1, np.arange(2)).noise.dtype == torch.float32


def test_damage_of_the_run_is_named(runs: dict[str, ImportedRun], tmp_path: Path) -> None:
    own = Path(shutil.copytree(runs["recorded"].path, tmp_path / "own"))
    record = read_json(own / "run.json")
    for damaged in (
        {**record, "checkpoints": []},
        {**record, "checkpoints": [{"epoch": 2}]},
        {**record, "network": None},
        {**record, "config": {"pipeline": "nowhere"}},
    ):
        write_json(own / "run.json", damaged)
        with pytest.raises(RetracError, match="cannot be read"):
            Run.open(own)
    write_json(own / "run.json", record)
    noise = own / "checkpoints" / "epoch-0002" / "noise.npy"
    noise.write_bytes(noise.read_bytes()[:300])
    with pytest.raises(RetracError, match=r"events in .*epoch-0002 cannot be read"):
        Run.open(own).shown(1, np.arange(2))
    (own / "checkpoints" / "epoch-0004" / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(RetracError, match=r"epoch-0004/weights\.safetensors cannot be read"):
        run = Run.open(own)
        run.checkpoints[1].load(run.shape)


class Code:
    """What a file should not hold."""


def set_entry(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {**content, name: value(content) if callable(value) else value}


def with_first(name: str, value: float) -> Callable[[dict[str, Any]], Tensor]:
    def changed(content: dict[str, Any]) -> Tensor:
        tensor: Tensor = content[name].clone()
        tensor.view(-1)[0] = value
        return tensor

    return changed


def weights_with(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: {**content["model_state"], name: value}


REFUSED: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    (
        r"test_imported\.Code, which is neither a tensor nor a list",
        set_entry("more", lambda c: Code()),
    ),
    ("numpy.* which is neither a tensor nor a list", set_entry("batch", lambda c: np.zeros(3))),
    ("its 'epoch' is of type str, and neither", set_entry("epoch", "4")),
    ("it holds of type list", lambda content: [content]),
    ("has no 'noise'", lambda c: {name: c[name] for name in ("model_state", "timesteps", "batch")}),
    ("'model_state' is a tensor int64", set_entry("model_state", torch.arange(3))),
    (
        "weights 'conv_out.bias' are of type list",
        set_entry("model_state", weights_with("conv_out.bias", [1.0])),
    ),
    (
        "weights 'conv_out.bias' are not finite",
        set_entry("model_state", weights_with("conv_out.bias", torch.full((3,), torch.nan))),
    ),
    (
        "conv_out.bias is .4,., where",
        set_entry("model_state", weights_with("conv_out.bias", torch.zeros(4))),
    ),
    ("'timesteps' are a tensor float32", set_entry("timesteps", lambda c: c["timesteps"].float())),
    (
        r"'timesteps' are a tensor int64 \[20\]",
        set_entry("timesteps", lambda c: c["timesteps"].flatten()),
    ),
    (
        "has the timestep 1000, which is not from 0 to 999",
        set_entry("timesteps", with_first("timesteps", 1000)),
    ),
    ("has the timestep -1", set_entry("timesteps", with_first("timesteps", -1))),
    ("it has no events", lambda c: {**c, "timesteps": c["timesteps"][:0]}),
    (
        r"'noise' is a tensor float32 \[4, 4, 3, 8, 8\], not",
        set_entry("noise", lambda c: c["noise"][1:]),
    ),
    (
        "noise in ckpt_2_5.pth is 3x8x6, but the images are 3x8x8",
        set_entry("noise", lambda c: c["noise"][..., :6]),
    ),
    ("noise of sample .* is not finite", set_entry("noise", with_first("noise", torch.inf))),
    (
        "'noise' is a tensor float32 .*, not numbers",
        set_entry("noise", lambda c: c["noise"].to_sparse()),
    ),
    ("'batch' is not 5 lists of 4", set_entry("batch", lambda c: c["batch"][1:])),
    ("'batch' is not 5 lists of 4", set_entry("batch", lambda c: [b[1:] for b in c["batch"]])),
    ("'batch' is not 5 lists of 4", set_entry("batch", lambda c: [["a"] * 4] * 5)),
    ("beyond all measure", set_entry("batch", lambda c: [[2**70] * 4, *c["batch"][1:]])),
    (
        "events of 4 samples, such as 22, that are not in the dataset",
        set_entry("batch", lambda c: [[22, 23, 24, 25], *c["batch"][1:]]),
    ),
    (
        "visits 4 samples more than once",
        set_entry("batch", lambda c: [c["batch"][1], *c["batch"][1:]]),
    ),
]


@pytest.mark.parametrize(("told", "change"), REFUSED, ids=[told for told, _ in REFUSED])
def test_what_is_not_the_published_format_is_refused_in_one_line(
    told: str,
    change: Callable[[dict[str, Any]], Any],
    files: Path,
    data: DatasetConfig,
    tmp_path: Path,
) -> None:
    own = Path(shutil.copytree(files, tmp_path / "own"))
    torch.save(change(torch.load(own / FILES[0], weights_only=True)), own / FILES[0])
    with pytest.raises(RetracError, match=told) as caught:
        import_published(own, ImportConfig(data), tmp_path / "run")
    assert "\n" not in str(caught.value) and "ckpt_2_5.pth" in str(caught.value)
    assert not (tmp_path / "run" / "run.json").exists()


def test_files_that_are_absent_or_damaged_or_do_not_belong_together_are_refused(
    files: Path, data: DatasetConfig, tmp_path: Path
) -> None:
    def refused(folder: Path, **changes: Any) -> str:
        with pytest.raises(RetracError) as caught:
            import_published(folder, ImportConfig(**{"data": data, **changes}), tmp_path / "run")
        assert not (tmp_path / "run").exists() and "\n" not in str(caught.value)
        return str(caught.value)

    assert "is not a folder" in refused(tmp_path / "nowhere")
    assert "holds no ckpt_EPOCH_STEP.pth" in refused(tmp_path)
    own = Path(shutil.copytree(files, tmp_path / "own"))
    shutil.copy(own / FILES[0], own / "ckpt_2_9.pth")
    assert "ckpt_2_5.pth and ckpt_2_9.pth" in refused(own)
    (own / "ckpt_2_9.pth").rename(own / "ckpt_0_5.pth")
    assert "is of epoch 0" in refused(own)
    (own / "ckpt_0_5.pth").unlink()
    whole = (own / FILES[0]).read_bytes()
    for damaged in (b"", b"nothing", whole[:5000], whole[:-3000]):
        (own / FILES[0]).write_bytes(damaged)
        assert "ckpt_2_5.pth cannot be read" in refused(own)
    other = train(tmp_path / "other", data, (8, 8))
    (other / FILES[0]).replace(own / FILES[0])
    assert "ckpt_4_5.pth is of another network than ckpt_2_5.pth" in refused(own)
    assert "noise in ckpt_2_5.pth is 3x8x8, but the images are 3x4x4" in refused(
        files, data=replace(data, resolution=4)
    )
    assert "not in the dataset, which has 19" in refused(files, data=replace(data, limit=19))
    assert "not from 0 to 9" in refused(files, timesteps=10)
    with pytest.raises(RetracError, match="--timesteps must be at least 1"):
        ImportConfig(timesteps=0)
    with pytest.raises(RetracError, match="unknown --events 'new'"):
        ImportConfig(events="new")  # type: ignore[arg-type]
