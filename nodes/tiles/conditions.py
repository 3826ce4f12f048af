"""Conditions in tiles: what each tile of each image sees of every prompt.

An area or mask becomes the host's own weight for every cell of the image, once per step, and is then cut like the latent: ramps
at the borders of areas stay where they are in the whole image. A prompt whose weight is 0 all over a tile is left out of it.

Shapes: B batch, N tiles in a call (one row each), H and W latent size of what is sampled.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.samplers
import torch

from ...faithdiff_core.geometry import LATENT_CELL_PX, Box, Size
from ..alignment.hook import aligned, cut_apart
from ..alignment.patch import KEY, AlignmentRun
from ..alignment.size_conditioning import SizeConditioning, replace_crops, replace_sizes
from .control import HintPart, ScaledHints, cut_control
from .marks import OTHER_GRID, with_tiles_of
from .run import TileUnit

WEIGHT_KEYS = ("area", "mask", "mask_strength", "strength", "timestep_start", "timestep_end", "uuid")


@dataclass(frozen=True, kw_only=True)
class ActingCond:
    """A processed condition at one step, and where it acts.

    Attributes:
        cond: as the host processed it, with our map of cells where the MODEL is aligned.
        area: where the host would run it.
        weight_BHW: its weight over the whole latent; None where the host asks neither for an area nor for a mask.
        touched_HW: on the CPU, where any image's weight is not 0.
        tile: the only one where it acts; None where it may act in any.
    """

    cond: dict[str, Any]
    area: Box
    weight_BHW: torch.Tensor | None = None
    touched_HW: torch.Tensor | None = None
    tile: Box | None = None

    def part_in(self, tile: Box) -> Box | None:
        """The part of a tile, from the tile's corner, that the host would run; None where it does not act."""
        if self.tile not in (None, tile):
            return None
        top, left = max(tile.top, self.area.top), max(tile.left, self.area.left)
        bottom = min(tile.top + tile.height, self.area.top + self.area.height)
        right = min(tile.left + tile.width, self.area.left + self.area.width)
        if top >= bottom or left >= right:
            return None
        if self.touched_HW is not None and not self.touched_HW[top:bottom, left:right].any():
            return None
        return Box(top - tile.top, left - tile.left, bottom - top, right - left)


