"""Reading files whose headers may lie about how long something is."""

from __future__ import annotations

import io
import os


class BoundedFile(io.BufferedReader):
    """A file that makes no room for more than it has: Python takes the memory that a `read` names before it looks.

    Raises OSError as `open` does.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(io.FileIO(path))
        self._size_bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._size_bytes if size is None or size < 0 else min(size, self._size_bytes))
