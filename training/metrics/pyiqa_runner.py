"""pyiqa's metrics, computed by an interpreter of its own.

pyiqa is licensed for non-commercial use and brings many packages with it, so it is never imported here: a worker script runs in
an environment that the user made for it, and numbers come back as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MISSING = "needs --pyiqa, see docs/evaluation.md"


@dataclass(frozen=True, kw_only=True)
class PyiqaResult:
    """One metric: values by row and key (None = not finite) with pyiqa's own properties, or the reason why there are none."""

    values: dict[str, dict[str, float | None]]
    reason: str | None = None
    higher_is_better: bool | None = None
    needs_reference: bool | None = None
    values_range: str = ""
    note: str = ""


def pyiqa_metrics(
    names: Sequence[str],
    rows: Mapping[str, Mapping[str, Path]],
    reference: Mapping[str, Path],
    *,
    reference_row: str,
    border_px: int,
    weights: Path | None,
    python: Path | None,
    progress: bool,
) -> dict[str, PyiqaResult]:
    """Every metric of `names` (pyiqa's own names) over all rows; one that compares leaves `reference_row` out.

    What pyiqa lacks or cannot do is a reason in the result.

    Raises:
        ValueError: as program_of.
    """
    if python is None:
        return {name: PyiqaResult(values={}, reason=MISSING) for name in names}
    program = program_of(python)
    job = {
        "metrics": list(names),
        "rows": {row: {key: str(path.resolve()) for key, path in paths.items()} for row, paths in rows.items()},
        "reference": {key: str(path.resolve()) for key, path in reference.items()},
        "reference_row": reference_row,
        "border_px": border_px,
        "weights": str(weights.resolve()) if weights else None,
    }
    answer = _run(program, job, weights, progress)
    if "error" in answer:
        return {name: PyiqaResult(values={}, reason=answer["error"]) for name in names}
    return {name: _result(answer["metrics"][name], answer) for name in names}


def program_of(python: Path) -> str:
    """The interpreter as a program to start.

    Raises:
        ValueError: it is no program.
    """
    program = shutil.which(python)
    if program is None:
        raise ValueError(f"expected --pyiqa to be the Python of an environment with pyiqa, got {python}, which is no program")
    return program


def _run(program: str, job: dict, weights: Path | None, progress: bool) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        job_path, result_path = Path(folder) / "job.json", Path(folder) / "result.json"
        job_path.write_text(json.dumps(job), encoding="utf-8")
        # An empty TORCH_HOME: what lies in the user's caches must not decide what is computed. timm's weights are the one thing
        # that only a Hugging Face cache can hold.
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        environment = {**os.environ, **offline, "PYTHONPATH": str(ROOT), "TORCH_HOME": folder}
        if weights is not None:
            environment["HF_HOME"] = str(weights.resolve() / "huggingface")
        done = subprocess.run(  # noqa: S603 - the interpreter that the user names, never a shell
            [program, "-m", "training.metrics.pyiqa_worker", str(job_path), str(result_path)],
            cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=None if progress else subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode or not result_path.is_file():
            return {"error": f"{program} ended with code {done.returncode}; run it with `-c 'import pyiqa'` to see why"}
        return json.loads(result_path.read_text(encoding="utf-8"))


def _result(found: dict, answer: dict) -> PyiqaResult:
    if "error" in found:
        return PyiqaResult(values={}, reason=found["error"])
    files = "; ".join(found["weights"])
    return PyiqaResult(
        values=found["values"],
        higher_is_better=not found["lower_is_better"],
        needs_reference=found["needs_reference"],
        values_range=found["range"],
        note=f"pyiqa {answer['pyiqa']} on {answer['device']}{f'; {files}' if files else ''}",
    )
