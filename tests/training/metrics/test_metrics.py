"""Each convention against another implementation, on 20 pairs of real pictures; networks on weights made up here."""

from __future__ import annotations

import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torchvision
from skimage.color import rgb2ycbcr, rgb2yiq
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from support.compare import FIGURE, assert_close
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from training.common.images import write_png
from training.evaluate.scores import score_rows
from training.metrics.catalogue import ALIASES, DEFAULT_METRICS, METRICS
from training.metrics.networks import WEIGHT_FILES
from training.metrics.own import OWN, ssim_map

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "evaluation.md"
NAMES = ("astronaut", "coffee", "chelsea", "rocket", "colorwheel")
SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
WINDOW_PX, REACH_PX = 11, 5

Pair = tuple[np.ndarray, np.ndarray]


def pairs() -> list[Pair]:
    """(picture, reference) as float64 (90, 110, 3) in whole steps of 1/255: each photo noisy, blurred, darkened, shifted.

    No pixel has a Y of YIQ halfway between two steps: that is rounded by the last bit of whoever has added it up."""
    made = []
    for index, name in enumerate(NAMES):
        photo = without_ties(getattr(skimage.data, name)()[100:190, 100:210, :3]) / 255.0
        noise = np.random.default_rng(index).normal(0, 0.08, photo.shape)
        for changed in (photo + noise, gaussian(photo, 2, channel_axis=2), photo * 0.7, np.roll(photo, (3, 2), (0, 1))):
            made.append((without_ties(np.round(changed.clip(0, 1) * 255)) / 255, photo))
    return made


def without_ties(levels_HWC: np.ndarray) -> np.ndarray:
    """Levels 0 to 255, blue a step further where 0.299 R + 0.587 G + 0.114 B ends in .5."""
    levels = levels_HWC.astype(np.int64)
    ties = levels @ np.array([299, 587, 114]) % 1000 == 500
    levels[..., 2] += np.where(ties, np.where(levels[..., 2] < 255, 1, -1), 0)
    return levels


PAIRS = pairs()


def tensor(image_HWC: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image_HWC).permute(2, 0, 1).float()


def luma(image_HWC: np.ndarray) -> np.ndarray:
    return rgb2ycbcr(image_HWC)[..., 0] / 255


def rounded_yiq(image_HWC: np.ndarray) -> np.ndarray:
    return np.round(rgb2yiq(image_HWC)[..., 0] * 255) / 255


def expected(name: str, picture: np.ndarray, reference: np.ndarray) -> float:
    """The same convention in scikit-image's words."""
    if name == "psnr_rgb":
        return peak_signal_noise_ratio(reference, picture, data_range=1.0)
    if name == "psnr_y":
        return peak_signal_noise_ratio(luma(reference), luma(picture), data_range=1.0)
    if name == "ssim_rgb":
        return structural_similarity(reference, picture, channel_axis=2, **SSIM)
    if name == "ssim_y":
        return structural_similarity(luma(reference), luma(picture), **SSIM)
    assert name == "ssim_yiq", name
    _, full = structural_similarity(rounded_yiq(reference), rounded_yiq(picture), full=True, **SSIM)
    return full[REACH_PX:-REACH_PX, REACH_PX:-REACH_PX].clip(min=0).mean()


@pytest.mark.parametrize("name", OWN)
def test_scikit_image_says_the_same(name: str) -> None:
    assert len(PAIRS) == 20
    for picture, reference in PAIRS:
        assert OWN[name](tensor(picture), tensor(reference)) == pytest.approx(expected(name, picture, reference), rel=FIGURE)


def test_a_default_needs_no_weights() -> None:
    assert DEFAULT_METRICS and set(DEFAULT_METRICS) <= set(OWN)


def test_positions_are_those_where_the_whole_window_fits() -> None:
    picture, reference = PAIRS[0]
    _, full = structural_similarity(reference, picture, channel_axis=2, full=True, win_size=WINDOW_PX, **SSIM)
    ours = ssim_map(tensor(picture), tensor(reference))
    assert ours.shape == (80, 100)
    inside = full[REACH_PX:-REACH_PX, REACH_PX:-REACH_PX].mean(axis=2)
    assert_close(ours, inside, FIGURE)


def test_torchmetrics_says_the_same_inside() -> None:
    """Its SSIM takes the mean of the whole map, reflected borders included; inside them the maps agree."""
    for picture, reference in PAIRS[::4]:
        x, y = tensor(picture)[None].double(), tensor(reference)[None].double()
        assert OWN["psnr_rgb"](x[0], y[0]) == pytest.approx(torchmetrics_psnr(x, y, data_range=1.0).item(), rel=FIGURE)
        _, full = torchmetrics_ssim(x, y, data_range=1.0, return_full_image=True)
        inside = full[0, :, REACH_PX:-REACH_PX, REACH_PX:-REACH_PX]
        assert OWN["ssim_rgb"](x[0], y[0]) == pytest.approx(inside.mean().item(), rel=FIGURE)


def test_conventions_are_not_one_another() -> None:
    picture, reference = (tensor(image) for image in PAIRS[0])
    values = {name: function(picture, reference) for name, function in OWN.items()}
    assert values["psnr_y"] > values["psnr_rgb"] + 1.0
    ssims = sorted(value for name, value in values.items() if name.startswith("ssim"))
    assert ssims[1] - ssims[0] > 1e-3 and ssims[2] - ssims[1] > 1e-3


def test_ssim_of_a_negative_is_0_in_pyiqas_convention_only() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(3, 20, 20, generator=generator)
    assert OWN["ssim_rgb"](1 - picture, picture) < -0.5
    assert OWN["ssim_yiq"](1 - picture, picture) == 0.0


