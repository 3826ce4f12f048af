"""The rows of the paper's Tables 5 and 6 as runs, so that each claim can be tried at any size.

A row is one or two runs after the common start. The alignment module trains in every run, so that rows differ in the parts they
are named for only. Settings are those of the nano model, small enough for a CPU; `--set network=sdxl ...` makes them larger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from training.config.schema import TrainConfig

STAGE1_STEPS, STAGE2_STEPS = 100, 240


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table: what it is, and its runs in order, each from the one before. `from_stage1`: the first run starts from the
    common stage 1; otherwise from the prior.
    """

    table: str
    says: str
    runs: tuple[TrainConfig, ...]
    from_stage1: bool = True


def align() -> TrainConfig:
    """The study's stage 1, common to most rows."""
    return TrainConfig(
        recipe="study-align", stage="align", steps=STAGE1_STEPS, batch_size=4, noise_draws=4, crop_px=128, latent_crops=2048,
        target_size_px=128, lr=1e-3, warmup_steps=20, adam_beta2=0.99, ema_decay=0.99, save_every=100, max_zoom_out=1.5,
        degradation="levels", degradation_scale=4,
    )  # fmt: skip


def joint() -> TrainConfig:
    """The study's stage 2, as the paper does it."""
    return replace(align(), recipe="study-joint", stage="joint", steps=STAGE2_STEPS, lr=5e-4)


def rows() -> dict[str, Row]:
    """All rows by name. Every row trains STAGE2_STEPS steps after stage 1."""
    half = STAGE2_STEPS // 2
    return {
        "no-alignment": Row(
            table="5",
            says="no Transformer blocks: features are embedded and added",
            runs=(replace(align(), alignment_layers=0), replace(joint(), alignment_layers=0)),
            from_stage1=False,
        ),
        "no-stage1": Row(table="5", says="joint training without stage 1", runs=(joint(),), from_stage1=False),
        "last-layer": Row(
            table="5",
            says="features from the LQ encoder's last layer",
            runs=(replace(align(), lq_features="last"), replace(joint(), lq_features="last")),
            from_stage1=False,
        ),
        "encoder-only": Row(
            table="6", says="LQ encoder fine-tuned, UNet frozen", runs=(replace(joint(), trains="lq_encoder,alignment"),)
        ),
        "unet-only": Row(table="6", says="UNet fine-tuned, LQ encoder frozen", runs=(replace(joint(), trains="alignment,unet"),)),
        "separate": Row(
            table="6",
            says="both fine-tuned, one after the other",
            runs=(
                replace(joint(), trains="lq_encoder,alignment", steps=half),
                replace(joint(), trains="alignment,unet", steps=STAGE2_STEPS - half),
            ),
        ),
        "joint": Row(table="5 and 6", says="both fine-tuned jointly: the method", runs=(joint(),)),
    }


def configurations() -> dict[str, Callable[[], TrainConfig]]:
    """Every run by name: study-align, study-joint, and ROW/1, ROW/2 for the rows."""
    found: dict[str, Callable[[], TrainConfig]] = {"study-align": align}
    for name, row in rows().items():
        for number, config in enumerate(row.runs, start=1):
            found[f"{name}/{number}"] = lambda config=config, named=f"{name}/{number}": replace(config, recipe=named)
    return found
