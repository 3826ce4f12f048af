"""Which samplers and schedulers hold at few steps, tried on the bundled nano model: one table and one JSON.

    python benchmarks/few_steps.py LQ_FOLDER HQ_FOLDER [--out build/few_steps.json]

The folders hold pictures under the same names; HQ of at least 256 px a side. Runs with the host on its path
(tools/environment.py --run). PSNR and SSIM are against HQ over the restored pictures; `detail` is the mean step between
neighbouring pixels over that of HQ: below 1 is smoother than the original, above 1 is noise or ringing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import conftest  # noqa: E402, F401 - puts the host and the pack where imports find them

# isort: split
import numpy as np  # noqa: E402
import torch  # noqa: E402
from comfyui_faithdiff.faithdiff_core.color_fix import fix_colors  # noqa: E402
from kornia.metrics import ssim  # noqa: E402
from nano_restorer import Restorer  # noqa: E402
from PIL import Image  # noqa: E402

SAMPLERS = (
    "euler", "euler_ancestral", "heun", "dpm_2", "dpmpp_sde", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde", "ddim", "uni_pc",
    "lcm", "res_multistep",
)  # fmt: skip
SCHEDULERS = ("ddim_uniform", "normal", "simple", "sgm_uniform", "karras", "beta", "linear_quadratic")
STEPS = (4, 8, 12, 20)
SIDE_PX = 256
"""Of the part of each picture that is tried."""


def pictures(folder: Path, originals: Path) -> torch.Tensor:
    """(B, H, W, 3) in [0, 1], by name; enlarged to the originals' sizes, the middle SIDE_PX of each."""
    found = []
    for path in sorted(originals.glob("*.png")):
        size = Image.open(path).size
        enlarged = Image.open(folder / path.name).convert("RGB").resize(size, Image.Resampling.LANCZOS)
        rgb_HWC = np.asarray(enlarged, np.float32) / 255
        top, left = ((side - SIDE_PX) // 2 for side in rgb_HWC.shape[:2])
        found.append(torch.from_numpy(rgb_HWC[top : top + SIDE_PX, left : left + SIDE_PX]))
    return torch.stack(found)


def detail(image_HWC: torch.Tensor) -> float:
    return float(image_HWC.diff(dim=0).abs().mean() + image_HWC.diff(dim=1).abs().mean())


def scores(restored_BHWC: torch.Tensor, hq_BHWC: torch.Tensor) -> dict[str, float]:
    pairs = list(zip(restored_BHWC.clamp(0, 1), hq_BHWC, strict=True))
    psnr = [float(-10 * torch.log10((a - b).square().mean())) for a, b in pairs]
    similar = [float(ssim(*(image.movedim(-1, 0).unsqueeze(0) for image in pair), 11).mean()) for pair in pairs]
    ratio = [detail(a) / detail(b) for a, b in pairs]
    return {name: statistics.fmean(v) for name, v in (("psnr", psnr), ("ssim", similar), ("detail", ratio))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lq", type=Path)
    parser.add_argument("hq", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "few_steps.json")
    options = parser.parse_args()
    hq = pictures(options.hq, options.hq)
    with torch.inference_mode():
        lq = pictures(options.lq, options.hq)
        restorer = Restorer(lq.movedim(-1, 1))
        rows = [{"sampler": "LQ", "scheduler": "", "steps": 0, "seconds": 0.0, **scores(lq, hq)}]
        for sampler in SAMPLERS:
            for scheduler in SCHEDULERS:
                for steps in STEPS:
                    started = time.process_time()
                    decoded_BCHW = restorer(steps=steps, sampler=sampler, scheduler=scheduler)
                    restored = fix_colors(decoded_BCHW, lq.movedim(-1, 1), "adain").movedim(1, -1)
                    seconds = time.process_time() - started
                    rows.append(
                        {"sampler": sampler, "scheduler": scheduler, "steps": steps, "seconds": seconds, **scores(restored, hq)}
                    )
            print(json.dumps(rows[-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
