"""`evaluate`: what is compared with what, what the report says, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from support.compare import ONE_MODULE
from support.trainer import picture

from training.cli import main
from training.common.images import read_image, write_png
from training.evaluate.rows import named_folders
from training.evaluate.scores import score_rows
from training.metrics.own import psnr_db, ssim_yiq
from training.metrics.pyiqa_runner import pyiqa_metrics

HEIGHT_PX, WIDTH_PX = 40, 56
KEYS = ("a", "b", "sub/c")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """reference/, better/ (a is the reference itself), worse/ and lq/ (a quarter of the side), three pictures each."""
    for index, key in enumerate(KEYS):
        truth = picture(index, HEIGHT_PX, WIDTH_PX)
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(index)) * (index + 1)
        for row, strength in (("reference", 0.0), ("better", 2.0 * index), ("worse", 9.0)):
            made = (truth + strength * noise).round().clamp(0, 255).to(torch.uint8)
            write_png(tmp_path / row / f"{key}.png", made)
        write_png(tmp_path / "lq" / f"{key}.png", truth[:, ::4, ::4])
    return tmp_path


def evaluate(folders: Path, *more: str, restored: tuple[str, ...] = ("better",)) -> int:
    rows = [part for row in restored for part in ("--restored", row if "=" in row else str(folders / row))]
    out = [] if "--out" in more else ["--out", str(folders / "out" / "report.json")]
    return main(["evaluate", *rows, "--reference", str(folders / "reference"), *out, *more])


def test_rows_differences_and_the_worst(folders: Path) -> None:
    more = ("--lq", str(folders / "lq"), "--metrics", "psnr,ssim_yiq", "--worst", "2")
    assert evaluate(folders, *more, restored=(f"good={folders / 'better'}", f"bad={folders / 'worse'}")) == 0
    report = json.loads((folders / "out" / "report.json").read_text())
    assert list(report["rows"]) == ["good", "bad", "lq"] and list(report["metrics"]) == ["psnr_rgb", "ssim_yiq"]
    good = report["rows"]["good"]["psnr_rgb"]
    assert (good["count"], good["not_finite"]) == (2, 1), "equal pictures are counted and in no mean"
    assert report["pictures"]["a"]["scores"]["good"]["psnr_rgb"] is None
    values = [
        psnr_db(*(read_image(folders / row / f"{key}.png").float() / 255 for row in ("better", "reference"))) for key in KEYS[1:]
    ]
    assert good["mean"] == pytest.approx(sum(values) / 2) and good["low"] == pytest.approx(min(values))
    assert report["rows"]["good"]["ssim_yiq"]["count"] == 3
    assert report["against"] == "lq" and list(report["differences"]) == ["good", "bad"]
    paired = report["differences"]["bad"]["psnr_rgb"]
    by_picture = [report["pictures"][key]["scores"] for key in KEYS]
    assert paired["mean"] == pytest.approx(sum(row["bad"]["psnr_rgb"] - row["lq"]["psnr_rgb"] for row in by_picture) / 3)
    worst = report["worst"]
    assert (worst["row"], worst["by"], worst["columns"]) == ("good", "psnr_rgb", ["lq", "good", "bad", "reference"])
    assert [item["key"] for item in worst["pictures"]] == ["sub/c", "b"], "an infinite PSNR is not bad"
    strip = read_image(folders / "out" / worst["pictures"][0]["picture"])
    assert strip.shape == (3, HEIGHT_PX, 4 * WIDTH_PX + 3 * 8)
    assert torch.equal(strip[..., -WIDTH_PX:], read_image(folders / "reference" / "sub" / "c.png"))
    page = (folders / "out" / "report.md").read_text()
    for part in ("| good |", "(∞ 1)", "## Difference to `lq`", "3 of 56 x 40 px", "report_worst/01_sub_c.png", "not comparable"):
        assert part in page, part


def test_the_same_pictures_give_the_same_bytes(folders: Path) -> None:
    def digests() -> dict[str, str]:
        files = [path for path in (folders / "out").rglob("*") if path.is_file()]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    more = ("--lq", str(folders / "lq"), "--metrics", "psnr_y,lpips")
    assert evaluate(folders, *more, "--worst", "3") == 0
    first = digests()
    assert len(first) == 5 - 1, "report.json, report.md, and the two pictures that are not perfect"
    assert evaluate(folders, *more, "--worst", "3") == 0
    assert digests() == first
    assert evaluate(folders, *more, "--worst", "1", "--no-paper") == 0
    assert len(digests()) == 3, "a strip of an earlier report is not left behind"
    assert "not comparable" not in (folders / "out" / "report.md").read_text()


def test_a_border_is_left_out(folders: Path) -> None:
    for key in KEYS:
        path = folders / "better" / f"{key}.png"
        image = read_image(path)
        image[:, :2] = 0
        image[:, :, -2:] = 255
        write_png(path, image)
    assert evaluate(folders, "--border", "2", "--metrics", "psnr") == 0
    report = json.loads((folders / "out" / "report.json").read_text())
    assert report["border_px"] == 2 and report["pictures"]["a"]["scores"]["restored"]["psnr_rgb"] is None
    assert report["against"] is None and report["differences"] == {}


def test_keys_must_match_unless_that_is_allowed(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "better" / "b.png").unlink()
    assert evaluate(folders) == 2
    assert "expected the same keys in all folders, got others (reference alone has 'b')" in capsys.readouterr().err
    assert not (folders / "out").exists()
    assert evaluate(folders, "--allow-missing", "--metrics", "psnr") == 0
    report = json.loads((folders / "out" / "report.json").read_text())
    assert report["count"] == 2 and report["unmatched"] == {"reference": ["b"]}
    assert "left out of reference, because not all folders have them: b" in (folders / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--metrics", "psnr,sim_y"), "did you mean 'ssim_y'?"),
        (("--metrics", ","), "expected at least one metric"),
        (("--worst-by", "lpips"), "expected --worst-by among psnr_rgb"),
        (("--worst", "-1"), "expected --worst from 0 to 99"),
        (("--against", "lq"), "expected --against among restored"),
        (("--border", "20"), "expected --border from 0 to less than half of every picture"),
        (("--weights", "nowhere"), "expected --weights to be a folder"),
        (("--metrics", "niqe", "--pyiqa", "nowhere/python"), "expected --pyiqa to be the Python of an environment with pyiqa"),
        (("--text", "nowhere.json"), "expected --text to be a file of annotations"),
        (("--out", "report.txt"), "expected --out to end in .json"),
        (("--lq", "nowhere"), "which does not exist"),
    ],
)
def test_wrong_options_are_one_line(
    folders: Path, more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(folders, *more) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.startswith("error: expected") and printed.count("\n") == 1
    assert not (folders / "out").exists()


def test_wrong_pictures_are_one_line(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(folders / "better" / "a.png", picture(0, HEIGHT_PX, WIDTH_PX + 1))
    assert evaluate(folders) == 2
    assert "got restored: 'a' 57 x 40 for 56 x 40, restore at the scale of the references" in capsys.readouterr().err
    shutil.copyfile(folders / "reference" / "b.png", folders / "reference" / "b.jpg")
    assert evaluate(folders) == 2
    assert "expected one picture a key" in capsys.readouterr().err


def test_names_of_rows() -> None:
    assert named_folders("--row", ["some/where"]) == {"restored": Path("some/where")}
    assert named_folders("--row", ["x/one", "two=y/2"]) == {"one": Path("x/one"), "two": Path("y/2")}
    assert named_folders("--row", ["runs/cfg=5"]) == {"restored": Path("runs/cfg=5")}
    for wrong in (["lq=x"], ["a=x", "a=y"], ["a|b=x"], ["=x"]):
        with pytest.raises(ValueError, match="expected a name of its own for every --restored"):
            named_folders("--restored", wrong, taken=("lq", "reference"))


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_text_is_read_in_every_row(tmp_path: Path) -> None:
    page = Image.new("RGB", (220, 80), "white")
    ImageDraw.Draw(page).text((20, 20), "garden", fill="black", font=ImageFont.load_default(36))
    for folder, image in (("reference", page), ("better", page), ("lq", page.resize((55, 20)))):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / "sign.png")
    words = [{"text": "garden", "box_px": [20, 27, 142, 62]}]
    (tmp_path / "words.json").write_text(json.dumps({"pictures": {"sign": {"words": words}}}))
    more = ("--lq", str(tmp_path / "lq"), "--metrics", "psnr", "--text", str(tmp_path / "words.json"), "--ocr", "tesseract")
    assert evaluate(tmp_path, *more) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["text"]["scores"]["tesseract"]) == {"restored", "lq", "reference"}
    assert "## Text" in (tmp_path / "out" / "report.md").read_text()
    assert "OCR" in (tmp_path / "out" / "report.md").read_text().partition("not comparable")[2]


# pyiqa, in another interpreter

STAND_IN = '''
"""The four names of pyiqa that the worker uses, with metrics that behave in four ways."""
import socket, types
import torch

__version__ = "0"

def list_models():
    return ["alone", "pair", "wants-a-file", "downloads"]

def create_metric(name, device):
    if name == "downloads":
        socket.create_connection(("127.0.0.1", 9))
    if name == "wants-a-file":
        scale = torch.hub.load_state_dict_from_url("https://example.invalid/net-0123abcd.pth")["scale"]
        return Metric("NR", lambda image: image.mean() * scale)
    return Metric("NR", lambda image: image.mean()) if name == "alone" else Metric("FR", lambda a, b: (a - b).abs().mean())

class Metric:
    def __init__(self, mode, function):
        self.metric_mode, self.function, self.lower_better, self.score_range = mode, function, mode == "FR", "0, 1"
    def __call__(self, *images):
        return self.function(*images)
'''


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_pyiqa_runs_in_an_interpreter_of_its_own(folders: Path) -> None:
    (folders / "stand_in").mkdir()
    (folders / "stand_in" / "pyiqa.py").write_text(STAND_IN)
    python = folders / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{folders}/stand_in" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    weights = folders / "weights"
    weights.mkdir()
    torch.save({"scale": torch.tensor(10.0)}, weights / "net-0123abcd.pth")
    paths = {row: {key: folders / row / f"{key}.png" for key in KEYS} for row in ("better", "reference")}
    names = ["psnr", "pyiqa:alone", "pyiqa:pair", "pyiqa:wants-a-file", "pyiqa:downloads", "pyiqa:nothing", "musiq"]
    scores = score_rows(paths, paths["reference"], names, border_px=1, weights=weights, pyiqa=python, progress=False)
    assert list(scores.metrics) == ["psnr_rgb", "pyiqa:alone", "pyiqa:pair", "pyiqa:wants-a-file"]
    mean = {key: (read_image(path)[:, 1:-1, 1:-1].float() / 255).mean().item() for key, path in paths["reference"].items()}
    assert scores.values["reference"] == {
        "pyiqa:alone": pytest.approx(mean, rel=ONE_MODULE),
        "pyiqa:wants-a-file": pytest.approx({key: 10 * value for key, value in mean.items()}, rel=ONE_MODULE),
    }, "what compares leaves the reference out"
    assert scores.values["better"]["pyiqa:pair"]["a"] == 0.0 and scores.values["better"]["pyiqa:pair"]["b"] > 0.001
    assert scores.metrics["pyiqa:pair"].higher_is_better is False and scores.metrics["pyiqa:alone"].higher_is_better is True
    assert (
        scores.notes["pyiqa:wants-a-file"].startswith("pyiqa 0 on ") and "net-0123abcd.pth" in scores.notes["pyiqa:wants-a-file"]
    )
    assert set(scores.not_computed) == {"pyiqa:downloads", "pyiqa:nothing", "musiq"}
    assert "got no such file" in scores.not_computed["pyiqa:downloads"]
    assert scores.not_computed["musiq"] == "pyiqa 0 has no metric 'musiq'"


@pytest.mark.skipif("PYIQA_PYTHON" not in os.environ, reason="PYIQA_PYTHON names no Python of an environment with pyiqa")
def test_the_real_pyiqa_agrees(folders: Path) -> None:
    paths = {row: {key: folders / row / f"{key}.png" for key in KEYS} for row in ("worse", "reference")}
    found = pyiqa_metrics(
        ["psnr", "ssim", "niqe"], {"worse": paths["worse"]}, paths["reference"], reference_row="reference", border_px=0,
        weights=None, python=Path(os.environ["PYIQA_PYTHON"]), progress=False,
    )  # fmt: skip
    for key in KEYS:
        pair = [read_image(paths[row][key]).float() / 255 for row in ("worse", "reference")]
        # pyiqa adds 1e-8 to the squared error, and works in float32 before it rounds the luma.
        assert found["psnr"].values["worse"][key] == pytest.approx(psnr_db(*pair), abs=1e-3)
        assert found["ssim"].values["worse"][key] == pytest.approx(ssim_yiq(*pair), abs=1e-4)
    assert found["niqe"].reason == "needs niqe_modelparameters.mat, name the folder that holds it with --weights"
