# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The task "zero-shot-sound-event-detection": which of your sounds is heard, from when to when."""

from collections.abc import Sequence

from .event_pipeline import EventPipeline


class ZeroShotSoundEventDetectionPipeline(EventPipeline):
    r"""Finds sounds, named in words, in recordings of any length.

    ```python
    detector = pipeline("zero-shot-sound-event-detection", model="runs/slap_scenes/model")
    detector("street.wav", candidate_labels=["dog", "siren"], threshold=0.25)
    # [{"label": "siren", "score": 0.41, "start": 2.08, "end": 5.44}, ...]
    ```

    Works with the systems of this package and, by clips around each moment, with transformers' `ClapModel`. A score is
    max(cosine similarity, 0), averaged over the event's frames. Which threshold is right depends on the model.
    """

    text_parameter = "candidate_labels"

    def __call__(
        self, audio: object, candidate_labels: Sequence[str] | None = None, **parameters: object
    ) -> list[dict[str, str | float]] | list[list[dict[str, str | float]]]:
        """Events of a recording, sorted by start; of a list of recordings a list for each.

        Args:
            audio: path, bytes, array at the feature extractor's rate, `{"array", "sampling_rate"}`, torchcodec
                decoder, or a list of these.
            candidate_labels: the sounds to look for, each once.
            **parameters: as in `EventPipeline`, and `batch_size`, recordings that are read together.

        Returns:
            `{"label", "score", "start", "end"}` for each event, times in seconds.

        Raises:
            AudioError: if a recording cannot be read.
            ValueError: if a label is blank, given twice or too long, or a parameter is out of its range.
        """
        if candidate_labels is not None:
            parameters["candidate_labels"] = candidate_labels
        return super().__call__(audio, **parameters)


__all__ = ["ZeroShotSoundEventDetectionPipeline"]
