"""How much memory a run needs, found by running one of its steps on tensors without content: no memory, no data, no weights.

Networks, loss, optimiser and average are the trainer's own, under torch's FakeTensorMode, so that checkpointing, LoRA, types and
micro-batches count as they are. Measured against CPU runs (benchmarks/train_memory.py); no GPU was at hand to measure on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from training.batches.restored_cache import crop_bytes
from training.batches.restored_crops import RESTORED_AT_ONCE, restore
from training.common.devices import device_of
from training.config.schema import TrainConfig
from training.loop.task import Task
from training.metrics.perceptual import PerceptualDistance
from training.model.networks import encode
from training.model.noise import sigmas_of
from training.optim.ema import EMA
from training.optim.optimisers import allocate_states, make_optimiser, only_train, trainable
from training.stages.live_bytes import WORK, LiveBytes
from training.stages.without_content import empty_batch, empty_crop, frozen_without_content, materialise, stage_without_content

KINDS = ("weights", "gradients", "optimiser", "ema")
SAMPLING_STEPS = 1
"""Of the crops' restoration: further ones find what the first has left."""
UNCOMPILED_8BIT_STEP_BYTES = 57
"""Intermediate results of one parameter's step under adamw8bit where it is not compiled, a value of it (measured on a CPU)."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes of one device at the moment when most is in use. What the allocator and the libraries keep comes on top."""

    weights_bytes: int
    """Parameters and buffers, trained and frozen; the frozen VAE's, too, where the run encodes its crops."""
    gradients_bytes: int
    optimiser_bytes: int
    ema_bytes: int
    """0 where a GPU's average is kept in main memory, see `ema_on_cpu`."""
    activations_bytes: int
    """Everything else: what the backward pass keeps, intermediate results, the batch."""
    phase: str
    """What goes on at that moment."""

    @property
    def total_bytes(self) -> int:
        return sum(value for value in vars(self).values() if isinstance(value, int))


