# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""ScaledAdam: Adam whose step is in proportion to the size of each tensor, and which learns that size (icefall).

gradient -- clip to a median norm -- / root mean square of its past -- * size of the tensor --.
         '- along the tensor, summed over 4 steps -- step of the tensor's size ----------------+- momentum -- weights
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

# All from icefall's optim.py.
_SCALAR_RATE = 0.1  # factor on the learning rate of one-element tensors, and of the size of all others
_EPSILON = 1e-8
_SMALLEST_RMS, _LARGEST_RMS = 1e-5, 3.0  # root mean square of a tensor
_LARGEST_SCALAR = 10.0  # absolute value of a one-element tensor
_LARGEST_SIZE_STEP = 0.1  # share of a tensor's size
_SIZE_PERIOD = 4  # steps between two steps of the sizes
_NORM_PERIOD = 100  # steps between two measures of the clipping threshold, and norms that it is taken from
_EARLY_STEPS = (10, 20, 40)  # further such steps at the start, when norms change fast: with twice the threshold


class ScaledAdam(Optimizer):
    """Adam with steps relative to each tensor's root mean square, with learned sizes and with its own clipping.

    Gradients are clipped per parameter group: the norm over all tensors, each weighed by its size, may be
    `clipping_scale` times the median of the last 100. A factor on the loss does not matter. There is no weight
    decay: a root mean square above 3 is pulled back to it. A parameter without gradient is left alone and its count of
    steps stands still, as in torch's optimizers (icefall takes a gradient of zero, so its momentum runs out).

    State has the parameter's dtype, so parameters are to be float32; the group's clipping state is kept with its first
    parameter. All of it is in `state_dict()`.

    Args:
        params: parameters, or groups of them; a group may have its own `lr`.
        lr: learning rate, about the relative change of a tensor per step (icefall: 0.045, with Eden).
        betas: weights kept of the old momentum and of the old squared gradient.
        clipping_scale: allowed norm as a multiple of the median norm; infinite: not clipped.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        *,
        lr: float = 0.045,
        betas: tuple[float, float] = (0.9, 0.98),
        clipping_scale: float = 2.0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "clipping_scale": clipping_scale})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update of all parameters that have a gradient; returns what `closure` does.

        Raises:
            FloatingPointError: if the median of the last norms, which clipping needs, is not finite.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update_group(group, parameters)
        return loss

    def _update_group(self, group: dict, parameters: list[Tensor]) -> None:
        for parameter in parameters:
            if "step" not in self.state[parameter]:
                self.state[parameter].update(_first_state(parameter))
        states = [self.state[parameter] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters]
        factor = _clipping_factor(self.state[group["params"][0]], group["clipping_scale"], gradients, states)
        if factor is not None:
            gradients = torch._foreach_mul(gradients, factor)
            for gradient in gradients:
                gradient.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)  # what a factor of 0 leaves of infinity
        by_step = defaultdict(list)
        for index, state in enumerate(states):
            by_step[state["step"]].append(index)
        for step, chosen in by_step.items():
            picked = ([values[index] for index in chosen] for values in (parameters, gradients, states))
            _update(*picked, step=step, learning_rate=group["lr"], betas=group["betas"])


def _first_state(parameter: Tensor) -> dict[str, int | Tensor]:
    """The state before a parameter's first step.

    Keys:
        step: updates of this parameter.
        exp_avg_sq: mean squared gradient, like the parameter; delta: momentum, the last change of the parameter.
        param_rms: () size by which steps and norms are scaled; of a one-element tensor a constant.
        scale_grads, scale_exp_avg_sq: (4,) gradients with respect to the logarithm of the size, () their mean square.
    """
    state = {"step": 0, "exp_avg_sq": torch.zeros_like(parameter), "delta": torch.zeros_like(parameter)}
    if parameter.numel() == 1:
        return {**state, "param_rms": parameter.new_tensor(_SCALAR_RATE)}
    return {
        **state,
        "param_rms": parameter.square().mean().sqrt(),
        "scale_grads": parameter.new_zeros(_SIZE_PERIOD),
        "scale_exp_avg_sq": parameter.new_zeros(()),
    }


def _clipping_factor(
    state: dict[str, int | Tensor], clipping_scale: float, gradients: list[Tensor], states: list[dict]
) -> Tensor | None:
    """() factor from 0 to 1 on a group's gradients, or None as long as there is no threshold.

    It stays on the device: nobody waits for it. A norm that is not finite gives 0 (icefall means that too, but its
    comparison lets NaN pass).
    """
    step = state.get("group_step", 0)
    state["group_step"] = step + 1
    if step == 0:  # the sizes have just been measured
        return None
    sizes = torch.stack([state["param_rms"] for state in states])
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)) * sizes)
    norms = state.setdefault("model_norms", sizes.new_zeros(_NORM_PERIOD))
    norms[step % _NORM_PERIOD] = norm
    if step in _EARLY_STEPS or step % _NORM_PERIOD == 0:
        is_early = step in _EARLY_STEPS
        num_norms = step if is_early else _NORM_PERIOD
        median = norms.sort().values[-num_norms:][num_norms // 4 * 2]
        if not median.isfinite():
            raise FloatingPointError(
                f"The median of the last {num_norms} gradient norms is {median.item()}, so most steps were lost. "
                "Lower the learning rate, or train in float32, from the last checkpoint on."
            )
        state["model_norm_threshold"] = median * (clipping_scale * (2 if is_early else 1))
    if "model_norm_threshold" not in state:
        return None
    return (state["model_norm_threshold"] / (norm + 1e-20)).clamp(max=1).nan_to_num(nan=0.0)


def _update(
    parameters: list[Tensor],
    gradients: list[Tensor],
    states: list[dict],
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
) -> None:
    """Moves parameters that have been moved `step` times, in place."""
    squares = [state["exp_avg_sq"] for state in states]
    torch._foreach_mul_(squares, betas[1])
    torch._foreach_addcmul_(squares, gradients, gradients, value=1 - betas[1])
    correction = 1 - betas[1] ** (step + 1)
    roots = torch._foreach_sqrt(torch._foreach_div(squares, correction) if correction < 0.99 else squares)
    torch._foreach_add_(roots, _EPSILON)
    changes = torch._foreach_div(gradients, roots)
    growth = _size_steps(parameters, gradients, states, step=step, learning_rate=learning_rate, beta=betas[1])
    rates = torch.stack([state["param_rms"] for state in states]).clamp(min=_SMALLEST_RMS) * -learning_rate
    torch._foreach_mul_(changes, rates.unbind())
    for index, share in growth.items():
        changes[index].addcmul_(parameters[index], share)
    momenta = [state["delta"] for state in states]
    torch._foreach_mul_(momenta, betas[0])
    torch._foreach_add_(momenta, changes, alpha=1 - betas[0])
    torch._foreach_add_(parameters, momenta)
    for parameter, state in zip(parameters, states, strict=True):
        if parameter.numel() == 1:
            parameter.clamp_(min=-_LARGEST_SCALAR, max=_LARGEST_SCALAR)
        state["step"] = step + 1


def _size_steps(
    parameters: list[Tensor],
    gradients: list[Tensor],
    states: list[dict],
    *,
    step: int,
    learning_rate: float,
    beta: float,
) -> dict[int, Tensor]:
    """Index of a tensor -> () share by which its size is to change, every fourth step; keeps the sizes' state."""
    indices = [index for index, parameter in enumerate(parameters) if parameter.numel() > 1]
    if not indices:
        return {}
    tensors, states = [parameters[index] for index in indices], [states[index] for index in indices]
    along = torch._foreach_mul(tensors, [gradients[index] for index in indices])
    slots = [state["scale_grads"][step % _SIZE_PERIOD] for state in states]
    torch._foreach_copy_(slots, [product.sum() for product in along])
    if step % _SIZE_PERIOD != _SIZE_PERIOD - 1:
        return {}
    norms = torch._foreach_norm(tensors)
    sizes = torch.stack(torch._foreach_div(norms, [tensor.numel() ** 0.5 for tensor in tensors]))  # (P,)
    size_gradients = torch.stack([state["scale_grads"] for state in states])  # (P, 4)
    beta = beta**_SIZE_PERIOD
    squares = beta * torch.stack([state["scale_exp_avg_sq"] for state in states])
    squares += (1 - beta) * size_gradients.square().mean(1)
    rate = learning_rate * _SCALAR_RATE * (1 - beta ** ((step + 1) // _SIZE_PERIOD)) ** 0.5
    shares = -rate * size_gradients.sum(1) / (squares.sqrt() + _EPSILON)
    shares = shares.masked_fill(sizes < _SMALLEST_RMS, 0.0).clamp(-_LARGEST_SIZE_STEP, _LARGEST_SIZE_STEP)
    shares = torch.minimum(shares, (_LARGEST_RMS - sizes) / sizes)
    torch._foreach_copy_([state["param_rms"] for state in states], list(sizes.unbind()))
    torch._foreach_copy_([state["scale_exp_avg_sq"] for state in states], list(squares.unbind()))
    return dict(zip(indices, shares.unbind(), strict=True))


__all__ = ["ScaledAdam"]
