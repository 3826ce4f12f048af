"""The whole degradation: sizes, seeds, presets, and the command's folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from support.trainer import picture

from training.common.images import read_image, write_png
from training.common.seeds import generator_for
from training.degradation.folder import degrade_paths
from training.degradation.pipeline import degrade, draw_kernel, upscale
from training.degradation.presets import HEAVY, LEVEL_I, LEVEL_II, LEVEL_III, MILD, PRESETS, preset
from training.metrics.own import psnr_db


@pytest.mark.parametrize("level", sorted(PRESETS))
def test_size_range_and_eight_bits(level: str) -> None:
    out = degrade(picture(0, 50, 61).float() / 255, preset(level), 4, generator_for(1, level))
    assert out.shape == (3, 12, 15)
    assert out.min() >= 0 and out.max() <= 1
    assert torch.allclose(out * 255, (out * 255).round(), atol=1e-4)


def test_the_same_seed_and_key_give_the_same_picture_and_others_do_not() -> None:
    image = picture(1).float() / 255
    first, again, other = (degrade(image, MILD, 2, generator_for(0, "degrade", key)) for key in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_levels_are_a_ladder() -> None:
    image = picture(2, 128, 128).float() / 255
    noise = torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(0))
    image = (image + 0.3 * (noise > 0.9)).clamp(0, 1)
    scores = []
    for chosen in (LEVEL_I, LEVEL_II, LEVEL_III):
        runs = [upscale(degrade(image, chosen, 2, generator_for(s, "x")), (128, 128), generator_for(s, "up")) for s in range(12)]
        scores.append(sum(psnr_db(run, image) for run in runs) / len(runs))
    assert scores[0] > scores[1] > scores[2]


def test_presets_hold_the_published_values() -> None:
    assert (MILD.stage_a.resize_range, MILD.stage_a.gaussian_sigma_u8, MILD.stage_a.jpeg_quality) == (
        (0.3, 1.5),
        (1, 15),
        (60, 95),
    )
    assert (MILD.stage_b.blur_prob, MILD.stage_b.gaussian_sigma_u8, MILD.stage_b.jpeg_quality) == (0.5, (1, 12), (60, 100))
    assert (HEAVY.stage_a.resize_range, HEAVY.stage_a.gaussian_sigma_u8, HEAVY.stage_b.blur_prob) == ((0.15, 1.5), (1, 30), 0.8)


def test_kernels_drawn_are_odd_and_within_the_official_sizes() -> None:
    sizes = {draw_kernel(MILD.stage_a, generator_for(0, index)).shape[0] for index in range(200)}
    assert sizes == set(range(7, 22, 2))


def test_command_writes_every_picture_once_and_a_manifest(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_png(source / "a.png", picture(0))
    write_png(source / "sub" / "b.png", picture(1))
    (source / "broken.png").write_bytes(b"no picture")
    tally = degrade_paths(source, out, level="II", scale=2, seed=5)
    assert tally.done == 2 and list(tally.failed) == ["broken"] and "broken.png" in tally.failed["broken"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["level"], manifest["scale"], manifest["seed"]) == ("II", 2, 5)
    assert [entry["key"] for entry in manifest["pictures"]] == ["a", "sub/b"]
    for entry in manifest["pictures"]:
        assert hashlib.sha256((out / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
        assert list(read_image(out / entry["file"]).shape[1:]) == entry["HW_px"] == [48, 64]
    # One file alone gives the same picture as the folder: nothing depends on order.
    degrade_paths(source / "a.png", tmp_path / "one", level="II", scale=2, seed=5)
    assert (tmp_path / "one" / "a.png").read_bytes() == (out / "a.png").read_bytes()


def test_command_refuses_wrong_input(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(0))
    with pytest.raises(ValueError, match="expected a degradation level, got 'milt', did you mean 'mild'"):
        degrade_paths(tmp_path / "a.png", tmp_path / "out", level="milt", scale=2, seed=0)
    with pytest.raises(ValueError, match="does not exist"):
        degrade_paths(tmp_path / "none", tmp_path / "out", level="I", scale=2, seed=0)
    with pytest.raises(ValueError, match="apart from the sources"):
        degrade_paths(tmp_path / "a.png", tmp_path, level="I", scale=2, seed=0)
    write_png(tmp_path / "two" / "x.png", picture(0))
    write_png(tmp_path / "two" / "x.bmp.png", picture(0))
    (tmp_path / "two" / "x.bmp.png").rename(tmp_path / "two" / "x.webp")
    with pytest.raises(ValueError, match="one picture per name"):
        degrade_paths(tmp_path / "two", tmp_path / "out", level="I", scale=2, seed=0)
    assert not (tmp_path / "out").exists()
