"""What a server's thread (worker.py) tells the main one (folder.py)."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureEnded:
    """The outcome of one picture: its entry in the manifest. `final` = it is not tried again. `warnings`: what was left out."""

    key: str
    server: str
    entry: dict[str, Any]
    final: bool
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """A line for the user."""

    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkflowRefused:
    """A server refused the first prompt it was given: not a picture's fault."""

    server: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerFailed:
    """An error that ends the whole run, a full disk for one."""

    error: Exception


Event = PictureEnded | Message | WorkflowRefused | WorkerFailed
