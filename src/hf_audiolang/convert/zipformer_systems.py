# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What stands around a Zipformer in files of Auden: the contrastive or the captioning model of CaptionStew.

audio_encoder.* , text_encoder.*, audio_proj.*, text_proj.*    -> CaptionStewModel
audio_encoder.* , enc_dec_proj.*, text_decoder.*               -> CaptionStewForConditionalGeneration
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hf_audiolang.models.configuration_captionstew import CaptionStewConfig
from hf_audiolang.models.configuration_zipformer import ZipformerConfig
from hf_audiolang.models.modeling_captionstew import CaptionStewModel
from hf_audiolang.models.modeling_captionstew_captioning import CaptionStewForConditionalGeneration
from hf_audiolang.models.modeling_text import build_text_model

from .bert import bert_config
from .weights import KeyTable, Plan, head_count, matrix_shape, num_blocks, same_parts, under
from .zipformer_keys import encoder_table
from .zipformer_options import ZipformerOptions

AUDIO = "audio_encoder."
TEXT = "text_encoder."
CONTRASTIVE_MARKS = ("audio_proj.0.weight", "text_proj.0.weight", f"{TEXT}embeddings.word_embeddings.weight")
EMBEDDING, OUTPUT = "text_decoder.text_embed.weight", "text_decoder.output_proj.weight"
LAYERS = "text_decoder.decoder.layers"
ENCODER_PROJECTION = "enc_dec_proj.weight"
PROJECTIONS = {"0": "fc1", "2": "fc2"}  # places in the official sequence of layers; 1 is the activation
ATTENTIONS = {"self_attn": "self_attn", "multihead_attn": "cross_attn"}
DECODER_PARTS = {
    "linear1": "mlp.fc1",
    "linear2": "mlp.fc2",
    "norm1": "self_attn_norm",
    "norm2": "cross_attn_norm",
    "norm3": "mlp_norm",
}
HEAD_WIDTH = 96  # of the authors' decoder: 768 in 8 heads


def is_contrastive(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the file holds the contrastive model."""
    return all(key in tensors for key in CONTRASTIVE_MARKS)


def is_captioning(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the file holds the captioning model."""
    return EMBEDDING in tensors


def contrastive_plan(tensors: Mapping[str, Tensor], audio: ZipformerConfig, options: ZipformerOptions) -> Plan:
    """A contrastive model without weights, and what fills it.

    Raises:
        ValueError: if the text encoder is no BERT, or projections do not fit.
    """
    inside = {key.removeprefix(TEXT): tensor for key, tensor in tensors.items() if key.startswith(TEXT)}
    width, _ = matrix_shape(tensors, "audio_proj.2.weight")
    config = CaptionStewConfig(
        audio_config=audio,
        text_config=bert_config(inside, options.text_num_attention_heads),
        projection_dim=width,
        caption_weight=0.0,
    )
    with torch.device("meta"):
        model = CaptionStewModel(config)
        text_names = list(build_text_model(config.text_config).state_dict())
    table = _audio_table(audio, "audio_model") | {TEXT + name: (f"text_model.{name}",) for name in text_names}
    for official, ours in {"audio_proj": "audio_projection", "text_proj": "text_projection"}.items():
        for place, name in PROJECTIONS.items():
            table |= same_parts(f"{official}.{place}", f"{ours}.{name}")
    return Plan(model, table)


def captioning_plan(tensors: Mapping[str, Tensor], audio: ZipformerConfig, options: ZipformerOptions) -> Plan:
    """A captioning model without weights, and what fills it.

    Raises:
        ValueError: if the decoder is incomplete, or nothing says its number of heads.
    """
    vocab_size, width = matrix_shape(tensors, EMBEDDING)
    inner, _ = matrix_shape(tensors, f"{LAYERS}.0.linear1.weight")
    depth = num_blocks(list(tensors), LAYERS)
    decoder = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": head_count(width, HEAD_WIDTH, "num_decoder_heads", options.num_decoder_heads),
        "intermediate_size": inner,
        "encoder_hidden_size": width,
        "mask_token_id": vocab_size - 1,  # of BART's tokens the last one; `take_tokens` knows better
    }
    config = CaptionStewConfig(audio_config=audio, text_config=None, decoder_config=decoder, contrastive_weight=0.0)
    with torch.device("meta"):
        model = CaptionStewForConditionalGeneration(config)
    table = _audio_table(audio, "captionstew.audio_model")
    if ENCODER_PROJECTION in tensors:
        table[ENCODER_PROJECTION] = ("encoder_projection.weight",)
    table |= {EMBEDDING: ("caption_decoder.embed_tokens.weight",), OUTPUT: ("caption_decoder.lm_head.weight",)}
    for layer in range(depth):
        table |= under("caption_decoder", _decoder_layer(layer))
    return Plan(model, table)


def take_tokens(model: CaptionStewForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
    """Sets the tokens that begin, end, fill and mask captions to the tokenizer's.

    Raises:
        ValueError: if the tokenizer has no token that begins, ends or fills.
    """
    decoder = model.config.decoder_config
    decoder.pad_token_id, decoder.mask_token_id = tokenizer.pad_token_id, tokenizer.mask_token_id
    decoder.bos_token_id = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    decoder.eos_token_id = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    decoder.check_tokens("pad", "bos", "eos")
    model.set_generation_defaults(model.config)


def rearranged(key: str, tensor: Tensor) -> tuple[Tensor, ...]:
    """The official tensor in our form: one tensor, or query, key and value of a fused projection."""
    return tensor.chunk(3) if key.endswith(".in_proj_weight") else (tensor,)


def _audio_table(config: ZipformerConfig, place: str) -> KeyTable:
    return {AUDIO + key: names for key, names in under(place, encoder_table(config)).items()}


def _decoder_layer(layer: int) -> KeyTable:
    official, ours = f"{LAYERS}.{layer}", f"layers.{layer}"
    table: KeyTable = {f"{official}.{name}.weight": (f"{ours}.{part}.weight",) for name, part in DECODER_PARTS.items()}
    for name, part in ATTENTIONS.items():
        table[f"{official}.{name}.in_proj_weight"] = tuple(f"{ours}.{part}.{one}_proj.weight" for one in "qkv")
        table[f"{official}.{name}.out_proj.weight"] = (f"{ours}.{part}.o_proj.weight",)
    return table


__all__ = [
    "AUDIO",
    "captioning_plan",
    "contrastive_plan",
    "is_captioning",
    "is_contrastive",
    "rearranged",
    "take_tokens",
]
