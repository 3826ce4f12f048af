"""The fidelity decoder's stage: everything else is frozen, and what it made of the LQ pictures lies on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from faithdiff_core.fidelity_decoder.network import FidelityDecoder, start_at_zero
from faithdiff_core.lq_encoder import LQEncoder
from training.batches.order import SeededOrder
from training.batches.restored_cache import RestoredCache
from training.common.seeds import generator_for, integer, seed_for
from training.config.schema import TrainConfig
from training.loop.task import Batch, Metrics
from training.metrics.perceptual import PerceptualDistance
from training.model.networks import network_spec
from training.optim.optimisers import Groups
from training.tasks.fidelity_adversary import (
    Opinions,
    PatchDiscriminator,
    build_discriminator,
    decoder_loss,
    discriminator_loss,
    opinions,
)
from training.tasks.fidelity_losses import mean_psnr_db, pixel_loss
from training.tasks.fidelity_validation import FidelityValidation

CELL_PX = 8
"""Of the LQ encoder's features: crops begin where a cell does."""


def build_fidelity_decoder(config: TrainConfig) -> FidelityDecoder:
    """The decoder with seeded weights; its picture is the decoded one."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(config.seed, "model-init", "fidelity_decoder"))
        decoder = FidelityDecoder(network_spec(config.network).fidelity_decoder, operations=nn)
    start_at_zero(decoder)
    return decoder


class FidelityNetwork(nn.Module):
    """The decoder behind one forward, with the frozen LQ encoder where features are not kept on disk, and the discriminator
    where there is one.
    """

    def __init__(
        self,
        fidelity_decoder: FidelityDecoder,
        lq_encoder: LQEncoder | None,
        discriminator: PatchDiscriminator | None = None,
    ) -> None:
        super().__init__()
        self.fidelity_decoder = fidelity_decoder
        self.lq_encoder = lq_encoder
        self.discriminator = discriminator

    def forward(
        self,
        decoded_BCHW: torch.Tensor,
        lq_BCHW: torch.Tensor,
        features_BCHW: torch.Tensor | None = None,
        truth_BCHW: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Opinions | None]:
        """The picture at fidelity 1, (B, 3, H, W), about [-1, 1], not clamped, and what the discriminator thinks of it.

        Args:
            decoded_BCHW, lq_BCHW: in [-1, 1], multiples of 8 px.
            features_BCHW: (B, C, H/8, W/8), None = of `lq_BCHW`.
            truth_BCHW: what the picture should be; None = the discriminator is not asked.
        """
        if features_BCHW is None:
            assert self.lq_encoder is not None, "no features, and nothing that makes them"
            with torch.no_grad():
                features_BCHW = self.lq_encoder(lq_BCHW)
        picture_BCHW = self.fidelity_decoder(decoded_BCHW, lq_BCHW, features_BCHW)
        if self.discriminator is None or truth_BCHW is None:
            return picture_BCHW, None
        return picture_BCHW, opinions(self.discriminator, picture_BCHW, truth_BCHW)


def build_network(config: TrainConfig, lq_encoder: LQEncoder | None) -> FidelityNetwork:
    """The network as a run of `config` starts it."""
    discriminator = build_discriminator(config) if config.adversarial_weight else None
    return FidelityNetwork(build_fidelity_decoder(config), lq_encoder, discriminator)


class FidelityTask:
    """What the loop needs to know about this stage.

    `cache` holds the training crops; `perceptual` None = no perceptual loss; `validation` None = no validation.
    """

    def __init__(
        self, config: TrainConfig, cache: RestoredCache, network: FidelityNetwork, *, device: torch.device,
        perceptual: PerceptualDistance | None = None, validation: FidelityValidation | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.module = network
        self.device = device
        self._cache = cache
        self._perceptual = perceptual
        self._validation = validation
        self._order: SeededOrder | None = None

    def groups(self) -> Groups:
        """(name, scale of the learning rate, parameters) of the decoder, and of the discriminator."""
        parts = {"fidelity_decoder": self.module.fidelity_decoder, "discriminator": self.module.discriminator}
        return [
            (name, 1.0, {f"{name}.{key}": value for key, value in part.named_parameters()})
            for name, part in parts.items()
            if part is not None
        ]

    def prefetch(self, step: int, indices: range) -> None:
        """Nothing: the crops are mapped."""

    def batch(self, step: int, indices: range) -> Batch:
        """hq, lq, decoded (B, 3, S, S) in [-1, 1]; features (B, C, S/8, S/8) where they are kept; adversarial (B,) where there is
        a discriminator: 1 = the decoder hears it, 0 = not yet. Float32, on the task's device.
        """
        config = self.config
        rows = [self._row(step, index) for index in indices]
        if config.adversarial_weight:
            heard = torch.tensor(float(step >= config.adversarial_from_frac * config.steps))
            rows = [{**row, "adversarial": heard} for row in rows]
        return {name: torch.stack([row[name] for row in rows]).to(self.device) for name in rows[0]}

    def _row(self, step: int, index: int) -> dict[str, torch.Tensor]:
        config = self.config
        self._order = self._order or SeededOrder(config, len(self._cache))  # not in __init__: the estimate has no crops
        item = self._order.item(step, index)
        generator = generator_for(config.seed, config.stage, step, index, item)
        side_px = config.crops_at(step)[1]
        free_cells = (config.restored_side_px - side_px) // CELL_PX
        top_px, left_px = (CELL_PX * integer(generator, 0, free_cells) for _ in range(2))
        row = self._cache.crop(item, top_px, left_px, side_px)
        if "features" not in row and integer(generator, 0, 1):
            row = {name: value.flip(2) for name, value in row.items()}
        return row

    def loss(self, module: nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        """Loss and metrics to log. Networks under autocast, losses in fp32."""
        return self._measured(module, batch)[:2]

    def _measured(self, module: nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics, torch.Tensor]:
        heard_B = batch.get("adversarial")  # not in validation, where the picture alone is measured
        truth = batch["hq"]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            got, found = module(batch["decoded"], batch["lq"], batch.get("features"), None if heard_B is None else truth)
        got = got.float()
        loss = pixels = pixel_loss(got, truth, batch["lq"], self.config.stroke_weight)
        metrics: Metrics = {"pixels": pixels.detach()}
        if self._perceptual is not None:
            distance = self._perceptual(got, truth)
            loss = loss + self.config.perceptual_weight * distance
            metrics["perceptual"] = distance.detach()
        if found is not None:
            assert heard_B is not None
            judged, learnt = decoder_loss(found), discriminator_loss(found)
            loss = loss + self.config.adversarial_weight * heard_B.mean() * judged + learnt
            metrics |= {"adversarial": judged.detach(), "discriminator": learnt.detach()}
        with torch.no_grad():
            pictures = {"psnr_db": got, "decoded_psnr_db": batch["decoded"], "lq_psnr_db": batch["lq"]}
            metrics |= {name: mean_psnr_db(picture, truth) for name, picture in pictures.items()}
        return loss, metrics, got

    def validate(self, step: int, folder: Path) -> dict[str, float]:
        """The held-out crops with the weights as they are; see FidelityValidation.run."""
        if self._validation is None:
            return {}
        return self._validation.run(lambda batch: self._measured(self.module, batch), step, folder)
