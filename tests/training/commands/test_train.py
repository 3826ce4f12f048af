"""`train`: what a dry run looks at, and what a run that goes on says of what has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.cli import main

VAE = ["network=tiny", "precision=fp32", "crop_px=32", "late_crop_px=0", "batch_size=1", "warmup_steps=1", "device=cpu"]


def train(data: Path, run: Path, *more: str, steps: int = 2) -> int:
    return main(["train", "nano-vae", "--data", str(data), "--out", str(run), *more, "--set", *VAE, f"steps={steps}"])


@pytest.mark.parametrize(
    ("option", "made", "message"),
    [
        ("--init", None, "expected a file or folder for --init, got "),
        ("--vae", None, "expected a file or folder for --vae, got "),
        ("--init", "file", "expected"),
        ("--init", "folder", "expected a checkpoint, got none in "),
    ],
)
def test_a_dry_run_looks_at_what_it_would_start_from(
    option: str, made: str | None, message: str, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "start.safetensors"
    if made == "file":
        given.write_bytes(b"no weights")
    elif made == "folder":
        given.mkdir()
    options = ["--out", str(tmp_path / "run"), "--dry-run", option, str(given), "--set", "network=tiny"]
    assert main(["train", "nano-joint", "--data", str(data), *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and str(given) in err and err.count("\n") == 1


def test_a_run_that_goes_on_says_what_has_changed_and_where_it_is(
    tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(data, run) == 0
    capfd.readouterr()
    assert train(data, run, "--resume") == 0
    told = capfd.readouterr()
    assert (
        told.out == f"{run}: the run is at its end, 2 of 2 steps; a larger steps=N goes on\n" and "other settings" not in told.err
    )
    assert train(data, run, "--resume", "--set", "lr=0.5", steps=3) == 0
    assert (
        f"warning: {run} goes on with other settings than it was left with: steps 3 (was 2), lr 0.5 (was "
        in capfd.readouterr().err
    )


def test_a_run_goes_on_with_its_own_pictures_only(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = tmp_path / "run", tmp_path / "other.jsonl"
    assert train(data, run) == 0
    other.write_text("".join(line + "\n" for line in data.read_text().splitlines()[1:]))
    capsys.readouterr()
    assert train(other, run, "--resume", steps=3) == 2
    assert capsys.readouterr().err.startswith(f"error: expected the pictures that {run} was begun with (digest ")


def test_a_folder_of_another_program_is_no_run_folder(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"architectures": []}')
    assert train(data, tmp_path) == 2
    assert "expected a new file or an earlier config.json of a run" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == '{"architectures": []}'
