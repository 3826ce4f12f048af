"""The small-scale study on the tiny network: one command, a page of its own figures, the same figures each time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.trainer import QUICK, picture

from training.common.images import read_image, to_unit, write_png
from training.config.overrides import from_json
from training.config.schema import Sources
from training.data import manifest
from training.study import page as study_report
from training.study import study
from training.study.ablate import Trained
from training.study.baselines import noise_sigma
from training.study.methods import Method, Sampling, write_row
from training.study.scores import recalls, unit_means
from training.study.sets import HELD_OUT, SCALE, held_out_photos, photo_set
from training.study.study import StudyInputs, StudyPlan, run_study
from training.study.tables import claim, metric_table
from training.weights.export import export

ROWS, SEEDS = ["unet-only", "joint"], [0, 1]
PLAN = StudyPlan(
    levels=("II",), photo_px=64, text_px=128, text_pictures=2, row_text_pictures=2, font_px=(16,), row_photo_px=32,
    engines=("tesseract",), row_sampling=Sampling(steps=1, colour="wavelet"),
)  # fmt: skip
SETTINGS = [*QUICK, "steps=2", "batch_size=2", "noise_draws=2", "crop_px=32", "latent_crops=4", "target_size_px=32"]
SETTINGS += ["validation_sampling_steps=1", "degradation_scale=2"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, data: Path, chain: Path) -> StudyInputs:
    work = tmp_path_factory.mktemp("study")
    records = [replace(record, split="val" if record.key == "p0" else "train") for record in manifest.read(data)]
    manifest.write(records, work / "manifest.jsonl")
    export(chain / "joint", work / "model.safetensors", layout="full", dtype="fp32", data=None, licence="MIT", base_model="")
    for index in range(2):
        write_png(work / "photos" / f"photo{index}.png", picture(index + 20, 96, 160))
    sources = Sources(data=work / "manifest.jsonl", vae=chain / "vae.safetensors", init=chain / "prior")
    return StudyInputs(sources=sources, model=work / "model.safetensors", vae=chain / "vae.safetensors", photos=work / "photos")


def run(inputs: StudyInputs, folder: Path) -> str:
    page = run_study(inputs, folder / "out", folder / "docs" / "study.md", rows=ROWS, seeds=SEEDS, settings=SETTINGS, plan=PLAN)
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def first(inputs: StudyInputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("first")
    return folder, run(inputs, folder)


@pytest.mark.long
def test_the_study_twice_is_the_same_page(inputs: StudyInputs, first: tuple[Path, str], tmp_path: Path) -> None:
    """Trained, restored and scored twice, in two folders."""
    folder, page = first
    assert run(inputs, tmp_path) == page
    names = sorted(path.relative_to(folder / "docs") for path in (folder / "docs").rglob("*.*"))
    assert [str(name) for name in names] == [
        "pictures/study-curves.png", "pictures/study-photos.jpg", "pictures/study-rows.jpg", "pictures/study-text.jpg",
        "study.md",
    ]  # fmt: skip
    for name in [*names, Path("../out/study.json")]:
        assert (tmp_path / "docs" / name).read_bytes() == (folder / "docs" / name).read_bytes(), name


@pytest.mark.long
def test_a_finished_study_makes_nothing_again(inputs: StudyInputs, first: tuple[Path, str]) -> None:
    folder, page = first
    made = {path: path.stat().st_mtime_ns for path in (folder / "out" / "pictures").rglob("*.png")}
    assert len(made) > 30
    assert run(inputs, folder) == page
    assert {path: path.stat().st_mtime_ns for path in (folder / "out" / "pictures").rglob("*.png")} == made


@pytest.mark.long
def test_kept_figures_are_those_of_the_same_weights_settings_and_pictures(
    inputs: StudyInputs, first: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(study, "measure", lambda *_: made.append(1) or {"loss": 1.0})
    config = from_json((first[0] / "out" / "runs" / "seed-0" / "joint-1" / "config.json").read_text(encoding="utf-8"))
    trained, sources = Trained(config=config, run_dir=tmp_path), inputs.sources
    method = Method(identity={"model": "a"}, make=lambda lq_CHW: lq_CHW)
    others = tmp_path / "manifest.jsonl"
    manifest.write([replace(record, digest="0") for record in manifest.read(sources.data)], others)
    longer = replace(trained, config=replace(config, steps=9))
    moved, other = replace(sources, data=others), replace(method, identity={"model": "b"})
    asked = [(trained, method, sources), (trained, method, sources), (trained, method, moved), (longer, method, moved)]
    asked.append((longer, other, moved))  # each differs from the one before in one thing, but the second
    counts = []
    for each in asked:
        assert study._measured(*each, tmp_path / "kept.json") == {"loss": 1.0}
        counts.append(len(made))
    assert counts == [1, 1, 2, 3, 4]


def test_a_manifest_without_validation_is_told_before_any_work(inputs: StudyInputs, data: Path, tmp_path: Path) -> None:
    wrong = replace(inputs, sources=replace(inputs.sources, data=data))
    with pytest.raises(ValueError, match="expected validation pictures in"):
        run(wrong, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_the_page_is_made_of_the_scores(first: tuple[Path, str]) -> None:
    folder, page = first
    results = json.loads((folder / "out" / "study.json").read_text(encoding="utf-8"))
    assert study_report.report(results) == page
    scores = results["shipped"]["photos"]["II"]
    mean = sum(scores["values"]["restored"]["ssim_rgb"].values()) / 2
    assert f"{mean:.4f} against" in page, "the main sentence quotes the restored row's SSIM"
    for row in ROWS:
        assert f"| {row} |" in page
    worse = json.loads(json.dumps(results))
    for run_figures in worse["validation"]["unet-only"]:
        run_figures["loss"] += 1.0
    assert "as the paper says: unet-only." in study_report.report(worse)
    for run_figures in worse["validation"]["unet-only"]:
        run_figures["loss"] -= 2.0
    assert "against the paper: unet-only." in study_report.report(worse)


@pytest.mark.long
def test_floor_and_ceiling_are_the_vae_alone(inputs: StudyInputs, first: tuple[Path, str]) -> None:
    from training.model.restore import reconstruct
    from training.weights.vae import read_vae

    folder, _ = first
    vae = read_vae(inputs.vae)
    made, truth = folder / "out" / "pictures" / "photos" / "II", folder / "out" / "sets" / "photos" / "hq"
    for row, source in (("floor", made / "lq"), ("ceiling", truth)):
        # The floor's input is the enlarged picture before it was rounded to 8 bits, so a step of rounding may differ.
        expected = reconstruct(vae, to_unit(read_image(source / "photo0" / "0.png")))
        difference = (to_unit(read_image(made / row / "photo0" / "0.png")) - expected).abs().max()
        assert difference < 2 / 255, row


def test_a_row_of_another_maker_or_other_pictures_is_made_anew(tmp_path: Path) -> None:
    write_png(tmp_path / "in.png", picture(0, 16, 16))
    made = []

    def make(lq_CHW: torch.Tensor) -> torch.Tensor:
        made.append(1)
        return lq_CHW

    for identity in ({"steps": 1}, {"steps": 1}, {"steps": 2}):
        write_row(tmp_path / "row", {"a": tmp_path / "in.png"}, Method(identity=identity, make=make))
    assert len(made) == 2
    write_png(tmp_path / "in.png", picture(1, 16, 16))
    write_row(tmp_path / "row", {"a": tmp_path / "in.png"}, Method(identity={"steps": 2}, make=make))
    assert len(made) == 3, "another picture under the same key"


def test_crops_do_not_overlap_and_degrade_to_a_quarter(tmp_path: Path) -> None:
    photo = picture(3, 100, 200)
    write_png(tmp_path / "photo.png", photo)
    pictures = photo_set("p", tmp_path / "set", [("photo", tmp_path / "photo.png")], side_px=64, crops=9, levels=("I",), seed=0)
    assert list(pictures.hq) == ["photo/0", "photo/1", "photo/2"]
    left_px, top_px = (200 % 64) // 2, (100 % 64) // 2
    for number, path in enumerate(pictures.hq.values()):
        x = left_px + 64 * number
        assert torch.equal(read_image(path), photo[:, top_px : top_px + 64, x : x + 64])
    assert all(read_image(path).shape == (3, 64 // SCALE, 64 // SCALE) for path in pictures.lq["I"].values())
    with pytest.raises(ValueError, match="expected photos of at least 128 px, got 200 x 100 px for 'photo'"):
        photo_set("p", tmp_path / "set", [("photo", tmp_path / "photo.png")], side_px=128, crops=1, levels=("I",), seed=0)


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_noise_is_estimated(sigma: float) -> None:
    ramp = torch.linspace(0.2, 0.8, 128).expand(3, 128, 128)
    noise = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert noise_sigma(ramp + sigma * noise) == pytest.approx(sigma, rel=0.03)
    assert noise_sigma(ramp) < 1e-6


def test_the_packaged_photos_are_there() -> None:
    pytest.importorskip("skimage")
    assert len(held_out_photos()) == len(HELD_OUT)


def test_units_are_photos_not_crops() -> None:
    assert unit_means({"a/0": 1.0, "a/1": 3.0, "b/0": 5.0, "b/1": None}) == {"a": 2.0, "b": 5.0}
    assert recalls({"a": {"words": 1, "true": 4}, "b": {"words": 0, "true": 0}}) == {"a": 0.25}
    values = {"x": {"m": {"a/0": 1.0, "b/0": None}}, "y": {"m": {"a/0": 2.0, "b/0": 3.0}}}
    assert metric_table({"values": values}, "m") == {"x": {"a": 1.0}, "y": {"a": 2.0}}, "what one row lacks is left out of all"


@pytest.mark.parametrize(("gain", "verdict"), [(0.2, "apart, better"), (-0.2, "apart, worse"), (0.0, "they overlap")])
def test_the_claim_says_what_the_intervals_say(gain: float, verdict: str) -> None:
    """Photos differ far more than rows do: only the intervals within pictures can tell rows apart."""
    floor = {f"p{number}": 0.1 * number for number in range(10)}
    noise = {unit: 0.01 * (-1) ** number for number, unit in enumerate(floor)}
    table = {
        "floor": floor,
        "floor-wavelet": floor,
        "restored": {unit: value + gain + noise[unit] for unit, value in floor.items()},
        "ceiling": {unit: value + 0.4 for unit, value in floor.items()},
    }
    told = claim(table, "restored", "SSIM", 3)
    assert told.count("they overlap") == (2 if gain == 0 else 1), told
    assert verdict in told.split("within pictures")[1]
    assert f"{gain / 0.4:.0%} of the way" in told
