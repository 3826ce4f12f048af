"""FaithDiff Get Weights: a run downloads the file that is chosen, if it is not there, and gives its name to a loader."""

from __future__ import annotations

import time

import comfy.model_management as mm
import comfy.utils
from comfy_api.latest import io, ui

from ..faithdiff_core.hub.catalogue import FILES
from ..faithdiff_core.hub.get import free_bytes, get
from ..faithdiff_core.hub.progress import Progress, in_units
from .seam.host import show_text
from .seam.inputs import checked
from .seam.types import RESTORE_CATEGORY
from .weights.job import DOWNLOADS, disk_words, prepared
from .weights.places import folder_of, found

CHOICES = {
    "FaithDiff": FILES["faithdiff"], "SDXL checkpoint (RealVisXL V4.0)": FILES["checkpoint"], "SDXL VAE (fp16 fix)": FILES["vae"],
}  # fmt: skip
"""Saved workflows hold these names."""
EVERY_S = 1.0
"""Between two lines of progress on the node."""


class FaithDiffGetWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffGetWeights",
            display_name="FaithDiff Get Weights",
            category=RESTORE_CATEGORY,
            description="When it is run, downloads weights from the Hugging Face hub onto the machine that runs ComfyUI, and "
            "only files that are not there: FaithDiff (about 10 GB, kept as 5 GB), an SDXL checkpoint (about 7 GB), a VAE. Their "
            "licences are on their pages: " + ", ".join(file.page for file in FILES.values()) + ".",
            search_aliases=["download", "install model", "hugging face", "FaithDiff.bin", "missing weights"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=list(CHOICES),
                    tooltip="What to download. Sizes and licences are shown first by the button Get weights on this node.",
                ),
                io.Boolean.Input(
                    "keep_bin",
                    default=False,
                    advanced=True,
                    tooltip="Keep FaithDiff.bin beside the fp16 .safetensors made of it. It is twice as large and of no further "
                    "use in ComfyUI.",
                ),
            ],
            outputs=[
                io.Combo.Output(
                    display_name="name",
                    tooltip="The file's name, for the list of a loader, such as that of Load FaithDiff Model.",
                )
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, **kwargs) -> tuple[str, str]:
        """Changes when the file comes or goes."""
        return (file, found(CHOICES[file]) or "" if file in CHOICES else "")

    @classmethod
    @checked
    def execute(cls, file: str, keep_bin: bool) -> io.NodeOutput:
        wanted = CHOICES[file]
        with DOWNLOADS.alone():
            steps = [] if found(wanted) else prepared([wanted], keep=keep_bin)
            said = [
                f"{step.file.name}, {in_units(step.record.size_bytes)}; licence: {step.file.licence}, {step.file.page}\n"
                f"To {step.folder}: needs {in_units(step.needs_bytes)}, free {in_units(free_bytes(step.folder))}"
                for step in steps
            ]
            try:
                get(steps, cls._teller(said), keep=keep_bin)
            except OSError as error:
                raise ValueError(disk_words(error)) from None
        name = found(wanted) or wanted.loaded
        lines = [f"{name} is in {folder_of(wanted)}" if steps else f"{name} is there"]
        show_text(cls, lines)
        return io.NodeOutput(name, ui=ui.PreviewText("\n".join(lines)))

    @classmethod
    def _teller(cls, said: list[str]):
        """Shows the progress on the node and its bar, and lets the host interrupt."""
        progress, bar, last_s = Progress(), comfy.utils.ProgressBar(1), -EVERY_S

        def tell(phase: str, done_bytes: int, total_bytes: int) -> None:
            nonlocal last_s
            mm.throw_exception_if_processing_interrupted()
            progress.tell(phase, done_bytes, total_bytes)
            if time.monotonic() - last_s >= EVERY_S:
                last_s = time.monotonic()
                bar.update_absolute(done_bytes, total_bytes)
                show_text(cls, [*said, progress.line()])

        return tell
