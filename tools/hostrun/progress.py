"""Shows a running prompt from the server's websocket messages: a bar for the node at work, a line for each node that is done."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from .client import Message

BAR_CHARS = 24
LOG_PERIOD_S = 5.0
"""How often a step count is printed where lines cannot be rewritten."""


class ProgressView:
    """`feed` every message of one prompt, in order."""

    def __init__(self, prompt: dict[str, Any]) -> None:
        self._titles = {key: str(node.get("_meta", {}).get("title") or node["class_type"]) for key, node in prompt.items()}
        self._terminal = sys.stderr.isatty()
        self._node: str | None = None
        self._node_started_s = 0.0
        self._steps = (0, 0)
        self._printed_s = 0.0
        self._done = 0
        self.node_seconds: dict[str, float] = {}

    def feed(self, message: Message) -> None:
        kind, data, at_s = message["type"], message["data"], float(message["at_s"])
        if kind == "executing":
            self._switch_to(data.get("node"), at_s)
        elif kind == "progress" and data.get("node") == self._node:
            self._steps = (int(data["value"]), int(data["max"]))
            self._show_bar(at_s)
        elif kind in ("execution_success", "execution_error", "execution_interrupted"):
            self._switch_to(None, at_s)

    def _switch_to(self, node: str | None, at_s: float) -> None:
        if self._node is not None and node != self._node:
            seconds = at_s - self._node_started_s
            self.node_seconds[self._title(self._node)] = seconds
            self._done += 1
            steps = f"  {self._steps[0]}/{self._steps[1]} steps" if self._steps[1] > 1 else ""
            self._write(f"  {self._done}/{len(self._titles)}  {self._title(self._node)}{steps}  {seconds:.1f} s", end="\n")
        if node != self._node:
            self._node, self._node_started_s, self._steps = node, at_s, (0, 0)
            if node is not None and self._terminal:
                self._show_bar(at_s)

    def _show_bar(self, at_s: float) -> None:
        value, most = self._steps
        if not self._terminal and (at_s - self._printed_s < LOG_PERIOD_S or value == most):
            return
        self._printed_s = at_s
        filled = BAR_CHARS * value // most if most else 0
        bar = f"[{'#' * filled}{'-' * (BAR_CHARS - filled)}] {value}/{most}" if most else "..."
        title = self._title(self._node or "")
        self._write(
            f"  {self._done + 1}/{len(self._titles)}  {title}  {bar}  {at_s - self._node_started_s:.0f} s",
            end="" if self._terminal else "\n",
        )

    def _title(self, node: str) -> str:
        return self._titles.get(node, f"node {node}")

    def _write(self, line: str, end: str) -> None:
        if self._terminal:
            line = "\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write(line + end)
        sys.stderr.flush()
