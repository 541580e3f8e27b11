# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Writes zipformer_training_outputs.json: what icefall's training-time functions do with `zipformer_training_cases`.

    PYTHONPATH=tests/convert python tests/models/record_zipformer_training.py FOLDER

FOLDER and what is stood in for: see tests/convert/record_zipformer_official.py. Every draw is made to come out:
`random.random` gives 0, so that all that happens with a probability happens, and `torch.rand` the largest number below
1, so that nothing is dropped; ordinary dropout is set to 0. What the code computes in float32, it does here, too.
"""

import contextlib
import json
import random
import sys
from pathlib import Path
from unittest import mock

import torch
import zipformer_training_cases as cases
from record_zipformer_official import load_official
from torch import Tensor, nn
from zipformer_official import (
    FULL_M,
    TINY,
    digits,
    geometry,
    gradient_fingerprint,
    official_state,
    reference_input,
    seeded_loss,
)

OUTPUT = Path(__file__).with_name("zipformer_training_outputs.json")
SETTINGS = ("min_positive", "max_positive", "min_abs", "max_abs", "prob")


def main(folder: str) -> None:
    load_official(Path(folder))
    torch.set_num_threads(1)
    with everything_happens():
        recorded = {
            "balancer": {name: balancer(**settings) for name, settings in cases.BALANCERS.items()},
            "balancer of second axis": balancer(**cases.BALANCERS["layer"], channel_dim=1),
            "whiten": {name: whiten(**settings) for name, settings in cases.WHITENS.items()},
            "limit": {name: limit(name) for name in cases.LIMITS},
            "penalty": penalty(),
            "swoosh": {kind: swoosh(kind) for kind in "LR"},
            "norm": {str(log_scale): norm(log_scale) for log_scale in (0.7, 1.5, 1.6, -1.7)},
            "schedules": {name: schedule(points) for name, points in cases.SCHEDULES.items()},
            "arithmetic": arithmetic(),
            "positions": positions(),
            "skip_rates": skip_rates(),
            "settings": settings_of_a_layer(),
            "feature_masks": feature_masks(),
            "steps": {name: step(*settings) for name, settings in cases.STEPS.items()},
        }
    rows = [f'"{name}": {json.dumps(values)}' for name, values in recorded.items()]
    OUTPUT.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


@contextlib.contextmanager
def everything_happens():
    """All that happens with a probability happens, nothing is dropped."""

    def largest(*shape, **options) -> Tensor:
        return torch.full(shape[0] if isinstance(shape[0], tuple) else shape, 1 - 2**-24)

    with mock.patch.object(random, "random", return_value=0.0), mock.patch.object(torch, "rand", largest):
        yield


def gradient_of(function, values: Tensor, gradient: Tensor) -> Tensor:
    """Of the input, given that of the output; the function must leave the values as they are."""
    values = values.clone().requires_grad_()
    output = function(values)
    assert torch.equal(output, values)
    output.backward(gradient)
    return values.grad


def balancer(positive, absolute, grad_scale, channel_dim: int = -1) -> list[float]:
    from scaling import Balancer

    values, gradient = (tensor.float() for tensor in cases.channels())
    module = Balancer(7, channel_dim, *positive, *absolute, grad_scale=grad_scale, prob=1.0)
    if channel_dim == -1:
        return flat(gradient_of(module, values, gradient))
    return flat(gradient_of(module, values.transpose(1, 2), gradient.transpose(1, 2)))


def whiten(num_groups: int, limit: float, grad_scale: float) -> dict:
    from scaling import Whiten, _whitening_metric

    values, gradient = (tensor.float() for tensor in cases.correlated())
    module = Whiten(num_groups, limit, (0.025, 0.25), grad_scale)
    found = gradient_of(module, values, gradient)
    metric = _whitening_metric(cases.correlated()[0], num_groups)
    return {"metric": digits(metric.view(1))[0], "probability": module.prob, "gradient": flat(found)}


def limit(name: str) -> list[float]:
    from scaling import limit_param_value

    values, gradient = cases.parameters(name)
    return flat(gradient_of(lambda given: limit_param_value(given, *cases.LIMITS[name], prob=1.0), values, gradient))


def penalty() -> list[float]:
    from scaling import penalize_abs_values_gt

    values, gradient = cases.scores()
    limits = cases.SCORE_LIMIT, cases.SCORE_PENALTY
    return flat(gradient_of(lambda given: penalize_abs_values_gt(given, *limits), values, gradient))


def swoosh(kind: str) -> dict[str, list[float]]:
    import scaling

    points = cases.activation_points().requires_grad_()
    values = getattr(scaling, f"Swoosh{kind}Forward")(points)
    values.sum().backward()
    return {"values": flat(values), "derivatives": flat(points.grad)}


def norm(log_scale: float) -> dict[str, list[float]]:
    """In training: outside of -1.5 to 1.5 the scale's gradient points back."""
    from scaling import BiasNorm

    values, bias, gradient = cases.norm_case()
    module = BiasNorm(len(bias)).double()
    with torch.no_grad():
        module.log_scale.fill_(log_scale)
        module.bias.copy_(bias)
    values.requires_grad_()
    output = module(values)
    output.backward(gradient)
    gradients = {"input": values.grad, "bias": module.bias.grad, "log_scale": module.log_scale.grad}
    return {"values": flat(output)} | {name: flat(grad) for name, grad in gradients.items()}


