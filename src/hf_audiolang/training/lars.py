# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""LARS, the optimizer of M2D-CLAP's fine-tuning on AudioSet (Table IV), in the form of the timm library."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lars(Optimizer):
    """SGD with momentum in which each tensor's step is in proportion to the tensor's own norm (You et al., 2017).

    Gradient g of a tensor p, with weight decay w, becomes r * (g + w * p), where the trust ratio r is
    `trust_coefficient` * |p| / (|g| + w * |p| + eps), and 1 where |p| or |g| is 0. Then v = momentum * v + that, from
    v = that at the first step, and p = p - lr * v.

    A group with weight decay 0 is not adapted (r = 1) unless `always_adapt`. So it is in timm; and since the recipe
    of Table IV has weight decay 0, its LARS with a rate of 2.0 takes the steps of plain SGD with a rate of 2.0.
    timm's options that are off by default are left out: Nesterov's momentum, dampening and clipping of r.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        trust_coefficient: float = 0.001,
        eps: float = 1e-8,
        always_adapt: bool = False,
    ) -> None:
        """See the class.

        Raises:
            ValueError: for a negative number.
        """
        numbers = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
        }
        negative = {name: value for name, value in numbers.items() if value < 0}
        if negative:
            raise ValueError(f"Numbers of `Lars` must be at least 0, got {negative}. Choose others.")
        super().__init__(params, {**numbers, "always_adapt": always_adapt})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step on all parameters that have a gradient; the loss of `closure`, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict) -> None:
        direction, state = parameter.grad, self.state[parameter]
        if group["weight_decay"] != 0 or group["always_adapt"]:
            direction = _adapted(parameter, group)
        if "momentum_buffer" in state:
            state["momentum_buffer"].mul_(group["momentum"]).add_(direction)
        else:
            state["momentum_buffer"] = direction.clone()
        parameter.add_(state["momentum_buffer"], alpha=-group["lr"])


def _adapted(parameter: Tensor, group: dict) -> Tensor:
    """The decayed gradient times the trust ratio; nothing is read back from the device."""
    decay, gradient = group["weight_decay"], parameter.grad
    size, gradient_size = parameter.norm(), gradient.norm()
    ratio = group["trust_coefficient"] * size / (gradient_size + decay * size + group["eps"])
    ratio = torch.where((size > 0) & (gradient_size > 0), ratio, 1.0)
    return gradient.add(parameter, alpha=decay).mul_(ratio)


__all__ = ["Lars"]
