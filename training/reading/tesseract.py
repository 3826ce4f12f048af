"""The engine `tesseract`: the program of Debian's package tesseract-ocr, called once for each picture."""

from __future__ import annotations

import io
import os
import shutil
import subprocess

import torch
from PIL import Image

from training.reading.engines import EngineMissing, Word

INSTALL = "install tesseract and its English data (Debian, Ubuntu: apt install tesseract-ocr tesseract-ocr-eng)"
LANGUAGE = "eng"
PAGE_MODE = 11
"""--psm 11, "sparse text": words anywhere, in no order."""
ENLARGE = 2
"""All pictures are enlarged alike before they are read: tesseract expects capitals of about 30 px; a 24 px font's have 17."""
DPI = 300
"""Passed to the program, which otherwise guesses it from each picture."""
TIMEOUT_S = 300.0
"""One picture takes 0.1 to 3 s; more means that the program hangs."""
_COLUMNS = 12


class Tesseract:
    """Opening it asks the program for its version.

    Raises:
        EngineMissing: the program or its English data are not there.
    """

    name = "tesseract"

    def __init__(self) -> None:
        program = shutil.which("tesseract")
        if program is None:
            raise EngineMissing(f"{INSTALL}; there is no `tesseract` on the PATH")
        self._program = program
        languages = self._run(["--list-langs"]).split()
        if LANGUAGE not in languages:
            raise EngineMissing(f"{INSTALL}; {program} has no language {LANGUAGE!r}")
        # The first line is "tesseract 5.3.0".
        self._version = self._run(["--version"]).split("\n", 1)[0].split()[-1]

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What decides what is read."""
        return {
            "version": self._version,
            "language": LANGUAGE,
            "psm": PAGE_MODE,
            "enlarged_by": ENLARGE,
            "enlarged_with": "bicubic",
            "dpi": DPI,
        }

    def read(self, image_CHW_u8: torch.Tensor) -> list[Word]:
        """The words of a picture, uint8 (3, H, W).

        Raises:
            ValueError: the program fails.
        """
        picture = Image.fromarray(image_CHW_u8.permute(1, 2, 0).contiguous().numpy(), "RGB")
        picture = picture.resize((picture.width * ENLARGE, picture.height * ENLARGE), Image.Resampling.BICUBIC)
        data = io.BytesIO()
        picture.save(data, format="PNG", compress_level=1)
        options = ["stdin", "stdout", "--psm", str(PAGE_MODE), "--dpi", str(DPI), "-l", LANGUAGE, "tsv"]
        return words_of(self._run(options, data.getvalue()), ENLARGE)

    def _run(self, options: list[str], data: bytes = b"") -> str:
        try:
            done = subprocess.run(  # noqa: S603 - found on the path by its name, never a shell
                [self._program, *options],
                input=data,
                capture_output=True,
                check=True,
                timeout=TIMEOUT_S,
                # The program starts 4 threads by itself, which on small pictures only wait for each other.
                env={**os.environ, "OMP_THREAD_LIMIT": "1"},
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode("utf-8", "replace").strip()
            raise ValueError(f"expected {self._program} to work, got code {error.returncode} ({said:.300}), {INSTALL}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"expected {self._program} to work, got {error}, {INSTALL}") from error
        return done.stdout.decode("utf-8", "replace")


def words_of(tsv: str, enlarged_by: int) -> list[Word]:
    """The words of tesseract's TSV output; boxes are divided by `enlarged_by`. Other levels (page, block, line) are left out."""
    words: list[Word] = []
    for line in tsv.splitlines()[1:]:
        # Not the csv module: a text may hold quotes, which tesseract does not escape.
        columns = line.split("\t", _COLUMNS - 1)
        if len(columns) < _COLUMNS or not columns[11].strip():
            continue
        left, top, width, height = (float(column) / enlarged_by for column in columns[6:10])
        box = (left, top, left + width, top + height)
        words.append(Word(text=columns[11].strip(), box_px=box, confidence=float(columns[10]) / 100))
    return words
