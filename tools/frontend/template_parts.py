"""What the workflow templates are made of: models with their links, and the groups of nodes that they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from template_graph import BLUE, GREEN, PURPLE, Group, Link, Model, Node, Shown, Subgraph

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
    "Press **Get weights...** at the lower edge of the page: it shows sizes and licences, and asks before it downloads. By hand:",
    "",
    f"- [FaithDiff.bin]({WEIGHTS.url}) (10 GB) to the folder models/faithdiff. It brings its own SDXL UNet.",
    f"- An SDXL checkpoint, such as [RealVisXL V4.0]({CHECKPOINT.url}) (7 GB), to models/checkpoints; only its text encoders and "
    "its VAE are used.",
    "",
)
EXAMPLE = "example.png"
"""In the input folder of every ComfyUI."""
DEMO = "faithdiff_demo.png"
"""The pack's own photo, which FaithDiff Load Photo has."""
SAVED = {
    "format": "as source", "bit_depth": "as source", "color_profile": "as source", "quality": 95, "metadata": True,
    "workflow": True,
}  # fmt: skip
COMPARE = "Drag the slider in **Before and after**."
UPSCALE = "FaithDiff Upscale"
"""The subgraph, which is in the node library, too."""
SAMPLER = {
    "seed": 42, "steps": 20, "cfg": 5.0, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0,
    "tile_size": 1024, "tile_overlap": 0.5, "tile_batch": 0, "noise_mode": "per image",
}  # fmt: skip


def photo(image: str = DEMO, **more: Node) -> Group:
    """The picture as it is, and what else stands below it."""
    choose = Node(kind="FaithDiffLoadPhoto", title="Degraded photo", inputs={"image": image})
    return Group(title="1  Your photo", color=BLUE, columns=({"photo": choose, **more},))


def size(target: str = "scale factor", *, of: Link = ("photo", 0), **number: float) -> Node:
    """What brings it to the size that is wanted."""
    sized = {"target": target, **{f"target.{name}": value for name, value in number.items()}}
    return Node(kind="FaithDiffUpscale", title="FaithDiff Upscale To Target", inputs={"image": of, **sized})


def weights(**more: Node) -> dict[str, Node]:
    """The two files that everything needs, and others."""
    load = {"model_name": WEIGHTS.name, "weight_dtype": "default"}
    return {
        "load": Node(kind="FaithDiffLoadModel", title="Load FaithDiff Model", inputs=load),
        "sdxl": Node(kind="CheckpointLoaderSimple", title="SDXL text encoders and VAE", inputs={"ckpt_name": CHECKPOINT.name}),
        **more,
    }


def prompt(add_quality: bool | Link = False) -> dict[str, Node]:
    inputs = {"clip": ("sdxl", 1), "caption": "", "trim": True, "add_quality": add_quality}
    return {"prompt": Node(kind="FaithDiffPrompt", title="FaithDiff Prompt", inputs=inputs)}


