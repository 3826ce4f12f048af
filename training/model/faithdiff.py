"""The composite that trains: LQ encoder, alignment module and UNet behind one forward.

`LastLayerEncoder` and `LiftedAlignment` are of the ablation of the paper's Table 5 that takes the VAE encoder's last features, 8
channels, in place of the penultimate ones. For experiments: a file of such a network is none that the nodes know, so it is never
exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from faithdiff_core.alignment import AlignmentModule
from faithdiff_core.architecture import AlignmentSizes, LQEncoderSizes
from faithdiff_core.lq_encoder import NORM_EPS, LQEncoder, ResnetBlock
from training.common.seeds import seed_for
from training.config.schema import TrainConfig
from training.model.lora import add_lora, has_lora
from training.model.networks import NetworkSpec, build_unet, network_spec, no_prompt

LAST_CHANNELS = 8
"""Mean and log variance of SDXL's four latent channels."""
UNET_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class LastLayerEncoder(LQEncoder):
    """The LQ encoder with the VAE encoder's own head; parameter names are those of diffusers' `AutoencoderKL.encoder`."""

    def __init__(self, sizes: LQEncoderSizes) -> None:
        super().__init__(sizes, operations=nn)
        width = sizes.block_out_channels[-1]
        self.conv_norm_out = nn.GroupNorm(sizes.norm_groups, width, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(width, LAST_CHANNELS, 3, padding=1)

    def forward(self, lq_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, 8, H/8, W/8)."""
        return self.conv_out(F.silu(self.conv_norm_out(super().forward(lq_BCHW))))


class LiftedAlignment(AlignmentModule):
    """The alignment module behind a 1x1 convolution from 8 channels to the width that it takes."""

    def __init__(self, sizes: AlignmentSizes, *, mode: str) -> None:
        super().__init__(sizes, mode=mode, operations=nn)
        self.lift = nn.Conv2d(LAST_CHANNELS, sizes.feature_channels, 1)

    def embed(self, features_BCHW: torch.Tensor) -> torch.Tensor:
        """(B, 8, H, W) -> (B, model_channels, H, W)."""
        return super().embed(self.lift(features_BCHW))


class FaithDiffComposite(nn.Module):
    """One forward for DDP, FSDP and plain runs alike: nothing of it is called from outside.

    `use_alignment` False leaves the LQ branch out altogether (the prior).
    """

    _no_split_modules = ["UNet2DConditionModel", "BasicTransformerBlock", "ResnetBlock2D"]
    """FSDP gathers these one by one (accelerate reads this name)."""

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        lq_encoder: LQEncoder,
        alignment: AlignmentModule,
        unet: UNet2DConditionModel,
        use_alignment: bool = True,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.use_alignment = use_alignment
        self.lq_encoder = lq_encoder
        self.alignment = alignment
        self.unet = unet

    def encode_lq(self, lq_BCHW: torch.Tensor) -> torch.Tensor:
        """LQ picture (B, 3, H, W) in [-1, 1], already at the target size -> features (B, C, H/8, W/8)."""
        return self.lq_encoder(lq_BCHW)

    def predict(
        self,
        noisy_BCHW: torch.Tensor,
        timestep_B: torch.Tensor,
        time_ids_B6: torch.Tensor,
        features_BCHW: torch.Tensor | None,
        context_BNC: torch.Tensor | None = None,
        pooled_BC: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The noise in `noisy_BCHW` (B, 4, h, w), float32. `features_BCHW` None: without alignment.

        time_ids_B6 in float32: SDXL's original H, W, crop top, left, target H, W in px. context_BNC (B, N, context width) and
        pooled_BC (B, pooled width): the prompt; None = zeros.
        """
        assert time_ids_B6.dtype == torch.float32, "sizes in px are rounded in half precision: above 256 in bf16, 2048 in fp16"
        dtype = self.unet.conv_in.weight.dtype  # with LoRA this is still the base layer's
        if context_BNC is None or pooled_BC is None:
            context_BNC, pooled_BC = (zeros.to(noisy_BCHW.device) for zeros in no_prompt(self.spec, len(noisy_BCHW)))
        condition = {"text_embeds": pooled_BC.to(dtype), "time_ids": time_ids_B6}
        hook = None
        if features_BCHW is not None:
            embedded = self.alignment.embed(features_BCHW)
            # After conv_in and before the first skip is stored, as in the official unet_2d_condition_vae_extension.py:570-579.
            # The module holds fp32 weights whatever the UNet does, and adds up its blocks in fp32.
            hook = self.unet.conv_in.register_forward_hook(
                lambda _module, _inputs, h: h + self.alignment(h.float(), embedded.float()).to(h.dtype)
            )
        try:
            out = self.unet(
                noisy_BCHW.to(dtype), timestep_B, context_BNC.to(dtype), added_cond_kwargs=condition, return_dict=False
            )[0]
        finally:
            if hook is not None:
                hook.remove()
        return out.float()

    def forward(
        self,
        noisy_BCHW: torch.Tensor,
        timestep_B: torch.Tensor,
        time_ids_B6: torch.Tensor,
        lq_BCHW: torch.Tensor | None = None,
        context_BNC: torch.Tensor | None = None,
        pooled_BC: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The noise in `noisy_BCHW`, given the LQ picture (None for the prior) and a prompt as in `predict`.

        There may be D times as many noisy latents and timesteps as rows of the rest: D draws for each picture, which is then
        encoded once.
        """
        features = None
        if self.use_alignment and lq_BCHW is not None:
            frozen = not any(parameter.requires_grad for parameter in self.lq_encoder.parameters())
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                features = self.encode_lq(lq_BCHW)
        draws = len(noisy_BCHW) // len(time_ids_B6)
        if draws > 1:
            time_ids_B6 = time_ids_B6.repeat_interleave(draws, dim=0)
            features, context_BNC, pooled_BC = (
                value if value is None else value.repeat_interleave(draws, dim=0) for value in (features, context_BNC, pooled_BC)
            )
        return self.predict(noisy_BCHW, timestep_B, time_ids_B6, features, context_BNC, pooled_BC)


def spec_for(config: TrainConfig) -> NetworkSpec:
    """The configuration's network with its number of alignment layers.

    Raises:
        ValueError: an unknown network.
    """
    spec = network_spec(config.network)
    if config.alignment_layers < 0:
        return spec
    return replace(spec, alignment=replace(spec.alignment, num_layers=config.alignment_layers))


@contextmanager
def _seeded(config: TrainConfig, *purpose: str) -> Iterator[None]:
    """Initial weights are drawn on the CPU; its own random state is put back afterwards, and no GPU's is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(config.seed, *purpose))
        yield


def make_part(config: TrainConfig, part: str) -> nn.Module:
    """One part, untrained, with weights that depend on the configuration's seed and the part's name alone."""
    spec = spec_for(config)
    last = config.lq_features == "last"
    with _seeded(config, "model-init", part):
        if part == "unet":
            return build_unet(spec)
        if part == "lq_encoder":
            return LastLayerEncoder(spec.encoder) if last else LQEncoder(spec.encoder, operations=nn)
        assert part == "alignment"
        sizes, mode = spec.alignment, config.alignment_mode
        return LiftedAlignment(sizes, mode=mode) if last else AlignmentModule(sizes, mode=mode, operations=nn)


def compose(config: TrainConfig, parts: dict[str, nn.Module]) -> FaithDiffComposite:
    """The composite of three finished parts as the configuration wants it: types, LoRA layers, gradient checkpointing."""
    model = FaithDiffComposite(spec_for(config), **parts, use_alignment=config.stage != "prior")  # type: ignore[arg-type]
    nn.Module.to(model.unet, UNET_DTYPES[config.unet_dtype])  # diffusers' own `to` warns of layers that this UNet has not
    if has_lora(config):
        with _seeded(config, "lora-init"):
            add_lora(model.unet, config)
    if config.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
        _checkpoint_resnets(model.lq_encoder)
    return model


def build_model(config: TrainConfig) -> FaithDiffComposite:
    """The composite with seeded initial weights."""
    return compose(config, {part: make_part(config, part) for part in ("lq_encoder", "alignment", "unet")})


def _checkpoint_resnets(encoder: LQEncoder) -> None:
    """Keep one tensor per ResNet block for the backward pass instead of all in it: at 512 px, bf16, 0.69 GiB a picture instead of
    1.47 (0.91 with one per level, as in the official code).
    """
    for block in encoder.modules():
        if isinstance(block, ResnetBlock):
            # The block keeps its class and its parameters' names.
            forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            block.forward = forward  # pyright: ignore[reportAttributeAccessIssue]


def zero_alignment(alignment: AlignmentModule) -> None:
    """Zero the two layers that make the module's output exactly 0 at first (official :209-211, :399)."""
    for layer in (alignment.condition_embedding.conv_out, alignment.proj_out):
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
