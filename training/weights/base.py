"""SDXL checkpoints to start from: a diffusers folder, or one file in the original (LDM) names.

Everything is returned in diffusers' names, the tensors mapped from the file.
"""

from __future__ import annotations

import re
from pathlib import Path

from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from faithdiff_core.files.checkpoint import OTHER_MODEL_PREFIXES, UNET_PREFIX, UNET_PREFIXES
from faithdiff_core.files.keymap import is_diffusers_unet, ldm_to_diffusers
from faithdiff_core.files.shards import require_whole_set
from faithdiff_core.files.wrappers import without_wrappers
from training.common.strict_json import parse_json
from training.common.tensor_files import State, read_tensors, weight_files
from training.model.networks import LATENT_SCALE

VAE_PREFIXES = ("first_stage_model.", "vae.")
"""Of the VAE's names in a checkpoint file."""
WEIGHT_PATTERNS = tuple(
    f"diffusion_pytorch_model{variant}{ending}"
    for variant, ending in (
        ("", ".safetensors"),
        ("", "-*-of-*.safetensors"),
        (".fp16", ".safetensors"),
        (".fp16", "-*-of-*.safetensors"),
        ("", ".bin"),
        (".fp16", ".bin"),
    )
)
"""Weights in a diffusers folder, whole or in shards, best first."""
V_PREDICTION_MARKS = ("v_pred", "edm_vpred.sigma_max")
"""Empty tensors by which a checkpoint file tells that it does not predict the noise."""
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of attention layers in VAE files of diffusers before 0.15."""


def weight_paths(base: Path, part: str) -> list[Path]:
    """The files that hold `part` ("unet" or "vae") of `base`: a file itself, or those in its folder of that name (or in `base`).

    Raises:
        ValueError: there are none.
    """
    if not base.is_dir():
        return weight_files(base)
    folder = base / part if (base / part).is_dir() else base
    for pattern in WEIGHT_PATTERNS:
        if found := sorted(folder.glob(pattern)):
            require_whole_set([each.name for each in found])
            return found
    raise ValueError(
        f"expected a diffusers folder with {part} weights, got no {WEIGHT_PATTERNS[0]} in {folder}, check the folder"
    )


def read_base_unet(base: Path) -> State:
    """The UNet of an SDXL checkpoint.

    Raises:
        ValueError: there is none, or one that does not predict the noise.
    """
    state = _read_all(weight_paths(base, "unet"))
    if base.is_dir():
        scheduler = _json_of(base / "scheduler" / "scheduler_config.json")
        predicts_noise = scheduler.get("prediction_type", "epsilon") == "epsilon"
    else:
        predicts_noise = not any(name in state for name in V_PREDICTION_MARKS)
    if not predicts_noise:
        raise ValueError(f"expected a base that predicts the noise (epsilon), got another kind in {base}, choose another base")
    state = without_wrappers(state, UNET_PREFIXES, beside=OTHER_MODEL_PREFIXES)
    if any(name.startswith(UNET_PREFIX) for name in state):
        state = {name[len(UNET_PREFIX) :]: value for name, value in state.items() if name.startswith(UNET_PREFIX)}
    if is_diffusers_unet(state):
        return state
    names = ldm_to_diffusers(state)
    if not names:
        raise ValueError(f"expected an SDXL UNet ({UNET_PREFIX}*), got none in {base}, choose an SDXL checkpoint")
    # A name that the map lacks stays, to be reported as unexpected.
    return {names.get(name, name): value for name, value in state.items()}


def read_vae_weights(path: Path) -> tuple[State, dict[str, str]]:
    """A VAE and its file's header: of a diffusers folder, a checkpoint, or a file of its own (in either names).

    Raises:
        ValueError: there is none, or one of another latent scale.
    """
    files = weight_paths(path, "vae")
    _require_scale(files[0].with_name("config.json") if path.is_dir() else None)
    state, header = _read_all(files), read_tensors(files[0])[1]
    prefix = next((prefix for prefix in VAE_PREFIXES if any(name.startswith(prefix) for name in state)), "")
    state = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    if any(name.startswith("encoder.down.") for name in state):
        levels = len({name.split(".")[2] for name in state if name.startswith("encoder.down.")})
        state = convert_ldm_vae_checkpoint(state, {"down_block_types": [""] * levels, "up_block_types": [""] * levels})
    if "encoder.conv_in.weight" not in state or "decoder.conv_in.weight" not in state:
        raise ValueError(f"expected a VAE, got none in {path}, choose a VAE or an SDXL checkpoint")
    return {_modern(name): _as_linear(name, value) for name, value in state.items()}, header


def _read_all(paths: list[Path]) -> State:
    return {name: value for path in paths for name, value in read_tensors(path)[0].items()}


def _require_scale(config: Path | None) -> None:
    """SD 1.5's VAE has SDXL's shapes; only the scale tells them apart."""
    scale = _json_of(config).get("scaling_factor", LATENT_SCALE) if config else LATENT_SCALE
    if scale != LATENT_SCALE:
        raise ValueError(f"expected an SDXL VAE (scaling_factor {LATENT_SCALE}), got {scale} in {config}, choose another VAE")


def _json_of(path: Path) -> dict:
    try:
        value = parse_json(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"expected JSON in {path}, got something else ({error}), get the folder again") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object in {path}, got a {type(value).__name__}, get the folder again")
    return value


def _modern(name: str) -> str:
    found = re.fullmatch(r"(.*\.attentions\.0\.)(query|key|value|proj_attn)(\..*)", name)
    return f"{found[1]}{_OLD_ATTENTION[found[2]]}{found[3]}" if found else name


def _as_linear(name: str, value):  # noqa: ANN001
    return value[:, :, 0, 0] if ".attentions.0." in name and value.ndim == 4 else value
