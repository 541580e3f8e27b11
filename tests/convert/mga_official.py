# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Official MGA-CLAP state dicts with computed weights, and inputs for them, the same on every machine.

Names and shapes are those of the authors' `model.pt`; weights are integer hashes of their key and index: no norm is
the identity, no bias and no running statistic is as at the start. What a file holds that is no weight (transform and
filters of the front end, index and mask of the windows) is computed from its definition.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from m2d_official import StateDict, bert_state, hashed, layer_norm, linear, prefixed
from torch import Tensor

AUDIO = "audio_encoder.audio_enc."
TEXT = "text_encoder.text_encoder."
SIDE = 64  # tokens on a side of the first stage: spectrogram of 256, patches of 4
WINDOW = 8
SPECIAL_TOKENS = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}  # as in bert-base-uncased
WORDS = (
    "a the an in of is and then can be heard sound dog cat man woman rain bird bell drum bark ##ing ##s ##ed speak "
    "ring loud quiet while far near siren"
)
CAPTIONS = (
    "a dog barking and then a bell rings",
    "rain",
    "a man speaks while birds sing quietly in the far distance",  # with unknown words
    "the siren is loud",
    "Drums! drums, and a woman speaking",
)
LONG_CAPTION = " and then ".join(["a dog barks"] * 8)  # more than 30 tokens


@dataclass(frozen=True)
class Official:
    """Sizes of an official model; those of the defaults that differ from the authors' differ from each other, too.

    The gain of the codewords decides how many are active: in the small model so many that negative scores
    count for captions, in the real one an eighth.
    """

    stem: int = 12
    depths: tuple[int, ...] = (2, 1, 3, 2)
    heads: tuple[int, ...] = (1, 2, 3, 4)
    text_width: int = 128
    text_depth: int = 2
    text_mlp: int = 80
    positions: int = 40
    vocab: int = 104 + len(WORDS.split())
    shared: int = 40
    codewords: int = 96
    codeword_gain: float = 14.0


SMALL = Official()
REAL = Official(
    stem=96,
    depths=(2, 2, 6, 2),
    heads=(4, 8, 16, 32),
    text_width=768,
    text_depth=3,
    text_mlp=3072,
    positions=512,
    shared=1024,
    codewords=4096,
    codeword_gain=4.0,
)
CASES = {"small": SMALL, "real": REAL}


def mga_state(sizes: Official = SMALL) -> StateDict:
    """The whole state dict; 255 keys with depths (2, 2, 6, 2) and two BERT layers."""
    width = sizes.stem * 2 ** (len(sizes.depths) - 1)
    bert = bert_state(sizes.text_width, sizes.text_depth, sizes.text_mlp, sizes.vocab, sizes.positions, 2)
    text = {key: value for key, value in bert.items() if not key.startswith(("pooler", "embeddings.position_ids"))}
    codebook = hashed("codebook", sizes.codewords, sizes.shared) * (math.sqrt(3) * sizes.codeword_gain)
    return {
        "temp": torch.tensor(0.09),
        "codebook": codebook,
        **prefixed(AUDIO, htsat_state(sizes)),
        **prefixed(TEXT, text),
        **projection_state("frame_proj", width, sizes.shared),
        **projection_state("word_proj", sizes.text_width, sizes.shared),
    }


def projection_state(name: str, in_size: int, out_size: int) -> StateDict:
    return (
        layer_norm(f"{name}.0", in_size)
        | linear(f"{name}.1", out_size, in_size)
        | layer_norm(f"{name}.3", out_size)
        | linear(f"{name}.4", out_size, out_size)
    )


def htsat_state(sizes: Official) -> StateDict:
    """The audio encoder, with its front end and the classifier of its first training."""
    state = front_end_state() | batch_norm_state()
    state |= {
        "patch_embed.proj.weight": hashed("patch_embed.proj.weight", sizes.stem, 1, 4, 4) * (math.sqrt(3) / 4),
        "patch_embed.proj.bias": hashed("patch_embed.proj.bias", sizes.stem) * 0.2,
    }
    state |= layer_norm("patch_embed.norm", sizes.stem)
    for stage, (depth, heads) in enumerate(zip(sizes.depths, sizes.heads, strict=True)):
        width, side = sizes.stem * 2**stage, SIDE // 2**stage
        for index in range(depth):
            state |= block_state(
                f"layers.{stage}.blocks.{index}", width, heads, is_shifted=index % 2 and side > WINDOW
            )
        if stage < len(sizes.depths) - 1:
            merging = f"layers.{stage}.downsample"
            reduction = linear(f"{merging}.reduction", 2 * width, 4 * width)
            state |= {f"{merging}.reduction.weight": reduction[f"{merging}.reduction.weight"]}
            state |= layer_norm(f"{merging}.norm", 4 * width)
    width = sizes.stem * 2 ** (len(sizes.depths) - 1)
    return (
        state
        | layer_norm("norm", width)
        | {"tscam_conv.weight": hashed("tscam_conv", 527, width, 2, 3), "tscam_conv.bias": hashed("tscam_bias", 527)}
        | linear("head", 527, 527)
    )


def block_state(name: str, width: int, heads: int, *, is_shifted: bool) -> StateDict:
    side = SIDE * 2 ** -int(name.split(".")[1])
    state = {
        f"{name}.attn.relative_position_bias_table": hashed(f"{name}.bias_table", (2 * WINDOW - 1) ** 2, heads),
        f"{name}.attn.relative_position_index": window_index(),
        **layer_norm(f"{name}.norm1", width),
        **linear(f"{name}.attn.qkv", 3 * width, width, gain=1.3),
        **linear(f"{name}.attn.proj", width, width),
        **layer_norm(f"{name}.norm2", width),
        **linear(f"{name}.mlp.fc1", 4 * width, width),
        **linear(f"{name}.mlp.fc2", width, 4 * width),
    }
    return state | ({f"{name}.attn_mask": window_mask(int(side))} if is_shifted else {})


