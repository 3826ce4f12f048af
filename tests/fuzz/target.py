"""A reader, the files thrown at it, and what came of them: the reader takes a file or refuses it in one message, and nothing else
happens."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from .guard import Hang, check_message, guarded

SEEDS = 150
"""Cases that mutations are made of."""
LARGEST_PX = 2**22
"""For Image.MAX_IMAGE_PIXELS: a header may lie, and Pillow's own limit, 179 million, would be half a GB for each picture."""

Read = Callable[[bytes, Path], object]
"""(case, an empty folder of its own) -> anything. Raises ValueError to refuse it."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """`short`: how many cases `make test` throws at it. `weight`: its part of a soak."""

    name: str
    cases: SearchStrategy[bytes]
    read: Read
    short: int
    weight: float = 1.0


@dataclass(kw_only=True)
class Tally:
    """What came of many cases, each counted once. `failures`: the shortest case of each kind, by a line that tells the kind."""

    taken: int = 0
    refused: int = 0
    failed: int = 0
    slowest_s: float = 0.0
    """CPU time of one case."""
    failures: dict[str, bytes] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        return self.taken + self.refused + self.failed

    def throw(self, target: Target, case: bytes, folder: Path) -> None:
        """One case."""
        start_s = time.process_time()
        try:
            if run_case(target, case, folder):
                self.taken += 1
            else:
                self.refused += 1
        except (Exception, Hang) as error:
            self.failed += 1
            kind = _kind(error)
            if kind not in self.failures or len(case) < len(self.failures[kind]):
                self.failures[kind] = case
        self.slowest_s = max(self.slowest_s, time.process_time() - start_s)

    def report(self) -> str:
        """The failures, a line each."""
        return "\n".join(f"{kind}\n    {case[:200]!r}" for kind, case in self.failures.items())


def run_case(target: Target, case: bytes, folder: Path) -> bool:
    """Whether the reader took it. Raises Misdeed, Hang, or whatever the reader should not have raised."""
    try:
        with guarded(folder, len(case)):
            target.read(case, folder)
    except ValueError as error:
        check_message(str(error))
        return False
    return True


def throw_many(target: Target, folder: Path, *, cases: int, number: int, tally: Tally) -> None:
    """So many cases drawn from `number`; the same number gives the same ones."""

    @seed(number)
    @settings(max_examples=cases, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(target.cases)
    def throw(case: bytes) -> None:
        tally.throw(target, case, folder)

    throw()


def drawn(target: Target, folder: Path, *, cases: int, number: int) -> list[bytes]:
    """So many cases of the target, thrown at nobody."""
    found: list[bytes] = []
    collector = replace(target, read=lambda case, _: found.append(case))
    throw_many(collector, folder, cases=cases, number=number, tally=Tally())
    return found


def throw_mutations(target: Target, folder: Path, *, cases: int, number: int, tally: Tally) -> None:
    """So many cases made of hypothesis' by changing bytes: an order of magnitude cheaper than drawing each anew."""
    seeds = drawn(target, folder, cases=SEEDS, number=number)
    dice = random.Random(number)
    for _ in range(cases):
        tally.throw(target, _mutation(dice, seeds), folder)


def _mutation(dice: random.Random, seeds: list[bytes]) -> bytes:
    """One to four pieces of one case replaced by random bytes, by another piece of it, or by a piece of another."""
    data = bytearray(dice.choice(seeds))
    for _ in range(dice.randint(1, 4)):
        source = dice.choice(seeds) if dice.random() < 0.5 else data
        start, size = dice.randrange(len(source) + 1), dice.choice((0, 1, 1, 2, 4, 8, 16, 64))
        piece = bytes(source[start : start + size]) if dice.random() < 0.7 else dice.randbytes(size)
        at = dice.randrange(len(data) + 1)
        data[at : at + dice.choice((0, len(piece), len(piece)))] = piece
    return bytes(data)


def _kind(error: BaseException) -> str:
    """Type, message and the innermost places of our own code."""
    cause = error.__cause__ or error
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb((error.__context__ or cause).__traceback__)]
    return f"{type(error).__name__}: {str(error)[:160]!r} at {' '.join(places[-5:])}"
