"""The benchmarks measure what their rows say: at the nano size and a few cells, one round."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import growth  # noqa: E402
import load_memory  # noqa: E402
import made_up  # noqa: E402
import predictions  # noqa: E402
import step_official  # noqa: E402
import step_supir  # noqa: E402
import step_time  # noqa: E402
from comfyui_faithdiff.nodes.load_model import load  # noqa: E402
from rows import Options, Skipped, compared, in_turn  # noqa: E402
from support.compare import CHANGED, relative_difference  # noqa: E402
from support.tiles import counted  # noqa: E402

SIDE_PX = 64
SMALL = Options(size="nano", px=SIDE_PX, rounds=1)


@pytest.fixture(scope="module")
def made():
    return made_up.made_up("nano")


@pytest.fixture
def same_weights(made, monkeypatch):
    """One made-up MODEL for all; what is measured in it is looked at."""
    monkeypatch.setattr(made_up, "made_up", lambda _size: made)
    return made


def test_ways_take_turns_and_the_first_round_does_not_count():
    order = []
    now = iter(range(100))
    seconds = in_turn({n: lambda n=n: order.append(n) for n in "ab"}, rounds=2, clock=lambda: float(next(now)))
    assert order == list("ababab") and seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    row = compared("what", {"a": [1.0, 6.0, 2.0], "b": [2.0, 2.0, 2.0]}, "a", "b", notes="")
    assert (row.name, row.ratio_min, row.ratio_median, row.ratio_max) == ("what: a / b", 0.5, 1.0, 3.0)
    assert (row.a_seconds, row.b_seconds) == (2.0, 2.0)


def test_runs_inside_one_another_predict_what_each_does_alone(made):
    """The MODELs share one network, and each has features of its own."""
    features = [made_up.features_of(made, SIDE_PX, SIDE_PX) for _ in range(2)]
    features[1].features_BCHW.neg_()
    models = {"first": made_up.aligned(made, features[0]), "second": made_up.aligned(made, features[1]), "bare": made.model}
    x_BCHW, sigma = predictions.noisy(made.model, 8, 8)
    prompts = made_up.prompts(made.widths)

    def all_of(predicts):
        return {name: predict() for name, predict in predicts.items()}

    nested = predictions.together(models, prompts, x_BCHW, sigma, all_of)
    for name, model in models.items():
        alone = predictions.together({name: model}, prompts, x_BCHW, sigma, all_of)[name]
        torch.testing.assert_close(nested[name], alone, rtol=0, atol=0)
        others = [other for other in nested if other != name]
        assert all(relative_difference(nested[other], alone) > CHANGED for other in others)


def test_a_step_is_measured_with_and_without_alignment(same_weights):
    seen = []
    hook = same_weights.faithdiff.alignment.model.register_forward_hook(lambda *_: seen.append(1))
    try:
        (row,) = step_time.step(SMALL)
    finally:
        hook.remove()
    assert len(seen) == 2  # of four steps: two rounds of two ways
    assert row.name == "step, nano: FaithDiff / bare UNet" and row.a_seconds > 0 and row.b_seconds > 0


def test_tiles_are_measured_in_calls_of_one_two_and_four(same_weights, monkeypatch):
    whole, shapes = counted(made_up.aligned(same_weights, made_up.features_of(same_weights, SIDE_PX, SIDE_PX * 5 // 2)))
    monkeypatch.setattr(made_up, "aligned", lambda *_: whole)
    rows = step_time.tiles(SMALL)
    one_round = [2] * 4 + [4] * 2 + [8]  # rows of the UNet's calls: two prompts a tile
    assert [shape[0] for shape in shapes] == one_round * 2 and {shape[-2:] for shape in shapes} == {(8, 8)}
    assert [row.name for row in rows] == [f"tiles, nano: {n} tiles a call / 1 tile a call" for n in (2, 4)]


def supir_modules():
    return pytest.importorskip("comfy.ldm.supir.supir_modules", reason="this host has no SUPIR")


def test_supir_acts_in_its_step(same_weights):
    modules = supir_modules()
    ran = []
    network = step_supir.control(modules, same_weights)
    hooks = [module.register_forward_hook(lambda *_: ran.append(1)) for module in network.project_modules]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_supir, "control", lambda *_: network)
        rows = step_supir.supir(SMALL)
    for hook in hooks:
        hook.remove()
    assert len(ran) == 2 * len(network.project_modules)  # each once, in two rounds
    assert [row.name.partition(": ")[2] for row in rows] == ["FaithDiff / SUPIR", "SUPIR / bare UNet", "FaithDiff / bare UNet"]


def test_supirs_adapters_at_other_widths_follow_the_hosts_own():
    """At SDXL's widths, where the host's class has them, the rule gives the same layers."""
    modules = supir_modules()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    factory = {"dtype": torch.float32, "device": torch.device("meta"), "operations": comfy.ops.manual_cast}
    unet = UNetModel(**made_up.SIZES["sdxl"].unet, **factory)

    def shapes(layers):
        return {name: tuple(tensor.shape) for name, tensor in layers.state_dict().items()}

    assert shapes(step_supir.adapters(modules, unet, factory)) == shapes(modules.SUPIR(**factory).project_modules)


def test_what_cannot_run_says_what_is_missing(tmp_path):
    with pytest.raises(Skipped, match="--official FOLDER"):
        step_official.official(SMALL)
    with pytest.raises(ValueError, match="without it; check out"):
        step_official.official_module(str(tmp_path))


@pytest.mark.parametrize("size", made_up.SIZES)
def test_both_spellings_of_a_size_are_one_network(size):
    """The host's UNet and diffusers' by the names that the official comparison shares tensors by."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfyui_faithdiff.faithdiff_core.files.keymap import ldm_to_diffusers
    from diffusers import UNet2DConditionModel

    widths = made_up.SIZES[size]
    meta = {"device": torch.device("meta"), "operations": comfy.ops.disable_weight_init}
    ours = UNetModel(**widths.unet, dtype=torch.float32, **meta).state_dict()
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**widths.diffusers).state_dict()
    names = ldm_to_diffusers(ours)
    assert {names[k]: t.shape for k, t in ours.items()} == {k: t.shape for k, t in theirs.items()}