def batch_norm_state() -> StateDict:
    """Statistics of log-mels in dB."""
    return {
        "bn0.weight": 1 + 0.2 * hashed("bn0.weight", 64),
        "bn0.bias": 0.2 * hashed("bn0.bias", 64),
        "bn0.running_mean": -25 + 5 * hashed("bn0.running_mean", 64),
        "bn0.running_var": 150 * (1 + 0.5 * hashed("bn0.running_var", 64)),
        "bn0.num_batches_tracked": torch.tensor(34567),
    }


def front_end_state() -> StateDict:
    """Windowed Fourier transform of 1024 points and 64 Slaney filters from 50 to 14000 Hz at 32 kHz."""
    time, window = np.arange(1024), 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    angles = 2 * np.pi * (np.outer(np.arange(513), time) % 1024) / 1024
    kernels = {"real": np.cos(angles) * window, "imag": -np.sin(angles) * window}
    name = "audio_feats_extractor"
    state = {
        f"{name}.mel_trans.stft.conv_{part}.weight": torch.from_numpy(kernel).float().unsqueeze(1)
        for part, kernel in kernels.items()
    }
    return state | {f"{name}.log_trans.melW": torch.from_numpy(slaney_filters()).float()}


def slaney_filters() -> np.ndarray:
    """(513, 64) triangles of unit area, evenly spaced in Slaney's mel: linear up to 1 kHz, then 6.4 ^ (1 / 27)."""

    def mel(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    def hertz(mels: np.ndarray) -> np.ndarray:
        return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(math.log(6.4) / 27 * (mels - 15)))

    edges, bins = hertz(np.linspace(mel(50), mel(14000), 66)), np.linspace(0, 16000, 513)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins[:, None] - low) / (middle - low), (high - bins[:, None]) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)


def window_index() -> Tensor:
    """(64, 64) row of the bias table for each pair of places in a window."""
    row, column = np.divmod(np.arange(WINDOW**2), WINDOW)
    down, right = row[:, None] - row + WINDOW - 1, column[:, None] - column + WINDOW - 1
    return torch.from_numpy(down * (2 * WINDOW - 1) + right)


def window_mask(side: int) -> Tensor:
    """(windows, 64, 64): -100 between places that only the shift by half a window brought together."""
    part = np.zeros(side, dtype=int)
    part[side - WINDOW :], part[side - WINDOW // 2 :] = 1, 2
    region = 3 * part[:, None] + part
    windows = region.reshape(side // WINDOW, WINDOW, side // WINDOW, WINDOW).swapaxes(1, 2).reshape(-1, WINDOW**2)
    return torch.from_numpy(np.where(windows[:, :, None] == windows[:, None], 0.0, -100.0)).float()


def write_vocabulary(folder: Path) -> Path:
    """Writes vocab.txt, whose special tokens stand where those of bert-base-uncased do; returns its path."""
    words = [SPECIAL_TOKENS.get(index, f"[unused{index}]") for index in range(104)] + WORDS.split()
    path = folder / "vocab.txt"
    path.write_text("\n".join(words) + "\n", encoding="utf-8")
    return path


def waveform(seconds: float) -> Tensor:
    """(S,) at 32 kHz: gliding and swelling tones over a soft noise."""
    time = np.arange(round(seconds * 32000)) / 32000
    noise = hashed(f"noise {seconds:g}", len(time)).numpy()
    glide = np.sin(2 * np.pi * (200 + 350 * time) * time) * np.cos(3 * time)
    steady = np.sin(2 * np.pi * 1370 * time) * np.maximum(0, np.sin(2 * np.pi * 0.7 * time))
    return torch.from_numpy((0.3 * glide + 0.2 * steady + 0.05 * noise).astype(np.float32))


def padded(clip: Tensor, seconds: float = 10.0) -> Tensor:
    """(S,) filled with silence."""
    return torch.nn.functional.pad(clip, (0, round(seconds * 32000) - len(clip)))


def log_mels(num_frames: int, batch: int = 1) -> Tensor:
    """(B, T, 64) numbers in the place of log-mels in dB."""
    slow = hashed(f"slow {num_frames}", batch, -(-num_frames // 16), 64).repeat_interleave(16, dim=1)[:, :num_frames]
    return -25 + 12 * slow + 6 * hashed(f"fast {num_frames}", batch, num_frames, 64)


def some_embeddings(name: str, rows: int = 5, width: int = 7) -> Tensor:
    """(B, E) unit rows that lie close to each other, in float64."""
    common, own = hashed("common", 1, width), hashed(f"{name} rows", rows, width)
    return torch.nn.functional.normalize((common + 0.5 * own).double(), dim=-1)


def spread(values: Tensor, count: int = 24) -> list[float]:
    """A few values from all over a tensor, with eight significant digits."""
    flat = values.detach().flatten().double()
    step = next(
        step for step in range(int(0.618 * len(flat)) + 1, 2 * len(flat) + 2) if math.gcd(step, len(flat)) == 1
    )
    at = torch.arange(min(count, len(flat))) * step % len(flat)
    return [float(f"{value:.8g}") for value in flat[at].tolist()]
