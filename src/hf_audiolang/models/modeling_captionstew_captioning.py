# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""CaptionStew's captioning model, and the training of both objectives on one encoder (CaptionStew; authors' toolkit).

clip -> audio encoder -> frames -> encoder projection -> caption decoder -> caption loss
                           |-> CaptionStewModel: clip and caption embeddings -> contrastive loss
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import can_return_tuple

from .configuration_captionstew import CaptionStewConfig
from .losses_caption import IGNORED, caption_loss, mixed_caption_task
from .modeling_bart_decoder import build_caption_decoder
from .modeling_captioning import CaptionGenerationMixin, captioner_of
from .modeling_captionstew import CaptionStewModel, CaptionStewPreTrainedModel
from .modeling_outputs import AudioEncoderOutput, PreTrainingOutput


class CaptionStewForConditionalGeneration(CaptionGenerationMixin, CaptionStewPreTrainedModel):
    """Writes captions with `generate`; in training a share of them is decoded in parallel (`parallel_share`).

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3}
        >>> decoder = {**tokens, "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        ...            "intermediate_size": 32, "encoder_hidden_size": 16}
        >>> config = CaptionStewConfig(audio_config=audio, text_config=None, decoder_config=decoder)
        >>> model = CaptionStewForConditionalGeneration(config).eval()
        >>> model.generate(input_features=torch.randn(2, 98, 64), max_new_tokens=4, min_new_tokens=4).shape
        torch.Size([2, 5])
    """

    main_input_name = "input_features"
    output_modalities = ("text",)
    _required_weights = r"(captionstew\.audio_model|encoder_projection|caption_decoder)\.(?!.*is_white$)"

    def __init__(self, config: CaptionStewConfig):
        config.is_encoder_decoder = True
        super().__init__(config)
        _check_tokens(config)
        self.captionstew = CaptionStewModel(config)
        self.encoder_projection, self.caption_decoder = _decoder_parts(config)
        self.set_generation_defaults(config)
        self.post_init()

    def audio_memory(self, encoder_outputs: AudioEncoderOutput) -> Tensor:
        """Projected frames (B, T', D)."""
        return self.encoder_projection(encoder_outputs.frame_features)

    def memory_mask(self, encoder_outputs: AudioEncoderOutput) -> Tensor:
        """Where they are real: bool (B, T')."""
        return encoder_outputs.frame_mask

    def caption_loss(self, labels: Tensor, encoder_outputs: AudioEncoderOutput) -> tuple[Tensor, Tensor]:
        """(loss of whole captions (B, L), -100 at padding; decoder states (B, L - 1, D))."""
        return mixed_caption_loss(self, labels, encoder_outputs)


