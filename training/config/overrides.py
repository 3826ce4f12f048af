"""A configuration as text: `--set key=value`, and the JSON that is a recipe file and lies beside every run."""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, replace
from typing import Any

from training.common.strict_json import parse_json
from training.config.schema import KINDS, TrainConfig

FORMER: dict[str, Any] = {
    "lora_alpha": 0.0,
    "lora_targets": "all",
    "gradient_weight": 0.5,
    "chroma_weight": 1.0,
    "start_crops": 32,
    "final_lr_frac": 0.0,
}
"""Settings of earlier versions, which no recipe ever set, and their only value now. Configurations of old runs have them."""


def _known(name: str, source: str) -> None:
    """Raise ValueError naming the nearest setting if `name` is none."""
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(KINDS)}"
        raise ValueError(f"expected a known setting{source}, got {name!r:.60}, {hint}")


def _parse(name: str, kind: type, text: str) -> Any:
    if kind is bool:
        lowered = text.lower()
        if lowered not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
            raise ValueError
        return lowered in ("true", "1", "yes", "on")
    if kind is int:
        number = float(text)  # 1e6 is a whole number, too
        if not number.is_integer():
            raise ValueError
        return int(number)
    return kind(text)


def override(config: TrainConfig, assignments: list[str]) -> TrainConfig:
    """Apply `key=value` texts.

    Raises:
        ValueError: an unknown key (the message names the nearest one) or a value of the wrong type.
    """
    changes: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"expected KEY=VALUE after --set, got {text!r:.60}, write for example --set steps=100")
        _known(name, "")
        kind = KINDS[name]
        try:
            changes[name] = _parse(name, kind, value)
        except (ValueError, OverflowError):
            raise ValueError(f"expected {kind.__name__} for {name}, got {value!r:.60}, correct --set {name}") from None
    return replace(config, **changes)


def _is_former(name: str, given: Any, where: str) -> bool:
    """Whether this is a setting of earlier versions at its only value.

    Raises:
        ValueError: one at another value.
    """
    wanted = FORMER.get(name)
    if name in FORMER and given != wanted:
        raise ValueError(
            f"expected {name} {wanted}{where}, the only value that is left, got {given!r:.60}, use the version that wrote it"
        )
    return name in FORMER


def to_json(config: TrainConfig) -> str:
    """The configuration as one line of JSON, keys in the order of the schema."""
    return json.dumps(asdict(config))


def from_json(text: str, source: str = "") -> TrainConfig:
    """Read what `to_json` wrote, or a recipe file; settings left out take their defaults. `source` names the file in messages.

    Raises:
        ValueError: text that is no JSON object, unknown keys, values of the wrong type, missing ones without default, and
            settings of earlier versions (FORMER) at other values than the one left.
    """
    where = f" in {source}" if source else ""
    try:
        value = parse_json(text)
    except ValueError as error:
        raise ValueError(f"expected a JSON object of settings{where}, got {text[:40]!r} ({error}), correct it") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object of settings{where}, got {type(value).__name__}, correct it")
    value = {name: given for name, given in value.items() if not _is_former(name, given, where)}
    for name, given in value.items():
        _known(name, where)
        kind = KINDS[name]
        if not isinstance(given, (int, float) if kind is float else kind) or (isinstance(given, bool) and kind is not bool):
            raise ValueError(f"expected {kind.__name__} for {name}{where}, got {given!r:.60}, correct it")
    missing = [name for name in ("recipe", "stage", "steps", "batch_size", "lr") if name not in value]
    if missing:
        raise ValueError(f"expected values for {', '.join(missing)}{where}, got none, add them")
    return TrainConfig(**value)
