# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""BERT text towers of official files: the configuration from the tensors, and the tokenizer from elsewhere."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import AutoTokenizer, BertConfig, BertTokenizer, PreTrainedTokenizerBase

from .weights import head_count, num_blocks

BERT_NAME = "google-bert/bert-base-uncased"
NO_TOKENIZER = "none"
MAX_TOKENS = 512  # longest input of BERT
BERT_HEAD_WIDTH = 64
ROBERTA_POSITIONS = 514
BERT_SHAPES = {  # field of the configuration -> tensor whose rows it counts
    "vocab_size": "embeddings.word_embeddings.weight",
    "max_position_embeddings": "embeddings.position_embeddings.weight",
    "type_vocab_size": "embeddings.token_type_embeddings.weight",
    "intermediate_size": "encoder.layer.0.intermediate.dense.weight",
    "hidden_size": "encoder.layer.0.attention.self.query.weight",
}


def bert_config(tensors: Mapping[str, Tensor], num_attention_heads: int | None) -> BertConfig:
    """Configuration of a BERT from the shapes of its weights; what shapes do not say is as in bert-base-uncased.

    Args:
        tensors: name in transformers' `BertModel` -> tensor.
        num_attention_heads: the user's, or None for heads that are 64 wide.

    Raises:
        ValueError: if these are not the weights of a BERT, or if nothing says the number of heads.
    """
    missing = sorted(set(BERT_SHAPES.values()) - set(tensors))
    if missing:
        raise ValueError(
            f"The text encoder in the file is no BERT: {missing} are missing, found {sorted(tensors)[:5]}. Only BERT "
            "can be converted with its weights; pass a file without text encoder and `text_model`."
        )
    sizes = {name: tensors[key].shape[0] for name, key in BERT_SHAPES.items()}
    if sizes["type_vocab_size"] == 1 and sizes["max_position_embeddings"] == ROBERTA_POSITIONS:
        raise ValueError(
            f"The text encoder in the file has {ROBERTA_POSITIONS} positions and 1 token type: it is a RoBERTa, whose "
            "keys are called like BERT's but whose positions are counted in another way. Only BERT can be converted."
        )
    heads = head_count(sizes["hidden_size"], BERT_HEAD_WIDTH, "text_num_attention_heads", num_attention_heads)
    return BertConfig(num_hidden_layers=num_blocks(list(tensors), "encoder.layer"), num_attention_heads=heads, **sizes)


def load_tokenizer(
    name: str, *, vocab_size: int, max_tokens: int, local_files_only: bool = False
) -> PreTrainedTokenizerBase:
    """A tokenizer for a text encoder with `vocab_size` embeddings, that cuts texts to `max_tokens` when asked to cut.

    Args:
        name: folder, Hub id, or a vocabulary file of WordPiece, one entry a line.
        vocab_size: number of embeddings of the encoder.
        max_tokens: longest input of the encoder.
        local_files_only: download nothing.

    Raises:
        OSError: if it cannot be loaded.
        ValueError: if it has more tokens than the encoder.
    """
    try:
        if Path(name).suffix == ".txt" and Path(name).is_file():
            tokenizer = BertTokenizer(vocab=str(name))
        else:
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local_files_only)
    except (OSError, ValueError) as error:
        raise OSError(str(error).strip().split("\n")[0][:160]) from error
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"The tokenizer {name!r} has {len(tokenizer)} tokens, the text encoder {vocab_size}. Pass the `tokenizer` "
            "that the encoder was trained with."
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, max_tokens)
    return tokenizer


__all__ = ["BERT_NAME", "BERT_SHAPES", "MAX_TOKENS", "NO_TOKENIZER", "bert_config", "load_tokenizer"]
