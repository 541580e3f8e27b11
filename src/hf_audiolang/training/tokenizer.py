# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The text side's vocabulary: trained on the training captions, or loaded from a folder or the Hub."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hf_audiolang.data.text_embedders import find_model

# ModernBERT's names; the order fixes their ids to 0..4.
SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
# Classes and prompts of zero-shot use must be whole words even when no training caption has them.
PROMPT_WORDS = "this is a sound of can be heard an the and audio recording noise"


def train_tokenizer(
    captions: Iterable[str], *, vocab_size: int = 8000, max_length: int = 128
) -> PreTrainedTokenizerFast:
    """A lower-casing byte-level BPE tokenizer trained on `captions`; the same captions give the same tokenizer.

    Every text can be encoded (bytes are the fallback, so [UNK] never appears) and a text reads `[CLS] text [SEP]`.

    Args:
        captions: training texts, of any number and order.
        vocab_size: largest number of types, special tokens and the 256 bytes included; few captions give fewer.
        max_length: tokens a text is cut to when truncation is asked for.

    Raises:
        ValueError: if there is no caption, or `vocab_size` leaves no room beside the bytes.
    """
    counted = sorted(caption for caption in captions if caption.strip())
    if not counted:
        raise ValueError("`captions` holds 0 texts. Pass the training captions, or name a `tokenizer` to load.")
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise ValueError(f"`vocab_size` is {vocab_size}, below the {smallest} bytes and special tokens. Raise it.")
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    # The prefix space makes "dog" one type at the start of a text and inside it.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a word seen once is left to its pieces
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*counted, PROMPT_WORDS, PROMPT_WORDS], trainer=trainer)
    cls_token, sep_token = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls_token} $A {sep_token}",
        pair=f"{cls_token} $A {sep_token} $B:1 {sep_token}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (cls_token, sep_token)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL_TOKENS,
    )


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, a Hub id or a packaged text model; it must have a padding token.

    Raises:
        ImportError: for a packaged model that is not installed.
        OSError: if it is neither a folder with a tokenizer nor reachable on the Hub.
        ValueError: if it has no padding token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(find_model(name_or_path))
    except (OSError, ValueError) as error:
        raise OSError(
            f"`tokenizer` {name_or_path!r} is neither a folder with a tokenizer nor reachable on the Hub. Check the "
            "name and the network, or use `tokenizer: train`."
        ) from error
    if tokenizer.pad_token_id is None:
        raise ValueError(f"`tokenizer` {name_or_path!r} has no padding token. Choose one that has, or set it first.")
    return tokenizer


__all__ = ["PROMPT_WORDS", "SPECIAL_TOKENS", "load_tokenizer", "train_tokenizer"]
