"""How the host draws previews of the nano model's latents, which are not those of SDXL's VAE."""

from __future__ import annotations

import comfy.latent_formats

SDXL_MODEL_CHANNELS = 320
"""Width of SDXL's UNet and of all that were distilled from it (SSD-1B, Vega, KOALA): they share its VAE. Narrower ones are nano."""
RGB_OF_LATENT = (
    (0.5151, 0.1826, 0.1207),
    (0.1283, 0.3253, 0.1508),
    (0.0157, 0.1217, 0.3606),
    (0.0093, -0.0018, -0.0044),
)
"""Of the bundled nano VAE: red, green and blue in [-1, 1] for each of its four channels, by `benchmarks/nano_preview.py`: least squares
over three photos. On a fourth (the demo's) the preview is 0.02 from the photo at its size, rms of [0, 1]; with SDXL's factors 0.23."""
RGB_BIAS = (-0.0690, -0.1412, -0.1930)


class NanoLatents(comfy.latent_formats.SDXL):
    """SDXL's scale, to which nano VAEs are trained, with previews of their own.

    TAESD's decoder for SDXL would draw false colours, too: without a name of one the host draws by the factors.
    """

    def __init__(self):
        super().__init__()
        self.latent_rgb_factors = [list(row) for row in RGB_OF_LATENT]
        self.latent_rgb_factors_bias = list(RGB_BIAS)
        self.taesd_decoder_name = None
