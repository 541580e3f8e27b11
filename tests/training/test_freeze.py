import re

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from tiny import tiny_batch, tiny_m2d_clap_config, tiny_slap_config

from hf_audiolang import M2dClapForPreTraining, SlapForPreTraining
from hf_audiolang.training import load_run_config
from hf_audiolang.training.checkpoint import find_last_checkpoint
from hf_audiolang.training.loop import train
from hf_audiolang.training.objectives import check_freeze, freeze_parameters, has_unused_parameters


def trained_names(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def m2d_model() -> M2dClapForPreTraining:
    torch.manual_seed(3)
    return M2dClapForPreTraining(tiny_m2d_clap_config()).train()


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        (["audio_model.*"], r"m2d_clap\.audio_model\."),
        (["m2d_clap.audio_model.*"], r"m2d_clap\.audio_model\."),  # the full name
        (["predictor.*"], r"predictor\."),  # beside the base model
        (["*.bias", "text_model.*"], r".*\.bias$|m2d_clap\.text_model\."),
        (["audio_model.layers.[01].*"], r"m2d_clap\.audio_model\.layers\.[01]\."),
        (["logit_scale.log_scale"], r"m2d_clap\.logit_scale\.log_scale$"),
    ],
)
def test_a_pattern_freezes_what_it_names_and_nothing_else(patterns, frozen):
    model, whole = m2d_model(), m2d_model()
    check_freeze(model, patterns)
    share = freeze_parameters(model, patterns)
    expected = {name for name in trained_names(whole) if not re.match(frozen, name)}
    assert trained_names(model) == expected
    assert trained_names(whole) - expected
    matched = sum(value.numel() for name, value in whole.named_parameters() if re.match(frozen, name))
    assert share == matched / sum(value.numel() for value in whole.parameters())


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [
        ("audio_mdel.*", "audio_model.*"),
        ("text_model", "text_model.*"),  # the name of a module is no parameter
        ("logit_scale.log_scal", "logit_scale.log_scale"),
        ("audio_model.layer.1.*", "audio_model.layers.1.*"),
    ],
)
def test_a_pattern_without_parameters_is_refused_with_the_nearest_that_has_some(pattern, nearest):
    with pytest.raises(ValueError, match=rf"`freeze` '{re.escape(pattern)}' matches no .* is '{re.escape(nearest)}'"):
        check_freeze(m2d_model(), ["predictor.*", pattern])
    with torch.device("meta"):
        outline = M2dClapForPreTraining(tiny_m2d_clap_config())
    with pytest.raises(ValueError, match=re.escape(nearest)):
        check_freeze(outline, [pattern])


def run_slap(tmp_path, *arguments: str) -> tuple[SlapForPreTraining, dict]:
    """Three steps; the model and the optimizer's state."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    config = load_run_config(
        [
            "--model_config",
            "x",
            "--max_steps",
            "3",
            "--learning_rate",
            "0.01",
            "--output_dir",
            str(tmp_path),
            *arguments,
        ]
    )
    torch.manual_seed(5)
    model = SlapForPreTraining(tiny_slap_config())
    freeze_parameters(model, config.model.freeze)
    batches = ({**tiny_batch(tiny_slap_config(), seed=number), "audio_seconds": 1.0} for number in range(9))
    train(model, lambda start: batches, config, Accelerator(cpu=True), num_steps=3)
    return model, torch.load(find_last_checkpoint(tmp_path / "checkpoints") / "optimizer.bin", weights_only=True)


def test_frozen_weights_stay_equal_to_the_bit_and_the_optimizer_has_none_of_them(tmp_path):
    torch.manual_seed(5)
    before = SlapForPreTraining(tiny_slap_config()).state_dict()
    model, optimizer = run_slap(tmp_path / "some", "--freeze", "audio_model.*", "text_model.*")
    after = model.state_dict()
    parts = ("slap.audio_model.", "slap.text_model.")
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith(parts))
    trained = trained_names(model)
    assert not any(name.startswith(parts) for name in trained)
    assert not any(torch.equal(after[name], before[name]) for name in trained)
    assert len(optimizer["state"]) == sum(len(group["params"]) for group in optimizer["param_groups"]) == len(trained)
    model, optimizer = run_slap(tmp_path / "none")  # control
    assert len(optimizer["state"]) > len(trained)
    assert not torch.equal(model.state_dict()["slap.audio_model.norm.weight"], before["slap.audio_model.norm.weight"])


def test_the_teacher_of_a_frozen_encoder_stays_what_it_is(tmp_path):
    model, _ = run_slap(tmp_path, "--freeze", "audio_model.*")
    torch.manual_seed(5)
    before = SlapForPreTraining(tiny_slap_config()).state_dict()
    names = [name for name in before if name.startswith("teacher_audio_model.")]
    assert names
    for name in names:
        torch.testing.assert_close(model.state_dict()[name], before[name], rtol=1e-6, atol=1e-7)


def test_a_run_that_freezes_everything_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`model` has 0 parameters that require a gradient"):
        run_slap(tmp_path, "--freeze", "*")


@pytest.mark.parametrize(
    ("overrides", "frozen", "expected"),
    [
        ({}, [], False),
        ({"masked_weight": 0.0}, [], False),  # its predictor is not there
        ({"masked_weight": 0.0, "masking_ratio": 0.3, "mask_style": "structured"}, ["audio_model.*"], False),
        ({"masked_weight": 0.0, "masking_ratio": 0.0, "text_projector": "none"}, ["audio_model.*"], False),
        ({"contrastive_weight": 0.0}, [], True),
        ({"contrastive_weight": 0.0, "text_config": None}, [], True),
        ({"contrastive_weight": 0.0}, ["audio_projection.*", "text_*", "logit_scale.*"], False),
    ],
)
def test_ddp_looks_for_parameters_without_gradient_exactly_where_there_are_some(overrides, frozen, expected):
    torch.manual_seed(3)
    if overrides.get("text_projector") == "none":
        overrides = {**overrides, "text_config": {"hidden_size": 24, "num_attention_heads": 2}}
    model = M2dClapForPreTraining(tiny_m2d_clap_config(**overrides)).train()
    freeze_parameters(model, frozen)
    assert has_unused_parameters(model) is expected
    batch = tiny_batch(model.config, seed=1)
    model(**{name: value for name, value in batch.items() if name != "labels"}).loss.backward()
    without = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert bool(without) is expected


def test_ddp_looks_wherever_a_weight_is_0_in_a_model_that_says_nothing_of_its_parts():
    assert not has_unused_parameters(SlapForPreTraining(tiny_slap_config()))
    assert has_unused_parameters(SlapForPreTraining(tiny_slap_config(masked_weight=0.0)))
