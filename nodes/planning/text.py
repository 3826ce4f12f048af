"""A plan in words."""

from __future__ import annotations

from ...faithdiff_core.geometry import Size
from .memory import MemoryPlan
from .plan import Plan
from .time import TimeEstimate

MAX_UNTILED_MP = 1.5
"""A half more than SDXL was trained at; somewhat larger images still come out whole."""


def plan_lines(plan: Plan) -> list[str]:
    """Tiles, calls, memory, time; then what to look out for."""
    lines = [_tiles_line(plan), _calls_line(plan), _memory_line(plan.memory), _time_line(plan.time, plan.tile_px)]
    memory = plan.memory
    if memory.fitting_tile_px < max(plan.tile_px):
        advice = f"set tile_size to {memory.fitting_tile_px}" if memory.fitting_tile_px else "no tile fits"
        lines.append(
            f"warning: even one tile at a time takes about {_size(memory.row_bytes)}, and the device has "
            f"{_size(memory.device_bytes)}; {advice}"
        )
    if plan.is_untiled and _megapixels(plan.image_px) > MAX_UNTILED_MP:
        lines.append("warning: SDXL was trained at 1024 px and repeats itself in much larger images; set tile_size to 1024")
    return lines


def _tiles_line(plan: Plan) -> str:
    images = "" if plan.images == 1 else f"{plan.images} images of "
    image = f"{images}{_px(plan.image_px)} ({_megapixels(plan.image_px):.1f} MP)"
    count = plan.rows * plan.columns
    each = "" if plan.images == 1 else " each"
    if count == 1:
        return f"{image} in one tile{each}"
    grid = f"{plan.rows} x {plan.columns}"
    return f"{image} in {count} tiles{each} ({grid}) of {_side_or_sides(plan.tile_px)}, overlap {_overlap(plan)}"


def _overlap(plan: Plan) -> str:
    across, down = plan.overlap_across_frac, plan.overlap_down_frac
    shares = [f"{round(100 * frac)} %" for frac in (across, down) if frac is not None]
    return shares[0] if len(set(shares)) == 1 else f"{shares[0]} across, {shares[1]} down"


def _calls_line(plan: Plan) -> str:
    steps, prompts, calls = _count(plan.steps, "step"), _count(plan.prompts, "prompt"), _count(plan.calls, "UNet call")
    return f"{steps}, {prompts}: {calls} of at most {_count(plan.units_in_call, 'tile')}"


def _memory_line(memory: MemoryPlan) -> str:
    parts = [f"weights {_size(memory.weights_bytes)}", f"{_size(memory.call_bytes)} for a call"]
    if memory.features_bytes:
        place = "on the device" if memory.features_on_device else "in main memory"
        parts += [f"features {_size(memory.features_bytes)} {place}", f"their embeddings {_size(memory.embeddings_bytes)}"]
    parts.append(f"latents {_size(memory.latents_bytes)}")
    return "memory: " + ", ".join(parts)


def _time_line(time: TimeEstimate | None, tile_px: Size) -> str:
    if time is None:
        return "time: unknown until the first run"
    scaled = f"scaled from a run with tiles of {_side_or_sides(time.measured_px)}"
    source = "from the last run" if time.measured_px == tile_px else scaled
    return f"time: about {_duration(time.seconds)} ({source})"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 100 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def _size(size_bytes: float) -> str:
    if size_bytes >= 0.1 * 2**30:
        return f"{size_bytes / 2**30:.1f} GB"
    return f"{max(1, round(size_bytes / 2**20))} MB"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _px(size: Size) -> str:
    return f"{size.width} x {size.height} px"


def _side_or_sides(size: Size) -> str:
    return f"{size.width} px" if size.width == size.height else _px(size)


def _megapixels(size: Size) -> float:
    return size.width * size.height / 1e6
