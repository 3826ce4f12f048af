"""Templates for one purpose each: 8K, films, masks, few steps, ControlNet, adapters."""

from __future__ import annotations

from template_graph import BLUE, GREEN, Group, Node, Template
from template_parts import (
    ADAPTER,
    CHECKPOINT,
    CONTROLNET,
    EXAMPLE,
    LIGHTNING,
    NEEDED,
    WEIGHTS,
    compare,
    decode,
    finish,
    folded,
    photo,
    prompt,
    restore,
    save,
    size,
    usual,
    weights,
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
            "- **FaithDiff Decode** goes in tiles, too, where memory asks for it.",
            "- **wavelet** takes the broad colours from the photo, so that they do not drift from tile to tile.",
            "- Less overlap (0.25) takes about half the time.",
            "- Out of memory: nothing to do, the sampler goes on with fewer or smaller tiles and says so.",
        ),
        groups=(
            photo(size=size("longest side", longest_side=7680)),
            _weights(weights()),
            restore(more=plan, title="3  Restore"),
            *_in_the_open("faithdiff_8k", decode(method="wavelet")),
        ),
        models=(WEIGHTS, CHECKPOINT),
    )


def _weights(loaders: dict[str, Node]) -> Group:
    return Group(title="2  Weights", color=GREEN, columns=(loaders,))


def _in_the_open(folder: str, decoded: dict[str, Node]) -> tuple[Group, ...]:
    """The end of a template whose nodes all stand on the canvas."""
    columns = (decoded, compare(), {"save": save(folder)})
    return (Group(title="4  Colours of the photo, before and after, saved", color=BLUE, row=2, columns=columns),)


def frames() -> Template:
    film = {
        "film": Node(kind="LoadVideo", title="Film", inputs={"file": "film.mp4"}),
        "parts": Node(kind="GetVideoComponents", title="Frames and sound", inputs={"video": ("film", 0)}),
    }
    video = {"images": ("color", 0), "fps": ("parts", 2), "audio": ("parts", 1), "bit_depth": 8}
    saved = {"video": ("video", 0), "filename_prefix": "video/faithdiff", "format": "auto", "codec": "auto"}
    last = {
        "video": Node(kind="CreateVideo", title="Film again", inputs=video),
        "save": Node(kind="SaveVideo", title="Save", inputs=saved),
    }
    return Template(
        name="faithdiff_frames",
        note=(
            "# Frames of a film",
            "",
            *NEEDED,
            "**What is different here**",
            "",
            "- The preset **film frame**: every frame starts from the same noise, so that it flickers less, and has 10 steps. "
            "FaithDiff knows single pictures only; fine detail still changes from frame to frame.",
            "- Frames go through one after another, so that memory does not grow with their number, but for the "
            "frames themselves.",
            "- Try a second of the film first.",
        ),
        groups=(
            Group(title="1  Your film", color=BLUE, columns=(film,)),
            usual("film frame", size(of=("parts", 0), factor=2.0)),
            Group(title="3  Before and after, saved", color=BLUE, columns=({**compare(("parts", 0)), **last},)),
        ),
        models=(WEIGHTS, CHECKPOINT),
        photos=("film.mp4",),
    )


