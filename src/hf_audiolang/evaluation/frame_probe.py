# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Frame probe of a frozen encoder, as CaptionStew (4.3) and X-ARES (DESED) have it: what is heard in each frame?

    clip -> frames (T', D') -> standardise by the training frames -> Linear -> logits (T', C)
        -> frame mAP; median filter -> PSDS1, PSDS2, F1 of segments of a second, F1 of events

Binary cross-entropy against 1 where the centre of a frame lies in [onset, offset) of an event of the class.
Standardising is our choice, as in `probe`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import nn

from hf_audiolang.data.labels_records import LabelledData

from . import detection
from .capabilities import AudioProcessor
from .feature_cache import FrozenFeatures
from .frame_classification import frame_precision
from .frame_scores import FrameScoreOptions, ScoredRecords
from .frame_times import edges_of_frames
from .frames import frame_labels
from .frozen_features import encoder_of, timed_frames
from .metrics.detections import FrameScores, Smoothing
from .probe_data import one_thread, split_rows, standardised
from .probe_protocol import ProbeScores, ProbeSettings
from .probe_training import ProbeClips, ProbeRecipe, predict, train_sweep

# X-ARES: Adam, 3e-3 on a cosine to a tenth of it, 10 epochs; frames of a step: our choice
RECIPE = ProbeRecipe(learning_rates=(3e-3,), num_epochs=10, batch_clips=512, lr_end_ratio=0.1)
MEDIAN_FRAMES = 3  # of the filter before events are counted; MGA-CLAP


def score_fold(
    model: nn.Module, processor: AudioProcessor, data: LabelledData, settings: ProbeSettings
) -> ProbeScores:
    """`frame_probe/mAP`, `PSDS1`, `PSDS2`, both also with `_no_spread`, `segment_F1` and `event_F1`, for each seed.

    F1 is that of the best threshold of each class.

    Args:
        model: a system or an audio encoder; weights and modes stay as they are.
        processor: holds the model's feature extractor, or is it.
        data: clips with `events`; without validation clips a tenth of the training clips of each class chooses the
            epoch, another one for each seed.
        settings: seeds, learning rates; `clip_seconds` does not matter, frames are heard where they are.

    Raises:
        TooManyBadExamples: if more clips are bad than `settings.reading` allows.
        ValueError: if training or test clips or their events are missing, or an event is faulty or of no class.
    """
    train, test = data.train_and_test()
    parts = {"train": train, "dev": data.validation, "test": test}
    parts = {name: records for name, records in parts.items() if records is not None}
    for records in parts.values():
        detection.check_events(records, data.classes)  # before anything is encoded
    windows = FrameScoreOptions(reading=settings.reading)
    sets = {
        name: timed_frames(model, processor, records, windows, settings.cache_dir) for name, records in parts.items()
    }
    recipe = replace(RECIPE, learning_rates=settings.learning_rates or RECIPE.learning_rates)
    offset = float(getattr(encoder_of(model).config, "frame_offset_seconds", 0.0))
    found = frame_probe_scores(
        sets, data.classes, seeds=settings.seeds, offset_seconds=offset, recipe=recipe,
        device=next(model.parameters()).device,
    )  # fmt: skip
    skipped = [message for features in sets.values() for message in features.skipped]
    return replace(found, skipped=skipped, details={**found.details, "recipe": asdict(recipe)})


@one_thread()
def frame_probe_scores(
    sets: dict[str, FrozenFeatures],
    classes: Sequence[str],
    *,
    seeds: Sequence[int],
    offset_seconds: float = 0.0,
    recipe: ProbeRecipe = RECIPE,
    device: torch.device | str = "cpu",
) -> ProbeScores:
    """Scores of frame probes on frames that are there already; on a CPU one thread works.

    Args:
        sets: frames with their rates of "train", "test" and, if given, "dev".
        classes: class names in the order of the label ids.
        seeds: one layer is trained for each.
        offset_seconds: where frame 0 of a clip begins.
        recipe: how they are trained; a frame is a clip of it.
        device: where.

    Raises:
        ValueError: if no event covers the centre of a training, dev or test frame.
    """
    inputs = standardised({name: features.rows for name, features in sets.items()})
    targets = {name: _targets(features, classes, offset_seconds) for name, features in sets.items()}
    known = [name for name in ("train", "dev") if name in sets]
    clips = ProbeClips.of_rows([inputs[name] for name in known], [targets[name] for name in known], device)
    asked = ProbeClips.of_rows([inputs["test"]], [targets["test"]], device)
    all_rows = torch.arange(len(asked.frames), device=device)[None]
    of_seeds, epochs, dev_scores = [], [], []
    for seed, train_rows, dev_rows in _frame_rows(sets, seeds):
        sweep = train_sweep(
            "mean", clips, train_rows[None].to(device), dev_rows[None].to(device), num_classes=len(classes),
            seeds=[seed], recipe=recipe,
        )  # fmt: skip
        logits = predict("mean", sweep.best_weights(), asked, all_rows, recipe.batch_clips)[0, 0].cpu().numpy()
        of_seeds.append(_values(_scored(sets["test"], logits, offset_seconds), classes, offset_seconds, MEDIAN_FRAMES))
        place = (sweep.best_rates()[0], 0)
        epochs.append(int(sweep.epochs[place]))
        dev_scores.append(float(sweep.dev_scores[place]))
    test = sets["test"]
    chance = _values(_scored(test, np.ones_like(logits), offset_seconds), classes, offset_seconds, median_frames=1)
    details = {
        "epochs": epochs, "dev_scores": dev_scores, "median_frames": MEDIAN_FRAMES,
        "frame_rate_hz": float(test.rates_hz.mean()), "num_frames": len(test.rows),
        "num_train_frames": len(sets["train"].rows), "num_features": test.rows.shape[1],
        "num_classes_scored": int(targets["test"].any(axis=0).sum()),
    }  # fmt: skip
    values = {name: [of_seed[name] for of_seed in of_seeds] for name in of_seeds[0]}
    return ProbeScores(values, chance, len(test.records), [], details)


def _targets(features: FrozenFeatures, classes: Sequence[str], offset_seconds: float) -> np.ndarray:
    """(M, C) float32: 1 where the class is heard at the centre of the frame."""
    rows = [
        frame_labels(record, classes, int(length), float(rate), offset_seconds)
        for record, length, rate in zip(features.records, features.lengths, features.rates_hz, strict=True)
    ]
    return np.concatenate(rows).astype(np.float32)


def _frame_rows(
    sets: dict[str, FrozenFeatures], seeds: Sequence[int]
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """(seed, numbers of its training frames, of its dev frames); clips are split, never frames of one clip."""
    train, dev = sets["train"], sets.get("dev")
    heard = [sorted({event["label"] for event in record.events}) for record in train.records]
    splits = split_rows(heard, None if dev is None else len(dev.records), seeds)
    lengths = np.concatenate([train.lengths] + ([] if dev is None else [dev.lengths]))
    clip_of_frame = torch.repeat_interleave(torch.from_numpy(lengths))
    for seed, train_clips, dev_clips in zip(seeds, *splits, strict=True):
        yield (
            seed,
            torch.isin(clip_of_frame, train_clips).nonzero()[:, 0],
            torch.isin(clip_of_frame, dev_clips).nonzero()[:, 0],
        )


def _scored(features: FrozenFeatures, logits: np.ndarray, offset_seconds: float) -> ScoredRecords:
    """Logits (M, C) of all frames as scores of the clips, with the frames' edges."""
    scores = []
    for record, start, length, rate in zip(
        features.records, features.starts, features.lengths, features.rates_hz, strict=True
    ):
        edges = edges_of_frames(int(length), float(rate), offset_seconds, record.duration)
        scores.append(FrameScores(logits[start : start + length], np.append(edges[:-1], record.duration)))
    return ScoredRecords(scores, features.records, list(features.rates_hz), features.skipped)


def _values(
    scored: ScoredRecords, classes: Sequence[str], offset_seconds: float, median_frames: int
) -> dict[str, float]:
    precision = frame_precision(scored, classes, offset_seconds)["mAP"]
    found = detection.score(scored.frame_scores, scored.records, classes, Smoothing(median_frames))
    named = {name.removeprefix("detection/"): value for name, value in found.items()}
    return {f"frame_probe/{name}": value for name, value in {"mAP": precision, **named}.items()}


__all__ = ["RECIPE", "frame_probe_scores", "score_fold"]
