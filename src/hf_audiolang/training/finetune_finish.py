# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""After the last step of fine-tuning: the folder to share, final values, figures.

classifier -> adapter/ (adapters and head alone), if adapters were trained; they are then merged into the weights
           -> model/ (encoder, head, feature extractor, card)
           -> metrics.json, metrics.md, figures/losses.png
"""

from pathlib import Path

from transformers import PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_audiolang.evaluation.figures import plot_losses
from hf_audiolang.evaluation.metrics import MissingResourceError
from hf_audiolang.evaluation.report import markdown_table
from hf_audiolang.model_card import CardContent
from hf_audiolang.model_card_head import write_head_card

from .adapters import merge, save_adapter
from .checkpoint import Progress
from .finetune_config import FinetuneConfig
from .log import LOG_FILE

logger = logging.get_logger(__name__)


def export_classifier(
    config: FinetuneConfig, model: PreTrainedModel, extractor: FeatureExtractionMixin
) -> PreTrainedModel:
    """Writes `model/` and, of a run with adapters, `adapter/`; returns the model, adapters merged."""
    output_dir = Path(config.train.output_dir)
    if config.lora.lora:
        folder = save_adapter(model, output_dir / "adapter", config.model.model)
        extractor.save_pretrained(folder)
        model = merge(model)
    model.save_pretrained(output_dir / "model")
    extractor.save_pretrained(output_dir / "model")
    return model.eval()


def describe_classifier(
    config: FinetuneConfig,
    model: PreTrainedModel,
    extractor: FeatureExtractionMixin,
    report: dict[str, object],
    progress: Progress,
) -> None:
    """Adds the card, README.md, to the exported folders."""
    table = markdown_table(report)
    content = CardContent(config.to_dict(), report, table, progress.step, progress.audio_seconds)
    write_head_card(Path(config.train.output_dir) / "model", model, extractor, content)
    if config.lora.lora:
        write_head_card(Path(config.train.output_dir) / "adapter", model, extractor, content, is_adapter=True)


def write_losses(output_dir: Path) -> None:
    """The loss against the steps as a picture; without matplotlib a hint instead."""
    try:
        plot_losses(output_dir / LOG_FILE, output_dir / "figures" / "losses.png")
    except MissingResourceError as error:
        logger.warning(f"No figures: {error}")


__all__ = ["describe_classifier", "export_classifier", "write_losses"]
