"""Runs without the host, which the trainer must not see: exports made-up runs and writes the trainer's own numbers for them.

    python trainer_exports.py FOLDER NAME...

Reads FOLDER/inputs.pt; writes FOLDER/<name>.safetensors and FOLDER/<name>.pt (features, and noise by timestep). The name
"bundled" is the model in demo/, of which there are numbers only."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import torch  # noqa: E402

from faithdiff_core.files.metadata import FaithDiffMetadata  # noqa: E402
from support.trainer_models import made_up_model, tiny, write_run  # noqa: E402
from training.common.tensor_files import read_parts  # noqa: E402
from training.config.schema import TrainConfig  # noqa: E402
from training.model.faithdiff import FaithDiffComposite, build_model  # noqa: E402
from training.model.lora import base_unet  # noqa: E402
from training.weights.export import export, write_faithdiff  # noqa: E402
from training.weights.load_export import load_exported  # noqa: E402

BUNDLED = TESTS.parent / "demo" / "nano_faithdiff.safetensors"
VARIANTS = {
    "pointwise": tiny(),
    "spatial": tiny(alignment_mode="spatial"),
    "no-layers": tiny(alignment_layers=0),
    "lora": tiny(lora_rank=3),
    "adapter": tiny(lora_rank=3),
    "nano": tiny(network="nano"),
    "vega": tiny(network="vega"),
}


@torch.no_grad()
def numbers(model: FaithDiffComposite, given: dict) -> dict:
    """Features, and for every timestep the noise for the rows (negative, positive)."""
    width, pooled_width = model.spec.context_width, model.spec.pooled_width
    context, pooled = given["context"][..., :width], given["pooled"][..., :pooled_width]
    features = model.encode_lq(given["lq"])
    ids = torch.tensor([[*given["lq"].shape[-2:], 0, 0, given["target_px"], given["target_px"]]] * 2, dtype=torch.float32)
    noise = [
        model.predict(given["x"].expand(2, -1, -1, -1), torch.full((2,), t), ids, features.expand(2, -1, -1, -1), context, pooled)
        for t in given["timesteps"]
    ]
    return {"features": features, "noise": noise}


def write(folder: Path, name: str, config: TrainConfig, given: dict) -> None:
    """One variant's files and numbers. The model is the run's own, and not read back from the export, but for the largest."""
    out = folder / f"{name}.safetensors"
    if name == "vega":  # in fp16, which both sides compute from in fp32; without the run folder, three times as large
        weights = build_model(config).state_dict()
        write_faithdiff(out, weights, config, FaithDiffMetadata(), layout="full", dtype=torch.float16)
        del weights
        model = load_exported(out)
    else:
        model = made_up_model(config)
        run = write_run(folder / name, config, model)
        layout = "adapter" if name == "adapter" else "full"
        export(run, out, layout=layout, dtype="fp32", data=None, licence="", base_model="")
    if name == "adapter":  # and the base that its LoRA belongs to
        plain = tiny()
        base = build_model(plain)
        base.unet.load_state_dict(base_unet(model.unet.state_dict()))
        facts = FaithDiffMetadata()
        write_faithdiff(folder / "base.safetensors", base.state_dict(), plain, facts, layout="full", dtype=torch.float32)
    torch.save(numbers(model, given), folder / f"{name}.pt")


@torch.no_grad()
def bundled_numbers(given: dict) -> dict:
    """As `numbers`, of one row without a prompt."""
    model, target_px = load_exported(BUNDLED), read_parts(BUNDLED).metadata.target_size_px
    features = model.encode_lq(given["lq"])
    ids = torch.tensor([[*given["lq"].shape[-2:], 0, 0, target_px, target_px]], dtype=torch.float32)
    noise = [model.predict(given["x"], torch.tensor([t]), ids, features) for t in given["timesteps"]]
    return {"features": features, "noise": noise}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    inputs = torch.load(target / "inputs.pt")
    for chosen in sys.argv[2:]:
        if chosen == "bundled":
            torch.save(bundled_numbers(inputs), target / "bundled.pt")
        else:
            write(target, chosen, VARIANTS[chosen], inputs)
