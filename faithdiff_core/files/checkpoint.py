"""FaithDiff files: recognise them by their keys, take them apart, put them together again.

Pure functions of a state dict; reading from disk belongs to the host (nodes) or the trainer. Three layouts:

* **released**: `FaithDiff.bin`; a UNet in diffusers names with four extra modules beside it (`denoise_encoder.`,
  `condition_embedding.`, `information_transformer_layes.` (sic) and `spatial_ch_projs.`).
* **full** (ours): UNet in LDM names under `model.diffusion_model.`, so that other loaders find it, plus `faithdiff.lq_encoder.`
  and `faithdiff.alignment.`.
* **adapter**: the same without the UNet. The released names are taken without a UNet, too.

What other tools put around these names (`module.`, `unet.` and such, see `wrappers`) is taken off first. Official spellings occur
in this file only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from .checks import named, shown
from .keymap import diffusers_to_ldm, is_diffusers_unet, ldm_to_diffusers
from .metadata import FaithDiffMetadata, parse_metadata
from .wrappers import lora_layer, own_weight, without_wrappers

State = dict[str, torch.Tensor]

UNET_PREFIX = "model.diffusion_model."
UNET_PREFIXES = (UNET_PREFIX, "input_blocks.", "down_blocks.")
"""Of names that tell a UNet: LDM's in a checkpoint and without its prefix, diffusers'."""
ENCODER_PREFIX = "faithdiff.lq_encoder."
ALIGNMENT_PREFIX = "faithdiff.alignment."
FIDELITY_DECODER_PREFIX = "faithdiff.fidelity_decoder."
"""In a file of its own (`fidelity_decoder/files.py`)."""
RELEASED_ENCODER_PREFIX = "denoise_encoder."

OTHER_MODEL_PREFIXES = ("first_stage_model.", "conditioner.", "cond_stage_model.", "text_encoders.", "vae.", "denoiser.")
"""What a full SDXL checkpoint carries beside the UNet; of no use here, and no sign of damage."""

_LAYER_NAMES = (
    ("condition_embedding.", "condition_embedding."),
    ("spatial_ch_projs.", "proj_out."),
    ("information_transformer_layes.#.attn.out_proj.", "blocks.#.to_out."),
    ("information_transformer_layes.#.ln_1.", "blocks.#.norm1."),
    ("information_transformer_layes.#.ln_2.", "blocks.#.norm2."),
    ("information_transformer_layes.#.mlp.c_fc.", "blocks.#.mlp_up."),
    ("information_transformer_layes.#.mlp.c_proj.", "blocks.#.mlp_down."),
)
"""(released, ours) names of the alignment module's layers; # stands for a block's number. The fused projection is handled
apart."""
_FUSED_QKV = re.compile(r"information_transformer_layes\.(\d+)\.attn\.in_proj_(weight|bias)")
_RELEASED_ALIGNMENT_PREFIXES = ("condition_embedding.", "spatial_ch_projs.", "information_transformer_layes.")
_OUR_PREFIXES = (ENCODER_PREFIX, ALIGNMENT_PREFIX, RELEASED_ENCODER_PREFIX, *_RELEASED_ALIGNMENT_PREFIXES)


@dataclass(frozen=True, kw_only=True)
class FaithDiffParts:
    """A FaithDiff file taken apart.

    Attributes:
        unet: LDM names without prefix, or None in an adapter file.
        lq_encoder: names of `LQEncoder`.
        alignment: names of an unfolded `AlignmentModule`; `to_q` and `to_k` may be there in pointwise mode, too.
        metadata: from the header; the released values where there is none.
        lora: a LoRA of the UNet that the file holds, too, in its own names; usually none, and none after `lora.with_own_lora`.
        note: what else is worth saying of the file.
    """

    unet: State | None
    lq_encoder: State
    alignment: State
    metadata: FaithDiffMetadata
    lora: State = field(default_factory=dict[str, torch.Tensor])
    note: str = ""


def split_state_dict(state: Mapping[str, torch.Tensor], header: Mapping[str, str] | None = None) -> FaithDiffParts:
    """Takes a file's state dict apart; tensors are shared with `state`, not copied (the fused q, k, v are views).

    Args:
        state: all tensors of the file, in the released, full or adapter layout.
        header: the safetensors header's entries, None for a pickle.

    Raises:
        ValueError: not a FaithDiff file (the message says what it is instead), or names that belong nowhere.
    """
    metadata = parse_metadata(header)
    encoder: State = {}
    alignment: State = {}
    rest: State = {}
    lora: State = {}
    for key, tensor in without_wrappers(state, _OUR_PREFIXES, beside=OTHER_MODEL_PREFIXES).items():
        if tensor.numel() == 0 and (tensor.ndim > 1 or key.startswith(_OUR_PREFIXES)):
            # Marks are empty lists (v_pred); sides without elements could claim any size.
            raise ValueError(f"expected weights in {shown(key)}, got an empty tensor; the file is damaged, get it again")
        if key.startswith(ENCODER_PREFIX):
            encoder[key[len(ENCODER_PREFIX) :]] = tensor
        elif key.startswith(ALIGNMENT_PREFIX):
            alignment[key[len(ALIGNMENT_PREFIX) :]] = tensor
        elif key.startswith(RELEASED_ENCODER_PREFIX):
            encoder[key[len(RELEASED_ENCODER_PREFIX) :]] = tensor
        elif key.startswith(_RELEASED_ALIGNMENT_PREFIXES):
            alignment.update(_alignment_from_released(key, tensor))
        elif lora_layer(key) is not None:
            lora[key] = tensor
        else:
            rest[key] = tensor
    if not encoder and not alignment:
        raise ValueError(describe_foreign(state))
    for part, name in ((encoder, "LQ encoder"), (alignment, "alignment module")):
        if not part:
            raise ValueError(
                f"expected LQ encoder and alignment module in the file, got none of the {name}'s weights; get the file again"
            )
    return FaithDiffParts(unet=_unet_of(rest), lq_encoder=encoder, alignment=alignment, metadata=metadata, lora=lora)


def assemble_adapter(parts: FaithDiffParts) -> State:
    """Our adapter layout: LQ encoder and alignment module."""
    return {ENCODER_PREFIX + k: t for k, t in parts.lq_encoder.items()} | {
        ALIGNMENT_PREFIX + k: t for k, t in parts.alignment.items()
    }


def assemble_full(parts: FaithDiffParts) -> State:
    """Our full layout. Raises ValueError where the parts have no UNet."""
    if parts.unet is None:
        raise ValueError(
            "expected a UNet for the full layout, got an adapter; write the adapter layout or start from a full file"
        )
    return {UNET_PREFIX + k: t for k, t in parts.unet.items()} | assemble_adapter(parts)


def assemble_released(parts: FaithDiffParts) -> State:
    """The names of the official `FaithDiff.bin`; a missing UNet stays missing.

    A pointwise file may lack queries and keys, which the official network has but whose value cannot change its output;
    they become zeros.
    """
    state: State = {}
    if parts.unet is not None:
        names = ldm_to_diffusers(parts.unet)
        state.update({names[k]: t for k, t in parts.unet.items()})
    state.update({RELEASED_ENCODER_PREFIX + k: t for k, t in parts.lq_encoder.items()})
    for key, tensor in parts.alignment.items():
        m = re.fullmatch(r"blocks\.(\d+)\.to_([qkv])\.(weight|bias)", key)
        if m is None:
            state[_rename(key, ((ours, released) for released, ours in _LAYER_NAMES))] = tensor
        elif m[2] == "v":
            q, k = (parts.alignment.get(f"blocks.{m[1]}.to_{c}.{m[3]}", torch.zeros_like(tensor)) for c in "qk")
            state[f"information_transformer_layes.{m[1]}.attn.in_proj_{m[3]}"] = torch.cat([q, k, tensor])
    return state


def alignment_state_for(alignment: Mapping[str, torch.Tensor], mode: str, *, folded: bool) -> State:
    """The stored alignment weights made ready for `AlignmentModule(mode=mode, folded=folded)`."""
    state = dict(alignment)
    if mode == "pointwise":
        state = {k: t for k, t in state.items() if ".to_q." not in k and ".to_k." not in k}
        if folded:
            state = fold_pointwise_attention(state)
    return state


def fold_pointwise_attention(alignment: Mapping[str, torch.Tensor]) -> State:
    """Replaces W_v, b_v, W_o, b_o of every block by W_o W_v and W_o b_v + b_o.

    The product is kept in fp32 whatever the file's type, so that fp32 sampling from an fp16 file loses nothing (6e-7 instead of
    7e-4); at 1.6 MB a block of the released size that costs nothing either. fp16 sampling casts it like every other weight.
    """
    state = dict(alignment)
    for key in alignment:
        m = re.fullmatch(r"(blocks\.\d+)\.to_v\.weight", key)
        if m is None:
            continue
        try:
            w_v, b_v, w_o, b_o = (
                state.pop(f"{m[1]}.{name}").double() for name in ("to_v.weight", "to_v.bias", "to_out.weight", "to_out.bias")
            )
            state[f"{m[1]}.value_out.weight"] = (w_o @ w_v).float()
            state[f"{m[1]}.value_out.bias"] = (w_o @ b_v + b_o).float()
        except (KeyError, RuntimeError) as e:
            missing = e.args[0] if isinstance(e, KeyError) else f"{m[1]} of the right shape"
            raise ValueError(
                f"expected the weights of an alignment module, got a file without its {missing}; get the file again"
            ) from None
    return state


def describe_foreign(keys: Iterable[str]) -> str:
    """Why a file with neither LQ encoder nor alignment module is not a FaithDiff file, and what to do."""
    held = dict.fromkeys(keys)
    keys = set(without_wrappers(held, UNET_PREFIXES, beside=OTHER_MODEL_PREFIXES))
    choose = "choose FaithDiff.bin or a FaithDiff .safetensors from models/faithdiff"
    if any(k.startswith(FIDELITY_DECODER_PREFIX) for k in held):
        return f"expected a FaithDiff file, got a fidelity decoder, which FaithDiff Decode takes as its decoder; {choose}"
    if is_lora(keys) or not any(k.startswith(UNET_PREFIXES) for k in keys):
        found = f"{named(sorted(held)[:3]) or 'nothing'}, {len(keys)} tensors in all"
        lora = (
            ": a LoRA, for Load LoRA behind this node (where that finds none of its layers, with what `python -m training "
            "convert FILE --out lora.safetensors` makes of it)"
        )
        return f"expected a FaithDiff file, got one that holds something else ({found}){lora if is_lora(keys) else ''}; {choose}"
    sdxl = any(k.startswith((UNET_PREFIX + "label_emb.", "label_emb.", "add_embedding.")) for k in keys)
    kind = "a plain SDXL checkpoint or UNet" if sdxl else "a UNet of another family (no SDXL size embedding; SD 1.5 or 2?)"
    base = ", or an adapter file with this checkpoint's MODEL (from Load Checkpoint) as base_model" if sdxl else ""
    return (
        f"expected a FaithDiff file, got {kind}: it lacks the LQ encoder (denoise_encoder.*) and the alignment module "
        f"(condition_embedding.*, information_transformer_layes.*, spatial_ch_projs.*); {choose}{base}"
    )


def is_lora(keys: Iterable[str]) -> bool:
    """Whether a file is a LoRA and no network: most of its tensors are factors, and none is one of our modules'."""
    names = list(without_wrappers(dict.fromkeys(keys), _OUR_PREFIXES, beside=OTHER_MODEL_PREFIXES))
    factors = sum(lora_layer(name) is not None for name in names)
    return 2 * factors > len(names) and not any(name.startswith(_OUR_PREFIXES) for name in names)


