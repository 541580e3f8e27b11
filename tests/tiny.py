# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Tiny configurations, a tiny tokenizer and a ragged batch: the one place where tests get their models from.

All widths differ, so that a mixed-up axis or tower fails; weights are drawn wide, so that attention is not uniform.
"""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, ModernBertConfig, PreTrainedConfig, PreTrainedTokenizerFast

from hf_audiolang import (
    AudioLangProcessor,
    CaptionDecoderConfig,
    CaptionStewConfig,
    HtsatConfig,
    LogMelFeatureExtractor,
    M2dClapAudioConfig,
    M2dClapConfig,
    MgaClapConfig,
    NativeAudioConfig,
    SlapAudioConfig,
    SlapConfig,
    ZipformerConfig,
)
from hf_audiolang.models.configuration_captionstew import CAPTIONSTEW_DECODER

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "a the an in of is and then can be heard sound dog cat siren rain bird bell drum barking ringing loud quiet "
    "high low far near"
)
VOCABULARY = (*SPECIAL_TOKENS, *WORDS.split())
PAD, UNK, CLS, SEP, MASK = range(5)
CLIP_FRAMES = (98, 9, 55, 33)  # 7, 1, 4 and 3 patch columns: longer and shorter than the sliding window
CAPTION_TOKENS = (7, 3, 9, 5)  # [CLS] and [SEP] included


def tiny_slap_audio_config(**overrides) -> SlapAudioConfig:
    """Three layers (sliding, sliding, full) of width 24 on 64 mel bins; a window of two patch columns to each side."""
    numbers = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 44,
        "sliding_window_frames": 4,
        "initializer_range": 0.15,
    }
    return SlapAudioConfig(**(numbers | overrides))


def tiny_text_config(**overrides) -> ModernBertConfig:
    """Two ModernBERT layers (full, sliding) of width 16."""
    numbers = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 28,
        "max_position_embeddings": 64,
        "local_attention": 8,
        "initializer_range": 0.15,
        "pad_token_id": PAD,
        "bos_token_id": CLS,
        "cls_token_id": CLS,
        "eos_token_id": SEP,
        "sep_token_id": SEP,
    }
    return ModernBertConfig(**(numbers | overrides))


def tiny_decoder_config(**overrides) -> CaptionDecoderConfig:
    """Two decoder layers of width 20 over audio tokens of width 24."""
    numbers = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 36,
        "encoder_hidden_size": 24,
        "initializer_range": 0.15,
        "pad_token_id": PAD,
        "bos_token_id": CLS,
        "eos_token_id": SEP,
    }
    return CaptionDecoderConfig(**(numbers | overrides))


def tiny_slap_config(**overrides) -> SlapConfig:
    """SLAP with the tiny towers and a shared space of 12; a tower may be given as a dict of its overrides."""
    builders = {
        "audio_config": tiny_slap_audio_config,
        "text_config": tiny_text_config,
        "decoder_config": tiny_decoder_config,
    }
    numbers = {
        "projection_dim": 12,
        "initializer_range": 0.15,
        "num_prototypes": 18,
        "prototype_layers": 2,
        "prototype_hidden_size": 26,
        "prototype_bottleneck_size": 10,
    }
    for name, build in builders.items():
        given = overrides.pop(name, {})
        numbers[name] = build(**given) if isinstance(given, dict) and "model_type" not in given else given
    return SlapConfig(**(numbers | overrides))


def tiny_m2d_clap_audio_config(**overrides) -> M2dClapAudioConfig:
    """Three layers of width 24 on 80 mel bins, positions for 112 frames: 5 bands x 7 columns."""
    numbers = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 44,
        "max_frames": 112,
    }
    return M2dClapAudioConfig(**(numbers | overrides))


def tiny_bert_config(**overrides) -> BertConfig:
    """Two BERT layers of width 16, wide weights, without dropout."""
    numbers = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 28,
        "max_position_embeddings": 64,
        "initializer_range": 0.15,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": PAD,
    }
    return BertConfig(**(numbers | overrides))


def tiny_m2d_clap_config(**overrides) -> M2dClapConfig:
    """M2D-CLAP stage 1 with the tiny encoder, a tiny BERT and a linear text projection; towers as `tiny_slap_config`.

    `text_config=None` is the form without a text encoder, with embeddings of width 10 unless told otherwise.
    """
    builders = {"audio_config": tiny_m2d_clap_audio_config, "text_config": tiny_bert_config}
    numbers = {
        "predictor_hidden_size": 20,
        "predictor_num_layers": 2,
        "predictor_num_heads": 2,
        "predictor_intermediate_size": 36,
        "text_embedding_size": 10,
    }
    for name, build in builders.items():
        given = overrides.pop(name, {})
        numbers[name] = build(**given) if isinstance(given, dict) and "model_type" not in given else given
    return M2dClapConfig(**(numbers | overrides))


def tiny_htsat_config(**overrides) -> HtsatConfig:
    """Two stages of two blocks, the second with shifted windows, of width 12 and 24: 2 rows x 32 frames at the end."""
    numbers = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "window_size": 2,
        "depths": [2, 2],
        "num_attention_heads": [2, 3],
        "patch_embeds_hidden_size": 12,
        "hidden_size": 24,
        "drop_path_rate": 0.0,
        "initializer_range": 0.15,
    }
    return HtsatConfig(**(numbers | overrides))


def tiny_mga_clap_config(**overrides) -> MgaClapConfig:
    """MGA-CLAP with a tiny HTS-AT whose last block is locality-aware, a tiny BERT and 18 codewords of width 20."""
    builders = {"audio_config": tiny_htsat_config, "text_config": tiny_bert_config}
    numbers = {"projection_dim": 20, "num_codewords": 18, "special_token_ids": [PAD, CLS, SEP, MASK]}
    overrides = {"audio_config": {"locality_blocks": 1}} | overrides
    for name, build in builders.items():
        given = overrides.pop(name, {})
        numbers[name] = build(**given) if isinstance(given, dict) and "model_type" not in given else given
    return MgaClapConfig(**(numbers | overrides))


def tiny_captionstew_decoder_config(**overrides) -> CaptionDecoderConfig:
    """CaptionStew's form of decoder (norms after each sum, sinusoidal positions) in two layers of width 20."""
    numbers = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 36,
        "encoder_hidden_size": 20,
        "initializer_range": 0.15,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "pad_token_id": PAD,
        "bos_token_id": CLS,
        "eos_token_id": SEP,
        "mask_token_id": MASK,
    }
    return CaptionDecoderConfig(**(CAPTIONSTEW_DECODER | numbers | overrides))


