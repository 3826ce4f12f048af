"""FaithDiff Preset: settings for a kind of picture, for the widgets of the other nodes."""

from __future__ import annotations

from comfy_api.latest import io

from ..faithdiff_core.color_fix import METHODS
from ..faithdiff_core.presets import PRESETS, about
from .sampler import NOISE_MODES
from .seam.host import show_text
from .seam.inputs import checked
from .seam.types import RESTORE_CATEGORY, SEARCHED


class FaithDiffPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffPreset",
            display_name="FaithDiff Preset",
            category=RESTORE_CATEGORY,
            description="Settings for a kind of picture. Drag each output onto the input of the same name: of FaithDiff Sampler, "
            "FaithDiff Prompt and FaithDiff Color Fix. What you leave unconnected stays as you set it.",
            search_aliases=[*SEARCHED, "settings", "preset", "style", "portrait", "film"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="photo",
                    tooltip="What the picture is. photo gives the release's own settings; the help page says what each of the "
                    "others changes, and why.",
                )
            ],
            outputs=[
                io.Int.Output(display_name="steps", tooltip="For FaithDiff Sampler."),
                io.Float.Output(display_name="cfg", tooltip="For FaithDiff Sampler."),
                io.Float.Output(display_name="denoise", tooltip="For FaithDiff Sampler."),
                io.Combo.Output(display_name="noise_mode", options=list(NOISE_MODES), tooltip="For FaithDiff Sampler."),
                io.Boolean.Output(display_name="add_quality", tooltip="For FaithDiff Prompt."),
                io.Combo.Output(display_name="method", options=list(METHODS), tooltip="For FaithDiff Color Fix."),
                io.String.Output(display_name="about", tooltip="What the preset changes and why, as the node shows it."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    @checked
    def execute(cls, preset: str) -> io.NodeOutput:
        lines = about(preset)
        show_text(cls, lines)
        return io.NodeOutput(*PRESETS[preset].values().values(), "\n".join(lines))
