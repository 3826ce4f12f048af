"""What each colour fix does to old photos, tried on the bundled nano model: one table, and one JSON with every photo.

    python benchmarks/colours.py [--out build/colours.json] [--steps 10]

Photos of scikit-image are made old by rule (`old_photos.py`), restored, and finished by every method. Runs with the host on its
path (tools/environment.py --run). Columns:

* `faded`, `unfaded`: CIEDE2000 to the undamaged photo, of one with tint and grain, and of one with grain only; `psnr_faded`, too.
* `cast`: how much of the mean colour that fading added is still there, 1 = all.
* `grain`, `colour_grain`: how much of the very grain that was put on is still there, in lightness and in the two tints.
* `stains`: how much of the stains is still there. `brought_back`: the same where the model had taken them out (it is given the
  photo without them) and only the colour fix sees them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import conftest  # noqa: E402, F401 - puts the host and the pack where imports find them
import torch  # noqa: E402
from comfyui_faithdiff.faithdiff_core.color_fix import METHODS, fix_colors, low_frequencies  # noqa: E402
from comfyui_faithdiff.faithdiff_core.colors.lab import lab_of_srgb  # noqa: E402
from comfyui_faithdiff.faithdiff_core.fidelity.color import ciede2000  # noqa: E402
from nano_restorer import Restorer  # noqa: E402
from old_photos import OldPhoto, age, photos  # noqa: E402

FIGURES = ("faded", "unfaded", "psnr_faded", "cast", "grain", "colour_grain", "stains", "brought_back")
INPUT = "the input"


def lab_of(image_CHW: torch.Tensor) -> torch.Tensor:
    return lab_of_srgb(image_CHW.double().flatten(1)).reshape(image_CHW.shape)


def share(left: torch.Tensor, added: torch.Tensor) -> float:
    """How much of a pattern is in what is left: the factor that fits best."""
    return float((left * added).sum() / added.square().sum())


def coarse(lab_CHW: torch.Tensor) -> torch.Tensor:
    return low_frequencies(lab_CHW[None])[0]


def distance(image_CHW: torch.Tensor, truth_CHW: torch.Tensor) -> float:
    return float(ciede2000(lab_of(image_CHW).flatten(1), lab_of(truth_CHW).flatten(1)).mean())


def finished(restored_1CHW: torch.Tensor | None, reference_CHW: torch.Tensor, method: str) -> torch.Tensor:
    """By a method; INPUT gives the degraded picture itself."""
    return reference_CHW if restored_1CHW is None else fix_colors(restored_1CHW, reference_CHW[None], method)[0]


def scores(photo: OldPhoto, plain: OldPhoto, restored: dict[str, torch.Tensor | None], method: str) -> dict[str, float]:
    """Of one photo by one method.

    Args:
        photo: faded.
        plain: the same photo, not faded.
        restored: "faded", "stained" (faded, too) and "unfaded", each (1, 3, H, W), or None for the degraded picture itself.
    """
    truth = photo.truth_CHW
    result = finished(restored["faded"], photo.grained_CHW, method)
    stained = finished(restored["stained"], photo.stained_grained_CHW, method)
    brought = finished(restored["faded"], photo.stained_grained_CHW, method)
    stains = coarse(lab_of(photo.stained_CHW) - lab_of(photo.tinted_CHW))
    stains = stains - stains.mean(dim=(1, 2), keepdim=True)
    grain = lab_of(photo.grained_CHW) - lab_of(photo.tinted_CHW)
    fine = lab_of(result) - lab_of(photo.tinted_CHW)
    grain, fine = grain - coarse(grain), fine - coarse(fine)
    cast = (lab_of(photo.tinted_CHW) - lab_of(truth)).mean(dim=(1, 2))
    left = (lab_of(result) - lab_of(truth)).mean(dim=(1, 2))
    return {
        "faded": distance(result, truth),
        "unfaded": distance(finished(restored["unfaded"], plain.grained_CHW, method), truth),
        "psnr_faded": float(-10 * torch.log10((result - truth).square().mean())),
        "cast": share(left, cast),
        "grain": share(fine[:1], grain[:1]),
        "colour_grain": share(fine[1:], grain[1:]),
        "stains": share(coarse(lab_of(stained) - lab_of(result)), stains),
        "brought_back": share(coarse(lab_of(brought) - lab_of(result)), stains),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "colours.json")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    rows: list[dict] = []
    with torch.inference_mode():
        for name, truth_CHW in photos():
            photo, plain = age(truth_CHW, is_faded=True), age(truth_CHW, is_faded=False)
            sources = {"faded": photo.grained_CHW, "stained": photo.stained_grained_CHW, "unfaded": plain.grained_CHW}
            restored = {key: Restorer(lq_CHW[None])(steps=options.steps) for key, lq_CHW in sources.items()}
            nothing = dict.fromkeys(sources)
            rows.append({"photo": name, "method": INPUT, **scores(photo, plain, nothing, "none")})
            rows += [{"photo": name, "method": method, **scores(photo, plain, restored, method)} for method in METHODS]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(rows)))


def table(rows: list[dict]) -> list[str]:
    """Means over the photos, and the distance of each photo."""
    names = list(dict.fromkeys(row["photo"] for row in rows))
    lines = ["| method | " + " | ".join((*FIGURES, *names)) + " |", "|---" * (1 + len(FIGURES) + len(names)) + "|"]
    for method in (INPUT, *METHODS):
        own = [row for row in rows if row["method"] == method]
        means = [f"{statistics.fmean(row[figure] for row in own):.2f}" for figure in FIGURES]
        lines.append(f"| {method} | " + " | ".join([*means, *(f"{row['faded']:.1f}" for row in own)]) + " |")
    return lines


if __name__ == "__main__":
    main()
