"""The fidelity decoder's stage on the tiny network: its crops, what trains, going on, and the file that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.compare import CHANGED, NETWORK, relative_difference
from support.trainer_chain import sources_of
from support.trainer_text import write_text_encoders
from support.trainer_toy import apart, equal

from training.config.schema import Sources, TrainConfig
from training.data import manifest
from training.loop import checkpoints, loop
from training.loop.task import Batch
from training.stages.stage import build_task
from training.tasks.fidelity import FidelityTask
from training.tasks.fidelity_losses import pixel_loss
from training.weights.export import export
from training.weights.fidelity_files import load_fidelity_decoder

Quick = Callable[..., TrainConfig]
SMALL = ("latent_crops=0", "restored_crops=20", "restored_crop_px=64", "validate_every=0", "batch_size=4")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The same count throughout: another may add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs lie beside one another, so that their crops are restored once."""
    return tmp_path_factory.mktemp("fidelity")


def sources(chain: Path, data: Path, **others: Any) -> Sources:
    return sources_of(chain, data, "joint", **{"init": chain / "joint"} | others)


def task_of(config: TrainConfig, chain: Path, data: Path, run_dir: Path) -> tuple[FidelityTask, dict[str, Any]]:
    task, facts = build_task(config, sources(chain, data), run_dir)
    assert isinstance(task, FidelityTask)
    return task, facts


def train(config: TrainConfig, chain: Path, data: Path, run_dir: Path, *, resume: bool = False) -> dict[str, float]:
    task, facts = task_of(config, chain, data, run_dir)
    return loop.train(task, config, run_dir, extra=facts, resume=resume)


@pytest.mark.parametrize("kept", [True, False])
def test_it_learns_more_than_the_vae_has_left(chain: Path, data: Path, quick: Quick, folder: Path, kept: bool) -> None:
    config = quick("nano-fidelity", *SMALL, "steps=60", "lr=1e-2", f"restored_features={kept}", "ema_decay=0")
    task, facts = task_of(config, chain, data, folder / f"learns-{kept}")
    batch = task.batch(0, range(4))
    assert ("features" in batch) == kept
    decoded = pixel_loss(batch["decoded"], batch["hq"], batch["lq"], config.stroke_weight).item()
    untrained, _ = task.loss(task.module, batch)
    assert untrained.item() == decoded, "an untrained decoder leaves the picture as it is"
    frozen = {name: value.clone() for name, value in task.module.state_dict().items() if not name.startswith("fidelity_decoder.")}
    assert bool(frozen) != kept
    loop.train(task, config, folder / f"learns-{kept}", extra=facts, resume=False)
    trained, _ = task.loss(task.module, batch)
    assert trained.item() < 0.7 * decoded
    assert all(torch.equal(task.module.state_dict()[name], value) for name, value in frozen.items())
    with_gradient = {name.split(".")[0] for name, value in task.module.named_parameters() if value.requires_grad}
    assert with_gradient == {"fidelity_decoder"}


def test_a_resumed_run_ends_as_the_uninterrupted_one(chain: Path, data: Path, quick: Quick, folder: Path) -> None:
    config = quick("nano-fidelity", *SMALL, "steps=6", "save_every=3", "keep_checkpoints=9", "stroke_weight=2")
    train(config, chain, data, folder / "whole")
    train(config, chain, data, folder / "parts")
    (folder / "parts" / "checkpoints" / "step-00000006.pt").unlink()
    train(config, chain, data, folder / "parts", resume=True)
    one, other = (checkpoints.load(folder / name) for name in ("whole", "parts"))
    assert one["step"] == other["step"] == 6
    for part in ("trained", "ema"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items()), part


def test_draws_do_not_depend_on_the_batch(chain: Path, data: Path, quick: Quick, folder: Path) -> None:
    task, _ = task_of(quick("nano-fidelity", *SMALL), chain, data, folder / "draws")
    whole = task.batch(2, range(4))
    for name, value in task.batch(2, range(2, 3)).items():
        assert torch.equal(value[0], whole[name][2]), name
    assert not torch.equal(whole["hq"], task.batch(3, range(4))["hq"])


