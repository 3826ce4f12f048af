"""The composite that trains: LQ encoder, alignment module and UNet behind one forward."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import nn

from faithdiff_core.alignment import AlignmentModule
from faithdiff_core.architecture import AlignmentSizes, LQEncoderSizes
from faithdiff_core.lq_encoder import LQEncoder
from training.config import TrainConfig
from training.networks import NetworkSpec, build_unet, network_spec, no_prompt
from training.seeds import seed_for


class FaithDiffModel(nn.Module):
    """One forward for DDP, FSDP and plain runs alike: nothing of it is called from outside.

    `use_alignment` False leaves the LQ branch out altogether (the prior)."""

    def __init__(self, spec: NetworkSpec, *, mode: str, use_alignment: bool) -> None:
        super().__init__()
        self.spec = spec
        self.use_alignment = use_alignment
        self.lq_encoder = LQEncoder(lq_encoder_sizes(spec), operations=nn)
        self.alignment = AlignmentModule(alignment_sizes(spec), mode=mode, operations=nn)
        self.unet = build_unet(spec)

    def encode_lq(self, lq_BCHW: torch.Tensor) -> torch.Tensor:
        """LQ picture (B, 3, H, W) in [-1, 1], already at the target size -> features (B, C, H/8, W/8)."""
        return self.lq_encoder(lq_BCHW)

    def predict(
        self, noisy_BCHW: torch.Tensor, timestep_B: torch.Tensor, time_ids_B6: torch.Tensor, features_BCHW: torch.Tensor | None
    ) -> torch.Tensor:
        """The noise in `noisy_BCHW` (B, 4, h, w), float32. `features_BCHW` None: without alignment."""
        context, pooled = no_prompt(self.spec, len(noisy_BCHW))
        condition = {"text_embeds": pooled.to(noisy_BCHW), "time_ids": time_ids_B6.to(noisy_BCHW)}
        hook = None
        if features_BCHW is not None:
            embedded = self.alignment.embed(features_BCHW)
            # After conv_in and before the first skip is stored, as in the official unet_2d_condition_vae_extension.py:570-579.
            hook = self.unet.conv_in.register_forward_hook(lambda _module, _inputs, h: h + self.alignment(h, embedded))
        try:
            out = self.unet(noisy_BCHW, timestep_B, context.to(noisy_BCHW), added_cond_kwargs=condition, return_dict=False)[0]
        finally:
            if hook is not None:
                hook.remove()
        return out.float()

    def forward(
        self, noisy_BCHW: torch.Tensor, timestep_B: torch.Tensor, time_ids_B6: torch.Tensor, lq_BCHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The noise in `noisy_BCHW`, given the LQ picture (None for the prior)."""
        if not self.use_alignment or lq_BCHW is None:
            return self.predict(noisy_BCHW, timestep_B, time_ids_B6, None)
        frozen = not any(parameter.requires_grad for parameter in self.lq_encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features = self.encode_lq(lq_BCHW)
        return self.predict(noisy_BCHW, timestep_B, time_ids_B6, features)


def lq_encoder_sizes(spec: NetworkSpec) -> LQEncoderSizes:
    """The LQ encoder has the VAE encoder's widths."""
    return LQEncoderSizes(
        block_out_channels=spec.vae_channels, layers_per_block=spec.vae_layers, norm_groups=spec.vae_norm_groups
    )


def alignment_sizes(spec: NetworkSpec) -> AlignmentSizes:
    """The alignment module's widths follow from the UNet's first width."""
    return AlignmentSizes(
        model_channels=spec.unet_channels[0],
        feature_channels=spec.feature_channels,
        num_layers=spec.alignment_layers,
        mlp_channels=2 * spec.unet_channels[0] * spec.alignment_mlp_ratio,
        num_heads=spec.alignment_heads,
    )


def build_model(config: TrainConfig) -> FaithDiffModel:
    """The composite with seeded initial weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(config.seed, "model-init"))
        return FaithDiffModel(network_spec(config.network), mode=config.alignment_mode, use_alignment=config.stage != "prior")


def initialise_from_vae(model: FaithDiffModel, vae: AutoencoderKL) -> None:
    """Give the LQ encoder the VAE encoder's weights, without its output head (official train_SDXL_stage_1.py:622-628)."""
    encoder = vae.encoder.state_dict()
    model.lq_encoder.load_state_dict({name: encoder[name] for name in model.lq_encoder.state_dict()})


def zero_alignment(model: FaithDiffModel) -> None:
    """Zero the two layers that make the module's output exactly 0 at first (official :209-211, :399)."""
    for layer in (model.alignment.condition_embedding.conv_out, model.alignment.proj_out):
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
