# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What a file with a Zipformer holds: where the encoder is, and all its sizes from the tensors.

tensors -> prefix of the encoder -> shapes of embedding, stacks, layers -> ZipformerConfig
"""

from collections.abc import Mapping

from torch import Tensor

from hf_audiolang.models.configuration_zipformer import ZipformerConfig

from .weights import matrix_shape, num_blocks
from .zipformer_options import ZipformerOptions

MARK = "encoder_embed.out.weight"  # every file with a Zipformer has it once per encoder
OFFICIAL_HEAD = {"query_head_dim": 32, "value_head_dim": 12, "pos_head_dim": 4}  # in all recipes
OFFICIAL_BINS = 80


def encoder_prefix(tensors: Mapping[str, Tensor]) -> str:
    """What stands before `encoder_embed` in the file: nothing, "encoder.", "audio_encoder." or "speech_encoder.".

    Raises:
        ValueError: if there is no Zipformer, or more than one.
    """
    prefixes = sorted(key.removesuffix(MARK) for key in tensors if key.endswith(MARK))
    if len(prefixes) != 1:
        found = f"found {len(tensors)} keys such as {sorted(tensors)[:4]}"
        if not prefixes:
            raise ValueError(
                f"This is no file with a Zipformer of icefall or Auden: `{MARK}` is missing; {found}. Pass a file of "
                "one of their recipes called `zipformer`."
            )
        raise ValueError(f"The file holds {len(prefixes)} Zipformers, below {prefixes}. Save one of them alone.")
    return prefixes[0]


def encoder_config(tensors: Mapping[str, Tensor], options: ZipformerOptions) -> ZipformerConfig:
    """Configuration of an encoder from its tensors, called as without prefix.

    What training alone has (dropout, widths that are never dropped, chunk sizes) no tensor tells: those are the
    defaults, and all channels count as never dropped.

    Raises:
        ValueError: if the tensors fit no Zipformer; says which.
    """
    stacks = range(num_blocks(list(tensors), "encoder.encoders"))
    if not stacks:
        raise ValueError("The file has no `encoder.encoders.*`: the stacks of the encoder are missing.")
    factors = [_rows(tensors, f"encoder.encoders.{stack}.downsample.bias", missing=1) for stack in stacks]
    places = [f"encoder.encoders.{stack}" + ("" if factors[stack] == 1 else ".encoder") for stack in stacks]
    first = [f"{place}.layers.0" for place in places]
    head = {name: getattr(options, name) or number for name, number in OFFICIAL_HEAD.items()}
    widths = [_rows(tensors, f"{layer}.norm.bias") for layer in first]
    is_causal = f"{first[0]}.conv_module1.depthwise_conv.causal_conv.weight" in tensors
    kernel = "conv_module1.depthwise_conv." + ("chunkwise_conv.weight" if is_causal else "weight")
    config = ZipformerConfig(
        num_mel_bins=_num_mel_bins(tensors, options),
        embed_channels=[_rows(tensors, f"encoder_embed.conv.{place}.weight") for place in (0, 4, 7)],
        downsampling_factor=factors,
        num_encoder_layers=[num_blocks(list(tensors), f"{place}.layers") for place in places],
        encoder_dim=widths,
        encoder_unmasked_dim=widths,
        feedforward_dim=[_rows(tensors, f"{layer}.feed_forward2.in_proj.weight") for layer in first],
        num_heads=[_num_heads(tensors, layer, head) for layer in first],
        cnn_module_kernel=[_last(tensors, f"{layer}.{kernel}") for layer in first],
        pos_dim=matrix_shape(tensors, f"{first[0]}.self_attn_weights.linear_pos.weight")[1],
        output_downsampling_factor=_rows(tensors, "encoder.downsample_output.bias"),
        causal=is_causal,
        **head,
    )
    _check_embedding(tensors, config)
    return config


def _num_heads(tensors: Mapping[str, Tensor], layer: str, head: Mapping[str, int]) -> int:
    """Heads of a layer, by three tensors that must agree."""
    rows = {
        "linear_pos": (_rows(tensors, f"{layer}.self_attn_weights.linear_pos.weight"), head["pos_head_dim"]),
        "in_proj": (
            _rows(tensors, f"{layer}.self_attn_weights.in_proj.weight"),
            2 * head["query_head_dim"] + head["pos_head_dim"],
        ),
        "self_attn1": (_rows(tensors, f"{layer}.self_attn1.in_proj.weight"), head["value_head_dim"]),
    }
    numbers = {name: number / width for name, (number, width) in rows.items()}
    if len(set(numbers.values())) != 1 or not numbers["in_proj"].is_integer():
        found = {name: number for name, (number, _) in rows.items()}
        raise ValueError(
            f"The shapes of `{layer}` fit no number of heads that are {head} wide: {found} rows. Pass "
            "`query_head_dim`, `value_head_dim` and `pos_head_dim` of the recipe."
        )
    return int(numbers["in_proj"])


def _num_mel_bins(tensors: Mapping[str, Tensor], options: ZipformerOptions) -> int:
    """Mel bins of the front end: the given or official number, if the first linear layer has room for it."""
    number = options.num_mel_bins or OFFICIAL_BINS
    columns, channels = matrix_shape(tensors, MARK)[1], _rows(tensors, "encoder_embed.conv.7.weight")
    if ((number - 1) // 2 - 1) // 2 * channels != columns:
        raise ValueError(
            f"`{MARK}` has {columns} columns for {channels} channels, which {number} mel bins do not give. Pass "
            "`num_mel_bins` of the recipe."
        )
    return number


def _check_embedding(tensors: Mapping[str, Tensor], config: ZipformerConfig) -> None:
    width = _rows(tensors, MARK)
    if width != config.encoder_dim[0]:
        raise ValueError(
            f"`{MARK}` has {width} rows, but the first stack is {config.encoder_dim[0]} wide. Is the file complete?"
        )


def _rows(tensors: Mapping[str, Tensor], key: str, missing: int | None = None) -> int:
    """First axis of a tensor; `missing` if it is not there."""
    if key not in tensors or tensors[key].ndim == 0:
        if missing is not None and key not in tensors:
            return missing
        raise ValueError(f"`{key}` is missing: the shapes fit no Zipformer. Is the file complete?")
    return tensors[key].shape[0]


def _last(tensors: Mapping[str, Tensor], key: str) -> int:
    _rows(tensors, key)
    return tensors[key].shape[-1]


__all__ = ["MARK", "encoder_config", "encoder_prefix"]
