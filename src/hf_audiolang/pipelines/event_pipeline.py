# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What the pipelines that find texts in recordings share.

texts, once per call -> embed_labels -> (C, E)
recording -> Record -> score_records -> FrameScores (T, C) -> find_events -> [{"label", "score", "start", "end"}, ...]

A file of any length is read window by window.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

import numpy as np

from hf_audiolang.data.records import Record
from hf_audiolang.evaluation.capabilities import check_text_input
from hf_audiolang.evaluation.embed import AudioOptions
from hf_audiolang.evaluation.events import EventRule, find_events
from hf_audiolang.evaluation.frame_scores import BARE_LABEL, FrameScoreOptions, embed_labels, score_records
from hf_audiolang.evaluation.metrics.psds import FrameScores

from .recording_pipeline import LOADING_NAMES, RecordingPipeline

RULE_NAMES = tuple(field.name for field in fields(EventRule))
OPTION_NAMES = ("window_seconds", "overlap", "clip_window_seconds", "clip_hop_seconds")


class EventPipeline(RecordingPipeline):
    """Finds texts in recordings; a subclass says what its texts are called.

    Parameters of a call, or of the pipeline itself as defaults: the texts; `hypothesis_template`, one sentence or
    several with `{}` where a text goes; the fields of `EventRule` (`threshold`, `median_seconds`, `join_seconds`,
    `min_seconds`) and of `FrameScoreOptions` (`window_seconds`, `overlap`, `clip_window_seconds`,
    `clip_hop_seconds`).
    """

    text_parameter: str
    label_text: Callable[[str], str] | None = None  # text -> words in the prompt; None: `_` becomes a space

    _defaults: Mapping[str, object] | None = None

    def check_parts(self) -> None:
        """Raises ValueError, with what to do instead, if the model embeds no text."""
        check_text_input(self.model, self._parts)

    def _sanitize_parameters(self, **parameters: object) -> tuple[dict, dict, dict]:
        """Checks a call's parameters and embeds its texts: once per call, before any audio is read."""
        known = (self.text_parameter, "hypothesis_template", *RULE_NAMES, *OPTION_NAMES)
        unknown = [name for name in parameters if name not in (*known, *LOADING_NAMES)]
        if unknown:
            raise TypeError(f"Unknown parameter `{unknown[0]}` of {self.task!r}. Choose from {list(known)}.")
        asked = {**(self._defaults or {}), **parameters}
        rule = EventRule(**{name: asked[name] for name in RULE_NAMES if name in asked})
        windows = {name: asked[name] for name in OPTION_NAMES if name in asked}
        options = FrameScoreOptions(**windows, reading=AudioOptions(on_bad_example="error"))
        if self._defaults is None:  # called by the constructor, which has no tokenizer yet
            self._defaults = parameters
            return {}, {}, {}
        texts = self._texts(asked)
        template = asked.get("hypothesis_template", BARE_LABEL)
        text_embeds = embed_labels(
            self.model, self._parts, texts, template, self.label_text, name=self.text_parameter
        )  # (C, E)
        return {}, {"text_embeds": text_embeds, "options": options}, {"texts": texts, "rule": rule}

    def _texts(self, asked: Mapping[str, object]) -> Sequence[str]:
        """The texts of a call.

        Raises:
            ValueError: if there are none.
        """
        if self.text_parameter not in asked:
            raise ValueError(f"`{self.text_parameter}` is missing. Give what to listen for, as ['dog', 'rain'].")
        return asked[self.text_parameter]

    def _forward(
        self, model_inputs: dict[str, Record | list[Record]], text_embeds: np.ndarray, options: FrameScoreOptions
    ) -> dict[str, FrameScores | list[FrameScores]]:
        """Frame scores of one record, or of those of a batch together."""
        records = model_inputs["record"]
        is_batch = isinstance(records, list)
        dataset = records if is_batch else [records]
        scored = score_records(self.model, self._parts, dataset, lambda _: text_embeds, options=options)
        return {"frame_scores": scored.frame_scores if is_batch else scored.frame_scores[0]}

    def postprocess(
        self, model_outputs: dict[str, FrameScores], texts: Sequence[str], rule: EventRule
    ) -> list[dict[str, str | float]]:
        """Events of one recording, sorted by start.

        Args:
            model_outputs: frame scores of one recording.
            texts: C names of the columns.
            rule: when frames count as an event.
        """
        return [event.to_dict() for event in find_events(model_outputs["frame_scores"], texts, rule)]


__all__ = ["EventPipeline"]