def masked() -> Template:
    solid = {"value": 0.6, "width": ("size", 1), "height": ("size", 2)}
    both = {"destination": ("paint", 1), "source": ("rest", 0), "x": 0, "y": 0, "operation": "add"}
    column = {
        # Not the photo itself: painted, it is another file, without metadata, and what is painted is its alpha.
        "paint": Node(kind="LoadImage", title="The same photo: paint here", inputs={"image": EXAMPLE}),
        "rest": Node(kind="SolidMask", title="How closely elsewhere", inputs=solid),
    }
    first = photo(EXAMPLE, size=size(factor=2.0))
    follow = {"follow": Node(kind="MaskComposite", title="Painted: in full", inputs=both)}
    return Template(
        name="faithdiff_masked",
        note=(
            "# Faces and text kept closer",
            "",
            *NEEDED,
            "**What is different here**",
            "",
            "- Choose the photo twice: in **Degraded photo** and in **The same photo: paint here**.",
            "- Right-click the second one, **Open in MaskEditor**, and paint over faces and text. There the photo is "
            "followed in full.",
            "- **How closely elsewhere** is the rest: 1 follows in full, too, 0 lets the model make up what it likes.",
            "- Nothing painted: everywhere as elsewhere.",
        ),
        groups=(
            Group(title=first.title, color=first.color, columns=(*first.columns, column)),
            Group(title="2  Weights and prompt", color=GREEN, columns=(weights(**prompt()),)),
            restore(first=follow, align={"mask": ("follow", 0)}, caption={}, title="3  Restore"),
            *_in_the_open("faithdiff_masked", decode()),
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
            f"- [SDXL-Lightning LoRA, 4 steps]({LIGHTNING.url}) to models/loras.",
            "",
            "**What is different here**",
            "",
            "- 4 steps at **cfg 1** with euler and sgm_uniform: as many steps as this LoRA file is made for. That is 4 calls of "
            "the UNet instead of 40.",
            "- Not tried with FaithDiff by us. The LoRA was made for plain SDXL, and FaithDiff's UNet was trained from that. "
            "Compare with the usual 20 steps before you trust it with faces or text.",
        ),
        groups=(
            photo(),
            folded(
                {"size": size(factor=2.0), **weights(lora=Node(kind="LoraLoaderModelOnly", title="Lightning LoRA", inputs=lora))},
                restore(model=("lora", 0), sampler={"steps": 4, "cfg": 1.0, "scheduler": "sgm_uniform"}),
                decode(),
                also={"lora": ("lora", "lora_name")},
            ),
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
            f"- [Tile ControlNet for SDXL]({CONTROLNET.url}) to models/controlnet.",
            "",
            "**What is different here**",
            "",
            "- The ControlNet holds the composition in the first part of the steps. Its hint is cut with the tiles.",
            "- FaithDiff already follows the photo; use this where the photo is so bad that shapes get lost, or with "
            "a depth or line "
            "ControlNet of your own.",
        ),
        groups=(
            photo(),
            folded(
                {"size": size(factor=2.0), **weights(control=loader)},
                restore(
                    prompts=(("hint", 0), ("hint", 1)),
                    more={"hint": Node(kind="ControlNetApplyAdvanced", title="Hint: the photo itself", inputs=applied)},
                ),
                decode(),
                also={"controlnet": ("control", "control_net_name"), "strength": ("hint", "strength")},
            ),
            finish("faithdiff_controlnet"),
        ),
        models=(WEIGHTS, CHECKPOINT, CONTROLNET),
    )


def adapter() -> Template:
    base = {"model_name": ADAPTER.name, "weight_dtype": "default", "base_model": ("sdxl", 0)}
    own = {
        "sdxl": Node(kind="CheckpointLoaderSimple", title="Any SDXL checkpoint", inputs={"ckpt_name": CHECKPOINT.name}),
        "load": Node(kind="FaithDiffLoadModel", title="FaithDiff adapter on it", inputs=base),
    }
    return Template(
        name="faithdiff_adapter",
        note=(
            "# An adapter on your own checkpoint",
            "",
            "**Weights, once**",
            "",
            "- An adapter that you trained (docs/training.md, then export with --layout adapter) to models/faithdiff: LQ encoder "
            "and alignment module, 90 MB. Choose it as **weights**.",
            "- The SDXL checkpoint that it was trained for, or one like it, to models/checkpoints.",
            "",
            "**What is different here**",
            "",
            "- The UNet is the checkpoint's own. If training wrote a LoRA beside the adapter, open **FaithDiff Upscale** and put "
            "**Load LoRA** between the two loaders.",
            "- FaithDiff.bin cannot be used so: its UNet was trained with it.",
        ),
        groups=(photo(), folded({"size": size(factor=2.0), **own}, restore(), decode()), finish("faithdiff_adapter")),
        models=(CHECKPOINT,),
        made=(ADAPTER,),
    )