class _GPUAutocast(TorchFunctionMode):
    """What a GPU's autocast does and a CPU's does not: norms in fp32 (torch's "CUDA Ops that can autocast to float32")."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (F.group_norm, F.layer_norm) and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return func(args[0].float(), *args[1:], **kwargs)
        return func(*args, **kwargs)


def convolution_copies_bytes(func: Any, args: Any) -> int:
    """What a CPU's convolution takes beside its results: copies in the layout of its library. Forward: of the output (here taken
    to be as large as the input); backward: of the input and of the output's gradient (measured: 1 to 1.5 times that).
    """
    if func is torch.ops.aten.convolution.default:
        return args[0].nbytes
    if func is torch.ops.aten.convolution_backward.default:
        return args[0].nbytes + args[1].nbytes
    return 0


def estimate(
    config: TrainConfig,
    *,
    on_gpu: bool,
    processes: int = 1,
    sharded: bool = False,
    perceptual: PerceptualDistance | None = None,
) -> MemoryEstimate:
    """The memory of one of `processes` devices, with DDP or (`sharded`) FSDP2, when most is in use.

    Args:
        perceptual: what the run's perceptual_weight weighs; None = it is left out.

    Raises:
        ValueError: as the run itself would for settings that do not fit together.
    """
    options: dict[str, Any] = {"on_gpu": on_gpu, "processes": processes, "sharded": sharded, "perceptual": perceptual}
    return max(estimates(config, **options), key=lambda found: found.total_bytes)


def estimates(
    config: TrainConfig, *, on_gpu: bool, processes: int, sharded: bool, perceptual: PerceptualDistance | None
) -> list[MemoryEstimate]:
    """The same of each part of the run: its steps, and in stage fidelity before them the restoration of its crops."""
    # The table of 8-bit values and the noise schedule are computed once a process, and must not be without content then.
    allocate_states(make_optimiser([("", 1.0, {"": nn.Parameter(torch.zeros(4096))})], config))
    sigmas_of(SAMPLING_STEPS)
    found = [_restoration(config, perceptual, on_gpu=on_gpu)] if config.stage == "fidelity" else []
    live, waiting = _counting(on_gpu), perceptual.without_content() if perceptual is not None else None
    task, vae = stage_without_content(config, waiting)
    with FakeTensorMode(), live, _GPUAutocast() if on_gpu else nullcontext():
        for part in filter(None, (task.module, vae, waiting and waiting.network)):
            materialise(part)
            live.mark((*part.parameters(), *part.buffers()), "weights")
        scratch = UNCOMPILED_8BIT_STEP_BYTES if config.optimiser == "adamw8bit" and not on_gpu else 0
        _step(config, task, vae, live, processes, buckets=processes > 1 and not sharded, step_bytes_per_value=scratch)
    peak = {kind: live.peak[kind] // (processes if sharded else 1) for kind in KINDS}
    if config.ema_on_cpu and on_gpu:
        peak["ema"] = 0
    return [*found, _found(live, peak, _gathered_bytes(task.module) if sharded else 0)]


def _counting(on_gpu: bool) -> LiveBytes:
    return LiveBytes((lambda _func, _args: 0) if on_gpu else convolution_copies_bytes)


def _found(live: LiveBytes, peak: Mapping[str, int], gathered_bytes: int = 0) -> MemoryEstimate:
    sizes = {f"{kind}_bytes": peak[kind] for kind in KINDS}
    return MemoryEstimate(**sizes, activations_bytes=live.peak[WORK] + gathered_bytes, phase=live.peak_phase)


def _restoration(config: TrainConfig, perceptual: PerceptualDistance | None, *, on_gpu: bool) -> MemoryEstimate:
    """Of a batch of crops, by the main process while the others wait: nothing of it is shared."""
    live, frozen = _counting(on_gpu), frozen_without_content(config)
    waiting = perceptual.without_content().network if perceptual is not None else None
    live.phase = "restoration of the crops"
    with FakeTensorMode(), live, _GPUAutocast() if on_gpu else nullcontext():
        for part in filter(None, (frozen.model, frozen.vae, waiting)):
            materialise(part)
            live.mark((*part.parameters(), *part.buffers()), "weights")
        crops = [empty_crop(config) for _ in range(min(RESTORED_AT_ONCE, config.restored_crops))]
        restore(frozen, crops, str(SAMPLING_STEPS), precision=config.precision)
    return _found(live, live.peak)


def _step(
    config: TrainConfig,
    task: Task,
    vae: AutoencoderKL | None,
    live: LiveBytes,
    processes: int,
    *,
    buckets: bool,
    step_bytes_per_value: int,
) -> None:
    """One optimiser step of a run under way. `buckets`: gradients are held all the time (DDP). `step_bytes_per_value`:
    what the optimiser takes for a while, for each value of the parameter that it is at.
    """
    groups = task.groups()
    only_train(task.module, groups)
    parameters = trainable(groups)
    ema = EMA(parameters, max_decay=config.ema_decay)
    optimiser = make_optimiser(groups, config)
    allocate_states(optimiser)
    gradients = [torch.empty(parameter.shape, dtype=parameter.dtype) for parameter in parameters.values() if buckets]
    live.mark(ema.shadow.values(), "ema")
    live.mark((value for state in optimiser.state.values() for value in state.values()), "optimiser")
    live.mark(gradients, "gradients")

    def gradient_is_there(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        live.mark([parameter.grad], "gradients")
        if config.fused_backward:
            torch.empty(step_bytes_per_value * parameter.numel(), dtype=torch.uint8)
        if config.fused_backward or buckets:
            parameter.grad = None

    for parameter in parameters.values():
        parameter.register_post_accumulate_grad_hook(gradient_is_there)
    crops, crop_px = max((config.crops_at(0), config.crops_at(config.steps - 1)), key=lambda pair: pair[0] * pair[1] ** 2)
    share = -(-crops // processes)
    micro = min(config.micro_batch_size or share, share)
    for _ in range(min(2, -(-share // micro))):  # the second finds the first one's gradients; further ones find the same
        live.phase = "encoding the crops"
        if vae is not None:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
                encode(vae, torch.empty(micro, 3, crop_px, crop_px))
        live.phase = "forward pass"
        loss, _ = task.loss(task.module, empty_batch(config, micro, crop_px))
        live.phase = "backward pass"
        loss.backward()
    live.phase = "optimiser step"
    torch.empty(step_bytes_per_value * max(parameter.numel() for parameter in parameters.values()), dtype=torch.uint8)
    for parameter in parameters.values():
        parameter.grad = None
    live.phase = "update of the average"
    ema.update(parameters, 0)


def _gathered_bytes(module: nn.Module) -> int:
    """What FSDP2 holds whole at a time, at most (by its design, not measured): its root unit, and of the largest other unit the
    weights, those of the next one, and a gradient of either. Units are made as in sharding.shard.
    """
    names = set(getattr(module, "_no_split_modules", None) or ())
    sizes: list[int] = []
    taken: set[int] = set()
    for child in reversed(list(module.modules())):
        if child is module or type(child).__name__ in names:
            own = [parameter for parameter in child.parameters() if id(parameter) not in taken]
            taken.update(map(id, own))
            sizes.append(sum(parameter.nbytes for parameter in own))
    *units, root = sizes
    return 2 * root + 3 * max(units, default=0)


def report(config: TrainConfig, perceptual: PerceptualDistance | None = None) -> str:
    """What trains, and the memory (GB, 1e9 bytes) of one device: the one at hand, and a GPU where the run would take one and
    finds none. Under a launcher: of this process's device. In stage fidelity a line for the restoration of the crops, which
    comes once, another for the steps, and what the crops take on disk.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    sharded = processes > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    task, _ = stage_without_content(config)
    counts = {name: sum(p.numel() for p in members.values()) for name, _, members in task.groups()}
    whole = sum(p.numel() for p in task.module.parameters())
    listed = ", ".join(f"{name} {count / 1e6:,.2f} M" for name, count in counts.items())
    lines = [f"trains: {listed}; together {sum(counts.values()) / 1e6:,.2f} of {whole / 1e6:,.2f} M parameters"]
    here_is_gpu = device_of(config.device).type == "cuda"
    for on_gpu in sorted({here_is_gpu, config.device == "auto"}):
        device = "a GPU" if on_gpu else "the CPU"
        for found in estimates(config, on_gpu=on_gpu, processes=processes, sharded=sharded, perceptual=perceptual):
            sizes = "  ".join(f"{kind} {getattr(found, f'{kind}_bytes') / 1e9:.2f}" for kind in (*KINDS, "activations"))
            lines.append(f"memory on {device}: about {found.total_bytes / 1e9:.2f} GB, reached in the {found.phase} ({sizes})")
    if config.stage == "fidelity":
        on_disk = f"{config.restored_crops:,} of {config.restored_side_px} px"
        lines.append(f"restored crops on disk: {on_disk}, {config.restored_crops * crop_bytes(config) / 1e9:.2f} GB")
    return "\n".join(lines)
