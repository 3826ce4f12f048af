"""A FaithDiff step against the official UNet's: same weights (shared, not copied), same inputs, both on torch's own attention.

The official repository's folder is given by the user; its UNet class (FaithDiff/models/unet_2d_condition_vae_extension.py at
f11af6c) runs on the diffusers that is installed. What its step consists of is timed in the same rounds."""

from __future__ import annotations

import importlib.util
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management as mm
import made_up
import torch
from comfyui_faithdiff.faithdiff_core.files.checkpoint import FaithDiffParts, assemble_released
from comfyui_faithdiff.faithdiff_core.files.keymap import ldm_to_diffusers
from comfyui_faithdiff.faithdiff_core.files.metadata import RELEASED_TARGET_SIZE_PX, FaithDiffMetadata
from comfyui_faithdiff.faithdiff_core.geometry import LATENT_CELL_PX
from comfyui_faithdiff.nodes.seam.bundle import FaithDiffFeatures
from host_process import clock
from predictions import CFG, TIMESTEP, Predict, noisy, together
from rows import Options, Row, Seconds, Skipped, compared, in_turn

UNET_FILE = Path("FaithDiff", "models", "unet_2d_condition_vae_extension.py")
OURS, BARE, THEIRS, THEIRS_BARE = "FaithDiff", "bare UNet in the host", "official", "official UNet without alignment"
EMBEDDING, BLOCKS, BLOCKS_ONE, OUR_BLOCKS = "official embedding", "official blocks", "official blocks, one row", "our blocks"


class Inputs(NamedTuple):
    """One step's, two rows (negative, positive) but for the latent and the features."""

    x_BCHW: torch.Tensor
    sigma: float
    features_BCHW: torch.Tensor
    context_BNC: torch.Tensor
    pooled_BC: torch.Tensor
    size_px: tuple[int, int]

    def to(self, like: torch.Tensor) -> Inputs:
        return self._replace(**{k: v.to(like) for k, v in self._asdict().items() if isinstance(v, torch.Tensor)})


