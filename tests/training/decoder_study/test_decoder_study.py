"""What a fidelity decoder changes, on the tiny network: one command, a page of its own figures, and nothing made twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.compare import ONE_MODULE, assert_close
from support.trainer import picture
from torch import nn

from faithdiff_core.color_fix import fix_colors
from faithdiff_core.fidelity_decoder.network import FidelityDecoder
from training.cli import main
from training.common.images import read_image, to_unit, write_png
from training.decoder_study.page import report
from training.decoder_study.results import DecoderResults
from training.decoder_study.rows import FULL, HALF, PLAIN, Restorer, restored
from training.decoder_study.sheets import COLUMNS
from training.decoder_study.study import DecoderInputs, DecoderPlan, run_decoder_study
from training.decoder_study.tables import sweep_claim, verdict
from training.model.networks import network_spec
from training.reports.bootstrap import Interval
from training.study.baselines import lanczos
from training.study.methods import Sampling
from training.weights.export import export
from training.weights.fidelity_files import write_fidelity_decoder

PLAN = DecoderPlan(
    sampling=Sampling(steps=1, colour="wavelet"), photo_px=64, photo_scales=(2,), photo_levels=("II", "heavy"), text_px=128,
    text_pictures=2, font_px=(16,), text_levels=("II",), engines=("tesseract",),
)  # fmt: skip
PHOTOS = ("astronaut", "own")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, chain: Path) -> DecoderInputs:
    work = tmp_path_factory.mktemp("inputs")
    export(chain / "joint", work / "model.safetensors", layout="full", dtype="fp32", data=None, licence="MIT", base_model="")
    for index, name in enumerate(PHOTOS):
        write_png(work / "photos" / f"{name}.png", picture(index + 20, 80, 96))
    return DecoderInputs(
        model=work / "model.safetensors", vae=chain / "vae.safetensors", decoder=decoder(work, 0), photos=work / "photos"
    )


def decoder(folder: Path, seed: int) -> Path:
    """A file of random weights."""
    sizes = network_spec("tiny").fidelity_decoder
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = FidelityDecoder(sizes, operations=nn).state_dict()
    path = folder / f"{seed}_fidelity.safetensors"
    training = {"recipe": "nano-fidelity", "steps": 7, "config": {"perceptual_weight": 0.0}}
    write_fidelity_decoder(path, weights, sizes, training=training, licence="MIT")
    return path


@pytest.fixture(scope="module")
def first(inputs: DecoderInputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("first")
    return folder, run(inputs, folder)


def run(inputs: DecoderInputs, folder: Path) -> str:
    return run_decoder_study(inputs, folder / "out", folder / "docs" / "fidelity.md", PLAN).read_text(encoding="utf-8")


def results_of(folder: Path) -> DecoderResults:
    return json.loads((folder / "out" / "fidelity.json").read_text(encoding="utf-8"))


def test_the_page_is_made_of_the_scores(first: tuple[Path, str]) -> None:
    folder, page = first
    results = results_of(folder)
    assert report(results) == page
    assert set(results["sets"]) == {"photos-x2", "words-x4"} and "recipe nano-fidelity, 7 steps" in page
    scored = results["sets"]["photos-x2"]["levels"]["II"]["values"]
    mean = sum(value or 0 for value in scored[FULL]["ssim_rgb"].values()) / len(PHOTOS)
    assert f"{mean:.4f} [" in page
    assert "Real-ESRGAN x4plus |" in page or "`learned`: not computed" in page
    for gain, word in ((1.0, "better"), (-1.0, "worse")):
        for values in scored[FULL].values():
            values.update(dict.fromkeys(values, 0.5 + gain))
        for values in scored["lanczos"].values():
            values.update(dict.fromkeys(values, 0.5))
        line = next(line for line in report(results).splitlines() if line.startswith("* Against Lanczos."))
        assert f"SSIM: {word} at scale 2, Level II" in line.replace("Levels", "Level"), line


def test_sheets_are_at_full_size(first: tuple[Path, str]) -> None:
    folder, page = first
    sheets = results_of(folder)["sheets"]
    assert sheets["photos-picked"] == [["photos-x2", "heavy", "astronaut/0"]]
    assert sum(key == "astronaut/0" for _, _, key in sheets["photos-random"]) == 2  # all lines that there are
    for name, lines in sheets.items():
        made = read_image(folder / "docs" / "pictures" / f"fidelity-{name}.jpg")
        side_px = PLAN.photo_px if name.startswith("photos") else PLAN.text_px
        assert made.shape[2] == side_px * (len(COLUMNS) + 1) and made.shape[1] // side_px == len(lines)
        assert f"(pictures/fidelity-{name}.jpg)" in page


def test_a_finished_study_makes_nothing_again_and_another_decoder_only_its_own(
    inputs: DecoderInputs, first: tuple[Path, str], tmp_path: Path
) -> None:
    folder, page = first
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    results_file = tmp_path / "out" / "fidelity.json"

    def times() -> dict[Path, int]:
        pictures = (tmp_path / "out" / "pictures").rglob("*.png")
        return {path: path.stat().st_mtime_ns for path in (*pictures, *(tmp_path / "out" / "scores").glob("*.json"))}

    made = times()
    assert len(made) > 2 * len(PHOTOS) * 11
    assert run(inputs, tmp_path) == page and times() == made
    assert results_of(tmp_path) == results_of(folder)
    results_file.unlink()
    other = replace(inputs, decoder=decoder(tmp_path, 1))
    assert run(other, tmp_path) != page
    after = times()
    pictures = {path: time for path, time in after.items() if path.suffix == ".png"}
    anew = {path.relative_to(tmp_path / "out" / "pictures").parts[2] for path, time in pictures.items() if made[path] != time}
    assert PLAIN not in anew and "lanczos" not in anew and {HALF, FULL, restored(0.1), "decoder-alone"} <= anew


def test_the_decoder_alone_is_the_floor_through_it(inputs: DecoderInputs, first: tuple[Path, str]) -> None:
    folder, _ = first
    made = folder / "out" / "pictures" / "photos-x2" / "II"
    restorer = Restorer(inputs.model, inputs.vae, inputs.decoder, sampling=PLAN.sampling, seed=0)
    lq_CHW = to_unit(read_image(folder / "out" / "sets" / "photos-x2" / "lq-II" / "own" / "0.png"))
    enlarged = torch.nn.functional.interpolate(lq_CHW[None], scale_factor=2, mode="bicubic").clamp(0, 1)
    floor = restorer.method("", 2, fidelity=0.0, by_model=False).make(lq_CHW)
    plain = to_unit(read_image(made / "floor" / "own" / "0.png"))
    expected = fix_colors(plain[None], enlarged, "wavelet")[0]
    assert (floor - expected).abs().max() < 2 / 255  # the floor's file is rounded
    alone = restorer.method("", 2, fidelity=1.0, by_model=False).make(lq_CHW)
    assert (alone - to_unit(read_image(made / "decoder-alone" / "own" / "0.png"))).abs().max() < 1 / 255
    assert (alone - floor).abs().max() > 4 / 255


def test_lanczos_is_pillows_but_in_float() -> None:
    lq = picture(1, 20, 24)
    made = lanczos(to_unit(lq), 2)
    by_pillow = Image.fromarray(lq.permute(1, 2, 0).numpy(), "RGB").resize((48, 40), Image.Resampling.LANCZOS)
    rounded = torch.from_numpy(np.array(by_pillow)).permute(2, 0, 1)
    assert made.shape == (3, 40, 48) and (made * 255 - rounded).abs().max() < 1.5
    ramp = torch.linspace(0, 1, 24).expand(3, 20, 24)
    assert_close(lanczos(ramp, 2)[:, 20, 8:40], (torch.arange(8, 40) / 2 - 0.25).expand(3, 32) / 23, 1000 * ONE_MODULE)


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "said"),
    [(0.1, 0.3, True, "better"), (0.1, 0.3, False, "worse"), (-0.3, -0.1, False, "better"), (-0.1, 0.3, True, "not told apart")],
)
def test_verdicts(low: float, high: float, higher_is_better: bool, said: str) -> None:
    interval = Interval(mean=(low + high) / 2, low=low, high=high, stdev=0.1, count=15)
    assert verdict(interval, higher_is_better) == said


def test_the_sweep_says_whether_it_is_monotone() -> None:
    up = [float(step) for step in range(11)]
    peak = [*up[:8], 6.0, 5.0, 4.0]
    said = sweep_claim({(2, "I"): up, (2, "II"): up, (4, "I"): up[::-1], (4, "heavy"): peak})
    assert said == (
        "It rises with every step at scale 2, Levels I, II. It falls with every step at scale 4, Level I. "
        "It does neither at (scale, level): highest 4, heavy at 0.7 (3.00 dB above fidelity 1)."
    )


def test_wrong_files_are_one_line(inputs: DecoderInputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--model", str(inputs.model), "--vae", str(inputs.vae), "--photos", str(inputs.photos)]
    (tmp_path / "own.md").write_text("# mine\n")
    for more, message in (
        (["--decoder", str(inputs.vae), "--page", "p.md"], "expected a file of a fidelity decoder"),
        (["--decoder", str(inputs.decoder), "--page", str(tmp_path / "own.md")], "an earlier page of this study"),
    ):
        assert main(["study-fidelity", *files, "--out", str(tmp_path / "out"), *more]) == 2
        err = capsys.readouterr().err
        assert message in err and err.startswith("error: expected") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_words_nothing_is_said_of_them(inputs: DecoderInputs, tmp_path: Path) -> None:
    plan = replace(PLAN, text_pictures=0, photo_levels=("II",))
    page = run_decoder_study(inputs, tmp_path / "out", tmp_path / "page.md", plan).read_text(encoding="utf-8")
    assert "--text-pictures 0" in page and "Rendered words" not in page and "pictures of words" not in page
    assert not (tmp_path / "pictures" / "fidelity-words-picked.jpg").exists()


def test_fewer_than_no_words_are_refused(inputs: DecoderInputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"--{name}={getattr(inputs, name)}" for name in ("model", "vae", "decoder", "photos")]
    code = main(["study-fidelity", *files, f"--out={tmp_path}", f"--page={tmp_path / 'page.md'}", "--text-pictures=-1"])
    assert code == 2 and "expected --text-pictures to be 0 or more, got -1" in capsys.readouterr().err
