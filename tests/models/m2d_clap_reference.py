# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""M2D and M2D-CLAP written a second time, clip by clip with plain loops, from the papers' text alone.

It shares nothing with the package but the names of the weights: `weights` is a state dict, and gradients flow to its
tensors. A grid is (bands, columns, D): frequency patches by time patches, in time order over all chunks.
"""

import math

import torch
from torch import Tensor


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights below `prefix`, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in weights.items() if name.startswith(f"{prefix}.")}


def weights_of(model: torch.nn.Module, trains: bool = False) -> dict[str, Tensor]:
    """Copies of a model's parameters and buffers; with `trains`, of the same `requires_grad`."""
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, value in model.named_parameters():
        weights[name].requires_grad_(trains and value.requires_grad)
    return weights


def stir(model: torch.nn.Module, scale: float = 0.1) -> torch.nn.Module:
    """The model with every weight and table moved at random, so that each of them matters."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(scale * torch.randn(value.shape, generator=generator).to(value.dtype))
    return model


# encoder


def sincos_table(hidden_size: int, bands: int, columns: int) -> Tensor:
    """Fixed positions: the first half of the channels tells the time, the second the frequency; row 0 is zero."""
    rows = [[0.0] * hidden_size]
    quarter = hidden_size // 4
    for band in range(bands):
        for column in range(columns):
            row = []
            for place in (column, band):
                angles = [place * 10000.0 ** (-pair / quarter) for pair in range(quarter)]
                row += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
            rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def chunks_of(config, clip: Tensor) -> list[Tensor]:
    """Pieces of at most `max_frames` frames, cut or zero-padded to whole patches: (columns * patch_frames, mel)."""
    pieces = []
    for start in range(0, len(clip), config.max_frames):
        piece = clip[start : start + config.max_frames]
        columns = min(math.ceil(len(piece) / config.patch_frames), config.max_frames // config.patch_frames)
        whole = clip.new_zeros(columns * config.patch_frames, clip.shape[1])
        length = min(len(whole), len(piece))
        whole[:length] = piece[:length]
        pieces.append(whole)
    return pieces


def patch_grid(config, weights: dict[str, Tensor], chunk: Tensor) -> Tensor:
    """Patch embeddings plus positions of one chunk."""
    height, width = config.patch_mel_bins, config.patch_frames
    table = weights["embeddings.position_embeddings"]
    table_columns = config.max_frames // width
    bands = []
    for band in range(config.num_mel_bins // height):
        row = []
        for column in range(len(chunk) // width):
            tile = chunk[column * width : (column + 1) * width, band * height : (band + 1) * height]
            value = weights["embeddings.patch_proj.bias"].clone()
            value = value + weights["embeddings.patch_proj.weight"] @ tile.reshape(-1)  # frames are the rows
            row.append(value + table[1 + band * table_columns + column])
        bands.append(torch.stack(row))
    return torch.stack(bands)


def class_token(weights: dict[str, Tensor]) -> Tensor:
    """What stands before the patches: (1, D)."""
    return (weights["embeddings.class_token"] + weights["embeddings.position_embeddings"][0]).unsqueeze(0)


def layer_norm(weights: dict[str, Tensor], tokens: Tensor, eps: float) -> Tensor:
    centred = tokens - tokens.mean(-1, keepdim=True)
    spread = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(spread + eps) * weights["weight"] + weights["bias"]


def linear(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    return tokens @ weights["weight"].T + weights["bias"]


def attention_shares(weights: dict[str, Tensor], tokens: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Softmax of one attention layer (heads, N, N) and its values (heads, N, D / heads)."""
    size = tokens.shape[-1] // num_heads
    query, key, value = (linear(part(weights, f"{name}_proj"), tokens).split(size, dim=-1) for name in "qkv")
    shares = [(q @ k.T / math.sqrt(size)).softmax(-1) for q, k in zip(query, key, strict=True)]
    return torch.stack(shares), torch.stack(value)


def block(weights: dict[str, Tensor], tokens: Tensor, num_heads: int, eps: float) -> Tensor:
    """One pre-norm transformer layer: (N, D) -> (N, D)."""
    normed = layer_norm(part(weights, "attn_norm"), tokens, eps)
    shares, value = attention_shares(part(weights, "attn"), normed, num_heads)
    mixed = torch.cat([s @ v for s, v in zip(shares, value, strict=True)], dim=-1)
    tokens = tokens + linear(part(weights, "attn.o_proj"), mixed)
    inner = linear(part(weights, "mlp.fc1"), layer_norm(part(weights, "mlp_norm"), tokens, eps))
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return tokens + linear(part(weights, "mlp.fc2"), inner)