def restore(
    *,
    image: Link = ("size", 0),
    model: Link = ("load", 0),
    vae: Link = ("sdxl", 2),
    prompts: tuple[Link, Link] = (("prompt", 0), ("prompt", 1)),
    first: dict[str, Node] | None = None,
    more: dict[str, Node] | None = None,
    align: dict[str, Any] | None = None,
    sampler: dict[str, Any] | None = None,
    caption: dict[str, Node] | None = None,
    title: str = "Restore",
) -> Group:
    """Encode, align, sample.

    Args:
        first: above the encoder.
        more: below the prompt.
        caption: in place of an empty prompt.
        title: of the group.
    """
    encode = {"faithdiff": ("load", 1), "image": image, "vae": vae, "tile_size": 0}
    aligned = {"model": model, "features": ("encode", 0), "latent": ("encode", 1), "strength": 1.0, "start_percent": 0.0}
    aligned |= {"end_percent": 1.0, "start_from": "lq", **(align or {})}
    sampled = {"model": ("align", 0), "positive": prompts[0], "negative": prompts[1], "latent_image": ("align", 1)}
    middle = {**(prompt() if caption is None else caption), **(more or {})}
    return Group(
        title=title,
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


def save(folder: str, *, height: int = 0) -> Node:
    """The result as its source was, under the source's name. `height`: of the node."""
    inputs = {"image": ("color", 0), "photo": ("photo", 2), "filename": f"{folder}/%name%", **SAVED}
    return Node(kind="FaithDiffSavePhoto", title="Save", inputs=inputs, height=height)


def decode(*, vae: Link = ("sdxl", 2), method: str | Link = "adain", fidelity: float = 1.0) -> dict[str, Node]:
    """From the latent to a picture in the colours of the photo, with what the photo already has."""
    decoded = {"samples": ("sampler", 0), "vae": vae, "features": ("encode", 0), "fidelity": fidelity, "decoder": "auto"}
    fixed = {"image": ("decode", 0), "reference": ("size", 0), "method": method}
    return {
        "decode": Node(kind="FaithDiffDecode", title="FaithDiff Decode", inputs=decoded),
        "color": Node(kind="FaithDiffColorFix", title="FaithDiff Color Fix", inputs=fixed),
    }


def compare(before: Link = ("photo", 0)) -> dict[str, Node]:
    inputs = {"before": before, "after": ("color", 0), "direction": "right"}
    return {"compare": Node(kind="FaithDiffCompare", title="Before and after", inputs=inputs)}


def finish(folder: str) -> Group:
    """Look at it; it is saved."""
    return Group(
        title="3  Before and after, saved", color=BLUE, columns=({**compare(), "save": save(folder, height=SAVED_HEIGHT)},)
    )


PRESET = ("steps", "cfg", "denoise", "noise_mode", "add_quality", "method")
"""FaithDiff Preset's outputs, in its order."""
SUBGRAPH_HEIGHT = 420
"""Its widgets take 330 in Nodes 2.0."""
SAVED_HEIGHT = 540
"""Of a node that saves, with the picture that it then shows."""
SHOWN = {
    "preset": ("preset", "preset"),
    "weights": ("load", "model_name"),
    "checkpoint": ("sdxl", "ckpt_name"),
    "scale": ("size", "target.factor"),
    "longest_side": ("size", "target.longest_side"),
    "prompt": ("prompt", "caption"),
    "seed": ("sampler", "seed"),
    "steps": ("sampler", "steps"),
    "cfg": ("sampler", "cfg"),
    "fidelity": ("decode", "fidelity"),
}
"""What a subgraph can show of what is inside, by the name that it has there."""


def folded(
    first: dict[str, Node],
    restored: Group,
    decoded: dict[str, Node],
    *,
    shown: Iterable[str] = ("scale", "prompt", "weights", "checkpoint", "seed", "steps", "cfg"),
    also: dict[str, tuple[str, str]] | None = None,
) -> Group:
    """All that lies between the photo and the picture, as one node.

    Args:
        first: size and weights.
        shown: names of `SHOWN`; "fidelity" only where the weights have a fidelity decoder, or it would be a dial without effect.
        also: further inputs to show: (name of the node inside, its input).
    """
    places = {name: SHOWN[name] for name in shown} | (also or {})
    inside = (
        Group(title="Size and weights", color=GREEN, columns=(first,)),
        restored,
        Group(title="Picture and colours", color=BLUE, columns=(decoded,)),
    )
    outside = tuple(Shown(node=node, input=name, label=label) for label, (node, name) in places.items())
    node = Subgraph(title=UPSCALE, groups=inside, shown=outside, height=SUBGRAPH_HEIGHT)
    return Group(title="2  Restore", color=PURPLE, columns=({"restore": node},))


def usual(kind: str, sized: Node, *, asks: str = "scale") -> Group:
    """All that lies between, with the settings of a preset.

    Args:
        kind: of picture, as FaithDiff Preset names it.
        asks: what is shown of the size, a name of `SHOWN`.
    """
    given: dict[str, Link] = {name: ("preset", i) for i, name in enumerate(PRESET)}
    preset = Node(kind="FaithDiffPreset", title="FaithDiff Preset", inputs={"preset": kind})
    sampler = {name: given[name] for name in SAMPLER if name in given}
    return folded(
        {"preset": preset, "size": sized, **weights()},
        restore(sampler=sampler, caption=prompt(given["add_quality"])),
        decode(method=given["method"]),
        shown=("preset", asks, "prompt", "weights", "checkpoint", "seed"),
    )
