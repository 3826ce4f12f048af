"""The schema is strict, and --set speaks its types."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config.ablations import configurations, rows
from training.config.overrides import from_json, override, to_json
from training.config.recipes import RECIPES, recipe


@pytest.mark.parametrize("name", sorted([*RECIPES, *configurations()]))
def test_every_recipe_is_valid_and_survives_json(name: str) -> None:
    config = recipe(name)
    assert config.recipe == name
    assert from_json(to_json(config)) == config


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="got 'batchsize', did you mean 'batch_size'"):
        override(recipe("nano-vae"), ["batchsize=4"])
    with pytest.raises(ValueError, match="got 'nano-vea', did you mean 'nano-vae'"):
        recipe("nano-vea")
    with pytest.raises(ValueError, match="in a.json, got 'lrr', did you mean 'lr'"):
        from_json(to_json(recipe("nano-vae"))[:-1] + ', "lrr": 1}', "a.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected a JSON object"),
        ("{", "expected a JSON object"),
        ('{"recipe": "x", "stage": "vae", "steps": 1, "lr": 1}', "expected values for batch_size"),
        ('{"steps": "1"}', "expected int for steps"),
        ('{"steps": true}', "expected int for steps"),
        ('{"fused_backward": 1}', "expected bool for fused_backward"),
    ],
)
def test_recipe_files_are_checked(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(text)


def test_a_run_s_own_configuration_is_a_recipe(tmp_path: Path) -> None:
    config = override(recipe("nano-joint"), ["steps=7", "fused_backward=yes", "ema_decay=0"])
    path = tmp_path / "config.json"
    path.write_text(to_json(config))
    assert recipe(str(path)) == config
    with pytest.raises(ValueError, match="does not exist"):
        recipe("nowhere.json")


def test_settings_of_earlier_versions_are_read_where_they_had_the_value_that_is_left() -> None:
    config = recipe("lora-24gb")
    former = '"lora_alpha": 0.0, "lora_targets": "all", "gradient_weight": 0.5, "chroma_weight": 1.0, "start_crops": 32, '
    text = "{" + former + '"final_lr_frac": 0.0, ' + to_json(config)[1:]
    assert from_json(text) == config
    with pytest.raises(ValueError, match=r"expected lora_alpha 0\.0 in a\.json, the only value that is left, got 16\.0"):
        from_json(text.replace('"lora_alpha": 0.0', '"lora_alpha": 16.0'), "a.json")
    with pytest.raises(ValueError, match="got 'lora_alpha', did you mean 'lora_rank'"):
        override(config, ["lora_alpha=16"])


def test_official_values() -> None:
    """faithdiff's train_stage_1.sh and train_stage_2.sh."""
    for name, steps, parts in (("stage1", 6000, ("alignment",)), ("stage2", 40000, ("lq_encoder", "alignment", "unet"))):
        config = recipe(name)
        assert (config.steps, config.batch_size, config.lr, config.warmup_steps, config.crop_px) == (steps, 256, 5e-5, 300, 512)
        assert (config.weight_decay, config.adam_beta2, config.clip_norm, config.noise_offset) == (1e-2, 0.999, 1.0, 0.02)
        assert (config.prompt_dropout, config.degradation, config.degradation_scale) == (0.2, "mild", 4)
        assert config.parts == parts
    assert recipe("stage2").lr * recipe("stage2").encoder_lr_ratio == pytest.approx(5e-6)


def test_ablation_rows_train_equally_long_and_differ_where_they_say() -> None:
    lengths = {name: sum(config.steps for config in row.runs if config.stage == "joint") for name, row in rows().items()}
    assert len(set(lengths.values())) == 1
    parts = {name: [config.parts for config in row.runs] for name, row in rows().items()}
    assert parts["encoder-only"] == [("lq_encoder", "alignment")]
    assert parts["unet-only"] == [("alignment", "unet")]
    assert parts["separate"] == [("lq_encoder", "alignment"), ("alignment", "unet")]
    assert parts["joint"] == [("lq_encoder", "alignment", "unet")]


@pytest.mark.parametrize(
    "text",
    [
        "steps",
        "steps=many",
        "steps=1.5",
        "steps=0",
        "crop_px=100",
        "lr=-1",
        "precision=fp8",
        "ema_decay=1",
        "trains=vae",
        "fused_backward=maybe",
    ],
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