@dataclass(frozen=True, kw_only=True)
class TileConditions:
    """All conditions of one step.

    Attributes:
        acting: by prompt (positive, negative, ...); None where a prompt is not asked for (CFG 1).
        tile_px: side of a tile as asked for, which is the target size of SDXL's size conditioning; 0 when images are whole.
        run: of the alignment; None for a MODEL without.
    """

    acting: list[list[ActingCond] | None]
    size: Size
    tile_px: int
    run: AlignmentRun | None
    model: comfy.model_base.SDXL
    scaled_hints: ScaledHints

    @classmethod
    def at_step(
        cls,
        conds: list[list[dict[str, Any]] | None],
        x_BCHW: torch.Tensor,
        timestep_B: torch.Tensor,
        model: comfy.model_base.SDXL,
        run: AlignmentRun | None,
        *,
        tile_px: int,
        scaled_hints: ScaledHints,
    ) -> TileConditions:
        """The host's processed conditions at one step, ready to be cut.

        Raises:
            ValueError: GLIGEN; a latent that another node cut without its conditions.
        """
        if run is not None:  # a prompt that a node encodes during sampling, as Perp-Neg does, brings no map of cells
            conds = [c and _all_aligned(c, run, model) for c in conds]
            for cells_B3HW in (cond["model_conds"][KEY].cond for c in conds if c for cond in c):
                if cells_B3HW.shape[-2:] != x_BCHW.shape[-2:]:
                    raise ValueError(cut_apart(x_BCHW, cells_B3HW))
        size = Size(*x_BCHW.shape[-2:])
        tile = Size(*(min(side, tile_px // LATENT_CELL_PX or side) for side in size))
        acting = [_acting(None if c is None else with_tiles_of(c, tile), x_BCHW, timestep_B) for c in conds]
        return cls(acting=acting, size=size, tile_px=tile_px, run=run, model=model, scaled_hints=scaled_hints)

    def signature(self, unit: TileUnit) -> tuple:
        """Units of the same signature can share a call: the same prompts act on the same parts of their tiles."""
        return tuple(None if conds is None else tuple(c.part_in(unit.box) for c in conds) for conds in self.acting)

    def cut(self, units: list[TileUnit]) -> list[list[dict[str, Any]] | None]:
        """The host's conditions for a batch of tiles, in the units' order; they must be of one signature."""
        controls: dict[tuple, Any] = {}  # prompts share a call only when they share a control object
        result: list[list[dict[str, Any]] | None] = []
        for conds in self.acting:
            if conds is None:
                result.append(None)
                continue
            parts = [(acting, acting.part_in(units[0].box)) for acting in conds]
            result.append([self._cut(acting, part, units, controls) for acting, part in parts if part is not None])
            if not result[-1] and any(acting.tile for acting in conds):
                raise ValueError(OTHER_GRID)
        return result

    def _cut(self, acting: ActingCond, part: Box, units: list[TileUnit], controls: dict[tuple, Any]) -> dict[str, Any]:
        cond = {**acting.cond}
        cond["model_conds"] = self._model_conds(cond, units)
        if acting.weight_BHW is not None:
            for key in ("area", "strength", "mask_strength"):
                cond.pop(key, None)
            cond["mask"] = torch.cat([_narrow(acting.weight_BHW[u.image : u.image + 1], u.box) for u in units])
            if part != Box(0, 0, units[0].box.height, units[0].box.width):
                cond["area"] = (part.height, part.width, part.top, part.left)
        if cond.get("control") is not None:
            cond["control"] = self._control(cond["control"], acting.area, part, units, controls)
        return cond

    def _control(self, control: Any, area: Box, part: Box, units: list[TileUnit], controls: dict[tuple, Any]) -> Any:
        hints = [
            HintPart(u.image, Box(u.box.top + part.top - area.top, u.box.left + part.left - area.left, part.height, part.width))
            for u in units
        ]
        key = (id(control), area, *hints)
        if key not in controls:
            controls[key] = cut_control(control, hints, Size(area.height, area.width), self.scaled_hints)
        return controls[key]

    def _model_conds(self, cond: dict[str, Any], units: list[TileUnit]) -> dict[str, Any]:
        conds = {name: _cut_value(value, units, self.size) for name, value in cond["model_conds"].items()}
        if self.tile_px and "y" in conds:
            y_NC = conds["y"].cond
            y_NC = y_NC.expand(len(units), -1) if y_NC.shape[0] == 1 else y_NC
            if self.run is not None and KEY in conds:
                origins = conds[KEY].cond[:, 1:, 0, 0].tolist()  # in the image, whoever else cut it before us
                sizes = [SizeConditioning.for_tile(self.run.state.features, origin, self.tile_px) for origin in origins]
                y_NC = replace_sizes(y_NC, sizes, self.model)
            else:
                base_px = cond.get("crop_h", 0), cond.get("crop_w", 0)
                crops = [tuple(t + o * LATENT_CELL_PX for t, o in zip(base_px, u.box[:2], strict=True)) for u in units]
                y_NC = replace_crops(y_NC, crops, self.model)
            conds["y"] = _with(conds["y"], y_NC)
        return conds


def _all_aligned(conds: list[dict[str, Any]], run: AlignmentRun, model: comfy.model_base.SDXL) -> list[dict[str, Any]]:
    return [c if KEY in c["model_conds"] else aligned([c], run.state.features, model)[0] for c in conds]


def _acting(
    conds: list[tuple[dict[str, Any], Box | None]] | None, x_BCHW: torch.Tensor, timestep_B: torch.Tensor
) -> list[ActingCond] | None:
    """Where each condition acts at this step, by the host's own rules for areas, masks and strengths."""
    if conds is None:
        return None
    height, width = x_BCHW.shape[-2:]
    acting = []
    for cond, tile in conds:
        if "gligen" in cond:  # its boxes are fractions of the image
            raise ValueError(
                "expected prompts without GLIGEN for sampling in tiles, got one with; set tile_size to 0 or use area prompts"
            )
        if "area" not in cond and "mask" not in cond:
            acting.append(ActingCond(cond=cond, area=Box(0, 0, height, width), tile=tile))
            continue
        asked = {**{key: cond[key] for key in WEIGHT_KEYS if key in cond}, "model_conds": {}}
        host = comfy.samplers.get_area_and_mult(asked, x_BCHW[:, :1], timestep_B)
        if host is None:  # outside its part of the denoising
            continue
        area = Box(0, 0, height, width) if host.area is None else Box(host.area[2], host.area[3], *host.area[:2])
        weight_BHW = x_BCHW.new_zeros((x_BCHW.shape[0], height, width))
        _narrow(weight_BHW, area).copy_(host.mult[:, 0])
        touched_HW = (weight_BHW != 0).any(dim=0).cpu()
        acting.append(ActingCond(cond=cond, area=area, weight_BHW=weight_BHW, touched_HW=touched_HW, tile=tile))
    return acting


def _cut_value(value: Any, units: list[TileUnit], size: Size) -> Any:
    """One of a condition's model_conds for a batch of tiles: cut where it is a map of the latent, else its image's row."""
    if isinstance(value, comfy.conds.CONDConstant):
        return value
    held = getattr(value, "cond", None)
    if isinstance(held, torch.Tensor):
        return _with(value, _cut_tensor(held, units, size))
    if isinstance(held, list) and all(isinstance(t, torch.Tensor) for t in held):
        return _with(value, [_cut_tensor(t, units, size) for t in held])
    return value


def _cut_tensor(tensor: torch.Tensor, units: list[TileUnit], size: Size) -> torch.Tensor:
    if tensor.ndim == 0:
        return tensor
    rows = tensor.shape[0]
    if tensor.ndim >= 4 and tuple(tensor.shape[-2:]) == tuple(size):
        # fewer rows than images are repeated, as the host does
        return torch.cat([_narrow(tensor[u.image % rows : u.image % rows + 1], u.box) for u in units])
    return tensor if rows == 1 else tensor[[u.image % rows for u in units]]


def _narrow(map_HW: torch.Tensor, box: Box) -> torch.Tensor:
    return map_HW[..., box.top : box.top + box.height, box.left : box.left + box.width]


def _with(value: Any, held: Any) -> Any:
    """A copy of one of the host's conds that holds something else; of the same class, other packs' included."""
    value = copy.copy(value)
    value.cond = held
    return value
