# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Official Zipformer state dicts with computed weights, and inputs for them, the same on every machine.

Names and shapes are those of icefall's audio tagging model (encoder embedding, encoder, classifier). Weights are
integer hashes of their key and index. Branches are not as small as at the official start, which scales the last layer
of most by 0.05: every branch, bias, norm and bypass has a say of one percent at least in the output. They are not
larger either, because sharp attention and products of three would magnify the rounding of float32: here its error in
the frames is about 4e-6, where the root mean square of the frames is 2.
"""

import math

import torch
from m2d_official import StateDict, hashed, prefixed
from torch import Tensor

Numbers = dict[str, tuple[tuple[int, ...], float, float]]  # shape, half width and center of uniform numbers, by key
TINY, RAGGED, CAUSAL, FULL_M = "tiny", "ragged", "causal", "full_m"
NUM_MEL_BINS = 80
PADDING_VALUE = -23.025850929940457  # log(1e-10)
# Arguments of the official constructor of the encoder. All sizes differ; no width is a multiple of four.
GEOMETRIES: dict[str, dict] = {
    TINY: {
        "downsampling_factor": (1, 2, 4),
        "num_encoder_layers": (2, 1, 2),
        "encoder_dim": (14, 22, 18),
        "encoder_unmasked_dim": (9, 13, 11),
        "feedforward_dim": (21, 26, 30),
        "num_heads": (3, 2, 4),
        "cnn_module_kernel": (5, 3, 7),
        "query_head_dim": (6,),
        "value_head_dim": (5,),
        "pos_head_dim": (3,),
        "pos_dim": 10,
        "causal": False,
    },
    # Widths go down and up twice; the output is joined from the stacks 5, 3 and 2. Head sizes are the official ones.
    RAGGED: {
        "downsampling_factor": (1, 2, 4, 8, 4, 2),
        "num_encoder_layers": (1, 1, 2, 1, 1, 1),
        "encoder_dim": (19, 13, 37, 29, 17, 23),
        "encoder_unmasked_dim": (15, 9, 21, 18, 12, 14),
        "feedforward_dim": (22, 31, 45, 39, 27, 34),
        "num_heads": (2, 1, 3, 4, 1, 2),
        "cnn_module_kernel": (7, 5, 3, 5, 9, 3),
        "query_head_dim": (32,),
        "value_head_dim": (12,),
        "pos_head_dim": (4,),
        "pos_dim": 48,
        "causal": False,
    },
    CAUSAL: {
        "downsampling_factor": (1, 2, 4),
        "num_encoder_layers": (1, 2, 1),
        "encoder_dim": (15, 21, 13),
        "encoder_unmasked_dim": (10, 12, 9),
        "feedforward_dim": (25, 31, 22),
        "num_heads": (2, 3, 1),
        "cnn_module_kernel": (5, 7, 3),
        "query_head_dim": (7,),
        "value_head_dim": (4,),
        "pos_head_dim": (3,),
        "pos_dim": 14,
        "causal": True,
        "chunk_size": (8, 16, 32, -1),
        "left_context_frames": (16, 32, -1),
    },
    FULL_M: {
        "downsampling_factor": (1, 2, 4, 8, 4, 2),
        "num_encoder_layers": (2, 2, 3, 4, 3, 2),
        "encoder_dim": (192, 256, 384, 512, 384, 256),
        "encoder_unmasked_dim": (192, 192, 256, 256, 256, 192),
        "feedforward_dim": (512, 768, 1024, 1536, 1024, 768),
        "num_heads": (4, 4, 4, 8, 4, 4),
        "cnn_module_kernel": (31, 31, 15, 15, 15, 31),
        "query_head_dim": (32,),
        "value_head_dim": (12,),
        "pos_head_dim": (4,),
        "pos_dim": 48,
        "causal": False,
    },
}
# Odd numbers of frames, whose counts after the embedding are no multiples of the downsampling.
LENGTHS = {TINY: (77, 54, 31), RAGGED: (149, 101, 37), CAUSAL: (201, 129, 60), FULL_M: (201, 133)}
NUM_LABELS = {FULL_M: 527}  # 11 otherwise
# (chunk size, frames of left context) at 50 Hz that the causal model was recorded with. A clip alone that is shorter
# than its chunk, at the rate of a stack, has its own end as the chunk's right edge; in a longer batch it has not.
CHUNKS = ((8, 16), (8, -1), (16, 32), (32, 16), (-1, -1))
UNUSED = "bypass_scale"  # of a layer itself: no official code reads it


def geometry(name: str) -> dict:
    """Arguments of the official constructor of the encoder, head sizes spelt out for each stack."""
    sizes = dict(GEOMETRIES[name])
    for key in ("query_head_dim", "value_head_dim", "pos_head_dim"):
        sizes[key] = sizes[key] * len(sizes["encoder_dim"])
    return sizes


def official_state(name: str) -> StateDict:
    """The whole state dict of the tagging model in float32; 733 keys for `FULL_M`."""
    sizes = geometry(name)
    numbers = prefixed("encoder_embed.", embed_numbers(sizes["encoder_dim"][0]))
    for index, factor in enumerate(sizes["downsampling_factor"]):
        numbers |= prefixed(f"encoder.encoders.{index}.", stack_numbers(sizes, index, factor))
    numbers["encoder.downsample_output.bias"] = (2,), 1.0, 0.0
    numbers |= prefixed("classifier.1.", linear(NUM_LABELS.get(name, 11), max(sizes["encoder_dim"])))
    return {key: center + spread * hashed(key, *shape) for key, (shape, spread, center) in numbers.items()}


def embed_numbers(width: int) -> Numbers:
    """Three convolutions, a ConvNeXt block, and the projection to the first width with its norm."""
    frequencies = ((NUM_MEL_BINS - 1) // 2 - 1) // 2
    return (
        prefixed("conv.0.", convolution(8, 1, 3, 3))
        | prefixed("conv.4.", convolution(32, 8, 3, 3))
        | prefixed("conv.7.", convolution(128, 32, 3, 3))
        | prefixed("convnext.depthwise_conv.", convolution(128, 1, 7, 7))
        | prefixed("convnext.pointwise_conv1.", convolution(384, 128, 1, 1))
        | prefixed("convnext.pointwise_conv2.", convolution(128, 384, 1, 1))
        | prefixed("out.", linear(width, 128 * frequencies))
        | prefixed("out_norm.", bias_norm(width))
    )


def stack_numbers(sizes: dict, index: int, factor: int) -> Numbers:
    """Layers, under `encoder` and with the two ends of the slower rate if the factor is not one."""
    layers: Numbers = {}
    for layer in range(sizes["num_encoder_layers"][index]):
        layers |= prefixed(f"layers.{layer}.", layer_numbers(sizes, index))
    if factor == 1:
        return layers
    ends = {"downsample.bias": ((factor,), 1.0, 0.0), "out_combiner.bypass_scale": bypass(sizes["encoder_dim"][index])}
    return prefixed("encoder.", layers) | ends


def layer_numbers(sizes: dict, index: int) -> Numbers:
    """One layer; 44 keys, or 50 of a causal one."""
    width, heads, hidden = (sizes[key][index] for key in ("encoder_dim", "num_heads", "feedforward_dim"))
    query, value, place = (sizes[f"{key}_head_dim"][index] for key in ("query", "value", "pos"))
    gated = 3 * width // 4
    # scores have no factor 1 / sqrt(query): half of it is in the queries' weights and half in the keys'
    numbers = prefixed("self_attn_weights.in_proj.", linear(heads * (2 * query + place), width, 0.5 * query**-0.25))
    numbers["self_attn_weights.linear_pos.weight"] = linear(heads * place, sizes["pos_dim"], 2.0)["weight"]
    for name in ("self_attn1", "self_attn2"):
        numbers |= prefixed(f"{name}.in_proj.", linear(heads * value, width))
        numbers |= prefixed(f"{name}.out_proj.", linear(width, heads * value, 0.5))
    for name, size in (("1", hidden * 3 // 4), ("2", hidden), ("3", hidden * 5 // 4)):
        numbers |= prefixed(f"feed_forward{name}.in_proj.", linear(size, width))
        numbers |= prefixed(f"feed_forward{name}.out_proj.", linear(width, size, 0.5))
    numbers |= prefixed("nonlin_attention.in_proj.", linear(3 * gated, width, 0.6))
    numbers |= prefixed("nonlin_attention.out_proj.", linear(width, gated, 0.6))
    for name in ("conv_module1", "conv_module2"):
        numbers |= prefixed(f"{name}.in_proj.", linear(2 * width, width))
        numbers |= prefixed(f"{name}.depthwise_conv.", depthwise(width, sizes["cnn_module_kernel"][index], sizes))
        numbers |= prefixed(f"{name}.out_proj.", linear(width, width, 0.5))
    for name in (UNUSED, "bypass.bypass_scale", "bypass_mid.bypass_scale"):
        numbers[name] = bypass(width)
    return numbers | prefixed("norm.", bias_norm(width))


def depthwise(width: int, kernel: int, sizes: dict) -> Numbers:
    if not sizes["causal"]:
        return convolution(width, 1, kernel)
    return (
        prefixed("causal_conv.", convolution(width, 1, (kernel + 1) // 2))
        | prefixed("chunkwise_conv.", convolution(width, 1, kernel))
        | {"chunkwise_conv_scale": ((2, width, kernel), 0.7, 0.0)}
    )


def linear(out_size: int, in_size: int, gain: float = 1.0) -> Numbers:
    return {"weight": ((out_size, in_size), gain * math.sqrt(3 / in_size), 0.0), "bias": ((out_size,), 0.2, 0.0)}


def convolution(out_size: int, *shape: int) -> Numbers:
    return {"weight": ((out_size, *shape), math.sqrt(3 / math.prod(shape)), 0.0), "bias": ((out_size,), 0.3, 0.0)}


def bias_norm(width: int) -> Numbers:
    """Scales e^0.5 to e^1.5, and a bias that the root mean square feels."""
    return {"log_scale": ((), 0.5, 1.0), "bias": ((width,), 0.7, 0.0)}


def bypass(width: int) -> tuple[tuple[int, ...], float, float]:
    """From 0.2 to 1, the range that training keeps them in."""
    return (width,), 0.4, 0.6


def reference_input(name: str) -> tuple[Tensor, Tensor]:
    """(B, T, 80) numbers in the place of log-mels, -16 to 2, then log(1e-10) after each clip's end; (B,) lengths."""
    lengths = torch.tensor(LENGTHS[name])
    batch, num_frames = len(lengths), int(lengths.max())
    slow = hashed(f"{name} slow", batch, num_frames // 8 + 1, 1).repeat_interleave(8, dim=1)[:, :num_frames]
    bands = hashed(f"{name} bands", batch, 1, NUM_MEL_BINS)
    features = -7 + 4 * slow + 3 * bands + 2 * hashed(f"{name} fast", batch, num_frames, NUM_MEL_BINS)
    is_padding = torch.arange(num_frames) >= lengths.unsqueeze(1)
    return features.masked_fill(is_padding.unsqueeze(-1), PADDING_VALUE), lengths


def real_frames(values: Tensor, lengths: Tensor) -> Tensor:
    """(sum of lengths, D) frames before each clip's end, of (B, T', D) values."""
    return torch.cat([clip[:end] for clip, end in zip(values, lengths.tolist(), strict=True)])


def seeded_loss(frames: Tensor, lengths: Tensor) -> Tensor:
    """The scalar whose gradients were recorded: a sum of all real frames' entries with fixed random weights."""
    values = real_frames(frames, lengths)
    return (hashed("loss", *values.shape).to(values.dtype) * values).sum()


def fingerprint(values: Tensor) -> list[float]:
    """Norm of a tensor, its products with two fixed random tensors, then 8 entries spread over it; nine digits each.

    The products change with every entry, so that they see what the entries do not.
    """
    flat = values.detach().flatten().double()
    size = len(flat)
    step = next(step for step in range(int(0.618 * size) + 1, 2 * size + 2) if math.gcd(step, size) == 1)
    random = hashed("fingerprint", 2, size).double() / math.sqrt(size)
    entries = flat[torch.arange(min(8, size)) * step % size]
    return digits(torch.cat([flat.norm().view(1), random @ flat, entries]))


def gradient_fingerprint(values: Tensor, name: str) -> list[float]:
    """Norm of a gradient and its product with one fixed random tensor."""
    flat = values.detach().flatten().double()
    return digits(torch.stack([flat.norm(), hashed(name, len(flat)).double() @ flat / math.sqrt(len(flat))]))


def digits(values: Tensor) -> list[float]:
    return [float(f"{value:.9g}") for value in values.tolist()]
