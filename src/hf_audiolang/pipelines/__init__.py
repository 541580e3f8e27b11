# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Tasks of this package for `transformers.pipeline`, each with the auto class that loads its models.

`auto.register_all` registers them.
"""

from transformers import AutoModel, AutoModelForSpeechSeq2Seq

from .audio_captioning import AudioCaptioningPipeline
from .audio_grounding import AudioGroundingPipeline
from .zero_shot_sound_event_detection import ZeroShotSoundEventDetectionPipeline

TASKS = {
    "audio-captioning": (AudioCaptioningPipeline, AutoModelForSpeechSeq2Seq),
    "audio-grounding": (AudioGroundingPipeline, AutoModel),
    "zero-shot-sound-event-detection": (ZeroShotSoundEventDetectionPipeline, AutoModel),
}

__all__ = ["TASKS", "AudioCaptioningPipeline", "AudioGroundingPipeline", "ZeroShotSoundEventDetectionPipeline"]
