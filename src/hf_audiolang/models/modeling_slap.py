# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""SLAP: audio and text in one space, and its one-stage training with three losses (SLAP 2).

    clip -> audio encoder -> attention pooling -> audio_embeds (B, E) --\
                |                                                         contrastive loss
                |    caption -> text encoder -> attention pooling -> text_embeds (B, E) --/
                |-> caption decoder -> next words                         caption loss
    masked clip -> audio encoder -> prototype head  <-- EMA teacher      masked loss

The encoder is SlapAudioModel unless `audio_config` names another one, which then has no masked loss. With the caption
decoder of a training SlapForConditionalGeneration writes captions.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import can_return_tuple

from .configuration_slap import SlapConfig
from .layers_logit_scale import LogitScale
from .layers_masking import block_masked_positions, random_masked_positions
from .layers_packing import PackedLayout, pack, unpack
from .layers_pooling import AttentionPooling, embed_steps, unit_rows
from .layers_prototypes import PrototypeHead
from .layers_spec_augment import augment_features
from .layers_teacher import freeze_teacher, update_teacher
from .losses_caption import IGNORED, caption_loss, caption_task
from .losses_contrastive import contrastive_loss, sigmoid_contrastive_loss
from .losses_distributed import global_mean
from .losses_masked import TargetRule, clip_token_weights, prototype_loss, update_center
from .modeling_audio_encoders import build_audio_encoder
from .modeling_bart_decoder import build_caption_decoder
from .modeling_captioning import CaptionGenerationMixin, captioner_of
from .modeling_loading import StrictTowersMixin
from .modeling_outputs import AudioEncoderOutput, AudioFrameOutput, AudioTextOutput, PreTrainingOutput
from .modeling_text import build_text_model, takes_token_types


