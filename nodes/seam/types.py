"""The pack's own socket types and menu category."""

from comfy_api.latest import io

CATEGORY = "FaithDiff"

FaithDiffModelType = io.Custom("FAITHDIFF_MODEL")
FaithDiffFeaturesType = io.Custom("FAITHDIFF_FEATURES")
FaithDiffPhotoType = io.Custom("FAITHDIFF_PHOTO")