def test_the_two_files_that_are_loaded_hold_the_same(tmp_path):
    load_memory.write_files(str(tmp_path), "nano", "fp16")
    states = [load(str(tmp_path / f"FaithDiff{suffix}"))[0].model.state_dict() for suffix in load_memory.SUFFIXES]
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_memory_is_told_by_the_size_of_the_file():
    peak = {"seconds": 1.0, "RssAnon": 50, "VmRSS": 100}
    figures, told = load_memory.memory_figures([dict.fromkeys(load_memory.SUFFIXES, peak)], {".bin": 100, ".safetensors": 200})
    assert told.startswith(".bin 0.50, .safetensors 0.25")
    assert figures[".bin copies_bytes"] == 50 and figures[".safetensors resident_bytes"] == 100


def test_growth_of_one_size(same_weights, monkeypatch):
    monkeypatch.setattr(growth, "SMALLEST_PX", 128)
    monkeypatch.setattr(growth, "TILE_PX", 128)
    figures = growth.measured("nano", 256, "cpu")
    assert figures["tiles"] == 9 and all(figures[phase]["seconds"] > 0 for phase in growth.PHASES)


def test_exponents_of_growth(monkeypatch):
    """Encoding takes as long as its pixels, sampling as its tiles."""

    def one_size(_options, side_px):
        tiles = (2 * side_px // 512 - 1) ** 2
        phases = {"encode": side_px**2 / 1e4, "sample": tiles / 10}
        return {"tiles": tiles, **{k: {"seconds": s, "peak_bytes": side_px} for k, s in phases.items()}}

    monkeypatch.setattr(growth, "one_size", one_size)
    rows = growth.growth(Options(px=1024))
    encode, sample, both = rows
    assert encode.figures["exponent_px"] == pytest.approx(1.0)
    assert sample.figures["exponent_tiles"] == pytest.approx(1.0) and sample.figures["tiles"] == 9
    assert sample.figures["exponent_px"] > both.figures["exponent_px"] > 1.0
    assert len(growth.growth(Options(px=2048))) == 6
    assert encode.name == "growth, nano, encode: 1024 px / 512 px"
    with pytest.raises(ValueError, match="1024 or more"):
        growth.growth(Options(px=512))
