"""A node pack for tests: what other packs' nodes may give to ours, sound and unsound, and a node that tells what comes out.

Runs in the host, in a server (prompts_server.py puts it there) or in a test's process. Needs no image file, no download and no
text encoder of published size.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models_base
import torch
from comfy_api.latest import ComfyExtension, io

from .prompts_faults import Fault, Struck, fault
from .prompts_values import IMAGES, LATENTS, MASKS, PROMPTS


class TryImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sides = [io.Int.Input(name, default=default, min=1, max=512) for name, default in (("width", 40), ("height", 24))]
        return io.Schema(node_id="TryImage", inputs=[io.Combo.Input("kind", options=list(IMAGES)), *sides],
                         outputs=[io.Image.Output()])  # fmt: skip

    @classmethod
    def execute(cls, kind: str, width: int, height: int) -> io.NodeOutput:
        return io.NodeOutput(IMAGES[kind](width, height))


class TryLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        sides = [io.Int.Input(name, default=default, min=1, max=64) for name, default in (("width", 10), ("height", 6))]
        return io.Schema(node_id="TryLatent", inputs=[io.Combo.Input("kind", options=list(LATENTS)), *sides],
                         outputs=[io.Latent.Output()])  # fmt: skip

    @classmethod
    def execute(cls, kind: str, width: int, height: int) -> io.NodeOutput:
        return io.NodeOutput(LATENTS[kind](width, height))


class TryMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="TryMask", inputs=[io.Combo.Input("kind", options=list(MASKS))], outputs=[io.Mask.Output()])

    @classmethod
    def execute(cls, kind: str) -> io.NodeOutput:
        return io.NodeOutput(MASKS[kind](80, 48))


class TryConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="TryConditioning", inputs=[io.Combo.Input("kind", options=list(PROMPTS))],
                         outputs=[io.Conditioning.Output()])  # fmt: skip

    @classmethod
    def execute(cls, kind: str) -> io.NodeOutput:
        return io.NodeOutput(PROMPTS[kind]())


class TryCaptions(io.ComfyNode):
    """Some captioning node's list."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="TryCaptions", inputs=[io.Int.Input("number", default=2, min=0, max=100)],
                         outputs=[io.String.Output(is_output_list=True)])  # fmt: skip

    @classmethod
    def execute(cls, number: int) -> io.NodeOutput:
        return io.NodeOutput([f"The image features a red car, number {i}." for i in range(number)])


class TryClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="TryClip", inputs=[io.Combo.Input("kind", options=["SDXL", "SD1.5", "none"])],
                         outputs=[io.Clip.Output()])  # fmt: skip

    @classmethod
    def execute(cls, kind: str) -> io.NodeOutput:
        if kind == "none":
            return io.NodeOutput(None)
        if kind == "SDXL":
            return io.NodeOutput(_clip(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel))
        return io.NodeOutput(_clip(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel))


@functools.cache
def _clip(tokenizer: Any, encoders: Any) -> comfy.sd.CLIP:
    """Text encoders of the tiny model's widths with random weights, always the same."""
    widths = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3, "projection_dim": 32}
    options = {"clip_l_model_config": widths, "clip_g_model_config": widths, "dtype": torch.float32}
    clip = comfy.sd.CLIP(comfy.supported_models_base.ClipTarget(tokenizer, encoders), model_options=options)
    g, model = torch.Generator().manual_seed(3), clip.cond_stage_model
    state = {k: torch.randn(t.shape, generator=g) * 0.1 if t.is_floating_point() else t for k, t in model.state_dict().items()}
    model.load_state_dict(state)
    return clip


class TryNothing(io.ComfyNode):
    """What a checkpoint gives that lacks the part."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(node_id="TryNothing", outputs=[io.Model.Output(), io.Vae.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(None, None)


class TrySink(io.ComfyNode):
    """Tells what came: its hash where it is made of tensors and texts, and whether all numbers are finite."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs: list[io.Input] = [io.AnyType.Input("value")]
        return io.Schema(node_id="TrySink", is_output_node=True, is_input_list=True, inputs=inputs)

    @classmethod
    def execute(cls, value: list) -> io.NodeOutput:
        digest, finite = hashlib.sha256(), [True]
        _take(value, digest, finite)
        return io.NodeOutput(ui={"digest": [digest.hexdigest()], "finite": finite})


def _take(value: Any, digest: Any, finite: list[bool]) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f"{tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
        finite[0] = finite[0] and bool(torch.isfinite(value).all())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            _take(value[key], digest, finite)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _take(part, digest, finite)
    elif isinstance(value, (str, int, float)):
        digest.update(repr(value).encode())


_standing: list[tuple[contextlib.ExitStack, Struck]] = []


def _add_routes() -> None:
    """POST /try/fault with a Fault's fields replaces the fault that stands; with {} it takes it away. Who waits says so.

    The answer tells how often the place of the fault that stood was called."""
    from aiohttp import web
    from server import PromptServer

    server = PromptServer.instance

    async def put_fault(request: web.Request) -> web.Response:
        fields = await request.json()
        calls = 0
        while _standing:
            stack, struck = _standing.pop()
            stack.close()
            calls += struck.calls
        if fields:
            stack = contextlib.ExitStack()
            told = fault(Fault(**fields), lambda: server.send_sync("try.struck", {"place": fields["place"]}))
            _standing.append((stack, stack.enter_context(told)))
        return web.json_response({"calls": calls})

    server.routes.post("/try/fault")(put_fault)


class TryExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


NODES = (TryImage, TryLatent, TryMask, TryConditioning, TryCaptions, TryClip, TryNothing, TrySink)


async def comfy_entrypoint() -> TryExtension:
    _add_routes()
    return TryExtension()