def test_crops_made_in_two_goes_are_the_same(chain: Path, data: Path, quick: Quick, tmp_path: Path) -> None:
    config = quick("nano-fidelity", *SMALL, "restored_crops=70")  # two chunks
    held = []
    for name in ("first", "second"):
        task_of(config, chain, data, tmp_path / name / "run")
        chunks = sorted((tmp_path / name).glob("restored-*/train-*.pt"))
        assert [path.name for path in chunks] == ["train-00000000-64.pt", "train-00000064-6.pt"]
        held.append([torch.load(path, weights_only=True) for path in chunks])
    before = chunks[0].stat().st_mtime_ns
    chunks[1].write_bytes(chunks[1].read_bytes()[:-100])
    task_of(config, chain, data, tmp_path / "second" / "run")
    again = [torch.load(path, weights_only=True) for path in chunks]
    assert chunks[0].stat().st_mtime_ns == before, "what is whole stays"
    for made in (held[1], again):
        for one, other in zip(held[0], made, strict=True):
            assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
    assert held[0][0]["hq"].dtype == torch.uint8 and held[0][0]["features"].dtype == torch.float16
    assert relative_difference(held[0][0]["decoded"], held[0][0]["hq"]) > CHANGED


def test_prompts_have_their_own_crops(chain: Path, data: Path, quick: Quick, tmp_path: Path) -> None:
    """What the crops are kept under tells the prompts, whose pictures are the same."""
    text = write_text_encoders(tmp_path / "sdxl", widths=(8, 8), projection=16)
    captions = {"first": "a dog", "again": "a dog", "other": "the house"}
    for name, caption in captions.items():
        manifest.write([replace(record, caption=caption) for record in manifest.read(data)], tmp_path / f"{name}.jsonl")

    def crops(name: str, *settings: str) -> Path:
        config = quick("nano-fidelity", *SMALL, "crop_px=32", "restored_crop_px=32", "restored_crops=8", *settings)
        before = set((tmp_path / "runs").glob("*"))
        build_task(config, sources(chain, tmp_path / f"{name}.jsonl", text=text), tmp_path / "runs" / "run")
        made = set((tmp_path / "runs").glob("*")) - before
        return made.pop() if made else tmp_path

    prompted = "prompts=captions"
    held = [crops("first"), crops("first", prompted), crops("other", prompted), crops("first", prompted, "prompt_dropout=1")]
    assert len(set(held)) == 4 and tmp_path not in held
    assert crops("again", prompted) == crops("other") == tmp_path, (
        "nothing is made twice, and captions that nobody reads are none"
    )
    unprompted, dogs, houses, dropped = (torch.load(next(folder.glob("train-*.pt")), weights_only=True) for folder in held)
    assert all(torch.equal(unprompted[name], made[name]) for made in (dogs, houses, dropped) for name in ("hq", "lq", "features"))


def test_the_export_is_the_trained_decoder(chain: Path, data: Path, quick: Quick, folder: Path, tmp_path: Path) -> None:
    config = quick("nano-fidelity", *SMALL, "steps=3")
    task, facts = task_of(config, chain, data, folder / "export")
    loop.train(task, config, folder / "export", extra=facts, resume=False)
    options: dict[str, Any] = {"layout": "full", "dtype": "fp32", "data": None, "licence": "MIT", "base_model": ""}
    with pytest.raises(ValueError, match=r"expected --out to end in fidelity\.safetensors"):
        export(folder / "export", tmp_path / "decoder.safetensors", **options)
    export(folder / "export", tmp_path / "x_fidelity.safetensors", **options)
    read = load_fidelity_decoder(tmp_path / "x_fidelity.safetensors")
    averaged = checkpoints.load(folder / "export")["ema"]
    for name, value in read.state_dict().items():
        assert torch.equal(value, averaged[f"fidelity_decoder.{name}"]), name


