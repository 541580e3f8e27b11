# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Writes zipformer_official_outputs.json: what the official code computes for the models of `zipformer_official`.

    python tests/convert/record_zipformer_official.py FOLDER [tiny] [ragged] [causal] [full_m]

FOLDER holds https://github.com/k2-fsa/icefall (recorded with commit 36e0420c, torch 2.14.1, on a CPU, in float64);
names of models record these alone. The package k2, of which the code uses the activations alone, and `icefall.utils`
are stood in for by their definitions. In evaluation the official code still draws Balancer and Whiten, which change
gradients and nothing else: they are left out. The full stacks are those of
https://github.com/AudenAI/Auden (commit 2f78687): the same encoder, which also returns each stack's output at the
output's rate, widened with zeros.
"""

import contextlib
import json
import sys
import types
from pathlib import Path

import torch
from torch import Tensor, nn
from zipformer_official import (
    CHUNKS,
    FULL_M,
    GEOMETRIES,
    TINY,
    UNUSED,
    digits,
    fingerprint,
    geometry,
    gradient_fingerprint,
    official_state,
    real_frames,
    reference_input,
    seeded_loss,
)

OUTPUT = Path(__file__).with_name("zipformer_official_outputs.json")
SHORTEST = 9  # frames
EVERY = 9  # of the gradients of the large model one of so many is written


def main(folder: str, *names: str) -> None:
    load_official(Path(folder))
    torch.set_num_threads(1)
    recorded = json.loads(OUTPUT.read_text(encoding="utf-8")) if names and OUTPUT.exists() else {}
    for name in names or GEOMETRIES:
        recorded[name] = record_model(name)
    rows = [f'"{name}": {{\n{rows_of(recorded[name])}\n}}' for name in GEOMETRIES if name in recorded]
    OUTPUT.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def rows_of(values: dict) -> str:
    return ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in values.items())


def load_official(folder: Path) -> None:
    """Makes the official modules importable, with what they need of k2 and icefall."""
    k2, icefall, utils = types.ModuleType("k2"), types.ModuleType("icefall"), types.ModuleType("icefall.utils")
    for kind, shift, constant in (("l", 4.0, 0.035), ("r", 1.0, 0.313261687)):
        swoosh, derivative = swoosh_functions(shift, constant)
        setattr(k2, f"swoosh_{kind}", swoosh)
        setattr(k2, f"swoosh_{kind}_forward", swoosh)
        setattr(k2, f"swoosh_{kind}_forward_and_deriv", derivative)
    utils.torch_autocast = lambda **kwargs: contextlib.nullcontext()
    utils.make_pad_mask = lambda lengths: torch.arange(int(lengths.max())) >= lengths.unsqueeze(1)
    sys.modules |= {"k2": k2, "icefall": icefall, "icefall.utils": utils}
    sys.path.insert(0, str(folder / "egs/audioset/AT/zipformer"))  # whose modules are links to those of librispeech


def swoosh_functions(shift: float, constant: float):
    def swoosh(values: Tensor) -> Tensor:
        return torch.logaddexp(torch.zeros_like(values), values - shift) - 0.08 * values - constant

    def swoosh_and_derivative(values: Tensor) -> tuple[Tensor, Tensor]:
        return swoosh(values), torch.sigmoid(values - shift) - 0.08

    return swoosh, swoosh_and_derivative


def build_official(name: str) -> nn.Module:
    """The official tagging model with the weights of `official_state`, in evaluation and in float64."""
    from model import AudioTaggingModel
    from scaling import Balancer, Whiten
    from subsampling import Conv2dSubsampling
    from zipformer import Zipformer2

    sizes, state = geometry(name), official_state(name)
    model = AudioTaggingModel(
        Conv2dSubsampling(in_channels=80, out_channels=sizes["encoder_dim"][0]),
        Zipformer2(**sizes),
        encoder_dim=max(sizes["encoder_dim"]),
        num_events=len(state["classifier.1.bias"]),
    )
    model.load_state_dict(state, strict=True)
    assert not dict(model.named_buffers())
    for module in model.modules():
        if isinstance(module, Balancer | Whiten):
            module.forward = lambda values: values
    return model.eval().double()


def record_model(name: str) -> dict:
    model = build_official(name)
    features, lengths = reference_input(name)
    features = features.double()
    clips = [
        (features[index : index + 1, :length], lengths[index : index + 1]) for index, length in enumerate(lengths)
    ]
    if name == TINY:
        clips.append((features[:1, :SHORTEST], torch.tensor([SHORTEST])))
    if not geometry(name)["causal"]:
        found = {"batch": outputs_of(model, features, lengths), "clips": [outputs_of(model, *clip) for clip in clips]}
        return found | {"gradients": gradients_of(model, features, lengths, EVERY if name == FULL_M else 1)}
    found = {}
    for chunk_frames, left_frames in CHUNKS:
        model.encoder.chunk_size, model.encoder.left_context_frames = (chunk_frames,), (left_frames,)
        found[f"chunk {chunk_frames} left {left_frames}"] = {
            "batch": outputs_of(model, features, lengths),
            "clips": [outputs_of(model, *clip) for clip in clips],
        }
    model.encoder.chunk_size, model.encoder.left_context_frames = CHUNKS[0][:1], CHUNKS[0][1:]
    return found | {"gradients": gradients_of(model, features, lengths)}


def outputs_of(model: nn.Module, features: Tensor, lengths: Tensor) -> dict:
    """Fingerprints of frames before each clip's end; the code computes others, which nobody should read."""
    stacks: list[Tensor] = []
    hooks = [
        stack.register_forward_hook(lambda *arguments: stacks.append(arguments[2])) for stack in model.encoder.encoders
    ]
    features = features.clone().requires_grad_()
    embedded, embedded_lengths = model.encoder_embed(features, lengths)
    frames, frame_lengths = model.forward_encoder(features, lengths)
    loss = seeded_loss(frames, frame_lengths)
    (gradient,) = torch.autograd.grad(loss, features)
    for hook in hooks:
        hook.remove()
    full = [model.encoder.downsample_output(widened(stack, frames.shape[-1])).transpose(0, 1) for stack in stacks]
    return {
        "embedded_lengths": embedded_lengths.tolist(),
        "lengths": frame_lengths.tolist(),
        "embedded": fingerprint(real_frames(embedded, embedded_lengths)),
        "stacks": [fingerprint(real_frames(stack.transpose(0, 1), embedded_lengths)) for stack in stacks],
        "full_stacks": [fingerprint(real_frames(stack, frame_lengths)) for stack in full],
        "frames": fingerprint(real_frames(frames, frame_lengths)),
        "logits": fingerprint(model.forward_audio_tagging(frames.detach(), frame_lengths)),
        "loss": digits(loss.view(1))[0],
        "input_gradient": gradient_fingerprint(gradient, "input"),
    }


def widened(stack: Tensor, width: int) -> Tensor:
    return nn.functional.pad(stack, (0, width - stack.shape[-1]))


def gradients_of(model: nn.Module, features: Tensor, lengths: Tensor, every: int = 1) -> dict[str, list[float]]:
    """Of `seeded_loss` in the official mode of batches, by official name; every parameter but the unused has one."""
    model.zero_grad()
    seeded_loss(*model.forward_encoder(features, lengths)).backward()
    parameters = dict(model.named_parameters())
    unused = {key for key, parameter in parameters.items() if parameter.grad is None}
    assert unused == {key for key in parameters if key.startswith("classifier") or is_unused(key)}
    used = [key for key in parameters if key not in unused]
    return {key: gradient_fingerprint(parameters[key].grad, key) for key in used[::every]}


def is_unused(key: str) -> bool:
    parts = key.split(".")
    return parts[-1] == UNUSED and parts[-3] == "layers"


if __name__ == "__main__":
    main(*sys.argv[1:])
