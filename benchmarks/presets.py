"""Which settings suit a kind of picture, as far as the bundled nano model can tell: one table and one JSON.

    python benchmarks/presets.py LQ_FOLDER HQ_FOLDER [--out build/presets.json]

Folders and figures as for few_steps.py: PSNR and SSIM against the original, `detail` = 1 where there is as much as in that.
`cfg` cannot be tried: the nano model knows no prompt. Runs with the host on its path (tools/environment.py --run).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import few_steps  # first: it puts the host and the pack where imports find them

# isort: split
import torch
from comfyui_faithdiff.faithdiff_core.color_fix import fix_colors
from nano_restorer import Restorer

TRIED: tuple[dict[str, Any], ...] = (
    {"steps": 20}, {"steps": 10}, {"steps": 4}, {"steps": 20, "strength": 0.85}, {"steps": 20, "end_percent": 0.8},
    {"steps": 20, "denoise": 0.5}, {"steps": 20, "denoise": 0.7},
)  # fmt: skip
COLOURS = ("adain", "wavelet", "none", "lab")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lq", type=Path)
    parser.add_argument("hq", type=Path)
    parser.add_argument("--out", type=Path, default=few_steps.ROOT / "build" / "presets.json")
    options = parser.parse_args()
    hq_BHWC = few_steps.pictures(options.hq, options.hq)
    lq_BHWC = few_steps.pictures(options.lq, options.hq)
    rows: list[dict[str, Any]] = [{"settings": "LQ", **few_steps.scores(lq_BHWC, hq_BHWC)}]
    with torch.inference_mode():
        restorers = [Restorer(lq_BCHW) for lq_BCHW in lq_BHWC.movedim(-1, 1).split(1)]
        for settings in TRIED:
            restored = [restorer(**settings) for restorer in restorers]
            for colour in COLOURS if settings == TRIED[0] else COLOURS[:1]:
                references = lq_BHWC.movedim(-1, 1).split(1)
                fixed = [fix_colors(*pair, colour).movedim(1, -1) for pair in zip(restored, references, strict=True)]
                name = ", ".join(f"{key} {value}" for key, value in {**settings, "colours": colour}.items())
                rows.append({"settings": name, **few_steps.scores(torch.cat(fixed), hq_BHWC)})
                print("| {settings} | {psnr:.2f} | {ssim:.3f} | {detail:.2f} |".format(**rows[-1]), flush=True)
    print("| {settings} | {psnr:.2f} | {ssim:.3f} | {detail:.2f} |".format(**rows[0]))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
