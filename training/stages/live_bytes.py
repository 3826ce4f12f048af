"""Counts the bytes of all tensors alive, and remembers the moment when there were most."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

WORK = "activations"
"""The kind of whatever was not marked as something else: activations, intermediate results, the batch."""
PLAIN = {torch.Tensor, torch.nn.Parameter, FakeTensor}


class LiveBytes(TorchDispatchMode):
    """Inside this context every tensor made by an operator counts from then until its memory is freed; views count once.

    Works on real and on fake tensors alike. What an operator uses inside itself is not seen; `scratch_bytes(operator, arguments)`
    may tell.
    """

    def __init__(self, scratch_bytes: Callable[[Any, Any], int]) -> None:
        super().__init__()
        self._scratch_bytes = scratch_bytes
        self.now: Counter[str] = Counter()
        """Bytes alive now, by kind."""
        self.peak: Counter[str] = Counter()
        """Bytes alive, by kind, when their sum was largest."""
        self.peak_phase = ""
        self.phase = ""
        """What is going on; set by the caller."""
        self._kinds: dict[int, list[Any]] = {}
        self._total = self._peak_total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not set(types) <= PLAIN:
            return NotImplemented  # a tensor made of tensors: it calls operators on them, which come by here
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf)
        scratch = self._scratch_bytes(func, args)
        self._change(WORK, scratch)
        self._change(WORK, -scratch)
        return out

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._kinds:
            return
        entry = self._kinds[key] = [WORK, storage.nbytes()]
        weakref.finalize(storage, self._freed, key)
        self._change(WORK, entry[1])

    def _freed(self, key: int) -> None:
        kind, size = self._kinds.pop(key)
        self._change(kind, -size)

    def _change(self, kind: str, size: int) -> None:
        self.now[kind] += size
        self._total += size
        if self._total > self._peak_total:
            self._peak_total, self.peak, self.peak_phase = self._total, Counter(self.now), self.phase

    def mark(self, tensors: Iterable[torch.Tensor], kind: str) -> None:
        """Count these tensors' memory as `kind` from now on."""
        for tensor in tensors:
            if is_traceable_wrapper_subclass(tensor) and not isinstance(tensor, FakeTensor):
                self.mark((getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]), kind)
                continue
            entry = self._kinds.get(tensor.untyped_storage()._cdata)
            if entry is not None and entry[0] != kind:
                self.now[entry[0]] -= entry[1]
                self.now[kind] += entry[1]
                entry[0] = kind
