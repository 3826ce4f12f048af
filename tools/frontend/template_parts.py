"""What the workflow templates are made of: models with their links, and the groups of nodes that they share."""

from __future__ import annotations

from typing import Any

from template_graph import BLUE, GREEN, PURPLE, Group, Model, Node

HUB = "https://huggingface.co"
WEIGHTS = Model(name="FaithDiff.bin", url=f"{HUB}/jychen9811/FaithDiff/resolve/main/FaithDiff.bin", directory="faithdiff")
CHECKPOINT = Model(
    name="RealVisXL_V4.0.safetensors",
    url=f"{HUB}/SG161222/RealVisXL_V4.0/resolve/main/RealVisXL_V4.0.safetensors",
    directory="checkpoints",
)
LIGHTNING = Model(
    name="sdxl_lightning_4step_lora.safetensors",
    url=f"{HUB}/ByteDance/SDXL-Lightning/resolve/main/sdxl_lightning_4step_lora.safetensors",
    directory="loras",
)
CONTROLNET = Model(
    name="TTPLANET_Controlnet_Tile_realistic_v2_fp16.safetensors",
    url=f"{HUB}/TTPlanet/TTPLanet_SDXL_Controlnet_Tile_Realistic/resolve/main/TTPLANET_Controlnet_Tile_realistic_v2_fp16.safetensors",
    directory="controlnet",
)
ADAPTER = Model(name="my_faithdiff_adapter.safetensors", url="", directory="faithdiff")

NEEDED = (
    "**Weights, once**",
    "",
    f"- [FaithDiff.bin]({WEIGHTS.url}) (10 GB) to `ComfyUI/models/faithdiff`. It brings its own SDXL UNet.",
    "- An SDXL checkpoint to `ComfyUI/models/checkpoints`; only its text encoders and its VAE are used. The authors' choice: "
    f"[RealVisXL V4.0]({CHECKPOINT.url}).",
    "",
)
EXAMPLE = "example.png"
"""In the input folder of every ComfyUI."""
SAVED = {
    "format": "as source", "bit_depth": "as source", "color_profile": "as source", "quality": 95, "metadata": True,
    "workflow": True,
}  # fmt: skip
EMPTY_VIEW = {"__value__": ["", ""]}
"""What the front end sends for the slider before the first run."""
COMPARE = "Drag the slider in **Before and after** (it needs Nodes 2.0, in ComfyUI's menu)."
SAMPLER = {
    "seed": 42, "steps": 20, "cfg": 5.0, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0,
    "tile_size": 1024, "tile_overlap": 0.5, "tile_batch": 0, "noise_mode": "per image",
}  # fmt: skip


def photo(target: str = "scale factor", *, image: str = EXAMPLE, **number: float) -> Group:
    """A picture at the size that is wanted."""
    sized = {"target": target, **{f"target.{name}": value for name, value in number.items()}}
    return Group(
        title="1  The photo, at the size you want",
        color=BLUE,
        columns=(
            {
                "photo": Node(kind="FaithDiffLoadPhoto", title="Degraded photo", inputs={"image": image}),
                "size": Node(kind="FaithDiffUpscale", title="Size", inputs={"image": ("photo", 0), **sized}),
            },
        ),
    )


def weights(**more: Node) -> Group:
    column = {
        "load": Node(
            kind="FaithDiffLoadModel", title="FaithDiff weights", inputs={"model_name": WEIGHTS.name, "weight_dtype": "default"}
        ),
        "sdxl": Node(
            kind="CheckpointLoaderSimple",
            title="SDXL text encoders and VAE",
            inputs={"ckpt_name": CHECKPOINT.name},
        ),
    }
    return Group(title="2  Weights", color=GREEN, columns=({**column, **more},))


def prompt(caption: str = "") -> dict[str, Node]:
    inputs = {"clip": ("sdxl", 1), "caption": caption, "trim": True, "add_quality": False}
    return {"prompt": Node(kind="FaithDiffPrompt", title="Prompt (may stay empty)", inputs=inputs)}


def restore(
    *,
    image: str = "size",
    model: tuple[str, int] = ("load", 0),
    vae: tuple[str, int] = ("sdxl", 2),
    prompts: tuple[tuple[str, int], tuple[str, int]] = (("prompt", 0), ("prompt", 1)),
    first: dict[str, Node] | None = None,
    more: dict[str, Node] | None = None,
    align: dict[str, Any] | None = None,
    sampler: dict[str, Any] | None = None,
    caption: bool = True,
) -> Group:
    """Encode, align, sample; `first` stand above the encoder, `more` below the prompt."""
    encode = {"faithdiff": ("load", 1), "image": (image, 0), "vae": vae, "tile_size": 0}
    aligned = {"model": model, "features": ("encode", 0), "latent": ("encode", 1), "strength": 1.0, "start_percent": 0.0}
    aligned |= {"end_percent": 1.0, "start_from": "lq", **(align or {})}
    sampled = {"model": ("align", 0), "positive": prompts[0], "negative": prompts[1], "latent_image": ("align", 1)}
    middle = {**(prompt() if caption else {}), **(more or {})}
    return Group(
        title="3  Restore",
        color=PURPLE,
        columns=(
            {
                **(first or {}),
                "encode": Node(kind="FaithDiffEncodeLQ", title="FaithDiff Encode LQ Features", inputs=encode),
                "align": Node(kind="FaithDiffAlignLatent", title="FaithDiff Align Latent", inputs=aligned),
            },
            *([middle] if middle else []),
            {
                "sampler": Node(
                    kind="FaithDiffSampler", title="FaithDiff Sampler", inputs={**sampled, **SAMPLER, **(sampler or {})}
                )
            },
        ),
    )


def save(folder: str) -> Node:
    """The result as its source was, under the source's name."""
    inputs = {"image": ("color", 0), "photo": ("photo", 2), "filename": f"{folder}/%name%", **SAVED}
    return Node(kind="FaithDiffSavePhoto", title="Save", inputs=inputs)


def finish(folder: str, *, vae: tuple[str, int] = ("sdxl", 2), method: str = "adain", tiled: bool = False) -> Group:
    """Decode, colours, save, compare."""
    decode = {"samples": ("sampler", 0), "vae": vae}
    if tiled:
        decode |= {"tile_size": 1024, "overlap": 128, "temporal_size": 64, "temporal_overlap": 8}
    fixed = {"image": ("decode", 0), "reference": ("size", 0), "method": method}
    return Group(
        title="4  Colours of the photo, save, compare",
        color=BLUE,
        row=2,
        columns=(
            {
                "decode": Node(kind="VAEDecodeTiled" if tiled else "VAEDecode", title="Decode", inputs=decode),
                "color": Node(kind="FaithDiffColorFix", title="Colours of the photo", inputs=fixed),
            },
            {"save": save(folder)},
            {
                "compare": Node(
                    kind="ImageCompare",
                    title="Before and after",
                    inputs={"image_a": ("size", 0), "image_b": ("color", 0), "compare_view": EMPTY_VIEW},
                )
            },
        ),
    )
