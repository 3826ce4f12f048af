"""The pack's own socket types and its places in the menu."""

from comfy_api.latest import io

PHOTO_CATEGORY = "FaithDiff/photo"
"""Photos in and out, and their size. One place in the menu for each task."""
RESTORE_CATEGORY = "FaithDiff/restore"
PROMPT_CATEGORY = "FaithDiff/prompt"
TILES_CATEGORY = "FaithDiff/tiles"
REPORT_CATEGORY = "FaithDiff/report"
"""What a run will take, and how faithful its result is."""
NANO_CATEGORY = "FaithDiff/nano"
"""Only for the model that comes with the pack."""

SEARCHED = ["restore", "enhance", "sharpen", "denoise", "deblur", "old photo", "upscale", "super resolution"]
"""What people look for who do not know the pack's name: search aliases of the nodes that they need first."""

FaithDiffModelType = io.Custom("FAITHDIFF_MODEL")
FaithDiffFeaturesType = io.Custom("FAITHDIFF_FEATURES")
FaithDiffPhotoType = io.Custom("FAITHDIFF_PHOTO")
FaithDiffFolderType = io.Custom("FAITHDIFF_FOLDER")
