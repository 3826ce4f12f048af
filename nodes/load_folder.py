"""FaithDiff Load Folder: one picture of a folder a run, the next one that is not done."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.utils import get_executing_context

from .folder.places import FOLDER, WHOLE, folder_names, plain_name, results_folder, source_folder
from .folder.state import FolderJob, FolderState
from .folder.turn import FaithDiffFolder, take
from .photos.loaded import facts, given
from .seam.host import show_text
from .seam.inputs import checked
from .seam.types import PHOTO_CATEGORY, SEARCHED, FaithDiffFolderType, FaithDiffPhotoType

MAX_AGAIN = 999


class FaithDiffLoadFolder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaithDiffLoadFolder",
            display_name="FaithDiff Load Folder",
            category=PHOTO_CATEGORY,
            description="Takes the pictures of a folder one a run: each run the next one that has no result yet. Restore the "
            "whole folder queues as many runs as are left. FaithDiff Save Folder keeps names and sub-folders.",
            search_aliases=[*SEARCHED, "batch", "folder", "directory", "many pictures", "load images", "bulk", "queue"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=folder_names(),
                    default=WHOLE,
                    tooltip="A folder in ComfyUI's input folder; . is the input folder itself. Copy yours there, then press R to "
                    "have it in the list.",
                ),
                io.String.Input(
                    "pattern",
                    default="*",
                    tooltip="Which pictures, by their names: *.jpg, IMG_2* or several with ; between them. * is all. Capital "
                    "letters do not count.",
                ),
                io.Boolean.Input(
                    "sub_folders",
                    default=True,
                    tooltip="Also pictures in folders of this folder. Their results go into folders of the same names.",
                ),
                io.String.Input(
                    "save_to",
                    default=f"restored/{FOLDER}",
                    tooltip="Where FaithDiff Save Folder puts the results: a folder in ComfyUI's output folder, made if need be. "
                    "%folder% is this folder's name. What has a result there is done and is passed over.",
                ),
                io.Boolean.Input(
                    "retry_failed",
                    default=False,
                    tooltip="Try pictures once more that failed in an earlier run. Switch it off when they have had their turn.",
                ),
                io.Int.Input(
                    "again",
                    default=0,
                    min=0,
                    max=MAX_AGAIN,
                    tooltip="Raise it by one to restore all pictures anew, as after a change of settings. Results that this pack "
                    "has made are then replaced; those that you have retouched stay.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    tooltip="The picture in sRGB, upright, without alpha: where it was invisible, the colours around."
                ),
                io.Mask.Output(tooltip="Where the picture is transparent. 64 x 64 px of 0 if it is opaque, as Load Image's."),
                FaithDiffFolderType.Output(display_name="folder", tooltip="Whose turn it is, for FaithDiff Save Folder."),
                FaithDiffPhotoType.Output(
                    display_name="photo", tooltip="As of FaithDiff Load Photo. FaithDiff Save Folder has it from folder."
                ),
                io.String.Output(display_name="name", tooltip="The picture's name with its sub-folder, without its suffix."),
                io.Int.Output(display_name="index", tooltip="Which picture of the folder it is, from 1."),
                io.Int.Output(display_name="count", tooltip="How many pictures there are."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None, save_to: str | None) -> bool | str:
        try:
            if isinstance(folder, str):  # what a link gives is known when the run has begun
                source_folder(plain_name(folder))
                results_folder(save_to if isinstance(save_to, str) else FOLDER, plain_name(folder))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        """Never the same: which picture is next is seen when the run begins."""
        return float("nan")

    @classmethod
    @checked
    def execute(cls, folder: str, pattern: str, sub_folders: bool, save_to: str, retry_failed: bool, again: int) -> io.NodeOutput:
        job = FolderJob(
            folder=plain_name(folder), pattern=pattern, sub_folders=sub_folders, save_to=save_to, retry_failed=retry_failed,
            again=again,
        )  # fmt: skip
        context = get_executing_context()
        taken = take(job, context.prompt_id if context else "")
        if isinstance(taken, FolderState):
            lines = taken.lines()
            show_text(cls, lines)
            outputs = [ExecutionBlocker(None) for _ in cls.define_schema().outputs]  # without a message: nothing is wrong
            return io.NodeOutput(*outputs, ui={"text": ("\n".join(lines),), "faithdiff_folder": [taken.numbers()]})
        key, state = taken.begun.key, taken.state
        index, count = state.index(key), len(state.pictures)
        image, mask, photo = given(taken.photo)
        node_id = cls.hidden.unique_id if cls.hidden else None
        turn = FaithDiffFolder(job=job, begun=taken.begun, photo=photo, loader=str(node_id or ""))
        lines = [f"{index} of {count}: {key}", *facts(taken.photo), *state.lines()]
        show_text(cls, lines)
        told = {"text": ("\n".join(lines),), "faithdiff_folder": [state.numbers()]}
        return io.NodeOutput(image, mask, turn, photo, key, index, count, ui=told)
