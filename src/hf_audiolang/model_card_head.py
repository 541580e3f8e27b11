# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""README.md of a fine-tuned head or of its adapter: model_cards/classifier.md filled from config, settings and values.

Only what the run knows is written: no value, data set or licence is invented.
"""

from importlib.metadata import version
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

from .model_card import (
    OUR_LICENCE,
    SYNTHETIC,
    CardContent,
    evaluation_metadata,
    find_template,
    hub_id,
    public_data_name,
    public_start,
    start_licences,
    states_our_licence,
)

TASKS = {
    "classification": "one label per clip",
    "tagging": "any number of labels per clip",
    "frames": "labels of every frame, for sound event detection",
}
# What a reader of the card needs of the recipe, where it is not switched off.
SHOWN_SETTINGS = (
    "optimizer", "learning_rate", "lr_schedule", "warmup_steps", "lr_end_ratio", "layer_decay", "weight_decay",
    "momentum", "adam_betas", "amsgrad", "max_grad_norm", "gradient_accumulation_steps", "freeze", "max_frames",
    "structured_patchout", "time_patchout", "frequency_patchout", "drop_path_rate", "classifier_dropout",
    "balanced_sampling", "samples_per_epoch", "mixup_alpha", "mixup_share", "roll", "spec_augment_mel",
    "spec_augment_frames", "random_resize_crop", "precision", "seed", "max_seconds",
)  # fmt: skip
LORA_SETTINGS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "lora_rslora", "lora_dora")
NOTHING = (None, False, 0, [], "none")  # a part of the recipe that is switched off
OFF = {"layer_decay": (1,), "gradient_accumulation_steps": (1,)}
ONLY_WITH = {"momentum": ("optimizer", ("sgd", "lars")), "adam_betas": ("optimizer", ("adamw", "scaled_adam"))}


def write_head_card(
    folder: Path,
    model: PreTrainedModel,
    extractor: FeatureExtractionMixin,
    content: CardContent,
    *,
    is_adapter: bool = False,
) -> ModelCard:
    """Writes README.md, with the values as metadata the Hub reads, into the folder of a head; returns the card.

    Args:
        folder: of the model, or of the adapter.
        model: the classifier.
        extractor: its feature extractor.
        content: settings of the run, values.
        is_adapter: the folder holds the adapter alone.
    """
    config, settings = model.config, content.settings
    is_synthetic = settings["data"] == "sound_scenes"
    data_name = SYNTHETIC if is_synthetic else _data_name(settings)
    starts = {} if settings["from_scratch"] else {"model": str(settings["model"])}
    licences = start_licences(starts)
    is_all_ours = is_synthetic and all(map(states_our_licence, starts.values()))
    the_licence = next(iter(licences.values()), {})
    name = Path(str(settings["output_dir"])).name
    base = public_start(str(settings["model"]))
    is_frames = settings["task"] == "frames"
    card_data = ModelCardData(
        license=OUR_LICENCE if is_all_ours else the_licence.get("license"),
        license_name=the_licence.get("license_name"),
        license_link=the_licence.get("license_link"),
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag=None if is_frames else "audio-classification",
        base_model=hub_id(settings["model"]) if starts else None,
        tags=["audio", *(["sound-event-detection"] if is_frames else []), config.model_type, "hf_audiolang"],
        model_name=name,
        eval_results=evaluation_metadata(content.report),
    )
    card = ModelCard.from_template(
        card_data,
        template_str=find_template("classifier").read_text(encoding="utf-8"),
        title=name,
        model_path=folder.as_posix() if not folder.is_absolute() else folder.name,
        what=TASKS[str(settings["task"])],
        task=settings["task"],
        classes=[config.id2label[index] for index in range(config.num_labels)],
        is_adapter=is_adapter,
        is_lora=settings["lora"],
        from_scratch=settings["from_scratch"],
        base=base,
        is_synthetic=is_synthetic,
        data_name=data_name,
        num_parameters=f"{sum(value.numel() for value in model.parameters()) / 1e6:.2f} M",
        config=config,
        audio=getattr(config, "audio_config", config),
        sampling_rate=extractor.sampling_rate,
        settings=settings,
        shown_settings=_shown(settings),
        start_licences={base: the_licence} if the_licence else {},
        num_steps=content.num_steps,
        audio_hours=f"{content.audio_seconds / 3600:.1f}",
        table=content.table,
        package_version=version("hf-audiolang"),
    )
    card.save(folder / "README.md")
    return card


def _data_name(settings: dict[str, object]) -> str:
    """What the labelled sounds are called in public: by their plan, wherever they lie."""
    path = Path(str(settings["data"]))
    return path.stem if path.suffix in (".yaml", ".yml") else public_data_name(str(path))


def _shown(settings: dict[str, object]) -> list[tuple[str, object]]:
    names = [*SHOWN_SETTINGS, *(LORA_SETTINGS if settings["lora"] else ())]
    names = [name for name in names if name not in ONLY_WITH or settings[ONLY_WITH[name][0]] in ONLY_WITH[name][1]]
    if not settings["mixup_alpha"]:
        names.remove("mixup_share")
    return [(name, settings[name]) for name in names if name == "seed" or settings[name] not in OFF.get(name, NOTHING)]


__all__ = ["write_head_card"]