def encode(config, weights: dict[str, Tensor], tokens: Tensor) -> list[Tensor]:
    """States of [class token, tokens] before each layer and after the last norm, the class token taken out."""
    states = [torch.cat([class_token(weights), tokens])]
    for layer in range(config.num_hidden_layers):
        states.append(
            block(part(weights, f"layers.{layer}"), states[-1], config.num_attention_heads, config.layer_norm_eps)
        )
    states[-1] = layer_norm(part(weights, "norm"), states[-1], config.layer_norm_eps)
    return [state[1:] for state in states]


def encoder_grids(config, weights: dict[str, Tensor], clip: Tensor) -> list[Tensor]:
    """Grids before each layer and after the last norm of a clip of any length; chunks are encoded apart."""
    per_chunk = []
    for chunk in chunks_of(config, clip):
        grid = patch_grid(config, weights, chunk)
        states = encode(config, weights, grid.flatten(0, 1))
        per_chunk.append([state.view(grid.shape) for state in states])
    return [torch.cat(grids, dim=1) for grids in zip(*per_chunk, strict=True)]


def token_order(config, grid: Tensor) -> Tensor:
    """Tokens (N, D) of a grid: chunk after chunk, frequency-major within each."""
    chunks = grid.split(config.max_frames // config.patch_frames, dim=1)
    return torch.cat([chunk.flatten(0, 1) for chunk in chunks])


def frame_features(grid: Tensor) -> Tensor:
    """M2D-CLAP Eq. 2: (columns, bands * D), the bands of one time column side by side, lowest first."""
    return torch.stack([torch.cat(list(grid[:, column])) for column in range(grid.shape[1])])


# projections


def project_audio(config, weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Tokens to one vector, not normalised: (N, D) -> (D,)."""
    if config.projector_type == "mean":
        return tokens.mean(0)
    if config.projector_type == "mlp":
        return relu_mlp(part(weights, "projector"), tokens.mean(0))
    states = torch.cat([weights["projector.semantic_token"], tokens])
    for layer in range(config.num_hidden_layers):
        weights_of_layer = part(weights, f"projector.layers.{layer}")
        states = block(weights_of_layer, states, config.num_attention_heads, config.layer_norm_eps)
    return layer_norm(part(weights, "projector.norm"), states[0], config.layer_norm_eps)


def relu_mlp(weights: dict[str, Tensor], values: Tensor) -> Tensor:
    return linear(part(weights, "fc2"), linear(part(weights, "fc1"), values).clamp(min=0))


def semantic_attention(config, weights: dict[str, Tensor], grid: Tensor) -> Tensor:
    """Attention of the semantic token over the patches in the first layer, itself taken out: (bands, columns)."""
    states = torch.cat([weights["projector.semantic_token"], grid.flatten(0, 1)])
    weights = part(weights, "projector.layers.0")
    normed = layer_norm(part(weights, "attn_norm"), states, config.layer_norm_eps)
    shares, _ = attention_shares(part(weights, "attn"), normed, 1)
    return (shares[0, 0, 1:] / shares[0, 0, 1:].sum()).view(grid.shape[:2])


def project_text(kind: str, weights: dict[str, Tensor], embeddings: Tensor) -> Tensor:
    """Caption embeddings to the audio's width, not normalised: (B, E) -> (B, D)."""
    if kind == "none":
        return embeddings
    return linear(weights, embeddings) if kind == "linear" else relu_mlp(weights, embeddings)


def unit(values: Tensor) -> Tensor:
    return values / values.norm(dim=-1, keepdim=True)


def contrastive(audio: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """Eq. 3-4, pair by pair."""
    scores = scale * unit(audio) @ unit(text).T
    total = 0.0
    for pair in range(len(scores)):
        total = total - scores[pair].log_softmax(0)[pair] - scores[:, pair].log_softmax(0)[pair]
    return total / (2 * len(scores))


# masked prediction


def predict(config, weights: dict[str, Tensor], visible: Tensor, masked: Tensor, columns: int) -> Tensor:
    """Predictions at the masked places: states [class token, visible tokens] and (N,) masked -> (masked, D).

    `config` is that of the system; N is bands * columns, frequency-major.
    """
    table_columns = config.audio_config.max_frames // config.audio_config.patch_frames
    small = linear(part(weights, "in_proj"), visible)
    sequence, following = [small[0] + weights["position_embeddings"][0]], iter(small[1:])
    for place, is_masked in enumerate(masked.tolist()):
        band, column = divmod(place, columns)
        token = weights["mask_token"] if is_masked else next(following)
        sequence.append(token + weights["position_embeddings"][1 + band * table_columns + column])
    states = torch.stack(sequence)
    eps = config.audio_config.layer_norm_eps
    for layer in range(config.predictor_num_layers):
        states = block(part(weights, f"layers.{layer}"), states, config.predictor_num_heads, eps)
    states = layer_norm(part(weights, "norm"), states, eps)
    return linear(part(weights, "out_proj"), states)[1:][masked]


def standardise(target: Tensor) -> Tensor:
    """Zero mean and unit variance over the channels of each token; the variance is the unbiased one."""
    centred = target - target.mean(-1, keepdim=True)
    variance = (centred**2).sum(-1, keepdim=True) / (target.shape[-1] - 1)
    return centred / torch.sqrt(variance + 1e-6)


def regression(kind: str, prediction: Tensor, target: Tensor) -> Tensor:
    """Eq. 1 token by token: (masked, D) twice -> (masked,)."""
    if kind == "mse":
        return ((prediction - target) ** 2).mean(-1)
    return 2 - 2 * (unit(prediction) * unit(target)).sum(-1)


def masked_step(config, weights: dict[str, Tensor], clip: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
    """One clip of at most one chunk through both networks.

    Args:
        config: of the system.
        weights: state dict of the pre-training class.
        clip: (frames, mel) real frames.
        masked: (N,) bool, True = hidden from the online network; frequency-major on this clip's own grid.

    Returns:
        Final states of the visible tokens (visible, D), and the loss of each masked token (masked,).
    """
    audio = config.audio_config
    encoder = part(weights, "m2d_clap.audio_model")
    grid = patch_grid(audio, encoder, chunks_of(audio, clip)[0])
    tokens = grid.flatten(0, 1)
    online = _run(audio, encoder, part(encoder, "norm"), class_token(encoder), tokens[~masked])
    if config.masked_weight == 0:
        return online[1:], tokens.new_zeros(0)
    predicted = predict(config, part(weights, "predictor"), online, masked, grid.shape[1])
    teacher = {f"layers.{name}": value for name, value in part(weights, "teacher_layers").items()}
    with torch.no_grad():
        target = _run(audio, teacher, part(weights, "teacher_norm"), class_token(encoder), tokens[masked])[1:]
        target = standardise(target)
    return online[1:], regression(config.masked_loss, predicted, target)


def _run(config, weights, norm, first, tokens):
    states = torch.cat([first, tokens])
    for layer in range(config.num_hidden_layers):
        states = block(part(weights, f"layers.{layer}"), states, config.num_attention_heads, config.layer_norm_eps)
    return layer_norm(norm, states, config.layer_norm_eps)


def pretraining_terms(config, weights: dict[str, Tensor], clips: list[Tensor], masked: list[Tensor], text) -> dict:
    """Loss and its terms on a batch: Eq. 1 averaged over all masked tokens of the batch, Eq. 3-4 on visible tokens.

    Args:
        masked: per clip, (N,) on its own grid.
        text: (B, text_embedding_size) caption embeddings before the text projection; None without contrastive term.
    """
    steps = [masked_step(config, weights, clip, hidden) for clip, hidden in zip(clips, masked, strict=True)]
    visible, losses = zip(*steps, strict=True)
    terms = {}
    if config.masked_weight:
        terms["masked"] = torch.cat(losses).mean()
    if config.contrastive_weight:
        projector = part(weights, "m2d_clap.audio_projection")
        audio = torch.stack([project_audio(config.projector_config, projector, tokens) for tokens in visible])
        text = project_text(config.text_projector, part(weights, "m2d_clap.text_projection"), text)
        terms["contrastive"] = contrastive(audio, text, weights["m2d_clap.logit_scale.log_scale"].exp())
        terms["audio"], terms["text"] = unit(audio), unit(text)
    terms["loss"] = sum(getattr(config, f"{n}_weight") * terms[n] for n in ("masked", "contrastive") if n in terms)
    return terms


def follow(teacher: Tensor, online: Tensor, decay: float) -> Tensor:
    """The teacher after one update."""
    return decay * teacher + (1 - decay) * online