def official(options: Options) -> Sequence[Row]:
    """Our step over theirs, and the parts that make up the difference.

    Raises:
        Skipped: no folder is given.
    """
    module = official_module(options.official)
    made = made_up.made_up(options.size)
    px = options.px or made.widths.px
    features = made_up.features_of(made, px, px)
    model = made_up.aligned(made, features)
    x_BCHW, sigma = noisy(made.model, px // LATENT_CELL_PX, px // LATENT_CELL_PX)
    positive, negative = made_up.prompts(made.widths)
    context, pooled = (
        torch.cat([negative[0][0], positive[0][0]]),
        torch.cat([p[0][1]["pooled_output"] for p in (negative, positive)]),
    )
    inputs = Inputs(x_BCHW, sigma, features.features_BCHW, context, pooled, (px, px))

    def act(predicts: dict[str, Predict]) -> tuple[Seconds, float]:
        unet = official_unet(module, made)
        like = next(unet.parameters())
        ways = {**predicts, **their_steps(unet, inputs.to(like)), **parts(unet, made, features, like)}
        ours = predicts[OURS]()
        difference = (ours - ways[THEIRS]().to(ours)).abs().max() / ours.abs().max()
        seconds = in_turn(ways, rounds=options.rounds or made.widths.rounds, clock=clock(options.device))
        return seconds, float(difference)

    seconds, difference = together({BARE: made.model, OURS: model}, (positive, negative), x_BCHW, sigma, act)
    return described(seconds, difference, options, px)


def described(seconds: Seconds, difference: float, options: Options, px: int) -> list[Row]:
    """The whole step, then what it is made of."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    whole = medians[THEIRS]
    shares = ", ".join(f"{name.removeprefix('official ')} {medians[name] / whole:.1%}" for name in (EMBEDDING, BLOCKS))
    where = f"{px} px, {options.device}"
    title = f"official, {options.size}"
    figures = {"largest_difference": difference, **{f"{name}, s": value for name, value in medians.items()}}
    alignment = {
        "ours": seconds[OUR_BLOCKS],
        "official": [sum(pair) for pair in zip(seconds[EMBEDDING], seconds[BLOCKS], strict=True)],
    }
    return [
        compared(title, seconds, OURS, THEIRS, notes=f"{where}; same result to {difference:.1e}", figures=figures),
        compared(title, seconds, OURS, BARE, notes=f"{where}; what alignment adds to ours"),
        compared(title, seconds, THEIRS, THEIRS_BARE, notes=f"{where}; what alignment adds to theirs"),
        compared(title, seconds, BARE, THEIRS_BARE, notes=f"{where}; host's UNet code against diffusers'"),
        compared(f"{title}, alignment", alignment, "ours", "official", notes=f"{where}; of their step: {shares}"),
        compared(f"{title}, alignment", seconds, BLOCKS, BLOCKS_ONE, notes=f"{where}; computing both rows"),
        compared(f"{title}, alignment", seconds, OUR_BLOCKS, BLOCKS_ONE, notes=f"{where}; W_o W_v folded, no queries and keys"),
    ]


def official_module(folder: str | None) -> Any:
    """The official file as a module.

    Raises:
        Skipped: no folder.
        ValueError: a folder without that file.
    """
    if folder is None:
        raise Skipped("the official repository is not part of this one: give its folder with --official FOLDER")
    path = Path(folder) / UNET_FILE
    if not path.is_file():
        got = "got a folder without it; check out the official repository"
        raise ValueError(f"expected {UNET_FILE} in --official {folder}, {got}")
    spec = importlib.util.spec_from_file_location("official_unet", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses ask for it
    spec.loader.exec_module(module)
    return module


def official_unet(module: Any, made: made_up.MadeUp) -> torch.nn.Module:
    """Their UNet with their alignment at our widths, on the host's own tensors; without the LQ encoder, whose output is given."""
    sizes = made.widths.alignment
    with torch.device("meta"):
        unet = module.UNet2DConditionModel(**made.widths.diffusers)
        # their init_information_transformer_layes and init_ControlNetConditioningEmbedding (:393-401), which know one width
        blocks = [module.ResidualAttentionBlock(sizes.token_channels, sizes.num_heads) for _ in range(sizes.num_layers)]
        unet.information_transformer_layes = torch.nn.Sequential(*blocks)
        unet.spatial_ch_projs = torch.nn.Linear(sizes.token_channels, sizes.model_channels)
        unet.condition_embedding = module.ControlNetConditioningEmbedding(sizes.model_channels, sizes.feature_channels)
    host_state = made.model.model.diffusion_model.state_dict()
    names = ldm_to_diffusers(host_state)
    extra = FaithDiffParts(unet=None, lq_encoder={}, alignment=made.alignment_state, metadata=FaithDiffMetadata())
    state = {names[key]: tensor for key, tensor in host_state.items()} | assemble_released(extra)
    device, dtype = mm.get_torch_device(), made.model.model.get_dtype_inference()
    state = {key: tensor.to(device, dtype) for key, tensor in state.items()}  # which copies none that is so already
    torch.nn.Module.load_state_dict(unet, state, assign=True)  # their own load_state_dict copies
    return unet.eval()


def their_steps(unet: Any, inputs: Inputs) -> dict[str, Callable[[], torch.Tensor]]:
    """Their step with guidance, as pipeline_FaithDiff_tlc.py:1330-1366 makes it, to the denoised latent; and one without
    alignment."""
    two = [torch.cat([tensor] * 2) for tensor in (inputs.x_BCHW / (inputs.sigma**2 + 1) ** 0.5, inputs.features_BCHW)]
    sizes = torch.tensor([[*inputs.size_px, 0, 0, RELEASED_TARGET_SIZE_PX, RELEASED_TARGET_SIZE_PX]] * 2).to(inputs.x_BCHW)

    def predict(features_BCHW: torch.Tensor | None) -> torch.Tensor:
        eps = unet(
            two[0], torch.tensor(TIMESTEP), encoder_hidden_states=inputs.context_BNC, input_embedding=features_BCHW,
            added_cond_kwargs={"text_embeds": inputs.pooled_BC, "time_ids": sizes}, return_dict=False,
        )[0]  # fmt: skip
        negative, positive = eps.chunk(2)
        return inputs.x_BCHW - inputs.sigma * (negative + CFG * (positive - negative))

    return {THEIRS: lambda: predict(two[1]), THEIRS_BARE: lambda: predict(None)}


def parts(unet: Any, made: made_up.MadeUp, features: FaithDiffFeatures, like: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Their alignment by itself: two rows, as in their step, and one; and ours, one row with an embedding made before."""
    features_1CHW = features.features_BCHW.to(like)
    h_1CHW = torch.randn(1, made.widths.alignment.model_channels, *features_1CHW.shape[-2:]).to(like)
    module = made.faithdiff.alignment.model
    embedded_1CHW = module.embed(features_1CHW)

    def blocks(rows: int) -> torch.Tensor:
        """Official :574-578."""
        tokens = torch.cat([h_1CHW, embedded_1CHW], dim=1).repeat(rows, 1, 1, 1).flatten(2).transpose(1, 2)
        return unet.spatial_ch_projs(unet.information_transformer_layes(tokens)).transpose(1, 2).reshape(rows, *h_1CHW.shape[1:])

    return {
        EMBEDDING: lambda: unet.condition_embedding(features_1CHW.repeat(2, 1, 1, 1)),
        BLOCKS: lambda: blocks(2),
        BLOCKS_ONE: lambda: blocks(1),
        OUR_BLOCKS: lambda: module(h_1CHW, embedded_1CHW),
    }
