# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""CaptionStew's contrastive model: clips and captions as unit vectors in one space (CaptionStew; authors' toolkit).

clip -> audio encoder -> frames (B, T', D') -> projection of every frame -> mean over real frames -> audio_embeds
caption -> text encoder -> first token (B, D) -> projection -> text_embeds

The encoder is the Zipformer unless `audio_config` names another one. Without `text_config` there is neither a text
encoder nor a projection: then the model is the encoder of a captioning model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple

from .configuration_captionstew import CaptionStewConfig
from .layers_packing import PackedLayout, pack
from .layers_pooling import AttentionPooling, embed_steps, masked_mean, unit_rows
from .layers_spec_augment import augment_features
from .losses_contrastive import summed_contrastive_loss
from .losses_distributed import gather_unequal_rows
from .losses_hard_negative import embedding_regularizer
from .modeling_audio_encoders import build_audio_encoder
from .modeling_loading import StrictTowersMixin
from .modeling_outputs import AudioEncoderOutput, AudioFrameOutput, AudioTextOutput
from .modeling_text import build_text_model, pool_text, takes_token_types


class CaptionStewPreTrainedModel(StrictTowersMixin, PreTrainedModel):
    """Weight initialisation, loading and augmentation of all classes with a CaptionStew configuration."""

    config: CaptionStewConfig
    base_model_prefix = "captionstew"
    main_input_name = "input_ids"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = ["ZipformerLayer", "ConvNeXt", "BertLayer", "CaptionDecoderLayer", "BartDecoderLayer"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):  # torch's own scale, as in the authors' code
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, AttentionPooling):
            init.xavier_uniform_(module.query)

    def augmented(self, input_features: Tensor, input_features_mask: Tensor | None) -> Tensor:
        """The features with SpecAugment in training, as they are otherwise."""
        if not self.training:
            return input_features
        return augment_features(input_features, input_features_mask, self.config, fills_mean=True)


class MlpProjection(nn.Module):
    """One hidden layer with ReLU into the shared space: (..., D) -> (..., E), not normalised (authors' code)."""

    def __init__(self, input_size: int, output_size: int):
        super().__init__()
        self.fc1 = nn.Linear(input_size, output_size)
        self.fc2 = nn.Linear(output_size, output_size)

    def forward(self, features: Tensor) -> Tensor:
        """Returns (..., E)."""
        return self.fc2(F.relu(self.fc1(features)))


class FixedScale(nn.Module):
    """The multiplier of similarities as a number that is not trained."""

    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def forward(self) -> Tensor:
        """Returns () the multiplier 1 / temperature."""
        return torch.tensor(1 / self.temperature)


