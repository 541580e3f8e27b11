# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""An audio encoder of transformers with the fields and the masks of ours: AST, or the encoder of Whisper.

input_features (B, T, F) -> SpecAugment -> filled up to max_frames -> native encoder -> without AST's leading tokens:
last_hidden_state (B, N, D), and frame_features (B, T', D), the mean over the frequency rows

The last blocks of an AST may be locality-aware (MGA-CLAP 3.3): a position's values go to that position alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTLayer
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import can_return_tuple, logging

from .configuration_native_audio import AST, WHISPER, NativeAudioConfig
from .layers_attention import step_similarities
from .layers_packing import PackedLayout, pack
from .layers_pooling import masked_mean
from .layers_spec_augment import spec_augment
from .modeling_loading import StrictTowersMixin
from .modeling_outputs import AudioEncoderOutput

logger = logging.get_logger(__name__)
AST_LEADING_TOKENS = 2  # class and distillation token


class LocalityAwareAstLayer(ASTLayer):
    """A block of AST whose attention output is its values: u = x + proj(V), then u + MLP(norm(u)) (MGA-CLAP 3.3).

    Query and key weights, and those of the MLP with `locality_mlp` "skip", are unused. They stay in the state dict, so
    that weights of plain blocks load, and are not trained.
    """

    def __init__(self, config, locality_mlp: str):
        super().__init__(config)
        self.skips_mlp = locality_mlp == "skip"

    def unused_modules(self) -> list[nn.Module]:
        """Returns the modules that take no part in `forward`."""
        modules = [self.attention.q_proj, self.attention.k_proj]
        return [*modules, self.mlp] if self.skips_mlp else modules

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs) -> Tensor:
        """Returns the shape of `hidden_states` (B, N, D); each token depends on itself alone."""
        values = self.attention.v_proj(self.layernorm_before(hidden_states))
        hidden_states = hidden_states + self.dropout(self.attention.o_proj(values))
        update = self.layernorm_after(hidden_states)
        return hidden_states + self.dropout(update if self.skips_mlp else self.mlp(update))


