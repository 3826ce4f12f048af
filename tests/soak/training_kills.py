"""Kills a short training run at seeded random moments, lets it go on, kills it again: its end must be the uninterrupted one's.

    training_kills.py WORK [--kills 50] [--plain 5] [--chain 5] [--seed 0]

WORK: an empty folder. Each chain is a run that is killed --chain times and then left to end. Kills take turns: after a random
time, before a random operation on a file, in the middle of writing a checkpoint (or the bank of latents). --plain of them hit
`python -m training` as users start it, imports included. Prints one line a kill and a summary as JSON; exit code 1 = a run
ended otherwise, or left something behind."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1]), str(HERE.parent)]

from training_killed import EVENTS, NEVER, PHASE, PHASES, SAVE_EVERY, SAVES, Kill, forked, plain, write_sources  # noqa: E402

from training.loop import checkpoints  # noqa: E402

TIMES = ("images_per_s", "memory_gb")
"""Figures of a log's row that no two runs share."""


class Soak:
    """The uninterrupted run, and what it takes to compare others with it."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.random = work, random.Random(seed)
        self.sources = work / "sources"
        self.sources.mkdir(parents=True)
        write_sources(self.sources)
        whole = self.folder("whole")
        started_s = time.monotonic()
        code, told = forked(self.sources, whole, NEVER)
        assert code == 0, (whole / "printed.txt").read_text()
        self.seconds, self.events, self.saves = time.monotonic() - started_s, told[EVENTS], told[SAVES]
        self.end = end_of(whole)
        self.faults: list[str] = []
        self.phases: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.most_lost = 0

    def folder(self, name: str) -> Path:
        """A new folder for one run, its bank and its export."""
        path = self.work / name
        path.mkdir()
        return path

    def draw(self) -> tuple[str, Kill]:
        """The next moment: each kind in turn, spread evenly over what a whole run does."""
        kind = ("time", "file operation", "half-written archive")[sum(self.kinds.values()) % 3]
        if kind == "time":
            return kind, Kill(delay_s=self.random.uniform(0.0, self.seconds))
        if kind == "file operation":
            return kind, Kill(event=self.random.randint(1, self.events))
        return kind, Kill(save=self.random.randint(1, self.saves), written_frac=self.random.random())

    def kill_once(self, folder: Path, *, as_users: bool) -> bool:
        """Let the run go on until it is killed, or to its end (False)."""
        before = last_checkpoint(folder)
        kind, kill = self.draw()
        if as_users:
            kind, phase = "python -m training", "any, imports included"
            code = plain(self.sources, folder, self.random.uniform(0.5, 3 * self.seconds))
        else:
            code, told = forked(self.sources, folder, kill)
            phase = PHASES[told[PHASE]]
        if code == 0:
            return False
        if code != -signal.SIGKILL:
            self.faults.append(f"{folder.name}: exit code {code} after {kind}: {(folder / 'printed.txt').read_text()[-2000:]}")
            return False
        done, held = last_row(folder), last_checkpoint(folder)
        if held < before:
            self.faults.append(f"{folder.name}: checkpoint of step {before} was lost")
        if done - held >= SAVE_EVERY:
            self.faults.append(f"{folder.name}: {done - held} steps were lost, more than those since the last checkpoint")
        self.most_lost = max(self.most_lost, done - held)
        self.kinds[kind] += 1
        self.phases[phase] += 1
        print(f"{folder.name}: {kind}, in {phase}; checkpoint of step {held}, {max(done - held, 0)} steps beyond it", flush=True)
        return True

    def finish(self, folder: Path) -> None:
        """Let the run end; note how its end differs."""
        code, _ = forked(self.sources, folder, NEVER)
        if code:
            self.faults.append(f"{folder.name}: exit code {code}: {(folder / 'printed.txt').read_text()[-2000:]}")
            return
        end = end_of(folder)
        self.faults += [f"{folder.name}: another {name}" for name, value in self.end.items() if end[name] != value]


def last_checkpoint(folder: Path) -> int:
    """Step of the newest whole checkpoint, 0 = none."""
    run = folder / "run"
    return checkpoints.load(run)["step"] if checkpoints.exists(run) else 0


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The whole rows of the log, without times."""
    path = folder / "run" / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def last_row(folder: Path) -> int:
    """Step of the log's last row."""
    rows = rows_of(folder)
    return rows[-1]["step"] if rows else 0


def end_of(folder: Path) -> dict[str, Any]:
    """What must not depend on kills: bytes of the export and of the pictures, weights, rows, and which files there are."""
    state = checkpoints.load(folder / "run")
    kept = [(part, name, value) for part in ("model", "ema", "trained") for name, value in sorted(state[part].items())]
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {
        "export": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "weights": hashlib.sha256(b"".join(value.contiguous().numpy().tobytes() for *_, value in kept)).hexdigest(),
        "pictures": [path.read_bytes() for path in sorted((folder / "run" / checkpoints.VALIDATION).glob("*.png"))],
        "log": rows_of(folder),
        "list of files": files,
    }


def main(argv: list[str] | None = None) -> int:
    """Run the soak of the command line; 0 = as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    for name, default in (("--kills", 50), ("--plain", 5), ("--chain", 5), ("--seed", 0)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args(argv)
    started_s = time.monotonic()
    soak = Soak(options.work, options.seed)
    chains = 0
    while sum(soak.kinds.values()) < options.kills and not soak.faults:
        folder = soak.folder(f"chain-{chains}")
        chains += 1
        for _ in range(options.chain):
            done = sum(soak.kinds.values())
            if done == options.kills or not soak.kill_once(folder, as_users=options.kills - done <= options.plain):
                break
        soak.finish(folder)
    figures = {
        "kills": sum(soak.kinds.values()), "runs": chains, "kinds": dict(soak.kinds), "phases": dict(soak.phases),
        "most_steps_lost": soak.most_lost, "file_operations_of_a_run": soak.events,
        "seconds": round(time.monotonic() - started_s), "faults": soak.faults,
    }  # fmt: skip
    print(json.dumps(figures, indent=2))
    return bool(soak.faults)


if __name__ == "__main__":
    sys.exit(main())
