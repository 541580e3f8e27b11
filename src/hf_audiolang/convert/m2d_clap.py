# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Official M2D, M2D-CLAP and MSM-MAE checkpoints to folders with model, feature extractor or processor, and card.

file -> tensors, wrappers taken off -> layout (sizes, name, overrides) -> plan (empty model, key table)
     -> weights, every key checked -> model, processor, card -> report
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hf_audiolang.models.feature_extraction_log_mel import LogMelFeatureExtractor
from hf_audiolang.models.processing_audiolang import AudioLangProcessor

from . import m2d_clap_keys as keys
from .card import write_conversion_card
from .heads import label_note
from .m2d_clap_card import card_facts
from .m2d_clap_layout import AudioLayout, TextLayout, audio_layout, folder_configuration, is_system, text_layout
from .m2d_clap_options import FRONT_ENDS, M2dClapOptions
from .m2d_clap_plan import check_keys, make_plan
from .m2d_clap_text import TextTower, text_tokenizer, text_tower
from .reading import SourceCheckpoint, check_empty, read_checkpoint
from .report import ConversionReport
from .weights import converted_weights

AUDIO_PROJECTORS = {
    "transformer": "audio projector with semantic token",
    "mlp": "MLP audio projector",
    "mean": "no audio projector",
}


def convert_m2d_clap(checkpoint: str | Path, output_dir: str | Path, **overrides: object) -> ConversionReport:
    """Converts one official checkpoint of M2D, M2D-CLAP or MSM-MAE.

    A file with the encoder alone becomes a `M2dClapAudioModel`, one with a head for AudioSet a
    `M2dClapAudioForAudioClassification`, one with projectors a `M2dClapModel`, and with `pretraining=True` a
    `M2dClapForPreTraining`. The name of the official folder is part of the configuration.

    Args:
        checkpoint: the official file in its folder; pass `name` if the folder has another name.
        output_dir: folder to write, new or empty.
        **overrides: fields of `M2dClapOptions`.

    Returns:
        The account of every key.

    Raises:
        ValueError: for a file of another family, missing, unknown or misshapen tensors, a folder name that
            contradicts the tensors, or a number that nothing determines.
        FileNotFoundError: if there is no such file.
    """
    options, output_dir = M2dClapOptions.from_overrides(overrides), Path(output_dir)
    check_empty(output_dir)
    source = read_checkpoint(checkpoint)
    in_file = _without_wrappers(source.tensors)
    tensors = {key: source.tensors[name] for key, name in in_file.items()}
    folder = folder_configuration(source.folder_name, options)
    audio = audio_layout(tensors, folder, options)
    text = text_layout(tensors, audio.config.hidden_size, folder, options) if is_system(tensors) else None
    tower = text_tower(tensors, text, options)
    tokenizer = text_tokenizer(tower, options)
    plan = make_plan(tensors, audio, text, tower, options)
    ignored = check_keys(tensors, plan, ignore_unknown=options.ignore_unknown)
    weights = converted_weights(tensors, plan, keys.rearranged)
    plan.model.load_state_dict(weights, strict=True, assign=True)

    extractor = feature_extractor(audio)
    processor = extractor if tokenizer is None else AudioLangProcessor(extractor, tokenizer)
    plan.model.save_pretrained(output_dir)
    processor.save_pretrained(output_dir)
    statistics = {keys.NORM_STATS: ("mean and std of the feature extractor",)} if keys.NORM_STATS in tensors else {}
    report = ConversionReport(
        family="m2d_clap",
        layout=_description(tensors, text),
        model_class=type(plan.model).__name__,
        source_file=source.file_name,
        sha256=source.sha256,
        output_dir=output_dir,
        used={in_file[key]: names for key, names in (plan.table | statistics).items()},
        ignored={in_file[key]: reason for key, reason in ignored.items()},
        numbers=audio.numbers | ({} if text is None else text.numbers),
        config=plan.model.config,
        notes=(*audio.notes, *_notes(source, tensors, text, tower, has_tokenizer=tokenizer is not None)),
    )
    write_conversion_card(report, card_facts(_papers(tensors, text)), has_tokenizer=tokenizer is not None)
    return report


def feature_extractor(audio: AudioLayout) -> LogMelFeatureExtractor:
    """The front end of a file: the preset with its sampling rate and its statistics."""
    numbers = FRONT_ENDS[audio.sampling_rate] | {"feature_size": audio.config.num_mel_bins}
    return LogMelFeatureExtractor.from_preset("m2d_clap", mean=audio.mean, std=audio.std, **numbers)


def _without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Key as the tables call it -> key in the file."""
    names: dict[str, str] = {}
    for name in tensors:
        key = keys.without_wrapper(name)
        if key in names:
            raise ValueError(f"The file holds `{key}` twice, as {names[key]!r} and {name!r}. Remove one.")
        names[key] = name
    return names


def _description(tensors: Mapping[str, Tensor], text: TextLayout | None) -> str:
    """What the file holds, in words."""
    parts = ["M2D audio encoder"]
    if text is not None:
        parts = ["M2D-CLAP audio encoder", AUDIO_PROJECTORS[text.projector_config.projector_type]]
        parts += [f"{text.text_projector} text projector"] if text.text_projector != "none" else []
        parts += ["text encoder"] if text.has_text_encoder else []
    has_teacher = any(key.startswith("target_") for key in tensors)
    has_predictor = any(key.startswith("decoder_") for key in tensors)
    if has_predictor:
        parts.append("predictor and teacher" if has_teacher else "spectrogram decoder without teacher (MSM-MAE)")
    parts += ["classification head"] if any(key in keys.HEAD for key in tensors) else []
    return ", ".join(parts)


def _papers(tensors: Mapping[str, Tensor], text: TextLayout | None) -> tuple[str, ...]:
    is_msm_mae = "decoder_embed.weight" in tensors and "target_norm.weight" not in tensors
    if text is None:
        return ("MSM-MAE",) if is_msm_mae else ("M2D",)
    return ("M2D", "M2D-CLAP 2024" if text.projector_config.projector_type == "mlp" else "M2D-CLAP 2025")


def _notes(
    source: SourceCheckpoint,
    tensors: Mapping[str, Tensor],
    text: TextLayout | None,
    tower: TextTower,
    *,
    has_tokenizer: bool,
) -> list[str]:
    notes = []
    if keys.HEAD_WEIGHT in tensors:
        notes.append(label_note(len(tensors[keys.HEAD_WEIGHT]), keys.HEAD_ORDER))
    if source.other_entries:
        notes.append(f"left out beside the weights: {', '.join(source.other_entries)}")
    if text is not None and "logit_scale" not in tensors:
        notes.append("the file has no `logit_scale`: it starts from its initial value")
    if text is not None and tower.config is None:
        notes.append(
            f"no text encoder in the file: captions come as embeddings of {text.embedding_model}, "
            f"{text.embedding_size} numbers each, or pass `text_model` to include the encoder"
        )
    if tower.source is not None:
        given, named = Path(tower.source).name, text.named_model
        notes.append(f"the text encoder comes from {given}, not from the file")
        if named is not None and given != Path(named).name:
            notes.append(f"the folder name speaks of the text encoder {named}, but {given} was given")
    if tower.config is not None and not has_tokenizer:
        notes.append("no tokenizer: only the feature extractor was saved")
    return notes


__all__ = ["convert_m2d_clap", "feature_extractor"]