def _unet_of(rest: State) -> State | None:
    rest = {own_weight(k): t for k, t in rest.items() if not k.startswith(OTHER_MODEL_PREFIXES)}
    if not rest:
        return None
    marks = tuple(k for k, t in rest.items() if not t.numel())  # of the prediction's kind: never under a prefix
    rest = without_wrappers(rest, UNET_PREFIXES, beside=marks)
    if any(k.startswith(UNET_PREFIX) for k in rest):
        unet = {k[len(UNET_PREFIX) :]: t for k, t in rest.items() if k.startswith(UNET_PREFIX)}
        unknown = [k for k in rest if not k.startswith(UNET_PREFIX)]
    elif is_diffusers_unet(rest):
        names = diffusers_to_ldm(rest)
        unet = {names[k]: t for k, t in rest.items() if k in names}
        unknown = [k for k in rest if k not in names]
    elif "input_blocks.0.0.weight" in rest:
        return rest
    else:
        unet, unknown = {}, list(rest)
    if unknown:
        raise ValueError(
            f"expected UNet, LQ encoder and alignment module, got {len(unknown)} further tensors "
            f"({named(unknown)}); the file is damaged or not a FaithDiff file, get it again"
        )
    return unet


def _alignment_from_released(key: str, tensor: torch.Tensor) -> State:
    m = _FUSED_QKV.fullmatch(key)
    if m is None:
        return {_rename(key, _LAYER_NAMES): tensor}
    if tensor.ndim == 0 or tensor.shape[0] % 3:
        shape = tuple(tensor.shape)
        raise ValueError(f"expected {shown(key)} to hold query, key and value, got shape {shape}; get the file again")
    q, k, v = tensor.chunk(3)  # rows 0:D query, D:2D key, 2D:3D value (torch.nn.MultiheadAttention.in_proj_weight)
    return {f"blocks.{m[1]}.to_{c}.{m[2]}": t for c, t in zip("qkv", (q, k, v), strict=True)}


def _rename(key: str, table: Iterable[tuple[str, str]]) -> str:
    """The name with its layer's prefix replaced; a name that the table lacks stays, to be reported as unexpected."""
    for prefix, replacement in table:
        m = re.match(re.escape(prefix).replace(r"\#", r"(\d+)"), key)
        if m is not None:
            number = m[1] if m.groups() else ""
            return replacement.replace("#", number) + key[m.end() :]
    return key
