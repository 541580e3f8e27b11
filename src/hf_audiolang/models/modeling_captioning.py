# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""What every captioning model needs to write captions with transformers' `generate`.

input_features -> get_encoder() -> AudioEncoderOutput -> audio_memory() -> caption decoder (cached) -> token logits
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    Cache,
    DynamicCache,
    EncoderDecoderCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    StaticCache,
)
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils import can_return_tuple

from .losses_caption import caption_loss, caption_task
from .modeling_bart_decoder import CACHE_NAME
from .modeling_outputs import AudioEncoderOutput

_AUDIO = ("inputs", "input_features", "encoder_outputs")
MAX_CAPTION_TOKENS = 128  # of a written caption; the limit of SLAP's and CaptionStew's training captions


class CaptionGenerationMixin(GenerationMixin):
    """`forward` and the hooks of `generate`; a class has a system with `audio_model`, `caption_decoder`, `augmented`.

    A written caption begins with the decoder config's `bos_token_id` and ends at its `eos_token_id`.
    """

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Returns the audio encoder."""
        return self.base_model.audio_model

    def get_decoder(self) -> nn.Module:
        """Returns the caption decoder."""
        return self.caption_decoder

    def get_input_embeddings(self) -> nn.Module:
        """Returns the caption decoder's token embedding."""
        return self.caption_decoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the caption decoder's token embedding."""
        self.caption_decoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """Returns the layer that scores tokens; None where it is the token embedding itself."""
        return getattr(self.caption_decoder, "lm_head", None)

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Replaces the layer that scores tokens."""
        self.caption_decoder.lm_head = value

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None = None, **kwargs) -> Tensor | None:
        """Leaves the mask of `decoder_input_ids` as it is: the decoder counts positions with it, for any cache."""
        return attention_mask

    @torch.no_grad()
    def generate(self, *args, **kwargs):
        """Writes captions as transformers' `generate` does, which describes arguments and result.

        The longest caption is `max_new_tokens`, or `max_length` where the call gives that alone.

        Raises:
            ValueError: if there is no clip, or a clip without sound.
        """
        given = [values for values in (*args[:1], *(kwargs.get(name) for name in _AUDIO)) if values is not None]
        if not given or (isinstance(given[0], Tensor) and len(given[0]) == 0):
            found = "no clip in `input_features`" if given else "no audio"
            raise ValueError(
                f"There is {found}: give `input_features` of clips, or `encoder_outputs` of `get_encoder()`."
            )
        if kwargs.get("max_length") is not None and kwargs.get("max_new_tokens") is None:
            begun = kwargs.get("decoder_input_ids")  # transformers would let the default in new tokens count instead
            kwargs["max_new_tokens"] = kwargs.pop("max_length") - (1 if begun is None else begun.shape[1])
        return super().generate(*args, **kwargs)

    def audio_memory(self, encoder_outputs: AudioEncoderOutput) -> Tensor:
        """What the decoder hears (B, N, D); by default the encoder's tokens."""
        return encoder_outputs.last_hidden_state

    def memory_mask(self, encoder_outputs: AudioEncoderOutput) -> Tensor:
        """Where that is real: bool (B, N)."""
        return encoder_outputs.token_mask

    @can_return_tuple
    def forward(
        self,
        input_features: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: AudioEncoderOutput | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        labels: Tensor | None = None,
        **kwargs,
    ) -> Seq2SeqLMOutput:
        """Scores the next token of captions, or computes the caption loss.

        Args:
            input_features: (B, T, F) log-mel of the model's own feature extractor.
            input_features_mask: (B, T) True at real frames, or None when all are.
            decoder_input_ids: (B, L) tokens so far; with a cache those that are not in it yet.
            decoder_attention_mask: (B, L) True at real tokens; None: padding, if any, lies on the right.
            encoder_outputs: what `get_encoder()` returned, instead of `input_features`.
            cache: keys and values of earlier tokens.
            past_key_values: its name before transformers 5.24.
            use_cache: begin a cache if there is none.
            labels: (B, L) whole captions as the tokenizer gives them, start and end included, -100 at padding;
                `decoder_input_ids` are then made of them.
            **kwargs: ignored.

        Returns:
            Token logits (B, L, V), or (B, L - 1, V) with the loss for `labels`.

        Raises:
            ValueError: if a clip has no real frame, or a caption has more tokens than the decoder has positions.
        """
        cache = past_key_values if cache is None else cache
        if encoder_outputs is None and input_features is None:
            raise ValueError("There is no audio: give `input_features`, or `encoder_outputs` of `get_encoder()`.")
        if labels is None and decoder_input_ids is None:
            raise ValueError(
                "There are no tokens: give `decoder_input_ids` to score the next ones, `labels` for the loss, or call "
                "`generate` to write captions."
            )
        if encoder_outputs is None:
            if labels is not None:
                input_features = self.augmented(input_features, input_features_mask)
            encoder_outputs = self.get_encoder()(input_features, input_features_mask, return_dict=True)
        if labels is not None:
            _check_audio(self.memory_mask(encoder_outputs))
            loss, states = self.caption_loss(labels, encoder_outputs)
            return Seq2SeqLMOutput(loss=loss, logits=self.score_tokens(states))
        if use_cache and cache is None:
            config = self.config.decoder_config
            cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        has_heard = cache is not None and bool(cache.is_updated.get(0))
        memory, mask = None, self.memory_mask(encoder_outputs)
        if not has_heard:
            _check_audio(mask)
            if cache is not None and isinstance(cache.cross_attention_cache, StaticCache):
                # made for as many keys as the encoder has tokens, which need not be what is heard; it never grows
                cache.cross_attention_cache = DynamicCache(config=self.config.decoder_config)
            memory = self.audio_memory(encoder_outputs)
        states = self.caption_decoder(decoder_input_ids, memory, mask, decoder_attention_mask, cache=cache)
        return Seq2SeqLMOutput(
            logits=self.score_tokens(states),
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            **{CACHE_NAME: cache},
        )

    def caption_loss(self, labels: Tensor, encoder_outputs: AudioEncoderOutput) -> tuple[Tensor, Tensor]:
        """(mean cross-entropy of whole captions (B, L), -100 at padding; decoder states (B, L - 1, D))."""
        memory, mask = self.audio_memory(encoder_outputs), self.memory_mask(encoder_outputs)
        task = caption_task(labels, self.config.decoder_config.pad_token_id)
        states = self.caption_decoder(task.decoder_input_ids, memory, mask, task.decoder_attention_mask)
        return caption_loss(states, self.caption_decoder.output_embedding, task.targets), states

    def score_tokens(self, states: Tensor) -> Tensor:
        """Token logits (B, L, V) of decoder states."""
        return F.linear(states, self.caption_decoder.output_embedding)

    def set_generation_defaults(self, config: PreTrainedConfig) -> None:
        """Puts the decoder's tokens and the longest caption into `generation_config`, which saving keeps."""
        decoder = config.decoder_config
        self.generation_config.update(
            bos_token_id=decoder.bos_token_id,
            eos_token_id=decoder.eos_token_id,
            pad_token_id=decoder.pad_token_id,
            decoder_start_token_id=decoder.bos_token_id,
            begin_suppress_tokens=None if decoder.eos_token_id is None else [decoder.eos_token_id],  # never empty
            max_new_tokens=min(MAX_CAPTION_TOKENS, decoder.max_position_embeddings) - 1,
        )

    def adjust_generation_fn(self, *args, **kwargs) -> None:
        """Loads `generation_config.json`; a folder without it, such as that of a training, gets the defaults.

        transformers would then make one of `config.json`, which has no tokens of a decoder.
        """
        super().adjust_generation_fn(*args, **kwargs)
        if self.generation_config.decoder_start_token_id is None:
            self.set_generation_defaults(self.config)


def captioner_of(model: PreTrainedModel, captioner_class: type[PreTrainedModel]) -> PreTrainedModel:
    """A captioner around the parts of a model that trained them under the same names.

    Args:
        model: has the system under its `base_model_prefix`, and `caption_decoder`.
        captioner_class: what to build, of the same configuration.
    """
    with torch.device("meta"):
        captioner = captioner_class(copy.deepcopy(model.config))
    for name in (model.base_model_prefix, "caption_decoder"):
        setattr(captioner, name, getattr(model, name))
    return captioner.train(model.training)


def _check_audio(token_mask: Tensor) -> None:
    is_empty = ~token_mask.to(bool).any(1)
    if is_empty.any():
        raise ValueError(
            f"`input_features_mask` has no real frame in rows {is_empty.nonzero().flatten().tolist()}: there is no "
            "sound to write a caption for. Leave these clips out."
        )


__all__ = ["MAX_CAPTION_TOKENS", "CaptionGenerationMixin", "captioner_of"]
