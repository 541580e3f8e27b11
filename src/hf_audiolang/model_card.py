# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""README.md of an exported model: model_cards/<model_type>.md filled from config, settings and measured values.

Only what the run knows is written: no value, data set or licence is invented.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

# metric -> (Hub task, Hub metric, task of the report's record that it belongs to)
CARD_METRICS = {
    "zero_shot/accuracy": ("zero-shot-audio-classification", "accuracy", "zero_shot"),
    "text_to_audio/R@1": ("text-to-audio-retrieval", "recall_at_1", "retrieval"),
    "text_to_audio/R@10": ("text-to-audio-retrieval", "recall_at_10", "retrieval"),
    "audio_to_text/R@1": ("audio-to-text-retrieval", "recall_at_1", "retrieval"),
    "audio_to_text/R@10": ("audio-to-text-retrieval", "recall_at_10", "retrieval"),
    "composition/text_to_audio/R@10": ("text-to-audio-retrieval", "recall_at_10", "composition/retrieval"),
    "frame/mAP": ("sound-event-detection", "mean_average_precision", "frame"),
    "detection/PSDS1_no_spread": ("sound-event-detection", "psds1_no_spread", "detection"),
    "detection/PSDS2": ("sound-event-detection", "psds2", "detection"),
    "grounding/PSDSm": ("text-to-audio-grounding", "psdsm", "grounding"),
    "captioning/CIDEr-D": ("audio-captioning", "cider_d", "captioning"),
    "classification/accuracy": ("audio-classification", "accuracy", "classification"),
    "tagging/mAP": ("audio-classification", "mean_average_precision", "tagging"),
    "frame_classification/mAP": ("sound-event-detection", "mean_average_precision", "frame_classification"),
    "frame_classification/PSDS1_no_spread": ("sound-event-detection", "psds1_no_spread", "frame_classification"),
    "frame_classification/PSDS2": ("sound-event-detection", "psds2", "frame_classification"),
    "probe_mean/accuracy": ("audio-classification", "accuracy", "clip_probe"),
    "probe_attention/accuracy": ("audio-classification", "accuracy", "clip_probe"),
    "probe_mean/mAP": ("audio-classification", "mean_average_precision", "tagging_probe"),
    "probe_attention/mAP": ("audio-classification", "mean_average_precision", "tagging_probe"),
}
SHOWN_SETTINGS = (
    "train_data", "optimizer", "learning_rate", "text_learning_rate_scale", "lr_schedule", "warmup_steps",
    "lr_end_ratio", "weight_decay", "adam_betas", "max_grad_norm", "gradient_accumulation_steps", "ema_decay",
    "ema_schedule", "mask_style", "parallel_share", "label_smoothing", "precision", "seed", "max_seconds",
    "crop_step_seconds",
)  # fmt: skip
SHOWN_WITH = {  # setting -> (setting, values) of the runs in which it has an effect
    "clipping_scale": ("optimizer", ("scaled_adam",)),
    "lr_batches": ("lr_schedule", ("eden", "eden2", "eden3")),
    "lr_epochs": ("lr_schedule", ("eden", "eden3")),
    "lr_steps_per_epoch": ("lr_schedule", ("eden", "eden3")),
}
STARTS = ("model", "audio_model", "audio_projection", "text_model")  # settings that name weights to start from
OUR_LICENCE = "apache-2.0"
LICENCE_KEYS = ("license", "license_name", "license_link")  # of a card's metadata
SYNTHETIC = "synthetic-scenes v1"


@dataclass(frozen=True)
class CardContent:
    """What a card says beyond the model itself.

    Attributes:
        settings: the run's settings, flat.
        report: metric name -> value, with `records` (task and data of each evaluation).
        table: the report as a Markdown table.
        num_steps: optimizer steps trained.
        audio_seconds: audio heard in training, repeats included, seconds.
    """

    settings: Mapping[str, object]
    report: Mapping[str, object]
    table: str
    num_steps: int
    audio_seconds: float


