# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Classification heads on every audio encoder: labels of clips, and labels of frames.

input_features (B, T, F) -> audio encoder -> frames (B, T', D') or tokens (B, N, D)
    ...ForAudioClassification:      pooled over time -> head -> logits (B, C)
    ...ForAudioFrameClassification: every frame      -> head -> logits (B, T', C)

There is one pair of classes per configuration class. Those of a system hold its encoder under the same name,
`audio_model`, so that full, pre-training and captioning checkpoints load key for key; the rest of them is left out.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

from .configuration_audio_head import AudioHeadConfig
from .configuration_captionstew import CaptionStewConfig
from .configuration_htsat import HtsatConfig
from .configuration_m2d_clap import M2dClapConfig
from .configuration_m2d_clap_audio import M2dClapAudioConfig
from .configuration_mga_clap import MgaClapConfig
from .configuration_native_audio import NativeAudioConfig
from .configuration_slap import SlapConfig
from .configuration_slap_audio import SlapAudioConfig
from .configuration_zipformer import ZipformerConfig
from .layers_audio_head import AudioHead, frame_centres, label_loss
from .layers_packing import PackedLayout, pack, unpack
from .layers_patchout import masked_positions_2d, structured_patchout_positions
from .layers_pooling import AttentionPooling
from .modeling_audio_encoders import build_audio_encoder
from .modeling_loading import StrictTowersMixin
from .modeling_outputs import AudioEncoderOutput, FrameClassifierOutput

# encoder -> what leaves patches of it out in training
PATCHOUT = {
    "m2d_clap_audio_model": ("structured_patchout",),
    "slap_audio_model": ("time_patchout", "frequency_patchout"),
}


class AudioHeadPreTrainedModel(StrictTowersMixin, PreTrainedModel):
    """An audio encoder with a new head; `classifier` is the head."""

    config: AudioHeadConfig
    main_input_name = "input_features"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = [
        "ASTEmbeddings", "ASTLayer", "ConvNeXt", "HtsatBlock", "LocalityAwareAstLayer", "SlapAudioLayer", "VitLayer",
        "WhisperEncoderLayer", "ZipformerLayer",
    ]  # fmt: skip
    _required_weights = r"(audio_model|audio_pooling)\.(?!.*is_white$)"
    _keys_to_ignore_on_load_missing = [r"\.is_white$"]  # what a Zipformer's regularizers remember
    _keys_to_ignore_on_load_unexpected = [r"^(?!audio_model\.|classifier\.)", r"\.is_white$"]  # the rest of a system
    _supports_sdpa = True
    _pools: bool

    def __init__(self, config: AudioHeadConfig):
        super().__init__(config)
        audio_config = self.audio_config
        self._check_patchout(audio_config.model_type)
        if not self._pools and config.classifier_input == "tokens":
            raise ValueError(
                f"{type(self).__name__} labels frames, got `classifier_input` 'tokens'. Set it to 'frames', without "
                "patchout."
            )
        self.audio_model = build_audio_encoder(audio_config)
        is_frames = config.classifier_input == "frames"
        width = audio_config.frame_feature_size if is_frames else audio_config.hidden_size
        is_pretrained = self._pools and config.classifier_pooling == "pretrained"
        self.audio_pooling = self._pretrained_pooling() if is_pretrained else None
        self.classifier = self._new_head(width)
        self.post_init()

    @property
    def audio_config(self) -> AudioHeadConfig:
        """The configuration of the encoder."""
        return getattr(self.config, "audio_config", self.config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, AttentionPooling):
            init.xavier_uniform_(module.query)
        elif isinstance(module, AudioHead):
            init.normal_(module.linear.weight, std=0.01)  # M2D-CLAP's recipe; EVAR

    def get_input_embeddings(self) -> nn.Module:
        """Returns the encoder's patch projection or first convolution."""
        return self.audio_model.get_input_embeddings()

    def reset_head(self) -> None:
        """Replaces the head by a new one, for the classes of the config."""
        old = self.classifier.linear.weight
        self.classifier = self._new_head(old.shape[1]).to(old)
        self.classifier.apply(self._init_weights)

    def encode(
        self, input_features: Tensor, input_features_mask: Tensor | None, **kwargs
    ) -> tuple[AudioEncoderOutput, Tensor, Tensor]:
        """(output of the encoder, what the head reads (B, T', D), its bool mask (B, T'))."""
        if self.training and self._patchout():
            output = self._encode_visible(input_features, input_features_mask)
        else:
            output = self.audio_model(input_features, input_features_mask, **{**kwargs, "return_dict": True})
        if self.config.classifier_input == "tokens":
            return output, output.last_hidden_state, output.token_mask
        return output, output.frame_features, output.frame_mask

    def _pretrained_pooling(self) -> AttentionPooling:
        """The system's own pooling, under its name in the system: its weights load key for key."""
        raise ValueError(
            f"{type(self).__name__} has no pooling from its pre-training, got `classifier_pooling` 'pretrained'. Only "
            "SLAP has; choose 'mean' or 'attention'."
        )

    def _new_head(self, input_size: int) -> AudioHead:
        config = self.config
        attends = self._pools and config.classifier_pooling == "attention"
        if attends and input_size % config.classifier_heads != 0:
            raise ValueError(
                f"`classifier_heads` must divide the width of the {config.classifier_input}, {input_size}, got "
                f"{config.classifier_heads}. Choose a divisor."
            )
        return AudioHead(
            input_size,
            config.num_labels,
            pooling_heads=config.classifier_heads if attends else None,
            normalises=config.classifier_norm,
            dropout=config.classifier_dropout,
        )

    def _encode_visible(self, input_features: Tensor, input_features_mask: Tensor | None) -> AudioEncoderOutput:
        """Tokens of the patches that are not left out.

        SLAP's sliding windows count the tokens that are there: they reach further in time than without patchout.
        """
        config, bands = self.config, self.audio_config.num_frequency_patches
        if self.audio_config.model_type == "slap_audio_model":
            token_mask = self.audio_model.layout_of(input_features, input_features_mask).token_mask
            shares = (config.time_patchout, config.frequency_patchout)
            left_out = masked_positions_2d(token_mask, *shares, bands, is_time_major=True)
            layout = PackedLayout.from_mask(token_mask & ~left_out)
            tokens, layout = self.audio_model.encode(input_features, input_features_mask, layout=layout)
        else:
            grid = self.audio_model.patch_grid(input_features, input_features_mask)
            left_out = structured_patchout_positions(grid.token_mask, config.structured_patchout, bands)
            tokens, layout = self.audio_model.encode(input_features, input_features_mask, grid.of_clips(left_out))
        return AudioEncoderOutput(last_hidden_state=unpack(tokens, layout), token_mask=layout.token_mask)

    def _patchout(self) -> dict[str, float]:
        """The shares of patches that are left out, by the name of their field."""
        names = {name for of_encoder in PATCHOUT.values() for name in of_encoder}
        return {name: getattr(self.config, name) for name in sorted(names) if getattr(self.config, name) > 0}

    def _check_patchout(self, encoder: str) -> None:
        misfits = [name for name in self._patchout() if name not in PATCHOUT.get(encoder, ())]
        if misfits:
            raise ValueError(
                f"The encoder {encoder!r} cannot leave patches out by `{misfits[0]}`, got "
                f"{getattr(self.config, misfits[0])}. Set it to 0; known are {PATCHOUT}."
            )


class AudioClassificationModel(AudioHeadPreTrainedModel):
    """Labels of clips: the surface of all `...ForAudioClassification`."""

    _pools = True

    @can_return_tuple
    def forward(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        """Classifies clips.

        Args:
            input_features: (B, T, F) log-mel of the model's own feature extractor.
            input_features_mask: (B, T) True at real frames, or None when all are.
            labels: (B,) class ids or (B, C) shares of classes, see `label_loss`; None gives no loss.
            **kwargs: `output_hidden_states`, `output_attentions`; others are ignored.

        Returns:
            logits (B, C): softmax over classes for single-label, sigmoid of each for multi-label problems.
        """
        output, features, mask = self.encode(input_features, input_features_mask, **kwargs)
        logits = self.classifier(self.pooled(output, features, mask))
        return SequenceClassifierOutput(
            loss=None if labels is None else label_loss(logits, labels, self.config.problem_type),
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def pooled(self, output: AudioEncoderOutput, features: Tensor, mask: Tensor) -> Tensor:
        """One vector (B, D) per clip."""
        if self.audio_pooling is None:
            return self.classifier.pool(features, mask)
        layout = PackedLayout.from_mask(mask)
        return self.audio_pooling(pack(features, layout), layout)


class AudioFrameClassificationModel(AudioHeadPreTrainedModel):
    """Labels of frames: the surface of all `...ForAudioFrameClassification`, for sound event detection."""

    _pools = False

    @can_return_tuple
    def forward(
        self,
        input_features: Tensor,
        input_features_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs,
    ) -> FrameClassifierOutput:
        """Classifies output frames; those at padding have logits 0 and count in no loss.

        Args:
            input_features: (B, T, F) log-mel of the model's own feature extractor.
            input_features_mask: (B, T) True at real frames, or None when all are.
            labels: (B, T', C) shares of classes or (B, T') class ids of the output frames, or of the input frames
                (T in place of T'): then an output frame has the label of the input frame at its centre.
            **kwargs: `output_hidden_states`, `output_attentions`; others are ignored.

        Returns:
            logits (B, T', C).
        """
        output, frames, frame_mask = self.encode(input_features, input_features_mask, **kwargs)
        layout = PackedLayout.from_mask(frame_mask)
        packed_logits = self.classifier(pack(frames, layout))  # (real frames, C)
        loss = None
        if labels is not None:
            labels = self.frame_labels(labels, frame_mask, input_features.shape[1])
            loss = label_loss(packed_logits, pack(labels, layout), self.config.problem_type)  # not in batch order
        return FrameClassifierOutput(
            loss=loss,
            logits=unpack(packed_logits, layout),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            frame_mask=frame_mask,
        )

    def frame_labels(self, labels: Tensor, frame_mask: Tensor, num_input_frames: int) -> Tensor:
        """Labels of the output frames (B, T', ...) out of theirs or those of the input frames (B, T, ...).

        Raises:
            ValueError: if there are neither so many as output frames nor as input frames.
        """
        num_frames = frame_mask.shape[1]
        if labels.shape[1] == num_frames:
            return labels
        if labels.shape[1] != num_input_frames:
            raise ValueError(
                f"`labels` have {labels.shape[1]} frames, but there are {num_frames} output and {num_input_frames} "
                "input frames. Give one row per output frame, or one per frame of `input_features`."
            )
        config = self.audio_config
        stretches = hasattr(config, "frame_rate_of")  # HTS-AT: always the same number of frames
        rate_hz = config.frame_rate_of(num_input_frames) if stretches else config.frame_rate_hz
        offset = getattr(config, "frame_offset_seconds", 0.0)
        places = frame_centres(num_frames, rate_hz, offset, config.feature_frame_rate_hz)
        return labels[:, places.clamp(max=num_input_frames - 1).to(labels.device)]


class SlapAudioForAudioClassification(AudioClassificationModel):
    """Labels of clips on SLAP's encoder.

    Example:
        >>> config = SlapAudioConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=32,
        ...                          num_labels=5)
        >>> model = SlapAudioForAudioClassification(config).eval()
        >>> model(torch.randn(2, 98, 64)).logits.shape
        torch.Size([2, 5])
    """

    config: SlapAudioConfig
    base_model_prefix = "audio_model"
    _supports_flash_attn = True


class SlapAudioForAudioFrameClassification(AudioFrameClassificationModel):
    """Labels of frames on SLAP's encoder.

    Example:
        >>> config = SlapAudioConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=32,
        ...                          num_labels=5)
        >>> model = SlapAudioForAudioFrameClassification(config).eval()
        >>> model(torch.randn(2, 98, 64)).logits.shape
        torch.Size([2, 7, 5])
    """

    config: SlapAudioConfig
    base_model_prefix = "audio_model"
    _supports_flash_attn = True


class M2dClapAudioForAudioClassification(AudioClassificationModel):
    """Labels of clips on M2D's encoder.

    Example:
        >>> config = M2dClapAudioConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=3,
        ...                             intermediate_size=32, num_labels=5)
        >>> model = M2dClapAudioForAudioClassification(config).eval()
        >>> model(torch.randn(2, 98, 80)).logits.shape
        torch.Size([2, 5])
    """

    config: M2dClapAudioConfig
    base_model_prefix = "audio_model"
    _supports_flash_attn = True


class M2dClapAudioForAudioFrameClassification(AudioFrameClassificationModel):
    """Labels of frames on M2D's encoder.

    Example:
        >>> config = M2dClapAudioConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=3,
        ...                             intermediate_size=32, num_labels=5)
        >>> model = M2dClapAudioForAudioFrameClassification(config).eval()
        >>> model(torch.randn(2, 98, 80)).logits.shape
        torch.Size([2, 7, 5])
    """

    config: M2dClapAudioConfig
    base_model_prefix = "audio_model"
    _supports_flash_attn = True


class HtsatForAudioClassification(AudioClassificationModel):
    """Labels of clips on HTS-AT.

    Example:
        >>> config = HtsatConfig(patch_embeds_hidden_size=8, depths=[1, 1, 1, 1], num_attention_heads=[2, 2, 4, 4],
        ...                      hidden_size=64, num_labels=5)
        >>> model = HtsatForAudioClassification(config).eval()
        >>> model(torch.randn(2, 1001, 64)).logits.shape
        torch.Size([2, 5])
    """

    config: HtsatConfig
    base_model_prefix = "audio_model"


class HtsatForAudioFrameClassification(AudioFrameClassificationModel):
    """Labels of frames on HTS-AT.

    Example:
        >>> config = HtsatConfig(patch_embeds_hidden_size=8, depths=[1, 1, 1, 1], num_attention_heads=[2, 2, 4, 4],
        ...                      hidden_size=64, num_labels=5)
        >>> model = HtsatForAudioFrameClassification(config).eval()
        >>> model(torch.randn(2, 1001, 64)).logits.shape
        torch.Size([2, 32, 5])
    """

    config: HtsatConfig
    base_model_prefix = "audio_model"


class NativeAudioForAudioClassification(AudioClassificationModel):
    """Labels of clips on an encoder of transformers.

    Example:
        >>> ast = {"model_type": "audio-spectrogram-transformer", "hidden_size": 24, "num_hidden_layers": 1,
        ...        "num_attention_heads": 3, "intermediate_size": 32, "num_mel_bins": 36, "max_length": 116}
        >>> config = NativeAudioConfig(encoder_config=ast, num_labels=5)
        >>> model = NativeAudioForAudioClassification(config).eval()
        >>> model(torch.randn(2, 98, 36)).logits.shape
        torch.Size([2, 5])
    """

    config: NativeAudioConfig
    base_model_prefix = "audio_model"
    _supports_flash_attn = True


class NativeAudioForAudioFrameClassification(AudioFrameClassificationModel):
    """Labels of frames on an encoder of transformers.

    Example:
        >>> ast = {"model_type": "audio-spectrogram-transformer", "hidden_size": 24, "num_hidden_layers": 1,
        ...        "num_attention_heads": 3, "intermediate_size": 32, "num_mel_bins": 36, "max_length": 116}
        >>> config = NativeAudioConfig(encoder_config=ast, num_labels=5)
        >>> model = NativeAudioForAudioFrameClassification(config).eval()
        >>> model(torch.randn(2, 98, 36)).logits.shape
        torch.Size([2, 11, 5])
    """

    config: NativeAudioConfig
    base_model_prefix = "audio_model"
    _supports_flash_attn = True


class ZipformerForAudioClassification(AudioClassificationModel):
    """Labels of clips on a Zipformer.

    Example:
        >>> config = ZipformerConfig(
        ...     num_encoder_layers=[1], encoder_dim=[16, 24], encoder_unmasked_dim=[16], feedforward_dim=[32],
        ...     num_heads=[2], cnn_module_kernel=[5], downsampling_factor=[1, 2], embed_channels=[2, 4, 8],
        ...     num_labels=5)
        >>> model = ZipformerForAudioClassification(config).eval()
        >>> model(torch.randn(2, 98, 80)).logits.shape
        torch.Size([2, 5])
    """

    config: ZipformerConfig
    base_model_prefix = "audio_model"
    _supports_sdpa = False  # attention weights are used three times


class ZipformerForAudioFrameClassification(AudioFrameClassificationModel):
    """Labels of frames on a Zipformer.

    Example:
        >>> config = ZipformerConfig(
        ...     num_encoder_layers=[1], encoder_dim=[16, 24], encoder_unmasked_dim=[16], feedforward_dim=[32],
        ...     num_heads=[2], cnn_module_kernel=[5], downsampling_factor=[1, 2], embed_channels=[2, 4, 8],
        ...     num_labels=5)
        >>> model = ZipformerForAudioFrameClassification(config).eval()
        >>> model(torch.randn(2, 98, 80)).logits.shape
        torch.Size([2, 23, 5])
    """

    config: ZipformerConfig
    base_model_prefix = "audio_model"
    _supports_sdpa = False  # attention weights are used three times


class SlapForAudioClassification(AudioClassificationModel):
    """Labels of clips on the audio encoder of a SLAP checkpoint.

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> config = SlapConfig(audio_config=audio, projection_dim=16, masked_weight=0.0, num_labels=5)
        >>> model = SlapForAudioClassification(config).eval()
        >>> model(torch.randn(2, 98, 64)).logits.shape
        torch.Size([2, 5])
    """

    config: SlapConfig
    base_model_prefix = "slap"
    _supports_flash_attn = True

    def _pretrained_pooling(self) -> AttentionPooling:
        if self.config.classifier_input != "tokens":
            raise ValueError(
                "The pooling of SLAP's pre-training reads tokens, got `classifier_input` "
                f"{self.config.classifier_input!r}. Set it to 'tokens'."
            )
        config = self.config
        return AttentionPooling(config.audio_config.hidden_size, config.audio_pooling_heads, config.rms_norm_eps)


class SlapForAudioFrameClassification(AudioFrameClassificationModel):
    """Labels of frames on the audio encoder of a SLAP checkpoint.

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> config = SlapConfig(audio_config=audio, projection_dim=16, masked_weight=0.0, num_labels=5)
        >>> model = SlapForAudioFrameClassification(config).eval()
        >>> model(torch.randn(2, 98, 64)).logits.shape
        torch.Size([2, 7, 5])
    """

    config: SlapConfig
    base_model_prefix = "slap"
    _supports_flash_attn = True


class M2dClapForAudioClassification(AudioClassificationModel):
    """Labels of clips on the audio encoder of a M2D-CLAP checkpoint.

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> config = M2dClapConfig(audio_config=audio, masked_weight=0.0, masking_ratio=0.0, num_labels=5)
        >>> model = M2dClapForAudioClassification(config).eval()
        >>> model(torch.randn(2, 98, 64)).logits.shape
        torch.Size([2, 5])
    """

    config: M2dClapConfig
    base_model_prefix = "m2d_clap"
    _supports_flash_attn = True


class M2dClapForAudioFrameClassification(AudioFrameClassificationModel):
    """Labels of frames on the audio encoder of a M2D-CLAP checkpoint.

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> config = M2dClapConfig(audio_config=audio, masked_weight=0.0, masking_ratio=0.0, num_labels=5)
        >>> model = M2dClapForAudioFrameClassification(config).eval()
        >>> model(torch.randn(2, 98, 64)).logits.shape
        torch.Size([2, 7, 5])
    """

    config: M2dClapConfig
    base_model_prefix = "m2d_clap"
    _supports_flash_attn = True


class MgaClapForAudioClassification(AudioClassificationModel):
    """Labels of clips on the audio encoder of a MGA-CLAP checkpoint.

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> config = MgaClapConfig(audio_config=audio, num_labels=5)
        >>> model = MgaClapForAudioClassification(config).eval()
        >>> model(torch.randn(2, 98, 64)).logits.shape
        torch.Size([2, 5])
    """

    config: MgaClapConfig
    base_model_prefix = "mga_clap"


class MgaClapForAudioFrameClassification(AudioFrameClassificationModel):
    """Labels of frames on the audio encoder of a MGA-CLAP checkpoint.

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> config = MgaClapConfig(audio_config=audio, num_labels=5)
        >>> model = MgaClapForAudioFrameClassification(config).eval()
        >>> model(torch.randn(2, 98, 64)).logits.shape
        torch.Size([2, 7, 5])
    """

    config: MgaClapConfig
    base_model_prefix = "mga_clap"


class CaptionStewForAudioClassification(AudioClassificationModel):
    """Labels of clips on the audio encoder of a CaptionStew checkpoint.

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> config = CaptionStewConfig(audio_config=audio, num_labels=5)
        >>> model = CaptionStewForAudioClassification(config).eval()
        >>> model(torch.randn(2, 98, 64)).logits.shape
        torch.Size([2, 5])
    """

    config: CaptionStewConfig
    base_model_prefix = "captionstew"


class CaptionStewForAudioFrameClassification(AudioFrameClassificationModel):
    """Labels of frames on the audio encoder of a CaptionStew checkpoint.

    Example:
        >>> audio = {"model_type": "slap_audio_model", "hidden_size": 24, "num_hidden_layers": 1,
        ...          "num_attention_heads": 3, "intermediate_size": 32}
        >>> config = CaptionStewConfig(audio_config=audio, num_labels=5)
        >>> model = CaptionStewForAudioFrameClassification(config).eval()
        >>> model(torch.randn(2, 98, 64)).logits.shape
        torch.Size([2, 7, 5])
    """

    config: CaptionStewConfig
    base_model_prefix = "captionstew"


__all__ = [
    "CaptionStewForAudioClassification",
    "CaptionStewForAudioFrameClassification",
    "HtsatForAudioClassification",
    "HtsatForAudioFrameClassification",
    "M2dClapAudioForAudioClassification",
    "M2dClapAudioForAudioFrameClassification",
    "M2dClapForAudioClassification",
    "M2dClapForAudioFrameClassification",
    "MgaClapForAudioClassification",
    "MgaClapForAudioFrameClassification",
    "NativeAudioForAudioClassification",
    "NativeAudioForAudioFrameClassification",
    "SlapAudioForAudioClassification",
    "SlapAudioForAudioFrameClassification",
    "SlapForAudioClassification",
    "SlapForAudioFrameClassification",
    "ZipformerForAudioClassification",
    "ZipformerForAudioFrameClassification",
]
