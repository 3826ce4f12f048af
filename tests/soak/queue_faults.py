"""Soak: a fault at every place of a whole prompt: out of memory, NaN, an interrupt. Prints how each ended; writes JSON.

    python tools/environment.py --with test --run tests/soak/queue_faults.py [--every 1] [--out FILE.json]

In this process, through the host's executor: memory that ends once or for good and NaN at every place, and an interrupt at each
moment that anybody asks for one (every N-th with --every N). On a server: POST /interrupt while each place stands still. After
each kind the same prompt must give the same picture. Exit code 1 = an error was not clear, an interrupt was lost, or a picture
was another.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS))
import conftest  # noqa: E402, F401 - puts the pack and the host on the path
from support import prompts_local  # noqa: E402
from support.prompts_cases import CLEAR, OUT_OF_MEMORY  # noqa: E402
from support.prompts_faults import NO_TENSORS, PLACES, Fault, fault  # noqa: E402
from support.prompts_graphs import good_prompt  # noqa: E402
from support.prompts_server import Ending, Session, make_server  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="interrupt at every N-th moment")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "queue_faults.json")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the host logs each error with its traceback
    with tempfile.TemporaryDirectory(prefix="faithdiff-soak-") as folder:
        weights = Path(folder) / "weights"
        weights.mkdir()
        with prompts_local.registered(weights):
            results, wrong = in_process(options.every)
        with make_server(Path(folder) / "server") as server, Session(server.url, check_server=server.check_running) as session:
            more, lost = on_server(session)
    results |= more
    wrong += lost
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**results, "wrong": wrong}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({"counts": {k: collections.Counter(v.values()) for k, v in results.items()}, "wrong": wrong}, indent=2))
    return 1 if wrong else 0


def in_process(every: int) -> tuple[dict[str, Any], list[str]]:
    expected = prompts_local.run(good_prompt())
    assert expected.is_sound, expected
    results: dict[str, Any] = {}
    wrong: list[str] = []
    for what, lasting in (("memory", False), ("memory", True), ("nan", True)):
        kind = f"{what} {'for good' if lasting else 'once'}"
        results[kind] = {}
        for place in PLACES:
            if what == "nan" and place in NO_TENSORS:
                continue
            with fault(Fault(place=place, what=what, lasting=lasting)) as struck:
                ending = prompts_local.run(good_prompt())
            results[kind][place] = _told(ending, expected)
            sound = ending.is_sound and not (lasting and what == "nan")
            if not struck.times or not (sound or _is_clear(ending)):
                wrong.append(f"{kind} at {place}: {struck.times} times, {ending.kind} {ending.reason[:200]}")
            print(kind, place, results[kind][place], flush=True)
        wrong += _picture_again(expected, kind)
    with prompts_local.interrupted_at(0) as asked:
        prompts_local.run(good_prompt())
    results["interrupt"] = {}
    for check in range(1, len(asked) + 1, every):
        with prompts_local.interrupted_at(check) as until:
            ending = prompts_local.run(good_prompt())
        results["interrupt"][str(check)] = ending.how
        if ending.how != "stopped" or len(until) != check:
            wrong.append(f"interrupt at {check} of {len(asked)}: {ending.how} after {len(until)}")
    return results, wrong + _picture_again(expected, "interrupts")


def on_server(session: Session) -> tuple[dict[str, Any], list[str]]:
    good = session.end_of(good_prompt())
    assert good.is_sound, good
    stopped, wrong = {}, []
    for number, place in enumerate(PLACES):
        prompt = good_prompt()  # of another size, model and seed than the good one, whose picture is looked at then
        prompt["photo"]["inputs"]["width"] = 40 + number % 4
        prompt["load"]["inputs"]["weight_dtype"] = ("default", "fp8_e4m3fn", "fp8_e5m2")[number % 3]
        prompt["sampler"]["inputs"]["seed"] = prompt["attribution"]["inputs"]["seed"] = 100 + number
        session.post("/free", {"unload_models": True, "free_memory": True})
        stopped[place] = session.stopped_at(prompt, place).how
        session.wait_for(session.is_idle, 10, "idle server")
        print("POST /interrupt", place, stopped[place], flush=True)
        if session.end_of(good_prompt()).digests != good.digests:
            wrong.append(f"another picture after an interrupt at {place}")
    return {"POST /interrupt": stopped}, wrong + [f"interrupt lost at {p}" for p, how in stopped.items() if how != "stopped"]


def _is_clear(ending: Ending) -> bool:
    return ending.how == "error" and (ending.kind == OUT_OF_MEMORY or bool(CLEAR.match(ending.reason)))


def _told(ending: Ending, expected: Ending) -> str:
    if ending.how == "picture":
        return "same picture" if ending.digests == expected.digests else "picture"
    return "out of memory" if ending.kind == OUT_OF_MEMORY else ending.how


def _picture_again(expected: Ending, kind: str) -> list[str]:
    return [] if prompts_local.run(good_prompt()).digests == expected.digests else [f"another picture after {kind}"]


if __name__ == "__main__":
    sys.exit(main())
