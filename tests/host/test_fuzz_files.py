"""Hostile weight files and names: taken or refused in one message; no code runs, nothing is written, little memory is taken.

Short; tests/soak/fuzz_files.py throws the same kinds of files by the hundred thousand."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from comfyui_faithdiff.faithdiff_core.architecture import lq_encoder_sizes
from comfyui_faithdiff.nodes.seam import folders
from comfyui_faithdiff.nodes.seam.nano_vae import load_nano_vae
from comfyui_faithdiff.nodes.seam.weights_file import read_weights
from fuzz.guard import check_message, guarded
from fuzz.host_targets import VAE_CONFIG, network, targets, vae_state
from fuzz.pickle_cases import CANARY, hostile_pickles
from fuzz.target import Tally, Target, throw_many

TAKEN = {"memo index of two billion"}  # an empty table, in the end


@pytest.fixture(scope="module", autouse=True)
def threads_are_there() -> None:
    """A thread takes 130 MiB of address space as it starts (measured), which the watch would put down to the file at hand."""
    torch.ones(2**20).mul(2.0)  # large enough for torch to share it out among all


@pytest.mark.parametrize("target", targets(CANARY), ids=lambda target: target.name)
def test_hostile_files(target: Target, tmp_path: Path) -> None:
    CANARY.unlink(missing_ok=True)
    tally = Tally()
    throw_many(target, tmp_path, cases=target.short, number=0, tally=tally)
    assert not tally.failures, tally.report()
    assert not CANARY.exists()


def test_every_hostile_pickle_is_refused(tmp_path: Path) -> None:
    """Made for this: they run code, take memory or time, or lead out of their archive."""
    path, canary = tmp_path / "case.bin", tmp_path / "canary"
    taken = set()
    for name, case in hostile_pickles(canary).items():
        path.write_bytes(case)
        try:
            with guarded(tmp_path, len(case)):
                read_weights(str(path))
            taken.add(name)
        except ValueError as error:
            check_message(str(error))
        assert not canary.exists(), name
    assert taken == TAKEN


@pytest.mark.parametrize("legacy", [False, True])
def test_sound_pickles_are_taken(tmp_path: Path, legacy: bool) -> None:
    """What torch.save makes of a network, of parameters, of views of one storage, and of all types that weights have."""
    path = tmp_path / "case.bin"
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    rows = torch.arange(12.0).view(3, 4)
    types = [torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64, torch.bool]
    types += [] if legacy else [torch.float8_e4m3fn, torch.uint16]  # which torch does not read back from its older format
    state = net.state_dict() | {"p": torch.nn.Parameter(rows), "views": rows[1:].t(), "again": rows, "scalar": torch.tensor(2.0)}
    state |= {str(dtype): torch.zeros(3).to(dtype) for dtype in types}
    for value in (state, {"state_dict": state, "step": 3, "loss": [0.5, None]}, net.state_dict()):
        torch.save(value, path, _use_new_zipfile_serialization=not legacy)
        found, header = read_weights(str(path))
        expected = value.get("state_dict", value)
        assert header == {} and found.keys() == expected.keys()
        assert all(torch.equal(found[name].float(), expected[name].float()) for name in expected)


def test_a_file_of_too_many_tensors(tmp_path: Path) -> None:
    entries = {
        f"down_blocks.{number}.x": {"dtype": "U8", "shape": [1], "data_offsets": [number, number + 1]} for number in range(20_001)
    }
    header = json.dumps(entries).encode()
    (tmp_path / "many.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(len(entries)))
    with guarded(tmp_path, 2**21), pytest.raises(ValueError, match="many.safetensors: expected .*20001 tensors, 20000 at most"):
        read_weights(str(tmp_path / "many.safetensors"))


@pytest.mark.parametrize("config", [{"lq_encoder": {"block_out_channels": [4]}}, {"lq_encoder": {"norm_groups": 5}}])
def test_the_message_about_an_encoder_of_a_thousand_levels_is_short(config: dict) -> None:
    weights = {f"down_blocks.{level}.resnets.0.conv1.weight": torch.zeros(4, 1) for level in range(1000)}
    with pytest.raises(ValueError, match=r"\(4, 4, 4") as error:
        lq_encoder_sizes({"conv_in.weight": torch.zeros(4, 3), **weights}, config)
    check_message(str(error.value))


def test_names_never_lead_out_of_the_folders(tmp_path: Path) -> None:
    """The host takes what leads upwards off a name."""
    folders.register()
    (tmp_path / "out.safetensors").touch()
    for name in (str(tmp_path / "out.safetensors"), f"../../../../../../..{tmp_path}/out.safetensors", "x/../../out.safetensors"):
        with pytest.raises(ValueError, match="expected the file"):
            folders.weights_path(name)


def test_quantised_weights_of_a_size_that_no_file_has(tmp_path: Path) -> None:
    """Their shapes are not compared, so a small file could say that the network is as wide as it likes."""
    from comfyui_faithdiff.nodes.seam.unet_loader import WEIGHT_DTYPES, load_unet

    prefix = "model.diffusion_model."
    unet = {name.removeprefix(prefix): value for name, value in network()[0].items() if name.startswith(prefix)}
    width = 2**20
    unet["input_blocks.0.0.weight"] = torch.zeros(width, 4, 1, 1)
    unet["time_embed.0.comfy_quant"] = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    with guarded(tmp_path, 2**25), pytest.raises(ValueError, match="get (it|the file) again"):
        load_unet(unet, {}, WEIGHT_DTYPES["default"])


@pytest.mark.parametrize("widths", [[], {}, "", {"0": 1}, "64", [64, 64], [2**20] * 4, [64] * 1000, [True] * 4, [1e30]])
def test_a_nano_vae_of_such_widths_is_refused(tmp_path: Path, widths: object) -> None:
    header = {"faithdiff.vae_config": json.dumps({**VAE_CONFIG, "block_out_channels": widths})}
    with guarded(tmp_path, 2**20), pytest.raises(ValueError, match="expected .*nano VAE.*, got"):
        load_nano_vae(vae_state(), header)


@pytest.mark.parametrize(
    ("entry", "metadata"),
    [
        ({"dtype": "F32", "shape": [2_500_000_000], "data_offsets": [0, 0]}, {}),  # 10 GB in 200 bytes
        ({"dtype": "F32", "shape": [1], "data_offsets": [-4, 4]}, {}),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, {"faithdiff.format": 1}),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, ["faithdiff.format"]),
    ],
)
def test_the_hosts_own_trusting_reader_never_sees_a_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry, metadata) -> None:
    """On NVIDIA cards the host maps files by itself, and takes shapes, offsets and metadata as they come."""
    import comfy.memory_management

    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
    header = json.dumps({"denoise_encoder.x": entry, "__metadata__": metadata}).encode()
    path = tmp_path / "lie.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with (
        guarded(tmp_path, path.stat().st_size),
        pytest.raises(ValueError, match="^lie.safetensors: expected a whole .safetensors"),
    ):
        read_weights(str(path))
