# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Labelled records to one batch for a classification head, with the augmentation of a recipe.

(Record, draw_seed) -> LabelCollator.draw -> LabelledExample(waveform, target)
    -> LabelCollator.collate: roll, mixup -> features -> SpecAugment, random resize crop -> batch dict

Everything that is drawn depends on the seed, the example's draw seed and its batch alone: workers do not matter, and
an interrupted run goes on with the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .audio_io import AudioError, record_waveform
from .augment import cyclic_roll, mixup_waveforms
from .augment_features import random_resize_crop, spec_augment_bands
from .collate import BadExampleError, duration_of
from .records import Record

TargetKind = Literal["single", "multi", "frames"]


@dataclass(frozen=True)
class Augmentation:
    """What is done to training clips; everything is off by default.

    Attributes:
        mixup_alpha: of Beta(alpha, alpha), from which each clip's share is drawn; 0: off (M2D-CLAP Table IV).
        mixup_share: share of the clips that are mixed (AudioMAE: 0.5).
        roll: waveforms lose their mean, are rolled by a random offset and scaled by Beta(10, 10) + 0.5 (AudioMAE).
        spec_augment_mel: widest masked band of mel bins; 0: off.
        spec_augment_frames: widest masked stretch of frames; 0: off.
        spec_augment_per_clip: these are drawn for each clip (AudioMAE), not once for the batch (EVAR).
        random_resize_crop: a random part of the log-mel is stretched to the whole (M2D-CLAP Table IV).
    """

    mixup_alpha: float = 0.0
    mixup_share: float = 1.0
    roll: bool = False
    spec_augment_mel: int = 0
    spec_augment_frames: int = 0
    spec_augment_per_clip: bool = False
    random_resize_crop: bool = False


@dataclass(frozen=True)
class LabelledExample:
    """One drawn item of a batch.

    Attributes:
        waveform: (S,) float32 mono at the extractor's sampling rate.
        target: (C,) float32, 1 at the clip's classes.
        events: (class, onset, offset) in seconds from the start of the waveform, for frame labels.
        audio_seconds: real audio in it.
        draw_seed: what it was drawn with.
    """

    waveform: np.ndarray
    target: np.ndarray
    events: tuple[tuple[int, float, float], ...]
    audio_seconds: float
    draw_seed: int