def test_the_decoder_hears_the_discriminator_from_its_step_on(chain: Path, data: Path, quick: Quick, folder: Path) -> None:
    weight = 50.0  # far more than in a run: what the discriminator adds must be seen beside the pixels' gradients
    settings = (*SMALL, "steps=4", f"adversarial_weight={weight}", "adversarial_from_frac=0.5")
    alone, _ = task_of(quick("nano-fidelity", *SMALL, "steps=4"), chain, data, folder / "alone")
    task, _ = task_of(quick("nano-fidelity", *settings), chain, data, folder / "adversary")
    discriminator = task.module.discriminator
    assert discriminator is not None and [name for name, _, _ in task.groups()] == ["fidelity_decoder", "discriminator"]

    def gradients(of: FidelityTask, step: int) -> tuple[dict[str, torch.Tensor], Batch]:
        of.module.zero_grad()
        batch = of.batch(step, range(2))
        of.loss(of.module, batch)[0].backward()
        return {name: value.grad for name, value in of.module.named_parameters() if value.grad is not None}, batch

    decoder = task.module.fidelity_decoder
    for step, heard in ((1, 0.0), (2, 1.0)):
        plain, _ = gradients(alone, step)
        found, batch = gradients(task, step)
        picture = decoder(batch["decoded"], batch["lq"], batch["features"])
        term = -weight * heard * discriminator(picture).mean()
        heard_by = torch.autograd.grad(term, list(decoder.parameters()), retain_graph=True)
        margins = torch.relu(1 - discriminator(batch["hq"])).mean() + torch.relu(1 + discriminator(picture)).mean()
        learnt = torch.autograd.grad(margins, list(discriminator.parameters()))
        wanted = {
            f"fidelity_decoder.{name}": value for (name, _), value in zip(decoder.named_parameters(), heard_by, strict=True)
        }
        wanted = {name: plain[name] + value for name, value in wanted.items()}
        wanted |= {
            f"discriminator.{name}": value for (name, _), value in zip(discriminator.named_parameters(), learnt, strict=True)
        }
        for part in ("fidelity_decoder", "discriminator"):
            of_part = [{name: value for name, value in each.items() if name.startswith(part)} for each in (found, wanted)]
            assert apart(*of_part) < NETWORK, (part, step)
        moved = apart(plain, {name: found[name] for name in plain})
        assert moved > CHANGED if heard else moved == 0, step


def test_the_discriminator_stays_with_the_run(chain: Path, data: Path, quick: Quick, folder: Path, tmp_path: Path) -> None:
    config = quick("nano-fidelity", *SMALL, "steps=4", "save_every=2", "keep_checkpoints=9", "adversarial_weight=0.1")
    for name in ("heard", "heard-parts"):
        train(config, chain, data, folder / name)
    (folder / "heard-parts" / "checkpoints" / "step-00000004.pt").unlink()
    train(config, chain, data, folder / "heard-parts", resume=True)
    one, other = (checkpoints.load(folder / name) for name in ("heard", "heard-parts"))
    assert equal({**one, "extra": {}, "row": {}}, {**other, "extra": {}, "row": {}})
    assert any(name.startswith("discriminator.") for name in one["ema"])
    out = tmp_path / "x_fidelity.safetensors"
    export(folder / "heard", out, layout="full", dtype="fp32", data=None, licence="MIT", base_model="")
    assert (
        load_fidelity_decoder(out).state_dict().keys()
        == task_of(config, chain, data, folder / "heard")[0].module.fidelity_decoder.state_dict().keys()
    )


def test_what_cannot_be_trained_is_refused(chain: Path, data: Path, quick: Quick, folder: Path) -> None:
    config = quick("nano-fidelity", *SMALL)
    for init, message in ((chain / "prior", "trained alignment module"), (None, "expected a UNet")):
        with pytest.raises(ValueError, match=message):
            build_task(config, sources(chain, data, init=init), folder / "refused")
    for setting, message in (
        ("restored_crops=0", "restored_crops to be at least 1"),
        ("restored_crop_px=32", "restored_crop_px to be 0 or at least crop_px"),
        ("trains=unet", "trains to be empty"),
        ("lq_features=last", "lq_features to be penultimate"),
        ("degradation=none", "degradation to be a preset"),
        ("stroke_weight=-1", "stroke_weight to be at least 0"),
        ("adversarial_weight=-1", "adversarial_weight to be at least 0"),
        ("adversarial_from_frac=2", "adversarial_from_frac to be 0 to 1"),
        ("fused_backward=yes", "fused_backward to be false with adversarial_weight"),
    ):
        with pytest.raises(ValueError, match=message):
            quick("nano-fidelity", *SMALL, "crop_px=64", "adversarial_weight=1", setting)
