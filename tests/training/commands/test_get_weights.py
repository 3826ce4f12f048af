"""`python -m training get-weights` against a local hub: asks, fetches, converts; what is converted is what `convert` makes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.fake_hub import FakeHub
from support.hub_files import FAITHDIFF, hub_in_place
from support.patience import PATIENCE_S
from support.trainer_models import untrained_parts

from faithdiff_core.files.checkpoint import assemble_released
from faithdiff_core.hub import download as download_module
from faithdiff_core.hub.half import write_half
from faithdiff_core.hub.progress import CancelledError
from training.cli import main

ROOT = Path(__file__).resolve().parents[3]
HALF, BIN = "FaithDiff_fp16.safetensors", "FaithDiff.bin"


@pytest.fixture(scope="module")
def released() -> bytes:
    """FaithDiff.bin of the nano network, in fp32."""
    data = io.BytesIO()
    torch.save(assemble_released(untrained_parts()), data)
    return data.getvalue()


@pytest.fixture
def hub(released: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with hub_in_place({FAITHDIFF: {BIN: released}}, monkeypatch) as hub:
        yield hub


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_it_asks_and_then_there_is_what_convert_makes(
    hub: FakeHub, models: Path, released: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["get-weights", "--into", str(models)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert main(command) == 2 and names(models) == [] and hub.transfers() == []
    said = capsys.readouterr()
    size = f"{len(released) / 1e6:.1f} MB"
    assert f"{BIN} (FaithDiff weights), {size} from 127.0.0.1" in said.out
    assert (
        "https://huggingface.co/jychen9811/FaithDiff" in said.out
        and "of room in" in said.out
        and "got none, nothing was downloaded" in said.err
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main([*command, "--keep-bin"]) == 0
    assert names(models / "faithdiff") == [BIN, HALF]
    shown = capsys.readouterr().err
    assert [phase for phase in ("downloading", "checking", "converting", "comparing") if f"{BIN}: {phase}" not in shown] == []
    bin_file, converted = models / "faithdiff" / BIN, models / "by_convert.safetensors"
    assert bin_file.read_bytes() == released
    assert main(["convert", str(bin_file), "--out", str(converted), "--dtype", "fp16"]) == 0
    assert (models / "faithdiff" / HALF).read_bytes() == converted.read_bytes()
    asked = len(hub.asked)
    assert main([*command, "--yes"]) == 0 and len(hub.asked) == asked
    assert f"{HALF}: is there" in capsys.readouterr().out


def test_the_bin_goes_and_can_be_had_again(hub: FakeHub, models: Path) -> None:
    (models / "faithdiff").mkdir()
    (models / "faithdiff" / BIN).write_bytes(hub.files[FAITHDIFF][BIN])  # by hand, earlier
    assert main(["get-weights", "--into", str(models), "--yes"]) == 0
    assert names(models) == [HALF] and hub.transfers() == []


@pytest.mark.parametrize("phase", ["converting", "comparing"])
def test_cancelled_while_it_converts(released: bytes, tmp_path: Path, phase: str) -> None:
    source, out = tmp_path / BIN, tmp_path / HALF
    source.write_bytes(released)

    def told(now: str, done: int, total: int) -> None:
        if phase in now and done > total // 2:
            raise CancelledError

    with pytest.raises(CancelledError):
        write_half(source, out, told)
    assert names(tmp_path) == [BIN]


def test_what_fp16_cannot_hold_is_said(tmp_path: Path) -> None:
    parts = untrained_parts()
    assert parts.unet is not None
    parts.unet["out.2.bias"].fill_(1e6)
    torch.save(assemble_released(parts), tmp_path / BIN)
    with pytest.raises(ValueError, match=r"expected weights that fp16 can hold, got larger ones or NaN in .*out\.2\.bias"):
        write_half(tmp_path / BIN, tmp_path / HALF, lambda *_: None)
    assert names(tmp_path) == [BIN]


def test_a_byte_that_changes_on_the_disk_is_seen(released: bytes, tmp_path: Path) -> None:
    (tmp_path / BIN).write_bytes(released)

    def told(phase: str, done: int, total: int) -> None:
        if "converting" in phase and done == total:
            (partial,) = tmp_path.glob(".*.unfinished")
            with partial.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                last = file.read(1)
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last[0] ^ 1]))

    with pytest.raises(OSError, match="the disk may be failing"):
        write_half(tmp_path / BIN, tmp_path / HALF, told)
    assert names(tmp_path) == [BIN]


def test_something_else_under_that_name(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(2)}, tmp_path / BIN)
    with pytest.raises(ValueError, match="expected a FaithDiff file"):
        write_half(tmp_path / BIN, tmp_path / HALF, lambda *_: None)


def test_ctrl_c_keeps_what_came_and_the_same_command_goes_on(
    hub: FakeHub, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = download_module.sha256_of

    def pressed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(download_module, "sha256_of", pressed)
    assert main(["get-weights", "--into", str(models), "--yes"]) == 130
    assert "what has come is kept" in capsys.readouterr().err
    (part,) = (models / "faithdiff").iterdir()
    assert part.suffix == ".part" and len(hub.transfers()) == 1
    monkeypatch.setattr(download_module, "sha256_of", real)
    assert main(["get-weights", "--into", str(models), "--yes"]) == 0
    assert names(models) == [HALF] and len(hub.transfers()) == 1


def test_wrong_folders_and_a_hub_that_refuses(hub: FakeHub, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get-weights", "--into", str(models / "none"), "--yes"]) == 2
    assert "name it: --into ComfyUI/models" in capsys.readouterr().err
    hub.status = (401, "GatedRepo")
    assert main(["get-weights", "--into", str(models), "--yes"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "wants an agreement" in printed and names(models) == []


@pytest.mark.long
def test_a_killed_command_goes_on(hub: FakeHub, models: Path, released: bytes) -> None:
    hub.slow_s = 0.02
    command = [sys.executable, "-m", "training", "get-weights", "--into", str(models), "--yes"]
    variables = {**os.environ, "HF_ENDPOINT": hub.url}
    child = subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE)
    end = time.monotonic() + PATIENCE_S
    while not any(path.stat().st_size > 2 * download_module.CHUNK_BYTES for path in models.rglob("*.part")):
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    (part,) = models.rglob("*.part")
    have = part.stat().st_size
    assert 0 < have < len(released)
    hub.slow_s = 0
    assert subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, timeout=PATIENCE_S).returncode == 0
    assert hub.transfers()[-1]["range"] == f"bytes={have}-" and names(models) == [HALF]
    with safe_open(models / "faithdiff" / HALF, "pt") as file:
        assert file.metadata()["faithdiff.align_attention"] == "pointwise"
