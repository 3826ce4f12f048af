"""The safetensors format as strangers write it: lengths, offsets, shapes, types and metadata that lie."""

from __future__ import annotations

import json
import struct
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from .json_cases import LITERALS, broken

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1, "I64": 8, "BOOL": 1, "F8_E4M3": 1, "C64": 8, "F8_E8M0": 1, "F4": 1, "Q9": 1}
NAMES = (
    *("faithdiff.lq_encoder.conv_in.weight", "faithdiff.lq_encoder.down_blocks.0.resnets.0.conv1.weight", "denoise_encoder.x"),
    *("denoise_encoder.conv_in.weight", "denoise_encoder.down_blocks.0.resnets.0.conv1.weight", "denoise_encoder.mid_block.y"),
    *("faithdiff.alignment.proj_out.weight", "faithdiff.alignment.condition_embedding.conv_in.weight", "spatial_ch_projs.weight"),
    *(
        "faithdiff.alignment.blocks.0.mlp_up.weight",
        "information_transformer_layes.0.attn.in_proj_weight",
        "condition_embedding.",
    ),
    *("information_transformer_layes.1.mlp.c_fc.weight", "condition_embedding.conv_in.weight", "faithdiff.alignment.blocks.1.x"),
    *(
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.label_emb.0.0.weight",
        "model.diffusion_model.out.2",
    ),
    *("input_blocks.0.0.weight", "down_blocks.0.resnets.0.conv1.weight", "mid_block.resnets.0.norm1.weight", "conv_in.weight"),
    *("scaled_fp8", "a.scale_input", "a.scale_weight", "a.comfy_quant", "v_pred", "edm_mean", "first_stage_model.x", "vae.x"),
    *(
        "encoder.conv_in.weight",
        "decoder.conv_in.weight",
        "encoder.down.0.block.0.x",
        "decoder.up_blocks.0.resnets.0.conv1.weight",
    ),
    *(
        "faithdiff.fidelity_decoder.conv_in.weight",
        "faithdiff.fidelity_decoder.feature_in.weight",
        "faithdiff.fidelity_decoder.downsamplers.0.weight",
        "faithdiff.fidelity_decoder.downsamplers.1.weight",
        *(f"faithdiff.fidelity_decoder.down_blocks.{level}.0.expand.weight" for level in range(3)),
    ),
    *("", "a", "line\nline", "x" * 4000, "\x1b[2J", "../x", "unet.\u202e", "faithdiff.lq_encoder.", "__metadata__"),
)
HEADER_NAMES = (
    *("faithdiff.format", "faithdiff.align_attention", "faithdiff.crop_units", "faithdiff.target_size_px", "faithdiff.config"),
    *("faithdiff.training", "faithdiff.base_model", "faithdiff.vae_config", "_quantization_metadata", "format", ""),
)
HEADER_VALUES = (
    *(
        "1",
        "2",
        "spatial",
        "pointwise",
        "latent",
        "256",
        "-1",
        "99999999999",
        "\u00b2",
        '{"layers": {"a": {"format": "float8"}}}',
    ),
    *(
        '{"layers": []}',
        '{"layers": {"model.diffusion_model.input_blocks.0.0": {"format": 3}}}',
        '{"alignment": {"num_layers": 0}}',
    ),
    *('{"fidelity_decoder": {"widths": [4, 4, 4], "blocks": [1e400]}}', '{"fidelity_decoder": {"feature_channels": "4"}}'),
    *('{"lq_encoder": {"norm_groups": 1e30}}', '{"alignment": {"num_heads": 1' + "0" * 4000 + "}}", '{"lq_encoder": 5}'),
    *('{"block_out_channels": [65536, 65536], "layers_per_block": 9, "norm_groups": 1, "latent_channels": 4}',),
    *('{"block_out_channels": [4], "layers_per_block": 1000000, "norm_groups": 1, "latent_channels": 4}',),
    *("[" * 100_000, "[" * 400 + "]" * 400),
    *LITERALS,
)
LENGTHS = (0, 1, 7, 100_000_000, 100_000_001, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
BIG = (2**20, 2**31, 2**32 + 1, 2**62, 2**63, 10**12)


@st.composite
def safetensors_files(draw: DrawFn) -> bytes:
    """A file of up to eight tensors. Most are sound but for one or two lies, so that readers get past the first check."""
    entries, end = [], 0
    for _ in range(draw(st.integers(0, 8))):
        name = draw(st.sampled_from(NAMES)) if draw(st.integers(0, 9)) else draw(st.text(max_size=8))
        dtype = draw(st.sampled_from(list(ITEM_BYTES))) if draw(st.integers(0, 2)) == 0 else "F32"
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        size = ITEM_BYTES[dtype]
        for side in shape:
            size *= side
        if 0 in shape and draw(st.booleans()):
            shape = [draw(st.sampled_from((0, *BIG))) if side else 0 for side in shape]
        entries.append([name, {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}])
        end += size
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2)))):
        _lie(draw, entries)
    pairs = [(name, json.dumps(entry)) for name, entry in entries]
    if draw(st.booleans()):
        pairs.insert(draw(st.integers(0, len(pairs))), ("__metadata__", _metadata(draw)))
    header = ("{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in pairs) + "}").encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        header = draw(broken(header))
    length = len(header)
    if draw(st.integers(0, 9)) == 0:
        length = draw(st.sampled_from((*LENGTHS, length + 1, max(length - 1, 0), length + end)))
    data = draw(st.sampled_from((b"\0", b"\x3f", b"\x7f", b"\xff"))) * max(end, 0)
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, len(data)))] + draw(st.binary(max_size=9))
    return struct.pack("<Q", length) + header + data


def _lie(draw: DrawFn, entries: list[list[Any]]) -> None:
    if not entries:
        return
    entry = draw(st.sampled_from(entries))[1]
    field = draw(st.sampled_from(("dtype", "shape", "data_offsets", "all")))
    hostile = st.sampled_from((*BIG, -1, 0, 3, 1.5, "3", None, True, [1], {}))
    if field == "all":
        entry.clear()
        entry.update(draw(st.dictionaries(st.sampled_from(("dtype", "shape", "data_offsets", "x")), hostile, max_size=4)))
    elif field == "dtype":
        entry[field] = draw(st.sampled_from((*ITEM_BYTES, "f32", "", 5, None)))
    else:
        entry[field] = draw(st.lists(hostile, max_size=5)) if draw(st.booleans()) else draw(hostile)


def _metadata(draw: DrawFn) -> str:
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(LITERALS))
    pairs = []
    for _ in range(draw(st.integers(0, 4))):
        name, value = draw(st.sampled_from(HEADER_NAMES)), draw(st.sampled_from(HEADER_VALUES))
        # A value that is no string, now and then.
        text = draw(st.sampled_from(LITERALS)) if draw(st.integers(0, 9)) == 0 else json.dumps(value)
        pairs.append(f"{json.dumps(name)}: {text}")
    return "{" + ", ".join(pairs) + "}"
