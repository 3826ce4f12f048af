"""A whole FaithDiff in small with pieces exchanged: names, shapes, types and values of its tensors, and its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from .safetensors_cases import HEADER_NAMES, HEADER_VALUES

State = dict[str, torch.Tensor]
CONFIG_VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 64, 10**9, 2**63, 10**400, True, None, 1.5, float("nan"), float("inf"), "4", [], [4], [10**9] * 3, {}),
    *("x" * 5000, [[]] * 500, {"a": {"b": 1}}),
)
CONFIG_NAMES = {
    "lq_encoder": ("norm_groups", "block_out_channels", "layers_per_block", "in_channels", "downscale", "__class__"),
    "alignment": ("num_heads", "num_layers", "mlp_channels", "model_channels", "feature_channels", "token_channels"),
    "fidelity_decoder": ("widths", "blocks", "feature_channels", "reach_px", "__class__"),
    "unet": ("num_head_channels", "model_channels", "context_channels", "adm_channels", "in_channels", "new"),
}
DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int64, torch.bool, torch.complex64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.uint16),
)
EXTRA_NAMES = (
    *("scaled_fp8", "v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min", "new.weight"),
    *("model.diffusion_model.input_blocks.0.0.comfy_quant", "model.diffusion_model.input_blocks.0.0.weight_scale", "a\nb"),
    *("model.diffusion_model.label_emb.0.0.comfy_quant", "model.diffusion_model.input_blocks.4.1.proj_in.comfy_quant"),
    *("faithdiff.alignment.proj_out.comfy_quant", "information_transformer_layes.0.attn.in_proj_weight", "down_blocks.0.x"),
    *(
        "model.diffusion_model.input_blocks.1.1.proj_in.weight",
        "model.diffusion_model.time_stack.0",
        "model.diffusion_model.double_",
    ),
    *("faithdiff.lq_encoder.down_blocks.4.resnets.0.conv1.weight", "faithdiff.alignment.blocks.2.mlp_up.weight"),
    *(
        "model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale",
        "model.diffusion_model.joint_blocks.0.context_block.x",
    ),
    *("model.diffusion_model.middle_block.1.transformer_blocks.1.x", "model.diffusion_model.input_blocks.9.0.in_layers.0.weight"),
)
QUANT_TEXTS = ('{"format": "float8_e4m3fn"}', '{"format": "none"}', "{", "[]", "{}", '{"format": 5}', "\xff")


class Program:
    """Choices read off a case's bytes; past their end all are 0."""

    def __init__(self, case: bytes) -> None:
        self._case, self._at = case, 0

    def __bool__(self) -> bool:
        return self._at < len(self._case)

    def below(self, count: int) -> int:
        self._at += 2
        return int.from_bytes(self._case[self._at - 2 : self._at], "little") % max(count, 1)

    def one(self, choices: Any) -> Any:
        return choices[self.below(len(choices))]


def changed(case: bytes, state: State, header: dict[str, str]) -> tuple[State, dict[str, str]]:
    """The network after the changes that the case's bytes ask for, six at most."""
    program, state, header = Program(case), dict(state), dict(header)
    for _ in range(6):
        if not program:
            break
        program.one(CHANGES)(program, state, header)
    return state, header


def _drop(program: Program, state: State, _: dict[str, str]) -> None:
    state.pop(program.one(list(state)))
    state.setdefault("rest", torch.zeros(1))


def _drop_many(program: Program, state: State, _: dict[str, str]) -> None:
    name = program.one(list(state))
    prefix = name[: 1 + program.below(len(name))]
    for each in [each for each in state if each.startswith(prefix)]:
        del state[each]
    state.setdefault("rest", torch.zeros(1))


def _rename(program: Program, state: State, _: dict[str, str]) -> None:
    name, other = program.one(list(state)), program.one(list(state))
    cut = program.below(len(name))
    state[other[:cut] + name[cut:]] = state.pop(name)


def _exchange(program: Program, state: State, _: dict[str, str]) -> None:
    state[program.one(list(state))] = state[program.one(list(state))]


