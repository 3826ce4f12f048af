"""What a run keeps on disk: frozen weights once, then checkpoints, whole and independent of the processes that wrote them.

    RUN/frozen.safetensors              everything of the module that does not train, in its own types
    RUN/checkpoints/step-00000200.pt    config (JSON), step, trained, optimiser (by parameter name), ema (fp32, by name), extra

Random state needs no place here: every draw follows from the seed, the step and a sample's place."""

from __future__ import annotations

import errno
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from faithdiff_core.storage import write_safetensors
from training.devices import warn
from training.files import write_atomically

FOLDER = "checkpoints"
FROZEN = "frozen.safetensors"
ENTRIES = {"config", "step", "trained", "optimiser", "ema", "extra"}
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def checkpoints(run_dir: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted((run_dir / FOLDER).glob("step-*.pt"))


def exists(run_dir: Path) -> bool:
    """Whether the run has a checkpoint."""
    return bool(checkpoints(run_dir))


def begin(run_dir: Path, frozen: dict[str, torch.Tensor]) -> None:
    """Write what does not train. Raises OSError, on a full disk for example."""
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        write_safetensors(run_dir / FROZEN, frozen, {})
    except SafetensorError as error:  # its writer wraps what the system said
        raise OSError(errno.EIO, f"{error}", str(run_dir / FROZEN)) from error


def save(run_dir: Path, state: dict[str, Any], *, keep: int) -> None:
    """Write a checkpoint with the keys ENTRIES and delete all but the newest `keep`.

    On a full disk older ones make room first, the newest never does. Raises OSError if there is no room even then; whatever
    happens, no half-written file is left and the newest checkpoint stays as it was."""
    path = run_dir / FOLDER / f"step-{state['step']:08d}.pt"
    former = [other for other in checkpoints(run_dir) if other != path]
    try:
        _write(path, state)
    except OSError as error:
        if error.errno not in NO_SPACE or len(former) < 2:
            raise
        for older in former[:-1]:
            older.unlink()
        _write(path, state)
    for older in checkpoints(run_dir)[:-keep]:
        older.unlink()


def _write(path: Path, state: dict[str, Any]) -> None:
    def write(temporary: Path) -> None:
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
        except RuntimeError as error:
            # Closing its archive, torch stumbles over the failed write and hides it.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    write_atomically(path, write)


def load(run_dir: Path) -> dict[str, Any]:
    """The run's newest whole checkpoint: its ENTRIES and "model" = frozen | trained, the module's full state dict.

    Tensors are in main memory, read from the file as they are used. Nothing in it is executed
    (weights_only). A damaged one costs a warning, and the next older is read. Raises ValueError if there is none, or none that
    is whole."""
    paths = checkpoints(run_dir)
    if not paths:
        raise ValueError(f"expected a checkpoint, got none in {run_dir / FOLDER}, train this run first")
    for path in reversed(paths):
        try:
            state = _read(path)
        except (OSError, ValueError) as error:
            warn(f"{path} is damaged ({error}), the next older checkpoint is tried")
            continue
        return {**state, "model": _frozen(run_dir) | state["trained"]}
    raise ValueError(f"expected a whole checkpoint, got only damaged ones in {run_dir / FOLDER}, start the run afresh")


def _read(path: Path) -> dict[str, Any]:
    """Raises ValueError or OSError for a file that is not whole."""
    try:
        # torch does not look at the checksums it writes.
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise ValueError(f"its part {broken} has another checksum")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, ValueError):
        raise
    except Exception as error:  # torch, pickle and zipfile raise many kinds for a damaged file
        raise ValueError(f"{type(error).__name__}") from error
    if not isinstance(state, dict) or not set(state) >= ENTRIES:
        raise ValueError("it is no checkpoint of a run")
    return state


def _frozen(run_dir: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(run_dir / FROZEN)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"expected the run's frozen weights, got {run_dir / FROZEN} ({error}), start the run afresh") from error


def tidy(run_dir: Path, step: int) -> None:
    """Delete what is of no use to a run that goes on from `step`: half-written files of a killed process, and later checkpoints,
    which `load` has found damaged."""
    for path in (run_dir / FOLDER).glob(".step-*"):
        path.unlink()
    for path in checkpoints(run_dir):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