def write_card(folder: Path, model: PreTrainedModel, processor: ProcessorMixin, content: CardContent) -> ModelCard:
    """Writes README.md, with the values as metadata the Hub reads, into the model's folder; returns the card.

    Raises:
        FileNotFoundError: if there is no template for the model's type.
    """
    config, settings = model.config, content.settings
    is_synthetic = settings["train_data"] == "sound_scenes"
    data_name = SYNTHETIC if is_synthetic else public_data_name(str(settings["train_data"]))
    # Nobody but the owner of data and start weights can say under which licence a model made of them stands.
    starts = {key: str(settings[key]) for key in STARTS if settings.get(key)}
    is_all_ours = is_synthetic and not starts
    licences = start_licences(starts)
    the_licence = next(iter(licences.values()), {}) if len({*map(str, licences.values())}) == 1 else {}
    text = getattr(config, "text_config", None)  # None: an audio encoder, or a system without text encoder
    is_captioner = config.is_encoder_decoder
    name = Path(str(settings["output_dir"])).name
    is_adapter = (folder / "adapter_config.json").is_file()
    metadata = {"library_name": "peft" if is_adapter else "transformers", "model_name": name, **the_licence}
    metadata |= {"license": OUR_LICENCE} if is_all_ours else {}
    card_data = ModelCardData(
        language="en",
        pipeline_tag=_pipeline_tag(is_captioner=is_captioner, embeds_text=text is not None),
        tags=[
            "audio",
            *(["audio-language", "contrastive"] if hasattr(config, "embedding_size") and text is not None else []),
            *(["audio-captioning"] if is_captioner else []),
            config.model_type,
            "hf_audiolang",
        ],
        base_model=hub_id(settings.get("model")),
        eval_results=evaluation_metadata(content.report),
        **metadata,
    )
    shown = _shown_settings(settings) | {"train_data": data_name}
    card = ModelCard.from_template(
        card_data,
        template_str=find_template(config.model_type).read_text(encoding="utf-8"),
        title=name,
        model_path=folder.as_posix() if not folder.is_absolute() else folder.name,
        adapter_of=public_start(str(settings["model"] or settings["model_config"])) if is_adapter else None,
        is_captioner=is_captioner,
        is_synthetic=is_synthetic,
        data_name=data_name,
        num_classes=32,
        num_parameters=f"{sum(value.numel() for value in model.parameters()) / 1e6:.2f} M",
        config=config,
        audio=getattr(config, "audio_config", config),
        text=text,
        embedding_size=getattr(config, "embedding_size", None),
        text_embedding_model=getattr(config, "text_embedding_model", None),
        has_projector_attention=_has_projector_attention(config),
        is_all_ours=is_all_ours,
        started_from=", ".join(f"{key}={public_start(start)}" for key, start in starts.items()),
        start_licences={f"{key}={public_start(starts[key])}": licence for key, licence in licences.items()},
        sampling_rate=getattr(processor, "feature_extractor", processor).sampling_rate,
        settings=settings,
        shown_settings=list(shown.items()),
        num_steps=content.num_steps,
        audio_hours=f"{content.audio_seconds / 3600:.1f}",
        losses=_losses(config),
        table=content.table,
        package_version=version("hf-audiolang"),
    )
    card.save(folder / "README.md")
    return card


def _shown_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings of the recipe that a reader of the card needs: those that have an effect in this run."""
    further = [key for key, (name, values) in SHOWN_WITH.items() if settings.get(name) in values]
    return {key: settings[key] for key in (*SHOWN_SETTINGS, *further) if settings.get(key) is not None}


def evaluation_metadata(report: Mapping[str, object]) -> list[EvalResult]:
    """The main values of a report in the form of the Hub's metadata."""
    data_of_task = {record["task"]: record["data"] for record in report["records"]}
    return [
        EvalResult(
            task_type=task_type,
            dataset_type=_dataset_type(data_of_task[task]),
            dataset_name=data_of_task[task],
            metric_type=metric_type,
            metric_name=metric,
            metric_value=round(float(report[metric]), 4),
        )
        for metric, (task_type, metric_type, task) in CARD_METRICS.items()
        if metric in report
    ]


