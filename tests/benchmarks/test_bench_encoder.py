"""The encoder suite: peers really run our weights, the masked case really drops tokens, timm is optional."""

import sys

import pytest
import torch
import torch.nn.functional as F

from hf_audiolang.benchmarks import run_suite
from hf_audiolang.benchmarks.encoder import encoder, timm_weights
from hf_audiolang.models.configuration_m2d_clap_audio import M2dClapAudioConfig
from hf_audiolang.models.modeling_m2d_clap_audio import M2dClapAudioModel

MODULE = "hf_audiolang.benchmarks.encoder"


@pytest.fixture
def without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models.vision_transformer", None)


def test_suite_agrees_with_its_peer_and_says_what_is_missing(without_timm):
    report = run_suite("encoder", rounds=1, is_tiny=True)
    timm, ast, masked = report["cases"]
    assert timm == {"name": "timm VisionTransformer, dense forward", "skipped": "timm is not installed"}
    for case, goal in ((ast, 0.95), (masked, 2.7)):
        assert case["error"] < 1e-5
        assert case["ratio"]["median"] > 0
        assert case["goal"] == goal
        assert case["work"] == pytest.approx(2 * 1.28)  # seconds of audio
    assert masked["notes"] == {"layers": 2, "visible patches of a clip": 12}


def test_masked_step_computes_on_visible_patches_alone(without_timm):
    masked = encoder(is_tiny=True)[-1]
    assert len(masked.ours()) == 2 * 12  # of 5 x 8 patches, 30 %
    assert len(masked.peer()) == 2 * 40


def test_a_peer_with_other_weights_is_not_timed(without_timm, monkeypatch):
    original = sys.modules[MODULE].ast_weights

    def wrong(model):
        state = original(model)
        moved = 0.001 * (torch.arange(48) == 5)  # of one channel
        return state | {"layers.1.mlp.fc2.bias": state["layers.1.mlp.fc2.bias"] + moved}

    monkeypatch.setattr(f"{MODULE}.ast_weights", wrong)
    with pytest.raises(RuntimeError, match="`transformers ASTModel, dense forward` must agree to 1e-05"):
        run_suite("encoder", rounds=1, is_tiny=True)


def test_a_mask_that_hides_nothing_is_noticed(without_timm, monkeypatch):
    encode = M2dClapAudioModel.encode

    def leaky(self, features, mask=None, masked_positions=None, **kwargs):
        tokens, layout = encode(self, features, mask, masked_positions, **kwargs)
        return tokens + (0 if masked_positions is None else 1e-3 * features.mean()), layout

    masked = encoder(is_tiny=True)[-1]
    assert masked.error(None, None) < 1e-5
    monkeypatch.setattr(M2dClapAudioModel, "encode", leaky)
    assert masked.error(None, None) > 1e-6


def test_timm_weights_are_those_of_a_plain_vit():
    """timm's names, computed with torch functions alone."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    model = M2dClapAudioModel(M2dClapAudioConfig(**sizes, max_frames=48)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    state = timm_weights(model)
    features = torch.randn(2, 48, 80)

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    with torch.no_grad():
        image = features.transpose(1, 2).unsqueeze(1)  # (B, 1, mel bins, frames)
        patches = F.conv2d(image, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
        x = torch.cat([state["cls_token"].expand(2, -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        x = x + state["pos_embed"]
        for block in ("blocks.0", "blocks.1"):
            q, k, v = (
                linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").view(2, -1, 3, 3, 8).permute(2, 0, 3, 1, 4)
            )
            weights = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1)
            x = x + linear((weights @ v).transpose(1, 2).flatten(2), f"{block}.attn.proj")
            x = x + linear(F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
        ours = model(features).last_hidden_state
    torch.testing.assert_close(norm(x, "norm")[:, 1:], ours, rtol=1e-5, atol=1e-5)