class CaptionStewModel(CaptionStewPreTrainedModel):
    """Clips and captions as unit vectors in one space; works in the zero-shot-audio-classification pipeline.

    Without `text_config` it embeds clips alone, as the mean of the encoder's frames.

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> text = {"model_type": "bert", "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1,
        ...         "num_attention_heads": 2, "intermediate_size": 32}
        >>> config = CaptionStewConfig(audio_config=audio, text_config=text, projection_dim=20)
        >>> model = CaptionStewModel(config).eval()
        >>> outputs = model(torch.tensor([[1, 7, 9, 2]]), torch.randn(3, 98, 64))
        >>> outputs.logits_per_audio.shape
        torch.Size([3, 1])
    """

    # the rest of a checkpoint with a caption decoder
    _keys_to_ignore_on_load_unexpected = [r"^(caption_decoder|encoder_projection|lm_head)"]

    def __init__(self, config: CaptionStewConfig):
        super().__init__(config)
        self.audio_model = build_audio_encoder(config.audio_config)
        self.text_model = self.audio_projection = self.text_projection = None
        self.audio_pooling = self.logit_scale = None
        if config.text_config is not None:
            width = config.projection_dim
            self.text_model = build_text_model(config.text_config)
            self.audio_projection = MlpProjection(config.audio_config.frame_feature_size, width)
            self.text_projection = MlpProjection(config.text_config.hidden_size, width)
            self.logit_scale = FixedScale(config.contrastive_temperature)
            if config.pooling == "attention":
                self.audio_pooling = AttentionPooling(width, config.pooling_heads)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module | None:
        """Returns the token embedding of the text encoder, None without one."""
        return None if self.text_model is None else self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding of the text encoder."""
        self._need_text_model().set_input_embeddings(value)

    @can_return_tuple
    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None, **kwargs
    ) -> AudioEncoderOutput:
        """Embeds clips.

        Args:
            input_features: (B, T, F) log-mel of the model's own feature extractor.
            input_features_mask: (B, T) True at real frames, or None when all are.
            **kwargs: `output_hidden_states`, `output_attentions`; others are ignored.

        Returns:
            The encoder's output with `pooler_output` (B, E), the unit-norm clip embeddings.
        """
        output = self.audio_model(input_features, input_features_mask, **{**kwargs, "return_dict": True})
        output.pooler_output = self.embed_clips(output.frame_features, output.frame_mask)
        return output

    @can_return_tuple
    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Embeds captions by their first token.

        Args:
            input_ids: (B, L) token ids.
            attention_mask: (B, L) True at real tokens, or None when all are.
            **kwargs: further inputs of the text encoder, such as `token_type_ids`.

        Returns:
            The text encoder's output with `pooler_output` (B, E), the unit-norm caption embeddings.

        Raises:
            ValueError: for a model without a text encoder.
        """
        text_model = self._need_text_model()
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if not takes_token_types(self.config.text_config):
            kwargs.pop("token_type_ids", None)
        output = text_model(input_ids=input_ids, attention_mask=attention_mask, **{**kwargs, "return_dict": True})
        first = pool_text(output.last_hidden_state, attention_mask, "cls")
        return BaseModelOutputWithPooling(
            last_hidden_state=output.last_hidden_state,
            pooler_output=unit_rows(self.text_projection(first)),
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )

    def get_audio_frame_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None, **kwargs
    ) -> AudioFrameOutput:
        """Embeds every output frame: the projected frame, with attention pooling as if it were a clip of its own.

        Args:
            input_features: (B, T, F) log-mel of the model's own feature extractor.
            input_features_mask: (B, T) True at real frames, or None when all are.
            **kwargs: ignored.

        Returns:
            Unit-norm frames (B, T', E) with their mask; frame k covers [k, k + 1) / `audio_config.frame_rate_hz` s
            after the encoder's `frame_offset_seconds`, if it has that.
        """
        output = self.audio_model(input_features, input_features_mask)
        frames, frame_mask = self._projected(output.frame_features), output.frame_mask
        if self.audio_pooling is not None:
            frames = embed_steps(frames.unsqueeze(2), frame_mask, self.audio_pooling)
        return AudioFrameOutput(frame_features=unit_rows(frames) * frame_mask.unsqueeze(-1), frame_mask=frame_mask)

    def embed_clips(self, frame_features: Tensor, frame_mask: Tensor) -> Tensor:
        """Unit-norm embeddings (B, E) of the encoder's frames (B, T', D') with their mask (B, T')."""
        frames = self._projected(frame_features)
        if self.audio_pooling is None:
            return unit_rows(masked_mean(frames, frame_mask))
        layout = PackedLayout.from_mask(frame_mask)
        return unit_rows(self.audio_pooling(pack(frames, layout), layout))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs,
    ) -> AudioTextOutput:
        """Scores every clip against every caption.

        Args:
            input_ids: (B_text, L) token ids.
            input_features: (B_audio, T, F) log-mel of the model's own feature extractor.
            attention_mask: (B_text, L) True at real tokens, or None when all are.
            input_features_mask: (B_audio, T) True at real frames, or None when all are.
            return_loss: also return the contrastive objective of paired rows.
            **kwargs: `output_hidden_states`, `output_attentions` and `token_type_ids`; others are ignored.

        Returns:
            Similarities, embeddings and both encoders' outputs.

        Raises:
            ValueError: if one of the two modalities is missing, or the model has no text encoder.
        """
        if input_ids is None or input_features is None:
            raise ValueError(
                "`input_ids` and `input_features` are both needed, got "
                f"{'no captions' if input_ids is None else 'no clips'}. Call `get_text_features` or "
                "`get_audio_features` for one modality."
            )
        self._need_text_model()
        shared = {name: kwargs[name] for name in ("output_hidden_states", "output_attentions") if name in kwargs}
        token_types = {name: kwargs[name] for name in ("token_type_ids",) if name in kwargs}
        audio = self.get_audio_features(input_features, input_features_mask, **shared)
        text = self.get_text_features(input_ids, attention_mask, **shared, **token_types)
        audio_embeds, text_embeds = audio.pooler_output, text.pooler_output
        logits_per_audio = audio_embeds @ text_embeds.T / self.config.contrastive_temperature
        terms = self.contrastive_terms(audio_embeds, text_embeds) if return_loss else None
        return AudioTextOutput(
            loss=None if terms is None else self.weighted(terms),
            loss_terms=terms,
            logits_per_audio=logits_per_audio,
            logits_per_text=logits_per_audio.T,
            text_embeds=text_embeds,
            audio_embeds=audio_embeds,
            text_model_output=text,
            audio_model_output=audio,
        )

    def contrastive_loss(self, audio_embeds: Tensor, text_embeds: Tensor) -> Tensor:
        """Loss of paired unit embeddings (B, E) over the batches of all processes, without the regulariser: ()."""
        return self.contrastive_terms(audio_embeds, text_embeds)["contrastive"]

    def contrastive_terms(self, audio_embeds: Tensor, text_embeds: Tensor) -> dict[str, Tensor]:
        """The unweighted terms of paired unit embeddings (B, E) over the batches of all processes, in float32.

        Returns:
            "contrastive", and "regularizer" unless its weight is 0.
        """
        config = self.config
        with torch.autocast(audio_embeds.device.type, enabled=False):
            embeds = [_at_least_float(part) for part in (audio_embeds, text_embeds)]
            loss = summed_contrastive_loss(
                *embeds,
                1 / config.contrastive_temperature,
                kind=config.contrastive_loss,
                reduction=config.loss_reduction,
            )
            terms = {"contrastive": loss}
            if config.regularizer_weight > 0:
                terms["regularizer"] = sum(embedding_regularizer(gather_unequal_rows(part)[0]) for part in embeds)
        return terms

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """Sum of loss terms by the weights of the configuration: ()."""
        return sum(getattr(self.config, f"{name}_weight") * term for name, term in terms.items())

    def _projected(self, frame_features: Tensor) -> Tensor:
        return frame_features if self.audio_projection is None else self.audio_projection(frame_features)

    def _need_text_model(self) -> PreTrainedModel:
        if self.text_model is None:
            raise ValueError(
                "This model has no text encoder, got `text_config` None: it embeds clips and captions cannot be "
                "compared with them. Load a model that was trained with the contrastive term, or write captions with "
                "CaptionStewForConditionalGeneration."
            )
        return self.text_model


def _at_least_float(embeds: Tensor) -> Tensor:
    return embeds if embeds.dtype == torch.float64 else embeds.float()


__all__ = ["CaptionStewModel", "CaptionStewPreTrainedModel"]
