"""The pack's workflow templates, written down once: `python3 tools/frontend/templates.py` writes API prompts and layouts.

Then, for each, `save_workflow.py` makes the front end's file. Titles and notes are for people who have never read the paper.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from template_graph import BLUE, GREEN, PURPLE, Group, Model, Node, Template, write

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
EMPTY_VIEW = {"__value__": ["", ""]}  # what the front end sends for the slider before the first run
COMPARE = "Drag the slider in **Before and after** (it needs Nodes 2.0, in ComfyUI's menu)."
SAMPLER = {
    "seed": 42, "steps": 20, "cfg": 5.0, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0,
    "tile_size": 1024, "tile_overlap": 0.5, "tile_batch": 0, "noise_mode": "per image",
}  # fmt: skip


def photo(target: str = "scale factor", **number: float) -> Group:
    """A picture at the size that is wanted."""
    sized = {"target": target, **{f"target.{name}": value for name, value in number.items()}}
    return Group(
        title="1  The photo, at the size you want",
        color=BLUE,
        columns=(
            {
                "photo": Node(kind="LoadImage", title="Degraded photo", inputs={"image": "example.png"}),
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
            title="SDXL checkpoint (text encoders and VAE)",
            inputs={"ckpt_name": CHECKPOINT.name},
        ),
    }
    return Group(title="2  Weights", color=GREEN, columns=({**column, **more},))


def prompt(caption: str = "") -> dict[str, Node]:
    inputs = {"clip": ("sdxl", 1), "caption": caption, "trim": True, "add_quality": False}
    return {"prompt": Node(kind="FaithDiffPrompt", title="What the photo shows (may stay empty)", inputs=inputs)}


def restore(
    *,
    image: str = "size",
    model: tuple[str, int] = ("load", 0),
    vae: tuple[str, int] = ("sdxl", 2),
    prompts: tuple[tuple[str, int], tuple[str, int]] = (("prompt", 0), ("prompt", 1)),
    more: tuple[dict[str, Node], ...] = (),
    align: dict[str, Any] | None = None,
    sampler: dict[str, Any] | None = None,
    caption: bool = True,
) -> Group:
    """Encode, align, sample; `more` are columns between the prompt and the sampler."""
    encode = {"faithdiff": ("load", 1), "image": (image, 0), "vae": vae, "tile_size": 0}
    aligned = {"model": model, "features": ("encode", 0), "latent": ("encode", 1), "strength": 1.0, "start_percent": 0.0}
    aligned |= {"end_percent": 1.0, "start_from": "lq", **(align or {})}
    sampled = {"model": ("align", 0), "positive": prompts[0], "negative": prompts[1], "latent_image": ("align", 1)}
    return Group(
        title="3  Restore",
        color=PURPLE,
        columns=(
            {
                "encode": Node(kind="FaithDiffEncodeLQ", title="Encode LQ Features", inputs=encode),
                **(prompt() if caption else {}),
            },
            {"align": Node(kind="FaithDiffAlignLatent", title="Align Latent", inputs=aligned)},
            *more,
            {
                "sampler": Node(
                    kind="FaithDiffSampler", title="FaithDiff Sampler", inputs={**sampled, **SAMPLER, **(sampler or {})}
                )
            },
        ),
    )


def finish(prefix: str, *, vae: tuple[str, int] = ("sdxl", 2), method: str = "adain", tiled: bool = False) -> Group:
    """Decode, colours, save, compare."""
    decode = {"samples": ("sampler", 0), "vae": vae}
    if tiled:
        decode |= {"tile_size": 1024, "overlap": 128, "temporal_size": 64, "temporal_overlap": 8}
    fixed = {"image": ("decode", 0), "reference": ("size", 0), "method": method}
    return Group(
        title="4  Colours of the photo, save, compare",
        color=BLUE,
        columns=(
            {
                "decode": Node(kind="VAEDecodeTiled" if tiled else "VAEDecode", title="Decode", inputs=decode),
                "color": Node(kind="FaithDiffColorFix", title="Colours of the photo", inputs=fixed),
            },
            {"save": Node(kind="SaveImage", title="Save", inputs={"images": ("color", 0), "filename_prefix": prefix})},
            {
                "compare": Node(
                    kind="ImageCompare",
                    title="Before and after",
                    inputs={"image_a": ("size", 0), "image_b": ("color", 0), "compare_view": EMPTY_VIEW},
                )
            },
        ),
    )


def upscale() -> Template:
    return Template(
        name="faithdiff_upscale",
        note=(
            "# FaithDiff upscale",
            "",
            *NEEDED,
            "**Each photo**",
            "",
            "1. Choose the photo.",
            "2. **Size**: 2 or 4 times, or megapixels, or a side in pixels.",
            "3. Say what it shows, if you like: one plain sentence.",
            f"4. Run. {COMPARE}",
            "",
            "Any size will do: large pictures are restored in tiles.",
        ),
        groups=(photo(factor=2.0), weights(), restore(), finish("faithdiff")),
        models=(WEIGHTS, CHECKPOINT),
    )


def old_photo() -> Template:
    return Template(
        name="faithdiff_old_photo",
        note=(
            "# Old and faded photos",
            "",
            *NEEDED,
            "**What is different here**",
            "",
            "- **cfg 3** instead of 5: less is made up where the photo shows little.",
            "- **wavelet** takes only the broad colours from the photo, so that grain and fine stains do not come back.",
            "- The longer side becomes 2048 px, whatever the scan's size was. Scan large, then let it shrink: grain "
            "costs nothing.",
            "",
            f"{COMPARE}",
        ),
        groups=(
            photo("longest side", longest_side=2048),
            weights(),
            restore(sampler={"cfg": 3.0}),
            finish("faithdiff_old", method="wavelet"),
        ),
        models=(WEIGHTS, CHECKPOINT),
    )


def eight_k() -> Template:
    shared = {"model": ("align", 0), "latent_image": ("align", 1), "steps": 20, "cfg": 5.0}
    shared |= {"tile_size": 1024, "tile_overlap": 0.5, "tile_batch": 0, "measure": False}
    plan = {"plan": Node(kind="FaithDiffPlan", title="Tiles, memory and time", inputs=shared)}
    return Template(
        name="faithdiff_8k",
        note=(
            "# 8K in tiles",
            "",
            *NEEDED,
            "**What is different here**",
            "",
            "- The longer side becomes 7680 px.",
            "- **Tiles, memory and time** says what will happen. Its settings must be those of the sampler. Mute the "
            "sampler to see "
            "it alone.",
            "- The VAE decodes in tiles, too.",
            "- **wavelet** takes the broad colours from the photo, so that they do not drift from tile to tile.",
            "- Less overlap (0.25) takes about half the time.",
            "- Out of memory: nothing to do, the sampler goes on with fewer or smaller tiles and says so.",
        ),
        groups=(
            photo("longest side", longest_side=7680),
            weights(),
            restore(more=(plan,)),
            finish("faithdiff_8k", method="wavelet", tiled=True),
        ),
        models=(WEIGHTS, CHECKPOINT),
    )


def frames() -> Template:
    film = Group(
        title="1  The film, at the size you want",
        color=BLUE,
        columns=(
            {
                "film": Node(kind="LoadVideo", title="Film", inputs={"file": "film.mp4"}),
                "parts": Node(kind="GetVideoComponents", title="Frames and sound", inputs={"video": ("film", 0)}),
                "size": Node(
                    kind="FaithDiffUpscale",
                    title="Size",
                    inputs={"image": ("parts", 0), "target": "scale factor", "target.factor": 2.0},
                ),
            },
        ),
    )
    done = finish("faithdiff_film")
    video = {"images": ("color", 0), "fps": ("parts", 2), "audio": ("parts", 1), "bit_depth": 8}
    save = {"video": ("video", 0), "filename_prefix": "video/faithdiff", "format": "auto", "codec": "auto"}
    columns = (
        {**done.columns[0], "video": Node(kind="CreateVideo", title="Film again", inputs=video)},
        {"save": Node(kind="SaveVideo", title="Save", inputs=save)},
    )
    return Template(
        name="faithdiff_frames",
        note=(
            "# Frames of a film",
            "",
            *NEEDED,
            "**What is different here**",
            "",
            "- **noise_mode shared**: every frame starts from the same noise, so that it flickers less. FaithDiff knows single "
            "pictures only; fine detail still changes from frame to frame.",
            "- Frames go through one after another, so that memory does not grow with their number, but for the "
            "frames themselves.",
            "- Try a second of the film first.",
        ),
        groups=(
            film,
            weights(),
            restore(sampler={"noise_mode": "shared"}),
            replace(done, title="4  Colours of the film, and save", columns=columns),
        ),
        models=(WEIGHTS, CHECKPOINT),
        photos=("film.mp4",),
    )


def masked() -> Template:
    first = photo(factor=2.0)
    solid = {"value": 0.6, "width": ("size", 1), "height": ("size", 2)}
    both = {"destination": ("photo", 1), "source": ("rest", 0), "x": 0, "y": 0, "operation": "add"}
    column = {
        "rest": Node(kind="SolidMask", title="How closely elsewhere", inputs=solid),
        "follow": Node(kind="MaskComposite", title="Painted: in full", inputs=both),
    }
    return Template(
        name="faithdiff_masked",
        note=(
            "# Faces and text kept closer",
            "",
            *NEEDED,
            "**What is different here**",
            "",
            "- Right-click the photo, **Open in MaskEditor**, and paint over faces and text. There the photo is "
            "followed in full.",
            "- **How closely elsewhere** is the rest: 1 follows in full, too, 0 lets the model make up what it likes.",
            "- Nothing painted: everywhere as elsewhere.",
        ),
        groups=(
            replace(first, columns=(*first.columns, column)),
            weights(),
            restore(align={"mask": ("follow", 0)}),
            finish("faithdiff_masked"),
        ),
        models=(WEIGHTS, CHECKPOINT),
    )


def lightning() -> Template:
    lora = {"model": ("load", 0), "lora_name": LIGHTNING.name, "strength_model": 1.0}
    return Template(
        name="faithdiff_lightning",
        note=(
            "# Few steps",
            "",
            *NEEDED,
            f"- [SDXL-Lightning LoRA, 4 steps]({LIGHTNING.url}) to `ComfyUI/models/loras`.",
            "",
            "**What is different here**",
            "",
            "- 6 steps at **cfg 1** with `euler` and `sgm_uniform`, as the LoRA was made for: about a seventh of the "
            "UNet's work.",
            "- The LoRA was made for plain SDXL. It works on FaithDiff's UNet because that was fine-tuned from SDXL; "
            "compare with "
            "the usual 20 steps before you trust it with faces or text.",
        ),
        groups=(
            photo(factor=2.0),
            weights(lora=Node(kind="LoraLoaderModelOnly", title="Lightning LoRA", inputs=lora)),
            restore(model=("lora", 0), sampler={"steps": 6, "cfg": 1.0, "scheduler": "sgm_uniform"}),
            finish("faithdiff_lightning"),
        ),
        models=(WEIGHTS, CHECKPOINT, LIGHTNING),
    )


def controlnet() -> Template:
    loader = Node(kind="ControlNetLoader", title="ControlNet", inputs={"control_net_name": CONTROLNET.name})
    applied = {"positive": ("prompt", 0), "negative": ("prompt", 1), "control_net": ("control", 0), "image": ("size", 0)}
    applied |= {"strength": 0.4, "start_percent": 0.0, "end_percent": 0.6, "vae": ("sdxl", 2)}
    return Template(
        name="faithdiff_controlnet",
        note=(
            "# With a ControlNet",
            "",
            *NEEDED,
            f"- [Tile ControlNet for SDXL]({CONTROLNET.url}) to `ComfyUI/models/controlnet`.",
            "",
            "**What is different here**",
            "",
            "- The ControlNet holds the composition in the first part of the steps. Its hint is cut with the tiles.",
            "- FaithDiff already follows the photo; use this where the photo is so bad that shapes get lost, or with "
            "a depth or line "
            "ControlNet of your own.",
        ),
        groups=(
            photo(factor=2.0),
            weights(control=loader),
            restore(
                prompts=(("hint", 0), ("hint", 1)),
                more=({"hint": Node(kind="ControlNetApplyAdvanced", title="Hint: the photo itself", inputs=applied)},),
            ),
            finish("faithdiff_controlnet"),
        ),
        models=(WEIGHTS, CHECKPOINT, CONTROLNET),
    )


def adapter() -> Template:
    own = weights()
    column = dict(own.columns[0])
    base = {"model_name": ADAPTER.name, "weight_dtype": "default", "base_model": ("sdxl", 0)}
    column = {
        "sdxl": replace(column["sdxl"], title="Any SDXL checkpoint"),
        "load": Node(kind="FaithDiffLoadModel", title="FaithDiff adapter on it", inputs=base),
    }
    return Template(
        name="faithdiff_adapter",
        note=(
            "# An adapter on your own checkpoint",
            "",
            "**Weights, once**",
            "",
            "- An adapter that you trained (`python -m training train ...`, then `python -m training export --layout "
            "adapter`) to "
            "`ComfyUI/models/faithdiff`: LQ encoder and alignment module, 90 MB. Choose it in **FaithDiff adapter on it**.",
            "- The SDXL checkpoint that it was trained for, or one like it, to `ComfyUI/models/checkpoints`.",
            "",
            "**What is different here**",
            "",
            "- The UNet is the checkpoint's own. If training wrote a LoRA beside the adapter, put **Load LoRA** between the two.",
            "- `FaithDiff.bin` cannot be used so: its UNet was trained with it.",
        ),
        groups=(photo(factor=2.0), replace(own, columns=(column,)), restore(), finish("faithdiff_adapter")),
        models=(CHECKPOINT,),
        made=(ADAPTER,),
    )


def nano() -> Template:
    nano_weights = Group(
        title="2  Nano weights, bundled",
        color=GREEN,
        columns=(
            {
                "load": Node(
                    kind="FaithDiffLoadModel",
                    title="Load FaithDiff Model (nano)",
                    inputs={"model_name": "nano_faithdiff.safetensors", "weight_dtype": "default"},
                ),
                "vae": Node(kind="FaithDiffLoadNanoVAE", title="Load Nano VAE", inputs={"vae_name": "nano_vae.safetensors"}),
                "none": Node(kind="FaithDiffNoPrompt", title="No Prompt", inputs={"model": ("load", 0)}),
            },
        ),
    )
    return Template(
        name="faithdiff_nano",
        note=(
            "# Try the pipeline in a minute",
            "",
            "Nothing to download: the **nano** weights (26 MB) come with the pack and run on a CPU.",
            "",
            "They are there to try the nodes. They were trained for under two hours and show **nothing** of what the released "
            "weights can do.",
            "",
            f"Run. {COMPARE}",
            "",
            "Then open **faithdiff_upscale** for the real weights.",
        ),
        groups=(
            photo("longest side", longest_side=512),
            nano_weights,
            restore(vae=("vae", 0), prompts=(("none", 0), ("none", 0)), sampler={"cfg": 1.0}, caption=False),
            finish("faithdiff_nano", vae=("vae", 0)),
        ),
    )


TEMPLATES = (upscale, old_photo, eight_k, frames, masked, lightning, controlnet, adapter, nano)

if __name__ == "__main__":
    for make in TEMPLATES:
        write(make())
