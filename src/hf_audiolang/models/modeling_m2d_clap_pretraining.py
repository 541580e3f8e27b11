# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Training of M2D-CLAP: masked modelling with a teacher, alignment with captions, or both (M2D-CLAP III-B, Eq. 5).

visible patches -> M2dClapAudioModel -> latents -> predictor -> predictions
                                                                  | masked loss, Eq. 1
hidden patches -> teacher layers (EMA) -------------------------> targets

latents -> audio projection -> audio_embeds
                                 | contrastive loss, Eq. 3, 4
caption ---------------------> text_embeds
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import can_return_tuple

from .configuration_m2d_clap import M2dClapConfig
from .layers_masking import (
    hide_one_each,
    show_one_each,
    span_positions,
    structured_positions,
    uniform_positions,
)
from .layers_packing import PackedLayout, drop_leading_token, pack, unpack
from .layers_position import resize_table_2d, sincos_table_2d
from .layers_teacher import freeze_teacher, update_teacher
from .layers_vit import VitLayer
from .losses_regression import feature_regression_loss
from .modeling_m2d_clap import M2dClapModel, M2dClapPreTrainedModel
from .modeling_m2d_clap_audio import PatchGrid
from .modeling_outputs import PreTrainingOutput


class M2dPredictor(nn.Module):
    """Predicts the teacher's features at hidden tokens from the latents of the visible ones (III-A1)."""

    def __init__(self, config: M2dClapConfig):
        super().__init__()
        audio, width = config.audio_config, config.predictor_hidden_size
        self.num_bands = audio.num_frequency_patches
        self.in_proj = nn.Linear(audio.hidden_size, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        num_tokens = 1 + self.num_bands * audio.num_time_patches
        self.register_buffer("position_embeddings", torch.empty(num_tokens, width))
        sizes = (width, config.predictor_num_heads, config.predictor_intermediate_size, audio.layer_norm_eps)
        self.layers = nn.ModuleList(VitLayer(audio, *sizes) for _ in range(config.predictor_num_layers))
        self.norm = nn.LayerNorm(width, eps=audio.layer_norm_eps)
        self.out_proj = nn.Linear(width, audio.hidden_size)

    def forward(self, latents: Tensor, grid: PatchGrid, visible: PackedLayout, hidden: PackedLayout) -> Tensor:
        """Returns (M, D) predictions at the tokens of `hidden`, in its order.

        Args:
            latents: (N + B, D) the encoder's output with class tokens.
            grid: the patches of the batch.
            visible: layout of the visible tokens, without class tokens.
            hidden: layout of the hidden tokens.
        """
        place = visible.with_leading_token().token_index  # where each latent stands in the (B, 1 + L) grid
        batch, num_tokens = grid.token_mask.shape
        projected = self.in_proj(latents)
        tokens = self.mask_token.to(projected.dtype).expand(batch * (1 + num_tokens), -1)
        tokens = tokens.index_copy(0, place, projected).unflatten(0, (batch, -1))
        full = PackedLayout.from_mask(grid.token_mask).with_leading_token()
        hidden_states = (tokens + self._positions(grid.num_columns)).to(self.norm.weight.dtype)
        hidden_states = pack(hidden_states, full)
        for layer in self.layers:
            hidden_states, _ = layer(hidden_states, full)
        at_hidden = pack(unpack(hidden_states, full)[:, 1:], hidden)
        return self.out_proj(self.norm(at_hidden))

    def _positions(self, num_columns: int) -> Tensor:
        """Positions (1 + L, width) of rows of `num_columns` columns: the first columns of the table."""
        return resize_table_2d(self.position_embeddings, self.num_bands, num_columns)


class M2dClapForPreTraining(M2dClapPreTrainedModel):
    """M2D-CLAP with predictor and teacher: `model(**batch).loss` is the whole objective.

    Which loss terms there are follows from the weights in the configuration: M2D alone (`contrastive_weight` 0),
    stage 1 (both), stages 2 and 2.1 (`masked_weight` 0, where the run freezes the audio encoder). Hidden tokens never
    enter the encoder. Clips must fit into the position table. Another encoder than M2D's hides nothing and is aligned
    with captions only.

    Example:
        >>> tower = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
        >>> sizes = {"predictor_hidden_size": 16, "predictor_num_layers": 1, "predictor_num_heads": 2}
        >>> model = M2dClapForPreTraining(M2dClapConfig(audio_config=tower, text_embedding_size=12, **sizes))
        >>> sorted(model(torch.randn(2, 98, 80), text_embeddings=torch.randn(2, 12)).loss_terms)
        ['contrastive', 'masked']
    """

    main_input_name = "input_features"
    _required_weights = r"m2d_clap\."

    def __init__(self, config: M2dClapConfig):
        super().__init__(config)
        self.m2d_clap = M2dClapModel(config)
        self.has_teacher = config.masked_weight > 0
        if self.has_teacher:
            audio = config.audio_config
            self.predictor = M2dPredictor(config)
            sizes = (audio.hidden_size, audio.num_attention_heads, audio.intermediate_size, audio.layer_norm_eps)
            layers = nn.ModuleList(VitLayer(audio, *sizes) for _ in range(audio.num_hidden_layers))
            self.teacher_layers = freeze_teacher(layers)
            self.teacher_norm = freeze_teacher(nn.LayerNorm(audio.hidden_size, eps=audio.layer_norm_eps))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, M2dPredictor):
            init.normal_(module.mask_token, std=0.02)
            audio, width = self.config.audio_config, self.config.predictor_hidden_size
            table = sincos_table_2d(audio.num_frequency_patches, audio.num_time_patches, width)
            init.copy_(module.position_embeddings, table)
        elif module is getattr(self, "teacher_norm", None):
            self._start_teacher()

    def _start_teacher(self) -> None:
        """Copies the online layers where the teacher was neither loaded nor to start at random.

        Called with the teacher's last module: modules without weights of their own, as this class, are passed over.
        """
        student = next(self.m2d_clap.audio_model.layers.parameters())
        if self.config.teacher_init == "copy" or getattr(student, "_is_hf_initialized", False):
            for teacher, online in self.teacher_pairs():
                for target, source in zip(teacher.parameters(), online.parameters(), strict=True):
                    init.copy_(target, source)

    @property
    def exported_model(self) -> PreTrainedModel:
        """What is left after training: the system, or the audio encoder where no captions were learned."""
        return self.m2d_clap if self.config.contrastive_weight > 0 else self.m2d_clap.audio_model

    @property
    def has_text_input(self) -> bool:
        """Whether `forward` needs captions."""
        return self.config.contrastive_weight > 0

    def get_input_embeddings(self) -> nn.Module | None:
        """Returns the token embedding of the text encoder, None without one."""
        return self.m2d_clap.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding of the text encoder."""
        self.m2d_clap.set_input_embeddings(value)

    def resize_positions(self, max_frames: int) -> None:
        """Changes the longest clip, in frames, for encoder and predictor; see `M2dClapAudioModel.resize_positions`."""
        self.m2d_clap.audio_model.resize_positions(max_frames)
        if self.has_teacher:
            audio, table = self.config.audio_config, self.predictor.position_embeddings
            resized = resize_table_2d(table, audio.num_frequency_patches, audio.num_time_patches)
            self.predictor.position_embeddings = resized

    def teacher_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Returns (teacher, online) modules; empty without the masked loss."""
        if not self.has_teacher:
            return []
        encoder = self.m2d_clap.audio_model
        return [(self.teacher_layers, encoder.layers), (self.teacher_norm, encoder.norm)]

    def update_teacher(self, decay: float) -> None:
        """Moves the teacher towards the online encoder; call after every optimizer step."""
        if self.has_teacher:
            update_teacher(self.teacher_pairs(), decay)

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Keeps the logit scale between 1 and its maximum."""
        self.m2d_clap.logit_scale.log_scale.clamp_(0.0, self.config.logit_scale_max)

    def train(self, mode: bool = True) -> "M2dClapForPreTraining":
        """Switches the online network only; the teacher stays in eval mode and without gradient."""
        super().train(mode)
        for teacher, _ in self.teacher_pairs():
            freeze_teacher(teacher)  # from_pretrained makes every parameter trainable, and ends with eval()
        return self

    @can_return_tuple
    def forward(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_embeddings: Tensor | None = None,
        masked_positions: Tensor | None = None,
        return_loss: bool = True,
        **kwargs,
    ) -> PreTrainingOutput:
        """The losses of paired clips and captions (Eq. 1, 4, 5).

        Args:
            input_features: (B, T, F) normalised log-mel. T may exceed `audio_config.max_frames` by less than a patch,
                as crops of just that duration do; those frames are left out.
            input_features_mask: (B, T) True at real frames, or None when all are.
            input_ids: (B, L) caption tokens, for a model with a text encoder.
            attention_mask: (B, L) True at real tokens, or None when all are.
            text_embeddings: (B, text_embedding_size) caption embeddings, instead of `input_ids`.
            masked_positions: (B, N) hidden tokens, frequency-major; None draws them as the configuration says.
            return_loss: must be True; the argument tells transformers' Trainer that the model returns a loss.
            **kwargs: `token_type_ids`; others are ignored.

        Raises:
            ValueError: if a clip is longer than the position table, or everything or nothing of a clip is hidden.
        """
        terms, audio_embeds, text_embeds = {}, None, None
        if self.config.hides_patches:
            inputs = self._within_table(input_features, input_features_mask)
            latents, grid, visible, masked_positions = self._encode_visible(*inputs, masked_positions)
            tokens = drop_leading_token(latents, visible)
        else:
            tokens, visible = self.m2d_clap.audio_model.encode(input_features, input_features_mask, masked_positions)
        if self.has_teacher:
            terms["masked"] = self._masked_loss(latents, grid, visible, masked_positions)
        if self.config.contrastive_weight > 0:
            audio_embeds = self.m2d_clap.embed_clips(tokens, visible)
            text_inputs = {name: kwargs[name] for name in ("token_type_ids",) if name in kwargs}
            text = self.m2d_clap.get_text_features(input_ids, attention_mask, text_embeddings, **text_inputs)
            text_embeds = text.pooler_output
            terms["contrastive"] = self.m2d_clap.contrastive_loss(audio_embeds, text_embeds)
        loss = sum(getattr(self.config, f"{name}_weight") * term for name, term in terms.items())
        metrics = {"logit_scale": self.m2d_clap.logit_scale().detach()} if "contrastive" in terms else {}
        return PreTrainingOutput(
            loss=loss, loss_terms=terms, metrics=metrics, audio_embeds=audio_embeds, text_embeds=text_embeds
        )

    def _within_table(
        self, input_features: Tensor, input_features_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The batch without surplus frames of less than a patch."""
        audio = self.config.audio_config
        if input_features.shape[1] >= audio.max_frames + audio.patch_frames:
            raise ValueError(
                f"`input_features` has {input_features.shape[1]} frames, but the position table covers "
                f"{audio.max_frames}. Train on shorter crops (`max_seconds`), or call `resize_positions`."
            )
        mask = None if input_features_mask is None else input_features_mask[:, : audio.max_frames]
        return input_features[:, : audio.max_frames], mask

    def _encode_visible(
        self, input_features: Tensor, input_features_mask: Tensor | None, masked_positions: Tensor | None
    ) -> tuple[Tensor, PatchGrid, PackedLayout, Tensor]:
        """Latents (N + B, D) of the visible tokens with class tokens, the patches, and which are visible or hidden."""
        encoder = self.m2d_clap.audio_model
        grid = encoder.patch_grid(input_features, input_features_mask)
        if masked_positions is None:
            masked_positions = self._draw_masked_positions(grid.token_mask)
        masked_positions = encoder.hidden_tokens(grid, masked_positions)
        visible = PackedLayout.from_mask(grid.token_mask & ~masked_positions)
        return encoder.run_layers(encoder.embed(grid, visible), visible), grid, visible, masked_positions

    def _draw_masked_positions(self, token_mask: Tensor) -> Tensor:
        config = self.config
        ratio, bands = config.masking_ratio, config.audio_config.num_frequency_patches
        if ratio == 0:
            return torch.zeros_like(token_mask)
        if config.mask_style == "span":
            masked = span_positions(token_mask, ratio, bands, config.mask_span_columns)
        elif config.mask_style == "structured":
            masked = structured_positions(token_mask, ratio, bands, config.structured_keep)
        else:
            masked = uniform_positions(token_mask, ratio)
        masked = show_one_each(masked, token_mask)
        return hide_one_each(masked, token_mask) if self.has_teacher else masked

    def _masked_loss(
        self, latents: Tensor, grid: PatchGrid, visible: PackedLayout, masked_positions: Tensor
    ) -> Tensor:
        is_hidden = grid.token_mask & masked_positions
        if not is_hidden.any(1).all():
            raise ValueError(
                "`masked_positions` must hide at least one token of every clip for the masked loss, got none in rows "
                f"{(~is_hidden.any(1)).nonzero().flatten().tolist()}. Leave out clips that fill only one patch."
            )
        hidden = PackedLayout.from_mask(is_hidden)
        with torch.no_grad():
            encoder = self.m2d_clap.audio_model
            target = encoder.embed(grid, hidden)  # the online patches, positions and class token: M2D copies no others
            layout = hidden.with_leading_token()
            for layer in self.teacher_layers:
                target, _ = layer(target, layout)
            target = drop_leading_token(self.teacher_norm(target), hidden)
        predicted = self.predictor(latents, grid, visible, hidden)
        with torch.autocast(predicted.device.type, enabled=False):
            return feature_regression_loss(predicted, target, self.config.masked_loss)


__all__ = ["M2dClapForPreTraining"]
