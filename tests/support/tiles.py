"""Tiles in tests: a MODEL with tiles on it, what its UNet calls look like, and a plain restatement of the release's loop."""

from __future__ import annotations

import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from comfyui_faithdiff.faithdiff_core.geometry import Size, padded_size_px
from comfyui_faithdiff.nodes.tiles.run import TileSettings
from comfyui_faithdiff.nodes.tiles.wrapper import with_tiles

from .release_grid import official_starts


def tiled(model, size_px=64, overlap=0.5, batch=0):
    return with_tiles(model, TileSettings(tile_size_px=size_px, tile_overlap_frac=overlap, tile_batch=batch))


def around_calls(model, wrapper):
    """A clone whose every UNet call goes through `wrapper(call, x)`; `call(x)` is the network."""
    model = model.clone()

    def wrapped(executor, x, *args, **kwargs):
        return wrapper(lambda x: executor(x, *args, **kwargs), x)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", wrapped)
    return model


def counted(model):
    """(clone, list of the shapes of its UNet calls so far)"""
    shapes: list[tuple[int, ...]] = []

    def note(call, x):
        shapes.append(tuple(x.shape))
        return call(x)

    return around_calls(model, note), shapes


def official_weights(height, width):
    x, y = torch.arange(width, dtype=torch.float64), torch.arange(height, dtype=torch.float64)
    across = torch.exp(-((x - (width - 1) / 2) ** 2) / width**2 / 0.02)
    down = torch.exp(-((y - height / 2) ** 2) / height**2 / 0.02)
    return torch.outer(down, across)


def official_loop(loaded, features, start, prompts, *, steps, guidance, tile_px, step_frac):
    """The release's denoising loop, tile by tile, with nothing of ours but the network's modules.

    Every tile of every step: UNet on (unconditional, conditional) with the tile's features and time ids, guidance, one Euler
    step; then the tiles' latents are blended (pipeline_FaithDiff_tlc.py:1321-1409). `start` is the noisy latent at the first
    sigma, `prompts` are (context, pooled) of negative and positive; everything in fp32.
    """
    base, sampling = loaded.model.model, loaded.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)
    context, pooled = (torch.cat(pair) for pair in zip(*prompts, strict=True))
    height, width = start.shape[-2:]
    tile = tile_px // 8
    tile_height, tile_width = min(tile, height), min(tile, width)
    original = padded_size_px(features.size_px)
    latent = start
    for sigma, next_sigma in zip(sigmas, sigmas[1:], strict=False):
        summed, total = torch.zeros_like(latent, dtype=torch.float64), torch.zeros_like(latent, dtype=torch.float64)
        for top in official_starts(height, tile, step_frac):
            for left in official_starts(width, tile, step_frac):
                cut = (..., slice(top, top + tile_height), slice(left, left + tile_width))
                x = latent[cut]
                time_ids = (*original, top, left, *Size(tile_px, tile_px))
                eps = _network(loaded, x / (sigma**2 + 1) ** 0.5, sampling.timestep(sigma), context, pooled, time_ids,
                               features.features_BCHW[cut])  # fmt: skip
                eps = eps[:1] + guidance * (eps[1:] - eps[:1])
                x = x + (next_sigma - sigma) * eps
                summed[cut] += x * official_weights(tile_height, tile_width)
                total[cut] += official_weights(tile_height, tile_width)
        latent = (summed / total).float()
    return base.process_latent_out(latent)


def _network(loaded, x, timestep, context, pooled, time_ids, features):
    base, module = loaded.model.model, loaded.faithdiff.alignment.model
    size = torch.cat([base.embedder(torch.tensor([float(number)])) for number in time_ids], dim=1)
    y = torch.cat([pooled, size.expand(2, -1)], dim=1)
    embedded = module.embed(features).expand(2, -1, -1, -1)

    def add_alignment(h, options):
        return h + module(h, embedded) if options["block"] == ("input", 0) else h

    options = {"patches": {"input_block_patch": [add_alignment]}}
    with torch.no_grad():
        return base.diffusion_model(
            x.expand(2, -1, -1, -1), timestep.expand(2).float(), context=context, y=y, transformer_options=options
        )
