"""Collecting word attribution while the host samples.

Two keyed wrappers and a patch ride on a clone of the MODEL:

* SAMPLER_SAMPLE, once per run: gives every condition a map of *cells*, int32 (B, 4, H, W): whether it is the prompt, and image,
  row and column of each latent cell. Areas, tiles and batches are cut with it, as with the alignment's map.
* APPLY_MODEL, once per UNet call: reads the map back, and adds an `attn2_patch` after all others. The patch sees what goes into a
  cross-attention's projections, computes the words' shares of the attention from it, and returns it as it was. (The host's
  `attn2_replace` would have to run the attention in its stead, and has room for one pack only: IP-Adapter needs it.)

The sums of a call are added when the call is over, so one that ran out of memory leaves nothing behind.

Shapes: B batch, N positions of a layer (its h * w), C channels, W words, H and W_lat latent size.
"""

from __future__ import annotations

import re
from typing import Any

import comfy.conds
import comfy.model_patcher
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import CrossAttention
from comfy.patcher_extension import WrappersMP

from ...faithdiff_core.attribution import word_shares
from ...faithdiff_core.geometry import Box, Size
from ...faithdiff_core.tiling import gaussian_weights
from .words import PromptWords

KEY = "faithdiff_attribution"

ATTN2_NAME = re.compile(
    r"(?P<side>input|middle|output)_blocks?\.((?P<number>\d+)\.)?\d+\.transformer_blocks\.(?P<index>\d+)\.attn2"
)
"""H comfy/ldm/modules/diffusionmodules/openaimodel.py, UNetModel, and comfy/ldm/modules/attention.py, SpatialTransformer."""


