# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Sounds and captions: one record form, the embedded data set, your own data, batches."""

from .audio_io import AudioError, audio_info, load_audio, record_waveform
from .captions import check_dataset, load_captions, split_held_out
from .collate import BadExampleError, Collator
from .records import Record, RecordSubset, RecordView, TooManyBadExamples
from .registry import build_dataset, register
from .sampling import EpochSampler, build_train_loader

__all__ = [
    "AudioError",
    "BadExampleError",
    "Collator",
    "EpochSampler",
    "Record",
    "RecordSubset",
    "RecordView",
    "TooManyBadExamples",
    "audio_info",
    "build_dataset",
    "build_train_loader",
    "check_dataset",
    "load_audio",
    "load_captions",
    "record_waveform",
    "register",
    "split_held_out",
]
