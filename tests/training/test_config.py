"""The schema is strict, and --set speaks its types."""

from __future__ import annotations

import pytest

from training.config import from_json, override, to_json
from training.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_valid_and_survives_json(name: str) -> None:
    config = recipe(name)
    assert config.recipe == name
    assert from_json(to_json(config)) == config


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="got 'batchsize', did you mean 'batch_size'"):
        override(recipe("nano-vae"), ["batchsize=4"])
    with pytest.raises(ValueError, match="got 'nano-vea', did you mean 'nano-vae'"):
        recipe("nano-vea")
    with pytest.raises(ValueError, match="expected the settings of this version, got also speed"):
        from_json(to_json(recipe("nano-vae"))[:-1] + ', "speed": 1}')


@pytest.mark.parametrize(
    "text", ["steps", "steps=many", "steps=1.5", "steps=0", "crop_px=100", "lr=-1", "precision=fp8", "ema_decay=1"]
)
def test_wrong_values_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        override(recipe("nano-vae"), [text])


def test_overrides_keep_types() -> None:
    config = override(recipe("nano-vae"), ["steps=1e3", "lr=2e-4", "precision=fp32"])
    assert (config.steps, config.lr, config.precision) == (1000, 2e-4, "fp32")
    assert isinstance(config.steps, int)


def test_crop_plan_switches_at_the_fraction() -> None:
    config = override(recipe("nano-vae"), ["steps=10", "late_from_frac=0.5", "batch_size=8", "late_batch_size=2"])
    assert config.crops_at(4) == (8, 128)
    assert config.crops_at(5) == (2, 256)