def schedule(points) -> list[float]:
    from scaling import ScheduledFloat

    return values_of(ScheduledFloat(*points), cases.SCHEDULE_COUNTS)


def arithmetic() -> dict[str, list[float]]:
    from scaling import ScheduledFloat

    first, second = (ScheduledFloat(*cases.SCHEDULES[name]) for name in ("dropout", "attention_skip_rate"))
    results = {"plus a number": first + 0.5, "plus a schedule": first + second, "at least": second.max(0.03)}
    return {name: values_of(result, cases.SCHEDULE_COUNTS) for name, result in results.items()}


def values_of(value, counts) -> list[float]:
    found = []
    for count in counts:
        if isinstance(value, nn.Module):
            value.batch_count = count
        found.append(float(f"{float(value):.9g}"))
    return found


def positions() -> dict:
    from zipformer import CompactRelPositionalEncoding

    found = {}
    for name, (frames, width, before) in cases.POSITIONS.items():
        module = CompactRelPositionalEncoding(width, 0.0)
        found[name] = flat(module(torch.zeros(frames, 1, 1), before))
    table = CompactRelPositionalEncoding(48, 0.0).pe
    found["far"] = [flat(table[1999 + sign * offset]) for offset in cases.FAR for sign in (-1, 1)]
    return found


def official_encoder(name: str, **options) -> nn.Module:
    from zipformer import Zipformer2

    return Zipformer2(**geometry(name), **options)


def skip_rates() -> list[list[list[float]]]:
    """Of each stack and layer of the medium size, at the batch counts; `bypass_mid` and `out_combiner` have none."""
    encoder = official_encoder(FULL_M)
    for name, module in encoder.named_modules():
        assert name.endswith(".bypass") or float(getattr(module, "skip_rate", 0.0)) == 0.0
    stacks = [getattr(stack, "encoder", stack) for stack in encoder.encoders]
    return [[values_of(layer.bypass.skip_rate, cases.BATCH_COUNTS) for layer in stack.layers] for stack in stacks]


def settings_of_a_layer() -> dict[str, list]:
    """All that is scheduled or chosen in the embedding and in one layer, at the batch counts."""
    from scaling import Balancer, ScheduledFloat, Whiten
    from subsampling import Conv2dSubsampling

    layer = official_encoder(TINY, dropout=0.0).encoders[0].layers[0]
    found = {}
    for prefix, root in (("encoder_embed.", Conv2dSubsampling(80, 14, dropout=0.0)), ("layer.", layer)):
        for name, module in root.named_modules():
            if isinstance(module, Balancer):
                values = [values_of(getattr(module, key), cases.BATCH_COUNTS) for key in SETTINGS]
            elif isinstance(module, Whiten):
                values = [module.num_groups, values_of(module.whitening_limit, cases.BATCH_COUNTS), module.grad_scale]
            elif isinstance(module, ScheduledFloat) and not is_setting(name):
                values = values_of(module, cases.BATCH_COUNTS)
            else:
                continue
            found[prefix + name] = values
    return found


def is_setting(name: str) -> bool:
    return name.split(".")[-1] in (*SETTINGS, "whitening_limit")


def feature_masks() -> list[list[list[int]]]:
    """For each stack of the small model: the channels that five clips keep, by what is drawn for them."""
    encoder = official_encoder(TINY).train()
    draws = [torch.tensor([0.9, 0.9, 0.1, 0.1, 0.125]), torch.tensor([0.9, 0.1, 0.9, 0.1, 0.9])]
    with mock.patch.object(torch, "rand", lambda *shape, **options: draws.pop(0).view(shape)):
        masks = encoder.get_feature_masks(torch.zeros(1, 5, geometry(TINY)["encoder_dim"][0]))
    return [mask[0].int().tolist() for mask in masks]


def step(batch_count: int, whitening_limit: float | None) -> dict:
    """Gradients of `seeded_loss` of the small model in training, all regularizers on, by official name."""
    from scaling import Dropout2, Whiten
    from subsampling import Conv2dSubsampling

    embed = Conv2dSubsampling(in_channels=80, out_channels=geometry(TINY)["encoder_dim"][0], dropout=0.0)
    model = nn.ModuleDict({"encoder_embed": embed, "encoder": official_encoder(TINY, dropout=0.0)})
    weights = {key: value for key, value in official_state(TINY).items() if not key.startswith("classifier")}
    model.load_state_dict(weights, strict=True)
    model.train().double()
    for module in model.modules():
        if hasattr(module, "batch_count"):
            module.batch_count = float(batch_count)
        if isinstance(module, Dropout2):
            module.p = 0.0
        if isinstance(module, Whiten) and whitening_limit is not None:
            module._modules.pop("whitening_limit", None)  # a schedule cannot be replaced by a number
            module.whitening_limit = whitening_limit
    features, lengths = reference_input(TINY)
    features = features.double().requires_grad_()
    states, lengths = model["encoder_embed"](features, lengths)
    is_padding = torch.arange(states.shape[1]) >= lengths.unsqueeze(1)
    frames, lengths = model["encoder"](states.transpose(0, 1), lengths, is_padding)
    loss = seeded_loss(frames.transpose(0, 1), lengths)
    loss.backward()
    found = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    gradients = {key: gradient_fingerprint(value, key) for key, value in ({"input": features.grad} | found).items()}
    return {"loss": digits(loss.view(1))[0], "gradients": gradients}


def flat(values: Tensor) -> list[float]:
    return digits(values.detach().flatten().double())


if __name__ == "__main__":
    main(*sys.argv[1:])
