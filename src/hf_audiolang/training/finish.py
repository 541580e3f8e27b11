# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""After the last step: final values, the folder to share, figures, and sounds to try the model on.

model -> adapter/ (the adapters alone), if adapters were trained; they are then merged into the weights
      -> metrics.json, metrics.md
      -> model/ (weights without teacher, processor, card)
      -> captioner/ (the same encoder with its caption decoder), if captions were learnt
      -> figures/losses.png, figures/scene.png
      -> examples/*.wav (held-out clips)
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_audiolang.data.audio_io import AudioError, record_waveform
from hf_audiolang.data.records import Record, RecordDataset, RecordSubset
from hf_audiolang.evaluation import captioning
from hf_audiolang.evaluation.capabilities import AudioProcessor, feature_extractor_of, why_no_text
from hf_audiolang.evaluation.embed import AudioOptions
from hf_audiolang.evaluation.figures import plot_losses, plot_scene, plot_test_scene
from hf_audiolang.evaluation.metrics import MissingResourceError
from hf_audiolang.evaluation.report import (
    evaluate_own_data,
    evaluate_sound_scenes,
    extended,
    markdown_table,
    write_report,
)
from hf_audiolang.evaluation.report_scenes import scene_captions, scene_probes
from hf_audiolang.model_card import CardContent, public_data_name, write_card

from .adapters import merge, save_adapter
from .build import build_scenes, scene_options
from .checkpoint import Progress
from .config import RunConfig
from .devices import num_available_cores
from .log import LOG_FILE

logger = logging.get_logger(__name__)

NUM_EXAMPLES = 8


def evaluate_run(
    config: RunConfig,
    model: PreTrainedModel,
    processor: AudioProcessor,
    held_out: RecordDataset | None,
    captioner: PreTrainedModel | None = None,
) -> tuple[dict[str, object], list[Record]]:
    """(final report, a few readable held-out clips): all scene tasks for scenes, those that own data is annotated for.

    A model that embeds no text is measured by the tasks that need none; a captioner's captions are compared with
    those of the clips, of own data with those of the first `test_size`. The report is written to metrics.json and
    metrics.md in the run's folder.
    """
    data, sizes = config.data, config.eval
    if config.tests_on_scenes:
        report = evaluate_sound_scenes(
            model,
            processor,
            test_size=sizes.test_size,
            composition_size=sizes.composition_size,
            zero_shot_size=sizes.zero_shot_size,
            scene_options=scene_options(data),
            num_workers=num_available_cores(),
        )
        report = _further_scene_tasks(report, config, model, processor, captioner)
        held_out = build_scenes(data, "test", NUM_EXAMPLES, feature_extractor_of(processor).sampling_rate)
    else:
        report = _own_data_report(config, model, processor, held_out, captioner)
    write_report(report, config.train.output_dir)
    return report, readable_clips(held_out, NUM_EXAMPLES, feature_extractor_of(processor).sampling_rate)


def _own_data_report(
    config: RunConfig,
    model: PreTrainedModel,
    processor: AudioProcessor,
    held_out: RecordDataset,
    captioner: PreTrainedModel | None,
) -> dict[str, object]:
    """All that the held-out clips are annotated for, and captions of the first `test_size`: beam search is slow."""
    data = config.data
    name = public_data_name(data.eval_data or data.train_data)
    name = name if data.eval_data else f"held-out part of {name}"
    options = AudioOptions(on_bad_example=data.on_bad_example)
    report = evaluate_own_data(model, processor, held_out, data=name, options=options)
    if captioner is None:
        return report
    first_ones = range(min(config.eval.test_size, len(held_out)))
    captioned = RecordSubset(held_out, first_ones, skipped=getattr(held_out, "skipped", ()))
    try:
        found = captioning.evaluate(captioner, processor, captioned, options=options)
    except ValueError as error:  # clips that captions cannot be scored on must not end a finished run
        return {**report, "left_out": {**report["left_out"], "captioning": str(error)}}
    return extended(report, [found.labelled(name)])


def _further_scene_tasks(
    report: dict[str, object],
    config: RunConfig,
    model: PreTrainedModel,
    processor: AudioProcessor,
    captioner: PreTrainedModel | None,
) -> dict[str, object]:
    """The report with probes, if the run asks for them, and with captions, if there is a captioner."""
    sizes, scenes = config.eval, {"scene_options": scene_options(config.data), "num_workers": num_available_cores()}
    if sizes.probe_poolings:
        probes = scene_probes(model, processor, test_size=sizes.test_size, single_size=sizes.zero_shot_size, **scenes)
        report = extended(report, probes)
    if captioner is not None:
        report = extended(report, *scene_captions(captioner, processor, test_size=sizes.test_size, **scenes))
    return report


def readable_clips(dataset: RecordDataset, num_clips: int, sampling_rate: int) -> list[Record]:
    """The first `num_clips` records whose sound can be used; the others are left out with a warning."""
    clips: list[Record] = []
    for index in range(len(dataset)):
        if len(clips) == num_clips:
            break
        try:
            record_waveform(dataset[index], sampling_rate)
        except (AudioError, FileNotFoundError) as error:
            logger.warning(f"No example of {dataset[index].id}: {error}")
        else:
            clips.append(dataset[index])
    return clips


def export_adapter(config: RunConfig, model: PreTrainedModel, processor: AudioProcessor) -> None:
    """Writes `adapter/` of a run with adapters, and merges them into the model, which is then like any other."""
    if config.lora.lora:
        base = config.model.model or config.model.model_config  # a smoke run has no trained one
        save_adapter(model, Path(config.train.output_dir) / "adapter", base, processor)
        merge(model)


def export_model(config: RunConfig, model: PreTrainedModel, processor: AudioProcessor) -> Path:
    """Writes the folder to share, `model/`: the system without teacher and heads, and the processor."""
    folder = Path(config.train.output_dir) / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def export_captioner(config: RunConfig, model: PreTrainedModel, processor: AudioProcessor) -> PreTrainedModel | None:
    """Writes `captioner/`, from which captions are written, and returns it; None for a run without a caption loss."""
    captioner = getattr(model, "exported_captioner", None)
    if captioner is None:
        return None
    folder = Path(config.train.output_dir) / "captioner"
    captioner.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return captioner


def describe_model(
    config: RunConfig,
    model: PreTrainedModel,
    processor: AudioProcessor,
    report: dict[str, object],
    progress: Progress,
    captioner: PreTrainedModel | None = None,
) -> None:
    """Adds the card, README.md, to the exported folders."""
    table = markdown_table(report)
    content = CardContent(config.to_dict(), report, table, progress.step, progress.audio_seconds)
    folder = Path(config.train.output_dir)
    write_card(folder / "model", model, processor, content)
    if config.lora.lora:
        write_card(folder / "adapter", model, processor, content)
    if captioner is not None:
        write_card(folder / "captioner", captioner, processor, content)


def write_figures(
    config: RunConfig, model: PreTrainedModel, processor: AudioProcessor, clips: Sequence[Record]
) -> list[Path]:
    """Loss curves and, if the model embeds text, one clip with the frames' similarity to texts.

    Without matplotlib a hint instead.
    """
    output_dir = Path(config.train.output_dir)
    folder = output_dir / "figures"
    try:
        losses = plot_losses(output_dir / LOG_FILE, folder / "losses.png")
        if why_no_text(model, processor) is not None:
            return [losses]
        if config.tests_on_scenes:
            return [losses, plot_test_scene(model, processor, folder / "scene.png", scene_options(config.data))]
        if not clips:
            return [losses]
        phrases = None if clips[0].phrases else list(clips[0].captions)[:3]
        note = clips[0].id
        return [losses, plot_scene(model, processor, clips[0], folder / "scene.png", phrases=phrases, note=note)]
    except MissingResourceError as error:
        logger.warning(f"No figures: {error}")
        return []


def write_examples(clips: Sequence[Record], output_dir: Path, sampling_rate: int = 16000) -> list[Path]:
    """Held-out clips as 16 bit wave files in `examples/`, to try the exported model on."""
    folder = output_dir / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for record in clips:
        waveform = record_waveform(record, sampling_rate)  # (S,)
        name = re.sub(r"\W+", "_", str(Path(record.id).with_suffix(""))).strip("_")
        path = folder / f"{name}.wav"
        soundfile.write(path, np.clip(waveform, -1, 1), sampling_rate, subtype="PCM_16")
        written.append(path)
    return written


def labels_of(clips: Sequence[Record], num_labels: int = 3) -> list[str]:
    """Words for what is heard in each of the first clips, without commas: the first phrase, else the first caption."""
    texts = [clip.phrases[0]["phrase"] if clip.phrases else (*clip.captions, "")[0] for clip in clips]
    texts = [text for text in texts if text]
    return list(dict.fromkeys(" ".join(text.replace(",", " ").split()) for text in texts))[:num_labels]


def write_bad_examples(output_dir: Path, messages: Sequence[str]) -> None:
    """Lists the examples that were left out in `bad_examples.txt`, one message a line; no file without any."""
    if messages:
        logger.warning(f"{len(messages)} examples could not be used; they are listed in bad_examples.txt.")
        (output_dir / "bad_examples.txt").write_text("\n".join(messages) + "\n", encoding="utf-8")


def next_commands(
    output_dir: Path,
    examples: Sequence[Path],
    labels: Sequence[str],
    embeds_text: bool = True,
    writes_captions: bool = False,
) -> list[str]:
    """Shell commands to try the exported model with, on the examples of the run and words that fit them.

    A model that embeds no text is not asked with words; one that writes captions is asked for some.

    They run as printed: programs of an environment that is not on the PATH come with their folder.
    """
    programs, labels = _program_folder(), list(labels) or ["a sound"]
    model, folder = shlex.quote(str(output_dir / "model")), shlex.quote(str(output_dir / "examples"))
    sound = shlex.quote(str(examples[0])) if examples else "SOUND.wav"
    evaluate = f"{programs}python training_scripts/evaluate.py {model}"
    captioner = shlex.quote(str(output_dir / "captioner"))
    captions = [f"{programs}hf-audiolang caption {folder} --model {captioner}"] if writes_captions else []
    if not embeds_text:
        embed = f"{programs}hf-audiolang embed {folder} --output sounds.safetensors --model {model}"
        return [*captions, embed, evaluate]
    return [
        *captions,
        f"{programs}hf-audiolang classify {sound} --labels {shlex.quote(', '.join(labels))} --model {model}",
        f"{programs}hf-audiolang detect {sound} --labels {shlex.quote(', '.join(labels))} --model {model}",
        f"{programs}hf-audiolang search {shlex.quote(labels[0])} {folder} --model {model}",
        evaluate,
    ]


def _program_folder() -> str:
    """The folder of this environment's programs, as a shell needs it before their names; empty if it finds them."""
    folder = Path(sys.executable).parent
    found = shutil.which("hf-audiolang")
    if found is not None and Path(found).parent == folder:
        return ""
    is_below = folder.is_relative_to(Path.cwd())
    return shlex.quote(f"{folder.relative_to(Path.cwd()) if is_below else folder}{os.sep}")


__all__ = [
    "NUM_EXAMPLES",
    "describe_model",
    "evaluate_run",
    "export_adapter",
    "export_captioner",
    "export_model",
    "labels_of",
    "next_commands",
    "readable_clips",
    "write_bad_examples",
    "write_examples",
    "write_figures",
]
