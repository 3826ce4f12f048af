"""The rows that are compared: enlargements, the VAE alone, and restored pictures at every fidelity."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import torch

from training.common.tensor_files import read_parts
from training.model.restore import Decoded, decoded, finished, reconstruct
from training.study.baselines import NotInstalled, bicubic, lanczos, learned, through_vae
from training.study.methods import CEILING, FLOOR, LQ, Method, Sampling
from training.weights.fidelity_files import load_fitting_decoder
from training.weights.load_export import load_exported, spec_of
from training.weights.vae import read_vae, weights_digest

LANCZOS, LEARNED, ALONE = "lanczos", "learned", "decoder-alone"
FIDELITIES = tuple(tenth / 10 for tenth in range(11))
HELD = 64
"""Decoded pictures kept at a time: more than a level has, so that each goes through the model once; 4 MB each at 384 px."""


def restored(fidelity: float) -> str:
    """The row of that fidelity."""
    return f"restored-{fidelity:g}"


PLAIN, HALF, FULL = (restored(fidelity) for fidelity in (0.0, 0.5, 1.0))
SWEEP = tuple(restored(fidelity) for fidelity in FIDELITIES)
SAYS = {
    LANCZOS: "the LQ picture, Lanczos",
    LQ: "the LQ picture, bicubic",
    LEARNED: "Real-ESRGAN x4plus",
    FLOOR: "floor: the LQ picture through the VAE",
    ALONE: "the same through the decoder, without the model",
    PLAIN: "restored, fidelity 0",
    HALF: "restored, fidelity 0.5",
    FULL: "restored, fidelity 1",
    CEILING: "ceiling: the truth through the VAE",
}
"""The rows of the page's tables, in their order."""


class Restorer:
    """Model, VAE and fidelity decoder. What the VAE decoded is kept for the other fidelities of the same picture.

    Raises:
        ValueError: a file that is none of these, or that does not fit the model.
    """

    def __init__(self, model: Path, vae: Path, decoder: Path, *, sampling: Sampling, seed: int) -> None:
        parts = read_parts(model)
        spec = spec_of(parts)
        self.decoder = load_fitting_decoder(decoder, spec)
        self.vae = read_vae(vae, spec)
        self._model = load_exported(model)
        self._target_px = parts.metadata.target_size_px
        self._sampling, self._seed = sampling, seed
        self._held: dict[str, Decoded] = {}
        self.digests = {
            name: weights_digest(part) for name, part in (("model", self._model), ("vae", self.vae), ("decoder", self.decoder))
        }

    def method(self, row: str, scale: int, *, fidelity: float, by_model: bool = True) -> Method:
        """The row of that fidelity; without `by_model` of the LQ picture's own latent."""
        steps = self._sampling.steps if by_model else None
        used = {name: digest for name, digest in self.digests.items() if fidelity or name != "decoder"}
        identity = {"row": row, "scale": scale, "steps": steps, "colour": self._sampling.colour, "fidelity": fidelity} | used

        def make(lq_CHW: torch.Tensor) -> torch.Tensor:
            return finished(self._decoded(lq_CHW, scale, steps), self.decoder, fidelity, self._sampling.colour)

        return Method(identity=identity | {"seed": self._seed}, make=make)

    def _decoded(self, lq_CHW: torch.Tensor, scale: int, steps: int | None) -> Decoded:
        key = f"{hashlib.sha256(lq_CHW.numpy().tobytes()).hexdigest()} {tuple(lq_CHW.shape)} {scale} {steps}"
        if key not in self._held:
            if len(self._held) >= HELD:
                del self._held[next(iter(self._held))]
            self._held[key] = decoded(
                self._model, self.vae, lq_CHW, scale=scale, target_px=self._target_px, steps=steps, seed=self._seed
            )
        return self._held[key]


def methods(restorer: Restorer, scale: int) -> tuple[dict[str, Method], dict[str, str]]:
    """Every row at that scale, and why one of them is missing. All fidelities are among them."""
    vae = {"vae": restorer.digests["vae"]}
    made = {
        LANCZOS: Method(identity={"row": LANCZOS, "scale": scale}, make=partial(lanczos, scale=scale)),
        LQ: Method(identity={"row": LQ, "scale": scale}, make=partial(bicubic, scale=scale)),
        FLOOR: Method(identity={"row": FLOOR, "scale": scale} | vae, make=through_vae(restorer.vae, scale)),
        CEILING: Method(identity={"row": CEILING} | vae, make=partial(reconstruct, restorer.vae), from_hq=True),
        ALONE: restorer.method(ALONE, scale, fidelity=1.0, by_model=False),
    }
    for fidelity in FIDELITIES:
        made[restored(fidelity)] = restorer.method(restored(fidelity), scale, fidelity=fidelity)
    try:
        made[LEARNED] = Method(identity={"row": LEARNED, "scale": scale}, make=learned(scale))
    except NotInstalled as error:
        return made, {LEARNED: f"not computed: needs the package {error}"}
    return made, {}
