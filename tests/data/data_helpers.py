"""Sound files and a small processor for the tests of `hf_audiolang.data`."""

from types import SimpleNamespace

import numpy as np
import soundfile
import torch

RATE = 16000


def tone(seconds, rate=RATE, frequency=440.0, amplitude=0.5):
    """(S,) float64 sine that starts at phase 0."""
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write_sound(path, waveform, rate=RATE, subtype=None):
    """Writes (S,) or (S, channels) in blocks: long Ogg files written at once crash libsndfile."""
    channels = 1 if waveform.ndim == 1 else waveform.shape[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", samplerate=rate, channels=channels, subtype=subtype) as file:
        for start in range(0, len(waveform), 4000):
            file.write(waveform[start : start + 4000])
    return path


class TinyProcessor:
    """Features: mean absolute value and maximum per 160 samples; tokens: 1 + letter codes, cut, padded with 0."""

    feature_extractor = SimpleNamespace(sampling_rate=RATE)

    def __call__(self, text, audio, sampling_rate, padding, truncation, max_length, return_tensors):
        assert (sampling_rate, padding, truncation, return_tensors) == (RATE, True, True, "pt")
        frames = [self._frames(waveform) for waveform in audio]
        tokens = [torch.tensor([1] + [ord(letter) for letter in line])[:max_length] for line in text]
        lengths = torch.tensor([len(frame) for frame in frames])
        text_lengths = torch.tensor([len(line) for line in tokens])
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_features": pad(frames, batch_first=True),
            "input_features_mask": torch.arange(int(lengths.max())) < lengths[:, None],
            "input_ids": pad(tokens, batch_first=True),
            "attention_mask": (torch.arange(int(text_lengths.max())) < text_lengths[:, None]).long(),
        }

    @staticmethod
    def _frames(waveform):
        frames = torch.from_numpy(waveform[: len(waveform) // 160 * 160]).view(-1, 160)
        return torch.stack([frames.abs().mean(1), frames.amax(1)], dim=1)
