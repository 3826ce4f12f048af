"""These tests run in a process of their own, without the host, so the repository root may be on sys.path here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from support.trainer import QUICK, picture  # noqa: E402
from support.trainer_chain import make_chain  # noqa: E402

from training.common.images import write_png  # noqa: E402
from training.config.overrides import override  # noqa: E402
from training.config.recipes import recipe  # noqa: E402
from training.config.schema import TrainConfig  # noqa: E402
from training.data import manifest  # noqa: E402
from training.data.prepare import build  # noqa: E402


@pytest.fixture(scope="session")
def pictures_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six PNGs, p0.png to p5.png."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(6):
        write_png(folder / f"p{index}.png", picture(index))
    return folder


@pytest.fixture(scope="session")
def data(pictures_dir: Path) -> Path:
    """A manifest of the six pictures, all to train."""
    records, skipped = build([(path.stem, path) for path in sorted(pictures_dir.glob("*.png"))], val_frac=0.0, min_side_px=32)
    assert not skipped
    path = pictures_dir / "manifest.jsonl"
    manifest.write(records, path)
    return path


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The runs of every stage on these pictures, see `make_chain`."""
    return make_chain(tmp_path_factory.mktemp("chain"), data)


@pytest.fixture
def quick() -> Callable[..., TrainConfig]:
    """quick("nano-vae", "steps=3"): a recipe cut down to the tiny network, fp32 and 32 px crops."""

    def make(name: str, *settings: str) -> TrainConfig:
        base = [*QUICK, "steps=4", "batch_size=2", "crop_px=32", "late_crop_px=0", "late_batch_size=0"]
        extra = [] if name == "nano-vae" else ["latent_crops=12", "target_size_px=32"]
        return override(recipe(name), [*base, *extra, *settings])

    return make
