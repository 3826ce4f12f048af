"""HQ and LQ pictures of a pair, cut at the same place."""

from __future__ import annotations

import torch
from support.trainer import picture

from training.batches.crops import cut, draw_pair_crop
from training.batches.store import Pictures
from training.common.images import to_signed
from training.common.seeds import generator_for


def test_pairs_are_cut_at_matching_places() -> None:
    # The HQ picture holds at each pixel the LQ pixel's own number: any mismatch shows.
    lq = torch.stack([torch.arange(20)[:, None].expand(20, 26), torch.arange(26).expand(20, 26), torch.full((20, 26), 7)]).to(
        torch.uint8
    )
    hq = lq.repeat_interleave(4, 1).repeat_interleave(4, 2)
    hq = torch.nn.functional.pad(hq, (0, 3, 0, 2), mode="replicate")  # within rounding
    mirrored = set()
    for index in range(60):
        crop = draw_pair_crop(hq, lq, 4, 32, generator_for(0, index))
        assert crop.lq_CHW is not None and crop.lq_CHW.shape == (3, 8, 8)
        assert torch.equal(
            ((crop.image_CHW + 1) * 127.5).round(), (crop.lq_CHW * 255).round().repeat_interleave(4, 1).repeat_interleave(4, 2)
        )
        top, left = crop.origin_YX_px
        assert top % 4 == 0 and left % 4 == 0 and crop.original_HW_px == (80, 104)
        columns = crop.lq_CHW[1, 0] * 255
        flipped = bool(columns[0] > columns[-1])
        mirrored.add(flipped)
        assert round(crop.lq_CHW[0, 0, 0].item() * 255) * 4 == top
        assert (104 - 32 - left if flipped else left) == round(columns.min().item()) * 4
    assert mirrored == {True, False}
    small = draw_pair_crop(hq[:, :40, :12], lq[:, :10, :3], 4, 64, generator_for(0))
    assert small.lq_CHW is not None
    assert torch.equal(
        ((small.image_CHW + 1) * 127.5).round(), (small.lq_CHW * 255).round().repeat_interleave(4, 1).repeat_interleave(4, 2)
    )


def test_pictures_without_twin_are_cut_as_before() -> None:
    image = picture(0, 64, 64)
    crop = cut(Pictures(image_u8=image), 64, 1.0, generator_for(0, 1))
    assert crop.lq_CHW is None
    assert torch.equal(crop.image_CHW, to_signed(image)) or torch.equal(crop.image_CHW, to_signed(image.flip(2)))
