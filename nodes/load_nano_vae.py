"""FaithDiff Load Nano VAE: the narrow VAE of the nano model that comes with the pack."""

from __future__ import annotations

from comfy_api.latest import io

from .seam import folders
from .seam.inputs import checked
from .seam.nano_vae import load_nano_vae
from .seam.types import NANO_CATEGORY
from .seam.weights_file import read_weights


class FaithDiffLoadNanoVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffLoadNanoVAE",
            display_name="FaithDiff Load Nano VAE",
            category=NANO_CATEGORY,
            description="Loads the narrow VAE of the nano model. For the real weights use Load VAE or Load Checkpoint.",
            inputs=[
                io.Combo.Input(
                    "vae_name",
                    options=folders.nano_vae_names(),
                    tooltip="A nano VAE in models/faithdiff (its name ends in vae.safetensors), or the one that comes "
                    "with the pack.",
                )
            ],
            outputs=[io.Vae.Output(tooltip="A VAE for the nano model only.")],
        )

    @classmethod
    @checked
    def execute(cls, vae_name: str) -> io.NodeOutput:
        state, header = read_weights(folders.weights_path(vae_name))
        try:
            return io.NodeOutput(load_nano_vae(state, header))
        except ValueError as e:
            raise ValueError(f"{vae_name}: {e}") from None

    @classmethod
    def fingerprint_inputs(cls, vae_name: str) -> tuple:
        return folders.fingerprint(vae_name)