class CaptionStewForPreTraining(CaptionStewPreTrainedModel):
    """One encoder with the contrastive objective, with captioning, or with both: `model(**batch).loss` is all of it.

    A term whose weight in the configuration is 0 is left out, with the modules that only it needs.

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> text = {"model_type": "bert", "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1,
        ...         "num_attention_heads": 2, "intermediate_size": 32}
        >>> tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3}
        >>> decoder = {**tokens, "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        ...            "intermediate_size": 32, "encoder_hidden_size": 16}
        >>> config = CaptionStewConfig(
        ...     audio_config=audio, text_config=text, decoder_config=decoder, projection_dim=20)
        >>> model = CaptionStewForPreTraining(config)
        >>> sorted(model(torch.tensor([[1, 7, 2], [1, 9, 2]]), torch.randn(2, 98, 64)).loss_terms)
        ['caption', 'contrastive', 'regularizer']
    """

    _required_weights = r"captionstew\.(?!.*is_white$)"

    def __init__(self, config: CaptionStewConfig):
        super().__init__(config)
        _check_objective(config)
        self.captionstew = CaptionStewModel(config)
        if config.caption_weight > 0:
            _check_tokens(config)
            self.encoder_projection, self.caption_decoder = _decoder_parts(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module | None:
        """Returns the token embedding of the text encoder, None without one."""
        return self.captionstew.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding of the text encoder."""
        self.captionstew.set_input_embeddings(value)

    @property
    def exported_model(self) -> PreTrainedModel:
        """What is left after training: the system without the decoder."""
        return self.captionstew

    @property
    def exported_captioner(self) -> PreTrainedModel | None:
        """The captioner that was trained, with the same modules; None without the caption term."""
        if self.config.caption_weight == 0:
            return None
        captioner = captioner_of(self, CaptionStewForConditionalGeneration)
        captioner.encoder_projection = self.encoder_projection
        return captioner

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_loss: bool = True,
        **kwargs,
    ) -> PreTrainingOutput:
        """The losses of paired clips and captions.

        Args:
            input_ids: (B, L) caption tokens, start and end included.
            input_features: (B, T, F) log-mel of the model's own feature extractor, not augmented.
            attention_mask: (B, L) True at real tokens, or None when all are.
            input_features_mask: (B, T) True at real frames, or None when all are.
            labels: (B, L) what the decoder learns to write, -100 at padding; None takes the captions themselves.
            return_loss: must be True; the argument tells transformers' Trainer that the model returns a loss.
            **kwargs: ignored.
        """
        config, system = self.config, self.captionstew
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        seen = self.augmented(input_features, input_features_mask)
        audio = system.audio_model(seen, input_features_mask, return_dict=True)
        terms, weighted, embeds = {}, [], (None, None)
        if config.contrastive_weight > 0:
            audio_embeds = system.embed_clips(audio.frame_features, audio.frame_mask)
            embeds = (audio_embeds, system.get_text_features(input_ids, attention_mask).pooler_output)
            terms |= system.contrastive_terms(*embeds)
            weighted.append(system.weighted(terms))
        if config.caption_weight > 0:
            labels = input_ids.masked_fill(attention_mask == 0, IGNORED) if labels is None else labels
            terms["caption"], _ = mixed_caption_loss(self, labels, audio)
            weighted.append(config.caption_weight * terms["caption"])
        return PreTrainingOutput(
            loss=sum(weighted), loss_terms=terms, metrics={}, audio_embeds=embeds[0], text_embeds=embeds[1]
        )


def mixed_caption_loss(model: nn.Module, labels: Tensor, audio: AudioEncoderOutput) -> tuple[Tensor, Tensor]:
    """(mean smoothed cross-entropy of autoregressive and parallel rows together, decoder states (B, L - 1, D)).

    Args:
        model: has `encoder_projection` and `caption_decoder`; in evaluation no row is parallel.
        labels: (B, L) whole captions, -100 at padding.
        audio: what the encoder returned.
    """
    config, decoder = model.config, model.config.decoder_config
    share = config.parallel_share if model.training else 0.0
    task = mixed_caption_task(labels, decoder.pad_token_id, decoder.mask_token_id, share, decoder.eos_token_id)
    states = model.caption_decoder(
        task.decoder_input_ids,
        model.encoder_projection(audio.frame_features),
        audio.frame_mask,
        task.decoder_attention_mask,
        task.is_parallel,
    )
    smoothing = config.label_smoothing if model.training else 0.0
    return caption_loss(states, model.caption_decoder.output_embedding, task.targets, smoothing), states


def _check_objective(config: CaptionStewConfig) -> None:
    """Raises ValueError if there is no loss, or a text tower without the loss that trains it, or the reverse."""
    if config.contrastive_weight == 0 and config.caption_weight == 0:
        raise ValueError("`contrastive_weight` and `caption_weight` are both 0: there is no loss. Raise one.")
    if config.contrastive_weight > 0 and config.text_config is None:
        raise ValueError(
            f"`contrastive_weight` is {config.contrastive_weight}, but `text_config` is None: captions cannot be "
            "embedded. Give a text encoder, or set the weight to 0."
        )
    if config.contrastive_weight == 0 and config.text_config is not None:
        raise ValueError(
            f"`contrastive_weight` is 0, but `text_config` is a {config.text_config.model_type!r} encoder, which "
            "nothing would train. Set `text_config` to null, or raise the weight."
        )


def _check_tokens(config: CaptionStewConfig) -> None:
    """Raises ValueError if the decoder lacks a special token that captions, or their parallel decoding, need."""
    config.decoder_config.check_tokens("pad", "bos", "eos", *(["mask"] if config.parallel_share > 0 else []))


def _decoder_parts(config: CaptionStewConfig) -> tuple[nn.Module, PreTrainedModel]:
    """(projection of frames to the decoder's width, without one if they agree; the decoder)."""
    decoder, width = config.decoder_config, config.audio_config.frame_feature_size
    if width == decoder.encoder_hidden_size:
        return nn.Identity(), build_caption_decoder(decoder)
    return nn.Linear(width, decoder.encoder_hidden_size, bias=False), build_caption_decoder(decoder)


__all__ = ["CaptionStewForConditionalGeneration", "CaptionStewForPreTraining"]
