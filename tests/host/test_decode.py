"""FaithDiff Decode: plain it is VAE Decode, and what a fidelity decoder puts back does not depend on the batch."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from comfyui_faithdiff.nodes.decoding import weights
from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ
from support import tiny
from support.compare import CHANGED, NETWORK, ONE_MODULE, assert_close, relative_difference
from support.decoding import NANO_FILE, decode, encoded, said

pytestmark = pytest.mark.usefixtures("decoders")


@pytest.mark.parametrize("how", [{"fidelity": 0.0}, {"decoder": "none"}, {"mask": torch.zeros(1, 9, 9)}])
def test_plain_is_vae_decode_bit_for_bit(nano_vae, one, how):
    _, features, latent = one
    expected = nano_vae.decode(latent["samples"])[:, :50, :75]
    assert torch.equal(decode(latent, nano_vae, features, **how), expected)
    assert relative_difference(decode(latent, nano_vae, features), expected) > CHANGED


def test_without_a_decoder_for_the_features_it_is_plain(nano_vae, one, decoders, caplog):
    _, features, latent = one
    caplog.set_level(logging.INFO)
    (decoders / NANO_FILE).rename(decoders / "away.bin")
    try:
        assert torch.equal(decode(latent, nano_vae, features), decode(latent, nano_vae, features, 0.0))
    finally:
        (decoders / "away.bin").rename(decoders / NANO_FILE)
    assert said(caplog, logging.INFO) == ["FaithDiff: fidelity decoder for features of 128 channels: none"]
    assert "a_fidelity.safetensors is left out: expected weights, got a web page" in said(caplog)[0]


@pytest.mark.parametrize(("height", "width"), [(9, 200), (16, 8), (64, 64), (65, 63), (50, 75)])
def test_any_size_comes_out_exactly(nano, nano_vae, height, width):
    features, latent = encoded(nano, nano_vae, tiny.image(height, width, channels=4, seed=height))
    result = decode(latent, nano_vae, features)
    assert result.shape == (1, height, width, 3)
    assert torch.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


def test_the_picture_is_the_networks(nano_vae, one, decoders):
    """By its own forward, on the LQ image padded by hand."""
    image, features, latent = one
    net = weights.load_decoder(str(decoders / NANO_FILE)).model
    lq = torch.nn.functional.pad(image.movedim(-1, 1), (0, 5, 0, 6), mode="replicate")
    decoded = nano_vae.decode(latent["samples"]).movedim(-1, 1)
    full = net(decoded * 2 - 1, lq * 2 - 1, features.features_BCHW, 1.0) / 2 + 0.5
    assert_close(decode(latent, nano_vae, features), full.clamp(0, 1)[..., :50, :75].movedim(1, -1), NETWORK)


def test_fidelity_is_linear(nano_vae, one, monkeypatch):
    _, features, latent = one
    monkeypatch.setattr(torch.Tensor, "clamp", lambda self, *_, **__: self)  # which is not
    none, half, full = (decode(latent, nano_vae, features, fidelity) for fidelity in (0.0, 0.5, 1.0))
    assert_close(half, (none + full) / 2, ONE_MODULE)


def test_a_mask_is_fidelity_over_the_picture(nano_vae, one):
    """Drawn at the picture's size, at another, or of one pixel."""
    _, features, latent = one
    none, full = (decode(latent, nano_vae, features, fidelity) for fidelity in (0.0, 1.0))
    mask = torch.zeros(1, 50, 75)
    mask[..., :40] = 1.0
    result = decode(latent, nano_vae, features, mask=mask)
    assert torch.equal(result[:, :, 40:], none[:, :, 40:])
    assert_close(result[:, :, :40], full[:, :, :40], ONE_MODULE)
    small = decode(latent, nano_vae, features, mask=torch.tensor([[[1.0, 0.0, 0.0]]]))
    assert torch.equal(small[:, :, 40:], none[:, :, 40:]) and relative_difference(small[:, :, :12], none[:, :, :12]) > CHANGED
    assert torch.equal(
        decode(latent, nano_vae, features, mask=torch.full((1, 1, 1), 0.5)), decode(latent, nano_vae, features, 0.5)
    )
    assert torch.equal(decode(latent, nano_vae, features, mask=torch.zeros(1, 64, 64)), full)  # Load Image's, nothing painted


def test_a_picture_alone_is_as_in_a_batch(nano, nano_vae):
    image = tiny.image(43, 50, batch=3, channels=4)
    features, latent = encoded(nano, nano_vae, image)
    masks = torch.rand(3, 43, 50, generator=torch.Generator().manual_seed(1))
    together, masked = decode(latent, nano_vae, features), decode(latent, nano_vae, features, mask=masks)
    for i in range(3):
        alone = replace(features, features_BCHW=features.features_BCHW[i : i + 1], lq_BHWC=image[i : i + 1])
        one = {"samples": latent["samples"][i : i + 1]}
        assert torch.equal(decode(one, nano_vae, alone), together[i : i + 1])
        assert torch.equal(decode(one, nano_vae, alone, mask=masks[i]), masked[i : i + 1])


def test_one_images_features_serve_a_batch_of_latents(nano_vae, one):
    _, features, latent = one
    batch = torch.cat([latent["samples"], latent["samples"].flip(-1)])
    together = decode({"samples": batch}, nano_vae, features)
    for i in range(2):
        assert torch.equal(decode({"samples": batch[i : i + 1]}, nano_vae, features), together[i : i + 1])
    assert relative_difference(together[1], together[0]) > CHANGED


def test_what_alpha_hides_has_no_say(nano, nano_vae):
    rgba = tiny.image(43, 50, channels=4, seed=2)
    rgba[..., 10:30, 20:40, 3] = 0.0
    other = rgba.clone()
    other[..., 10:30, 20:40, :3] = 1.0 - other[..., 10:30, 20:40, :3]
    features, latent = encoded(nano, nano_vae, rgba)
    assert torch.equal(decode(latent, nano_vae, features), decode(latent, nano_vae, replace(features, lq_BHWC=other)))


def test_features_hold_the_image_itself(nano):
    image = tiny.image(16, 24, channels=4)
    assert FaithDiffEncodeLQ.execute(nano.faithdiff, image, 0).args[0].lq_BHWC is image
