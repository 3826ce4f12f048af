"""Commands over a folder of pictures: what is there to do, names that belong together, and how a command ends."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from faithdiff_core.files.checks import first_line
from faithdiff_core.listing.kinds import LeftOut, not_read_here
from faithdiff_core.listing.walk import PictureListing

NOT_READ = not_read_here()
"""Suffixes of pictures that are not read here, and what to do about it."""
SCALE_SUFFIX = re.compile(r"(?P<key>.+)x\d{1,2}(?:[mdw]\d?)?")
"""DIV2K's names of small pictures: 0001x4 beside 0001, in its later sets 0001x4m, 0001x4d and 0001x4w1."""
_Source = TypeVar("_Source")
NAMED = 5
"""So many names are in a message."""


def require_pictures(listed: PictureListing, source: Path) -> None:
    """Look whether there is anything to do.

    Raises:
        ValueError: there is no picture; the message has what was left out.
    """
    if not listed.pictures:
        tally = Tally(left_out=listed.left_out)
        reasons = "".join(f"; {line}" for line in tally.lines()[:NAMED])
        raise ValueError(f"expected pictures in {source}, got none ({tally.summary()}){reasons}; check the folder")


def without_scale(pictures: Mapping[str, _Source], keys: Iterable[str]) -> dict[str, _Source]:
    """The pictures by the keys of those that they belong to: 0001x4 becomes 0001 where `keys` have that one and not 0001x4.

    Raises:
        ValueError: two of one key then.
    """
    wanted, found, former = set(keys), {}, {}
    for key, source in pictures.items():
        match = None if key in wanted else SCALE_SUFFIX.fullmatch(key)
        name = match["key"] if match and match["key"] in wanted else key
        if name in found:
            raise ValueError(f"expected one picture for {name!r}, got {former[name]!r} and {key!r}; give one scale at a time")
        found[name], former[name] = source, key
    return found


@dataclass(kw_only=True)
class Tally:
    """How a command over a folder went: what it says at the end, and its exit code."""

    left_out: list[LeftOut] = field(default_factory=list)
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Key to the reason, in one line."""
    warnings: list[tuple[str, str]] = field(default_factory=list)
    """(key, sentence) of pictures that were done."""

    def warn(self, key: str, warnings: Iterable[str]) -> None:
        """Keep what is to be told of a picture."""
        self.warnings += [(key, text) for text in warnings]

    @property
    def exit_code(self) -> int:
        """1 if any picture failed."""
        return int(bool(self.failed))

    def lines(self) -> list[str]:
        """Everything that is named: warnings, what was left out and can be mended, failures."""
        by_reason: dict[str, list[str]] = {}
        for item in self.left_out:
            if item.reason:
                by_reason.setdefault(item.reason, []).append(item.path)
        lines = [f"warning: {key}: {text}" for key, text in self.warnings]
        lines += [f"left out: {some(paths)}: {reason}" for reason, paths in by_reason.items()]
        return [shown(line) for line in lines + [f"failed: {key}: {reason}" for key, reason in sorted(self.failed.items())]]

    def summary(self, more: Iterable[str] = (), *, shares: str = "") -> str:
        """`3 done, 2 left out (1 hidden, 1 .heic), 1 failed`; `shares`: who did them; `more` goes behind "done"."""
        parts = [f"{self.done} done" + (f" ({shares})" if shares else ""), *more]
        if self.left_out:
            kinds = Counter(item.kind for item in self.left_out)
            parts.append(f"{len(self.left_out)} left out ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})")
        return ", ".join(parts + ([f"{len(self.failed)} failed"] if self.failed else []))


def over_pictures(listed: PictureListing, work: Callable[[str, Path], Iterable[str]]) -> Tally:
    """Call `work` with each key and path; it returns what is to be told of the picture. One that fails is kept, the others go on.

    Raises:
        OSError: a result could not be written: the next one could not, either.
    """
    tally = Tally(left_out=listed.left_out)
    for key, path in listed.pictures:
        try:
            tally.warn(key, work(key, path))
            tally.done += 1
        except (ValueError, RuntimeError) as error:  # torch's, out of memory on a GPU for one
            tally.failed[key] = first_line(error)
        except MemoryError:
            tally.failed[key] = f"expected memory for {path}, got too little, end other programs or make it smaller"
    return tally


def some(names: list[str]) -> str:
    """The first of them, and how many more."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def shown(text: str) -> str:
    """A text that every terminal takes: bytes of a name that are no UTF-8 are written out in hexadecimal."""
    return text.encode("utf-8", "backslashreplace").decode()
