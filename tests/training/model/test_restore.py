"""The fidelity decoder in the trainer's own restoration, and `restore --decoder`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.compare import CHANGED, ONE_MODULE, assert_close, relative_difference
from support.trainer import picture
from support.trainer_models import made_up_model, tiny
from torch import nn

from faithdiff_core.color_fix import fix_colors
from faithdiff_core.fidelity_decoder.network import FidelityDecoder
from faithdiff_core.fidelity_decoder.sizes import FidelityDecoderSizes
from training.cli import main
from training.common.images import read_image, to_unit, write_png
from training.model.networks import build_vae, network_spec
from training.model.restore import restore
from training.weights.fidelity_files import write_fidelity_decoder

DEMO = Path(__file__).resolve().parents[3] / "demo"
FILES = ("--model", str(DEMO / "nano_faithdiff.safetensors"), "--vae", str(DEMO / "nano_vae.safetensors"))


def made_up_decoder(sizes: FidelityDecoderSizes) -> FidelityDecoder:
    """Random everywhere, the last layer too, so that it changes pictures; only a little, so that few values are clamped."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = FidelityDecoder(sizes, operations=nn)
    decoder.conv_out.weight.data *= 0.3
    return decoder.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """Model, VAE and an LQ picture that is no multiple of 8 px at twice its size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = build_vae(network_spec("tiny")).eval().requires_grad_(False)
    return {"model": made_up_model(tiny()).eval(), "vae": vae, "lq_CHW": to_unit(picture(0, 18, 21)), "scale": 2, "target_px": 64}


def test_fidelity_is_the_share_of_what_the_decoder_changes(parts: dict[str, Any]) -> None:
    decoder = made_up_decoder(network_spec("tiny").fidelity_decoder)
    made = {f: restore(**parts, steps=1, colour="none", decoder=decoder, fidelity=f) for f in (0.0, 0.5, 1.0)}
    plain = restore(**parts, steps=1, colour="none")
    assert plain.shape == (3, 36, 42)
    assert torch.equal(made[0.0], plain)
    assert relative_difference(made[1.0], plain) > CHANGED
    inside = ((made[1.0] > 0) & (made[1.0] < 1)) & ((plain > 0) & (plain < 1))
    assert inside.float().mean() > 0.3
    assert_close(made[0.5][inside], (plain[inside] + made[1.0][inside]) / 2, ONE_MODULE)


def test_colours_come_after_the_decoder(parts: dict[str, Any]) -> None:
    decoder = made_up_decoder(network_spec("tiny").fidelity_decoder)
    corrected = restore(**parts, steps=1, colour="none", decoder=decoder)
    enlarged = torch.nn.functional.interpolate(parts["lq_CHW"][None], scale_factor=2, mode="bicubic").clamp(0, 1)
    expected = fix_colors(corrected[None], enlarged, "adain")[0]
    assert_close(restore(**parts, steps=1, colour="adain", decoder=decoder), expected, ONE_MODULE)


def test_the_command_takes_a_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "in" / "a.png", picture(0, 32, 40))
    for name in ("nano", "tiny"):
        sizes = network_spec(name).fidelity_decoder
        weights = made_up_decoder(sizes).state_dict()
        write_fidelity_decoder(tmp_path / f"{name}_fidelity.safetensors", weights, sizes, training={}, licence="MIT")

    def run(out: str, *options: str) -> tuple[int, str]:
        asked = ["restore", str(tmp_path / "in"), str(tmp_path / out), *FILES, "--scale", "1", "--steps", "1", *options]
        return main(asked), capsys.readouterr().err

    decoder = ("--decoder", str(tmp_path / "nano_fidelity.safetensors"))
    assert run("plain")[0] == run("zero", *decoder, "--fidelity", "0")[0] == run("one", *decoder)[0] == 0
    plain, zero, one = (read_image(tmp_path / name / "a.png") for name in ("plain", "zero", "one"))
    assert torch.equal(plain, zero) and not torch.equal(plain, one)
    for options, message in (
        (
            ("--decoder", str(tmp_path / "tiny_fidelity.safetensors")),
            "for LQ features of 128 channels, which the model's are, got ",
        ),
        (("--decoder", FILES[1]), "expected a file of a fidelity decoder"),
        (("--fidelity", "0.5"), "expected --decoder FILE with --fidelity"),
        ((*decoder, "--fidelity", "nan"), "expected --fidelity from 0 to 1, got nan"),
    ):
        code, err = run("wrong", *options)
        assert code == 2 and message in err and err.startswith("error: expected") and err.count("\n") == 1, err
    assert not (tmp_path / "wrong").exists()
