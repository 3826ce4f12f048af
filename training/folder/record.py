"""restore.json: what was asked for, and the outcome of every picture. A run that was stopped goes on from it.

The same sources under the same workflow are not restored twice; another workflow in the same folder would mix results, so it is
refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import time
from pathlib import Path
from typing import Any

from training.common.files import write_json
from training.common.strict_json import parse_json

NAME = "restore.json"
FORMAT = 1
SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
WRITING_FRAC = 0.05
"""At most this part of the time goes into writing the file, which grows with the folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workflow:
    """What makes the results what they are, beside the pictures. `settings` are for people; the hash covers them."""

    file: str
    sha256: str
    settings: tuple[str, ...]
    input_node: str
    output_node: str


def sha256_of(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


class FolderRecord:
    """The file of one results folder. Only one thread uses it."""

    def __init__(self, out: Path, workflow: Workflow, pictures: dict[str, dict[str, Any]]) -> None:
        self._path = out / NAME
        self._workflow = workflow
        self._pictures = pictures
        self._due_s = 0.0

    @classmethod
    def open(cls, out: Path, workflow: Workflow, *, again: bool) -> FolderRecord:
        """Read that of an earlier run, or start one; nothing is written yet. `again` forgets all results.

        Raises:
            ValueError: the file is broken or has results of another workflow.
        """
        found = {} if again else _read(out / NAME)
        pictures = found.get("pictures", {})
        former = found.get("workflow", {})
        if former.get("sha256") != workflow.sha256 and any(entry["status"] == "done" for entry in pictures.values()):
            before, asked = _described(former), _described(dataclasses.asdict(workflow))
            raise ValueError(
                f"expected the workflow and settings that {out} was begun with ({before}), got {asked}; "
                "take another OUT, or --again to restore every picture anew"
            )
        return cls(out, workflow, pictures if former.get("sha256") == workflow.sha256 else {})

    @property
    def exists(self) -> bool:
        """Whether the folder has one on disk."""
        return self._path.exists()

    def result(self, key: str) -> str:
        """The name below the folder of the result that is there, or will be: KEY.png where the record names none."""
        return str(self._pictures.get(key, {}).get("result", f"{key}.png"))

    def made(self) -> dict[str, str]:
        """The names of all results that earlier runs have made, with their sha256."""
        return {self.result(key): entry["result_sha256"] for key, entry in self._pictures.items() if entry["status"] == "done"}

    def state(self, key: str, source: Path, result: Path) -> str:
        """One of "missing", "done" and "changed": done, but somebody has changed the result since."""
        entry = self._pictures.get(key)
        if not (entry and entry["status"] == "done" and result.is_file()):
            return "missing"
        if sha256_of(result.read_bytes()) != entry["result_sha256"]:
            return "changed"
        try:
            return "done" if sha256_of(source.read_bytes()) == entry["source_sha256"] else "missing"
        except OSError:
            return "missing"  # whoever takes it says why it cannot be read

    def put(self, key: str, entry: dict[str, Any]) -> None:
        """Set the outcome of a picture, and write the file if that is not too soon after the last time."""
        self._pictures[key] = entry
        if time.monotonic() >= self._due_s:
            self.write()

    def write(self) -> None:
        """Write the file, sorted by key.

        Raises:
            OSError: the system could not write it.
        """
        start_s = time.monotonic()
        workflow = dataclasses.asdict(self._workflow)
        write_json(self._path, {"format": FORMAT, "workflow": workflow, "pictures": dict(sorted(self._pictures.items()))})
        end_s = time.monotonic()
        self._due_s = end_s + (end_s - start_s) / WRITING_FRAC


def _described(workflow: dict[str, Any]) -> str:
    return " ".join([str(workflow.get("file")), *workflow.get("settings", []), str(workflow.get("sha256"))[:8]])


def _read(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_bytes())
        entries, workflow = value["pictures"].items(), value["workflow"]
        sound = value["format"] == FORMAT and all(map(_is_entry, entries))
        sound = sound and isinstance(workflow["sha256"], str) and all(isinstance(each, str) for each in workflow["settings"])
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError(f"expected the record of an earlier run in {path}, got something else; remove it or take another OUT")
    return value


def _is_entry(item: tuple[str, dict[str, Any]]) -> bool:
    key, entry = item
    wanted = {"done": ("source_sha256", "result_sha256"), "failed": ()}[entry["status"]]
    name = entry.get("result", f"{key}.png")
    return all(isinstance(entry[field], str) for field in wanted) and name.startswith(key) and is_suffix(name[len(key) :])


def is_suffix(text: str) -> bool:
    """Whether this may be the suffix of a result: it makes no path of its name."""
    return SUFFIX.fullmatch(text) is not None
