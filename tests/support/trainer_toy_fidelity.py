"""The tiny fidelity decoder and its discriminator as a stage for the tests of the loop, on made-up crops. Imports diffusers."""

from __future__ import annotations

import torch
from torch import nn

from training.batches.restored_cache import PICTURES, RestoredCache
from training.config.schema import TrainConfig
from training.loop.task import Batch, Metrics
from training.model.networks import network_spec
from training.tasks.fidelity import FidelityTask, build_network
from training.tasks.fidelity_validation import FidelityValidation

SETTINGS = ("stage=fidelity", "restored_crops=6", "restored_features=true", "adversarial_weight=0.1", "adversarial_from_frac=0.5")
CPU = torch.device("cpu")


class ToyFidelityTask(FidelityTask):
    """The stage itself; only its crops are made up."""

    def __init__(self, config: TrainConfig) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        side_px, width = config.restored_side_px, network_spec(config.network).fidelity_decoder.feature_channels
        shape = (config.restored_crops, 3, side_px, side_px)
        chunk = {name: torch.randint(256, shape, generator=generator, dtype=torch.uint8) for name in PICTURES}
        chunk["features"] = torch.randn(config.restored_crops, width, side_px // 8, side_px // 8, generator=generator).half()
        cache = RestoredCache([chunk])
        validation = FidelityValidation(cache, side_px, CPU)
        super().__init__(config, cache, build_network(config, None), device=CPU, validation=validation)

    def loss(self, module: nn.Module, batch: Batch) -> tuple[torch.Tensor, Metrics]:
        loss, metrics = super().loss(module, batch)
        return loss, {**metrics, "rows": float(len(batch["hq"]))}
