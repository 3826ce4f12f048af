"""The factors by which the host draws previews of the nano model: fitted to photos through the bundled nano VAE, and printed.

    python benchmarks/nano_preview.py

Latent cells against the mean colours of their 8 x 8 pixels, by least squares. The numbers go into nodes/seam/nano_vae.py. Runs
with the host on its path (tools/environment.py --run).
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import conftest  # noqa: E402, F401 - puts the host and the pack where imports find them
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from comfy.latent_formats import SDXL  # noqa: E402
from comfyui_faithdiff.faithdiff_core.geometry import LATENT_CELL_PX  # noqa: E402
from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae  # noqa: E402
from comfyui_faithdiff.nodes.seam.weights_file import read_weights  # noqa: E402
from old_photos import photos  # noqa: E402

LEFT_OUT = "chelsea"
"""The demo photo, on which the factors are tried."""


def cells(vae, photo_CHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (N, 4) and colours (N, 3) in [-1, 1] of a photo's cells."""
    latent_BCHW = SDXL().process_in(vae.encode(photo_CHW.movedim(0, -1)[None]))
    colors_BCHW = F.avg_pool2d(photo_CHW[None], LATENT_CELL_PX) * 2 - 1
    return latent_BCHW[0].flatten(1).T.double(), colors_BCHW[0].flatten(1).T.double()


def with_ones(latents_NC: torch.Tensor) -> torch.Tensor:
    return torch.cat([latents_NC, torch.ones_like(latents_NC[:, :1])], dim=1)


def rms(drawn_NC: torch.Tensor, colors_NC: torch.Tensor) -> float:
    """Of values in [0, 1]."""
    return float(((drawn_NC.clamp(-1, 1) - colors_NC) / 2).square().mean().sqrt())


def main() -> None:
    with torch.inference_mode():
        vae = load_nano_vae(*read_weights(str(ROOT / "demo" / "nano_vae.safetensors")))
        found = {name: cells(vae, photo_CHW) for name, photo_CHW in photos()}
        latents, colors = (torch.cat([pair[i] for name, pair in found.items() if name != LEFT_OUT]) for i in (0, 1))
        fitted = torch.linalg.lstsq(with_ones(latents), colors).solution
        sdxl = torch.tensor([*SDXL().latent_rgb_factors, SDXL().latent_rgb_factors_bias], dtype=torch.float64)
        for name, row in zip(("channel 0", "channel 1", "channel 2", "channel 3", "bias"), fitted.tolist(), strict=True):
            print(f"{name}: {', '.join(f'{value:.4f}' for value in row)}")
        for name, (latents_NC, colors_NC) in found.items():
            ours, theirs = (rms(with_ones(latents_NC) @ factors, colors_NC) for factors in (fitted, sdxl))
            print(f"{name}{' (left out)' if name == LEFT_OUT else ''}: rms {ours:.4f}, with SDXL's factors {theirs:.4f}")


if __name__ == "__main__":
    main()