# LPIPS and DISTS


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any attempt to reach the network fails the test, even where it is caught."""
    tried: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError(f"the network was tried: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    yield
    assert not tried


def made_up_weights(folder: Path, name: str, seed: int) -> None:
    """The metric's weight file: seeded convolutions; one number stands for every classifier weight, which nothing here uses."""
    build = {"lpips": torchvision.models.alexnet, "dists": torchvision.models.vgg16}[name]
    with torch.device("meta"):
        shapes = build(weights=None).state_dict()
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: torch.randn(value.shape, generator=generator) * 0.05
        if key.startswith("features")
        else torch.zeros(()).expand(value.shape)
        for key, value in shapes.items()
    }
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / WEIGHT_FILES[name])


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, dict[str, Path]]:
    """Rows `same` and `noisy` of two pictures, and their references."""
    rows: dict[str, dict[str, Path]] = {"same": {}, "noisy": {}, "reference": {}}
    for index, key in enumerate(("a", "b")):
        picture, reference = (torch.round(tensor(image) * 255).to(torch.uint8) for image in PAIRS[4 * index])
        for row, image in (("same", reference), ("noisy", picture), ("reference", reference)):
            rows[row][key] = tmp_path / row / f"{key}.png"
            write_png(rows[row][key], image)
    return rows


def test_lpips_runs_on_the_file_given(tmp_path: Path, folders: dict[str, dict[str, Path]], offline: None) -> None:
    reference = folders.pop("reference")
    found = {}
    for name, seed in (("first", 0), ("again", 0), ("second", 1)):
        made_up_weights(tmp_path / name, "lpips", seed)
        scores = score_rows(folders, reference, ["lpips"], weights=tmp_path / name, progress=False)
        assert not scores.not_computed
        assert all(value == pytest.approx(0.0, abs=1e-7) for value in scores.values["same"]["lpips"].values())
        found[name] = scores.values["noisy"]["lpips"]
        assert "not the published file" in scores.notes["lpips"]
    assert all(value is not None and value > 1e-4 for value in found["first"].values())
    assert found["first"] == found["again"], "weights drawn anew would differ"
    assert found["first"] != found["second"]
    assert torch.hub.get_dir().endswith("hub"), "torch's own folder is put back"


def test_dists_runs_on_the_file_given(tmp_path: Path, folders: dict[str, dict[str, Path]], offline: None) -> None:
    reference = folders.pop("reference")
    made_up_weights(tmp_path / "weights", "dists", 0)
    scores = score_rows(folders, reference, ["dists"], weights=tmp_path / "weights", progress=False)
    assert all(value == pytest.approx(0.0, abs=1e-5) for value in scores.values["same"]["dists"].values())
    assert all(value is not None and 1e-3 < value < 1 for value in scores.values["noisy"]["dists"].values())


def test_what_is_absent_is_listed_and_never_downloaded(
    tmp_path: Path, folders: dict[str, dict[str, Path]], offline: None
) -> None:
    reference = folders["reference"]
    asked = ["psnr", "lpips", "lpips_vgg", "dists", "musiq"]
    scores = score_rows(folders, reference, asked, progress=False)
    assert list(scores.metrics) == ["psnr_rgb"] and set(scores.values["noisy"]) == {"psnr_rgb"}
    assert scores.not_computed == {
        "lpips": "needs alexnet-owt-7be5be79.pth, name the folder that holds it with --weights",
        "lpips_vgg": "needs vgg16-397923af.pth, name the folder that holds it with --weights",
        "dists": "needs vgg16-397923af.pth, name the folder that holds it with --weights",
        "musiq": "needs --pyiqa, see docs/evaluation.md",
    }
    empty = tmp_path / "empty"
    empty.mkdir()
    scores = score_rows(folders, reference, ["lpips"], weights=empty, progress=False)
    assert scores.not_computed["lpips"] == f"expected alexnet-owt-7be5be79.pth in {empty}, got no such file"
    (empty / WEIGHT_FILES["lpips"]).write_bytes(b"<html>not found</html>")
    scores = score_rows(folders, reference, ["lpips"], weights=empty, progress=False)
    assert scores.not_computed["lpips"].startswith("expected torchvision's weights in")
    torch.save({"features.0.weight": torch.zeros(1)}, empty / WEIGHT_FILES["lpips"])
    scores = score_rows(folders, reference, ["lpips"], weights=empty, progress=False)
    assert scores.not_computed["lpips"].startswith("expected torchvision's weights in")
    assert scores.values["noisy"] == {}


def test_a_picture_too_small_for_a_metric_costs_that_metric_only(tmp_path: Path) -> None:
    paths = {}
    for row in ("row", "reference"):
        paths[row] = {"tiny": tmp_path / row / "tiny.png"}
        write_png(paths[row]["tiny"], torch.full((3, 8, 9), 90 if row == "row" else 100, dtype=torch.uint8))
    scores = score_rows({"row": paths["row"]}, paths["reference"], ["psnr_rgb", "ssim_rgb"], progress=False)
    assert set(scores.values["row"]) == {"psnr_rgb"}
    assert scores.not_computed["ssim_rgb"] == "'tiny' of row: expected at least 11 px at each side, got 9 x 8, leave it out"


def test_the_documented_metrics_are_those_that_are_there() -> None:
    """The table of docs/evaluation.md: every name and alias with its direction, and no other."""
    rows = re.findall(r"^\| (`.*) \| (higher|lower) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    found: dict[str, bool] = {}
    for names, better in rows:
        for name, alias in re.findall(r"`([^`]+)`(?: \(or `([^`]+)`\))?", names):
            found[name] = better == "higher"
            assert not alias or ALIASES[alias] == name
    assert found == {name: metric.higher_is_better for name, metric in METRICS.items()}
