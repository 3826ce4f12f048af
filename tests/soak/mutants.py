"""Mutation testing: changes the source in one place at a time (Cosmic Ray's operators) and counts the changes that tests notice.

    python tools/environment.py --with test --run tests/soak/mutants.py [MODULE ...] [--out build/mutants.json]

Modules: those of TESTS_OF. A mutant lives in the memory of one forked process, which has torch and the host imported already: no
file is changed, and a mutant costs what its tests cost. Linux and macOS. Exit code 1 below the share that is asked for."""

from __future__ import annotations

import argparse
import importlib.machinery
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
TESTS_OF = {
    "checkpoint": ["core/test_checkpoint.py"],
    "geometry": ["core/test_geometry.py"],
    "tiling": ["core/test_tiling.py"],
}
"""Module of faithdiff_core -> what tests it, below tests/."""
COSMIC_RAY = "cosmic-ray==8.7.0"
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
    parser.add_argument("modules", nargs="*", choices=[*TESTS_OF, []], default=list(TESTS_OF), metavar="MODULE")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.json")
    options = parser.parse_args()
    install_cosmic_ray()
    import_what_tests_need()
    results = {module: test_module(module) for module in options.modules}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    caught, made = (sum(result[key] for result in results.values()) for key in ("caught", "mutants"))
    print(f"in all: {caught} of {made} mutants caught, {caught / made:.1%}")
    return 0 if caught >= ASKED_FRAC * made else 1


def test_module(module: str) -> dict:
    """Counts of one module, and the mutants that no test noticed."""
    tests = [str(TESTS / path) for path in TESTS_OF[module]]
    if not passes(tests, None):
        raise SystemExit(f"expected the tests of {module} to pass on its own source, they fail; mend that first")
    made = list(mutants(module))
    survivors = [mutant for mutant in made if passes(tests, mutant)]
    for mutant in survivors:
        print(f"  not noticed: {module}.py:{mutant.line}:{mutant.column} {mutant.operator}: {changed_line(mutant)}", flush=True)
    print(f"{module}: {len(made) - len(survivors)} of {len(made)} caught", flush=True)
    kept = [{k: v for k, v in asdict(m).items() if k != "source"} | {"text": changed_line(m)} for m in survivors]
    return {"mutants": len(made), "caught": len(made) - len(survivors), "survivors": kept}


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


def changed_line(mutant: Mutant) -> str:
    return mutant.source.splitlines()[mutant.line - 1].strip()


def path_of(module: str) -> Path:
    return (ROOT / "faithdiff_core" / f"{module}.py").resolve()


def install_cosmic_ray() -> None:
    """Into build/, not into the environment: nothing else needs it."""
    folder = ROOT / "build" / COSMIC_RAY
    if not folder.is_dir():
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), COSMIC_RAY], check=True)
    sys.path.append(str(folder))


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
