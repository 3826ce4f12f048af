"""Validation, and the ablation study on the tiny network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.trainer import QUICK, picture
from support.trainer_chain import sources_of, task_of

from training.cli import main
from training.common.images import read_image, write_png
from training.config.schema import TrainConfig
from training.data import manifest
from training.loop import loop
from training.tasks.validation import Validation, centre_box
from training.weights.initial import initial_model, load_vae

Quick = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The session's manifest with two of its pictures set apart for validation."""
    path = tmp_path_factory.mktemp("validated") / "manifest.jsonl"
    records = [replace(record, split="val" if record.key in ("p0", "p1") else "train") for record in manifest.read(data)]
    manifest.write(records, path)
    return path


def test_validation_is_fixed_and_shows_input_result_and_truth(chain: Path, validated: Path, quick: Quick, tmp_path: Path) -> None:
    config = quick("nano-joint", "steps=3", "validate_every=2", "validation_pictures=2", "validation_sampling_steps=2")
    task = task_of(chain, validated, config)
    figures = loop.train(task, config, tmp_path, extra={}, resume=False)
    assert {"validation/loss", "validation/psnr_db", "validation/ssim", "validation/lq_psnr_db"} <= set(figures)
    pictures = sorted(path.name for path in (tmp_path / "validation").iterdir())
    assert pictures == ["step-00000002.png", "step-00000003.png"]
    sheets = [read_image(tmp_path / "validation" / name) for name in pictures]
    assert sheets[0].shape == (3, 2 * 32, 3 * 32)
    assert torch.equal(sheets[0][:, :, :32], sheets[1][:, :, :32]), "the input stays"
    assert torch.equal(sheets[0][:, :, 64:], sheets[1][:, :, 64:]), "the truth stays"
    assert not torch.equal(sheets[0][:, :, 32:64], sheets[1][:, :, 32:64]), "the weights moved"
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation/loss" in row] == [2, 3]
    assert task.validate(9, tmp_path) == task.validate(9, tmp_path)


def test_validation_uses_the_lq_twins(chain: Path, quick: Quick, tmp_path: Path) -> None:
    write_png(tmp_path / "hq" / "a.png", picture(0, 96, 128))
    write_png(tmp_path / "lq" / "a.png", picture(0, 96, 128)[:, ::2, ::2])
    arguments = ["prepare", str(tmp_path / "hq"), "--lq", str(tmp_path / "lq"), "--min-side", "32", "--val-frac", "0"]
    assert main([*arguments, "--out", str(tmp_path / "m")]) == 0
    config = quick("nano-joint")
    vae = load_vae(config, sources_of(chain, tmp_path / "m", "joint"))
    (shown,) = Validation(config, manifest.read(tmp_path / "m"), vae, None, torch.device("cpu")).pictures
    box = centre_box_of(48, 64)
    expected = torch.nn.functional.interpolate(
        (picture(0, 96, 128)[:, ::2, ::2].float() / 255)[None, :, box.top : box.top + box.height, box.left : box.left +
        box.width], size=(32, 32), mode="bicubic", antialias=True,
    ).clamp(0, 1)  # fmt: skip
    assert torch.equal(shown.lq_BCHW, expected)
    assert (shown.lq_BCHW - shown.truth_BCHW).abs().mean() < 0.05, "the same part of the picture"


def centre_box_of(height_px: int, width_px: int):  # noqa: ANN201
    from faithdiff_core.geometry import Size

    return centre_box(Size(height_px, width_px), 2 * 32 // 2)


@pytest.mark.long
def test_the_study_trains_every_row_and_goes_on_where_it_was(
    chain: Path, validated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [*QUICK, "steps=2", "batch_size=2", "crop_px=32", "latent_crops=4", "target_size_px=32", "tracker=none"]
    small += ["validation_sampling_steps=1"]
    arguments = ["ablate", "--data", str(validated), "--vae", str(chain / "vae.safetensors"), "--init", str(chain / "prior")]
    arguments += ["--out", str(tmp_path), "--seeds", "0", "1", "--set", *small]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    rows = report["rows"]
    assert {"no-alignment", "no-stage1", "last-layer", "encoder-only", "unet-only", "separate", "joint"} == set(rows)
    losses = [run["loss"] for runs in rows.values() for run in runs]
    assert len(losses) == len(set(losses)) == 14, "every row and seed is a training of its own"
    table = capsys.readouterr().out
    assert table.count("±") == 7 * 3 + 6
    assert main(arguments) == 0
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert main([*arguments, "--rows", "encoder"]) == 2
    assert "expected rows among" in capsys.readouterr().err


def test_rows_differ_in_what_they_train(chain: Path, validated: Path, tmp_path: Path, quick: Quick) -> None:
    """The encoder-only row leaves the UNet as it was, the UNet-only row the encoder."""
    for trains, kept in (("lq_encoder,alignment", "unet"), ("alignment,unet", "lq_encoder")):
        config = quick("nano-joint", f"trains={trains}", "steps=2", "validate_every=0", "tracker=none")
        task = task_of(chain, validated, config)
        loop.train(task, config, tmp_path / kept, extra={}, resume=False)
        start, _ = initial_model(config, sources_of(chain, validated, "joint"))
        for name, value in task.module.state_dict().items():
            same = torch.equal(value, start.state_dict()[name])
            if name.startswith(kept + "."):
                assert same, name
        assert any(not torch.equal(value, start.state_dict()[name]) for name, value in task.module.state_dict().items())
