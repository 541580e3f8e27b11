# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Official files with a Zipformer (icefall, Auden) to a folder with model, feature extractor and card.

file -> tensors -> place of the encoder, what is around it -> configuration from shapes -> empty model, key table
     -> weights -> model, processor, card -> report
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_audiolang.models.configuration_zipformer import ZipformerConfig
from hf_audiolang.models.feature_extraction_log_mel import LogMelFeatureExtractor
from hf_audiolang.models.modeling_audio_classification import ZipformerForAudioClassification
from hf_audiolang.models.modeling_zipformer import ZipformerModel
from hf_audiolang.models.processing_audiolang import AudioLangProcessor

from .bert import BERT_NAME, NO_TOKENIZER, load_tokenizer
from .card import write_conversion_card
from .heads import head_plan, label_note
from .reading import check_empty, read_checkpoint
from .report import ConversionReport
from .weights import Plan, converted_weights
from .zipformer_card import FACTS
from .zipformer_keys import HEAD, HEAD_ORDER, HEAD_WEIGHT, encoder_table, reasons_to_ignore
from .zipformer_layout import encoder_config, encoder_prefix
from .zipformer_options import ZipformerOptions
from .zipformer_systems import (
    AUDIO,
    captioning_plan,
    contrastive_plan,
    is_captioning,
    is_contrastive,
    rearranged,
    take_tokens,
)

BART_NAME = "facebook/bart-base"
MAX_TEXT_TOKENS, MAX_CAPTION_TOKENS = 30, 128  # of captions that are embedded, and written; authors' code
# What no tensor of a decoder tells.
DECODER_NUMBERS = {"norm_position": ("post", "the authors' release"), "mlp_type": ("gelu", "the authors' release")}


def convert_zipformer(checkpoint: str | Path, output_dir: str | Path, **overrides: object) -> ConversionReport:
    """Converts an encoder of icefall or Auden, alone or inside a tagging or speech model, or a model of CaptionStew.

    Args:
        checkpoint: the official file: `pretrained.pt`, a checkpoint of training, or safetensors.
        output_dir: folder to write, new or empty.
        **overrides: fields of `ZipformerOptions`.

    Returns:
        The account of every key.

    Raises:
        ValueError: for a file of another model, shapes of no Zipformer, or missing or unknown tensors.
        FileNotFoundError: if there is no such file.
    """
    options, output_dir = ZipformerOptions.from_overrides(overrides), Path(output_dir)
    check_empty(output_dir)
    source = read_checkpoint(checkpoint, entry="model_avg" if options.average else "model")
    in_file = {key.removeprefix("module."): key for key in source.tensors}
    tensors = {key: source.tensors[name] for key, name in in_file.items()}
    prefix = encoder_prefix(tensors)
    inside = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    config = encoder_config(inside, options)
    plan, layout = _plan(tensors, prefix, config, options)
    _check_complete(tensors, plan)
    ignored = reasons_to_ignore(tensors, set(plan.table), prefix)
    weights = converted_weights(tensors, plan, rearranged)
    plan.model.load_state_dict(weights, strict=True, assign=True)
    tokenizer, notes = _tokenizer(plan.model, options)
    if is_captioning(tensors) and tokenizer is not None:
        take_tokens(plan.model, tokenizer)

    plan.model.save_pretrained(output_dir)
    extractor = LogMelFeatureExtractor.from_preset("captionstew", feature_size=config.num_mel_bins)
    (extractor if tokenizer is None else AudioLangProcessor(extractor, tokenizer)).save_pretrained(output_dir)
    left_out = [f"left out beside the weights: {', '.join(source.other_entries)}"] if source.other_entries else []
    report = ConversionReport(
        family="zipformer",
        layout=layout,
        model_class=type(plan.model).__name__,
        source_file=source.file_name,
        sha256=source.sha256,
        output_dir=output_dir,
        used={in_file[key]: names for key, names in plan.table.items()},
        ignored={in_file[key]: reason for key, reason in ignored.items()},
        numbers=_numbers(options) | (DECODER_NUMBERS if is_captioning(tensors) else {}),
        config=plan.model.config,
        notes=(*left_out, *_head_notes(tensors), *notes),
    )
    write_conversion_card(report, FACTS, has_tokenizer=tokenizer is not None)
    return report


def _plan(
    tensors: Mapping[str, Tensor], prefix: str, config: ZipformerConfig, options: ZipformerOptions
) -> tuple[Plan, str]:
    """(the model that the file holds and what fills it, the same in words)."""
    if prefix == AUDIO and is_contrastive(tensors):
        return contrastive_plan(tensors, config, options), "CaptionStew's contrastive model with Zipformer and BERT"
    if prefix == AUDIO and is_captioning(tensors):
        return captioning_plan(tensors, config, options), "CaptionStew's captioning model with Zipformer"
    table = {prefix + key: names for key, names in encoder_table(config).items()}
    if HEAD_WEIGHT in tensors:
        # the mean of the frames' logits is the logit of their mean
        config.classifier_norm, num_labels = False, len(tensors[HEAD_WEIGHT])
        plan = head_plan(ZipformerForAudioClassification, config, table, HEAD, num_labels, order=HEAD_ORDER)
        return plan, "Zipformer encoder with a tagging head"
    with torch.device("meta"):
        return Plan(ZipformerModel(config), table), "Zipformer encoder"


def _head_notes(tensors: Mapping[str, Tensor]) -> list[str]:
    return [label_note(len(tensors[HEAD_WEIGHT]), HEAD_ORDER)] if HEAD_WEIGHT in tensors else []


def _tokenizer(model: PreTrainedModel, options: ZipformerOptions) -> tuple[PreTrainedTokenizerBase | None, list[str]]:
    """The tokenizer of a model with a text side, or None and a note that says what to do."""
    if isinstance(model, ZipformerModel | ZipformerForAudioClassification) or options.tokenizer == NO_TOKENIZER:
        return None, []
    is_captioner = model.config.text_config is None
    name = options.tokenizer or (BART_NAME if is_captioner else BERT_NAME)
    text = model.config.decoder_config if is_captioner else model.config.text_config
    limits = {"vocab_size": text.vocab_size, "max_tokens": MAX_CAPTION_TOKENS if is_captioner else MAX_TEXT_TOKENS}
    try:
        return load_tokenizer(name, local_files_only=options.tokenizer is None, **limits), []
    except OSError as error:
        if options.tokenizer is not None:
            raise ValueError(
                f"The tokenizer {name!r} cannot be loaded ({error}). Pass `tokenizer` with a folder, a Hub id or a "
                f"vocab.txt, or `tokenizer={NO_TOKENIZER}` to save the feature extractor alone."
            ) from error
        return None, [f"{name} is not on this machine: only the feature extractor was saved; pass `tokenizer`"]


def _check_complete(tensors: Mapping[str, Tensor], plan: Plan) -> None:
    missing = [key for key in plan.table if key not in tensors]
    if missing:
        raise ValueError(
            f"The file lacks {len(missing)} of the {len(plan.table)} tensors of this Zipformer, for instance "
            f"{missing[:3]}. Download it again, or pass the complete file."
        )


def _numbers(options: ZipformerOptions) -> dict[str, tuple[object, str]]:
    """What no tensor tells, and where it comes from."""
    names = {"query_head_dim": 32, "value_head_dim": 12, "pos_head_dim": 4, "num_mel_bins": 80}
    return {
        name: (getattr(options, name) or number, "override" if getattr(options, name) else "official recipes")
        for name, number in names.items()
    }


__all__ = ["convert_zipformer"]
