"""The trainer's network against the official one at the size of Segmind-Vega, from the official file: see support/by_rule.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import by_rule
from support.compare import NETWORK, assert_close

from training.model.faithdiff import FaithDiffComposite
from training.weights.load_export import load_exported

pytestmark = pytest.mark.long  # tests/host/test_official.py has the nodes, in `make test`
OFFICIAL = Path(__file__).resolve().parents[2] / "data" / "official_vega.npz"


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    with np.load(OFFICIAL) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FaithDiffComposite:
    path = tmp_path_factory.mktemp("vega") / "FaithDiff.bin"
    torch.save(by_rule.released_by_rule(by_rule.VEGA_UNET), path)
    model = load_exported(path)
    path.unlink()
    return model


@torch.no_grad()
def test_features(model: FaithDiffComposite, official: dict[str, torch.Tensor]) -> None:
    features = model.encode_lq(by_rule.image_by_rule() * 2 - 1)
    assert_close(features, official["feat"], NETWORK)


@torch.no_grad()
def test_prediction(model: FaithDiffComposite, official: dict[str, torch.Tensor]) -> None:
    """As one training batch of two prompts: the same picture in both rows, as in the official guidance pair."""
    context, pooled = by_rule.input_by_rule("ctx", 2, 77, 2048), by_rule.input_by_rule("pooled", 2, 1280)
    noisy = by_rule.input_by_rule("x", 1, 4, 12, 16).expand(2, -1, -1, -1)
    ids = torch.tensor([[96.0, 128.0, 0.0, 0.0, 1024.0, 1024.0]] * 2)
    lq = (by_rule.image_by_rule() * 2 - 1).expand(2, -1, -1, -1)
    noise = model(noisy, torch.tensor([500, 500]), ids, lq, context, pooled)
    assert_close(noise, official["eps_500"], NETWORK)
