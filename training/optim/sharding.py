"""Parameters held in shards by several processes (FSDP2): making them, and going from whole tensors to shards and back.

Every function but `shard` takes ordinary tensors just as well and then has nothing to do.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(module: nn.Module, device: torch.device, processes: int) -> None:
    """Shard the parameters of `module` over all processes, in place, by the settings that `accelerate launch` left behind.

    Classes to shard one by one: its fsdp_transformer_layer_cls_to_wrap, else the module's own `_no_split_modules`; what is left
    makes one more unit. accelerate's own sharding needs a GPU and its own handling of the optimiser; this needs neither.

    Raises:
        ValueError: FSDP1.
    """
    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        raise ValueError(f"expected FSDP 2, got {plugin.fsdp_version}, set fsdp_version: 2 in accelerate's configuration")
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (processes,)),
        "reshard_after_forward": plugin.reshard_after_forward,
        "offload_policy": plugin.cpu_offload,
    }
    names = set(plugin.transformer_cls_names_to_wrap or getattr(module, "_no_split_modules", None) or ())
    # Children before parents: a unit holds what no unit inside it has taken.
    for child in reversed(list(module.modules())):
        if child is not module and type(child).__name__ in names:
            fully_shard(child, **options)
    fully_shard(module, **options)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What of `tensor` this process holds, without copying."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: torch.Tensor, *, keep: bool) -> torch.Tensor:
    """The full tensor. A sharded one is gathered, by all processes together, into the main memory of those that `keep` it; others
    get an empty one.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if keep else torch.empty(0)


def like_parameter(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A copy of `value`, a whole tensor of the parameter's shape, on its device, sharded as the parameter is."""
    value = value.to(parameter.device, copy=True)
    if not isinstance(parameter, DTensor):
        return value
    # src_data_rank None: each process cuts its own share out of the value it has; nothing is sent.
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def as_shard(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """`value`, of the shape of `local(parameter)`, as a shard of a tensor like the parameter."""
    if not isinstance(parameter, DTensor):
        return value
    moved = value.to(parameter.to_local().device)
    return DTensor.from_local(
        moved, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )


def unshard_root(module: nn.Module) -> None:
    """Gather what the root unit holds, so that methods other than forward may use it; its other units gather on their own."""
    if isinstance(module, FSDPModule):
        module.unshard()


def reshard_root(module: nn.Module) -> None:
    """Undo `unshard_root`."""
    if isinstance(module, FSDPModule):
        module.reshard()
