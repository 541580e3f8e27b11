# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Writes mga_official_outputs.json: what the authors' code computes for the models of `mga_official`.

    python tests/convert/record_mga_official.py FOLDER [small] [real]

FOLDER holds https://github.com/Ming-er/MGA-CLAP (recorded with its state of October 2024); names of models record
these alone. Needs the packages torchlibrosa 0.1.0, librosa 0.11.0 and ruamel.yaml 0.19.1; recorded with torch 2.14.1
and transformers 5.24.0 on a CPU. What the code imports for training and evaluation alone is stood in for by empty
modules. Its audio encoder has one size, its text encoder comes from the Hub and its sparsemax lives on a GPU: these
three are replaced from outside.
"""

import importlib.machinery
import json
import sys
import tempfile
import types
from pathlib import Path

import torch
from mga_official import (
    AUDIO,
    CAPTIONS,
    CASES,
    LONG_CAPTION,
    Official,
    log_mels,
    mga_state,
    padded,
    some_embeddings,
    spread,
    waveform,
    write_vocabulary,
)
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertTokenizer

SECONDS = (10, 7, 1.5)
NUM_FRAMES = (1001, 701, 151)
CLIP_IDS = {"distinct": [3, 1, 4, 0, 5], "repeated": [3, 1, 3, 0, 1]}
FIXED = ("audio_feats_extractor", "attn_mask", "relative_position_index")  # parts of keys that are no weights
OUTPUT = Path(__file__).with_name("mga_official_outputs.json")
CONFIG = {
    "embed_size": 1024,
    "temp": 0.07,
    "embed_regularization": True,
    "audio_args": {"sr": 32000, "n_fft": 1024, "hop_length": 320, "f_min": 50, "f_max": 14000, "n_mels": 64},
    "audio_encoder_args": {"type": "transformer", "model": "htsat", "pretrained": False, "freeze": False},
    "text_encoder_args": {"type": "bert-base-uncased", "freeze": False},
    "training": {"spec_augmentation": True},
}


def main(folder: str, *names: str) -> None:
    load_official(folder)
    recorded = json.loads(OUTPUT.read_text(encoding="utf-8")) if names else {}
    recorded["loss"] = record_loss()
    for name in names or CASES:
        recorded[name] = record_model(CASES[name])
    rows = [f'"{name}": {json.dumps(values)}' for name, values in recorded.items()]
    OUTPUT.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def load_official(folder: str) -> None:
    """Makes the authors' packages `models` and `tools` importable."""
    for name in ("wandb", "loguru", "sed_scores_eval", "sed_scores_eval.utils", "sed_scores_eval.utils.scores"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__getattr__ = lambda attribute: None
        sys.modules[name] = module
    sys.path.insert(0, folder)
    import models.ase_model

    models.ase_model.Sparsemax.forward.__defaults__ = ("cpu",)


def build_official(sizes: Official, vocabulary: Path) -> nn.Module:
    """The authors' model in these sizes, freshly initialised, nothing random in training."""
    import models.ase_model
    import models.audio_encoder
    import models.htsat
    import models.text_encoder

    def small_htsat(**kwargs):
        numbers = {"embed_dim": sizes.stem, "depths": list(sizes.depths), "num_heads": list(sizes.heads)}
        return models.htsat.HTSAT_Swin_Transformer(**(kwargs | numbers))

    def small_encoder(config):
        encoder = models.audio_encoder.AudioEncoder(config)
        encoder.audio_width = encoder.audio_enc.num_features
        return encoder

    bert = types.SimpleNamespace(from_pretrained=lambda name, **kwargs: BertModel(bert_config(sizes), **kwargs))
    tokenizer = types.SimpleNamespace(from_pretrained=lambda name: BertTokenizer.from_pretrained(vocabulary.parent))
    models.audio_encoder.HTSAT_Swin_Transformer = small_htsat
    models.ase_model.AudioEncoder = small_encoder
    models.text_encoder.MODELS["bert-base-uncased"] = (bert, tokenizer, sizes.text_width)
    model = models.ase_model.ASE(CONFIG | {"embed_size": sizes.shared})
    model.codebook = nn.Parameter(torch.randn(sizes.codewords, sizes.shared))
    model.audio_encoder.audio_enc.is_spec_augment = False
    for module in model.modules():
        if isinstance(module, models.htsat.DropPath):
            module.drop_prob = 0.0
    return model


def bert_config(sizes: Official) -> BertConfig:
    return BertConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.text_width,
        num_hidden_layers=sizes.text_depth,
        num_attention_heads=sizes.text_width // 64,
        intermediate_size=sizes.text_mlp,
        max_position_embeddings=sizes.positions,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def load_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads the computed weights, after a check that the computed rest is the authors'."""
    for key, value in model.state_dict().items():
        if any(part in key for part in FIXED):
            difference = (value - state[key]).abs().max().item()
            assert difference < 1e-6, f"{key} differs by {difference}"
    own = {key: value for key, value in model.state_dict().items() if "audio_feats_extractor" in key}
    assert set(model.state_dict()) == set(state)
    model.load_state_dict(state | own)  # the last bits of the front end are the authors'


def record_model(sizes: Official) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        model = build_official(sizes, write_vocabulary(Path(folder)))
    load_weights(model, mga_state(sizes))
    model.eval()
    clips = {str(seconds): waveform(seconds) for seconds in SECONDS}
    clips |= {f"{seconds} padded": padded(waveform(seconds)) for seconds in SECONDS[1:]}
    found = {"keys": len(model.state_dict()), "captions": captions_of(model), "clips": {}, "log_mels": {}}
    front_end = model.audio_encoder.audio_enc.audio_feats_extractor
    for name, clip in clips.items():
        found["clips"][name] = {"log_mel": spread(front_end(clip.unsqueeze(0)))} | clip_of(model, clip.unsqueeze(0))
    model.audio_encoder.audio_enc.audio_feats_extractor = nn.Identity()
    for num_frames in NUM_FRAMES:
        found["log_mels"][str(num_frames)] = clip_of(model, log_mels(num_frames).unsqueeze(1))
    found["objective"] = {mode: objective_of(model.double().train(mode == "train")) for mode in ("eval", "train")}
    return found


@torch.no_grad()
def clip_of(model: nn.Module, audio: Tensor) -> dict:
    frames = model.audio_encoder(audio)[1]
    _, embeds = model.encode_audio(audio)
    found = {"frames": spread(frames), "frame_embeds": spread(embeds)}
    text = list(CAPTIONS)
    _, words, mask = model.encode_text(text)
    captions = nn.functional.normalize(model.msc(words, model.codebook, mask), dim=-1)
    scores = nn.functional.normalize(embeds, dim=-1) @ captions.T
    return found | aggregated(model, embeds, None) | {"frame_scores": spread(scores)}


@torch.no_grad()
def captions_of(model: nn.Module) -> dict:
    texts = [*CAPTIONS, LONG_CAPTION]
    _, words, mask = model.encode_text(texts)
    states = model.text_encoder(texts)[0][:, 1:]
    found = {"words": spread(states), "word_embeds": spread(words), "num_words": mask.sum(1).tolist()}
    return found | {"num_tokens": words.shape[1]} | aggregated(model, words, mask)


def aggregated(model: nn.Module, features: Tensor, mask: Tensor | None) -> dict:
    """Codeword weights, how many are above zero, and the unit vectors."""
    pooled = model.msc(features, model.codebook, mask)
    weights = model.msc.attn_activation.output
    return {
        "active": (weights > 0).sum(1).tolist(),
        "weights": spread(weights.sort(dim=1, descending=True).values[:, : weights.shape[1] // 4]),
        "weights_in_place": spread(weights, 64),
        "embeds": spread(nn.functional.normalize(pooled, dim=-1), 48),
    }


def objective_of(model: nn.Module) -> dict:
    """Loss and gradients of five pairs, two of which show the same clip, in float64."""
    model.zero_grad()
    audio = log_mels(151, len(CAPTIONS)).unsqueeze(1).double()
    loss = model(audio, list(CAPTIONS), torch.tensor(CLIP_IDS["repeated"]))
    loss.backward()
    found = {"loss": loss.item(), "gradients": gradient_norms(model)}
    bn = model.audio_encoder.audio_enc.bn0
    return found | {"running_mean": spread(bn.running_mean), "running_var": spread(bn.running_var)}


def gradient_norms(model: nn.Module) -> dict[str, float | list[float] | None]:
    """By official name; None where nothing arrives; of query, key and value one by one."""
    norms: dict[str, float | list[float] | None] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or name.startswith((AUDIO + "tscam_conv", AUDIO + "head")):
            continue
        grad = parameter.grad
        if grad is None:
            norms[name] = None
        elif ".qkv." in name:
            norms[name] = [float(f"{part.norm().item():.6g}") for part in grad.chunk(3)]
        else:
            norms[name] = float(f"{grad.norm().item():.6g}")
    return norms


def record_loss() -> dict:
    """The loss alone on unit vectors, with its gradients, in float64."""
    from tools.losses import AudioTextContrastiveLoss_HN

    found = {}
    for name, ids in CLIP_IDS.items():
        audio, text = some_embeddings("audio").requires_grad_(), some_embeddings("text").requires_grad_()
        temperature = torch.tensor(0.09, dtype=torch.float64, requires_grad=True)
        is_pair = torch.eq(torch.tensor(ids).unsqueeze(1), torch.tensor(ids)).double()
        targets = is_pair / is_pair.sum(1, keepdim=True)
        loss = AudioTextContrastiveLoss_HN()(audio @ text.T / temperature, text @ audio.T / temperature, targets)
        loss.backward()
        found[name] = {
            "loss": loss.item(),
            "audio_gradient": audio.grad.flatten().tolist(),
            "text_gradient": text.grad.flatten().tolist(),
            "temperature_gradient": temperature.grad.item(),
        }
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