def _reshape(program: Program, state: State, _: dict[str, str]) -> None:
    name = program.one(
        [*list(state), *list(state)[:3], *(each for each in state if each.endswith(("0.0.weight", "conv_in.weight")))]
    )
    side = _side(program)
    shapes = ((), (0,), (1,), (side,), (0, side), (side, 0, 3, 3), (1, 1), (2, 3, 1, 1), (1,) * 6)
    state[name] = torch.zeros(program.one(shapes))


def _side(program: Program) -> int:
    """A side that small tensors can have."""
    return program.one((1, 2, 31, 64, 4097))


def _empty_and_huge(program: Program, state: State, _: dict[str, str]) -> None:
    name = program.one(list(state))
    side = program.one((2**20, 2**31, 2**40, 10**12))
    shape = [side] * max(state[name].ndim, 1)
    shape[program.below(len(shape))] = 0
    try:
        state[name] = torch.empty(shape)
    except RuntimeError:  # more than a tensor can say even without elements
        state[name] = torch.empty(0, side)


def _retype(program: Program, state: State, _: dict[str, str]) -> None:
    names = list(state) if program.below(4) else [program.one(list(state))]
    dtype = program.one(DTYPES)
    for name in names[: 1 + program.below(len(names))]:
        state[name] = torch.zeros(state[name].shape, dtype=dtype)


def _value(program: Program, state: State, _: dict[str, str]) -> None:
    name = program.one(list(state))
    state[name] = torch.full_like(state[name], program.one((float("nan"), float("inf"), 1e30, 0.0))) \
        if state[name].is_floating_point() and state[name].element_size() > 1 else state[name]  # fmt: skip


def _extra(program: Program, state: State, _: dict[str, str]) -> None:
    name = program.one(EXTRA_NAMES)
    if name.endswith("comfy_quant"):
        state[name] = torch.tensor(list(program.one(QUANT_TEXTS).encode("latin-1")), dtype=torch.uint8)
    else:
        state[name] = torch.zeros(program.one(((), (0,), (1,), (2,), (4, 4), (4, 4, 3, 3))))


def _many(program: Program, state: State, _: dict[str, str]) -> None:
    """Blocks without end: names are cheap."""
    pattern = program.one(
        ("faithdiff.lq_encoder.down_blocks.{}.resnets.0.conv1.weight", "faithdiff.lq_encoder.down_blocks.0.resnets.{}.x",
         "faithdiff.alignment.blocks.{}.x", "model.diffusion_model.input_blocks.{}.0.in_layers.0.weight",
         "model.diffusion_model.middle_block.1.transformer_blocks.{}.x", "down_blocks.{}.resnets.0.conv1.weight", "x{}",
         "faithdiff.fidelity_decoder.down_blocks.{}.0.expand.weight", "faithdiff.fidelity_decoder.down_blocks.0.{}.expand.weight")
    )  # fmt: skip
    for number in range(program.one((3, 60, 1000))):
        state[pattern.format(number)] = torch.zeros(1)


def _header(program: Program, _: State, header: dict[str, str]) -> None:
    header[program.one(HEADER_NAMES)] = program.one(HEADER_VALUES)


def _config(program: Program, _: State, header: dict[str, str]) -> None:
    try:
        config = json.loads(header.get("faithdiff.config", "{}"))
        section = program.one(list(CONFIG_NAMES))
        config.setdefault(section, {})[program.one(CONFIG_NAMES[section])] = program.one(CONFIG_VALUES)
        header["faithdiff.config"] = json.dumps(config)
    except (ValueError, RecursionError, TypeError, AttributeError):
        return  # another change has broken it


CHANGES: tuple[Callable[[Program, State, dict[str, str]], None], ...] = (
    *(
        _drop,
        _drop_many,
        _rename,
        _exchange,
        _reshape,
        _reshape,
        _empty_and_huge,
        _retype,
        _value,
        _extra,
        _extra,
        _many,
        _header,
    ),
    *(_config, _config, _config),
)
