"""Who does which picture. Servers pull: one that is faster comes back sooner, and so gets more.

Pictures not tried yet go first, then those that failed once, each to another server than before while there is one.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

MAX_LOST = 3
"""How often a picture may vanish from servers' queues (a restart, somebody clears the queue) before that counts as a failure."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureTask:
    """One picture to be done. `failed_on`: the server of its first failure, empty = none. `lost`: how often it vanished."""

    key: str
    path: Path
    failed_on: str = ""
    lost: int = 0


class Dispatcher:
    """The pictures of a run and the servers that still work. Every method may be called from any thread.

    Whoever takes a task ends it by exactly one of done, failed, lost, put_back, or by leaving with it.
    """

    def __init__(self, pictures: Sequence[tuple[str, Path]], servers: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._fresh = deque(PictureTask(key=key, path=path) for key, path in pictures)
        self._failed: list[PictureTask] = []
        self._in_work = 0
        self._servers = list(servers)

    @property
    def servers(self) -> list[str]:
        """Servers that have not left."""
        with self._lock:
            return list(self._servers)

    @property
    def is_finished(self) -> bool:
        """Whether nothing waits and nothing is in work."""
        with self._lock:
            return not (self._fresh or self._failed or self._in_work)

    def take(self, server: str) -> PictureTask | None:
        """The next picture for a server; None while there is none for it."""
        with self._lock:
            task = self._fresh.popleft() if self._fresh else self._second_try(server)
            self._in_work += task is not None
            return task

    def _second_try(self, server: str) -> PictureTask | None:
        task = next((task for task in self._failed if task.failed_on != server or self._servers == [server]), None)
        if task is not None:
            self._failed.remove(task)
        return task

    def done(self) -> None:
        """A task ended well."""
        with self._lock:
            self._in_work -= 1

    def failed(self, task: PictureTask, server: str, *, for_good: bool = False) -> bool:
        """A task failed; `for_good` = it would again. True if that was its last try."""
        with self._lock:
            self._in_work -= 1
            last = for_good or bool(task.failed_on)
            if not last:
                self._failed.append(dataclasses.replace(task, failed_on=server))
            return last

    def put_back(self, task: PictureTask) -> None:
        """A task that no server has heard of."""
        with self._lock:
            self._in_work -= 1
            self._fresh.appendleft(task)

    def lost(self, task: PictureTask) -> bool:
        """A server has forgotten a task. True if it is queued again, False if it happened too often and the task has ended."""
        with self._lock:
            self._in_work -= 1
            if task.lost >= MAX_LOST:
                return False
            self._fresh.appendleft(dataclasses.replace(task, lost=task.lost + 1))
            return True

    def leave(self, server: str, tasks: Iterable[PictureTask]) -> None:
        """A server gives up; its tasks go to the others."""
        with self._lock:
            self._servers.remove(server)
            for task in tasks:
                self._in_work -= 1
                self._fresh.appendleft(task)
