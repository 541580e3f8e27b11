# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sounds, captions and labels: one record form, the embedded data set, your own data, batches."""

from .audio_io import AudioError, audio_info, load_audio, record_waveform
from .captions import load_captions, split_held_out
from .collate import BadExampleError, Collator
from .label_plans import LabelPlan, load_plan
from .labels import LabelledData, load_labelled
from .records import Record, RecordSubset, RecordView, TooManyBadExamples
from .registry import build_dataset, register
from .sampling import EpochSampler, build_train_loader


def __getattr__(name: str) -> object:
    """`SoundScenes`, imported when asked for: its module is also a command and must not be imported before it runs."""
    if name == "SoundScenes":
        from .sound_scenes import SoundScenes

        return SoundScenes
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AudioError",
    "BadExampleError",
    "Collator",
    "EpochSampler",
    "LabelPlan",
    "LabelledData",
    "Record",
    "RecordSubset",
    "RecordView",
    "SoundScenes",
    "TooManyBadExamples",
    "audio_info",
    "build_dataset",
    "build_train_loader",
    "load_audio",
    "load_captions",
    "load_labelled",
    "load_plan",
    "record_waveform",
    "register",
    "split_held_out",
]
