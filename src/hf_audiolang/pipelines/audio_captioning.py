# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The task "audio-captioning": what is heard, in a sentence."""

from transformers import GenerationConfig

from hf_audiolang.data.records import Record
from hf_audiolang.evaluation.captioning import (
    MAX_NEW_TOKENS,
    NUM_BEAMS,
    CaptionedClip,
    check_captioner,
    generation_settings,
    iter_captions,
)
from hf_audiolang.evaluation.embed import AudioOptions, RecordReader

from .recording_pipeline import LOADING_NAMES, RecordingPipeline

READING_NAMES = ("max_seconds", "long_audio")
GENERATION_NAMES = frozenset(field for field in vars(GenerationConfig()) if not field.startswith("_"))
LENGTHS = ("max_new_tokens", "max_length", "generation_config")  # any of them says how long a caption may be
ONE_CAPTION = ("num_return_sequences", "return_dict_in_generate")  # would give something else than a text


class AudioCaptioningPipeline(RecordingPipeline):
    r"""Writes captions of recordings.

    ```python
    captioner = pipeline("audio-captioning", model="runs/captionstew_scenes/captioner")
    captioner("street.wav")
    # {"text": "a dog barks then a siren wails"}
    captioner(["street.wav", "garden.wav"], batch_size=2, num_beams=1, max_new_tokens=20)
    ```

    Works with the captioners of this package. Parameters of a call, or of the pipeline itself as defaults: whatever
    `generate` takes (`num_beams`, by default 4; `max_new_tokens`, by default 64, or what the model's generation
    config allows if less; instead `max_length`, which counts the start token; `do_sample`, `temperature`,
    `generation_config`, ...); `return_timestamps`; `max_seconds` and `long_audio` of `AudioOptions`. A recording
    longer than that, or than the feature extractor's own limit, is cut into equal pieces: their captions are joined
    by "then", and `return_timestamps=True` also gives each with its times.
    """

    _pipeline_calls_generate = True
    _default_generation_config = GenerationConfig(num_beams=NUM_BEAMS, max_new_tokens=MAX_NEW_TOKENS)

    def check_parts(self) -> None:
        """Raises ValueError, with what to do instead, if the model writes no captions."""
        check_captioner(self.model, self._parts)

    def __call__(
        self, audio: object, **parameters: object
    ) -> dict[str, str | list[dict]] | list[dict[str, str | list[dict]]]:
        """The caption of a recording, or of each recording of a list.

        Args:
            audio: path, bytes, array at the feature extractor's rate, `{"array", "sampling_rate"}`, torchcodec
                decoder, or a list of these.
            **parameters: as the class says, and `batch_size`, recordings that are captioned together.

        Returns:
            `{"text"}` for each recording, with `return_timestamps` also `"chunks"`, the pieces in order, each with
            `"timestamp"` (start, end in seconds) and `"text"`.

        Raises:
            AudioError: if a recording cannot be read.
            TypeError: for an unknown parameter.
            ValueError: if a parameter is out of its range.
        """
        return super().__call__(audio, **parameters)

    def _sanitize_parameters(self, **parameters: object) -> tuple[dict, dict, dict]:
        names = GENERATION_NAMES | {"generation_config"}
        known = ("return_timestamps", *READING_NAMES)
        unknown = [name for name in parameters if name not in {*known, *LOADING_NAMES, *names}]
        if unknown:
            raise TypeError(
                f"Unknown parameter `{unknown[0]}` of {self.task!r}. Choose from {list(known)} and those of "
                "`GenerationConfig`, such as `num_beams` and `max_new_tokens`."
            )
        asked = {**getattr(self, "_generate_kwargs", {}), **parameters}  # missing: a model that `check_parts` refuses
        not_one = [name for name in ONE_CAPTION if asked.get(name) not in (None, False, 1)]
        if not_one:
            value = asked[not_one[0]]
            raise ValueError(
                f"`{not_one[0]}` is {value}, but a recording gets one text. Leave it out, or call `model.generate`."
            )
        forward = {name: value for name, value in parameters.items() if name in names}
        reading = {name: parameters[name] for name in READING_NAMES if name in parameters}
        if reading:
            AudioOptions(**reading)  # refuses what is out of range before any audio is read
            forward["reading"] = reading
        timed = {name: parameters[name] for name in ("return_timestamps",) if name in parameters}
        return {}, forward, timed

    def _forward(
        self,
        model_inputs: dict[str, Record | list[Record]],
        reading: dict[str, object] | None = None,
        **generation: object,
    ) -> dict[str, CaptionedClip | list[CaptionedClip]]:
        """The caption of one record, or of those of a batch together."""
        records = model_inputs["record"]
        is_batch = isinstance(records, list)
        options = AudioOptions(on_bad_example="error", **(reading or {}))
        reader = RecordReader(records if is_batch else [records], self.feature_extractor.sampling_rate, options)
        clips = iter_captions(self.model, self._parts, reader, self._generate_arguments(generation))
        in_order = sorted(clips, key=lambda clip: clip.index)
        return {"clip": in_order if is_batch else in_order[0]}

    def _generate_arguments(self, asked: dict[str, object]) -> dict[str, object]:
        """Arguments of `generate` for what a call asks: of the lengths its own, and the default if there is none."""
        lengths = {**self._generate_kwargs, **asked}
        if all(lengths.get(name) is None for name in LENGTHS):  # as in other calls, not the longest that it can
            asked = {**asked, "max_new_tokens": generation_settings(self.model)["max_new_tokens"]}
        arguments = self._prepare_generate_kwargs(asked)
        if asked.get("max_length") is not None and asked.get("max_new_tokens") is None:
            arguments.pop("max_new_tokens", None)  # the pipeline's own, which `generate` would take of the two
        return arguments

    def postprocess(
        self, model_outputs: dict[str, CaptionedClip], return_timestamps: bool = False
    ) -> dict[str, str | list[dict]]:
        """The text of one recording, and those of its pieces if asked for.

        Args:
            model_outputs: the captioned recording.
            return_timestamps: also give the pieces.
        """
        clip = model_outputs["clip"]
        if not return_timestamps:
            return {"text": clip.caption}
        chunks = [{"timestamp": (piece.start, piece.end), "text": piece.caption} for piece in clip.pieces]
        return {"text": clip.caption, "chunks": chunks}


__all__ = ["AudioCaptioningPipeline"]
