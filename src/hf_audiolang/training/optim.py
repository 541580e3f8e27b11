# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""AdamW and its two parameter groups: matrices of linear layers decay, everything else does not."""

from torch import nn
from torch.optim import AdamW


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups for an optimizer: decayed and not decayed; parameters without gradient are left out.

    Decayed are the weights of linear and convolution layers. Norms, biases, embeddings, learned probes, mask tokens
    and scales are not: shrinking them has no regularising meaning (SLAP has no statement; slap.md section 8).
    A weight that a linear layer shares with an embedding counts as embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and id(module.weight) not in embeddings
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if id(parameter) in matrices], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if id(parameter) not in matrices], "weight_decay": 0.0},
    ]


def build_optimizer(
    model: nn.Module, *, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> AdamW:
    """AdamW over `parameter_groups`, in the fused form on a GPU and in the per-tensor loop elsewhere.

    Raises:
        ValueError: if no parameter requires a gradient.
    """
    groups = parameter_groups(model, weight_decay)
    if not any(group["params"] for group in groups):
        raise ValueError("`model` has 0 parameters that require a gradient. Unfreeze what should be trained.")
    is_cuda = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return AdamW(groups, lr=learning_rate, betas=betas, eps=1e-8, fused=is_cuda)


__all__ = ["build_optimizer", "parameter_groups"]
