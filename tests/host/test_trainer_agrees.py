"""An export gives the trainer's own numbers in the host: the two share the modules, but not UNet, names, LoRA or hook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import comfy.sd
import comfy.utils
import pytest
import torch
from comfyui_faithdiff.nodes.load_model import load
from comfyui_faithdiff.nodes.no_prompt import FaithDiffNoPrompt
from support import tiny
from support.compare import CHANGED, NETWORK, assert_close, relative_difference
from support.sampling import Loaded, align, encode, predictions
from torch.nn.functional import pad

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "demo" / "nano_faithdiff.safetensors"
SIZE_PX = (75, 100)  # padded to 80 x 104
TIMESTEPS = (999, 500, 21)
TARGET_SIZE_PX = 64  # of the made-up exports
VARIANTS = ("pointwise", "spatial", "no-layers", "lora", "adapter", "nano")
BUNDLED = "bundled"


def run_trainer(*arguments: str) -> None:
    """Without the host: the trainer must not see it."""
    env = {k: v for k, v in os.environ.items() if k not in ("COMFYUI_PATH", "PYTHONPATH")}
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, check=True)


def padded(image: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in [-1, 1] at multiples of 8, as the nodes hand it to the encoder."""
    height, width = image.shape[1:3]
    return pad(image.movedim(-1, 1), (0, -width % 8, 0, -height % 8), mode="replicate") * 2 - 1


def made_exports(
    folder: Path, names: tuple[str, ...], size_px: tuple[int, int], timesteps=TIMESTEPS
) -> tuple[torch.Tensor, dict]:
    """The image and the inputs that the trainer was given to make these exports' numbers."""
    image = tiny.image(*size_px)
    g = torch.Generator().manual_seed(0)
    lq = padded(image)
    x = torch.randn(1, 4, lq.shape[2] // 8, lq.shape[3] // 8, generator=g)
    context, pooled = torch.randn(2, 77, 2048, generator=g), torch.randn(2, 1280, generator=g)
    given = {"lq": lq, "x": x, "context": context, "pooled": pooled, "timesteps": timesteps, "target_px": TARGET_SIZE_PX}
    torch.save(given, folder / "inputs.pt")
    run_trainer(str(ROOT / "tests" / "support" / "trainer_exports.py"), str(folder), *names)
    return image, given


def check(loaded: Loaded, expected: dict, image: torch.Tensor, given: dict) -> None:
    features = encode(loaded, image)[0].features_BCHW
    assert_close(features, expected["features"], NETWORK)
    model, _ = align(loaded, image)
    unet = model.model.model_config.unet_config
    width, pooled_width = unet["context_dim"], unet["adm_in_channels"] - 6 * 256
    negative, positive = (
        [[given["context"][i : i + 1, :, :width], {"pooled_output": given["pooled"][i : i + 1, :pooled_width]}]] for i in range(2)
    )
    sigmas = model.get_model_object("model_sampling").sigmas
    for timestep, noise in zip(given["timesteps"], expected["noise"], strict=True):
        ours = torch.cat(predictions(model, given["x"], sigmas[timestep], positive, negative))
        assert_close(ours, noise, NETWORK)
    # Guards the lines above: prompts and alignment are seen in these numbers.
    assert relative_difference(noise[0], noise[1]) > CHANGED
    plain, _ = align(loaded, image, strength=0.0)
    rows = torch.cat(predictions(plain, given["x"], sigmas[timestep], positive, negative))
    assert relative_difference(rows, noise) > CHANGED


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return folder, *made_exports(folder, (*VARIANTS, BUNDLED), SIZE_PX)


def test_the_bundled_model_gives_the_trainers_numbers(exports):
    """Without a prompt, and with the target size that the file names."""
    folder, image, given = exports
    nano, expected = Loaded(*load(str(NANO))), torch.load(folder / f"{BUNDLED}.pt")
    assert_close(encode(nano, image)[0].features_BCHW, expected["features"], NETWORK)
    model, _ = align(nano, image)
    prompt = FaithDiffNoPrompt.execute(model).args[0]
    sigmas = model.get_model_object("model_sampling").sigmas
    for timestep, noise in zip(TIMESTEPS, expected["noise"], strict=True):
        _, ours = predictions(model, given["x"], sigmas[timestep], prompt, prompt)
        assert_close(ours, noise, NETWORK)


def with_lora(model, path: Path):
    return comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(path)), 1.0, 0.0)[0]


@pytest.mark.parametrize("name", VARIANTS)
def test_exports_give_the_trainers_numbers(exports, name, caplog):
    folder, image, given = exports
    path, expected = folder / f"{name}.safetensors", torch.load(folder / f"{name}.pt")
    if name != "adapter":
        check(Loaded(*load(str(path))), expected, image, given)
        return
    base = load(str(folder / "base.safetensors"))[0]
    model = with_lora(base, folder / "adapter.lora.safetensors")
    assert "lora key not loaded" not in caplog.text
    check(Loaded(*load(str(path), base_model=model)), expected, image, given)
    with pytest.raises(AssertionError):  # the LoRA is seen in these numbers
        check(Loaded(*load(str(path), base_model=base)), expected, image, given)


@pytest.mark.long
def test_an_export_of_published_size(tmp_path):
    """Segmind-Vega's, with prompts of the real widths."""
    image, given = made_exports(tmp_path, ("vega",), (128, 128), (500,))
    check(Loaded(*load(str(tmp_path / "vega.safetensors"))), torch.load(tmp_path / "vega.pt"), image, given)
    (tmp_path / "vega.safetensors").unlink()
