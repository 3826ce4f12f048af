"""Soak: every odd input of every node, and hundreds of random valid graphs, on one real server. Says what became of them.

    python tools/environment.py --with test --run tests/soak/queue_bounds.py [--graphs 200] [--first 0] [--only NODE] [--out FILE]

After each node's cases a good prompt must give the same picture as before. Exit code 1 = one did not, or an error was not clear.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path.insert(0, str(TESTS))
import conftest  # noqa: E402, F401 - puts the pack and the host on the path
from support.prompts_cases import cases_of, unclear  # noqa: E402
from support.prompts_graphs import ALL, good_prompt  # noqa: E402
from support.prompts_random import random_prompt  # noqa: E402
from support.prompts_server import Ending, Session, make_server  # noqa: E402

PATIENCE_S = 5.0  # then a case is interrupted: 10000 steps are a valid number
GRAPH_PATIENCE_S = 60.0
MAX_RUN_S = 180.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--graphs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first graph")
    parser.add_argument("--only", default="", help="nodes whose class holds this")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "queue_bounds.json")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="faithdiff-soak-") as folder,
        make_server(Path(folder)) as server,
        Session(server.url, check_server=server.check_running) as session,
    ):
        results = soak(session, options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))
    return 1 if results["unclear"] or results["wrong pictures"] else 0


def soak(session: Session, options: argparse.Namespace) -> dict[str, Any]:
    info, wrong, spoilt, nodes = session.object_info(), {}, [], {}
    good = session.end_of(good_prompt())
    assert good.is_sound, good
    for key, (kind, _) in ALL.items():
        if not kind.startswith("FaithDiff") or options.only not in kind:
            continue
        start_s, ways = time.monotonic(), collections.Counter()
        for case in cases_of(key, info):
            ending = session.end_of(case.prompt, patience_s=PATIENCE_S, longest_s=MAX_RUN_S)
            _note(ending, case.prompt, case.name, ways, wrong)
        if session.end_of(good_prompt()).digests != good.digests:
            spoilt.append(kind)
        nodes[kind] = {**ways, "seconds": round(time.monotonic() - start_s, 1)}
        print(kind, nodes[kind], flush=True)
    ways = collections.Counter()
    for seed in range(options.first, options.first + options.graphs):
        prompt, name = random_prompt(info, seed), f"graph {seed}"
        ending = session.end_of(prompt, patience_s=GRAPH_PATIENCE_S, longest_s=MAX_RUN_S)
        _note(ending, prompt, name, ways, wrong)
        if ending.how == "rejected":  # they are built to be valid
            wrong[name] = ending.reason
    if session.end_of(good_prompt()).digests != good.digests:
        spoilt.append("random graphs")
    return {"nodes": nodes, "graphs": dict(ways), "unclear": wrong, "wrong pictures": spoilt}


def _note(ending: Ending, prompt: dict[str, Any], name: str, ways: collections.Counter, wrong: dict[str, str]) -> None:
    ways[ending.how] += 1
    if text := unclear(ending, prompt):
        wrong[name] = text
        print("UNCLEAR", name, text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
