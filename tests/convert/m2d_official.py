# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Official M2D and M2D-CLAP state dicts with computed weights, and what the official models do with them.

The layouts and the forward pass are written from the papers and the key tables alone, in plain torch: a fused
query-key-value projection, a convolution as patch embedding, one clip at a time. Weights are integer hashes of their
key and index, the same on every machine: no norm is the identity, no bias zero, the positions are the real ones.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class Official:
    """Sizes of an official model; the defaults are the smallest that the converter takes without being told heads."""

    width: int = 128
    depth: int = 2
    mlp: int = 96
    mels: int = 80
    frames: int = 100
    patch_mels: int = 16
    patch_frames: int = 16

    @property
    def grid(self) -> tuple[int, int]:
        return self.mels // self.patch_mels, self.frames // self.patch_frames

    @property
    def heads(self) -> int:
        return self.width // 64


def hashed(key: str, *shape: int) -> Tensor:
    """Uniform numbers in [-1, 1) from integer hashes of the key and the index."""
    index = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(zlib.crc32(key.encode()))
    mixed = index * np.uint64(0x9E3779B97F4A7C15)
    for factor in (0xD6E8FEB86659FD93, 0xD6E8FEB86659FD93):
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(factor)
    values = (mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    return torch.from_numpy(values).reshape(shape)


def linear(name: str, out_size: int, in_size: int, gain: float = 1.0) -> StateDict:
    scale = gain * math.sqrt(3 / in_size)
    return {
        f"{name}.weight": hashed(f"{name}.weight", out_size, in_size) * scale,
        f"{name}.bias": hashed(f"{name}.bias", out_size) * 0.2,
    }


def layer_norm(name: str, size: int) -> StateDict:
    weight, bias = hashed(f"{name}.weight", size), hashed(f"{name}.bias", size)
    return {f"{name}.weight": 1 + 0.3 * weight, f"{name}.bias": 0.2 * bias}


def block(name: str, width: int, mlp: int) -> StateDict:
    return (
        layer_norm(f"{name}.norm1", width)
        | linear(f"{name}.attn.qkv", 3 * width, width, gain=1.5)
        | linear(f"{name}.attn.proj", width, width)
        | layer_norm(f"{name}.norm2", width)
        | linear(f"{name}.mlp.fc1", mlp, width)
        | linear(f"{name}.mlp.fc2", width, mlp)
    )


def blocks(name: str, depth: int, width: int, mlp: int) -> StateDict:
    parts = [block(f"{name}.{index}", width, mlp) for index in range(depth)]
    return {key: value for part in parts for key, value in part.items()}


def sincos_table(grid: tuple[int, int], width: int) -> Tensor:
    """(1, 1 + patches, width): zeros for the class token, then time in the first half and frequency in the second."""
    bands, columns = grid
    speeds = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    rows = [np.zeros(width)]
    for band in range(bands):
        for column in range(columns):
            angles = (column * speeds, band * speeds)
            rows.append(np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)]))
    return torch.from_numpy(np.stack(rows)).float().unsqueeze(0)


def encoder_state(sizes: Official) -> StateDict:
    """150 tensors at real size: the encoder without statistics."""
    kernel = (sizes.width, 1, sizes.patch_mels, sizes.patch_frames)
    scale = math.sqrt(3 / (sizes.patch_mels * sizes.patch_frames))
    return {
        "cls_token": hashed("cls_token", 1, 1, sizes.width) * 0.5,
        "pos_embed": sincos_table(sizes.grid, sizes.width),
        "patch_embed.proj.weight": hashed("patch_embed.proj.weight", *kernel) * scale,
        "patch_embed.proj.bias": hashed("patch_embed.proj.bias", sizes.width) * 0.2,
        **blocks("blocks", sizes.depth, sizes.width, sizes.mlp),
        **layer_norm("norm", sizes.width),
    }


def statistics_state(mean: float = -7.261779308319092, std: float = 4.3511505126953125) -> StateDict:
    return {"norm_stats": torch.tensor([mean, std])}


def pretraining_state(
    sizes: Official, width: int = 64, depth: int = 2, mlp: int = 48, *, has_teacher: bool = True
) -> StateDict:
    """Predictor and teacher of a full M2D, or with `has_teacher=False` the spectrogram decoder of MSM-MAE."""
    out_size = sizes.width if has_teacher else sizes.patch_mels * sizes.patch_frames
    state = {
        "mask_token": hashed("mask_token", 1, 1, width) * 0.5,
        "decoder_pos_embed": sincos_table(sizes.grid, width),
        **linear("decoder_embed", width, sizes.width),
        **blocks("decoder_blocks", depth, width, mlp),
        **layer_norm("decoder_norm", width),
        **linear("decoder_pred", out_size, width),
    }
    if not has_teacher:
        return state
    return (
        state | blocks("target_blocks", sizes.depth, sizes.width, sizes.mlp) | layer_norm("target_norm", sizes.width)
    )


