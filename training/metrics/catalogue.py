"""What each metric's name stands for. The report prints this beside the numbers, so that nobody compares two conventions.
It imports no torch, so that the command line can name the metrics at once; the functions are in own.py.

"The official FaithDiff convention": what its `test_metrics.py:127-140` makes pyiqa compute, read with pyiqa's own defaults.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

OURS, TORCHMETRICS, PYIQA = "this package", "torchmetrics", "pyiqa"
OURS_ON_WEIGHTS = "this package, on another's weights"
PYIQA_PREFIX = "pyiqa:"
"""`pyiqa:NAME` = the metric that pyiqa calls NAME, whichever it is."""

HIGHER, LOWER = "\u2191", "\u2193"
"""Arrows up and down. Escaped: sources have to be readable in Windows' own encoding, too."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One convention. `values` is its range in words; `higher_is_better` None and `needs_reference` None: not known before pyiqa
    has said so. `is_default`: computed when no metrics are named.
    """

    name: str
    higher_is_better: bool | None
    values: str
    needs_reference: bool | None
    computed_by: str
    convention: str
    is_default: bool = False

    @property
    def pyiqa_name(self) -> str:
        """What pyiqa calls it."""
        assert self.computed_by == PYIQA, self.name
        return self.name.removeprefix(PYIQA_PREFIX)


_SSIM = "11 px Gaussian window of sigma 1.5, averaged where the whole window fits"
_BT601 = "Y of YCbCr by ITU-R BT.601, studio range, not rounded: BasicSR's test_y_channel"
_LPIPS = "version 0.1, pictures in [-1, 1], not resized"


def _full(name: str, better: bool, values: str, by: str, convention: str, *, default: bool = False) -> Metric:
    return Metric(
        name=name, higher_is_better=better, values=values, needs_reference=True, computed_by=by, convention=convention,
        is_default=default,
    )  # fmt: skip


def _alone(name: str, better: bool, values: str, convention: str) -> Metric:
    return Metric(
        name=name, higher_is_better=better, values=values, needs_reference=False, computed_by=PYIQA, convention=convention
    )


METRICS = {
    metric.name: metric
    for metric in (
        _full(
            "psnr_rgb", True, "dB", OURS, "over the three channels of RGB in [0, 1]; the official FaithDiff convention",
            default=True,
        ),
        _full("psnr_y", True, "dB", OURS, _BT601, default=True),
        _full("ssim_rgb", True, "-1 to 1", OURS, f"mean over the three channels of RGB; {_SSIM}", default=True),
        _full("ssim_y", True, "-1 to 1", OURS, f"{_BT601}; {_SSIM}", default=True),
        _full(
            "ssim_yiq", True, "0 to 1", OURS,
            f"pyiqa's default and the official FaithDiff convention: Y of YIQ rounded to 8 bits, negative values as 0; {_SSIM}",
            default=True,
        ),
        _full("lpips", False, "0 up", TORCHMETRICS, f"AlexNet, {_LPIPS}; the official FaithDiff convention"),
        _full("lpips_vgg", False, "0 up", TORCHMETRICS, f"VGG16, {_LPIPS}"),
        _full("dists", False, "0 to 1", TORCHMETRICS, "VGG16, not resized"),
        _full(
            "efficientnet_lite0", False, "0 to 4", OURS_ON_WEIGHTS,
            "squared distance of unit-length features of EfficientNet-Lite0 (ImageNet), mean of 4 depths, not resized; no LPIPS, "
            "and not fitted to judgements",
        ),
        _alone("musiq", True, "about 0 to 100", "KonIQ-10k; depends on the size of the picture"),
        _alone("clipiqa", True, "0 to 1", "CLIP RN50, no training; depends on the size of the picture"),
        _alone("clipiqa+", True, "0 to 1", "CLIP RN50, learned prompts; depends on the size of the picture"),
        _alone(
            "clipiqa+_vitL14_512", True, "0 to 1",
            "CLIP ViT-L/14 at 512 px, learned prompts: what the official FaithDiff script prints as CLIPIQA",
        ),
        _alone("maniqa", True, "about 0 to 1", "KonIQ-10k, uniform crops; depends on the size of the picture"),
        _alone("maniqa-pipal", True, "about 0 to 1", "PIPAL, uniform crops, as in the official FaithDiff script"),
        _alone("niqe", False, "0 up", "parameters of the original authors, Y of YIQ"),
        _alone("paq2piq", True, "about 0 to 100", "as in the official FaithDiff script"),
    )
}  # fmt: skip
"""Every metric by name."""

ALIASES = {"psnr": "psnr_rgb", "ssim": "ssim_rgb", "lpips-vgg": "lpips_vgg"}
"""Other names that are understood; the report prints the full one."""

DEFAULT_METRICS = tuple(name for name, metric in METRICS.items() if metric.is_default)
"""What needs neither weights nor another library."""


def metrics_named(names: Sequence[str]) -> dict[str, Metric]:
    """The metrics of these names, in their order, each once.

    Raises:
        ValueError: an unknown name (the message has the nearest one); no name.
    """
    found: dict[str, Metric] = {}
    for name in names:
        full = ALIASES.get(name, name)
        if full in METRICS:
            found[full] = METRICS[full]
        elif full.startswith(PYIQA_PREFIX) and len(full) > len(PYIQA_PREFIX):
            found[full] = Metric(
                name=full, higher_is_better=None, values="see pyiqa", needs_reference=None, computed_by=PYIQA,
                convention="pyiqa's default settings",
            )  # fmt: skip
        else:
            near = difflib.get_close_matches(name, [*METRICS, *ALIASES], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"correct --metrics (or {PYIQA_PREFIX}NAME for any metric of pyiqa)"
            raise ValueError(f"expected metrics among {', '.join(METRICS)}, got {name!r}, {hint}")
    if not found:
        raise ValueError("expected at least one metric, got none, name some with --metrics, for example psnr_rgb,ssim_yiq")
    return found
