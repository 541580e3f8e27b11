# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The task "audio-grounding": when is what a phrase says heard."""

from collections.abc import Mapping, Sequence

from .event_pipeline import EventPipeline


class AudioGroundingPipeline(EventPipeline):
    r"""Finds what a phrase describes in recordings of any length.

    ```python
    grounder = pipeline("audio-grounding", model="runs/slap_scenes/model")
    grounder("garden.wav", text="a dog barks twice")
    # [{"label": "a dog barks twice", "score": 0.37, "start": 1.6, "end": 2.4}, ...]
    ```

    Like "zero-shot-sound-event-detection", with each phrase taken word for word.
    """

    text_parameter = "text"
    label_text = str

    def __call__(
        self, audio: object, text: str | Sequence[str] | None = None, **parameters: object
    ) -> list[dict[str, str | float]] | list[list[dict[str, str | float]]]:
        """Stretches of a recording, sorted by start; of a list of recordings a list for each.

        Args:
            audio: path, bytes, array at the feature extractor's rate, `{"array", "sampling_rate"}`, torchcodec
                decoder, or a list of these.
            text: one phrase or several, each once.
            **parameters: as in `EventPipeline`, and `batch_size`, recordings that are read together.

        Returns:
            `{"label", "score", "start", "end"}` for each stretch; the label is the phrase, times are in seconds.

        Raises:
            AudioError: if a recording cannot be read.
            ValueError: if a phrase is blank, given twice or too long, or a parameter is out of its range.
        """
        if text is not None:
            parameters["text"] = text
        return super().__call__(audio, **parameters)

    def _texts(self, asked: Mapping[str, object]) -> Sequence[str]:
        texts = super()._texts(asked)
        return [texts] if isinstance(texts, str) else texts


__all__ = ["AudioGroundingPipeline"]