def transformer_projector_state(width: int, mlp: int, depth: int = 1) -> StateDict:
    """15 tensors with one block."""
    return {
        "audio_proj.sem_token": hashed("audio_proj.sem_token", 1, 1, width) * 0.5,
        **blocks("audio_proj.sem_blocks", depth, width, mlp),
        **layer_norm("audio_proj.norm", width),
    }


def mlp_state(name: str, in_size: int, hidden: int, out_size: int) -> StateDict:
    return linear(f"{name}.0", hidden, in_size) | linear(f"{name}.2", out_size, hidden)


def logit_scale_state() -> StateDict:
    return {"logit_scale": torch.tensor(3.25)}


def front_end_state(mels: int = 80, bins: int = 201) -> StateDict:
    """Buffers of the official front end; only their shapes matter."""
    return {
        "to_spec.mel_basis": hashed("mel_basis", mels, bins),
        "to_spec.stft.wsin": hashed("wsin", bins, 1, 2 * bins - 2),
        "to_spec.stft.wcos": hashed("wcos", bins, 1, 2 * bins - 2),
        "to_spec.stft.window_mask": hashed("window_mask", 1, 2 * bins - 2, 1),
    }


def head_state(num_features: int, num_classes: int = 7) -> StateDict:
    """Head of a fine-tuned file: batch norm without affine, and a linear layer."""
    return {
        "module.head.norm.running_mean": hashed("running_mean", num_features),
        "module.head.norm.running_var": 1.5 + hashed("running_var", num_features),
        "module.head.norm.num_batches_tracked": torch.tensor(3124),
        **linear("module.head.mlp.mlp.0", num_classes, num_features),
    }


def bert_state(
    width: int = 128, depth: int = 2, mlp: int = 80, vocab: int = 60, positions: int = 48, types: int = 3
) -> StateDict:
    """A BERT in the names of transformers, its pooling layer and the counter of old files included."""
    names = "word_embeddings", "position_embeddings", "token_type_embeddings"
    state = {
        f"embeddings.{name}.weight": hashed(name, rows, width)
        for name, rows in zip(names, (vocab, positions, types), strict=True)
    }
    state |= layer_norm("embeddings.LayerNorm", width)
    for index in range(depth):
        layer = f"encoder.layer.{index}"
        for name in ("query", "key", "value"):
            state |= linear(f"{layer}.attention.self.{name}", width, width, gain=1.5)
        state |= linear(f"{layer}.attention.output.dense", width, width)
        state |= layer_norm(f"{layer}.attention.output.LayerNorm", width)
        state |= linear(f"{layer}.intermediate.dense", mlp, width) | linear(f"{layer}.output.dense", width, mlp)
        state |= layer_norm(f"{layer}.output.LayerNorm", width)
    state |= linear("pooler.dense", width, width)
    return state | {"embeddings.position_ids": torch.arange(positions).unsqueeze(0)}


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> StateDict:
    return {prefix + key: value for key, value in state.items()}


def fine_tuned_state(encoder: Mapping[str, Tensor], num_features: int, num_classes: int = 7) -> StateDict:
    """What the evaluation platform saves."""
    runtime = prefixed("module.ar.runtime.", front_end_state())
    return prefixed("module.ar.runtime.backbone.", encoder) | runtime | head_state(num_features, num_classes)


def stage_2_state(backbone: Mapping[str, Tensor], bert: Mapping[str, Tensor]) -> StateDict:
    """The final M2D-CLAP of 2025: everything of one wrapper object."""
    text = prefixed("text_encoder.text_encoder.", bert)
    return prefixed("backbone.", backbone) | text | logit_scale_state() | front_end_state()


