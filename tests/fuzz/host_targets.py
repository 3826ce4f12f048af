"""Readers that run in the host's process: weight files of every kind, and names from the lists."""

from __future__ import annotations

import contextlib
import functools
import json
from dataclasses import replace
from pathlib import Path

import torch
from comfyui_faithdiff.faithdiff_core.alignment import AlignmentModule
from comfyui_faithdiff.faithdiff_core.architecture import AlignmentSizes, LQEncoderSizes, config_of, unet_sizes
from comfyui_faithdiff.faithdiff_core.fidelity_decoder.files import channels_in_header, header_of, put_together
from comfyui_faithdiff.faithdiff_core.files.checkpoint import assemble_full, split_state_dict
from comfyui_faithdiff.faithdiff_core.files.metadata import FaithDiffMetadata
from comfyui_faithdiff.faithdiff_core.lq_encoder import LQEncoder
from comfyui_faithdiff.nodes.decoding.weights import build_decoder, load_decoder
from comfyui_faithdiff.nodes.load_model import load
from comfyui_faithdiff.nodes.seam import folders
from comfyui_faithdiff.nodes.seam.bundle import build_model
from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
from comfyui_faithdiff.nodes.seam.unet_loader import WEIGHT_DTYPES, load_unet
from comfyui_faithdiff.nodes.seam.weights_file import read_weights
from hypothesis import strategies as st
from support import tiny

from .json_cases import mutated
from .networks import changed
from .pickle_cases import pickle_files
from .safetensors_cases import safetensors_files
from .target import Target

UNET = {
    **tiny.UNET_CONFIG, "model_channels": 32, "num_head_channels": 32, "adm_in_channels": 8 + 6 * 256, "context_dim": 16,
}  # fmt: skip
ENCODER = LQEncoderSizes(block_out_channels=(8, 8, 16, 32), layers_per_block=1, norm_groups=4)
ALIGNMENT = AlignmentSizes(model_channels=32, feature_channels=32, mlp_channels=64)
VAE_CONFIG = {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 1, "norm_groups": 4, "latent_channels": 4}
NAMES = (
    *("../../etc/passwd", "/etc/passwd", "..\\..\\x", "C:\\x.bin", "a\0b", "", ".", "..", "sub/../../x", "~/x", "x" * 5000),
    *("\ud800.bin", "nano.safetensors/../../x", "//server/share", "file:///etc/passwd", "\u202ex", "a\nb"),
)


@functools.cache
def network() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """A FaithDiff in the full layout, 8 MB, and its header."""
    unet = tiny.unet_state(UNET)
    config = config_of(ENCODER, ALIGNMENT, replace(unet_sizes(unet, {}), num_head_channels=32))
    parts = replace(
        tiny.made_up_parts(),
        unet=unet,
        lq_encoder=tiny.random_weights(LQEncoder(ENCODER, operations=torch.nn, device="meta").state_dict(), 1),
        alignment=tiny.random_weights(
            AlignmentModule(ALIGNMENT, mode="spatial", operations=torch.nn, device="meta").state_dict(), 2
        ),
        metadata=FaithDiffMetadata(config=config, target_size_px=256),
    )
    return assemble_full(parts), parts.metadata.to_header()


@functools.cache
def vae_state() -> dict[str, torch.Tensor]:
    import comfy.ldm.models.autoencoder
    from comfyui_faithdiff.nodes.seam.nano_vae import _host_config

    return tiny.random_weights(comfy.ldm.models.autoencoder.AutoencoderKL(**_host_config(VAE_CONFIG)).state_dict(), 5)


def _written(case: bytes, path: Path) -> str:
    path.write_bytes(case)
    return str(path)


def _load_safetensors(case: bytes, folder: Path) -> None:
    path = _written(case, folder / "case.safetensors")
    load_nano_vae(*read_weights(path))


def _load_file(case: bytes, folder: Path) -> None:
    load(_written(case, folder / "case.safetensors"))


def _load_pickle(case: bytes, folder: Path) -> None:
    load(_written(case, folder / "case.bin"))


def _load_network(case: bytes, _: Path) -> None:
    """What `load` does with a file's content."""
    parts = split_state_dict(*changed(case, *network()))
    build_model(parts, "case")
    if parts.unet is not None:
        load_unet(parts.unet, dict(parts.metadata.config), WEIGHT_DTYPES["default"])


def _load_unet(case: bytes, _: Path) -> None:
    """The UNet alone, so that damage elsewhere does not hide it."""
    state, header = network()
    prefix = "model.diffusion_model."
    unet = {name: value for name, value in state.items() if name.startswith(prefix)}
    state, _ = changed(case, unet, {})
    names = {name.removeprefix(prefix): value for name, value in state.items()}
    load_unet(names, json.loads(header["faithdiff.config"]), WEIGHT_DTYPES["default"])


def _load_vae(case: bytes, _: Path) -> None:
    load_nano_vae(dict(vae_state()), {"faithdiff.vae_config": case.decode("utf-8", "replace")})


def _load_vae_weights(case: bytes, _: Path) -> None:
    state, header = changed(case, vae_state(), {"faithdiff.vae_config": json.dumps(VAE_CONFIG)})
    load_nano_vae(state, header)


def _load_decoder(case: bytes, folder: Path) -> None:
    path = _written(case, folder / "case.safetensors")
    with contextlib.suppress(ValueError):
        channels_in_header(path)
    load_decoder(path)


def _load_decoder_weights(case: bytes, _: Path) -> None:
    build_decoder(*changed(case, put_together(tiny.decoder_state()), header_of(tiny.DECODER, licence="MIT", training={})))


def _find(case: bytes, _: Path) -> None:
    name = case.decode("utf-8", "surrogateescape")
    folders.fingerprint(name)
    path = Path(folders.weights_path(name)).resolve()
    roots = [Path(root).resolve() for kind in ("faithdiff", "diffusion_models") for root in _roots(kind)]
    assert any(path.is_relative_to(root) for root in roots), path


def _roots(kind: str) -> list[str]:
    import folder_paths

    return folder_paths.folder_names_and_paths[kind][0]


def targets(canary: Path) -> list[Target]:
    """All of them; pickles would make or change `canary`."""
    programs = st.binary(min_size=8, max_size=48)
    names = st.one_of(st.sampled_from(NAMES), st.text(max_size=40), st.text(alphabet="./\\ab\0", max_size=20))
    return [
        Target(name="safetensors as a model", cases=safetensors_files(), read=_load_file, short=120, weight=4),
        Target(name="safetensors as a nano VAE", cases=safetensors_files(), read=_load_safetensors, short=60),
        Target(name="pickle as a model", cases=pickle_files(canary), read=_load_pickle, short=200, weight=4),
        Target(name="network with changes", cases=programs, read=_load_network, short=15, weight=0.05),
        Target(name="UNet with changes", cases=programs, read=_load_unet, short=15, weight=0.05),
        Target(name="nano VAE's sizes", cases=mutated([VAE_CONFIG]), read=_load_vae, short=80),
        Target(name="nano VAE with changes", cases=programs, read=_load_vae_weights, short=30, weight=0.2),
        Target(name="safetensors as a fidelity decoder", cases=safetensors_files(), read=_load_decoder, short=60),
        Target(name="fidelity decoder with changes", cases=programs, read=_load_decoder_weights, short=120, weight=0.2),
        Target(name="model's name", cases=names.map(lambda name: name.encode("utf-8", "surrogatepass")), read=_find, short=100),
    ]
