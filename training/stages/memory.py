"""How much memory a run needs, found by running one of its steps on tensors without content: no memory, no data, no weights.

Networks, loss, optimiser and average are the trainer's own, under torch's FakeTensorMode, so that checkpointing, LoRA, types and
micro-batches count as they are. Measured against CPU runs (benchmarks/train_memory.py); no GPU was at hand to measure on.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from training.batches.restored_cache import PICTURES
from training.common.devices import device_of
from training.config.schema import VAE_STAGES, TrainConfig
from training.loop.task import Batch, Task
from training.model.faithdiff import build_model, make_part
from training.model.networks import CONTEXT_TOKENS, build_vae, encode, network_spec
from training.optim.ema import EMA
from training.optim.optimisers import allocate_states, make_optimiser, only_train, trainable
from training.stages.live_bytes import WORK, LiveBytes
from training.tasks.diffusion import DiffusionTask
from training.tasks.fidelity import FidelityNetwork, FidelityTask, build_fidelity_decoder
from training.tasks.vae import VAETask

KINDS = ("weights", "gradients", "optimiser", "ema")
CPU = torch.device("cpu")
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


def estimate(config: TrainConfig, *, on_gpu: bool, processes: int = 1, sharded: bool = False) -> MemoryEstimate:
    """The memory of one of `processes` devices, with DDP or (`sharded`) FSDP2.

    Raises:
        ValueError: as the run itself would for settings that do not fit together.
    """
    # The table of 8-bit values is computed once a process, and must not be without content then.
    allocate_states(make_optimiser([("", 1.0, {"": nn.Parameter(torch.zeros(4096))})], config))
    live = LiveBytes((lambda _func, _args: 0) if on_gpu else convolution_copies_bytes)
    task, vae = _without_content(config)
    with FakeTensorMode(), live, _GPUAutocast() if on_gpu else nullcontext():
        for module in filter(None, (task.module, vae)):
            _materialise(module)
        scratch = UNCOMPILED_8BIT_STEP_BYTES if config.optimiser == "adamw8bit" and not on_gpu else 0
        _step(config, task, vae, live, processes, buckets=processes > 1 and not sharded, step_bytes_per_value=scratch)
    peak = {kind: live.peak[kind] // (processes if sharded else 1) for kind in KINDS}
    if config.ema_on_cpu and on_gpu:
        peak["ema"] = 0
    gathered = _gathered_bytes(task.module) if sharded else 0
    return MemoryEstimate(
        **{f"{kind}_bytes": size for kind, size in peak.items()},
        activations_bytes=live.peak[WORK] + gathered,
        phase=live.peak_phase,
    )


def _without_content(config: TrainConfig) -> tuple[Task, AutoencoderKL | None]:
    """The stage, on the meta device, and the frozen VAE where the run encodes its crops."""
    with torch.device("meta"):
        if config.stage in VAE_STAGES:
            vae = build_vae(network_spec(config.network))
            return VAETask(replace(config, device="cpu"), cast(Any, None), vae), None
        if config.stage == "fidelity":
            encoder = None if config.restored_features else cast(Any, make_part(config, "lq_encoder"))
            network = FidelityNetwork(build_fidelity_decoder(config), encoder)
            return FidelityTask(config, cast(Any, None), network, device=CPU), None
        model = build_model(config)
        vae = None if config.latent_crops else build_vae(network_spec(config.network)).requires_grad_(False).eval()
    return DiffusionTask(config, cast(Any, None), model, device=CPU, vae=None, texts=None), vae


def _materialise(model: nn.Module) -> None:
    """Replace a meta module's parameters and buffers by such as the mode at hand makes; to_empty cannot under FakeTensorMode."""
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            empty = torch.empty(value.shape, dtype=value.dtype)
            setattr(module, name, nn.Parameter(empty, requires_grad=value.requires_grad))
        for name, value in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(value.shape, dtype=value.dtype))


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
    frozen = (*vae.parameters(), *vae.buffers()) if vae is not None else ()
    live.mark((*task.module.parameters(), *task.module.buffers(), *frozen), "weights")
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


def empty_batch(config: TrainConfig, crops: int, crop_px: int) -> Batch:
    """A batch as the stage's task makes it, without content."""
    image, latent = torch.empty(crops, 3, crop_px, crop_px), torch.empty(crops, 4, crop_px // 8, crop_px // 8)
    if config.stage in VAE_STAGES:
        return {"image": image, "noise": latent} | ({"error": torch.empty_like(latent)} if config.latent_noise else {})
    if config.stage == "fidelity":
        batch = {name: torch.empty_like(image) for name in PICTURES}
        width = network_spec(config.network).fidelity_decoder.feature_channels
        kept = {"features": torch.empty(crops, width, crop_px // 8, crop_px // 8)} if config.restored_features else {}
        return batch | kept
    draws = crops * config.noise_draws
    noisy = torch.empty(draws, *latent.shape[1:])
    batch = {"noisy": noisy, "noise": torch.empty_like(noisy), "time_ids": torch.empty(crops, 6)}
    batch["timestep"] = torch.zeros(draws, dtype=torch.int64)
    if config.stage != "prior":
        batch["lq"] = image
    if config.prompts != "none":
        spec = network_spec(config.network)
        batch["context"] = torch.empty(crops, CONTEXT_TOKENS, spec.context_width)
        batch["pooled"] = torch.empty(crops, spec.pooled_width)
    return batch


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


def report(config: TrainConfig) -> str:
    """What trains, and the memory (GB, 1e9 bytes) of one device: the one at hand, and a GPU where the run would take one and
    finds none. Under a launcher: of this process's device.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    sharded = processes > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    task, _ = _without_content(config)
    counts = {name: sum(p.numel() for p in members.values()) for name, _, members in task.groups()}
    whole = sum(p.numel() for p in task.module.parameters())
    listed = ", ".join(f"{name} {count / 1e6:,.2f} M" for name, count in counts.items())
    lines = [f"trains: {listed}; together {sum(counts.values()) / 1e6:,.2f} of {whole / 1e6:,.2f} M parameters"]
    here_is_gpu = device_of(config.device).type == "cuda"
    for on_gpu in sorted({here_is_gpu, config.device == "auto"}):
        found = estimate(config, on_gpu=on_gpu, processes=processes, sharded=sharded)
        sizes = "  ".join(f"{kind} {getattr(found, f'{kind}_bytes') / 1e9:.2f}" for kind in (*KINDS, "activations"))
        device = "a GPU" if on_gpu else "the CPU"
        lines.append(f"memory on {device}: about {found.total_bytes / 1e9:.2f} GB, reached in the {found.phase} ({sizes})")
    return "\n".join(lines)
