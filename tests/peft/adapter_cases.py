# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Every public class that can be adapted, as a tiny model, with the number of layers that LoRA is expected to find."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from tiny import (
    CLIP_FRAMES,
    tiny_ast_config,
    tiny_batch,
    tiny_captionstew_config,
    tiny_captionstew_decoder_config,
    tiny_decoder_config,
    tiny_htsat_config,
    tiny_m2d_clap_audio_config,
    tiny_m2d_clap_config,
    tiny_mga_clap_config,
    tiny_slap_audio_config,
    tiny_slap_config,
    tiny_whisper_config,
    tiny_zipformer_config,
)
from transformers import PreTrainedConfig, PreTrainedModel

from hf_audiolang import (
    AudioProjector,
    AudioProjectorConfig,
    CaptionStewConfig,
    CaptionStewForConditionalGeneration,
    CaptionStewModel,
    HtsatConfig,
    HtsatModel,
    M2dClapAudioConfig,
    M2dClapAudioModel,
    M2dClapConfig,
    M2dClapModel,
    MgaClapConfig,
    MgaClapModel,
    NativeAudioConfig,
    NativeAudioModel,
    SlapAudioConfig,
    SlapAudioModel,
    SlapConfig,
    SlapForConditionalGeneration,
    SlapModel,
    ZipformerConfig,
    ZipformerModel,
)
from hf_audiolang.models import modeling_audio_classification as heads

NUM_CLASSES = 3
RETRIEVAL_HEADS = {"audio_projection", "text_projection", "logit_scale"}


def mga_clap_config() -> MgaClapConfig:
    return tiny_mga_clap_config(affinity_divisor=50.0)


def projector_config() -> AudioProjectorConfig:
    return AudioProjectorConfig(hidden_size=24, intermediate_size=32, num_attention_heads=3, num_hidden_layers=2)


def slap_captioner_config() -> SlapConfig:
    return tiny_slap_config(caption_weight=0.5)


def bart_captioner_config() -> CaptionStewConfig:
    decoder = tiny_captionstew_decoder_config(decoder_type="bart", norm_position="post", tie_word_embeddings=True)
    return tiny_captionstew_config(text_config=None, contrastive_weight=0.0, decoder_config=decoder)


