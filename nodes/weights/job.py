"""The one download that a server does at a time, whoever asked for it: the page's button, or a node in the queue."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...faithdiff_core.hub.catalogue import HubFile
from ...faithdiff_core.hub.get import Step, get, plan, require_room
from ...faithdiff_core.hub.progress import CancelledError, Progress
from .places import folder_of, found


class BusyError(ValueError):
    """Another download runs."""


@dataclass
class Job:
    """A download that the page has started, as the page sees it.

    Attributes:
        outcome: "running", "cancelling", "done", "cancelled" or "failed".
        error: why it failed, in words.
        names: of the files that can be loaded, once it is done.
    """

    progress: Progress = field(default_factory=Progress)
    outcome: str = "running"
    error: str = ""
    names: list[str] = field(default_factory=list[str])

    def tell(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        if self.outcome == "cancelling":
            raise CancelledError
        self.progress.tell(phase, done_bytes, total_bytes)

    def seen(self) -> dict[str, Any]:
        """As JSON."""
        told = self.progress
        return {
            "outcome": self.outcome, "error": self.error, "names": self.names, "phase": told.phase,
            "done_bytes": told.done_bytes, "total_bytes": told.total_bytes, "line": told.line() if told.phase else "",
        }  # fmt: skip


class Downloads:
    """Holds the place of the one download."""

    def __init__(self) -> None:
        self._place = threading.Lock()
        self.job: Job | None = None
        """The page's last one."""

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Context in which no other download runs. Raises BusyError where one does."""
        if not self._place.acquire(blocking=False):
            raise BusyError("expected no other download, got one that runs; wait for it, or cancel it")
        try:
            yield
        finally:
            self._place.release()

    def start(self, files: Iterable[HubFile], *, keep: bool) -> None:
        """In a thread of its own, once the hub has answered and there is room.

        Raises:
            BusyError: another one runs.
            ValueError, OSError: as `plan` and `require_room`.
        """
        with contextlib.ExitStack() as held:
            held.enter_context(self.alone())
            steps = prepared(files, keep=keep)
            self.job = Job()
            work = (self.job, steps, keep, held.pop_all())  # the thread gives the place back
        threading.Thread(target=self._work, args=work, name="faithdiff-weights", daemon=True).start()

    def cancel(self) -> None:
        """What has come stays. Nothing happens where none of the page's runs."""
        if self.job is not None and self.job.outcome == "running":
            self.job.outcome = "cancelling"

    def _work(self, job: Job, steps: list[Step], keep: bool, held: contextlib.ExitStack) -> None:
        with held:
            try:
                job.names = [path.name for path in get(steps, job.tell, keep=keep)]
                outcome = "done"
            except CancelledError:
                outcome = "cancelled"
            except ValueError as error:
                outcome, job.error = "failed", str(error)
            except OSError as error:
                outcome, job.error = "failed", disk_words(error)
            except Exception as error:  # the page must hear of it, the log has the rest
                logging.exception("FaithDiff: the download has failed")
                outcome, job.error = "failed", f"{type(error).__name__}; ComfyUI's log has more"
        job.outcome = outcome  # last: whoever sees it may start the next


def prepared(files: Iterable[HubFile], *, keep: bool) -> list[Step]:
    """What is to be done for files that no folder has in their last form, and there is room. Raises as `plan`, `require_room`."""
    steps = plan([(file, folder_of(file)) for file in files if found(file) != file.loaded])
    require_room(steps, keep=keep)
    return steps


def disk_words(error: OSError) -> str:
    """What a disk's error means for a download."""
    return f"expected to write files, got {error.strerror or error}; make room or check the disk, then begin again: it goes on"


DOWNLOADS = Downloads()
"""Of this process."""
