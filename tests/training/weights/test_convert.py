"""`python -m training convert`: there and back, and what it refuses."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.trainer_models import untrained_parts

from faithdiff_core.files.checkpoint import ALIGNMENT_PREFIX, FaithDiffParts, assemble_released
from training.cli import main
from training.common.tensor_files import read_parts
from training.weights import convert as convert_module


@pytest.fixture(scope="module")
def parts() -> FaithDiffParts:
    return untrained_parts()


@pytest.fixture
def released(parts: FaithDiffParts, tmp_path: Path) -> Path:
    path = tmp_path / "FaithDiff.bin"
    torch.save(assemble_released(parts), path)
    return path


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def same(a: FaithDiffParts, b: FaithDiffParts) -> bool:
    return all(
        (x := getattr(a, part)) is not None
        and x.keys() == getattr(b, part).keys()
        and all(torch.equal(x[name], getattr(b, part)[name]) for name in x)
        for part in ("unet", "lq_encoder", "alignment")
    )


def test_there_and_back(released: Path, parts: FaithDiffParts, tmp_path: Path) -> None:
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.bin"
    assert convert(released, "--out", ours) == 0 and convert(ours, "--out", back) == 0
    assert same(read_parts(ours), parts) and same(read_parts(back), parts)
    again = torch.load(back, weights_only=True)
    first = torch.load(released, weights_only=True)
    assert again.keys() == first.keys() and all(torch.equal(again[name], first[name]) for name in first)
    with safe_open(ours, "pt") as file:
        assert file.metadata()["faithdiff.align_attention"] == "pointwise"


def test_adapter_and_type(released: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapter.safetensors"
    assert convert(released, "--out", out, "--layout", "adapter", "--dtype", "fp16") == 0
    with safe_open(out, "pt") as file:
        names = list(file.keys())
        assert all(file.get_tensor(name).dtype == torch.float16 for name in names)
    assert any(name.startswith(ALIGNMENT_PREFIX) for name in names)
    assert not any(name.startswith("model.diffusion_model.") for name in names)


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


def test_refusals_leave_nothing_behind(
    released: Path, parts: FaithDiffParts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil, marker = tmp_path / "evil.bin", tmp_path / "it_ran"
    torch.save({"x": RunsCode(marker)}, evil)
    narrow = tmp_path / "wide.bin"
    state = assemble_released(parts)
    name = next(iter(state))
    torch.save({**state, name: torch.full_like(state[name], 1e6)}, narrow)
    text = tmp_path / "text.safetensors"
    text.write_text("not a model")
    spatial = tmp_path / "spatial.safetensors"
    from faithdiff_core.files.storage import write_safetensors

    write_safetensors(spatial, state, {"faithdiff.align_attention": "spatial"})
    before = set(tmp_path.iterdir())
    cases = [
        ((tmp_path / "gone.bin", "--out", tmp_path / "a.safetensors"), "does not exist"),
        ((text, "--out", tmp_path / "a.safetensors"), "cannot be read"),
        ((evil, "--out", tmp_path / "a.safetensors"), "asks to run code; it was refused and nothing was run"),
        ((released, "--out", tmp_path / "a.ckpt"), "to end in .safetensors or .bin"),
        ((released, "--out", released), "another file than the input"),
        ((released, "--out", tmp_path / "a.bin", "--layout", "full"), "released layout for a .bin"),
        ((narrow, "--out", tmp_path / "a.safetensors", "--dtype", "fp16"), "NaN or infinity in 1 tensors"),
        ((spatial, "--out", tmp_path / "a.bin"), "align_attention = pointwise for a .bin"),
    ]
    for arguments, words in cases:
        assert convert(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: expected ") and words in error and error.count("\n") == 1, error
    assert set(tmp_path.iterdir()) == before and not marker.exists()


def test_a_broken_download_is_seen(released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ours.safetensors"
    right = hashlib.sha256(released.read_bytes()).hexdigest()
    assert convert(released, "--out", out, "--sha256", right.upper()) == 0
    out.unlink()
    for wrong in ("0" * 64, "abc"):
        assert convert(released, "--out", out, "--sha256", wrong) == 2
        assert "expected" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(("name", "writer"), [("ours.safetensors", "write_safetensors"), ("back.bin", "write_archive")])
def test_what_was_written_is_read_back(
    released: Path, tmp_path: Path, name: str, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that gives other values than it was given: an error, and no file."""
    write = getattr(convert_module, writer)

    def spoilt(path: Path, state: dict[str, torch.Tensor], *rest: object) -> None:
        first = next(iter(state))
        write(path, {**state, first: state[first] + 1}, *rest)

    monkeypatch.setattr(convert_module, writer, spoilt)
    out = tmp_path / name
    assert convert(released, "--out", out) != 0
    assert not out.exists()