class Attribution:
    """Shares of the cross-attention that the words of a prompt get, over one sampling run.

    Use: sample with `on(model)`, then `shares()`.
    """

    def __init__(self, words: PromptWords):
        self._words = words
        self._size = Size(0, 0)
        self._sum_BWHW = torch.zeros(0)
        self._weight_B1HW = torch.zeros(0)

    def on(self, model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
        """A clone of an SDXL MODEL whose next run is looked at."""
        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, self._sampler_sample)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self._apply_model)
        return model

    def shares(self) -> torch.Tensor:
        """Each word's share of the attention, fp32 (images, words, H, W_lat) in [0, 1] on the CPU.

        Averaged over heads, layers, and the calls that saw the cell; 0 where the prompt did not act. The sums are given up: the
        host may keep the MODEL after the run.

        Raises:
            ValueError: the run had no cross-attention to the prompt that could be seen.
        """
        shares_BWHW = (self._sum_BWHW / self._weight_B1HW.clamp_min(torch.finfo(torch.float32).tiny)).cpu()
        seen = bool(self._weight_B1HW.any())
        self._sum_BWHW = self._weight_B1HW = torch.zeros(0)
        if not seen:
            raise ValueError(
                "expected to see the cross-attention to the prompt, got none; bypass TorchCompileModel, and check that the "
                "prompt acts in some step"
            )
        return shares_BWHW

    def _sampler_sample(self, executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
        """SAMPLER_SAMPLE wrapper."""
        images, self._size = noise.shape[0], Size(*noise.shape[-2:])
        self._sum_BWHW = torch.zeros(images, len(self._words.words), *self._size, device=noise.device)
        self._weight_B1HW = torch.zeros(images, 1, *self._size, device=noise.device)
        axes = torch.meshgrid(*(torch.arange(n, dtype=torch.int32) for n in (images, *self._size)), indexing="ij")
        for name, conds in guider.conds.items():
            guider.conds[name] = [self._with_cells(cond, axes, may_be_prompt=name == "positive") for cond in conds]
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

    def _with_cells(self, cond: dict[str, Any], axes: tuple[torch.Tensor, ...], *, may_be_prompt: bool) -> dict[str, Any]:
        """A copy of a processed condition with its map of cells."""
        is_prompt = may_be_prompt and self._words.is_prompt(cond["model_conds"]["c_crossattn"].cond)
        cells_B4HW = torch.stack([torch.full_like(axes[0], is_prompt), *axes], dim=1)
        return {**cond, "model_conds": {**cond["model_conds"], KEY: comfy.conds.CONDNoiseShape(cells_B4HW)}}

    def _apply_model(self, executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options={}, **kwargs):  # noqa: B006 (host's signature)
        """APPLY_MODEL wrapper."""
        cells_B4HW: torch.Tensor | None = kwargs.pop(KEY, None)
        assert c_crossattn is not None, "SDXL has a prompt in every call"
        rows = [] if cells_B4HW is None else _prompt_rows(cells_B4HW, x)
        call = _Call(executor.class_obj.diffusion_model, rows, len(x), self._words.for_tokens(c_crossattn.shape[1]))
        patches = {**transformer_options.get("patches", {})}
        # There at every call, acting or not: a compiled UNet must see the same options throughout a run.
        patches["attn2_patch"] = [*patches.get("attn2_patch", []), call.patch()]
        out = executor(x, t, c_concat, c_crossattn, control, {**transformer_options, "patches": patches}, **kwargs)
        self._add(call)
        return out

    def _add(self, call: _Call) -> None:
        for image, box, share_WHW in call.shares():
            if not torch.isfinite(share_WHW).all():  # overflow in half precision: the sampler computes that tile again
                continue
            is_untiled = box == Box(0, 0, *self._size)
            weight_HW = gaussian_weights(box.height, box.width, self._sum_BWHW.device)  # as tiles are blended
            if is_untiled:
                weight_HW = torch.ones_like(weight_HW)
            cells = (image, slice(None), slice(box.top, box.top + box.height), slice(box.left, box.left + box.width))
            self._sum_BWHW[cells] += share_WHW.to(self._sum_BWHW) * weight_HW
            self._weight_B1HW[cells] += weight_HW


class _Call:
    """One UNet call: the layers' shares, summed by the size that layers have."""

    def __init__(self, network: torch.nn.Module, rows: list[tuple[int, int, Box]], rows_in_call: int, words_TW: torch.Tensor):
        self._rows, self._rows_in_call, self._words_TW = rows, rows_in_call, words_TW
        self._layers_by_name = _cross_attentions(network) if rows else {}
        self._sums: dict[Size, torch.Tensor] = {}
        self._layers = 0

    def patch(self):
        """The `attn2_patch`: (normed features, context, values' context) as they came."""

        @torch.compiler.disable  # sums that outlive the compiled call
        def look(n_BNC, context_BTC, value_BTC, extra_options):
            if self._rows:
                self._look(n_BNC, context_BTC, extra_options)
            return n_BNC, context_BTC, value_BTC

        return look

    def _look(self, n_BNC: torch.Tensor, context_BTC: torch.Tensor, extra_options: dict[str, Any]) -> None:
        name = (*extra_options["block"], extra_options["block_index"])
        size, rows = Size(*extra_options["activations_shape"][-2:]), [row for row, _, _ in self._rows]
        wanted = (self._rows_in_call, size.height * size.width, self._rows_in_call)
        if (n_BNC.shape[0], n_BNC.shape[1], context_BTC.shape[0]) != wanted:
            raise ValueError(
                f"expected cross-attention of {wanted[0]} rows of {wanted[1]} positions, got {n_BNC.shape[0]} rows of "
                f"{n_BNC.shape[1]} positions and {context_BTC.shape[0]} contexts; another node regroups it, as regional prompts "
                "in the attention do: bypass it here"
            )
        layer = self._layers_by_name[name]
        q_BNC, k_BTC = layer.to_q(n_BNC[rows]), layer.to_k(context_BTC[rows])
        # Tokens that another node puts behind the prompt belong to no word.
        words_TW = F.pad(self._words_TW, (0, 0, 0, k_BTC.shape[1] - self._words_TW.shape[0]))
        shares_BNW = word_shares(q_BNC, k_BTC, words_TW, layer.heads)
        shares_BWHW = shares_BNW.transpose(1, 2).unflatten(-1, tuple(size))
        self._sums[size] = self._sums[size] + shares_BWHW if size in self._sums else shares_BWHW
        self._layers += 1

    def shares(self) -> list[tuple[int, Box, torch.Tensor]]:
        """Image, box and (words, H, W_lat) of its share for every row of the prompt, averaged over the layers."""
        if not self._sums:
            return []
        boxes = [box for _, _, box in self._rows]
        size = (boxes[0].height, boxes[0].width)
        enlarged = [F.interpolate(sum_BWHW, size=size, mode="bicubic") for sum_BWHW in self._sums.values()]
        shares_BWHW = (torch.stack(enlarged).sum(dim=0) / self._layers).clamp_min(0.0)  # bicubic may swing below
        return [(image, box, shares_BWHW[i]) for i, (_, image, box) in enumerate(self._rows)]


def _prompt_rows(cells_B4HW: torch.Tensor, x_BCHW: torch.Tensor) -> list[tuple[int, int, Box]]:
    """Row of the batch, image and box of every row that is the prompt.

    Raises:
        ValueError: another node cut or scaled the latent without its conditions.
    """
    size = Size(*x_BCHW.shape[-2:])
    corners = cells_B4HW[:, :, 0, 0].tolist()
    far = cells_B4HW[:, 2:, -1, -1].tolist()
    apart = [[top + size.height - 1, left + size.width - 1] for _, _, top, left in corners] != far
    if apart or tuple(cells_B4HW.shape[-2:]) != tuple(size) or len(corners) != x_BCHW.shape[0]:
        raise ValueError(
            f"expected the latent of {x_BCHW.shape[0]} x {size} cells to be cut with its conditions, got conditions for "
            f"{len(corners)} x {Size(*cells_B4HW.shape[-2:])}; another node tiles or scales it: bypass it here"
        )
    return [(row, image, Box(top, left, *size)) for row, (is_prompt, image, top, left) in enumerate(corners) if is_prompt]


def _cross_attentions(network: torch.nn.Module) -> dict[tuple[str, int, int], CrossAttention]:
    """The UNet's cross-attentions as the host names them in a patch's options: side, block, transformer block."""
    found = {}
    for path, module in network.named_modules():
        match = ATTN2_NAME.fullmatch(path.replace("_orig_mod.", ""))  # so are parts called that torch.compile has wrapped
        if match is not None:
            assert isinstance(module, CrossAttention), "the host's name for it"
            found[match["side"], int(match["number"] or 0), int(match["index"])] = module
    return found
