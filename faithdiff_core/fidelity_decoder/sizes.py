"""Sizes of the fidelity decoder, and reading them off its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch

from ..files.checks import shown

FEATURE_LEVEL = 2
"""Of the network, where the LQ encoder's features enter: both have cells of 8 px."""


@dataclass(frozen=True, kw_only=True)
class FidelityDecoderSizes:
    """Defaults are for SDXL's LQ encoder.

    Attributes:
        widths: channels of the levels, whose pixels are 2, 4 and 8 px wide.
        blocks: on each level, on the way down; as many on the way up, but for the last level, which has one way.
        feature_channels: of the LQ encoder.
    """

    widths: tuple[int, ...] = (48, 96, 192)
    blocks: tuple[int, ...] = (2, 2, 6)
    feature_channels: int = 512

    @property
    def reach_px(self) -> int:
        """How far away a pixel can be that has a say in another's value, rounded up to whole cells of 8 px."""
        # Each 3x3 convolution reaches one position of its level; the first and the last are on level 0.
        positions = [2 * count for count in self.blocks[:-1]] + [self.blocks[-1]]
        reach_px = 2 * 2 + sum(count * 2 ** (level + 1) for level, count in enumerate(positions))
        return -(-(reach_px + 2) // 8) * 8


def fidelity_decoder_sizes(state: Mapping[str, torch.Tensor], config: Mapping[str, object]) -> FidelityDecoderSizes:
    """Sizes from the weights (names of `FidelityDecoder`).

    Raises:
        ValueError: the names do not make a decoder, or disagree with the file's `config`.
    """
    blocks: dict[int, set[int]] = {}
    for name in state:
        if found := re.fullmatch(r"down_blocks\.(\d{1,2})\.(\d{1,2})\.expand\.weight", name):
            blocks.setdefault(int(found[1]), set()).add(int(found[2]))
    try:
        sizes = FidelityDecoderSizes(
            widths=(
                state["conv_in.weight"].shape[0],
                *(state[f"downsamplers.{i}.weight"].shape[0] for i in range(len(blocks) - 1)),
            ),
            blocks=tuple(len(blocks[level]) for level in range(len(blocks))),
            feature_channels=state["feature_in.weight"].shape[1],
        )
    except (KeyError, IndexError) as e:
        missing = e.args[0] if isinstance(e, KeyError) else "weight of the right shape"
        missing = f"level {missing}" if isinstance(missing, int) else missing
        raise ValueError(
            f"expected the weights of a fidelity decoder, got a file without a usable {missing}; get the file again"
        ) from None
    if len(sizes.widths) != FEATURE_LEVEL + 1:  # a fourth would not divide pictures whose sides are multiples of 8
        raise ValueError(
            f"expected a fidelity decoder of {FEATURE_LEVEL + 1} levels, got {len(sizes.widths)}; get the file again"
        )
    if min(*sizes.widths, sizes.feature_channels) < 1:
        raise ValueError("expected a fidelity decoder with channels on every level, got one without; get the file again")
    for name, found in asdict(sizes).items():
        told = config.get(name, found)
        if (tuple(told) if isinstance(told, list) else told) != found:
            raise ValueError(
                f"expected fidelity_decoder.{name} = {shown(told)} as faithdiff.config says, got {shown_sizes(found)} from the "
                "weights; the file is damaged, get it again"
            )
    return sizes


def shown_sizes(found: int | tuple[int, ...]) -> str:
    """As a message shows them: a file may have a hundred levels."""
    values = found if isinstance(found, tuple) else (found,)
    return ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")
