"""What differs between host versions, and the host's functions in the core's terms.

Everything else calls the host directly, in ways that have been the same since 0.16 (tested on 0.16.3 and 0.30.0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import comfy.ldm.modules.attention
import comfy.ldm.modules.diffusionmodules.model
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.sd
import torch

from ...faithdiff_core.attention import Attention, matmul_attention, torch_attention
from ...faithdiff_core.geometry import Size

OPERATIONS = comfy.ops.manual_cast
"""Layers that hold their weights as the file has them and cast them to the activations' type at each use."""


def patcher_class(*, disable_dynamic: bool = False) -> type[comfy.model_patcher.ModelPatcher]:
    """The host's patcher; looked up at each call, because its start-up rebinds the name when it manages memory dynamically."""
    if disable_dynamic:
        return comfy.model_patcher.ModelPatcher
    return getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


def is_oom(error: BaseException) -> bool:
    """Whether the error says that the device is out of memory."""
    check = getattr(mm, "is_oom", None)
    return check(error) if check is not None else isinstance(error, mm.OOM_EXCEPTION)


def vae_has_room(vae: comfy.sd.VAE, needed_bytes: float, cpu_frac: float, cells: Size) -> bool:
    """Whether an image can go through the VAE whole. Where it may, the host tries, and then tiles by itself.

    Args:
        vae: the host's.
        needed_bytes: the host's estimate.
        cpu_frac: the part of it that convolutions take on a CPU.
        cells: of the latent, which the middle's attention runs over.
    """
    available_bytes: float = mm.get_total_memory(vae.device)  # pyright: ignore[reportAssignmentType]  (a tuple if asked for two)
    if mm.is_device_cpu(vae.device):  # where no error comes when memory ends, and the attention's scores are held whole
        positions = cells.height * cells.width
        # H diffusionmodules/model.py, slice_attention
        needed_bytes = needed_bytes * cpu_frac + 2.5 * positions**2 * torch.float32.itemsize
        available_bytes = mm.get_free_memory(vae.device)  # pyright: ignore[reportAssignmentType]
    return needed_bytes <= available_bytes


def show_text(node: Any, lines: Iterable[str]) -> None:
    """Puts lines on the node that runs, in place of those of its last run, where a server runs.

    The page shows a node's own text output on few nodes, all of them the host's (front end 1.47).

    Args:
        node: the class that `execute` was called on; its schema asks for the hidden unique_id.
        lines: without line ends.
    """
    node_id = None if node.hidden is None else node.hidden.unique_id
    server = server_module()
    if server is not None and node_id is not None:
        host = server.PromptServer.instance  # to whoever asked: another page may have a node of the same number
        host.send_progress_text("\n".join(lines), node_id, host.client_id)


def server_module() -> Any:
    """The module of the host's server where one runs, else None: to import it elsewhere would bring in its web application."""
    module = sys.modules.get("server")
    return module if getattr(getattr(module, "PromptServer", None), "instance", None) is not None else None


def archive_dtypes(module: torch.nn.Module) -> None:
    """Notes the weights' types for the host's dynamic memory management, where it has it."""
    archive = getattr(mm, "archive_model_dtypes", None)
    if archive is not None:
        archive(module)


def on_device_of(
    patcher: comfy.model_patcher.ModelPatcher, model: comfy.model_patcher.ModelPatcher
) -> comfy.model_patcher.ModelPatcher:
    """The patcher, or a copy of it on the MODEL's device where a node has moved the MODEL to another one."""
    if patcher.load_device == model.load_device or not hasattr(patcher, "deepclone_multigpu"):
        return patcher
    return patcher.deepclone_multigpu(new_load_device=model.load_device)


def vae_attention() -> Attention:
    """The attention that the host chose for VAEs, for any number of queries and one head.

    Its split attention, to which the others fall back, takes as many queries as keys only, and an odd number of them it does not
    split. What calls this splits the queries, so plain attention does in its place.
    """
    if not (mm.xformers_enabled_vae() or mm.pytorch_attention_enabled_vae()):
        return torch_attention if mm.vae_device().type == "cpu" else matmul_attention
    host_attention = comfy.ldm.modules.diffusionmodules.model.vae_attention()

    def attention(q_BNC: torch.Tensor, k_BNC: torch.Tensor, v_BNC: torch.Tensor, num_heads: int) -> torch.Tensor:
        assert num_heads == 1, "the host's VAE attention has one head"
        if q_BNC.shape != k_BNC.shape:
            return torch_attention(q_BNC, k_BNC, v_BNC, 1)
        q, k, v = (
            t.transpose(1, 2).unsqueeze(-1).contiguous() for t in (q_BNC, k_BNC, v_BNC)
        )  # (B, C, N, 1), as the host wants it
        return host_attention(q, k, v).squeeze(-1).transpose(1, 2)

    return attention


def unet_attention(q_BNC: torch.Tensor, k_BNC: torch.Tensor, v_BNC: torch.Tensor, num_heads: int) -> torch.Tensor:
    """The attention that the host chose for UNets; memory stays bounded in N."""
    return comfy.ldm.modules.attention.optimized_attention(q_BNC, k_BNC, v_BNC, num_heads)
