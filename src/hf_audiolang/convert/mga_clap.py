# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The official MGA-CLAP checkpoint to a folder with model, processor or feature extractor, and card.

file -> tensors -> configuration from their shapes, front end compared -> empty model, key table, every key checked
     -> weights -> model, processor, card -> report
"""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from hf_audiolang.models.configuration_mga_clap import MgaClapConfig
from hf_audiolang.models.feature_extraction_log_mel import LogMelFeatureExtractor
from hf_audiolang.models.modeling_mga_clap import MgaClapModel
from hf_audiolang.models.modeling_text import build_text_model
from hf_audiolang.models.processing_audiolang import AudioLangProcessor

from .bert import BERT_NAME, NO_TOKENIZER, load_tokenizer
from .card import write_conversion_card
from .mga_clap_card import FACTS
from .mga_clap_keys import rearranged, reasons_to_ignore, system_table
from .mga_clap_layout import check_front_end, system_config
from .mga_clap_options import MgaClapOptions
from .reading import check_empty, read_checkpoint
from .report import ConversionReport
from .weights import Plan, converted_weights

MAX_TOKENS = 30  # captions are cut to, [CLS] and [SEP] included; authors' code
LAYOUT = "MGA-CLAP with HTS-AT, BERT and a codebook of {num_codewords} codewords"


def convert_mga_clap(checkpoint: str | Path, output_dir: str | Path, **overrides: object) -> ConversionReport:
    """Converts the official checkpoint of MGA-CLAP to a `MgaClapModel`.

    Args:
        checkpoint: the official file, `model.pt`.
        output_dir: folder to write, new or empty.
        **overrides: fields of `MgaClapOptions`.

    Returns:
        The account of every key.

    Raises:
        ValueError: for a file of another model, for missing, unknown or misshapen tensors, for another front end, or
            for a tokenizer that does not fit.
        FileNotFoundError: if there is no such file.
    """
    options, output_dir = MgaClapOptions.from_overrides(overrides), Path(output_dir)
    check_empty(output_dir)
    source = read_checkpoint(checkpoint)
    config, numbers = system_config(source.tensors, options)
    extractor = LogMelFeatureExtractor.from_preset("mga_clap")
    check_front_end(source.tensors, extractor)
    tokenizer, notes = _tokenizer(config, options)
    if tokenizer is not None:
        config.special_token_ids = _special_token_ids(tokenizer)
    numbers["special_token_ids"] = (
        list(config.special_token_ids),
        "bert-base-uncased" if tokenizer is None else "tokenizer",
    )
    plan = _plan(config)
    ignored = reasons_to_ignore(source.tensors, plan.table)
    weights = converted_weights(source.tensors, plan, rearranged)
    plan.model.load_state_dict(weights, strict=True, assign=True)

    plan.model.save_pretrained(output_dir)
    processor = extractor if tokenizer is None else AudioLangProcessor(extractor, tokenizer)
    processor.save_pretrained(output_dir)
    left_out = [f"left out beside the weights: {', '.join(source.other_entries)}"] if source.other_entries else []
    report = ConversionReport(
        family="mga_clap",
        layout=LAYOUT.format(num_codewords=config.num_codewords),
        model_class=MgaClapModel.__name__,
        source_file=source.file_name,
        sha256=source.sha256,
        output_dir=output_dir,
        used=plan.table,
        ignored=ignored,
        numbers=numbers,
        config=plan.model.config,
        notes=(*left_out, *notes),
    )
    write_conversion_card(report, FACTS, has_tokenizer=tokenizer is not None)
    return report


def _plan(config: MgaClapConfig) -> Plan:
    with torch.device("meta"):
        model = MgaClapModel(config)
        text_names = list(build_text_model(config.text_config).state_dict())
    audio = config.audio_config
    return Plan(model, system_table(audio.depths, text_names, has_qkv_bias=audio.qkv_bias))


def _tokenizer(config: MgaClapConfig, options: MgaClapOptions) -> tuple[PreTrainedTokenizerBase | None, list[str]]:
    """The tokenizer, or None and a note that says what to do."""
    name = options.tokenizer
    how = f"pass `tokenizer` with {BERT_NAME}, a folder, or a vocab.txt"
    if name == NO_TOKENIZER:
        return None, [f"no tokenizer: only the feature extractor was saved; to embed captions, {how}"]
    limits = {"vocab_size": config.text_config.vocab_size, "max_tokens": MAX_TOKENS}
    try:
        if name is None:
            return load_tokenizer(BERT_NAME, local_files_only=True, **limits), []
        return load_tokenizer(name, **limits), []
    except OSError as error:
        if name is None:
            return None, [f"{BERT_NAME} is not on this machine: only the feature extractor was saved; {how}"]
        raise ValueError(
            f"The tokenizer {name!r} cannot be loaded ({error}). Pass `tokenizer` with a folder, a Hub id or a "
            f"vocab.txt, or `tokenizer={NO_TOKENIZER}` to save the feature extractor alone."
        ) from error


def _special_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that are no words: of padding and of the tokens around a caption."""
    ids = {
        "pad_token": tokenizer.pad_token_id,
        "cls_token": tokenizer.cls_token_id,
        "sep_token": tokenizer.sep_token_id,
    }
    missing = [name for name, value in ids.items() if value is None]
    if missing:
        raise ValueError(
            f"The tokenizer has no {missing}, got {type(tokenizer).__name__}. Pass that of bert-base-uncased."
        )
    return sorted(ids.values())


__all__ = ["convert_mga_clap"]
