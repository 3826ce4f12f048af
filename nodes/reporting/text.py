"""A fidelity report in words: for each question its verdict, and its figures below."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...faithdiff_core.fidelity.consistency import ColorDrift, Consistency
from ...faithdiff_core.fidelity.seams import Seams
from ...faithdiff_core.geometry import Size
from ..tiles.run import TileSettings

FOLLOWS_SSIM, DEPARTS_SSIM = 0.95, 0.75
"""SSIM at a quarter of the degraded picture's size. Measured with the nano model on the demo photo: 0.98 to 0.99 in one tile or
in tiles of 256 px, 0.96 the truth itself, 0.93 to 0.96 at strength 0.5, 0.84 to 0.95 in tiles of 128 px, which are too small for
it, 0.10 to 0.62 at strength 0."""
KEPT_DE00, DRIFTS_DE00 = 2.0, 5.0
"""CIEDE2000, 95th percentile. Measured likewise: 0.4 with wavelet, 1.0 with adain, 1.5 the truth itself, 3.7 without colour fix
(the whole picture 8 levels brighter), 17 to 22 in tiles of 128 px without colour fix."""
SEAM_RATIO, SEAM_Z_SCORE = 1.1, 3.0
"""Jumps at borders over those elsewhere, and standard errors. Measured likewise, on three photos: 0.98 (-0.8) to 1.08 (0.7) at
half overlap, 1.24 (3.8) and 1.93 (6.6) in tiles of 128 px at overlaps of 0.1 and 0. Pictures without tiles, for four grids that
they were not made with: 0.85 (-2.3) to 1.70 (2.7)."""


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What was measured of one image.

    Attributes:
        image_px: its size.
        truth: PSNR in dB, and SSIM or None, against the truth; None where there is none.
        seams: None where the image was one tile.
        tiles: their number.
        non_finite: pixels that are not finite, by the input they are in.
    """

    image_px: Size
    consistency: Consistency
    drift: ColorDrift
    seams: Seams | None
    tiles: int
    truth: tuple[float, float | None] | None
    non_finite: dict[str, int]


def report_lines(images: list[Measurements], settings: TileSettings, map_scale: str) -> list[str]:
    """The report on a batch: what all have in common, then each image; what the map's colours mean comes last."""
    lines = []
    if len(images) > 1:
        means = sum(f.consistency.psnr_db for f in images) / len(images)
        worst = min(range(len(images)), key=lambda i: images[i].consistency.psnr_db)
        lines.append(
            f"{len(images)} images: consistency {_db(means)} in the mean, least in image {worst + 1} "
            f"({_db(images[worst].consistency.psnr_db)})"
        )
    for i, measured in enumerate(images):
        if len(images) > 1:
            lines.append(f"image {i + 1}:")
        lines += _image_lines(measured, settings)
    return [*lines, f"map: {map_scale}"]


def _image_lines(measured: Measurements, settings: TileSettings) -> list[str]:
    lines = [
        f"warning: {name} has {count} pixels that are no numbers (NaN or infinite); they count as black"
        for name, count in measured.non_finite.items()
    ]
    lines += [*_consistency_lines(measured), *_colors_lines(measured.drift), *_seams_lines(measured, settings)]
    if measured.truth is not None:
        lines.append(f"truth: {_similarity(*measured.truth)}")
    return lines


def _consistency_lines(measured: Measurements) -> list[str]:
    found = measured.consistency
    if found.coarse_ssim is None:
        verdict = "too small to judge"
    elif found.coarse_ssim >= FOLLOWS_SSIM:
        verdict = "follows the input"
    elif found.coarse_ssim >= DEPARTS_SSIM:
        verdict = "departs from the input in places, see the consistency map"
    else:
        verdict = "departs far from the input; raise strength in FaithDiff Align Latent, lower cfg, check the connections"
    coarse = "" if found.coarse_ssim is None else f", coarse SSIM {found.coarse_ssim:.3f}"
    factor = measured.image_px.height / found.size_px.height
    where = f"{found.size_px} px (1/{factor:.3g})"
    return [f"consistency: {verdict}", f"  {_similarity(found.psnr_db, found.ssim)}{coarse}, at {where}"]


def _colors_lines(drift: ColorDrift) -> list[str]:
    if drift.p95 <= KEPT_DE00:
        verdict = "kept"
    elif drift.p95 <= DRIFTS_DE00:
        verdict = "drift a little; FaithDiff Color Fix with wavelet takes it away"
    else:
        verdict = "drift; use FaithDiff Color Fix, with wavelet if there are tiles"
    levels = [round(level, 1) + 0.0 for level in drift.shift_u8]  # 0.0 takes the sign off a zero
    shift = ", ".join(f"{name} {level:+.1f}" for name, level in zip(("red", "green", "blue"), levels, strict=True))
    return [f"colours: {verdict}", f"  dE00 {drift.mean:.1f} in the mean, {drift.p95:.1f} at 95 %; {shift} of 255"]


def _seams_lines(measured: Measurements, settings: TileSettings) -> list[str]:
    seams = measured.seams
    if seams is None:
        return ["seams: none, one tile"]
    if seams.ratio is None:
        return ["seams: not measured, there is nothing between the borders of tiles to compare with"]
    if seams.ratio < SEAM_RATIO or seams.z_score < SEAM_Z_SCORE:
        verdict = "none seen"
    elif settings.tile_overlap_frac < 0.5:
        verdict = "seen; raise tile_overlap to 0.5"
    else:
        verdict = "seen; sample in larger tiles"
    where = f"{len(seams.borders)} borders of {measured.tiles} tiles"
    return [f"seams: {verdict}", f"  jumps {seams.ratio:.2f} times those elsewhere, at {where}"]


def _similarity(psnr_db: float, ssim: float | None) -> str:
    return f"PSNR {_db(psnr_db)}, " + ("too small for SSIM" if ssim is None else f"SSIM {ssim:.3f}")


def _db(psnr_db: float) -> str:
    return "without end (equal)" if math.isinf(psnr_db) else f"{psnr_db:.2f} dB"
