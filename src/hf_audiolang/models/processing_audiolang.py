# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Audio and text to model inputs: a feature extractor and any tokenizer behind one call.

audio -> feature extractor -> input_features (B, T, F), input_features_mask (B, T)
text  -> tokenizer         -> input_ids (B, L), attention_mask (B, L)
"""

from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.processing_utils import AudioKwargs, ProcessingKwargs, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase


class AudioLangAudioKwargs(AudioKwargs, total=False):
    """Arguments of the audio side: those of transformers and the limit in seconds."""

    max_seconds: float | None


class AudioLangProcessorKwargs(ProcessingKwargs, total=False):
    """Arguments of `AudioLangProcessor`, by modality."""

    audio_kwargs: AudioLangAudioKwargs


class AudioLangProcessor(ProcessorMixin):
    r"""Model inputs from text, audio or both.

    ```python
    processor = AudioLangProcessor(LogMelFeatureExtractor.from_preset("slap"), tokenizer)
    inputs = processor(text=["a dog barks"], audio=[waveform], sampling_rate=16000, padding=True, return_tensors="pt")
    ```

    Flat arguments go where they mean something: `truncation`, `max_length`, `pad_to_multiple_of` and
    `padding="max_length"` count text tokens and reach the tokenizer alone; `sampling_rate`, `max_seconds` and
    `device` reach the feature extractor alone; `padding=True` or False and `return_tensors` reach both.
    `audio_kwargs={...}` and `text_kwargs={...}` say it explicitly. Audio is passed on as it is: all kinds of clips
    that `LogMelFeatureExtractor` accepts work here.

    Args:
        feature_extractor: usually a `LogMelFeatureExtractor`.
        tokenizer: any transformers tokenizer.
    """

    valid_processor_kwargs = AudioLangProcessorKwargs

    def __init__(self, feature_extractor: FeatureExtractionMixin, tokenizer: PreTrainedTokenizerBase):
        super().__init__(feature_extractor, tokenizer)

    def prepare_inputs_layout(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """The inputs as they are, text tuples as lists: the feature extractor takes every kind of audio itself."""
        return images, list(text) if isinstance(text, tuple) else text, videos, audio

    def _merge_kwargs(self, *args, **kwargs) -> dict[str, dict]:
        """Arguments by modality; those that count text tokens, given flat or stored in the tokenizer, spare audio."""
        merged = super()._merge_kwargs(*args, **kwargs)
        explicit = kwargs.get("audio_kwargs", {})
        for name in ("truncation", "max_length", "pad_to_multiple_of", "return_attention_mask", "padding"):
            is_for_text = name != "padding" or not isinstance(merged["audio_kwargs"].get(name), bool)
            if name not in explicit and is_for_text:
                merged["audio_kwargs"].pop(name, None)
        return merged


__all__ = ["AudioLangAudioKwargs", "AudioLangProcessor", "AudioLangProcessorKwargs"]
