"""The pack's workflow templates, written down once: `python3 tools/frontend/templates.py` writes API prompts and layouts.

Then, for each, `save_workflow.py` makes the front end's file. Titles and notes are for people who have never read the paper.
"""

from __future__ import annotations

from template_files import write
from template_graph import BLUE, Group, Node, Template
from template_parts import (
    CHECKPOINT,
    COMPARE,
    NEEDED,
    SAVED,
    SAVED_HEIGHT,
    WEIGHTS,
    compare,
    decode,
    finish,
    folded,
    photo,
    restore,
    size,
    usual,
)
from templates_special import adapter, controlnet, eight_k, frames, lightning, masked


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
            "2. **scale**: how many times larger.",
            "3. **prompt**: what it shows, if you like, in one plain sentence.",
            f"4. Run. {COMPARE}",
            "",
            "Any size will do: large pictures are restored in tiles. For megapixels or a side in pixels, open "
            "**FaithDiff Upscale** by the icon at its upper right: all nodes are in there.",
        ),
        groups=(photo(), usual("photo", size(factor=2.0)), finish("faithdiff")),
        models=(WEIGHTS, CHECKPOINT),
    )


def folder() -> Template:
    source = {
        "folder": ".",
        "pattern": "*",
        "sub_folders": True,
        "save_to": "restored/%folder%",
        "retry_failed": False,
        "again": 0,
    }
    load = Node(kind="FaithDiffLoadFolder", title="Your folder", inputs=source)
    saved = {"image": ("color", 0), "folder": ("photo", 2), **SAVED}
    last = {**compare(), "save": Node(kind="FaithDiffSaveFolder", title="Save", inputs=saved, height=SAVED_HEIGHT)}
    return Template(
        name="faithdiff_folder",
        note=(
            "# A whole folder",
            "",
            *NEEDED,
            "**Each folder**",
            "",
            "1. Copy it into ComfyUI's input folder, press R, and choose it as **folder**. A dot is the input folder itself.",
            "2. Set **scale** and the rest for all of its pictures. **Run** restores one, to see that it is right.",
            "3. **Restore the whole folder** queues all that are left.",
            "",
            "Results keep their names, in output/restored. What has a result is passed over: stop whenever you like, and go on "
            "later.",
        ),
        groups=(
            Group(title="1  Your folder", color=BLUE, columns=({"photo": load},)),
            usual("photo", size(factor=2.0)),
            Group(title="3  Before and after, saved", color=BLUE, columns=(last,)),
        ),
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
            "- The preset **old photo** keeps the tint, and **faded photo** takes the cast away; both have **cfg 3** instead "
            "of 5: less is made up where the photo shows little.",
            "- Stains stay: no colour fix takes them out.",
            "- The longer side becomes 2048 px, whatever the scan's size was. Scan large, then let it shrink: grain "
            "costs nothing.",
            "",
            f"{COMPARE}",
        ),
        groups=(
            photo(),
            usual("old photo", size("longest side", longest_side=2048), asks="longest_side"),
            finish("faithdiff_old"),
        ),
        models=(WEIGHTS, CHECKPOINT),
    )


def nano() -> Template:
    load = {"model_name": "nano_faithdiff.safetensors", "weight_dtype": "default"}
    bundled = {
        "load": Node(kind="FaithDiffLoadModel", title="Load FaithDiff Model (nano)", inputs=load),
        "vae": Node(kind="FaithDiffLoadNanoVAE", title="FaithDiff Load Nano VAE", inputs={"vae_name": "nano_vae.safetensors"}),
        "none": Node(kind="FaithDiffNoPrompt", title="FaithDiff No Prompt", inputs={"model": ("load", 0)}),
    }
    none = (("none", 0), ("none", 0))
    return Template(
        name="faithdiff_nano",
        note=(
            "# Try it now",
            "",
            "Nothing to download: the **nano** weights (27 MB) and the photo come with the pack. On two CPU cores a run took "
            "9 seconds, and under 50 with other work going on (measured, loading included).",
            "",
            "They are there to try the nodes. They were trained for about six hours and show **nothing** of what the released "
            "weights can do.",
            "",
            f"Run. {COMPARE}",
            "",
            "Then move **fidelity**: 1 keeps more of what the photo has, its noise too; 0 is smooth.",
            "",
            "Then open **faithdiff_upscale** for the real weights.",
        ),
        groups=(
            photo(),
            folded(
                {"size": size(factor=2.0), **bundled},
                restore(vae=("vae", 0), prompts=none, sampler={"cfg": 1.0}, caption={}),
                # Measured on this photo (docs/nano.md): at 1 much of its noise stays, at 0 it is smooth.
                decode(vae=("vae", 0), fidelity=0.5),
                shown=("scale", "seed", "steps", "fidelity"),
            ),
            finish("faithdiff_nano"),
        ),
        photos=(),
    )


TEMPLATES = (upscale, folder, old_photo, eight_k, frames, masked, lightning, controlnet, adapter, nano)

if __name__ == "__main__":
    for make in TEMPLATES:
        write(make())
