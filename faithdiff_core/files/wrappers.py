"""What other tools put around the names of weights: prefixes of whole tables, and peft's names of layers with a LoRA."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

Value = TypeVar("Value")

WRAPPERS = ("module.", "_orig_mod.", "base_model.model.", "unet.", "model.", "diffusion_model.")
"""In the order of trial: DistributedDataParallel and DeepSpeed; torch.compile; peft; pipelines and composites; Lightning; the
host. Any may stand in another."""
MOST_STACKED = 8
"""Of wrappers in one another; each of the six, and some twice."""
_LORA = re.compile(
    r"(.+?)"
    r"(?:\.lora_(?:A|B|down|up)(?:\.[^.]+)?\.weight"  # peft (with its adapter's name, or without), kohya
    r"|[._]lora(?:_linear_layer)?\.(?:down|up)\.weight"  # diffusers before peft
    r"|\.alpha"
    r"|\.lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?|\.dora_scale)"
)
_BASE_LAYER = ".base_layer."
"""In peft's name of a layer's own weight, where it has a LoRA."""


def without_wrappers(state: Mapping[str, Value], known: tuple[str, ...], *, beside: tuple[str, ...] = ()) -> dict[str, Value]:
    """The values under their names without wrappers.

    Those that all names share are taken off, one after another, until one name starts as a `known` layout does.

    Args:
        state: values by name.
        known: prefixes of names in layouts that are read. Where none appears, names keep what they came with.
        beside: prefixes of names that belong to something else, and are not looked at.

    Raises:
        ValueError: one name twice, with a wrapper and without.
    """
    names = [name for name in state if not name.startswith(beside)]
    bare = names
    for _ in range(MOST_STACKED):
        if any(name.startswith(known) for name in bare):
            break
        wrapper = next((each for each in WRAPPERS if bare and all(name.startswith(each) for name in bare)), "")
        bare = [name[len(wrapper) :] for name in bare]
    if not any(name.startswith(known) for name in bare):
        return dict(state)
    renamed = dict(zip(names, bare, strict=True))
    result = {renamed.get(name, name): value for name, value in state.items()}
    if len(result) < len(state):
        raise ValueError("expected each tensor once, got some twice, with a prefix and without; save the network alone")
    return result


def unwrapped(name: str) -> Iterator[str]:
    """The name, and what is left of it as one wrapper after another is taken off."""
    for _ in range(MOST_STACKED):
        yield name
        wrapper = next((each for each in WRAPPERS if name.startswith(each)), "")
        name = name[len(wrapper) :]


def lora_layer(name: str) -> str | None:
    """The layer, as the file calls it, that a tensor of a LoRA belongs to; None for any other tensor."""
    found = _LORA.fullmatch(name)
    return found[1] if found else None


def own_weight(name: str) -> str:
    """What the network calls a layer's own weight, whose name peft has changed; any other name as it is."""
    return name.replace(_BASE_LAYER, ".")
