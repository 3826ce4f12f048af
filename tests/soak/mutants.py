"""Mutation testing: changes the source in one place at a time (Cosmic Ray's operators) and counts the changes that tests notice.

    python tools/environment.py --with test --run tests/soak/mutants.py [MODULE ...] [--out build/mutants.json]

Modules: those of TESTS_OF (all, if none is named). A mutant lives in the memory of one forked process, which has torch and the
host imported already: no file is changed, and a mutant costs what its tests cost. Linux and macOS. Exit code 1 below the share
that is asked for."""

from __future__ import annotations

import argparse
import importlib.machinery
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
sys.path += [str(TESTS / "soak"), str(ROOT / "tools")]
from fetched import fetched  # noqa: E402 - found by the line above

TESTS_OF = {
    "files/checkpoint": ["core/test_checkpoint.py", "core/test_damaged_weights.py", "core/test_alignment.py"],
    "geometry": ["core/test_geometry.py"],
    "tiling": ["core/test_tiling.py"],
}
"""Module of faithdiff_core -> what tests it, below tests/."""
ASKED_FRAC = 0.85
TIMEOUT_S = 120
"""For the tests of one mutant: an endless loop is noticed too."""
STRING_ONLY = ("|",)
"""In an annotation `str | Path` the operator is no code that runs (annotations are not evaluated): such mutants are left out."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change: the operator that made it, where (line, column from 0), and the whole source after it."""

    module: str
    operator: str
    line: int
    column: int
    source: str


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.json")
    options = parser.parse_args()
    modules = options.modules or list(TESTS_OF)
    if unknown := set(modules) - set(TESTS_OF):
        parser.error(f"expected modules out of {', '.join(TESTS_OF)}, got {', '.join(sorted(unknown))}")
    sys.path.append(str(fetched(Path(__file__).with_suffix(".txt"))))
    import_what_tests_need()
    with tempfile.TemporaryDirectory(prefix="faithdiff-mutants-") as folder:
        tempfile.tempdir = folder  # what a process that ends at once leaves behind
        results = {module: measured(module) for module in modules}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    caught, made = (sum(result[key] for result in results.values()) for key in ("caught", "mutants"))
    print(f"in all: {caught} of {made} mutants caught, {caught / made:.1%}")
    return 0 if caught >= ASKED_FRAC * made else 1


def measured(module: str) -> dict[str, Any]:
    """Counts of one module, and the mutants that no test noticed."""
    tests = [str(TESTS / path) for path in TESTS_OF[module]]
    if not passes(tests, None):
        raise SystemExit(f"expected the tests of {module} to pass on its own source, they fail; mend that first")
    count, survivors = 0, []
    for mutant in mutants(module):
        count += 1
        if passes(tests, mutant):
            text = mutant.source.splitlines()[mutant.line - 1].strip()
            survivors.append({k: v for k, v in asdict(mutant).items() if k != "source"} | {"text": text})
            print(f"  not noticed: {module}.py:{mutant.line}:{mutant.column} {mutant.operator}: {text}", flush=True)
    caught = count - len(survivors)
    print(f"{module}: {caught} of {count} caught, {caught / count:.1%}", flush=True)
    return {"mutants": count, "caught": caught, "survivors": survivors}


def mutants(module: str) -> Iterator[Mutant]:
    """All changes of a module, each once: two operators may come to the same text."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    path = path_of(module)
    source, tree = path.read_text(encoding="utf-8"), get_ast_from_path(path)
    seen = {source}
    for name in operator_names():
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        places = [start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)]
        for occurrence, (line, column) in enumerate(places):
            changed = mutate_code(source, operator, occurrence)
            if changed is None or changed in seen or is_annotation(source, line, column):
                continue
            seen.add(changed)
            yield Mutant(module=module, operator=name.split("/")[-1], line=line, column=column, source=changed)


def is_annotation(source: str, line: int, column: int) -> bool:
    """Whether an operator stands in an annotation, which is text and never runs (`from __future__ import annotations`)."""
    text = source.splitlines()[line - 1]
    return text[column : column + 1] in STRING_ONLY and (
        "->" in text or text.lstrip().startswith(("def ", "class ")) or ": " in text
    )


def passes(tests: list[str], mutant: Mutant | None) -> bool:
    """Whether the tests pass in a process of their own, in which the mutant takes its module's place."""
    child = os.fork()
    if child == 0:
        signal.alarm(TIMEOUT_S)  # kills by default
        silence()
        if mutant is not None:
            put_in_place(mutant)
        import pytest

        os._exit(
            int(
                pytest.main(
                    ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:timeout", "-c", str(ROOT / "pyproject.toml"), *tests]
                )
            )
        )
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def put_in_place(mutant: Mutant) -> None:
    """Give the mutant's code to whoever imports the module from now on."""
    target, original = str(path_of(mutant.module)), importlib.machinery.SourceFileLoader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str):
        if os.path.realpath(self.path) == target:
            return compile(mutant.source, target, "exec", dont_inherit=True)
        return original(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code


def silence() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def path_of(module: str) -> Path:
    return (ROOT / "faithdiff_core" / f"{module}.py").resolve()


def import_what_tests_need() -> None:
    """Before forking: torch, the host and diffusers take seconds, which no mutant should pay."""
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    from comfy.cli_args import args

    args.cpu = True
    import comfy.model_detection  # noqa: F401
    import comfy.utils  # noqa: F401
    import diffusers.models.unets.unet_2d_condition  # noqa: F401
    import pytest  # noqa: F401
    import safetensors.torch  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
