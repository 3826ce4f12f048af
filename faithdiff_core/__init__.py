"""The FaithDiff network, its file format, geometry and colour correction.

Knows no host and no trainer: everything here needs only torch, numpy and safetensors, and every
module is built from an `operations` namespace that the caller injects (`torch.nn` in training,
`comfy.ops` in ComfyUI).
"""
