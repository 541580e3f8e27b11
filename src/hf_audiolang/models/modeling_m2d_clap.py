# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""M2D-CLAP: audio and text in one space (M2D-CLAP III).

clip -> audio encoder -> tokens -> audio projection -> audio_embeds (B, E)
caption -> text encoder, or precomputed embedding -> text projection -> text_embeds (B, E)

The encoder is M2dClapAudioModel unless `audio_config` names another one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple

from .configuration_m2d_clap import M2dClapConfig
from .layers_logit_scale import LogitScale
from .layers_packing import PackedLayout, pack, unpack
from .layers_pooling import embed_steps, unit_rows
from .layers_vit import init_vit_weights
from .losses_contrastive import contrastive_loss, ungathered_contrastive_loss
from .modeling_audio_encoders import build_audio_encoder
from .modeling_audio_projector import AudioProjector
from .modeling_loading import StrictTowersMixin
from .modeling_outputs import AudioEncoderOutput, AudioFrameOutput, AudioTextOutput
from .modeling_text import build_text_model, pool_text, takes_token_types


class M2dClapPreTrainedModel(StrictTowersMixin, PreTrainedModel):
    """Weight initialisation and loading of all classes with a M2D-CLAP configuration."""

    config: M2dClapConfig
    base_model_prefix = "m2d_clap"
    main_input_name = "input_ids"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = ["VitLayer", "BertLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        init_vit_weights(module)
        if isinstance(module, LogitScale):
            init.constant_(module.log_scale, self.config.logit_scale_init_value)


class MlpTextProjection(nn.Module):
    """One hidden layer with ReLU on the caption embedding (ablations of IV-D3), (B, D_text) -> (B, E)."""

    def __init__(self, text_embedding_size: int, embedding_size: int):
        super().__init__()
        self.fc1 = nn.Linear(text_embedding_size, text_embedding_size)
        self.fc2 = nn.Linear(text_embedding_size, embedding_size)

    def forward(self, text_embeddings: Tensor) -> Tensor:
        """Returns (B, E)."""
        return self.fc2(F.relu(self.fc1(text_embeddings)))


class M2dClapModel(M2dClapPreTrainedModel):
    """Clips and captions as unit vectors in one space; works in the zero-shot-audio-classification pipeline.

    Without `text_config` the model has no text encoder and takes captions as embeddings of another model.

    Example:
        >>> tower = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
        >>> text = {**tower, "model_type": "bert", "vocab_size": 30}
        >>> model = M2dClapModel(M2dClapConfig(audio_config=tower, text_config=text)).eval()
        >>> outputs = model(input_features=torch.randn(3, 98, 80), input_ids=torch.tensor([[1, 7, 9, 2]]))
        >>> outputs.logits_per_audio.shape
        torch.Size([3, 1])
    """

    # the rest of a M2dClapForPreTraining checkpoint
    _keys_to_ignore_on_load_unexpected = [r"^(teacher_|predictor)"]

    def __init__(self, config: M2dClapConfig):
        super().__init__(config)
        self.audio_model = build_audio_encoder(config.audio_config)
        self.text_model = None if config.text_config is None else build_text_model(config.text_config)
        self.audio_projection = AudioProjector(config.projector_config)
        self.text_projection = _text_projection(config)
        self.logit_scale = LogitScale(has_bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module | None:
        """Returns the token embedding of the text encoder, None without one."""
        return None if self.text_model is None else self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding of the text encoder."""
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None, **kwargs
    ) -> AudioEncoderOutput:
        """Embeds clips; all pieces of a long clip enter the projector together.

        Args:
            input_features: (B, T, F) normalised log-mel.
            input_features_mask: (B, T) True at real frames, or None when all are.
            **kwargs: `output_hidden_states`, `output_attentions`; others are ignored.

        Returns:
            The encoder's output with `pooler_output` (B, E), the unit-norm clip embeddings.
        """
        output = self.audio_model(input_features, input_features_mask, **{**kwargs, "return_dict": True})
        layout = PackedLayout.from_mask(output.token_mask)
        output.pooler_output = self.embed_clips(pack(output.last_hidden_state, layout), layout)
        return output

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_embeddings: Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """Embeds captions.

        Args:
            input_ids: (B, L) token ids.
            attention_mask: (B, L) True at real tokens, or None when all are.
            text_embeddings: (B, text_embedding_size) embeddings of the captions, instead of `input_ids`.
            **kwargs: further inputs of the text encoder, such as `token_type_ids`.

        Returns:
            The text encoder's output with `pooler_output` (B, E), the unit-norm caption embeddings.

        Raises:
            ValueError: without captions in a form that this model takes.
        """
        output = {}
        if text_embeddings is None:
            output = self._run_text_model(input_ids, attention_mask, kwargs)
            text_embeddings = pool_text(output.last_hidden_state, output.attention_mask, self.config.text_pooling)
        elif text_embeddings.ndim != 2 or text_embeddings.shape[1] != self.config.text_embedding_size:
            raise ValueError(
                f"`text_embeddings` must be (batch, {self.config.text_embedding_size}), got "
                f"{tuple(text_embeddings.shape)}. Embed the captions with the model that this one was trained with, "
                f"{self.config.text_embedding_model or 'named in its card'}."
            )
        projected = self.text_projection(text_embeddings.to(self.dtype))
        return BaseModelOutputWithPooling(
            last_hidden_state=output.get("last_hidden_state"),
            pooler_output=unit_rows(projected),
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )

    def get_audio_frame_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None, **kwargs
    ) -> AudioFrameOutput:
        """Embeds every output frame: the projector applied to the tokens of one time column at a time.

        Args:
            input_features: (B, T, F) normalised log-mel.
            input_features_mask: (B, T) True at real frames, or None when all are.
            **kwargs: ignored.

        Returns:
            Unit-norm frames (B, T', E) with their mask; frame k covers [k, k + 1) / `audio_config.frame_rate_hz` s.
        """
        tokens, layout = self.audio_model.encode(input_features, input_features_mask)
        num_frames = input_features.shape[1]
        columns = self.audio_model.time_steps(unpack(tokens, layout), num_frames)  # (B, T', bands, D)
        frame_mask = self.audio_model.time_steps(layout.token_mask, num_frames)[..., 0]  # (B, T')
        frame_features = embed_steps(columns, frame_mask, self.embed_clips)
        return AudioFrameOutput(frame_features=frame_features, frame_mask=frame_mask)

    def get_projector_attention(self, input_features: Tensor, input_features_mask: Tensor | None = None) -> Tensor:
        """Where the semantic token of the projector looks (IV-D4b), mean over its heads.

        Args:
            input_features: (B, T, F) normalised log-mel.
            input_features_mask: (B, T) True at real frames, or None when all are.

        Returns:
            (B, bands, T') weights that sum to 1 over a clip's patches, the token's own share taken out; 0 at padding.

        Raises:
            ValueError: if the projector has no attention.
        """
        if self.config.projector_config.projector_type != "transformer":
            raise ValueError(
                "Only the 'transformer' projector attends to patches, got `projector_type` "
                f"{self.config.projector_config.projector_type!r}. Load a model with that projector."
            )
        tokens, layout = self.audio_model.encode(input_features, input_features_mask)
        _, weights = self.audio_projection.projector(tokens, layout)
        on_patches = weights[..., 1:].float().mean(1)  # (B, N)
        on_patches = on_patches / on_patches.sum(1, keepdim=True)
        return self.audio_model.time_steps(on_patches, input_features.shape[1]).transpose(1, 2)

    def embed_clips(self, tokens: Tensor, layout: PackedLayout) -> Tensor:
        """Unit-norm embeddings of packed token sequences: (N, D) -> (B, E)."""
        pooled, _ = self.audio_projection.projector(tokens, layout)
        return unit_rows(pooled)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        text_embeddings: Tensor | None = None,
        return_loss: bool | None = None,
        **kwargs,
    ) -> AudioTextOutput:
        """Scores every clip against every caption.

        Args:
            input_ids: (B_text, L) token ids.
            input_features: (B_audio, T, F) normalised log-mel.
            attention_mask: (B_text, L) True at real tokens, or None when all are.
            input_features_mask: (B_audio, T) True at real frames, or None when all are.
            text_embeddings: (B_text, text_embedding_size) embeddings of the captions, instead of `input_ids`.
            return_loss: also return the contrastive loss of paired rows.
            **kwargs: `output_hidden_states`, `output_attentions` and `token_type_ids`; others are ignored.

        Returns:
            Similarities, embeddings and both encoders' outputs.

        Raises:
            ValueError: if one of the two modalities is missing.
        """
        if input_features is None or (input_ids is None and text_embeddings is None):
            raise ValueError(
                "`input_features` and `input_ids` (or `text_embeddings`) are both needed, got "
                f"{'no clips' if input_features is None else 'no captions'}. Call `get_text_features` or "
                "`get_audio_features` for one modality."
            )
        shared = {name: kwargs[name] for name in ("output_hidden_states", "output_attentions") if name in kwargs}
        token_types = {name: kwargs[name] for name in ("token_type_ids",) if name in kwargs}
        audio = self.get_audio_features(input_features, input_features_mask, **shared)
        text = self.get_text_features(input_ids, attention_mask, text_embeddings, **shared, **token_types)
        audio_embeds, text_embeds = audio.pooler_output, text.pooler_output
        logits_per_audio = self.logit_scale().to(audio_embeds.dtype) * audio_embeds @ text_embeds.T
        loss = self.contrastive_loss(audio_embeds, text_embeds) if return_loss else None
        return AudioTextOutput(
            loss=loss,
            loss_terms={"contrastive": loss} if return_loss else None,
            logits_per_audio=logits_per_audio,
            logits_per_text=logits_per_audio.T,
            text_embeds=text_embeds,
            audio_embeds=audio_embeds,
            text_model_output=text,
            audio_model_output=audio,
        )

    def contrastive_loss(self, audio_embeds: Tensor, text_embeds: Tensor) -> Tensor:
        """Loss of paired rows over the batches of all processes, in float32: () in nats (Eq. 3, 4)."""
        loss = ungathered_contrastive_loss if self.config.reference_gather else contrastive_loss
        with torch.autocast(audio_embeds.device.type, enabled=False):
            return loss(audio_embeds.float(), text_embeds.float(), self.logit_scale())

    def _run_text_model(self, input_ids: Tensor | None, attention_mask: Tensor | None, kwargs: dict):
        if self.text_model is None:
            raise ValueError(
                "This model has no text encoder, got no `text_embeddings`. Embed the captions with "
                f"{self.config.text_embedding_model or 'the model named in its card'} and pass them."
            )
        if input_ids is None:
            raise ValueError(
                "`input_ids` are needed, got None and no `text_embeddings` either. Tokenise the captions."
            )
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if "token_type_ids" in kwargs and not takes_token_types(self.config.text_config):
            kwargs = {name: value for name, value in kwargs.items() if name != "token_type_ids"}
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, **{**kwargs, "return_dict": True})
        output.attention_mask = attention_mask
        return output


def _text_projection(config: M2dClapConfig) -> nn.Module:
    if config.text_projector == "none":
        return nn.Identity()
    if config.text_projector == "mlp":
        return MlpTextProjection(config.text_embedding_size, config.embedding_size)
    return nn.Linear(config.text_embedding_size, config.embedding_size)


__all__ = ["M2dClapModel"]
