"""The bundled nano model gives the trainer's own numbers in the host: the two share the modules, but not UNet, names or hook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfyui_faithdiff.nodes.load_model import load
from comfyui_faithdiff.nodes.nano import FaithDiffNoPrompt
from support import tiny
from support.sampling import Loaded, align, encode, predictions
from torch.nn.functional import pad

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "demo" / "nano_faithdiff.safetensors"
SIZE_PX = (75, 100)  # padded to 80 x 104
TIMESTEPS = (999, 500, 21)
TOLERANCE = 2e-5

# Runs without the host: the trainer must not see it.
TRAINER = """
import sys, torch
from pathlib import Path
from training.exported import reference_features, reference_noise
given = torch.load(sys.argv[1])
nano = Path(sys.argv[2])
features = reference_features(nano, given["lq"])
ids = torch.tensor([[80.0, 104.0, 0.0, 0.0, given["target"], given["target"]]])
noise = [reference_noise(nano, given["x"], torch.tensor([t]), features, ids) for t in given["timesteps"]]
torch.save({"features": features, "noise": noise}, sys.argv[1])
"""


@pytest.fixture(scope="module")
def nano():
    return Loaded(*load(str(NANO)))


def test_export_gives_the_trainers_numbers(nano, tmp_path):
    image = tiny.image(*SIZE_PX)
    padded_BCHW = pad(image.movedim(-1, 1), (0, 4, 0, 5), mode="replicate")
    x = torch.randn(1, 4, 10, 13, generator=torch.Generator().manual_seed(0))
    target = float(nano.faithdiff.metadata.target_size_px)
    exchange = tmp_path / "exchange.pt"
    torch.save({"lq": padded_BCHW * 2 - 1, "x": x, "timesteps": TIMESTEPS, "target": target}, exchange)
    env = {k: v for k, v in os.environ.items() if k not in ("COMFYUI_PATH", "PYTHONPATH")}
    subprocess.run([sys.executable, "-c", TRAINER, str(exchange), str(NANO)], cwd=ROOT, env=env, check=True)
    trainer = torch.load(exchange)

    torch.testing.assert_close(encode(nano, image)[0].features_BCHW, trainer["features"], rtol=1e-4, atol=1e-4)
    model, _ = align(nano, image)
    prompt = FaithDiffNoPrompt.execute(model).args[0]
    sigmas = model.get_model_object("model_sampling").sigmas
    for timestep, expected in zip(TIMESTEPS, trainer["noise"], strict=True):
        _, ours = predictions(model, x, sigmas[timestep], prompt, prompt)
        assert (ours - expected).abs().max() < TOLERANCE
