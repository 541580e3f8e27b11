# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What all pipelines over recordings share: which parts they load, and the forms in which they take a recording.

A recording is a path, the bytes of a file, {"array", "sampling_rate"}, {"bytes", "path"}, a torchcodec decoder, or an
array at the feature extractor's rate.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoProcessor, FeatureExtractionMixin, Pipeline, PreTrainedTokenizerBase

from hf_audiolang.data.records import Record

LOADING_NAMES = ("local_files_only",)  # `transformers.pipeline` hands it on after it has loaded the model


@dataclass(frozen=True)
class PipelineProcessor:
    """The two parts that make model inputs of sounds and texts, as a processor has them; None if not given."""

    feature_extractor: FeatureExtractionMixin | None
    tokenizer: PreTrainedTokenizerBase | None


class RecordingPipeline(Pipeline):
    """Turns each recording into a `Record`; a subclass does the rest and says in `check_parts` what it needs."""

    _load_processor = False  # a processor given is taken, otherwise its parts are loaded: see `__init__`
    _load_feature_extractor = None
    _load_tokenizer = None
    _load_image_processor = False
    _load_video_processor = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if isinstance(self.processor, str):
            self.processor = AutoProcessor.from_pretrained(self.processor)
        if self.processor is not None:  # said by the caller, so it counts more than what lies beside the model
            self.feature_extractor, self.tokenizer = self.processor.feature_extractor, self.processor.tokenizer
        self._parts = PipelineProcessor(self.feature_extractor, self.tokenizer)
        if self.feature_extractor is None:
            raise ValueError(
                f"`feature_extractor` is missing beside a {type(self.model).__name__}. Pass `feature_extractor` and "
                "`tokenizer`, or `processor`, or give the model as a folder that has them."
            )
        self.check_parts()

    def check_parts(self) -> None:
        """Raises ValueError, with what to do instead, if the model or its parts cannot do the task."""
        raise NotImplementedError

    def save_pretrained(self, save_directory: str | Path, **kwargs: object) -> None:
        """Writes the model and both parts; no code is copied, the pipeline is found where this package is imported."""
        for part in (self.model, self.tokenizer, self.feature_extractor):
            part.save_pretrained(save_directory, **kwargs)
        if self.processor is not None:
            self.processor.save_pretrained(save_directory, **kwargs)

    def preprocess(self, audio: object) -> dict[str, Record]:
        """The recording as a record; it is read in `_forward`.

        Args:
            audio: one of the forms that the pipeline takes.
        """
        if isinstance(audio, torch.Tensor):
            audio = audio.numpy(force=True)
        row = {"audio": audio, "sampling_rate": self.feature_extractor.sampling_rate}
        return {"record": Record.from_row(row, default_id="audio")}


__all__ = ["LOADING_NAMES", "PipelineProcessor", "RecordingPipeline"]
