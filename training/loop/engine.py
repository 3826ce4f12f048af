"""The processes of a run: one, or several as `accelerate launch` or torchrun started them, with DDP or FSDP2."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from faithdiff_core.files.checks import first_line
from training.common.devices import device_of, process_state
from training.common.stopping import LostProcessError
from training.config.schema import TrainConfig
from training.optim.sharding import full_tensor, reshard_root, shard, unshard_root


class Engine:
    """What the loop asks of accelerate. Precision is the task's business: the Accelerator's own stays "no".

    Raises:
        ValueError: under a DeepSpeed configuration, and for 8-bit moments under FSDP2.
    """

    def __init__(self, config: TrainConfig, run_dir: Path, *, tracker: str | None) -> None:
        if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
            raise ValueError("expected DDP or FSDP2, got a DeepSpeed configuration, launch with --use_fsdp --fsdp_version 2")
        process_state(config.device)
        self.device = device_of(config.device)
        self.accelerator = Accelerator(
            mixed_precision="no",
            cpu=self.device.type == "cpu",
            log_with=tracker,
            project_dir=run_dir,
            # Gradients live in the buckets that are sent, not beside them; there are no buffers that change.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
        )
        self.processes = self.accelerator.num_processes
        self.process = self.accelerator.process_index
        self.is_main = self.accelerator.is_main_process
        self.sharded = self.processes > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        if self.sharded and config.optimiser != "adamw":
            # Shards are cut where a tensor's rows end, 8-bit moments where a block of 256 values does.
            raise ValueError(f"expected optimiser=adamw with FSDP2, got {config.optimiser}, change one of them")

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module on this process's device, ready to train. With FSDP2 its parameters are new objects under the old names."""
        if self.sharded:
            shard(module, self.device, self.processes)
            return module
        return self.accelerator.prepare_model(module)

    def accumulating(self, module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Context of one micro-batch: gradients are averaged over the processes in the last one only.

        Not with FSDP2, where holding back means whole gradients in every process.
        """
        return contextlib.nullcontext() if last or self.sharded else self.accelerator.no_sync(module)

    def clip(self, parameters: list[nn.Parameter], clip_norm: float) -> float:
        """Scale gradients down to a norm of `clip_norm` (0 = leave them); returns the norm they had, over all processes."""
        norm = self.accelerator.clip_grad_norm_(parameters, clip_norm or math.inf)
        assert norm is not None
        return full_tensor(norm, keep=True).item()

    def mean(self, values: list[float | torch.Tensor]) -> list[float]:
        """Each value averaged over the processes. One that is not finite anywhere comes out so everywhere."""
        vector = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=self.device).detach() for value in values])
        if self.processes > 1:
            torch.distributed.all_reduce(vector)
        return (vector / self.processes).tolist()

    def same_everywhere(self, value: int, what: str) -> None:
        """Wait until every process is here.

        Raises:
            ValueError: in all of them, if they come with different values.
        """
        if self.mean([float(value != round(self.mean([float(value)])[0]))])[0]:
            raise ValueError(
                f"expected {what} to be the same in every process, got {value} in process {self.process} and others elsewhere; "
                "check that all of them see the same run folder"
            )

    @contextlib.contextmanager
    def naming_lost_processes(self) -> Iterator[None]:
        """Context in which the end of another process is told as LostProcessError, not as the failed call to it."""
        try:
            yield
        except RuntimeError as error:
            if self.processes == 1 or not _tells_of_lost_process(error):
                raise
            raise LostProcessError(self.process, first_line(error)) from error

    @contextlib.contextmanager
    def evaluating(self, module: nn.Module):  # noqa: ANN201
        """Context in which methods of the module other than forward may be called. With FSDP2, by all processes together."""
        unshard_root(module)
        try:
            yield
        finally:
            reshard_root(module)


def _tells_of_lost_process(error: RuntimeError) -> bool:
    """Gloo, on CPUs, raises a plain RuntimeError."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
