"""Pictures that could be read when the manifest was made and cannot be now: replaced, named once, and too many of them stop the
run.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator

from tqdm import tqdm

from training.batches.crops import ImageStore, Pictures
from training.common.seeds import generator_for, integer

REPLACEMENTS_TRIED = 100
"""With 1 % unreadable, that many failures in a row do not happen."""
NAMED = 5
"""So many keys are named in the error."""


def others(seed: int, count: int, *parts: int | str) -> Iterator[int]:
    """What to take, of so many, instead of an unreadable one; drawn by the seed and the names alone."""
    generator = generator_for(seed, *parts)
    for _ in range(REPLACEMENTS_TRIED):
        yield integer(generator, 0, count - 1)


class Unreadable:
    """Reads from a store and counts what cannot be read; `reasons` by key. Threads may share one."""

    def __init__(self, store: ImageStore, max_frac: float) -> None:
        self.reasons: dict[str, str] = {}
        self._store = store
        self._max_frac = max_frac
        self._lock = threading.Lock()

    def first_readable(self, items: Iterable[int], record_of: Callable[[int], int] = lambda item: item) -> tuple[int, Pictures]:
        """The first of `items` whose picture (record number `record_of(item)`) can be read, and the picture.

        A known failure is not tried again, so which item is taken depends on the files alone.

        Raises:
            ValueError: when more than the allowed share (or every picture) has failed; one failure is always allowed.
        """
        # Not in __init__: the memory estimate makes tasks without a store.
        allowed = min(max(1, int(self._max_frac * len(self._store))), len(self._store) - 1)
        for item in items:
            record = record_of(item)
            key = self._store.records[record].key
            if key not in self.reasons:
                try:
                    return item, self._store.pictures(record)
                except ValueError as error:
                    self._note(key, str(error))
            if len(self.reasons) > allowed:
                break
        keys = sorted(self.reasons)
        raise ValueError(
            f"expected at most {allowed} of {len(self._store)} pictures to have turned unreadable, got {len(keys)} "
            f"({', '.join(keys[:NAMED])}{', ...' if len(keys) > NAMED else ''}), restore them or raise max_unreadable_frac"
        )

    def _note(self, key: str, reason: str) -> None:
        with self._lock:
            if key not in self.reasons:
                self.reasons[key] = reason
                tqdm.write(f"warning: {key!r} is replaced by another picture: {reason}", file=sys.stderr)