def tiny_captionstew_config(**overrides) -> CaptionStewConfig:
    """CaptionStew with SLAP's tiny encoder, a tiny BERT, a shared space of 12 and a tiny decoder; towers as above.

    `text_config=None` is the form without a text tower.
    """
    builders = {
        "audio_config": tiny_slap_audio_config,
        "text_config": tiny_bert_config,
        "decoder_config": tiny_captionstew_decoder_config,
    }
    numbers = {"projection_dim": 12, "pooling_heads": 3}
    for name, build in builders.items():
        given = overrides.pop(name, {})
        numbers[name] = build(**given) if isinstance(given, dict) and "model_type" not in given else given
    return CaptionStewConfig(**(numbers | overrides))


def tiny_zipformer_config(**overrides) -> ZipformerConfig:
    """Three stacks at 50, 25 and 12.5 Hz, widths 18, 24 and 14, so that the output is joined from two of them."""
    numbers = {
        "embed_channels": (2, 4, 6),
        "downsampling_factor": (1, 2, 4),
        "num_encoder_layers": (2, 1, 1),
        "encoder_dim": (18, 24, 14),
        "encoder_unmasked_dim": (10, 15, 9),
        "feedforward_dim": (22, 28, 20),
        "num_heads": (2, 3, 2),
        "cnn_module_kernel": (5, 7, 3),
        "query_head_dim": 6,
        "value_head_dim": 5,
        "pos_head_dim": 3,
        "pos_dim": 10,
    }
    return ZipformerConfig(**(numbers | overrides))


def tiny_ast_config(encoder: dict | None = None, **overrides) -> NativeAudioConfig:
    """AST of three layers of width 24 on 36 mel bins and 116 frames: 3 rows x 11 columns; `encoder` are its fields."""
    numbers = {
        "model_type": "audio-spectrogram-transformer",
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 44,
        "num_mel_bins": 36,
        "max_length": 116,
        "initializer_range": 0.15,
    }
    return NativeAudioConfig(encoder_config=numbers | (encoder or {}), **overrides)


def tiny_whisper_config(encoder: dict | None = None, **overrides) -> NativeAudioConfig:
    """Whisper's encoder of two layers of width 24 on 20 mel bins and 104 frames; `encoder` are Whisper's fields."""
    numbers = {
        "model_type": "whisper",
        "d_model": 24,
        "encoder_layers": 2,
        "encoder_attention_heads": 3,
        "encoder_ffn_dim": 44,
        "decoder_layers": 1,
        "decoder_attention_heads": 3,
        "decoder_ffn_dim": 12,
        "vocab_size": 20,
        "num_mel_bins": 20,
        "max_source_positions": 52,
        "init_std": 0.15,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
    }
    return NativeAudioConfig(encoder_config=numbers | (encoder or {}), **overrides)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per known word, lower case, `[CLS] words [SEP]`, ModernBERT's special tokens."""
    ids = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    )


def tiny_processor() -> AudioLangProcessor:
    """SLAP's own feature extractor, its statistics set to fixed numbers, and the tiny tokenizer."""
    extractor = LogMelFeatureExtractor.from_preset("slap", mean=-7.0, std=9.0)
    return AudioLangProcessor(extractor, tiny_tokenizer())


def tiny_batch(config: PreTrainedConfig, seed: int) -> dict[str, torch.Tensor]:
    """Four clips and captions of different lengths; only the audio entries for an audio configuration."""
    generator = torch.Generator().manual_seed(seed)
    audio_config = getattr(config, "audio_config", config)
    frames, tokens = torch.tensor(CLIP_FRAMES), torch.tensor(CAPTION_TOKENS)
    shape = (len(frames), max(CLIP_FRAMES), audio_config.num_mel_bins)
    input_features_mask = torch.arange(shape[1]) < frames.unsqueeze(1)
    input_features = torch.randn(shape, generator=generator) * input_features_mask.unsqueeze(-1)
    batch = {"input_features": input_features, "input_features_mask": input_features_mask}
    if audio_config is config:
        return batch
    at = torch.arange(max(CAPTION_TOKENS))
    attention_mask = (at < tokens.unsqueeze(1)).long()
    input_ids = torch.randint(MASK + 1, len(VOCABULARY), attention_mask.shape, generator=generator)
    input_ids[:, 0] = CLS
    input_ids[at == tokens.unsqueeze(1) - 1] = SEP
    input_ids = input_ids.masked_fill(attention_mask == 0, PAD)
    labels = input_ids.masked_fill(attention_mask == 0, -100)
    return {"input_ids": input_ids, "attention_mask": attention_mask, **batch, "labels": labels}
