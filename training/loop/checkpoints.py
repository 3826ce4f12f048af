"""What a run keeps on disk: frozen weights once, then checkpoints, whole and independent of the processes that wrote them.

    RUN/frozen.safetensors              everything of the module that does not train, in its own types
    RUN/checkpoints/step-00000200.pt    config (JSON), step, trained, optimiser (by parameter name), ema (fp32, by name), extra;
                                        row: the step's line of the log, {} = none; frozen_crc32: of the file above
    RUN/.lock                           locked while a process trains here (run_lock.py)

Random state needs no place here: every draw follows from the seed, the step and a sample's place.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from faithdiff_core.files.storage import write_safetensors
from training.common.devices import warn
from training.common.files import remove_leftovers
from training.common.tensor_files import file_crc32, read_archive, system_error, write_archive

FOLDER = "checkpoints"
VALIDATION = "validation"
FROZEN = "frozen.safetensors"
ENTRIES = {"config", "step", "trained", "optimiser", "ema", "extra"}
"""A run's earlier checkpoints have no more."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
PASSING = (
    *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.EIO, errno.ENOTCONN),
)
"""Of the system, not of the file: a whole checkpoint must not be passed over (and then deleted) for them. The
last two are what network disks say of a server that is away."""


def saved_in(run_dir: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted((run_dir / FOLDER).glob("step-*.pt"))


def exists(run_dir: Path) -> bool:
    """Whether the run has a checkpoint."""
    return bool(saved_in(run_dir))


def begin(run_dir: Path, frozen: dict[str, torch.Tensor]) -> int:
    """Write what does not train; returns the file's checksum.

    Raises:
        OSError: on a full disk for example.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    write_safetensors(run_dir / FROZEN, frozen, {})
    return file_crc32(run_dir / FROZEN)


def save(run_dir: Path, state: dict[str, Any], *, keep: int) -> None:
    """Write a checkpoint with at least the keys ENTRIES and delete all but the newest `keep`.

    On a full disk older ones make room first, the newest never does. Whatever happens, no half-written file is left and the
    newest checkpoint stays as it was.

    Raises:
        OSError: there is no room even then.
    """
    path = run_dir / FOLDER / f"step-{state['step']:08d}.pt"
    former = [other for other in saved_in(run_dir) if other != path]
    try:
        write_archive(path, state)
    except OSError as error:
        if error.errno not in NO_SPACE or len(former) < 2:
            raise
        for older in former[:-1]:
            older.unlink()
        write_archive(path, state)
    for older in saved_in(run_dir)[:-keep]:
        older.unlink()


def load(run_dir: Path) -> dict[str, Any]:
    """The run's newest whole checkpoint: its entries and "model" = frozen | trained, the module's full state dict.

    Tensors are in main memory, read from the file as they are used. Nothing in it is executed (weights_only). A damaged one costs
    a warning, and the next older is read; which is newest its name says.

    Raises:
        ValueError: there is none, or none that is whole.
        OSError: one cannot be read but may be whole.
    """
    paths = saved_in(run_dir)
    if not paths:
        raise ValueError(f"expected a checkpoint, got none in {run_dir / FOLDER}, train this run first")
    for path in reversed(paths):
        try:
            state = _read(path)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in PASSING:
                error.filename = str(path)  # an error in the middle of reading names none
                raise
            warn(f"{path} is damaged ({error}), the next older checkpoint is tried")
            continue
        return {**state, "model": _frozen(run_dir, state.get("frozen_crc32")) | state["trained"]}
    raise ValueError(
        f"expected a whole checkpoint, got only damaged ones in {run_dir / FOLDER}, delete them and start the run afresh"
    )


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint's entries.

    Raises:
        ValueError, OSError: the file is not whole.
    """
    state = read_archive(path)
    if not isinstance(state, dict) or not set(state) >= ENTRIES:
        raise ValueError("it is no checkpoint of a run")
    return state


def _frozen(run_dir: Path, crc32: int | None) -> dict[str, torch.Tensor]:
    path = run_dir / FROZEN
    try:
        if crc32 is not None and file_crc32(path) != crc32:  # the format has no checksum of its own
            raise ValueError(f"expected the run's frozen weights, got {path} with another checksum, start the run afresh")
        return load_file(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        from_system = error if isinstance(error, OSError) else system_error(error, path)
        if from_system is not None and from_system.errno in PASSING:
            raise from_system from None
        raise ValueError(f"expected the run's frozen weights, got {path} ({error}), start the run afresh") from error


def tidy(run_dir: Path, step: int) -> None:
    """Delete what is of no use to a run that goes on from `step`: half-written files of a killed process, and later checkpoints,
    which `load` has found damaged.
    """
    for folder in (run_dir, run_dir / FOLDER, run_dir / VALIDATION):
        remove_leftovers(folder, only_user=True)  # the run's lock says so (run_lock.py)
    for path in (run_dir / FOLDER).glob(".step-*"):  # also where nothing can be locked: this run is the only one here
        path.unlink()
    for path in saved_in(run_dir):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
