"""What each colour fix does to old photos, tried on the bundled nano model: one table a kind of damage, and one JSON.

    python benchmarks/colours.py [--out build/colours.json]

Photos of scikit-image are damaged by rule (`old_photos.py`), restored, and finished by every method. Runs with the host on its path
(tools/environment.py --run). Against the undamaged photo: CIEDE2000 and PSNR. Of what the damage added, how much is still there:
`cast` (of the mean colour), `stains` and `grain` (of the very pattern that was put on; grain of lightness and of colour apart).
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
from old_photos import DAMAGES, Damaged, photos  # noqa: E402

FIGURES = ("de00", "psnr", "cast", "stains", "grain", "colour_grain")


def lab_of(image_CHW: torch.Tensor) -> torch.Tensor:
    return lab_of_srgb(image_CHW.double().flatten(1)).reshape(image_CHW.shape)


def share(left: torch.Tensor, added: torch.Tensor) -> float | None:
    """How much of a pattern is in what is left: the factor that fits best; None where there was no pattern."""
    power = added.square().sum()
    return float((left * added).sum() / power) if power > 1e-6 else None


def coarse(lab_CHW: torch.Tensor) -> torch.Tensor:
    return low_frequencies(lab_CHW[None])[0]


def scores(result_CHW: torch.Tensor, case: Damaged) -> dict[str, float | None]:
    """Of one finished picture; every pattern is compared without its mean, which is the cast's."""
    truth, result = lab_of(case.truth_CHW), lab_of(result_CHW)
    left = result - truth
    cast = (lab_of(case.tinted_CHW) - truth).mean(dim=(1, 2), keepdim=True)
    stains = coarse(lab_of(case.stained_CHW) - lab_of(case.tinted_CHW))
    stains = stains - stains.mean(dim=(1, 2), keepdim=True)
    grain = lab_of(case.damaged_CHW) - lab_of(case.stained_CHW)
    grain = grain - coarse(grain)
    fine = left - coarse(left)
    mean = left.mean(dim=(1, 2), keepdim=True)
    return {
        "de00": float(ciede2000(result.flatten(1), truth.flatten(1)).mean()),
        "psnr": float(-10 * torch.log10((result_CHW - case.truth_CHW).square().mean())),
        "cast": share(mean, cast),
        "stains": share(coarse(left) - mean, stains),
        "grain": share(fine[:1], grain[:1]),
        "colour_grain": share(fine[1:], grain[1:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "colours.json")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--save", type=Path, help="also write the pictures, as tensors, here")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    kept = {}
    with torch.inference_mode():
        for damage in DAMAGES:
            for name, truth_CHW in photos():
                case = DAMAGES[damage](truth_CHW)
                restored_1CHW = Restorer(case.damaged_CHW)(steps=options.steps)
                results = {"the input": case.damaged_CHW}
                for method in METHODS:
                    results[method] = fix_colors(restored_1CHW, case.damaged_CHW[None], method)[0]
                rows += [{"damage": damage, "photo": name, "method": m, **scores(r, case)} for m, r in results.items()]
                kept[damage, name] = (case, restored_1CHW, results)
            print_table(damage, [row for row in rows if row["damage"] == damage])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.save:
        torch.save(kept, options.save)


def print_table(damage: str, rows: list[dict]) -> None:
    print(f"\n{damage}\n| method | " + " | ".join(FIGURES) + " |\n|---" * 1 + "|---" * len(FIGURES) + "|")
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for figure in FIGURES:
            values = [row[figure] for row in rows if row["method"] == method and row[figure] is not None]
            cells.append(f"{statistics.fmean(values):.2f}" if values else "")
        print(f"| {method} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
