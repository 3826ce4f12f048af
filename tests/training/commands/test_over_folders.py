"""Commands over a folder: originals stay, one bad file ends nothing, and the last line counts everything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from support.trainer import picture, png, write_shard

from training.cli import main
from training.common.images import write_png
from training.common.results import ResultsFolder
from training.data import manifest

DEMO = Path(__file__).resolve().parents[3] / "demo"
MODEL, VAE = ("--model", str(DEMO / "nano_faithdiff.safetensors")), ("--vae", str(DEMO / "nano_vae.safetensors"))
COMMANDS = {
    "restore": ("restore", [*MODEL, *VAE, "--steps", "1", "--scale", "1"]),
    "reconstruct": ("reconstruct", [*VAE]),
    "degrade": ("degrade", ["--scale", "1"]),
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=COMMANDS)
def run(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Run:
    """run(IN, OUT, *options): one of the commands; its exit code, stdout and stderr."""
    verb, options = COMMANDS[request.param]

    def work(source: Path, out: Path, *more: str) -> tuple[int, str, str]:
        code = main([verb, str(source), str(out), *options, *more])
        return (code, *capsys.readouterr())

    return work


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two small pictures in a folder."""
    for index, name in enumerate(("a.png", "sub/b.c.png")):
        write_png(tmp_path / "in" / name, picture(index, 32, 40))
    return tmp_path / "in"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sources_are_never_written_over(run: Run, photos: Path) -> None:
    before = contents(photos)
    (photos.parent / "link").symlink_to(photos, target_is_directory=True)
    for out in (photos, photos / "out", photos.parent / "link"):
        for more in ((), ("--again",)):
            code, _, err = run(photos, out, *more)
            assert code == 2 and "apart from the sources" in err and err.count("\n") == 1
    assert run(photos / "a.png", photos, "--again")[0] == 2
    assert contents(photos) == before


def test_other_files_stay_and_results_are_made_again(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "sub" / "b.c.png").write_bytes(b"somebody's own")
    code, _, err = run(photos, out)
    assert code == 2 and "b.c.png, which is not a result of one; choose another OUT, or --again" in err
    assert contents(out) == {"sub/b.c.png": b"somebody's own"}
    assert run(photos, out, "--again")[0] == 0
    made = contents(out)
    assert run(photos, out)[0] == 0 and contents(out).keys() == made.keys() >= {"a.png", "sub/b.c.png", ResultsFolder.MADE}


def test_two_sources_of_one_result_are_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "A.jpg"):
        path = photos / name
        Image.new("RGB", (32, 32)).save(path)
        code, _, err = run(photos, tmp_path / "out")
        assert code == 2 and "expected one picture per name" in err and not (tmp_path / "out").exists()
        path.unlink()


