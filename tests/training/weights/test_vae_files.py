"""Normalising the latents inside the VAE's own layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.compare import NETWORK, assert_close

from training.model.networks import LATENT_SCALE, NETWORKS, build_vae, decode, encode
from training.weights.vae import fold_latent_statistics, latent_statistics, read_vae, write_vae


def untrained() -> tuple:
    torch.manual_seed(0)
    vae = build_vae(NETWORKS["tiny"]).eval()
    with torch.no_grad():
        assert vae.quant_conv is not None and vae.quant_conv.bias is not None
        vae.quant_conv.bias.normal_()
    return vae, torch.rand(3, 3, 64, 48) * 2 - 1


def test_folding_normalises_latents_and_keeps_pictures() -> None:
    vae, images = untrained()
    with torch.no_grad():
        mean_before, log_variance_before = encode(vae, images).chunk(2, dim=1)
        picture = decode(vae, mean_before)
    mean, std = latent_statistics(vae, images)
    fold_latent_statistics(vae, mean, std)
    with torch.no_grad():
        folded_mean, folded_log_variance = encode(vae, images).chunk(2, dim=1)
        again = decode(vae, folded_mean)
    scaled = folded_mean * LATENT_SCALE
    assert torch.allclose(scaled.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(scaled.transpose(0, 1).flatten(1).std(1), torch.ones(4), atol=1e-3)
    assert_close(again, picture, NETWORK)
    # The posterior's width moves with the mean: noise in the old units is the same noise.
    gain = 1 / (LATENT_SCALE * std.float())
    expected = torch.exp(0.5 * log_variance_before) * gain.view(1, -1, 1, 1)
    assert_close(torch.exp(0.5 * folded_log_variance), expected, NETWORK)


def test_file_round_trip_and_refusals(tmp_path: Path) -> None:
    vae, images = untrained()
    path = tmp_path / "vae.safetensors"
    write_vae(path, vae, NETWORKS["tiny"], dtype=torch.float32, training={"recipe": "x"}, licence="MIT")
    with torch.no_grad():
        assert torch.equal(encode(read_vae(path, NETWORKS["tiny"]), images), encode(vae, images))
    with pytest.raises(ValueError, match="expected a VAE of widths"):
        read_vae(path, NETWORKS["nano"])
    with pytest.raises(ValueError, match="does not exist"):
        read_vae(tmp_path / "none", NETWORKS["tiny"])
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="cannot be read"):
        read_vae(path, NETWORKS["tiny"])
