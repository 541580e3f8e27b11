# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The text tower of a converted M2D-CLAP: BERT from the file, an encoder given beside it, or none; and its tokenizer.

text_encoder.text_encoder.* -> BertConfig from the shapes -> text_model.*
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hf_audiolang.models.modeling_text import build_text_model, load_text_encoder

from .bert import MAX_TOKENS, NO_TOKENIZER, bert_config, load_tokenizer
from .m2d_clap_keys import TEXT_ENCODER
from .m2d_clap_layout import TextLayout
from .m2d_clap_options import TEXT_TYPES, M2dClapOptions


@dataclass(frozen=True)
class TextTower:
    """A text encoder and where its weights come from.

    Attributes:
        config: of the encoder, or None without one.
        pooling: how its states become one vector.
        table: official key -> names in the text model, for an encoder in the file.
        tensors: name in the text model -> weight, for an encoder from elsewhere.
        source: folder or Hub id of an encoder from elsewhere.
    """

    config: PreTrainedConfig | None = None
    pooling: str | None = None
    table: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    source: str | None = None


def text_tower(tensors: Mapping[str, Tensor], layout: TextLayout | None, options: M2dClapOptions) -> TextTower:
    """The text encoder that the converted model gets; `layout` is None for a file without projectors.

    Raises:
        ValueError: if the encoder in the file is no BERT, if there are two, or if one from elsewhere does not fit.
    """
    if layout is None:
        if options.text_model is not None:
            raise ValueError(
                f"`text_model` {options.text_model!r} needs a file with projectors, this one holds an audio encoder. "
                "Leave it out."
            )
        return TextTower()
    if layout.has_text_encoder:
        if options.text_model is not None:
            raise ValueError(
                f"The file holds a text encoder and `text_model` {options.text_model!r} names another. Leave it out."
            )
        prefix = len(TEXT_ENCODER)
        inside = {key[prefix:]: tensor for key, tensor in tensors.items() if key.startswith(TEXT_ENCODER)}
        config = bert_config(inside, options.text_num_attention_heads)
        with torch.device("meta"):
            names = list(build_text_model(config).state_dict())
        return TextTower(config, layout.pooling, {TEXT_ENCODER + name: (name,) for name in names})
    if options.text_model is None:
        return TextTower(pooling=layout.pooling)
    return _tower_from_elsewhere(options.text_model, layout)


def text_tokenizer(tower: TextTower, options: M2dClapOptions) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the tower, or None where there is none or it was asked for none.

    Raises:
        ValueError: if it cannot be loaded or does not fit the encoder.
    """
    name = options.tokenizer
    if tower.config is None:
        if name not in (None, NO_TOKENIZER):
            raise ValueError(f"`tokenizer` {name!r} has no text encoder to serve. Pass `text_model`, or leave it out.")
        return None
    if name == NO_TOKENIZER:
        return None
    name = name or tower.source or TEXT_TYPES["B"].model
    longest = min(getattr(tower.config, "max_position_embeddings", MAX_TOKENS), MAX_TOKENS)
    try:
        return load_tokenizer(name, vocab_size=tower.config.vocab_size, max_tokens=longest)
    except OSError as error:
        raise ValueError(
            f"The tokenizer {name!r} cannot be loaded ({error}). Pass `tokenizer` with a folder or Hub id, or "
            f"`tokenizer={NO_TOKENIZER}` to save the feature extractor alone."
        ) from error


def _tower_from_elsewhere(source: str, layout: TextLayout) -> TextTower:
    if layout.pooling is None:
        raise ValueError(
            f"Nothing says how the states of `text_model` {source!r} become one vector. Pass `text_pooling`: 'cls', "
            "'mean' or 'last'."
        )
    try:
        model = load_text_encoder(source)
    except OSError as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise ValueError(
            f"`text_model` {source!r} cannot be loaded ({reason}). Pass a folder or Hub id; for a model that is the "
            "content of a Python package, pass the folder inside the package."
        ) from error
    if model.config.hidden_size != layout.embedding_size:
        raise ValueError(
            f"`text_model` {source!r} gives embeddings of {model.config.hidden_size} numbers, the file takes "
            f"{layout.embedding_size} ({layout.embedding_model or 'not named'}). Pass the encoder it was trained with."
        )
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("pooler.")}
    model.config._name_or_path = ""  # it may be a path of this machine
    return TextTower(model.config, layout.pooling, tensors=tensors, source=source)


__all__ = ["TextTower", "text_tokenizer", "text_tower"]