def public_data_name(name: str) -> str:
    """What a data set is called in public: a Hub id as it is, a folder on this machine by its last part alone."""
    path = Path(name).expanduser()
    return path.resolve().name if path.exists() or path.is_absolute() or name.startswith(("~", ".")) else name


def _losses(config: PreTrainedConfig) -> str:
    """The loss terms with their weights, in words."""
    suffix = "_weight"
    weights = {name: value for name, value in config.to_dict().items() if name.endswith(suffix) and value}
    return ", ".join(f"{name.removesuffix(suffix)} x {weight}" for name, weight in weights.items())


def _pipeline_tag(*, is_captioner: bool, embeds_text: bool) -> str:
    """The Hub's word for what a model does; it has none for captioning."""
    if is_captioner:
        return "audio-text-to-text"
    return "zero-shot-audio-classification" if embeds_text else "feature-extraction"


def _dataset_type(name: str) -> str:
    """A data set's name as the Hub takes it in results: letters, digits, `_`, `-`, `.`, one `/` after an owner."""
    *owner, own_name = name.lower().split("/")[-2:]
    parts = [re.sub(r"[^a-z0-9_-]+", "-", part).strip("-") for part in owner]
    return "/".join([*filter(None, parts), re.sub(r"[^a-z0-9_.-]+", "-", own_name).strip("-") or "data"])


def public_start(name: str) -> str:
    """What weights to start from are called in public; an export, RUN/model, is called by the run."""
    path = Path(name).expanduser()
    return public_data_name(str(path.resolve().parent if path.is_dir() and path.name == "model" else name))


def hub_id(name: object) -> str | None:
    """The Hub id of weights to start from; None for a folder, and without any."""
    if name is None or Path(str(name)).expanduser().exists() or str(name).count("/") != 1:
        return None
    return str(name) if str(name)[0] not in "./~" else None


def start_licences(starts: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Licence metadata, other than ours, in the cards of the folders that a run started from: setting -> entries."""
    licences: dict[str, dict[str, str]] = {}
    for key, start in starts.items():
        metadata = _metadata_of(start)
        found = {name: str(metadata[name]) for name in LICENCE_KEYS if metadata.get(name)}
        if found and found != {"license": OUR_LICENCE}:
            licences[key] = found
    return licences


def states_our_licence(start: str) -> bool:
    """Whether the card of a folder that a run started from states our licence, as that of a run on scenes does."""
    return _metadata_of(start).get("license") == OUR_LICENCE


def _metadata_of(start: str) -> Mapping[str, object]:
    """The metadata of a folder's card; none if it cannot be read: the trained model is saved anyway."""
    readme = Path(start).expanduser() / "README.md"
    try:
        return (metadata_load(readme) if readme.is_file() else None) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _has_projector_attention(config: PreTrainedConfig) -> bool:
    projector = getattr(config, "projector_config", None)
    return getattr(projector, "projector_type", None) == "transformer"


def find_template(model_type: str) -> Path:
    """The card's template, inside the installed package or at the top of the source tree.

    An audio encoder alone has the template of its family.

    Raises:
        FileNotFoundError: if the family has none.
    """
    places = [Path(__file__).parent / "model_cards", Path(__file__).parents[2] / "model_cards"]
    model_type = model_type.removesuffix("_audio_model")
    for place in places:
        if (place / f"{model_type}.md").is_file():
            return place / f"{model_type}.md"
    raise FileNotFoundError(
        f"There is no card template {model_type}.md in {' or '.join(str(place) for place in places)}. Add one."
    )


__all__ = [
    "CARD_METRICS",
    "OUR_LICENCE",
    "SYNTHETIC",
    "CardContent",
    "evaluation_metadata",
    "find_template",
    "hub_id",
    "public_data_name",
    "public_start",
    "start_licences",
    "states_our_licence",
    "write_card",
]
