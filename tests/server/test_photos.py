"""FaithDiff Load Photo and FaithDiff Save Photo on a real server: the whole table of photos, names, what the page is told."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostrun.client import Client, PromptFailed, PromptRejected
from hostrun.paths import ROOT
from hostrun.server import HostServer
from PIL import Image
from support.patience import PATIENCE_S
from support.photos import CAMERA, all_cases, alpha, card, differences

from faithdiff_core.photo.read import read_photo

SAVING = {
    "filename": "%name%", "format": "as source", "bit_depth": "as source", "color_profile": "as source", "quality": 95,
    "metadata": True, "workflow": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(server: HostServer) -> tuple[Path, Path]:
    """Input and output folder, with the table's pictures in the first."""
    input_folder, output_folder = server.options.base / "input", server.options.base / "output"
    for case in all_cases():
        (input_folder / f"t-{case.file_name}").write_bytes(case.data)
    return input_folder, output_folder


def load(name: str) -> dict[str, Any]:
    return {"class_type": "FaithDiffLoadPhoto", "inputs": {"image": name}}


def save(image: list[Any], photo: list[Any] | None, **inputs: Any) -> dict[str, Any]:
    linked = {"image": image} | ({"photo": photo} if photo else {})
    return {"class_type": "FaithDiffSavePhoto", "inputs": SAVING | linked | inputs}


def saved(history: dict[str, Any], node: str) -> list[dict[str, str]]:
    return history["outputs"][node]["photos"]


def test_every_picture_of_the_table_comes_out_as_it_went_in(client: Client, folders: tuple[Path, Path]) -> None:
    prompt: dict[str, Any] = {}
    for case in all_cases():
        prompt[f"load {case.name}"] = load(f"t-{case.file_name}")
        linked = ([f"load {case.name}", 0], [f"load {case.name}", 2])
        prompt[f"save {case.name}"] = save(*linked, filename="table/%name%", quality=100)
    history = client.run(prompt, PATIENCE_S)
    wrong = []
    for case in all_cases():
        (entry,) = saved(history, f"save {case.name}")
        path = folders[1] / entry["subfolder"] / entry["filename"]
        photo = read_photo(path.read_bytes(), path.name)
        difference = differences(photo.color_HWC, case)
        lossy = case.container == "JPEG"  # a second time; the mean says whether the colours are right
        container = case.container if case.container in ("PNG", "JPEG", "WEBP", "TIFF") else "PNG"
        with Image.open(path) as opened:
            camera, orientation = opened.getexif().get(0x0110), opened.getexif().get(0x0112, 1)
            facts = [opened.format == container, not case.has_metadata or camera == CAMERA, orientation == 1]
        facts += [
            path.stem == f"t-{case.name}",
            photo.source.depth_bits == case.depth_bits,
            photo.source.profile == case.profile,
            photo.source.has_alpha == (case.alpha_HW is not None),
            difference.mean() < 4 if lossy else difference.max() <= case.tolerance + 1,
        ]
        if not all(facts):
            wrong.append((case.name, facts, difference.max()))
    assert not wrong


def test_an_upload_is_loaded_and_nothing_is_written_over(client: Client, folders: tuple[Path, Path]) -> None:
    names = []
    for quality in (90, 91, 92):  # another each time, or the host would not run it again
        nodes = {"load": load("t-p3-jpeg.jpg"), "save": save(["load", 0], ["load", 2], filename="again/%name%", quality=quality)}
        names += saved(client.run(nodes), "save")
    assert [entry["filename"] for entry in names] == ["t-p3-jpeg.jpg", "t-p3-jpeg_2.jpg", "t-p3-jpeg_3.jpg"]
    assert all(entry["subfolder"] == "again" and entry["type"] == "output" for entry in names)
    assert not [path for path in (folders[1] / "again").iterdir() if path.name.startswith(".")]


def test_the_page_is_told_what_was_loaded_and_saved(client: Client, folders: tuple[Path, Path]) -> None:
    prompt = {
        "load": load("t-deep-p3-tiff.tif"),
        "tiff": save(["load", 0], ["load", 2], filename="told/deep"),
        "jpeg": save(["load", 0], ["load", 2], filename="told/deep", format="JPEG"),
    }
    history = client.run(prompt)
    (facts,) = history["outputs"]["load"]["text"]
    assert "96x64 px, 16 bit, TIFF, own colour profile" in facts
    assert saved(history, "tiff") == [{"filename": "deep.tif", "subfolder": "told", "type": "output"}]
    (shown,) = history["outputs"]["tiff"]["images"]
    assert shown["type"] == "temp" and shown["filename"].endswith(".png"), "browsers show no TIFF"
    assert history["outputs"]["jpeg"]["images"] == saved(history, "jpeg")
    assert "8 bits" in history["outputs"]["jpeg"]["text"][0] and "told/deep.jpg" in history["outputs"]["jpeg"]["text"][0]