def normed(state: Mapping[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def dense(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def run_block(state: Mapping[str, Tensor], name: str, tokens: Tensor, heads: int, eps: float) -> Tensor:
    """(N, D) -> (N, D)."""
    count, width = tokens.shape
    fused = dense(state, f"{name}.attn.qkv", normed(state, f"{name}.norm1", tokens, eps))
    query, key, value = fused.reshape(count, 3, heads, width // heads).permute(1, 2, 0, 3)  # (H, N, head width)
    weights = (query @ key.transpose(1, 2) / math.sqrt(width // heads)).softmax(-1)
    mixed = (weights @ value).permute(1, 0, 2).reshape(count, width)
    tokens = tokens + dense(state, f"{name}.attn.proj", mixed)
    hidden = dense(state, f"{name}.mlp.fc1", normed(state, f"{name}.norm2", tokens, eps))
    return tokens + dense(state, f"{name}.mlp.fc2", F.gelu(hidden))


def encode_piece(state: Mapping[str, Tensor], sizes: Official, piece: Tensor) -> list[Tensor]:
    """Normalised log-mel (T, mels) of at most one table -> outputs of all blocks, the last normed, (1 + N, D) each."""
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    image = F.conv2d(piece.T[None, None], weight, bias, stride=(sizes.patch_mels, sizes.patch_frames))
    width, columns = image.shape[1], image.shape[3]
    table = state["pos_embed"][0, 1:].reshape(*sizes.grid, width)[:, :columns].reshape(-1, width)
    tokens = image[0].flatten(1).T + table
    tokens = torch.cat([state["cls_token"][0] + state["pos_embed"][0, :1], tokens])
    outputs = []
    for index in range(sizes.depth):
        tokens = run_block(state, f"blocks.{index}", tokens, sizes.heads, 1e-6)
        outputs.append(tokens)
    return [*outputs[:-1], normed(state, "norm", tokens, 1e-6)]


def pieces_of(sizes: Official, log_mel: Tensor) -> list[Tensor]:
    """The pieces of a clip, the end filled with zeros up to a whole patch."""
    missing = -(len(log_mel) % sizes.frames) % sizes.patch_frames
    padded = F.pad(log_mel, (0, 0, 0, missing))
    return [padded[start : start + sizes.frames] for start in range(0, len(log_mel), sizes.frames)]


def flat_tokens(state: Mapping[str, Tensor], sizes: Official, log_mel: Tensor) -> Tensor:
    """(T, mels) -> (N, D), frequency-major in each piece, without class token."""
    return torch.cat([encode_piece(state, sizes, piece)[-1][1:] for piece in pieces_of(sizes, log_mel)])


def stacked_frames(state: Mapping[str, Tensor], sizes: Official, log_mel: Tensor) -> Tensor:
    """(T, mels) -> (columns, bands * D)."""
    bands, frames = sizes.grid[0], []
    for piece in pieces_of(sizes, log_mel):
        tokens = encode_piece(state, sizes, piece)[-1][1:]
        frames.append(tokens.reshape(bands, -1, sizes.width).transpose(0, 1).flatten(1))
    return torch.cat(frames)


def project_audio(state: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Tokens (N, D) of a clip -> embedding (D,), not normalised."""
    if "audio_proj.sem_token" in state:
        tokens = torch.cat([state["audio_proj.sem_token"][0], tokens])
        depth = sum(key.endswith("norm1.weight") for key in state if key.startswith("audio_proj."))
        for index in range(depth):
            tokens = run_block(state, f"audio_proj.sem_blocks.{index}", tokens, 1, 1e-5)
        return normed(state, "audio_proj.norm", tokens[0], 1e-5)
    mean = tokens.mean(0)
    if "audio_proj.0.weight" not in state:
        return mean
    return dense(state, "audio_proj.2", dense(state, "audio_proj.0", mean).relu())


def project_text(state: Mapping[str, Tensor], text_embeddings: Tensor) -> Tensor:
    """(B, width of the text encoder) -> (B, D), not normalised."""
    if "text_proj.0.weight" in state:
        return dense(state, "text_proj.2", dense(state, "text_proj.0", text_embeddings).relu())
    return dense(state, "text_proj", text_embeddings) if "text_proj.weight" in state else text_embeddings


def bert_states(state: Mapping[str, Tensor], input_ids: Tensor) -> Tensor:
    """Token ids (L,) of one caption -> states (L, D); heads 64 wide."""
    words, places = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
    hidden = state[words][input_ids] + state[places][: len(input_ids)]
    hidden = normed(state, "embeddings.LayerNorm", hidden + state["embeddings.token_type_embeddings.weight"][0], 1e-12)
    count, width = hidden.shape
    for index in range(sum(key.endswith("intermediate.dense.weight") for key in state)):
        layer = f"encoder.layer.{index}"
        query, key, value = (
            dense(state, f"{layer}.attention.self.{name}", hidden).reshape(count, -1, 64).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        weights = (query @ key.transpose(1, 2) / 8).softmax(-1)
        mixed = dense(
            state, f"{layer}.attention.output.dense", (weights @ value).transpose(0, 1).reshape(count, width)
        )
        hidden = normed(state, f"{layer}.attention.output.LayerNorm", hidden + mixed, 1e-12)
        inner = F.gelu(dense(state, f"{layer}.intermediate.dense", hidden))
        hidden = normed(
            state, f"{layer}.output.LayerNorm", hidden + dense(state, f"{layer}.output.dense", inner), 1e-12
        )
    return hidden


def head_logits(state: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Clip features (D,) -> logits (C,)."""
    scale = (state["module.head.norm.running_var"] + 1e-5).sqrt()
    return dense(state, "module.head.mlp.mlp.0", (features - state["module.head.norm.running_mean"]) / scale)


def masked_predictions(
    state: Mapping[str, Tensor], sizes: Official, log_mel: Tensor, is_hidden: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """(predictions, targets) (M, D) at the hidden patches of one piece, in grid order; targets not standardised."""
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    image = F.conv2d(log_mel.T[None, None], weight, bias, stride=(sizes.patch_mels, sizes.patch_frames))
    tokens = image[0].flatten(1).T + state["pos_embed"][0, 1:]
    first = state["cls_token"][0] + state["pos_embed"][0, :1]
    seen, target = torch.cat([first, tokens[~is_hidden]]), torch.cat([first, tokens[is_hidden]])
    for index in range(sizes.depth):
        seen = run_block(state, f"blocks.{index}", seen, sizes.heads, 1e-6)
        target = run_block(state, f"target_blocks.{index}", target, sizes.heads, 1e-6)
    latent = dense(state, "decoder_embed", normed(state, "norm", seen, 1e-6))
    target = normed(state, "target_norm", target, 1e-6)[1:]
    full = state["mask_token"][0].repeat(1 + len(tokens), 1)
    full[torch.cat([torch.tensor([False]), is_hidden]).logical_not()] = latent
    full = full + state["decoder_pos_embed"][0]
    for index in range(sum(key.endswith("norm1.weight") for key in state if key.startswith("decoder_blocks."))):
        full = run_block(state, f"decoder_blocks.{index}", full, heads, 1e-6)
    predicted = dense(state, "decoder_pred", normed(state, "decoder_norm", full, 1e-6))
    return predicted[1:][is_hidden], target


@dataclass(frozen=True)
class RecordedCase:
    """A model whose outputs the official runtime gave once, see `record_m2d_official.py`."""

    folder: str
    sizes: Official
    state: StateDict
    sampling_rate: int = 16000
    num_classes: int | None = None


def recorded_case(name: str) -> RecordedCase:
    """The models of `m2d_official_outputs.json`; they are built again from their names."""
    small, real = Official(), Official(width=768, depth=12, mlp=3072, frames=1001)
    fine, wide = Official(frames=40, patch_frames=4), Official(frames=100, patch_mels=80, patch_frames=2)
    encoder = encoder_state(small)
    final = {
        "small": (small, 128, bert_state()),
        "real": (real, 768, bert_state(width=768, depth=1)),
    }
    if name.startswith("final"):
        sizes, width, bert = final[name.removeprefix("final_")]
        backbone = encoder_state(sizes) | statistics_state() | transformer_projector_state(width, width)
        bert.pop("embeddings.position_ids")
        folder = f"m2d_clap_vit_base-80x{sizes.frames}p16x16p16kpBpTI-2025"
        return RecordedCase(folder, sizes, stage_2_state(backbone, bert))
    clap = encoder | logit_scale_state() | mlp_state("audio_proj", 128, 128, 128)
    tuned = fine_tuned_state(encoder, 640)
    return {
        "encoder": RecordedCase("m2d_vit_base-80x100p16x16-221006-mr7_enconly", small, encoder),
        "fine_time": RecordedCase("m2d_vit_base-80x40p16x4-230529", fine, encoder_state(fine)),
        "speech": RecordedCase("m2d_s_vit_base-80x100p80x2-230220", wide, encoder_state(wide)),
        "high_rate": RecordedCase(
            "m2d_as_vit_base-80x100p16x16p32k-240413", small, encoder | statistics_state(-6.4, 4.05), 32000
        ),
        "clap_2024": RecordedCase("m2d_clap_vit_base-80x100p16x16-240128", small, clap),
        "tagger": RecordedCase("m2d_vit_base-80x100p16x16-221006-mr7_as", small, tuned, num_classes=7),
    }[name]


def chirp(seconds: float, sampling_rate: int) -> Tensor:
    """(S,) a rising tone with a swelling noise."""
    time = np.arange(round(seconds * sampling_rate)) / sampling_rate
    noise = hashed(f"noise {seconds}", len(time)).numpy()
    tone = 0.3 * np.sin(2 * np.pi * (200 + 400 * time) * time) * np.cos(3 * time)
    return torch.from_numpy((tone + 0.1 * noise * time / seconds).astype(np.float32))


def some_log_mel(num_frames: int = 131) -> Tensor:
    """(T, 80) numbers in the place of a normalised log-mel; more frames than the small tables, not whole patches."""
    return 1.5 * hashed("log-mel", num_frames, 80)


def sampled(values: Tensor, count: int = 6) -> list[float]:
    """A few values, evenly spread over a tensor, to six decimals."""
    flat = values.flatten()
    return [round(value, 6) for value in flat[:: max(1, len(flat) // count)][:count].tolist()]
