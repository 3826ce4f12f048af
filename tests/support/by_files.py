"""How test files are shared out among the workers of pytest-xdist."""

from __future__ import annotations

from pathlib import PurePath

from xdist.scheduler import LoadFileScheduling

ON_ONE_SERVER = {
    **dict.fromkeys(
        ("test_api_clients", "test_determinism", "test_folder_nodes", "test_leaks", "test_photos", "test_queue"), "server"
    ),
    **dict.fromkeys(("test_restore_folder", "test_weights"), "server"),
    **dict.fromkeys(("test_queue_bounds", "test_queue_faults"), "shared_server"),
}
"""File in tests/server -> the fixture or function that starts the ComfyUI that its tests ask, once in a worker."""


class ByFilesAndServers(LoadFileScheduling):
    """One worker takes all of a file, so that its fixtures are made once, and all files that ask the same server."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return ON_ONE_SERVER.get(PurePath(file).stem, file) if "server" in PurePath(file).parts else file
