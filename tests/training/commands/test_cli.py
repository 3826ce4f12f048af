"""The commands, as a user meets them: results, and one clear line for wrong input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.patience import PATIENCE_S
from support.trainer import picture

from faithdiff_core.color_fix import METHODS
from training.cli import main
from training.common.images import read_image, write_png
from training.metrics.own import psnr_db, ssim
from training.stages.nano import TEXT_OF_MANIFEST

ROOT = Path(__file__).resolve().parents[3]


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "training", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0
    commands = {"prepare", "degrade", "caption", "recipes", "train", "ablate", "export", "convert", "evaluate", "nano", "study"}
    assert commands <= set(done.stdout.split())


def test_help_does_not_wait_for_torch() -> None:
    """What a verb needs is imported when it runs; the parser is made without."""
    asked = "import sys; from training.cli import parser; parser(); print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout == "set()\n", done.stderr


def test_the_colours_of_restore_are_the_cores(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["restore", "--help"])
    assert f"--colour {{{','.join(METHODS)}}}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["restore", "a", "b", "--model", "m", "--colour", "sepia"])
    assert "invalid choice: 'sepia'" in capsys.readouterr().err


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for name in (
        "stage1",
        "stage2",
        "finetune-release",
        "lora-24gb",
        "full-24gb",
        "fidelity-decoder",
        "nano-joint",
        "encoder-only/1",
        "separate/2",
    ):
        assert name in listed


def test_prepare_degrade_evaluate(tmp_path: Path, pictures_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(pictures_dir), "--text", "1", "--min-side", "64", "--out", str(tmp_path / "m.jsonl")]) == 0
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 7
    assert main(["degrade", str(pictures_dir), str(tmp_path / "lq"), "--level", "II", "--scale", "2"]) == 0
    # The references against themselves are perfect; the baseline is not.
    report = tmp_path / "report.json"
    assert (
        main(
            [
                "evaluate",
                "--restored",
                str(pictures_dir),
                "--reference",
                str(pictures_dir),
                "--lq",
                str(tmp_path / "lq"),
                "--out",
                str(report),
            ]
        )
        == 0
    )
    value = json.loads(report.read_text())
    assert value["count"] == 6
    restored, lq = value["rows"]["restored"], value["rows"]["lq"]
    assert restored["psnr_rgb"]["mean"] is None and restored["psnr_rgb"]["not_finite"] == 6
    assert restored["ssim_rgb"]["mean"] == pytest.approx(1.0)
    assert 10 < lq["psnr_rgb"]["mean"] < 40 and lq["ssim_rgb"]["mean"] < 1
    assert "restored: psnr_rgb infinite" in capsys.readouterr().out
    assert report.with_suffix(".md").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", "--out", "m.jsonl"], "expected pictures, got none"),
        (["prepare", "nowhere", "--out", "m.jsonl"], "which does not exist"),
        (["degrade", "nowhere", "out", "--level", "I"], "which does not exist"),
        (["degrade", "{pictures}", "out", "--level", "IV"], "expected a degradation level"),
        (["degrade", "{pictures}", "out", "--scale", "0"], "expected a scale of at least 1"),
        (["train", "nano-vae", "--data", "none.jsonl", "--out", "run"], "expected a manifest"),
        (["train", "nano-va", "--data", "{data}", "--out", "run"], "did you mean 'nano-vae'"),
        (["train", "nano-vae", "--data", "{data}", "--out", "run", "--set", "stesp=1"], "did you mean 'steps'"),
        (["train", "nano-prior", "--data", "{data}", "--out", "run"], "expected --vae"),
        (["export", "nowhere", "--out", "x.safetensors"], "expected a checkpoint"),
        (["nano", "--out", "demo", "--work", "w", "--stages", "pior"], "expected stages among"),
        (
            ["evaluate", "--restored", "{pictures}", "--reference", "{pictures}", "--metrics", "psrn", "--out", "r.json"],
            "expected metrics",
        ),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path, data: Path, pictures_dir: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([text.format(data=data, pictures=pictures_dir) for text in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: expected") and captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_dry_run_prints_and_makes_nothing(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["train", "nano-joint", "--data", str(data), "--out", str(tmp_path / "run"), "--dry-run", "--set", "network=tiny"])
        == 0
    )
    out = capsys.readouterr().out
    assert "trains: lq_encoder" in out and "network = tiny" in out and "memory on a GPU" in out
    fidelity = [
        "train",
        "nano-fidelity",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--dry-run",
        "--set",
        "network=tiny",
    ]
    assert main([*fidelity, "device=cpu", "restored_crops=1200"]) == 0
    assert "restored crops on disk: 1,200 of 256 px" in capsys.readouterr().out
    assert main([*fidelity, "perceptual_weight=1", "--perceptual", str(tmp_path / "nowhere")]) == 2
    assert "expected a folder for --perceptual" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_diverged_run_has_its_own_exit_code(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [
        "network=tiny",
        "precision=fp32",
        "crop_px=32",
        "late_crop_px=0",
        "steps=40",
        "batch_size=1",
        "warmup_steps=1",
        "lr=1e30",
    ]
    assert main(["train", "nano-vae", "--data", str(data), "--out", str(tmp_path / "run"), "--set", *settings]) == 3
    assert "the last checkpoint is kept" in capsys.readouterr().err


def test_nano_makes_its_files_and_goes_on_where_it_was(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    for name in TEXT_OF_MANIFEST:
        (work / name).write_text(data.read_text())
    small = [
        "network=tiny",
        "precision=fp32",
        "crop_px=32",
        "steps=2",
        "batch_size=1",
        "latent_crops=4",
        "late_crop_px=0",
        "restored_crops=8",
        "restored_crop_px=0",
        "validation_pictures=1",
        "threads=1",
        "tracker=none",
    ]
    assert main(["nano", "--out", str(out), "--work", str(work), "--set", *small]) == 0
    made = ["nano_faithdiff.safetensors", "nano_fidelity.safetensors", "nano_vae.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == made
    before = {name: load_file(out / name) for name in made}
    held = sorted(path.name for path in work.iterdir())
    assert main(["nano", "--out", str(out), "--work", str(work), "--set", *small]) == 0
    for name, weights in before.items():
        after = load_file(out / name)
        assert weights.keys() == after.keys() and all(torch.equal(value, after[key]) for key, value in weights.items()), name
    assert sorted(path.name for path in work.iterdir()) == held, "the second run must not compute latents or crops again"
    capsys.readouterr()
    lq = tmp_path / "lq"
    write_png(lq / "a.png", picture(0, 20, 27))
    files = ["--model", str(out / "nano_faithdiff.safetensors"), "--vae", str(out / "nano_vae.safetensors")]
    fidelity = ["--decoder", str(out / "nano_fidelity.safetensors")]
    assert main(["restore", str(lq), str(tmp_path / "restored"), *files, *fidelity, "--scale", "2", "--steps", "3"]) == 0
    assert read_image(tmp_path / "restored" / "a.png").shape == (3, 40, 54)
    assert main(["reconstruct", str(lq), str(tmp_path / "again"), *files[2:]]) == 0
    assert read_image(tmp_path / "again" / "a.png").shape == (3, 20, 27)


def test_metrics_closed_forms() -> None:
    image = picture(0).float() / 255
    assert psnr_db(image + 0.1, image) == pytest.approx(20.0, abs=1e-4)
    assert ssim(image, image) == pytest.approx(1.0)
    flat, other = torch.full((3, 20, 20), 0.25), torch.full((3, 20, 20), 0.75)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)  # no variance: the luminance term alone
    assert ssim(flat, other) == pytest.approx(expected, rel=1e-6)
