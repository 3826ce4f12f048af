"""How a run of the host's ended that had begun a picture: the host keeps what it ran in its history."""

from __future__ import annotations

from ...faithdiff_core.files.checks import first_line
from ..seam.host import server_module


def reason_of_failure(prompt: str) -> str | None:
    """What a node of that run said when it failed. None: none did, somebody stopped it, or the host knows nothing of it."""
    server = server_module()
    if server is None or not prompt:
        return None
    queue = server.PromptServer.instance.prompt_queue
    found = queue.get_history(prompt_id=prompt, map_function=lambda entry: entry.get("status"))
    for event, told in (found.get(prompt) or {}).get("messages", []):
        if event == "execution_error":
            return f"{told.get('node_type')}: {first_line(ValueError(str(told.get('exception_message', ''))))}"
    return None
