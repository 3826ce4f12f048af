"""Colours under alpha 0, and masks that nobody has painted: neither may come into the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from comfyui_faithdiff.nodes.align_latent import FaithDiffAlignLatent
from comfyui_faithdiff.nodes.color_fix import FaithDiffColorFix
from comfyui_faithdiff.nodes.encode_lq import FaithDiffEncodeLQ
from comfyui_faithdiff.nodes.upscale import FaithDiffUpscale
from support.photos import alpha, card

RED_AT = (slice(20, 44), slice(14, 18))
"""Rows and columns of the red bar, beside the part that is hidden."""


def rgba(hidden: tuple[float, float, float]) -> torch.Tensor:
    """IMAGE (1, 64, 96, 4) of the card with its hidden part in that colour."""
    image = torch.from_numpy(np.dstack([card(), alpha()])).float() / 255
    image[..., :3][image[..., 3] == 0] = torch.tensor(hidden)
    return image[None]


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_enlarging_does_not_see_what_is_hidden(factor: float) -> None:
    target = {"target": "scale factor", "factor": factor}
    magenta, green = (FaithDiffUpscale.execute(rgba(colour), target).args[0] for colour in ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0)))
    assert torch.equal(magenta, green)
    rows, columns = (slice(int(part.start * factor), int(part.stop * factor)) for part in RED_AT)
    red = torch.from_numpy(card()[20, 2]).float() / 255
    assert (magenta[0, rows, columns, :3] - red).abs().max() < 0.02


def test_encoder_and_colours_do_not_see_what_is_hidden(loaded) -> None:
    encoded, fixed = [], []
    restored = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    for colour in ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0)):
        encoded.append(FaithDiffEncodeLQ.execute(loaded.faithdiff, rgba(colour), 0).args[0].features_BCHW)
        fixed.append(FaithDiffColorFix.execute(restored, rgba(colour), "adain").args[0])
    assert torch.equal(*encoded) and torch.equal(*fixed)
    assert torch.equal(fixed[0][..., 3], rgba((0.0, 0.0, 0.0))[..., 3]), "the result has the alpha"


def test_an_unpainted_mask_of_load_image_is_none(loaded) -> None:
    image = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(1))
    features, latent = FaithDiffEncodeLQ.execute(loaded.faithdiff, image, 0).args
    unpainted = torch.zeros(1, 64, 64)
    model = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "lq", unpainted).args[0]
    assert model.get_attachment("faithdiff").mask_B1HW is None
    painted = unpainted.clone()
    painted[0, 3, 3] = 1.0
    model = FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "lq", painted).args[0]
    assert model.get_attachment("faithdiff").mask_B1HW is not None
    with pytest.raises(ValueError, match="black all over; paint it, invert it, or leave mask unconnected"):
        FaithDiffAlignLatent.execute(loaded.model, features, latent, 1.0, 0.0, 1.0, "lq", torch.zeros(1, 64, 96))
