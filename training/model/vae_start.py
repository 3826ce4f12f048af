"""A starting point for the small autoencoder that passes the colours of 8 x 8 px cells through from the first step.

From a random start it spends all four latent channels on brightness and stays grey for hundreds of steps. Here the residual
stream carries R, G and B through identity weights, the residual branches start at zero, and the two output layers are fitted
by least squares.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from training.model.networks import decode, encode

CARRIED = 5
"""Channels passed through: R, G, B, and two constants of opposite sign."""
CONSTANT = 1.0
"""Their size. They dominate the first norm group's statistics, so that normalising does not take brightness away."""
START_LOG_VARIANCE = -6.0
RIDGE = 1e-3


@torch.no_grad()
def start_with_colour(vae: AutoencoderKL, images_NCHW: torch.Tensor) -> None:
    """Set the weights of an untrained autoencoder; `images_NCHW` (N, 3, H, W) in [-1, 1] are what the output layers are fitted
    on.
    """
    coder: Any = vae
    for part in (coder.encoder, coder.decoder):
        _carry_through(part)
    _carry_first(coder.encoder.conv_in, 3)
    _carry_first(coder.decoder.conv_in, 3)
    for layer in (coder.quant_conv, coder.post_quant_conv):
        torch.nn.init.dirac_(layer.weight)
        layer.bias.zero_()
    cells = F.avg_pool2d(images_NCHW, 8)
    features = _features_before_output(coder.encoder, lambda: encode(vae, images_NCHW))
    _fit(coder.encoder.conv_out, features, cells)
    coder.encoder.conv_out.weight[4:] = 0.0
    coder.encoder.conv_out.bias[4:] = START_LOG_VARIANCE
    latent = encode(vae, images_NCHW).chunk(2, dim=1)[0]
    features = _features_before_output(coder.decoder, lambda: decode(vae, latent))
    _fit(coder.decoder.conv_out, features, images_NCHW)


def _carry_through(part: Any) -> None:
    """Residual branches to zero; every layer of the residual stream hands its first channels on."""
    for name, layer in part.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            layer.weight.zero_()
            layer.bias.zero_()
        elif name.endswith("conv_shortcut"):
            _hand_on(layer, torch.ones(1, 1))
        elif name.endswith("downsamplers.0.conv"):
            _hand_on(layer, torch.tensor([[0.25, 0.25, 0.0], [0.25, 0.25, 0.0], [0.0, 0.0, 0.0]]))
        elif name.endswith("upsamplers.0.conv"):
            row = torch.tensor([0.25, 0.5, 0.25])
            _hand_on(layer, row[:, None] * row[None, :])


def _hand_on(layer: torch.nn.Conv2d, taps: torch.Tensor) -> None:
    """Output channel c = input channel c filtered with `taps`, for the carried ones."""
    layer.weight[:CARRIED] = 0.0
    for channel in range(CARRIED):
        layer.weight[channel, channel] = taps
    assert layer.bias is not None
    layer.bias[:CARRIED] = 0.0


def _carry_first(layer: torch.nn.Conv2d, colours: int) -> None:
    """The first layer: colours as they are, then the two constants."""
    assert layer.bias is not None
    layer.weight[:CARRIED] = 0.0
    layer.bias[:CARRIED] = 0.0
    for channel in range(colours):
        layer.weight[channel, channel, 1, 1] = 1.0
    layer.bias[colours] = CONSTANT
    layer.bias[colours + 1] = -CONSTANT


def _features_before_output(part: Any, run: Any) -> torch.Tensor:
    """What reaches `conv_out` while `run` is called."""
    seen: list[torch.Tensor] = []
    hook = part.conv_out.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        run()
    finally:
        hook.remove()
    return seen[0]


def _fit(layer: torch.nn.Conv2d, features_NCHW: torch.Tensor, wanted_NCHW: torch.Tensor) -> None:
    """Set the layer's first outputs to the least squares prediction of `wanted` from the features at the same place."""
    x = features_NCHW.movedim(1, -1).flatten(0, -2).double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    y = wanted_NCHW.movedim(1, -1).flatten(0, -2).double()
    gram = x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, x.T @ y / len(x)).float()
    outputs = y.shape[1]
    assert layer.bias is not None
    layer.weight[:outputs] = 0.0
    layer.weight[:outputs, :, 1, 1] = solution[:-1].T
    layer.bias[:outputs] = solution[-1]