def test_the_workflow_is_in_the_file_unless_it_is_not_wanted(client: Client, folders: tuple[Path, Path]) -> None:
    for container, suffix in (("PNG", "png"), ("WebP", "webp")):
        for wanted in (True, False):
            prompt = {"load": load("t-plain-png.png"), "save": save(["load", 0], None, format=container, workflow=wanted)}
            (entry,) = saved(client.run(prompt), "save")
            assert entry["filename"].startswith("restored") and entry["filename"].endswith(suffix)
            with Image.open(folders[1] / entry["filename"]) as image:
                texts = image.info.get("prompt") or str(image.getexif().get(0x0110, "")).removeprefix("prompt:")
            kinds = {key: node["class_type"] for key, node in json.loads(texts or "{}").items()}
            assert kinds == ({key: node["class_type"] for key, node in prompt.items()} if wanted else {})


def test_a_mask_takes_the_place_of_alpha(client: Client, folders: tuple[Path, Path]) -> None:
    prompt = {
        "load": load("t-rgba-png.png"),
        "unpainted": load("t-plain-png.png"),
        "half": {"class_type": "SolidMask", "inputs": {"value": 0.25, "width": 48, "height": 32}},
        "save": save(["load", 0], ["load", 2], filename="masked"),
        "not": save(["load", 0], ["load", 2], filename="masked", mask=["unpainted", 1]),
        "masked": save(["load", 0], ["load", 2], filename="masked", mask=["half", 0]),
    }
    history = client.run(prompt)
    found = []
    for node in ("save", "not", "masked"):
        (entry,) = saved(history, node)
        found.append(read_photo((folders[1] / entry["filename"]).read_bytes(), "x.png"))
    assert np.array_equal(found[0].alpha_HW, alpha()) and np.array_equal(found[0].color_HWC[alpha() > 0], card()[alpha() > 0])
    assert np.array_equal(found[1].alpha_HW, alpha()), "a mask of 64 x 64 px is that of an opaque picture"
    assert found[2].alpha_HW is not None and (found[2].alpha_HW == 191).all()


def test_alpha_is_enlarged_with_the_picture(client: Client, folders: tuple[Path, Path]) -> None:
    prompt = {
        "load": load("t-rgba-png.png"),
        "up": {"class_type": "FaithDiffUpscale",
               "inputs": {"image": ["load", 0], "target": "scale factor", "target.factor": 2.0}},
        "save": save(["up", 0], ["load", 2], filename="enlarged"),
    }  # fmt: skip
    (entry,) = saved(client.run(prompt), "save")
    photo = read_photo((folders[1] / entry["filename"]).read_bytes(), "x.png")
    assert photo.alpha_HW is not None and photo.color_HWC.shape == (128, 192, 3)
    assert (photo.alpha_HW[:4] == 0).all() and (photo.alpha_HW[30:, 60:] == 255).all()
    inside = photo.color_HWC[20:90, 30:36].reshape(-1, 3).mean(0)  # red, beside what was magenta
    assert np.abs(inside - card()[20, 18]).max() < 8


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"filename": "../out"}, "expected a name inside ComfyUI's output folder"),
        ({"filename": "/etc/x"}, "expected a name inside ComfyUI's output folder"),
    ],
)
def test_a_place_outside_is_refused(client: Client, folders: tuple[Path, Path], change: dict[str, Any], told: str) -> None:
    prompt = {"load": load("t-plain-png.png"), "save": save(["load", 0], ["load", 2], **change)}
    with pytest.raises(PromptFailed, match=told):
        client.run(prompt)