class NativeAudioModel(StrictTowersMixin, PreTrainedModel):
    """AST or Whisper's encoder as an audio tower; the attribute `encoder` is the native model.

    The native models have a fixed input length and know no padding mask: what a short clip is filled up with takes
    part in attention, as in their own training. Clips of a batch never see each other, and how long the others are
    changes nothing. Outputs beyond a clip's end are left out by the masks; output frame k is real if the first input
    frame of its patch is. Published weights come in by `from_native`.

    Example:
        >>> ast = {"model_type": "audio-spectrogram-transformer", "hidden_size": 24, "num_hidden_layers": 2,
        ...        "num_attention_heads": 3, "intermediate_size": 32, "num_mel_bins": 36, "max_length": 116}
        >>> model = NativeAudioModel(NativeAudioConfig(encoder_config=ast, locality_blocks=1)).eval()
        >>> output = model(torch.randn(2, 98, 36))
        >>> output.last_hidden_state.shape, output.frame_features.shape, output.frame_mask.sum(1)
        (torch.Size([2, 33, 24]), torch.Size([2, 11, 24]), tensor([10, 10]))
    """

    config: NativeAudioConfig
    base_model_prefix = "audio_model"
    main_input_name = "input_features"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["ASTEmbeddings", "ASTLayer", "LocalityAwareAstLayer", "WhisperEncoderLayer"]
    _keys_to_ignore_on_load_unexpected = [r"^(text_|audio_p|logit_scale|codebook|temperature)"]  # the rest of a system
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: NativeAudioConfig):
        super().__init__(config)
        self.encoder = _native_encoder(config)
        self.post_init()
        self._freeze_unused()

    @classmethod
    def from_native(cls, native: PreTrainedModel, **fields) -> "NativeAudioModel":
        """An audio tower with the weights of a native model.

        Args:
            native: an `ASTModel`, a `WhisperModel` or a Whisper encoder, as `from_pretrained` gave it.
            **fields: of the `NativeAudioConfig`, other than `encoder_config`.
        """
        model = cls(NativeAudioConfig(encoder_config=native.config, **fields))
        model.encoder.load_state_dict(getattr(native, "encoder", native).state_dict())
        return model.train(native.training)

    def train(self, mode: bool = True) -> "NativeAudioModel":
        """Switches the mode; what can have no gradient, and Whisper's sine table, stays without."""
        super().train(mode)
        self._freeze_unused()  # from_pretrained makes every parameter trainable, and ends with eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        """Returns the native encoder's patch embedding or first convolution."""
        return self.encoder.get_input_embeddings()

    @can_return_tuple
    def forward(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> AudioEncoderOutput:
        """Encodes a batch of log-mels.

        Args:
            input_features: (B, T, F) normalised log-mel, T up to `config.max_frames`; padding may hold anything.
            input_features_mask: (B, T) True at real frames, or None when all are.
            masked_positions: must be None, native encoders cannot hide tokens.
            output_hidden_states: also return the native model's hidden states, AST's without its leading tokens.
            output_attentions: also return the native model's attention weights, AST's leading tokens included and
                locality-aware blocks left out; needs `attn_implementation="eager"`.
            **kwargs: ignored.

        Returns:
            Tokens in the native order, frequency row after frequency row for AST; `frame_features` are their mean over
            the rows, `pooler_output` the mean of those over time.

        Raises:
            ValueError: if mel bins or mask do not fit, the input is too long, or positions are to be masked.
        """
        config = self.config
        wants_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        wants_weights = config.output_attentions if output_attentions is None else output_attentions
        if wants_weights and config._attn_implementation != "eager":
            logger.warning_once("`output_attentions` gives None: load the model with `attn_implementation='eager'`.")
        if masked_positions is not None:
            raise ValueError(
                f"`masked_positions` is {tuple(masked_positions.shape)}, but the native encoder "
                f"{config.encoder_config.model_type!r} cannot hide tokens. Leave it out, or choose another encoder."
            )
        features, frame_mask = self._native_input(input_features, input_features_mask)
        token_mask = frame_mask.repeat(1, config.num_frequency_patches)  # (B, N)
        output = self.encoder(features, output_hidden_states=wants_states, output_attentions=wants_weights)
        last_hidden_state = self._real_tokens(output.last_hidden_state, token_mask)
        frame_features = self.time_steps(last_hidden_state, input_features.shape[1]).mean(2)
        states = output.get("hidden_states")
        return AudioEncoderOutput(
            last_hidden_state=last_hidden_state,
            pooler_output=masked_mean(frame_features, frame_mask),
            hidden_states=states and tuple(self._real_tokens(state, token_mask) for state in states),
            attentions=output.get("attentions"),
            token_mask=token_mask,
            frame_features=frame_features,
            frame_mask=frame_mask,
        )

    def encode(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        masked_positions: Tensor | None = None,
    ) -> tuple[Tensor, PackedLayout]:
        """Encodes a batch of log-mels and packs the real tokens.

        Args:
            input_features: see `forward`; the others too.
            input_features_mask: see `forward`.
            masked_positions: see `forward`.

        Returns:
            (N, D) tokens after the final norm in packed order, and their layout.
        """
        output = self(input_features, input_features_mask, masked_positions, return_dict=True)
        layout = PackedLayout.from_mask(output.token_mask)
        return pack(output.last_hidden_state, layout), layout

    def time_steps(self, tokens: Tensor, num_frames: int) -> Tensor:
        """Tokens of each output frame: (B, N, ...) -> (B, T', rows, ...); T' is fixed, whatever `num_frames` is."""
        return tokens.unflatten(1, (self.config.num_frequency_patches, -1)).transpose(1, 2)

    def last_block_similarities(self, input_features: Tensor) -> tuple[Tensor, Tensor]:
        """How alike output frames are in the last block of an AST, by queries and keys and by values (Figure 3).

        Args:
            input_features: (B, T, F) normalised log-mel, clips of one length.

        Returns:
            Softmax of query-key and of value-value products, both (B, T', T') for the T' frames of real input. They
            are taken over all patches of those frames, without AST's leading tokens, and are the mean over heads and
            over the frequency rows of the querying frame, the sum over the rows of the other: rows sum to 1.

        Raises:
            ValueError: for an encoder other than AST.
        """
        if self.config.encoder_config.model_type != AST:
            raise ValueError(
                f"Similarities are those of a last block of AST, got the encoder "
                f"{self.config.encoder_config.model_type!r}. Choose an AST."
            )
        features, frame_mask = self._native_input(input_features, None)
        states = self.encoder(features, output_hidden_states=True).hidden_states[-2]  # what the last block reads
        layer, heads = self.encoder.layers[-1], self.config.num_attention_heads
        tokens = self.time_steps(layer.layernorm_before(states)[:, AST_LEADING_TOKENS:], input_features.shape[1])
        tokens = tokens[:, : int(frame_mask[0].sum())]  # (B, T', rows, D)
        query, key, value = (
            project(tokens)  # (B, T', rows, D)
            for project in (layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj)
        )
        return step_similarities(query, key, heads), step_similarities(value, value, heads)

    def _native_input(self, input_features: Tensor, input_features_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The features as the native model wants them, of fixed length, and the mask (B, T') of its output frames."""
        frame_mask = self._checked_mask(input_features, input_features_mask)
        config = self.config
        features = input_features.to(self.dtype)
        if self.training and config.spec_augment_time_stripes + config.spec_augment_mel_stripes > 0:
            features = spec_augment(
                features,
                frame_mask.sum(1),
                time_stripes=config.spec_augment_time_stripes,
                time_width=config.spec_augment_time_width,
                time_share=config.spec_augment_time_share,
                mel_stripes=config.spec_augment_mel_stripes,
                mel_width=config.spec_augment_mel_width,
            )
        features = torch.where(frame_mask.unsqueeze(-1), features, config.padding_value)
        tail = config.max_frames - features.shape[1]
        features = F.pad(features, (0, 0, 0, tail), value=config.padding_value)
        is_real = F.pad(frame_mask, (0, tail))[:, :: config.frame_stride][:, : config.num_time_patches]
        return features.transpose(1, 2) if config.encoder_config.model_type == WHISPER else features, is_real

    def _checked_mask(self, input_features: Tensor, input_features_mask: Tensor | None) -> Tensor:
        """The mask (B, T) of real frames, after checking that all shapes fit."""
        config = self.config
        has_frames = input_features.ndim == 3 and input_features.shape[1] > 0
        if not has_frames or input_features.shape[-1] != config.num_mel_bins:
            raise ValueError(
                f"`input_features` must be (batch, frames, {config.num_mel_bins} mel bins) with a frame, got "
                f"{tuple(input_features.shape)}. Use the model's own feature extractor."
            )
        num_frames = input_features.shape[1]
        if num_frames > config.max_frames:
            raise ValueError(
                f"`input_features` has {num_frames} frames, but the native encoder "
                f"{config.encoder_config.model_type!r} reads {config.max_frames}, "
                f"{config.max_frames / config.feature_frame_rate_hz:g} seconds. Cut the clips to that length "
                "(`max_seconds` of the feature extractor), or choose an encoder for longer ones."
            )
        if input_features_mask is None:
            return torch.ones_like(input_features[..., 0], dtype=torch.bool)
        if input_features_mask.shape != input_features.shape[:2]:
            raise ValueError(
                f"`input_features_mask` must be {tuple(input_features.shape[:2])} as the frames of `input_features`, "
                f"got {tuple(input_features_mask.shape)}. Pass the mask that the feature extractor returned."
            )
        return input_features_mask.to(torch.bool)

    def _real_tokens(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """Without AST's leading tokens, zeros at padding."""
        leading = AST_LEADING_TOKENS if self.config.encoder_config.model_type == AST else 0
        return torch.where(token_mask.unsqueeze(-1), tokens[:, leading:], 0.0)

    def _freeze_unused(self) -> None:
        if isinstance(self.encoder, WhisperEncoder):
            self.encoder.embed_positions.requires_grad_(False)
        for layer in self.encoder.layers:
            for module in layer.unused_modules() if isinstance(layer, LocalityAwareAstLayer) else ():
                module.requires_grad_(False)


def _native_encoder(config: NativeAudioConfig) -> PreTrainedModel:
    """The native model; transformers builds Whisper as a whole, of which only the encoder is made here."""
    native = config.encoder_config
    if native.model_type == WHISPER:
        return WhisperEncoder(native)
    encoder = AutoModel.from_config(native)
    for layer in range(config.num_hidden_layers - config.locality_blocks, config.num_hidden_layers):
        encoder.layers[layer] = LocalityAwareAstLayer(native, config.locality_mlp)
    return encoder


__all__ = ["NativeAudioModel"]
