"""torchao's AdamW with 8-bit moments, fitted to this trainer. Needs the package torchao; import it only when it is asked for.

Differences from torchao's class: the learning rate is a plain float for whoever sets it; moments too small for 8 bits stay fp32
even for bf16 weights (in bf16 the second moment, which moves by a thousandth a step, would stand still); stochastic rounding
draws from (seed, step, parameter), so that replicas on several devices round alike and a resumed run rounds as the uninterrupted
one; and no compiler is needed: the step is compiled only on a GPU with triton (one graph per shape of parameter, at the first
step).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torchao.optim import AdamW8bit as TorchaoAdamW8bit
from torchao.optim.subclass_8bit import OptimState8bit

from training.common.seeds import seed_for


class AdamW8bit(TorchaoAdamW8bit):
    """AdamW whose moments take one byte a value; weights held in bf16 are rounded stochastically."""

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float, seed: int
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, bf16_stochastic_round=True)
        self.seed = seed
        self.index = {p: index for index, p in enumerate(p for group in self.param_groups for p in group["params"])}
        for group in self.param_groups:
            group["lr"] = float(group["lr"])

    def _new_buffer(self, p: torch.Tensor, signed: bool) -> torch.Tensor:
        buffer = super()._new_buffer(p, signed)
        local = getattr(buffer, "_local_tensor", buffer)  # of a DTensor: this device's share
        return buffer if isinstance(local, OptimState8bit) else buffer.float()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step over all parameters that have a gradient."""
        groups = self.param_groups
        listed = [(p, group) for group in groups for p in group["params"] if p.grad is not None]
        devices = {p.device for p, _ in listed if p.device.type == "cuda"}
        compiled = bool(devices) and importlib.util.find_spec("triton") is not None
        try:
            with torch.random.fork_rng(devices), torch.compiler.set_stance("default" if compiled else "force_eager"):
                for parameter, group in listed:
                    done = int(self.state[parameter]["step"]) if self.state[parameter] else 0
                    torch.manual_seed(seed_for(self.seed, "rounding", done, self.index[parameter]))
                    # torchao insists on a tensor, lest a new float means a new graph.
                    self.param_groups = [{**group, "params": [parameter], "lr": torch.tensor(group["lr"], dtype=torch.float32)}]
                    super().step()
        finally:
            self.param_groups = groups
