"""What a file's weights must be before a network takes them: all there, of the right shape, finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

MAX_SHOWN_CHARACTERS = 80
"""Of a name or value in a message. Files may name a tensor by a megabyte, or by several lines."""


def named(names: Sequence[str]) -> str:
    """The first three names as a message shows them: on one line, and not at any length."""
    return _first([shown(name) for name in names[:3]], of=len(names))


def _first(texts: Sequence[str], *, of: int) -> str:
    return ", ".join(texts[:3]) + (", ..." if of > 3 else "")


def shown(value: object) -> str:
    """A tensor's name, or a value of JSON, as a message shows it."""
    if isinstance(value, str) and value.isprintable() and len(value) <= MAX_SHOWN_CHARACTERS:
        return value
    if isinstance(value, str | int | float | bool | None):
        return repr(value)[:MAX_SHOWN_CHARACTERS]
    return f"a {type(value).__name__}"  # its text may be endless


def first_line(error: BaseException) -> str:
    """What an error says, as part of a message: one line, not at any length; its kind where it says nothing."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][: 2 * MAX_SHOWN_CHARACTERS]
    return line if line.isprintable() else repr(line)


def check_state(
    expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], what: str, *, names_only: bool = False
) -> None:
    """Compares names and shapes with what a network needs.

    Args:
        expected: what the network has, on any device.
        state: what the file has.
        what: the network's name in a message.
        names_only: only demand that nothing is missing, for quantised weights, whose shapes and further tensors are their
            format's.

    Raises:
        ValueError: one message that counts and names what is missing, unexpected or of another shape.
    """
    problems: list[str] = []
    missing = [k for k in expected if k not in state]
    unexpected = [k for k in state if k not in expected and not names_only]
    reshaped = [
        f"{shown(k)} {tuple(state[k].shape)} instead of {tuple(t.shape)}"
        for k, t in expected.items()
        if k in state and state[k].shape != t.shape and not names_only
    ]
    for names, verb in ((missing, "missing"), (unexpected, "unexpected")):
        if names:
            problems.append(f"{len(names)} {verb} ({named(names)})")
    if reshaped:
        problems.append(f"{len(reshaped)} of another shape ({_first(reshaped, of=len(reshaped))})")
    if problems:
        raise ValueError(
            f"expected the {len(expected)} tensors of the {what}, got {'; '.join(problems)}; the file is damaged or not a "
            "FaithDiff file, get it again"
        )


def check_finite(state: Mapping[str, torch.Tensor], what: str) -> None:
    """Raises ValueError naming the first tensors that hold NaN or infinity."""
    bad = [k for k, t in state.items() if not _is_finite(t)]
    if bad:
        raise ValueError(
            f"expected finite weights in the {what}, got NaN or infinity in {len(bad)} tensors ({named(bad)}); "
            "the file is damaged or its training diverged, get it again"
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    if tensor.element_size() == 1:  # fp8 has no reductions; half holds all its values
        tensor = tensor.half()
    low, high = torch.aminmax(tensor)  # NaN wins in both; one pass, no mask of the tensor's size
    return bool(torch.isfinite(low) & torch.isfinite(high))
