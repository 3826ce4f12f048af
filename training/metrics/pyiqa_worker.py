"""The half of `pyiqa_runner.py` that the other interpreter runs: `python -m training.metrics.pyiqa_worker JOB.json RESULT.json`.

Reads pictures as the rest of the package does, computes one metric after another, and refuses every download: weights come from
the job's folder or the metric is reported as missing them. Needs pyiqa and what it brings, and of ours only
`common/images.py`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import socket
import sys
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import torch
from tqdm import tqdm

from training.common.images import read_image, to_unit


class MissingWeightsError(Exception):
    """A file that pyiqa wanted to download."""


class LocalWeights:
    """Stands in for every way in which pyiqa and torch would fetch a file; `used` lists what was taken, with hashes."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.used: list[str] = []

    def install(self) -> None:
        """Before pyiqa is imported, which takes some of these functions by name."""
        torch.hub.download_url_to_file = self.place
        urllib.request.urlopen = self.refuse
        socket.getaddrinfo = self.refuse
        socket.socket.connect = self.refuse
        if self.folder is not None:  # CLIP's loader looks for its files itself, and checks their hashes
            clip = Path(torch.hub.get_dir()) / "clip"
            clip.mkdir(parents=True)
            for path in sorted(self.folder.glob("*.pt")):
                _link(path, clip / path.name)

    def place(self, url: str, destination: str, *_: Any, **__: Any) -> None:
        """Put the file of that name where it is looked for.

        Raises:
            MissingWeightsError: there is no such file.
        """
        name = unquote(Path(destination).name)  # some names have a + in them, which pyiqa's addresses write %2B
        if self.folder is None:
            raise MissingWeightsError(f"needs {name}, name the folder that holds it with --weights")
        if not (self.folder / name).is_file():
            raise MissingWeightsError(f"expected {name} in {self.folder}, got no such file")
        _link(self.folder / name, Path(destination))
        self.used.append(f"{name}, sha256 {hashlib.sha256((self.folder / name).read_bytes()).hexdigest()}")

    def forget(self) -> None:
        """Before the next metric, so that `used` names its files even where another one had them, too."""
        self.used = []
        for folder in ("pyiqa", "checkpoints"):
            shutil.rmtree(Path(torch.hub.get_dir()) / folder, ignore_errors=True)

    def refuse(self, *arguments: Any, **_: Any) -> None:
        """In place of a connection."""
        url = next((item for item in arguments if isinstance(item, str)), "")
        name = url.rpartition("/")[2] or "a file that pyiqa wanted to download"
        raise MissingWeightsError(f"expected {name} in {self.folder or 'the folder of --weights'}, got no such file")


def _link(path: Path, destination: Path) -> None:
    try:
        os.symlink(path.resolve(), destination)
    except OSError:
        shutil.copyfile(path, destination)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """{"pyiqa": version, "device": ..., "metrics": {name: values and properties, or {"error": ...}}}, or {"error": ...}."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    weights = LocalWeights(Path(job["weights"]) if job["weights"] else None)
    weights.install()
    try:
        import pyiqa  # pyright: ignore[reportMissingImports]  (the other environment has it)
    except ImportError as error:
        return {"error": f"{sys.executable} cannot import pyiqa ({error})"}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = set(pyiqa.list_models())
    metrics = {}
    for name in job["metrics"]:
        if name not in known:
            metrics[name] = {"error": f"pyiqa {pyiqa.__version__} has no metric {name!r}"}
            continue
        weights.forget()
        metrics[name] = _metric(lambda name=name: pyiqa.create_metric(name, device=device), name, job, weights)
    return {"pyiqa": pyiqa.__version__, "device": device.type, "metrics": metrics}


def _metric(create: Callable[[], Any], name: str, job: dict[str, Any], weights: LocalWeights) -> dict[str, Any]:
    """One metric over all rows. Whatever pyiqa raises is its reason for not being computed: it must not stop the others."""
    try:
        metric = create()
        torch.manual_seed(0)
        values = _values(metric, name, job)
    except Exception as error:  # noqa: BLE001 - dozens of networks, each with its own ways to fail
        if type(error).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled"):  # says "check your connection" at length
            where = f"{weights.folder / 'huggingface' if weights.folder else 'huggingface in the folder of --weights'}"
            return {"error": f"expected a Hugging Face cache with its weights in {where}, got none"}
        return {"error": (str(error).strip().splitlines() or [type(error).__name__])[0]}
    return {
        "values": values, "lower_is_better": bool(metric.lower_better), "needs_reference": metric.metric_mode == "FR",
        "range": str(metric.score_range), "weights": weights.used,
    }  # fmt: skip


def _values(metric: Any, name: str, job: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    compares = metric.metric_mode == "FR"
    rows = {row: paths for row, paths in job["rows"].items() if not (compares and row == job["reference_row"])}
    found: dict[str, dict[str, float | None]] = {row: {} for row in rows}
    with tqdm(total=len(rows) * len(job["reference"]), desc=name, mininterval=2.0, delay=2.0) as bar:
        for key, reference in job["reference"].items():
            truth = _picture(reference, job["border_px"]) if compares else None
            for row, paths in rows.items():
                picture = _picture(paths[key], job["border_px"])
                value = float(metric(picture, truth) if compares else metric(picture))
                found[row][key] = value if math.isfinite(value) else None
                bar.update()
    return found


def _picture(path: str, border_px: int) -> torch.Tensor:
    image = to_unit(read_image(Path(path)))[None]
    return image[..., border_px : image.shape[2] - border_px, border_px : image.shape[3] - border_px]


if __name__ == "__main__":
    result = run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