def test_one_bad_file_ends_nothing_and_everything_is_counted(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "0bad.png").write_bytes(b"no picture")
    (photos / "x.heic").write_bytes(b"")
    (photos / "x.tar.gz").write_bytes(b"")
    (photos / "._a.png").write_bytes(b"")
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    first.save(photos / "moving.gif", save_all=True, append_images=[second])
    unnamed = 1
    try:
        (photos / "b\udcff.png").write_bytes(png(3, 32, 32))
    except OSError:
        unnamed = 0
    code, said, err = run(photos, tmp_path / "out")
    left = 3 + unnamed
    assert code == 1 and said.splitlines()[-1].startswith(f"{tmp_path / 'out'}: 3 done, {left} left out (1 hidden, ")
    assert said.endswith(", 1 failed\n") and "1 .heic" in said and "1 .tar.gz" in said
    lines = err.splitlines()
    assert "warning: moving: has 2 frames or pages, of which the first is taken" in lines
    assert any(line.startswith("failed: 0bad: expected a readable picture") for line in lines) and " object at 0x" not in err
    assert sum(line.startswith("left out: ") for line in lines) == 2 + unnamed
    assert {"a.png", "sub/b.c.png", "moving.png"} <= contents(tmp_path / "out").keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["restore", "{in}", "out", *MODEL, *VAE, "--scale", "0"], "expected --scale of at least 1, got 0"),
        (["restore", "{in}", "out", *MODEL, *VAE, "--steps", "0"], "expected 1 to 1000 sampling steps, got 0"),
        (["restore", "{in}", "out", *MODEL, *VAE, "--steps", "1001"], "expected 1 to 1000 sampling steps, got 1001"),
        (["degrade", "{in}", "out", "--scale", "-1"], "expected a scale of at least 1"),
        (["text-set", "out", "--count", "0"], "expected at least 1 picture"),
        (["text-set", "out", "--size", "0"], "expected font sizes of"),
        (["text-set", "out", "--side", "0"], "expected font sizes of"),
        (["text-set", "out", "--side", "-5"], "expected font sizes of"),
        (["text-set", "out", "--side", "100000"], "expected --side of at most 16384"),
        (["prepare", "{in}", "--out", "m.jsonl", "--text", "-1"], "expected --text of at least 0"),
        (["prepare", "{in}", "--out", "m.jsonl", "--min-side", "0"], "expected --min-side of at least 1"),
    ],
)
def test_numbers_out_of_range_are_one_line(
    arguments: list[str], message: str, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos.parent)
    assert main([text.format(**{"in": photos}) for text in arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: expected") and err.count("\n") == 1
    assert [path.name for path in photos.parent.iterdir()] == ["in"]


def test_a_result_beyond_the_limit_fails_before_it_is_computed(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*MODEL, *VAE, "--scale", "1000", "--steps", "1"]
    assert main(["restore", str(photos / "a.png"), str(photos.parent / "out"), *options]) == 1
    assert "expected a result of at most 268435456 px" in capsys.readouterr().err


def prepare(tmp_path: Path, *arguments: object) -> int:
    return main(["prepare", *map(str, arguments), "--min-side", "8", "--val-frac", "0", "--out", str(tmp_path / "m.jsonl")])


def test_prepare_takes_dotted_names_in_shards_and_counts_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = {
        "a.b.png": png(1),
        "a.b.txt": b"dotted",
        "a.b.lq.png": png(11, 24, 32),
        "IMG.PNG": png(2),
        "x.heic": b"x",
        "._a.b.png": b"x",
        "__MACOSX/y.png": b"x",
    }
    write_shard(tmp_path / "in" / "s.TAR", members)
    (tmp_path / "in" / "c.d.png").write_bytes(png(3))
    (tmp_path / "in" / "old.tar.gz").write_bytes(b"")
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    assert prepare(tmp_path, tmp_path / "in") == 1
    records = {record.key: record for record in manifest.read(tmp_path / "m.jsonl")}
    assert sorted(records) == ["IMG", "a.b", "c.d"]
    assert (records["a.b"].caption, records["a.b"].lq_scale) == ("dotted", 4)
    said = capsys.readouterr().out.splitlines()
    counted = "3 done, 4 left out (1 .tar.gz, 1 refused, 2 hidden), 1 failed"
    assert said[-1].startswith(f"{tmp_path / 'm.jsonl'}: {counted} ({tmp_path / 'm.skipped.jsonl'}); 3 to train, 0 to validate")
    assert [line.partition(":")[0] for line in said[:-1]] == ["skipped old.tar", "skipped x.heic", "skipped bad"]


def test_prepare_joins_small_pictures_that_carry_their_scale(tmp_path: Path) -> None:
    write_png(tmp_path / "hq" / "0001.png", picture(1, 64, 64))
    write_png(tmp_path / "lq" / "0001x4.png", picture(1, 16, 16))
    assert prepare(tmp_path, tmp_path / "hq", "--lq", tmp_path / "lq") == 0
    (record,) = manifest.read(tmp_path / "m.jsonl")
    assert (record.key, record.lq_scale) == ("0001", 4)


def test_evaluate_matches_the_scale_and_goes_on_without_what_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, key in enumerate(("0001", "0002", "0003")):
        write_png(tmp_path / "hq" / f"{key}.png", picture(index, 64, 64))
        write_png(tmp_path / "made" / f"{key}x4.png", picture(index, 64, 64))
        write_png(tmp_path / "lq" / f"{key}x4.png", picture(index, 16, 16))
    bad = tmp_path / "made" / "0002x4.png"
    bad.write_bytes(bad.read_bytes()[:-200])  # its head is whole
    folders = ["--restored", tmp_path / "made", "--reference", tmp_path / "hq", "--lq", tmp_path / "lq"]
    options = ["--metrics", "psnr", "--out", tmp_path / "report.json"]
    assert main(["evaluate", *map(str, folders + options)]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert sorted(report["pictures"]) == ["0001", "0003"] and list(report["unreadable"]) == ["0002"]
    told = capsys.readouterr()
    assert told.out.splitlines()[-1].startswith(f"{tmp_path / 'report.json'}: 2 done, 1 failed; as a page")
    assert "failed: 0002: expected a readable picture" in told.err


def test_reports_manifests_and_weights_take_no_other_files_place(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["text-set", "words", "--count", "1"])
    own = {"own.json": b'{"a": 1}', "own.jsonl": b'{"a": 1}\n', "README.md": b"mine", "own.safetensors": b"x", "own.bin": b"x"}
    for name, data in own.items():
        Path(name).write_bytes(data)
    both, demo = ["--restored", str(photos), "--reference", str(photos)], str(DEMO / "nano_faithdiff.safetensors")
    row = ["--row", "reference=words", "--text", "words/annotations.json"]
    for arguments in (
        ["evaluate", *both, "--out", "own.json"],
        ["evaluate", *both, "--out", "README.json"],
        ["read-text", *row, "--out", "own.json"],
        ["read-text", *row, "--out", "words/annotations.json"],
        ["prepare", str(photos), "--min-side", "8", "--out", "own.jsonl"],
        ["convert", demo, "--out", "own.safetensors"],
        ["convert", demo, "--out", "own.bin"],
        ["reference", demo, "--out", "own.safetensors"],
    ):
        capsys.readouterr()
        assert main(arguments) == 2, arguments
        err = capsys.readouterr().err
        assert err.startswith("error: expected") and ("a new file or an earlier" in err or "another file than those" in err), err
    assert {name: Path(name).read_bytes() for name in own} == own
    Path("words/annotations.json").write_text("{}")
    assert main(["text-set", "words", "--count", "1"]) == 2
    assert main(["text-set", "words", "--count", "1", "--again"]) == 0
    for _ in range(2):  # one's own may be made again
        assert main(["evaluate", *both, "--metrics", "psnr", "--out", "fresh.json"]) == 0
        assert main(["convert", demo, "--out", "fresh.safetensors"]) == 0
    (tmp_path / "next_worst").mkdir()
    (tmp_path / "next_worst" / "01_holiday.png").write_bytes(b"mine")
    assert main(["evaluate", *both, "--metrics", "psnr", "--out", "next.json"]) == 2
    assert (tmp_path / "next_worst" / "01_holiday.png").read_bytes() == b"mine"