def test_a_broken_or_missing_picture_is_named(client: Client, folders: tuple[Path, Path]) -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(file, "JPEG")
    (folders[0] / "cut.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) * 2 // 3])
    with pytest.raises(PromptFailed, match=r"expected a readable picture, got cut\.jpg \(.*truncated"):
        client.run({"load": load("cut.jpg"), "save": save(["load", 0], None)})
    with pytest.raises(PromptRejected, match="which is not there; upload it again"):
        client.run({"load": load("nowhere.png"), "save": save(["load", 0], None)})


def test_a_batch_is_numbered(client: Client, folders: tuple[Path, Path]) -> None:
    prompt = {
        "load": load("t-plain-png.png"),
        "many": {"class_type": "RepeatImageBatch", "inputs": {"image": ["load", 0], "amount": 3}},
        "save": save(["many", 0], ["load", 2], filename="batch/%name%-%width%"),
    }
    names = [entry["filename"] for entry in saved(client.run(prompt), "save")]
    assert names == [f"t-plain-png-96_{number:04d}.png" for number in (1, 2, 3)]


def test_a_shipped_workflow_keeps_all_that_the_photo_has(client: Client, folders: tuple[Path, Path]) -> None:
    """The nano template on a photo in Display P3 with alpha: enlarged, restored, saved as it came."""
    prompt = json.loads((ROOT / "workflows" / "api" / "faithdiff_nano.json").read_text())
    (loader,) = [node for node in prompt.values() if node["class_type"] == "FaithDiffLoadPhoto"]
    loader["inputs"]["image"] = "t-rgba-p3-png.png"
    for node in prompt.values():
        if node["class_type"] == "FaithDiffSampler":
            node["inputs"]["steps"] = 2
    outputs = client.run(prompt, PATIENCE_S)["outputs"]
    ((entry,),) = [output["photos"] for output in outputs.values() if "photos" in output]
    path = folders[1] / entry["subfolder"] / entry["filename"]
    photo = read_photo(path.read_bytes(), path.name)
    case = next(case for case in all_cases() if case.name == "rgba-p3-png")
    assert path.stem == "t-rgba-p3-png" and photo.source.profile == case.profile
    assert photo.alpha_HW is not None and photo.color_HWC.shape == (128, 192, 3)
    scale = 257 if photo.alpha_HW.dtype == np.uint16 else 1
    assert (photo.alpha_HW[:4] == 0).all() and (photo.alpha_HW[30:, 60:] == 255 * scale).all()


PASSING = {
    "photo": {
        "1": {"class_type": "FaithDiffLoadPhoto", "inputs": {"image": "x.png"}},
        "2": {
            "class_type": "FaithDiffSavePhoto",
            "inputs": SAVING | {"image": ["1", 0], "photo": ["1", 2], "quality": 100, "workflow": False},
        },
    },
    "image": {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    },
}
"""Workflows that change nothing."""


@pytest.mark.parametrize("nodes", PASSING)
def test_a_folder_through_the_queue_comes_out_whole(nodes: str, server: HostServer, tmp_path: Path) -> None:
    """By our nodes and by the host's: the same but for the format, and for what 8 bits can hold."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for case in all_cases():
        (source / case.file_name).write_bytes(case.data)
    (tmp_path / "workflow.json").write_text(json.dumps(PASSING[nodes]))
    command = [sys.executable, "-m", "training", "restore", source, out, "--workflow", tmp_path / "workflow.json"]
    done = subprocess.run(
        [*map(str, command), "--server", server.url, "--ahead", "8"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(all_cases())} done" in done.stdout
    record = json.loads((out / "restore.json").read_text())["pictures"]
    wrong = []
    for case in all_cases():
        path = out / record[case.name]["result"]
        photo = read_photo(path.read_bytes(), path.name)
        difference = differences(photo.color_HWC, case)
        kept = case.container if nodes == "photo" and case.container in ("PNG", "JPEG", "WEBP", "TIFF") else "PNG"
        # What JPEG loses a second time; 8 bits of a wide space where it is dark.
        coarse = 12.0 if kept == "JPEG" else 6.0 if nodes == "image" and case.profile else 0.0
        facts = [
            photo.source.container == kept,
            photo.source.profile == case.profile,
            photo.source.has_alpha == (case.alpha_HW is not None),
            (photo.source.exif is not None, photo.source.xmp is not None) == (case.has_metadata, case.has_metadata),
            photo.source.depth_bits == (case.depth_bits if nodes == "photo" else 8),
            difference.mean() < 4 if kept == "JPEG" else difference.max() <= case.tolerance + 1 + coarse,
        ]
        if not all(facts):
            wrong.append((case.name, facts, difference.max()))
    assert not wrong
