"""The prompts of a run: every caption's embeddings, on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list

from training.batches.prompt_cache import TextCache, TextEncoders
from training.common.devices import process_state
from training.config.schema import Sources, TrainConfig
from training.data import manifest
from training.model.networks import network_spec


def open_texts(config: TrainConfig, sources: Sources, device: torch.device) -> TextCache | None:
    """The embeddings of every caption in the manifest, computed where they are missing; None for runs without prompts.

    Raises:
        ValueError: where prompts are wanted and no text encoders are given.
    """
    if config.prompts == "none":
        return None
    folder = sources.text or sources.base
    if folder is None or not folder.is_dir():
        raise ValueError(
            "expected --text (or --base) with a diffusers folder that holds SDXL's text encoders, got none; name one, or train "
            "without prompts: --set prompts=none"
        )
    # One process reads the encoders and fills the cache; the others need its name only.
    name = [""]
    if process_state(config.device).is_main_process:
        encoders = TextEncoders.read(folder)
        name = [encoders.encoder_id]
        captions = {record.caption for record in manifest.read(sources.data)}
        TextCache(_text_folder(sources), encoders.encoder_id).fill(captions, encoders, device)
    cache = TextCache(_text_folder(sources), broadcast_object_list(name)[0])
    spec = network_spec(config.network)
    widths = tuple(value.shape[-1] for value in cache.get(""))
    if widths != (spec.context_width, spec.pooled_width):
        raise ValueError(
            f"expected text encoders of widths {spec.context_width} and {spec.pooled_width} for network {config.network}, got "
            f"{widths[0]} and {widths[1]} in {folder}, name those of SDXL"
        )
    return cache


def _text_folder(sources: Sources) -> Path:
    return sources.data.parent / "text-embeddings"