@dataclass(frozen=True)
class Case:
    """A class, its tiny configuration, and what is expected of adapters on it.

    `num_layers` is counted by hand: layers x projections. `heads` are the parts trained in full.
    """

    model_class: type[PreTrainedModel]
    make_config: Callable[[], PreTrainedConfig]
    num_layers: int
    heads: set[str] = field(default_factory=set)
    num_dead: int = 0  # layers with such a name that the forward pass does not read

    def make_model(self) -> PreTrainedModel:
        torch.manual_seed(3)
        config = self.make_config()
        if "classifier" in self.heads:
            config.id2label = {index: f"class {index}" for index in range(NUM_CLASSES)}
            config.label2id = {name: index for index, name in config.id2label.items()}
        return self.model_class(config).eval()

    def inputs(self, model: PreTrainedModel) -> dict[str, torch.Tensor]:
        if self.model_class is AudioProjector:
            return {"hidden_states": torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(1))}
        batch = tiny_batch(model.config, seed=1)
        audio = {name: value for name, value in batch.items() if name.startswith("input_features")}
        if self.model_class.__name__.endswith("ForAudioClassification"):
            return {**audio, "labels": torch.arange(len(CLIP_FRAMES)) % NUM_CLASSES}
        if self.model_class.__name__.endswith("ForAudioFrameClassification"):
            return {
                **audio,
                "labels": torch.arange(audio["input_features_mask"].numel()).view(len(CLIP_FRAMES), -1) % 3,
            }
        if model.can_generate():
            return {**audio, "labels": batch["labels"]}
        if "input_ids" in batch:
            return {name: value for name, value in batch.items() if name != "labels"} | {"return_loss": True}
        return audio

    def run(self, model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss, main output)."""
        torch.manual_seed(5)
        output = model(**self.inputs(model))
        names = ("logits_per_audio", "logits", "last_hidden_state", "pooler_output")
        main = next(output[name] for name in names if output.get(name) is not None)
        loss = output.get("loss")
        weights = torch.linspace(-1, 1, main.numel()).view(main.shape)
        return (main * weights).sum() if loss is None else loss, main


ENCODERS = {  # configuration class -> (model, tiny configuration, layers x projections of attention)
    HtsatConfig: (HtsatModel, tiny_htsat_config, 4 * 4),
    M2dClapAudioConfig: (M2dClapAudioModel, tiny_m2d_clap_audio_config, 3 * 4),
    NativeAudioConfig: (NativeAudioModel, tiny_ast_config, 3 * 4),
    SlapAudioConfig: (SlapAudioModel, tiny_slap_audio_config, 3 * 4),
    ZipformerConfig: (ZipformerModel, tiny_zipformer_config, 4 * 7),
}
SYSTEMS = {  # configuration class -> (model, configuration, layers of the audio and of the text tower, pooling, dead)
    CaptionStewConfig: (
        CaptionStewModel,
        tiny_captionstew_config,
        3 * 4,
        2 * 4,
        {"audio_projection", "text_projection"},
        0,
    ),
    M2dClapConfig: (M2dClapModel, tiny_m2d_clap_config, 3 * 4, 2 * 4, RETRIEVAL_HEADS, 0),
    # the last of HTS-AT's four blocks reads neither queries nor keys
    MgaClapConfig: (MgaClapModel, mga_clap_config, 4 * 4 - 2, 2 * 4, RETRIEVAL_HEADS, 2),
    SlapConfig: (SlapModel, tiny_slap_config, 3 * 4, 2 * 2, RETRIEVAL_HEADS | {"audio_pooling", "text_pooling"}, 0),
}


def all_cases() -> list[Case]:
    """Encoders, systems, heads on both, captioners; each kind of tower in some system."""
    cases = [Case(*numbers) for numbers in ENCODERS.values()]
    cases.append(Case(NativeAudioModel, tiny_whisper_config, 2 * 4))
    cases.append(Case(NativeAudioModel, lambda: tiny_ast_config(locality_blocks=1), 3 * 4 - 2, num_dead=2))
    cases.append(Case(AudioProjector, projector_config, 2 * 4))
    for model_class, make_config, audio, text, parts, dead in SYSTEMS.values():
        cases.append(Case(model_class, make_config, audio + text, parts, dead))
    for kind in ("ForAudioClassification", "ForAudioFrameClassification"):
        for model_class, make_config, number in ENCODERS.values():
            head_class = getattr(heads, model_class.__name__.removesuffix("Model") + kind)
            cases.append(Case(head_class, make_config, number, {"classifier"}))
        for model_class, make_config, number, _, _, dead in SYSTEMS.values():
            head_class = getattr(heads, model_class.__name__.removesuffix("Model") + kind)
            cases.append(Case(head_class, make_config, number, {"classifier"}, dead))
    decoder = 2 * 8  # self-attention and cross-attention
    cases.append(Case(SlapForConditionalGeneration, slap_captioner_config, 3 * 4 + decoder, num_dead=2 * 2))
    projection = {"encoder_projection"}
    cases.append(
        Case(CaptionStewForConditionalGeneration, tiny_captionstew_config, 3 * 4 + decoder, projection, 2 * 4)
    )
    cases.append(Case(CaptionStewForConditionalGeneration, bart_captioner_config, 3 * 4 + decoder, projection))
    towers = {"audio_config": tiny_zipformer_config()}
    parts = {"audio_projection", "text_projection"}
    cases.append(Case(CaptionStewModel, lambda: tiny_captionstew_config(**towers), 4 * 7 + 2 * 4, parts))
    return cases


CASES = {f"{number}-{case.model_class.__name__}": case for number, case in enumerate(all_cases())}
DECODER_CONFIG = tiny_decoder_config
