# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
r"""Where in a clip a model looks: attention of the projector's semantic token over the patches (M2D-CLAP IV-D4).

    record -> its first seconds -> log-mel (T, F) --> level in dB, times, frequencies
                                                 \-> model.get_projector_attention -> (bands, columns), sums to 1
    captions -> similarity to the clip

The picture of it is `figures_attention.plot_attention`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from hf_audiolang.data.audio_io import AudioError, audio_info, record_waveform
from hf_audiolang.data.records import Record

from .capabilities import AudioProcessor, feature_extractor_of
from .embed import AudioOptions, audio_inputs, embed_records, embed_texts, evaluation_mode, longest_seconds
from .figures_style import level_of, mel_centres_hz

ARRAYS = ("attention", "band_hz", "column_seconds", "log_mel_db", "mel_hz", "frame_seconds")


@dataclass(frozen=True)
class Explanation:
    """One clip and where the model looks in it.

    Attributes:
        name: the record's id; for a file its path.
        attention: (bands, columns) share of the attention that each patch gets, sums to 1; band 0 is the lowest.
        band_hz: (bands,) centre frequency of each band of patches.
        column_seconds: (columns,) middle of each column of patches.
        log_mel_db: (T, F) log-mel of the part that is shown, in dB.
        mel_hz: (F,) centre frequency of each mel bin.
        frame_seconds: (T,) time of each frame.
        shown_seconds: duration of the part that is shown, from the start of the clip.
        total_seconds: duration of the whole clip.
        captions: texts compared with the part that is shown.
        similarities: cosine similarity of each of them.
    """

    name: str
    attention: np.ndarray
    band_hz: np.ndarray
    column_seconds: np.ndarray
    log_mel_db: np.ndarray
    mel_hz: np.ndarray
    frame_seconds: np.ndarray
    shown_seconds: float
    total_seconds: float
    captions: tuple[str, ...] = ()
    similarities: tuple[float, ...] = ()

    @property
    def part(self) -> str:
        """Which part of the clip is shown, in words."""
        if self.shown_seconds > self.total_seconds - 0.01:
            return f"{self.total_seconds:.2f} s"
        return f"first {self.shown_seconds:.2f} s of {self.total_seconds:.2f} s"

    def to_json(self) -> dict[str, object]:
        """Everything but the log-mel and its axes, as lists and numbers."""
        return {
            "file": self.name,
            "shown_seconds": round(self.shown_seconds, 3),
            "total_seconds": round(self.total_seconds, 3),
            "captions": [
                {"caption": caption, "similarity": similarity}
                for caption, similarity in zip(self.captions, self.similarities, strict=True)
            ],
            "band_hz": self.band_hz.round(1).tolist(),
            "column_seconds": self.column_seconds.round(3).tolist(),
            "attention": self.attention.tolist(),
        }

    def save_arrays(self, path: str | Path) -> None:
        """Writes all arrays, and the durations in seconds, to an .npz file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name) for name in ARRAYS}
        np.savez(path, **arrays, shown_seconds=self.shown_seconds, total_seconds=self.total_seconds)


def explain_files(
    files: Iterable[str | Path],
    model: nn.Module,
    processor: AudioProcessor,
    *,
    captions: Sequence[str] = (),
    max_seconds: float | None = None,
) -> tuple[list[Explanation], list[str]]:
    """Explanations of the readable sound files, and one message per file that cannot be read.

    Args:
        files: sound files of any length; the beginning is explained.
        model: see `explain`.
        processor: see `explain`.
        captions: see `explain`.
        max_seconds: see `explain`.

    Raises:
        ValueError: if the model has no such attention, or not one file is readable.
    """
    explanations: list[Explanation] = []
    failed: list[str] = []
    for path in files:
        record = Record(id=str(path), audio=path)
        try:
            explanations.append(explain(model, processor, record, captions=captions, max_seconds=max_seconds))
        except (AudioError, FileNotFoundError) as error:
            failed.append(f"{path}: {error}")
    if not explanations:
        first = f" The first problem: {failed[0]}" if failed else ""
        raise ValueError(f"`files` has no readable file, got {len(failed)}. Check them.{first}")
    return explanations, failed


def explain(
    model: nn.Module,
    processor: AudioProcessor,
    record: Record,
    *,
    captions: Sequence[str] = (),
    max_seconds: float | None = None,
) -> Explanation:
    """Where in a clip the model looks, and how similar the clip is to some texts.

    Args:
        model: a system with `get_projector_attention`, such as an `M2dClapModel` with a transformer projector.
        processor: its processor.
        record: a clip; what is longer than the model's or the extractor's limit is cut off behind.
        captions: texts to compare with the part that is shown.
        max_seconds: a shorter limit.

    Raises:
        AudioError: if the clip cannot be read.
        ValueError: if the model has no such attention, or not M2D's patches to show it on, cannot embed the captions,
            or `max_seconds` is not positive.
    """
    if not hasattr(model, "get_projector_attention"):
        raise ValueError(
            f"`model` is a {type(model).__name__}, which has no projector attention to show. Give a M2D-CLAP model "
            'whose projector is of type "transformer".'
        )
    extractor, audio_config = feature_extractor_of(processor), model.config.audio_config
    if not all(hasattr(audio_config, field) for field in ("max_frames", "patch_frames", "patch_mel_bins")):
        raise ValueError(
            f"The attention of a model with the encoder {audio_config.model_type!r} has no place on the spectrogram "
            "here. Give a model with M2D's encoder."
        )
    options = AudioOptions(max_seconds=max_seconds)  # refuses durations that are not positive
    rate, hop = extractor.sampling_rate, extractor.hop_length
    waveform = record_waveform(record, rate, duration_seconds=longest_seconds(processor, options))
    waveform = waveform[: audio_config.max_frames * hop - 1]  # one sample more would be a frame more
    with evaluation_mode(model):
        inputs = audio_inputs(model, processor, [waveform])
        attention = model.get_projector_attention(**inputs)[0].float().cpu().numpy()  # (bands, columns)
    similarities: tuple[float, ...] = ()
    if captions:
        shown = Record(id=record.id, audio=waveform, sampling_rate=rate)
        embedded = embed_records(model, processor, [shown], options=options)
        similarities = tuple(map(float, embed_texts(model, processor, list(captions)) @ embedded.embeds[0]))
    log_mel_db = level_of(extractor, waveform)  # (T, F)
    mel_hz = mel_centres_hz(extractor, log_mel_db.shape[1])
    bands, columns = attention.shape
    middle_bins = audio_config.patch_mel_bins * np.arange(bands) + (audio_config.patch_mel_bins - 1) / 2
    return Explanation(
        name=record.id,
        attention=attention,
        band_hz=np.interp(middle_bins, np.arange(len(mel_hz)), mel_hz),
        column_seconds=(np.arange(columns) + 0.5) * audio_config.patch_frames / audio_config.feature_frame_rate_hz,
        log_mel_db=log_mel_db,
        mel_hz=mel_hz,
        frame_seconds=np.arange(len(log_mel_db)) / audio_config.feature_frame_rate_hz,
        shown_seconds=len(waveform) / rate,
        total_seconds=_total_seconds(record),
        captions=tuple(captions),
        similarities=similarities,
    )


def _total_seconds(record: Record) -> float:
    """Duration of the whole clip, from the header of a file."""
    if isinstance(record.audio, np.ndarray):
        return len(record.audio) / record.sampling_rate
    return audio_info(record.audio).duration


__all__ = ["Explanation", "explain", "explain_files"]