class SlapPreTrainedModel(StrictTowersMixin, PreTrainedModel):
    """Weight initialisation and loading of all classes with a SLAP configuration."""

    config: SlapConfig
    base_model_prefix = "slap"
    main_input_name = "input_ids"
    input_modalities = ("audio", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = ["SlapAudioLayer", "CaptionDecoderLayer", "ModernBertEncoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, AttentionPooling):
            init.xavier_uniform_(module.query)
        elif isinstance(module, PrototypeHead):
            for layer in module.layers:  # the scale of DINO's head: only directions leave it
                init.trunc_normal_(layer.weight, std=0.02)
            init.trunc_normal_(module.prototypes, std=0.02)
        elif isinstance(module, LogitScale):
            init.constant_(module.log_scale, self.config.logit_scale_init_value)
            if module.bias is not None:
                init.constant_(module.bias, self.config.logit_bias_init_value)
        elif isinstance(module, SlapForPreTraining) and module.has_teacher:
            init.zeros_(module.teacher_center)
            for teacher, student in module.teacher_pairs():
                for target, source in zip(teacher.parameters(), student.parameters(), strict=True):
                    init.copy_(target, source)

    def augmented(self, input_features: Tensor, input_features_mask: Tensor | None) -> Tensor:
        """The features with SpecAugment in training, as they are otherwise."""
        if not self.training:
            return input_features
        return augment_features(input_features, input_features_mask, self.config)


class SlapModel(SlapPreTrainedModel):
    """Clips and captions as unit vectors in one space; works in the zero-shot-audio-classification pipeline.

    Example:
        >>> config = SlapConfig(
        ...     audio_config={"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3,
        ...                   "intermediate_size": 32},
        ...     text_config={"model_type": "modernbert", "hidden_size": 24, "num_hidden_layers": 1, "vocab_size": 30,
        ...                  "num_attention_heads": 3, "intermediate_size": 32, "pad_token_id": 0})
        >>> model = SlapModel(config).eval()
        >>> outputs = model(input_ids=torch.tensor([[1, 7, 9, 2]]), input_features=torch.randn(3, 98, 64))
        >>> outputs.logits_per_audio.shape
        torch.Size([3, 1])
    """

    # the rest of a SlapForPreTraining checkpoint
    _keys_to_ignore_on_load_unexpected = [r"^(teacher_|prototype_head|caption_decoder)"]

    def __init__(self, config: SlapConfig):
        super().__init__(config)
        audio_width, text_width = config.audio_config.hidden_size, config.text_config.hidden_size
        self.audio_model = build_audio_encoder(config.audio_config)
        self.text_model = build_text_model(config.text_config)
        eps = config.rms_norm_eps
        self.audio_pooling = AttentionPooling(audio_width, config.audio_pooling_heads, eps)
        self.text_pooling = AttentionPooling(text_width, config.text_config.num_attention_heads, eps)
        self.audio_projection = _projection(audio_width, config.projection_dim)
        self.text_projection = _projection(text_width, config.projection_dim)
        self.logit_scale = LogitScale(has_bias=config.contrastive_loss == "sigmoid")
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embedding of the text encoder."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding of the text encoder."""
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None, **kwargs
    ) -> AudioEncoderOutput:
        """Embeds clips.

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
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Embeds captions.

        Args:
            input_ids: (B, L) token ids.
            attention_mask: (B, L) True at real tokens, or None when all are.
            **kwargs: further inputs of the text encoder, such as `token_type_ids`.

        Returns:
            The text encoder's output with `pooler_output` (B, E), the unit-norm caption embeddings.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask, **{**kwargs, "return_dict": True})
        layout = PackedLayout.from_mask(attention_mask)
        pooled = self.text_pooling(pack(output.last_hidden_state, layout), layout)
        return BaseModelOutputWithPooling(
            last_hidden_state=output.last_hidden_state,
            pooler_output=unit_rows(self.text_projection(pooled)),
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )

    def get_audio_frame_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None, **kwargs
    ) -> AudioFrameOutput:
        """Embeds every output frame: the pooling head applied to the tokens of one time step at a time.

        Args:
            input_features: (B, T, F) normalised log-mel.
            input_features_mask: (B, T) True at real frames, or None when all are.
            **kwargs: ignored.

        Returns:
            Unit-norm frames (B, T', E) with their mask; frame k covers [k, k + 1) / `audio_config.frame_rate_hz` s.
        """
        tokens, layout = self.audio_model.encode(input_features, input_features_mask)
        num_frames = input_features.shape[1]
        steps = self.audio_model.time_steps(unpack(tokens, layout), num_frames)  # (B, T', bands, D)
        frame_mask = self.audio_model.time_steps(layout.token_mask, num_frames)[..., 0]  # (B, T')
        frame_features = embed_steps(steps, frame_mask, self.embed_clips)
        return AudioFrameOutput(frame_features=frame_features, frame_mask=frame_mask)

    def embed_clips(self, tokens: Tensor, layout: PackedLayout) -> Tensor:
        """Unit-norm embeddings of packed token sequences: (N, D) -> (B, E)."""
        return unit_rows(self.audio_projection(self.audio_pooling(tokens, layout)))

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
            input_features: (B_audio, T, F) normalised log-mel.
            attention_mask: (B_text, L) True at real tokens, or None when all are.
            input_features_mask: (B_audio, T) True at real frames, or None when all are.
            return_loss: also return the contrastive loss of paired rows.
            **kwargs: `output_hidden_states`, `output_attentions` and `token_type_ids`; others are ignored.

        Returns:
            Similarities, embeddings and both encoders' outputs.

        Raises:
            ValueError: if one of the two modalities is missing.
        """
        if input_ids is None or input_features is None:
            raise ValueError(
                "`input_ids` and `input_features` are both needed, got "
                f"{'no captions' if input_ids is None else 'no clips'}. Call `get_text_features` or "
                "`get_audio_features` for one modality."
            )
        shared = {name: kwargs[name] for name in ("output_hidden_states", "output_attentions") if name in kwargs}
        if "token_type_ids" in kwargs and takes_token_types(self.config.text_config):
            token_types = {"token_type_ids": kwargs["token_type_ids"]}
        else:
            token_types = {}
        audio = self.get_audio_features(input_features, input_features_mask, **shared)
        text = self.get_text_features(input_ids, attention_mask, **shared, **token_types)
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
        """Loss of paired rows over the batches of all processes, computed in float32: () in nats."""
        with torch.autocast(audio_embeds.device.type, enabled=False):
            audio_embeds, text_embeds = audio_embeds.float(), text_embeds.float()
            if self.config.contrastive_loss == "sigmoid":
                bias = self.logit_scale.bias.float()
                return sigmoid_contrastive_loss(audio_embeds, text_embeds, self.logit_scale(), bias)
            return contrastive_loss(audio_embeds, text_embeds, self.logit_scale())


class SlapForPreTraining(SlapPreTrainedModel):
    """SLAP with teacher, prototype heads and caption decoder: `model(**batch).loss` is the whole objective.

    A term whose weight in the configuration is 0 is left out, with the modules that only it needs.

    Example:
        >>> tower = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
        >>> text = {**tower, "model_type": "modernbert", "vocab_size": 30, "pad_token_id": 0}
        >>> tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        >>> decoder = {**tower, **tokens, "vocab_size": 30, "encoder_hidden_size": 24}
        >>> config = SlapConfig(audio_config=tower, text_config=text, decoder_config=decoder, num_prototypes=16)
        >>> model = SlapForPreTraining(config)
        >>> sorted(model(torch.tensor([[1, 7, 2], [1, 9, 2]]), torch.randn(2, 98, 64)).loss_terms)
        ['caption', 'contrastive', 'masked']
    """

    _required_weights = r"slap\."

    def __init__(self, config: SlapConfig):
        super().__init__(config)
        self.slap = SlapModel(config)
        self.has_teacher = config.masked_weight > 0
        if self.has_teacher:
            self.prototype_head = _prototype_head(config)
            self.teacher_audio_model = freeze_teacher(build_audio_encoder(config.audio_config))
            self.teacher_prototype_head = freeze_teacher(_prototype_head(config))
            self.register_buffer("teacher_center", torch.zeros(1, config.num_prototypes))
        if config.caption_weight > 0:
            _check_decoder(config)
            self.caption_decoder = build_caption_decoder(config.decoder_config)
        self.set_progress(1, 1)  # without a loop that tells the progress, as at the end of training
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embedding of the text encoder."""
        return self.slap.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding of the text encoder."""
        self.slap.set_input_embeddings(value)

    def teacher_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Returns (teacher, student) modules; empty without the masked loss."""
        if not self.has_teacher:
            return []
        return [
            (self.teacher_audio_model, self.slap.audio_model),
            (self.teacher_prototype_head, self.prototype_head),
        ]

    @property
    def exported_captioner(self) -> PreTrainedModel | None:
        """The captioner that was trained, with the same modules; None without the caption loss."""
        return captioner_of(self, SlapForConditionalGeneration) if self.config.caption_weight > 0 else None

    def update_teacher(self, decay: float) -> None:
        """Moves the teacher towards the student; call after every optimizer step."""
        if self.has_teacher:
            update_teacher(self.teacher_pairs(), decay)

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Keeps the logit scale below its maximum."""
        self.slap.logit_scale.log_scale.clamp_(max=self.config.logit_scale_max)

    def set_progress(self, step: int, num_steps: int) -> None:
        """Sets what depends on the progress of training: the teacher temperature and the frozen prototypes.

        Args:
            step: optimizer steps done.
            num_steps: optimizer steps of the whole run.
        """
        config = self.config
        done = step / max(num_steps, 1)
        rise = min(done / config.teacher_temperature_warmup, 1.0) if config.teacher_temperature_warmup else 1.0
        start, end = config.teacher_temperature_start, config.teacher_temperature_end
        self.teacher_temperature = start + (end - start) * rise
        self.freezes_prototypes = done < config.freeze_prototypes_warmup

    def train(self, mode: bool = True) -> "SlapForPreTraining":
        """Switches the student only; the teacher stays in eval mode and without gradient."""
        super().train(mode)
        for teacher, _ in self.teacher_pairs():
            freeze_teacher(teacher)  # from_pretrained makes every parameter trainable, and ends with eval()
        return self

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        labels: Tensor | None = None,
        masked_positions: Tensor | None = None,
        return_loss: bool = True,
        **kwargs,
    ) -> PreTrainingOutput:
        """The three losses of paired clips and captions (SLAP Eq. 3-6).

        Args:
            input_ids: (B, L) caption tokens, `[CLS] words [SEP]`.
            input_features: (B, T, F) normalised log-mel, not augmented.
            attention_mask: (B, L) True at real tokens, or None when all are.
            input_features_mask: (B, T) True at real frames, or None when all are.
            labels: (B, L) target tokens of the decoder, -100 at padding; None takes the captions themselves.
            masked_positions: (B, N) tokens hidden from the student, for the masked loss; None draws them.
            return_loss: must be True; the argument tells transformers' Trainer that the model returns a loss.
            **kwargs: ignored.
        """
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        encoder = self.slap.audio_model
        seen = self.augmented(input_features, input_features_mask)
        masked = None
        if self.has_teacher:
            layout = encoder.layout_of(input_features, input_features_mask)
            if masked_positions is None:
                masked_positions = self._draw_masked_positions(layout.token_mask)
            masked, _ = encoder.encode(seen, input_features_mask, masked_positions, layout=layout)
        if masked is None:
            tokens, layout = encoder.encode(seen, input_features_mask)
        elif self.config.share_masked_pass:
            tokens = masked
        else:
            tokens, _ = encoder.encode(seen, input_features_mask, layout=layout)

        audio_embeds = self.slap.embed_clips(tokens, layout)
        text_embeds = self.slap.get_text_features(input_ids, attention_mask).pooler_output
        terms, metrics = {}, {}
        if self.config.contrastive_weight > 0:
            terms["contrastive"] = self.slap.contrastive_loss(audio_embeds, text_embeds)
        if masked is not None:
            with torch.no_grad():
                inputs = (input_features, input_features_mask)
                target_tokens, _ = self.teacher_audio_model.encode(*inputs, layout=layout)
            terms["masked"], metrics = self._masked_loss(masked, target_tokens, masked_positions, layout)
        if self.config.caption_weight > 0:
            labels = input_ids.masked_fill(attention_mask == 0, IGNORED) if labels is None else labels
            terms["caption"] = self._caption_loss(labels, tokens, layout)
        metrics["logit_scale"] = self.slap.logit_scale().detach()
        loss = sum(getattr(self.config, f"{name}_weight") * term for name, term in terms.items())
        return PreTrainingOutput(
            loss=loss, loss_terms=terms, metrics=metrics, audio_embeds=audio_embeds, text_embeds=text_embeds
        )

    def _draw_masked_positions(self, token_mask: Tensor) -> Tensor:
        if self.config.mask_style == "block":
            bands = self.config.audio_config.num_frequency_patches
            return block_masked_positions(token_mask, self.config.masking_ratio, bands)
        return random_masked_positions(token_mask, self.config.masking_ratio)

    def _masked_loss(
        self, tokens: Tensor, target_tokens: Tensor, masked_positions: Tensor, layout: PackedLayout
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        is_masked = pack(masked_positions, layout)  # (N,)
        with torch.no_grad():
            teacher_features = self.teacher_prototype_head(target_tokens[is_masked])
        features = self.prototype_head(tokens[is_masked])  # (M, bottleneck)
        prototypes = self.prototype_head.unit_prototypes()
        if self.freezes_prototypes:
            prototypes = prototypes.detach() + 0.0 * prototypes  # a zero gradient keeps every process in step
        seq_ids = layout.seq_ids[is_masked]
        if config.masked_loss_weighting == "clip":
            weights = clip_token_weights(seq_ids, layout.num_sequences)
        else:
            weights = global_mean(torch.ones_like(seq_ids, dtype=torch.float32), torch.count_nonzero(is_masked))
        with torch.autocast(tokens.device.type, enabled=False):
            result = prototype_loss(
                (features, prototypes),
                (teacher_features, self.teacher_prototype_head.unit_prototypes()),
                weights,
                student_temperature=config.student_temperature,
                target_rule=TargetRule(config.target_centering, self.teacher_temperature, self.teacher_center.clone()),
                chunk_size=config.masked_loss_chunk_size,
            )
        if self.training:
            update_center(self.teacher_center, result.score_sum, len(features), config.center_momentum)
        return result.loss, result.metrics

    def _caption_loss(self, labels: Tensor, tokens: Tensor, layout: PackedLayout) -> Tensor:
        task = caption_task(labels, self.config.decoder_config.pad_token_id)
        states = self.caption_decoder.decode(task.decoder_input_ids, tokens, layout)
        return caption_loss(states, self.caption_decoder.output_embedding, task.targets)


class SlapForConditionalGeneration(CaptionGenerationMixin, SlapPreTrainedModel):
    """Writes captions with `generate`; holds the whole system, so that `AutoModel` finds it in the same folder.

    Example:
        >>> tower = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
        >>> text = {**tower, "model_type": "modernbert", "vocab_size": 30, "pad_token_id": 0}
        >>> tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3}
        >>> decoder = {**tower, **tokens, "vocab_size": 30, "encoder_hidden_size": 24}
        >>> config = SlapConfig(audio_config=tower, text_config=text, decoder_config=decoder)
        >>> model = SlapForConditionalGeneration(config).eval()
        >>> model.generate(input_features=torch.randn(2, 98, 64), max_new_tokens=4, min_new_tokens=4).shape
        torch.Size([2, 5])
    """

    main_input_name = "input_features"
    output_modalities = ("text",)
    _required_weights = r"(slap\.audio_model|caption_decoder)\."
    # the rest of a SlapForPreTraining checkpoint
    _keys_to_ignore_on_load_unexpected = [r"^(teacher_|prototype_head)"]

    def __init__(self, config: SlapConfig):
        config.is_encoder_decoder = True
        super().__init__(config)
        _check_decoder(config)
        self.slap = SlapModel(config)
        self.caption_decoder = build_caption_decoder(config.decoder_config)
        self.set_generation_defaults(config)
        self.post_init()


def _projection(width: int, projection_dim: int | None) -> nn.Module:
    return nn.Identity() if projection_dim is None else nn.Linear(width, projection_dim, bias=False)


def _check_decoder(config: SlapConfig) -> None:
    """Raises ValueError if the decoder expects another width than the encoder's, or lacks a token of captions."""
    given, needed = config.decoder_config.encoder_hidden_size, config.audio_config.hidden_size
    if given != needed:
        raise ValueError(
            f"`decoder_config.encoder_hidden_size` must be the width of the audio encoder, {needed}, got {given}. Set "
            f"it to {needed}, or `caption_weight` to 0."
        )
    config.decoder_config.check_tokens("pad", "bos", "eos")


def _prototype_head(config: SlapConfig) -> PrototypeHead:
    return PrototypeHead(
        config.audio_config.hidden_size,
        config.prototype_hidden_size,
        config.prototype_bottleneck_size,
        config.num_prototypes,
        config.prototype_layers,
    )


__all__ = ["SlapForConditionalGeneration", "SlapForPreTraining", "SlapModel"]
