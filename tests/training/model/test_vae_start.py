"""The autoencoder's starting point passes colours through before any training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from support.trainer import picture, without_gradient

from training.model.networks import NETWORKS, build_vae, decode, encode
from training.model.vae_start import START_LOG_VARIANCE, start_with_colour
from training.tasks.vae import chroma


def pictures(first: int, count: int) -> torch.Tensor:
    return torch.stack([picture(seed, 64, 64).float() / 127.5 - 1 for seed in range(first, first + count)])


def test_colours_of_unseen_pictures_come_through() -> None:
    torch.manual_seed(0)
    vae = build_vae(NETWORKS["nano"]).eval()
    unseen = pictures(100, 3)
    with torch.no_grad():
        before = chroma(decode(vae, encode(vae, unseen).chunk(2, dim=1)[0]) - unseen).abs().mean()
    start_with_colour(vae, pictures(0, 8))
    with torch.no_grad():
        mean, log_variance = encode(vae, unseen).chunk(2, dim=1)
        after = decode(vae, mean) - unseen
    assert torch.allclose(log_variance, torch.full_like(log_variance, START_LOG_VARIANCE))
    assert chroma(after).abs().mean() < 0.4 * before
    cells = F.interpolate(F.avg_pool2d(unseen, 8), scale_factor=8, mode="bilinear")
    assert after.abs().mean() < 2.5 * (cells - unseen).abs().mean(), "about as good as one colour a cell"


def test_every_parameter_can_still_learn() -> None:
    torch.manual_seed(0)
    vae = build_vae(NETWORKS["nano"])
    images = pictures(0, 4)
    start_with_colour(vae, images)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=1e-4)
    for _ in range(2):  # the zeroed branches open one layer a step
        optimiser.zero_grad()
        mean, log_variance = encode(vae, images).chunk(2, dim=1)
        latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        (decode(vae, latent) - images).abs().mean().backward()
        optimiser.step()
    # The middle attention's queries and keys wait for its values' output layer, which opened last.
    # Of keys: see NEVER_MATTER in support/trainer.py.
    key_biases = {f"{part}.mid_block.attentions.0.to_k.bias" for part in ("encoder", "decoder")}
    assert without_gradient(vae) <= key_biases
