"""Text encoders at small widths with random weights, with the host's own tokenizers."""

from __future__ import annotations

import comfy.sd
import comfy.sdxl_clip
import comfy.supported_models_base
import torch

from . import tiny


def small_clip(encoders=comfy.sdxl_clip.SDXLClipModel, tokenizer=comfy.sdxl_clip.SDXLTokenizer):
    widths = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3, "projection_dim": 32}
    target = comfy.supported_models_base.ClipTarget(tokenizer, encoders)
    options = {"clip_l_model_config": widths, "clip_g_model_config": widths}
    clip = comfy.sd.CLIP(target, model_options={**options, "dtype": torch.float32})
    model = clip.cond_stage_model
    model.load_state_dict(tiny.random_weights(model.state_dict(), 3))
    return clip
