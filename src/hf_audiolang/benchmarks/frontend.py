# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""`LogMelFeatureExtractor` beside the front ends people use today, clips of ten seconds, equal output.

Ours is the public call on a list of numpy arrays. Peers run as their documentation shows; the logarithm and the
normalisation that ours includes are added to those that stop before.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from transformers import ASTFeatureExtractor, ClapFeatureExtractor, WhisperFeatureExtractor

from hf_audiolang.benchmarks.runner import Case, register_suite
from hf_audiolang.models.feature_extraction_log_mel import LogMelFeatureExtractor

UNIT = "audio-s"
WHISPER_NUMBERS = {"log": "log10", "log_floor": 1e-10, "log_rule": "clamp", "f_min": 0.0, "mean": -4.0, "std": 4.0}


@register_suite("frontend")
def frontend(device: str = "cpu", is_tiny: bool = False) -> list[Case]:
    """Cases against torchaudio, ClapFeatureExtractor, ASTFeatureExtractor and WhisperFeatureExtractor.

    Args:
        device: where ours runs, and the peers that can.
        is_tiny: two clips of half a second instead of eight of ten.
    """
    num_clips, seconds = (2, 0.5) if is_tiny else (8, 10.0)
    clips = {rate: _clips(num_clips, int(seconds * rate)) for rate in (16000, 48000)}
    makers = (_mel_spectrogram, _kaldi, _clap, _ast, _whisper_longest, _whisper_default)
    return [make(clips, num_clips * seconds, device) for make in makers]


def _clips(num_clips: int, num_samples: int) -> list[np.ndarray]:
    """Noise and tones with a decay: some quiet and some loud bands."""
    generator = np.random.default_rng(0)
    times = np.arange(num_samples) / num_samples
    clips = []
    for _ in range(num_clips):
        tone = np.sin(2 * np.pi * generator.uniform(100, 2000) * times)
        clips.append((0.1 * generator.normal(size=num_samples) + 0.3 * tone * np.exp(-2 * times)).astype(np.float32))
    return clips


def _ours(extractor: LogMelFeatureExtractor, clips: list[np.ndarray], device: str) -> Callable[[], Tensor]:
    """A call that returns (B, T, F)."""

    def call() -> Tensor:
        batch = extractor(clips, sampling_rate=extractor.sampling_rate, return_tensors="pt", device=device)
        return batch["input_features"]

    return call


def _difference(ours: Tensor, peer: Tensor | np.ndarray) -> float:
    return float((ours.cpu() - torch.as_tensor(peer).cpu()).abs().max())


def _mel_spectrogram(clips: dict[int, list[np.ndarray]], work: float, device: str) -> Case:
    name = "torchaudio MelSpectrogram, batched, 80 mel"
    try:
        import torchaudio
    except ImportError as error:
        return Case(name, skipped=str(error))
    extractor = LogMelFeatureExtractor.from_preset("m2d_clap")
    transform = torchaudio.transforms.MelSpectrogram(
        16000, 400, 400, 160, f_min=50.0, f_max=8000.0, n_mels=80, norm="slaney", mel_scale="slaney"
    ).to(device)
    batch = torch.from_numpy(np.stack(clips[16000]))

    def peer() -> Tensor:
        mel = transform(batch.to(device))  # (B, F, T)
        return ((mel + extractor.log_floor).log() - extractor.mean) / extractor.std

    return Case(
        name,
        work,
        UNIT,
        _ours(extractor, clips[16000], device),
        peer,
        lambda ours, peer: _difference(ours.transpose(1, 2), peer),
        tolerance=1e-3,
        goal=1.7,
    )


def _kaldi(clips: dict[int, list[np.ndarray]], work: float, device: str) -> Case:
    name = "torchaudio Kaldi fbank per clip, 64 mel"
    try:
        from torchaudio.compliance import kaldi
    except ImportError as error:
        return Case(name, skipped=str(error))
    extractor = LogMelFeatureExtractor.from_preset("slap", mean=-4.0, std=9.0)

    def fbank(clip: np.ndarray) -> Tensor:
        waveform = torch.from_numpy(clip).unsqueeze(0).to(device)
        return kaldi.fbank(waveform, num_mel_bins=64, sample_frequency=16000, window_type="hanning", dither=0.0)

    def peer() -> Tensor:
        return (torch.stack([fbank(clip) for clip in clips[16000]]) + 4.0) / 9.0

    return Case(name, work, UNIT, _ours(extractor, clips[16000], device), peer, _difference, tolerance=1e-3)


def _clap(clips: dict[int, list[np.ndarray]], work: float, device: str) -> Case:
    extractor = LogMelFeatureExtractor.from_preset("clap")
    seconds = len(clips[48000][0]) / 48000
    clap = ClapFeatureExtractor(truncation="rand_trunc", padding="pad", max_length_s=seconds)
    clap.nb_max_samples = len(clips[48000][0])

    def peer() -> Tensor:
        return clap(clips[48000], sampling_rate=48000, return_tensors="pt")["input_features"][:, 0]

    # in dB, where 1e-2 is one thousandth of the range
    return Case(
        "transformers ClapFeatureExtractor, 48 kHz",
        work,
        UNIT,
        _ours(extractor, clips[48000], device),
        peer,
        _difference,
        tolerance=1e-2,
        goal=4.0,
    )


def _ast(clips: dict[int, list[np.ndarray]], work: float, device: str) -> Case:
    ast = ASTFeatureExtractor()
    numbers = {"feature_size": ast.num_mel_bins, "mean": ast.mean, "std": 2 * ast.std}
    extractor = LogMelFeatureExtractor.from_preset("slap", **numbers)

    def peer() -> Tensor:
        return ast(clips[16000], sampling_rate=16000, return_tensors="pt")["input_values"]  # padded to 1024 frames

    return Case(
        "transformers ASTFeatureExtractor, 128 mel",
        work,
        UNIT,
        _ours(extractor, clips[16000], device),
        peer,
        lambda ours, peer: _difference(ours, peer[:, : ours.shape[1]]),
        tolerance=1e-3,
        goal=2.0,
    )


def _whisper_longest(clips: dict[int, list[np.ndarray]], work: float, device: str) -> Case:
    return _whisper("longest", clips, work, device)


def _whisper_default(clips: dict[int, list[np.ndarray]], work: float, device: str) -> Case:
    return _whisper("max_length", clips, work, device)


def _whisper(padding: str, clips: dict[int, list[np.ndarray]], work: float, device: str) -> Case:
    extractor = LogMelFeatureExtractor.from_preset("m2d_clap", **WHISPER_NUMBERS)
    whisper = WhisperFeatureExtractor()

    def peer() -> Tensor:
        options = {"sampling_rate": 16000, "return_tensors": "pt", "padding": padding, "device": device}
        return whisper(clips[16000], **options)["input_features"]  # (B, F, T)

    def error(ours: Tensor, peer: Tensor) -> float:
        # Whisper clips each clip at 8 below its maximum (2 after scaling), leaves out the last frame, and reflects at
        # the end of its padding: the frames that see an end of the clip are left out.
        peer = peer[:, :, : ours.shape[1] - 1].transpose(1, 2).to(ours.device)
        clipped = torch.maximum(ours[:, :-1], peer.amax((1, 2), keepdim=True) - 2.0)
        return _difference(clipped[:, 2:-2], peer[:, 2:-2])

    name = f"transformers WhisperFeatureExtractor, {'default' if padding == 'max_length' else padding}"
    return Case(name, work, UNIT, _ours(extractor, clips[16000], device), peer, error, tolerance=1e-3)


__all__ = ["frontend"]
