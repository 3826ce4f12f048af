"""How a run of the host's ended that had begun a picture: the host keeps what it ran in its history."""

from __future__ import annotations

from ..seam.host import server_module

MAX_REASON_CHARACTERS = 300
"""Of an error in a line of the record and on the node: room for the pack's own messages, not for whole reports."""


def reason_of(text: str) -> str:
    """What an error says, in one line, not at any length."""
    line = (text.strip().splitlines() or ["it said nothing"])[0][:MAX_REASON_CHARACTERS]
    return line if line.isprintable() else repr(line)


def reason_of_failure(prompt: str) -> str | None:
    """What a node of that run said when it failed. None: none did, somebody stopped it, or the host knows nothing of it."""
    server = server_module()
    if server is None or not prompt:
        return None
    queue = server.PromptServer.instance.prompt_queue
    found = queue.get_history(prompt_id=prompt, map_function=lambda entry: entry.get("status"))
    for event, told in (found.get(prompt) or {}).get("messages", []):
        if event == "execution_error":
            return f"{told.get('node_type')}: {reason_of(str(told.get('exception_message', '')))}"
    return None
