"""The VAE as a file: latents normalised into its own layers, diffusers keys, its widths in the header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from faithdiff_core.files.checks import check_state
from faithdiff_core.files.storage import write_safetensors
from training.common.strict_json import parse_json
from training.model.networks import LATENT_SCALE, NETWORKS, NetworkSpec, build_vae, encode, fits, vae_widths
from training.weights.base import read_vae_weights

SDXL_NORM_GROUPS = 32


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, images_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each latent channel's posterior mean over all pictures and positions, float64 (4,)."""
    means = [encode(vae, image[None]).chunk(2, dim=1)[0].double() for image in images_NCHW]
    values_CN = torch.cat([mean[0].flatten(1) for mean in means], dim=1)
    return values_CN.mean(1), values_CN.std(1)


@torch.no_grad()
def fold_latent_statistics(vae: AutoencoderKL, mean_C: torch.Tensor, std_C: torch.Tensor) -> None:
    """Change the quant layers so that latents have mean 0 and standard deviation 1 / 0.13025 a channel, pictures staying the
    same.

    z' = a (z - m) with a = 1 / (0.13025 s): rows 0:4 of quant_conv are the mean; rows 4:8 the log variance, which shifts by 2 ln
    a; post_quant_conv undoes it.
    """
    gain_C = 1.0 / (LATENT_SCALE * std_C.double())
    channels = len(gain_C)
    quant, post = vae.quant_conv, vae.post_quant_conv
    assert quant is not None and quant.bias is not None and post is not None and post.bias is not None
    weight, bias = quant.weight.double(), quant.bias.double()
    weight[:channels] *= gain_C[:, None, None, None]
    bias[:channels] = gain_C * (bias[:channels] - mean_C)
    bias[channels:] += 2.0 * gain_C.log()
    quant.weight.copy_(weight.float())
    quant.bias.copy_(bias.float())
    weight, bias = post.weight.double(), post.bias.double()
    post.bias.copy_((bias + weight[:, :, 0, 0] @ mean_C.double()).float())
    post.weight.copy_((weight / gain_C[None, :, None, None]).float())


def write_vae(
    path: Path, vae: AutoencoderKL, spec: NetworkSpec, *, dtype: torch.dtype, training: Mapping[str, object], licence: str
) -> None:
    """Write the VAE with the header entries its loaders need."""
    config = {
        "block_out_channels": list(spec.vae_channels),
        "layers_per_block": spec.vae_layers,
        "norm_groups": spec.vae_norm_groups,
        "latent_channels": 4,
    }
    header = {
        "faithdiff.format": "1",
        "faithdiff.vae_config": json.dumps(config),
        "faithdiff.license": licence,
        "faithdiff.training": json.dumps(training),
    }
    write_safetensors(path, {name: value.to(dtype) for name, value in vae.state_dict().items()}, header)


def read_vae(path: Path, spec: NetworkSpec | None = None) -> AutoencoderKL:
    """A frozen VAE in fp32: one written by `write_vae`, or an SDXL VAE as a diffusers folder, a file or part of a checkpoint.

    Without `spec`, of the named network that it fits.

    Raises:
        ValueError: the file is missing, damaged or of other widths.
    """
    if not path.exists():
        raise ValueError(f"expected a VAE, got {path}, which does not exist; name an exported VAE or an SDXL VAE")
    state, header = read_vae_weights(path)
    widths = vae_widths(state, "encoder.")
    try:
        config = parse_json(header.get("faithdiff.vae_config", "{}"))
        # A file that does not tell has SDXL's.
        widths["vae_norm_groups"] = config.get("norm_groups", SDXL_NORM_GROUPS)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"expected a JSON object as faithdiff.vae_config in {path}, got {error}, get it again") from None
    fitting = [each for each in ([spec] if spec else NETWORKS.values()) if fits(widths, each)]
    if not fitting:
        wanted = " or ".join(str(each.vae_channels) for each in ([spec] if spec else NETWORKS.values()))
        got = ", ".join(f"{name} {value!s:.80}" for name, value in widths.items())
        raise ValueError(f"expected a VAE of widths {wanted}, got {got} in {path}, choose the VAE of this network")
    with torch.device("meta"):
        vae = build_vae(fitting[0])
    check_state(vae.state_dict(), state, f"VAE in {path}")
    vae.load_state_dict({name: value.to(torch.float32, copy=True) for name, value in state.items()}, assign=True)
    return vae.eval().requires_grad_(False)


def weights_digest(module: torch.nn.Module) -> str:
    """sha256 over a module's names and values: the same for every file of the same weights, whatever its header says."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
