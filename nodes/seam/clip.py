"""Text to the host's CONDITIONING, by SDXL's CLIP."""

from __future__ import annotations

import comfy.sd

SDXL_ENCODERS = {"l", "g"}


def encode(clip: comfy.sd.CLIP | None, text: str) -> list:
    """The host's CONDITIONING of a text, as its CLIP Text Encode makes it.

    Raises:
        ValueError: no CLIP, or not the pair of SDXL.
    """
    if clip is None:
        raise ValueError("expected SDXL's CLIP, got none: the checkpoint holds no text encoders; load them with DualCLIPLoader")
    tokens = clip.tokenize(text)
    if set(tokens) != SDXL_ENCODERS:
        raise ValueError(
            f"expected SDXL's CLIP with its two text encoders (g, l), got one with {', '.join(sorted(tokens))}; take the CLIP of "
            "an SDXL checkpoint"
        )
    return clip.encode_from_tokens_scheduled(tokens)
