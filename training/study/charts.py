"""The study's pictures: curves of the ablation's runs, and strips of restored crops. Drawn with matplotlib and Pillow."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from training.common.files import write_atomically, write_bytes
from training.reports.sheets import sheet

LABEL_PX = 16
JPEG_QUALITY = 90


def write_curves(path: Path, runs: Mapping[str, Sequence[Sequence[Path]]]) -> None:
    """Training loss by step of every row: the mean over its seeds as a line, their span as a band.

    runs[row] = for each seed its run folders in order; a second run is drawn after the first.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    for row, seeds in runs.items():
        curves = [_losses(folders) for folders in seeds]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        values = [[curve[step] for curve in curves] for step in steps]
        (line,) = axes.plot(steps, [sum(each) / len(each) for each in values], label=row, linewidth=1.4)
        axes.fill_between(
            steps, [min(each) for each in values], [max(each) for each in values], color=line.get_color(), alpha=0.15
        )
    axes.set_xlabel("step after the common start")
    axes.set_ylabel("training loss (L1 on the noise)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    # No date and no version inside: the same curves give the same file.
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    pyplot.close(figure)
    write_bytes(path, buffer.getvalue())


def _losses(folders: Sequence[Path]) -> dict[int, float]:
    losses: dict[int, float] = {}
    before = 0
    for folder in folders:
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        losses |= {before + line["step"]: line["loss"] for line in lines}
        before = max(losses)
    return losses


def write_strips(path: Path, columns: Sequence[str], lines: Sequence[Sequence[Path]], *, side_px: int) -> None:
    """A sheet of pictures, one line each, every picture at `side_px`, with the columns' names above."""
    labels = Image.new("RGB", (side_px * len(columns), LABEL_PX), "white")
    draw, font = ImageDraw.Draw(labels), ImageFont.load_default(12)
    for column, name in enumerate(columns):
        draw.text((column * side_px + 3, 1), name, font=font, fill="black")
    whole = sheet([[_tensor(labels)], *([_resized(file, side_px) for file in line] for line in lines)])
    picture = Image.fromarray(whole.permute(1, 2, 0).contiguous().numpy(), "RGB")
    write_atomically(path, lambda temporary: picture.save(temporary, format="JPEG", quality=JPEG_QUALITY))


def _resized(file: Path, side_px: int) -> torch.Tensor:
    with Image.open(file) as picture:
        return _tensor(picture.convert("RGB").resize((side_px, side_px), Image.Resampling.BICUBIC))


def _tensor(picture: Image.Image) -> torch.Tensor:
    """uint8 (3, H, W)."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
