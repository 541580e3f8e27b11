# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Official files with a Zipformer (icefall, Auden) to a folder with model, feature extractor and card.

file -> tensors -> place of the encoder, what is around it -> configuration from shapes -> empty model, key table
     -> weights -> model, processor, card -> report
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from hf_audiolang.models.feature_extraction_log_mel import LogMelFeatureExtractor
from hf_audiolang.models.modeling_zipformer import ZipformerModel

from .card import write_conversion_card
from .reading import check_empty, read_checkpoint
from .report import ConversionReport
from .weights import HEAD_FILE, Plan, converted_weights
from .zipformer_card import FACTS
from .zipformer_keys import HEAD, encoder_table, reasons_to_ignore
from .zipformer_layout import encoder_config, encoder_prefix
from .zipformer_options import ZipformerOptions

HEAD_NUMBERS = {"pooling": "mean of the frames' logits", "class_order": "class_labels_indices.csv of AudioSet"}


def convert_zipformer(checkpoint: str | Path, output_dir: str | Path, **overrides: object) -> ConversionReport:
    """Converts an encoder of icefall or Auden, alone or inside a tagging, speech or language model.

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
    with torch.device("meta"):
        model = ZipformerModel(config)
    plan = Plan(model, {prefix + key: names for key, names in encoder_table(config).items()})
    _check_complete(tensors, plan)
    head = {key: name for key, name in HEAD.items() if key in tensors}
    ignored = reasons_to_ignore(tensors, {*plan.table, *head}, prefix)
    weights = converted_weights(tensors, plan, lambda _, tensor: (tensor,))
    model.load_state_dict(weights, strict=True, assign=True)

    model.save_pretrained(output_dir)
    extractor = LogMelFeatureExtractor.from_preset("captionstew", feature_size=config.num_mel_bins)
    extractor.save_pretrained(output_dir)
    if head:
        values = {name: tensors[key].float().contiguous() for key, name in head.items()}
        save_file(values, output_dir / HEAD_FILE, HEAD_NUMBERS)
    report = ConversionReport(
        family="zipformer",
        layout="Zipformer encoder" + (" with a tagging head" if head else ""),
        model_class=ZipformerModel.__name__,
        source_file=source.file_name,
        sha256=source.sha256,
        output_dir=output_dir,
        used={in_file[key]: names for key, names in plan.table.items()},
        ignored={in_file[key]: reason for key, reason in ignored.items()},
        head={in_file[key]: name for key, name in head.items()},
        numbers=_numbers(options),
        config=config,
        notes=tuple(
            f"left out beside the weights: {', '.join(source.other_entries)}" for _ in source.other_entries[:1]
        ),
    )
    write_conversion_card(report, FACTS, has_tokenizer=False)
    return report


def _check_complete(tensors: dict, plan: Plan) -> None:
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
