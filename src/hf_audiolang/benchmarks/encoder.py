# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""The M2D encoder at base width on clips of 6.08 s: beside timm's and AST's ViT, and masked beside dense.

The official encoder is timm's VisionTransformer. Peers get our weights, and their outputs must equal ours. AST has a
second leading token, which is taken out after its embedding. timm is optional: without it the case is left out.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from transformers import ASTConfig, ASTModel

from hf_audiolang.benchmarks.runner import Case, register_suite
from hf_audiolang.models.configuration_m2d_clap_audio import M2dClapAudioConfig
from hf_audiolang.models.modeling_m2d_clap_audio import M2dClapAudioModel

UNIT = "audio-s"
VISIBLE = 0.3  # M2D-CLAP IV-A2a: masking ratio 0.7
NUM_CLIPS = 4
DENSE_GOAL = 0.95  # a plain ViT in float32 runs at the speed of its matrix products: parity is what there is to reach
MASKED_GOAL = 2.7  # of 3.3, which dropping 70 % of the tokens can give at most
TINY = {"hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 64}


@register_suite("encoder", rounds=5)
def encoder(device: str = "cpu", is_tiny: bool = False) -> list[Case]:
    """Cases dense forward against timm and AST, and masked against dense, forward + backward; float32.

    Args:
        device: `"cpu"` or `"cuda"`.
        is_tiny: two clips of 1.28 s through a narrow encoder of two layers.
    """
    model = _encoder(device, is_tiny)
    features = _clips(model.config, 2 if is_tiny else NUM_CLIPS, device)
    seconds = features.shape[0] * features.shape[1] / model.config.feature_frame_rate_hz
    return [_beside_timm(model, features, seconds), _beside_ast(model, features, seconds), _masked(model, features)]


def _encoder(device: str, is_tiny: bool) -> M2dClapAudioModel:
    torch.manual_seed(0)
    config = M2dClapAudioConfig(**TINY, num_hidden_layers=2, max_frames=128) if is_tiny else M2dClapAudioConfig()
    model = M2dClapAudioModel(config)
    with torch.no_grad():
        for parameter in model.parameters():  # fresh biases are 0 and fresh norms 1: mix-ups would not show
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.to(device).eval()


def _clips(config: M2dClapAudioConfig, num_clips: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_clips, config.max_frames, config.num_mel_bins, generator=generator).to(device)


def _beside_timm(model: M2dClapAudioModel, features: Tensor, seconds: float) -> Case:
    name = "timm VisionTransformer, dense forward"
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError:
        return Case(name, skipped="timm is not installed")
    config = model.config
    peer = VisionTransformer(
        img_size=(config.num_mel_bins, config.max_frames),
        patch_size=(config.patch_mel_bins, config.patch_frames),
        in_chans=1,
        num_classes=0,
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size,
        norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
    )
    peer.load_state_dict(timm_weights(model))
    peer = peer.to(features.device).eval()

    def forward() -> Tensor:
        with torch.no_grad():
            return peer.forward_features(features.transpose(1, 2).unsqueeze(1))[:, 1:]

    return _dense_case(name, model, features, seconds, forward)


def _beside_ast(model: M2dClapAudioModel, features: Tensor, seconds: float) -> Case:
    config = model.config
    numbers = {
        name: getattr(config, name)
        for name in (
            "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps",
            "num_mel_bins",
        )
    }  # fmt: skip
    strides = {"frequency_stride": config.patch_mel_bins, "time_stride": config.patch_frames}
    ast = ASTModel(ASTConfig(**numbers, **strides, patch_size=config.patch_frames, max_length=config.max_frames))
    ast.load_state_dict(ast_weights(model))
    ast = ast.to(features.device).eval()
    # class, distillation, patches -> class, patches
    ast.embeddings.register_forward_hook(lambda module, inputs, tokens: torch.cat([tokens[:, :1], tokens[:, 2:]], 1))

    def forward() -> Tensor:
        with torch.no_grad():
            return ast(features).last_hidden_state[:, 1:]

    return _dense_case("transformers ASTModel, dense forward", model, features, seconds, forward)


def _dense_case(
    name: str, model: M2dClapAudioModel, features: Tensor, seconds: float, peer: Callable[[], Tensor]
) -> Case:
    def ours() -> Tensor:
        with torch.no_grad():
            return model(features).last_hidden_state

    return Case(name, seconds, UNIT, ours, peer, _relative_difference, tolerance=1e-5, goal=DENSE_GOAL)


def _masked(model: M2dClapAudioModel, features: Tensor) -> Case:
    """Ours on a random 30 % of the patches beside ours on all of them."""
    config = model.config
    num_tokens = config.num_frequency_patches * config.num_time_patches
    order = torch.rand(len(features), num_tokens, generator=torch.Generator().manual_seed(1)).argsort(1)
    masked_positions = (order >= int(VISIBLE * num_tokens)).to(features.device)

    def step(hidden: Tensor | None) -> Callable[[], Tensor]:
        def call() -> Tensor:
            model.zero_grad()
            tokens, _ = model.encode(features, masked_positions=hidden)
            tokens.square().mean().backward()
            return tokens.detach()

        return call

    return Case(
        f"ours dense, fwd + bwd (ours: {VISIBLE:.0%} visible)",
        len(features) * config.max_frames / config.feature_frame_rate_hz,
        UNIT,
        step(masked_positions),
        step(None),
        # The two see different patches. Instead: hiding all columns but the first is the same as a shorter clip.
        lambda ours, peer: _masked_difference(model, features),
        tolerance=1e-5,
        goal=MASKED_GOAL,
        notes={"layers": config.num_hidden_layers, "visible patches of a clip": int(VISIBLE * num_tokens)},
    )


def _masked_difference(model: M2dClapAudioModel, features: Tensor) -> float:
    """Relative difference of the first columns of clips, all others hidden, from the clips cut after them."""
    config = model.config
    columns = max(1, int(VISIBLE * config.num_time_patches))
    position = torch.arange(config.num_frequency_patches * config.num_time_patches, device=features.device)
    hidden = (position % config.num_time_patches >= columns).expand(len(features), -1)
    with torch.no_grad():
        masked, _ = model.encode(features, masked_positions=hidden)
        short, _ = model.encode(features[:, : columns * config.patch_frames])
    return _relative_difference(masked, short)


def timm_weights(model: M2dClapAudioModel) -> dict[str, Tensor]:
    """State of timm's VisionTransformer with the weights of ours."""
    state = {
        "cls_token": model.embeddings.class_token[None, None],
        "pos_embed": model.embeddings.position_embeddings[None],
        "patch_embed.proj.weight": _patch_kernel(model),
        "patch_embed.proj.bias": model.embeddings.patch_proj.bias,
    }
    for index, layer in enumerate(model.layers):
        block = f"blocks.{index}."
        for kind in ("weight", "bias"):
            qkv = [getattr(getattr(layer.attn, f"{part}_proj"), kind) for part in "qkv"]
            state[f"{block}attn.qkv.{kind}"] = torch.cat(qkv)
            state[f"{block}attn.proj.{kind}"] = getattr(layer.attn.o_proj, kind)
            state[f"{block}mlp.fc1.{kind}"] = getattr(layer.mlp.fc1, kind)
            state[f"{block}mlp.fc2.{kind}"] = getattr(layer.mlp.fc2, kind)
            state[f"{block}norm1.{kind}"] = getattr(layer.attn_norm, kind)
            state[f"{block}norm2.{kind}"] = getattr(layer.mlp_norm, kind)
    return state | {f"norm.{kind}": getattr(model.norm, kind) for kind in ("weight", "bias")}


def ast_weights(model: M2dClapAudioModel) -> dict[str, Tensor]:
    """State of transformers' ASTModel with the weights of ours and zeros for its distillation token."""
    positions, nothing = model.embeddings.position_embeddings, torch.zeros_like(model.embeddings.class_token)
    state = {
        "embeddings.cls_token": model.embeddings.class_token[None, None],
        "embeddings.distillation_token": nothing[None, None],
        "embeddings.position_embeddings": torch.cat([positions[:1], nothing[None], positions[1:]])[None],
        "embeddings.patch_embeddings.projection.weight": _patch_kernel(model),
        "embeddings.patch_embeddings.projection.bias": model.embeddings.patch_proj.bias,
    }
    for index, layer in enumerate(model.layers):
        block = f"layers.{index}."
        for kind in ("weight", "bias"):
            for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
                state[f"{block}attention.{part}.{kind}"] = getattr(getattr(layer.attn, part), kind)
            state[f"{block}mlp.fc1.{kind}"] = getattr(layer.mlp.fc1, kind)
            state[f"{block}mlp.fc2.{kind}"] = getattr(layer.mlp.fc2, kind)
            state[f"{block}layernorm_before.{kind}"] = getattr(layer.attn_norm, kind)
            state[f"{block}layernorm_after.{kind}"] = getattr(layer.mlp_norm, kind)
    return state | {f"layernorm.{kind}": getattr(model.norm, kind) for kind in ("weight", "bias")}


def _patch_kernel(model: M2dClapAudioModel) -> Tensor:
    """Our projection (D, frames * mel bins) as the kernel (D, 1, mel bins, frames) of a convolution."""
    config = model.config
    weight = model.embeddings.patch_proj.weight
    return weight.unflatten(1, (config.patch_frames, config.patch_mel_bins)).transpose(1, 2).unsqueeze(1)


def _relative_difference(ours: Tensor, peer: Tensor) -> float:
    """Largest difference, relative to the largest value; packed and padded forms of equal clips are the same."""
    peer = peer.reshape(ours.shape)
    return float((ours - peer).abs().max() / peer.abs().max())


__all__ = ["ast_weights", "encoder", "timm_weights"]
