# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Tasks of this package for `transformers.pipeline`; `auto.register_all` registers them."""

from .audio_grounding import AudioGroundingPipeline
from .zero_shot_sound_event_detection import ZeroShotSoundEventDetectionPipeline

TASKS = {
    "audio-grounding": AudioGroundingPipeline,
    "zero-shot-sound-event-detection": ZeroShotSoundEventDetectionPipeline,
}

__all__ = ["TASKS", "AudioGroundingPipeline", "ZeroShotSoundEventDetectionPipeline"]
