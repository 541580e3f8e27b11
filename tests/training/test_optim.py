import pytest
import torch
from torch import nn

from hf_audiolang.training.optim import build_optimizer, parameter_groups


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
    optimizer = build_optimizer(model, learning_rate=0.1, betas=(0.9, 0.98), weight_decay=0.5)
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
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), learning_rate=0.1, betas=(0.9, 0.98), weight_decay=0.0)