class LabelCollator:
    """Makes a batch of labelled records; picklable, and a function of its items alone.

    A clip longer than `max_seconds` gives a random crop of that length. Shorter ones stay as they are, or are followed
    by silence up to it (`pads`, EVAR).
    """

    def __init__(
        self,
        feature_extractor: Callable,
        classes: Sequence[str],
        kind: TargetKind,
        *,
        max_seconds: float,
        pads: bool = False,
        augmentation: Augmentation | None = None,
        on_bad_example: str = "skip",
        seed: int = 0,
    ) -> None:
        """See the class.

        Args:
            feature_extractor: names the sampling rate.
            classes: C names in the order of the logits.
            kind: one class per clip, any number of classes, or classes of every frame, from the records' events.
            on_bad_example: what `TrainDataset` does with a clip that cannot be used: "error" raises, "skip" replaces
                it and says so in the batch.

        Raises:
            ValueError: for augmentation of frame labels that moves sounds in time.
        """
        augmentation = augmentation or Augmentation()
        moving = [name for name in ("mixup_alpha", "roll", "random_resize_crop") if getattr(augmentation, name)]
        if kind == "frames" and moving:
            raise ValueError(
                f"Labels of frames do not follow {moving}, got {augmentation}. Leave them off, or train clip labels."
            )
        self.feature_extractor = feature_extractor
        self.class_index = {name: index for index, name in enumerate(classes)}
        self.kind = kind
        self.max_seconds = max_seconds
        self.pads = pads
        self.augmentation = augmentation
        self.on_bad_example = on_bad_example
        self.seed = seed

    @property
    def sampling_rate(self) -> int:
        """Hz of the waveforms, from the feature extractor."""
        return self.feature_extractor.sampling_rate

    def draw(self, record: Record, draw_seed: int) -> LabelledExample:
        """One crop of a record, and its targets.

        Raises:
            BadExampleError: naming the record, for unusable audio.
        """
        rng = np.random.default_rng((self.seed, draw_seed))
        try:
            duration = duration_of(record)
            is_long = duration > self.max_seconds
            start = float(rng.uniform(0.0, duration - self.max_seconds)) if is_long else 0.0
            waveform = record_waveform(record, self.sampling_rate, start, self.max_seconds if is_long else None)
        except AudioError as error:
            named = str(error).startswith(f"`{record.id}`")
            raise BadExampleError(str(error) if named else f"`{record.id}`: {error}") from error
        audio_seconds = len(waveform) / self.sampling_rate
        if self.augmentation.roll:
            waveform = cyclic_roll(waveform, rng)  # the sound alone, before silence
        if self.pads:
            missing = round(self.max_seconds * self.sampling_rate) - len(waveform)
            waveform = np.pad(waveform, (0, max(missing, 0)))
        target = np.zeros(len(self.class_index), dtype=np.float32)
        target[[self.class_index[label] for label in record.labels]] = 1
        return LabelledExample(waveform, target, self._events(record, start), audio_seconds, draw_seed)

    def collate(self, examples: Sequence[LabelledExample], skipped: Sequence[str] = ()) -> dict:
        """The batch of drawn examples.

        Returns:
            `input_features` (B, T, F), `input_features_mask` (B, T); `labels`: (B,) class ids, (B, C) shares of
            classes (several labels, or after mixup), or (B, T, C) of the input frames; and `audio_seconds` (real
            seconds, a number), `skipped` (messages).
        """
        augmentation, rng = self.augmentation, np.random.default_rng((self.seed, *(e.draw_seed for e in examples)))
        waveforms = [example.waveform for example in examples]
        targets = np.stack([example.target for example in examples])  # (B, C)
        if augmentation.mixup_alpha > 0:
            waveforms, targets = mixup_waveforms(
                waveforms, targets, augmentation.mixup_alpha, rng, share=augmentation.mixup_share
            )
        inputs = self.feature_extractor(waveforms, sampling_rate=self.sampling_rate, padding=True, return_tensors="pt")
        batch = {**inputs, "input_features": self._augmented(inputs, rng)}
        batch["labels"] = self._labels(examples, targets, batch["input_features"].shape[1])
        batch["audio_seconds"] = float(sum(example.audio_seconds for example in examples))
        batch["skipped"] = list(skipped)
        return batch

    def _augmented(self, inputs: Mapping[str, Tensor], rng: np.random.Generator) -> Tensor:
        augmentation, features = self.augmentation, inputs["input_features"]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        if augmentation.spec_augment_mel or augmentation.spec_augment_frames:
            widths = (augmentation.spec_augment_mel, augmentation.spec_augment_frames)
            features = spec_augment_bands(features, *widths, generator, per_clip=augmentation.spec_augment_per_clip)
        if augmentation.random_resize_crop:
            features = random_resize_crop(features, generator, inputs["input_features_mask"])
        return features

    def _labels(self, examples: Sequence[LabelledExample], targets: np.ndarray, num_frames: int) -> Tensor:
        if self.kind == "frames":
            rate = self.feature_extractor.sampling_rate / self.feature_extractor.hop_length
            return torch.from_numpy(np.stack([self._frame_target(e.events, num_frames, rate) for e in examples]))
        if self.kind == "single" and self.augmentation.mixup_alpha == 0:
            return torch.from_numpy(targets.argmax(axis=1))
        return torch.from_numpy(targets.astype(np.float32))

    def _frame_target(self, events: Sequence[tuple[int, float, float]], num_frames: int, rate_hz: float) -> np.ndarray:
        """(T, C) float32: 1 where the centre of the input frame lies in [onset, offset) of an event of the class."""
        centres = (np.arange(num_frames) + 0.5) / rate_hz
        target = np.zeros((num_frames, len(self.class_index)), dtype=np.float32)
        for index, onset, offset in events:
            target[(centres >= onset) & (centres < offset), index] = 1
        return target

    def _events(self, record: Record, start: float) -> tuple[tuple[int, float, float], ...]:
        if self.kind != "frames":
            return ()
        return tuple(
            (self.class_index[event["label"]], event["onset"] - start, event["offset"] - start)
            for event in record.events
        )


__all__ = ["Augmentation", "LabelCollator", "LabelledExample", "TargetKind"]
