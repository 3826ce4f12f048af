"""GET /faithdiff/folder: how far a folder is, for the page's button. It reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..seam.host import server_module
from .places import WHOLE, plain_name
from .state import FolderJob, read_state

ADDRESS = "/faithdiff/folder"


def serve_folder_state() -> None:
    """Let the host's server, where one runs, answer there."""
    server = server_module()
    if server is None:
        return
    host = server.PromptServer.instance

    @host.routes.get(ADDRESS)
    async def folder_state(request: Any) -> Any:
        # In a thread: a folder on a slow disk must not keep the server from everything else.
        answer, status = await host.loop.run_in_executor(None, answer_to, dict(request.query))
        return server.web.json_response(answer, status=status)


def answer_to(query: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    """The answer and its HTTP status. `query`: the inputs of FaithDiff Load Folder by their names, as text."""
    try:
        again = query.get("again", "0")
        if not again.isdecimal() or len(again) > 9:
            raise ValueError(f"expected a whole number as again, got {again!r:.80}; give one")
        job = FolderJob(
            folder=plain_name(query.get("folder", WHOLE)),
            pattern=query.get("pattern", ""),
            sub_folders=query.get("sub_folders") == "true",
            save_to=query.get("save_to", ""),
            retry_failed=query.get("retry_failed") == "true",
            again=int(again),
        )
        state = read_state(job)
    except ValueError as error:
        return {"error": str(error)}, 400
    return {**state.numbers(), "text": "\n".join(state.lines())}, 200
