"""The paper's own figures (arXiv 2411.18824) as far as they are known here, for orientation beside a report.

They are of other pictures, degraded by a generator that is not public: nothing in them compares with a number made here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from training.metrics.catalogue import HIGHER, LOWER
from training.reports.tables import markdown_table

TITLE = "The paper's own figures, for orientation: other images, a generator that is not public, not comparable"
TEXT = "text"
"""Stands among the names of what was computed for reading of text."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table as text cells. `belongs_to`: the metrics of a report beside which it is of interest."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    belongs_to: frozenset[str]
    remark: str = ""

    def markdown(self) -> str:
        """A heading, the table, the remark."""
        parts = [f"**{self.name}**", markdown_table(self.columns, self.rows), self.remark]
        return "\n\n".join(part for part in parts if part)


_NO_REFERENCE = frozenset({"musiq", "clipiqa+", "clipiqa+_vitL14_512"})

ABLATION_LPIPS = {
    "no-alignment": 0.3199, "no-stage1": 0.3244, "last-layer": 0.3302, "encoder-only": 0.3370, "unet-only": 0.3302,
    "separate": 0.3261, "joint": 0.3080,
}  # fmt: skip
"""DIV2K-Val, Level III, lower is better (paper, Tables 5 and 6)."""

PAPER_TABLES = (
    PaperTable(
        name="Table 1: FaithDiff at Level III",
        columns=("set", f"PSNR {HIGHER}", f"SSIM {HIGHER}", f"LPIPS {LOWER}", f"MUSIQ {HIGHER}", f"CLIPIQA+ {HIGHER}"),
        rows=(
            ("DIV2K-Val", "21.77", "0.5662", "0.3080", "66.28 (?)", "0.5275 (?)"),
            ("LSDIR-Val", "18.92", "0.4568", "0.3170", "", ""),
        ),
        belongs_to=frozenset({"psnr_rgb", "ssim_yiq", "lpips"}) | _NO_REFERENCE,
        remark="(?): the same two values were transcribed for SUPIR, so one of the pairs is probably an error. "
        "PSNR, SSIM and LPIPS are `psnr_rgb`, `ssim_yiq` and `lpips` if the released script made them.",
    ),
    PaperTable(
        name="Real photos, upscaled by 2: FaithDiff",
        columns=("set", f"MUSIQ {HIGHER}", f"CLIPIQA+ {HIGHER}"),
        rows=(("RealPhoto60", "72.74", "0.5932"), ("RealDeg", "61.24", "0.4327")),
        belongs_to=_NO_REFERENCE,
        remark="Which table these are from is not certain; most likely Table 2.",
    ),
    PaperTable(
        name="Table 3: text, precision and recall of OCR in per cent",
        columns=("row", f"precision {HIGHER}", f"recall {HIGHER}"),
        rows=(
            ("ground truth", "52.72", "56.67"),
            ("LQ", "7.54", "7.59"),
            ("best other method (?)", "31.78", "41.57"),
            ("FaithDiff", "36.45", "46.74"),
        ),
        belongs_to=frozenset({TEXT}),
        remark="Engine, data and matching are not known. (?): which method this is, is not certain.",
    ),
    PaperTable(
        name="Table 4: time of the diffusion process at 1024 x 1024",
        columns=("method", f"seconds {LOWER}"),
        rows=(
            ("DiffBIR", "46.81"),
            ("SUPIR", "11.44"),
            ("SeeSR", "10.31"),
            ("DreamClear", "7.58"),
            ("PASD", "7.31"),
            ("FaithDiff, 20 steps", "2.55"),
        ),
        belongs_to=frozenset(),
    ),
    PaperTable(
        name="Table 5: the alignment",
        columns=("row", f"DIV2K-Val Level III LPIPS {LOWER}", f"RealPhoto60 MUSIQ {HIGHER}"),
        rows=(
            ("without alignment", f"{ABLATION_LPIPS['no-alignment']:.4f}", "66.67"),
            ("without stage 1", f"{ABLATION_LPIPS['no-stage1']:.4f}", "69.76"),
            ("last-layer features", f"{ABLATION_LPIPS['last-layer']:.4f}", "70.05"),
            ("full", f"{ABLATION_LPIPS['joint']:.4f}", "72.74"),
        ),
        belongs_to=frozenset({"lpips", "musiq"}),
    ),
    PaperTable(
        name="Table 6: what is fine-tuned",
        columns=("row", f"DIV2K-Val Level III LPIPS {LOWER}", f"RealPhoto60 MUSIQ {HIGHER}"),
        rows=(
            ("encoder only", f"{ABLATION_LPIPS['encoder-only']:.4f}", "69.66"),
            ("UNet only", f"{ABLATION_LPIPS['unet-only']:.4f}", "71.11"),
            ("both, separately", f"{ABLATION_LPIPS['separate']:.4f}", "69.94"),
            ("jointly", f"{ABLATION_LPIPS['joint']:.4f}", "72.74"),
        ),
        belongs_to=frozenset({"lpips", "musiq"}),
    ),
)


def paper_section(computed: Collection[str], wanted: bool | None) -> str:
    """The section for a report, "" for none: all tables if `wanted`, none if it is False, those that belong to what was computed
    (metric names, TEXT) if it is None.
    """
    tables = [table for table in PAPER_TABLES if wanted or (wanted is None and table.belongs_to & set(computed))]
    return "\n\n".join([f"## {TITLE}", *(table.markdown() for table in tables)]) if tables else ""
