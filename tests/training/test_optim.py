import pytest
import torch
from tiny import tiny_slap_config
from torch import nn

from hf_audiolang import SlapForPreTraining
from hf_audiolang.training.config import TrainArguments
from hf_audiolang.training.optim import build_optimizer, parameter_groups
from hf_audiolang.training.scaled_adam import ScaledAdam
from hf_audiolang.training.schedule import build_lr_schedule


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 5)
        self.convolution = nn.Conv1d(3, 5, 2)
        self.norm = nn.LayerNorm(5)
        self.rms = nn.RMSNorm(5)
        self.words = nn.Embedding(7, 5)
        self.tied_head = nn.Linear(5, 7, bias=False)
        self.tied_head.weight = self.words.weight
        self.query = nn.Parameter(torch.zeros(1, 1, 5))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.teacher = nn.Linear(3, 5).requires_grad_(False)


def names_of(model: nn.Module, group: dict) -> set[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


def test_only_matrices_of_layers_decay():
    model = Parts()
    decayed, plain = parameter_groups(model, 0.05)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert names_of(model, decayed) == {"linear.weight", "convolution.weight"}
    expected = {"linear.bias", "convolution.bias", "norm.weight", "norm.bias", "rms.weight"}
    assert names_of(model, plain) == expected | {"words.weight", "query", "log_scale"}


def test_every_trained_parameter_is_in_exactly_one_group():
    model = Parts()
    in_groups = [id(parameter) for group in parameter_groups(model, 0.05) for parameter in group["params"]]
    trained = [id(parameter) for parameter in model.parameters() if parameter.requires_grad]
    assert sorted(in_groups) == sorted(trained)


def test_decay_shrinks_the_matrix_and_not_the_norm():
    model = Parts()
    optimizer = build_optimizer(model, TrainArguments(learning_rate=0.1, weight_decay=0.5))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    torch.testing.assert_close(model.linear.weight, before["linear.weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(model.norm.weight, before["norm.weight"])
    assert torch.equal(model.words.weight, before["words.weight"])
    assert torch.equal(model.teacher.weight, before["teacher.weight"])


def test_a_frozen_model_is_refused():
    with pytest.raises(ValueError, match="`model` has 0 parameters that require a gradient"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), TrainArguments())


@pytest.mark.parametrize("amsgrad", [False, True])
def test_the_optimizer_is_torchs_adamw(amsgrad):
    model, other = Parts(), Parts()
    other.load_state_dict(model.state_dict())
    keys = {"learning_rate": 0.03, "adam_betas": [0.8, 0.97], "weight_decay": 0.4, "amsgrad": amsgrad}
    optimizer = build_optimizer(model, TrainArguments(**keys))
    reference = torch.optim.AdamW(parameter_groups(other, 0.4), lr=0.03, betas=(0.8, 0.97), amsgrad=amsgrad)
    assert type(optimizer) is torch.optim.AdamW
    assert TrainArguments().amsgrad is False
    for step in range(3):
        for first, second in zip(model.parameters(), other.parameters(), strict=True):
            generator = torch.Generator().manual_seed(step)
            first.grad = torch.randn(first.shape, generator=generator) / (1 + step) if first.requires_grad else None
            second.grad = first.grad
        optimizer.step()
        reference.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", ["adamw", "scaled_adam"])
def test_the_text_tower_learns_at_its_own_rate(optimizer):
    torch.manual_seed(3)
    models = [SlapForPreTraining(tiny_slap_config()) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    before = {name: value.clone() for name, value in models[0].named_parameters()}
    keys = {"optimizer": optimizer, "learning_rate": 0.01, "weight_decay": 0.0, "lr_schedule": "eden2"}
    for model, scale in zip(models, (1.0, 0.125), strict=True):
        built = build_optimizer(model, TrainArguments(**keys, text_learning_rate_scale=scale))
        schedule = build_lr_schedule(built, TrainArguments(**keys, warmup_steps=0.5), num_steps=4)
        rates = schedule.get_last_lr()
        assert rates[0] == pytest.approx(0.01 * 0.75, rel=1e-6)  # batch 1 of 2 from 0.5 to 1
        assert rates[-1] == pytest.approx(0.01 * 0.75 * scale, rel=1e-6)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5) if parameter.requires_grad else None
        built.step()
    for name, value in models[0].named_parameters():
        if not value.requires_grad:
            continue
        change, slower = value - before[name], models[1].get_parameter(name) - before[name]
        factor = 0.125 if ".text_model." in name else 1.0
        assert change.abs().max() > 0, name
        torch.testing.assert_close(slower, factor * change, rtol=1e-4, atol=1e-7)  # differences of float32 weights


def test_scaled_adam_gets_every_trained_parameter_and_the_runs_numbers():
    model = Parts()
    keys = {"optimizer": "scaled_adam", "learning_rate": 0.02, "adam_betas": [0.8, 0.9], "clipping_scale": 3.0}
    optimizer = build_optimizer(model, TrainArguments(**keys, weight_decay=0.0))
    assert type(optimizer) is ScaledAdam
    (group,) = optimizer.param_groups
    assert names_of(model, group) == {name for name, value in model.named_parameters() if value.requires_grad}
    assert [group[name] for name in ("lr", "betas", "clipping_scale")] == [0.02, (0.8, 0.9), 3.0]
    assert "weight_decay" not in group


def test_a_rate_for_a_text_tower_that_is_not_there_is_refused():
    with pytest.raises(
        ValueError, match=r"`text_learning_rate_scale` is 0.5, but this Parts has no .* Remove the key"
    ):
        build_optimizer(Parts(), TrainArguments(text_learning_rate_scale=0.5))
